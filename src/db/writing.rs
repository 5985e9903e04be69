//! The statements that change `queue.db`.

use super::record::{Fate, Message, Next, PartId, Plan, Sent, Settlement, Stored};
use super::{DbError, OpenError, open_writing, schema};
use crate::mail::BodyType;
use crate::mail::EnvelopeId;
use crate::mail::Notify;
use crate::mail::QueueId;
use crate::mail::ReversePath;
use crate::mail::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::Path;
use std::time::Duration;

/// The one connection that writes. Every method but [`begin`](Self::begin) and [`commit`](Self::commit) belongs
/// between these two.
#[derive(Debug)]
pub struct QueueWriter {
    pub(super) connection: Connection,
    spool_id: [u8; 16],
}

/// Free pages of 4 KiB that stay in the file, to be used again.
const KEPT_PAGES: u32 = 256;

/// Free pages that are given back at once: few, so that nobody who comes in between waits for long.
const STEP_PAGES: u32 = 256;

/// How a message stands after an attempt of one of its parts was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Something is still to be delivered, or waits for a person.
    Open,
    /// All recipients were relayed: the message is gone from the queue. `in_file` says whether a body file is
    /// left to be unlinked, `size` how many octets were given back.
    Released {
        /// True if the body is a file.
        in_file: bool,
        /// Octets of the body.
        size: u64,
    },
    /// Nothing is left to be tried, and at least one recipient failed: the message stays as a dead letter.
    DeadLetter,
}

