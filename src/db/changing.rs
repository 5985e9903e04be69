//! What administrators do to messages.
//!
//! A part whose attempt is under way is never touched: its outcome is about to be written, and a message that is
//! already leaving cannot be called back.

use super::DbError;
use super::reading::QueueReader;
use super::record::Reports;
use super::rows::queue_id;
use super::writing::{Ending, QueueWriter};
use crate::mail::QueueId;
use crate::mail::Timestamp;
use rusqlite::{OptionalExtension, params};

/// Something that is done to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The message.
    pub message: QueueId,
    /// What is done.
    pub order: Order,
    /// When.
    pub at: Timestamp,
    /// What the history is told if anything was changed, as JSON.
    pub events: Vec<String>,
    /// Reports that are queued in the same transaction if anything was changed.
    pub reports: Reports,
}

/// What is done to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// What waits or is held is due now, and who could not be sent to is tried anew.
    Retry,
    /// What waits is not tried until a person says so.
    Hold,
    /// What is held waits again, and is due now.
    Release,
    /// Who still waits in these parts counts as failed, with this enhanced status code and this reason. If one of the
    /// parts does not wait any more, and is not held, nothing is done: the report would not be true.
    Bounce {
        /// The parts.
        parts: Vec<u32>,
        /// The code.
        status: String,
        /// The reason.
        cause: String,
    },
    /// The message is gone.
    Delete,
    /// The message is gone if it is a dead letter and failed before this moment.
    Expire(Timestamp),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It was done.
    Done(Done),
    /// Nothing about the message is as it would have to be, so nothing was changed.
    Nothing,
    /// All that could be changed is just being sent.
    UnderWay,
    /// The message has no plan yet. It will have one in a moment, if the bridge runs.
    Unplanned,
    /// There is no such message.
    Unknown,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// An earlier attempt of what is tried now may have gone through: it may arrive twice.
    pub may_arrive_twice: bool,
    /// A part was left alone because it is just being sent.
    pub some_under_way: bool,
    /// What is left of the message.
    pub ending: Ending,
}

