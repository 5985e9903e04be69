//! The queue runner with a real spool and an upstream that follows a script.

use crate::support::{accept, address, eventually, spool};
use smtp_oauth_bridge::clock::Clock;
use smtp_oauth_bridge::delivery::{Account, Control, Planner, Runner, Schedule, Upstreams};
use smtp_oauth_bridge::explain::{GraphAnswer, graph, local};
use smtp_oauth_bridge::mail::{Disposition, QueueId, Receipt, Report};
use smtp_oauth_bridge::spool::{Slots, Spool, StoreError};
use smtp_oauth_bridge::upstream::{Answer, Parcel, Scripted, Upstream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) struct Bridge {
    pub(crate) spool: Spool,
    pub(crate) upstream: Scripted,
    pub(crate) control: Control,
    stop: CancellationToken,
    runner: JoinHandle<()>,
}

pub(crate) const MESSAGE: &[u8] =
    b"From: scanner@x.example\r\nTo: bob@y.example\r\nSubject: x\r\n\r\nbody\r\n";

pub(crate) fn start(dir: &TempDir, upstream: Scripted) -> Bridge {
    start_with(dir, Arc::new(upstream.clone()), upstream)
}

fn start_with(dir: &TempDir, office: Arc<dyn Upstream>, upstream: Scripted) -> Bridge {
    let schedule = Schedule {
        waits: vec![Duration::from_millis(10)],
        give_up_after: Duration::from_millis(100),
        delay_warning: None,
        hold_for: Duration::from_secs(86_400),
        uncertain_wait: Duration::from_millis(20),
        uncertain_retries: 2,
    };
    start_by(dir, office, upstream, schedule)
}

pub(crate) fn start_by(
    dir: &TempDir,
    office: Arc<dyn Upstream>,
    upstream: Scripted,
    schedule: Schedule,
) -> Bridge {
    let spool = spool(dir.path());
    let stop = CancellationToken::new();
    let planner = Planner::new(Account {
        name: "office".to_owned(),
        mailbox: address("scanner@x.example"),
        send_as: Vec::new(),
    });
    let upstreams = Upstreams::from([("office".to_owned(), office)]);
    let hostname = "bridge.example".to_owned();
    let runner = Runner::new(
        spool.store(),
        planner,
        upstreams,
        schedule,
        Clock::machine(),
        hostname,
    );
    let control = runner.control();
    let runner = tokio::spawn(runner.run(stop.clone(), Duration::from_secs(5)));
    Bridge {
        spool,
        upstream,
        control,
        stop,
        runner,
    }
}

impl Bridge {
    pub(crate) async fn send(&self, to: &[&str], body: &[u8]) -> QueueId {
        accept(&self.spool, "printer@x.example", to, body).await.id
    }

    pub(crate) async fn gone(&self, id: QueueId) {
        eventually("the message left the queue", async || {
            matches!(self.spool.store().message(id).await, Err(StoreError::Unknown(_))).then_some(())
        })
        .await;
    }

    async fn attempts(&self, count: usize) {
        eventually("so many attempts", async || {
            (self.upstream.delivered().len() >= count).then_some(())
        })
        .await;
    }

    /// Waits until nothing is under way and nothing will ever be tried again by itself.
    pub(crate) async fn at_rest(&self) {
        let store = self.spool.store();
        let someday = Clock::machine().now().plus(Duration::from_secs(365 * 86_400));
        eventually("the queue came to rest", async || {
            // An attempt that hides between two of these looks is betrayed by the count.
            let before = self.upstream.delivered().len();
            let mut busy = !store.interrupted().await.unwrap().whole.is_empty();
            let agenda = store
                .agenda(someday, 1, |_| Slots::Oldest { take: 1, skip: 0 })
                .await
                .unwrap();
            busy |= !agenda.due.is_empty() || !agenda.unplanned.is_empty();
            busy |= !store.interrupted().await.unwrap().whole.is_empty();
            (!busy && self.upstream.delivered().len() == before).then_some(())
        })
        .await;
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.runner.await.unwrap();
        let spool = self.spool;
        tokio::task::spawn_blocking(|| spool.close()).await.unwrap();
    }
}

fn deferred() -> Disposition {
    let entry = graph(GraphAnswer {
        status: 500,
        code: Some("ErrorInternalServerError"),
        ..GraphAnswer::default()
    });
    entry.disposition("busy", None)
}

fn failed() -> Disposition {
    let entry = graph(GraphAnswer {
        status: 400,
        code: Some("ErrorInvalidRecipients"),
        ..GraphAnswer::default()
    });
    entry.disposition("no", None)
}

