//! How fast the listener is and what it costs, beside mailin-embedded with the same work: see `benches/listener`. And how
//! fast messages are acknowledged and relayed, beside Postfix (`queue`): see `benches/queue`.
//!
//! The servers run in processes of their own (`serve KIND DIRECTORY THREADS`), so that their CPU and memory can be told
//! from the load's. The load is closed-loop: a session sends its next command when it has heard the last answer.
//!
//! For a look by hand, with a profiler beside it: `serve` prints its port, and `load PORT SESSIONS SECONDS` or
//! `burst PORT CONNECTIONS` keeps it busy.

mod expected;
mod load;
mod postfix;
mod process;
mod queue;
mod report;
mod servers;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// Anything that goes wrong ends the run: numbers of half a run mean nothing.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How long and how often.
struct Plan {
    /// Of one measurement of throughput.
    seconds: Duration,
    /// Measurements of each; the median is reported, with the lowest and the highest.
    rounds: usize,
    /// Where "disk" is.
    disk: PathBuf,
    /// The program itself, for what is measured of the whole of it.
    program: PathBuf,
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new()?;
    match words.as_slice() {
        ["serve", kind, directory, threads] => {
            servers::serve(&runtime, kind, directory.as_ref(), threads.parse()?)
        }
        ["load", port, sessions, seconds] => {
            let time = Duration::from_secs_f64(seconds.parse()?);
            let messages = runtime.block_on(load::throughput(port.parse()?, sessions.parse()?, time))?;
            println!("{:.0} messages a second", messages as f64 / time.as_secs_f64());
            Ok(())
        }
        ["burst", port, connections] => {
            let (greeted, time) = runtime.block_on(load::burst(port.parse()?, connections.parse()?));
            println!("{} greeted in {:.2} s", greeted.len(), time.as_secs_f64());
            Ok(())
        }
        ["queue", options @ ..] => runtime.block_on(queue::run(&plan(options)?)),
        options => runtime.block_on(report::run(&plan(options)?)),
    }
}

fn plan(mut options: &[&str]) -> Outcome<Plan> {
    let mut plan = Plan {
        seconds: Duration::from_secs(2),
        rounds: 3,
        disk: std::env::temp_dir(),
        program: PathBuf::from("target/release/smtp-oauth-bridge"),
    };
    while let [name, value, rest @ ..] = options {
        match *name {
            "--seconds" => plan.seconds = Duration::from_secs_f64(value.parse()?),
            "--rounds" => plan.rounds = value.parse::<usize>()?.max(1),
            "--disk" => plan.disk = value.into(),
            "--program" => plan.program = value.into(),
            _ => {
                return Err(
                    format!("{name}: only --seconds, --rounds, --disk and --program are known").into(),
                );
            }
        }
        options = rest;
    }
    match options {
        [] => Ok(plan),
        [name, ..] => Err(format!("{name} needs a value").into()),
    }
}
