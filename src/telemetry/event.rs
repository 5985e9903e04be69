//! What happens to messages, as values. Log line and history come from the same value, so that they cannot disagree.
//!
//! An event is written to the queue's outbox by the transaction that makes it true, and goes from there into the
//! history. Its own id makes that idempotent: an outcome that had to be written twice, because the first COMMIT was
//! not heard, is still one event.

use crate::mail::Cause;
use crate::mail::Disposition;
use crate::mail::QueueId;
use crate::mail::Receipt;
use crate::mail::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its own name, of the form of a queue id; sorts by time.
    pub id: QueueId,
    /// When it happened.
    pub at: Timestamp,
    /// The message it is about; none if it is about the bridge.
    pub message: Option<QueueId>,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A message was accepted, and how it goes out was decided.
    Accepted(Accepted),
    /// An attempt of a part came to this, for some of its recipients.
    Attempted(Attempted),
    /// An administrator did something with a message.
    Acted(Acted),
    /// Somebody was told what became of a message, or why that was not done.
    Reported(Reported),
    /// Administrators were told of something about the bridge, or that it is over.
    Alerted(Alerted),
}

/// A message, and how it goes out. Written with the plan, so that accepting costs nothing more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// When we said 250.
    pub arrived: Timestamp,
    /// The reverse-path without brackets; none is `<>`.
    pub from: Option<String>,
    /// The recipients of the envelope, in its order.
    pub to: Vec<String>,
    /// Octets of the message as stored.
    pub size: u64,
    /// The client's address, or what it was instead.
    pub client: String,
    /// The listener that took it.
    pub listener: String,
    /// Who had logged in, if anybody had.
    pub user: Option<String>,
    /// True if the connection was encrypted.
    pub tls: bool,
    /// The Message-ID of its header, with its brackets.
    pub message_id: Option<String>,
    /// The Subject of its header, decoded; none if it has none, or if the history is to keep no subjects.
    pub subject: Option<String>,
    /// The parts it goes out in.
    pub parts: Vec<PartPlanned>,
}

/// One part of a message's plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartPlanned {
    /// By which account.
    pub account: String,
    /// As which mailbox.
    pub mailbox: String,
    /// To whom: positions in the envelope.
    pub recipients: Vec<usize>,
    /// What is changed in the header, in words.
    pub changes: String,
}

/// What an attempt came to for the recipients that share it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempted {
    /// The part's number in the message.
    pub part: u32,
    /// Through which account.
    pub account: String,
    /// As which mailbox.
    pub mailbox: String,
    /// The how-manieth attempt of this part, from 1.
    pub number: u32,
    /// The recipients: position in the envelope, and address.
    pub recipients: Vec<(usize, String)>,
    /// What became of them.
    pub outcome: Outcome,
    /// The enhanced status code (RFC 3463); empty if there is none.
    pub status: String,
    /// Why, and what to do, in plain language; empty for those who were relayed.
    pub cause: String,
    /// The upstream's own words, with its request-id.
    pub upstream: String,
    /// Milliseconds since the message was accepted.
    pub age: u64,
    /// Milliseconds between the beginning of the attempt and its outcome; none if it was not heard.
    pub took: Option<u64>,
    /// What happens now.
    pub next: Then,
}

/// The disposition of an attempt, as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The upstream took it.
    Relayed,
    /// It will be tried again by itself.
    Deferred,
    /// A person must act.
    Held,
    /// It can never go.
    Failed,
    /// Nobody knows whether it went.
    Uncertain,
}

/// What happens after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// Nothing is left to be done for these recipients.
    Done,
    /// It is tried again at this time.
    Due(Timestamp),
    /// It is tried again when account and mailbox are well.
    AccountWell,
    /// It waits for a person.
    Person,
    /// It stays as a dead letter.
    DeadLetter,
}

/// What an administrator did with a message, for all its recipients to whom it can be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {
    /// What was done.
    pub action: Action,
    /// Who did it, as far as that is known.
    pub by: String,
}

/// What can be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is not tried until it is released.
    Hold,
    /// It goes on after having been held.
    Release,
    /// It is tried again at once; what had failed, too.
    Retry,
    /// It counts as failed, and its sender is told.
    Bounce,
    /// It was removed; nobody is told.
    Delete,
    /// It was taken over from a file.
    Import,
}

/// A report of ours about a message (RFC 3464).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// What it says: `failed`, `delayed`, `relayed`, `held`.
    pub action: String,
    /// To whom; none if nobody was told.
    pub to: Option<String>,
    /// The queue id of the report.
    pub report: Option<QueueId>,
    /// Why nobody was told; empty otherwise.
    pub why_not: String,
}

/// Something administrators were told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alerted {
    /// What it is about, for example `account broken: office`.
    pub name: String,
    /// How they were told: `webhook`, `command`, `mail`.
    #[serde(default)]
    pub way: String,
    /// True if it is over.
    pub over: bool,
    /// What was told.
    pub text: String,
}

impl Event {
    /// Something that happened to `message` at `at`.
    #[must_use]
    pub fn new(at: Timestamp, message: Option<QueueId>, what: What) -> Self {
        Self {
            id: QueueId::new(at),
            at,
            message,
            what,
        }
    }

    /// For the outbox.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Serializing strings and numbers into memory cannot fail; an event that cannot be read is left out.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From the outbox.
    ///
    /// # Errors
    /// serde_json's: it was damaged, or written by a newer version.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

impl Action {
    /// As it is typed and logged.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Retry => "retry",
            Self::Bounce => "bounce",
            Self::Delete => "delete",
            Self::Import => "import",
        }
    }
}

impl Attempted {
    /// Takes outcome, status and words from `disposition`.
    #[must_use]
    pub fn with(mut self, disposition: &Disposition) -> Self {
        self.outcome = Outcome::of(disposition);
        match disposition {
            Disposition::Relayed(Receipt { diagnostic, .. }) => {
                self.upstream.clone_from(diagnostic);
            }
            Disposition::Deferred(cause)
            | Disposition::Held(cause)
            | Disposition::Failed(cause)
            | Disposition::Uncertain(cause) => {
                let Cause {
                    public, diagnostic, ..
                } = cause;
                self.status = cause.status.with_class(disposition.class());
                self.cause.clone_from(public);
                self.upstream.clone_from(diagnostic);
            }
        }
        self
    }

    /// Time since the message was accepted.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_millis(self.age)
    }
}

impl Outcome {
    /// That of a disposition.
    #[must_use]
    pub fn of(disposition: &Disposition) -> Self {
        match disposition {
            Disposition::Relayed(_) => Self::Relayed,
            Disposition::Deferred(_) => Self::Deferred,
            Disposition::Held(_) => Self::Held,
            Disposition::Failed(_) => Self::Failed,
            Disposition::Uncertain(_) => Self::Uncertain,
        }
    }

    /// True if nothing follows: the recipient has it, or never will.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Relayed | Self::Failed)
    }
}

impl fmt::Display for Then {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("nothing"),
            Self::Due(due) => due.fmt(f),
            Self::AccountWell => f.write_str("when the account is well"),
            Self::Person => f.write_str("waits for a person"),
            Self::DeadLetter => f.write_str("kept as a dead letter"),
        }
    }
}
