//! What a client asks for in the way of reports (RFC 3461): which, how much of the message, and under which names.
//!
//! The values are kept decoded; in a command they stand as xtext (RFC 3461 §4).

use std::fmt;
use std::str::FromStr;

/// Which reports a recipient's sender wants (NOTIFY=, RFC 3461 §4.1).
///
/// Nothing asked for at all is another thing: `Option<Notify>` is `None` then, and failures are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Notify(u8);

impl Notify {
    /// No report at all.
    pub const NEVER: Self = Self(0);
    const SUCCESS: u8 = 1;
    const FAILURE: u8 = 2;
    const DELAY: u8 = 4;

    /// The set of these.
    #[must_use]
    pub const fn of(success: bool, failure: bool, delay: bool) -> Self {
        Self(success as u8 * Self::SUCCESS + failure as u8 * Self::FAILURE + delay as u8 * Self::DELAY)
    }

    /// True if a report of success is asked for.
    #[must_use]
    pub const fn success(self) -> bool {
        self.0 & Self::SUCCESS != 0
    }

    /// True if a report of failure is asked for.
    #[must_use]
    pub const fn failure(self) -> bool {
        self.0 & Self::FAILURE != 0
    }

    /// True if a report of delay is asked for.
    #[must_use]
    pub const fn delay(self) -> bool {
        self.0 & Self::DELAY != 0
    }

    /// A number for storage: 0 is NEVER, else the sum of 1 SUCCESS, 2 FAILURE, 4 DELAY.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// What [`Notify::bits`] came from.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits < 8 { Some(Self(bits)) } else { None }
    }
}

impl FromStr for Notify {
    type Err = DsnError;

    /// Reads `NEVER`, or any of `SUCCESS`, `FAILURE` and `DELAY` with commas between them.
    fn from_str(text: &str) -> Result<Self, DsnError> {
        if text.eq_ignore_ascii_case("NEVER") {
            return Ok(Self::NEVER);
        }
        let mut bits = 0;
        for word in text.split(',') {
            bits |= match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => Self::SUCCESS,
                "FAILURE" => Self::FAILURE,
                "DELAY" => Self::DELAY,
                _ => return Err(DsnError::Notify),
            };
        }
        Ok(Self(bits))
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (Self::SUCCESS, "SUCCESS"),
            (Self::FAILURE, "FAILURE"),
            (Self::DELAY, "DELAY"),
        ];
        let asked: Vec<&str> = words
            .iter()
            .filter_map(|(bit, word)| (self.0 & bit != 0).then_some(*word))
            .collect();
        f.write_str(&if asked.is_empty() {
            "NEVER".to_owned()
        } else {
            asked.join(",")
        })
    }
}

/// How much of the message a report of failure returns (RET=, RFC 3461 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ret {
    /// All of it.
    Full = 0,
    /// Its header.
    Headers = 1,
}

impl FromStr for Ret {
    type Err = DsnError;

    /// Reads `FULL` or `HDRS`.
    fn from_str(text: &str) -> Result<Self, DsnError> {
        match text.to_ascii_uppercase().as_str() {
            "FULL" => Ok(Self::Full),
            "HDRS" => Ok(Self::Headers),
            _ => Err(DsnError::Ret),
        }
    }
}

impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        })
    }
}

/// The sender's own name for this sending of the message (ENVID=, RFC 3461 §4.4): printable ASCII, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EnvelopeId(String);

impl EnvelopeId {
    /// RFC 3461 §4.4: no longer than 100 characters, as xtext.
    const MAX: usize = 100;

    /// From the decoded text.
    ///
    /// # Errors
    /// [`DsnError::EnvelopeId`]: empty, too long or not printable ASCII.
    pub fn new(text: impl Into<String>) -> Result<Self, DsnError> {
        let text = text.into();
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(DsnError::EnvelopeId);
        }
        Ok(Self(text))
    }

    /// From the value of the parameter.
    ///
    /// # Errors
    /// [`DsnError::EnvelopeId`]
    pub fn from_parameter(xtext: &str) -> Result<Self, DsnError> {
        Self::new(decode_xtext(xtext).ok_or(DsnError::EnvelopeId)?)
    }

    /// The decoded text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvelopeId {
    /// Writes the decoded text, as in the field Original-Envelope-Id (RFC 3464 §2.2.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the sender first called a recipient (ORCPT=, RFC 3461 §4.2), decoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OriginalRecipient {
    kind: String,
    address: String,
}

impl OriginalRecipient {
    /// RFC 3461 §4.2: no longer than 500 characters, with its type.
    const MAX: usize = 500;

    /// From the decoded `type;address`. The type is an atom such as `rfc822` or `utf-8` (RFC 6533 §3).
    ///
    /// # Errors
    /// [`DsnError::OriginalRecipient`]: a part is missing, too long or not printable.
    pub fn new(text: &str) -> Result<Self, DsnError> {
        let (kind, address) = text.split_once(';').ok_or(DsnError::OriginalRecipient)?;
        let is_atom = !kind.is_empty()
            && kind
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let is_printable = !address.is_empty() && !address.chars().any(char::is_control);
        if !is_atom || !is_printable || text.len() > Self::MAX {
            return Err(DsnError::OriginalRecipient);
        }
        Ok(Self {
            kind: kind.to_owned(),
            address: address.to_owned(),
        })
    }

