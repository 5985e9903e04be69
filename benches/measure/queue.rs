//! How fast messages are acknowledged, with delivery held and while relaying, beside Postfix and beside what the machine
//! can do at all: see `benches/queue`.

use crate::postfix::{Postfix, Sink, Then};
use crate::process::{Daemon, Server};
use crate::report::{middle, quantile};
use crate::{Outcome, Plan, load};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

const SIZES: [(usize, &str); 3] = [
    (4096, "4 KiB"),
    (100 * 1024, "100 KiB"),
    (5 * 1024 * 1024, "5 MiB"),
];
const SESSIONS: [usize; 4] = [1, 16, 64, 256];

/// What is measured with delivery held.
#[derive(Clone, Copy, PartialEq)]
enum Held {
    Bridge,
    Postfix,
    Append,
    Loopback,
}

const HELD: [(Held, &str); 4] = [
    (Held::Bridge, "**bridge**"),
    (Held::Postfix, "Postfix"),
    (Held::Append, "limit: append + fsync"),
    (Held::Loopback, "limit: SMTP, nothing stored"),
];

/// What one measurement found.
struct Found {
    rate: f64,
    /// From the final dot to 250; sorted. Empty where there is no SMTP.
    waits: Vec<Duration>,
}

pub(crate) async fn run(plan: &Plan) -> Outcome<()> {
    held(plan).await?;
    relaying(plan).await
}

async fn held(plan: &Plan) -> Outcome<()> {
    for (size, name) in SIZES {
        println!("## {name}, delivery held\n");
        println!(
            "Acknowledged messages a second, median of {} rounds of {:.1} s; then the time from the final dot to 250 in \
             milliseconds, p50 / p99 of all rounds.\n",
            plan.rounds,
            plan.seconds.as_secs_f64()
        );
        println!(
            "| | 1 session | 16 | 64 | 256 | dot to 250 at 1 | 16 | 64 | 256 |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|"
        );
        let mut found: Vec<Vec<Vec<Found>>> = HELD
            .iter()
            .map(|_| SESSIONS.iter().map(|_| Vec::new()).collect())
            .collect();
        for round in 0..plan.rounds {
            for (at, &sessions) in SESSIONS.iter().enumerate() {
                for (number, &(what, title)) in HELD.iter().enumerate() {
                    eprintln!("{name}, round {}: {sessions} sessions, {title}", round + 1);
                    let one = hold(plan, what, sessions, size).await?;
                    if let Some(cell) = found.get_mut(number).and_then(|row| row.get_mut(at)) {
                        cell.push(one);
                    }
                }
            }
        }
        table(&found);
    }
    Ok(())
}

fn table(found: &[Vec<Vec<Found>>]) {
    let mut rates = Vec::new();
    for ((_, title), row) in HELD.iter().zip(found) {
        let medians: Vec<f64> = row
            .iter()
            .map(|cell| middle(cell.iter().map(|one| one.rate).collect()))
            .collect();
        let mut cells: Vec<String> = medians.iter().map(|rate| format!("{rate:.0}")).collect();
        for cell in row {
            let mut waits: Vec<Duration> = cell.iter().flat_map(|one| one.waits.iter().copied()).collect();
            waits.sort();
            cells.push(if waits.is_empty() {
                "–".to_owned()
            } else {
                format!("{} / {}", quantile(&waits, 0.5), quantile(&waits, 0.99))
            });
        }
        println!("| {title} | {} |", cells.join(" | "));
        rates.push(medians);
    }
    if let [bridge, postfix, ..] = rates.as_slice() {
        let times: Vec<String> = bridge
            .iter()
            .zip(postfix)
            .map(|(b, p)| format!("{:.1} ×", b / p.max(0.001)))
            .collect();
        println!("| bridge to Postfix | {} | | | | |", times.join(" | "));
    }
    println!();
}

