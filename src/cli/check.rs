//! `check`: the configuration alone, offline.

use super::exit::Failure;
use super::{say, surroundings};
use crate::clock::Clock;
use crate::smtp;
use crate::spool;
use std::path::Path;

/// Says everything that is wrong with the configuration, or that nothing is.
pub(super) fn check(config: Option<&Path>) -> Result<(), Failure> {
    let loaded = surroundings::load(config)?;
    for warning in &loaded.warnings {
        say(&format!("warning: {warning}"));
    }
    let certificates = smtp::check_certificates(&loaded.config.listeners, Clock::machine().now());
    for warning in certificates.map_err(Failure::config)? {
        say(&format!("warning: {warning}"));
    }
    if let Some(kind) = spool::network_file_system(&loaded.config.state_dir) {
        return Err(Failure::config(format!(
            "state_dir {} is on a network file system ({kind}), where mail is not safe: choose a directory on a local disk",
            loaded.config.state_dir.display()
        )));
    }
    say("the configuration is good");
    Ok(())
}
