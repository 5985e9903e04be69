//! Both halves of the spool together, on a disk and in one world: long because that world is set up once for all.

use super::*;
use crate::clock::Clock;
use crate::mail::Envelope;
use crate::mail::EnvelopeId;
use crate::mail::Notify;
use crate::mail::OriginalRecipient;
use crate::mail::QueueId;
use crate::mail::Recipient;
use crate::mail::Ret;
use crate::mail::ReversePath;
use crate::mail::Timestamp;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

pub(super) fn settings(directory: &Path) -> SpoolSettings {
    SpoolSettings {
        directory: directory.to_owned(),
        max_size: 1 << 30,
        min_free: 0,
    }
}

pub(super) fn open(directory: &Path) -> Spool {
    Spool::open(&settings(directory), Clock::machine()).unwrap()
}

/// An envelope in which nothing is left out.
pub(super) fn envelope(recipients: usize) -> Envelope {
    let recipients = (0..recipients).map(|n| Recipient {
        address: format!("r{n}@y.example").parse().unwrap(),
        notify: Notify::from_bits(n as u8 % 9),
        original: OriginalRecipient::new(&format!("rfc822;list+{n}@y.example")).ok(),
    });
    Envelope::new(
        ReversePath::Address("a@x.example".parse().unwrap()),
        recipients,
        Default::default(),
    )
    .unwrap()
    .with_smtputf8(true)
    .with_reports(Some(Ret::Headers), EnvelopeId::new("a b+c").ok())
}

pub(super) fn origin() -> Origin {
    Origin {
        client: "192.0.2.7".parse().unwrap(),
        greeting: "printer".to_owned(),
        esmtp: true,
        listener: "local".to_owned(),
        tls: true,
        user: Some("anna".to_owned()),
    }
}

pub(super) fn text(octets: usize) -> Vec<u8> {
    (0..octets)
        .map(|n| b"Subject: x\r\n\r\n.0123456789"[n % 25])
        .collect()
}

pub(super) async fn accept(spool: &Spool, body: &[u8], recipients: usize) -> Message {
    let mut draft = spool.intake().begin();
    for piece in body.chunks(10_000) {
        draft.write(piece).await.unwrap();
    }
    draft.accept(envelope(recipients), origin()).await.unwrap()
}

pub(super) async fn read_back(spool: &Spool, id: QueueId) -> (Message, Vec<u8>) {
    let (message, body) = spool.store().message(id).await.unwrap();
    let mut pieces = body.pieces(0).unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next_piece().unwrap() {
        bytes.extend_from_slice(&piece);
    }
    (message, bytes)
}

pub(super) async fn plan(spool: &Spool, id: QueueId, recipients: usize) -> PartId {
    let part = PlannedPart {
        account: "office".to_owned(),
        mailbox: "scanner@x.example".parse().unwrap(),
        changes: "{}".to_owned(),
        recipients: (0..recipients).collect(),
    };
    plan_parts(spool, id, vec![part]).await;
    PartId {
        message: id,
        number: 0,
    }
}

pub(super) async fn plan_parts(spool: &Spool, id: QueueId, parts: Vec<PlannedPart>) {
    let plan = Plan {
        parts,
        due: NOW,
        message_id: None,
        events: vec!["planned".to_owned()],
    };
    spool.store().plan(id, plan).await.unwrap();
}

pub(super) fn settlement(part: PartId, next: Next, fates: &[Fate]) -> Settlement {
    let update = |(recipient, fate): (usize, &Fate)| RecipientUpdate {
        recipient,
        fate: *fate,
        status: "2.0.0".to_owned(),
        cause: "x".to_owned(),
    };
    let recipients = fates.iter().enumerate().map(update).collect();
    Settlement {
        part,
        next,
        progress: Progress {
            attempts: 1,
            ..Progress::default()
        },
        recipients,
        reports: Reports::default(),
        events: vec!["settled".to_owned()],
        sent: None,
    }
}

fn everything(_: &Lane) -> Slots {
    Slots::Oldest { take: 100, skip: 0 }
}

pub(super) fn body_files(directory: &Path) -> Vec<PathBuf> {
    let shards = std::fs::read_dir(directory.join("body")).unwrap();
    shards
        .flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap())
        .map(|f| f.unwrap().path())
        .collect()
}

pub(super) fn close(spool: Spool) {
    std::thread::spawn(|| spool.close()).join().unwrap();
}

