//! From the queue into the history, with a real spool, a real runner and an upstream that follows a script.

use crate::delivery::{Bridge, MESSAGE, start};
use crate::support::{accept, eventually, spool};
use smtp_oauth_bridge::clock::Clock;
use smtp_oauth_bridge::explain::{GraphAnswer, graph};
use smtp_oauth_bridge::history::{self, Archive, Feed, Keeper, KeeperSettings, Story};
use smtp_oauth_bridge::mail::{Disposition, Timestamp};
use smtp_oauth_bridge::spool::{Store, database};
use smtp_oauth_bridge::upstream::Scripted;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

fn feed(dir: &TempDir, store: Store, stop: CancellationToken) -> JoinHandle<()> {
    let keeper = Keeper::new(KeeperSettings {
        path: history::database(dir.path()),
        keep: Duration::from_secs(86_400),
        max_size: 1 << 30,
    });
    tokio::spawn(Feed::new(store, keeper, Clock::machine()).run(stop))
}

fn trace(dir: &TempDir, target: &str) -> Vec<Story> {
    let queue = database(&dir.path().join("spool"));
    let archive = Archive::open(&history::database(dir.path()), &queue).unwrap();
    let beginning = Timestamp::from_millis(0);
    archive
        .search(&target.parse().unwrap(), beginning, 1000)
        .unwrap()
        .stories
}

/// The fates and how often each was told, of everybody in what is found.
fn fates(dir: &TempDir, target: &str) -> Vec<(String, u32)> {
    let stories = trace(dir, target);
    let recipients = stories.iter().flat_map(|story| &story.recipients);
    recipients
        .map(|r| (format!("{:?}", r.fate), r.outcomes))
        .collect()
}

fn answer(status: u16, code: &str) -> Disposition {
    let entry = graph(GraphAnswer {
        status,
        code: Some(code),
        ..GraphAnswer::default()
    });
    entry.disposition("the upstream's words", None)
}

/// Each place where a message can be is looked at: not planned, in the outbox, in the history, in both.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_found_wherever_it_is() {
    let dir = TempDir::new().unwrap();
    let waiting = spool(dir.path());
    let id = accept(&waiting, "printer@x.example", &["bob@y.example"], MESSAGE)
        .await
        .id;
    assert_eq!(
        fates(&dir, "bob@Y.example"),
        [("Waiting".to_owned(), 0)],
        "not planned"
    );
    assert_eq!(trace(&dir, &id.to_string()[..30])[0].id, id);
    waiting.close();

    let upstream = Scripted::default();
    upstream.will_answer([answer(500, "ErrorInternalServerError")]);
    let bridge = start(&dir, upstream);
    let relayed = [("Relayed".to_owned(), 1)];
    eventually("the outcome, without any history", async || {
        (fates(&dir, "@y.example") == relayed).then_some(())
    })
    .await;
    let store = bridge.spool.store();
    assert_eq!(
        store.outbox(9).await.unwrap().len(),
        3,
        "accepted, deferred, relayed"
    );
    assert!(!history::database(dir.path()).exists());

    let stop = CancellationToken::new();
    let feeding = feed(&dir, store.clone(), stop.clone());
    eventually("the empty outbox", async || {
        store.outbox(9).await.unwrap().is_empty().then_some(())
    })
    .await;
    assert_eq!(fates(&dir, "@y.example"), relayed);
    assert_eq!(trace(&dir, "bob@y.example")[0].events.len(), 2);
    stop.cancel();
    feeding.await.unwrap();
    drop(store);
    bridge.stop().await;
    assert_eq!(fates(&dir, "@y.example"), relayed, "with nothing running");
}

/// The feed is killed at random moments while mail goes out: each recipient has one final outcome in the end, and until
/// then at most one.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_is_killed_neither_loses_nor_doubles() {
    const MESSAGES: usize = 120;
    let dir = TempDir::new().unwrap();
    let upstream = Scripted::default();
    let bridge: Bridge = start(&dir, upstream.clone());
    let mut dice = fastrand::Rng::with_seed(11);
    for n in 0..MESSAGES {
        upstream.will_answer(match dice.u8(..4) {
            0 => vec![answer(500, "ErrorInternalServerError")],
            1 => vec![answer(400, "ErrorInvalidRecipients")],
            _ => Vec::new(),
        });
        bridge
            .send(&[&format!("r{n}@y.example"), &format!("s{n}@y.example")], MESSAGE)
            .await;
        if n % 4 == 0 {
            let killed = feed(&dir, bridge.spool.store(), CancellationToken::new());
            tokio::time::sleep(Duration::from_micros(dice.u64(..30_000))).await;
            killed.abort();
            let told = fates(&dir, "@y.example");
            assert!(
                told.iter()
                    .all(|(fate, outcomes)| *outcomes == u32::from(fate != "Waiting")),
                "{told:?}"
            );
        }
    }
    let feeding = feed(&dir, bridge.spool.store(), CancellationToken::new());
    eventually("every outcome in the history", async || {
        let outbox = bridge.spool.store().outbox(1).await.unwrap();
        let done = fates(&dir, "@y.example")
            .iter()
            .all(|(fate, _)| fate != "Waiting");
        (outbox.is_empty() && done).then_some(())
    })
    .await;
    feeding.abort();
    let told = fates(&dir, "@y.example");
    assert_eq!(told.len(), 2 * MESSAGES);
    assert!(told.iter().all(|(_, outcomes)| *outcomes == 1), "{told:?}");
}
