use super::*;
use crate::db::record::{Message, Origin, Plan, PlannedPart, Stored};
use crate::db::{QueueWriter, Slots};
use crate::mail::{BodyType, Envelope, QueueId, ReversePath};
use bytes::Bytes;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

struct Queue {
    _directory: tempfile::TempDir,
    writer: QueueWriter,
    reader: QueueReader,
    turns: Turns,
}

fn lane() -> Lane {
    Lane {
        account: "office".to_owned(),
        mailbox: "s@x.example".to_owned(),
    }
}

impl Queue {
    /// A queue with `count` messages of each `(user, sender)`, one sender's after the other's, all due.
    fn of(senders: &[(&str, &str, usize)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        let mut writer = QueueWriter::open(&path, [1; 16]).unwrap();
        writer.begin().unwrap();
        let mut number = 0;
        for (user, sender, count) in senders {
            for _ in 0..*count {
                number += 1;
                add(
                    &mut writer,
                    user,
                    sender,
                    Timestamp::from_millis(NOW.millis() - 100_000 + number),
                );
            }
        }
        writer.commit().unwrap();
        let reader = QueueReader::open(&path).unwrap();
        Self {
            _directory: directory,
            writer,
            reader,
            turns: Turns::default(),
        }
    }

    /// What is taken next, marked and remembered as the runner does it.
    fn take(&mut self, take: usize, barred: &[&str]) -> Vec<String> {
        let wanted = InTurn {
            take,
            turns: self.turns.clone(),
            busy: Arc::default(),
            barred: Arc::new(barred.iter().map(|&text| text.to_owned()).collect()),
        };
        let slots = |_: &Lane| Slots::InTurn(wanted.clone());
        let due = self.reader.agenda(NOW, 0, slots).unwrap().due;
        self.writer.begin().unwrap();
        for part in &due {
            self.writer.mark(part.id, NOW).unwrap();
            self.turns.served(&part.turn);
        }
        self.writer.commit().unwrap();
        due.into_iter().map(|part| part.turn.to_string()).collect()
    }
}

fn add(writer: &mut QueueWriter, user: &str, sender: &str, due: Timestamp) {
    let recipient: crate::mail::Address = "bob@y.example".parse().unwrap();
    let reverse_path = if sender.is_empty() {
        ReversePath::Null
    } else {
        ReversePath::Address(sender.parse().unwrap())
    };
    let message = Message {
        id: QueueId::new(NOW),
        arrived: NOW,
        envelope: Envelope::new(reverse_path, [recipient], BodyType::SevenBit).unwrap(),
        origin: Origin {
            client: "10.0.0.1".parse().unwrap(),
            greeting: "test".to_owned(),
            esmtp: true,
            listener: "local".to_owned(),
            tls: false,
            user: Some(user.to_owned()).filter(|user| !user.is_empty()),
        },
        size: 5,
        checksum: 0,
        report: false,
    };
    let plan = PlannedPart {
        account: lane().account,
        mailbox: lane().mailbox.parse().unwrap(),
        changes: String::new(),
        recipients: vec![0],
    };
    writer
        .insert(&message, &Stored::Inline(Bytes::from_static(b"hello")))
        .unwrap();
    writer.plan(message.id, &Plan::new(vec![plan], due)).unwrap();
}

#[test]
fn devices_take_turns_and_the_senders_of_each_device_too() {
    let mut queue = Queue::of(&[
        ("flood", "f@x.example", 50),
        ("server", "app1@x.example", 3),
        ("server", "app2@x.example", 3),
        ("", "", 1),
    ]);
    let mut order = Vec::new();
    for _ in 0..6 {
        order.extend(queue.take(2, &[]));
    }
    let (flood, one, two) = (
        "flood <f@x.example>",
        "server <app1@x.example>",
        "server <app2@x.example>",
    );
    let expected = [
        "10.0.0.1 <>",
        flood,
        one,
        flood,
        two,
        flood,
        one,
        flood,
        two,
        flood,
        one,
        flood,
    ];
    assert_eq!(order, expected);
    assert_eq!(queue.take(1000, &[]).len(), 57 - 12, "and all of them in the end");
    assert_eq!(queue.take(1000, &[]), [""; 0]);
}

#[test]
fn each_turn_is_the_senders_oldest_message_that_is_due() {
    let mut queue = Queue::of(&[("a", "a@x.example", 2)]);
    queue.writer.begin().unwrap();
    add(
        &mut queue.writer,
        "a",
        "a@x.example",
        NOW.plus(std::time::Duration::from_secs(1)),
    );
    add(&mut queue.writer, "a", "a@x.example", Timestamp::from_millis(1));
    queue.writer.commit().unwrap();
    let wanted = InTurn {
        take: 10,
        ..InTurn::default()
    };
    let agenda = queue
        .reader
        .agenda(NOW, 0, |_| Slots::InTurn(wanted.clone()))
        .unwrap();
    let dues: Vec<i64> = agenda.due.iter().map(|part| part.due.millis()).collect();
    let old = NOW.millis() - 100_000;
    assert_eq!(dues, [1, old + 1, old + 2]);
    // What is under way is not offered again, though its marker is not written yet.
    let busy = Arc::new(HashSet::from([agenda.due[0].id]));
    let wanted = InTurn {
        take: 1,
        busy,
        ..InTurn::default()
    };
    let agenda = queue
        .reader
        .agenda(NOW, 0, |_| Slots::InTurn(wanted.clone()))
        .unwrap();
    assert_eq!(agenda.due[0].due.millis(), old + 1);
}

#[test]
fn who_is_barred_is_left_out_and_holds_up_nobody() {
    let mut queue = Queue::of(&[("flood", "f@x.example", 50), ("fax", "n@x.example", 2)]);
    let barred = ["flood <f@x.example>"];
    assert_eq!(queue.take(10, &barred), ["fax <n@x.example>"; 2]);
    assert_eq!(queue.take(10, &barred), [""; 0]);
    assert_eq!(queue.take(10, &[]).len(), 10);
}

#[test]
fn a_device_with_a_reverse_path_for_each_message_is_one_device() {
    let paths: Vec<String> = (0..500).map(|n| format!("bounce-{n}@x.example")).collect();
    let mut senders: Vec<(&str, &str, usize)> = paths.iter().map(|path| ("list", &path[..], 1)).collect();
    senders.push(("printer", "p@x.example", 3));
    let mut queue = Queue::of(&senders);
    let order = queue.take(6, &[]);
    assert_eq!(
        order.iter().filter(|turn| turn.starts_with("printer")).count(),
        3,
        "{order:?}"
    );
}

#[test]
fn more_senders_than_can_be_asked_stop_nothing() {
    let later = NOW.plus(std::time::Duration::from_secs(60));
    let mut queue = Queue::of(&[("zz", "z@x.example", 3), ("flood", "f@x.example", 400)]);
    queue.writer.begin().unwrap();
    for n in 0..400 {
        add(&mut queue.writer, &format!("a{n:03}"), "idle@x.example", later);
    }
    queue.writer.commit().unwrap();
    let order = queue.take(3, &["flood <f@x.example>"]);
    assert_eq!(order, ["zz <z@x.example>"; 3]);
}
