//! Runs every file of `tests/dialogs` against the real listener and a real spool (README.md there has the format).

mod client;

use client::Client;
use smtp_oauth_bridge::clock::Clock;
use smtp_oauth_bridge::config::{Access, AuthMode, BareNewline, Bind, Listener, TlsMode};
use smtp_oauth_bridge::mail::{BodyType, QueueId, Recipient, Timestamp};
use smtp_oauth_bridge::smtp::{self, Premises, Services};
use smtp_oauth_bridge::spool::{Slots, Spool, SpoolSettings};
use smtp_oauth_bridge::telemetry::Maillog;
use smtp_oauth_bridge::users::{self, Logins, Senders};
use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A dialog that hangs for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Dialogs in which the client says no more than this are also run octet by octet.
const TRICKLE_LIMIT: usize = 4 * 1024;
const SPOOL_SIZE: u64 = 1 << 30;

#[derive(Debug)]
enum Directive {
    Set(String, String),
    Say(Vec<u8>),
    Hear(String),
    HearReply(String),
    Close,
    Reset,
    Closed,
    Alert,
    StartTls,
    RefuseTls,
    Stop,
}

#[derive(Debug, Default)]
struct Dialog {
    directives: Vec<(usize, Directive)>,
    queue: Vec<(String, Vec<u8>)>,
    log: Vec<String>,
    quiet: bool,
    in_one_piece: bool,
}

#[tokio::test]
async fn every_dialog_goes_as_written() {
    let mut files: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dialogs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap() != "README.md")
        .collect();
    files.sort();
    assert!(files.len() > 30);
    let mut shared = Shared::open();
    let mut failures = Vec::new();
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.ends_with(".txt"), "{name}: a dialog is a .txt file");
        if let Err(failure) = run_file(&path, &mut shared).await {
            failures.push(format!("{name}{failure}"));
        }
    }
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
}

