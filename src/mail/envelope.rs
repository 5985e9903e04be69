//! What MAIL and RCPT said: where reports go and who gets the message.

use super::Address;
use std::fmt;

/// Where reports about a message go (RFC 5321 §3.3): an address, or `<>` for nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: the message is itself a report, or wants none.
    Null,
    /// The sender's address.
    Address(Address),
}

impl fmt::Display for ReversePath {
    /// Writes the path with its angle brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Address(address) => write!(f, "<{address}>"),
        }
    }
}

/// What the client declared about the body (RFC 6152 §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyType {
    /// Nothing, or `BODY=7BIT`. Devices send 8-bit bytes all the same.
    #[default]
    SevenBit,
    /// `BODY=8BITMIME`.
    EightBitMime,
}

/// An envelope that can be delivered: a reverse-path and at least one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    reverse_path: ReversePath,
    recipients: Vec<Address>,
    body_type: BodyType,
}

/// The only way an envelope can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the envelope has no recipient")]
pub struct EnvelopeError;

impl Envelope {
    /// An envelope with these recipients, in the order of their RCPT commands. A mailbox named twice is kept
    /// once, under its first spelling.
    ///
    /// # Errors
    /// [`EnvelopeError`] if `recipients` is empty.
    pub fn new(
        reverse_path: ReversePath,
        recipients: impl IntoIterator<Item = Address>,
        body_type: BodyType,
    ) -> Result<Self, EnvelopeError> {
        let mut seen = std::collections::HashSet::new();
        let recipients: Vec<Address> = recipients.into_iter().filter(|r| seen.insert(r.key())).collect();
        if recipients.is_empty() {
            return Err(EnvelopeError);
        }
        Ok(Self {
            reverse_path,
            recipients,
            body_type,
        })
    }

    /// Where reports go.
    #[must_use]
    pub fn reverse_path(&self) -> &ReversePath {
        &self.reverse_path
    }

    /// Who gets the message; never empty, no mailbox twice.
    #[must_use]
    pub fn recipients(&self) -> &[Address] {
        &self.recipients
    }

    /// What the client declared about the body.
    #[must_use]
    pub fn body_type(&self) -> BodyType {
        self.body_type
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_cannot_be_empty_and_names_nobody_twice() {
        assert_eq!(
            Envelope::new(ReversePath::Null, [], BodyType::SevenBit),
            Err(EnvelopeError)
        );
        let twice = ["Bob@x.example", "eve@x.example", "bob@X.example"].map(|a| a.parse().unwrap());
        let envelope = Envelope::new(ReversePath::Null, twice, BodyType::SevenBit).unwrap();
        let names: Vec<String> = envelope.recipients().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["Bob@x.example", "eve@x.example"]);
    }
}
