//! What can be read of a damaged `queue.db` is brought into a new one.
//!
//! SQLite gives up where something is wrong, so the file is read here page by page, with its write-ahead log. A row is
//! known by its shape, wherever it stands. What was deleted is left where it is, as far as the database's books tell.
//!
//! Then each message is looked at as a whole. It goes on as if nothing had happened if its envelope is what was sealed, its
//! body what was received, its plan complete, and every row of it comes from a page that certainly was in use. If
//! anything is in doubt it is kept for a person, because it may have been sent: nothing is lost, nothing goes out twice.

mod cells;
mod pages;

pub(crate) use pages::log_lost_commits;

use super::{DbError, QueueReader, QueueWriter};
use crate::mail::QueueId;
use cells::{Record, Value};
use pages::{Pages, Standing};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{OptionalExtension, ToSql, params};
use std::collections::HashSet;
use std::path::Path;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Messages that go on as if nothing had happened.
    pub whole: u64,
    /// Messages that are held for a person, because something of them is in doubt or lost.
    pub held: u64,
    /// Messages of which too little is left to keep them in the queue.
    pub lost: Vec<QueueId>,
    /// Pages that could not be read, or made no sense.
    pub bad_pages: u32,
}

/// What is left of a message that cannot stay in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// Its name.
    pub id: QueueId,
    /// Its text, if that was in the database.
    pub text: Option<Vec<u8>>,
    /// Recipients that are known.
    pub recipients: Vec<String>,
}

impl QueueWriter {
    /// Brings into this new database what can be read of the one at `damaged`, whose write-ahead log is `log`; either
    /// may be missing. `has_file` knows the bodies that are files, and their sizes. `remains` is given the texts of
    /// messages of which too little is left.
    ///
    /// # Errors
    /// Those of the new database.
    pub fn salvage(
        &mut self,
        damaged: &Path,
        log: &Path,
        has_file: &dyn Fn(QueueId) -> Option<u64>,
        remains: &mut dyn FnMut(Remains),
    ) -> Result<Salvaged, DbError> {
        let mut salvaged = Salvaged::default();
        let pages = match Pages::open(damaged, log) {
            Ok(pages) => pages,
            Err(error) => {
                tracing::error!(%error, "nothing can be read of the damaged database");
                return Ok(salvaged);
            }
        };
        let mut doubtful = HashSet::new();
        self.begin()?;
        // First what is certain: a doubtful row does not take the place of a good one.
        for standing in [Standing::Used, Standing::Unknown] {
            for number in 1..=pages.count() {
                self.salvage_page(&pages, number, standing, &mut doubtful, &mut salvaged)?;
                if number % PAGES_AT_ONCE == 0 {
                    self.commit()?;
                    self.begin()?;
                }
            }
        }
        self.commit()?;
        let judge = Judge {
            reader: QueueReader::open(Path::new(self.connection.path().unwrap_or_default()))?,
            has_file,
            doubtful,
            all_doubtful: pages.log_broken(),
        };
        self.begin()?;
        for id in self.every_id()? {
            self.settle_salvaged(id, &judge, remains, &mut salvaged)?;
        }
        self.commit()?;
        Ok(salvaged)
    }

    /// Takes over a message from its files, which have no row any more, to be held for a person: it may have been sent
    /// already, or never been accepted.
    ///
    /// # Errors
    /// SQLite's.
    pub fn insert_recovered(&mut self, message: &super::record::Message) -> Result<(), DbError> {
        self.begin()?;
        self.remove(&[message.id])?;
        self.insert(message, &super::record::Stored::File)?;
        self.hold_recovered(message.id, "its record in the queue was lost")?;
        self.commit()
    }