#[test]
fn a_dialog_with_a_mistake_in_it_does_not_run() {
    for text in [
        "X: what",
        "c: MAIL",
        "set: colour red",
        "C: \\q",
        "| a body without a queue",
        "C* many x",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

async fn run_file(path: &Path, shared: &mut Shared) -> Result<(), String> {
    let dialog = parse(&std::fs::read_to_string(path).map_err(|e| format!(": {e}"))?)?;
    let said: usize = dialog
        .directives
        .iter()
        .map(|(_, d)| if let Directive::Say(s) = d { s.len() } else { 0 })
        .sum();
    run(&dialog, false, shared).await?;
    if said <= TRICKLE_LIMIT && !dialog.in_one_piece {
        run(&dialog, true, shared)
            .await
            .map_err(|failure| format!("{failure}\n  (octet by octet)"))?;
    }
    Ok(())
}

fn parse(text: &str) -> Result<Dialog, String> {
    let mut dialog = Dialog::default();
    let mut body_open = false;
    for (n, line) in text.lines().enumerate() {
        let n = n + 1;
        let fail = |what: &str| format!(":{n}: {what}: {line}");
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let is_body = line.starts_with('|');
        if is_body && !body_open {
            return Err(fail("a body belongs to a queue: line"));
        }
        body_open = is_body || line.starts_with("queue: ");
        let mut push = |directive| dialog.directives.push((n, directive));
        if let Some(rest) = line.strip_prefix("set: ") {
            let (key, value) = rest.split_once(' ').ok_or_else(|| fail("a value is missing"))?;
            if ![
                "max_message_size",
                "max_connections",
                "allow",
                "tls",
                "proxy_protocol",
                "unix",
                "messages_per_minute",
                "recipients_per_minute",
                "auth",
                "old_auth_line",
                "bare_newline",
                "greeting_delay",
                "user",
                "lenient",
                "spool_max_size",
                "spool_broken",
            ]
            .contains(&key)
            {
                return Err(fail("unknown setting"));
            }
            push(Directive::Set(key.into(), value.into()));
        } else if line == "C:" || line.starts_with("C: ") {
            let mut octets =
                unescape(line.get(3..).unwrap_or_default()).ok_or_else(|| fail("unknown escape"))?;
            octets.extend(b"\r\n");
            push(Directive::Say(octets));
        } else if let Some(rest) = line.strip_prefix("C> ") {
            push(Directive::Say(
                unescape(rest).ok_or_else(|| fail("unknown escape"))?,
            ));
        } else if let Some(rest) = line.strip_prefix("C* ") {
            push(Directive::Say(
                repeat(rest).ok_or_else(|| fail("not a number and a text"))?,
            ));
        } else if let Some(pattern) = line.strip_prefix("S: ") {
            push(Directive::Hear(pattern.into()));
        } else if let Some(pattern) = line.strip_prefix("S+ ") {
            push(Directive::HearReply(pattern.into()));
        } else if let Some(rest) = line.strip_prefix("S* ") {
            let (count, pattern) = rest
                .split_once(' ')
                .ok_or_else(|| fail("not a number and a pattern"))?;
            for _ in 0..count.parse::<usize>().map_err(|_| fail("not a number"))? {
                push(Directive::Hear(pattern.into()));
            }
        } else if let Some(rest) = line.strip_prefix("queue: ") {
            dialog.queue.push((rest.into(), Vec::new()));
        } else if is_body {
            let (_, body) = dialog.queue.last_mut().ok_or_else(|| fail("no queue: line"))?;
            let octets = match line.strip_prefix("|* ") {
                Some(rest) => repeat(rest).ok_or_else(|| fail("not a number and a text"))?,
                None => unescape(line[1..].strip_prefix(' ').unwrap_or_default())
                    .ok_or_else(|| fail("unknown escape"))?,
            };
            body.extend(octets);
            body.extend(b"\r\n");
        } else if let Some(pattern) = line.strip_prefix("log: ") {
            dialog.log.push(pattern.into());
        } else {
            match line {
                "C closes" => push(Directive::Close),
                "C resets" => push(Directive::Reset),
                "S closes" => push(Directive::Closed),
                "S closes with a TLS alert" => push(Directive::Alert),
                "C starts TLS" => push(Directive::StartTls),
                "C refuses the certificate" => push(Directive::RefuseTls),
                "the log is quiet" => dialog.quiet = true,
                "in one piece only" => dialog.in_one_piece = true,
                "the daemon stops" => push(Directive::Stop),
                _ => return Err(fail("unknown directive")),
            }
        }
    }
    Ok(dialog)
}

/// `COUNT TEXT`, where `%n` in the text is the number of the copy, from 1.
fn repeat(rest: &str) -> Option<Vec<u8>> {
    let (count, text) = rest.split_once(' ')?;
    let mut octets = Vec::new();
    for n in 1..=count.parse::<usize>().ok()? {
        octets.extend(unescape(&text.replace("%n", &n.to_string()))?);
    }
    Some(octets)
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            octets.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        octets.push(match chars.next()? {
            'r' => b'\r',
            'n' => b'\n',
            't' => b'\t',
            's' => b' ',
            '\\' => b'\\',
            'x' => u8::from_str_radix(&format!("{}{}", chars.next()?, chars.next()?), 16).ok()?,
            _ => return None,
        });
    }
    Some(octets)
}

async fn run(dialog: &Dialog, trickle: bool, shared: &mut Shared) -> Result<(), String> {
    let mut listener = Listener {
        name: "test".into(),
        bind: vec![Bind::Address("127.0.0.1:0".parse().unwrap())],
        unix_mode: 0o666,
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        proxy_protocol: Vec::new(),
        tls: TlsMode::Off,
        certificate: None,
        max_message_size: 1_000_000,
        lenient: true,
        max_connections: 10,
        access: Access::default(),
    };
    let home = tempfile::tempdir().unwrap();
    let (mut max_size, mut broken, mut people) = (SPOOL_SIZE, false, String::new());
    for (n, directive) in &dialog.directives {
        let Directive::Set(key, value) = directive else {
            continue;
        };
        let number = || value.parse::<u64>().map_err(|e| format!(":{n}: {e}"));
        match key.as_str() {
            "max_message_size" => listener.max_message_size = number()?,
            "max_connections" => listener.max_connections = number()? as usize,
            "lenient" => listener.lenient = value == "yes",
            "spool_max_size" => max_size = number()?,
            "messages_per_minute" => listener.access.messages_per_minute = number()? as u32,
            "recipients_per_minute" => listener.access.recipients_per_minute = number()? as u32,
            "auth" => {
                listener.access.auth = match value.as_str() {
                    "optional" => AuthMode::Optional,
                    "required" => AuthMode::Required,
                    "any" => AuthMode::Any,
                    _ => return Err(format!(":{n}: not a kind of auth")),
                };
            }
            "old_auth_line" => listener.access.old_auth_line = true,
            "bare_newline" => {
                listener.access.bare_newline = match value.as_str() {
                    "reject" => BareNewline::Reject,
                    _ => return Err(format!(":{n}: not what becomes of line ends")),
                };
            }
            "greeting_delay" => listener.access.greeting_delay = Duration::from_millis(number()?),
            "user" => {
                let mut words = value.split(' ');
                let (Some(name), Some(password)) = (words.next(), words.next()) else {
                    return Err(format!(":{n}: a password is missing"));
                };
                let hash = users::hash(password.as_bytes()).map_err(|e| format!(":{n}: {e}"))?;
                let senders: Vec<String> = words.map(str::to_owned).collect();
                let senders = Senders::new(&senders).map_err(|e| format!(":{n}: {e}"))?;
                people = users::add(&people, name, &hash, &senders);
            }
            "tls" => {
                listener.tls = match value.as_str() {
                    "starttls" => TlsMode::StartTls,
                    "implicit" => TlsMode::Implicit,
                    _ => return Err(format!(":{n}: not a kind of TLS")),
                };
            }
            "proxy_protocol" => {
                listener.proxy_protocol = vec![value.parse().map_err(|e| format!(":{n}: {e}"))?];
            }
            "unix" => listener.bind = vec![Bind::Unix(home.path().join("socket"))],
            "allow" => listener.allow = vec![value.parse().map_err(|e| format!(":{n}: {e}"))?],
            _ => broken = true,
        }
    }
    // Opening a spool takes its time: only dialogs that are hard on it get one of their own.
    let mut own;
    let shared = if broken || max_size != SPOOL_SIZE {
        own = Shared::with(max_size);
        &mut own
    } else {
        shared
    };
    if broken {
        // Larger messages cannot be written now.
        std::fs::remove_dir_all(shared.directory.path().join("body")).unwrap();
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);

    let users_file = home.path().join("users");
    if !people.is_empty() {
        users::edit::<users::UsersError>(&users_file, |_| Ok(people)).unwrap();
    }
    let mut premises = Premises::new(
        "bridge.test".into(),
        shared.directory.path().into(),
        Clock::machine(),
        Vec::new(),
    );
    let bound = smtp::bind(&listener, &mut premises).map_err(|e| format!(": {e}"))?;
    let place = bound[0].place().clone();
    let stop = CancellationToken::new();
    let services = Services {
        hostname: "bridge.test".into(),
        intake: shared.spool.intake(),
        logins: Logins::new(users_file),
        capacity: smtp::Capacity::new(100),
        maillog: Maillog,
    };
    let server = tokio::spawn(smtp::serve(bound, services, stop.clone()));
    let outcome = async {
        let certificate = shared.directory.path().join("tls/certificate.pem");
        let mut client = Client::connect(&place, certificate, trickle, stop.clone()).await;
        for (n, directive) in &dialog.directives {
            client
                .perform(directive)
                .await
                .map_err(|e| format!(":{n}: {e}"))?;
        }
        client.end().await.map_err(|e| format!(", at the end: {e}"))
    };
    let outcome = tokio::time::timeout(PATIENCE, outcome)
        .await
        .unwrap_or_else(|_| Err(": it hangs".into()));
    stop.cancel();
    tokio::time::timeout(PATIENCE, server)
        .await
        .expect("the listener stops")
        .unwrap();
    drop(guard);
    outcome?;

    let mut queue = shared.news().await;
    for (head, body) in &dialog.queue {
        let Some(at) = queue.iter().position(|(h, b)| matches(head, h) && b == body) else {
            return Err(format!(
                ": this message is not in the queue: {head}\n{}but:\n{}",
                shown(body),
                queue
                    .iter()
                    .map(|(h, b)| format!("{h}\n{}", shown(b)))
                    .collect::<String>()
            ));
        };
        queue.remove(at);
    }
    if let Some((head, body)) = queue.first() {
        return Err(format!(
            ": the queue has another message: {head}\n{}",
            shown(body)
        ));
    }
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    if let Some(pattern) = dialog
        .log
        .iter()
        .find(|p| !log.lines().any(|line| matches(&format!("*{p}*"), line)))
    {
        return Err(format!(": nothing in the log is like {pattern}:\n{log}"));
    }
    for (n, directive) in &dialog.directives {
        if let Directive::Set(key, value) = directive
            && key == "user"
            && let Some(password) = value.split(' ').nth(1).filter(|password| password.len() > 4)
            && log.contains(password)
        {
            return Err(format!(":{n}: the password is in the log:\n{log}"));
        }
    }
    if dialog.quiet && (log.contains("WARN") || log.contains("ERROR")) {
        return Err(format!(": the log is not quiet:\n{log}"));
    }
    if log.matches(" accepted ").count() != dialog.queue.len() {
        return Err(format!(": not one `accepted` for each message:\n{log}"));
    }
    Ok(())
}

/// A spool that serves many dialogs.
struct Shared {
    directory: tempfile::TempDir,
    spool: Spool,
    seen: HashSet<QueueId>,
}

impl Shared {
    fn open() -> Self {
        Self::with(SPOOL_SIZE)
    }

    fn with(max_size: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = SpoolSettings {
            directory: directory.path().to_owned(),
            max_size,
            min_free: 0,
        };
        let spool = Spool::open(&settings, Clock::machine()).unwrap();
        Self {
            directory,
            spool,
            seen: HashSet::new(),
        }
    }

    /// All messages that came since the last call: `<from> -> <to>,<to>` with what was asked for besides; and the body.
    async fn news(&mut self) -> Vec<(String, Vec<u8>)> {
        let store = self.spool.store();
        let now = Timestamp::from_millis(0);
        let agenda = store.agenda(now, 10_000, |_| Slots::None).await.unwrap();
        let mut messages = Vec::new();
        for id in agenda.unplanned {
            if !self.seen.insert(id) {
                continue;
            }
            let (message, body) = store.message(id).await.unwrap();
            let envelope = &message.envelope;
            let to: Vec<String> = envelope.recipients().iter().map(written).collect();
            let mut head = format!("{} -> {}", envelope.reverse_path(), to.join(","));
            if envelope.body_type() == BodyType::EightBitMime {
                head.push_str(" 8BITMIME");
            }
            if envelope.smtputf8() {
                head.push_str(" SMTPUTF8");
            }
            if let Some(ret) = envelope.ret() {
                head.push_str(&format!(" RET={ret}"));
            }
            if let Some(id) = envelope.envelope_id() {
                head.push_str(&format!(" ENVID={id}"));
            }
            let mut octets = Vec::new();
            let mut pieces = body.pieces(0).unwrap();
            while let Some(piece) = pieces.next_piece().unwrap() {
                octets.extend(piece);
            }
            messages.push((head, octets));
        }
        messages
    }
}

/// A recipient as a dialog has it.
fn written(recipient: &Recipient) -> String {
    let mut text = format!("<{}>", recipient.address);
    if let Some(notify) = recipient.notify {
        text.push_str(&format!(" NOTIFY={notify}"));
    }
    if let Some(original) = &recipient.original {
        text.push_str(&format!(" ORCPT={original}"));
    }
    text
}

fn like(pattern: &str, heard: &str) -> Result<(), String> {
    if matches(pattern, heard) {
        Ok(())
    } else {
        Err(format!("expected {pattern}\n  heard {heard:?}"))
    }
}

/// True if `text` is like `pattern`, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|tail| {
            (0..=tail.len()).any(|at| tail.is_char_boundary(at) && matches(rest, &tail[at..]))
        }),
    }
}

fn shown(body: &[u8]) -> String {
    let lines = body.split_inclusive(|&b| b == b'\n').take(20);
    lines.map(|line| format!("| {}\n", line.escape_ascii())).collect()
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
