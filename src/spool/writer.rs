//! The one thread that writes to `queue.db`.
//!
//! It takes whatever requests have gathered while it was busy, runs them in one transaction, each under a
//! savepoint of its own, commits once, and only then answers all of them: group commit without a timer.
//!
//! After an error of BEGIN or COMMIT nothing is known about the group. All of it is answered with the error, the
//! database is opened again, and the messages that the group would have added are deleted by id (and the markers
//! it would have set are cleared) before anything else is done, so that no ghost of a refused message is ever sent.

use super::disk::Disk;
use crate::db::record::{Message, PartId, PlannedPart, Settlement, Stored};
use crate::db::{DbError, Ending, QueueWriter};
use crate::mail::QueueId;
use crate::mail::Timestamp;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// What can be asked of the writer.
#[derive(Debug)]
pub(super) enum Write {
    Accept(Box<Message>, Stored),
    Plan(QueueId, Vec<PlannedPart>, Timestamp),
    Mark(PartId, Timestamp),
    Settle(Settlement),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Written {
    Done,
    Settled(Ending),
}

/// An error of the writer; one for all requests of a group.
pub(super) type WriteError = Arc<DbError>;

type Answer = oneshot::Sender<Result<Written, WriteError>>;

/// How the rest of the spool reaches the writer.
#[derive(Clone, Debug)]
pub(super) struct WriterHandle {
    requests: Sender<(Write, Answer)>,
}

/// Requests in one transaction at most, so that no group keeps its first member waiting for long.
const GROUP: usize = 1024;

/// How long after a failed attempt to reopen the database the next is made.
const REOPEN: Duration = Duration::from_secs(1);

/// Starts the thread; it ends when the last handle is gone.
pub(super) fn start(db: QueueWriter, disk: Disk) -> std::io::Result<(WriterHandle, JoinHandle<()>)> {
    let (requests, inbox) = channel();
    let writer = Writer {
        state: State::Open(db),
        disk,
        inbox,
    };
    let thread = std::thread::Builder::new()
        .name("spool-writer".to_owned())
        .spawn(move || writer.run())?;
    Ok((WriterHandle { requests }, thread))
}

impl WriterHandle {
    /// Hands a request over and waits for its COMMIT.
    ///
    /// Cancellation: once called, the request is carried out even if nobody waits for the answer any more.
    pub(super) async fn write(&self, write: Write) -> Result<Written, WriteError> {
        let (answer, answered) = oneshot::channel();
        if self.requests.send((write, answer)).is_err() {
            return Err(gone());
        }
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> WriteError {
    Arc::new(DbError::Row {
        id: "any".to_owned(),
        what: "the writer thread has ended".to_owned(),
    })
}

struct Writer {
    state: State,
    disk: Disk,
    inbox: Receiver<(Write, Answer)>,
}

enum State {
    Open(QueueWriter),
    /// A group failed; what it may have left behind must go before anything else is done.
    Broken {
        ghosts: Ghosts,
        error: WriteError,
    },
}

/// What a failed group may have left in the database although everybody was told that it failed.
#[derive(Default)]
struct Ghosts {
    accepted: Vec<QueueId>,
    marked: Vec<PartId>,
}

impl Writer {
    fn run(mut self) {
        loop {
            let first = match &self.state {
                State::Open(_) => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                State::Broken { .. } => self.inbox.recv_timeout(REOPEN),
            };
            match first {
                Ok(first) => {
                    let mut group = vec![first];
                    group.extend(self.inbox.try_iter().take(GROUP - 1));
                    self.reopen_if_broken();
                    self.serve(group);
                }
                Err(RecvTimeoutError::Timeout) => self.reopen_if_broken(),
                Err(RecvTimeoutError::Disconnected) => return self.reopen_if_broken(),
            }
        }
    }

    fn serve(&mut self, group: Vec<(Write, Answer)>) {
        let db = match &mut self.state {
            State::Open(db) => db,
            State::Broken { error, .. } => {
                for (_, answer) in group {
                    let _ = answer.send(Err(error.clone()));
                }
                return;
            }
        };
        match commit_group(db, &group) {
            Ok(results) => {
                for ((_, answer), result) in group.into_iter().zip(results) {
                    let _ = answer.send(result.map_err(Arc::new));
                }
            }
            Err(error) => {
                if error.is_full() && self.disk.give_up_reserve() {
                    tracing::error!(
                        "the disk is full: the reserve of the spool was given up; free some space"
                    );
                }
                let error = Arc::new(error);
                tracing::error!(%error, "the queue could not be written; clients are told to try again later");
                let ghosts = Ghosts::of(&group);
                self.state = State::Broken {
                    ghosts,
                    error: error.clone(),
                };
                for (_, answer) in group {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// Opens the database again and exorcises the ghosts; if that fails, everything stays as it is.
    fn reopen_if_broken(&mut self) {
        let State::Broken { ghosts, error } = &mut self.state else {
            return;
        };
        // A new database must not appear here: its messages would be missing.
        let reopened = if self.disk.database().exists() {
            QueueWriter::open(&self.disk.database(), [0; 16]).map_err(|e| e.to_string())
        } else {
            Err("queue.db has disappeared".to_owned())
        };
        let cleaned = reopened.and_then(|mut db| {
            ghosts.exorcise(&mut db).map_err(|e| e.to_string())?;
            Ok(db)
        });
        match cleaned {
            Ok(db) => {
                tracing::info!("the queue can be written again");
                self.state = State::Open(db);
            }
            Err(reason) => {
                tracing::debug!(reason, "the queue still cannot be written");
                *error = Arc::new(DbError::Row {
                    id: "any".to_owned(),
                    what: reason,
                });
            }
        }
    }
}

/// One transaction. The outer error is of the group, the inner ones are of its members.
fn commit_group(
    db: &mut QueueWriter,
    group: &[(Write, Answer)],
) -> Result<Vec<Result<Written, DbError>>, DbError> {
    db.begin()?;
    let mut results = Vec::with_capacity(group.len());
    for (write, _) in group {
        match db.savepoint(|db| carry_out(db, write)) {
            // SQLite may have rolled the whole transaction back: nothing of the group can be trusted.
            Err(error) if error.ends_transaction() => return Err(error),
            result => results.push(result),
        }
    }
    db.commit()?;
    Ok(results)
}

fn carry_out(db: &mut QueueWriter, write: &Write) -> Result<Written, DbError> {
    match write {
        Write::Accept(message, stored) => db.insert(message, stored)?,
        Write::Plan(id, parts, due) => db.plan(*id, parts, *due)?,
        Write::Mark(part, at) => db.mark(*part, *at)?,
        Write::Settle(settlement) => return Ok(Written::Settled(db.settle(settlement)?)),
    }
    Ok(Written::Done)
}

impl Ghosts {
    fn of(group: &[(Write, Answer)]) -> Self {
        let mut ghosts = Self::default();
        for (write, _) in group {
            match write {
                Write::Accept(message, _) => ghosts.accepted.push(message.id),
                Write::Mark(part, _) => ghosts.marked.push(*part),
                // Both may be carried out again, with the same result.
                Write::Plan(..) | Write::Settle(_) => {}
            }
        }
        ghosts
    }

    fn exorcise(&self, db: &mut QueueWriter) -> Result<(), DbError> {
        db.begin()?;
        db.remove(&self.accepted)?;
        db.unmark(&self.marked)?;
        db.commit()
    }
}
