//! The same message by DATA and by BDAT, however it is cut: the same octets in the spool.

use crate::clock::Clock;
use crate::config::Access;
use crate::config::TlsMode;
use crate::mail::Peer;
use crate::mail::QueueId;
use crate::mail::Timestamp;
use crate::smtp::connection::{Surroundings, serve_client};
use crate::smtp::crowd::{Capacity, Guest};
use crate::smtp::rates::Rates;
use crate::smtp::session::SessionSettings;
use crate::spool::{Slots, Spool, SpoolSettings};
use crate::telemetry::Maillog;
use crate::users::Logins;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const MAX_SIZE: u64 = 200_000;

/// A spool that serves many conversations: opening one takes its time.
struct World {
    runtime: Runtime,
    spool: Spool,
    seen: HashSet<QueueId>,
    _directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = SpoolSettings {
            directory: directory.path().into(),
            max_size: 1 << 30,
            min_free: 0,
        };
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            spool: Spool::open(&settings, Clock::machine()).unwrap(),
            seen: HashSet::new(),
            _directory: directory,
        }
    }

    /// What a client that says `wire` puts into the spool if a read gets at most `reads` octets; and the codes that
    /// it hears.
    fn talk(&mut self, wire: &[u8], reads: usize) -> (Vec<Vec<u8>>, Vec<String>) {
        let Self {
            runtime, spool, seen, ..
        } = self;
        runtime.block_on(async {
            // A read gets what fits into the pipe.
            let (client, stream) = duplex(reads);
            let address = Peer::from(IpAddr::from([192, 0, 2, 1]));
            let server = tokio::spawn(serve_client(
                stream,
                address,
                Vec::new(),
                Guest::alone(),
                surroundings(spool),
            ));
            let (mut from_server, mut to_server) = tokio::io::split(client);
            let mut heard = String::new();
            let say = async {
                to_server.write_all(wire).await.unwrap();
                to_server.shutdown().await.unwrap();
            };
            let ((), read) = tokio::join!(say, from_server.read_to_string(&mut heard));
            read.unwrap();
            server.await.unwrap();
            let codes = heard.lines().map(|line| line[..3].to_owned()).collect();
            (news(spool, seen).await, codes)
        })
    }
}

/// The bodies of all messages that were not there before.
async fn news(spool: &Spool, seen: &mut HashSet<QueueId>) -> Vec<Vec<u8>> {
    let store = spool.store();
    let slots = |_: &_| Slots::None;
    let agenda = store
        .agenda(Timestamp::from_millis(0), 10_000, slots)
        .await
        .unwrap();
    let mut bodies = Vec::new();
    for id in agenda.unplanned {
        if seen.insert(id) {
            let (_, body) = store.message(id).await.unwrap();
            let (mut pieces, mut octets) = (body.pieces(0).unwrap(), Vec::new());
            while let Some(piece) = pieces.next_piece().unwrap() {
                octets.extend_from_slice(&piece);
            }
            bodies.push(octets);
        }
    }
    bodies
}

fn surroundings(spool: &Spool) -> Arc<Surroundings> {
    let settings = SessionSettings {
        max_message_size: MAX_SIZE,
        ..SessionSettings::sample()
    };
    Arc::new(Surroundings {
        settings: Arc::new(settings),
        intake: spool.intake(),
        logins: Logins::new("no-such-file".into()),
        capacity: Capacity::new(100),
        rates: Arc::new(Rates::new(&Access::default(), Instant::now())),
        maillog: Maillog,
        stop: CancellationToken::new(),
        tls: TlsMode::Off,
        certificate: None,
    })
}

const BEGIN: &[u8] = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n";

/// The message as one client sends it with DATA (RFC 5321 §4.5.2).
fn by_data(message: &[u8]) -> Vec<u8> {
    let mut wire = [BEGIN, b"DATA\r\n"].concat();
    let start = wire.len();
    for &octet in message {
        if octet == b'.' && (wire.len() == start || wire.ends_with(b"\r\n")) {
            wire.push(b'.');
        }
        wire.push(octet);
    }
    wire.extend_from_slice(b".\r\nQUIT\r\n");
    wire
}

/// The message as another sends it with BDAT, in chunks of these sizes, again and again.
fn by_bdat(message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let (mut wire, mut rest) = (BEGIN.to_vec(), message);
    for size in sizes.iter().cycle() {
        let (chunk, tail) = rest.split_at((*size).min(rest.len()));
        let last = if tail.is_empty() { " LAST" } else { "" };
        wire.extend_from_slice(format!("BDAT {}{last}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    wire.extend_from_slice(b"QUIT\r\n");
    wire
}

/// Text of which much is line ends, dots and commands; sometimes enough of it for a file.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("\r"),
        Just("\n"),
        Just("\r\n"),
        Just("."),
        Just("a"),
        Just("\0"),
        Just("QUIT\r\n"),
        Just("BDAT 5 LAST\r\n"),
        Just("an ordinary line\r\n")
    ];
    let text = prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat());
    (text, prop_oneof![4 => Just(1usize), 1 => Just(1500)]).prop_map(|(text, times)| {
        let mut message = text.repeat(times).into_bytes();
        message.truncate(MAX_SIZE as usize / 4);
        if !message.is_empty() && !message.ends_with(b"\r\n") {
            message.extend_from_slice(b"\r\n");
        }
        message
    })
}

#[test]
fn data_and_bdat_store_the_same_octets() {
    let sizes = prop::collection::vec(prop_oneof![0usize..20, 1000usize..70_000], 1..4);
    let reads = prop_oneof![1usize..50, Just(1 << 20)];
    let world = RefCell::new(World::new());
    TestRunner::new(ProptestConfig::with_cases(100))
        .run(&(message(), sizes, reads), |(message, mut sizes, reads)| {
            let mut world = world.borrow_mut();
            sizes.push(1 + message.len() / 20);
            let (data, _) = world.talk(&by_data(&message), 1 << 20);
            let (bdat, codes) = world.talk(&by_bdat(&message, &sizes), reads);
            prop_assert_eq!(data.len(), 1);
            prop_assert!(bdat == data, "{:?}", codes);
            prop_assert!(
                codes[1..].iter().all(|code| code == "250" || code == "221"),
                "{:?}",
                codes
            );
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_refused_message_of_any_size_and_what_follows_it_are_in_step() {
    let mut world = World::new();
    let large = vec![b'x'; MAX_SIZE as usize + 10];
    for sizes in [&[1000][..], &[usize::MAX], &[70_000, 0, 1]] {
        let mut wire = by_bdat(&large, sizes);
        wire.truncate(wire.len() - b"QUIT\r\n".len());
        wire.extend_from_slice(&by_bdat(b"small\r\n", &[3]));
        let (bodies, codes) = world.talk(&wire, 1 << 16);
        assert_eq!(bodies, [b"small\r\n"]);
        assert_eq!(codes.iter().filter(|code| *code == "552").count(), 1, "{codes:?}");
        assert_eq!(codes.last().unwrap(), "221");
    }
}
