//! The questions that are asked of `queue.db`.

use super::record::{Deferral, Message, Origin, Part, PartId, Progress, Sent, Stored, Turn};
use super::{DbError, OpenError, open_reading, open_unchanging, schema};
use crate::mail::Address;
use crate::mail::BodyType;
use crate::mail::Envelope;
use crate::mail::EnvelopeId;
use crate::mail::Notify;
use crate::mail::OriginalRecipient;
use crate::mail::QueueId;
use crate::mail::Recipient;
use crate::mail::Ret;
use crate::mail::ReversePath;
use crate::mail::Timestamp;
use bytes::Bytes;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::path::Path;
use std::time::Duration;

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
        let row = self
            .connection
            .prepare_cached("SELECT * FROM message WHERE id = ?1")?
            .query_row([&id.as_bytes()[..]], MessageRow::read)
            .optional()?;
        let Some(row) = row else { return Ok(None) };
        let recipients = self.recipients(id)?;
        row.message(id, recipients).map(Some)
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

    /// Reads every page and compares the tables with their indexes; slow, for suspicious files.
    ///
    /// # Errors
    /// SQLite's, or its findings as a damaged row.
    pub fn check(&self) -> Result<(), DbError> {
        let verdict: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict == "ok" {
            return Ok(());
        }
        Err(DbError::Row {
            id: "any".to_owned(),
            what: verdict,
        })
    }

    /// The parts that a statement finds, with their recipients.
    pub(super) fn parts(&self, sql: &str, params: impl rusqlite::Params) -> Result<Parts, DbError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows: Vec<PartRow> = statement
            .query_map(params, PartRow::read)?
            .collect::<Result<_, _>>()?;
        let mut waiting = self.connection.prepare_cached(
            "SELECT number, address FROM recipient WHERE message = ?1 AND part = ?2 AND fate = 0 ORDER BY number",
        )?;
        let mut size = self
            .connection
            .prepare_cached("SELECT size FROM message WHERE id = ?1")?;
        let mut parts = Parts::default();
        for row in rows {
            let id = row.id;
            let size: Option<u64> = size
                .query_row([&id.message.as_bytes()[..]], |row| row.get(0))
                .optional()?;
            let key = params![&id.message.as_bytes()[..], id.number];
            let recipients: Vec<(usize, String)> = waiting
                .query_map(key, |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            match row.part(recipients, size.unwrap_or(0)) {
                Ok(part) => parts.whole.push(part),
                Err(error) => parts.damaged.push((id, error.to_string())),
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
            .collect::<Result<_, _>>()?;
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

struct MessageRow {
    arrived: i64,
    size: u64,
    checksum: u32,
    reverse_path: Option<String>,
    eight_bit: bool,
    client: String,
    greeting: String,
    esmtp: bool,
    listener: String,
    tls: bool,
    user: Option<String>,
    smtputf8: bool,
    envelope_id: Option<String>,
    ret: Option<u8>,
    report: bool,
}

impl MessageRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            arrived: row.get("arrived")?,
            size: row.get("size")?,
            checksum: row.get("checksum")?,
            reverse_path: row.get("reverse_path")?,
            eight_bit: row.get("body_type")?,
            client: row.get("client")?,
            greeting: row.get("greeting")?,
            esmtp: row.get("esmtp")?,
            listener: row.get("listener")?,
            tls: row.get("tls")?,
            user: row.get("auth_user")?,
            smtputf8: row.get("smtputf8")?,
            envelope_id: row.get("envid")?,
            ret: row.get("ret")?,
            report: row.get("report")?,
        })
    }

    fn message(self, id: QueueId, recipients: Vec<Recipient>) -> Result<Message, DbError> {
        let damaged = |what: String| DbError::Row {
            id: id.to_string(),
            what,
        };
        let reverse_path = match self.reverse_path {
            None => ReversePath::Null,
            Some(text) => ReversePath::Address(address(&text, &id)?),
        };
        let body_type = if self.eight_bit {
            BodyType::EightBitMime
        } else {
            BodyType::SevenBit
        };
        let ret = match self.ret {
            Some(0) => Some(Ret::Full),
            Some(1) => Some(Ret::Headers),
            _ => None,
        };
        Ok(Message {
            id,
            arrived: Timestamp::from_millis(self.arrived),
            envelope: Envelope::new(reverse_path, recipients, body_type)
                .map_err(|e| damaged(e.to_string()))?
                .with_smtputf8(self.smtputf8)
                .with_reports(ret, self.envelope_id.and_then(|text| EnvelopeId::new(text).ok())),
            origin: Origin {
                client: self
                    .client
                    .parse()
                    .map_err(|_| damaged(format!("client {:?}", self.client)))?,
                greeting: self.greeting,
                esmtp: self.esmtp,
                listener: self.listener,
                tls: self.tls,
                user: self.user,
            },
            size: self.size,
            checksum: self.checksum,
            report: self.report,
        })
    }
}

struct PartRow {
    id: PartId,
    account: String,
    mailbox: String,
    changes: String,
    due: i64,
    attempts: u32,
    deferred: i64,
    deferral: Option<(i64, i64, i64)>,
    uncertain: u32,
    turn: Turn,
}

impl PartRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: part_id(row)?,
            account: row.get("account")?,
            mailbox: row.get("mailbox")?,
            changes: row.get("changes")?,
            due: row.get("due")?,
            attempts: row.get("attempts")?,
            deferred: row.get("deferred")?,
            deferral: match (
                row.get("deferral_run")?,
                row.get("deferral_from")?,
                row.get("deferral_wait")?,
            ) {
                (Some(run), Some(from), Some(wait)) => Some((run, from, wait)),
                _ => None,
            },
            uncertain: row.get("uncertain")?,
            turn: Turn {
                device: row.get("device")?,
                sender: row.get("sender")?,
            },
        })
    }

    fn part(self, recipients: Vec<(usize, String)>, size: u64) -> Result<Part, DbError> {
        let id = self.id;
        Ok(Part {
            id,
            mailbox: address(&self.mailbox, &id.message)?,
            account: self.account,
            changes: self.changes,
            due: Timestamp::from_millis(self.due),
            progress: Progress {
                attempts: self.attempts,
                deferred: Duration::from_millis(self.deferred.unsigned_abs()),
                deferral: self.deferral.map(|(run, from, wait)| Deferral {
                    run: Timestamp::from_millis(run),
                    from: Duration::from_millis(from.unsigned_abs()),
                    wait: Duration::from_millis(wait.unsigned_abs()),
                }),
                uncertain: self.uncertain,
            },
            turn: self.turn,
            size,
            waiting: recipients
                .into_iter()
                .map(|(number, text)| Ok((number, address(&text, &id.message)?)))
                .collect::<Result<_, DbError>>()?,
        })
    }
}

fn address(text: &str, of: &impl std::fmt::Display) -> Result<Address, DbError> {
    text.parse().map_err(|e| DbError::Row {
        id: of.to_string(),
        what: format!("address {text:?}: {e}"),
    })
}

pub(super) fn part_id(row: &Row<'_>) -> rusqlite::Result<PartId> {
    Ok(PartId {
        message: queue_id(row, "message")?,
        number: row.get("number")?,
    })
}

pub(super) fn queue_id(row: &Row<'_>, column: &str) -> rusqlite::Result<QueueId> {
    let bytes: Vec<u8> = row.get(column)?;
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| {
        rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, "a queue id has 16 bytes".into())
    })?;
    Ok(QueueId::from_bytes(bytes))
}