#[tokio::test]
async fn what_was_accepted_is_there_after_a_restart_octet_for_octet() {
    let dir = TempDir::new().unwrap();
    for octets in [0, 1, INLINE_LIMIT, INLINE_LIMIT + 1, 300_000] {
        let body = text(octets);
        let spool = open(dir.path());
        let accepted = accept(&spool, &body, 2).await;
        let files = body_files(dir.path());
        assert_eq!(files.len(), if octets > INLINE_LIMIT { 2 } else { 0 });
        if let Some(path) = files.iter().find(|path| path.extension().unwrap() == "env") {
            let stored = std::fs::read_to_string(path).unwrap();
            assert_eq!(read_envelope(&stored).as_ref(), Ok(&accepted));
        }
        close(spool);
        let spool = open(dir.path());
        assert_eq!(spool.swept().messages, 1);
        let (message, bytes) = read_back(&spool, accepted.id).await;
        assert_eq!(message, accepted);
        assert!(bytes == body, "{octets}");
        let part = plan(&spool, accepted.id, 2).await;
        let ending = spool
            .store()
            .settle(settlement(part, Next::Ended, &[Fate::Relayed; 2]))
            .await
            .unwrap();
        assert!(matches!(ending, Ending::Released { .. }));
        assert_eq!(body_files(dir.path()), Vec::<PathBuf>::new());
        assert!(matches!(
            spool.store().message(accepted.id).await,
            Err(StoreError::Unknown(_))
        ));
        close(spool);
    }
}

#[tokio::test]
async fn a_draft_that_is_dropped_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    let mut draft = spool.intake().begin();
    draft.write(&text(200_000)).await.unwrap();
    assert_eq!(body_files(dir.path()).len(), 1);
    drop(draft);
    assert!(body_files(dir.path()).is_empty());
}

#[tokio::test]
async fn a_second_daemon_is_kept_out() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    let error = Spool::open(&settings(dir.path()), Clock::machine()).unwrap_err();
    assert!(matches!(error, SpoolError::Locked(_)), "{error}");
    close(spool);
    close(open(dir.path()));
}

#[tokio::test]
async fn files_without_a_row_are_swept_or_set_aside_if_the_database_cannot_vouch() {
    let dir = TempDir::new().unwrap();
    close(open(dir.path()));
    let orphan = dir
        .path()
        .join("body/3f")
        .join(format!("{}.eml", QueueId::new(NOW)));
    std::fs::write(&orphan, "x").unwrap();
    let spool = open(dir.path());
    assert_eq!((spool.swept().removed, spool.swept().set_aside), (1, 0));
    close(spool);

    // Another spool's database, or none at all where there was one.
    for name in ["queue.db", "queue.db-wal", "queue.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(name));
    }
    std::fs::write(&orphan, "x").unwrap();
    let spool = open(dir.path());
    assert_eq!((spool.swept().removed, spool.swept().set_aside), (0, 1));
    assert!(
        dir.path()
            .join("corrupt")
            .join(orphan.file_name().unwrap())
            .exists()
    );
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_the_spool_opens() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    accept(&spool, &text(200_000), 1).await;
    close(spool);
    std::fs::write(
        dir.path().join("queue.db"),
        "this is no database, and long enough to be read as one".repeat(100),
    )
    .unwrap();
    let _ = std::fs::remove_file(dir.path().join("queue.db-wal"));
    let spool = open(dir.path());
    let recovered = spool.swept().recovered.clone().unwrap();
    assert!(
        std::fs::read_to_string(&recovered.moved_to)
            .unwrap()
            .starts_with("this is no database")
    );
    assert_eq!((recovered.from_files, spool.swept().set_aside), (1, 0));
    accept(&spool, &text(10), 1).await;
}

#[tokio::test]
async fn an_attempt_that_was_cut_off_is_known_at_the_next_start() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    let id = accept(&spool, &text(10), 1).await.id;
    let part = plan(&spool, id, 1).await;
    assert_eq!(
        spool.store().agenda(NOW, 10, everything).await.unwrap().due.len(),
        1
    );
    spool.store().mark(part, NOW).await.unwrap();
    assert!(
        spool
            .store()
            .agenda(NOW, 10, everything)
            .await
            .unwrap()
            .due
            .is_empty()
    );
    close(spool);
    let spool = open(dir.path());
    let interrupted = spool.store().interrupted().await.unwrap().whole;
    assert_eq!(interrupted.iter().map(|part| part.id).collect::<Vec<_>>(), [part]);
    let later = NOW.plus(std::time::Duration::from_secs(9));
    spool
        .store()
        .settle(settlement(part, Next::Due(later), &[Fate::Waiting]))
        .await
        .unwrap();
    let agenda = spool.store().agenda(NOW, 10, everything).await.unwrap();
    assert_eq!((agenda.due.len(), agenda.next_due), (0, Some(later)));
    assert_eq!(
        spool
            .store()
            .agenda(later, 10, everything)
            .await
            .unwrap()
            .due
            .len(),
        1
    );
}

