//! The tables of `queue.db`, and how an older file becomes a newer one.

use super::DbError;
use rusqlite::{Connection, OptionalExtension, Transaction};

/// Why `queue.db` could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite cannot read the file: it is damaged, or no database at all.
    #[error("queue.db is damaged: {0}")]
    Damaged(rusqlite::Error),
    /// SQLite can read the file, but its parts do not fit together.
    #[error("queue.db is damaged: {0}")]
    Inconsistent(String),
    /// Transactions at the end of its write-ahead log cannot be reached, because something before them is damaged.
    #[error("queue.db-wal is damaged")]
    LogBroken,
    /// The file cannot be opened, created or migrated: permissions, a full disk, another program holds it.
    #[error("{0}")]
    Unusable(DbError),
    /// Its files cannot be moved.
    #[error("the files of a former queue.db cannot be moved away: {0}")]
    Files(std::io::Error),
    /// An older version of this program wrote it, and only reading was asked for.
    #[error(
        "queue.db has schema version {found}, and this program reads version {known}: start the bridge of this \
         version once, which brings it up to date"
    )]
    Older {
        /// What the file says.
        found: u32,
        /// What this program reads.
        known: u32,
    },
    /// A newer version of this program wrote it.
    #[error(
        "queue.db has schema version {found}, and this program knows versions up to {known}: \
         install the newer smtp-oauth-bridge again, or point state_dir to another directory"
    )]
    Newer {
        /// What the file says.
        found: u32,
        /// What this program can read.
        known: u32,
    },
}

impl OpenError {
    /// True if the files are to be set aside and what can be read of them is to be recovered.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Inconsistent(_) | Self::LogBroken)
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        // A disk that cannot read what is there (SQLITE_IOERR_READ, _SHORT_READ, _CORRUPTFS) has damaged it.
        const UNREADABLE: [i32; 3] = [266, 522, 8458];
        let extended = error.sqlite_error().map_or(0, |error| error.extended_code);
        match error.sqlite_error_code() {
            _ if UNREADABLE.contains(&extended) => Self::Damaged(error),
            Some(
                Code::PermissionDenied
                | Code::DatabaseBusy
                | Code::DatabaseLocked
                | Code::OutOfMemory
                | Code::ReadOnly
                | Code::SystemIoFailure
                | Code::DiskFull
                | Code::CannotOpen
                | Code::FileLockingProtocolFailed
                | Code::NoLargeFileSupport,
            ) => Self::Unusable(DbError::Sqlite(error)),
            // Whatever else SQLite may dislike about our own statements: the tables are not what they were.
            _ => Self::Damaged(error),
        }
    }
}

impl From<DbError> for OpenError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Sqlite(error) => error.into(),
            other => Self::Unusable(other),
        }
    }
}

/// One step for each schema version, only ever added to. `PRAGMA user_version` counts the steps taken.
const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2, VERSION_3];

