//! What is held: accounts that are broken and since when, and mail that waits for a person.

use super::record::PartId;
use super::{DbError, Parts, QueueReader, QueueWriter};
use crate::mail::QueueId;
use crate::mail::Timestamp;
use rusqlite::params;

/// An account, or one mailbox of it, that a person must put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The account's name.
    pub account: String,
    /// The mailbox; `None` for all of the account.
    pub mailbox: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// How many warnings were given that mail has waited for long.
    pub warned: u8,
}

/// Where the mailbox stands for all of an account.
const ALL: &str = "";

impl QueueReader {
    /// What was broken when that was written last.
    ///
    /// # Errors
    /// SQLite's.
    pub fn broken(&self) -> Result<Vec<Broken>, DbError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT account, mailbox, since, warned FROM broken ORDER BY account, mailbox")?;
        let broken = statement.query_map([], |row| {
            let mailbox: String = row.get(1)?;
            Ok(Broken {
                account: row.get(0)?,
                mailbox: (mailbox != ALL).then_some(mailbox),
                since: Timestamp::from_millis(row.get(2)?),
                warned: row.get(3)?,
            })
        })?;
        Ok(broken.collect::<Result<_, _>>()?)
    }

    /// When the oldest message arrived that still waits for an account, or for one mailbox of it.
    ///
    /// # Errors
    /// SQLite's.
    pub fn oldest_waiting(&self, account: &str, mailbox: Option<&str>) -> Result<Option<Timestamp>, DbError> {
        let arrived: Option<i64> = self
            .connection
            .prepare_cached(
                "SELECT arrived FROM message WHERE id = (
                     SELECT min(message) FROM part INDEXED BY part_due
                     WHERE state = 0 AND marker IS NULL AND account = ?1 AND (?2 IS NULL OR mailbox = ?2))",
            )?
            .query_map(params![account, mailbox], |row| row.get(0))?
            .next()
            .transpose()?;
        Ok(arrived.map(Timestamp::from_millis))
    }

    /// At most `limit` parts that wait for an account, or for one mailbox of it, whose messages arrived before `before`
    /// and of which nobody was told that they wait for too long. In the order of an index, so that a page costs a page.
    ///
    /// # Errors
    /// SQLite's.
    pub fn waiting_since(
        &self,
        account: &str,
        mailbox: Option<&str>,
        before: Timestamp,
        limit: usize,
    ) -> Result<Parts, DbError> {
        let bound = QueueId::earliest(before);
        self.parts(
            "SELECT * FROM part INDEXED BY part_due WHERE message < ?3 AND state = 0 AND marker IS NULL AND hold_told = 0
             AND account = ?1 AND (?2 IS NULL OR mailbox = ?2) LIMIT ?4",
            params![account, mailbox, &bound.as_bytes()[..], limit],
        )
    }

    /// At most `limit` parts that wait for a person since before `before`, and of which nobody was told so.
    ///
    /// # Errors
    /// SQLite's.
    pub fn held_since(&self, before: Timestamp, limit: usize) -> Result<Parts, DbError> {
        self.parts(
            "SELECT * FROM part WHERE state = 2 AND hold_told = 0 AND held_since < ?1 ORDER BY held_since LIMIT ?2",
            params![before.millis(), limit],
        )
    }
}

impl QueueWriter {
    /// Remembers that an account, or one mailbox of it, is broken since `broken.since`, and how often it was warned of.
    /// What was broken already stays so since then.
    ///
    /// # Errors
    /// SQLite's.
    pub fn broke(&mut self, broken: &Broken) -> Result<(), DbError> {
        self.connection
            .prepare_cached(
                "INSERT INTO broken (account, mailbox, since, warned) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET warned = excluded.warned",
            )?
            .execute(params![
                broken.account,
                broken.mailbox.as_deref().unwrap_or(ALL),
                broken.since.millis(),
                broken.warned,
            ])?;
        Ok(())
    }

    /// Forgets that an account, or one mailbox of it, was broken.
    ///
    /// # Errors
    /// SQLite's.
    pub fn mended(&mut self, account: &str, mailbox: Option<&str>) -> Result<(), DbError> {
        self.connection
            .prepare_cached("DELETE FROM broken WHERE account = ?1 AND mailbox = ?2")?
            .execute([account, mailbox.unwrap_or(ALL)])?;
        Ok(())
    }

    /// Notes that what waits for a person and has no such note does so since `now`: it is looked at often enough.
    ///
    /// # Errors
    /// SQLite's.
    pub fn note_held(&mut self, now: Timestamp) -> Result<(), DbError> {
        self.connection
            .prepare_cached(
                "UPDATE part SET held_since = ?1 WHERE state = 2 AND hold_told = 0 AND held_since IS NULL",
            )?
            .execute([now.millis()])?;
        Ok(())
    }

    /// Notes that a part is behind a broken account for too long and that this was told: it waits for a person now.
    ///
    /// # Errors
    /// SQLite's.
    pub fn hold_told(&mut self, part: PartId) -> Result<(), DbError> {
        self.connection
            .prepare_cached(
                "UPDATE part SET state = 2, hold_told = 1
                 WHERE message = ?1 AND number = ?2 AND state = 0 AND marker IS NULL",
            )?
            .execute(params![&part.message.as_bytes()[..], part.number])?;
        Ok(())
    }
}