    /// From the value of the parameter: the address is xtext, or after `utf-8;` the form of RFC 6533 §3.
    ///
    /// # Errors
    /// [`DsnError::OriginalRecipient`]
    pub fn from_parameter(value: &str) -> Result<Self, DsnError> {
        let (kind, encoded) = value.split_once(';').ok_or(DsnError::OriginalRecipient)?;
        let address = if kind.eq_ignore_ascii_case("utf-8") {
            decode_embedded(encoded)
        } else {
            decode_xtext(encoded)
        };
        Self::new(&format!("{kind};{}", address.ok_or(DsnError::OriginalRecipient)?))
    }

    /// What kind of address it is, such as `rfc822`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The decoded address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl fmt::Display for OriginalRecipient {
    /// Writes `type;address`, as in the field Original-Recipient (RFC 3464 §2.3.1) but for the blank.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};{}", self.kind, self.address)
    }
}

/// Why a value cannot be what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    /// NOTIFY
    #[error("NOTIFY is NEVER, or some of SUCCESS, FAILURE and DELAY with commas between them")]
    Notify,
    /// RET
    #[error("RET is FULL or HDRS")]
    Ret,
    /// ENVID
    #[error("ENVID is at most 100 printable characters, with + and = written as +2B and +3D")]
    EnvelopeId,
    /// ORCPT
    #[error("ORCPT is like rfc822;name@example.com, with + and = written as +2B and +3D")]
    OriginalRecipient,
}

/// RFC 3461 §4: `+` and two upper-case hexadecimal digits stand for an octet; all else but `=` and blanks for
/// itself. Digits in lower case are taken too.
fn decode_xtext(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&octet, tail)) = rest.split_first() {
        rest = tail;
        octets.push(match octet {
            b'+' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                rest = tail;
                hexadecimal(std::str::from_utf8(digits).ok()?).and_then(|n| u8::try_from(n).ok())?
            }
            b'!'..=b'~' if octet != b'=' => octet,
            _ => return None,
        });
    }
    String::from_utf8(octets).ok()
}

/// RFC 6533 §3: `\x{…}` stands for a character by its number; all else for itself.
fn decode_embedded(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        decoded.push_str(before);
        let (digits, after) = after.strip_prefix("x{")?.split_once('}')?;
        decoded.push(char::from_u32(hexadecimal(digits)?)?);
        rest = after;
    }
    decoded.push_str(rest);
    Some(decoded)
}

fn hexadecimal(digits: &str) -> Option<u32> {
    // from_str_radix would take a sign.
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify() {
        for (text, written) in [
            ("never", "NEVER"),
            ("SUCCESS", "SUCCESS"),
            ("delay,Failure", "FAILURE,DELAY"),
            ("SUCCESS,FAILURE,DELAY,DELAY", "SUCCESS,FAILURE,DELAY"),
        ] {
            let notify: Notify = text.parse().unwrap();
            assert_eq!(notify.to_string(), written);
            assert_eq!(Notify::from_bits(notify.bits()), Some(notify));
            assert_eq!(
                Notify::of(notify.success(), notify.failure(), notify.delay()),
                notify
            );
        }
        for text in ["", ",", "NEVER,DELAY", "SUCCESS,", "ALWAYS", "SUCCESS DELAY"] {
            assert_eq!(text.parse::<Notify>(), Err(DsnError::Notify), "{text}");
        }
        assert_eq!(Notify::from_bits(8), None);
    }

    #[test]
    fn names_are_decoded() {
        for (xtext, decoded) in [
            ("QQ314159", "QQ314159"),
            ("a+2Bb+3Dc", "a+b=c"),
            ("a+2bb+20c", "a+b c"),
        ] {
            assert_eq!(EnvelopeId::from_parameter(xtext).unwrap().as_str(), decoded);
        }
        let long = "x".repeat(101);
        for xtext in [
            "", "a+2", "a+", "a+2Gb", "a++1b", "a=b", "a b", "a+0Ab", "+C3+A4", "ä", &long,
        ] {
            assert_eq!(
                EnvelopeId::from_parameter(xtext),
                Err(DsnError::EnvelopeId),
                "{xtext}"
            );
        }
        for (value, kind, address) in [
            ("rfc822;b@x.example", "rfc822", "b@x.example"),
            ("rfc822;b+2Bc@x.example", "rfc822", "b+c@x.example"),
            ("rfc822;<x@y>", "rfc822", "<x@y>"),
            ("utf-8;j\\x{F6}rg@x.example", "utf-8", "jörg@x.example"),
            ("UTF-8;jörg@x.example", "UTF-8", "jörg@x.example"),
            ("x400;/C=DE".replace("=", "+3D").as_str(), "x400", "/C=DE"),
        ] {
            let original = OriginalRecipient::from_parameter(value).unwrap();
            assert_eq!((original.kind(), original.address()), (kind, address));
            assert_eq!(OriginalRecipient::new(&original.to_string()), Ok(original));
        }
        let long = format!("rfc822;{}", "x".repeat(500));
        for value in [
            "",
            "b@x.example",
            ";b@x",
            "rfc822;",
            "rfc 822;b@x",
            "rfc822;a+0D+0Ab",
            "rfc822;ä@x",
            "utf-8;a\\x{D800}",
            "utf-8;a\\xF6",
            "utf-8;a\\x{A}b",
            &long,
        ] {
            assert_eq!(
                OriginalRecipient::from_parameter(value),
                Err(DsnError::OriginalRecipient),
                "{value}"
            );
        }
    }
}