    fn salvage_page(
        &mut self,
        pages: &Pages,
        number: u32,
        wanted: Standing,
        doubtful: &mut HashSet<QueueId>,
        salvaged: &mut Salvaged,
    ) -> Result<(), DbError> {
        if pages.standing(number) != wanted {
            return Ok(());
        }
        let Some(page) = pages.page(number) else {
            salvaged.bad_pages += 1;
            return Ok(());
        };
        let (records, broken) = cells::records(pages, number, &page);
        salvaged.bad_pages += u32::from(broken > 0);
        for record in records {
            let Some(table) = TABLES.iter().find(|table| table.fits(&record)) else {
                continue;
            };
            let taken = self.take_row(table, &record)?;
            if let (true, Standing::Unknown, Some(id)) = (taken, wanted, record.message()) {
                doubtful.insert(id);
            }
        }
        Ok(())
    }

    /// Adds a row unless there is one of that name already.
    fn take_row(&self, table: &Table, record: &Record) -> Result<bool, DbError> {
        let columns = &table.columns[..record.values.len()];
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let marks: Vec<String> = (1..=names.len()).map(|n| format!("?{n}")).collect();
        let sql = format!(
            "INSERT OR IGNORE INTO {} ({}) VALUES ({})",
            table.name,
            names.join(", "),
            marks.join(", ")
        );
        let mut values = record.values.clone();
        if let (Some((_, Kind::RowNumber)), Some(rowid)) = (columns.first(), record.rowid) {
            values[0] = Value::Integer(rowid);
        }
        let mut insert = self.connection.prepare_cached(&sql)?;
        Ok(insert.execute(rusqlite::params_from_iter(values))? > 0)
    }

    /// All messages of which there is any row.
    fn every_id(&self) -> Result<Vec<QueueId>, DbError> {
        let mut ids = self.connection.prepare(
            "SELECT id FROM message UNION SELECT message FROM body UNION SELECT message FROM recipient
             UNION SELECT message FROM part",
        )?;
        let ids = ids.query_map([], |row| row.get::<_, [u8; 16]>(0))?;
        Ok(ids
            .map(|id| id.map(QueueId::from_bytes))
            .collect::<Result<_, _>>()?)
    }

    fn settle_salvaged(
        &mut self,
        id: QueueId,
        judge: &Judge<'_>,
        remains: &mut dyn FnMut(Remains),
        salvaged: &mut Salvaged,
    ) -> Result<(), DbError> {
        match judge.look(id)? {
            Verdict::Whole => salvaged.whole += 1,
            Verdict::Doubtful(why) => {
                self.hold_recovered(id, why)?;
                salvaged.held += 1;
            }
            Verdict::Remains => {
                remains(self.remains(id)?);
                self.remove(&[id])?;
                salvaged.lost.push(id);
            }
        }
        Ok(())
    }

    fn remains(&self, id: QueueId) -> Result<Remains, DbError> {
        let key = [&id.as_bytes()[..]];
        let text = "SELECT bytes FROM body WHERE message = ?1";
        let mut recipients = self
            .connection
            .prepare_cached("SELECT address FROM recipient WHERE message = ?1 ORDER BY number")?;
        Ok(Remains {
            id,
            text: self
                .connection
                .query_row(text, key, |row| row.get(0))
                .optional()?,
            recipients: recipients
                .query_map(key, |row| row.get(0))?
                .collect::<Result<_, _>>()?,
        })
    }

    /// Keeps a message for a person. If its plan is not complete it is planned anew, and held then.
    fn hold_recovered(&mut self, id: QueueId, why: &str) -> Result<(), DbError> {
        let id = &id.as_bytes()[..];
        let cause = format!(
            "recovered from a damaged queue.db, and {why}: ask a recipient whether it arrived before it is released"
        );
        self.connection.execute(
            "UPDATE recipient SET status = '4.3.0', cause = ?2 WHERE message = ?1 AND fate = 0",
            params![id, cause],
        )?;
        self.connection.execute(
            "UPDATE message SET recovered = 1, sealed = NULL WHERE id = ?1",
            [id],
        )?;
        let unplanned: bool = self.connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM recipient WHERE message = ?1 AND fate = 0 AND NOT EXISTS
                (SELECT 1 FROM part WHERE part.message = ?1 AND part.number = recipient.part))",
            [id],
            |row| row.get(0),
        )?;
        if unplanned {
            self.connection
                .execute("DELETE FROM part WHERE message = ?1", [id])?;
            self.connection
                .execute("UPDATE message SET planned = 0 WHERE id = ?1", [id])?;
        } else {
            self.connection.execute(
                // Who releases it is warned that it may arrive twice.
                "UPDATE part SET state = 2, marker = NULL, uncertain = max(uncertain, 1)
                 WHERE message = ?1 AND state = 0",
                [id],
            )?;
        }
        Ok(())
    }
}

