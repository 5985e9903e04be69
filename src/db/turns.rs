//! Whose mail is next where several senders share a mailbox.
//!
//! First the devices take turns (who had logged in, or the client's address), then the reverse-paths of each: a
//! device with ten thousand messages, or with a reverse-path of its own for each, is one device. A sender's turn is its
//! oldest message. Found by jumping from one to the next in the index `part_turn`, so the length of the queue costs
//! nothing.

use super::DbError;
use super::Lane;
use super::reading::{Parts, QueueReader};
use super::record::{PartId, Turn};
use crate::mail::Timestamp;
use rusqlite::{OptionalExtension, params};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Whose turn it was last in a lane.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    device: Option<String>,
    /// The reverse-path that was served last of each device.
    senders: Arc<HashMap<String, String>>,
}

/// Due parts that are wanted in turn.
#[derive(Clone, Debug, Default)]
pub struct InTurn {
    /// At most so many.
    pub take: usize,
    /// Whose turn it was.
    pub turns: Turns,
    /// What is under way already, though its marker may not be written yet.
    pub busy: Arc<HashSet<PartId>>,
    /// Senders that may not send now, as the text of their [`Turn`].
    pub barred: Arc<HashSet<String>>,
}

/// Devices whose reverse-paths are remembered; with more, they begin from the front again.
const MAX_DEVICES: usize = 10_000;

/// Jumps in the index for one lane at most; then the oldest parts are taken, whoever they are from.
const JUMPS: usize = 256;

impl Turns {
    /// Says that a message of `turn` is on its way.
    pub fn served(&mut self, turn: &Turn) {
        self.device = Some(turn.device.clone());
        let senders = Arc::make_mut(&mut self.senders);
        if senders.len() >= MAX_DEVICES && !senders.contains_key(&turn.device) {
            senders.clear();
        }
        senders.insert(turn.device.clone(), turn.sender.clone());
    }
}

impl QueueReader {
    /// The oldest due part of each sender in turn, until there are enough.
    ///
    /// # Errors
    /// SQLite's.
    pub fn in_turn(&self, lane: &Lane, now: Timestamp, wanted: InTurn) -> Result<Parts, DbError> {
        let mut search = Search {
            reader: self,
            lane,
            now,
            jumps: 0,
            taken: HashSet::new(),
            wanted,
        };
        let mut parts = Parts::default();
        while search.taken.len() < search.wanted.take {
            let Some(id) = search.next()? else { break };
            search.taken.insert(id);
            let Parts { whole, damaged } = self.parts(
                "SELECT * FROM part WHERE message = ?1 AND number = ?2",
                params![&id.message.as_bytes()[..], id.number],
            )?;
            parts.whole.extend(whole);
            parts.damaged.extend(damaged);
        }
        Ok(parts)
    }
}

struct Search<'a> {
    reader: &'a QueueReader,
    lane: &'a Lane,
    now: Timestamp,
    jumps: usize,
    taken: HashSet<PartId>,
    wanted: InTurn,
}

impl Search<'_> {
    /// The part of whoever is next, of all devices once around.
    fn next(&mut self) -> Result<Option<PartId>, DbError> {
        let mut first = None;
        while self.jumps < JUMPS {
            let Some(device) = self.next_device()? else {
                return Ok(None);
            };
            if first.as_ref() == Some(&device) {
                return Ok(None);
            }
            if let Some((turn, id)) = self.of_device(&device)? {
                self.wanted.turns.served(&turn);
                return Ok(Some(id));
            }
            self.wanted.turns.device = Some(device.clone());
            first.get_or_insert(device);
        }
        self.oldest()
    }

    /// The device after the one whose turn it was, the first one after the last.
    fn next_device(&mut self) -> Result<Option<String>, DbError> {
        if let Some(last) = self.wanted.turns.device.clone()
            && let Some(device) = self.jump("AND device > ?3", "device", &[&last])?
        {
            return Ok(Some(device));
        }
        self.jump("", "device", &[])
    }

    /// The oldest due part of the next reverse-path of a device, of all of them once around.
    fn of_device(&mut self, device: &str) -> Result<Option<(Turn, PartId)>, DbError> {
        let mut last = self.wanted.turns.senders.get(device).cloned();
        let mut first = None;
        while self.jumps < JUMPS {
            let mut next = match &last {
                Some(last) => self.jump("AND device = ?3 AND sender > ?4", "sender", &[device, last])?,
                None => None,
            };
            if next.is_none() {
                next = self.jump("AND device = ?3", "sender", &[device])?;
            }
            let Some(sender) = next else { return Ok(None) };
            if first.as_ref() == Some(&sender) {
                return Ok(None);
            }
            let turn = Turn {
                device: device.to_owned(),
                sender: sender.clone(),
            };
            if let Some(id) = self.oldest_of(&turn)? {
                return Ok(Some((turn, id)));
            }
            first.get_or_insert_with(|| sender.clone());
            last = Some(sender);
        }
        Ok(None)
    }

    fn jump(&mut self, after: &str, column: &str, texts: &[&str]) -> Result<Option<String>, DbError> {
        self.jumps += 1;
        let mut statement = self.reader.connection.prepare_cached(&format!(
            "SELECT {column} FROM part INDEXED BY part_turn WHERE state = 0 AND marker IS NULL
             AND account = ?1 AND mailbox = ?2 {after} ORDER BY {column} LIMIT 1"
        ))?;
        let lane = [&self.lane.account[..], &self.lane.mailbox[..]];
        let all = lane.into_iter().chain(texts.iter().copied());
        Ok(statement
            .query_row(rusqlite::params_from_iter(all), |row| row.get(0))
            .optional()?)
    }

    fn oldest_of(&mut self, turn: &Turn) -> Result<Option<PartId>, DbError> {
        self.jumps += 1;
        if self.wanted.barred.contains(&turn.to_string()) {
            return Ok(None);
        }
        let mut statement = self.reader.connection.prepare_cached(
            "SELECT message, number FROM part INDEXED BY part_turn WHERE state = 0 AND marker IS NULL
             AND account = ?1 AND mailbox = ?2 AND device = ?3 AND sender = ?4 AND due <= ?5
             ORDER BY due, message, number",
        )?;
        let Lane { account, mailbox } = self.lane;
        let mut rows = statement.query(params![
            account,
            mailbox,
            turn.device,
            turn.sender,
            self.now.millis()
        ])?;
        while let Some(row) = rows.next()? {
            let id = super::rows::part_id(row)?;
            if !self.is_taken(id) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Where there are more senders without anything due than can be asked.
    fn oldest(&self) -> Result<Option<PartId>, DbError> {
        let mut statement = self.reader.connection.prepare_cached(
            "SELECT message, number FROM part INDEXED BY part_due
             WHERE state = 0 AND marker IS NULL AND account = ?1 AND mailbox = ?2 AND due <= ?3
             AND device || ' <' || sender || '>' NOT IN (SELECT value FROM json_each(?4))
             ORDER BY due, message, number",
        )?;
        let Lane { account, mailbox } = self.lane;
        let barred: Vec<&String> = self.wanted.barred.iter().collect();
        let barred = serde_json::json!(barred).to_string();
        let mut rows = statement.query(params![account, mailbox, self.now.millis(), barred])?;
        while let Some(row) = rows.next()? {
            let id = super::rows::part_id(row)?;
            if !self.is_taken(id) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    fn is_taken(&self, id: PartId) -> bool {
        self.taken.contains(&id) || self.wanted.busy.contains(&id)
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
