//! The servers that are compared.

use crate::Outcome;
use mailin_embedded::{Handler, Response, response};
use smtp_oauth_bridge::clock::Clock;
use smtp_oauth_bridge::config::{self, Surroundings};
use smtp_oauth_bridge::smtp;
use smtp_oauth_bridge::spool::{Spool, SpoolSettings};
use smtp_oauth_bridge::telemetry::Maillog;
use smtp_oauth_bridge::users::Logins;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Serves until standard input ends.
pub(crate) fn serve(runtime: &Runtime, kind: &str, directory: &Path, threads: u32) -> Outcome<()> {
    let guard = runtime.enter();
    match kind {
        "bridge" | "bridge-tls" | "bridge-nothing" => bridge(runtime, directory, kind)?,
        "mailin" | "mailin-file" => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            println!("{}", listener.local_addr()?.port());
            let handler = Files {
                directory: (kind == "mailin-file").then(|| directory.to_owned()),
                file: None,
                octets: 0,
            };
            let mut server = mailin_embedded::Server::new(handler);
            server
                .with_name("bench.test")
                .with_num_threads(threads)
                .with_tcp_listener(listener);
            std::thread::spawn(move || server.serve().map_err(|error| eprintln!("{error}")));
        }
        _ => return Err(format!("{kind}: no such server").into()),
    }
    drop(guard);
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Larger than anything that is sent here, whatever an upstream would take.
const MAX_MESSAGE_SIZE: u64 = 100_000_000;

/// The listener of the bridge and its spool, as the daemon starts them; nothing is delivered.
fn bridge(runtime: &Runtime, directory: &Path, kind: &str) -> Outcome<()> {
    let secret = directory.join("secret");
    std::fs::write(&secret, "secret")?;
    let text = CONFIGURATION
        .replace("DIRECTORY", &directory.display().to_string())
        .replace("TLS", if kind == "bridge-tls" { "implicit" } else { "off" });
    let loaded = config::parse(&text, &directory.join("bridge.toml"), &Surroundings::default())?;
    let mut config = loaded.config;
    for listener in &mut config.listeners {
        listener.max_message_size = MAX_MESSAGE_SIZE;
    }
    let clock = Clock::machine();
    let mut premises = smtp::Premises::new(
        config.hostname.clone(),
        config.state_dir.clone(),
        clock,
        Vec::new(),
    );
    let listener = config.listeners.first().ok_or("no listener")?;
    let sockets = smtp::bind(listener, &mut premises)?;
    let settings = SpoolSettings {
        directory: config.state_dir.join("spool"),
        max_size: config.spool.max_size,
        min_free: config.spool.min_free,
    };
    let spool = Spool::open(&settings, clock)?;
    let address = sockets.first().and_then(|socket| socket.address());
    println!("{}", address.ok_or("no address")?.port());
    let services = smtp::Services {
        hostname: config.hostname.clone(),
        intake: match kind {
            "bridge-nothing" => spool.intake().that_discards(),
            _ => spool.intake(),
        },
        logins: Logins::new(config.users.file.clone()),
        capacity: smtp::Capacity::new(config.limits.max_connections),
        maillog: Maillog,
    };
    runtime.spawn(async move {
        smtp::serve(sockets, services, CancellationToken::new()).await;
        drop(spool);
    });
    Ok(())
}

const CONFIGURATION: &str = r#"
hostname = "bench.test"
state_dir = "DIRECTORY"

[[listener]]
bind = ["127.0.0.1:0"]
tls = "TLS"
max_connections = 100000

[limits]
max_connections = 100000

[spool]
max_size = "100GiB"
min_free = "100MiB"

[account.nobody]
tenant = "contoso.example"
client_id = "00000000-0000-0000-0000-000000000001"
client_secret = { file = "DIRECTORY/secret" }
mailbox = "nobody@contoso.example"
"#;

/// What mailin-embedded does with a message: nothing, or a file of its own that is synced (its directory is not).
struct Files {
    directory: Option<PathBuf>,
    file: Option<io::BufWriter<File>>,
    octets: u64,
}

impl Clone for Files {
    /// Every session has its own.
    fn clone(&self) -> Self {
        Self {
            directory: self.directory.clone(),
            file: None,
            octets: 0,
        }
    }
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Handler for Files {
    fn data_start(&mut self, _domain: &str, _from: &str, _is8bit: bool, _to: &[String]) -> Response {
        if let Some(directory) = &self.directory {
            let name = format!("{}.eml", NUMBER.fetch_add(1, Ordering::Relaxed));
            match File::create_new(directory.join(name)) {
                Ok(file) => self.file = Some(io::BufWriter::new(file)),
                Err(_) => return response::INTERNAL_ERROR,
            }
        }
        response::OK
    }

    fn data(&mut self, text: &[u8]) -> io::Result<()> {
        self.octets += text.len() as u64;
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(text))
    }

    fn data_end(&mut self) -> Response {
        std::hint::black_box(self.octets);
        let synced = self.file.take().map_or(Ok(()), |file| {
            file.into_inner()
                .map_err(io::IntoInnerError::into_error)?
                .sync_all()
        });
        if synced.is_ok() {
            response::OK
        } else {
            response::INTERNAL_ERROR
        }
    }
}