/// Pages that are read before what was in them is committed.
const PAGES_AT_ONCE: u32 = 4096;

/// What is decided of a message.
enum Verdict {
    Whole,
    /// Held, and why.
    Doubtful(&'static str),
    /// Not enough is left of it.
    Remains,
}

struct Judge<'a> {
    reader: QueueReader,
    has_file: &'a dyn Fn(QueueId) -> Option<u64>,
    doubtful: HashSet<QueueId>,
    all_doubtful: bool,
}

impl Judge<'_> {
    fn look(&self, id: QueueId) -> Result<Verdict, DbError> {
        let (message, sealed) = match self.reader.message_as_it_is(id) {
            Ok(Some(found)) => found,
            // Without an envelope that can be read it cannot be shown or sent. Beside a file there is another one.
            Ok(None) | Err(DbError::Row { .. }) => return Ok(Verdict::Remains),
            Err(error) => return Err(error),
        };
        let stored = self.reader.body(id)?;
        let body_is_whole = match &stored {
            None => return Ok(Verdict::Doubtful("its text is lost")),
            Some(super::record::Stored::Inline(bytes)) => {
                bytes.len() as u64 == message.size && crc32fast::hash(bytes) == message.checksum
            }
            // Its checksum is compared when it is read.
            Some(super::record::Stored::File) => (self.has_file)(id) == Some(message.size),
        };
        Ok(if !body_is_whole {
            Verdict::Doubtful("its text is damaged or lost")
        } else if sealed != Some(message.seal()) {
            Verdict::Doubtful("its envelope may be damaged, or not all of its recipients may be known")
        } else if !self.reader.plan_is_whole(id)? {
            Verdict::Doubtful("what became of it so far is lost")
        } else if self.all_doubtful || self.doubtful.contains(&id) {
            Verdict::Doubtful("it may have been sent already")
        } else {
            Verdict::Whole
        })
    }
}

impl QueueReader {
    /// True if every recipient that waits belongs to a part, or the message has no plan yet.
    fn plan_is_whole(&self, id: QueueId) -> Result<bool, DbError> {
        Ok(self.connection.query_row(
            "SELECT planned = 0 AND NOT EXISTS (SELECT 1 FROM part WHERE message = ?1)
                 AND NOT EXISTS (SELECT 1 FROM recipient WHERE message = ?1 AND (part IS NOT NULL OR fate <> 0))
             OR planned = 1 AND NOT EXISTS (SELECT 1 FROM recipient WHERE message = ?1 AND NOT EXISTS
                    (SELECT 1 FROM part WHERE part.message = ?1 AND part.number = recipient.part))
             FROM message WHERE id = ?1",
            [&id.as_bytes()[..]],
            |row| row.get(0),
        )?)
    }
}

/// The shape of a table's rows. Older rows have fewer columns; what is missing has its default.
struct Table {
    name: &'static str,
    columns: &'static [(&'static str, Kind)],
    /// Columns that a row has at least.
    least: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    /// The 16 bytes of a queue id.
    Id,
    Integer,
    /// A time in milliseconds, and not a number of hours.
    Time,
    /// The opposite.
    Hour,
    MaybeInteger,
    Text,
    /// A text with an @, as addresses have it; the name of an account has none.
    Address,
    /// The opposite.
    Name,
    MaybeText,
    Blob,
    /// The number of the row, which SQLite keeps elsewhere.
    RowNumber,
}

