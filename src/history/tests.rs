//! The history as a whole: nothing missing and nothing doubled whatever fails between its steps, what is found and what
//! is forgotten, and what people read.

use super::archive::{Archive, Target};
use super::feed::{Feed, Outbox};
use super::keeper::{Keeper, KeeperSettings};
use super::story::{RecipientStory, Story};
use super::{json, text};
use crate::clock::Clock;
use crate::db::history::HistoryReader;
use crate::db::history::record::PastFate;
use crate::mail::QueueId;
use crate::mail::Timestamp;
use crate::spool::StoreError;
use crate::telemetry::Event;
use crate::telemetry::event::{
    Accepted, Acted, Action, Attempted, Outcome, PartPlanned, Reported, Then, What,
};
use proptest::prelude::*;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const NOON: Timestamp = Timestamp::from_millis(1_795_250_820_000);

const DAY: Duration = Duration::from_secs(86_400);

fn later(seconds: u64) -> Timestamp {
    NOON.plus(Duration::from_secs(seconds))
}

fn keeper(dir: &TempDir) -> Keeper {
    Keeper::new(KeeperSettings {
        path: super::database(dir.path()),
        keep: 90 * DAY,
        max_size: 1 << 30,
    })
}

/// One that can never be opened: its directory is a file.
fn unusable(dir: &TempDir) -> Keeper {
    std::fs::write(dir.path().join("file"), b"").unwrap();
    Keeper::new(KeeperSettings {
        path: dir.path().join("file/history.db"),
        keep: DAY,
        max_size: 1,
    })
}

fn accepted(at: Timestamp, from: &str, to: &[&str]) -> Event {
    let what = What::Accepted(Accepted {
        arrived: at,
        from: Some(from.to_owned()).filter(|from| !from.is_empty()),
        to: to.iter().map(ToString::to_string).collect(),
        size: 48_213,
        client: "10.0.3.7".to_owned(),
        listener: "local".to_owned(),
        user: None,
        tls: false,
        message_id: Some("<Scan.12@printer>".to_owned()),
        subject: Some("Scan 12".to_owned()),
        parts: vec![PartPlanned {
            account: "office".to_owned(),
            mailbox: "scanner@contoso.example".to_owned(),
            recipients: (0..to.len()).collect(),
            changes: "none".to_owned(),
        }],
    });
    Event::new(at, Some(QueueId::new(at)), what)
}

fn attempted(of: &Event, at: Timestamp, number: u32, recipients: &[usize], outcome: Outcome) -> Event {
    let What::Accepted(message) = &of.what else {
        panic!("an attempt is made at a message");
    };
    let relayed = outcome == Outcome::Relayed;
    let what = What::Attempted(Attempted {
        part: 0,
        account: "office".to_owned(),
        mailbox: "scanner@contoso.example".to_owned(),
        number,
        recipients: recipients.iter().map(|n| (*n, message.to[*n].clone())).collect(),
        outcome,
        status: if relayed { "" } else { "4.3.2" }.to_owned(),
        cause: if relayed {
            ""
        } else {
            "the server is busy: nothing is to be done"
        }
        .to_owned(),
        upstream: if relayed {
            "request-id=11-22".to_owned()
        } else {
            "503 ServiceUnavailable: later (request-id=33-44)".to_owned()
        },
        age: 1_000,
        took: Some(2_100),
        next: match outcome {
            Outcome::Relayed => Then::Done,
            Outcome::Failed => Then::DeadLetter,
            Outcome::Held => Then::Person,
            Outcome::Deferred | Outcome::Uncertain => Then::Due(at.plus(Duration::from_secs(30))),
        },
    });
    Event::new(at, of.message, what)
}

fn acted(of: &Event, at: Timestamp, action: Action) -> Event {
    let by = "root".to_owned();
    Event::new(at, of.message, What::Acted(Acted { action, by }))
}

fn numbered(events: &[Event]) -> Vec<(i64, String)> {
    (1..).zip(events.iter().map(Event::to_json)).collect()
}

fn archive(dir: &TempDir) -> Archive {
    Archive::open(&super::database(dir.path()), Path::new("/nonexistent/queue.db")).unwrap()
}

fn found(dir: &TempDir, target: &str) -> Vec<Story> {
    let target: Target = target.parse().unwrap();
    let beginning = Timestamp::from_millis(0);
    archive(dir).search(&target, beginning, 100).unwrap().stories
}

