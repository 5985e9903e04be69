//! What holds whatever the disk does: each step failing, and every state that a power loss may leave.

use super::memory_disk::{Fault, FaultKind, Image, Journal, MemoryDisk, Note, Outline, Step};
use super::tests::{close, envelope, origin, plan, read_back, settings, settlement, text};
use super::*;
use crate::clock::Clock;
use crate::mail::QueueId;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// Octets of the reserve: enough to fail at.
const SMALL_RESERVE: u64 = 10;

/// Octets of a message that lies in the database, and of one that lies in a file.
const SMALL: usize = 300;
const LARGE: usize = INLINE_LIMIT + 1000;

/// In memory where that can be had: what SQLite syncs here is not what is tested.
pub(super) fn quick_directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| TempDir::new().unwrap())
}

fn open(disk: &MemoryDisk, directory: &Path) -> Result<Spool, SpoolError> {
    Spool::open_on(
        Arc::new(disk.clone()),
        SMALL_RESERVE,
        &settings(directory),
        Clock::machine(),
    )
}

/// One message of a script, what it holds, and what is known of it.
struct Story {
    id: QueueId,
    body: Vec<u8>,
    /// `None` as long as nobody was told.
    accepted: Option<bool>,
    releasing: bool,
    released: bool,
}

impl Story {
    fn is_owed(&self) -> bool {
        self.accepted == Some(true) && !self.releasing
    }

    fn must_be_gone(&self) -> bool {
        self.accepted == Some(false) || self.released
    }
}

/// Which messages a spool holds that was opened anew. Each must be whole, and nothing else may be there.
async fn look(spool: &Spool, disk: &MemoryDisk, sent: &[(QueueId, &[u8])]) -> Result<Vec<bool>, String> {
    let mut there = Vec::new();
    let mut files = 0;
    for (n, (id, body)) in sent.iter().enumerate() {
        match spool.store().message(*id).await {
            Ok(_) => {
                let (message, found) = read_back(spool, *id).await;
                if found != *body || message.envelope != envelope(1) || message.origin != origin() {
                    return Err(format!("message {n} is not what was sent"));
                }
                there.push(true);
                files += 2 * usize::from(body.len() > INLINE_LIMIT);
            }
            Err(StoreError::Unknown(_)) => there.push(false),
            Err(error) => return Err(format!("message {n}: {error}")),
        }
    }
    let messages = there.iter().filter(|there| **there).count() as u64;
    if spool.swept().messages != messages {
        return Err(format!(
            "{} messages instead of {messages}",
            spool.swept().messages
        ));
    }
    let names: Vec<_> = disk.image().into_keys().collect();
    let below = |what: &str| {
        names
            .iter()
            .filter(|path| path.to_string_lossy().contains(what))
            .count()
    };
    if below("/body/") != files || below("/corrupt/") != 0 {
        return Err(format!("files are left over or set aside: {names:?}"));
    }
    Ok(there)
}

/// Compares what is there with what was promised. Says what is wrong.
fn judge(there: &[bool], stories: &[Story]) -> Result<(), String> {
    for (n, (there, story)) in there.iter().zip(stories).enumerate() {
        match there {
            true if story.must_be_gone() => return Err(format!("message {n} is there again")),
            false if story.is_owed() => return Err(format!("message {n} is lost")),
            _ => {}
        }
    }
    Ok(())
}

fn sent(stories: &[Story]) -> Vec<(QueueId, &[u8])> {
    stories.iter().map(|story| (story.id, &story.body[..])).collect()
}

/// Receives a message in two pieces.
async fn send(spool: &Spool, stories: &mut Vec<Story>, octets: usize) -> bool {
    let body = text(octets);
    let mut draft = spool.intake().begin();
    let id = draft.id();
    let (first, second) = body.split_at(octets - octets / 3);
    let sent = async {
        draft.write(first).await?;
        draft.write(second).await?;
        draft.accept(envelope(1), origin()).await
    };
    let accepted = sent.await.is_ok();
    stories.push(Story {
        id,
        body,
        accepted: Some(accepted),
        releasing: false,
        released: false,
    });
    accepted
}

async fn release(spool: &Spool, story: &mut Story) {
    if story.accepted == Some(true) {
        story.releasing = true;
        let part = plan(spool, story.id, 1).await;
        let settled = spool
            .store()
            .settle(settlement(part, Next::Ended, &[Fate::Relayed]))
            .await;
        story.released = settled.is_ok();
    }
}

