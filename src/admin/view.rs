//! What is said to administrators and their programs, as JSON. Fields are only ever added: programs rely on them.
//!
//! Moments are RFC 3339 in UTC, durations seconds, sizes octets. What is not known or does not apply is `null`.

use crate::mail::QueueId;
use crate::spool::State;
use serde::{Deserialize, Serialize};

/// Which messages are meant, as it is typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// `waiting`, `sending`, `held`, `failed` or `uncertain`.
    pub state: Option<String>,
    /// An account's name.
    pub account: Option<String>,
    /// A pattern for the reverse-path.
    pub sender: Option<String>,
    /// A pattern for a recipient.
    pub recipient: Option<String>,
    /// A duration such as `2h`: it arrived before that time.
    pub older_than: Option<String>,
    /// It arrived within that time.
    pub younger_than: Option<String>,
    /// An id: only what comes behind it.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// A page of messages, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The messages.
    pub messages: Vec<Message>,
    /// Give this as `after` to go on; `null` at the end. A page that is not full may have more behind it.
    pub next: Option<QueueId>,
    /// How many records were looked at for this page.
    pub looked_at: u64,
}

/// Names of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The names.
    pub ids: Vec<QueueId>,
    /// As in [`List`].
    #[serde(default)]
    pub next: Option<QueueId>,
}

/// A message in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its name.
    pub id: QueueId,
    /// When it was accepted.
    pub arrived: String,
    /// How long ago that is.
    pub age_seconds: u64,
    /// Octets.
    pub size: u64,
    /// The reverse-path; empty for `<>`.
    pub sender: String,
    /// How it stands: the most urgent of its parts. Never `uncertain`, which is a field of its own.
    pub state: State,
    /// True if nobody knows whether an earlier attempt went through: sent again, it may arrive twice.
    pub uncertain: bool,
    /// The account it goes out by; `null` before that is decided.
    pub account: Option<String>,
    /// The mailbox that sends.
    pub mailbox: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next, if account and mailbox are well and nobody has paused them.
    pub next_attempt: Option<String>,
    /// How many recipients its envelope has.
    pub recipients: u64,
    /// How many of them do not have it.
    pub open: u64,
    /// Those who do not have it, the first ten.
    pub to: Vec<Recipient>,
}

/// A recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The address.
    pub address: String,
    /// `waiting`, `relayed` or `failed`.
    pub fate: String,
    /// The enhanced status code of the last attempt (RFC 3463).
    pub status: Option<String>,
    /// What the last attempt came to, in words.
    pub cause: Option<String>,
}

/// All that is known of a message but its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// As in a list.
    pub message: Message,
    /// Who sent it: an address, or `local`.
    pub client: String,
    /// What the client called itself.
    pub greeting: String,
    /// Who had logged in.
    pub user: Option<String>,
    /// Whether the connection was encrypted.
    pub tls: bool,
    /// The listener that took it.
    pub listener: String,
    /// What it goes out in.
    pub parts: Vec<Part>,
    /// All recipients.
    pub recipients: Vec<Recipient>,
}

/// A part of a message: some recipients, by one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its number, from 0.
    pub number: u32,
    /// The account.
    pub account: String,
    /// The mailbox that sends.
    pub mailbox: String,
    /// How it stands; `null` if all its recipients have it.
    pub state: Option<State>,
    /// As in [`Message`].
    pub uncertain: bool,
    /// How often it was tried.
    pub attempts: u32,
    /// As in [`Message`].
    pub next_attempt: Option<String>,
    /// When the attempt began that is under way.
    pub sending_since: Option<String>,
}

/// What came of an action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// For each message, in the order of the request.
    pub results: Vec<ResultOf>,
}

/// What came of an action on one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultOf {
    /// The message.
    pub id: QueueId,
    /// True if it was done.
    pub done: bool,
    /// What there is to say: why it was not done, or a warning.
    pub text: Option<String>,
    /// True if it may arrive twice.
    pub may_arrive_twice: bool,
}

/// What came of taking a message over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Its name.
    pub id: QueueId,
    /// False if it was in the queue already.
    pub new: bool,
}

/// Whose mail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Which {
    /// An account's name; `null` for all.
    pub account: Option<String>,
}

/// How the bridge stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of this program.
    pub version: String,
    /// The bridge's name.
    pub hostname: String,
    /// False if no bridge runs; then nothing is known of accounts but what waits for them.
    pub running: bool,
    /// How long it has been running.
    pub uptime_seconds: Option<u64>,
    /// True if nobody has to do anything.
    pub healthy: bool,
    /// If not: what there is to do, in words.
    pub troubles: Vec<String>,
    /// Messages in the queue, dead letters included.
    pub messages: u64,
    /// Deliveries by state. A message goes out in one delivery, or in a few.
    pub deliveries: Deliveries,
    /// How long the oldest message has been waiting.
    pub oldest_waiting_seconds: Option<u64>,
    /// Since when all accounts are paused.
    pub paused_since: Option<String>,
    /// The accounts.
    pub accounts: Vec<Account>,
    /// The room of the spool; `null` if no bridge runs.
    pub room: Option<Room>,
}

/// Deliveries by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deliveries {
    /// Will be tried by themselves.
    pub waiting: u64,
    /// Are being tried.
    pub sending: u64,
    /// Wait for a person.
    pub held: u64,
    /// Are dead letters.
    pub failed: u64,
    /// Of those waiting and held: an earlier attempt may have gone through.
    pub uncertain: u64,
}

/// How an account stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// False if mail waits for it and the configuration has it no more; `null` if no bridge runs.
    pub configured: Option<bool>,
    /// Since when it is paused.
    pub paused_since: Option<String>,
    /// Whether its mail can go.
    pub health: Health,
    /// The mailboxes that have mail in the queue or trouble.
    pub mailboxes: Vec<Mailbox>,
}

/// How the mail of one mailbox through one account stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// Its address.
    pub mailbox: String,
    /// Whether its mail can go.
    pub health: Health,
    /// Deliveries that wait, those under way included.
    pub waiting: u64,
    /// Deliveries that wait for a person.
    pub held: u64,
    /// Dead letters.
    pub failed: u64,
    /// Attempts under way.
    pub under_way: u64,
}

/// Whether mail can go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `well`; `throttled`: it will pass by itself; `broken`: a person must act; `unknown`: no bridge runs.
    pub state: String,
    /// Since when.
    pub since: Option<String>,
    /// Why, in plain language, and what to do.
    pub cause: Option<String>,
    /// What the provider said.
    pub detail: Option<String>,
    /// When it is tried again.
    pub next_try: Option<String>,
}

/// The room of the spool, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// What the messages take.
    pub used: u64,
    /// What they may take.
    pub max_size: u64,
    /// What is free on the disk.
    pub free: Option<u64>,
    /// What must stay free.
    pub min_free: u64,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong, and what to do.
    pub error: String,
}

/// Octets as people say them: three digits at most, and a unit.
#[must_use]
pub fn about(octets: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut size, mut unit) = (octets as f64, 0);
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 || size >= 99.95 {
        format!("{size:.0} {}", UNITS[unit])
    } else {
        format!("{size:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (octets, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (102_400, "100 KiB"),
            (1_048_575, "1.0 MiB"),
            (10 << 30, "10.0 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(about(octets), text);
        }
    }
}
