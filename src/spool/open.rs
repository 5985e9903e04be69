//! Opening a spool: lock, database, sweep, and the two halves.

use super::disk::Disk;
use super::intake::{Intake, MEMORY_UNITS, Shared};
use super::store::Store;
use super::{sweep, writer};
use crate::clock::Clock;
use crate::db::{OpenError, QueueReader, QueueWriter};
use crate::mail::QueueId;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
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
    /// Where a damaged database was moved to, if that happened.
    pub damaged: Option<PathBuf>,
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
    /// A reading connection.
    #[error("the spool cannot be read: {0}")]
    Reader(#[from] crate::db::DbError),
}

impl Spool {
    /// Opens the spool, sweeps it, and starts its writer. Blocks on the disk.
    ///
    /// A damaged database is set aside and a new one begun: the program must be able to accept mail.
    ///
    /// # Errors
    /// [`SpoolError`]
    pub fn open(settings: &SpoolSettings, clock: Clock) -> Result<Self, SpoolError> {
        let directory = &settings.directory;
        let io_error = |error| SpoolError::Io {
            directory: directory.clone(),
            error,
        };
        let disk = Disk::prepare(directory).map_err(io_error)?;
        let lock = disk.lock().map_err(|error| match error {
            TryLockError::WouldBlock => SpoolError::Locked(directory.clone()),
            TryLockError::Error(error) => io_error(error),
        })?;
        let (db, vouches, damaged) = open_database(&disk, directory, clock)?;
        let reader = QueueReader::open(&disk.database())?;
        let mut swept = sweep::sweep(&disk, &reader, vouches)?;
        swept.damaged = damaged;
        let (bytes, messages) = reader.totals()?;
        swept.messages = messages;
        if let Err(error) = disk.fill_reserve() {
            tracing::warn!(%error, "the spool has no reserve of disk space");
        }
        let (handle, thread) = writer::start(db, disk.clone()).map_err(io_error)?;
        let live = Arc::new(AtomicU64::new(bytes));
        let arrived = Arc::new(Notify::new());
        let store = Store {
            disk: disk.clone(),
            writer: handle.clone(),
            reader: Arc::new(Mutex::new(reader)),
            live: live.clone(),
            arrived: arrived.clone(),
        };
        let intake = Intake::new(Shared {
            disk,
            writer: handle,
            clock,
            live,
            arrived,
            memory: Arc::new(Semaphore::new(MEMORY_UNITS)),
            max_size: settings.max_size,
            min_free: settings.min_free,
        });
        Ok(Self {
            intake,
            store,
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
            writer,
            lock,
            ..
        } = self;
        drop((intake, store));
        if writer.join().is_err() {
            tracing::error!(
                "the spool's writer ended in a panic; what it had not committed was never acknowledged"
            );
        }
        drop(lock);
    }
}

/// The database, whether it vouches for the body files (it was opened whole and belongs to this spool), and where
/// a damaged one went.
fn open_database(
    disk: &Disk,
    directory: &Path,
    clock: Clock,
) -> Result<(QueueWriter, bool, Option<PathBuf>), SpoolError> {
    let io_error = |error| SpoolError::Io {
        directory: directory.to_owned(),
        error,
    };
    let db_error = |error| SpoolError::Db {
        directory: directory.to_owned(),
        error,
    };
    let known = disk.read_id().map_err(io_error)?;
    let fresh = *QueueId::new(clock.now()).as_bytes();
    let path = disk.database();
    let (db, damaged) = match QueueWriter::open(&path, fresh) {
        Ok(db) => (db, None),
        Err(OpenError::Damaged(error)) => {
            tracing::error!(%error, "queue.db is damaged and is set aside; the bridge starts with an empty queue");
            let aside = set_database_aside(disk, &path).map_err(io_error)?;
            (QueueWriter::open(&path, fresh).map_err(db_error)?, Some(aside))
        }
        Err(error) => return Err(db_error(error)),
    };
    let vouches = damaged.is_none() && known.is_none_or(|id| id == db.spool_id());
    if known != Some(db.spool_id()) {
        disk.write_id(db.spool_id()).map_err(io_error)?;
    }
    Ok((db, vouches, damaged))
}

fn set_database_aside(disk: &Disk, path: &Path) -> io::Result<PathBuf> {
    for suffix in ["-wal", "-shm"] {
        let mut side = path.as_os_str().to_owned();
        side.push(suffix);
        let side = PathBuf::from(side);
        if side.exists() {
            disk.set_aside(&side)?;
        }
    }
    disk.set_aside(path)
}
