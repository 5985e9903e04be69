//! A server in a process of its own, and what it has used.

use crate::Outcome;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ticks of `/proc/PID/stat` in a second; on Linux always this.
const TICKS: u32 = 100;

/// It ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    /// Starts `kind` with its files in `directory`; returns when it listens.
    pub(crate) fn start(kind: &str, directory: &Path, threads: usize) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", kind])
            .arg(directory)
            .arg(threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let port = line
            .trim()
            .parse()
            .map_err(|_| format!("{kind} does not start"))?;
        Ok(Self { child, port })
    }

    /// User and system time so far, of all threads, those that have ended included.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in brackets may contain anything; utime and stime are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').ok_or("/proc/PID/stat has no name")?;
        let ticks: u32 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u32>().ok())
            .sum();
        Ok(Duration::from_secs(1) * ticks / TICKS)
    }

    /// Anonymous resident memory in KiB.
    pub(crate) fn memory(&self) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let value = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = value.and_then(|value| value.split_whitespace().next());
        Ok(kib.ok_or("/proc/PID/status has no RssAnon")?.parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The real program with a sandbox in a process of its own: everything from the socket to Graph's 202.
pub(crate) struct Daemon {
    sandbox: Child,
    bridge: Child,
    directory: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Daemon {
    /// Starts `program` with its spool in `parent`, and a sandbox for it.
    pub(crate) fn start(program: &Path, parent: &Path) -> Outcome<Self> {
        let directory = tempfile::Builder::new()
            .prefix("bridge-bench-")
            .tempdir_in(parent)?;
        let root = directory.path();
        let mut sandbox = Command::new(program)
            .args([
                "sandbox",
                "--cloud",
                "127.0.0.1:0",
                "--inbox",
                "127.0.0.1:0",
                "--directory",
            ])
            .arg(root.join("sandbox"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let mut facts = HashMap::new();
        if let Some(stdout) = sandbox.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                if let Some((key, value)) = line?.split_once('=') {
                    facts.insert(key.trim().to_owned(), value.trim().to_owned());
                }
                if FACTS.iter().all(|fact| facts.contains_key(*fact)) {
                    break;
                }
            }
        }
        let fact = |name: &str| {
            facts
                .get(name)
                .cloned()
                .ok_or(format!("the sandbox does not say its {name}"))
        };
        std::fs::write(root.join("secret"), fact("client_secret")?)?;
        std::fs::write(
            root.join("bridge.toml"),
            format!(
                "hostname = \"bench.test\"\nstate_dir = \"state\"\nlistener = [{{ bind = [\"127.0.0.1:0\"] }}]\n\
                 tls.extra_ca_file = \"{}\"\nspool.min_free = \"100MiB\"\n[account.bench]\ntenant = \"{}\"\n\
                 client_id = \"{}\"\nclient_secret = {{ file = \"secret\" }}\nmailbox = \"{}\"\n\
                 endpoints = {{ authority = \"{}\", graph = \"{}\" }}\n",
                fact("ca_file")?,
                fact("tenant")?,
                fact("client_id")?,
                fact("mailbox")?,
                fact("authority")?,
                fact("graph")?
            ),
        )?;
        let bridge = Command::new(program)
            .arg("--config")
            .arg(root.join("bridge.toml"))
            .arg("run")
            .stdout(Stdio::null())
            .stderr(File::create(root.join("log"))?)
            .spawn()?;
        let mut daemon = Self {
            sandbox,
            bridge,
            directory,
            port: 0,
        };
        let end = Instant::now() + Duration::from_secs(10);
        while daemon.port == 0 {
            if Instant::now() > end {
                return Err(format!("the bridge does not start:\n{}", daemon.log()?).into());
            }
            std::thread::sleep(Duration::from_millis(20));
            let log = daemon.log()?;
            let address = log
                .lines()
                .filter(|_| log.contains(" ready"))
                .find_map(|line| line.split_once("address="));
            let port = address
                .and_then(|(_, rest)| rest.split_whitespace().next()?.rsplit(':').next()?.parse().ok());
            daemon.port = port.unwrap_or(0);
        }
        Ok(daemon)
    }

    /// Messages that it has relayed and forgotten.
    pub(crate) fn released(&self) -> Outcome<usize> {
        Ok(self.log()?.matches(" released id=").count())
    }

    fn log(&self) -> Outcome<String> {
        Ok(std::fs::read_to_string(self.directory.path().join("log"))?)
    }
}

/// What a configuration needs to know of a sandbox.
const FACTS: [&str; 7] = [
    "authority",
    "graph",
    "ca_file",
    "tenant",
    "client_id",
    "client_secret",
    "mailbox",
];

impl Drop for Daemon {
    fn drop(&mut self) {
        for child in [&mut self.bridge, &mut self.sandbox] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
