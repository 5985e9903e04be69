//! What the queue remembers of a message, in plain values.

use crate::mail::Address;
use crate::mail::Envelope;
use crate::mail::Peer;
use crate::mail::QueueId;
use crate::mail::Timestamp;
use bytes::Bytes;
use std::time::Duration;

/// Where a message came from, for its Received field and the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client.
    pub client: Peer,
    /// What it called itself in HELO or EHLO.
    pub greeting: String,
    /// True if it said EHLO.
    pub esmtp: bool,
    /// The listener that took it.
    pub listener: String,
    /// True if the connection was encrypted.
    pub tls: bool,
    /// Who had logged in, if anybody had.
    pub user: Option<String>,
}

/// Everything about a message but its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its name.
    pub id: QueueId,
    /// When we said 250.
    pub arrived: Timestamp,
    /// Who gets it, and where reports go.
    pub envelope: Envelope,
    /// Where it came from.
    pub origin: Origin,
    /// Octets of the body as stored.
    pub size: u64,
    /// CRC-32 of the body as stored.
    pub checksum: u32,
    /// True for a report of ours (RFC 3464): nobody is ever told about its fate.
    pub report: bool,
}

impl Message {
    /// A checksum of everything that is known of the message but its body. It is kept beside the record, so that damage
    /// never sends a message to somebody else, or leaves somebody out.
    #[must_use]
    pub fn seal(&self) -> u32 {
        use std::fmt::Write;
        let Self {
            id,
            arrived,
            envelope,
            origin,
            size,
            checksum,
            report,
        } = self;
        let mut text = format!(
            "{id} {} {size} {checksum} {report}\n{}\n{}\n{} {} {}\n{}\n{:?}\n{} {:?} {} {:?}\n{:?}\n",
            arrived.millis(),
            origin.client,
            origin.greeting,
            origin.esmtp,
            origin.tls,
            origin.listener,
            envelope.reverse_path(),
            origin.user,
            envelope.body_type() == crate::mail::BodyType::EightBitMime,
            envelope.ret().map(|ret| ret as u8),
            envelope.smtputf8(),
            envelope.envelope_id().map(crate::mail::EnvelopeId::as_str),
            envelope.recipients().len(),
        );
        for recipient in envelope.recipients() {
            let notify = recipient.notify.map(crate::mail::Notify::bits);
            let original = recipient.original.as_ref().map(ToString::to_string);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}\n{notify:?}\n{original:?}", recipient.address);
        }
        crc32fast::hash(text.as_bytes())
    }
}

/// Where the body of a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// In the database.
    Inline(Bytes),
    /// In a file of its own.
    File,
}

/// One delivery that the plan asks for: some recipients, by one account, as one mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPart {
    /// The account's name.
    pub account: String,
    /// The mailbox that sends.
    pub mailbox: Address,
    /// Changes to the header, as JSON.
    pub changes: String,
    /// Which recipients of the envelope, by their position in it.
    pub recipients: Vec<usize>,
}

/// How a message goes out, written in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its parts; together they have each recipient once.
    pub parts: Vec<PlannedPart>,
    /// When all of them are due.
    pub due: Timestamp,
    /// The Message-ID of its header, with its brackets.
    pub message_id: Option<String>,
    /// What the history is told, as JSON.
    pub events: Vec<String>,
}

impl Plan {
    /// With these parts, all due at `due`, and nothing to tell.
    #[must_use]
    pub fn new(parts: Vec<PlannedPart>, due: Timestamp) -> Self {
        Self {
            parts,
            due,
            message_id: None,
            events: Vec::new(),
        }
    }
}

/// Names a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartId {
    /// The message.
    pub message: QueueId,
    /// The part's number in it, from 0.
    pub number: u32,
}

/// A part that waits to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub id: PartId,
    /// The account's name.
    pub account: String,
    /// The mailbox that sends.
    pub mailbox: Address,
    /// Changes to the header, as JSON.
    pub changes: String,
    /// When it may be tried next.
    pub due: Timestamp,
    /// What it has been through so far.
    pub progress: Progress,
    /// Who it is sent for.
    pub turn: Turn,
    /// Octets of the message as stored.
    pub size: u64,
    /// The recipients still waiting: position in the envelope, and address.
    pub waiting: Vec<(usize, Address)>,
}

/// Who a part is sent for: those who share a mailbox take turns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Turn {
    /// Who had logged in, or the client's address.
    pub device: String,
    /// The reverse-path; nothing for <>.
    pub sender: String,
}

impl std::fmt::Display for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} <{}>", self.device, self.sender)
    }
}

/// Recipients that a mailbox has sent to in an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Where the mailbox is.
    pub cloud: String,
    /// The mailbox, in lower case.
    pub mailbox: String,
    /// Hours since the epoch.
    pub hour: i64,
    /// Who they were sent for, a [`Turn`] as text.
    pub sender: String,
    /// How many.
    pub recipients: u64,
}