fn outcomes(recipients: &[RecipientStory]) -> Vec<(PastFate, u32)> {
    recipients.iter().map(|r| (r.fate, r.outcomes)).collect()
}

/// An outbox of which any step can fail, before it was done or after.
#[derive(Clone, Default)]
struct Shaky(Arc<Mutex<Shelf>>);

#[derive(Default)]
struct Shelf {
    rows: Vec<(i64, String)>,
    read_fails: bool,
    forget_fails: Option<Done>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Before,
    After,
}

impl Outbox for Shaky {
    async fn news(&self) {}

    async fn oldest(&self, limit: usize) -> Result<Vec<(i64, String)>, StoreError> {
        let mut shelf = self.0.lock().unwrap();
        if std::mem::take(&mut shelf.read_fails) {
            return Err(StoreError::Closing);
        }
        Ok(shelf.rows.iter().take(limit).cloned().collect())
    }

    async fn forget(&self, last: i64) -> Result<(), StoreError> {
        let mut shelf = self.0.lock().unwrap();
        let fails = shelf.forget_fails.take();
        if fails != Some(Done::Before) {
            shelf.rows.retain(|(id, _)| *id > last);
        }
        match fails {
            Some(_) => Err(StoreError::Closing),
            None => Ok(()),
        }
    }
}

