//! What the queue has to do, lane by lane, in work that is in proportion to what is asked for.

use super::record::{Part, PartId};
use super::turns::InTurn;
use super::{DbError, Parts, QueueReader};
use crate::mail::QueueId;
use crate::mail::Timestamp;
use rusqlite::params;

/// The mail of one mailbox through one account: what shares a pace and a gate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The account's name.
    pub account: String,
    /// The mailbox that sends, as it is stored.
    pub mailbox: String,
}

/// How many parts a lane has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneCounts {
    /// Which lane.
    pub lane: Lane,
    /// Still to be delivered, those under way included.
    pub waiting: u64,
    /// Waiting for a person.
    pub held: u64,
    /// Ended, with a recipient who did not get it.
    pub failed: u64,
}

/// What the queue has to do now, and when to look again.
#[derive(Clone, Debug, Default)]
pub struct Agenda {
    /// Messages without a plan, oldest first.
    pub unplanned: Vec<QueueId>,
    /// Parts whose time has come, oldest first within a lane.
    pub due: Vec<Part>,
    /// When the next part comes due that is not due yet.
    pub next_due: Option<Timestamp>,
    /// Parts whose rows cannot be read, and why. They must be held, or they are met again every time.
    pub damaged: Vec<(PartId, String)>,
}

/// What one lane has to do now, and when to look at it again.
#[derive(Clone, Debug)]
pub struct LaneAgenda {
    /// Which lane.
    pub lane: Lane,
    /// Parts whose time has come, oldest first, as many as were asked for.
    pub due: Vec<Part>,
    /// True if there may be more of them.
    pub more: bool,
    /// When the next part comes due that is not due yet.
    pub next_due: Option<Timestamp>,
    /// Parts whose rows cannot be read, and why.
    pub damaged: Vec<(PartId, String)>,
}

/// Which due parts of a lane are wanted.
#[derive(Clone, Debug, Default)]
pub enum Slots {
    /// None.
    #[default]
    None,
    /// The oldest.
    Oldest {
        /// At most so many.
        take: usize,
        /// After leaving out so many, if there are more.
        skip: usize,
    },
    /// The oldest of each sender in turn.
    InTurn(InTurn),
}

const UNPLANNED: &str = "SELECT id FROM message WHERE planned = 0 ORDER BY id LIMIT ?1";

const LANES: &str = "SELECT account, mailbox FROM lane WHERE waiting > 0 ORDER BY account, mailbox";

const OLDEST: &str = "SELECT * FROM part WHERE state = 0 AND marker IS NULL
    AND account = ?1 AND mailbox = ?2 AND due <= ?3 ORDER BY due, message, number LIMIT ?4 OFFSET ?5";

/// How many are due, but no more than a probe goes through in turn.
const COUNT_DUE: &str = "SELECT count(*) FROM (SELECT 1 FROM part WHERE state = 0 AND marker IS NULL
    AND account = ?1 AND mailbox = ?2 AND due <= ?3 LIMIT 64)";

const NEXT_DUE: &str = "SELECT min(due) FROM part WHERE state = 0 AND marker IS NULL
    AND account = ?1 AND mailbox = ?2 AND due > ?3";

impl QueueReader {
    /// What is to be done at `now` in the whole queue: at most `unplanned` messages to plan, and for each lane as many
    /// due parts as `slots` allows it. Who looks often asks for some lanes only: see [`look`](Self::look).
    ///
    /// # Errors
    /// SQLite's. Rows that cannot be read are named in the agenda and stop nobody else.
    pub fn agenda(
        &self,
        now: Timestamp,
        unplanned: usize,
        mut slots: impl FnMut(&Lane) -> Slots,
    ) -> Result<Agenda, DbError> {
        let wanted = self.waiting_lanes()?.into_iter().map(|lane| {
            let slots = slots(&lane);
            (lane, slots)
        });
        let wanted: Vec<(Lane, Slots)> = wanted.collect();
        let (unplanned, lanes) = self.look(now, unplanned, wanted)?;
        let mut agenda = Agenda {
            unplanned,
            ..Agenda::default()
        };
        for lane in lanes {
            agenda.due.extend(lane.due);
            agenda.damaged.extend(lane.damaged);
            agenda.next_due = [agenda.next_due, lane.next_due].into_iter().flatten().min();
        }
        Ok(agenda)
    }

    /// At most `unplanned` messages to plan, oldest first, and what is to be done at `now` in the lanes of `wanted`.
    /// The work is in proportion to what is asked for, not to the queue.
    ///
    /// # Errors
    /// SQLite's. Rows that cannot be read are named and stop nobody else.
    pub fn look(
        &self,
        now: Timestamp,
        unplanned: usize,
        wanted: Vec<(Lane, Slots)>,
    ) -> Result<(Vec<QueueId>, Vec<LaneAgenda>), DbError> {
        let ids = if unplanned > 0 {
            self.ids(UNPLANNED, unplanned)?
        } else {
            Vec::new()
        };
        let mut lanes = Vec::with_capacity(wanted.len());
        for (lane, slots) in wanted {
            let (take, Parts { whole, damaged }) = match slots {
                Slots::None => (0, Parts::default()),
                Slots::Oldest { take, skip } => (take, self.oldest(&lane, now, take, skip)?),
                Slots::InTurn(wanted) => (wanted.take, self.in_turn(&lane, now, wanted)?),
            };
            lanes.push(LaneAgenda {
                next_due: self.next_due_in(&lane, now)?,
                more: take > 0 && whole.len() + damaged.len() >= take,
                due: whole,
                damaged,
                lane,
            });
        }
        Ok((ids, lanes))
    }

