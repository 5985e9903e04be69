//! What MAIL and RCPT said: where reports go and who gets the message.

use super::Address;
use super::{EnvelopeId, Notify, OriginalRecipient, Ret};
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

/// One RCPT: who gets the message, and which reports about that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Who.
    pub address: Address,
    /// Which reports the client asked for; `None` if it did not say (RFC 3461 §4.1).
    pub notify: Option<Notify>,
    /// What the sender first called this recipient (RFC 3461 §4.2).
    pub original: Option<OriginalRecipient>,
}

impl From<Address> for Recipient {
    /// A recipient for whom nothing special is asked.
    fn from(address: Address) -> Self {
        Self {
            address,
            notify: None,
            original: None,
        }
    }
}

/// An envelope that can be delivered: a reverse-path and at least one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    reverse_path: ReversePath,
    recipients: Vec<Recipient>,
    body_type: BodyType,
    smtputf8: bool,
    ret: Option<Ret>,
    envelope_id: Option<EnvelopeId>,
}

/// The only way an envelope can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the envelope has no recipient")]
pub struct EnvelopeError;

impl Envelope {
    /// An envelope with these recipients, in the order of their RCPT commands. A mailbox named twice is kept
    /// once, as it was named first.
    ///
    /// # Errors
    /// [`EnvelopeError`] if `recipients` is empty.
    pub fn new<R: Into<Recipient>>(
        reverse_path: ReversePath,
        recipients: impl IntoIterator<Item = R>,
        body_type: BodyType,
    ) -> Result<Self, EnvelopeError> {
        let mut seen = std::collections::HashSet::new();
        let recipients: Vec<Recipient> = recipients
            .into_iter()
            .map(Into::into)
            .filter(|recipient| seen.insert(recipient.address.key()))
            .collect();
        if recipients.is_empty() {
            return Err(EnvelopeError);
        }
        let sender = match &reverse_path {
            ReversePath::Null => None,
            ReversePath::Address(address) => Some(address),
        };
        let smtputf8 = sender
            .into_iter()
            .chain(recipients.iter().map(|r| &r.address))
            .any(Address::is_internationalized);
        Ok(Self {
            reverse_path,
            recipients,
            body_type,
            smtputf8,
            ret: None,
            envelope_id: None,
        })
    }

    /// The same envelope, which the client declared to need SMTPUTF8 (RFC 6531 §3.4) if `declared`. It needs it
    /// anyway if an address is not ASCII.
    #[must_use]
    pub fn with_smtputf8(mut self, declared: bool) -> Self {
        self.smtputf8 |= declared;
        self
    }

    /// The same envelope with what MAIL said about reports (RFC 3461 §4.3 and §4.4).
    #[must_use]
    pub fn with_reports(mut self, ret: Option<Ret>, envelope_id: Option<EnvelopeId>) -> Self {
        (self.ret, self.envelope_id) = (ret, envelope_id);
        self
    }

    /// Where reports go.
    #[must_use]
    pub fn reverse_path(&self) -> &ReversePath {
        &self.reverse_path
    }

    /// Who gets the message; never empty, no mailbox twice.
    #[must_use]
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// The addresses of those who get the message.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = &Address> + Clone {
        self.recipients.iter().map(|recipient| &recipient.address)
    }

    /// What the client declared about the body.
    #[must_use]
    pub fn body_type(&self) -> BodyType {
        self.body_type
    }

    /// True if the message needs SMTPUTF8 (RFC 6531): an address is not ASCII, or the client said so, because the
    /// header may have such addresses.
    #[must_use]
    pub fn smtputf8(&self) -> bool {
        self.smtputf8
    }

    /// How much of the message a report returns, if the client said.
    #[must_use]
    pub fn ret(&self) -> Option<Ret> {
        self.ret
    }

    /// The sender's own name for this sending, if it gave one.
    #[must_use]
    pub fn envelope_id(&self) -> Option<&EnvelopeId> {
        self.envelope_id.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_cannot_be_empty_and_names_nobody_twice() {
        assert_eq!(
            Envelope::new(ReversePath::Null, [] as [Address; 0], BodyType::SevenBit),
            Err(EnvelopeError)
        );
        let twice =
            ["Bob@x.example", "eve@x.example", "bob@X.example"].map(|a| a.parse::<Address>().unwrap());
        let envelope = Envelope::new(ReversePath::Null, twice, BodyType::SevenBit).unwrap();
        let names: Vec<String> = envelope.addresses().map(ToString::to_string).collect();
        assert_eq!(names, ["Bob@x.example", "eve@x.example"]);
    }

    #[test]
    fn an_address_that_is_not_ascii_needs_smtputf8_whatever_was_declared() {
        let envelope = |from: &str, to: &str| {
            let from = ReversePath::Address(from.parse().unwrap());
            Envelope::new(from, [to.parse::<Address>().unwrap()], BodyType::SevenBit).unwrap()
        };
        assert!(!envelope("a@x.example", "b@x.example").smtputf8());
        assert!(
            envelope("a@x.example", "b@x.example")
                .with_smtputf8(true)
                .smtputf8()
        );
        assert!(
            envelope("jörg@x.example", "b@x.example")
                .with_smtputf8(false)
                .smtputf8()
        );
        assert!(envelope("a@x.example", "b@müller.example").smtputf8());
    }
}