/// Ids are the 16 bytes of a [`QueueId`](crate::mail::QueueId), times milliseconds since the epoch, durations
/// milliseconds.
const VERSION_1: &str = "
    -- Which spool this database belongs to; the file `id` beside it says the same.
    CREATE TABLE spool (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), id BLOB NOT NULL) STRICT;

    -- A row here is our promise: the COMMIT that makes it is the commit of the message.
    CREATE TABLE message (
        id           BLOB PRIMARY KEY,
        arrived      INTEGER NOT NULL,
        planned      INTEGER NOT NULL DEFAULT 0,  -- 1 once its parts are written
        size         INTEGER NOT NULL,            -- octets of the body as stored
        checksum     INTEGER NOT NULL,            -- CRC-32 of the body
        in_file      INTEGER NOT NULL,            -- 1: body/xx/<id>.eml, 0: table body
        reverse_path TEXT,                        -- NULL is <>
        body_type    INTEGER NOT NULL,            -- 0 7BIT, 1 8BITMIME
        client       TEXT NOT NULL,               -- address of the client
        greeting     TEXT NOT NULL,               -- what it said in HELO or EHLO
        esmtp        INTEGER NOT NULL,
        listener     TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX message_unplanned ON message (id) WHERE planned = 0;

    CREATE TABLE recipient (
        message BLOB NOT NULL,
        number  INTEGER NOT NULL,                 -- order of RCPT, from 0
        address TEXT NOT NULL,
        part    INTEGER,                          -- NULL until planned
        fate    INTEGER NOT NULL DEFAULT 0,       -- 0 waiting, 1 relayed, 2 failed
        status  TEXT,                             -- enhanced status code of the last attempt
        cause   TEXT,                             -- what the upstream said last
        PRIMARY KEY (message, number)
    ) STRICT, WITHOUT ROWID;

    -- The plan: written once, before the first attempt.
    CREATE TABLE part (
        message   BLOB NOT NULL,
        number    INTEGER NOT NULL,
        account   TEXT NOT NULL,
        mailbox   TEXT NOT NULL,
        changes   TEXT NOT NULL,                  -- what is changed in the header, as JSON
        state     INTEGER NOT NULL DEFAULT 0,     -- 0 waiting, 1 done, 2 held for a person, 3 failed
        due       INTEGER NOT NULL,
        marker    INTEGER,                        -- when the attempt under way began
        attempts  INTEGER NOT NULL DEFAULT 0,
        deferred  INTEGER NOT NULL DEFAULT 0,     -- time spent deferred
        uncertain INTEGER NOT NULL DEFAULT 0,     -- attempts of unknown outcome
        PRIMARY KEY (message, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX part_due ON part (account, mailbox, due) WHERE state = 0 AND marker IS NULL;
    CREATE INDEX part_marked ON part (message, number) WHERE marker IS NOT NULL;

    -- Bodies of up to 64 KiB, in a table of their own so that no change of state rewrites them.
    CREATE TABLE body (message BLOB PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
";

/// What TLS, AUTH, SMTPUTF8 and DSN (RFC 3461) add to an envelope.
const VERSION_2: &str = "
    ALTER TABLE message ADD COLUMN tls INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE message ADD COLUMN auth_user TEXT;                     -- NULL: nobody had logged in
    ALTER TABLE message ADD COLUMN smtputf8 INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE message ADD COLUMN envid TEXT;                         -- decoded
    ALTER TABLE message ADD COLUMN ret INTEGER;                        -- 0 FULL, 1 HDRS, NULL not said
    ALTER TABLE recipient ADD COLUMN notify INTEGER;                   -- 0 NEVER, or 1 SUCCESS + 2 FAILURE + 4 DELAY
    ALTER TABLE recipient ADD COLUMN orcpt TEXT;                       -- type;address, decoded
";

/// What history, pauses, pacing, reports and alerts keep beside the messages.
const VERSION_3: &str = "
    -- What the history has not been told yet: written by the transaction that made it true, taken by id.
    CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL) STRICT;

    -- Accounts whose mail is accepted and not sent, because an administrator said so; '' stands for all.
    CREATE TABLE pause (account TEXT PRIMARY KEY, since INTEGER NOT NULL) STRICT, WITHOUT ROWID;

    -- How many recipients a mailbox has sent to in each hour (milliseconds / 3,600,000), for its daily limit.
    CREATE TABLE sent (
        cloud      TEXT NOT NULL,
        mailbox    TEXT NOT NULL,                  -- in lower case
        hour       INTEGER NOT NULL,
        sender     TEXT NOT NULL,                  -- for whom: part.device <part.sender>
        recipients INTEGER NOT NULL,
        PRIMARY KEY (cloud, mailbox, hour, sender)
    ) STRICT, WITHOUT ROWID;

    -- Who was told of which cause, and how many reports were held back since: no more than one an hour.
    CREATE TABLE reported (
        recipient TEXT NOT NULL,
        cause     TEXT NOT NULL,
        since     INTEGER NOT NULL,
        held_back INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (recipient, cause)
    ) STRICT, WITHOUT ROWID;

    -- Alerts that were told, each way by itself; written once they were.
    CREATE TABLE alert (
        name  TEXT NOT NULL,                       -- what it is about, e.g. 'account broken: office'
        way   TEXT NOT NULL,                       -- mail, webhook, command
        since INTEGER NOT NULL,
        told  INTEGER NOT NULL,                    -- when it was told last
        over  INTEGER,                             -- when it was told that it is over
        text  TEXT NOT NULL,
        PRIMARY KEY (name, way)
    ) STRICT, WITHOUT ROWID;

    ALTER TABLE message ADD COLUMN report INTEGER NOT NULL DEFAULT 0;      -- 1: a report of ours
    ALTER TABLE message ADD COLUMN message_id TEXT;                        -- of its header, once planned
    ALTER TABLE message ADD COLUMN sealed INTEGER;                         -- CRC-32 of the envelope, NULL: not known
    ALTER TABLE message ADD COLUMN recovered INTEGER NOT NULL DEFAULT 0;   -- 1: in doubt after damage, its parts are held
    ALTER TABLE message ADD COLUMN delay_told INTEGER NOT NULL DEFAULT 0;  -- 1: its sender knows that it is late
    ALTER TABLE part ADD COLUMN held_since INTEGER;                        -- while it waits for a person; noted now and then
    ALTER TABLE part ADD COLUMN hold_told INTEGER NOT NULL DEFAULT 0;      -- 1: somebody knows that it waits for too long
    ALTER TABLE part ADD COLUMN deferral_run INTEGER;                      -- the wait after a deferral that goes on:
    ALTER TABLE part ADD COLUMN deferral_from INTEGER;                     --   in which run it began, and when in it,
    ALTER TABLE part ADD COLUMN deferral_wait INTEGER;                     --   and how long it is

    -- Who a part is sent for: those who share a mailbox take turns.
    ALTER TABLE part ADD COLUMN device TEXT NOT NULL DEFAULT '';           -- who had logged in, or the client's address
    ALTER TABLE part ADD COLUMN sender TEXT NOT NULL DEFAULT '';           -- the reverse-path; '' for <>
    UPDATE part SET (device, sender) =
        (SELECT coalesce(auth_user, client), coalesce(reverse_path, '') FROM message WHERE id = part.message)
        WHERE message IN (SELECT id FROM message);
    CREATE INDEX part_turn ON part (account, mailbox, device, sender, due) WHERE state = 0 AND marker IS NULL;
    -- What waits for a person and of which nobody was told yet that it does so for too long.
    CREATE INDEX part_untold ON part (held_since) WHERE state = 2 AND hold_told = 0;
    CREATE TRIGGER part_released AFTER UPDATE OF state ON part WHEN OLD.state = 2 AND NEW.state <> 2 BEGIN
        UPDATE part SET held_since = NULL, hold_told = 0 WHERE message = NEW.message AND number = NEW.number;
    END;

    -- Accounts, and mailboxes of them ('' stands for all), that a person must put right.
    CREATE TABLE broken (
        account TEXT NOT NULL,
        mailbox TEXT NOT NULL,
        since   INTEGER NOT NULL,
        warned  INTEGER NOT NULL,                  -- how many warnings were given that mail has waited for long
        PRIMARY KEY (account, mailbox)
    ) STRICT, WITHOUT ROWID;

    -- What there is, counted by the triggers below whoever writes: neither a start nor `status` counts a million rows.
    CREATE TABLE total (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        messages INTEGER NOT NULL,
        octets   INTEGER NOT NULL                  -- of all bodies
    ) STRICT;
    INSERT INTO total SELECT 1, count(*), coalesce(sum(size), 0) FROM message;
    CREATE TRIGGER message_added AFTER INSERT ON message BEGIN
        UPDATE total SET messages = messages + 1, octets = octets + NEW.size;
    END;
    CREATE TRIGGER message_removed AFTER DELETE ON message BEGIN
        UPDATE total SET messages = messages - 1, octets = octets - OLD.size;
    END;

    -- The mail of one mailbox through one account, as long as there is any: parts by their state.
    CREATE TABLE lane (
        account TEXT NOT NULL,
        mailbox TEXT NOT NULL,
        waiting INTEGER NOT NULL,
        done    INTEGER NOT NULL,
        held    INTEGER NOT NULL,
        failed  INTEGER NOT NULL,
        PRIMARY KEY (account, mailbox)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO lane SELECT account, mailbox, sum(state = 0), sum(state = 1), sum(state = 2), sum(state = 3)
        FROM part GROUP BY account, mailbox;
    CREATE TRIGGER part_added AFTER INSERT ON part BEGIN
        INSERT INTO lane
            VALUES (NEW.account, NEW.mailbox, NEW.state = 0, NEW.state = 1, NEW.state = 2, NEW.state = 3)
            ON CONFLICT DO UPDATE SET waiting = waiting + excluded.waiting, done = done + excluded.done,
                                      held = held + excluded.held, failed = failed + excluded.failed;
    END;
    CREATE TRIGGER part_changed AFTER UPDATE OF state ON part WHEN NEW.state <> OLD.state BEGIN
        UPDATE lane SET waiting = waiting + (NEW.state = 0) - (OLD.state = 0),
                        done = done + (NEW.state = 1) - (OLD.state = 1),
                        held = held + (NEW.state = 2) - (OLD.state = 2),
                        failed = failed + (NEW.state = 3) - (OLD.state = 3)
            WHERE account = NEW.account AND mailbox = NEW.mailbox;
    END;
    CREATE TRIGGER part_removed AFTER DELETE ON part BEGIN
        UPDATE lane SET waiting = waiting - (OLD.state = 0), done = done - (OLD.state = 1),
                        held = held - (OLD.state = 2), failed = failed - (OLD.state = 3)
            WHERE account = OLD.account AND mailbox = OLD.mailbox;
        DELETE FROM lane
            WHERE account = OLD.account AND mailbox = OLD.mailbox AND waiting + done + held + failed = 0;
    END;
    -- A part keeps its account and mailbox; whoever wants another one makes another part.
    CREATE TRIGGER part_moved BEFORE UPDATE OF account, mailbox ON part
        WHEN NEW.account <> OLD.account OR NEW.mailbox <> OLD.mailbox BEGIN
        SELECT raise(ABORT, 'a part keeps its account and mailbox');
    END;

    -- What administrators look for and what is rare. A message that goes out as it should is in none of these; a dead
    -- letter's `due` is when it failed.
    CREATE INDEX part_held ON part (message) WHERE state = 2;
    CREATE INDEX part_failed ON part (message) WHERE state = 3;
    CREATE INDEX part_expiring ON part (due) WHERE state = 3;
    CREATE INDEX part_uncertain ON part (message, uncertain) WHERE uncertain > 0;
";

/// How many of the steps a database has taken.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Refuses what can only be read after it was brought up to date.
pub(super) fn check_version(found: u32) -> Result<(), OpenError> {
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    match found.cmp(&known) {
        std::cmp::Ordering::Less => Err(OpenError::Older { found, known }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(OpenError::Newer { found, known }),
    }
}
/// No newer version of this program is so much newer: the number is damaged.
const IMPLAUSIBLE: u32 = 1000;

/// Brings the schema up to date. Forward only, in one transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let found = version(connection)?;
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if found > known + IMPLAUSIBLE {
        return Err(OpenError::Inconsistent(format!("schema version {found}")));
    }
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    if found < known {
        let transaction = connection.transaction()?;
        for step in &MIGRATIONS[found as usize..] {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", known)?;
        transaction.commit()?;
    }
    Ok(())
}

/// A file of an earlier version could only grow. Written anew it can give pages back; a large one is left as it is,
/// because that would take long.
pub(super) fn make_shrinkable(connection: &Connection) -> rusqlite::Result<()> {
    const LARGE: u32 = 16 * 1024;
    let mode: u32 = connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
    let pages: u32 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if mode == 0 && pages < LARGE {
        // If there is no room for that now, there may be at the next start.
        let _ = connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM");
    }
    Ok(())
}

/// The id of the spool, made on first use from `fresh`.
pub(super) fn spool_id(connection: &mut Connection, fresh: [u8; 16]) -> rusqlite::Result<[u8; 16]> {
    let transaction: Transaction<'_> = connection.transaction()?;
    let found = transaction
        .query_row("SELECT id FROM spool", [], |row| row.get(0))
        .optional()?;
    let id = match found {
        Some(id) => id,
        None => {
            transaction.execute("INSERT INTO spool (only_row, id) VALUES (1, ?1)", [&fresh[..]])?;
            fresh
        }
    };
    transaction.commit()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::record::Stored;
    use crate::db::{QueueReader, QueueWriter, Slots};

    #[test]
    fn a_fresh_file_is_migrated_and_a_newer_one_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
        assert_eq!(spool_id(&mut connection, [1; 16]).unwrap(), [1; 16]);
        assert_eq!(spool_id(&mut connection, [2; 16]).unwrap(), [1; 16]);
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = migrate(&mut connection).unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
    }

    #[test]
    fn a_database_of_version_1_keeps_its_messages() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(VERSION_1).unwrap();
        old.execute_batch(
            "PRAGMA user_version = 1;
             INSERT INTO spool VALUES (1, x'01010101010101010101010101010101');
             INSERT INTO message VALUES (x'019d0000000070008000000000000001', 1800000000000, 0, 5, 907060870, 0,
                                         'a@x.example', 1, '192.0.2.7', 'printer', 1, 'local');
             INSERT INTO recipient (message, number, address)
                 VALUES (x'019d0000000070008000000000000001', 0, 'b@y.example'),
                        (x'019d0000000070008000000000000001', 1, 'c@y.example');
             UPDATE recipient SET part = 0;
             INSERT INTO part (message, number, account, mailbox, changes, due)
                 VALUES (x'019d0000000070008000000000000001', 0, 'office', 's@x.example', '', 1800000000000);
             INSERT INTO body VALUES (x'019d0000000070008000000000000001', x'68656c6c6f');",
        )
        .unwrap();
        drop(old);

        let writer = QueueWriter::open(&path, [9; 16]).unwrap();
        assert_eq!(writer.spool_id(), [1; 16]);
        let mode: u32 = Connection::open(&path)
            .unwrap()
            .pragma_query_value(None, "auto_vacuum", |row| row.get(0))
            .unwrap();
        assert_eq!(mode, 2, "it can give pages back");
        let reader = QueueReader::open(&path).unwrap();
        let id = "019d0000-0000-7000-8000-000000000001".parse().unwrap();
        let message = reader.message(id).unwrap().unwrap();
        let to: Vec<String> = message.envelope.addresses().map(ToString::to_string).collect();
        assert_eq!(to, ["b@y.example", "c@y.example"]);
        assert_eq!(message.envelope.reverse_path().to_string(), "<a@x.example>");
        assert!(!message.origin.tls && message.origin.user.is_none() && message.origin.esmtp);
        assert!(!message.envelope.smtputf8() && message.envelope.ret().is_none());
        assert!(
            message
                .envelope
                .recipients()
                .iter()
                .all(|r| r.notify.is_none() && r.original.is_none())
        );
        assert_eq!(
            reader.body(id).unwrap(),
            Some(Stored::Inline(b"hello"[..].into()))
        );
        let slots = |_: &_| Slots::Oldest { take: 1, skip: 0 };
        let agenda = reader.agenda(message.arrived, 1, slots).unwrap();
        assert_eq!(agenda.due[0].turn.to_string(), "192.0.2.7 <a@x.example>");
        assert_eq!(agenda.due[0].size, 5);
    }
}
