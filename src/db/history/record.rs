//! What the history remembers, in plain values.

use crate::mail::QueueId;
use crate::mail::Timestamp;

/// One event, with what it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The event's own name; what has been taken once is not taken again.
    pub event: QueueId,
    /// When it happened.
    pub at: Timestamp,
    /// The message it is about; none if it is about the bridge.
    pub message: Option<QueueId>,
    /// What it changes.
    pub change: Change,
}

/// What an event changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The message is known now.
    Arrived(Box<Arrival>),
    /// Something happened that is kept as it was told.
    Happened {
        /// A word for it.
        kind: &'static str,
        /// All of it, as JSON.
        detail: String,
        /// What it means for recipients, if anything.
        outcome: Option<Outcome>,
    },
}

/// A message, as it arrived and as its delivery was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it was accepted.
    pub arrived: Timestamp,
    /// The reverse-path; none is `<>`.
    pub sender: Option<Named>,
    /// Without its brackets.
    pub message_id: Option<String>,
    /// Decoded.
    pub subject: Option<String>,
    /// Who brought it.
    pub client: String,
    /// Which listener took it.
    pub listener: String,
    /// Who had logged in.
    pub user: Option<String>,
    /// Whether the connection was encrypted.
    pub tls: bool,
    /// Octets.
    pub size: u64,
    /// The parts it goes out in, as JSON.
    pub plan: String,
    /// In the envelope's order.
    pub recipients: Vec<Named>,
}

/// An address, and how it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// As it was written.
    pub address: String,
    /// For comparing: lower case, `domain@local`.
    pub key: String,
}

/// What an event means for recipients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For whom.
    pub whom: Whom,
    /// What is known of them now.
    pub fate: PastFate,
    /// Enhanced status code.
    pub status: String,
    /// The upstream's words.
    pub text: String,
}

/// Which recipients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// These: position in the envelope, and address.
    These(Vec<(usize, Named)>),
    /// Those to whom it can happen: back to waiting whoever was not relayed, to any other fate whoever waits.
    Rest,
}

/// What is known of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PastFate {
    /// Not done yet.
    Waiting = 0,
    /// The upstream has it.
    Relayed = 1,
    /// It could never go.
    Failed = 2,
    /// An administrator gave it up, and the sender was told.
    Bounced = 3,
    /// An administrator removed it.
    Deleted = 4,
}

impl PastFate {
    /// From its number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [
            Self::Waiting,
            Self::Relayed,
            Self::Failed,
            Self::Bounced,
            Self::Deleted,
        ]
        .into_iter()
        .find(|fate| *fate as u8 == number)
    }
}

/// Everything about one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The message.
    pub id: QueueId,
    /// How it arrived; none if only its attempts are known. Its recipients are in [`Past::recipients`].
    pub arrival: Option<Arrival>,
    /// Its recipients, in the envelope's order.
    pub recipients: Vec<PastRecipient>,
    /// What happened, in order.
    pub events: Vec<PastEvent>,
}

/// An event in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastEvent {
    /// Its own name.
    pub id: QueueId,
    /// When it happened.
    pub at: Timestamp,
    /// What was told, as JSON; none for the acceptance of the message, which is [`Past::arrival`].
    pub detail: Option<String>,
}

/// A recipient in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastRecipient {
    /// Position in the envelope.
    pub number: usize,
    /// The address.
    pub address: String,
    /// What is known of it.
    pub fate: PastFate,
    /// How often it was given a final fate since it was last sent on its way: 1 in the end, unless something is wrong.
    pub outcomes: u32,
    /// Enhanced status code of the last attempt.
    pub status: String,
    /// The upstream's words.
    pub text: String,
    /// When the fate was learned.
    pub at: Option<Timestamp>,
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Messages whose ids begin like this: the first and the last possible id.
    Ids(QueueId, QueueId),
    /// Sender or recipient, by [`Named::key`].
    Address(String),
    /// Sender or recipient in this domain, in lower case.
    Domain(String),
    /// The Message-ID without brackets.
    MessageId(String),
    /// The client's address, as it is shown.
    Client(String),
}