/// Whatever fails between reading, committing and forgetting, and wherever the program is killed: in the end the history
/// has one final outcome for each recipient, and each event once.
#[tokio::test]
async fn nothing_is_missing_and_nothing_doubled_after_any_failure_between_the_steps() {
    let mut dice = fastrand::Rng::with_seed(7);
    let dir = TempDir::new().unwrap();
    let (shaky, mut id, mut messages) = (Shaky::default(), 0, Vec::new());
    let mut feed = Feed::new(shaky.clone(), keeper(&dir), Clock::machine());
    let mut kills = [0; 6];
    for round in 0..400u64 {
        let message = accepted(later(round), "a@x.example", &["b@y.example", "c@y.example"]);
        let events = [
            message.clone(),
            attempted(&message, later(round + 1), 1, &[0, 1], Outcome::Deferred),
            attempted(&message, later(round + 2), 2, &[0], Outcome::Relayed),
            attempted(&message, later(round + 2), 2, &[1], Outcome::Failed),
        ];
        let failure = dice.usize(..kills.len());
        kills[failure] += 1;
        {
            let mut shelf = shaky.0.lock().unwrap();
            for event in &events {
                // A settlement that is written twice, because its COMMIT was not heard, tells twice.
                for _ in 0..dice.i64(1..3) {
                    id += 1;
                    shelf.rows.push((id, event.to_json()));
                }
            }
            match failure {
                1 => shelf.read_fails = true,
                2 => shelf.forget_fails = Some(Done::Before),
                3 => shelf.forget_fails = Some(Done::After),
                _ => {}
            }
        }
        let mut keeper = keeper(&dir);
        match failure {
            4 => keeper = unusable(&dir),
            // Whether this is too little depends on what is free within the pages.
            5 => keeper.limit_pages(1),
            _ => {}
        }
        messages.push(message);
        if failure == 0 {
            feed.pass().await.unwrap();
        } else {
            // Killed: the next run knows nothing but what is on the disk.
            feed = Feed::new(shaky.clone(), keeper, Clock::machine());
            assert!(feed.pass().await.is_err() || failure == 5);
            feed = Feed::new(shaky.clone(), self::keeper(&dir), Clock::machine());
        }
    }
    while feed.pass().await.unwrap() > 0 {}
    assert!(kills.iter().all(|count| *count > 30), "{kills:?}");
    let history = HistoryReader::open(&super::database(dir.path()))
        .unwrap()
        .unwrap();
    for message in messages {
        let id = message.message.unwrap();
        let past = history.past(id).unwrap().unwrap();
        let once: Vec<(PastFate, u32)> = past.recipients.iter().map(|r| (r.fate, r.outcomes)).collect();
        assert_eq!(once, [(PastFate::Relayed, 1), (PastFate::Failed, 1)]);
        assert_eq!(past.events.len(), 4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The tables of the history and the story that is told come from the same events by two ways.
    #[test]
    fn the_tables_and_the_story_agree(steps in proptest::collection::vec((0..9usize, 0..4usize), 0..14)) {
        let dir = TempDir::new().unwrap();
        let message = accepted(NOON, "a@x.example", &["b@y.example", "c@y.example", "d@z.example"]);
        let mut events = vec![message.clone()];
        for (n, (kind, whom)) in (1u32..).zip(steps) {
            let at = later(u64::from(n));
            let whom: &[usize] = [&[0][..], &[1], &[2], &[0, 2]][whom];
            events.push(match kind {
                0 => attempted(&message, at, n, whom, Outcome::Relayed),
                1 => attempted(&message, at, n, whom, Outcome::Deferred),
                2 => attempted(&message, at, n, whom, Outcome::Failed),
                3 => attempted(&message, at, n, whom, Outcome::Uncertain),
                4 => acted(&message, at, Action::Retry),
                5 => acted(&message, at, Action::Bounce),
                6 => acted(&message, at, Action::Delete),
                7 => acted(&message, at, Action::Import),
                _ => Event { id: QueueId::new(at), at, ..message.clone() },
            });
        }
        let id = message.message.unwrap();
        keeper(&dir).take(&numbered(&events)).unwrap();
        let past = HistoryReader::open(&super::database(dir.path())).unwrap().unwrap().past(id).unwrap().unwrap();
        let tables: Vec<_> = past.recipients.iter().map(|r| (r.fate, r.outcomes, r.at)).collect();
        let told = Story::new(id, events.clone(), None);
        let story: Vec<_> = told.recipients.iter().map(|r| (r.fate, r.outcomes, r.at)).collect();
        prop_assert_eq!(tables, story);
        prop_assert_eq!(&found(&dir, "b@y.example")[0], &told, "and both tell the same");
    }
}

#[test]
fn messages_are_found_by_what_people_know_of_them() {
    let dir = TempDir::new().unwrap();
    let first = accepted(NOON, "Printer@X.example", &["bob@y.example"]);
    let second = accepted(later(60), "", &["Carol@Sub.Y.example", "printer@x.example"]);
    let third = accepted(later(120), "dora@z.example", &["BOB@Y.EXAMPLE"]);
    let attempt = attempted(&third, later(121), 1, &[0], Outcome::Relayed);
    let events = [first.clone(), second.clone(), third.clone(), attempt];
    keeper(&dir).take(&numbered(&events)).unwrap();
    let [first, second, third] = [first, second, third].map(|event| event.message.unwrap());
    for (target, expected) in [
        ("bob@y.example", vec![third, first]),
        ("printer@x.example", vec![second, first]),
        ("@y.example", vec![third, first]),
        ("@SUB.y.example", vec![second]),
        ("@example", vec![]),
        ("<Scan.12@printer>", vec![third, second, first]),
        ("Scan.12@printer", vec![third, second, first]),
        ("scan.12@printer", vec![]),
        ("10.0.3.7", vec![third, second, first]),
        ("::ffff:10.0.3.7", vec![third, second, first]),
        ("10.0.3.8", vec![]),
        (&second.to_string(), vec![second]),
        (&second.to_string().to_uppercase()[..20], vec![second]),
        ("ffff", vec![]),
    ] {
        let ids: Vec<QueueId> = found(&dir, target).iter().map(|story| story.id).collect();
        assert_eq!(ids, expected, "{target}");
    }
    let search = |since, limit| {
        let found = archive(&dir)
            .search(&"10.0.3.7".parse().unwrap(), since, limit)
            .unwrap();
        (
            found.stories.iter().map(|story| story.id).collect::<Vec<_>>(),
            found.more,
        )
    };
    assert_eq!(search(later(60), 9), (vec![third, second], false));
    assert_eq!(search(NOON, 2), (vec![third, second], true));
    for nonsense in ["", "@", "@a@b", "<>"] {
        assert!(nonsense.parse::<Target>().is_err(), "{nonsense}");
    }
}

#[test]
fn a_damaged_history_is_set_aside_and_a_new_one_begins() {
    let dir = TempDir::new().unwrap();
    let path = super::database(dir.path());
    let message = accepted(NOON, "a@x.example", &["b@y.example"]);
    keeper(&dir)
        .take(&numbered(std::slice::from_ref(&message)))
        .unwrap();
    std::fs::write(&path, b"this is not a database, whatever its name says").unwrap();
    let attempt = attempted(&message, later(1), 1, &[0], Outcome::Relayed);
    keeper(&dir).take(&numbered(&[attempt])).unwrap();
    let stories = found(&dir, "b@y.example");
    assert_eq!(outcomes(&stories[0].recipients), [(PastFate::Relayed, 1)]);
    assert!(stories[0].accepted.is_none(), "what was lost is not made up");
    let aside = std::fs::read(dir.path().join("history.db.damaged")).unwrap();
    assert!(aside.starts_with(b"this is not"));
}

#[cfg(unix)]
#[test]
fn only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let mut keeper = keeper(&dir);
    keeper
        .take(&numbered(&[accepted(NOON, "a@x.example", &["b@y.example"])]))
        .unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let mode = entry.as_ref().unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{entry:?}");
    }
}

