//! The queue runner's half of the spool.

use super::body::{Body, BodyError};
use super::spool_files::SpoolFiles;
use super::writer::{Write, WriteError, WriterHandle, Written};
use crate::db::record::{
    Message, Occasion, PartId, Plan, Reports, Sent, Settlement, Stored, Told, ToldAlert,
};
use crate::db::{Agenda, DbError, Ending, Lane, LaneAgenda, LaneCounts, Parts, QueueReader, Slots};
use crate::mail::QueueId;
use crate::mail::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// What the queue runner may ask of the spool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    /// Dropped before `writer`, so that the writing connection closes last and leaves no write-ahead log behind.
    pub(super) reader: Arc<Mutex<QueueReader>>,
    pub(super) files: SpoolFiles,
    pub(super) writer: WriterHandle,
    pub(super) live: Arc<AtomicU64>,
    pub(super) arrived: Arc<Notify>,
    pub(super) news: Arc<Notify>,
}

/// Why the spool could not do what it was asked. Nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database.
    #[error("{0}")]
    Db(Arc<DbError>),
    /// The message is not in the queue any more.
    #[error("message {0} is not in the queue")]
    Unknown(QueueId),
    /// The body cannot be read at the moment.
    #[error("{0}")]
    Body(Arc<BodyError>),
    /// The program is ending.
    #[error("the spool is closing")]
    Closing,
}

impl StoreError {
    /// True if the part does not wait to be sent any more.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        matches!(self, Self::Db(error) if matches!(**error, DbError::Withdrawn(_)))
    }

    /// True if asking again will not help: the record is damaged or gone.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Db(error) => matches!(**error, DbError::Row { .. }),
            Self::Unknown(_) => true,
            Self::Body(error) => error.is_lasting(),
            Self::Closing => false,
        }
    }
}

impl From<BodyError> for StoreError {
    fn from(error: BodyError) -> Self {
        Self::Body(Arc::new(error))
    }
}

/// Counts `octets` less. Saturating: nothing may ever make the spool look full for good.
pub(super) fn take_off(live: &AtomicU64, octets: u64) {
    let less = |live: u64| Some(live.saturating_sub(octets));
    let _ = live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
}

impl Store {
    /// Waits until a message was accepted since the last call returned.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// What is to be done at `now`; see [`Agenda`]. `slots` says how many due parts are wanted of each lane.
    ///
    /// # Errors
    /// [`StoreError`]
    ///
    /// # Cancellation
    /// Safe, as for all reading methods.
    pub async fn agenda(
        &self,
        now: Timestamp,
        unplanned: usize,
        slots: impl FnMut(&Lane) -> Slots + Send + 'static,
    ) -> Result<Agenda, StoreError> {
        self.read(move |reader| reader.agenda(now, unplanned, slots))
            .await
    }