/// All tables but those that name this database (`spool`) or follow from others (`total`, `lane`).
const TABLES: &[Table] = &[
    Table {
        name: "message",
        least: 12,
        columns: &[
            ("id", Kind::Id),
            ("arrived", Kind::Integer),
            ("planned", Kind::Integer),
            ("size", Kind::Integer),
            ("checksum", Kind::Integer),
            ("in_file", Kind::Integer),
            ("reverse_path", Kind::MaybeText),
            ("body_type", Kind::Integer),
            ("client", Kind::Text),
            ("greeting", Kind::Text),
            ("esmtp", Kind::Integer),
            ("listener", Kind::Text),
            ("tls", Kind::Integer),
            ("auth_user", Kind::MaybeText),
            ("smtputf8", Kind::Integer),
            ("envid", Kind::MaybeText),
            ("ret", Kind::MaybeInteger),
            ("report", Kind::Integer),
            ("message_id", Kind::MaybeText),
            ("sealed", Kind::MaybeInteger),
            ("recovered", Kind::Integer),
            ("delay_told", Kind::Integer),
        ],
    },
    Table {
        name: "recipient",
        least: 7,
        columns: &[
            ("message", Kind::Id),
            ("number", Kind::Integer),
            ("address", Kind::Text),
            ("part", Kind::MaybeInteger),
            ("fate", Kind::Integer),
            ("status", Kind::MaybeText),
            ("cause", Kind::MaybeText),
            ("notify", Kind::MaybeInteger),
            ("orcpt", Kind::MaybeText),
        ],
    },
    Table {
        name: "part",
        least: 11,
        columns: &[
            ("message", Kind::Id),
            ("number", Kind::Integer),
            ("account", Kind::Text),
            ("mailbox", Kind::Text),
            ("changes", Kind::Text),
            ("state", Kind::Integer),
            ("due", Kind::Integer),
            ("marker", Kind::MaybeInteger),
            ("attempts", Kind::Integer),
            ("deferred", Kind::Integer),
            ("uncertain", Kind::Integer),
            ("held_since", Kind::MaybeInteger),
            ("hold_told", Kind::Integer),
            ("deferral_run", Kind::MaybeInteger),
            ("deferral_from", Kind::MaybeInteger),
            ("deferral_wait", Kind::MaybeInteger),
            ("device", Kind::Text),
            ("sender", Kind::Text),
        ],
    },
    Table {
        name: "body",
        least: 2,
        columns: &[("message", Kind::Id), ("bytes", Kind::Blob)],
    },
    Table {
        name: "outbox",
        least: 2,
        columns: &[("id", Kind::RowNumber), ("event", Kind::Text)],
    },
    Table {
        name: "pause",
        least: 2,
        columns: &[("account", Kind::Text), ("since", Kind::Time)],
    },
    Table {
        name: "sent",
        least: 5,
        columns: &[
            ("cloud", Kind::Text),
            ("mailbox", Kind::Text),
            ("hour", Kind::Hour),
            ("sender", Kind::Text),
            ("recipients", Kind::Integer),
        ],
    },
    Table {
        name: "reported",
        least: 4,
        columns: &[
            ("recipient", Kind::Address),
            ("cause", Kind::Text),
            ("since", Kind::Time),
            ("held_back", Kind::Integer),
        ],
    },
    Table {
        name: "broken",
        least: 4,
        columns: &[
            ("account", Kind::Name),
            ("mailbox", Kind::Text),
            ("since", Kind::Time),
            ("warned", Kind::Integer),
        ],
    },
    Table {
        name: "alert",
        least: 6,
        columns: &[
            ("name", Kind::Text),
            ("way", Kind::Text),
            ("since", Kind::Time),
            ("told", Kind::Time),
            ("over", Kind::MaybeInteger),
            ("text", Kind::Text),
        ],
    },
];

/// Milliseconds since the epoch in 1973: more than any number of hours, less than any time of ours.
const TIMES: i64 = 100_000_000_000;

