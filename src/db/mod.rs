//! Floor 2: all SQL. `queue.db` is opened, migrated, written and read here and nowhere else.
//!
//! [`QueueWriter`] is the one connection that writes; the spool's writer thread owns it. [`QueueReader`]s only
//! read and never block it (SQLite's write-ahead log). Both speak in plain records ([`record`]).

mod agenda;
mod alerting;
mod changing;
mod filter;
pub mod history;
mod holding;
mod listing;
mod outbox;
mod reading;
pub mod record;
mod reporting;
mod rows;
mod salvage;
mod schema;
mod turns;
mod writing;

pub use agenda::{Agenda, Lane, LaneAgenda, LaneCounts, Slots};
pub use alerting::{Ages, Oldest};
pub use changing::{Change, Changed, Done, Order};
pub use filter::{Filter, NoSuchState, Pattern, State};
pub use holding::Broken;
pub use listing::{Entry, Found, Overview, PartState, RecipientState, SHOWN, Search};
pub use reading::{Parts, QueueReader};
pub(crate) use salvage::log_lost_commits;
pub use salvage::{Remains, Salvaged};
pub use schema::OpenError;
pub use turns::{InTurn, Turns};
pub use writing::{Ending, QueueWriter};

use record::PartId;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// An error of the database, with SQLite's own words.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// SQLite refused.
    #[error("queue.db: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The writer cannot be used at the moment.
    #[error("the queue cannot be written: {0}")]
    Unavailable(String),
    /// The part does not wait to be sent any more: it was held, bounced or deleted meanwhile.
    #[error("message {} is not to be sent any more", .0.message)]
    Withdrawn(PartId),
    /// A row holds something that no version of this program writes.
    #[error("queue.db: the row of message {id} is damaged: {what}")]
    Row {
        /// The message.
        id: String,
        /// Which column, and why.
        what: String,
    },
}

impl DbError {
    /// True if the disk is full. (SQLite reports an exceeded quota as an I/O error.)
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Sqlite(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull))
    }

    /// True if the file is damaged: the next start can recover what is left of it.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        matches!(self, Self::Sqlite(error)
            if matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)))
    }

    /// True if SQLite may have rolled back more than the statement that failed: a full disk, an I/O error, no
    /// memory, a damaged file ("Response To Errors Within A Transaction" in SQLite's documentation).
    #[must_use]
    pub fn ends_transaction(&self) -> bool {
        use rusqlite::ErrorCode::{ConstraintViolation, TooBig, TypeMismatch};
        match self {
            Self::Sqlite(error) => !matches!(
                error.sqlite_error_code(),
                None | Some(ConstraintViolation | TooBig | TypeMismatch)
            ),
            Self::Row { .. } | Self::Unavailable(_) | Self::Withdrawn(_) => false,
        }
    }
}

/// Opens for writing, with every COMMIT on the disk before it returns (`synchronous=FULL`).
fn open_writing(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 4000;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA cache_size = -8192;
         PRAGMA temp_store = MEMORY;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn open_reading(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, READING)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.execute_batch("PRAGMA cache_size = -4096; PRAGMA query_only = ON;")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

const READING: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY
    .union(OpenFlags::SQLITE_OPEN_NO_MUTEX)
    .union(OpenFlags::SQLITE_OPEN_URI);

/// Opens a database that nobody writes, where nothing can be written: not even the files that SQLite keeps beside it.
fn open_unchanging(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    let connection = Connection::open_with_flags(uri, READING)?;
    connection.execute_batch("PRAGMA cache_size = -4096; PRAGMA query_only = ON;")?;
    Ok(connection)
}

/// Makes the recipients of a message unreadable, as a failing disk would: for tests of other rooms.
#[cfg(test)]
pub fn damage_recipients(path: &Path, id: crate::mail::QueueId) {
    let connection = open_writing(path).unwrap();
    let changed = connection
        .execute(
            "UPDATE recipient SET address = '' WHERE message = ?1",
            [&id.as_bytes()[..]],
        )
        .unwrap();
    assert!(changed > 0);
}
