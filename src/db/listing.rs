//! What people and their programs ask of the queue: which messages there are, how one stands, how many of each kind.
//!
//! Nothing here may keep a queue of a million messages busy: a search walks one table in the order of the ids, from a
//! cursor on, and ends when its page is full or whoever asked has no more patience. Which table that is depends on what
//! is rarest: parts that are held, failed or uncertain have indexes of their own.

use super::DbError;
use super::LaneCounts;
use super::filter::{Filter, State};
use super::reading::QueueReader;
use super::record::Fate;
use super::rows::queue_id;
use crate::mail::QueueId;
use crate::mail::Timestamp;
use rusqlite::{OptionalExtension, Row, params, params_from_iter};
use std::collections::BinaryHeap;
use std::path::Path;

/// What is searched for.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Which messages.
    pub filter: Filter,
    /// Only those behind this one, in the order of their ids, which is that of their arrival.
    pub after: Option<QueueId>,
    /// At most so many.
    pub limit: usize,
}

/// What a search has found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The messages, oldest first.
    pub ids: Vec<QueueId>,
    /// Where to go on, if there may be more.
    pub next: Option<QueueId>,
    /// How many rows were looked at.
    pub looked_at: u64,
}

/// A message as a line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: QueueId,
    /// When it was accepted.
    pub arrived: Timestamp,
    /// Octets of its body.
    pub size: u64,
    /// The reverse-path without brackets; none is `<>`.
    pub sender: Option<String>,
    /// Who it still is for, or could not be sent to; at most [`SHOWN`].
    pub open: Vec<RecipientState>,
    /// How many of these there are in all.
    pub open_count: u64,
    /// How many recipients its envelope has.
    pub recipients: u64,
    /// Its parts. None before it is planned.
    pub parts: Vec<PartState>,
}

/// A recipient, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientState {
    /// The address.
    pub address: String,
    /// What became of it.
    pub fate: Fate,
    /// Which part it belongs to, once there is a plan.
    pub part: Option<u32>,
    /// The enhanced status code of the last attempt.
    pub status: Option<String>,
    /// What the last attempt came to, in words.
    pub cause: Option<String>,
}

/// A part of a message, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartState {
    /// Its number in the message, from 0.
    pub number: u32,
    /// The account it goes out by.
    pub account: String,
    /// The mailbox that sends.
    pub mailbox: String,
    /// How it stands; `None` once all its recipients have it. Never [`State::Uncertain`], which is `uncertain`.
    pub state: Option<State>,
    /// When it is tried next, if nothing else is in the way.
    pub due: Timestamp,
    /// When the attempt under way began.
    pub began: Option<Timestamp>,
    /// How often it was tried.
    pub attempts: u32,
    /// How many of these attempts had an outcome that nobody heard.
    pub uncertain: u32,
}

/// How much there is of each kind, in deliveries (parts): a message goes out in one delivery, or in a few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// All messages.
    pub messages: u64,
    /// Octets of their bodies.
    pub octets: u64,
    /// Messages that no delivery was planned for yet.
    pub unplanned: u64,
    /// Deliveries by account and mailbox.
    pub lanes: Vec<LaneCounts>,
    /// Deliveries that are being tried.
    pub sending: u64,
    /// Deliveries of which nobody knows whether an earlier attempt went through.
    pub uncertain: u64,
    /// When the oldest message arrived that waits, as far as that was found out in time.
    pub oldest_waiting: Option<Timestamp>,
    /// Which accounts an administrator has paused, and since when; the empty name stands for all.
    pub pauses: Vec<(String, Timestamp)>,
}

/// Recipients in an [`Entry`] at most.
pub const SHOWN: usize = 10;

/// After so many rows a search asks whether it may go on.
const STRIDE: u64 = 1024;

