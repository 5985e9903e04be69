//! A spool whose database was damaged in every way that can be thought of: it opens, takes mail, and has what can be had.

use super::disk::RealDisk;
use super::disk_tests::quick_directory;
use super::tests::{NOW, body_files, close, envelope, origin, plan, settings, settlement, text};
use super::*;
use crate::clock::Clock;
use crate::mail::QueueId;
use crate::mail::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// A message that was sent, and how it stood.
#[derive(Clone)]
struct Truth {
    message: Message,
    body: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Unplanned,
    Waiting,
    Interrupted,
    Held,
    Dead,
    Released,
}

fn open(directory: &Path) -> Spool {
    Spool::open_on(Arc::new(RealDisk), 0, &settings(directory), Clock::machine()).unwrap()
}

async fn accept(spool: &Spool, body: &[u8], recipients: usize) -> Message {
    let mut draft = spool.intake().begin();
    draft.write(body).await.unwrap();
    draft.accept(envelope(recipients), origin()).await.unwrap()
}

/// About fifty messages in all states, of all sizes, and pages that are free because messages were released.
async fn template() -> (TempDir, BTreeMap<QueueId, Truth>) {
    let directory = quick_directory();
    let spool = open(directory.path());
    let mut truths = BTreeMap::new();
    for n in 0..60 {
        let octets = match n % 10 {
            0 => INLINE_LIMIT + 5000,
            1..3 => 9000 + 100 * n,
            _ => 200 + n,
        };
        let recipients = 1 + n % 3;
        let mut body = text(octets);
        body.extend_from_slice(format!("{n}\r\n").as_bytes());
        let message = accept(&spool, &body, recipients).await;
        let state = [
            State::Waiting,
            State::Unplanned,
            State::Released,
            State::Held,
            State::Waiting,
            State::Dead,
            State::Interrupted,
        ][n % 7];
        if state != State::Unplanned {
            let part = plan(&spool, message.id, recipients).await;
            let store = spool.store();
            let fate = |fate| vec![fate; recipients];
            match state {
                State::Interrupted => store.mark(part, NOW).await.unwrap(),
                State::Held => store.hold(part).await.unwrap(),
                State::Dead => drop(
                    store
                        .settle(settlement(part, Next::Ended, &fate(Fate::Failed)))
                        .await
                        .unwrap(),
                ),
                State::Released => drop(
                    store
                        .settle(settlement(part, Next::Ended, &fate(Fate::Relayed)))
                        .await
                        .unwrap(),
                ),
                State::Waiting | State::Unplanned => {}
            }
        }
        let truth = Truth {
            message: message.clone(),
            body,
            state,
        };
        truths.insert(message.id, truth);
    }
    close(spool);
    assert!(!directory.path().join("queue.db-wal").exists());
    (directory, truths)
}

