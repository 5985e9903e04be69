//! What a command line says. Liberal in syntax: devices write these lines by hand.

use super::parameters::{MailParameters, RcptParameters, number};
use crate::mail::Address;
use crate::mail::AddressError;
use crate::mail::ReversePath;

/// One command (RFC 5321 §4.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// HELO with the client's name, which may be empty.
    Helo(String),
    /// EHLO with the client's name, which may be empty.
    Ehlo(String),
    /// MAIL FROM.
    Mail(Mail),
    /// RCPT TO.
    Rcpt(Rcpt),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// VRFY.
    Vrfy,
    /// EXPN.
    Expn,
    /// HELP.
    Help,
    /// QUIT.
    Quit,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954).
    Auth,
    /// BDAT (RFC 3030 §2).
    Bdat(Bdat),
    /// A header of the PROXY protocol, from somebody who may not send one.
    Proxy,
    /// The first line of another protocol.
    Foreign,
}

/// The arguments of MAIL (RFC 5321 §4.1.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mail {
    /// Where reports go.
    pub(super) path: ReversePath,
    /// What follows the path.
    pub(super) parameters: MailParameters,
}

/// The arguments of RCPT (RFC 5321 §4.1.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rcpt {
    /// Who gets the message.
    pub(super) recipient: Address,
    /// What follows the path.
    pub(super) parameters: RcptParameters,
}

/// The arguments of BDAT (RFC 3030 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bdat {
    /// How many octets follow its line, whatever becomes of the command.
    pub(super) octets: u64,
    /// True if it is the last chunk of the message; `None` if what stands there instead of LAST means nothing.
    pub(super) last: Option<bool>,
}

/// Why a line is not a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CommandError {
    /// No such command, or an empty line.
    Unknown,
    /// DATA or STARTTLS (RFC 3207 §4) with an argument.
    NoArguments,
    /// BDAT that does not say how many octets follow. Nobody knows then where the next command is.
    ChunkSize,
    /// MAIL without a usable sender.
    Sender(PathError),
    /// RCPT without a usable recipient.
    Recipient(PathError),
}

/// Why a path is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathError {
    /// The keyword FROM or TO, or what should follow it, is missing.
    #[error("the address is missing")]
    Missing,
    /// The address.
    #[error("{0}")]
    Address(#[from] AddressError),
    /// Neither ASCII nor UTF-8.
    #[error("the address is neither ASCII nor UTF-8")]
    Encoding,
}

/// Longest client name that is remembered: that of a domain (RFC 5321 §4.5.3.1.2).
const MAX_NAME: usize = 255;

/// First words of HTTP requests (RFC 9110 §9). No SMTP client says them; a browser that a web page sends here does,
/// and what follows would be that page's words.
const FOREIGN: [&[u8]; 9] = [
    b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT",
];

/// The third line of a binary PROXY header, after two empty ones. The text form begins with the word.
const PROXY_V2: &[u8] = b"\0";

/// Reads one line, with or without its line end.
pub(super) fn parse(line: &[u8]) -> Result<Command, CommandError> {
    let line = line.trim_ascii();
    let (verb, rest) = split_word(line);
    let is = |word: &str| verb.eq_ignore_ascii_case(word.as_bytes());
    Ok(if is("MAIL") {
        Command::Mail(mail(rest)?)
    } else if is("RCPT") {
        Command::Rcpt(rcpt(rest)?)
    } else if is("DATA") {
        if !rest.is_empty() {
            return Err(CommandError::NoArguments);
        }
        Command::Data
    } else if is("EHLO") {
        Command::Ehlo(name(rest))
    } else if is("HELO") {
        Command::Helo(name(rest))
    } else if is("RSET") {
        Command::Rset
    } else if is("NOOP") {
        Command::Noop
    } else if is("QUIT") {
        Command::Quit
    } else if is("VRFY") {
        Command::Vrfy
    } else if is("EXPN") {
        Command::Expn
    } else if is("HELP") {
        Command::Help
    } else if is("STARTTLS") {
        if !rest.is_empty() {
            return Err(CommandError::NoArguments);
        }
        Command::StartTls
    } else if is("AUTH") {
        Command::Auth
    } else if is("BDAT") {
        Command::Bdat(bdat(rest)?)
    } else if verb == b"PROXY" || line == PROXY_V2 {
        Command::Proxy
    } else if FOREIGN.contains(&verb) {
        Command::Foreign
    } else {
        return Err(CommandError::Unknown);
    })
}

