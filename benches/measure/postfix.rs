//! A Postfix of its own, with Debian's defaults for durability, and the sink that it relays to.

use crate::Outcome;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// It stops when this is dropped.
pub(crate) struct Postfix {
    directory: tempfile::TempDir,
    pub(crate) port: u16,
}

/// What Postfix does with a message that it has accepted.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Then {
    /// It goes to the hold queue: nothing reads it any more.
    Hold,
    /// It is relayed to this port.
    Relay(u16),
}

impl Postfix {
    /// Starts an instance whose queue is in `parent`. Needs root and an installed Postfix.
    pub(crate) fn start(parent: &Path, then: Then) -> Outcome<Self> {
        let directory = tempfile::Builder::new()
            .prefix("bench-postfix-")
            .tempdir_in(parent)?;
        let root = directory.path();
        for name in ["etc", "queue", "data"] {
            std::fs::create_dir(root.join(name))?;
        }
        run(Command::new("chmod").arg("0755").arg(root))?;
        let daemons = output(Command::new("postconf").args(["-d", "-h", "daemon_directory"]))?;
        let port = free_port()?;
        let (next, holds) = match then {
            Then::Hold => ("smtpd_client_restrictions = static:HOLD", 1),
            Then::Relay(_) => ("", 0),
        };
        let sink = if let Then::Relay(sink) = then { sink } else { 9 };
        let root_text = root.display();
        std::fs::write(
            root.join("etc/main.cf"),
            format!(
                "compatibility_level = 3.6\nqueue_directory = {root_text}/queue\ndata_directory = {root_text}/data\n\
                 daemon_directory = {daemons}\nmaillog_file = {root_text}/log\nmaillog_file_prefixes = {root_text}\n\
                 myhostname = bench.test\nmydestination =\nlocal_recipient_maps =\nalias_maps =\nalias_database =\n\
                 mynetworks = 127.0.0.0/8\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
                 relayhost = [127.0.0.1]:{sink}\ndefault_process_limit = 600\nsmtpd_client_connection_count_limit = 0\n\
                 smtpd_client_connection_rate_limit = 0\nmessage_size_limit = 104857600\nmailbox_size_limit = 0\n\
                 smtputf8_enable = no\ncompatibility_level = 3.6\n# held: {holds}\n{next}\n"
            ),
        )?;
        std::fs::write(root.join("etc/master.cf"), master(port))?;
        run(Command::new("chown")
            .args(["-R", "root"])
            .arg(root.join("etc"))
            .arg(root.join("queue")))?;
        run(Command::new("chown").arg("postfix").arg(root.join("data")))?;
        let postfix = Self { directory, port };
        postfix.control("start")?;
        let end = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > end {
                return Err("Postfix does not listen: see its log".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(postfix)
    }

    /// Messages in its queue that are not held.
    pub(crate) fn waiting(&self) -> Outcome<usize> {
        let mut files = 0;
        for name in ["incoming", "active", "deferred"] {
            files += count(&self.directory.path().join("queue").join(name))?;
        }
        Ok(files)
    }

    fn control(&self, what: &str) -> Outcome<()> {
        run(Command::new("postfix")
            .arg("-c")
            .arg(self.directory.path().join("etc"))
            .arg(what))
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = self.control("stop");
    }
}

/// `smtp-sink` of Postfix: takes everything and keeps nothing.
pub(crate) struct Sink {
    child: Child,
    pub(crate) port: u16,
}

impl Sink {
    pub(crate) fn start() -> Outcome<Self> {
        let port = free_port()?;
        let child = Command::new("smtp-sink")
            .arg(format!("127.0.0.1:{port}"))
            .arg("1000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("smtp-sink (package postfix): {error}"))?;
        Ok(Self { child, port })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn master(port: u16) -> String {
    const SERVICES: &[(&str, &str, &str)] = &[
        ("pickup", "unix", "pickup"),
        ("cleanup", "unix", "cleanup"),
        ("qmgr", "unix", "qmgr"),
        ("rewrite", "unix", "trivial-rewrite"),
        ("bounce", "unix", "bounce"),
        ("defer", "unix", "bounce"),
        ("trace", "unix", "bounce"),
        ("verify", "unix", "verify"),
        ("flush", "unix", "flush"),
        ("proxymap", "unix", "proxymap"),
        ("smtp", "unix", "smtp"),
        ("relay", "unix", "smtp"),
        ("showq", "unix", "showq"),
        ("error", "unix", "error"),
        ("retry", "unix", "error"),
        ("discard", "unix", "discard"),
        ("anvil", "unix", "anvil"),
        ("scache", "unix", "scache"),
        ("tlsmgr", "unix", "tlsmgr"),
        ("postlog", "unix-dgram", "postlogd"),
    ];
    let mut text = format!("127.0.0.1:{port} inet n - n - - smtpd\n");
    for (name, kind, program) in SERVICES {
        // As in Debian's master.cf: one queue manager, woken by a timer; the others as many as there is work.
        let (wakeup, limit) = match *name {
            "pickup" => ("60", "1"),
            "qmgr" => ("300", "1"),
            "cleanup" => ("-", "0"),
            "postlog" | "anvil" | "scache" | "verify" => ("-", "1"),
            _ => ("-", "-"),
        };
        let private = if matches!(*name, "pickup" | "cleanup" | "qmgr" | "showq" | "postlog") {
            "n"
        } else {
            "-"
        };
        text += &format!("{name} {kind} {private} - n {wakeup} {limit} {program}\n");
    }
    text
}

fn count(directory: &Path) -> Outcome<usize> {
    let mut files = 0;
    if let Ok(entries) = std::fs::read_dir(directory) {
        for entry in entries {
            let entry = entry?;
            files += if entry.file_type()?.is_dir() {
                count(&entry.path())?
            } else {
                1
            };
        }
    }
    Ok(files)
}

/// A port that was free a moment ago.
fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn run(command: &mut Command) -> Outcome<()> {
    let done = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr)).into())
}

fn output(command: &mut Command) -> Outcome<String> {
    let done = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}