impl QueueReader {
    /// Searches until the page is full, nothing is left, or `go_on` says no; it is asked now and then, and the search
    /// makes some headway even if it says no at once.
    ///
    /// # Errors
    /// SQLite's.
    pub fn search(&self, search: &Search, mut go_on: impl FnMut() -> bool) -> Result<Found, DbError> {
        let filter = &search.filter;
        let (low, high) = filter.ids(search.after);
        let mut walk = Walk {
            reader: self,
            filter,
            found: Found::default(),
            last: None,
        };
        let rare = match filter.state {
            Some(State::Held) => Some(HELD),
            Some(State::Failed) => Some(FAILED),
            Some(State::Uncertain) => Some(UNCERTAIN),
            Some(State::Sending) => Some(SENDING),
            Some(State::Waiting) | None => None,
        };
        if filter.state == Some(State::Waiting)
            && (&filter.sender, &filter.recipient) == (&None, &None)
            && let Some(found) = self.waiting(search, (low, high), &mut go_on)?
        {
            return Ok(found);
        }
        let (sql, has) = match (rare, &filter.recipient, &filter.account) {
            (Some(sql), ..) => (sql, Has::Nothing),
            (None, Some(_), _) => (RECIPIENTS, Has::Recipient),
            (None, None, Some(_)) => (PARTS, Has::Account),
            (None, None, None) => (MESSAGES, Has::Sender),
        };
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![&low.as_bytes()[..], &high.as_bytes()[..]])?;
        let mut tired = false;
        while let Some(row) = rows.next()? {
            let id = bytes(row, 0)?;
            // Only between two messages: the cursor says that all of a message was looked at.
            if walk.last != Some(id) && (tired || walk.found.ids.len() >= search.limit) {
                walk.found.next = walk.last.map(QueueId::from_bytes);
                break;
            }
            walk.look(id, row, has)?;
            tired = tired || (walk.found.looked_at.is_multiple_of(STRIDE) && !go_on());
        }
        Ok(walk.found)
    }

    /// The waiting messages with the lowest ids. Walks the whole index of what is due, which is not in their order, but
    /// dense. `None` if there is no patience for that.
    fn waiting(
        &self,
        search: &Search,
        (low, high): (QueueId, QueueId),
        go_on: &mut impl FnMut() -> bool,
    ) -> Result<Option<Found>, DbError> {
        let account = search.filter.account.as_deref();
        let mut lowest: BinaryHeap<[u8; 16]> = BinaryHeap::new();
        let mut looked_at = 0;
        let mut statement = self.connection.prepare_cached(match account {
            Some(_) => WAITING_OF_ACCOUNT,
            None => WAITING,
        })?;
        let mut rows = statement.query(params_from_iter(account))?;
        while let Some(row) = rows.next()? {
            let id = bytes(row, 0)?;
            looked_at += 1;
            let inside = id > *low.as_bytes() && id < *high.as_bytes();
            let better = lowest.len() <= search.limit || lowest.peek().is_some_and(|worst| id < *worst);
            // The same message may be there with several parts.
            if inside && better && !(lowest.len() < 64 && lowest.iter().any(|known| *known == id)) {
                lowest.push(id);
                // One more than the page holds, so that it is known whether there is more.
                if lowest.len() > search.limit + 1 {
                    lowest.pop();
                }
            }
            if looked_at % STRIDE == 0 && !go_on() {
                return Ok(None);
            }
        }
        let mut ids = lowest.into_vec();
        if account.is_none() {
            let mut unplanned = self.connection.prepare_cached(UNPLANNED)?;
            let mut rows = unplanned.query(params![
                &low.as_bytes()[..],
                &high.as_bytes()[..],
                search.limit + 1
            ])?;
            while let Some(row) = rows.next()? {
                ids.push(bytes(row, 0)?);
                looked_at += 1;
            }
        }
        ids.sort_unstable();
        ids.dedup();
        let more = ids.len() > search.limit;
        ids.truncate(search.limit);
        let ids: Vec<QueueId> = ids.into_iter().map(QueueId::from_bytes).collect();
        Ok(Some(Found {
            next: ids.last().copied().filter(|_| more),
            ids,
            looked_at,
        }))
    }

    /// A message as a line of a list; `None` if it has gone meanwhile.
    ///
    /// # Errors
    /// SQLite's.
    pub fn entry(&self, id: QueueId) -> Result<Option<Entry>, DbError> {
        let key = &id.as_bytes()[..];
        let facts: Option<(i64, u64, Option<String>)> = self
            .connection
            .prepare_cached("SELECT arrived, size, reverse_path FROM message WHERE id = ?1")?
            .query_row([key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((arrived, size, sender)) = facts else {
            return Ok(None);
        };
        let (recipients, open_count) = self
            .connection
            .prepare_cached(
                "SELECT count(*), count(*) FILTER (WHERE fate <> 1) FROM recipient WHERE message = ?1",
            )?
            .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Some(Entry {
            id,
            arrived: Timestamp::from_millis(arrived),
            size,
            sender,
            open: self.recipient_states(id, "AND fate <> 1", SHOWN)?,
            open_count,
            recipients,
            parts: self.part_states(id)?,
        }))
    }

    /// All recipients of a message, in the order of its envelope.
    ///
    /// # Errors
    /// SQLite's.
    pub fn all_recipients(&self, id: QueueId) -> Result<Vec<RecipientState>, DbError> {
        self.recipient_states(id, "", usize::MAX)
    }

    fn recipient_states(&self, id: QueueId, and: &str, limit: usize) -> Result<Vec<RecipientState>, DbError> {
        let sql = format!(
            "SELECT address, fate, part, status, cause FROM recipient WHERE message = ?1 {and}
             ORDER BY number LIMIT ?2"
        );
        let state = |row: &Row<'_>| {
            Ok(RecipientState {
                address: row.get(0)?,
                fate: match row.get(1)? {
                    1u8 => Fate::Relayed,
                    2 => Fate::Failed,
                    _ => Fate::Waiting,
                },
                part: row.get(2)?,
                status: row.get(3)?,
                cause: row.get(4)?,
            })
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        Ok(self
            .connection
            .prepare_cached(&sql)?
            .query_map(params![&id.as_bytes()[..], limit], state)?
            .collect::<Result<_, _>>()?)
    }

    fn part_states(&self, id: QueueId) -> Result<Vec<PartState>, DbError> {
        let part = |row: &Row<'_>| {
            let began: Option<i64> = row.get("marker")?;
            let state: u8 = row.get("state")?;
            Ok(PartState {
                number: row.get("number")?,
                account: row.get("account")?,
                mailbox: row.get("mailbox")?,
                state: match (state, began) {
                    (0, Some(_)) => Some(State::Sending),
                    (0, None) => Some(State::Waiting),
                    (2, _) => Some(State::Held),
                    (3, _) => Some(State::Failed),
                    _ => None,
                },
                due: Timestamp::from_millis(row.get("due")?),
                began: began.map(Timestamp::from_millis),
                attempts: row.get("attempts")?,
                uncertain: row.get("uncertain")?,
            })
        };
        Ok(self
            .connection
            .prepare_cached(
                "SELECT number, account, mailbox, state, marker, due, attempts, uncertain FROM part
                 WHERE message = ?1 ORDER BY number",
            )?
            .query_map([&id.as_bytes()[..]], part)?
            .collect::<Result<_, _>>()?)
    }

    /// The messages whose ids are in this range, at most `limit`.
    ///
    /// # Errors
    /// SQLite's.
    pub fn between(&self, (low, high): (QueueId, QueueId), limit: usize) -> Result<Vec<QueueId>, DbError> {
        Ok(self
            .connection
            .prepare_cached("SELECT id FROM message WHERE id >= ?1 AND id <= ?2 ORDER BY id LIMIT ?3")?
            .query_map(params![&low.as_bytes()[..], &high.as_bytes()[..], limit], |row| {
                queue_id(row, "id")
            })?
            .collect::<Result<_, _>>()?)
    }

    /// Writes a copy of the whole database, as it stands at one moment, to a new file. Others may write meanwhile.
    ///
    /// # Errors
    /// SQLite's.
    pub fn copy_to(&self, path: &Path) -> Result<(), DbError> {
        let path = path.to_string_lossy();
        self.connection.pragma_update(None, "query_only", false)?;
        let copied = self.connection.execute("VACUUM INTO ?1", [path]);
        self.connection.pragma_update(None, "query_only", true)?;
        Ok(copied.map(drop)?)
    }

    /// Messages behind `after` whose bodies are files, at most `limit`, by their ids.
    ///
    /// # Errors
    /// SQLite's.
    pub fn with_body_files(&self, after: QueueId, limit: usize) -> Result<Vec<QueueId>, DbError> {
        Ok(self
            .connection
            .prepare_cached("SELECT id FROM message WHERE in_file = 1 AND id > ?1 ORDER BY id LIMIT ?2")?
            .query_map(params![&after.as_bytes()[..], limit], |row| queue_id(row, "id"))?
            .collect::<Result<_, _>>()?)
    }

    /// How much there is of each kind.
    ///
    /// # Errors
    /// SQLite's.
    pub fn overview(&self, go_on: impl FnMut() -> bool) -> Result<Overview, DbError> {
        let (octets, messages) = self.totals()?;
        let count = |sql: &str| -> Result<u64, DbError> {
            Ok(self
                .connection
                .prepare_cached(sql)?
                .query_row([], |row| row.get(0))?)
        };
        let oldest = Search {
            filter: Filter {
                state: Some(State::Waiting),
                ..Filter::default()
            },
            after: None,
            limit: 1,
        };
        let oldest = self.search(&oldest, go_on)?;
        Ok(Overview {
            messages,
            octets,
            unplanned: count("SELECT count(*) FROM message WHERE planned = 0")?,
            lanes: self.lanes()?,
            sending: count("SELECT count(*) FROM part WHERE marker IS NOT NULL")?,
            uncertain: count(
                "SELECT count(*) FROM part INDEXED BY part_uncertain
                 WHERE uncertain > 0 AND state IN (0, 2) AND marker IS NULL",
            )?,
            oldest_waiting: oldest.ids.first().map(QueueId::arrived),
            pauses: self.pauses()?,
        })
    }

    /// True if a part of the message, or the message before it is planned, is what state and account ask for.
    fn has_part(&self, id: QueueId, state: Option<State>, account: Option<&str>) -> Result<bool, DbError> {
        let parts = self.part_states(id)?;
        if parts.is_empty() {
            return Ok(account.is_none() && matches!(state, None | Some(State::Waiting)));
        }
        Ok(parts.iter().any(|part| {
            account.is_none_or(|account| account == part.account)
                && state.is_none_or(|state| match state {
                    State::Uncertain => part.is_uncertain(),
                    state => part.state == Some(state),
                })
        }))
    }
}

