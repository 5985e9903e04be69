//! The questions that are asked of `history.db`.

use super::record::{Arrival, Named, Past, PastEvent, PastFate, PastRecipient, Wanted};
use super::writing::ACCEPTED;
use super::{HistoryError, open_reading};
use crate::mail::QueueId;
use crate::mail::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::path::Path;

/// A connection that only reads.
#[derive(Debug)]
pub struct HistoryReader {
    connection: Connection,
}

impl HistoryReader {
    /// Opens `path`, which a [`HistoryWriter`](super::HistoryWriter) has made; none while it has just begun to.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub fn open(path: &Path) -> Result<Option<Self>, HistoryError> {
        Ok(open_reading(path)?.map(|connection| Self { connection }))
    }

    /// The newest messages that are wanted and arrived at `since` or later, at most `limit`, the newest first.
    ///
    /// # Errors
    /// SQLite's.
    pub fn search(
        &self,
        wanted: &Wanted,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<QueueId>, HistoryError> {
        let since = QueueId::earliest(since);
        let since = &since.as_bytes()[..];
        match wanted {
            Wanted::Ids(first, last) => self.ids(
                "SELECT id FROM message WHERE id >= ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id DESC LIMIT ?4",
                params![since, &first.as_bytes()[..], &last.as_bytes()[..], limit],
            ),
            Wanted::Address(key) => self.ids(
                "SELECT * FROM (SELECT id FROM message WHERE sender_key = ?2 AND id >= ?1 ORDER BY id DESC LIMIT ?3)
                 UNION
                 SELECT * FROM (SELECT DISTINCT message FROM recipient WHERE key = ?2 AND message >= ?1
                                ORDER BY message DESC LIMIT ?3)
                 ORDER BY 1 DESC LIMIT ?3",
                params![since, key, limit],
            ),
            Wanted::Domain(domain) => self.ids(
                // "A" comes after "@": all keys of the domain are between the two.
                "SELECT id FROM message WHERE sender_key >= ?2 || '@' AND sender_key < ?2 || 'A' AND id >= ?1
                 UNION
                 SELECT message FROM recipient WHERE key >= ?2 || '@' AND key < ?2 || 'A' AND message >= ?1
                 ORDER BY 1 DESC LIMIT ?3",
                params![since, domain, limit],
            ),
            Wanted::MessageId(message_id) => self.ids(
                "SELECT id FROM message WHERE message_id = ?2 AND id >= ?1 ORDER BY id DESC LIMIT ?3",
                params![since, message_id, limit],
            ),
            Wanted::Client(client) => self.ids(
                "SELECT id FROM message WHERE client = ?2 AND id >= ?1 ORDER BY id DESC LIMIT ?3",
                params![since, client, limit],
            ),
        }
    }

    /// Everything about one message, if anything is known.
    ///
    /// # Errors
    /// SQLite's.
    pub fn past(&self, id: QueueId) -> Result<Option<Past>, HistoryError> {
        let key = &id.as_bytes()[..];
        let found: Option<Option<Arrival>> = self
            .connection
            .prepare_cached("SELECT * FROM message WHERE id = ?1")?
            .query_row([key], arrival)
            .optional()?;
        let events: Vec<PastEvent> = self
            .connection
            .prepare_cached("SELECT id, at, kind, detail FROM event WHERE message = ?1 ORDER BY n")?
            .query_map([key], event)?
            .collect::<Result<_, _>>()?;
        let recipients: Vec<PastRecipient> = self
            .connection
            .prepare_cached("SELECT * FROM recipient WHERE message = ?1 ORDER BY number")?
            .query_map([key], recipient)?
            .collect::<Result<_, _>>()?;
        if found.is_none() && events.is_empty() {
            return Ok(None);
        }
        Ok(Some(Past {
            id,
            arrival: found.flatten(),
            recipients,
            events,
        }))
    }

    fn ids(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<QueueId>, HistoryError> {
        Ok(self
            .connection
            .prepare_cached(sql)?
            .query_map(params, queue_id)?
            .collect::<Result<_, _>>()?)
    }
}

fn queue_id(row: &Row<'_>) -> rusqlite::Result<QueueId> {
    Ok(QueueId::from_bytes(row.get(0)?))
}

fn event(row: &Row<'_>) -> rusqlite::Result<PastEvent> {
    let kind: String = row.get(2)?;
    Ok(PastEvent {
        id: queue_id(row)?,
        at: Timestamp::from_millis(row.get(1)?),
        detail: if kind == ACCEPTED { None } else { Some(row.get(3)?) },
    })
}

fn arrival(row: &Row<'_>) -> rusqlite::Result<Option<Arrival>> {
    let Some(client) = row.get("client")? else {
        return Ok(None);
    };
    let sender: Option<String> = row.get("sender")?;
    let key = row.get("sender_key")?;
    Ok(Some(Arrival {
        arrived: Timestamp::from_millis(row.get("arrived")?),
        sender: sender.map(|address| Named { address, key }),
        message_id: row.get("message_id")?,
        subject: row.get("subject")?,
        client,
        listener: row.get::<_, Option<String>>("listener")?.unwrap_or_default(),
        user: row.get("auth_user")?,
        tls: row.get("tls")?,
        size: row.get("size")?,
        plan: row.get("plan")?,
        recipients: Vec::new(),
    }))
}

fn recipient(row: &Row<'_>) -> rusqlite::Result<PastRecipient> {
    let at: Option<i64> = row.get("at")?;
    Ok(PastRecipient {
        number: row.get("number")?,
        address: row.get("address")?,
        // Of a fate that only a newer version knows, we know no better than that it is not done.
        fate: PastFate::from_number(row.get("fate")?).unwrap_or(PastFate::Waiting),
        outcomes: row.get("outcomes")?,
        status: row.get::<_, Option<String>>("status")?.unwrap_or_default(),
        text: row.get::<_, Option<String>>("text")?.unwrap_or_default(),
        at: at.map(Timestamp::from_millis),
    })
}
