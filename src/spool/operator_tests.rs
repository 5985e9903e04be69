use super::*;
use crate::db::{DbError, Filter, PartState, Search, State};
use crate::mail::QueueId;
use crate::spool::tests::{NOW, accept, body_files, close, open, plan, read_back, settlement, text};
use crate::spool::{Fate, Next, PartId, PlannedPart, Spool};
use std::time::Duration;
use tempfile::TempDir;

/// How a message can stand before something is done to it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Unplanned,
    Waiting,
    Uncertain,
    Sending,
    Held,
    HeldUncertain,
    /// One recipient was relayed, the other failed.
    Failed,
    /// Gone.
    Unknown,
}

const ALL: [Before; 8] = [
    Before::Unplanned,
    Before::Waiting,
    Before::Uncertain,
    Before::Sending,
    Before::Held,
    Before::HeldUncertain,
    Before::Failed,
    Before::Unknown,
];

async fn prepare(spool: &Spool, before: Before) -> QueueId {
    let id = accept(spool, &text(100), 2).await.id;
    if before == Before::Unplanned {
        return id;
    }
    let part = plan(spool, id, 2).await;
    let store = spool.store();
    let later = NOW.plus(Duration::from_secs(3600));
    let (next, fates, uncertain) = match before {
        Before::Unplanned | Before::Waiting => (Next::Due(later), [Fate::Waiting; 2], 0),
        Before::Uncertain => (Next::Due(later), [Fate::Waiting; 2], 1),
        Before::Held => (Next::Held, [Fate::Waiting; 2], 0),
        Before::HeldUncertain => (Next::Held, [Fate::Waiting; 2], 3),
        Before::Failed => (Next::Ended, [Fate::Relayed, Fate::Failed], 0),
        Before::Unknown => (Next::Ended, [Fate::Relayed; 2], 0),
        Before::Sending => {
            store.mark(part, NOW).await.unwrap();
            return id;
        }
    };
    store.mark(part, NOW).await.unwrap();
    let mut settlement = settlement(part, next, &fates);
    settlement.progress.uncertain = uncertain;
    settlement.progress.deferred = Duration::from_secs(77);
    store.settle(settlement).await.unwrap();
    id
}

fn change(message: QueueId, order: Order) -> Change {
    Change {
        message,
        order,
        at: NOW.plus(Duration::from_secs(60)),
        events: Vec::new(),
        reports: Reports::default(),
    }
}

fn bounce() -> Order {
    Order::Bounce {
        parts: vec![0],
        status: "5.0.0".to_owned(),
        cause: "an administrator said so".to_owned(),
    }
}

async fn parts(spool: &Spool, id: QueueId) -> Vec<PartState> {
    let found = spool.operator().inspector().details(id).await;
    found.map_or_else(|_| Vec::new(), |details| details.entry.parts)
}

/// What came of it, in a word.
fn word(changed: &Changed) -> &'static str {
    match changed {
        Changed::Done(done) if done.may_arrive_twice => "done, twice?",
        Changed::Done(_) => "done",
        Changed::Nothing => "nothing",
        Changed::UnderWay => "under way",
        Changed::Unplanned => "unplanned",
        Changed::Unknown => "unknown",
    }
}

