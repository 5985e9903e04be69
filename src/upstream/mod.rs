//! Floor 4: the ways out.

pub mod graph;
mod scripted;

pub use graph::Graph;
pub use scripted::Scripted;

use crate::mail::Address;
use crate::mail::Disposition;
use crate::mail::QueueId;
use crate::mail::Report;
use crate::spool::Body;
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;

/// A way out: something that takes a message over, or says why not.
///
/// The caller asks [`prepare`](Self::prepare) first, commits the marker of the attempt, and then calls
/// [`deliver`](Self::deliver) once. What `deliver` answers is a [`Report`], never an error: a disposition for each
/// recipient, in order. From the moment when the last octet of the body has left us until an answer was heard, the
/// outcome is [`Disposition::Uncertain`]; before, it is at worst Deferred.
pub trait Upstream: Send + Sync {
    /// Gets ready without touching the message: above all, a token. What fails here was no attempt.
    fn prepare(&self) -> Answer<'_, Result<(), Disposition>>;

    /// Makes one attempt.
    ///
    /// Cancellation: dropping the future leaves the outcome unknown; treat it as Uncertain.
    fn deliver<'a>(&'a self, parcel: &'a Parcel) -> Answer<'a, Report>;
}

/// What an [`Upstream`] answers, later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A message as it goes out.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The message's name.
    pub id: QueueId,
    /// The mailbox that sends.
    pub mailbox: Address,
    /// True if the configuration names the mailbox: then that it may not send as itself is no fault of the message.
    pub listed: bool,
    /// The addresses in its From field.
    pub from: Vec<Address>,
    /// Who gets it; the header already names exactly these.
    pub recipients: Vec<Address>,
    /// What replaces the first `skip` octets of the body: our Received field and the changed header.
    pub head: Bytes,
    /// Octets of the stored body that `head` replaces.
    pub skip: u64,
    /// The stored message.
    pub body: Body,
}

impl Parcel {
    /// Octets of the whole outgoing message.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.head.len() as u64 + self.body.size().saturating_sub(self.skip)
    }

    /// The same disposition for everybody.
    #[must_use]
    pub fn report(&self, disposition: Disposition) -> Report {
        Report::all(self.recipients.len(), disposition)
    }
}
