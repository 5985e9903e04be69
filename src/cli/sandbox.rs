//! The sandbox on the command line: alone, or behind a bridge of its own.

use super::args::Places;
use super::exit::Failure;
use super::{runtime, say, surroundings};
use crate::clock::Clock;
use crate::config::{self, Loaded};
use crate::daemon::Daemon;
use crate::files::write_private;
use crate::sandbox::{Sandbox, Settings, Tenant};
use crate::shutdown;
use crate::telemetry::log;
use secrecy::ExposeSecret;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// `sandbox`: the look-alike alone. Says on standard output, as `key=value`, what a configuration needs to know.
pub(super) fn sandbox(places: &Places) -> Result<(), Failure> {
    runtime()?.block_on(async {
        log::init(log::Format::Text, "info").map_err(Failure::internal)?;
        let stop = CancellationToken::new();
        shutdown::on_signal(stop.clone(), CancellationToken::new()).map_err(Failure::system)?;
        let behind = Behind::start(places, None, Clock::machine()).await?;
        say(&behind.facts());
        stop.cancelled().await;
        behind.stop().await;
        Ok(())
    })
}

/// A running sandbox, with what its customers have to know.
pub(super) struct Behind {
    sandbox: Sandbox,
    stop: CancellationToken,
    directory: PathBuf,
    tenant: Tenant,
    mailbox: String,
}

impl Behind {
    pub(super) async fn start(
        places: &Places,
        smtp: Option<SocketAddr>,
        clock: Clock,
    ) -> Result<Self, Failure> {
        let directory = places
            .directory
            .clone()
            .unwrap_or_else(|| surroundings::sandbox_directory(&surroundings::gather()));
        let directory = std::path::absolute(directory).map_err(Failure::system)?;
        let tenant = Tenant::demo();
        let mailbox = tenant
            .mailboxes
            .first()
            .map(|mailbox| mailbox.address.to_string())
            .unwrap_or_default();
        let stop = CancellationToken::new();
        let settings = Settings {
            cloud: places.cloud,
            inbox: places.inbox,
            directory: directory.clone(),
            tenant: tenant.clone(),
            smtp,
        };
        let sandbox = Sandbox::start(settings, clock, stop.clone())
            .await
            .map_err(Failure::system)?;
        Ok(Self {
            sandbox,
            stop,
            directory,
            tenant,
            mailbox,
        })
    }

    /// Writes a configuration for a bridge in front of this sandbox, and loads it as any other.
    pub(super) fn configuration(&self, smtp: SocketAddr) -> Result<Loaded, Failure> {
        let secret = self.directory.join("client.secret");
        write(&secret, self.tenant.client_secret.expose_secret())?;
        let path = self.directory.join("bridge.toml");
        write(&path, &self.configuration_text(smtp, &secret))?;
        // The sandbox is for trying out: variables that are meant for a real bridge do not count here.
        let surroundings = config::Surroundings {
            machine_name: "localhost".to_owned(),
            ..Default::default()
        };
        config::load(&path, &surroundings).map_err(Failure::internal)
    }

    /// The smallest configuration, with the sandbox where Microsoft would be.
    fn configuration_text(&self, smtp: SocketAddr, secret: &Path) -> String {
        let text = |value: &dyn std::fmt::Display| toml_string(&value.to_string());
        format!(
            "# Written by `smtp-oauth-bridge run --sandbox` at every start.\n\
             state_dir = {}\n\
             listener = [{{ name = \"sandbox\", bind = [{}] }}]\n\
             tls.extra_ca_file = {}\n\n\
             [account.sandbox]\n\
             tenant = {}\n\
             client_id = {}\n\
             client_secret = {{ file = {} }}\n\
             mailbox = {}\n\
             endpoints = {{ authority = {}, graph = {} }}\n",
            text(&self.directory.join("state").display()),
            text(&smtp),
            text(&self.sandbox.ca_file().display()),
            text(&self.tenant.id),
            text(&self.tenant.client_id),
            text(&secret.display()),
            text(&self.mailbox),
            text(&self.sandbox.authority_url()),
            text(&self.sandbox.graph_url()),
        )
    }

    /// What a newcomer does next.
    pub(super) fn welcome(&self, daemon: &Daemon) -> String {
        let smtp = daemon
            .addresses()
            .first()
            .map(|(_, address)| address.to_string())
            .unwrap_or_default();
        let mailbox = &self.mailbox;
        let inbox = self.sandbox.inbox_url();
        let directory = self.directory.display();
        format!(
            "\nThe bridge runs, with a Microsoft 365 look-alike behind it. Nothing leaves this machine.\n\n\
             Send a first message (copy the whole line):\n\n  \
             printf 'From: {mailbox}\\r\\nTo: you@example.com\\r\\nSubject: Hello\\r\\n\\r\\nIt works.\\r\\n' | \
             curl -sS smtp://{smtp} --mail-from {mailbox} --mail-rcpt you@example.com --upload-file -\n\n\
             or, with swaks:\n\n  \
             swaks --server {smtp} --from {mailbox} --to you@example.com\n\n\
             and see it arrive:\n\n  \
             {inbox}/\n\n\
             The configuration of this bridge is {directory}/bridge.toml: yours will look the same.\n\
             Stop with ctrl-c.\n"
        )
    }

    fn facts(&self) -> String {
        format!(
            "authority={}\ngraph={}\ninbox={}\nca_file={}\ntenant={}\nclient_id={}\nclient_secret={}\nmailbox={}",
            self.sandbox.authority_url(),
            self.sandbox.graph_url(),
            self.sandbox.inbox_url(),
            self.sandbox.ca_file().display(),
            self.tenant.id,
            self.tenant.client_id,
            self.tenant.client_secret.expose_secret(),
            self.mailbox,
        )
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.sandbox.stopped().await;
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| Failure::system(format!("{} cannot be written: {error}", path.display()));
    write_private(path, text.as_bytes()).map_err(failed)
}

/// A TOML basic string.
fn toml_string(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}