#[tokio::test]
async fn a_message_with_a_failed_recipient_stays_as_a_dead_letter() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    let id = accept(&spool, &text(10), 2).await.id;
    let part = plan(&spool, id, 2).await;
    let first = settlement(part, Next::Due(NOW), &[Fate::Relayed, Fate::Waiting]);
    assert_eq!(spool.store().settle(first).await.unwrap(), Ending::Open);
    let due = spool.store().agenda(NOW, 10, everything).await.unwrap().due;
    assert_eq!(due[0].waiting.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1]);
    let mut last = settlement(part, Next::Ended, &[]);
    last.recipients.push(RecipientUpdate {
        recipient: 1,
        fate: Fate::Failed,
        status: String::new(),
        cause: String::new(),
    });
    assert_eq!(
        spool.store().settle(last.clone()).await.unwrap(),
        Ending::DeadLetter
    );
    assert_eq!(
        spool.store().settle(last).await.unwrap(),
        Ending::DeadLetter,
        "may be repeated"
    );
    assert!(spool.store().message(id).await.is_ok());
    assert!(
        spool
            .store()
            .agenda(NOW, 10, everything)
            .await
            .unwrap()
            .due
            .is_empty()
    );
}

#[tokio::test]
async fn a_plan_is_written_once() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    let id = accept(&spool, &text(10), 3).await.id;
    assert_eq!(
        spool.store().agenda(NOW, 10, everything).await.unwrap().unplanned,
        [id]
    );
    plan(&spool, id, 3).await;
    plan(&spool, id, 1).await;
    let agenda = spool.store().agenda(NOW, 10, everything).await.unwrap();
    assert!(agenda.unplanned.is_empty());
    assert_eq!(agenda.due.len(), 1);
    assert_eq!(agenda.due[0].waiting.len(), 3);
}

#[tokio::test]
async fn a_full_spool_says_so_and_has_room_again_after_a_release() {
    let dir = TempDir::new().unwrap();
    let tight = SpoolSettings {
        max_size: 100,
        ..settings(dir.path())
    };
    let spool = Spool::open(&tight, Clock::machine()).unwrap();
    assert_eq!(spool.intake().room(), Room::Enough);
    let id = accept(&spool, &text(100), 1).await.id;
    assert_eq!(spool.intake().room(), Room::Full);
    let part = plan(&spool, id, 1).await;
    spool
        .store()
        .settle(settlement(part, Next::Ended, &[Fate::Relayed]))
        .await
        .unwrap();
    assert_eq!(spool.intake().room(), Room::Enough);
    let greedy = SpoolSettings {
        min_free: u64::MAX,
        ..settings(&dir.path().join("other"))
    };
    assert_eq!(
        Spool::open(&greedy, Clock::machine()).unwrap().intake().room(),
        Room::Full
    );
}

#[tokio::test]
async fn many_at_once_share_commits_and_none_is_lost() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    let accepted = futures(64, |n| {
        let intake = spool.intake();
        async move {
            let mut draft = intake.begin();
            draft.write(&text(n)).await.unwrap();
            draft.accept(envelope(1), origin()).await.unwrap()
        }
    })
    .await;
    close(spool);
    let spool = open(dir.path());
    for message in accepted {
        assert_eq!(read_back(&spool, message.id).await.0, message);
    }
}

async fn futures<F: Future<Output = T> + Send + 'static, T: Send + 'static>(
    count: usize,
    make: impl Fn(usize) -> F,
) -> Vec<T> {
    let mut set = tokio::task::JoinSet::new();
    for n in 0..count {
        set.spawn(make(n));
    }
    set.join_all().await
}

#[tokio::test]
async fn bodies_are_kept_if_the_database_and_the_id_are_gone() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    accept(&spool, &text(200_000), 1).await;
    close(spool);
    for name in ["queue.db", "queue.db-wal", "queue.db-shm", "id"] {
        let _ = std::fs::remove_file(dir.path().join(name));
    }
    let spool = open(dir.path());
    assert_eq!((spool.swept().removed, spool.swept().set_aside), (0, 2));
}

#[tokio::test]
async fn damage_in_the_middle_of_the_database_does_not_stop_the_start() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    for _ in 0..300 {
        accept(&spool, &text(300), 3).await;
    }
    close(spool);
    let path = dir.path().join("queue.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[3 * 4096..].fill(0x5a);
    std::fs::write(&path, &bytes).unwrap();
    let spool = open(dir.path());
    assert!(spool.swept().recovered.is_some());
    accept(&spool, &text(10), 1).await;
}

