use super::*;
use crate::db::filter::Pattern;
use crate::db::{QueueWriter, open_writing};
use std::collections::BTreeSet;
use std::path::Path;

/// When the first message arrives; the others follow at 10 ms each, in threes.
const START: i64 = 1_800_000_000_000;

/// What the n-th message of a generated queue is like.
#[derive(Clone, Debug)]
struct Sample {
    id: QueueId,
    sender: String,
    recipients: Vec<String>,
    /// Account, state, marker, uncertain.
    parts: Vec<(&'static str, u8, bool, u32)>,
}

fn sample(n: u64, id: QueueId) -> Sample {
    let parts = match n % 100 {
        0..=2 => vec![],
        3 => vec![("office", 2, false, 0)],
        4 => vec![("office", 2, false, 3)],
        5 | 6 => vec![("office", 3, false, 0)],
        7 => vec![("lab", 0, false, 1)],
        8 => vec![("lab", 0, true, 0)],
        9 => vec![("office", 0, false, 0), ("lab", 3, false, 0)],
        10 => vec![("office", 1, false, 2), ("lab", 2, false, 0)],
        _ => vec![("office", 0, false, 0)],
    };
    Sample {
        id,
        sender: if n.is_multiple_of(11) {
            String::new()
        } else {
            format!("s{}@x{}.example", n % 7, n % 3)
        },
        recipients: (0..=n % 3)
            .map(|r| format!("r{r}-{}@y.example", n % 50))
            .collect(),
        parts,
    }
}

/// A queue of so many messages, written past the writer, which would take much longer.
fn generated(path: &Path, count: u64) -> Vec<Sample> {
    drop(QueueWriter::open(path, [1; 16]).unwrap());
    let mut connection = open_writing(path).unwrap();
    let transaction = connection.transaction().unwrap();
    let mut samples = Vec::new();
    {
        let mut message = transaction
            .prepare(
                "INSERT INTO message (id, arrived, planned, size, checksum, in_file, reverse_path, body_type,
                                      client, greeting, esmtp, listener)
                 VALUES (?1, ?2, ?3, 1000, 0, 0, ?4, 0, '192.0.2.7', 'printer', 1, 'local')",
            )
            .unwrap();
        let mut recipient = transaction
            .prepare(
                "INSERT INTO recipient (message, number, address, part, fate) VALUES (?1, ?2, ?3, ?4, ?5)",
            )
            .unwrap();
        let mut part = transaction
            .prepare(
                "INSERT INTO part (message, number, account, mailbox, changes, state, due, marker, uncertain)
                 VALUES (?1, ?2, ?3, 'scanner@x.example', '{\"change\":{\"operations\":[]}}', ?4, ?5, ?6, ?7)",
            )
            .unwrap();
        for n in 0..count {
            let arrived = START + i64::try_from(n / 3 * 10).unwrap();
            // As a UUID of version 7, and in order.
            let bits = u128::from(arrived.unsigned_abs()) << 80 | 7 << 76 | u128::from(n);
            let sample = sample(n, QueueId::from_bytes(bits.to_be_bytes()));
            let id = &sample.id.as_bytes()[..];
            let sender = (!sample.sender.is_empty()).then_some(&sample.sender);
            message
                .execute(params![id, arrived, !sample.parts.is_empty(), sender])
                .unwrap();
            for (number, address) in sample.recipients.iter().enumerate() {
                let fate = if sample.parts.iter().any(|part| part.1 == 3) {
                    2
                } else {
                    0
                };
                recipient.execute(params![id, number, address, 0, fate]).unwrap();
            }
            // Due in another order than that of arrival.
            let due = arrived + i64::try_from(n * 7919 % 100_000).unwrap();
            for (number, (account, state, marked, uncertain)) in sample.parts.iter().enumerate() {
                let marker = marked.then_some(arrived);
                part.execute(params![id, number, account, state, due, marker, uncertain])
                    .unwrap();
            }
            samples.push(sample);
        }
    }
    transaction.commit().unwrap();
    samples
}