impl PartState {
    /// True if nobody knows whether an earlier attempt went through, and it is not over.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        self.uncertain > 0 && matches!(self.state, Some(State::Waiting | State::Held))
    }
}

const MESSAGES: &str = "SELECT id, reverse_path FROM message WHERE id > ?1 AND id < ?2 ORDER BY id";
const RECIPIENTS: &str =
    "SELECT message, address FROM recipient WHERE message > ?1 AND message < ?2 ORDER BY message, number";
const PARTS: &str =
    "SELECT message, account FROM part WHERE message > ?1 AND message < ?2 ORDER BY message, number";
const HELD: &str = "SELECT message FROM part INDEXED BY part_held
     WHERE state = 2 AND message > ?1 AND message < ?2 ORDER BY message";
const FAILED: &str = "SELECT message FROM part INDEXED BY part_failed
     WHERE state = 3 AND message > ?1 AND message < ?2 ORDER BY message";
const UNCERTAIN: &str = "SELECT message FROM part INDEXED BY part_uncertain
     WHERE uncertain > 0 AND message > ?1 AND message < ?2 ORDER BY message";
const SENDING: &str = "SELECT message FROM part INDEXED BY part_marked
     WHERE marker IS NOT NULL AND message > ?1 AND message < ?2 ORDER BY message, number";
