//! Floor 8: the command line. The only room that reads the environment, and that writes to standard output.

mod archive;
mod args;
mod check;
mod exit;
mod inherited;
mod password;
mod queue;
mod reach;
mod run;
mod sandbox;
mod status;
mod surroundings;
mod table;
mod trace;
mod user;

use args::{Cli, Command};
use clap::Parser;
use exit::Failure;
use std::io::Write;
use std::process::ExitCode;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(args) => run::run(cli.config.as_deref(), &args),
        Command::Check => check::check(cli.config.as_deref()),
        Command::Sandbox(places) => sandbox::sandbox(&places),
        Command::Status { json } => status::status(cli.config.as_deref(), json),
        Command::Queue { command } => queue::queue(cli.config.as_deref(), command),
        Command::Pause { account } => status::pause(cli.config.as_deref(), account, true),
        Command::Resume { account } => status::pause(cli.config.as_deref(), account, false),
        Command::Trace(args) => trace::trace(cli.config.as_deref(), &args),
        Command::User { file, command } => user::user(cli.config.as_deref(), file, command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.was_told() {
                // If even standard error is closed, the exit code still tells.
                let _ = writeln!(std::io::stderr(), "{failure}");
            }
            failure.code()
        }
    }
}

/// Writes to standard output. A reader that has gone away is not an error of ours.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Writes a value to standard output as JSON, for programs.
fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    say(&serde_json::to_string_pretty(value).map_err(Failure::internal)?);
    Ok(())
}

/// Writes to standard error, where it is not taken for an answer.
fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A runtime for the commands that wait.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("the runtime cannot start: {error}")))
}
