//! What alerts need: how long mail waits, and what was told.

use super::record::{Reports, ToldAlert};
use super::{DbError, QueueReader, QueueWriter};
use crate::mail::Timestamp;
use rusqlite::{OptionalExtension, Row, params};
use std::time::Duration;

/// How long the oldest messages wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// The oldest that waits to be sent, what is under way included.
    pub waiting: Option<Oldest>,
    /// The oldest that waits for a person.
    pub held: Option<Oldest>,
}

/// The oldest message of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oldest {
    /// When it was accepted.
    pub arrived: Timestamp,
    /// The account that it goes out by; none if that is not decided yet.
    pub account: Option<String>,
    /// The mailbox that it goes out from.
    pub mailbox: Option<String>,
}

/// What is over is forgotten after this time, so that the table cannot grow for ever.
const FORGET: Duration = Duration::from_secs(7 * 86_400);

impl QueueWriter {
    /// Remembers that an alert was told, and queues the mail that tells it; answers that mail's octets.
    ///
    /// # Errors
    /// SQLite's.
    pub fn alerted(&mut self, alert: &ToldAlert, mail: &Reports) -> Result<u64, DbError> {
        self.connection
            .prepare_cached(
                "INSERT INTO alert (name, way, since, told, over, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (name, way) DO UPDATE SET
                     since = excluded.since, told = excluded.told, over = excluded.over, text = excluded.text",
            )?
            .execute(params![
                alert.name,
                alert.way,
                alert.since.millis(),
                alert.told.millis(),
                alert.over.map(Timestamp::millis),
                alert.text
            ])?;
        let newest = alert.over.unwrap_or(alert.told).millis();
        let forget = i64::try_from(FORGET.as_millis()).unwrap_or(i64::MAX);
        self.connection
            .prepare_cached("DELETE FROM alert WHERE over < ?1")?
            .execute([newest.saturating_sub(forget)])?;
        self.queue_reports(mail)
    }
}

