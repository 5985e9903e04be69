//! Reports (RFC 3464): queued with what they are about, and remembered so that nobody is told too often.

use super::record::{Fate, NewReport, Occasion, PartId, Reports, Settlement, Stored, Told};
use super::{DbError, QueueReader, QueueWriter};
use crate::mail::Timestamp;
use rusqlite::{OptionalExtension, params};
use std::time::Duration;

/// What was held back and never said is forgotten after this time, so that the table cannot grow for ever.
const FORGET: Duration = Duration::from_secs(7 * 86_400);

impl QueueWriter {
    /// Queues reports about something else than the end of an attempt, unless that was done before; answers their
    /// octets, or nothing if it was.
    ///
    /// # Errors
    /// SQLite's.
    pub fn tell(&mut self, occasion: Occasion, reports: &Reports) -> Result<Option<u64>, DbError> {
        let first = match occasion {
            Occasion::Delay(message) => self
                .connection
                .prepare_cached("UPDATE message SET delay_told = 1 WHERE id = ?1 AND delay_told = 0")?
                .execute([&message.as_bytes()[..]])?,
            Occasion::HeldTooLong(PartId { message, number }) => self
                .connection
                .prepare_cached(
                    // What waited behind a broken account is held from now on, in the same transaction.
                    "UPDATE part SET hold_told = 1, state = iif(state = 0, 2, state)
                     WHERE message = ?1 AND number = ?2 AND hold_told = 0 AND marker IS NULL",
                )?
                .execute(params![&message.as_bytes()[..], number])?,
        };
        if first == 0 {
            return Ok(None);
        }
        self.queue_reports(reports).map(Some)
    }

    /// True if a recipient that ends with `settlement` is still waiting: it was not carried out before.
    pub(super) fn ends_something(&self, settlement: &Settlement) -> Result<bool, DbError> {
        let mut waits = self.connection.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM recipient WHERE message = ?1 AND number = ?2 AND fate = 0)",
        )?;
        let message = &settlement.part.message.as_bytes()[..];
        for update in settlement.recipients.iter().filter(|u| u.fate != Fate::Waiting) {
            if waits.query_row(params![message, update.recipient], |row| row.get(0))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds reports as planned messages that are due at once; answers their octets.
    pub(super) fn queue_reports(&mut self, reports: &Reports) -> Result<u64, DbError> {
        let mut octets = 0;
        for NewReport { message, body, plan } in &reports.new {
            self.insert(message, &Stored::Inline(body.clone()))?;
            self.plan(message.id, plan)?;
            octets += message.size;
        }
        for told in &reports.told {
            self.remember(told)?;
        }
        self.put_in_outbox(&reports.events)?;
        Ok(octets)
    }

    fn remember(&mut self, told: &Told) -> Result<(), DbError> {
        self.connection
            .prepare_cached(
                "INSERT INTO reported (recipient, cause, since, held_back) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (recipient, cause) DO UPDATE SET since = excluded.since, held_back = excluded.held_back",
            )?
            .execute(params![told.recipient, told.cause, told.since.millis(), told.held_back])?;
        let forget = i64::try_from(FORGET.as_millis()).unwrap_or(i64::MAX);
        self.connection
            .prepare_cached("DELETE FROM reported WHERE since < ?1")?
            .execute([told.since.millis().saturating_sub(forget)])?;
        Ok(())
    }
}

