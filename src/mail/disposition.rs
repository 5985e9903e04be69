//! What became of a recipient in one attempt: the answer that every upstream gives and the queue acts on.

use std::fmt;
use std::time::Duration;

/// What one attempt answered: one disposition for each recipient of the part, in the part's order.
///
/// Failing to deliver is a result, not an error of the program, so this is never wrapped in a `Result`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// One for each recipient, in order.
    pub dispositions: Vec<Disposition>,
}

impl Report {
    /// The same disposition for all `count` recipients.
    #[must_use]
    pub fn all(count: usize, disposition: Disposition) -> Self {
        Self {
            dispositions: vec![disposition; count],
        }
    }
}

/// What became of one recipient in one attempt (ARCHITECTURE.md, "Dispositions").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The upstream took responsibility.
    Relayed(Receipt),
    /// It will pass by itself: throttled, busy, network. The queue retries.
    Deferred(Cause),
    /// Configuration, not the message: a person must act. The queue waits, probes and never bounces.
    Held(Cause),
    /// This message or recipient can never go. Dead letter and a report.
    Failed(Cause),
    /// The whole body left us and no answer came: it may have been taken or not.
    Uncertain(Cause),
}

impl Disposition {
    /// The cause, unless it was relayed.
    #[must_use]
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Relayed(_) => None,
            Self::Deferred(cause) | Self::Held(cause) | Self::Failed(cause) | Self::Uncertain(cause) => {
                Some(cause)
            }
        }
    }

    /// The cause, to say more about it.
    pub fn cause_mut(&mut self) -> Option<&mut Cause> {
        match self {
            Self::Relayed(_) => None,
            Self::Deferred(cause) | Self::Held(cause) | Self::Failed(cause) | Self::Uncertain(cause) => {
                Some(cause)
            }
        }
    }

    /// The class digit of the enhanced status code that goes with this disposition (RFC 3463 §2).
    #[must_use]
    pub fn class(&self) -> StatusClass {
        match self {
            Self::Relayed(_) => StatusClass::Success,
            Self::Deferred(_) | Self::Held(_) | Self::Uncertain(_) => StatusClass::Transient,
            Self::Failed(_) => StatusClass::Permanent,
        }
    }
}

/// Proof that the upstream took the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The upstream's own words: for Graph the `request-id`, for SMTP the text after 250.
    pub diagnostic: String,
    /// How long the upstream asked us to wait before the *next* message (a 202 may carry Retry-After).
    pub pause: Option<Duration>,
}

/// Why a recipient was not relayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The catalogue's name for it, the same whenever it comes back.
    pub code: &'static str,
    /// How much else the same cause stops.
    pub scope: Scope,
    /// The enhanced status code without its class, which follows from the disposition.
    pub status: EnhancedCode,
    /// For reports and the log: plain language, says what to do, names no secret.
    pub public: String,
    /// The end of `public` that says what to do; empty if nothing is to be done.
    pub remedy: &'static str,
    /// For the operator: the upstream's own words, codes and request-id. Never a secret.
    pub diagnostic: String,
    /// What the upstream calls it, if the catalogue does not know that.
    pub unknown: Option<Box<str>>,
    /// How long the upstream asked us to wait (Retry-After).
    pub retry_after: Option<Duration>,
}

/// How much a cause stops. The smaller scopes move a message's own schedule, the larger ones close a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// One recipient of the message.
    Recipient,
    /// This message, for all its recipients.
    Message,
    /// Everything that is sent as this mailbox.
    Mailbox,
    /// Everything that uses these credentials.
    Account,
}

/// The subject and detail of an enhanced status code (RFC 3463): `7.1` of `5.7.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnhancedCode {
    /// The second number.
    pub subject: u16,
    /// The third number.
    pub detail: u16,
}

impl EnhancedCode {
    /// `X.subject.detail`.
    #[must_use]
    pub const fn new(subject: u16, detail: u16) -> Self {
        Self { subject, detail }
    }

    /// The whole code as text, for example `4.7.1`.
    #[must_use]
    pub fn with_class(self, class: StatusClass) -> String {
        format!("{}.{}.{}", class as u8, self.subject, self.detail)
    }
}

/// The first number of an enhanced status code (RFC 3463 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatusClass {
    /// 2: done.
    Success = 2,
    /// 4: not now.
    Transient = 4,
    /// 5: never.
    Permanent = 5,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recipient => "recipient",
            Self::Message => "message",
            Self::Mailbox => "mailbox",
            Self::Account => "account",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_of_the_status_code_follows_from_the_disposition() {
        let cause = Cause {
            code: "any",
            scope: Scope::Message,
            status: EnhancedCode::new(7, 1),
            public: String::new(),
            remedy: "",
            diagnostic: String::new(),
            unknown: None,
            retry_after: None,
        };
        for (disposition, code) in [
            (Disposition::Deferred(cause.clone()), "4.7.1"),
            (Disposition::Held(cause.clone()), "4.7.1"),
            (Disposition::Uncertain(cause.clone()), "4.7.1"),
            (Disposition::Failed(cause.clone()), "5.7.1"),
            (Disposition::Relayed(Receipt::default()), "2.7.1"),
        ] {
            assert_eq!(cause.status.with_class(disposition.class()), code);
        }
    }
}
