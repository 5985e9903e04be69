//! How others ask the queue runner what it is doing, and tell it to pause.
//!
//! A [`Control`] is a handle: each call is a message to the runner's loop, which owns all state and answers. What
//! somebody should be told without having asked (an account broke, an account is well again) comes as [`Attention`].

use crate::mail::Cause;
use crate::mail::Timestamp;
use crate::spool::{PartId, StoreError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};

/// A handle on the queue runner. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    requests: mpsc::Sender<Request>,
    attention: broadcast::Sender<Attention>,
}

/// How delivery stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// When this was so.
    pub at: Timestamp,
    /// Since when an administrator has paused all accounts.
    pub paused: Option<Timestamp>,
    /// The accounts of the configuration, and those that mail still waits for, by name.
    pub accounts: Vec<AccountStatus>,
    /// Messages that are being read and planned at the moment.
    pub planning: usize,
}

/// How an account stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountStatus {
    /// Its name.
    pub name: String,
    /// False if mail was planned for it and the configuration has it no more.
    pub configured: bool,
    /// Since when an administrator has paused it.
    pub paused: Option<Timestamp>,
    /// Whether all its mail can go. The mailboxes have troubles of their own besides.
    pub health: Health,
    /// The mailboxes that have mail in the queue or trouble, by name.
    pub mailboxes: Vec<MailboxStatus>,
}

/// How the mail of one mailbox through one account stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxStatus {
    /// Its address.
    pub mailbox: String,
    /// Whether its mail can go.
    pub health: Health,
    /// Deliveries that wait, those under way included. A message may be more than one delivery.
    pub waiting: u64,
    /// Deliveries that wait for a person.
    pub held: u64,
    /// Deliveries that ended without having reached everybody, and are kept.
    pub failed: u64,
    /// Attempts under way.
    pub under_way: usize,
}

/// Whether mail can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// As far as is known.
    Well,
    /// Not for a while: throttled, busy, out of reach. It will pass by itself.
    Throttled(Trouble),
    /// Not before a person has done something. It is looked at again and again meanwhile.
    Broken(Trouble),
}

/// Why mail cannot go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Since when.
    pub since: Timestamp,
    /// Why, in plain language, with what to do; and the upstream's words.
    pub cause: Cause,
    /// When the next message is tried.
    pub next_probe: Timestamp,
}

/// What is in trouble or well again: an account with all its mail, or one mailbox of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The account's name.
    pub account: String,
    /// The mailbox; `None` for all of the account.
    pub mailbox: Option<String>,
}

/// What somebody should be told without having asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attention {
    /// Mail does not go until a person has done something. Told again when the cause is another one.
    Broken {
        /// Where.
        place: Place,
        /// Why.
        trouble: Trouble,
    },
    /// Mail does not go for a while.
    Throttled {
        /// Where.
        place: Place,
        /// Why.
        trouble: Trouble,
    },
    /// A limit of a mailbox is near or reached, or was found out.
    Limit {
        /// What it is, and what to do.
        text: String,
    },
    /// Mail flows again.
    Well {
        /// Where.
        place: Place,
        /// It was in trouble for so long.
        after: Duration,
    },
    /// Mail has waited for long because of what a person must put right; soon it will have waited for as long as
    /// `hold_for` allows.
    HoldEnds {
        /// Where.
        place: Place,
        /// Why it waits.
        cause: Cause,
        /// When the first message will have waited for so long.
        ends: Timestamp,
    },
    /// Mail has waited for as long as `hold_for` allows. It is kept, and waits for a person.
    HeldTooLong {
        /// Where; `None` for what waited for a person all along.
        place: Option<Place>,
        /// How many deliveries.
        messages: usize,
    },
    /// A message waits for a person: it may have been delivered, or cannot be read.
    PersonNeeded {
        /// Which.
        part: PartId,
        /// Why.
        cause: Cause,
    },
}

/// Why the runner did not do as it was told.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ControlError {
    /// The program is ending.
    #[error(
        "the bridge is stopping: nothing is sent any more, and nothing can be changed before it runs again"
    )]
    Stopping,
    /// There is no such account.
    #[error("there is no account {name:?}; the configuration has: {known}")]
    UnknownAccount {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// All accounts are paused, not this one.
    #[error("all accounts are paused, not {0:?} alone: resume all of them, then pause those that shall wait")]
    AllPaused(String),
    /// The queue.
    #[error("the queue cannot be read at the moment: {0}")]
    Unreadable(StoreError),
    /// The spool.
    #[error("{done}, but this could not be written and does not survive a restart: {error}")]
    Spool {
        /// What holds nevertheless.
        done: &'static str,
        /// What the spool says.
        error: StoreError,
    },
}

/// A question or an order.
#[derive(Debug)]
pub(super) enum Request {
    Status(oneshot::Sender<Result<Status, ControlError>>),
    Pause(Option<String>, oneshot::Sender<Result<(), ControlError>>),
    Resume(Option<String>, oneshot::Sender<Result<(), ControlError>>),
    LookAgain,
}

/// The runner's end.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) attention: broadcast::Sender<Attention>,
}

/// Requests that wait for the runner at most; who comes then waits before handing over.
const REQUESTS: usize = 16;

/// News that a slow listener has not yet heard; it misses the oldest then, and can ask for the status.
const NEWS: usize = 256;

/// A handle and the end that it leads to.
pub(super) fn control() -> (Control, Desk) {
    let (sender, requests) = mpsc::channel(REQUESTS);
    let (attention, _) = broadcast::channel(NEWS);
    let control = Control {
        requests: sender,
        attention: attention.clone(),
    };
    (control, Desk { requests, attention })
}

impl Control {
    /// How delivery stands now.
    ///
    /// # Errors
    /// [`ControlError::Stopping`], or the queue cannot be read.
    ///
    /// # Cancellation
    /// Safe, as for all methods; an order that was handed over is carried out.
    pub async fn status(&self) -> Result<Status, ControlError> {
        self.ask(Request::Status).await
    }

    /// Stops sending the mail of an account, or of all: it is accepted and waits, also after a restart. Attempts under
    /// way finish.
    ///
    /// # Errors
    /// [`ControlError`]
    pub async fn pause(&self, account: Option<String>) -> Result<(), ControlError> {
        self.ask(|answer| Request::Pause(account, answer)).await
    }

    /// Sends the mail of an account again; without a name, of all accounts, also of those that were paused one by one.
    ///
    /// # Errors
    /// [`ControlError`]
    pub async fn resume(&self, account: Option<String>) -> Result<(), ControlError> {
        self.ask(|answer| Request::Resume(account, answer)).await
    }

    /// Says that the queue was changed by somebody else than the runner: it looks at all of it again, soon.
    ///
    /// # Errors
    /// [`ControlError::Stopping`]
    pub async fn look_again(&self) -> Result<(), ControlError> {
        let sent = self.requests.send(Request::LookAgain).await;
        sent.map_err(|_| ControlError::Stopping)
    }

    /// From now on, everything that somebody should be told. A receiver that is too slow misses the oldest.
    #[must_use]
    pub fn attention(&self) -> broadcast::Receiver<Attention> {
        self.attention.subscribe()
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, ControlError>>) -> Request,
    ) -> Result<T, ControlError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.requests.send(request(answer)).await;
        sent.map_err(|_| ControlError::Stopping)?;
        answered.await.unwrap_or(Err(ControlError::Stopping))
    }
}
