//! Reports about messages that failed, from the upstream's answer to the report that goes out by it.

use crate::support::{address, eventually};
use mail_parser::{MessageParser, MimeHeaders, PartType};
use smtp_oauth_bridge::clock::Clock;
use smtp_oauth_bridge::config::FailuresTo;
use smtp_oauth_bridge::delivery::{Account, Planner, Runner, Schedule, Undertaker, Upstreams};
use smtp_oauth_bridge::explain::{GraphAnswer, graph, local};
use smtp_oauth_bridge::mail::{
    BodyType, Disposition, Envelope, EnvelopeId, OriginalRecipient, QueueId, Recipient, Ret, ReversePath,
    Timestamp,
};
use smtp_oauth_bridge::report::Policy;
use smtp_oauth_bridge::spool::{Change, Order, Origin, Part, Slots, Spool, SpoolSettings, StoreError};
use smtp_oauth_bridge::upstream::{Answer, Parcel, Scripted, Upstream};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const SENDER: &str = "scanner@x.example";
const ADMIN: &str = "it@x.example";
const MESSAGE: &[u8] = b"From: scanner@x.example\r\nTo: bob@y.example\r\nSubject: Scan 17\r\n\r\nbody\r\n";

/// Refuses or defers mail to those whose name says so, and takes the rest.
#[derive(Clone, Debug, Default)]
struct Picky(Scripted);

impl Upstream for Picky {
    fn prepare(&self) -> Answer<'_, Result<(), Disposition>> {
        self.0.prepare()
    }

    fn deliver<'a>(&'a self, parcel: &'a Parcel) -> Answer<'a, smtp_oauth_bridge::mail::Report> {
        Box::pin(async {
            let report = self.0.deliver(parcel).await;
            let named = |name: &str| parcel.recipients.iter().any(|to| to.local().starts_with(name));
            if named("bad") {
                return parcel.report(failed());
            }
            if named("held") {
                return parcel.report(local::UNREADABLE.disposition("of a test", None));
            }
            if named("late") {
                return parcel.report(busy());
            }
            report
        })
    }
}

fn failed() -> Disposition {
    let entry = graph(GraphAnswer {
        status: 400,
        code: Some("ErrorInvalidRecipients"),
        ..GraphAnswer::default()
    });
    entry.disposition(
        "ErrorInvalidRecipients: At least one recipient is not valid.",
        None,
    )
}

fn busy() -> Disposition {
    let entry = graph(GraphAnswer {
        status: 500,
        code: Some("ErrorInternalServerError"),
        ..GraphAnswer::default()
    });
    entry.disposition("try later", None)
}

struct Bridge {
    spool: Spool,
    upstream: Picky,
    others: Picky,
    undertaker: Undertaker,
    stop: CancellationToken,
    runner: JoinHandle<()>,
}

fn policy(failures_to: FailuresTo, admin: &str) -> Policy {
    Policy {
        failures_to,
        admin: (!admin.is_empty()).then(|| address(admin)),
    }
}

fn start(dir: &TempDir, policy: Policy) -> Bridge {
    start_at(dir, policy, START)
}

fn start_at(dir: &TempDir, policy: Policy, now: Timestamp) -> Bridge {
    start_with(dir, policy, now, &[], Duration::from_secs(3600))
}

