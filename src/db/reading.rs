//! The questions that are asked of `queue.db`.

use super::record::{Message, Part, PartId, Sent, Stored};
use super::rows::{MessageRow, PartRow, address, part_id, queue_id, unreadable};
use super::{DbError, OpenError, open_reading, open_unchanging, schema};
use crate::mail::Notify;
use crate::mail::OriginalRecipient;
use crate::mail::QueueId;
use crate::mail::Recipient;
use crate::mail::Timestamp;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::Path;

/// A connection that only reads.
#[derive(Debug)]
pub struct QueueReader {
    pub(super) connection: Connection,
}

/// Parts, as far as their rows can be read.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Those that can be.
    pub whole: Vec<Part>,
    /// Those that cannot, and why.
    pub damaged: Vec<(PartId, String)>,
}

impl QueueReader {
    /// Opens `path`, which a [`QueueWriter`](super::QueueWriter) has made.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open(path: &Path) -> Result<Self, DbError> {
        Ok(Self {
            connection: open_reading(path)?,
        })
    }

    /// Opens the database of a program that does not run, and of this version.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open_closed(path: &Path) -> Result<Self, OpenError> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let connection = match open_reading(path).and_then(|c| schema::version(&c).map(|v| (c, v))) {
            // Without a write-ahead log the file is all there is, and can be read where nothing can be written.
            Err(_) if !Path::new(&log).exists() => {
                let connection = open_unchanging(path)?;
                let version = schema::version(&connection)?;
                (connection, version)
            }
            opened => opened?,
        };
        let (connection, version) = connection;
        schema::check_version(version)?;
        Ok(Self { connection })
    }

    /// Parts of a message that wait, or are held, and are not under way.
    ///
    /// # Errors
    /// SQLite's.
    pub fn parts_at_rest(&self, id: QueueId) -> Result<Parts, DbError> {
        self.parts(
            "SELECT * FROM part WHERE message = ?1 AND state IN (0, 2) AND marker IS NULL ORDER BY number",
            params![&id.as_bytes()[..]],
        )
    }

    /// Parts whose attempt was under way when the program ended: their outcome is unknown.
    ///
    /// # Errors
    /// SQLite's.
    pub fn interrupted(&self) -> Result<Parts, DbError> {
        self.parts(
            "SELECT * FROM part WHERE marker IS NOT NULL ORDER BY message, number",
            [],
        )
    }

    /// A message without its body.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub fn message(&self, id: QueueId) -> Result<Option<Message>, DbError> {
        match self.message_as_it_is(id)? {
            Some((message, Some(seal))) if seal != message.seal() => Err(DbError::Row {
                id: id.to_string(),
                what: "the envelope is not what was accepted".to_owned(),
            }),
            found => Ok(found.map(|(message, _)| message)),
        }
    }

    /// A message as its rows say, and the seal of what was accepted, if there is one.
    pub(super) fn message_as_it_is(&self, id: QueueId) -> Result<Option<(Message, Option<u32>)>, DbError> {
        let row = self
            .connection
            .prepare_cached("SELECT * FROM message WHERE id = ?1")?
            .query_row([&id.as_bytes()[..]], MessageRow::read)
            .optional()
            .map_err(|error| unreadable(id, error))?;
        let Some(row) = row else { return Ok(None) };
        let recipients = self.recipients(id)?;
        let seal = row.sealed;
        Ok(Some((row.message(id, recipients)?, seal)))
    }

    /// Where the body of a message is, with the body itself if it is in the database.
    ///
    /// # Errors
    /// SQLite's.
    pub fn body(&self, id: QueueId) -> Result<Option<Stored>, DbError> {
        let in_file: Option<bool> = self
            .connection
            .prepare_cached("SELECT in_file FROM message WHERE id = ?1")?
            .query_row([&id.as_bytes()[..]], |row| row.get(0))
            .optional()?;
        match in_file {
            None => Ok(None),
            Some(true) => Ok(Some(Stored::File)),
            Some(false) => {
                let bytes: Option<Vec<u8>> = self
                    .connection
                    .prepare_cached("SELECT bytes FROM body WHERE message = ?1")?
                    .query_row([&id.as_bytes()[..]], |row| row.get(0))
                    .optional()?;
                Ok(bytes.map(|bytes| Stored::Inline(Bytes::from(bytes))))
            }
        }
    }

    /// Reads every page and looks whether they, tables and indexes fit together; slow, for small files and suspicious ones.
    ///
    /// # Errors
    /// SQLite's, or what it found.
    pub fn check(&self) -> Result<(), OpenError> {
        let verdict: String = self
            .connection
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if verdict == "ok" {
            return Ok(());
        }
        Err(OpenError::Inconsistent(verdict))
    }

    /// True if the queue knows the message: its body file is owed.
    ///
    /// # Errors
    /// SQLite's.
    pub fn contains(&self, id: QueueId) -> Result<bool, DbError> {
        Ok(self
            .connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM message WHERE id = ?1)")?
            .query_row([&id.as_bytes()[..]], |row| row.get(0))?)
    }

    /// Octets of all bodies, and how many messages there are.
    ///
    /// # Errors
    /// SQLite's.
    pub fn totals(&self) -> Result<(u64, u64), DbError> {
        Ok(self
            .connection
            .query_row("SELECT octets, messages FROM total", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?)
    }

    /// Which accounts an administrator has paused, and since when; the empty name stands for all.
    ///
    /// # Errors
    /// SQLite's.
    pub fn pauses(&self) -> Result<Vec<(String, Timestamp)>, DbError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT account, since FROM pause ORDER BY account")?;
        let pauses = statement.query_map([], |row| Ok((row.get(0)?, Timestamp::from_millis(row.get(1)?))))?;
        Ok(pauses.collect::<Result<_, _>>()?)
    }

    /// What all mailboxes have sent from the hour `since` on.
    ///
    /// # Errors
    /// SQLite's.
    pub fn sent(&self, since: i64) -> Result<Vec<Sent>, DbError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT * FROM sent WHERE hour >= ?1")?;
        let rows = statement.query_map([since], |row| {
            Ok(Sent {
                cloud: row.get("cloud")?,
                mailbox: row.get("mailbox")?,
                hour: row.get("hour")?,
                sender: row.get("sender")?,
                recipients: row.get("recipients")?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The parts that a statement finds, with their recipients.
    pub(super) fn parts(&self, sql: &str, params: impl rusqlite::Params) -> Result<Parts, DbError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows: Vec<(PartId, rusqlite::Result<PartRow>)> = statement
            .query_map(params, |row| Ok((part_id(row)?, PartRow::read(row))))?
            .collect::<Result<_, _>>()?;
        let mut waiting = self.connection.prepare_cached(
            "SELECT number, address FROM recipient WHERE message = ?1 AND part = ?2 AND fate = 0 ORDER BY number",
        )?;
        let mut size = self
            .connection
            .prepare_cached("SELECT size FROM message WHERE id = ?1")?;
        let mut parts = Parts::default();
        for (id, row) in rows {
            let size: Option<u64> = size
                .query_row([&id.message.as_bytes()[..]], |row| row.get(0))
                .optional()?;
            let key = params![&id.message.as_bytes()[..], id.number];
            let recipients: rusqlite::Result<Vec<(usize, String)>> = waiting
                .query_map(key, |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect();
            let read = row.and_then(|row| Ok((row, recipients?)));
            let part = read
                .map_err(|error| unreadable(id.message, error))
                .and_then(|(row, recipients)| row.part(recipients, size.unwrap_or(0)));
            match part {
                Ok(part) => parts.whole.push(part),
                Err(error @ DbError::Row { .. }) => parts.damaged.push((id, error.to_string())),
                Err(error) => return Err(error),
            }
        }
        Ok(parts)
    }

    fn recipients(&self, id: QueueId) -> Result<Vec<Recipient>, DbError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT address, notify, orcpt FROM recipient WHERE message = ?1 ORDER BY number",
        )?;
        let rows: Vec<(String, Option<u8>, Option<String>)> = statement
            .query_map([&id.as_bytes()[..]], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<Result<_, _>>()
            .map_err(|error| unreadable(id, error))?;
        let recipient = |(text, notify, original): (String, Option<u8>, Option<String>)| {
            Ok(Recipient {
                address: address(&text, &id)?,
                // Without these a message can be delivered as well: a damaged one is left out.
                notify: notify.and_then(Notify::from_bits),
                original: original.and_then(|text| OriginalRecipient::new(&text).ok()),
            })
        };
        rows.into_iter().map(recipient).collect()
    }

    pub(super) fn ids(&self, sql: &str, limit: usize) -> Result<Vec<QueueId>, DbError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement
            .query_map([limit], |row| queue_id(row, "id"))?
            .collect::<Result<_, _>>()?)
    }
}
