//! The part of a connection that reads what is not a command: a message, to its end, whether it can be taken or not.

use super::connection::Connection;
use super::data::{DataReader, Decoded};
use super::farewell::End;
use super::patience::{Patience, Progress};
use super::refusal::Refusal;
use super::session::Incoming;
use crate::config::BareNewline;
use crate::mail::Reply;
use crate::spool::Draft;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// So many refusals of one connection are logged, until it sends a good message.
const MAX_REFUSALS_LOGGED: u32 = 100;
/// Octets that cannot become a message any more, until one is accepted. Whoever sends more is sent away.
pub(super) const MAX_UNWANTED: u64 = 4 << 30;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads a message to its final dot and answers. A message that cannot be taken is read to its end all the same,
    /// so that the client hears the answer and the next command is one.
    pub(super) async fn receive(&mut self, incoming: Incoming) -> Result<(), End> {
        let mut octets = 0;
        let draft = match self.read_message(&mut octets).await {
            Ok(draft) => draft,
            Err(end) => {
                self.surroundings.maillog.lost(self.client(), octets);
                return Err(end);
            }
        };
        self.conclude(draft, incoming).await;
        Ok(())
    }

    /// Accepts a message that was read to its end, or refuses it, and says so.
    pub(super) async fn conclude(&mut self, draft: Result<Draft, Refusal>, incoming: Incoming) {
        let Incoming { envelope, origin } = incoming;
        let result = match draft {
            Ok(draft) => draft.accept(envelope, origin).await.map_err(Refusal::Spool),
            Err(refusal) => Err(refusal),
        };
        let reply = match result {
            Ok(message) => {
                let greeting = &message.origin.greeting;
                let client = self.client();
                self.surroundings.maillog.accepted(
                    message.id,
                    &message.envelope,
                    message.size,
                    client,
                    greeting,
                );
                (self.refusals, self.unwanted) = (0, 0);
                self.progress = Progress::at(Instant::now());
                self.session.data_finished(Ok(message.id))
            }
            Err(refusal) => {
                let reply = self.session.data_finished(Err(refusal.error()));
                self.tell_refused(&refusal, &reply);
                reply
            }
        };
        self.say(&reply);
    }

    pub(super) fn tell_refused(&mut self, refusal: &Refusal, reply: &Reply) {
        self.log_refusal(&refusal.told(reply));
    }

    /// A line in the log, unless there were so many that they say nothing new, and only fill the disk.
    pub(super) fn log_refusal(&mut self, told: &str) {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals <= MAX_REFUSALS_LOGGED {
            self.surroundings.maillog.refused(self.client(), told);
        }
        if self.refusals == MAX_REFUSALS_LOGGED {
            let told = "no more refusals of this connection are logged";
            self.surroundings.maillog.refused(self.client(), told);
        }
    }

    /// Reads a message to its final dot, into a draft as long as it can be taken.
    async fn read_message(&mut self, octets: &mut u64) -> Result<Result<Draft, Refusal>, End> {
        let limit = self.surroundings.settings.max_message_size;
        let mut draft = Ok(self.surroundings.intake.begin());
        let mut reader = DataReader::new();
        let mut patience = Patience::Message(Instant::now(), 0);
        let rejects_bare = self.surroundings.settings.access.bare_newline == BareNewline::Reject;
        loop {
            let unread = self.input.unread();
            let mut rest = unread;
            let ended = loop {
                match reader.next(&mut rest) {
                    Decoded::Text(text) => {
                        *octets += text.len() as u64;
                        if *octets > limit && draft.is_ok() {
                            draft = Err(Refusal::TooLarge);
                        }
                        if let Ok(open) = &mut draft
                            && let Err(error) = open.write(text).await
                        {
                            draft = Err(Refusal::Spool(error));
                        }
                    }
                    Decoded::End => break true,
                    Decoded::More => break false,
                }
            };
            let used = unread.len() - rest.len();
            self.input.consume(used);
            if draft.is_ok() {
                self.progress.came(used);
            }
            if rejects_bare && reader.has_bare_line_ends() && draft.is_ok() {
                draft = Err(Refusal::BareNewline);
            }
            if ended {
                return Ok(draft);
            }
            if draft.is_ok() {
                self.hear_more(&mut patience).await?;
            } else {
                self.not_wanted(used as u64)?;
                self.hear_unwanted(&mut patience).await?;
            }
        }
    }

    /// Reads octets that are not wanted, and answers then.
    pub(super) async fn discard(&mut self, mut octets: u64, reply: &Reply) -> Result<(), End> {
        let mut patience = Patience::Message(Instant::now(), 0);
        self.not_wanted(octets)?;
        loop {
            let used = usize::try_from(octets)
                .unwrap_or(usize::MAX)
                .min(self.input.unread().len());
            self.input.consume(used);
            octets -= used as u64;
            if octets == 0 {
                self.say(reply);
                return Ok(());
            }
            self.hear_unwanted(&mut patience).await?;
        }
    }

    /// Counts octets that cannot become a message.
    pub(super) fn not_wanted(&mut self, octets: u64) -> Result<(), End> {
        self.unwanted = self.unwanted.saturating_add(octets);
        if self.unwanted > MAX_UNWANTED {
            return Err(End::Endless);
        }
        Ok(())
    }
}