/// With these accounts besides "office", which have an upstream of their own; their mailboxes are called like them.
fn start_with(dir: &TempDir, policy: Policy, now: Timestamp, others: &[&str], hold_for: Duration) -> Bridge {
    let clock = Clock::following_tokio(now);
    let settings = SpoolSettings {
        directory: dir.path().join("spool"),
        max_size: 1 << 30,
        min_free: 0,
    };
    let spool = Spool::open(&settings, clock).unwrap();
    let account = Account {
        name: "office".to_owned(),
        mailbox: address("office@x.example"),
        send_as: Vec::new(),
    };
    let schedule = Schedule {
        waits: vec![Duration::from_millis(10)],
        give_up_after: Duration::from_millis(200),
        delay_warning: Some(Duration::from_millis(30)),
        hold_for,
        uncertain_wait: Duration::from_millis(20),
        uncertain_retries: 2,
    };
    let upstream = Picky::default();
    let (office, elsewhere) = (Arc::new(upstream.clone()), Picky::default());
    let mut accounts = vec![account.clone()];
    let mut upstreams = Upstreams::from([("office".to_owned(), office as Arc<dyn Upstream>)]);
    for name in others {
        accounts.push(Account {
            name: (*name).to_owned(),
            mailbox: address(&format!("{name}@x.example")),
            ..account.clone()
        });
        upstreams.insert((*name).to_owned(), Arc::new(elsewhere.clone()));
    }
    let runner = Runner::new(
        spool.store(),
        Planner::new(account),
        upstreams,
        schedule,
        clock,
        "bridge.example".to_owned(),
    )
    .reporting(policy, accounts);
    let undertaker = runner.undertaker();
    let stop = CancellationToken::new();
    let runner = tokio::spawn(runner.run(stop.clone(), Duration::from_secs(5)));
    Bridge {
        spool,
        upstream,
        others: elsewhere,
        undertaker,
        stop,
        runner,
    }
}

fn recipient(to: &str, notify: &str) -> Recipient {
    Recipient {
        notify: (!notify.is_empty()).then(|| notify.parse().unwrap()),
        ..address(to).into()
    }
}

fn envelope(from: &str, to: Recipient) -> Envelope {
    let from = match from {
        "" => ReversePath::Null,
        from => ReversePath::Address(address(from)),
    };
    Envelope::new(from, [to], BodyType::SevenBit).unwrap()
}

impl Bridge {
    async fn send(&self, envelope: Envelope) -> QueueId {
        let mut draft = self.spool.intake().begin();
        draft.write(MESSAGE).await.unwrap();
        let origin = Origin {
            client: "127.0.0.1".parse().unwrap(),
            greeting: "test".to_owned(),
            esmtp: true,
            listener: "local".to_owned(),
            tls: false,
            user: None,
        };
        draft.accept(envelope, origin).await.unwrap().id
    }

    /// Waits until something that goes through was sent and has gone: with one attempt at a time before it, and all
    /// reports queued at once with what they are about, whatever was to come has come then.
    async fn reports_after(&self, dead: &[QueueId]) -> Vec<(Parcel, String)> {
        for id in dead {
            self.told(*id).await;
        }
        let last = self.send(envelope(SENDER, recipient("last@y.example", ""))).await;
        self.gone(last).await;
        eventually("the queue came to rest", async || {
            let agenda = self.agenda().await;
            (agenda == 0).then_some(())
        })
        .await;
        let delivered = self.upstream.0.delivered();
        delivered
            .into_iter()
            .map(|(parcel, octets)| (parcel, String::from_utf8(octets).unwrap()))
            .filter(|(_, text)| text.contains("multipart/report"))
            .collect()
    }

    /// Waits until somebody was told of the message, or was not for a reason.
    async fn told(&self, id: QueueId) {
        eventually("somebody was told of the message", async || {
            let events = self.spool.store().outbox(10_000).await.unwrap();
            let about = format!("\"message\":\"{id}\"");
            let told = |text: &String| text.contains(&about) && text.contains("\"reported\"");
            events.iter().any(|(_, text)| told(text)).then_some(())
        })
        .await;
    }

    /// How much is left to be done; looks twice, because a part may be neither due nor under way in between.
    async fn agenda(&self) -> usize {
        let store = self.spool.store();
        let someday = START.plus(Duration::from_secs(365 * 86_400));
        let mut waiting = 0;
        for _ in 0..2 {
            let agenda = store
                .agenda(someday, 1, |_| Slots::Oldest { take: 1, skip: 0 })
                .await
                .unwrap();
            waiting += agenda.due.len() + agenda.unplanned.len();
            waiting += store.interrupted().await.unwrap().whole.len();
        }
        waiting
    }

    /// Waits until the only attempt so far has held the message.
    async fn held(&self, id: QueueId) -> Part {
        eventually("the message was held", async || {
            let was_tried = self.upstream.0.delivered().len() == 1;
            // A part that is being tried is not open.
            let mut open = self.spool.store().parts_at_rest(id).await.unwrap().whole;
            if was_tried { open.pop() } else { None }
        })
        .await
    }

