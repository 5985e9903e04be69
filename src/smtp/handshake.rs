//! The part of a connection where TLS begins.

use super::connection::Connection;
use super::farewell::End;
use super::tls;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

/// How long it may take for a TLS handshake: old devices reckon for seconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Who is silent for so long on a listener with implicit TLS, and leaves, has waited for a greeting.
const WAITED: Duration = Duration::from_secs(3);

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
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
}

/// What it means that no TLS came.
const SILENT: &str = "the device did not go on with it: perhaps it has no encryption switched on, and waits for a \
                      greeting; if it cannot have it, use a listener with another `tls`";
