//! What administrators may do to the messages of a spool that is open.

use super::inspector::Inspector;
use super::intake::Intake;
use super::store::{Store, StoreError};
use super::writer::{Write, Written};
use crate::db::record::Reports;
use crate::db::{Change, Changed, Done, Ending, Order};
use crate::mail::QueueId;
use crate::mail::Timestamp;

/// An administrator's hand in the spool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Dropped before `store`, so that the writing connection closes last.
    pub(super) inspector: Inspector,
    pub(super) store: Store,
    pub(super) intake: Intake,
}

/// How much room the spool has, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolRoom {
    /// What the stored messages take.
    pub used: u64,
    /// What they may take.
    pub max_size: u64,
    /// What is free on the disk, if that can be found out.
    pub free: Option<u64>,
    /// What must stay free.
    pub min_free: u64,
}

/// Dead letters removed in one step.
const STEP: usize = 200;

impl Operator {
    /// Looks without touching.
    #[must_use]
    pub fn inspector(&self) -> &Inspector {
        &self.inspector
    }

    /// How much room there is.
    #[must_use]
    pub fn room(&self) -> SpoolRoom {
        self.intake.room_left()
    }

    /// Does something to a message. What is just being sent is left alone.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was changed, as far as is known: look at the message, and repeat it.
    ///
    /// # Cancellation
    /// Once called it is carried out; only the answer is lost.
    pub async fn change(&self, change: Change) -> Result<Changed, StoreError> {
        let id = change.message;
        let change = Write::Change(Box::new(change));
        let Written::Changed(changed, reports) = self.store.writer.write(change).await? else {
            return Ok(Changed::Nothing);
        };
        self.store.count_reports(reports);
        self.store.news.notify_one();
        if let Changed::Done(Done {
            ending: Ending::Released { in_file, size },
            ..
        }) = changed
        {
            self.store.let_go(id, in_file, size).await;
        }
        Ok(changed)
    }

    /// Writes down from when on an account is paused, or all of them (`None`); without a moment, that it is not any
    /// more. For a bridge that does not run: a running one is told by its queue runner.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn pause(&self, account: Option<&str>, since: Option<Timestamp>) -> Result<(), StoreError> {
        let account = account.unwrap_or_default();
        match since {
            Some(since) => self.store.pause(account, since).await,
            None => self.store.resume(account).await,
        }
    }

    /// Removes dead letters that failed before `before`, a few hundred at most. Answers which are gone; with none, nothing
    /// is left to be removed. `event` makes what the history is told.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn expire(
        &self,
        before: Timestamp,
        now: Timestamp,
        mut event: impl FnMut(QueueId) -> Vec<String>,
    ) -> Result<Vec<QueueId>, StoreError> {
        let old = self
            .inspector
            .read(move |reader| reader.old_failures(before, STEP))
            .await?;
        let mut removed = Vec::new();
        for message in old {
            let change = Change {
                message,
                order: Order::Expire(before),
                at: now,
                events: event(message),
                reports: Reports::default(),
            };
            if let Changed::Done(_) = self.change(change).await? {
                removed.push(message);
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
#[path = "operator_tests.rs"]
mod tests;