    async fn gone(&self, id: QueueId) {
        eventually("the message left the queue", async || {
            matches!(self.spool.store().message(id).await, Err(StoreError::Unknown(_))).then_some(())
        })
        .await;
    }

    async fn stop(self) {
        // It holds the spool.
        drop(self.undertaker);
        self.stop.cancel();
        self.runner.await.unwrap();
        let spool = self.spool;
        tokio::task::spawn_blocking(|| spool.close()).await.unwrap();
    }
}

#[tokio::test]
async fn the_sender_gets_a_report_with_all_that_was_asked_for_and_the_message_stays() {
    let dir = TempDir::new().unwrap();
    let bridge = start(&dir, policy(FailuresTo::Sender, ""));
    let mut to = recipient("bad@y.example", "FAILURE");
    to.original = OriginalRecipient::new("rfc822;list+1@z.example").ok();
    let envelope = envelope(SENDER, to).with_reports(Some(Ret::Full), EnvelopeId::new("QQ=17").ok());
    let dead = bridge.send(envelope).await;
    let reports = bridge.reports_after(&[dead]).await;
    let [(parcel, text)] = &reports[..] else {
        panic!("{} reports", reports.len());
    };
    assert_eq!(parcel.recipients, [address(SENDER)]);
    assert_eq!(parcel.mailbox, address("office@x.example"));
    assert_eq!(parcel.from, [address("office@x.example")]);
    assert!(
        text.starts_with("Date: ") && !text.contains("Received:"),
        "{text}"
    );
    assert_eq!(text.matches("Message-ID:").count(), 1);

    let report = MessageParser::default().parse(text.as_bytes()).unwrap();
    assert_eq!(report.subject(), Some("Not delivered: Scan 17"));
    assert_eq!(
        report.content_type().unwrap().attribute("report-type"),
        Some("delivery-status")
    );
    let readable = report.body_text(0).unwrap();
    assert!(
        readable.contains("bad@y.example") && readable.contains(&dead.to_string()),
        "{readable}"
    );
    let status = report.parts.iter().find(|part| {
        part.content_type()
            .is_some_and(|kind| kind.subtype() == Some("delivery-status"))
    });
    let status = String::from_utf8(status.unwrap().contents().to_vec()).unwrap();
    for field in [
        "Original-Envelope-Id: QQ=17\r\n",
        "Original-Recipient: rfc822; list+1@z.example\r\n",
        "Final-Recipient: rfc822; bad@y.example\r\n",
        "Action: failed\r\n",
        "Status: 5.1.3\r\n",
    ] {
        assert!(status.contains(field), "{field}\n{status}");
    }
    let is_message = |part: &&mail_parser::MessagePart<'_>| matches!(part.body, PartType::Message(_));
    assert!(report.parts.iter().any(|part| is_message(&part)));

    assert!(
        bridge.spool.store().message(dead).await.is_ok(),
        "the dead letter stays"
    );
    bridge.stop().await;
}

#[tokio::test]
async fn who_gets_a_report() {
    use FailuresTo::{Admin, Nobody, Sender};
    for (failures_to, admin, from, notify, expected) in [
        (Sender, ADMIN, SENDER, "NEVER", None),
        (Sender, ADMIN, SENDER, "SUCCESS", None),
        (Sender, ADMIN, "", "", Some(ADMIN)),
        (Sender, ADMIN, "scan@printer", "", Some(ADMIN)),
        (Sender, "", "", "", None),
        (Admin, ADMIN, SENDER, "NEVER", Some(ADMIN)),
        (Nobody, ADMIN, SENDER, "", None),
    ] {
        let dir = TempDir::new().unwrap();
        let bridge = start(&dir, policy(failures_to, admin));
        let dead = bridge
            .send(envelope(from, recipient("bad@y.example", notify)))
            .await;
        let reports = bridge.reports_after(&[dead]).await;
        let to: Vec<String> = reports
            .iter()
            .flat_map(|(parcel, _)| &parcel.recipients)
            .map(ToString::to_string)
            .collect();
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(to, expected, "{failures_to:?} {from} {notify}");
        bridge.stop().await;
    }
}

