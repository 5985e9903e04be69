//! How a connection ends, and what is said then.

use super::connection::Connection;
use super::receiving::MAX_UNWANTED;
use crate::mail::Reply;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long it may take to take our last reply and to close its side.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

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

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// The last words.
    pub(super) async fn finish(mut self, end: End) {
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
}
