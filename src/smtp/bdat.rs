//! A message that comes by BDAT (RFC 3030): its chunks, read one by one into one draft.
//!
//! The length of a chunk says where the next command is, so every octet of it is read, whatever becomes of the message.

use super::chunk::ChunkReader;
use super::connection::Connection;
use super::farewell::End;
use super::patience::Patience;
use super::refusal::Refusal;
use super::session::{Chunk, SessionSettings};
use crate::config::BareNewline;
use crate::mail::Reply;
use crate::spool::Draft;
use crate::spool::Intake;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// What has come of a message. It holds no more than its draft does.
#[derive(Debug)]
pub(super) struct Chunked {
    draft: Draft,
    reader: ChunkReader,
}

impl Chunked {
    fn begin(intake: &Intake) -> Self {
        Self {
            draft: intake.begin(),
            reader: ChunkReader::new(),
        }
    }

    /// Octets so far.
    pub(super) fn octets(&self) -> u64 {
        self.draft.size()
    }

    /// Adds octets of a chunk.
    async fn take(&mut self, mut octets: &[u8], settings: &SessionSettings) -> Result<(), Refusal> {
        while let Some(text) = self.reader.next(&mut octets) {
            Self::write(&mut self.draft, text, settings.max_message_size).await?;
        }
        self.check_line_ends(settings, false)
    }

    /// The draft of the whole message.
    async fn finish(mut self, settings: &SessionSettings) -> Result<Draft, Refusal> {
        self.check_line_ends(settings, true)?;
        Self::write(&mut self.draft, self.reader.finish(), settings.max_message_size).await?;
        Ok(self.draft)
    }

    fn check_line_ends(&self, settings: &SessionSettings, whole: bool) -> Result<(), Refusal> {
        match settings.access.bare_newline {
            BareNewline::Reject if self.reader.has_bare_line_ends(whole) => Err(Refusal::BareNewline),
            _ => Ok(()),
        }
    }

    async fn write(draft: &mut Draft, text: &[u8], limit: u64) -> Result<(), Refusal> {
        if draft.size() + text.len() as u64 > limit {
            return Err(Refusal::TooLarge);
        }
        draft.write(text).await.map_err(Refusal::Spool)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads a chunk to its end and answers: with `reply` if it is not the last and nothing is wrong.
    pub(super) async fn receive_chunk(&mut self, chunk: Chunk, reply: &Reply) -> Result<(), End> {
        let Chunk { octets, incoming } = chunk;
        let settings = self.surroundings.settings.clone();
        let mut message = Ok(match self.chunked.take() {
            Some(chunked) => chunked,
            None => Box::new(Chunked::begin(&self.surroundings.intake)),
        });
        let (mut left, mut told) = (octets, false);
        let mut patience = Patience::Message(Instant::now(), 0);
        while left > 0 {
            let unread = self.input.unread();
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(unread.len());
            if let Ok(open) = &mut message
                && let Err(refusal) = open.take(unread.get(..here).unwrap_or_default(), &settings).await
            {
                message = Err(refusal);
            }
            self.input.consume(here);
            left -= here as u64;
            if message.is_ok() {
                self.progress.came(here);
            }
            if left == 0 {
                break;
            }
            let heard = match &message {
                Ok(_) => self.hear_more(&mut patience).await,
                Err(_) => match self.not_wanted(if told { 0 } else { left }) {
                    Ok(()) => {
                        told = true;
                        self.hear_unwanted(&mut patience).await
                    }
                    end => end,
                },
            };
            if let Err(end) = heard {
                let so_far = message.map_or(octets - left, |open| open.octets());
                self.surroundings.maillog.lost(self.client(), so_far);
                return Err(end);
            }
        }
        match (message, incoming) {
            (Ok(open), None) => {
                self.chunked = Some(open);
                self.say(reply);
            }
            (Err(refusal), None) => {
                let reply = self.session.chunk_failed(refusal.error());
                self.tell_refused(&refusal, &reply);
                self.say(&reply);
            }
            (Ok(open), Some(incoming)) => {
                let draft = open.finish(&settings).await;
                self.conclude(draft, *incoming).await;
            }
            (Err(refusal), Some(incoming)) => self.conclude(Err(refusal), *incoming).await,
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "bdat_tests.rs"]
mod tests;