async fn hold(plan: &Plan, what: Held, sessions: usize, size: usize) -> Outcome<Found> {
    let directory = tempfile::Builder::new()
        .prefix("bridge-bench-")
        .tempdir_in(&plan.disk)?;
    let (server, postfix);
    let port = match what {
        Held::Append => return append(directory.path(), sessions, size, plan.seconds),
        Held::Bridge | Held::Loopback => {
            let kind = if what == Held::Bridge { "bridge" } else { "session" };
            server = Server::start(kind, directory.path(), 0)?;
            server.port
        }
        Held::Postfix => {
            postfix = Postfix::start(&plan.disk, Then::Hold)?;
            postfix.port
        }
    };
    load::acknowledged(port, sessions, size, plan.seconds / 4).await?;
    let waits = load::acknowledged(port, sessions, size, plan.seconds).await?;
    Ok(Found {
        rate: waits.len() as f64 / plan.seconds.as_secs_f64(),
        waits,
    })
}

/// So many threads, each appending to a file of its own and syncing it.
fn append(directory: &Path, threads: usize, size: usize, time: Duration) -> Outcome<Found> {
    let end = Instant::now() + time;
    let mut workers = Vec::new();
    for number in 0..threads {
        let mut file = File::create(directory.join(number.to_string()))?;
        workers.push(std::thread::spawn(move || {
            let (bytes, mut count) = (vec![b'x'; size], 0u64);
            while Instant::now() < end {
                file.write_all(&bytes)?;
                file.sync_all()?;
                count += 1;
            }
            Ok::<_, std::io::Error>(count)
        }));
    }
    let mut count = 0;
    for worker in workers {
        count += worker.join().map_err(|_| "a thread panicked")??;
    }
    Ok(Found {
        rate: count as f64 / time.as_secs_f64(),
        waits: Vec::new(),
    })
}

async fn relaying(plan: &Plan) -> Outcome<()> {
    println!("## 4 KiB, while relaying\n");
    println!(
        "Acknowledged messages a second for {:.1} s, while what was accepted is relayed at the same time; then the messages \
         relayed a second until the queue was empty.\n",
        plan.seconds.as_secs_f64()
    );
    println!(
        "| | 1 session | 16 | 64 | 256 | relayed at 1 | 16 | 64 | 256 |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for (bridge, title) in [
        (true, "**bridge**, to its sandbox (Graph, TLS)"),
        (false, "Postfix, to smtp-sink (SMTP)"),
    ] {
        let (mut rates, mut relayed) = (Vec::new(), Vec::new());
        for sessions in SESSIONS {
            eprintln!("relaying: {sessions} sessions, {title}");
            let (rate, through) = relay(plan, bridge, sessions).await?;
            rates.push(format!("{rate:.0}"));
            relayed.push(format!("{through:.0}"));
        }
        println!("| {title} | {} | {} |", rates.join(" | "), relayed.join(" | "));
    }
    println!();
    Ok(())
}

async fn relay(plan: &Plan, bridge: bool, sessions: usize) -> Outcome<(f64, f64)> {
    let (daemon, postfix, sink);
    let (port, waiting): (u16, Box<dyn Fn(usize) -> Outcome<usize>>) = if bridge {
        daemon = Daemon::start(&plan.program, &plan.disk)?;
        (
            daemon.port,
            Box::new(|accepted| Ok(accepted.saturating_sub(daemon.released()?))),
        )
    } else {
        sink = Sink::start()?;
        postfix = Postfix::start(&plan.disk, Then::Relay(sink.port))?;
        (postfix.port, Box::new(|_| postfix.waiting()))
    };
    let start = Instant::now();
    let accepted = load::acknowledged(port, sessions, 4096, plan.seconds)
        .await?
        .len();
    let rate = accepted as f64 / plan.seconds.as_secs_f64();
    let end = Instant::now() + Duration::from_secs(120);
    while waiting(accepted)? > 0 {
        if Instant::now() > end {
            return Err("the queue is not empty after two minutes".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok((rate, accepted as f64 / start.elapsed().as_secs_f64()))
}