    /// At most `unplanned` messages to plan, and what is to be done at `now` in the lanes of `wanted`: work in
    /// proportion to what is asked for.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn look(
        &self,
        now: Timestamp,
        unplanned: usize,
        wanted: Vec<(Lane, Slots)>,
    ) -> Result<(Vec<QueueId>, Vec<LaneAgenda>), StoreError> {
        self.read(move |reader| reader.look(now, unplanned, wanted)).await
    }

    /// The lanes that have parts waiting.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn waiting_lanes(&self) -> Result<Vec<Lane>, StoreError> {
        self.read(QueueReader::waiting_lanes).await
    }

    /// Every lane that has parts, with how many there are in each state.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn lanes(&self) -> Result<Vec<LaneCounts>, StoreError> {
        self.read(QueueReader::lanes).await
    }

    /// Which accounts an administrator has paused, and since when; the empty name stands for all.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn pauses(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        self.read(QueueReader::pauses).await
    }

    /// What all mailboxes have sent from the hour `since` on, for their daily limits.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn sent(&self, since: i64) -> Result<Vec<Sent>, StoreError> {
        self.read(move |reader| reader.sent(since)).await
    }

    /// Parts whose attempt was under way when the program ended.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn interrupted(&self) -> Result<Parts, StoreError> {
        self.read(QueueReader::interrupted).await
    }

    /// Parts of a message that wait, or are held, and are not under way.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn parts_at_rest(&self, id: QueueId) -> Result<Parts, StoreError> {
        self.read(move |reader| reader.parts_at_rest(id)).await
    }

    /// A message with its body.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn message(&self, id: QueueId) -> Result<(Message, Body), StoreError> {
        let files = self.files.clone();
        let found = self
            .read(move |reader| {
                let Some(message) = reader.message(id)? else {
                    return Ok(None);
                };
                let body = match reader.body(id)? {
                    None => return Ok(None),
                    Some(Stored::Inline(bytes)) => Body::in_memory(bytes, message.size, message.checksum),
                    Some(Stored::File) => Body::in_file(files, id, message.size, message.checksum),
                };
                Ok(Some((message, body)))
            })
            .await?;
        found.ok_or(StoreError::Unknown(id))
    }

    /// Waits until there may be something new in the outbox since the last call returned.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// The oldest events that the history has not been told, by their ids, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn outbox(&self, limit: usize) -> Result<Vec<(i64, String)>, StoreError> {
        self.read(move |reader| reader.outbox(limit)).await
    }

    /// Removes from the outbox what the history has for good: everything up to and with the event `last`.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn forget(&self, last: i64) -> Result<(), StoreError> {
        self.writer.write(Write::Forget(last)).await?;
        Ok(())
    }

    /// Writes the plan of a message. A message that has a plan keeps it.
    ///
    /// # Errors
    /// [`StoreError`]
    ///
    /// # Cancellation
    /// Once called it is carried out, as all writing methods; only the answer is lost.
    pub async fn plan(&self, id: QueueId, plan: Plan) -> Result<(), StoreError> {
        self.writer.write(Write::Plan(id, plan)).await?;
        self.news.notify_one();
        Ok(())
    }

    /// Commits that an attempt begins. Only after this may the body be handed to an upstream.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn mark(&self, part: PartId, at: Timestamp) -> Result<(), StoreError> {
        self.writer.write(Write::Mark(part, at)).await?;
        Ok(())
    }

    /// Puts a part aside for a person: it is not tried again by itself.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn hold(&self, part: PartId) -> Result<(), StoreError> {
        self.writer.write(Write::Hold(part)).await?;
        Ok(())
    }

    /// Makes everything due now that is due only after `horizon`, which no wait can reach: the clock was wrong when
    /// it was written.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn rein_in(&self, now: Timestamp, horizon: Timestamp) -> Result<(), StoreError> {
        self.writer.write(Write::ReinIn(now, horizon)).await?;
        Ok(())
    }

    /// Makes parts due at `now` that wait after a deferral, not after an attempt of unknown outcome.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn hasten(&self, parts: Vec<PartId>, now: Timestamp) -> Result<(), StoreError> {
        self.writer.write(Write::Hasten(parts, now)).await?;
        Ok(())
    }

    /// Remembers that the mail of an account, or of all (the empty name), is not to be sent.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn pause(&self, account: &str, since: Timestamp) -> Result<(), StoreError> {
        self.writer.write(Write::Pause(account.to_owned(), since)).await?;
        Ok(())
    }

    /// Forgets the pause of an account, or every pause (the empty name).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn resume(&self, account: &str) -> Result<(), StoreError> {
        self.writer.write(Write::Resume(account.to_owned())).await?;
        Ok(())
    }

    /// Commits the end of an attempt; releases the message, with its body, if nothing is left of it. May be
    /// repeated after an error.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn settle(&self, settlement: Settlement) -> Result<Ending, StoreError> {
        let id = settlement.part.message;
        let Written::Settled(ending, reports) =
            self.writer.write(Write::Settle(Box::new(settlement))).await?
        else {
            return Ok(Ending::Open);
        };
        self.count_reports(reports);
        self.news.notify_one();
        if let Ending::Released { in_file, size } = ending {
            self.let_go(id, in_file, size).await;
        }
        Ok(ending)
    }

    /// Gives back what a message took whose row is gone.
    pub(super) async fn let_go(&self, id: QueueId, in_file: bool, size: u64) {
        take_off(&self.live, size);
        if in_file {
            let files = self.files.clone();
            let removed = tokio::task::spawn_blocking(move || files.remove_body(id)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%id, %error, "a delivered body could not be removed; the next start sweeps it");
            }
        }
    }

    /// Queues reports about something else than the end of an attempt, unless that was done before; answers whether
    /// it was done now. May be repeated after an error.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn tell(&self, occasion: Occasion, reports: Reports) -> Result<bool, StoreError> {
        let Written::Told(octets) = self.writer.write(Write::Tell(occasion, reports)).await? else {
            return Ok(false);
        };
        self.count_reports(octets.unwrap_or(0));
        Ok(octets.is_some())
    }

    /// What `recipient` ([`Address::key`](crate::mail::Address::key)) was told of `cause`, if anything.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn told(&self, recipient: String, cause: String) -> Result<Option<Told>, StoreError> {
        self.read(move |reader| reader.told(&recipient, &cause)).await
    }

    /// Remembers that an alert was told, and queues the mail that tells it if it is one, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn alerted(&self, told: ToldAlert, mail: Reports) -> Result<(), StoreError> {
        let written = self.writer.write(Write::Alert(Box::new(told), mail)).await?;
        if let Written::Told(Some(octets)) = written {
            self.count_reports(octets);
            self.news.notify_one();
        }
        Ok(())
    }

    /// The alerts that were told.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn alerts(&self) -> Result<Vec<ToldAlert>, StoreError> {
        self.read(QueueReader::alerts).await
    }

    pub(super) fn count_reports(&self, octets: u64) {
        if octets > 0 {
            self.live.fetch_add(octets, Ordering::Relaxed);
            self.arrived.notify_one();
        }
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&QueueReader) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = self.reader.clone();
        let answer = tokio::task::spawn_blocking(move || {
            // A question that panicked has left nothing half done: the connection only reads.
            question(&reader.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match answer.await {
            Ok(Err(error)) if error.is_damage() => {
                self.files.suspect_database();
                tracing::error!(%error, "queue.db is damaged: restart the bridge, it will recover what can be read");
                Err(StoreError::Db(Arc::new(error)))
            }
            Ok(answer) => answer.map_err(|error| StoreError::Db(Arc::new(error))),
            Err(_) => Err(StoreError::Closing),
        }
    }
}

impl From<WriteError> for StoreError {
    fn from(error: WriteError) -> Self {
        Self::Db(error)
    }
}
