//! The parameters of MAIL and RCPT: what is asked for, and what is odd about how it is asked.

use crate::mail::BodyType;
use crate::mail::EnvelopeId;
use crate::mail::Notify;
use crate::mail::OriginalRecipient;
use crate::mail::Ret;

/// So many parameters without effect are remembered of a command.
pub(super) const MAX_ODD: usize = 3;

/// What the parameters of MAIL say. Of two of a kind the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MailParameters {
    /// SIZE= (RFC 1870 §6.1).
    pub(super) size: Option<u64>,
    /// BODY= (RFC 6152 §2).
    pub(super) body: Option<Body>,
    /// SMTPUTF8 (RFC 6531 §3.4).
    pub(super) smtputf8: bool,
    /// RET= (RFC 3461 §4.3).
    pub(super) ret: Option<Ret>,
    /// ENVID= (RFC 3461 §4.4).
    pub(super) envelope_id: Option<EnvelopeId>,
    /// The first of what has no effect.
    pub(super) odd: Vec<Odd>,
    /// How many more have none.
    pub(super) more_odd: usize,
}

/// The value of BODY=.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// One that we take.
    Type(BodyType),
    /// BINARYMIME (RFC 3030 §3), which is not offered.
    Binary,
}

/// What the parameters of RCPT say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RcptParameters {
    /// NOTIFY= (RFC 3461 §4.1).
    pub(super) notify: Option<Notify>,
    /// ORCPT= (RFC 3461 §4.2).
    pub(super) original: Option<OriginalRecipient>,
    /// The first of what has no effect.
    pub(super) odd: Vec<Odd>,
    /// How many more have none.
    pub(super) more_odd: usize,
}

/// A parameter without effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Odd {
    /// As it was written.
    pub(super) parameter: String,
    /// Why it has none.
    pub(super) why: Why,
}

/// Why a parameter has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its meaning is known, and it may be left out without harm: AUTH= (RFC 4954 §5).
    Harmless,
    /// Nobody here knows it.
    Unknown,
    /// It is known and not written as it should be.
    Malformed(String),
}

impl MailParameters {
    /// Reads what stands after the path of MAIL.
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut read = Self::default();
        for (parameter, key, value) in parameters(text) {
            let result = match key.as_str() {
                "SIZE" => set(&mut read.size, number(value), "SIZE is a number of octets"),
                "BODY" => set(&mut read.body, body(value), "BODY is 7BIT or 8BITMIME"),
                "SMTPUTF8" => {
                    read.smtputf8 = true;
                    Ok(())
                }
                "RET" => set_parsed(&mut read.ret, value, str::parse::<Ret>),
                "ENVID" => set_parsed(&mut read.envelope_id, value, EnvelopeId::from_parameter),
                "AUTH" => Err(Why::Harmless),
                _ => Err(Why::Unknown),
            };
            if let Err(why) = result {
                keep(&mut read.odd, &mut read.more_odd, parameter, why);
            }
        }
        read
    }
}

impl RcptParameters {
    /// Reads what stands after the path of RCPT.
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut read = Self::default();
        for (parameter, key, value) in parameters(text) {
            let result = match key.as_str() {
                "NOTIFY" => set_parsed(&mut read.notify, value, str::parse::<Notify>),
                "ORCPT" => set_parsed(&mut read.original, value, OriginalRecipient::from_parameter),
                _ => Err(Why::Unknown),
            };
            if let Err(why) = result {
                keep(&mut read.odd, &mut read.more_odd, parameter, why);
            }
        }
        read
    }
}

/// Remembers a parameter without effect, if it is one of the first.
fn keep(odd: &mut Vec<Odd>, more: &mut usize, parameter: &[u8], why: Why) {
    // The same again says nothing new, and must not hide what is worse.
    if why == Why::Harmless && odd.iter().any(|odd| odd.why == Why::Harmless) {
        return;
    }
    if odd.len() < MAX_ODD {
        odd.push(Odd::new(parameter, why));
    } else {
        *more += 1;
    }
}

impl Odd {
    fn new(parameter: &[u8], why: Why) -> Self {
        Self {
            parameter: String::from_utf8_lossy(parameter).into_owned(),
            why,
        }
    }
}

/// A number as RFC 1870 §4 writes it. One that is too large for us is as large as we can count.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(std::str::from_utf8(text).ok()?.parse().unwrap_or(u64::MAX))
}

/// Each parameter whole, its keyword in upper case, and its value, which may be empty (RFC 5321 §4.1.2, Esmtp-param).
fn parameters(text: &[u8]) -> impl Iterator<Item = (&[u8], String, &[u8])> {
    text.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(|word| {
            let (key, value) = match memchr::memchr(b'=', word) {
                Some(at) => (&word[..at], &word[at + 1..]),
                None => (word, &b""[..]),
            };
            (word, String::from_utf8_lossy(key).to_ascii_uppercase(), value)
        })
}

fn set<T>(place: &mut Option<T>, value: Option<T>, otherwise: &str) -> Result<(), Why> {
    if place.is_some() {
        return Err(Why::Malformed("it stands there twice".to_owned()));
    }
    *place = value;
    if place.is_some() {
        Ok(())
    } else {
        Err(Why::Malformed(otherwise.to_owned()))
    }
}

