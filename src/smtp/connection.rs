//! One client: reads, writes and waits, and asks the session what to say.

use super::bdat::Chunked;
use super::certificate::Current;
use super::crowd::{Capacity, Guest};
use super::data::{DataReader, Decoded};
use super::desk::Desk;
use super::input::Input;
use super::patience::{self, Patience};
use super::rates::Rates;
use super::refusal::Refusal;
use super::session::{Action, Incoming, Session, SessionSettings, Step};
use super::tls::{self, Wire};
use crate::config::BareNewline;
use crate::config::TlsMode;
use crate::mail::Peer;
use crate::mail::Reply;
use crate::spool::Draft;
use crate::spool::Intake;
use crate::telemetry::Maillog;
use crate::telemetry::maillog::Client;
use crate::users::Logins;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long a client may take for its next command (RFC 5321 §4.5.3.2.7).
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long it may take for the next piece of a message (RFC 5321 §4.5.3.2.5).
pub(super) const DATA_TIMEOUT: Duration = Duration::from_secs(3 * 60);
/// How long it may take to take our replies.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long it may take to take our last reply and to close its side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take for a TLS handshake: old devices reckon for seconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Who is silent for so long on a listener with implicit TLS, and leaves, has waited for a greeting.
const WAITED: Duration = Duration::from_secs(3);

/// So many refusals of one connection are logged, until it sends a good message.
const MAX_REFUSALS_LOGGED: u32 = 100;
/// Octets that cannot become a message any more, until one is accepted. Whoever sends more is sent away.
const MAX_UNWANTED: u64 = 4 << 30;
/// Replies are sent when so many octets of them have gathered, however much the client has sent ahead.
const MAX_GATHERED: usize = 8 * 1024;

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
        surroundings,
    };
    let end = connection.run().await;
    connection.finish(end).await;
}

pub(super) struct Connection<S> {
    pub(super) stream: Wire<S>,
    pub(super) client: Peer,
    pub(super) input: Input,
    output: Vec<u8>,
    pub(super) session: Session,
    /// What has come of a message by BDAT, between two chunks of it.
    pub(super) chunked: Option<Box<Chunked>>,
    pub(super) guest: Guest,
    /// How many were logged since the last message that was accepted.
    pub(super) refusals: u32,
    /// Octets that were not wanted, since the last message that was accepted.
    unwanted: u64,
    pub(super) surroundings: Arc<Surroundings>,
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// The session said so.
    Closed,
    /// The client went away.
    Left,
    /// The network, or the client went away rudely.
    Broken(io::Error),
    /// The client did not wait for a greeting that is delayed.
    Early,
    /// The client took too long.
    TimedOut,
    /// It took longer than it may when connections run short.
    Crowded,
    /// What it sends and nobody wants has no end.
    Endless,
    /// We stop.
    Stopping,
    /// The client speaks TLS, and we do not.
    Tls,
    /// TLS was to begin and did not.
    Handshake(String),
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