#[tokio::test]
async fn one_damaged_record_does_not_stop_the_others() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    let bad = accept(&spool, &text(10), 1).await.id;
    let good = accept(&spool, &text(10), 1).await.id;
    for id in [bad, good] {
        plan(&spool, id, 1).await;
    }
    close(spool);
    crate::db::damage_recipients(&dir.path().join("queue.db"), bad);
    let spool = open(dir.path());
    let agenda = spool.store().agenda(NOW, 10, everything).await.unwrap();
    assert_eq!(
        agenda.due.iter().map(|part| part.id.message).collect::<Vec<_>>(),
        [good]
    );
    let (part, _) = agenda.damaged[0].clone();
    assert_eq!(part.message, bad);
    spool.store().hold(part).await.unwrap();
    assert!(
        spool
            .store()
            .agenda(NOW, 10, everything)
            .await
            .unwrap()
            .damaged
            .is_empty()
    );
    assert!(spool.store().message(bad).await.unwrap_err().is_lasting());
}

#[tokio::test]
async fn what_was_due_by_a_wrong_clock_is_due_now() {
    let dir = TempDir::new().unwrap();
    let spool = open(dir.path());
    let id = accept(&spool, &text(10), 1).await.id;
    let part = plan(&spool, id, 1).await;
    let day = std::time::Duration::from_secs(86_400);
    let (soon, never) = (NOW.plus(day / 2), NOW.plus(day * 1000));
    spool
        .store()
        .settle(settlement(part, Next::Due(never), &[Fate::Waiting]))
        .await
        .unwrap();
    spool.store().rein_in(NOW, NOW.plus(day)).await.unwrap();
    assert_eq!(
        spool.store().agenda(NOW, 10, everything).await.unwrap().due.len(),
        1
    );
    spool
        .store()
        .settle(settlement(part, Next::Due(soon), &[Fate::Waiting]))
        .await
        .unwrap();
    spool.store().rein_in(NOW, NOW.plus(day)).await.unwrap();
    assert_eq!(
        spool.store().agenda(NOW, 10, everything).await.unwrap().next_due,
        Some(soon)
    );
}

#[tokio::test]
async fn a_header_without_end_is_refused_and_a_long_text_without_header_is_not() {
    let directory = TempDir::new().unwrap();
    let spool = open(directory.path());
    let field = b"Subject: x\r\n";
    for (first, rest, taken) in [
        (&field[..], &field[..], false),
        (b"just some text\r\n", b"just some text\r\n", true),
        (b"Subject: x\r\n\r\n", b"Subject: x\r\n", true),
        (b"\r\n", field, true),
        (b"Subject: x\r\n", b"a", false),
    ] {
        for size in [1, 7, 8192] {
            let mut text = first.to_vec();
            while text.len() <= crate::mail::header::MAX_HEADER_BLOCK {
                text.extend_from_slice(rest);
            }
            text.extend_from_slice(b"\r\n\r\nbody\r\n");
            let mut draft = spool.intake().begin();
            for piece in text.chunks(size) {
                draft.write(piece).await.unwrap();
            }
            let result = draft.accept(envelope(1), origin()).await;
            match result {
                Ok(_) => assert!(taken, "{}", first.escape_ascii()),
                Err(AcceptError::Header(_)) => assert!(!taken, "{}", first.escape_ascii()),
                Err(error) => panic!("{error}"),
            }
        }
    }
    let stored = body_files(directory.path());
    assert_eq!(
        stored
            .iter()
            .filter(|path| path.extension().unwrap() == "eml")
            .count(),
        9
    );
}

/// Waits for what the writer does by itself when nobody asks for anything.
fn wait_until(what: impl Fn() -> bool) {
    for _ in 0..3000 {
        if what() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it does not come");
}

#[tokio::test]
async fn what_was_released_is_given_back_to_the_file_system() {
    let dir = TempDir::new().unwrap();
    let size = || std::fs::metadata(dir.path().join("queue.db")).unwrap().len();
    let spool = open(dir.path());
    let mut parts = Vec::new();
    for _ in 0..150 {
        let id = accept(&spool, &text(60_000), 1).await.id;
        parts.push(plan(&spool, id, 1).await);
    }
    let kept = parts.pop().unwrap();
    for part in parts {
        let ended = settlement(part, Next::Ended, &[Fate::Relayed]);
        spool.store().settle(ended).await.unwrap();
    }
    wait_until(|| (1..4_000_000).contains(&size()));
    assert_eq!(read_back(&spool, kept.message).await.1, text(60_000));
    close(spool);
    assert_eq!(open(dir.path()).swept().messages, 1);
}