/// True if a line that begins like this is BDAT, or may be: the octets that follow it are no commands.
pub(super) fn may_be_chunk(beginning: &[u8]) -> bool {
    let (verb, _) = split_word(beginning.trim_ascii_start());
    verb.is_empty() || verb.eq_ignore_ascii_case(b"BDAT")
}

fn mail(rest: &[u8]) -> Result<Mail, CommandError> {
    let (path, parameters) = path_after("FROM", rest).map_err(CommandError::Sender)?;
    let path = match path {
        "" => ReversePath::Null,
        address => ReversePath::Address(
            address
                .parse()
                .map_err(|e| CommandError::Sender(PathError::Address(e)))?,
        ),
    };
    let parameters = MailParameters::parse(parameters);
    Ok(Mail { path, parameters })
}

fn rcpt(rest: &[u8]) -> Result<Rcpt, CommandError> {
    let (path, parameters) = path_after("TO", rest).map_err(CommandError::Recipient)?;
    let recipient = path
        .parse()
        .map_err(|e| CommandError::Recipient(PathError::Address(e)))?;
    let parameters = RcptParameters::parse(parameters);
    Ok(Rcpt {
        recipient,
        parameters,
    })
}

fn bdat(rest: &[u8]) -> Result<Bdat, CommandError> {
    let (size, end) = split_word(rest);
    let octets = number(size).ok_or(CommandError::ChunkSize)?;
    let last = match end {
        b"" => Some(false),
        end if end.eq_ignore_ascii_case(b"LAST") => Some(true),
        _ => None,
    };
    Ok(Bdat { octets, last })
}

/// The address of `FROM:<address> parameters`, and the parameters.
///
/// The colon, the brackets and the closing bracket may be missing, blanks may stand around each of them, and a
/// display name may stand before the address. A source route is dropped (RFC 5321 §4.1.1.3).
fn path_after<'a>(keyword: &str, rest: &'a [u8]) -> Result<(&'a str, &'a [u8]), PathError> {
    let (word, rest) = rest.split_at_checked(keyword.len()).ok_or(PathError::Missing)?;
    if !word.eq_ignore_ascii_case(keyword.as_bytes()) {
        return Err(PathError::Missing);
    }
    let rest = rest.trim_ascii_start();
    let rest = rest.strip_prefix(b":").unwrap_or(rest).trim_ascii_start();
    if rest.is_empty() {
        return Err(PathError::Missing);
    }
    let (inside, parameters) = match opening_bracket(rest) {
        Some(at) => {
            let inside = rest.get(at + 1..).unwrap_or_default();
            match unquoted(inside, |b| b == b'>').or_else(|| unquoted(inside, |b| b.is_ascii_whitespace())) {
                Some(end) => (&inside[..end], inside.get(end + 1..).unwrap_or_default()),
                None => (inside, &b""[..]),
            }
        }
        None => match unquoted(rest, |b| b.is_ascii_whitespace()) {
            Some(end) => rest.split_at(end),
            None => (rest, &b""[..]),
        },
    };
    let inside = std::str::from_utf8(inside.trim_ascii()).map_err(|_| PathError::Encoding)?;
    let address = match inside.strip_prefix('@').and_then(|route| route.split_once(':')) {
        Some((_, address)) => address.trim_ascii(),
        None => inside,
    };
    Ok((address, parameters))
}

/// Where the `<` of the path is: the first one that stands neither in quotes nor in the value of a parameter.
fn opening_bracket(text: &[u8]) -> Option<usize> {
    let at = unquoted(text, |b| b == b'<')?;
    let before = text.get(..at).unwrap_or_default();
    let word = before.rsplit(u8::is_ascii_whitespace).next().unwrap_or_default();
    (!word.contains(&b'=')).then_some(at)
}

/// The first octet outside a quoted string that `wanted` says yes to.
fn unquoted(text: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.iter().position(|&b| {
        if escaped {
            escaped = false;
        } else if quoted && b == b'\\' {
            escaped = true;
        } else if b == b'"' {
            quoted = !quoted;
        } else {
            return !quoted && wanted(b);
        }
        false
    })
}

