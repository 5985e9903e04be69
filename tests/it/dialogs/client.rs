//! The client's side of a dialog.

use super::{Directive, like};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use smtp_oauth_bridge::smtp::Place;
use socket2::{SockRef, Socket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub(super) struct Client {
    stream: Option<BufReader<Box<dyn Duplex>>>,
    /// The same socket again, for what is done to sockets.
    socket: Option<Socket>,
    is_closed: bool,
    pending: Vec<u8>,
    certificate: PathBuf,
    trickle: bool,
    stop: CancellationToken,
}

impl Client {
    pub(super) async fn connect(
        place: &Place,
        certificate: PathBuf,
        trickle: bool,
        stop: CancellationToken,
    ) -> Self {
        let (stream, socket): (Box<dyn Duplex>, _) = match place {
            Place::Tcp(address) => {
                let stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let socket = SockRef::from(&stream).try_clone().unwrap();
                (Box::new(stream), socket)
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await.unwrap();
                let socket = SockRef::from(&stream).try_clone().unwrap();
                (Box::new(stream), socket)
            }
        };
        Self {
            stream: Some(BufReader::new(stream)),
            socket: Some(socket),
            is_closed: false,
            pending: Vec::new(),
            certificate,
            trickle,
            stop,
        }
    }

    pub(super) async fn perform(&mut self, directive: &Directive) -> Result<(), String> {
        if let Directive::Say(octets) = directive {
            // What is said without waiting for a reply is sent in one piece.
            self.pending.extend(octets);
            return Ok(());
        }
        self.send().await;
        match directive {
            Directive::Set(..) | Directive::Say(_) => Ok(()),
            Directive::Hear(pattern) => {
                let line = self.hear().await?;
                like(pattern, line.trim_end_matches("\r\n"))
            }
            Directive::HearReply(pattern) => {
                let mut lines: Vec<String> = Vec::new();
                loop {
                    let line = self.hear().await?;
                    lines.push(line.trim_end_matches("\r\n").to_owned());
                    if line.as_bytes().get(3) != Some(&b'-') {
                        break like(pattern, &lines.join("\n"));
                    }
                }
            }
            Directive::Close => {
                self.close().await;
                Ok(())
            }
            Directive::Reset => {
                let socket = self.socket.take().ok_or("it is closed already")?;
                socket.set_linger(Some(Duration::ZERO)).unwrap();
                self.stream = None;
                Ok(())
            }
            Directive::Closed => self.silence().await,
            Directive::Alert => {
                // A TLS record of type alert (RFC 8446 §6).
                let stream = self.stream.as_mut().ok_or("it is closed already")?;
                let mut record = [0; 7];
                stream.read_exact(&mut record).await.map_err(|e| e.to_string())?;
                if record[..2] != [0x15, 0x03] {
                    return Err(format!("no alert, but {record:x?}"));
                }
                self.silence().await
            }
            Directive::StartTls => self.start_tls(true).await,
            Directive::RefuseTls => match self.start_tls(false).await {
                Ok(()) => Err("the certificate was not refused".into()),
                Err(_) => Ok(()),
            },
            Directive::Stop => {
                self.stop.cancel();
                Ok(())
            }
        }
    }

    /// Nothing more is said by either side.
    pub(super) async fn end(mut self) -> Result<(), String> {
        self.send().await;
        self.close().await;
        self.silence().await
    }

    async fn hear(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        let stream = self.stream.as_mut().ok_or("it is closed already")?;
        // Where it closes or fails, the line is not what is expected.
        let _ = stream.read_until(b'\n', &mut line).await;
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    async fn send(&mut self) {
        let octets = std::mem::take(&mut self.pending);
        let Some(stream) = self.stream.as_mut().filter(|_| !self.is_closed) else {
            return;
        };
        let pieces = octets.chunks(if self.trickle { 1 } else { octets.len().max(1) });
        for piece in pieces {
            // A server that has closed is noticed where its silence is not expected.
            let _ = stream.write_all(piece).await;
            let _ = stream.flush().await;
            tokio::task::yield_now().await;
        }
    }

    /// The client's part in a handshake; it trusts nothing but the bridge's own certificate, or nothing at all.
    async fn start_tls(&mut self, trusting: bool) -> Result<(), String> {
        let stream = self.stream.take().ok_or("it is closed already")?;
        if !stream.buffer().is_empty() {
            return Err(format!(
                "heard before TLS: {:?}",
                stream.buffer().escape_ascii().to_string()
            ));
        }
        let mut roots = RootCertStore::empty();
        if trusting {
            let certificate = CertificateDer::from_pem_file(&self.certificate).map_err(|e| e.to_string())?;
            roots.add(certificate).map_err(|e| e.to_string())?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("bridge.test").map_err(|e| e.to_string())?;
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream.into_inner());
        let stream = match connecting.into_fallible().await {
            Ok(stream) => stream,
            Err((error, mut stream)) => {
                // Until the bridge has noticed it, too.
                let _ = stream.read_to_end(&mut Vec::new()).await;
                return Err(format!("no TLS: {error}"));
            }
        };
        self.stream = Some(BufReader::new(Box::new(stream)));
        Ok(())
    }

    async fn close(&mut self) {
        self.is_closed = true;
        if let Some(stream) = &mut self.stream {
            let _ = stream.shutdown().await;
        }
    }

    async fn silence(&mut self) -> Result<(), String> {
        let mut more = Vec::new();
        if let Some(stream) = &mut self.stream {
            let _ = stream.read_to_end(&mut more).await;
        }
        if more.is_empty() {
            Ok(())
        } else {
            Err(format!("also heard {:?}", String::from_utf8_lossy(&more)))
        }
    }
}
