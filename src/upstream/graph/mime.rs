//! The body of a MIME sendMail request: the outgoing message in base64, made while it is sent.

use super::super::Parcel;
use crate::explain::local;
use crate::mail::Disposition;
use crate::spool::{BodyError, Pieces};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// How far the body of a request got.
#[derive(Clone, Debug, Default)]
pub(super) struct Departure(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    complete: AtomicBool,
    damage: Mutex<Option<Disposition>>,
}

impl Departure {
    /// True once the last octet was handed to the connection: from there on the outcome is uncertain.
    pub(super) fn complete(&self) -> bool {
        self.0.complete.load(Ordering::Acquire)
    }

    /// What becomes of the message if it could not be read to its end: it waits for a person if that will not pass.
    pub(super) fn damage(&self) -> Option<Disposition> {
        self.0
            .damage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The body of the request, of known length.
pub(super) struct MimeBody {
    pieces: mpsc::Receiver<Result<Bytes, BodyError>>,
    left: u64,
    departure: Departure,
}

impl MimeBody {
    /// Starts reading and encoding `parcel`, two pieces ahead of the connection. Dropping the body stops it.
    pub(super) fn new(parcel: &Parcel, departure: Departure) -> Self {
        let left = parcel.size().div_ceil(3) * 4;
        let (sender, pieces) = mpsc::channel(1);
        let (head, body, skip) = (parcel.head.clone(), parcel.body.clone(), parcel.skip);
        tokio::task::spawn_blocking(move || {
            let sent = body
                .pieces(skip)
                .and_then(|rest| encode(&head, rest, |piece| sender.blocking_send(Ok(piece)).is_ok()));
            if let Err(error) = sent {
                // Nobody listens any more if the request is over; then the error does not matter.
                let _ = sender.blocking_send(Err(error));
            }
        });
        Self {
            pieces,
            left,
            departure,
        }
    }
}

/// Encodes `head` and `rest` in pieces, until `send` says that nobody wants more.
fn encode(head: &[u8], mut rest: Pieces, mut send: impl FnMut(Bytes) -> bool) -> Result<(), BodyError> {
    // base64 turns three octets into four: what is left over waits for the next piece.
    let mut raw = head.to_vec();
    while let Some(piece) = rest.next_piece()? {
        raw.extend_from_slice(&piece);
        let whole = if rest.left() == 0 {
            raw.len()
        } else {
            raw.len() - raw.len() % 3
        };
        if !send(STANDARD.encode(&raw[..whole]).into()) {
            return Ok(());
        }
        raw.drain(..whole);
    }
    if !raw.is_empty() {
        send(STANDARD.encode(&raw).into());
    }
    Ok(())
}

impl http_body::Body for MimeBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let piece = match self.pieces.poll_recv(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(piece) => piece,
        };
        Poll::Ready(match piece {
            Some(Ok(piece)) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                if self.left == 0 {
                    self.departure.0.complete.store(true, Ordering::Release);
                }
                Some(Ok(Frame::data(piece)))
            }
            Some(Err(error)) => {
                let entry = if error.is_lasting() {
                    &local::UNREADABLE
                } else {
                    &local::CUT
                };
                let damage = Some(entry.disposition(error.to_string(), None));
                *self
                    .departure
                    .0
                    .damage
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = damage;
                Some(Err(error))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
