//! Bodies of answers that are made piece by piece, by a thread that may block on the disk.

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Pieces that may wait to be sent: with 96 KiB each, little memory.
const PIECES: usize = 4;

struct Stream(mpsc::Receiver<io::Result<Bytes>>);

/// Where the pieces go. Blocks when the other side is slow; an error when it has gone away.
pub(super) struct Sink(mpsc::Sender<io::Result<Bytes>>);

impl Sink {
    pub(super) fn send(&self, piece: Bytes) -> io::Result<()> {
        self.0
            .blocking_send(Ok(piece))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl io::Write for &Sink {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if !octets.is_empty() {
            self.send(Bytes::copy_from_slice(octets))?;
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A body whose pieces `make` sends, on a thread where it may block. If it fails, the answer breaks off, which the
/// other side cannot take for its end.
pub(super) fn streamed(make: impl FnOnce(&Sink) -> io::Result<()> + Send + 'static) -> Body {
    let (pieces, stream) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let sink = Sink(pieces);
        if let Err(error) = make(&sink) {
            let _ = sink.0.blocking_send(Err(error));
        }
    });
    Body::new(Stream(stream))
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