#[tokio::test]
async fn success_is_reported_only_to_those_who_asked_and_for_each_message() {
    let dir = TempDir::new().unwrap();
    let bridge = start(&dir, policy(FailuresTo::Sender, ADMIN));
    let mut asked = Vec::new();
    for notify in ["SUCCESS", "SUCCESS,FAILURE", "FAILURE", ""] {
        let id = bridge
            .send(envelope(SENDER, recipient("bob@y.example", notify)))
            .await;
        bridge.gone(id).await;
        asked.push(id);
    }
    let reports = bridge.reports_after(&[]).await;
    assert_eq!(reports.len(), 2);
    for ((_, text), id) in reports.iter().zip(asked) {
        assert!(
            text.contains("Action: relayed\r\n") && text.contains(&id.to_string()),
            "{text}"
        );
    }
    bridge.stop().await;
}

#[tokio::test]
async fn fifty_failures_are_one_report_and_the_next_one_says_how_many_there_were() {
    let dir = TempDir::new().unwrap();
    let bridge = start(&dir, policy(FailuresTo::Sender, ""));
    let mut dead = Vec::new();
    for n in 0..50 {
        dead.push(
            bridge
                .send(envelope(SENDER, recipient(&format!("bad{n}@y.example"), "")))
                .await,
        );
    }
    let reports = bridge.reports_after(&dead).await;
    assert_eq!(reports.len(), 1);
    assert!(!reports[0].1.contains("not told of"), "{}", reports[0].1);
    // Another sender, another count.
    let other = bridge
        .send(envelope("other@x.example", recipient("bad@y.example", "")))
        .await;
    assert_eq!(bridge.reports_after(&[other]).await.len(), 2);
    bridge.stop().await;

    let bridge = start_at(
        &dir,
        policy(FailuresTo::Sender, ""),
        START.plus(Duration::from_secs(3660)),
    );
    let next = bridge
        .send(envelope(SENDER, recipient("bad@y.example", "")))
        .await;
    let reports = bridge.reports_after(&[next]).await;
    assert_eq!(reports.len(), 1);
    assert!(
        reports[0].1.contains("not told of 49 more messages"),
        "{}",
        reports[0].1
    );
    bridge.stop().await;
}

#[tokio::test]
async fn a_report_that_fails_is_a_dead_letter_of_which_nobody_is_told() {
    let dir = TempDir::new().unwrap();
    let bridge = start(&dir, policy(FailuresTo::Sender, "bad-admin@x.example"));
    let dead = bridge
        .send(envelope("bad-sender@x.example", recipient("bad@y.example", "")))
        .await;
    let reports = bridge.reports_after(&[dead]).await;
    assert_eq!(reports.len(), 1);
    let report = reports[0].0.id;
    assert_eq!(bridge.reports_after(&[report]).await.len(), 1);
    let (message, _) = bridge.spool.store().message(report).await.unwrap();
    assert!(message.report);
    let events = bridge.spool.store().outbox(1000).await.unwrap();
    let about = format!("\"message\":\"{report}\"");
    let silence = |text: &String| text.contains(&about) && text.contains("it is a report itself");
    assert_eq!(events.iter().filter(|(_, text)| silence(text)).count(), 1);
    bridge.stop().await;
}

#[tokio::test]
async fn whoever_waits_is_told_once_that_it_is_late_and_then_that_it_failed() {
    for (notify, expected) in [
        ("", ["delayed", "failed"].as_slice()),
        ("FAILURE", &["failed"]),
        ("DELAY", &["delayed"]),
        ("NEVER", &[]),
    ] {
        let dir = TempDir::new().unwrap();
        let bridge = start(&dir, policy(FailuresTo::Sender, ""));
        let late = bridge
            .send(envelope(SENDER, recipient("late@y.example", notify)))
            .await;
        let reports = bridge.reports_after(&[late]).await;
        let mut actions: Vec<&str> = reports
            .iter()
            .filter_map(|(_, text)| text.split("Action: ").nth(1)?.split("\r\n").next())
            .collect();
        actions.sort_unstable();
        assert_eq!(actions, expected, "{notify}");
        for (parcel, text) in &reports {
            assert_eq!(parcel.recipients, [address(SENDER)]);
            let status = if text.contains("Action: failed") {
                "Status: 5.4.7"
            } else {
                "Status: 4."
            };
            assert!(text.contains(status) && text.contains("try later"), "{text}");
        }
        bridge.stop().await;
    }
}