impl QueueReader {
    /// What `recipient` was told of `cause`, if anything.
    ///
    /// # Errors
    /// SQLite's.
    pub fn told(&self, recipient: &str, cause: &str) -> Result<Option<Told>, DbError> {
        Ok(self
            .connection
            .prepare_cached("SELECT since, held_back FROM reported WHERE recipient = ?1 AND cause = ?2")?
            .query_row([recipient, cause], |row| {
                Ok(Told {
                    recipient: recipient.to_owned(),
                    cause: cause.to_owned(),
                    since: Timestamp::from_millis(row.get(0)?),
                    held_back: row.get(1)?,
                })
            })
            .optional()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::record::{Message, Next, Origin, Plan, PlannedPart, Progress, RecipientUpdate};
    use crate::mail::{BodyType, Envelope, Peer, QueueId, ReversePath};
    use bytes::Bytes;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn message(to: &str, report: bool) -> Message {
        let recipient: crate::mail::Address = to.parse().unwrap();
        Message {
            id: QueueId::new(NOW),
            arrived: NOW,
            envelope: Envelope::new(ReversePath::Null, [recipient], BodyType::SevenBit).unwrap(),
            origin: Origin {
                client: Peer::Local,
                greeting: String::new(),
                esmtp: false,
                listener: "report".to_owned(),
                tls: false,
                user: None,
            },
            size: 4,
            checksum: 0,
            report,
        }
    }

    fn part() -> PlannedPart {
        PlannedPart {
            account: "office".to_owned(),
            mailbox: "scanner@x.example".parse().unwrap(),
            changes: "{}".to_owned(),
            recipients: vec![0],
        }
    }

    fn reports() -> Reports {
        Reports {
            new: vec![NewReport {
                message: message("a@x.example", true),
                body: Bytes::from_static(b"text"),
                plan: Plan::new(vec![part()], NOW),
            }],
            told: vec![Told {
                recipient: "a@x.example".to_owned(),
                cause: "busy".to_owned(),
                since: NOW,
                held_back: 3,
            }],
            events: vec!["reported".to_owned()],
        }
    }

    fn failure(part: PartId, reports: Reports) -> Settlement {
        Settlement {
            part,
            next: Next::Ended,
            progress: Progress::default(),
            recipients: vec![RecipientUpdate {
                recipient: 0,
                fate: Fate::Failed,
                status: "5.0.0".to_owned(),
                cause: "x".to_owned(),
            }],
            sent: None,
            reports,
            events: vec!["failed".to_owned()],
        }
    }

    /// A queue with one planned message, open for changes.
    fn queue() -> (tempfile::TempDir, QueueWriter, QueueReader, PartId) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.db");
        let mut db = QueueWriter::open(&path, [1; 16]).unwrap();
        let failing = message("b@y.example", false);
        db.insert(&failing, &Stored::Inline(Bytes::from_static(b"text")))
            .unwrap();
        db.plan(failing.id, &Plan::new(vec![part()], NOW)).unwrap();
        let reader = QueueReader::open(&path).unwrap();
        let id = PartId {
            message: failing.id,
            number: 0,
        };
        (dir, db, reader, id)
    }

    #[test]
    fn a_report_is_queued_once_however_often_its_settlement_is_repeated_and_sent_or_not() {
        let (_dir, mut db, reader, part) = queue();
        let reports = reports();
        let id = reports.new[0].message.id;
        let failure = failure(part, reports.clone());
        assert_eq!(db.settle(&failure).unwrap().1, 4);
        let queued = reader.message(id).unwrap().unwrap();
        assert_eq!(queued, reports.new[0].message);
        assert!(queued.report && reader.totals().unwrap().1 == 2);
        assert_eq!(
            reader.told("a@x.example", "busy").unwrap(),
            Some(reports.told[0].clone())
        );
        assert_eq!(reader.told("a@x.example", "other").unwrap(), None);
        let everything = |_: &crate::db::Lane| crate::db::Slots::Oldest { take: 9, skip: 0 };
        let agenda = reader.agenda(NOW, 9, everything).unwrap();
        assert_eq!(agenda.due[0].id.message, id);
        assert!(agenda.unplanned.is_empty(), "a report needs no planning");

        assert_eq!(db.settle(&failure).unwrap().1, 0, "while it is queued");
        db.remove(&[id]).unwrap();
        assert_eq!(db.settle(&failure).unwrap().1, 0, "when it has been sent");
        assert!(!reader.contains(id).unwrap());
        let outbox = reader.outbox(9).unwrap();
        let events: Vec<&str> = outbox.iter().map(|(_, event)| event.as_str()).collect();
        // The history tells a repeated event by its own id.
        assert_eq!(events, ["failed", "reported", "failed", "failed"]);
    }

    #[test]
    fn of_each_occasion_somebody_is_told_once() {
        for (n, occasion) in [Occasion::Delay as fn(QueueId) -> Occasion, |message| {
            Occasion::HeldTooLong(PartId { message, number: 0 })
        }]
        .into_iter()
        .enumerate()
        {
            let (_dir, mut db, _reader, part) = queue();
            assert_eq!(
                db.tell(occasion(part.message), &reports()).unwrap(),
                Some(4),
                "{n}"
            );
            assert_eq!(db.tell(occasion(part.message), &reports()).unwrap(), None, "{n}");
            let gone = QueueId::new(NOW);
            assert_eq!(db.tell(occasion(gone), &reports()).unwrap(), None, "{n}");
        }
    }

    #[test]
    fn what_was_told_is_brought_up_to_date_and_forgotten_in_the_end() {
        let (_dir, mut db, reader, _) = queue();
        let mut told = reports().told.remove(0);
        db.remember(&told).unwrap();
        told.held_back = 4;
        db.remember(&told).unwrap();
        assert_eq!(reader.told("a@x.example", "busy").unwrap(), Some(told.clone()));
        let later = Told {
            cause: "other".to_owned(),
            since: NOW.plus(FORGET).plus(Duration::from_millis(1)),
            ..told
        };
        db.remember(&later).unwrap();
        assert_eq!(reader.told("a@x.example", "busy").unwrap(), None);
    }
}
