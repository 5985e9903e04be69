//! Floor 6: administrators are told when mail stops, and when it flows again.
//!
//! [`decide`] is pure: how the world is and what was told already go in, what is to be told now comes out. One task
//! owns all of it and waits in one loop; whatever it sends to has a time limit, and no mail ever waits for it.
//!
//! ```text
//! delivery::Control ┐                          ┌─▶ webhook
//! oldest message    ├─▶ World ──▶ decide ──▶ Tell ─▶ command
//! room on the disk  │              ▲           └─▶ mail, through an account that is well
//! what the start    ┘              └── Told (table alert) ◀── once it was sent
//! certificates
//! ```
//!
//! **At least once.** The row that remembers an alert is written after it was sent: a crash in the instant between
//! repeats an alert, which is a nuisance; written before, the crash would swallow it, and nobody would know that mail has
//! stopped.

mod decide;

pub use decide::{Tell, Told, World, decide};

use crate::mail::Timestamp;
use std::fmt;

/// Something administrators should know of, as long as it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What it is about.
    pub topic: Topic,
    /// Since when, as far as is known.
    pub since: Timestamp,
    /// What is wrong and what to do, in plain language.
    pub text: String,
    /// The upstream's or the system's own words; may be empty.
    pub detail: String,
}

/// What a trouble is about. Two troubles of one topic are the same trouble.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// The mail of an account, or of one of its mailboxes, waits until a person has done something.
    Broken {
        /// The account's name.
        account: String,
        /// The mailbox; `None` for all of the account.
        mailbox: Option<String>,
    },
    /// The oldest message waits for longer than it should.
    QueueOld,
    /// Mail waits for a person for nearly as long as is allowed, or longer.
    HeldLong,
    /// There is no room for new mail.
    Room,
    /// What was set aside at the start, because it was damaged.
    Damaged {
        /// Which file.
        what: String,
    },
    /// Something ends soon: a certificate, a secret.
    Expiring {
        /// What.
        what: String,
    },
}

impl Topic {
    /// The account that has the trouble, if it is one account's.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::Broken { account, .. } => Some(account),
            _ => None,
        }
    }

    /// A word for programs: which kind of trouble it is.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Broken { mailbox: None, .. } => "account_broken",
            Self::Broken { .. } => "mailbox_broken",
            Self::QueueOld => "queue_old",
            Self::HeldLong => "held_long",
            Self::Room => "no_room",
            Self::Damaged { .. } => "damaged",
            Self::Expiring { .. } => "expiring",
        }
    }
}

impl fmt::Display for Topic {
    /// Its name, for example `account broken: office`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken {
                account,
                mailbox: None,
            } => write!(f, "account broken: {account}"),
            Self::Broken {
                account,
                mailbox: Some(mailbox),
            } => write!(f, "mailbox broken: {mailbox} ({account})"),
            Self::QueueOld => f.write_str("mail waits for long"),
            Self::HeldLong => f.write_str("mail waits for you for long"),
            Self::Room => f.write_str("no room for mail"),
            Self::Damaged { what } => write!(f, "damaged: {what}"),
            Self::Expiring { what } => write!(f, "expiring: {what}"),
        }
    }
}