/// The client's name: whatever it calls itself, without control characters (a name is never a reason to refuse mail,
/// RFC 5321 §4.1.4).
fn name(rest: &[u8]) -> String {
    let mut name: String = String::from_utf8_lossy(rest)
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    name.truncate(name.floor_char_boundary(MAX_NAME));
    name
}

fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_bdat() {
        for (beginning, may) in [
            ("BDAT 1", true),
            (" \tbdat", true),
            ("BDAT\r\n", true),
            ("    ", true),
            ("BDATA 1", false),
            ("XBDAT 1", false),
            ("MAIL", false),
        ] {
            assert_eq!(may_be_chunk(beginning.as_bytes()), may, "{beginning:?}");
        }
    }

    #[test]
    fn paths_as_devices_write_them() {
        for (rest, address, parameters) in [
            ("FROM:<a@b.example>", "a@b.example", ""),
            ("from: <a@b.example> SIZE=1", "a@b.example", " SIZE=1"),
            ("FROM <a@b.example>", "a@b.example", ""),
            ("FROM :< a@b.example >X", "a@b.example", "X"),
            ("FROM:a@b.example AUTH=<>", "a@b.example", " AUTH=<>"),
            (
                "FROM:a@b.example ORCPT=rfc822;<x@y>",
                "a@b.example",
                " ORCPT=rfc822;<x@y>",
            ),
            ("FROM:<>", "", ""),
            ("FROM:<> AUTH=<>", "", " AUTH=<>"),
            ("FROM:\"A <x>\" <a@b.example>", "a@b.example", ""),
            ("FROM:Scanner<a@b.example>", "a@b.example", ""),
            ("FROM:a@b.example <a@b.example>", "a@b.example", ""),
            ("FROM:\"a b\"@b.example SIZE=1", "\"a b\"@b.example", " SIZE=1"),
            ("FROM:<\"a>b\\\"\"@b.example> X", "\"a>b\\\"\"@b.example", " X"),
            ("FROM:<a@b.example SIZE=1", "a@b.example", "SIZE=1"),
            ("FROM:<@one,@two:a@b.example>", "a@b.example", ""),
        ] {
            let read = path_after("FROM", rest.as_bytes());
            assert_eq!(read, Ok((address, parameters.as_bytes())), "{rest}");
        }
        for rest in ["", "FRO", "TO:<a@b>", "FROM:", "FROM: \t"] {
            assert_eq!(
                path_after("FROM", rest.as_bytes()),
                Err(PathError::Missing),
                "{rest}"
            );
        }
    }

    #[test]
    fn chunks() {
        for (line, octets, last) in [
            ("BDAT 12", 12, Some(false)),
            ("bdat 0 last", 0, Some(true)),
            ("BDAT\t12  LAST \r\n", 12, Some(true)),
            ("BDAT 12 LAST LAST", 12, None),
            ("BDAT 12 FIRST", 12, None),
            ("BDAT 99999999999999999999", u64::MAX, Some(false)),
        ] {
            assert_eq!(
                parse(line.as_bytes()),
                Ok(Command::Bdat(Bdat { octets, last })),
                "{line}"
            );
        }
        for line in [
            "BDAT",
            "BDAT LAST",
            "BDAT -1",
            "BDAT 1x",
            "BDAT 0x10 LAST",
            "BDAT +1",
        ] {
            assert_eq!(parse(line.as_bytes()), Err(CommandError::ChunkSize), "{line}");
        }
    }

    #[test]
    fn verbs() {
        for (line, command) in [
            (&b"quit\r\n"[..], Command::Quit),
            (b" \tQuIt \t ", Command::Quit),
            (b"NOOP whatever", Command::Noop),
            (b"GET / HTTP/1.1", Command::Foreign),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 1 25\r\n", Command::Proxy),
            (b"\0\r\n", Command::Proxy),
            (b"EHLO a\x01b \xff", Command::Ehlo("ab \u{fffd}".into())),
        ] {
            assert_eq!(parse(line), Ok(command), "{}", line.escape_ascii());
        }
        for line in [&b""[..], b"\r\n", b"QUITE", b"get /", b"\xff\xfe"] {
            assert_eq!(parse(line), Err(CommandError::Unknown), "{}", line.escape_ascii());
        }
        assert!(
            matches!(parse(format!("HELO {}", "ü".repeat(500)).as_bytes()), Ok(Command::Helo(n)) if n.len() == 254)
        );
    }
}