#[tokio::test]
async fn a_message_goes_out_with_our_received_field_and_nothing_else_changed() {
    let dir = TempDir::new().unwrap();
    let bridge = start(&dir, Scripted::default());
    let id = bridge.send(&["bob@y.example"], MESSAGE).await;
    bridge.gone(id).await;
    let delivered = bridge.upstream.delivered();
    let (parcel, octets) = &delivered[0];
    let text = String::from_utf8(octets.clone()).unwrap();
    assert!(text.starts_with("Received: from test"), "{text}");
    assert!(octets.ends_with(MESSAGE));
    assert_eq!(text.matches("Received:").count(), 1);
    assert!(text.contains(&id.to_string()) && text.contains("bridge.example"));
    assert_eq!(parcel.size(), octets.len() as u64);
    bridge.stop().await;
}

#[tokio::test]
async fn the_envelope_decides_who_is_named() {
    let dir = TempDir::new().unwrap();
    let bridge = start(&dir, Scripted::default());
    let id = bridge.send(&["eve@y.example"], MESSAGE).await;
    bridge.gone(id).await;
    let (parcel, octets) = bridge.upstream.delivered().remove(0);
    let text = String::from_utf8(octets).unwrap();
    assert_eq!(parcel.recipients, [address("eve@y.example")]);
    assert!(
        text.contains("To: undisclosed-recipients:;\r\n") && text.contains("Bcc: eve@y.example\r\n"),
        "{text}"
    );
    assert!(text.contains("X-Original-To: bob@y.example\r\n"));
    bridge.stop().await;
}

#[tokio::test]
async fn deferred_is_tried_again_until_it_goes() {
    let dir = TempDir::new().unwrap();
    let upstream = Scripted::default();
    upstream.will_answer([deferred(), deferred()]);
    let bridge = start(&dir, upstream);
    let id = bridge.send(&["bob@y.example"], MESSAGE).await;
    bridge.gone(id).await;
    assert_eq!(bridge.upstream.delivered().len(), 3);
    bridge.stop().await;
}

#[tokio::test]
async fn what_failed_stays_as_a_dead_letter_and_is_not_tried_again() {
    let dir = TempDir::new().unwrap();
    let upstream = Scripted::default();
    upstream.will_answer([failed()]);
    let bridge = start(&dir, upstream);
    let dead = bridge.send(&["bob@y.example"], MESSAGE).await;
    bridge.attempts(1).await;
    let next = bridge.send(&["bob@y.example"], MESSAGE).await;
    bridge.gone(next).await;
    assert!(bridge.spool.store().message(dead).await.is_ok());
    assert_eq!(bridge.upstream.delivered().len(), 2);
    bridge.stop().await;
}

#[tokio::test]
async fn giving_up_after_the_time_leaves_a_dead_letter() {
    let dir = TempDir::new().unwrap();
    let upstream = Scripted::default();
    upstream.will_answer(std::iter::repeat_n(deferred(), 100));
    let bridge = start(&dir, upstream);
    let id = bridge.send(&["bob@y.example"], MESSAGE).await;
    bridge.at_rest().await;
    assert!(bridge.upstream.delivered().len() > 5);
    assert!(bridge.upstream.delivered().len() < 30);
    assert!(bridge.spool.store().message(id).await.is_ok());
    bridge.stop().await;
}

#[tokio::test]
async fn an_unheard_answer_is_repeated_twice_and_then_waits_for_a_person() {
    let dir = TempDir::new().unwrap();
    let upstream = Scripted::default();
    upstream.will_answer(std::iter::repeat_n(local::UNHEARD.disposition("cut", None), 10));
    let bridge = start(&dir, upstream);
    let id = bridge.send(&["bob@y.example"], MESSAGE).await;
    bridge.at_rest().await;
    assert_eq!(bridge.upstream.delivered().len(), 3);
    assert!(bridge.spool.store().message(id).await.is_ok());
    bridge.stop().await;
}

#[tokio::test]
async fn an_account_that_is_not_ready_keeps_its_mail_and_all_of_it_goes_when_it_is() {
    let dir = TempDir::new().unwrap();
    let upstream = Scripted::default();
    upstream.will_prepare([
        Err(local::UNTRUSTED.disposition("", None)),
        Err(local::UNTRUSTED.disposition("", None)),
    ]);
    let bridge = start(&dir, upstream);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(bridge.send(&["bob@y.example"], MESSAGE).await);
    }
    for id in ids {
        bridge.gone(id).await;
    }
    assert_eq!(bridge.upstream.delivered().len(), 5);
    bridge.stop().await;
}

/// Four at once; every fourth request is told to wait, as by Graph's limit for one mailbox.
struct Throttling {
    requests: AtomicUsize,
    pause: Duration,
}

