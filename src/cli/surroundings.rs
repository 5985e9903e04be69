//! What the configuration depends on besides its file, and where that file is.

use super::exit::Failure;
use crate::config::{self, Loaded, Premises, Surroundings};
use std::path::{Path, PathBuf};

/// Where the configuration is looked for.
const CANDIDATES: [&str; 2] = ["/etc/smtp-oauth-bridge/bridge.toml", "bridge.toml"];

/// Loads the configuration named on the command line, or the first that is found.
pub(super) fn load(named: Option<&Path>) -> Result<Loaded, Failure> {
    let surroundings = gather();
    match named {
        Some(path) => config::load(path, &surroundings),
        None => config::load_default(&CANDIDATES.map(Path::new), &surroundings),
    }
    .map_err(Failure::config)
}

/// Where the bridge is, by the same configuration; secrets are not looked at.
pub(super) fn premises(named: Option<&Path>) -> Result<Premises, Failure> {
    config::load_premises(named, &CANDIDATES.map(Path::new), &gather()).map_err(Failure::config)
}

/// The environment and the machine's name.
pub(super) fn gather() -> Surroundings {
    // Variables that are not UTF-8 cannot be ours.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    Surroundings {
        variables,
        machine_name: machine_name(),
    }
}

/// Where the sandbox lives if nobody says: in the user's state directory (XDG Base Directory Specification), else
/// among the temporary files.
pub(super) fn sandbox_directory(surroundings: &Surroundings) -> PathBuf {
    let absolute = |name: &str| {
        surroundings
            .variables
            .get(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state
        .unwrap_or_else(std::env::temp_dir)
        .join("smtp-oauth-bridge")
        .join("sandbox")
}

#[cfg(unix)]
fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn machine_name() -> String {
    std::env::vars()
        .find(|(name, _)| name == "COMPUTERNAME")
        .map(|(_, value)| value)
        .unwrap_or_default()
}
