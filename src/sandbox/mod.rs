//! Floor 6: a Microsoft 365 look-alike on this machine's loopback.
//!
//! It plays Entra's token endpoint and Graph's sendMail as strictly as their documentation and their published
//! answers tell, keeps what it accepts in an inbox that is read over HTTP, and plays faults that are scripted.
//! `run --sandbox` connects a demo account to it, and this project's tests use it in place of mocks.
//! `docs/src/sandbox.md` is its manual.
//!
//! It knows nothing of the bridge but plain words: not its upstreams, not its token code, not its header code.
//!
//! ```text
//! server    listening, TLS, drain; which path is whose
//! entra     POST /{tenant}/oauth2/v2.0/token
//! graph     POST /v1.0/users/{mailbox}/sendMail      message   what a body says, and to whom it goes
//! faults    scripted trouble                         wire      bodies and broken answers
//! inbox     the messages, the faults, the tenant over plain HTTP      page    the same for people
//! state     all that is remembered                   limits    counting
//! settings  the tenant and its switches              certificates
//! ```

mod certificates;
mod entra;
mod faults;
mod graph;
mod inbox;
mod limits;
mod message;
mod page;
mod server;
mod settings;
mod state;
mod wire;

#[cfg(test)]
mod tests;

pub use settings::{Grant, Mailbox, Oversize, SendAs, Settings, Switches, Tenant};

use crate::clock::Clock;
use certificates::Certificates;
use server::Server;
use state::Shared;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// A running sandbox. It stops when its shutdown token is cancelled, or when it is dropped.
#[derive(Debug)]
pub struct Sandbox {
    cloud: SocketAddr,
    inbox: SocketAddr,
    ca_file: PathBuf,
    servers: TaskTracker,
    _stop: DropGuard,
}

/// Why the sandbox does not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// An address of a network: whoever reaches the sandbox may script it.
    #[error("the sandbox listens on loopback addresses only, and {0} is not one")]
    NotLoopback(SocketAddr),
    /// The port is taken or forbidden.
    #[error(
        "the sandbox cannot listen on {0}: {1}. Is another one running? Stop it, or choose another place with --inbox or --cloud; \
         port 0 takes any that is free"
    )]
    Listen(SocketAddr, #[source] io::Error),
    /// The directory cannot be made or written.
    #[error("the sandbox cannot keep its certificates in {0}: {1}")]
    Directory(String, #[source] io::Error),
    /// The certificates cannot be made or are refused by the TLS library.
    #[error("the sandbox cannot make its certificates")]
    Certificate,
}

impl Sandbox {
    /// Starts both servers and returns when they listen. Tokens and quotas go by `clock`.
    ///
    /// Cancelling it starts nothing, or stops what has started.
    ///
    /// # Errors
    /// An address that is not loopback or cannot be listened on, a directory that cannot be written.
    pub async fn start(
        settings: Settings,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> Result<Self, SandboxError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let random = provider.secure_random;
        let directory = settings.directory;
        let made = tokio::task::spawn_blocking(move || Certificates::open(&directory, provider));
        let certificates = made.await.map_err(|_| SandboxError::Certificate)??;
        let acceptor = TlsAcceptor::from(certificates.config);

        let shared = Arc::new(Shared::new(settings.tenant, clock, random));
        let cloud = Server::bind(settings.cloud, Some(acceptor), server::cloud(Arc::clone(&shared)))?;
        let inbox = Server::bind(settings.inbox, None, inbox::router(shared, settings.smtp))?;
        let stop = shutdown.child_token();
        let sandbox = Self {
            cloud: cloud.local(),
            inbox: inbox.local(),
            ca_file: certificates.ca_file,
            servers: TaskTracker::new(),
            _stop: stop.clone().drop_guard(),
        };
        sandbox.servers.spawn(cloud.run(stop.clone()));
        sandbox.servers.spawn(inbox.run(stop));
        sandbox.servers.close();
        tracing::info!(
            target: "sandbox",
            cloud = %sandbox.cloud,
            inbox = %sandbox.inbox_url(),
            "the sandbox plays Microsoft 365"
        );
        Ok(sandbox)
    }

    /// Where Entra and Graph answer.
    #[must_use]
    pub fn cloud(&self) -> SocketAddr {
        self.cloud
    }

    /// Where the inbox answers.
    #[must_use]
    pub fn inbox(&self) -> SocketAddr {
        self.inbox
    }

    /// The certificate authority that a client of [`Sandbox::cloud`] must trust, PEM. It is a new one after a
    /// renewal, so read it after each start.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The URL that stands in for `https://login.microsoftonline.com`, without a slash at its end.
    #[must_use]
    pub fn authority_url(&self) -> String {
        format!("https://{}", self.cloud)
    }

    /// The URL that stands in for `https://graph.microsoft.com`, without a slash at its end. Tokens are still
    /// asked for `https://graph.microsoft.com/.default`, as for any proxy in front of the real one.
    #[must_use]
    pub fn graph_url(&self) -> String {
        format!("https://{}", self.cloud)
    }

    /// The URL of the inbox page, without a slash at its end.
    #[must_use]
    pub fn inbox_url(&self) -> String {
        format!("http://{}", self.inbox)
    }

    /// Returns when the shutdown token was cancelled and all connections have ended, which takes three seconds
    /// at most. Cancelling it stops the sandbox without waiting.
    pub async fn stopped(self) {
        self.servers.wait().await;
    }
}
