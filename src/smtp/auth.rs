//! The exchange of AUTH without I/O: PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login), as devices speak them.
//!
//! CRAM-MD5 is never offered: it needs passwords in the clear on our disk, and devices that pick it fail with it.

use crate::users::Login;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// The two challenges of LOGIN are "Username:" and "Password:". Some devices compare them octet for octet.
const ASK_NAME: &str = "VXNlcm5hbWU6";
const ASK_PASSWORD: &str = "UGFzc3dvcmQ6";

/// Devices forget the padding, or pad too much.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What the client is to say next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Exchange {
    /// The one message of PLAIN.
    Plain,
    /// The name of LOGIN.
    Name,
    /// The password of LOGIN, after this name.
    Password(Zeroizing<String>),
}

/// What comes of a line.
#[derive(Debug)]
pub(super) enum Progress {
    /// 334 with this challenge, and the exchange goes on.
    Ask(&'static str, Exchange),
    /// The client has said everything.
    Done(Login),
    /// It ends here.
    Failed(Failure),
}

/// Why an exchange ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The client says `*` (RFC 4954 §4).
    Cancelled,
    /// Not Base64.
    Base64,
    /// Not the message of PLAIN: `authzid NUL authcid NUL passwd`.
    Malformed,
    /// No mechanism at all.
    NoMechanism,
    /// Another one.
    UnknownMechanism,
}

/// The arguments of AUTH: the mechanism, and perhaps the first answer in the same line (RFC 4954 §4).
pub(super) fn begin(arguments: &[u8]) -> Progress {
    let mut words = arguments
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let exchange = match words.next() {
        None => return Progress::Failed(Failure::NoMechanism),
        Some(word) if word.eq_ignore_ascii_case(b"PLAIN") => Exchange::Plain,
        Some(word) if word.eq_ignore_ascii_case(b"LOGIN") => Exchange::Name,
        Some(_) => return Progress::Failed(Failure::UnknownMechanism),
    };
    match (words.next(), exchange) {
        // `=` is an empty first answer, which says nothing: it is asked for again.
        (None | Some(b"="), Exchange::Plain) => Progress::Ask("", Exchange::Plain),
        (None | Some(b"="), exchange) => Progress::Ask(ASK_NAME, exchange),
        (Some(first), exchange) => exchange.answer(first),
    }
}

impl Exchange {
    /// The client's next line.
    pub(super) fn answer(self, line: &[u8]) -> Progress {
        let line = line.trim_ascii();
        if line == b"*" {
            return Progress::Failed(Failure::Cancelled);
        }
        // What was said is as secret as the password in it.
        let Some(said) = decode(line) else {
            return Progress::Failed(Failure::Base64);
        };
        match self {
            Self::Plain => plain(&said),
            Self::Name => Progress::Ask(ASK_PASSWORD, Self::Password(Zeroizing::new(text(&said)))),
            Self::Password(name) => Progress::Done(Login::new(name.to_string(), said.to_vec())),
        }
    }
}

/// RFC 4616 §2. Whom the client wants to act for is not asked: it acts as who it is, and gains nothing.
fn plain(said: &[u8]) -> Progress {
    let mut parts = said.split(|&b| b == 0);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(name), Some(password), None) => {
            Progress::Done(Login::new(text(name), password.to_vec()))
        }
        _ => Progress::Failed(Failure::Malformed),
    }
}

fn decode(line: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    // However much padding there is.
    let end = line.iter().rposition(|&b| b != b'=').map_or(0, |at| at + 1);
    let digits = line.get(..end).unwrap_or_default();
    let mut said = Zeroizing::new(vec![0; base64::decoded_len_estimate(digits.len())]);
    let length = BASE64.decode_slice(digits, &mut said).ok()?;
    said.truncate(length);
    Some(said)
}

/// A name: UTF-8, or else Latin-1, which old devices write.
fn text(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) => text.to_owned(),
        Err(_) => octets.iter().map(|&b| char::from(b)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(text: &[u8]) -> String {
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    fn done(progress: Progress) -> Login {
        match progress {
            Progress::Done(login) => login,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn plain_in_one_line_and_in_two() {
        let anna = Login::new("anna".into(), b"secret".to_vec());
        let said = base64(b"\0anna\0secret");
        let unpadded = said.trim_end_matches('=');
        for arguments in [
            format!("PLAIN {said}"),
            format!("plain {unpadded}"),
            format!(" Plain  {unpadded}==== "),
            format!("PLAIN {}", base64(b"anna\0anna\0secret")),
        ] {
            assert_eq!(done(begin(arguments.as_bytes())), anna, "{arguments}");
        }
        let Progress::Ask("", exchange) = begin(b"PLAIN") else {
            panic!("PLAIN asks with an empty line")
        };
        assert_eq!(done(exchange.answer(format!("{said}\r\n").as_bytes())), anna);
    }

    #[test]
    fn login_with_the_name_in_the_first_line_or_without() {
        let anna = Login::new("anna".into(), b"secret".to_vec());
        for arguments in ["LOGIN", "login =", "LOGIN YW5uYQ==", "LOGIN YW5uYQ"] {
            let mut progress = begin(arguments.as_bytes());
            if let Progress::Ask("VXNlcm5hbWU6", Exchange::Name) = progress {
                progress = Exchange::Name.answer(b"YW5uYQ==\r\n");
            }
            let Progress::Ask("UGFzc3dvcmQ6", exchange) = progress else {
                panic!("{arguments}: {progress:?}")
            };
            assert_eq!(done(exchange.answer(b"c2VjcmV0\r\n")), anna);
        }
        let Progress::Ask(_, exchange) = Exchange::Name.answer(base64(b"B\xfcro").as_bytes()) else {
            panic!()
        };
        assert_eq!(done(exchange.answer(b"=")), Login::new("Büro".into(), Vec::new()));
    }

    #[test]
    fn what_ends_an_exchange() {
        for (arguments, failure) in [
            (&b""[..], Failure::NoMechanism),
            (b"CRAM-MD5", Failure::UnknownMechanism),
            (b"XOAUTH2 abc", Failure::UnknownMechanism),
            (b"PLAIN *", Failure::Cancelled),
            (b"PLAIN ==", Failure::Malformed),
            (b"PLAIN !", Failure::Base64),
            (b"PLAIN YW5uYQ==", Failure::Malformed),
            (b"LOGIN anna@x", Failure::Base64),
        ] {
            match begin(arguments) {
                Progress::Failed(found) => assert_eq!(found, failure, "{}", arguments.escape_ascii()),
                other => panic!("{}: {other:?}", arguments.escape_ascii()),
            }
        }
        assert!(matches!(
            Exchange::Name.answer(b"*\r\n"),
            Progress::Failed(Failure::Cancelled)
        ));
        assert!(matches!(
            Exchange::Plain.answer(b"\0"),
            Progress::Failed(Failure::Base64)
        ));
    }
}