/// A life of a spool in which every step of a file occurs.
async fn life(disk: &MemoryDisk, directory: &Path, stories: &mut Vec<Story>, once: bool) {
    let spool = match open(disk, directory) {
        Ok(spool) => spool,
        // The second start must succeed if only one step failed.
        Err(error) => match open(disk, directory) {
            Ok(spool) => spool,
            Err(again) => {
                assert!(!once, "{error}; then {again}");
                return;
            }
        },
    };
    send(&spool, stories, SMALL).await;
    send(&spool, stories, LARGE).await;
    release(&spool, &mut stories[1]).await;
    let mut dropped = spool.intake().begin();
    let _ = dropped.write(&text(LARGE)).await;
    drop(dropped);
    send(&spool, stories, LARGE).await;
    if let Ok((_, body)) = spool.store().message(stories[2].id).await {
        let _ = body.beginning(100);
        let _ = body.pieces(10);
    }
    let last_was_good = send(&spool, stories, LARGE).await;
    let refused = stories
        .iter()
        .filter(|story| story.accepted == Some(false))
        .count();
    assert!(!once || refused <= 1, "one fault refuses one message");
    assert!(!once || refused == 0 || last_was_good || stories[2].accepted == Some(true));
    close(spool);
}

#[tokio::test]
async fn a_step_that_fails_once_or_for_good_loses_nothing_and_leaves_no_ghost() {
    let clean = MemoryDisk::new(Image::new(), Path::new(""));
    let directory = quick_directory();
    let mut stories = Vec::new();
    life(&clean, directory.path(), &mut stories, true).await;
    assert!(stories.iter().all(|story| story.accepted == Some(true)));
    let steps = clean.taken();
    let shard = |step: &str| step.len() == 2 && step != "00" && step != "3f";
    let mut tried = 0;
    for (at, step) in steps.iter().enumerate() {
        let (name, file) = step.split_once(' ').unwrap();
        // One shard is like the other.
        if matches!(name, "make_directory" | "list") && shard(file) {
            continue;
        }
        for kind in [
            FaultKind::Broken,
            FaultKind::Full,
            FaultKind::FullHalfway,
            FaultKind::Short,
        ] {
            if matches!(kind, FaultKind::FullHalfway | FaultKind::Short) && name != "write" {
                continue;
            }
            for lasting in [false, true] {
                tried += 1;
                let what = format!("step {at} ({step}) fails with {kind:?}, lasting: {lasting}");
                let directory = quick_directory();
                let disk = MemoryDisk::new(Image::new(), Path::new(""));
                disk.set_fault(Some(Fault { at, kind, lasting }));
                let mut stories = Vec::new();
                life(&disk, directory.path(), &mut stories, !lasting).await;
                disk.set_fault(None);
                let spool = open(&disk, directory.path()).unwrap();
                let there = look(&spool, &disk, &sent(&stories)).await;
                if let Err(wrong) = there.and_then(|there| judge(&there, &stories)) {
                    panic!("{wrong}: {what}");
                }
                assert!(send(&spool, &mut stories, LARGE).await, "{what}");
                close(spool);
            }
        }
    }
    println!("{tried} faults at {} steps", steps.len());
    assert!(tried > 100);
}

/// One step of a script.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Begin a message of so many octets; the next number is its name.
    Begin(usize),
    /// Write the first part of it.
    Write(usize),
    Accept(usize),
    Drop(usize),
    Release(usize),
}

/// Scripts of up to ten steps; those of one message, of two one after the other, of two and three at once.
fn scripts() -> Vec<Vec<Act>> {
    use Act::{Accept, Begin, Drop, Release, Write};
    let mut scripts = Vec::new();
    for size in [SMALL, LARGE] {
        scripts.push(vec![Begin(size), Write(0), Accept(0), Release(0)]);
        scripts.push(vec![Begin(size), Write(0), Drop(0)]);
        for other in [SMALL, LARGE] {
            scripts.push(vec![
                Begin(size),
                Write(0),
                Accept(0),
                Begin(other),
                Write(1),
                Accept(1),
                Release(0),
                Release(1),
            ]);
            scripts.push(vec![
                Begin(size),
                Begin(other),
                Write(0),
                Write(1),
                Accept(1),
                Release(1),
                Accept(0),
                Release(0),
            ]);
            scripts.push(vec![
                Begin(size),
                Write(0),
                Begin(other),
                Write(1),
                Drop(0),
                Accept(1),
                Begin(LARGE),
                Write(2),
                Accept(2),
                Release(1),
            ]);
        }
    }
    scripts.push(vec![
        Begin(LARGE),
        Begin(LARGE),
        Begin(LARGE),
        Write(2),
        Write(1),
        Write(0),
        Accept(0),
        Drop(1),
        Accept(2),
        Release(0),
    ]);
    scripts
}

/// Plays a script on a disk that writes a journal.
async fn play(script: &[Act], disk: &MemoryDisk, spool: &Spool) -> Vec<(QueueId, Vec<u8>)> {
    assert!(script.len() <= 10);
    let mut drafts: Vec<Option<Draft>> = Vec::new();
    let mut messages: Vec<(QueueId, Vec<u8>)> = Vec::new();
    for act in script {
        match *act {
            Act::Begin(octets) => {
                let draft = spool.intake().begin();
                messages.push((draft.id(), text(octets)));
                drafts.push(Some(draft));
            }
            Act::Write(n) => {
                let body = &messages[n].1;
                let draft = drafts[n].as_mut().unwrap();
                draft.write(&body[..body.len() - body.len() / 100]).await.unwrap();
            }
            Act::Accept(n) => {
                let body = &messages[n].1;
                let mut draft = drafts[n].take().unwrap();
                draft.write(&body[body.len() - body.len() / 100..]).await.unwrap();
                draft.accept(envelope(1), origin()).await.unwrap();
                disk.note(Note::Accepted(n));
            }
            Act::Drop(n) => {
                drafts[n] = None;
                disk.note(Note::Refused(n));
            }
            Act::Release(n) => {
                let part = plan(spool, messages[n].0, 1).await;
                disk.note(Note::Releasing(n));
                spool
                    .store()
                    .settle(settlement(part, Next::Ended, &[Fate::Relayed]))
                    .await
                    .unwrap();
                disk.note(Note::Released(n));
            }
        }
    }
    messages
}

