//! The one thread that writes to `queue.db`.
//!
//! It takes whatever requests have gathered while it was busy, runs them in one transaction, each under a
//! savepoint of its own, commits once, and only then answers all of them: group commit without a timer.
//!
//! After an error of BEGIN or COMMIT nothing is known about the group. All of it is answered with the error, the
//! database is opened again, and the messages that the group would have added are deleted by id (and the markers
//! it would have set are cleared) before anything else is done, so that no ghost of a refused message is ever sent.

use super::reserve::Reserve;
use super::spool_files::SpoolFiles;
use crate::db::record::{Message, Occasion, PartId, Plan, Reports, Settlement, Stored, ToldAlert};
use crate::db::{Broken, Change, Changed, DbError, Ending, QueueWriter};
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
    Accept(Box<Message>, Stored, Vec<String>),
    Plan(QueueId, Plan),
    Mark(PartId, Timestamp),
    Settle(Box<Settlement>),
    Tell(Occasion, Reports),
    Alert(Box<ToldAlert>, Reports),
    Hold(PartId),
    ReinIn(Timestamp, Timestamp),
    Change(Box<Change>),
    Hasten(Vec<PartId>, Timestamp),
    Broke(Broken),
    Mended(String, Option<String>),
    NoteHeld(Timestamp),
    HoldTold(PartId),
    Pause(String, Timestamp),
    Resume(String),
    Forget(i64),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Written {
    Done,
    /// How the message stands, and the octets of its reports.
    Settled(Ending, u64),
    /// The octets of the reports; none if it was told before.
    Told(Option<u64>),
    /// What came of it, and the octets of its reports.
    Changed(Changed, u64),
}

