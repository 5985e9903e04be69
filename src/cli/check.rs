//! `check`: the configuration alone, offline.

use super::exit::Failure;
use super::{say, surroundings};
use crate::clock::Clock;
use crate::smtp;
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
    say("the configuration is good");
    Ok(())
}
