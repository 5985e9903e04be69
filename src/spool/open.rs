//! Opening a spool: lock, database, sweep, and the two halves.

use super::disk::{Disk, RealDisk};
use super::inspector::Inspector;
use super::intake::{Intake, MEMORY_UNITS, Shared};
use super::operator::Operator;
use super::recover::{self, Recovered};
use super::reserve::{self, Reserve};
use super::spool_files::{RESERVE, SpoolFiles};
use super::store::Store;
use super::{sweep, writer};
use crate::clock::Clock;
use crate::db::{OpenError, QueueReader, QueueWriter, log_lost_commits};
use crate::mail::QueueId;
use std::fs::{File, TryLockError};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, Semaphore};

/// What the configuration says about the spool.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    /// The spool's directory; made if it is missing.
    pub directory: PathBuf,
    /// Octets of mail at most.
    pub max_size: u64,
    /// Octets that must stay free on the disk.
    pub min_free: u64,
}

/// An open spool. The lock is held until it is closed.
#[derive(Debug)]
pub struct Spool {
    intake: Intake,
    store: Store,
    inspector: Inspector,
    swept: Swept,
    writer: std::thread::JoinHandle<()>,
    lock: File,
}

/// What was found at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Messages in the spool: waiting, held, and dead letters.
    pub messages: u64,
    /// Bodies that were never accepted, removed.
    pub removed: usize,
    /// Files set aside in `corrupt/`, because the database could not vouch for them.
    pub set_aside: usize,
    /// What was done about a damaged database, if it was.
    pub recovered: Option<Recovered>,
    /// The database is another one than this spool had before: it was removed or replaced, with the mail in it.
    pub replaced: bool,
}

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another daemon has it.
    #[error(
        "the spool {0} is in use by another smtp-oauth-bridge: stop that one first, or give this one another state_dir"
    )]
    Locked(PathBuf),
    /// Directory, lock or sweep failed.
    #[error(
        "the spool {directory} cannot be used: {error}. Does the directory belong to the user that runs the bridge?"
    )]
    Io {
        /// The spool's directory.
        directory: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The database.
    #[error("the spool {directory} cannot be opened: {error}")]
    Db {
        /// The spool's directory.
        directory: PathBuf,
        /// What is wrong.
        error: OpenError,
    },
}

impl Spool {
    /// Opens the spool, sweeps it, and starts its writer. Blocks on the disk.
    ///
    /// A damaged database is set aside and a new one begun: the program must be able to accept mail.
    ///
    /// # Errors
    /// [`SpoolError`]
    pub fn open(settings: &SpoolSettings, clock: Clock) -> Result<Self, SpoolError> {
        Self::open_on(Arc::new(RealDisk), RESERVE, settings, clock)
    }

