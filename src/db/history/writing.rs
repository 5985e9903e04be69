//! The statements that change `history.db`.

use super::record::{Arrival, Change, Entry, Named, Outcome, PastFate, Whom};
use super::{HistoryError, open_writing};
use crate::mail::QueueId;
use crate::mail::Timestamp;
use rusqlite::{Connection, Transaction, params};
use std::path::Path;
use std::time::Duration;

/// The one connection that writes to the history.
#[derive(Debug)]
pub struct HistoryWriter {
    connection: Connection,
}

/// Messages that are removed in one transaction: a short one, because the feed waits for it.
const PURGE: usize = 500;

/// The kind of the event that a message is accepted by.
pub(super) const ACCEPTED: &str = "accepted";

/// Pages that are given back to the file system in one go.
const PAGES: u32 = 2000;

impl HistoryWriter {
    /// Opens `path`, creates or migrates it.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        Ok(Self {
            connection: open_writing(path)?,
        })
    }

    /// Takes events, all or none; on the disk when this returns. Those that were taken before change nothing.
    ///
    /// # Errors
    /// SQLite's.
    pub fn take(&mut self, entries: &[Entry]) -> Result<(), HistoryError> {
        let transaction = self.connection.transaction()?;
        for entry in entries {
            take(&transaction, entry)?;
        }
        Ok(transaction.commit()?)
    }

    /// Removes some of what is older than `keep`, twice that for messages that are not done, and some of the oldest
    /// if the file is larger than `max_size`. True if there is more to be removed.
    ///
    /// # Errors
    /// SQLite's.
    pub fn purge(&mut self, now: Timestamp, keep: Duration, max_size: u64) -> Result<bool, HistoryError> {
        let before = |age: Duration| {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            Timestamp::from_millis(now.millis().saturating_sub(age).max(0))
        };
        let too_old = before(keep);
        let (done, all) = (
            QueueId::earliest(too_old),
            QueueId::earliest(before(keep.saturating_mul(2))),
        );
        let mut removed = self.remove(
            "SELECT id FROM message WHERE id < ?1 AND (id < ?2 OR NOT EXISTS
                (SELECT 1 FROM recipient WHERE recipient.message = message.id AND fate = 0))
             ORDER BY id LIMIT ?3",
            params![&done.as_bytes()[..], &all.as_bytes()[..], PURGE],
        )?;
        let of_the_bridge = self.connection.execute(
            "DELETE FROM event WHERE n IN (SELECT n FROM event WHERE message = x'' AND at < ?1 LIMIT ?2)",
            params![too_old.millis(), PURGE],
        )?;
        let too_large = self.live_size()? > max_size;
        if too_large {
            removed += self.remove("SELECT id FROM message ORDER BY id LIMIT ?1", params![PURGE])?;
        }
        let more = self.give_back()?;
        Ok(removed + of_the_bridge >= PURGE || (too_large && removed > 0) || more)
    }

    /// Gives some free pages back to the file system; true if there are more.
    fn give_back(&mut self) -> Result<bool, HistoryError> {
        let mut step = self
            .connection
            .prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        let (mut rows, mut freed) = (step.query([])?, 0);
        // A page is freed with each row.
        while rows.next()?.is_some() {
            freed += 1;
        }
        drop(rows);
        drop(step);
        if freed < PAGES {
            // The file becomes shorter only when the write-ahead log is brought into it.
            self.connection
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        }
        Ok(freed >= PAGES)
    }

    /// Octets of the pages in use.
    fn live_size(&self) -> Result<u64, HistoryError> {
        let pragma = |name| -> Result<u64, HistoryError> {
            Ok(self.connection.pragma_query_value(None, name, |row| row.get(0))?)
        };
        Ok((pragma("page_count")?.saturating_sub(pragma("freelist_count")?))
            .saturating_mul(pragma("page_size")?))
    }

    fn remove(&mut self, which: &str, params: impl rusqlite::Params) -> Result<usize, HistoryError> {
        let transaction = self.connection.transaction()?;
        let ids: Vec<Vec<u8>> = transaction
            .prepare_cached(which)?
            .query_map(params, |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for table in [
            "recipient WHERE message",
            "event WHERE message",
            "message WHERE id",
        ] {
            let mut delete = transaction.prepare_cached(&format!("DELETE FROM {table} = ?1"))?;
            for id in &ids {
                delete.execute([id])?;
            }
        }
        transaction.commit()?;
        Ok(ids.len())
    }

    /// Limits the size of the database, as a full disk would.
    ///
    /// # Errors
    /// SQLite's.
    #[cfg(test)]
    pub fn limit_pages(&mut self, pages: u32) -> Result<(), HistoryError> {
        Ok(self.connection.pragma_update(None, "max_page_count", pages)?)
    }
}