impl Upstream for Throttling {
    fn prepare(&self) -> Answer<'_, Result<(), Disposition>> {
        Box::pin(async { Ok(()) })
    }

    fn deliver<'a>(&'a self, parcel: &'a Parcel) -> Answer<'a, Report> {
        Box::pin(async {
            if (self.requests.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(4) {
                let answer = GraphAnswer {
                    status: 429,
                    code: Some("ApplicationThrottled"),
                    ..GraphAnswer::default()
                };
                return parcel.report(graph(answer).disposition("", Some(self.pause)));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            parcel.report(Disposition::Relayed(Receipt::default()))
        })
    }
}

#[tokio::test]
async fn a_pause_holds_although_older_attempts_succeed_afterwards() {
    let dir = TempDir::new().unwrap();
    let upstream = Arc::new(Throttling {
        requests: AtomicUsize::new(0),
        pause: Duration::from_secs(3600),
    });
    let bridge = start_with(&dir, upstream.clone(), Scripted::default());
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(bridge.send(&["bob@y.example"], MESSAGE).await);
    }
    let store = bridge.spool.store();
    eventually("three of the first four were relayed", async || {
        let mut left = 0;
        for id in &ids {
            left += usize::from(store.message(*id).await.is_ok());
        }
        (left == 5).then_some(())
    })
    .await;
    drop(store);
    // A stop waits for everything that is under way, and so for the last success to be heard.
    bridge.stop().await;
    assert_eq!(upstream.requests.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_message_whose_body_is_gone_is_held_and_stops_nobody() {
    let dir = TempDir::new().unwrap();
    let spool = spool(dir.path());
    let mut large = MESSAGE.to_vec();
    large.resize(100_000, b'x');
    let mut broken = Vec::new();
    for _ in 0..70 {
        broken.push(
            accept(&spool, "printer@x.example", &["bob@y.example"], &large)
                .await
                .id,
        );
    }
    tokio::task::spawn_blocking(|| spool.close()).await.unwrap();
    for shard in std::fs::read_dir(dir.path().join("spool/body")).unwrap() {
        for file in std::fs::read_dir(shard.unwrap().path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
    let bridge = start(&dir, Scripted::default());
    let id = bridge.send(&["bob@y.example"], MESSAGE).await;
    bridge.gone(id).await;
    bridge.at_rest().await;
    assert_eq!(bridge.upstream.delivered().len(), 1);
    assert!(
        bridge.spool.store().message(broken[0]).await.is_ok(),
        "the record stays for a person"
    );
    bridge.stop().await;
}

#[tokio::test]
async fn an_attempt_that_was_cut_off_is_repeated_after_the_next_start() {
    let dir = TempDir::new().unwrap();
    let upstream = Arc::new(Throttling {
        requests: AtomicUsize::new(0),
        pause: Duration::ZERO,
    });
    let bridge = start_with(&dir, upstream.clone(), Scripted::default());
    let id = bridge.send(&["bob@y.example"], MESSAGE).await;
    eventually("an attempt", async || {
        (upstream.requests.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;
    // As a kill would end it: the runner is dropped in the middle of the attempt.
    bridge.runner.abort();
    let _ = bridge.runner.await;
    let spool = bridge.spool;
    tokio::task::spawn_blocking(|| spool.close()).await.unwrap();
    let bridge = start(&dir, Scripted::default());
    bridge.gone(id).await;
    assert_eq!(bridge.upstream.delivered().len(), 1);
    bridge.stop().await;
}

#[tokio::test]
async fn what_waits_at_a_stop_goes_out_after_the_next_start() {
    let dir = TempDir::new().unwrap();
    let upstream = Scripted::default();
    upstream.will_prepare(std::iter::repeat_n(
        Err(local::UNREACHABLE.disposition("", None)),
        1000,
    ));
    let bridge = start(&dir, upstream);
    let id = bridge.send(&["bob@y.example"], MESSAGE).await;
    bridge.stop().await;
    let bridge = start(&dir, Scripted::default());
    bridge.gone(id).await;
    assert_eq!(bridge.upstream.delivered().len(), 1);
    bridge.stop().await;
}

#[tokio::test]
async fn a_recipient_that_no_header_can_name_fails_alone() {
    let dir = TempDir::new().unwrap();
    let bridge = start(&dir, Scripted::default());
    let id = bridge.send(&["bob@y.example", "root"], MESSAGE).await;
    bridge.attempts(1).await;
    let (parcel, _) = bridge.upstream.delivered().remove(0);
    assert_eq!(parcel.recipients, [address("bob@y.example")]);
    assert!(
        bridge.spool.store().message(id).await.is_ok(),
        "the other one is a dead letter"
    );
    bridge.stop().await;
}
