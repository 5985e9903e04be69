//! What is measured, and the document that says so.

use crate::expected::Expected;
use crate::process::Server;
use crate::{Outcome, Plan, load};
use std::path::Path;
use std::time::Duration;

/// Kind, where its files are, and what it is called.
const SERVERS: [(&str, Disk, &str); 6] = [
    ("bridge-nothing", Disk::Memory, "bridge, nothing stored"),
    ("mailin", Disk::Memory, "mailin-embedded, nothing stored"),
    ("bridge", Disk::Memory, "bridge, spool in memory"),
    ("mailin-file", Disk::Memory, "mailin-embedded, files in memory"),
    ("bridge", Disk::Real, "**bridge, durable**"),
    ("mailin-file", Disk::Real, "mailin-embedded, file + fsync"),
];
const SESSIONS: [usize; 4] = [1, 16, 64, 256];
const BURST: usize = 5000;
const IDLE: usize = 5000;
const SLOW: usize = 500;
/// Threads for mailin-embedded, which needs one for each connection: enough for everything here.
const THREADS: usize = IDLE + SLOW + 300;

#[derive(Clone, Copy, PartialEq)]
enum Disk {
    Memory,
    Real,
}

impl Plan {
    /// A directory of its own, which goes with everything in it.
    fn directory(&self, disk: Disk) -> Outcome<tempfile::TempDir> {
        let parent = match disk {
            Disk::Memory => Path::new("/dev/shm"),
            Disk::Real => &self.disk,
        };
        Ok(tempfile::Builder::new()
            .prefix("bridge-bench-")
            .tempdir_in(parent)?)
    }
}

pub(crate) async fn run(plan: &Plan) -> Outcome<()> {
    let mut expected = Expected::default();
    throughput(plan, &mut expected).await?;
    bursts(plan, &mut expected).await?;
    memory(plan, &mut expected).await?;
    siege(plan, &mut expected).await?;
    println!("{expected}");
    Ok(())
}