#[test]
fn a_full_disk_changes_nothing_and_is_over_when_it_is_over() {
    let dir = TempDir::new().unwrap();
    let mut full = keeper(&dir);
    full.limit_pages(12);
    let events: Vec<Event> = (0..500)
        .map(|n| accepted(later(n), "a@x.example", &["b@y.example"]))
        .collect();
    full.take(&numbered(&events[..1])).unwrap();
    full.limit_pages(12);
    assert!(full.take(&numbered(&events)).is_err());
    assert_eq!(found(&dir, "a@x.example").len(), 1, "all or none");
    full.take(&numbered(&events)).unwrap();
    assert_eq!(found(&dir, "a@x.example").len(), 100);
}

#[test]
fn old_messages_are_forgotten_and_those_that_are_not_done_later() {
    let dir = TempDir::new().unwrap();
    let done = accepted(NOON, "a@x.example", &["b@y.example"]);
    let open = accepted(later(1), "a@x.example", &["b@y.example"]);
    let new = accepted(NOON.plus(80 * DAY), "a@x.example", &["b@y.example"]);
    let attempt = attempted(&done, later(1), 1, &[0], Outcome::Relayed);
    let mut keeper = keeper(&dir);
    keeper
        .take(&numbered(&[done.clone(), attempt, open.clone(), new.clone()]))
        .unwrap();
    for (day, expected) in [
        (89, vec![&new, &open, &done]),
        (91, vec![&new, &open]),
        (181, vec![&new]),
    ] {
        while keeper
            .purge(NOON.plus(day * DAY).plus(Duration::from_secs(9)))
            .unwrap()
        {}
        let left: Vec<QueueId> = found(&dir, "a@x.example").iter().map(|story| story.id).collect();
        let expected: Vec<QueueId> = expected.iter().map(|event| event.message.unwrap()).collect();
        assert_eq!(left, expected, "day {day}");
    }
}

#[test]
fn a_history_that_is_too_large_forgets_the_oldest_and_its_file_shrinks() {
    let dir = TempDir::new().unwrap();
    let path = super::database(dir.path());
    let events: Vec<Event> = (0..3000)
        .map(|n| accepted(later(n), "a@x.example", &["b@y.example"]))
        .collect();
    let max_size = 400 * 1024;
    let mut keeper = Keeper::new(KeeperSettings {
        path: path.clone(),
        keep: 90 * DAY,
        max_size,
    });
    keeper.take(&numbered(&events)).unwrap();
    while keeper.purge(later(3000)).unwrap() {}
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size <= max_size, "{size} octets");
    drop(keeper);
    let left = found(&dir, "a@x.example");
    assert_eq!(left[0].id, events[2999].message.unwrap(), "the newest are there");
}

/// An import is told before how the message goes out is decided; what was done with it before is another life.
#[test]
fn an_imported_message_has_one_outcome_in_its_new_life() {
    let dir = TempDir::new().unwrap();
    let message = accepted(NOON, "a@x.example", &["b@y.example"]);
    let again = Event {
        id: QueueId::new(later(9)),
        ..message.clone()
    };
    let life = [
        acted(&message, later(0), Action::Import),
        message.clone(),
        attempted(&message, later(1), 1, &[0], Outcome::Relayed),
        acted(&message, later(9), Action::Import),
        again,
        attempted(&message, later(10), 1, &[0], Outcome::Failed),
    ];
    for (events, fate) in [(3, PastFate::Relayed), (6, PastFate::Failed)] {
        keeper(&dir).take(&numbered(&life[..events])).unwrap();
        let story = found(&dir, "b@y.example").remove(0);
        assert!(story.accepted.is_some());
        assert_eq!(outcomes(&story.recipients), [(fate, 1)]);
    }
}

