//! The part of a connection that waits: for the client, and for the verdict on a login.

use super::connection::Connection;
use super::farewell::{CLOSE_TIMEOUT, End};
use super::input::{LITTLE, READ_SIZE};
use super::patience::{self, Patience};
use super::session::{Action, Step};
use crate::users::Login;
use crate::users::Verdict;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout_at};

/// How long it may take for the next piece of a message (RFC 5321 §4.5.3.2.5).
pub(super) const DATA_TIMEOUT: Duration = Duration::from_secs(3 * 60);
/// How long it may take to take our replies.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(5 * 60);

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads once, until the deadline, or as long as there is patience with this client.
    pub(super) async fn hear(&mut self, deadline: Instant, patience: &mut Patience) -> Result<(), End> {
        loop {
            let look = deadline.min(Instant::now() + patience::LOOK);
            let most = match patience {
                Patience::Command(_) => LITTLE,
                Patience::Message(..) => READ_SIZE,
            };
            let read = timeout_at(look, self.input.read_up_to(most, &mut self.stream)).await;
            let now = Instant::now();
            if let Ok(Ok(octets)) = &read {
                patience.heard(*octets);
            }
            // Both are asked, because both begin new windows.
            let is_slow = patience.is_at_its_end(now) | self.progress.is_at_its_end(now);
            if is_slow && self.guest.is_crowded() {
                return Err(End::Crowded);
            }
            if read.is_ok() || now >= deadline {
                return heard(read);
            }
        }
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

    /// The next piece of a message.
    pub(super) async fn hear_more(&mut self, patience: &mut Patience) -> Result<(), End> {
        self.flush().await?;
        self.input.release();
        self.hear(Instant::now() + DATA_TIMEOUT, patience).await
    }

    /// The next piece of something that nobody waits for: not worth a moment when we stop.
    pub(super) async fn hear_unwanted(&mut self, patience: &mut Patience) -> Result<(), End> {
        let stop = self.surroundings.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(End::Stopping),
            heard = self.hear_more(patience) => heard,
        }
    }

    /// Has a login checked and answers. An answer of no waits, and longer each time.
    pub(super) async fn check_login(&mut self, login: Login) -> Result<(), End> {
        self.flush().await?;
        let stop = self.surroundings.stop.clone();
        let checked = async {
            let verdict = self.surroundings.logins.judge(self.client, login).await;
            if let Verdict::Wrong { wait, .. } = &verdict {
                sleep(*wait).await;
            }
            verdict
        };
        let verdict = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(End::Stopping),
            verdict = checked => verdict,
        };
        let why = match &verdict {
            Verdict::Wrong { why, .. } => format!(" ({why})"),
            _ => String::new(),
        };
        let Step {
            reply,
            action,
            refused,
        } = self.session.login_checked(verdict);
        self.say(&reply);
        if refused {
            self.log_refusal(&format!("{reply}{why}"));
        }
        match action {
            Action::Close => Err(End::Closed),
            _ => Ok(()),
        }
    }
}

/// What a read came to.
pub(super) fn heard(read: Result<io::Result<usize>, tokio::time::error::Elapsed>) -> Result<(), End> {
    match read {
        Ok(Ok(0)) => Err(End::Left),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(End::Broken(error)),
        Err(_) => Err(End::TimedOut),
    }
}