/// The filter in other words than those of the search.
fn fits(sample: &Sample, filter: &Filter) -> bool {
    let state_fits = |(_, state, marked, uncertain): &(&str, u8, bool, u32)| match filter.state {
        None => true,
        Some(State::Waiting) => *state == 0 && !marked,
        Some(State::Sending) => *marked,
        Some(State::Held) => *state == 2,
        Some(State::Failed) => *state == 3,
        Some(State::Uncertain) => *uncertain > 0 && !marked && (*state == 0 || *state == 2),
    };
    let account_fits = |part: &(&str, u8, bool, u32)| filter.account.as_ref().is_none_or(|a| a == part.0);
    let unplanned = sample.parts.is_empty()
        && filter.account.is_none()
        && matches!(filter.state, None | Some(State::Waiting));
    let arrived = sample.id.arrived();
    (unplanned
        || sample
            .parts
            .iter()
            .any(|part| state_fits(part) && account_fits(part)))
        && filter.sender.as_ref().is_none_or(|p| p.matches(&sample.sender))
        && filter
            .recipient
            .as_ref()
            .is_none_or(|p| sample.recipients.iter().any(|r| p.matches(r)))
        && filter.before.is_none_or(|before| arrived < before)
        && filter.since.is_none_or(|since| arrived >= since)
}

fn filters() -> Vec<Filter> {
    let mut filters = Vec::new();
    let states = [None].into_iter().chain(State::ALL.map(Some));
    for state in states {
        for account in [None, Some("office"), Some("lab"), Some("nobody")] {
            for sender in [None, Some("<>")] {
                for recipient in [None, Some("R1-8@*")] {
                    filters.push(Filter {
                        state,
                        account: account.map(str::to_owned),
                        sender: sender.map(Pattern::new),
                        recipient: recipient.map(Pattern::new),
                        ..Filter::default()
                    });
                }
            }
        }
    }
    let ages = filters.clone().into_iter().map(|filter| Filter {
        since: Some(Timestamp::from_millis(START + 500)),
        before: Some(Timestamp::from_millis(START + 2_000)),
        ..filter
    });
    filters.extend(ages.collect::<Vec<_>>());
    filters
}

/// All pages of a search, and how many there were.
fn all(reader: &QueueReader, filter: &Filter, limit: usize, go_on: impl Fn() -> bool) -> (Vec<QueueId>, u32) {
    let (mut ids, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let search = Search {
            filter: filter.clone(),
            after,
            limit,
        };
        let found = reader.search(&search, &go_on).unwrap();
        assert!(found.ids.len() <= limit, "{filter:?}");
        ids.extend(found.ids);
        pages += 1;
        match found.next {
            None => return (ids, pages),
            next => {
                assert!(next > after, "no headway: {filter:?}");
                after = next;
            }
        }
    }
}

#[test]
fn every_filter_finds_what_it_says_page_by_page_with_and_without_patience() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let samples = generated(&path, 1_200);
    let reader = QueueReader::open(&path).unwrap();
    let mut counts = BTreeSet::new();
    for filter in filters() {
        let wanted: Vec<QueueId> = samples
            .iter()
            .filter(|sample| fits(sample, &filter))
            .map(|sample| sample.id)
            .collect();
        counts.insert(wanted.len());
        let (found, pages) = all(&reader, &filter, 10_000, || true);
        assert_eq!(found, wanted, "{filter:?}");
        assert_eq!(pages, 1, "{filter:?}");
        assert_eq!(
            all(&reader, &filter, 37, || true).0,
            wanted,
            "pages of {filter:?}"
        );
        assert_eq!(
            all(&reader, &filter, 500, || false).0,
            wanted,
            "{filter:?} without patience"
        );
    }
    assert!(counts.len() > 10, "the filters differ: {counts:?}");
}