const WAITING: &str = "SELECT message FROM part INDEXED BY part_due WHERE state = 0 AND marker IS NULL";
const WAITING_OF_ACCOUNT: &str = "SELECT message FROM part INDEXED BY part_due
     WHERE state = 0 AND marker IS NULL AND account = ?1";
const UNPLANNED: &str =
    "SELECT id FROM message WHERE planned = 0 AND id > ?1 AND id < ?2 ORDER BY id LIMIT ?3";
/// What the second column of a walk is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Has {
    Nothing,
    Sender,
    Recipient,
    Account,
}

struct Walk<'a> {
    reader: &'a QueueReader,
    filter: &'a Filter,
    found: Found,
    last: Option<[u8; 16]>,
}

impl Walk<'_> {
    fn look(&mut self, id: [u8; 16], row: &Row<'_>, has: Has) -> Result<(), DbError> {
        self.found.looked_at += 1;
        self.last = Some(id);
        let text = || {
            Ok::<_, DbError>(
                row.get_ref(1)?
                    .as_str_or_null()
                    .unwrap_or_default()
                    .unwrap_or_default(),
            )
        };
        let Filter {
            state,
            account,
            sender,
            recipient,
            ..
        } = self.filter;
        // The cheapest first: what the row itself tells.
        let fits = match has {
            Has::Nothing => true,
            Has::Sender => sender
                .as_ref()
                .is_none_or(|pattern| text().is_ok_and(|t| pattern.matches(t))),
            Has::Recipient => recipient
                .as_ref()
                .is_none_or(|pattern| text().is_ok_and(|t| pattern.matches(t))),
            Has::Account => account
                .as_ref()
                .is_none_or(|account| text().is_ok_and(|t| account == t)),
        };
        let known = || self.found.ids.last().is_some_and(|last| *last.as_bytes() == id);
        if !fits || known() {
            return Ok(());
        }
        let id = QueueId::from_bytes(id);
        if (state.is_some() || account.is_some()) && !self.reader.has_part(id, *state, account.as_deref())? {
            return Ok(());
        }
        if let (Some(pattern), true) = (sender, has != Has::Sender) {
            let Some(entry) = self.reader.sender(id)? else {
                return Ok(());
            };
            if !pattern.matches(&entry) {
                return Ok(());
            }
        }
        if let (Some(pattern), true) = (recipient, has != Has::Recipient) {
            let all = self.reader.all_recipients(id)?;
            if !all.iter().any(|recipient| pattern.matches(&recipient.address)) {
                return Ok(());
            }
        }
        self.found.ids.push(id);
        Ok(())
    }
}

impl QueueReader {
    /// The reverse-path of a message, empty for `<>`; `None` if the message is gone.
    fn sender(&self, id: QueueId) -> Result<Option<String>, DbError> {
        let found: Option<Option<String>> = self
            .connection
            .prepare_cached("SELECT reverse_path FROM message WHERE id = ?1")?
            .query_row([&id.as_bytes()[..]], |row| row.get(0))
            .optional()?;
        Ok(found.map(Option::unwrap_or_default))
    }
}

/// The 16 bytes of an id, without copying them to the heap.
fn bytes(row: &Row<'_>, column: usize) -> Result<[u8; 16], DbError> {
    let blob = row.get_ref(column)?.as_blob().unwrap_or_default();
    blob.try_into().map_err(|_| DbError::Row {
        id: "(unknown)".to_owned(),
        what: "its id has not 16 bytes".to_owned(),
    })
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
