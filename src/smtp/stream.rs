//! A connection as it was accepted: TCP or a Unix socket.

use std::io::{self, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

/// The stream of one client.
#[derive(Debug)]
pub(super) enum Stream {
    /// From another machine, or from this one.
    Tcp(TcpStream),
    /// From this machine.
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Stream {
    /// Says a few octets and closes, without waiting for anything: they fit into the empty buffer of a new socket.
    pub(super) fn send_away(self, octets: &[u8]) {
        match self {
            Self::Tcp(stream) => {
                if let Ok(mut stream) = stream.into_std() {
                    let _ = stream.write(octets);
                    let _ = stream.shutdown(Shutdown::Write);
                }
            }
            #[cfg(unix)]
            Self::Unix(stream) => {
                if let Ok(mut stream) = stream.into_std() {
                    let _ = stream.write(octets);
                    let _ = stream.shutdown(Shutdown::Write);
                }
            }
        }
    }

    /// Replies are small and each one is waited for.
    pub(super) fn set_nodelay(&self) {
        match self {
            Self::Tcp(stream) => {
                let _ = stream.set_nodelay(true);
            }
            #[cfg(unix)]
            Self::Unix(_) => {}
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, octets),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, octets),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