#[tokio::test]
async fn each_action_on_each_state() {
    use State::{Failed, Held, Sending, Waiting};
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    let gone = None;
    // In the order of ALL: what is answered, and the state of the part afterwards.
    type Row = (Order, [(&'static str, Option<State>); 8]);
    let table: Vec<Row> = vec![
        (
            Order::Retry,
            [
                ("nothing", gone),
                ("done", Some(Waiting)),
                ("done, twice?", Some(Waiting)),
                ("under way", Some(Sending)),
                ("done", Some(Waiting)),
                ("done, twice?", Some(Waiting)),
                ("done", Some(Waiting)),
                ("unknown", gone),
            ],
        ),
        (
            Order::Hold,
            [
                ("unplanned", gone),
                ("done", Some(Held)),
                ("done", Some(Held)),
                ("under way", Some(Sending)),
                ("nothing", Some(Held)),
                ("nothing", Some(Held)),
                ("nothing", Some(Failed)),
                ("unknown", gone),
            ],
        ),
        (
            Order::Release,
            [
                ("nothing", gone),
                ("nothing", Some(Waiting)),
                ("nothing", Some(Waiting)),
                ("under way", Some(Sending)),
                ("done", Some(Waiting)),
                ("done, twice?", Some(Waiting)),
                ("nothing", Some(Failed)),
                ("unknown", gone),
            ],
        ),
        (
            bounce(),
            [
                ("unplanned", gone),
                ("done", Some(Failed)),
                ("done", Some(Failed)),
                ("under way", Some(Sending)),
                ("done", Some(Failed)),
                ("done", Some(Failed)),
                ("nothing", Some(Failed)),
                ("unknown", gone),
            ],
        ),
        (
            Order::Delete,
            [
                ("done", gone),
                ("done", gone),
                ("done", gone),
                ("under way", Some(Sending)),
                ("done", gone),
                ("done", gone),
                ("done", gone),
                ("unknown", gone),
            ],
        ),
        (
            Order::Expire(NOW.plus(Duration::from_secs(1))),
            [
                ("nothing", gone),
                ("nothing", Some(Waiting)),
                ("nothing", Some(Waiting)),
                ("under way", Some(Sending)),
                ("nothing", Some(Held)),
                ("nothing", Some(Held)),
                ("done", gone),
                ("unknown", gone),
            ],
        ),
    ];
    for (act, row) in table {
        for (before, (answer, after)) in ALL.into_iter().zip(row) {
            let id = prepare(&spool, before).await;
            let untouched = parts(&spool, id).await;
            let changed = spool.operator().change(change(id, act.clone())).await.unwrap();
            assert_eq!(word(&changed), answer, "{act:?} on {before:?}");
            let now = parts(&spool, id).await;
            assert_eq!(
                now.first().and_then(|part| part.state),
                after,
                "{act:?} on {before:?}"
            );
            if !answer.starts_with("done") {
                assert_eq!(now, untouched, "{act:?} on {before:?}");
            }
        }
    }
    close(spool);
}

#[tokio::test]
async fn a_dead_letter_goes_again_whole_to_those_who_did_not_get_it() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    let id = prepare(&spool, Before::Failed).await;
    spool.operator().change(change(id, Order::Retry)).await.unwrap();
    let due = NOW.plus(Duration::from_secs(60));
    let slots = |_: &crate::spool::Lane| crate::spool::Slots::Oldest { take: 10, skip: 0 };
    let agenda = spool.store().agenda(due, 10, slots).await.unwrap();
    let [part] = &agenda.due[..] else {
        panic!("{agenda:?}")
    };
    assert_eq!(part.due, due);
    assert_eq!(
        part.progress.deferred,
        Duration::ZERO,
        "else it is given up again at the first trouble"
    );
    let waiting: Vec<usize> = part.waiting.iter().map(|(number, _)| *number).collect();
    assert_eq!(waiting, [1], "the first has it");
    close(spool);
}

#[tokio::test]
async fn what_is_being_sent_is_left_alone_and_its_sister_is_not() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    let id = accept(&spool, &text(100), 2).await.id;
    let planned = |recipient| PlannedPart {
        account: "office".to_owned(),
        mailbox: "scanner@x.example".parse().unwrap(),
        changes: "{}".to_owned(),
        recipients: vec![recipient],
    };
    crate::spool::tests::plan_parts(&spool, id, vec![planned(0), planned(1)]).await;
    let sending = PartId {
        message: id,
        number: 0,
    };
    spool.store().mark(sending, NOW).await.unwrap();
    let both = Order::Bounce {
        parts: vec![0, 1],
        status: String::new(),
        cause: String::new(),
    };
    let changed = spool.operator().change(change(id, both)).await.unwrap();
    assert_eq!(
        changed,
        Changed::UnderWay,
        "a report about both would not be true"
    );
    let second = Order::Bounce {
        parts: vec![1],
        status: "5.0.0".to_owned(),
        cause: "an administrator said so".to_owned(),
    };
    let changed = spool.operator().change(change(id, second)).await.unwrap();
    let Changed::Done(done) = changed else {
        panic!("{changed:?}")
    };
    assert!(done.some_under_way);
    assert_eq!(done.ending, Ending::Open);
    let details = spool.operator().inspector().details(id).await.unwrap();
    let fates: Vec<Fate> = details
        .recipients
        .iter()
        .map(|recipient| recipient.fate)
        .collect();
    assert_eq!(fates, [Fate::Waiting, Fate::Failed]);
    assert_eq!(
        details.recipients[1].cause.as_deref(),
        Some("an administrator said so")
    );
    let deleted = spool.operator().change(change(id, Order::Delete)).await.unwrap();
    assert_eq!(deleted, Changed::UnderWay);
    close(spool);
}

/// An attempt that was getting ready when an administrator stepped in must not begin.
#[tokio::test]
async fn what_was_taken_back_is_not_begun() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    for act in [Order::Hold, bounce(), Order::Delete] {
        let id = prepare(&spool, Before::Waiting).await;
        let part = PartId {
            message: id,
            number: 0,
        };
        spool.operator().change(change(id, act.clone())).await.unwrap();
        let error = spool.store().mark(part, NOW).await.unwrap_err();
        assert!(error.is_withdrawn() && !error.is_lasting(), "{act:?}: {error}");
        assert!(parts(&spool, id).await.iter().all(|part| part.began.is_none()));
    }
    // A marker is set once.
    let id = prepare(&spool, Before::Sending).await;
    let again = spool
        .store()
        .mark(
            PartId {
                message: id,
                number: 0,
            },
            NOW,
        )
        .await;
    let Err(StoreError::Db(error)) = again else {
        panic!("{again:?}")
    };
    assert!(matches!(*error, DbError::Withdrawn(_)));
    close(spool);
}

