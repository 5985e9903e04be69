//! Answers that are longer than a line of code, or given in more than one place.

use super::parameters::Why;
use super::session::MAX_RECIPIENTS;
use crate::mail::Reply;
use crate::mail::header::MAX_HEADER_BLOCK;

/// HELP (RFC 5321 §4.1.1.8).
pub(super) fn help(max_message_size: u64) -> Reply {
    Reply::new(
        214,
        0,
        0,
        "This is smtp-oauth-bridge: it takes mail without a modern login and relays it with one.",
    )
    .line("A message: EHLO, MAIL FROM:<you@example.com>, RCPT TO:<them@example.com>, then DATA or BDAT, QUIT")
    .line("Besides: HELO RSET NOOP VRFY HELP, and STARTTLS and AUTH where EHLO shows them")
    .line(format!(
        "Limits: {MAX_RECIPIENTS} recipients and {max_message_size} octets a message"
    ))
    .line("What became of a message stands in the log of the bridge, under the id that follows its 250")
}

/// No room in the spool.
pub(super) fn full() -> Reply {
    Reply::new(
        452,
        3,
        1,
        "there is no room for more mail at the moment, try again later",
    )
}

/// A client is faster than `limit`, the value of this key, lets it.
pub(super) fn too_fast(what: &str, key: &str, limit: u32) -> Reply {
    Reply::new(
        450,
        7,
        1,
        format!(
            "too many {what} in a short time, try again in a minute; {key} = {limit} of this listener says how many \
             there may be"
        ),
    )
}

/// RFC 5321 §4.5.3.1.10: the client sends to those that it could name, and to the others in a message of its own.
pub(super) fn no_memory() -> Reply {
    Reply::new(
        452,
        3,
        1,
        "too many recipients of all clients at the moment: try again later, or send to the others in another message",
    )
}

/// A header that could never be sent (RFC 3463 §3.7: 6.0).
pub(super) fn header() -> Reply {
    Reply::new(
        554,
        6,
        0,
        format!(
            "the header of the message is longer than {} KiB, which no server takes: there must be an empty line \
             between header and text",
            MAX_HEADER_BLOCK / 1024
        ),
    )
}

/// Line ends that are forbidden by RFC 5321 §2.3.8, on a listener that refuses them: a rule of its operator (§4.2.2:
/// 550 is for these) about the content (RFC 3463 §3.7: 6.0).
pub(super) fn bare_newline() -> Reply {
    Reply::new(
        550,
        6,
        0,
        "the message has line ends other than <CR><LF>: correct them in the program that sends it, or set \
         bare_newline = \"normalize\" for this listener of the bridge",
    )
}

/// DATA or BDAT without a recipient (RFC 5321 §3.3).
pub(super) fn no_recipient() -> Reply {
    Reply::new(554, 5, 1, "there is no valid recipient: send RCPT TO first")
}

/// RFC 3030 §3: without BINARYMIME in our greeting it may not be used. It cannot be ignored, for the text may have
/// octets that mean something else when it is sent on.
pub(super) fn binary() -> Reply {
    Reply::new(
        555,
        5,
        4,
        "BODY=BINARYMIME is not offered here: encode the message as base64, or send it with BODY=8BITMIME",
    )
}

/// A parameter that is unknown (RFC 5321 §4.1.1.11: 555) or malformed (501), on a listener that is not lenient.
pub(super) fn parameter(parameter: &str, why: &Why) -> Reply {
    let shown: String = parameter
        .chars()
        .take(60)
        .map(|c| if c.is_ascii_graphic() { c } else { '?' })
        .collect();
    let reply = match why {
        Why::Malformed(what) => Reply::new(501, 5, 4, format!("{shown}: {what}")),
        _ => Reply::new(555, 5, 4, format!("{shown}: this parameter is not known here")),
    };
    reply.line("leave it out in the client, or set lenient = true for this listener of the bridge")
}
