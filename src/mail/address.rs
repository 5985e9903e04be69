//! One mail address, as it stands in an envelope or in a header field.

use std::fmt;
use std::str::FromStr;

/// The longest address that is accepted, in octets.
///
/// RFC 5321 §4.5.3.1.3 limits a path to 256 octets with its brackets; devices with long generated local parts
/// exceed the 64 octets of §4.5.3.1.1, so only the total is enforced, and generously.
pub const MAX_ADDRESS_LEN: usize = 512;

/// A mail address: a local part and a domain, kept as they were written.
///
/// The local part is stored without the quotes of a quoted string (`"a b"@x` and `a\ b` are the same mailbox,
/// RFC 5321 §4.1.2) and quoted again where it is displayed. Broken local parts that devices really use (a
/// trailing dot, two dots in a row) are kept: they are the receiving server's business, not ours.
///
/// An address without a domain (`postmaster`, `root`) is representable, because RFC 5321 §4.5.1 requires
/// `<postmaster>` and cron sends to `root`; [`Address::domain`] is empty then.
///
/// Equality is exact. To find out whether two addresses are the same mailbox, compare [`Address::key`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: String,
    domain: String,
}

/// Why a text is not a mail address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no text, or no local part before the `@`.
    #[error("the address is empty")]
    Empty,
    /// Longer than [`MAX_ADDRESS_LEN`].
    #[error("the address is longer than {MAX_ADDRESS_LEN} octets")]
    TooLong,
    /// A control character, a space or a bracket outside a quoted string.
    #[error("the address contains {0:?}, which needs a quoted local part")]
    BadCharacter(char),
    /// A quoted local part that never ends, or is followed by something other than `@`.
    #[error("the quoted local part is not closed")]
    Unclosed,
    /// The `@` is followed by nothing, or the domain contains another `@`.
    #[error("the domain after the @ is missing or malformed")]
    BadDomain,
}

impl Address {
    /// The address from its two parts. `local` is the unquoted form.
    ///
    /// # Errors
    /// As [`Address::from_str`]: control characters are refused in both parts, and everything but the
    /// characters of a host name or an address literal in the domain.
    pub fn new(local: &str, domain: &str) -> Result<Self, AddressError> {
        if local.is_empty() {
            return Err(AddressError::Empty);
        }
        if local.len() + domain.len() + 1 > MAX_ADDRESS_LEN {
            return Err(AddressError::TooLong);
        }
        if let Some(c) = local.chars().find(|c| c.is_control()) {
            return Err(AddressError::BadCharacter(c));
        }
        if !is_domain(domain) {
            return Err(AddressError::BadDomain);
        }
        Ok(Self {
            local: local.to_owned(),
            domain: domain.to_owned(),
        })
    }

    /// The local part without quotes.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain or address literal as written; empty for an unqualified address.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// What two spellings of one mailbox have in common: both parts with their ASCII letters in lower case.
    ///
    /// Domains compare without case (RFC 5321 §2.4). Local parts are case-sensitive by the RFC and
    /// case-insensitive at Microsoft and Google, the only upstreams that rebuild recipients from a header.
    ///
    /// Only ASCII: Unicode's lower case makes different mailboxes equal (the Kelvin sign U+212A becomes `k`), and
    /// then somebody who is not in the envelope would pass for somebody who is. Two spellings that are held to be
    /// different do no harm.
    #[must_use]
    pub fn key(&self) -> String {
        format!(
            "{}@{}",
            self.local.to_ascii_lowercase(),
            self.domain.to_ascii_lowercase()
        )
    }