fn set_parsed<T, E: ToString>(
    place: &mut Option<T>,
    value: &[u8],
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<(), Why> {
    let text =
        std::str::from_utf8(value).map_err(|_| Why::Malformed("it is neither ASCII nor UTF-8".into()))?;
    match parse(text) {
        Ok(value) => set(place, Some(value), ""),
        Err(error) => Err(Why::Malformed(error.to_string())),
    }
}

fn body(value: &[u8]) -> Option<Body> {
    match value.to_ascii_uppercase().as_slice() {
        b"7BIT" => Some(Body::Type(BodyType::SevenBit)),
        b"8BITMIME" => Some(Body::Type(BodyType::EightBitMime)),
        b"BINARYMIME" => Some(Body::Binary),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odd(odd: &[Odd]) -> Vec<(&str, &str)> {
        odd.iter()
            .map(|odd| {
                let why = match &odd.why {
                    Why::Harmless => "harmless",
                    Why::Unknown => "unknown",
                    Why::Malformed(what) => what.as_str(),
                };
                (odd.parameter.as_str(), why)
            })
            .collect()
    }

    #[test]
    fn parameters_of_mail() {
        let read = MailParameters::parse(
            b" size=77 BODY=8bitmime \tRET=hdrs ENVID=a+2Bb SMTPUTF8 AUTH=<> X-ODD=1 \xff=\xfe",
        );
        assert_eq!(
            (read.size, read.smtputf8, read.ret),
            (Some(77), true, Some(Ret::Headers))
        );
        assert_eq!(read.body, Some(Body::Type(BodyType::EightBitMime)));
        assert_eq!(read.envelope_id.unwrap().as_str(), "a+b");
        assert_eq!(
            odd(&read.odd),
            [
                ("AUTH=<>", "harmless"),
                ("X-ODD=1", "unknown"),
                ("\u{fffd}=\u{fffd}", "unknown")
            ]
        );
        assert_eq!(MailParameters::parse(b""), MailParameters::default());
        let huge = MailParameters::parse(b"SIZE=99999999999999999999");
        assert_eq!(huge.size, Some(u64::MAX));
        assert_eq!(MailParameters::parse(b"BODY=BinaryMime").body, Some(Body::Binary));
    }

    #[test]
    fn of_many_parameters_without_effect_few_are_kept() {
        let many = format!("AUTH=<> {}", "AUTH=<> x ".repeat(1000));
        let mail = MailParameters::parse(many.as_bytes());
        let kept = [("AUTH=<>", "harmless"), ("x", "unknown"), ("x", "unknown")];
        assert_eq!(odd(&mail.odd), kept);
        assert_eq!(mail.more_odd, 998);
        let rcpt = RcptParameters::parse("x ".repeat(1000).as_bytes());
        assert_eq!((rcpt.odd.len(), rcpt.more_odd), (MAX_ODD, 997));
    }

    #[test]
    fn parameters_of_rcpt() {
        let read = RcptParameters::parse(b"notify=FAILURE,delay ORCPT=rfc822;b@x.example RET=FULL");
        assert_eq!(read.notify, Some(Notify::of(false, true, true)));
        assert_eq!(read.original.unwrap().to_string(), "rfc822;b@x.example");
        assert_eq!(odd(&read.odd), [("RET=FULL", "unknown")]);
    }

    #[test]
    fn what_is_malformed_has_no_effect_and_says_why() {
        for (text, why) in [
            ("SIZE=", "SIZE is a number of octets"),
            ("SIZE=-1", "SIZE is a number of octets"),
            ("BODY", "BODY is 7BIT or 8BITMIME"),
            ("BODY=9BIT", "BODY is 7BIT or 8BITMIME"),
            ("RET=ALL", "RET is FULL or HDRS"),
            (
                "ENVID=a=b",
                "ENVID is at most 100 printable characters, with + and = written as +2B and +3D",
            ),
        ] {
            let read = MailParameters::parse(text.as_bytes());
            assert_eq!(odd(&read.odd), [(text, why)]);
            assert_eq!(
                MailParameters {
                    odd: Vec::new(),
                    ..read
                },
                MailParameters::default()
            );
        }
        for (text, why) in [
            (
                "NOTIFY=NEVER,FAILURE",
                "NOTIFY is NEVER, or some of SUCCESS, FAILURE and DELAY with commas between them",
            ),
            (
                "ORCPT=b@x",
                "ORCPT is like rfc822;name@example.com, with + and = written as +2B and +3D",
            ),
        ] {
            assert_eq!(odd(&RcptParameters::parse(text.as_bytes()).odd), [(text, why)]);
        }
        let twice = MailParameters::parse(b"SIZE=1 SIZE=2 BODY=7BIT BODY=8BITMIME RET=FULL RET=HDRS");
        assert_eq!((twice.size, twice.ret), (Some(1), Some(Ret::Full)));
        assert_eq!(twice.odd.len(), 3);
        let encoding = RcptParameters::parse(b"ORCPT=rfc822;\xff");
        assert_eq!(
            odd(&encoding.odd),
            [("ORCPT=rfc822;\u{fffd}", "it is neither ASCII nor UTF-8")]
        );
    }
}