    /// The same on another disk and with another size of the reserve, for tests.
    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        reserve: u64,
        settings: &SpoolSettings,
        clock: Clock,
    ) -> Result<Self, SpoolError> {
        let directory = &settings.directory;
        let io_error = |error| SpoolError::Io {
            directory: directory.clone(),
            error,
        };
        let files = SpoolFiles::prepare(directory, disk, reserve).map_err(io_error)?;
        let lock = files.lock().map_err(|error| match error {
            TryLockError::WouldBlock => SpoolError::Locked(directory.clone()),
            TryLockError::Error(error) => io_error(error),
        })?;
        let known = files.read_id().map_err(io_error)?;
        let db_error = |error| SpoolError::Db {
            directory: directory.clone(),
            error,
        };
        recover::resume(&files).map_err(io_error)?;
        let opened = match Opened::open(&files, known, clock) {
            // Perhaps there is no room even to open it: that is what the reserve is for.
            Err(error @ (OpenError::Unusable(_) | OpenError::Files(_))) if files.give_up_reserve() => {
                tracing::error!(%error, "the queue could not be opened; the reserve of the spool is given up and it is tried once more: free some space");
                Opened::open(&files, known, clock)
            }
            opened => opened,
        };
        let opened = match opened {
            Err(error) if error.is_damage() => {
                tracing::error!(%error, "the queue is damaged; what can be read of it is being recovered");
                // A copy needs room; the reserve is made again when there is enough.
                files.give_up_reserve();
                let fresh = *QueueId::new(clock.now()).as_bytes();
                let recovered = recover::recover(&files, fresh).map_err(io_error)?;
                let mut opened = Opened::open(&files, known, clock).map_err(db_error)?;
                opened.swept.recovered = Some(recovered);
                opened.swept.replaced = false;
                opened
            }
            opened => opened.map_err(db_error)?,
        };
        files.acquit_database().map_err(io_error)?;
        let Opened {
            db,
            reader,
            swept,
            bytes,
        } = opened;
        if known != Some(db.spool_id()) {
            files.write_id(db.spool_id()).map_err(io_error)?;
        }
        let inspector =
            Inspector::new(files.clone()).map_err(|error| db_error(OpenError::Unusable(error)))?;
        if let Err(error) = files.remove_old_copies() {
            tracing::warn!(%error, "what an interrupted backup has left behind could not be removed");
        }
        let reserve = Reserve::new(files.clone(), settings.min_free, reserve::LOOK);
        let (handle, thread) = writer::start(db, files.clone(), reserve).map_err(io_error)?;
        let live = Arc::new(AtomicU64::new(bytes));
        let arrived = Arc::new(Notify::new());
        let store = Store {
            files: files.clone(),
            writer: handle.clone(),
            reader: Arc::new(Mutex::new(reader)),
            live: live.clone(),
            arrived: arrived.clone(),
            news: Arc::new(Notify::new()),
        };
        let intake = Intake::new(Shared {
            files,
            writer: handle,
            clock,
            live,
            arrived,
            memory: Arc::new(Semaphore::new(MEMORY_UNITS)),
            max_size: settings.max_size,
            min_free: settings.min_free,
            #[cfg(feature = "measure")]
            discards: false,
        });
        Ok(Self {
            intake,
            store,
            inspector,
            swept,
            writer: thread,
            lock,
        })
    }

    /// The listener's half.
    #[must_use]
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// The runner's half.
    #[must_use]
    pub fn store(&self) -> Store {
        self.store.clone()
    }

    /// The administrator's hand.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator {
            inspector: self.inspector.clone(),
            store: self.store.clone(),
            intake: self.intake.clone(),
        }
    }

    /// What was found at start.
    #[must_use]
    pub fn swept(&self) -> &Swept {
        &self.swept
    }

    /// Waits for the writer to finish its last group, and gives up the lock. Blocks until every other [`Intake`],
    /// [`Store`] and draft is dropped.
    pub fn close(self) {
        let Self {
            intake,
            store,
            inspector,
            writer,
            lock,
            ..
        } = self;
        drop((inspector, intake, store));
        if writer.join().is_err() {
            tracing::error!(
                "the spool's writer ended in a panic; what it had not committed was never acknowledged"
            );
        }
        drop(lock);
    }
}

/// A database that was opened, read through and used for the sweep.
struct Opened {
    db: QueueWriter,
    reader: QueueReader,
    swept: Swept,
    bytes: u64,
}

/// Octets of a database at least: one page.
const SHORTEST: u64 = 4096;

/// Octets of a database that is small enough to be looked through at every start.
const SMALL: u64 = 32 * 1024 * 1024;

impl Opened {
    /// Damage anywhere in what a start has to read is found here, and is [`OpenError::Damaged`].
    fn open(files: &SpoolFiles, known: Option<[u8; 16]>, clock: Clock) -> Result<Self, OpenError> {
        let path = files.database();
        let log = files.beside("queue.db-wal");
        if !path.exists() && log.exists() {
            // Left over from a database that was moved away; SQLite must not build a new one from it, but we can.
            return Err(OpenError::Inconsistent(
                "there is a queue.db-wal without its queue.db".to_owned(),
            ));
        }
        let shorter = |metadata: std::fs::Metadata| metadata.len() < SHORTEST;
        if known.is_some() && path.metadata().is_ok_and(shorter) {
            // SQLite would take it for a new database, and throw its log away.
            return Err(OpenError::Inconsistent("it has no content".to_owned()));
        }
        if log_lost_commits(&log).map_err(OpenError::Files)? {
            return Err(OpenError::LogBroken);
        }
        let db = QueueWriter::open(&path, *QueueId::new(clock.now()).as_bytes())?;
        let reader = QueueReader::open(&path)?;
        let small = path.metadata().is_ok_and(|metadata| metadata.len() <= SMALL);
        if small || files.database_is_suspected() {
            reader.check()?;
        }
        // Only the database that this spool had before knows which bodies are owed.
        let vouches = known == Some(db.spool_id());
        let (bytes, messages) = reader.totals()?;
        let mut swept = sweep::sweep(files, &reader, vouches)?;
        swept.messages = messages;
        swept.replaced = known.is_some() && !vouches;
        Ok(Self {
            db,
            reader,
            swept,
            bytes,
        })
    }
}
