//! What a client has sent and nobody has used yet.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use zeroize::Zeroize;

/// How much of a message is read at once.
pub(super) const READ_SIZE: usize = 32 * 1024;
/// How much of commands is read at once: it stays until their replies are taken, with thousands of clients at once.
pub(super) const LITTLE: usize = 4 * 1024;

/// What was read and not yet used. It holds no memory while a client is silent.
#[derive(Debug, Default)]
pub(super) struct Input {
    buffer: Vec<u8>,
    start: usize,
}

impl Input {
    /// `early` is what was read elsewhere.
    pub(super) fn new(early: Vec<u8>) -> Self {
        Self {
            buffer: early,
            start: 0,
        }
    }

    /// Everything that is unread.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.buffer.drain(..self.start);
        self.start = 0;
        std::mem::take(&mut self.buffer)
    }

    /// What is there.
    pub(super) fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Forgets the first octets.
    pub(super) fn consume(&mut self, octets: usize) {
        self.start = (self.start + octets).min(self.buffer.len());
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Overwrites the first octets, which held a password.
    pub(super) fn wipe(&mut self, octets: usize) {
        if let Some(secret) = self.buffer.get_mut(self.start..self.start + octets) {
            secret.zeroize();
        }
    }

    /// Octets of memory that it has.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gives memory back that is far more than what is unread needs.
    pub(super) fn release(&mut self) {
        let unread = self.unread();
        if unread.is_empty() {
            *self = Self::default();
        } else if self.buffer.capacity() > 2 * unread.len() + 512 {
            *self = Self::new(unread.to_vec());
        }
    }

    /// Reads once, [`LITTLE`] at most; 0 is the end of the stream.
    pub(super) async fn read<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<usize> {
        self.read_up_to(LITTLE, stream).await
    }

    /// Reads once, so much at most, and never more than [`READ_SIZE`].
    pub(super) async fn read_up_to<S: AsyncRead + Unpin>(
        &mut self,
        most: usize,
        stream: &mut S,
    ) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, most, stream)).await
    }

    /// Reads onto the stack and keeps only what came: waiting costs no buffer.
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        stream: &mut S,
    ) -> Poll<io::Result<usize>> {
        let mut space = [const { MaybeUninit::<u8>::uninit() }; READ_SIZE];
        let mut read = ReadBuf::uninit(space.get_mut(..most.min(READ_SIZE)).unwrap_or_default());
        ready!(Pin::new(stream).poll_read(cx, &mut read))?;
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_little_that_is_unread_keeps_little_memory() {
        let mut input = Input::default();
        let wire = [&[b'x'; READ_SIZE - 2][..], b"\nA"].concat();
        input.read_up_to(READ_SIZE, &mut &wire[..]).await.unwrap();
        input.consume(READ_SIZE - 1);
        input.release();
        assert_eq!(input.unread(), b"A");
        assert!(input.capacity() <= 512, "{}", input.capacity());
        input.consume(1);
        input.release();
        assert_eq!(input.capacity(), 0);
    }
}