#[test]
fn an_event_that_nobody_can_read_keeps_nothing_else_away() {
    let dir = TempDir::new().unwrap();
    let mut outbox = numbered(&[accepted(NOON, "a@x.example", &["b@y.example"])]);
    outbox.insert(0, (0, "{\"what\":{\"invented_later\":{}}}".to_owned()));
    keeper(&dir).take(&outbox).unwrap();
    assert_eq!(found(&dir, "a@x.example").len(), 1);
}

/// A message with everything that can happen to it, as people read it.
#[test]
fn a_story_in_plain_language() {
    let mut message = accepted(NOON, "printer@x.example", &["bob@y.example", "carol@y.example"]);
    message.message = Some("019d0000-0000-7000-8000-000000000001".parse().unwrap());
    let report = "019d0000-0000-7000-8000-000000000002".parse().unwrap();
    let reported = What::Reported(Reported {
        action: "failed".to_owned(),
        to: Some("printer@x.example".to_owned()),
        report: Some(report),
        why_not: String::new(),
    });
    let mut events = vec![
        message.clone(),
        attempted(&message, later(1), 1, &[0, 1], Outcome::Deferred),
        attempted(&message, later(31), 2, &[0], Outcome::Relayed),
        attempted(&message, later(31), 2, &[1], Outcome::Failed),
        Event::new(later(31), message.message, reported),
        acted(&message, later(99), Action::Retry),
    ];
    let told = |events: &[Event]| text(&Story::new(message.message.unwrap(), events.to_vec(), None));
    assert_eq!(
        told(&events[..5]),
        "\
message 019d0000000070008000000000000001, \"Scan 12\"
  2026-11-21T08:47:00.000Z  accepted from <printer@x.example> for <bob@y.example>, <carol@y.example>
                            48213 octets, by client 10.0.3.7 at listener local, without TLS
                            Message-ID <Scan.12@printer>
                            to be sent by account office as mailbox scanner@contoso.example
  2026-11-21T08:47:01.000Z  not yet: the server is busy: nothing is to be done
                            for <bob@y.example>, <carol@y.example>, attempt 1 by account office as mailbox scanner@contoso.example, answered after 2.100 s
                            status 4.3.2; the words of the other side: 503 ServiceUnavailable: later (request-id=33-44)
                            next try at 2026-11-21T08:47:31.000Z
  2026-11-21T08:47:31.000Z  handed to Microsoft 365 for <bob@y.example>
                            by account office as mailbox scanner@contoso.example, attempt 2, answered after 2.100 s
                            its words: request-id=11-22
  2026-11-21T08:47:31.000Z  failed: the server is busy: nothing is to be done
                            for <carol@y.example>, attempt 2 by account office as mailbox scanner@contoso.example, answered after 2.100 s
                            status 4.3.2; the words of the other side: 503 ServiceUnavailable: later (request-id=33-44)
                            kept as a dead letter: when the cause is gone, `smtp-oauth-bridge queue retry 019d0000000070008000000000000001` sends it again
  2026-11-21T08:47:31.000Z  a report (failed) goes to <printer@x.example> as message 019d0000000070008000000000000002
  now                       <bob@y.example>: handed over; what happened to it after that is not known here
  now                       <carol@y.example>: failed
"
    );
    let again = told(&events);
    assert!(again.contains("sent on its way again by root"), "{again}");
    let end = "  now                       <carol@y.example>: not in the queue any more, and its end is not in the history\n";
    assert!(again.ends_with(end), "{again}");
    events.remove(0);
    let lost = told(&events[..2]);
    assert!(lost.contains("how it was accepted is not known"), "{lost}");
}

#[test]
fn a_story_for_programs() {
    let message = accepted(NOON, "", &["bob@y.example"]);
    let attempt = attempted(&message, later(1), 1, &[0], Outcome::Relayed);
    let story = Story::new(message.message.unwrap(), [message.clone(), attempt], None);
    let value: serde_json::Value = serde_json::from_str(&json(&story)).unwrap();
    assert_eq!(value["from"], serde_json::Value::Null);
    assert_eq!(value["arrived"], "2026-11-21T08:47:00.000Z");
    assert_eq!(value["recipients"][0]["fate"], "relayed");
    assert_eq!(value["recipients"][0]["outcomes"], 1);
    assert_eq!(value["events"][0]["outcome"], "relayed");
    assert_eq!(value["events"][0]["upstream"], "request-id=11-22");
    assert_eq!(value["events"][0]["took_ms"], 2100);
    assert_eq!(value["queue"], serde_json::Value::Null);
}