impl QueueReader {
    /// The alerts that were told.
    ///
    /// # Errors
    /// SQLite's.
    pub fn alerts(&self) -> Result<Vec<ToldAlert>, DbError> {
        let row = |row: &Row<'_>| {
            Ok(ToldAlert {
                name: row.get(0)?,
                way: row.get(1)?,
                since: Timestamp::from_millis(row.get(2)?),
                told: Timestamp::from_millis(row.get(3)?),
                over: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
                text: row.get(5)?,
            })
        };
        Ok(self
            .connection
            .prepare_cached("SELECT name, way, since, told, over, text FROM alert ORDER BY name, way")?
            .query_map([], row)?
            .collect::<Result<_, _>>()?)
    }

    /// How long the oldest messages wait. The work is in proportion to the older messages that do not wait.
    ///
    /// # Errors
    /// SQLite's.
    pub fn ages(&self) -> Result<Ages, DbError> {
        let planned = self.oldest_of(
            "SELECT m.arrived, p.account, p.mailbox FROM part p JOIN message m ON m.id = p.message
             WHERE p.message = (SELECT message FROM part WHERE state = 0 ORDER BY message LIMIT 1) AND p.state = 0
             LIMIT 1",
        )?;
        let unplanned =
            self.oldest_of("SELECT arrived, NULL, NULL FROM message WHERE planned = 0 ORDER BY id LIMIT 1")?;
        let held = self.oldest_of(
            "SELECT m.arrived, p.account, p.mailbox FROM part p JOIN message m ON m.id = p.message
             WHERE p.message = (SELECT min(message) FROM part WHERE state = 2) AND p.state = 2 LIMIT 1",
        )?;
        let waiting = [planned, unplanned]
            .into_iter()
            .flatten()
            .min_by_key(|o| o.arrived);
        Ok(Ages { waiting, held })
    }

    fn oldest_of(&self, question: &str) -> Result<Option<Oldest>, DbError> {
        Ok(self
            .connection
            .prepare_cached(question)?
            .query_row([], |row| {
                Ok(Oldest {
                    arrived: Timestamp::from_millis(row.get(0)?),
                    account: row.get(1)?,
                    mailbox: row.get(2)?,
                })
            })
            .optional()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::record::{Message, Origin, PartId, Plan, PlannedPart, Stored};
    use crate::mail::{BodyType, Envelope, Peer, QueueId, ReversePath};
    use bytes::Bytes;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn queue() -> (tempfile::TempDir, QueueWriter, QueueReader) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.db");
        let db = QueueWriter::open(&path, [1; 16]).unwrap();
        let reader = QueueReader::open(&path).unwrap();
        (dir, db, reader)
    }

    fn message(db: &mut QueueWriter, arrived: Timestamp, mailbox: Option<&str>) -> PartId {
        let recipient: crate::mail::Address = "a@x.example".parse().unwrap();
        let message = Message {
            id: QueueId::new(arrived),
            arrived,
            envelope: Envelope::new(ReversePath::Null, [recipient], BodyType::SevenBit).unwrap(),
            origin: Origin {
                client: Peer::Local,
                greeting: String::new(),
                esmtp: false,
                listener: "local".to_owned(),
                tls: false,
                user: None,
            },
            size: 4,
            checksum: 0,
            report: false,
        };
        db.insert(&message, &Stored::Inline(Bytes::from_static(b"text")))
            .unwrap();
        if let Some(mailbox) = mailbox {
            let part = PlannedPart {
                account: "office".to_owned(),
                mailbox: mailbox.parse().unwrap(),
                changes: "{}".to_owned(),
                recipients: vec![0],
            };
            db.plan(message.id, &Plan::new(vec![part], arrived)).unwrap();
        }
        PartId {
            message: message.id,
            number: 0,
        }
    }

    #[test]
    fn the_oldest_message_of_each_kind_is_found() {
        let (_dir, mut db, reader) = queue();
        assert_eq!(reader.ages().unwrap(), Ages::default());
        let minute = |n: u64| NOW.plus(Duration::from_secs(60 * n));
        let first = message(&mut db, minute(0), Some("one@x.example"));
        let second = message(&mut db, minute(1), Some("two@x.example"));
        message(&mut db, minute(2), None);
        let of = |minutes, mailbox: Option<&str>| {
            Some(Oldest {
                arrived: minute(minutes),
                account: mailbox.map(|_| "office".to_owned()),
                mailbox: mailbox.map(str::to_owned),
            })
        };
        assert_eq!(reader.ages().unwrap().waiting, of(0, Some("one@x.example")));
        db.hold(first).unwrap();
        let ages = reader.ages().unwrap();
        assert_eq!(ages.held, of(0, Some("one@x.example")));
        assert_eq!(ages.waiting, of(1, Some("two@x.example")));
        db.hold(second).unwrap();
        let ages = reader.ages().unwrap();
        assert_eq!(
            (ages.held, ages.waiting),
            (of(0, Some("one@x.example")), of(2, None))
        );
    }

    #[test]
    fn what_was_told_is_kept_each_way_by_itself_and_forgotten_after_it_is_over() {
        let (_dir, mut db, reader) = queue();
        let mut webhook = ToldAlert {
            name: "account broken: office".to_owned(),
            way: "webhook".to_owned(),
            since: NOW,
            told: NOW,
            over: None,
            text: "expired".to_owned(),
        };
        let command = ToldAlert {
            way: "command".to_owned(),
            ..webhook.clone()
        };
        for told in [&webhook, &command, &command] {
            db.alerted(told, &Reports::default()).unwrap();
        }
        assert_eq!(reader.alerts().unwrap(), [command.clone(), webhook.clone()]);
        webhook.over = Some(NOW.plus(Duration::from_secs(60)));
        db.alerted(&webhook, &Reports::default()).unwrap();
        assert_eq!(reader.alerts().unwrap(), [command.clone(), webhook]);
        // What lasts is never forgotten.
        let later = ToldAlert {
            name: "no room for mail".to_owned(),
            told: NOW.plus(FORGET * 2),
            ..command.clone()
        };
        db.alerted(&later, &Reports::default()).unwrap();
        assert_eq!(reader.alerts().unwrap(), [command, later]);
    }
}