/// A failed recipient that was asked to go again while an attempt without it was getting ready is not forgotten.
#[tokio::test]
async fn who_is_to_be_tried_again_outlives_an_attempt_that_did_not_know() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    let id = accept(&spool, &text(100), 2).await.id;
    let part = plan(&spool, id, 2).await;
    spool.store().mark(part, NOW).await.unwrap();
    let partly = settlement(part, Next::Due(NOW), &[Fate::Failed, Fate::Waiting]);
    spool.store().settle(partly).await.unwrap();
    // The attempt has read the part, with one recipient; then comes the administrator.
    let changed = spool.operator().change(change(id, Order::Retry)).await.unwrap();
    assert_eq!(word(&changed), "done");
    spool.store().mark(part, NOW).await.unwrap();
    let mut outcome = settlement(part, Next::Ended, &[Fate::Relayed, Fate::Relayed]);
    outcome.recipients.remove(0);
    let ending = spool.store().settle(outcome).await.unwrap();
    assert_eq!(ending, Ending::Open);
    let details = spool.operator().inspector().details(id).await.unwrap();
    assert_eq!(details.entry.parts[0].state, Some(State::Waiting));
    assert_eq!(details.recipients[0].fate, Fate::Waiting);
    close(spool);
}

#[tokio::test]
async fn a_deleted_message_leaves_neither_row_nor_file_nor_size() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    for octets in [100, 200_000] {
        let id = accept(&spool, &text(octets), 1).await.id;
        assert_eq!(spool.operator().room().used, octets as u64);
        spool.operator().change(change(id, Order::Delete)).await.unwrap();
        assert_eq!(spool.operator().room().used, 0);
        assert!(body_files(dir.path()).is_empty());
    }
    let overview = spool.operator().inspector().overview().await.unwrap();
    assert_eq!(
        (overview.messages, overview.octets, overview.lanes.len()),
        (0, 0, 0)
    );
    close(spool);
}

/// A dead letter's time begins when it failed, not when it arrived; what is old and still waits is no dead letter.
#[tokio::test]
async fn dead_letters_go_after_their_time_and_nothing_else_does() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    let (early, late) = (
        prepare(&spool, Before::Failed).await,
        accept(&spool, &text(9), 1).await.id,
    );
    let part = plan(&spool, late, 1).await;
    let day = Duration::from_secs(86_400);
    spool.store().mark(part, NOW.plus(day)).await.unwrap();
    let failed = settlement(part, Next::Ended, &[Fate::Failed]);
    spool.store().settle(failed).await.unwrap();
    for before in [Before::Waiting, Before::Held, Before::Unplanned] {
        prepare(&spool, before).await;
    }
    let mut told = Vec::new();
    let mut expire = async |before| {
        let event = |id: QueueId| {
            told.push(id);
            vec!["gone".to_owned()]
        };
        spool
            .operator()
            .expire(before, NOW.plus(day), event)
            .await
            .unwrap()
            .len()
    };
    assert_eq!(expire(NOW).await, 0);
    assert_eq!(expire(NOW.plus(day)).await, 1);
    assert_eq!(
        expire(NOW.plus(day)).await,
        0,
        "nothing is left that is old enough"
    );
    assert_eq!(expire(NOW.plus(day + day)).await, 1);
    assert_eq!(told, [early, late]);
    let all = Search {
        filter: Filter::default(),
        after: None,
        limit: 10,
    };
    assert_eq!(
        spool
            .operator()
            .inspector()
            .page(all)
            .await
            .unwrap()
            .entries
            .len(),
        3
    );
    close(spool);
}

/// While no bridge runs, everything can be read, also by somebody who cannot write anything there.
#[tokio::test]
async fn a_closed_spool_can_be_read() {
    use super::super::{InspectError, Inspector};
    let dir = TempDir::new().unwrap();
    let missing = Inspector::open(&dir.path().join("nowhere")).unwrap_err();
    assert!(matches!(missing, InspectError::Missing(_)), "{missing}");
    let spool = open(dir.path());
    let (small, large) = (
        accept(&spool, &text(50), 3).await,
        accept(&spool, &text(100_000), 1).await,
    );
    let (_, octets) = read_back(&spool, large.id).await;
    close(spool);
    let inspector = Inspector::open(dir.path()).unwrap();
    let all = Search {
        filter: Filter::default(),
        after: None,
        limit: 10,
    };
    let page = inspector.page(all).await.unwrap();
    assert_eq!(page.entries.len(), 2);
    assert_eq!(inspector.details(small.id).await.unwrap().recipients.len(), 3);
    let (message, body) = inspector.message(large.id).await.unwrap();
    assert_eq!(message, large);
    assert_eq!(body.beginning(1_000_000).unwrap(), octets);
    assert!(matches!(
        inspector.details(QueueId::from_bytes([1; 16])).await,
        Err(StoreError::Unknown(_))
    ));
}
