//! A server in a process of its own, and what it has used.

use crate::Outcome;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

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
