//! What the history has not been told yet. The transaction that makes something true puts it here; the history takes
//! it by its id, and it goes only once the history has it for good.

use super::{DbError, QueueReader, QueueWriter};
use crate::mail::QueueId;

/// Events that wait for the history at most: about 100 MB.
const MAX_OUTBOX: i64 = if cfg!(test) { 100 } else { 200_000 };

impl QueueWriter {
    /// Puts events into the outbox. If nobody takes them from there, the oldest make room: a history that cannot
    /// be written must not fill the disk.
    ///
    /// # Errors
    /// SQLite's.
    pub fn put_in_outbox(&mut self, events: &[String]) -> Result<(), DbError> {
        for event in events {
            self.connection
                .prepare_cached("INSERT INTO outbox (event) VALUES (?1)")?
                .execute([event])?;
            let newest = self.connection.last_insert_rowid();
            self.connection
                .prepare_cached("DELETE FROM outbox WHERE id <= ?1")?
                .execute([newest - MAX_OUTBOX])?;
        }
        Ok(())
    }

    /// Removes from the outbox what the history has for good: everything up to and with `last`.
    ///
    /// # Errors
    /// SQLite's.
    pub fn forget(&mut self, last: i64) -> Result<(), DbError> {
        self.connection
            .prepare_cached("DELETE FROM outbox WHERE id <= ?1")?
            .execute([last])?;
        Ok(())
    }
}

impl QueueReader {
    /// The oldest events that the history has not been told, by their ids, at most `limit`.
    ///
    /// # Errors
    /// SQLite's.
    pub fn outbox(&self, limit: usize) -> Result<Vec<(i64, String)>, DbError> {
        Ok(self
            .connection
            .prepare_cached("SELECT id, event FROM outbox ORDER BY id LIMIT ?1")?
            .query_map([limit], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?)
    }

    /// The newest messages whose parts are not decided, so that no event tells of them yet, at most `limit`.
    ///
    /// # Errors
    /// SQLite's.
    pub fn untold(&self, limit: usize) -> Result<Vec<QueueId>, DbError> {
        Ok(self
            .connection
            .prepare_cached("SELECT id FROM message WHERE planned = 0 ORDER BY id DESC LIMIT ?1")?
            .query_map([limit], |row| Ok(QueueId::from_bytes(row.get(0)?)))?
            .collect::<Result<_, _>>()?)
    }

    /// Asks several questions of the queue as it was at one moment.
    ///
    /// # Errors
    /// SQLite's, and those of the questions.
    pub fn at_once<T>(&self, questions: impl FnOnce(&Self) -> Result<T, DbError>) -> Result<T, DbError> {
        let snapshot = self.connection.unchecked_transaction()?;
        let answers = questions(self);
        // It only read: nothing is undone by its end.
        drop(snapshot);
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(range: std::ops::Range<i64>) -> Vec<String> {
        range.map(|n| n.to_string()).collect()
    }

    #[test]
    fn events_are_taken_in_order_and_an_outbox_that_nobody_empties_keeps_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        let mut writer = QueueWriter::open(&path, [1; 16]).unwrap();
        let reader = QueueReader::open(&path).unwrap();
        let mut tell = |range| {
            writer.begin().unwrap();
            writer.put_in_outbox(&events(range)).unwrap();
            writer.commit().unwrap();
        };
        tell(0..10);
        let first = reader.outbox(3).unwrap();
        assert_eq!(
            first.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(),
            ["0", "1", "2"]
        );
        writer.begin().unwrap();
        writer.forget(first[2].0).unwrap();
        // An id is never used again, even when the outbox was empty in between.
        let last = reader.outbox(100).unwrap().last().unwrap().0;
        writer.forget(last).unwrap();
        writer.put_in_outbox(&events(10..200)).unwrap();
        writer.commit().unwrap();
        let kept = reader.outbox(1000).unwrap();
        assert_eq!(kept.len(), 100);
        assert!(kept[0].0 > last);
        assert_eq!((kept[0].1.as_str(), kept[99].1.as_str()), ("100", "199"));
    }
}
