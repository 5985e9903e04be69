//! Tests of one connection: time limits, bursts and memory.

use super::super::crowd::Crowd;
use super::super::handshake::{CROWDED_TIMEOUT, HANDSHAKE_TIMEOUT};
use super::super::input::READ_SIZE;
use super::super::patience;
use super::super::waiting::{DATA_TIMEOUT, REPLY_TIMEOUT};
use super::*;
use crate::clock::Clock;
use crate::config::Access;
use crate::config::AuthMode;
use crate::spool::{Slots, Spool, SpoolSettings};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCertUsingSni;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::advance;

struct World {
    client: DuplexStream,
    server: JoinHandle<()>,
    writes: Arc<AtomicUsize>,
    spool: Spool,
    stop: CancellationToken,
    _directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(Guest::alone())
    }

    fn with(guest: Guest) -> Self {
        Self::at(guest, Access::default())
    }

    fn at(guest: Guest, access: Access) -> Self {
        let (spool, directory) = spool();
        let (client, stream) = duplex(1024 * 1024);
        let surroundings = surroundings(&spool, access);
        let stop = surroundings.stop.clone();
        let writes = Arc::new(AtomicUsize::new(0));
        let stream = Counting {
            stream,
            writes: writes.clone(),
        };
        let server = tokio::spawn(serve_client(
            stream,
            Peer::from(IpAddr::from([192, 0, 2, 1])),
            Vec::new(),
            guest,
            surroundings,
        ));
        Self {
            client,
            server,
            writes,
            spool,
            stop,
            _directory: directory,
        }
    }

    async fn say(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    async fn hear(&mut self, lines: usize) -> Vec<String> {
        let mut heard = Vec::new();
        while heard.iter().filter(|&&b| b == b'\n').count() < lines {
            heard.push(self.client.read_u8().await.unwrap());
        }
        String::from_utf8(heard)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    async fn hear_the_end(mut self) -> String {
        let mut rest = String::new();
        self.client.read_to_string(&mut rest).await.unwrap();
        drop(self.client);
        self.server.await.unwrap();
        let store = self.spool.store();
        let now = crate::mail::Timestamp::from_millis(0);
        let agenda = store.agenda(now, 1, |_| Slots::None).await.unwrap();
        assert!(agenda.unplanned.is_empty());
        rest
    }
}

fn spool() -> (Spool, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let settings = SpoolSettings {
        directory: directory.path().into(),
        max_size: 1 << 30,
        min_free: 0,
    };
    (Spool::open(&settings, Clock::machine()).unwrap(), directory)
}

fn surroundings(spool: &Spool, access: Access) -> Arc<Surroundings> {
    let settings = SessionSettings {
        access,
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

#[tokio::test(start_paused = true)]
async fn where_the_greeting_is_delayed_who_cannot_wait_is_refused() {
    let delay = Duration::from_secs(4);
    let world = || {
        let access = Access {
            greeting_delay: delay,
            ..Access::default()
        };
        World::at(Guest::alone(), access)
    };
    let (mut patient, start) = (world(), Instant::now());
    assert!(patient.hear(1).await[0].starts_with("220 "));
    assert_eq!(start.elapsed(), delay);
    patient.say("QUIT\r\n").await;
    assert!(patient.hear_the_end().await.starts_with("221 "));

    let (mut hasty, start) = (world(), Instant::now());
    advance(delay / 2).await;
    hasty.say("E").await;
    let heard = hasty.hear(1).await;
    assert!(heard[0].starts_with("554 5.5.1 "), "{heard:?}");
    assert_eq!(start.elapsed(), delay / 2);
    assert_eq!(hasty.hear_the_end().await, "");

    let (stopped, start) = (world(), Instant::now());
    tokio::task::yield_now().await;
    stopped.stop.cancel();
    assert!(stopped.hear_the_end().await.starts_with("421 4.3.2 "));
    assert!(start.elapsed() < delay);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_sent_away() {
    let mut world = World::new();
    world.hear(1).await;
    let start = Instant::now();
    assert_eq!(
        world.hear_the_end().await,
        "421 4.4.2 nothing was heard for too long, closing the connection\r\n"
    );
    assert_eq!(start.elapsed().as_secs(), COMMAND_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_command_in_drops_gets_no_more_time_than_one_in_one_piece() {
    let mut world = World::new();
    world.hear(1).await;
    for _ in 0..4 {
        world.say("N").await;
        advance(Duration::from_secs(60)).await;
    }
    let start = Instant::now();
    assert!(world.hear_the_end().await.starts_with("421 4.4.2"));
    assert!(start.elapsed() <= Duration::from_secs(61));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_stops_in_the_middle_is_dropped() {
    let mut world = World::new();
    world.hear(1).await;
    world.say("MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n").await;
    assert!(world.hear(3).await[2].starts_with("354"));
    world.say("first\r\n").await;
    let start = Instant::now();
    assert!(world.hear_the_end().await.starts_with("421 4.4.2"));
    assert_eq!(start.elapsed().as_secs(), DATA_TIMEOUT.as_secs());
}

/// The only guest of a crowd with one place.
fn crowded() -> Guest {
    Arc::new(Crowd::new(1, 1)).enter(&Capacity::new(100)).unwrap()
}

const CROWDED: &str =
    "421 4.4.2 connections run short and this one was idle or slow, closing it: try again\r\n";

#[tokio::test(start_paused = true)]
async fn where_connections_run_short_an_idle_client_makes_room() {
    let mut world = World::with(crowded());
    world.hear(1).await;
    let start = Instant::now();
    for _ in 0..5 {
        advance(patience::IDLE - Duration::from_secs(1)).await;
        world.say("NOOP\r\n").await;
        assert!(world.hear(1).await[0].starts_with("250"));
    }
    assert_eq!(world.hear_the_end().await, CROWDED);
    let idle = start.elapsed() - 5 * (patience::IDLE - Duration::from_secs(1));
    assert_eq!(idle.as_secs(), patience::IDLE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn where_connections_run_short_a_slow_message_makes_room() {
    for (guest, octets, ends) in [
        (crowded(), 1, true),
        (crowded(), 1100, false),
        (Guest::alone(), 1, false),
    ] {
        let mut world = World::with(guest);
        world.hear(1).await;
        world.say("MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n").await;
        world.hear(3).await;
        let mut left = false;
        for _ in 0..20 {
            advance(Duration::from_secs(10)).await;
            let text = "a".repeat(octets);
            left |= world.client.write_all(text.as_bytes()).await.is_err();
            tokio::task::yield_now().await;
        }
        if ends {
            let mut rest = String::new();
            world.client.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, CROWDED);
        } else {
            assert!(!left);
            world.say("\r\n.\r\n").await;
            let answer = world.hear(1).await;
            assert!(!answer[0].starts_with("421"), "{answer:?}");
        }
    }
}

/// What a client may say again and again, to keep its place for nothing, each time a moment before patience ends.
const TRICKS: [&str; 4] = [
    "NOOP\r\n",
    "BDAT 1\r\nx",
    "RCPT TO:<b@x>\r\n",
    "RSET\r\nMAIL FROM:<a@x>\r\n",
];
const BEGIN: &str = "MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n";

#[tokio::test(start_paused = true)]
async fn where_connections_run_short_only_messages_keep_a_place() {
    let pause = patience::IDLE - Duration::from_secs(1);
    for trick in TRICKS {
        for is_crowded in [true, false] {
            let mut world = World::with(if is_crowded { crowded() } else { Guest::alone() });
            world.hear(1).await;
            let start = Instant::now();
            world.say(BEGIN).await;
            let mut ended = None;
            while ended.is_none() && start.elapsed() < 2 * patience::BARREN {
                advance(pause).await;
                if world.client.write_all(trick.as_bytes()).await.is_err() {
                    ended = Some(start.elapsed());
                }
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
            }
            assert_eq!(ended.is_some(), is_crowded, "{trick:?}");
            if let Some(after) = ended {
                assert!(
                    after >= patience::BARREN && after < patience::BARREN + 3 * pause,
                    "{trick:?}: {after:?}"
                );
                let mut said = String::new();
                world.client.read_to_string(&mut said).await.unwrap();
                assert!(said.ends_with(CROWDED), "{trick:?}: {said}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_connections_run_short_a_message_renews_the_place() {
    let mut world = World::with(crowded());
    world.hear(1).await;
    let pause = patience::IDLE - Duration::from_secs(1);
    for _ in 0..3 {
        for _ in 0..15 {
            advance(pause).await;
            world.say("NOOP\r\n").await;
            assert!(world.hear(1).await[0].starts_with("250"));
        }
        // The spool stores it in a thread of its own, which knows nothing of paused time.
        tokio::time::resume();
        world.say(&format!("{BEGIN}DATA\r\na: b\r\n\r\n.\r\n")).await;
        assert!(world.hear(4).await[3].starts_with("250"));
        tokio::time::pause();
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_a_minute_and_less_where_connections_run_short() {
    for (is_crowded, time) in [(false, HANDSHAKE_TIMEOUT), (true, CROWDED_TIMEOUT)] {
        // Nothing, and the beginning of a ClientHello.
        for said in ["", "\u{16}\u{3}\u{1}"] {
            let (spool, _directory) = spool();
            let (mut client, stream) = duplex(64);
            let (_keeper, certificate) = certificate();
            let mut surroundings = surroundings(&spool, Access::default());
            let shared = Arc::get_mut(&mut surroundings).unwrap();
            (shared.tls, shared.certificate) = (TlsMode::Implicit, Some(certificate));
            client.write_all(said.as_bytes()).await.unwrap();
            let peer = Peer::from(IpAddr::from([192, 0, 2, 1]));
            let guest = if is_crowded { crowded() } else { Guest::alone() };
            let start = Instant::now();
            let served = tokio::spawn(serve_client(stream, peer, Vec::new(), guest, surroundings));
            let mut heard = Vec::new();
            let _ = client.read_to_end(&mut heard).await;
            drop(client);
            served.await.unwrap();
            assert_eq!(
                (start.elapsed().as_secs(), heard),
                (time.as_secs(), Vec::new()),
                "{said:?}"
            );
        }
    }
}

/// One that is good for waiting only.
fn certificate() -> (watch::Sender<Arc<ServerConfig>>, Current) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
    watch::channel(Arc::new(config))
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_does_not_hold_up_the_end_of_the_daemon() {
    let large = "x".repeat(2000);
    let begin = "MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n";
    for text in [
        "BDAT 1000000\r\n".to_owned(),
        format!("{begin}DATA\r\n{large}"),
        format!("{begin}BDAT 1000000\r\n{large}"),
    ] {
        let mut world = World::new();
        world.say(&text).await;
        advance(Duration::from_secs(1)).await;
        let start = Instant::now();
        world.stop.cancel();
        let end = world.hear_the_end().await;
        assert!(
            end.ends_with("421 4.3.2 the bridge is shutting down, try again later\r\n"),
            "{end}"
        );
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn what_nobody_wants_and_has_no_end_comes_to_one() {
    let begin = "MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n";
    let large = "x".repeat(2000);
    for text in [
        "BDAT 99999999999999999999\r\n".to_owned(),
        format!("{begin}BDAT 99999999999999999999\r\n{large}"),
    ] {
        let mut world = World::new();
        world.say(&text).await;
        let end = world.hear_the_end().await;
        assert!(end.contains("421 4.3.4 more than 4 GiB"), "{end}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_replies_is_not_waited_for() {
    for (guest, stops, seconds) in [
        (crowded(), false, 30),
        (Guest::alone(), true, 5),
        (Guest::alone(), false, REPLY_TIMEOUT.as_secs()),
    ] {
        let (spool, _directory) = spool();
        let (client, stream) = duplex(16);
        let surroundings = surroundings(&spool, Access::default());
        let stop = surroundings.stop.clone();
        let peer = Peer::from(IpAddr::from([192, 0, 2, 1]));
        let start = Instant::now();
        if stops {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                stop.cancel();
            });
        }
        serve_client(stream, peer, Vec::new(), guest, surroundings).await;
        let waited = start.elapsed().as_secs();
        assert!(waited <= seconds && waited > seconds / 3, "{waited} {seconds}");
        drop(client);
    }
}

#[tokio::test]
async fn commands_without_end_come_to_one() {
    let mut world = World::new();
    world.hear(1).await;
    for _ in 0..10 {
        world.say(&"NOOP\r\n".repeat(100)).await;
        assert!(world.hear(100).await.iter().all(|line| line.starts_with("250")));
    }
    world.say("NOOP\r\n").await;
    assert!(
        world
            .hear_the_end()
            .await
            .starts_with("421 4.7.0 too many commands without a message")
    );
}

#[tokio::test]
async fn half_a_login_is_not_kept_where_memory_runs_short() {
    for (others, reply) in [(0, "501 5.5.2 "), (16 << 20, "500 5.5.2 the line is too long")] {
        let (capacity, crowd) = (Capacity::new(9), Arc::new(Crowd::new(9, 9)));
        let mut greedy = crowd.enter(&capacity).unwrap();
        greedy.weigh(others);
        let access = Access {
            auth: AuthMode::Any,
            ..Access::default()
        };
        let mut world = World::at(crowd.enter(&capacity).unwrap(), access);
        world.hear(1).await;
        world.say(&format!("AUTH PLAIN {}", "AA".repeat(5000))).await;
        tokio::task::yield_now().await;
        world.say("\r\nNOOP\r\n").await;
        let heard = world.hear(2).await;
        assert!(heard[0].starts_with(reply), "{heard:?}");
        assert!(heard[1].starts_with("250 "), "{heard:?}");
    }
}

#[tokio::test]
async fn a_burst_is_answered_in_one_write() {
    let mut world = World::new();
    world.hear(1).await;
    let before = world.writes.load(Ordering::Relaxed);
    world
        .say("MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\nDATA\r\n")
        .await;
    assert_eq!(world.hear(4).await.len(), 4);
    assert_eq!(world.writes.load(Ordering::Relaxed) - before, 1);
}

#[tokio::test]
async fn an_endless_line_needs_bounded_memory() {
    let (spool, _directory) = spool();
    let (mut client, stream) = duplex(64 * 1024);
    let session = Session::new(
        surroundings(&spool, Access::default()).settings.clone(),
        Peer::from(IpAddr::from([192, 0, 2, 1])),
    );
    let (input, output, client_address) = (
        Input::default(),
        Vec::new(),
        Peer::from(IpAddr::from([192, 0, 2, 1])),
    );
    let surroundings = surroundings(&spool, Access::default());
    let mut connection = Connection {
        stream: Wire::Plain(stream),
        client: client_address,
        input,
        output,
        session,
        chunked: None,
        guest: Guest::alone(),
        refusals: 0,
        unwanted: 0,
        progress: patience::Progress::at(Instant::now()),
        surroundings,
    };
    let talk = async {
        for _ in 0..100 {
            client.write_all(&[b'a'; 64 * 1024]).await.unwrap();
        }
        client.write_all(b"\r\n").await.unwrap();
    };
    let (line, ()) = tokio::join!(connection.next_line(), talk);
    assert!(matches!(line, Ok(Line::TooLong)));
    assert!(connection.input.capacity() <= 2 * (READ_SIZE + 4 * 1024));
}

#[tokio::test]
async fn an_idle_connection_costs_little() {
    let (spool, _directory) = spool();
    let (_client, stream) = duplex(1);
    let idle = serve_client(
        stream,
        Peer::from(IpAddr::from([192, 0, 2, 1])),
        Vec::new(),
        Guest::alone(),
        surroundings(&spool, Access::default()),
    );
    assert!(size_of_val(&idle) < 2048, "{}", size_of_val(&idle));
}

/// Counts the writes.
struct Counting {
    stream: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