impl QueueWriter {
    /// Carries a change out; answers what came of it, and how many octets of reports were queued. After an error it may
    /// have been carried out all the same, and then as a whole.
    ///
    /// # Errors
    /// SQLite's.
    pub fn change(&mut self, change: &Change) -> Result<(Changed, u64), DbError> {
        let key = &change.message.as_bytes()[..];
        let facts: Option<(bool, bool, u64)> = self
            .connection
            .prepare_cached("SELECT planned, in_file, size FROM message WHERE id = ?1")?
            .query_row([key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((planned, in_file, size)) = facts else {
            return Ok((Changed::Unknown, 0));
        };
        let (under_way, may_arrive_twice): (u64, bool) = self
            .connection
            .prepare_cached(
                "SELECT count(*) FILTER (WHERE marker IS NOT NULL),
                        coalesce(max(uncertain > 0 AND marker IS NULL AND state IN (0, 2)), 0)
                 FROM part WHERE message = ?1",
            )?
            .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let at = change.at.millis();
        let changed = match &change.order {
            Order::Delete | Order::Expire(_) if under_way > 0 => return Ok((Changed::UnderWay, 0)),
            Order::Expire(before) if !self.is_expired(key, *before)? => return Ok((Changed::Nothing, 0)),
            Order::Delete | Order::Expire(_) => {
                self.remove(&[change.message])?;
                let octets = self.tell_all(change)?;
                let done = Done {
                    may_arrive_twice: false,
                    some_under_way: false,
                    ending: Ending::Released { in_file, size },
                };
                return Ok((Changed::Done(done), octets));
            }
            // What has no plan is due anyway.
            Order::Retry | Order::Release if !planned => return Ok((Changed::Nothing, 0)),
            Order::Hold | Order::Bounce { .. } if !planned => return Ok((Changed::Unplanned, 0)),
            Order::Hold => self.run(
                "UPDATE part SET state = 2, held_since = ?2, hold_told = 0 WHERE message = ?1 AND state = 0 AND marker IS NULL",
                params![key, at],
            )?,
            Order::Release => self.run(
                "UPDATE part SET state = 0, due = ?2, held_since = NULL, hold_told = 0 WHERE message = ?1 AND state = 2",
                params![key, at],
            )?,
            Order::Retry => self.retry(key, at)?,
            Order::Bounce {
                parts,
                status,
                cause,
            } => self.bounce(key, parts, status, cause, at)?,
        };
        if changed == 0 {
            let why = if under_way > 0 {
                Changed::UnderWay
            } else {
                Changed::Nothing
            };
            return Ok((why, 0));
        }
        let octets = self.tell_all(change)?;
        let done = Done {
            may_arrive_twice: may_arrive_twice && matches!(change.order, Order::Retry | Order::Release),
            some_under_way: under_way > 0,
            ending: self.ending(change.message)?,
        };
        Ok((Changed::Done(done), octets))
    }

    /// What waits or is held is due now, with its count of attempts and its time. What had failed begins anew, with as
    /// much time as in the beginning: else a message that was given up would be given up again at the first trouble.
    fn retry(&mut self, key: &[u8], at: i64) -> Result<usize, DbError> {
        let due = self.run(
            "UPDATE part SET state = 0, due = ?2, held_since = NULL, hold_told = 0
             WHERE message = ?1 AND state IN (0, 2) AND marker IS NULL",
            params![key, at],
        )?;
        let failed = self.run(
            "UPDATE part SET state = 0, due = ?2, deferred = 0, uncertain = 0 WHERE message = ?1 AND state = 3",
            params![key, at],
        )?;
        self.run(
            "UPDATE recipient SET fate = 0 WHERE message = ?1 AND fate = 2
             AND part IN (SELECT number FROM part WHERE message = ?1 AND state = 0 AND marker IS NULL)",
            params![key],
        )?;
        Ok(due + failed)
    }

    fn bounce(
        &self,
        key: &[u8],
        parts: &[u32],
        status: &str,
        cause: &str,
        at: i64,
    ) -> Result<usize, DbError> {
        for part in parts {
            let at_rest: bool = self
                .connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM part
                                    WHERE message = ?1 AND number = ?2 AND state IN (0, 2) AND marker IS NULL)",
                )?
                .query_row(params![key, part], |row| row.get(0))?;
            if !at_rest {
                return Ok(0);
            }
        }
        for part in parts {
            self.run(
                "UPDATE recipient SET fate = 2, status = ?3, cause = ?4
                 WHERE message = ?1 AND part = ?2 AND fate = 0",
                params![key, part, status, cause],
            )?;
            self.run(
                "UPDATE part SET state = 3, due = ?3, held_since = NULL, hold_told = 0 WHERE message = ?1 AND number = ?2",
                params![key, part, at],
            )?;
        }
        Ok(parts.len())
    }

    fn is_expired(&self, key: &[u8], before: Timestamp) -> Result<bool, DbError> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT coalesce(max(state = 3), 0) AND NOT max(state IN (0, 2) OR state = 3 AND due >= ?2)
                 FROM part WHERE message = ?1",
            )?
            .query_row(params![key, before.millis()], |row| row.get(0))?)
    }

    fn tell_all(&mut self, change: &Change) -> Result<u64, DbError> {
        self.put_in_outbox(&change.events)?;
        self.queue_reports(&change.reports)
    }

    fn run(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize, DbError> {
        Ok(self.connection.prepare_cached(sql)?.execute(params)?)
    }
}

impl QueueReader {
    /// Dead letters of which a recipient failed before `before`, at most `limit`, the oldest first. Others of the same
    /// message may have failed later, or wait.
    ///
    /// # Errors
    /// SQLite's.
    pub fn old_failures(&self, before: Timestamp, limit: usize) -> Result<Vec<QueueId>, DbError> {
        let mut statement = self
            .connection
            // A message that has something left to be done stays, and must not stand in the way of the others.
            .prepare_cached(
                "SELECT message FROM part AS failed WHERE state = 3 AND due < ?1 AND NOT EXISTS
                     (SELECT 1 FROM part WHERE part.message = failed.message
                      AND (part.state IN (0, 2) OR part.state = 3 AND part.due >= ?1))
                 ORDER BY due LIMIT ?2",
            )?;
        let ids = statement.query_map(params![before.millis(), limit], |row| queue_id(row, "message"))?;
        let mut ids: Vec<QueueId> = ids.collect::<Result<_, _>>()?;
        ids.dedup();
        Ok(ids)
    }
}
