//! One client: reads, writes and waits, and asks the session what to say.

use super::bdat::Chunked;
use super::certificate::Current;
use super::crowd::{Capacity, Guest};
use super::desk::Desk;
use super::farewell::End;
use super::input::{Input, LITTLE};
use super::patience::{Patience, Progress};
use super::rates::Rates;
use super::session::{Action, Session, SessionSettings, Step};
use super::tls::{self, Wire};
use crate::config::TlsMode;
use crate::mail::Peer;
use crate::mail::Reply;
use crate::spool::Intake;
use crate::telemetry::Maillog;
use crate::telemetry::maillog::Client;
use crate::users::Logins;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a client may take for its next command (RFC 5321 §4.5.3.2.7).
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Replies are sent when so many octets of them have gathered, however much the client has sent ahead.
const MAX_GATHERED: usize = 4 * 1024;

/// What all connections of a listener have in common.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) settings: Arc<SessionSettings>,
    pub(super) intake: Intake,
    pub(super) logins: Logins,
    pub(super) capacity: Capacity,
    pub(super) rates: Arc<Rates>,
    pub(super) maillog: Maillog,
    pub(super) stop: CancellationToken,
    pub(super) tls: TlsMode,
    /// Where the certificate is, unless there is no TLS.
    pub(super) certificate: Option<Current>,
}

/// Serves one client until it leaves, or is sent away. `early` is what it has said already.
pub(super) async fn serve_client<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    client: Peer,
    early: Vec<u8>,
    guest: Guest,
    surroundings: Arc<Surroundings>,
) {
    let session = Session::new(surroundings.settings.clone(), client);
    let (input, output) = (Input::new(early), Vec::new());
    let mut connection = Connection {
        stream: Wire::Plain(stream),
        client,
        input,
        output,
        session,
        chunked: None,
        guest,
        refusals: 0,
        unwanted: 0,
        progress: Progress::at(Instant::now()),
        surroundings,
    };
    let end = connection.run().await;
    connection.finish(end).await;
}

pub(super) struct Connection<S> {
    pub(super) stream: Wire<S>,
    pub(super) client: Peer,
    pub(super) input: Input,
    pub(super) output: Vec<u8>,
    pub(super) session: Session,
    /// What has come of a message by BDAT, between two chunks of it.
    pub(super) chunked: Option<Box<Chunked>>,
    pub(super) guest: Guest,
    /// How many were logged since the last message that was accepted.
    pub(super) refusals: u32,
    /// Octets that were not wanted, since the last message that was accepted.
    pub(super) unwanted: u64,
    /// Of the messages that were accepted, and the octets of the next one.
    pub(super) progress: Progress,
    pub(super) surroundings: Arc<Surroundings>,
}