    /// True if either part has characters outside ASCII, so that SMTPUTF8 (RFC 6531) is needed.
    #[must_use]
    pub fn is_internationalized(&self) -> bool {
        !self.local.is_ascii() || !self.domain.is_ascii()
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `local@domain`, `"quoted local"@domain`, `local@[192.0.2.1]` or an unqualified `local`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if let Some(quoted) = text.strip_prefix('"') {
            let (local, rest) = unquote(quoted)?;
            return match rest.strip_prefix('@') {
                Some("") => Err(AddressError::BadDomain),
                Some(domain) => Self::new(&local, domain),
                None if rest.is_empty() => Self::new(&local, ""),
                None => Err(AddressError::Unclosed),
            };
        }
        let (local, domain) = match text.rsplit_once('@') {
            Some((_, "")) => return Err(AddressError::BadDomain),
            Some((local, domain)) => (local, domain),
            None => (text, ""),
        };
        if let Some(c) = local.chars().find(|c| !is_lenient_atext(*c)) {
            return Err(AddressError::BadCharacter(c));
        }
        Self::new(local, domain)
    }
}

impl fmt::Display for Address {
    /// Writes the address so that it can stand between angle brackets, quoting the local part if it must be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.local.chars().all(is_lenient_atext) {
            f.write_str(&self.local)?;
        } else {
            f.write_str("\"")?;
            for c in self.local.chars() {
                if matches!(c, '"' | '\\') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
            f.write_str("\"")?;
        }
        if !self.domain.is_empty() {
            write!(f, "@{}", self.domain)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{self}>")
    }
}

/// Characters that may stand in an unquoted local part: RFC 5322 §3.2.3 `atext`, RFC 6532 UTF-8, and dots
/// anywhere (devices send `scan..2@` and `scan.@`).
fn is_lenient_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || (!c.is_ascii() && !c.is_control())
}

fn is_domain(domain: &str) -> bool {
    if let Some(literal) = domain.strip_prefix('[') {
        return literal.strip_suffix(']').is_some_and(|l| {
            !l.is_empty() && l.chars().all(|c| c.is_ascii_alphanumeric() || ".:-".contains(c))
        });
    }
    domain.chars().all(|c| {
        c.is_ascii_alphanumeric()
            || "-._".contains(c)
            || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
    })
}

/// Splits `text` (behind the opening quote) into the unescaped content and what follows the closing quote.
fn unquote(text: &str) -> Result<(String, &str), AddressError> {
    let mut content = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((content, &text[at + 1..])),
            '\\' => content.push(chars.next().ok_or(AddressError::Unclosed)?.1),
            c => content.push(c),
        }
    }
    Err(AddressError::Unclosed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_survive_a_round_trip() {
        for text in [
            "a@b.example",
            "\"a b\"@x.example",
            "\"a\\\"b\\\\c\"@x.example",
            "scan..2.@printer.example",
            "user@[192.0.2.1]",
            "user@[IPv6:2001:db8::1]",
            "postmaster",
            "jörg@müller.example",
            "under_score@host_name",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn a_needlessly_quoted_local_part_is_the_same_mailbox() {
        let plain: Address = "Bob.Smith@Example.COM".parse().unwrap();
        let quoted: Address = "\"bob.smith\"@example.com".parse().unwrap();
        assert_eq!(plain.key(), quoted.key());
        let kelvin: Address = "\u{212a}en@x.example".parse().unwrap();
        let ken: Address = "ken@x.example".parse().unwrap();
        assert_ne!(kelvin.key(), ken.key());
    }

    #[test]
    fn bad_addresses_say_why() {
        for (text, error) in [
            ("", AddressError::Empty),
            ("@x", AddressError::Empty),
            ("a@", AddressError::BadDomain),
            ("a b@x", AddressError::BadCharacter(' ')),
            ("a@b@c", AddressError::BadCharacter('@')),
            ("a@b\r\nBcc: c", AddressError::BadDomain),
            ("a\u{0}@b", AddressError::BadCharacter('\u{0}')),
            ("\"a@b", AddressError::Unclosed),
            ("a@b>", AddressError::BadDomain),
            ("\"a\nb\"@c", AddressError::BadCharacter('\n')),
        ] {
            assert_eq!(text.parse::<Address>().unwrap_err(), error, "{text:?}");
        }
    }
}
