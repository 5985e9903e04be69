//! Tests of a listener over sockets: limits, and who is sent away.

use super::super::entrance::HEADER_TIMEOUT;
use super::super::seldom::LOG_PAUSE;
use super::*;
use crate::clock::Clock;
use crate::config::Access;
use crate::spool::{Spool, SpoolSettings};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{advance, timeout};

/// A listener that takes one connection, from this machine.
fn listener(bind: &[&str]) -> Listener {
    Listener {
        name: "test".into(),
        bind: bind
            .iter()
            .map(|address| Bind::Address(address.parse().unwrap()))
            .collect(),
        unix_mode: 0o666,
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        proxy_protocol: Vec::new(),
        tls: TlsMode::Off,
        certificate: None,
        max_message_size: 1000,
        lenient: true,
        max_connections: 1,
        access: Access::default(),
    }
}

struct World {
    addresses: Vec<SocketAddr>,
    server: JoinHandle<()>,
    stop: CancellationToken,
    spool: Spool,
    _directory: tempfile::TempDir,
}

impl World {
    fn new(listener: &Listener) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = SpoolSettings {
            directory: directory.path().into(),
            max_size: 1 << 30,
            min_free: 0,
        };
        let spool = Spool::open(&settings, Clock::machine()).unwrap();
        let mut premises = Premises::new(
            "bridge.test".into(),
            directory.path().into(),
            Clock::machine(),
            Vec::new(),
        );
        let bound = bind(listener, &mut premises).unwrap();
        let addresses = bound.iter().map(|bound| bound.address().unwrap()).collect();
        let services = Services {
            hostname: "bridge.test".into(),
            intake: spool.intake(),
            logins: Logins::new("no-such-file".into()),
            capacity: Capacity::new(100),
            maillog: Maillog,
        };
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(bound, services, stop.clone()));
        Self {
            addresses,
            server,
            stop,
            spool,
            _directory: directory,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addresses[0]).await.unwrap()
    }

    /// The end; closing the spool waits until all its halves were given back.
    async fn end(self) {
        self.stop.cancel();
        self.server.await.unwrap();
        assert!(TcpStream::connect(self.addresses[0]).await.is_err());
        self.spool.close();
    }
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_told_and_the_place_is_given_again() {
    let world = World::new(&listener(&["127.0.0.1:0", "127.0.0.1:0"]));
    let (one, other) = (world.addresses[0], world.addresses[1]);
    let mut first = TcpStream::connect(one).await.unwrap();
    assert_eq!(code(&mut first).await, "220");
    let mut second = TcpStream::connect(other).await.unwrap();
    assert_eq!(code(&mut second).await, "421");
    first.write_all(b"QUIT\r\n").await.unwrap();
    assert_eq!(code(&mut first).await, "221");
    drop(first);
    let again = async {
        while code(&mut TcpStream::connect(other).await.unwrap()).await != "220" {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), again).await.unwrap();
    timeout(Duration::from_secs(30), world.end()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_clients_that_may_not_come_in_is_two_lines_of_log() {
    let log = Log::default();
    let _guard = log.catch();
    let world = World::new(&Listener {
        allow: vec!["192.0.2.0/24".parse().unwrap()],
        ..listener(&["127.0.0.1:0"])
    });
    for _ in 0..50 {
        assert_eq!(code(&mut world.connect().await).await, "554");
    }
    advance(LOG_PAUSE).await;
    assert_eq!(code(&mut world.connect().await).await, "554");
    world.end().await;
    let refusals = log.lines("refused");
    assert_eq!(refusals.len(), 2, "{refusals:?}");
    assert!(
        refusals[1].contains("(and 49 more clients were sent away since the last such line)"),
        "{refusals:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_has_ten_seconds_for_its_header() {
    let world = World::new(&Listener {
        proxy_protocol: vec!["127.0.0.0/8".parse().unwrap()],
        ..listener(&["127.0.0.1:0"])
    });
    for said in ["", "PROXY TCP4 192.0.2.1 "] {
        let mut balancer = world.connect().await;
        balancer.write_all(said.as_bytes()).await.unwrap();
        let start = Instant::now();
        assert_eq!(code(&mut balancer).await, "500", "{said:?}");
        assert_eq!(start.elapsed().as_secs(), HEADER_TIMEOUT.as_secs(), "{said:?}");
    }
    world.end().await;
}

async fn code(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8_lossy(&line[..3]).into_owned()
}

/// The log of this test's thread, on which all its tasks run.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn catch(&self) -> tracing::subscriber::DefaultGuard {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn lines(&self, word: &str) -> Vec<String> {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8(text).unwrap();
        text.lines()
            .filter(|line| line.contains(word))
            .map(str::to_owned)
            .collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
