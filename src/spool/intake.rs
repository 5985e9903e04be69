//! The listener's half of the spool: a message comes in piece by piece and is accepted as a whole, or not at all.

use super::INLINE_LIMIT;
use super::disk::Disk;
use super::envelope_file::write_envelope;
use super::writer::{Write, WriteError, WriterHandle};
use crate::clock::Clock;
use crate::db::record::{Message, Origin, Stored};
use crate::mail::Envelope;
use crate::mail::QueueId;
use crate::mail::Timestamp;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Where new messages enter the spool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Intake(Arc<Shared>);

/// Whether there is room for another message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Enough,
    /// Below `spool.min_free` or above `spool.max_size`: answer `452 4.3.1`.
    Full,
}

/// Why a message was not accepted. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The disk, or the share of it that we may use, is full: answer `452 4.3.1`.
    #[error("the spool is full: {0}")]
    Full(String),
    /// The disk does not do what it is asked: answer `451 4.3.0`.
    #[error("the spool cannot be written: {0}")]
    Disk(String),
}

/// A message on its way in. Dropping it without [`Draft::accept`] leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    shared: Arc<Shared>,
    id: QueueId,
    arrived: Timestamp,
    gathered: Vec<u8>,
    memory: Option<OwnedSemaphorePermit>,
    file: Option<BodyFile>,
    size: u64,
    checksum: crc32fast::Hasher,
}

/// What all drafts have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Disk,
    pub(super) writer: WriterHandle,
    pub(super) clock: Clock,
    /// Octets of all bodies in the spool.
    pub(super) live: Arc<AtomicU64>,
    /// Told whenever a message was accepted.
    pub(super) arrived: Arc<Notify>,
    /// How much message text all drafts together may hold in memory, in units of [`UNIT`].
    pub(super) memory: Arc<Semaphore>,
    pub(super) max_size: u64,
    pub(super) min_free: u64,
}

/// One unit of the memory budget, and what a draft without a share of it gathers before it writes.
const UNIT: usize = 8 * 1024;

/// The memory budget of all drafts: 16 MiB. A draft that finds it spent writes to its file at once.
pub(super) const MEMORY_UNITS: usize = 16 * 1024 * 1024 / UNIT;

impl Intake {
    pub(super) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// Whether a message may come in now. Asked at MAIL.
    #[must_use]
    pub fn room(&self) -> Room {
        let free = self.0.disk.free().unwrap_or(u64::MAX);
        let live = self.0.live.load(Ordering::Relaxed);
        if free < self.0.min_free || live >= self.0.max_size {
            Room::Full
        } else {
            Room::Enough
        }
    }

    /// Begins a message.
    #[must_use]
    pub fn begin(&self) -> Draft {
        let shared = self.0.clone();
        let arrived = shared.clock.now();
        let units = u32::try_from(INLINE_LIMIT / UNIT).unwrap_or(1);
        let memory = shared.memory.clone().try_acquire_many_owned(units).ok();
        Draft {
            id: QueueId::new(arrived),
            arrived,
            gathered: Vec::new(),
            memory,
            file: None,
            size: 0,
            checksum: crc32fast::Hasher::new(),
            shared,
        }
    }
}

impl Draft {
    /// The name that the message will have.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Octets so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds to the body, whose lines end in CRLF.
    ///
    /// # Errors
    /// [`AcceptError`]; drop the draft then.
    ///
    /// # Cancellation
    /// Not safe: drop the draft after a cancelled call.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), AcceptError> {
        self.size += bytes.len() as u64;
        self.checksum.update(bytes);
        self.gathered.extend_from_slice(bytes);
        let limit = if self.memory.is_some() { INLINE_LIMIT } else { UNIT };
        if self.gathered.len() > limit {
            self.flush().await?;
        }
        Ok(())
    }

    /// Takes responsibility for the message: when this returns, it is on the disk, and 250 may be said.
    ///
    /// # Errors
    /// [`AcceptError`]; nothing is left behind.
    ///
    /// # Cancellation
    /// After a cancelled call the message may have been accepted or not, as after a lost connection.
    pub async fn accept(mut self, envelope: Envelope, origin: Origin) -> Result<Message, AcceptError> {
        if self.file.is_some() {
            self.flush().await?;
        }
        let message = Message {
            id: self.id,
            arrived: self.arrived,
            envelope,
            origin,
            size: self.size,
            checksum: self.checksum.clone().finalize(),
        };
        let (stored, mut sealed) = match self.file.take() {
            None => (
                Stored::Inline(Bytes::from(std::mem::take(&mut self.gathered))),
                None,
            ),
            Some(file) => (Stored::File, Some(self.seal(file, &message).await?)),
        };
        // From here on the row may exist, and the body is the writer's: it stays, whatever becomes of this future,
        // and goes if the writer refuses.
        if let Some(file) = &mut sealed {
            file.keep = true;
        }
        self.shared.live.fetch_add(message.size, Ordering::Relaxed);
        let accepted = self
            .shared
            .writer
            .write(Write::Accept(Box::new(message.clone()), stored))
            .await;
        if let Err(error) = accepted {
            self.shared.live.fetch_sub(message.size, Ordering::Relaxed);
            return Err(AcceptError::from(&error));
        }
        self.shared.arrived.notify_one();
        Ok(message)
    }

    /// Writes what has been gathered to the file.
    async fn flush(&mut self) -> Result<(), AcceptError> {
        let gathered = std::mem::take(&mut self.gathered);
        let (disk, id, file) = (self.shared.disk.clone(), self.id, self.file.take());
        let (file, mut gathered) = blocking(move || {
            let file = match file {
                Some(file) => file,
                None => BodyFile {
                    file: disk.create_body(id)?,
                    disk,
                    id,
                    keep: false,
                },
            };
            (&file.file).write_all(&gathered)?;
            Ok((file, gathered))
        })
        .await?;
        gathered.clear();
        (self.file, self.gathered) = (Some(file), gathered);
        Ok(())
    }

    async fn seal(&self, file: BodyFile, message: &Message) -> Result<BodyFile, AcceptError> {
        let envelope = write_envelope(message);
        blocking(move || {
            file.disk.seal_body(file.id, &file.file, envelope.as_bytes())?;
            Ok(file)
        })
        .await
    }
}

/// A body file that is removed when it is dropped, unless it is to be kept.
#[derive(Debug)]
struct BodyFile {
    file: File,
    disk: Disk,
    id: QueueId,
    keep: bool,
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.disk.remove_body(self.id)
        {
            tracing::warn!(id = %self.id, %error, "an unfinished body could not be removed; the next start sweeps it");
        }
    }
}

async fn blocking<T: Send + 'static>(
    step: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, AcceptError> {
    match tokio::task::spawn_blocking(step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) if is_full(&error) => Err(AcceptError::Full(error.to_string())),
        Ok(Err(error)) => Err(AcceptError::Disk(error.to_string())),
        Err(error) => Err(AcceptError::Disk(error.to_string())),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl From<&WriteError> for AcceptError {
    fn from(error: &WriteError) -> Self {
        if error.is_full() {
            Self::Full(error.to_string())
        } else {
            Self::Disk(error.to_string())
        }
    }
}
