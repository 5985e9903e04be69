//! The part of a connection where TLS begins.

use super::connection::Connection;
use super::farewell::End;
use super::tls;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

/// How long it may take for a TLS handshake: old devices reckon for seconds.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long where connections run short. It is also how often that is looked at.
pub(super) const CROWDED_TIMEOUT: Duration = Duration::from_secs(10);
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
        let (input, stream, guest) = (&mut self.input, &mut self.stream, &self.guest);
        let start = Instant::now();
        let handshake = async {
            if input.unread().is_empty() {
                match input.read(stream).await {
                    // A probe looks whether the port is open, and leaves at once.
                    Ok(0) if start.elapsed() < WAITED => return Err(End::Left),
                    Ok(0) => return Err(End::Handshake(SILENT.to_owned())),
                    Ok(_) => {}
                    Err(error) => return Err(End::Broken(error)),
                }
            }
            let begun = input.take();
            stream
                .start_tls(&certificate, begun)
                .await
                .map_err(|error| End::Handshake(tls::reason(&error)))
        };
        let patience = async {
            loop {
                sleep(CROWDED_TIMEOUT).await;
                if start.elapsed() >= HANDSHAKE_TIMEOUT {
                    return SILENT.to_owned();
                }
                if guest.is_crowded() {
                    return format!(
                        "connections run short, and it took longer than {} seconds",
                        CROWDED_TIMEOUT.as_secs()
                    );
                }
            }
        };
        tokio::select! {
            biased;
            // Nothing can be said in the middle of a handshake.
            () = stop.cancelled() => return Err(End::Closed),
            done = handshake => done?,
            reason = patience => return Err(End::Handshake(reason)),
        }
        self.session.tls_started();
        Ok(())
    }
}

/// What it means that no TLS came.
const SILENT: &str = "the device did not go on with it: perhaps it has no encryption switched on, and waits for a \
                      greeting; if it cannot have it, use a listener with another `tls`";
