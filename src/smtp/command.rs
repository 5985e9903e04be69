//! What a command line says. Liberal in syntax: devices write these lines by hand.

use crate::mail::Address;
use crate::mail::AddressError;
use crate::mail::BodyType;
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
    /// BDAT (RFC 3030 §2) and how many octets follow its line.
    Bdat(u64),
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
    /// SIZE= (RFC 1870 §6.1).
    pub(super) size: Option<u64>,
    /// BODY= (RFC 6152 §2).
    pub(super) body: BodyType,
    /// Parameters without effect.
    pub(super) ignored: Vec<Ignored>,
}

/// The arguments of RCPT (RFC 5321 §4.1.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rcpt {
    /// Who gets the message.
    pub(super) recipient: Address,
    /// Parameters without effect.
    pub(super) ignored: Vec<Ignored>,
}

/// A parameter without effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ignored {
    /// As it was written.
    pub(super) parameter: String,
    /// True if its meaning is known and it may be left out without harm: RET, ENVID, NOTIFY, ORCPT (RFC 3461),
    /// AUTH (RFC 4954 §5), SMTPUTF8 (RFC 6531).
    pub(super) known: bool,
}

/// Why a line is not a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CommandError {
    /// No such command, or an empty line.
    Unknown,
    /// DATA with an argument.
    NoArguments,
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
        Command::StartTls
    } else if is("AUTH") {
        Command::Auth
    } else if is("BDAT") {
        Command::Bdat(number(split_word(rest).0).unwrap_or(0))
    } else if verb == b"PROXY" || line == PROXY_V2 {
        Command::Proxy
    } else if FOREIGN.contains(&verb) {
        Command::Foreign
    } else {
        return Err(CommandError::Unknown);
    })
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
    let mut mail = Mail {
        path,
        size: None,
        body: BodyType::SevenBit,
        ignored: Vec::new(),
    };
    for parameter in words(parameters) {
        let (key, value) = match memchr::memchr(b'=', parameter) {
            Some(at) => (&parameter[..at], &parameter[at + 1..]),
            None => (parameter, &b""[..]),
        };
        if key.eq_ignore_ascii_case(b"SIZE")
            && let Some(size) = number(value)
        {
            mail.size = Some(size);
        } else if key.eq_ignore_ascii_case(b"BODY") && value.eq_ignore_ascii_case(b"8BITMIME") {
            mail.body = BodyType::EightBitMime;
        } else if key.eq_ignore_ascii_case(b"BODY") && value.eq_ignore_ascii_case(b"7BIT") {
            mail.body = BodyType::SevenBit;
        } else {
            mail.ignored
                .push(ignored(parameter, key, &["RET", "ENVID", "AUTH", "SMTPUTF8"]));
        }
    }
    Ok(mail)
}

fn rcpt(rest: &[u8]) -> Result<Rcpt, CommandError> {
    let (path, parameters) = path_after("TO", rest).map_err(CommandError::Recipient)?;
    let recipient = path
        .parse()
        .map_err(|e| CommandError::Recipient(PathError::Address(e)))?;
    let ignored = words(parameters)
        .map(|parameter| {
            let key = parameter.split(|&b| b == b'=').next().unwrap_or_default();
            ignored(parameter, key, &["NOTIFY", "ORCPT"])
        })
        .collect();
    Ok(Rcpt { recipient, ignored })
}

fn ignored(parameter: &[u8], key: &[u8], known: &[&str]) -> Ignored {
    Ignored {
        parameter: String::from_utf8_lossy(parameter).into_owned(),
        known: known.iter().any(|word| key.eq_ignore_ascii_case(word.as_bytes())),
    }
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

/// A number as RFC 1870 §4 writes it. One that is too large for us is as large as we can count.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(std::str::from_utf8(text).ok()?.parse().unwrap_or(u64::MAX))
}

fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_ascii_start())
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn parameters_of_mail() {
        let Ok(Command::Mail(mail)) =
            parse(b"mail from:<a@b.example> size=77 BODY=8bitmime RET=FULL BODY=X FOO\r\n")
        else {
            panic!("this is MAIL");
        };
        assert_eq!((mail.size, mail.body), (Some(77), BodyType::EightBitMime));
        let ignored: Vec<_> = mail
            .ignored
            .iter()
            .map(|i| (i.parameter.as_str(), i.known))
            .collect();
        assert_eq!(ignored, [("RET=FULL", true), ("BODY=X", false), ("FOO", false)]);
        let Ok(Command::Mail(mail)) = parse(b"MAIL FROM:<> SIZE=99999999999999999999") else {
            panic!("this is MAIL");
        };
        assert_eq!((mail.path, mail.size), (ReversePath::Null, Some(u64::MAX)));
    }

    #[test]
    fn verbs() {
        for (line, command) in [
            (&b"quit\r\n"[..], Command::Quit),
            (b" \tQuIt \t ", Command::Quit),
            (b"NOOP whatever", Command::Noop),
            (b"BDAT 12 LAST", Command::Bdat(12)),
            (b"BDAT x", Command::Bdat(0)),
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