#[tokio::test]
async fn a_message_that_can_never_be_sent_is_reported_too() {
    let dir = TempDir::new().unwrap();
    let bridge = start(&dir, policy(FailuresTo::Sender, ""));
    // No header can name somebody without a domain.
    let dead = bridge.send(envelope(SENDER, recipient("root", ""))).await;
    let reports = bridge.reports_after(&[dead]).await;
    assert_eq!(reports.len(), 1);
    assert!(
        reports[0]
            .1
            .contains("Final-Recipient: rfc822; root\r\nAction: failed\r\nStatus: 5.6.0\r\n"),
        "{}",
        reports[0].1
    );
    bridge.stop().await;
}

#[tokio::test]
async fn what_an_administrator_gives_up_is_reported_once() {
    let dir = TempDir::new().unwrap();
    let bridge = start(&dir, policy(FailuresTo::Sender, ""));
    let held = bridge
        .send(envelope(SENDER, recipient("held@y.example", "")))
        .await;
    bridge.held(held).await;
    for reports in [1, 0] {
        let given_up = bridge.undertaker.give_up(held, START).await.unwrap();
        assert_eq!(given_up.reports.new.len(), reports);
        let change = Change {
            message: held,
            order: Order::Bounce {
                parts: given_up.parts.clone(),
                status: given_up.status.clone(),
                cause: given_up.cause.clone(),
            },
            at: START,
            events: Vec::new(),
            reports: given_up.reports.clone(),
        };
        bridge.spool.operator().change(change).await.unwrap();
    }
    let reports = bridge.reports_after(&[held]).await;
    assert_eq!(reports.len(), 1);
    let text = &reports[0].1;
    assert!(text.contains("has given the message up.\r\n"), "{text}");
    assert!(text.contains("Action: failed\r\nStatus: 5.0.0\r\n"), "{text}");
    bridge.stop().await;
}

/// The account of the message is the trouble, so its report goes out by another one, or not at all.
#[tokio::test]
async fn a_report_about_an_account_goes_out_by_another_one() {
    for (others, expected) in [(&[][..], None), (&["lab"], Some("lab@x.example"))] {
        let dir = TempDir::new().unwrap();
        let hold_for = Duration::from_millis(300);
        let bridge = start_with(&dir, policy(FailuresTo::Sender, ""), START, others, hold_for);
        let untrusted = std::iter::repeat_n(local::UNTRUSTED.disposition("CN=proxy", None), 1000);
        bridge.upstream.0.will_prepare(untrusted.map(Err));
        let held = bridge
            .send(envelope(SENDER, recipient("bob@y.example", "")))
            .await;
        bridge.told(held).await;
        let events = bridge.spool.store().outbox(1000).await.unwrap();
        let nobody = events
            .iter()
            .filter(|(_, text)| text.contains("the only account is the one"));
        assert_eq!(nobody.count(), usize::from(expected.is_none()));
        if let Some(mailbox) = expected {
            let (parcel, octets) =
                eventually("the report went out", async || bridge.others.0.delivered().pop()).await;
            let text = String::from_utf8(octets).unwrap();
            assert_eq!(parcel.mailbox, address(mailbox));
            assert!(
                text.contains("Action: delayed\r\nStatus: 4.7.5\r\n") && !text.contains("CN=proxy"),
                "{text}"
            );
            assert!(
                text.contains("Account:   office (mailbox office@x.example)\r\n"),
                "{text}"
            );
        }
        assert!(bridge.upstream.0.delivered().is_empty());
        assert!(
            bridge.spool.store().message(held).await.is_ok(),
            "the message stays"
        );
        bridge.stop().await;
    }
}
