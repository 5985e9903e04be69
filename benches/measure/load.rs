//! Clients.

use crate::Outcome;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsConnector;

/// Octets of a message, the header included.
const SIZE: usize = 4096;
/// A server that has not answered for so long never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that has heard its greeting.
pub(crate) struct Client<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl Client<TcpStream> {
    /// Connects and hears the greeting.
    pub(crate) async fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Self::greeted(stream).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn greeted(stream: S) -> io::Result<Self> {
        let buffer = Vec::new();
        let mut client = Self { stream, buffer };
        client.hear(b'2').await?;
        Ok(client)
    }

    /// One reply, all its lines, which must begin with this digit.
    async fn hear(&mut self, digit: u8) -> io::Result<()> {
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(text) = self.buffer.strip_suffix(b"\r\n") {
                let last = text.rsplit(|&octet| octet == b'\n').next().unwrap_or_default();
                if last.get(3) == Some(&b' ') {
                    if last.first() == Some(&digit) {
                        return Ok(());
                    }
                    return Err(io::Error::other(String::from_utf8_lossy(last).into_owned()));
                }
            }
        }
    }

    async fn say(&mut self, line: &[u8], digit: u8) -> io::Result<()> {
        self.stream.write_all(line).await?;
        self.hear(digit).await
    }

    async fn hello(&mut self) -> io::Result<()> {
        self.say(b"EHLO client.test\r\n", b'2').await
    }

    /// One message; the time from its final dot to the answer.
    async fn message(&mut self, text: &[u8]) -> io::Result<Duration> {
        self.say(b"MAIL FROM:<scanner@example.org>\r\n", b'2').await?;
        self.say(b"RCPT TO:<ann@example.net>\r\n", b'2').await?;
        self.say(b"DATA\r\n", b'3').await?;
        self.stream.write_all(text).await?;
        let dot = Instant::now();
        self.hear(b'2').await?;
        Ok(dot.elapsed())
    }
}

/// A message of so many octets, with its final dot.
fn text(size: usize) -> Vec<u8> {
    let mut text = b"From: scanner@example.org\r\nTo: ann@example.net\r\nSubject: bench\r\n\r\n".to_vec();
    while text.len() < size {
        text.extend_from_slice(b"0123456789012345678901234567890123456789012345678901234567890123456789\r\n");
    }
    text.extend_from_slice(b".\r\n");
    text
}

/// So many sessions send one message of 4 KiB after the other; the messages that were acknowledged.
pub(crate) async fn throughput(port: u16, sessions: usize, time: Duration) -> Outcome<u64> {
    Ok(acknowledged(port, sessions, SIZE, time).await?.len() as u64)
}

/// So many sessions send one message of `size` octets after the other. For each that was acknowledged in time, how long
/// that took from its final dot.
pub(crate) async fn acknowledged(
    port: u16,
    sessions: usize,
    size: usize,
    time: Duration,
) -> Outcome<Vec<Duration>> {
    let text = Arc::new(text(size));
    let mut tasks = JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..sessions {
        let mut client = timeout(PATIENCE, Client::connect(port)).await??;
        timeout(PATIENCE, client.hello()).await??;
        clients.push(client);
    }
    let end = Instant::now() + time;
    for mut client in clients {
        let text = text.clone();
        tasks.spawn(async move {
            let mut waits = Vec::new();
            while let Ok(waited) = timeout_at(end, client.message(&text)).await {
                waits.push(waited?);
            }
            Ok::<_, io::Error>(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(done) = tasks.join_next().await {
        waits.extend(done??);
    }
    Ok(waits)
}

/// Connects so many at once; those that were greeted in time, and how long that took.
pub(crate) async fn burst(port: u16, connections: usize) -> (Vec<Client<TcpStream>>, Duration) {
    let (start, mut tasks) = (Instant::now(), JoinSet::new());
    for _ in 0..connections {
        tasks.spawn(async move { timeout_at(start + PATIENCE, Client::connect(port)).await });
    }
    let mut greeted = Vec::new();
    while let Some(done) = tasks.join_next().await {
        if let Ok(Ok(Ok(client))) = done {
            greeted.push(client);
        }
    }
    (greeted, start.elapsed())
}

/// Connections with TLS that have heard their greeting, opened 64 at a time.
pub(crate) async fn encrypted(
    port: u16,
    connections: usize,
    certificate: &Path,
) -> Outcome<Vec<Client<tokio_rustls::client::TlsStream<TcpStream>>>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let (mut tasks, mut clients) = (JoinSet::new(), Vec::new());
    for number in 0..connections {
        if number >= 64
            && let Some(done) = tasks.join_next().await
        {
            clients.push(done??);
        }
        let connector = connector.clone();
        tasks.spawn(async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let name = ServerName::try_from("bench.test").map_err(io::Error::other)?;
            Client::greeted(connector.connect(name, stream).await?).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        clients.push(done??);
    }
    Ok(clients)
}

/// Opens so many connections that say one octet a second, and never a whole line.
pub(crate) async fn slow(port: u16, connections: usize) -> JoinSet<()> {
    let (mut greeted, _) = burst(port, connections).await;
    let mut tasks = JoinSet::new();
    for (number, mut client) in greeted.drain(..).enumerate() {
        let start = Instant::now() + Duration::from_millis(number as u64 * 2);
        tasks.spawn(async move {
            sleep_until(start).await;
            while client.stream.write_all(b"N").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
    }
    tasks
}

/// How long whole transactions take, from connecting to the answer to QUIT, one after the other; sorted.
pub(crate) async fn transactions(port: u16, time: Duration) -> Vec<Duration> {
    let (text, end) = (text(SIZE), Instant::now() + time);
    let mut taken = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        let transaction = async {
            let mut client = Client::connect(port).await?;
            client.hello().await?;
            client.message(&text).await?;
            client.say(b"QUIT\r\n", b'2').await
        };
        match timeout(PATIENCE, transaction).await {
            Ok(Ok(())) => taken.push(start.elapsed()),
            _ => taken.push(Duration::MAX),
        }
    }
    taken.sort();
    taken
}