/// What was known to the outside after the first `length` steps.
fn known(journal: &Journal, length: usize, messages: &[(QueueId, Vec<u8>)]) -> Vec<Story> {
    let mut stories: Vec<Story> = messages
        .iter()
        .map(|(id, body)| Story {
            id: *id,
            body: body.clone(),
            accepted: None,
            releasing: false,
            released: false,
        })
        .collect();
    for step in &journal.steps[..length] {
        match step {
            Step::Note(Note::Accepted(n)) => stories[*n].accepted = Some(true),
            Step::Note(Note::Refused(n)) => stories[*n].accepted = Some(false),
            Step::Note(Note::Releasing(n)) => stories[*n].releasing = true,
            Step::Note(Note::Released(n)) => stories[*n].released = true,
            _ => {}
        }
    }
    stories
}

/// What a start finds on a disk like this, beside a database like this.
async fn start_from(
    image: &Image,
    database: &[Vec<u8>; 2],
    formerly: &TempDir,
    messages: &[(QueueId, Vec<u8>)],
) -> Result<Vec<bool>, String> {
    let place = quick_directory();
    for (name, bytes) in ["queue.db", "queue.db-wal"].iter().zip(database) {
        std::fs::write(place.path().join(name), bytes).unwrap();
    }
    let moved = image.iter().map(|(path, content)| {
        let path = path.strip_prefix(formerly.path()).unwrap();
        (place.path().join(path), content.clone())
    });
    let after = MemoryDisk::new(moved.collect(), Path::new(""));
    let spool = open(&after, place.path()).unwrap();
    let sent: Vec<_> = messages.iter().map(|(id, body)| (*id, &body[..])).collect();
    let there = look(&spool, &after, &sent).await;
    close(spool);
    there
}

/// The power fails after each step of a script; of the steps that were not synced each subset came on the disk; the
/// commit that was under way, if one was, is durable or not.
#[tokio::test]
async fn every_state_that_a_power_loss_may_leave_keeps_what_was_promised() {
    let (mut tried, mut different, mut most) = (0u64, 0, 0);
    let scripts = scripts();
    for script in &scripts {
        let directory = quick_directory();
        let first = MemoryDisk::new(Image::new(), directory.path());
        close(open(&first, directory.path()).unwrap());
        let before = first.image();
        let disk = MemoryDisk::new(before.clone(), directory.path());
        let spool = open(&disk, directory.path()).unwrap();
        let messages = play(script, &disk, &spool).await;
        let journal = disk.journal();
        close(spool);
        let mut seen: HashMap<(Outline, usize), Result<Vec<bool>, String>> = HashMap::new();
        for length in 0..=journal.steps.len() {
            let stories = known(&journal, length, &messages);
            let unsynced = journal.unsynced(length);
            most = most.max(unsynced.len());
            assert!(unsynced.len() <= 16, "{} steps to undo", unsynced.len());
            // The commit that came with the next step may have been durable a moment before it.
            let moments = [length.saturating_sub(1), length.min(journal.at.len() - 1)];
            let databases = BTreeSet::from(moments.map(|moment| journal.at[moment]));
            for subset in 0u32..1 << unsynced.len() {
                let chosen = |n: &usize| subset >> n & 1 == 1;
                let undone = (0..unsynced.len()).filter(chosen).map(|n| unsynced[n]).collect();
                let outline = journal.outline(&before, length, &undone);
                for &database in &databases {
                    tried += 1;
                    let key = (outline.clone(), database);
                    if !seen.contains_key(&key) {
                        let image = journal.image(&before, &outline);
                        let there =
                            start_from(&image, &journal.databases[database], &directory, &messages).await;
                        seen.insert(key.clone(), there);
                    }
                    let there = seen[&key].as_ref();
                    if let Err(wrong) = there
                        .map_err(String::clone)
                        .and_then(|there| judge(there, &stories))
                    {
                        panic!(
                            "{wrong} after {:?}\nscript {script:?}\nundone {undone:?}, database {database}",
                            &journal.steps[..length]
                        );
                    }
                }
            }
        }
        different += seen.len();
    }
    println!(
        "{} scripts: {tried} states after a power loss, {different} of them different; up to {most} steps undone",
        scripts.len()
    );
    assert!(tried > 1000 && different > 100);
}
