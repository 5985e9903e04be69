//! Answers that are longer than a line of code, or given in more than one place.

use super::parameters::Why;
use super::session::MAX_RECIPIENTS;
use crate::mail::Reply;

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
