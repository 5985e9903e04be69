//! The listener's half of the spool: a message comes in piece by piece and is accepted as a whole, or not at all.

use super::INLINE_LIMIT;
use super::disk::DiskFile;
use super::envelope_file::write_envelope;
use super::spool_files::SpoolFiles;
use super::writer::{Write, WriteError, WriterHandle};
use crate::clock::Clock;
use crate::db::record::{Message, Origin, Stored};
use crate::mail::Envelope;
use crate::mail::QueueId;
use crate::mail::Timestamp;
use crate::mail::header::{HeaderBlock, HeaderError, MAX_HEADER_BLOCK};
use bytes::Bytes;
use std::io::{self, Read as _};
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
    /// The message could never be sent: answer `554 5.6.0`.
    #[error("{0}")]
    Header(#[from] HeaderError),
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
    /// Of the beginning, whether an empty line was seen.
    header: HeaderEnd,
}

/// What all drafts have in common.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) files: SpoolFiles,
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
    /// True where nothing is stored, to measure what the listener costs by itself.
    #[cfg(feature = "measure")]
    pub(super) discards: bool,
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
        let free = self.0.files.free().unwrap_or(u64::MAX);
        let live = self.0.live.load(Ordering::Relaxed);
        if free < self.0.min_free || live >= self.0.max_size {
            Room::Full
        } else {
            Room::Enough
        }
    }

    pub(super) fn room_left(&self) -> super::SpoolRoom {
        super::SpoolRoom {
            used: self.0.live.load(Ordering::Relaxed),
            max_size: self.0.max_size,
            free: self.0.files.free().ok(),
            min_free: self.0.min_free,
        }
    }

    /// An intake that says yes to every message and stores none. It exists for `benches/measure` alone.
    #[cfg(feature = "measure")]
    #[must_use]
    pub fn that_discards(&self) -> Self {
        Self::new(Shared {
            discards: true,
            ..(*self.0).clone()
        })
    }

    /// Begins a message.
    #[must_use]
    pub fn begin(&self) -> Draft {
        let arrived = self.0.clock.now();
        self.begin_as(QueueId::new(arrived), arrived)
    }

    /// Begins a message that has a name already.
    pub(super) fn begin_as(&self, id: QueueId, arrived: Timestamp) -> Draft {
        let shared = self.0.clone();
        let units = u32::try_from(INLINE_LIMIT / UNIT).unwrap_or(1);
        let memory = shared.memory.clone().try_acquire_many_owned(units).ok();
        Draft {
            id,
            arrived,
            gathered: Vec::new(),
            memory,
            file: None,
            size: 0,
            checksum: crc32fast::Hasher::new(),
            header: HeaderEnd::default(),
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

    /// CRC-32 of the text so far.
    pub(super) fn checksum(&self) -> u32 {
        self.checksum.clone().finalize()
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
        self.header.look(bytes);
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
    pub async fn accept(self, envelope: Envelope, origin: Origin) -> Result<Message, AcceptError> {
        self.accept_telling(envelope, origin, Vec::new()).await
    }

    /// As [`accept`](Self::accept), and tells the history something in the same transaction.
    pub(super) async fn accept_telling(
        mut self,
        envelope: Envelope,
        origin: Origin,
        events: Vec<String>,
    ) -> Result<Message, AcceptError> {
        if self.file.is_some() {
            self.flush().await?;
        }
        if self.header.may_be_too_long() {
            self.check_header().await?;
        }
        let message = Message {
            id: self.id,
            arrived: self.arrived,
            envelope,
            origin,
            size: self.size,
            checksum: self.checksum.clone().finalize(),
            report: false,
        };
        #[cfg(feature = "measure")]
        if self.shared.discards {
            return Ok(message);
        }
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
            .write(Write::Accept(Box::new(message.clone()), stored, events))
            .await;
        if let Err(error) = accepted {
            super::store::take_off(&self.shared.live, message.size);
            return Err(AcceptError::from(&error));
        }
        self.shared.arrived.notify_one();
        Ok(message)
    }

    /// Refuses a message whose header is longer than anything that could be sent. Only here, at the end, and only for
    /// a beginning that looks like it, is it read as the planner will read it: a long text may have no header at all.
    async fn check_header(&mut self) -> Result<(), AcceptError> {
        self.flush().await?;
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let (file, checked) = blocking(move || {
            let mut beginning = Vec::new();
            file.files
                .open_body(file.id)?
                .take(MAX_HEADER_BLOCK as u64)
                .read_to_end(&mut beginning)?;
            let checked = HeaderBlock::parse(&beginning, false).map(drop);
            Ok((file, checked))
        })
        .await?;
        self.file = Some(file);
        Ok(checked?)
    }

    /// Writes what has been gathered to the file.
    async fn flush(&mut self) -> Result<(), AcceptError> {
        let gathered = std::mem::take(&mut self.gathered);
        let (files, id, file) = (self.shared.files.clone(), self.id, self.file.take());
        let (file, mut gathered) = blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => BodyFile {
                    file: files.create_body(id)?,
                    files,
                    id,
                    keep: false,
                },
            };
            file.file.write_all(&gathered)?;
            Ok((file, gathered))
        })
        .await?;
        gathered.clear();
        if self.memory.is_none() {
            // Without a share of the budget nothing is kept for later.
            gathered = Vec::new();
        }
        (self.file, self.gathered) = (Some(file), gathered);
        Ok(())
    }

    async fn seal(&self, mut file: BodyFile, message: &Message) -> Result<BodyFile, AcceptError> {
        let envelope = write_envelope(message);
        blocking(move || {
            file.files
                .seal_body(file.id, &mut *file.file, envelope.as_bytes())?;
            Ok(file)
        })
        .await
    }
}

/// Where the header may end: at the first empty line. Sees the text piece by piece and keeps none of it.
#[derive(Clone, Copy, Debug, Default)]
struct HeaderEnd {
    seen: usize,
    /// How much of CRLF CRLF the text so far ends with; a message begins as if after CRLF.
    matched: Option<u8>,
    ended: bool,
}

impl HeaderEnd {
    fn look(&mut self, text: &[u8]) {
        if self.ended || self.seen > MAX_HEADER_BLOCK {
            return;
        }
        let mut matched = self.matched.unwrap_or(2);
        for &octet in text
            .iter()
            .take(MAX_HEADER_BLOCK - self.seen.min(MAX_HEADER_BLOCK))
        {
            matched = match (matched, octet) {
                (1, b'\n') => 2,
                (3, b'\n') => {
                    self.ended = true;
                    return;
                }
                (2, b'\r') => 3,
                (_, b'\r') => 1,
                _ => 0,
            };
        }
        self.matched = Some(matched);
        self.seen += text.len();
    }

    fn may_be_too_long(&self) -> bool {
        !self.ended && self.seen > MAX_HEADER_BLOCK
    }
}

/// A body file that is removed when it is dropped, unless it is to be kept.
#[derive(Debug)]
struct BodyFile {
    file: Box<dyn DiskFile>,
    files: SpoolFiles,
    id: QueueId,
    keep: bool,
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.files.remove_body(self.id)
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
