//! `run`: the bridge, alone or with the sandbox behind it.

use super::args::Run;
use super::exit::Failure;
use super::sandbox::Behind;
use super::{inherited, runtime, say, surroundings};
use crate::clock::Clock;
use crate::config::{Loaded, LogFormat};
use crate::daemon::{Daemon, Stop};
use crate::shutdown;
use crate::telemetry::log;
use std::path::Path;

/// Runs until a signal comes.
pub(super) fn run(config: Option<&Path>, args: &Run) -> Result<(), Failure> {
    if args.sandbox && config.is_some() {
        return Err(Failure::config(
            "--sandbox brings its own configuration: leave out --config",
        ));
    }
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let clock = Clock::machine();
        let stop = Stop::default();
        shutdown::on_signal(stop.soon.clone(), stop.now.clone()).map_err(Failure::system)?;
        if !args.sandbox {
            return bridge(&surroundings::load(config)?, clock, stop, |_| {}).await;
        }
        let behind = Behind::start(&args.places, Some(args.smtp), clock).await?;
        let loaded = behind.configuration(args.smtp)?;
        let bridged = bridge(&loaded, clock, stop, |daemon| say(&behind.welcome(daemon)))
            .await
            .map_err(|failure| failure.hint("with --sandbox, --smtp 127.0.0.1:0 takes any free port"));
        behind.stop().await;
        bridged
    });
    // What still blocks on a disk or a name server must not keep the process.
    runtime.shutdown_background();
    done
}

async fn bridge(
    loaded: &Loaded,
    clock: Clock,
    stop: Stop,
    ready: impl FnOnce(&Daemon),
) -> Result<(), Failure> {
    let config = &loaded.config;
    let format = match config.log.format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    log::init(format, config.log.level.as_str()).map_err(Failure::internal)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let inherited = inherited::sockets().map_err(Failure::system)?;
    // Blocks on the disk, before anything else runs.
    let daemon =
        tokio::task::block_in_place(|| Daemon::build(config, clock, inherited)).map_err(Failure::system)?;
    ready(&daemon);
    daemon.run(stop).await;
    Ok(())
}
