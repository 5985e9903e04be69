//! `history.db`: what became of every message. A database of its own, so that nothing that is done with it can be in
//! the way of the queue.

mod reading;
pub mod record;
mod writing;

pub use reading::HistoryReader;
pub use writing::HistoryWriter;

use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// An error of the history's database.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file is damaged, or no database at all.
    #[error("history.db is damaged: {0}")]
    Damaged(rusqlite::Error),
    /// It cannot be opened, read or written: permissions, a full disk, another program holds it.
    #[error("history.db: {0}")]
    Sqlite(rusqlite::Error),
    /// A newer version of this program wrote it.
    #[error(
        "history.db has schema version {found}, and this program knows versions up to {known}: \
         install the newer smtp-oauth-bridge again, or move history.db away"
    )]
    Newer {
        /// What the file says.
        found: u32,
        /// What this program can read.
        known: u32,
    },
}

impl From<rusqlite::Error> for HistoryError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Damaged(error),
            _ => Self::Sqlite(error),
        }
    }
}

/// One step for each schema version, only ever added to. `PRAGMA user_version` counts the steps taken.
const MIGRATIONS: &[&str] = &[VERSION_1];

/// Ids are the 16 bytes of a [`QueueId`](crate::mail::QueueId), which sort by time; times milliseconds since the epoch.
/// A key is an address for comparing: lower case, `domain@local`, so that a domain is a range.
const VERSION_1: &str = "
    CREATE TABLE message (
        id         BLOB PRIMARY KEY,
        arrived    INTEGER NOT NULL,
        sender     TEXT,                -- the reverse-path; NULL is <>, and unknown if `client` is NULL
        sender_key TEXT NOT NULL,
        message_id TEXT,                -- without its brackets
        subject    TEXT,
        client     TEXT,                -- NULL: the message is known by its attempts only
        listener   TEXT,
        auth_user  TEXT,
        tls        INTEGER NOT NULL,
        size       INTEGER NOT NULL,
        plan       TEXT NOT NULL        -- the parts it went out in, as JSON
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX message_sender ON message (sender_key);
    CREATE INDEX message_message_id ON message (message_id) WHERE message_id IS NOT NULL;
    CREATE INDEX message_client ON message (client) WHERE client IS NOT NULL;

    CREATE TABLE recipient (
        message  BLOB NOT NULL,
        number   INTEGER NOT NULL,
        address  TEXT NOT NULL,
        key      TEXT NOT NULL,
        fate     INTEGER NOT NULL,      -- 0 waiting, 1 relayed, 2 failed, 3 bounced, 4 deleted
        outcomes INTEGER NOT NULL,      -- how often it was given a final fate since it was last sent on its way
        status   TEXT,                  -- enhanced status code of the last attempt
        text     TEXT,                  -- the upstream's words at the last attempt
        at       INTEGER,               -- when the fate was learned
        PRIMARY KEY (message, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX recipient_key ON recipient (key, message);

    -- In the order in which they happened.
    CREATE TABLE event (
        n       INTEGER PRIMARY KEY,
        message BLOB NOT NULL,          -- empty: about the bridge
        id      BLOB NOT NULL,
        at      INTEGER NOT NULL,
        kind    TEXT NOT NULL,
        detail  TEXT NOT NULL,          -- JSON
        UNIQUE (message, id)
    ) STRICT;
";

/// Opens for writing, and migrates. Every COMMIT is on the disk before it returns: what was committed here is deleted
/// from the queue's outbox.
fn open_writing(path: &Path) -> Result<Connection, HistoryError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA journal_size_limit = 16777216;
         PRAGMA cache_size = -8192;
         PRAGMA temp_store = MEMORY;",
    )?;
    connection.set_prepared_statement_cache_capacity(32);
    migrate(&mut connection)?;
    Ok(connection)
}

/// None while a new one is still without its tables.
fn open_reading(path: &Path) -> Result<Option<Connection>, HistoryError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute_batch("PRAGMA query_only = ON;")?;
    let found = version(&connection)?;
    refuse_newer(found)?;
    Ok((found > 0).then_some(connection))
}

fn migrate(connection: &mut Connection) -> Result<(), HistoryError> {
    let found = version(connection)?;
    refuse_newer(found)?;
    if found < known() {
        let transaction = connection.transaction()?;
        for step in &MIGRATIONS[found as usize..] {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", known())?;
        transaction.commit()?;
    }
    Ok(())
}

fn version(connection: &Connection) -> Result<u32, HistoryError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

fn refuse_newer(found: u32) -> Result<(), HistoryError> {
    let known = known();
    if found > known {
        return Err(HistoryError::Newer { found, known });
    }
    Ok(())
}

fn known() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}