impl Written {
    /// True if it may have left free pages in the database.
    fn gives_back(&self) -> bool {
        matches!(
            self,
            Self::Settled(Ending::Released { .. }, _) | Self::Changed(Changed::Done(_), _)
        )
    }
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

/// How long the writer must have nothing to do before it gives free pages back.
const IDLE: Duration = Duration::from_millis(50);

/// How long after a failed attempt to reopen the database the next is made.
const REOPEN: Duration = Duration::from_secs(1);

/// Starts the thread; it ends when the last handle is gone.
pub(super) fn start(
    db: QueueWriter,
    files: SpoolFiles,
    reserve: Reserve,
) -> std::io::Result<(WriterHandle, JoinHandle<()>)> {
    let (requests, inbox) = channel();
    let writer = Writer {
        spool_id: db.spool_id(),
        state: State::Open(db),
        files,
        reserve,
        inbox,
        untidy: false,
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
    Arc::new(DbError::Unavailable("its thread has ended".to_owned()))
}

struct Writer {
    state: State,
    spool_id: [u8; 16],
    files: SpoolFiles,
    reserve: Reserve,
    inbox: Receiver<(Write, Answer)>,
    /// Whether messages were released since free pages were last given back to the file system.
    untidy: bool,
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
                State::Open(_) if self.untidy => self.inbox.recv_timeout(IDLE),
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
                Err(RecvTimeoutError::Timeout) => {
                    self.reopen_if_broken();
                    self.tidy();
                }
                Err(RecvTimeoutError::Disconnected) => return self.reopen_if_broken(),
            }
        }
    }

    fn serve(&mut self, group: Vec<(Write, Answer)>) {
        let results = match &mut self.state {
            State::Open(db) => commit_group(db, &group),
            State::Broken { error, .. } => {
                let error = error.clone();
                return group
                    .into_iter()
                    .for_each(|(write, answer)| self.refuse(&write, answer, error.clone()));
            }
        };
        match results {
            Ok(results) => {
                for ((write, answer), result) in group.into_iter().zip(results) {
                    self.untidy |= result.as_ref().is_ok_and(Written::gives_back);
                    match result {
                        Ok(written) => drop(answer.send(Ok(written))),
                        Err(error) => self.refuse(&write, answer, Arc::new(error)),
                    }
                }
            }
            Err(Failed { error, refused }) => {
                if error.is_full() && self.reserve.give_up() {
                    tracing::error!(
                        "the disk is full: the reserve of the spool was given up; free some space"
                    );
                }
                if error.is_damage() {
                    self.files.suspect_database();
                    tracing::error!(%error, "queue.db is damaged: restart the bridge, it will recover what can be read");
                }
                let error = Arc::new(error);
                tracing::error!(%error, "the queue could not be written; clients are told to try again later");
                self.state = State::Broken {
                    ghosts: Ghosts::of(&group, &refused),
                    error: error.clone(),
                };
                // Before anybody is told: a kill in the next moment must not bring back what the group has left in
                // the write-ahead log.
                self.reopen_if_broken();
                for (_, answer) in group {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// While nobody asks for anything, gives free pages back to the file system, a few at a time.
    fn tidy(&mut self) {
        let State::Open(db) = &mut self.state else { return };
        match db.give_back() {
            Ok(more) => self.untidy = more,
            Err(error) => {
                let error = Arc::new(error);
                tracing::warn!(%error, "free pages of queue.db could not be given back to the file system");
                self.untidy = false;
                self.state = State::Broken {
                    ghosts: Ghosts::default(),
                    error,
                };
            }
        }
    }

    /// Answers a request that certainly left nothing in the database: a body that came with it is not owed.
    fn refuse(&self, write: &Write, answer: Answer, error: WriteError) {
        if let Write::Accept(message, Stored::File, _) = write {
            remove_body(&self.files, message.id);
        }
        let _ = answer.send(Err(error));
    }

    /// Opens the database again and exorcises the ghosts; if that fails, everything stays as it is.
    fn reopen_if_broken(&mut self) {
        let State::Broken { ghosts, error } = &mut self.state else {
            return;
        };
        // A new database must not appear here: its messages would be missing.
        let reopened = QueueWriter::reopen(&self.files.database(), self.spool_id).map_err(|e| e.to_string());
        let cleaned = reopened.and_then(|mut db| {
            ghosts.exorcise(&mut db).map_err(|e| e.to_string())?;
            Ok(db)
        });
        match cleaned {
            Ok(db) => {
                tracing::info!("the queue can be written again");
                ghosts
                    .accepted
                    .iter()
                    .for_each(|id| remove_body(&self.files, *id));
                self.state = State::Open(db);
            }
            Err(reason) => {
                tracing::debug!(reason, "the queue still cannot be written");
                *error = Arc::new(DbError::Unavailable(reason));
            }
        }
    }
}

fn remove_body(files: &SpoolFiles, id: QueueId) {
    if let Err(error) = files.remove_body(id) {
        tracing::warn!(%id, %error, "a body that is not owed could not be removed; the next start sweeps it");
    }
}

/// One transaction. The outer error is of the group, the inner ones are of its members.
fn commit_group(
    db: &mut QueueWriter,
    group: &[(Write, Answer)],
) -> Result<Vec<Result<Written, DbError>>, Failed> {
    let mut results = Vec::with_capacity(group.len());
    let carried_out = carry_out_all(db, group, &mut results);
    carried_out.map_err(|error| Failed {
        error,
        refused: results.iter().map(Result::is_err).collect(),
    })?;
    Ok(results)
}

/// A group that failed, and which of its members had failed before on their own account.
struct Failed {
    error: DbError,
    refused: Vec<bool>,
}

fn carry_out_all(
    db: &mut QueueWriter,
    group: &[(Write, Answer)],
    results: &mut Vec<Result<Written, DbError>>,
) -> Result<(), DbError> {
    db.begin()?;
    for (write, _) in group {
        match db.savepoint(|db| carry_out(db, write)) {
            // SQLite may have rolled the whole transaction back: nothing of the group can be trusted.
            Err(error) if error.ends_transaction() => return Err(error),
            result => results.push(result),
        }
    }
    db.commit()
}

fn carry_out(db: &mut QueueWriter, write: &Write) -> Result<Written, DbError> {
    match write {
        Write::Accept(message, stored, events) => {
            db.insert(message, stored)?;
            db.put_in_outbox(events)?;
        }
        Write::Plan(id, plan) => db.plan(*id, plan)?,
        Write::Mark(part, at) => db.mark(*part, *at)?,
        Write::Hold(part) => db.hold(*part)?,
        Write::ReinIn(now, horizon) => db.rein_in(*now, *horizon)?,
        Write::Broke(broken) => db.broke(broken)?,
        Write::Mended(account, mailbox) => db.mended(account, mailbox.as_deref())?,
        Write::NoteHeld(now) => db.note_held(*now)?,
        Write::HoldTold(part) => db.hold_told(*part)?,
        Write::Hasten(parts, now) => db.hasten(parts, *now)?,
        Write::Pause(account, since) => db.pause(account, *since)?,
        Write::Resume(account) => db.resume(account)?,
        Write::Change(change) => {
            let (changed, octets) = db.change(change)?;
            return Ok(Written::Changed(changed, octets));
        }
        Write::Settle(settlement) => {
            let (ending, octets) = db.settle(settlement)?;
            return Ok(Written::Settled(ending, octets));
        }
        Write::Tell(occasion, reports) => return Ok(Written::Told(db.tell(*occasion, reports)?)),
        Write::Alert(told, mail) => return Ok(Written::Told(Some(db.alerted(told, mail)?))),
        Write::Forget(last) => db.forget(*last)?,
    }
    Ok(Written::Done)
}

impl Ghosts {
    /// `refused` are those that certainly left nothing: a message whose id was there already is another's, and stays.
    fn of(group: &[(Write, Answer)], refused: &[bool]) -> Self {
        let mut ghosts = Self::default();
        for (number, (write, _)) in group.iter().enumerate() {
            if refused.get(number) == Some(&true) {
                continue;
            }
            match write {
                Write::Accept(message, ..) => ghosts.accepted.push(message.id),
                Write::Mark(part, _) => ghosts.marked.push(*part),
                // These may be carried out again, with the same result.
                Write::Plan(..)
                | Write::Settle(_)
                | Write::Hold(_)
                | Write::ReinIn(..)
                | Write::Hasten(..)
                | Write::Broke(_)
                | Write::Mended(..)
                | Write::NoteHeld(_)
                | Write::HoldTold(_)
                | Write::Pause(..)
                | Write::Resume(_)
                | Write::Tell(..)
                | Write::Alert(..)
                | Write::Forget(_)
                | Write::Change(_) => {}
            }
        }
        ghosts
    }

    fn exorcise(&self, db: &mut QueueWriter) -> Result<(), DbError> {
        db.begin()?;
        db.remove(&self.accepted)?;
        db.unmark(&self.marked)?;
        db.write_over()?;
        db.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::QueueReader;
    use crate::db::record::{Origin, PlannedPart};
    use crate::mail::{BodyType, Envelope, ReversePath};
    use crate::spool::disk::RealDisk;
    use crate::spool::spool_files::RESERVE;
    use bytes::Bytes;

    fn message(stored: &Stored) -> Message {
        let recipient: crate::mail::Address = "bob@y.example".parse().unwrap();
        let size = if let Stored::Inline(bytes) = stored {
            bytes.len() as u64
        } else {
            0
        };
        Message {
            id: QueueId::new(Timestamp::from_millis(1_800_000_000_000)),
            arrived: Timestamp::from_millis(1_800_000_000_000),
            envelope: Envelope::new(ReversePath::Null, [recipient], BodyType::SevenBit).unwrap(),
            origin: Origin {
                client: "127.0.0.1".parse().unwrap(),
                greeting: "test".to_owned(),
                esmtp: true,
                listener: "local".to_owned(),
                tls: false,
                user: None,
            },
            size,
            checksum: 0,
            report: false,
        }
    }

    /// A full disk in the middle of a group: everybody in it is refused, nothing of it is there afterwards, markers
    /// included, and after a while the queue can be written again.
    #[tokio::test]
    async fn a_group_that_fails_leaves_no_ghost() {
        let dir = tempfile::TempDir::new().unwrap();
        let files = SpoolFiles::prepare(dir.path(), Arc::new(RealDisk), RESERVE).unwrap();
        let mut db = QueueWriter::open(&files.database(), [7; 16]).unwrap();
        let waiting = message(&Stored::File);
        let part = PartId {
            message: waiting.id,
            number: 0,
        };
        let plan = PlannedPart {
            account: "office".to_owned(),
            mailbox: "a@x.example".parse().unwrap(),
            changes: String::new(),
            recipients: vec![0],
        };
        db.begin().unwrap();
        db.insert(&waiting, &Stored::File).unwrap();
        db.plan(waiting.id, &Plan::new(vec![plan], waiting.arrived))
            .unwrap();
        db.commit().unwrap();
        db.limit_pages(64).unwrap();
        let stored = Stored::Inline(Bytes::from(vec![b'x'; 60_000]));
        let in_file = message(&Stored::File);
        drop(files.create_body(in_file.id).unwrap());
        let (handle, _thread) = start(
            db,
            files.clone(),
            Reserve::new(files.clone(), 0, Duration::from_secs(1)),
        )
        .unwrap();
        let mut group = tokio::task::JoinSet::new();
        let mut refused = Vec::new();
        let mut writes = vec![
            Write::Mark(part, waiting.arrived),
            Write::Accept(Box::new(in_file.clone()), Stored::File, Vec::new()),
        ];
        for _ in 0..20 {
            let message = message(&stored);
            refused.push(message.id);
            writes.push(Write::Accept(Box::new(message), stored.clone(), Vec::new()));
        }
        for write in writes {
            let handle = handle.clone();
            group.spawn(async move { handle.write(write).await.map(|_| ()) });
        }
        let outcomes = group.join_all().await;
        let full = |outcome: &Result<(), WriteError>| outcome.as_ref().is_err_and(|error| error.is_full());
        assert!(outcomes.iter().any(full), "{outcomes:?}");
        let accepted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        // The next request finds the database reopened, without the limit, and cleaned.
        let next = message(&stored);
        let id = next.id;
        handle
            .write(Write::Accept(Box::new(next), stored.clone(), Vec::new()))
            .await
            .unwrap();
        let reader = QueueReader::open(&files.database()).unwrap();
        assert!(reader.contains(id).unwrap());
        let marked = reader.interrupted().unwrap().whole.len();
        let there = refused.iter().filter(|id| reader.contains(**id).unwrap()).count();
        let file_there = reader.contains(in_file.id).unwrap();
        assert_eq!(
            there + usize::from(file_there) + marked,
            accepted,
            "what was acknowledged is there, and no more"
        );
        assert_eq!(files.body_path(in_file.id).exists(), file_there);
    }
}