impl Table {
    fn fits(&self, record: &Record) -> bool {
        let values = &record.values;
        let number = matches!(self.columns[0].1, Kind::RowNumber) || self.name == "body";
        number == record.rowid.is_some()
            && (self.least..=self.columns.len()).contains(&values.len())
            && values
                .iter()
                .zip(self.columns)
                .all(|(value, (_, kind))| kind.fits(value))
    }
}

impl Kind {
    fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Id, Value::Blob(bytes)) => bytes.len() == 16,
            (Self::Address, Value::Text(text)) => text.contains('@'),
            (Self::Name, Value::Text(text)) => !text.contains('@'),
            (Self::Time, Value::Integer(time)) => *time > TIMES,
            (Self::Hour, Value::Integer(hour)) => (0..TIMES).contains(hour),
            (Self::Integer | Self::MaybeInteger, Value::Integer(_))
            | (Self::Text | Self::MaybeText, Value::Text(_))
            | (Self::Blob, Value::Blob(_))
            | (Self::MaybeInteger | Self::MaybeText | Self::RowNumber, Value::Null) => true,
            _ => false,
        }
    }
}

impl Record {
    /// The message that the row is about, if it is about one.
    fn message(&self) -> Option<QueueId> {
        match self.values.first() {
            Some(Value::Blob(bytes)) => Some(QueueId::from_bytes(bytes[..].try_into().ok()?)),
            _ => None,
        }
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table or a column that is new must be salvaged too, or be named here as one that need not be.
    #[test]
    fn every_table_is_salvaged_with_all_its_columns() {
        let directory = tempfile::tempdir().unwrap();
        let db = QueueWriter::open(&directory.path().join("queue.db"), [1; 16]).unwrap();
        let mut tables = db
            .connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
            .unwrap();
        let tables: Vec<String> = tables
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for name in tables {
            if ["spool", "total", "lane"].contains(&&name[..]) {
                continue;
            }
            let table = TABLES.iter().find(|table| table.name == name);
            let known: Vec<&str> = table.map_or(Vec::new(), |table| {
                table.columns.iter().map(|(name, _)| *name).collect()
            });
            let mut columns = db
                .connection
                .prepare(&format!("PRAGMA table_info({name})"))
                .unwrap();
            let columns: Vec<String> = columns
                .query_map([], |row| row.get(1))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert_eq!(known, columns, "table {name}");
        }
    }

    #[test]
    fn the_small_tables_come_back_from_a_file_without_a_header() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        let db = QueueWriter::open(&path, [1; 16]).unwrap();
        let fill = "INSERT INTO outbox (event) VALUES ('{\"a\":1}'), ('{}');
             INSERT INTO pause VALUES ('', 1800000000000), ('office', 1800000000001);
             INSERT INTO sent VALUES ('global', 'a@x.example', 500000, 'anna <>', 7);
             INSERT INTO reported VALUES ('a@x.example', 'busy', 1800000000000, 3);
             INSERT INTO broken VALUES ('office', 'a@x.example', 1800000000000, 0);
             INSERT INTO alert VALUES ('disk', 'webhook', 1800000000000, 1800000000001, NULL, 'low');";
        db.connection.execute_batch(fill).unwrap();
        drop(db);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[..4096].fill(0);
        std::fs::write(&path, bytes).unwrap();
        let mut new = QueueWriter::open(&directory.path().join("new"), [2; 16]).unwrap();
        let none = directory.path().join("none");
        new.salvage(&path, &none, &|_| None, &mut |_| {}).unwrap();
        for (table, rows) in [
            ("outbox", 2),
            ("pause", 2),
            ("sent", 1),
            ("reported", 1),
            ("broken", 1),
            ("alert", 1),
        ] {
            let sql = format!("SELECT count(*) FROM {table}");
            let found: u32 = new.connection.query_row(&sql, [], |row| row.get(0)).unwrap();
            assert_eq!(found, rows, "{table}");
        }
        let event: String = new
            .connection
            .query_row("SELECT event FROM outbox WHERE id = 1", [], |row| row.get(0))
            .unwrap();
        assert_eq!(event, "{\"a\":1}");
    }
}