    /// TLS begins, with what the client has sent already.
    pub(super) async fn start_tls(&mut self) -> Result<(), End> {
        self.flush().await?;
        let Some(certificate) = self.surroundings.certificate.clone() else {
            return Err(End::Tls);
        };
        let stop = self.surroundings.stop.clone();
        let handshake = async {
            if self.input.unread().is_empty() {
                let start = Instant::now();
                match self.input.read(&mut self.stream).await {
                    // A probe looks whether the port is open, and leaves at once.
                    Ok(0) if start.elapsed() < WAITED => return Err(End::Left),
                    Ok(0) => return Err(End::Handshake(SILENT.to_owned())),
                    Ok(_) => {}
                    Err(error) => return Err(End::Broken(error)),
                }
            }
            let begun = self.input.take();
            self.stream
                .start_tls(&certificate, begun)
                .await
                .map_err(|error| End::Handshake(tls::reason(&error)))
        };
        let done = tokio::select! {
            biased;
            // Nothing can be said in the middle of a handshake.
            () = stop.cancelled() => return Err(End::Closed),
            done = timeout(HANDSHAKE_TIMEOUT, handshake) => done,
        };
        done.unwrap_or_else(|_| Err(End::Handshake(SILENT.to_owned())))?;
        self.session.tls_started();
        Ok(())
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
            let is_too_long = line.unwrap_or(unread.len()) > longest;
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

    /// Reads a message to its final dot and answers. A message that cannot be taken is read to its end all the same,
    /// so that the client hears the answer and the next command is one.
    async fn receive(&mut self, incoming: Incoming) -> Result<(), End> {
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
    async fn discard(&mut self, mut octets: u64, reply: &Reply) -> Result<(), End> {
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

    /// The last words.
    async fn finish(mut self, end: End) {
        if let Some(chunked) = self.chunked.take() {
            self.surroundings.maillog.lost(self.client(), chunked.octets());
        }
        let client = self.client();
        match &end {
            End::Closed => {}
            End::Left => {
                tracing::debug!(client = %client.address, listener = client.listener, "the client left")
            }
            End::Broken(error) => {
                tracing::debug!(client = %client.address, listener = client.listener, %error, "the connection broke");
            }
            End::Early => {
                // RFC 5321 §3.1: 554 in place of the greeting.
                let reply = Reply::new(
                    554,
                    5,
                    1,
                    "you spoke before the greeting, which this listener does not allow: let your program wait for it, \
                     or set greeting_delay = \"0s\" for this listener of the bridge",
                );
                self.log_refusal(&reply.to_string());
                self.say(&reply);
            }
            End::TimedOut => self.say(&Reply::new(
                421,
                4,
                2,
                "nothing was heard for too long, closing the connection",
            )),
            End::Crowded => {
                tracing::info!(
                    client = %client.address,
                    listener = client.listener,
                    "a slow or idle client made room for others, because connections run short"
                );
                self.say(&Reply::new(
                    421,
                    4,
                    2,
                    "connections run short and this one was idle or slow, closing it: try again",
                ));
            }
            End::Endless => self.say(&Reply::new(
                421,
                3,
                4,
                format!(
                    "more than {} GiB came that cannot be taken, closing the connection: send a smaller message",
                    MAX_UNWANTED >> 30
                ),
            )),
            End::Stopping => self.say(&Reply::new(
                421,
                3,
                2,
                "the bridge is shutting down, try again later",
            )),
            End::Tls => self.surroundings.maillog.refused(
                client,
                "nothing, and closed: the client speaks TLS, which this listener does not; \
                 switch encryption (SSL/TLS) off for this server in the device, \
                 or set tls = \"starttls\" for this listener",
            ),
            End::Handshake(reason) => self.surroundings.maillog.no_tls(client, reason),
        }
        if matches!(end, End::Left | End::Broken(_)) {
            return;
        }
        // A socket that is closed with unread input is reset, and the client may lose our reply: so what it still
        // sends is read for a moment. Not while stopping, where nobody has sent anything.
        let _ = timeout(CLOSE_TIMEOUT, async {
            self.flush().await.ok()?;
            self.stream.shutdown().await.ok()?;
            while !matches!(end, End::Stopping) && self.input.read(&mut self.stream).await.ok()? > 0 {
                self.input.consume(self.input.unread().len());
            }
            Some(())
        })
        .await;
    }

    pub(super) fn say(&mut self, reply: &Reply) {
        reply.write_to(&mut self.output);
    }

    /// Sends the replies that have gathered. Who does not take them is not waited for longer than an idle client
    /// where connections run short, and hardly at all when we stop.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = std::mem::take(&mut self.output);
        let (stream, guest, stop) = (&mut self.stream, &self.guest, &self.surroundings.stop);
        let sent = async {
            stream.write_all(&output).await?;
            stream.flush().await
        };
        let start = Instant::now();
        let patience = async {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return sleep(CLOSE_TIMEOUT).await,
                    () = sleep(patience::LOOK) => {}
                }
                let waited = start.elapsed();
                if waited >= REPLY_TIMEOUT || (waited >= patience::IDLE && guest.is_crowded()) {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            sent = sent => sent.map_err(End::Broken),
            // Nothing can be said to a client that does not listen.
            () = patience => Err(End::Broken(io::ErrorKind::TimedOut.into())),
        }
    }

    pub(super) fn client(&self) -> Client<'_> {
        Client {
            address: self.client,
            listener: &self.surroundings.settings.listener,
        }
    }
}

/// What it means that no TLS came.
const SILENT: &str = "the device did not go on with it: perhaps it has no encryption switched on, and waits for a \
                      greeting; if it cannot have it, use a listener with another `tls`";

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