/// What a part has been through so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Attempts whose marker was written.
    pub attempts: u32,
    /// Time spent deferred; neither held, nor behind a gate, nor stopped. What is going on is not counted yet.
    pub deferred: Duration,
    /// The wait after a deferral that is going on.
    pub deferral: Option<Deferral>,
    /// Attempts whose outcome was never heard.
    pub uncertain: u32,
}

/// A wait after a deferral. How much of it was spent is known when it is over: see [`Deferral::counted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deferral {
    /// The run of the program that it began in, by when that began.
    pub run: Timestamp,
    /// How long mail of the lane could have gone in that run, when the wait began.
    pub from: Duration,
    /// How long the wait was meant to be.
    pub wait: Duration,
}

impl Deferral {
    /// How much of it counts in the run that began at `run`, when mail of the lane could have gone for `open` in it:
    /// nothing behind a closed gate, nothing before a restart, and not more than the wait itself.
    #[must_use]
    pub fn counted(&self, run: Timestamp, open: Duration) -> Duration {
        let began = if run == self.run {
            self.from
        } else {
            Duration::ZERO
        };
        open.saturating_sub(began).min(self.wait)
    }
}

/// What became of one recipient for good, or why it still waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientUpdate {
    /// Position in the envelope.
    pub recipient: usize,
    /// What is known now.
    pub fate: Fate,
    /// Enhanced status code of this attempt.
    pub status: String,
    /// The upstream's words.
    pub cause: String,
}

/// What is known of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Still ours to deliver.
    Waiting = 0,
    /// The upstream has it.
    Relayed = 1,
    /// It can never go.
    Failed = 2,
}

/// What a part does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for its time.
    Due(Timestamp),
    /// Wait for a person.
    Held,
    /// Nobody is left to deliver to.
    Ended,
}

/// The end of an attempt, written in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The part.
    pub part: PartId,
    /// What the part does next.
    pub next: Next,
    /// What it has been through now.
    pub progress: Progress,
    /// Changes to its recipients.
    pub recipients: Vec<RecipientUpdate>,
    /// What counts for the mailbox's daily limit: recipients that were relayed, or may have been.
    pub sent: Option<Sent>,
    /// Who is to be told.
    pub reports: Reports,
    /// What the history is told, as JSON.
    pub events: Vec<String>,
}

/// Reports to be queued by the transaction that makes true what they say, and what is remembered of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// Messages of our own.
    pub new: Vec<NewReport>,
    /// Who has been told of what, or would have been.
    pub told: Vec<Told>,
    /// What the history is told of them, as JSON.
    pub events: Vec<String>,
}

/// What else than the end of a part somebody is told of; each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A message is late.
    Delay(QueueId),
    /// A part is held for longer than it should be.
    HeldTooLong(PartId),
}

impl Reports {
    /// True if nobody is told anything, and nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.new.is_empty() && self.told.is_empty() && self.events.is_empty()
    }
}

/// A report of ours, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReport {
    /// Its record; `report` is true.
    pub message: Message,
    /// Its octets.
    pub body: Bytes,
    /// Its plan: made at once, because a report about an account goes out by another one.
    pub plan: Plan,
}

/// That somebody was told of a cause, so that not everybody is told of the same thing a thousand times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Who, as [`Address::key`].
    pub recipient: String,
    /// Of what: any text that is the same for the same cause.
    pub cause: String,
    /// When the last report went out.
    pub since: Timestamp,
    /// How many were held back since then.
    pub held_back: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_wait_counts_what_was_spent_in_this_run_with_the_gates_open() {
        let seconds = Duration::from_secs;
        let (run, other) = (Timestamp::from_millis(7), Timestamp::from_millis(8));
        let deferral = Deferral {
            run,
            from: seconds(100),
            wait: seconds(30),
        };
        for (in_run, open, counted) in [
            (run, 100, 0),
            (run, 120, 20),
            (run, 130, 30),
            (run, 9000, 30), // it was its turn long ago, and others went before it
            (run, 50, 0),
            (other, 0, 0), // after a restart: only what was spent since
            (other, 12, 12),
            (other, 500, 30),
        ] {
            assert_eq!(
                deferral.counted(in_run, seconds(open)),
                seconds(counted),
                "{open}"
            );
        }
    }
}

/// An alert that was told by one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldAlert {
    /// What it is about.
    pub name: String,
    /// How it was told.
    pub way: String,
    /// Since when there was trouble.
    pub since: Timestamp,
    /// When it was told last.
    pub told: Timestamp,
    /// When it was told that it is over, if it was.
    pub over: Option<Timestamp>,
    /// What was told.
    pub text: String,
}