fn take(transaction: &Transaction<'_>, entry: &Entry) -> Result<(), HistoryError> {
    let (kind, detail) = match &entry.change {
        // All of it is in tables of its own.
        Change::Arrived(_) => (ACCEPTED, ""),
        Change::Happened { kind, detail, .. } => (*kind, detail.as_str()),
    };
    let id = entry.message.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
    let is_new = transaction
        .prepare_cached(
            "INSERT INTO event (message, id, at, kind, detail) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (message, id) DO NOTHING",
        )?
        .execute(params![
            id,
            &entry.event.as_bytes()[..],
            entry.at.millis(),
            kind,
            detail
        ])?;
    match (&entry.change, entry.message) {
        _ if is_new == 0 => Ok(()),
        (Change::Arrived(arrival), Some(message)) => arrived(transaction, message, arrival),
        (
            Change::Happened {
                outcome: Some(outcome),
                ..
            },
            Some(message),
        ) => learned(transaction, message, entry.at, outcome),
        _ => Ok(()),
    }
}

fn arrived(transaction: &Transaction<'_>, message: QueueId, arrival: &Arrival) -> Result<(), HistoryError> {
    let id = &message.as_bytes()[..];
    transaction
        .prepare_cached(
            "INSERT INTO message (id, arrived, sender, sender_key, message_id, subject, client, listener, auth_user,
                                  tls, size, plan)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (id) DO UPDATE SET
                 arrived = ?2, sender = ?3, sender_key = ?4, message_id = ?5, subject = ?6, client = ?7, listener = ?8,
                 auth_user = ?9, tls = ?10, size = ?11, plan = ?12",
        )?
        .execute(params![
            id,
            arrival.arrived.millis(),
            arrival.sender.as_ref().map(|sender| &sender.address),
            arrival.sender.as_ref().map_or("", |sender| &sender.key),
            arrival.message_id,
            arrival.subject,
            arrival.client,
            arrival.listener,
            arrival.user,
            arrival.tls,
            arrival.size,
            arrival.plan,
        ])?;
    let mut recipient = transaction.prepare_cached(
        "INSERT INTO recipient (message, number, address, key, fate, outcomes) VALUES (?1, ?2, ?3, ?4, 0, 0)
         -- What is imported after it was done or given up has a new life.
         ON CONFLICT (message, number) DO UPDATE SET fate = 0, outcomes = 0",
    )?;
    for (number, Named { address, key }) in arrival.recipients.iter().enumerate() {
        recipient.execute(params![id, number, address, key])?;
    }
    Ok(())
}

fn learned(
    transaction: &Transaction<'_>,
    message: QueueId,
    at: Timestamp,
    outcome: &Outcome,
) -> Result<(), HistoryError> {
    let id = &message.as_bytes()[..];
    let Outcome {
        whom,
        fate,
        status,
        text,
    } = outcome;
    let outcomes = i32::from(*fate != PastFate::Waiting);
    let these = match whom {
        Whom::These(these) => these,
        Whom::Rest => {
            // Back to waiting is a new way, with a new count.
            transaction
                .prepare_cached(
                    "UPDATE recipient SET fate = ?2, outcomes = CASE ?2 WHEN 0 THEN 0 ELSE outcomes + 1 END, at = ?3
                     WHERE message = ?1 AND CASE ?2 WHEN 0 THEN fate <> 1 ELSE fate = 0 END",
                )?
                .execute(params![id, *fate as u8, at.millis()])?;
            return Ok(());
        }
    };
    // What was accepted before there was a history, or while it was lost, is known from here on.
    transaction
        .prepare_cached(
            "INSERT INTO message (id, arrived, sender_key, tls, size, plan) VALUES (?1, ?2, '', 0, 0, '[]')
             ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![id, at.millis()])?;
    let mut learn = transaction.prepare_cached(
        "INSERT INTO recipient (message, number, address, key, fate, outcomes, status, text, at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (message, number) DO UPDATE SET
             -- What was being sent when it was bounced (3) or deleted (4) was not: its attempt says what became of it.
             outcomes = CASE WHEN fate IN (3, 4) THEN ?6 ELSE outcomes + ?6 END,
             fate = ?5, status = ?7, text = ?8, at = ?9",
    )?;
    for (number, Named { address, key }) in these {
        learn.execute(params![
            id,
            number,
            address,
            key,
            *fate as u8,
            outcomes,
            status,
            text,
            at.millis()
        ])?;
    }
    Ok(())
}