    /// The lanes that have parts waiting.
    ///
    /// # Errors
    /// SQLite's.
    pub fn waiting_lanes(&self) -> Result<Vec<Lane>, DbError> {
        let mut statement = self.connection.prepare_cached(LANES)?;
        let lanes = statement.query_map([], |row| {
            Ok(Lane {
                account: row.get(0)?,
                mailbox: row.get(1)?,
            })
        })?;
        Ok(lanes.collect::<Result<_, _>>()?)
    }

    /// Every lane that has parts, with how many there are in each state.
    ///
    /// # Errors
    /// SQLite's.
    pub fn lanes(&self) -> Result<Vec<LaneCounts>, DbError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT account, mailbox, waiting, held, failed FROM lane ORDER BY account, mailbox",
        )?;
        let counts = statement.query_map([], |row| {
            Ok(LaneCounts {
                lane: Lane {
                    account: row.get(0)?,
                    mailbox: row.get(1)?,
                },
                waiting: row.get(2)?,
                held: row.get(3)?,
                failed: row.get(4)?,
            })
        })?;
        Ok(counts.collect::<Result<_, _>>()?)
    }

    fn oldest(&self, lane: &Lane, now: Timestamp, take: usize, skip: usize) -> Result<Parts, DbError> {
        let mut from = 0;
        if skip > 0 {
            // A probe goes through the messages in turn; how many there are decides where it starts over.
            let waiting: usize = self
                .connection
                .prepare_cached(COUNT_DUE)?
                .query_row(params![lane.account, lane.mailbox, now.millis()], |row| {
                    row.get(0)
                })?;
            from = skip.checked_rem(waiting).unwrap_or(0);
        }
        self.parts(
            OLDEST,
            params![lane.account, lane.mailbox, now.millis(), take, from],
        )
    }

    fn next_due_in(&self, lane: &Lane, now: Timestamp) -> Result<Option<Timestamp>, DbError> {
        let millis: Option<i64> = self
            .connection
            .prepare_cached(NEXT_DUE)?
            .query_row(params![lane.account, lane.mailbox, now.millis()], |row| {
                row.get(0)
            })?;
        Ok(millis.map(Timestamp::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::QueueWriter;
    use rusqlite::Connection;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    /// A queue of `lanes` mailboxes with `parts` due parts each.
    fn queue(lanes: usize, parts: usize) -> (tempfile::TempDir, QueueReader) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        drop(QueueWriter::open(&path, [1; 16]).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(&format!(
                "WITH RECURSIVE lane (l) AS (SELECT 0 UNION ALL SELECT l + 1 FROM lane WHERE l + 1 < {lanes}),
                                part (p) AS (SELECT 0 UNION ALL SELECT p + 1 FROM part WHERE p + 1 < {parts})
                 INSERT INTO part (message, number, account, mailbox, changes, due)
                 SELECT unhex(printf('%032x', l * {parts} + p)), 0, 'office', printf('m%05d@x.example', l), '', p
                 FROM lane, part"
            ))
            .unwrap();
        (directory, QueueReader::open(&path).unwrap())
    }

    fn wanted(mailbox: usize, skip: usize) -> (Lane, Slots) {
        let lane = Lane {
            account: "office".to_owned(),
            mailbox: format!("m{mailbox:05}@x.example"),
        };
        (lane, Slots::Oldest { take: 4, skip })
    }

    #[test]
    fn no_question_reads_through_the_queue_or_sorts_it() {
        let (_directory, reader) = queue(3, 10);
        for sql in [UNPLANNED, OLDEST, COUNT_DUE, NEXT_DUE] {
            let mut statement = reader
                .connection
                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                .unwrap();
            let count = statement.parameter_count();
            let steps: Vec<String> = statement
                .query_map(rusqlite::params_from_iter(vec![1; count]), |row| row.get(3))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            let plan = steps.join("; ");
            let indexed = plan.contains("USING INDEX part_due")
                || plan.contains("USING COVERING INDEX part_due")
                || plan.contains("INDEX message_unplanned");
            assert!(indexed && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        }
    }

    #[test]
    fn one_lane_or_a_thousand_each_is_looked_at_alone() {
        for (lanes, parts) in [(1, 20_000), (1000, 20)] {
            let (_directory, reader) = queue(lanes, parts);
            assert_eq!(reader.waiting_lanes().unwrap().len(), lanes);
            let counts = reader.lanes().unwrap();
            assert!(counts.iter().all(|lane| lane.waiting == parts as u64));
            let (_, looked) = reader
                .look(NOW, 0, vec![wanted(lanes - 1, 0), wanted(0, 2)])
                .unwrap();
            let dues: Vec<Vec<i64>> = looked
                .iter()
                .map(|lane| lane.due.iter().map(|part| part.due.millis()).collect())
                .collect();
            assert_eq!(dues, [[0, 1, 2, 3], [2, 3, 4, 5]]);
            assert!(looked.iter().all(|lane| lane.more && lane.next_due.is_none()));
        }
    }

    #[test]
    fn a_lane_that_was_looked_through_says_so_and_when_its_next_part_is_due() {
        let (_directory, reader) = queue(1, 10);
        let (_, looked) = reader
            .look(Timestamp::from_millis(2), 0, vec![wanted(0, 0)])
            .unwrap();
        let [lane] = &looked[..] else { panic!() };
        assert_eq!((lane.due.len(), lane.more), (3, false));
        assert_eq!(lane.next_due, Some(Timestamp::from_millis(3)));
    }
}