#[test]
fn a_message_with_more_recipients_than_a_stride_is_passed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let samples = generated(&path, 30);
    let connection = open_writing(&path).unwrap();
    connection
        .execute(
            "WITH RECURSIVE n(x) AS (SELECT 10 UNION ALL SELECT x + 1 FROM n WHERE x < 5000)
             INSERT INTO recipient (message, number, address) SELECT ?1, x, 'm' || x || '@z.example' FROM n",
            [&samples[5].id.as_bytes()[..]],
        )
        .unwrap();
    let reader = QueueReader::open(&path).unwrap();
    let filter = Filter {
        recipient: Some(Pattern::new("m4999@z.example")),
        ..Filter::default()
    };
    assert_eq!(all(&reader, &filter, 5, || false).0, [samples[5].id]);
}

#[test]
fn an_overview_counts_what_the_searches_find() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    generated(&path, 3_000);
    let reader = QueueReader::open(&path).unwrap();
    let overview = reader.overview(|| true).unwrap();
    assert_eq!(
        (overview.messages, overview.octets, overview.unplanned),
        (3_000, 3_000_000, 90)
    );
    assert_eq!((overview.sending, overview.uncertain), (30, 60));
    assert_eq!(overview.oldest_waiting, Some(Timestamp::from_millis(START)));
    let counts: Vec<_> = overview
        .lanes
        .iter()
        .map(|lane| (lane.lane.account.as_str(), lane.waiting, lane.held, lane.failed))
        .collect();
    assert_eq!(counts, [("lab", 60, 30, 30), ("office", 2_700, 60, 60)]);
}

#[test]
fn an_entry_says_how_a_message_stands() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let samples = generated(&path, 200);
    let reader = QueueReader::open(&path).unwrap();
    let entry = reader.entry(samples[109].id).unwrap().unwrap();
    assert_eq!(entry.recipients, 2);
    assert_eq!(entry.open[1].address, "r1-9@y.example");
    assert_eq!(entry.open[1].fate, Fate::Failed);
    let states: Vec<Option<State>> = entry.parts.iter().map(|part| part.state).collect();
    assert_eq!(states, [Some(State::Waiting), Some(State::Failed)]);
    assert_eq!(reader.entry(QueueId::from_bytes([7; 16])).unwrap(), None);
    let all = (QueueId::from_bytes([0; 16]), QueueId::from_bytes([0xff; 16]));
    assert_eq!(reader.between(all, 2).unwrap(), [samples[0].id, samples[1].id]);
}

/// A walk that sorts, or that reads a table where an index was meant, would be slow only with many messages.
#[test]
fn no_walk_sorts_and_each_uses_the_index_that_was_meant() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    generated(&path, 100);
    let connection = open_writing(&path).unwrap();
    for (sql, uses) in [
        (MESSAGES, "SEARCH message USING PRIMARY KEY (id>? AND id<?)"),
        (
            RECIPIENTS,
            "SEARCH recipient USING PRIMARY KEY (message>? AND message<?)",
        ),
        (PARTS, "SEARCH part USING PRIMARY KEY (message>? AND message<?)"),
        (
            HELD,
            "SEARCH part USING COVERING INDEX part_held (message>? AND message<?)",
        ),
        (
            FAILED,
            "SEARCH part USING COVERING INDEX part_failed (message>? AND message<?)",
        ),
        (
            UNCERTAIN,
            "SEARCH part USING COVERING INDEX part_uncertain (message>? AND message<?)",
        ),
        (
            SENDING,
            "SEARCH part USING COVERING INDEX part_marked (message>? AND message<?)",
        ),
        (WAITING, "SCAN part USING COVERING INDEX part_due"),
        (
            WAITING_OF_ACCOUNT,
            "SEARCH part USING COVERING INDEX part_due (account=?)",
        ),
        (
            UNPLANNED,
            "SEARCH message USING COVERING INDEX message_unplanned (id>? AND id<?)",
        ),
    ] {
        let plan: Vec<String> = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap()
            .query_map(
                rusqlite::params_from_iter(vec![rusqlite::types::Null; sql.matches('?').count()]),
                |row| row.get("detail"),
            )
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let without = |text: &str| text.replace("COVERING ", "");
        assert_eq!(plan.len(), 1, "{plan:?} {sql}");
        assert_eq!(without(&plan[0]), without(uses), "{sql}");
    }
}
