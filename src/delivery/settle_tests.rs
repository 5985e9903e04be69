use super::*;
use crate::explain::GraphAnswer;
use crate::explain::graph;
use crate::mail::QueueId;
use crate::mail::Receipt;
use crate::spool::{PartId, Turn};
use std::time::Duration;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

/// When this run of the program began.
const RUN: Timestamp = Timestamp::from_millis(900_000);

fn part(recipients: usize) -> Part {
    Part {
        id: PartId {
            message: QueueId::new(NOW),
            number: 0,
        },
        account: "office".to_owned(),
        mailbox: "scanner@x.example".parse().unwrap(),
        changes: String::new(),
        due: Timestamp::from_millis(5),
        progress: Progress::default(),
        turn: Turn::default(),
        size: 1000,
        waiting: (0..recipients)
            .map(|n| (n, format!("r{n}@y.example").parse().unwrap()))
            .collect(),
    }
}

fn schedule() -> Schedule {
    Schedule {
        waits: vec![Duration::from_secs(30), Duration::from_secs(120)],
        give_up_after: Duration::from_secs(100),
        delay_warning: Some(Duration::from_secs(40)),
        hold_for: Duration::from_secs(1000),
        uncertain_wait: Duration::from_secs(300),
        uncertain_retries: 2,
    }
}

fn settled(part: &Part, dispositions: Vec<Disposition>) -> Verdict {
    settled_at(part, dispositions, 0)
}

/// After mail of the lane could have gone for so many seconds.
fn settled_at(part: &Part, dispositions: Vec<Disposition>, open: u64) -> Verdict {
    let moment = Moment {
        now: NOW,
        run: RUN,
        open: Duration::from_secs(open),
    };
    settle(part, Report { dispositions }, &schedule(), moment, 0.5)
}

fn answer(status: u16, code: &str, retry_after: Option<u64>) -> Disposition {
    let entry = graph(GraphAnswer {
        status,
        code: Some(code),
        ..GraphAnswer::default()
    });
    entry.disposition("x", retry_after.map(Duration::from_secs))
}

fn relayed() -> Disposition {
    Disposition::Relayed(Receipt::default())
}

fn busy() -> Disposition {
    answer(500, "ErrorInternalServerError", None)
}

fn is_open(news: &GateNews) -> bool {
    matches!(news, GateNews::Open(_))
}

#[test]
fn relayed_ends_the_part_and_opens_both_gates() {
    let verdict = settled(&part(2), vec![relayed(), relayed()]);
    assert_eq!(verdict.settlement.next, Next::Ended);
    assert_eq!(verdict.settlement.progress.attempts, 1);
    assert!(
        verdict
            .settlement
            .recipients
            .iter()
            .all(|update| update.fate == Fate::Relayed)
    );
    assert!(verdict.gates.len() == 2 && verdict.gates.iter().all(is_open));
}

#[test]
fn relayed_with_a_pause_is_relayed_and_closes_the_mailbox_for_a_while() {
    let receipt = Receipt {
        diagnostic: String::new(),
        pause: Some(Duration::from_secs(7)),
    };
    let verdict = settled(&part(1), vec![Disposition::Relayed(receipt)]);
    assert_eq!(verdict.settlement.next, Next::Ended);
    let Some(GateNews::Close {
        gate: Gate::Mailbox(_),
        cause,
        broken: false,
    }) = verdict.gates.last()
    else {
        panic!()
    };
    assert_eq!(cause.retry_after, Some(Duration::from_secs(7)));
}

#[test]
fn a_deferred_message_waits_by_its_own_schedule_or_longer_if_asked() {
    let verdict = settled(&part(1), vec![busy()]);
    assert_eq!(
        verdict.settlement.next,
        Next::Due(NOW.plus(Duration::from_secs(30)))
    );
    assert_eq!(
        verdict.settlement.progress.deferred,
        Duration::ZERO,
        "what is not spent yet"
    );
    assert!(verdict.gates.is_empty() && !verdict.late);
    let asked = settled(&part(1), vec![answer(500, "ErrorInternalServerError", Some(77))]);
    assert_eq!(
        asked.settlement.next,
        Next::Due(NOW.plus(Duration::from_secs(77)))
    );
}

#[test]
fn giving_up_needs_the_time_and_one_more_attempt() {
    let mut tired = part(1);
    tired.progress.deferred = Duration::from_secs(99);
    assert!(matches!(
        settled(&tired, vec![busy()]).settlement.next,
        Next::Due(_)
    ));
    tired.progress.deferred = Duration::from_secs(100);
    let verdict = settled(&tired, vec![busy()]);
    assert_eq!(verdict.settlement.next, Next::Ended);
    assert_eq!(verdict.settlement.recipients[0].fate, Fate::Failed);
    assert!(verdict.settlement.recipients[0].status.starts_with("5."));
    let relayed_at_last = settled(&tired, vec![relayed()]);
    assert_eq!(relayed_at_last.settlement.recipients[0].fate, Fate::Relayed);
}