async fn throughput(plan: &Plan, expected: &mut Expected) -> Outcome<()> {
    println!("## Messages a second\n");
    println!(
        "Median of {} rounds of {:.1} s (lowest to highest); then CPU of the server a message, user and system, in \
         microseconds (median).\n",
        plan.rounds,
        plan.seconds.as_secs_f64()
    );
    println!("| | 1 session | 16 | 64 | 256 | CPU at 1 | 16 | 64 | 256 |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    // All servers in each round, so that a busy moment of the machine hits all of them.
    let mut rates = vec![vec![Vec::new(); SESSIONS.len()]; SERVERS.len()];
    let mut costs = rates.clone();
    for round in 0..plan.rounds {
        for (at, &sessions) in SESSIONS.iter().enumerate() {
            for (number, &(kind, disk, name)) in SERVERS.iter().enumerate() {
                eprintln!("round {}: {sessions} sessions, {name}", round + 1);
                let directory = plan.directory(disk)?;
                let server = Server::start(kind, directory.path(), sessions + 4)?;
                load::throughput(server.port, sessions, plan.seconds / 4).await?;
                let before = server.cpu()?;
                let messages = load::throughput(server.port, sessions, plan.seconds)
                    .await?
                    .max(1) as f64;
                let cpu = server.cpu()?.saturating_sub(before);
                let cells = (rates.get_mut(number).zip(costs.get_mut(number)))
                    .and_then(|(rates, costs)| rates.get_mut(at).zip(costs.get_mut(at)));
                if let Some((rates, costs)) = cells {
                    rates.push(messages / plan.seconds.as_secs_f64());
                    costs.push(cpu.as_secs_f64() * 1e6 / messages);
                }
            }
        }
    }
    // The rows and columns are those of SERVERS and SESSIONS.
    let of = |table: &[Vec<Vec<f64>>], server: usize, at: usize| {
        let values = table.get(server).and_then(|row| row.get(at)).cloned();
        middle(values.unwrap_or_default())
    };
    expected.at_least(
        "nothing stored, 16 sessions: our rate to that of mailin-embedded",
        of(&rates, 0, 1) / of(&rates, 1, 1),
        1.0,
    );
    expected.at_most(
        "nothing stored, 16 sessions: our CPU a message to that of mailin-embedded",
        of(&costs, 0, 1) / of(&costs, 1, 1),
        0.9,
    );
    expected.at_least(
        "durable, 64 sessions: our rate to that of mailin-embedded with a file and a sync a message",
        of(&rates, 4, 2) / of(&rates, 5, 2),
        2.0,
    );
    for ((_, _, name), (rates, costs)) in SERVERS.iter().zip(rates.into_iter().zip(costs)) {
        let rates = rates.into_iter().map(spread);
        let costs = costs.into_iter().map(|values| format!("{:.0}", middle(values)));
        println!(
            "| {name} | {} |",
            rates.chain(costs).collect::<Vec<_>>().join(" | ")
        );
    }
    println!();
    Ok(())
}

async fn bursts(plan: &Plan, expected: &mut Expected) -> Outcome<()> {
    println!("## {BURST} connects at once\n");
    println!(
        "Until the last one has heard its greeting, {} rounds.\n",
        plan.rounds
    );
    println!("| | seconds | greeted at least |\n|---|--:|--:|");
    for (kind, name, threads) in [
        ("bridge", "bridge", 0),
        ("mailin", "mailin-embedded, a thread for each", THREADS),
    ] {
        let (mut seconds, mut least) = (Vec::new(), usize::MAX);
        for _ in 0..plan.rounds {
            eprintln!("{BURST} connects: {name}");
            let directory = plan.directory(Disk::Memory)?;
            let server = Server::start(kind, directory.path(), threads)?;
            let (clients, time) = load::burst(server.port, BURST).await;
            seconds.push(time.as_secs_f64());
            least = least.min(clients.len());
        }
        let low = seconds.iter().copied().fold(f64::MAX, f64::min);
        let high = seconds.iter().copied().fold(0.0, f64::max);
        if kind == "bridge" {
            let longest = if least < BURST { f64::INFINITY } else { high };
            expected.at_most("5,000 connects at once: seconds, the longest round", longest, 1.0);
        }
        println!(
            "| {name} | {:.2} ({low:.2} to {high:.2}) | {least} |",
            middle(seconds)
        );
    }
    println!();
    Ok(())
}

async fn memory(plan: &Plan, expected: &mut Expected) -> Outcome<()> {
    println!("## Memory of idle connections\n");
    println!(
        "Anonymous resident memory (RssAnon) of the server with so many connections that have heard their greeting.\n"
    );
    println!("| | none | 1,000 | 5,000 | KiB a connection, of 1,000 | of 5,000 |\n|---|--:|--:|--:|--:|--:|");
    for (kind, name, threads) in [
        ("bridge", "bridge", 0),
        ("bridge-tls", "bridge, TLS 1.3", 0),
        ("mailin", "mailin-embedded, a thread for each", THREADS),
    ] {
        eprintln!("memory: {name}");
        let mut filled = Vec::new();
        let mut none = Vec::new();
        for connections in [1000, 5000] {
            let directory = plan.directory(Disk::Memory)?;
            let server = Server::start(kind, directory.path(), threads)?;
            let before = server.memory()?;
            let after = if kind == "bridge-tls" {
                let certificate = directory.path().join("tls/certificate.pem");
                let clients = load::encrypted(server.port, connections, &certificate).await?;
                let after = server.memory()?;
                drop(clients);
                after
            } else {
                let mut clients = Vec::new();
                while clients.len() < connections {
                    // Not more at once than the queue of mailin-embedded's socket holds.
                    let few = (connections - clients.len()).min(50);
                    let (greeted, _) = load::burst(server.port, few).await;
                    if greeted.len() < few {
                        return Err(format!("{name}: greets no more than {}", clients.len()).into());
                    }
                    clients.extend(greeted);
                }
                server.memory()?
            };
            none.push(before);
            filled.push((after, (after - before) / connections as f64));
        }
        let most = filled.iter().map(|(_, each)| *each).fold(0.0, f64::max);
        match kind {
            "bridge" => expected.at_most("an idle connection: KiB", most, 8.0),
            "bridge-tls" => expected.at_most("an idle connection with TLS: KiB", most, 16.0),
            _ => {}
        }
        let mib = |kib: f64| format!("{:.1} MiB", kib / 1024.0);
        let total: Vec<String> = filled.iter().map(|(after, _)| mib(*after)).collect();
        let each: Vec<String> = filled.iter().map(|(_, each)| format!("{each:.1}")).collect();
        println!(
            "| {name} | {} | {} | {} |",
            mib(middle(none)),
            total.join(" | "),
            each.join(" | ")
        );
    }
    println!();
    Ok(())
}

async fn siege(plan: &Plan, expected: &mut Expected) -> Outcome<()> {
    println!("## A well-behaved client among {IDLE} idle ones and {SLOW} that send an octet a second\n");
    println!(
        "Whole transactions one after the other, from connecting to the answer to QUIT, in milliseconds; {:.0} s each.\n",
        plan.seconds.as_secs_f64() * 2.0
    );
    println!(
        "| | transactions | median | p99 | longest | alone: median | p99 |\n|---|--:|--:|--:|--:|--:|--:|"
    );
    for (kind, disk, name, threads) in [
        ("bridge-nothing", Disk::Memory, "bridge, nothing stored", 0),
        ("bridge", Disk::Memory, "bridge, spool in memory", 0),
        ("bridge", Disk::Real, "bridge, durable", 0),
        (
            "mailin",
            Disk::Memory,
            "mailin-embedded, 4 threads (its default)",
            4,
        ),
        (
            "mailin",
            Disk::Memory,
            "mailin-embedded, a thread for each",
            THREADS,
        ),
    ] {
        eprintln!("siege: {name}");
        let directory = plan.directory(disk)?;
        let server = Server::start(kind, directory.path(), threads)?;
        let alone = load::transactions(server.port, plan.seconds).await;
        let (idle, _) = load::burst(server.port, IDLE).await;
        let slow = load::slow(server.port, SLOW).await;
        let taken = load::transactions(server.port, plan.seconds * 2).await;
        let mut besieged = format!("{}", taken.iter().filter(|time| **time != Duration::MAX).count());
        if idle.len() < IDLE {
            besieged += &format!(" (of the idle only {} were greeted)", idle.len());
        }
        if kind == "bridge-nothing" {
            let p99 = at_quantile(&taken, 0.99).map_or(f64::INFINITY, |time| time.as_secs_f64() * 1e3);
            expected.at_most(
                "a client among idle and slow ones: p99 in milliseconds",
                p99,
                50.0,
            );
        }
        println!(
            "| {name} | {besieged} | {} | {} | {} | {} | {} |",
            quantile(&taken, 0.5),
            quantile(&taken, 0.99),
            quantile(&taken, 1.0),
            quantile(&alone, 0.5),
            quantile(&alone, 0.99)
        );
        drop((idle, slow));
    }
    Ok(())
}

/// The value that so much of a sorted list lies below, in milliseconds.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> String {
    match at_quantile(sorted, share) {
        Some(time) => format!("{:.2}", time.as_secs_f64() * 1e3),
        None => format!("no answer in {} s", load::PATIENCE.as_secs()),
    }
}

fn at_quantile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().filter(|time| *time != Duration::MAX)
}

/// The median: of an even number of values what lies between the two in the middle.
pub(crate) fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or_default();
    let lower = values.get(values.len().saturating_sub(1) / 2).copied();
    (upper + lower.unwrap_or_default()) / 2.0
}

fn spread(values: Vec<f64>) -> String {
    let low = values.iter().copied().fold(f64::MAX, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    format!("{:.0} ({low:.0}–{high:.0})", middle(values))
}
