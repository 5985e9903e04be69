//! Bodies and broken answers: what happens on the wire besides a proper response.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body as HttpBody, Frame};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// How much of a refused body is read and thrown away, so that the peer gets to read the answer.
const DRAIN: u64 = 64 * 1024 * 1024;

/// In a response's extensions: do not send it, cut the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut;

/// In a response's extensions: the name of the fault that was played, for the request log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Played(pub(super) &'static str);

/// What came of reading a body.
pub(super) enum Received {
    Whole(Vec<u8>),
    /// Longer than the limit. The rest was thrown away.
    TooLarge,
    /// The peer went away.
    Broken,
}

/// Reads `body` into memory, never more than `limit` bytes of it.
///
/// Cancelling loses what was read, as the request is lost with it.
pub(super) async fn read(mut body: Body, limit: u64) -> Received {
    let mut whole = Vec::new();
    while let Some(piece) = next(&mut body).await {
        let Ok(piece) = piece else {
            return Received::Broken;
        };
        if (whole.len() + piece.len()) as u64 > limit {
            drop(whole);
            drain(body).await;
            return Received::TooLarge;
        }
        whole.extend_from_slice(&piece);
    }
    Received::Whole(whole)
}

/// Reads `body` to its end (or up to 64 MiB of it) and forgets it.
pub(super) async fn drain(mut body: Body) {
    let mut left = DRAIN;
    while let Some(Ok(piece)) = next(&mut body).await {
        match left.checked_sub(piece.len() as u64) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// A response that is never sent: the connection ends instead.
pub(super) fn cut() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(Cut);
    response
}

/// `response` with a body that stops before its announced length. An empty one announces some bytes first.
pub(super) async fn truncate(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let whole = match read(body, u64::MAX).await {
        Received::Whole(whole) if !whole.is_empty() => whole,
        _ => vec![b' '; 64],
    };
    parts
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
    let half = Bytes::copy_from_slice(&whole[..whole.len() / 2]);
    Response::from_parts(parts, Body::new(Half::Data(half)))
}

/// The value of a header, if it is there once or more and is text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Undoes percent-encoding; with `plus`, a plus is a space (application/x-www-form-urlencoded).
pub(super) fn percent_decoded(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 2;
            }
            (b'+', _) if plus => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

async fn next(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_trailers)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// A body that breaks after its first half.
enum Half {
    Data(Bytes),
    /// One turn for the half to be flushed.
    Pause,
    Break,
}

impl HttpBody for Half {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match std::mem::replace(&mut *self, Half::Break) {
            Half::Data(data) => {
                *self = Half::Pause;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Half::Pause => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Half::Break => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decoding() {
        assert_eq!(percent_decoded("a%40b+c", false), "a@b+c");
        assert_eq!(percent_decoded("a%40b+c", true), "a@b c");
        assert_eq!(percent_decoded("50%", true), "50%");
        assert_eq!(percent_decoded("%zz%4", true), "%zz%4");
        assert_eq!(percent_decoded("%é", true), "%é");
    }

    #[tokio::test]
    async fn a_body_is_never_kept_beyond_its_limit() {
        assert!(matches!(read(Body::from("12345"), 5).await, Received::Whole(b) if b == b"12345"));
        assert!(matches!(read(Body::from("123456"), 5).await, Received::TooLarge));
    }
}
