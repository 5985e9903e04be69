//! The part of a connection before its greeting: TLS that begins at once, and clients that cannot wait.

use super::connection::Connection;
use super::farewell::End;
use super::tls;
use super::waiting::heard;
use crate::config::TlsMode;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

/// How long the greeting of a listener with STARTTLS waits for a client that begins with TLS instead: it would take
/// the greeting for TLS, and give up.
const TLS_DELAY: Duration = Duration::from_millis(100);

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// What comes before the greeting: TLS, on a listener where it is implicit, or with a client that begins with it;
    /// and the delay in which a client that speaks gives itself away (RFC 5321 §3.1 has it wait for the greeting).
    pub(super) async fn before_greeting(&mut self) -> Result<(), End> {
        let delay = self.surroundings.settings.access.greeting_delay;
        match self.surroundings.tls {
            TlsMode::Off => {}
            TlsMode::Implicit => self.start_tls().await?,
            TlsMode::StartTls => {
                self.hold(delay.max(TLS_DELAY)).await?;
                if !self.input.unread().starts_with(&tls::RECORD) {
                    return self.refuse_early_talker();
                }
                self.start_tls().await?;
            }
        }
        if delay.is_zero() {
            return Ok(());
        }
        self.hold(delay).await?;
        self.refuse_early_talker()
    }

    /// Waits so long, or until it is clear whether what the client says is TLS.
    async fn hold(&mut self, delay: Duration) -> Result<(), End> {
        let deadline = Instant::now() + delay;
        let stop = self.surroundings.stop.clone();
        while tls::RECORD.starts_with(self.input.unread()) && self.input.unread().len() < tls::RECORD.len() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(End::Stopping),
                read = timeout_at(deadline, self.input.read(&mut self.stream)) => match read {
                    Err(_) => return Ok(()),
                    read => heard(read)?,
                },
            }
        }
        Ok(())
    }

    /// Only where the greeting is delayed: otherwise devices that cannot wait are served.
    fn refuse_early_talker(&self) -> Result<(), End> {
        let is_wanted = self.surroundings.settings.access.greeting_delay.is_zero();
        match self.has_more_than_tls() {
            true if !is_wanted => Err(End::Early),
            _ => Ok(()),
        }
    }

    /// True if the client has sent something that is no TLS, nor the beginning of it.
    pub(super) fn has_more_than_tls(&self) -> bool {
        let unread = self.input.unread();
        !unread.starts_with(&tls::RECORD) && !tls::RECORD.starts_with(unread)
    }
}