#[test]
fn only_what_was_spent_of_a_wait_counts_and_a_late_message_says_so() {
    let mut waiting = part(1);
    let verdict = settled_at(&waiting, vec![busy()], 500);
    waiting.progress = verdict.settlement.progress;
    // The gate was closed, or the program stopped, for most of the time: 10 s were spent.
    let early = settled_at(&waiting, vec![busy()], 510);
    assert_eq!(early.settlement.progress.deferred, Duration::from_secs(10));
    assert!(!early.late);
    // It was its turn after 30 s, and it went after 4,000.
    let verdict = settled_at(&waiting, vec![busy()], 4500);
    assert_eq!(verdict.settlement.progress.deferred, Duration::from_secs(30));
    waiting.progress = verdict.settlement.progress;
    let verdict = settled_at(&waiting, vec![busy()], 4515);
    assert!(verdict.late && verdict.settlement.next != Next::Ended);
    let relayed = settled_at(&waiting, vec![relayed()], 4515);
    assert!(!relayed.late);
    // A closed gate moves nothing, and what was spent before it closed counts once.
    let throttled = settled_at(&waiting, vec![answer(429, "ApplicationThrottled", None)], 4520);
    let progress = throttled.settlement.progress;
    assert_eq!(
        (progress.deferred, progress.deferral),
        (Duration::from_secs(50), None)
    );
}

#[test]
fn with_on_uncertain_hold_the_first_unknown_outcome_asks_a_person() {
    let hold = Schedule {
        uncertain_retries: 0,
        ..schedule()
    };
    let moment = Moment {
        now: NOW,
        run: RUN,
        open: Duration::ZERO,
    };
    let report = Report::all(1, local::UNHEARD.disposition("", None));
    let verdict = settle(&part(1), report, &hold, moment, 0.5);
    assert_eq!(verdict.settlement.next, Next::Held);
}

#[test]
fn trouble_of_a_mailbox_or_account_closes_its_gate_and_moves_nothing() {
    let throttled = settled(&part(1), vec![answer(429, "ApplicationThrottled", Some(9))]);
    assert_eq!(throttled.settlement.next, Next::Due(NOW));
    assert_eq!(throttled.settlement.progress.deferred, Duration::ZERO);
    assert!(is_open(&throttled.gates[0]));
    assert!(matches!(
        &throttled.gates[1],
        GateNews::Close {
            gate: Gate::Mailbox(_),
            broken: false,
            ..
        }
    ));
    let denied = settled(&part(1), vec![answer(403, "ErrorAccessDenied", None)]);
    assert!(matches!(
        &denied.gates[1],
        GateNews::Close {
            gate: Gate::Mailbox(_),
            broken: true,
            ..
        }
    ));
    let refused = settled(&part(1), vec![answer(401, "InvalidAuthenticationToken", None)]);
    assert!(matches!(
        &refused.gates[..],
        [GateNews::Close {
            gate: Gate::Account(_),
            broken: true,
            ..
        }]
    ));
}

#[test]
fn uncertainty_is_repeated_twice_and_then_asks_a_person() {
    let mut doubtful = part(1);
    for known in 0..2 {
        doubtful.progress.uncertain = known;
        let verdict = settled(&doubtful, vec![local::UNHEARD.disposition("", None)]);
        assert_eq!(
            verdict.settlement.next,
            Next::Due(NOW.plus(Duration::from_secs(300)))
        );
        assert_eq!(verdict.settlement.progress.uncertain, known + 1);
    }
    doubtful.progress.uncertain = 2;
    let verdict = settled(&doubtful, vec![local::UNHEARD.disposition("", None)]);
    assert_eq!(verdict.settlement.next, Next::Held);
    assert_eq!(verdict.settlement.recipients[0].fate, Fate::Waiting);
    assert!(matches!(verdict.dispositions[0], Disposition::Held(_)));
}

#[test]
fn each_recipient_gets_its_own_fate() {
    let verdict = settled(
        &part(3),
        vec![relayed(), answer(400, "ErrorInvalidRecipients", None), busy()],
    );
    let fates: Vec<Fate> = verdict
        .settlement
        .recipients
        .iter()
        .map(|update| update.fate)
        .collect();
    assert_eq!(fates, [Fate::Relayed, Fate::Failed, Fate::Waiting]);
    assert!(matches!(verdict.settlement.next, Next::Due(_)));
}

#[test]
fn a_report_that_is_too_short_leaves_doubt_and_one_that_is_too_long_is_cut() {
    let short = settled(&part(2), vec![relayed()]);
    assert!(matches!(short.dispositions[1], Disposition::Uncertain(_)));
    assert_eq!(
        settled(&part(1), vec![relayed(), busy()]).settlement.next,
        Next::Ended
    );
}

#[test]
fn a_part_without_recipients_is_held_and_never_released() {
    assert_eq!(settled(&part(0), Vec::new()).settlement.next, Next::Held);
}