/// A line of input.
enum Line {
    /// So many octets of the input, the line end included.
    Whole(usize),
    /// One that was thrown away.
    TooLong,
    /// One too long that may be BDAT.
    LostChunk,
    /// None: TLS.
    Tls,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(&mut self) -> End {
        // Boxed, here and below, so that an idle connection does not carry the room for a handshake.
        if let Err(end) = Box::pin(self.before_greeting()).await {
            return end;
        }
        let greeting = self.session.greeting();
        self.say(&greeting);
        loop {
            // RSET, EHLO or TLS in the middle of a message: what has come of it is forgotten.
            if !self.session.is_between_chunks() {
                self.chunked = None;
            }
            self.guest.weigh(self.session.weight());
            let step = match self.next_line().await {
                Ok(Line::Whole(octets)) => {
                    let line = self.input.unread().get(..octets).unwrap_or_default();
                    let is_secret = self.session.is_login(line);
                    let desk = Desk {
                        surroundings: &self.surroundings,
                        guest: &self.guest,
                        client: self.client,
                    };
                    let step = self.session.command(line, desk);
                    if is_secret {
                        self.input.wipe(octets);
                    }
                    self.input.consume(octets);
                    step
                }
                Ok(Line::TooLong) => self.session.line_too_long(),
                Ok(Line::LostChunk) => self.session.chunk_lost(),
                Ok(Line::Tls) => match Box::pin(self.start_tls()).await {
                    Ok(()) => continue,
                    Err(end) => return end,
                },
                Err(end) => return end,
            };
            let step = match step.action {
                Action::StartTls if self.has_more_than_tls() => self.session.commands_behind_starttls(),
                _ => step,
            };
            let Step {
                reply,
                action,
                refused,
            } = step;
            if refused {
                self.log_refusal(&reply.to_string());
            }
            // Boxed, so that an idle connection does not carry the room for a message.
            let done = match action {
                Action::Continue => {
                    self.say(&reply);
                    Ok(())
                }
                Action::ReadData(incoming) => {
                    self.say(&reply);
                    Box::pin(self.receive(*incoming)).await
                }
                Action::StartTls => {
                    self.say(&reply);
                    Box::pin(self.start_tls()).await
                }
                Action::ReadChunk(chunk) => Box::pin(self.receive_chunk(chunk, &reply)).await,
                Action::Discard(octets) => Box::pin(self.discard(octets, &reply)).await,
                Action::CheckLogin(login) => Box::pin(self.check_login(login)).await,
                Action::Close => {
                    self.say(&reply);
                    Err(End::Closed)
                }
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// The next command line. While it waits, and before each line, the end of the daemon is heard, but not between
    /// the chunks of a message.
    async fn next_line(&mut self) -> Result<Line, End> {
        let start = Instant::now();
        let (deadline, mut patience) = (start + COMMAND_TIMEOUT, Patience::Command(start));
        let (mut searched, mut skipping) = (0, false);
        if self.output.len() > MAX_GATHERED {
            self.flush().await?;
        }
        loop {
            let may_stop = self.chunked.is_none();
            if may_stop && self.surroundings.stop.is_cancelled() {
                return Err(End::Stopping);
            }
            let unread = self.input.unread();
            if !skipping && unread.starts_with(&tls::RECORD) {
                return if self.session.may_start_tls() {
                    Ok(Line::Tls)
                } else {
                    Err(End::Tls)
                };
            }
            let longest = self.session.longest_line(unread);
            let end = memchr::memchr(b'\n', unread.get(searched..).unwrap_or_default());
            let line = end.map(|at| searched + at + 1);
            let is_half = line.is_none() && !skipping && unread.len() > LITTLE;
            if is_half {
                self.guest.weigh(self.session.weight() + unread.len());
            }
            // Thousands of clients with half a login each would be too much, and no login needs so much.
            let is_too_long = line.unwrap_or(unread.len()) > longest || (is_half && !self.guest.may_grow());
            if is_too_long && !skipping && self.session.may_begin_chunk(unread) {
                return Ok(Line::LostChunk);
            }
            match line {
                Some(octets) if skipping || is_too_long => {
                    self.input.consume(octets);
                    return Ok(Line::TooLong);
                }
                Some(octets) => return Ok(Line::Whole(octets)),
                None if skipping || is_too_long => {
                    self.input.consume(unread.len());
                    self.guest.weigh(self.session.weight());
                    skipping = true;
                    searched = 0;
                }
                None => searched = unread.len(),
            }
            self.flush().await?;
            self.input.release();
            let stop = self.surroundings.stop.clone();
            tokio::select! {
                biased;
                () = stop.cancelled(), if may_stop => return Err(End::Stopping),
                read = self.hear(deadline, &mut patience) => read?,
            };
        }
    }

    pub(super) fn say(&mut self, reply: &Reply) {
        reply.write_to(&mut self.output);
    }

    pub(super) fn client(&self) -> Client<'_> {
        Client {
            address: self.client,
            listener: &self.surroundings.settings.listener,
        }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