fn copy(from: &Path) -> TempDir {
    fn all(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir_all(&target).unwrap();
                all(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let to = quick_directory();
    all(from, to.path());
    to
}

/// What a start made of it.
#[derive(Debug, Default)]
struct Outcome {
    /// Messages that are there with text and envelope.
    whole: usize,
    /// Messages that are there and say that they are damaged.
    damaged: usize,
    /// Messages that will go out by themselves.
    going_on: usize,
    recovered: bool,
}

/// Opens, and looks at everything that is there. Nothing may be there that is not true, and nothing may go out that was
/// not going to.
async fn judge(directory: &Path, truths: &BTreeMap<QueueId, Truth>, what: &str) -> Outcome {
    let spool = open(directory);
    let store = spool.store();
    let mut outcome = Outcome {
        recovered: spool.swept().recovered.is_some(),
        ..Outcome::default()
    };
    let mut doubted = BTreeSet::new();
    for (id, truth) in truths {
        match store.message(*id).await {
            Ok((message, body)) => {
                if message != truth.message {
                    // It is shown to a person as what it is: perhaps damaged.
                    assert!(outcome.recovered, "{what}: {message:?}");
                    doubted.insert(*id);
                    outcome.damaged += 1;
                    continue;
                }
                let mut found = Vec::new();
                let whole = body.pieces(0).is_ok_and(|mut pieces| {
                    while let Ok(Some(piece)) = pieces.next_piece() {
                        found.extend_from_slice(&piece);
                    }
                    found == truth.body
                });
                outcome.whole += usize::from(whole);
                outcome.damaged += usize::from(!whole);
            }
            Err(StoreError::Unknown(_)) => {}
            Err(StoreError::Db(error)) => {
                outcome.damaged += 1;
                assert!(
                    matches!(*error, crate::db::DbError::Row { .. }) || error.is_damage(),
                    "{what}: {error}"
                );
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
    assert!(
        spool.swept().messages <= truths.len() as u64,
        "{what}: something was invented"
    );
    let far = NOW.plus(std::time::Duration::from_secs(9_999_999));
    let everything = |_: &Lane| Slots::Oldest { take: 1000, skip: 0 };
    if let Ok(agenda) = store.agenda(far, 1000, everything).await {
        for id in agenda.unplanned {
            plan(&spool, id, truths[&id].message.envelope.recipients().len()).await;
        }
    }
    if let Ok(agenda) = store.agenda(far, 1000, everything).await {
        let going: BTreeSet<QueueId> = agenda.due.iter().map(|part| part.id.message).collect();
        for id in &going {
            let state = truths[id].state;
            assert!(!doubted.contains(id), "{what}: what may be damaged goes out");
            assert!(
                matches!(state, State::Unplanned | State::Waiting),
                "{what}: {state:?} goes out"
            );
        }
        outcome.going_on = going.len();
    }
    if outcome.recovered {
        accept(&spool, &text(100), 1).await;
        accept(&spool, &text(INLINE_LIMIT + 1), 1).await;
    }
    drop(store);
    close(spool);
    if outcome.recovered {
        assert!(
            open(directory).swept().recovered.is_none(),
            "{what}: it is good now"
        );
    }
    outcome
}

fn page_count(directory: &Path) -> u64 {
    fs::metadata(directory.join("queue.db")).unwrap().len() / 4096
}

/// Sums up what came of many damages.
#[derive(Default)]
struct Sum {
    damages: usize,
    recovered: usize,
    whole: usize,
    least: usize,
    going_on: usize,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.least = if self.damages == 0 {
            outcome.whole
        } else {
            self.least.min(outcome.whole)
        };
        self.damages += 1;
        self.recovered += usize::from(outcome.recovered);
        self.whole += outcome.whole;
        self.going_on += outcome.going_on;
    }

    fn print(&self, what: &str, alive: usize) {
        println!(
            "{what}: {} damages, {} of them found at start; of {alive} messages {:.1} whole on average, at least {}, {:.1} go on by themselves",
            self.damages,
            self.recovered,
            self.whole as f64 / self.damages as f64,
            self.least,
            self.going_on as f64 / self.damages as f64,
        );
    }
}

fn alive(truths: &BTreeMap<QueueId, Truth>) -> usize {
    truths
        .values()
        .filter(|truth| truth.state != State::Released)
        .count()
}

#[tokio::test]
async fn a_database_with_a_page_of_zeros_or_without_its_end_is_recovered() {
    let (template, truths) = template().await;
    let alive = alive(&truths);
    let (mut zeroed, mut cut) = (Sum::default(), Sum::default());
    let pages = page_count(template.path());
    for page in 0..pages {
        for zero in [true, false] {
            let place = copy(template.path());
            let path = place.path().join("queue.db");
            let mut bytes = fs::read(&path).unwrap();
            let at = usize::try_from(page).unwrap() * 4096;
            if zero {
                bytes[at..at + 4096].fill(0);
            } else {
                bytes.truncate(at + 1);
            }
            fs::write(&path, bytes).unwrap();
            let outcome = judge(place.path(), &truths, &format!("page {page}, zeros: {zero}")).await;
            // Large messages have their envelopes beside them.
            assert!(outcome.whole >= 5, "page {page}: {outcome:?}");
            if zero { &mut zeroed } else { &mut cut }.add(&outcome);
        }
    }
    zeroed.print("a page of zeros", alive);
    cut.print("cut off at a page", alive);
    assert!(
        zeroed.whole > zeroed.damages * (alive - 8),
        "most of the mail survives a page of zeros"
    );
}

#[tokio::test]
async fn a_database_with_wrong_octets_is_recovered_or_says_which_message_is_damaged() {
    let (template, truths) = template().await;
    let alive = alive(&truths);
    let mut sum = Sum::default();
    for seed in 0..60 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let place = copy(template.path());
        let path = place.path().join("queue.db");
        let mut bytes = fs::read(&path).unwrap();
        for _ in 0..1 + seed % 30 {
            let at = dice.usize(..bytes.len());
            bytes[at] = dice.u8(..);
        }
        fs::write(&path, bytes).unwrap();
        sum.add(&judge(place.path(), &truths, &format!("seed {seed}")).await);
    }
    sum.print("1 to 30 wrong octets", alive);
}

#[tokio::test]
async fn a_database_without_its_header_id_or_body_is_recovered() {
    let (template, truths) = template().await;
    let alive = alive(&truths);
    for (what, least) in [
        ("header", alive - 1),
        ("rubbish", 5),
        ("id", alive),
        ("other id", alive),
        ("empty", 5),
    ] {
        let place = copy(template.path());
        let path = place.path().join("queue.db");
        let mut bytes = fs::read(&path).unwrap();
        match what {
            "header" => bytes[..100].fill(0xff),
            "rubbish" => bytes.fill(0x5a),
            "id" => fs::remove_file(place.path().join("id")).unwrap(),
            "other id" => fs::write(place.path().join("id"), format!("{}\n", QueueId::new(NOW))).unwrap(),
            _ => bytes.clear(),
        }
        fs::write(&path, bytes).unwrap();
        let outcome = judge(place.path(), &truths, what).await;
        println!("{what}: {outcome:?}");
        assert!(outcome.whole >= least, "{what}: {outcome:?}");
        let corrupt = fs::read_dir(place.path().join("corrupt")).unwrap().count();
        assert!(corrupt > 0 || what.contains("id"), "{what}");
    }
}

/// Messages that were accepted one after the other, the database as it stood without a checkpoint, and how long the log
/// was after each.
async fn log_of_accepts(count: usize) -> (TempDir, BTreeMap<QueueId, Truth>, Vec<(QueueId, u64)>) {
    let directory = quick_directory();
    let spool = open(directory.path());
    let (mut truths, mut ends) = (BTreeMap::new(), Vec::new());
    for n in 0..count {
        let body = text(100 + 997 * n % 9000);
        let message = accept(&spool, &body, 1 + n % 3).await;
        let end = fs::metadata(directory.path().join("queue.db-wal")).unwrap().len();
        ends.push((message.id, end));
        let truth = Truth {
            message: message.clone(),
            body,
            state: State::Unplanned,
        };
        truths.insert(message.id, truth);
    }
    // As a kill leaves it: the log was not brought into the database.
    let killed = copy(directory.path());
    let _ = fs::remove_file(killed.path().join("queue.db-shm"));
    close(spool);
    (killed, truths, ends)
}

#[tokio::test]
async fn a_log_that_is_cut_off_anywhere_has_every_message_whose_commit_is_left() {
    let (killed, truths, ends) = log_of_accepts(12).await;
    let log = fs::read(killed.path().join("queue.db-wal")).unwrap();
    let frames = (log.len() - 32) / 4120;
    let mut states = 0;
    for frame in 0..=frames {
        for more in [0, 2000] {
            let length = (32 + frame * 4120 + more).min(log.len());
            let place = copy(killed.path());
            fs::write(place.path().join("queue.db-wal"), &log[..length]).unwrap();
            let spool = open(place.path());
            let committed: Vec<_> = ends.iter().filter(|(_, end)| *end <= length as u64).collect();
            assert_eq!(
                spool.swept().messages,
                committed.len() as u64,
                "frame {frame} + {more}"
            );
            assert!(spool.swept().recovered.is_none());
            for (id, _) in committed {
                let (message, body) = super::tests::read_back(&spool, *id).await;
                assert!(message == truths[id].message && body == truths[id].body);
            }
            close(spool);
            states += 1;
        }
    }
    println!("{frames} frames, {states} logs that were cut off");
    assert!(frames > 50);
}

#[tokio::test]
async fn a_log_with_a_wrong_bit_loses_no_message_that_was_committed_before_or_long_after() {
    let (killed, truths, ends) = log_of_accepts(12).await;
    let log = fs::read(killed.path().join("queue.db-wal")).unwrap();
    let frames = (log.len() - 32) / 4120;
    let (mut sum, mut missing) = (Sum::default(), 0);
    for frame in 0..frames {
        // In its number, its checksum, its page.
        for at in [[3, 17, 24 + 3000][frame % 3]] {
            let flipped = 32 + frame * 4120 + at;
            let mut log = log.clone();
            log[flipped] ^= 0x10;
            let place = copy(killed.path());
            fs::write(place.path().join("queue.db-wal"), &log).unwrap();
            let before = ends.iter().filter(|(_, end)| *end <= flipped as u64).count();
            let outcome = judge(place.path(), &truths, &format!("frame {frame}, octet {at}")).await;
            assert!(
                outcome.whole >= before,
                "frame {frame}: {outcome:?}, {before} before"
            );
            missing += truths.len() - outcome.whole;
            sum.add(&outcome);
        }
    }
    sum.print("one wrong bit in the log", truths.len());
    println!("{missing} messages missing in all");
    assert!(missing < 4 * sum.damages);
}

#[tokio::test]
async fn a_log_without_its_database_is_read_all_the_same() {
    let (killed, truths, _) = log_of_accepts(20).await;
    fs::remove_file(killed.path().join("queue.db")).unwrap();
    let outcome = judge(killed.path(), &truths, "no database").await;
    assert!(outcome.recovered && outcome.whole == 20, "{outcome:?}");
    assert!(killed.path().join("corrupt/queue.db-wal").exists());
}

#[tokio::test]
async fn a_recovery_that_is_cut_off_is_finished_by_the_next_start() {
    let (template, truths) = template().await;
    let alive = alive(&truths);
    let damage = |place: &Path| {
        let path = place.join("queue.db");
        let mut bytes = fs::read(&path).unwrap();
        bytes[..100].fill(0);
        fs::write(&path, bytes).unwrap();
    };
    for stage in 0..4 {
        let place = copy(template.path());
        damage(place.path());
        let files = super::spool_files::SpoolFiles::prepare(place.path(), Arc::new(RealDisk), 0).unwrap();
        if stage == 0 {
            // The new database was only begun.
            fs::write(place.path().join("queue.db.part"), "x").unwrap();
        } else {
            super::recover::recover(&files, [1; 16]).unwrap();
            fs::rename(place.path().join("queue.db"), place.path().join("queue.db.new")).unwrap();
            let aside = place.path().join("corrupt/queue.db");
            if stage == 1 {
                fs::rename(aside, place.path().join("queue.db")).unwrap();
            } else if stage == 2 {
                fs::write(place.path().join("queue.db-wal"), "").unwrap();
            }
        }
        let outcome = judge(place.path(), &truths, &format!("stage {stage}")).await;
        assert!(outcome.whole >= alive - 1, "stage {stage}: {outcome:?}");
        for name in ["queue.db.part", "queue.db.new"] {
            assert!(!place.path().join(name).exists());
        }
        assert!(place.path().join("corrupt/queue.db").exists());
    }
}

#[tokio::test]
async fn a_large_message_without_a_row_is_held_and_one_without_an_envelope_is_set_aside() {
    let directory = quick_directory();
    let spool = open(directory.path());
    let kept = accept(&spool, &text(INLINE_LIMIT + 1), 2).await;
    let bare = accept(&spool, &text(INLINE_LIMIT + 2), 2).await;
    close(spool);
    fs::write(directory.path().join("queue.db"), "rubbish".repeat(2000)).unwrap();
    for path in body_files(directory.path()) {
        if path.ends_with(format!("{}.env", bare.id)) {
            fs::remove_file(path).unwrap();
        }
    }
    let spool = open(directory.path());
    let recovered = spool.swept().recovered.clone().unwrap();
    assert_eq!((recovered.from_files, spool.swept().set_aside), (1, 1));
    assert_eq!(spool.store().message(kept.id).await.unwrap().0, kept);
    plan(&spool, kept.id, 2).await;
    let far = Timestamp::from_millis(i64::MAX / 2);
    let agenda = spool
        .store()
        .agenda(far, 9, |_| Slots::Oldest { take: 9, skip: 0 })
        .await
        .unwrap();
    assert!(
        agenda.due.is_empty() && agenda.unplanned.is_empty(),
        "it waits for a person"
    );
}