impl QueueWriter {
    /// Opens `path`, creates or migrates it. A new database takes `fresh` as the id of its spool.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, fresh: [u8; 16]) -> Result<Self, OpenError> {
        let mut connection = open_writing(path)?;
        schema::migrate(&mut connection)?;
        schema::make_shrinkable(&connection)?;
        let spool_id = schema::spool_id(&mut connection, fresh)?;
        Ok(Self { connection, spool_id })
    }

    /// Opens a database that must be there and belong to this spool, after a failure.
    ///
    /// # Errors
    /// SQLite's, or that it is another one.
    pub fn reopen(path: &Path, spool_id: [u8; 16]) -> Result<Self, DbError> {
        if !path.exists() {
            return Err(DbError::Unavailable("queue.db has disappeared".to_owned()));
        }
        // A database without an id of its own takes zeros, which no spool has.
        let reopened = Self::open(path, [0; 16]).map_err(|error| DbError::Unavailable(error.to_string()))?;
        if reopened.spool_id != spool_id {
            return Err(DbError::Unavailable(
                "queue.db is not the one that was there before".to_owned(),
            ));
        }
        Ok(reopened)
    }

    /// Writes something in any case, so that the write-ahead log goes on where the last good COMMIT ended, over what
    /// a failed one has left there. A start after a kill reads the log up to the last commit that it finds in it, also if
    /// that one was answered with an error.
    ///
    /// # Errors
    /// SQLite's.
    pub fn write_over(&mut self) -> Result<(), DbError> {
        // An UPDATE that changes nothing would write nothing.
        self.connection.execute("DELETE FROM spool", [])?;
        self.connection.execute(
            "INSERT INTO spool (only_row, id) VALUES (1, ?1)",
            [&self.spool_id[..]],
        )?;
        Ok(())
    }

    /// Gives some free pages back to the file system. True if it should be called again. Outside of a transaction.
    ///
    /// # Errors
    /// SQLite's.
    pub fn give_back(&mut self) -> Result<bool, DbError> {
        let free: u32 = self
            .connection
            .pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        if free <= KEPT_PAGES {
            // The file becomes shorter only when the write-ahead log is brought into it.
            self.connection
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
            return Ok(false);
        }
        let mut step = self
            .connection
            .prepare(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"))?;
        let mut rows = step.query([])?;
        while rows.next()?.is_some() {}
        Ok(true)
    }

    /// The id of the spool that this database belongs to.
    #[must_use]
    pub fn spool_id(&self) -> [u8; 16] {
        self.spool_id
    }

    /// Begins the transaction of a group.
    ///
    /// # Errors
    /// SQLite's.
    pub fn begin(&mut self) -> Result<(), DbError> {
        Ok(self.connection.execute_batch("BEGIN IMMEDIATE")?)
    }

    /// Commits the group; when this returns, it is on the disk.
    ///
    /// # Errors
    /// SQLite's. Nothing is known about the group then: reopen the database and look.
    pub fn commit(&mut self) -> Result<(), DbError> {
        Ok(self.connection.execute_batch("COMMIT")?)
    }

    /// Runs one request of a group under a savepoint, so that its failure leaves the others alone.
    ///
    /// # Errors
    /// The request's own, after its changes were undone.
    pub fn savepoint<T>(
        &mut self,
        request: impl FnOnce(&mut Self) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        self.connection.execute_batch("SAVEPOINT request")?;
        match request(self) {
            Ok(done) => {
                self.connection.execute_batch("RELEASE request")?;
                Ok(done)
            }
            // The transaction, and the savepoint with it, may be gone already.
            Err(error) if error.ends_transaction() => Err(error),
            Err(error) => {
                self.connection
                    .execute_batch("ROLLBACK TO request; RELEASE request")?;
                Err(error)
            }
        }
    }

    /// Adds an accepted message.
    ///
    /// # Errors
    /// SQLite's.
    pub fn insert(&mut self, message: &Message, stored: &Stored) -> Result<(), DbError> {
        let id = &message.id.as_bytes()[..];
        let envelope = &message.envelope;
        let reverse_path = match envelope.reverse_path() {
            ReversePath::Null => None,
            ReversePath::Address(address) => Some(address.to_string()),
        };
        self.connection
            .prepare_cached(
                "INSERT INTO message (id, arrived, size, checksum, in_file, reverse_path, body_type,
                                      client, greeting, esmtp, listener, tls, auth_user, smtputf8, envid, ret, report,
                                      sealed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
            )?
            .execute(params![
                id,
                message.arrived.millis(),
                message.size,
                message.checksum,
                *stored == Stored::File,
                reverse_path,
                envelope.body_type() == BodyType::EightBitMime,
                message.origin.client.to_string(),
                message.origin.greeting,
                message.origin.esmtp,
                message.origin.listener,
                message.origin.tls,
                message.origin.user,
                envelope.smtputf8(),
                envelope.envelope_id().map(EnvelopeId::as_str),
                envelope.ret().map(|ret| ret as u8),
                message.report,
                message.seal(),
            ])?;
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO recipient (message, number, address, notify, orcpt) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for (number, recipient) in envelope.recipients().iter().enumerate() {
            insert.execute(params![
                id,
                number,
                recipient.address.to_string(),
                recipient.notify.map(Notify::bits),
                recipient.original.as_ref().map(ToString::to_string),
            ])?;
        }
        if let Stored::Inline(bytes) = stored {
            self.connection
                .prepare_cached("INSERT INTO body (message, bytes) VALUES (?1, ?2)")?
                .execute(params![id, &bytes[..]])?;
        }
        Ok(())
    }

    /// Removes messages that were refused after all, where they are there.
    ///
    /// # Errors
    /// SQLite's.
    pub fn remove(&mut self, ids: &[QueueId]) -> Result<(), DbError> {
        ids.iter().try_for_each(|id| self.delete(*id))
    }

    /// Writes the plan of a message. Does nothing if it has one already.
    ///
    /// # Errors
    /// SQLite's.
    pub fn plan(&mut self, message: QueueId, plan: &Plan) -> Result<(), DbError> {
        let id = &message.as_bytes()[..];
        let recovered: Option<bool> = self
            .connection
            .prepare_cached(
                "UPDATE message SET planned = 1, message_id = ?2 WHERE id = ?1 AND planned = 0 RETURNING recovered",
            )?
            .query_row(params![id, plan.message_id], |row| row.get(0))
            .optional()?;
        let state = match recovered {
            None => return Ok(()),
            Some(true) => PartState::Held,
            Some(false) => PartState::Waiting,
        };
        let mut part = self.connection.prepare_cached(
            "INSERT INTO part (message, number, account, mailbox, changes, due, state, device, sender, uncertain)
             SELECT id, ?2, ?3, ?4, ?5, ?6, ?7, coalesce(auth_user, client), coalesce(reverse_path, ''), recovered
             FROM message WHERE id = ?1",
        )?;
        let mut recipient = self
            .connection
            .prepare_cached("UPDATE recipient SET part = ?3 WHERE message = ?1 AND number = ?2")?;
        for (number, planned) in plan.parts.iter().enumerate() {
            let mailbox = planned.mailbox.to_string();
            part.execute(params![
                id,
                number,
                planned.account,
                mailbox,
                planned.changes,
                plan.due.millis(),
                state as u8
            ])?;
            for position in &planned.recipients {
                recipient.execute(params![id, position, number])?;
            }
        }
        drop((part, recipient));
        self.put_in_outbox(&plan.events)
    }

    /// Marks that an attempt of a part begins at `at`: from here on its outcome may be uncertain.
    ///
    /// # Errors
    /// SQLite's; [`DbError::Withdrawn`] if it does not wait any more, because somebody has held, bounced or deleted it.
    pub fn mark(&mut self, part: PartId, at: Timestamp) -> Result<(), DbError> {
        let marked = self
            .connection
            .prepare_cached(
                "UPDATE part SET marker = ?3, attempts = attempts + 1
                 WHERE message = ?1 AND number = ?2 AND state = 0 AND marker IS NULL",
            )?
            .execute(params![&part.message.as_bytes()[..], part.number, at.millis()])?;
        if marked == 0 {
            return Err(DbError::Withdrawn(part));
        }
        Ok(())
    }

    /// Takes markers back that were not meant to be: these parts are due as before.
    ///
    /// # Errors
    /// SQLite's.
    pub fn unmark(&mut self, parts: &[PartId]) -> Result<(), DbError> {
        let mut unmark = self
            .connection
            .prepare_cached("UPDATE part SET marker = NULL WHERE message = ?1 AND number = ?2")?;
        for part in parts {
            unmark.execute(params![&part.message.as_bytes()[..], part.number])?;
        }
        Ok(())
    }

    /// Puts parts aside for a person: they are not tried again by themselves.
    ///
    /// # Errors
    /// SQLite's.
    pub fn hold(&mut self, part: PartId) -> Result<(), DbError> {
        self.connection
            .prepare_cached("UPDATE part SET state = ?3, marker = NULL WHERE message = ?1 AND number = ?2")?
            .execute(params![
                &part.message.as_bytes()[..],
                part.number,
                PartState::Held as u8
            ])?;
        Ok(())
    }

    /// Makes everything due now that is due only after `horizon`: later than any wait can be, so the clock was
    /// wrong when it was written.
    ///
    /// # Errors
    /// SQLite's.
    pub fn rein_in(&mut self, now: Timestamp, horizon: Timestamp) -> Result<(), DbError> {
        self.connection
            // Lane by lane, along the index: a walk over a million parts would keep every 250 waiting.
            .prepare_cached(
                "UPDATE part SET due = ?1 WHERE (message, number) IN (
                     SELECT late.message, late.number
                     FROM lane CROSS JOIN part AS late INDEXED BY part_due
                     WHERE late.state = 0 AND late.marker IS NULL
                       AND late.account = lane.account AND late.mailbox = lane.mailbox AND late.due > ?2)",
            )?
            .execute(params![now.millis(), horizon.millis()])?;
        Ok(())
    }

    /// Makes parts due at `now` that wait after a deferral; what was uncertain waits as long as it must.
    ///
    /// # Errors
    /// SQLite's.
    pub fn hasten(&mut self, parts: &[PartId], now: Timestamp) -> Result<(), DbError> {
        let mut hasten = self.connection.prepare_cached(
            "UPDATE part SET due = ?3
             WHERE message = ?1 AND number = ?2 AND state = 0 AND due > ?3 AND deferral_run IS NOT NULL",
        )?;
        for part in parts {
            hasten.execute(params![&part.message.as_bytes()[..], part.number, now.millis()])?;
        }
        Ok(())
    }

    /// Remembers that the mail of an account is not sent, because an administrator said so at `since`; the empty name
    /// stands for all. One that is paused already stays so since then.
    ///
    /// # Errors
    /// SQLite's.
    pub fn pause(&mut self, account: &str, since: Timestamp) -> Result<(), DbError> {
        self.connection
            .prepare_cached("INSERT INTO pause (account, since) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
            .execute(params![account, since.millis()])?;
        Ok(())
    }

    /// Forgets a pause; the empty name forgets all of them.
    ///
    /// # Errors
    /// SQLite's.
    pub fn resume(&mut self, account: &str) -> Result<(), DbError> {
        self.connection
            .prepare_cached("DELETE FROM pause WHERE account = ?1 OR ?1 = ''")?
            .execute([account])?;
        Ok(())
    }

    /// Stops waiting for the disk: for tests of a whole day.
    ///
    /// # Errors
    /// SQLite's.
    #[cfg(test)]
    pub fn hurry(&mut self) -> Result<(), DbError> {
        Ok(self.connection.execute_batch("PRAGMA synchronous = OFF")?)
    }

    /// Limits the size of the database, as a full disk would.
    ///
    /// # Errors
    /// SQLite's.
    #[cfg(test)]
    pub fn limit_pages(&mut self, pages: u32) -> Result<(), DbError> {
        Ok(self.connection.pragma_update(None, "max_page_count", pages)?)
    }

    /// Writes the end of an attempt, queues its reports, and releases the message if nothing is left of it. Answers
    /// how that stands now, and how many octets of reports were queued. May be repeated with the same settlement
    /// after an error; reports are queued once.
    ///
    /// # Errors
    /// SQLite's.
    pub fn settle(&mut self, settlement: &Settlement) -> Result<(Ending, u64), DbError> {
        let PartId { message, number } = settlement.part;
        let id = &message.as_bytes()[..];
        // Before anything changes: a settlement that is repeated must not tell it twice.
        let is_news = !settlement.reports.is_empty() && self.ends_something(settlement)?;
        for update in &settlement.recipients {
            self.connection
                .prepare_cached(
                    "UPDATE recipient SET fate = ?3, status = ?4, cause = ?5 WHERE message = ?1 AND number = ?2",
                )?
                .execute(params![id, update.recipient, update.fate as u8, update.status, update.cause])?;
        }
        if let Some(sent) = &settlement.sent {
            self.count(settlement.part, sent)?;
        }
        let (state, due) = match settlement.next {
            Next::Due(due) => (PartState::Waiting, Some(due.millis())),
            Next::Held => (PartState::Held, None),
            Next::Ended => (self.ended_as(settlement.part)?, None),
        };
        let progress = settlement.progress;
        self.connection
            .prepare_cached(
                "UPDATE part SET state = ?3, due = coalesce(?4, marker, due), marker = NULL,
                                 attempts = ?5, deferred = ?6, uncertain = ?7,
                                 deferral_run = ?8, deferral_from = ?9, deferral_wait = ?10
                 WHERE message = ?1 AND number = ?2",
            )?
            .execute(params![
                id,
                number,
                state as u8,
                due,
                progress.attempts,
                millis(progress.deferred),
                progress.uncertain,
                progress.deferral.map(|deferral| deferral.run.millis()),
                progress.deferral.map(|deferral| millis(deferral.from)),
                progress.deferral.map(|deferral| millis(deferral.wait)),
            ])?;
        self.put_in_outbox(&settlement.events)?;
        let octets = if is_news {
            self.queue_reports(&settlement.reports)?
        } else {
            0
        };
        Ok((self.ending(message)?, octets))
    }

    /// Counts what an attempt has sent, once: only while its marker is there.
    fn count(&self, part: PartId, sent: &Sent) -> Result<(), DbError> {
        let counted = self
            .connection
            .prepare_cached(
                "INSERT INTO sent (cloud, mailbox, hour, sender, recipients)
                 SELECT ?3, ?4, ?5, ?6, ?7 FROM part WHERE message = ?1 AND number = ?2 AND marker IS NOT NULL
                 ON CONFLICT DO UPDATE SET recipients = recipients + excluded.recipients",
            )?
            .execute(params![
                &part.message.as_bytes()[..],
                part.number,
                sent.cloud,
                sent.mailbox,
                sent.hour,
                sent.sender,
                sent.recipients,
            ])?;
        if counted > 0 {
            self.connection
                .prepare_cached("DELETE FROM sent WHERE cloud = ?1 AND mailbox = ?2 AND hour < ?3")?
                .execute(params![sent.cloud, sent.mailbox, sent.hour - SENT_HOURS])?;
        }
        Ok(())
    }

    fn ended_as(&self, part: PartId) -> Result<PartState, DbError> {
        let (waiting, failed): (bool, bool) = self
            .connection
            .prepare_cached(
                "SELECT coalesce(max(fate = 0), 0), coalesce(max(fate = 2), 0) FROM recipient
                 WHERE message = ?1 AND part = ?2",
            )?
            .query_row(params![&part.message.as_bytes()[..], part.number], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        Ok(if waiting {
            // Somebody wanted a failed recipient to be tried again while the attempt was prepared without it.
            PartState::Waiting
        } else if failed {
            PartState::Failed
        } else {
            PartState::Done
        })
    }

    pub(super) fn ending(&mut self, message: QueueId) -> Result<Ending, DbError> {
        let (open, failed): (bool, bool) = self
            .connection
            .prepare_cached("SELECT coalesce(max(state IN (0, 2)), 0), coalesce(max(state = 3), 0) FROM part WHERE message = ?1")?
            .query_row([&message.as_bytes()[..]], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if open {
            return Ok(Ending::Open);
        }
        if failed {
            return Ok(Ending::DeadLetter);
        }
        let row: Option<(bool, u64)> = self
            .connection
            .prepare_cached("SELECT in_file, size FROM message WHERE id = ?1")?
            .query_row([&message.as_bytes()[..]], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        // No row: an earlier try of this settlement was committed after all.
        let (in_file, size) = row.unwrap_or((true, 0));
        self.delete(message)?;
        Ok(Ending::Released { in_file, size })
    }

    fn delete(&mut self, message: QueueId) -> Result<(), DbError> {
        for statement in [
            "DELETE FROM body WHERE message = ?1",
            "DELETE FROM part WHERE message = ?1",
            "DELETE FROM recipient WHERE message = ?1",
            "DELETE FROM message WHERE id = ?1",
        ] {
            self.connection
                .prepare_cached(statement)?
                .execute([&message.as_bytes()[..]])?;
        }
        Ok(())
    }
}

/// For so many hours what was sent is remembered: a day, and what a corrected clock may add.
const SENT_HOURS: i64 = 26;

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The column `part.state`. Only the first takes part in scheduling.
#[derive(Clone, Copy)]
enum PartState {
    Waiting = 0,
    Done = 1,
    Held = 2,
    Failed = 3,
}

const _: () = assert!(Fate::Waiting as u8 == 0 && Fate::Relayed as u8 == 1 && Fate::Failed as u8 == 2);
