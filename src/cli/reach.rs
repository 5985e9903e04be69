//! How a command comes to the bridge: by its control socket, or, while no bridge runs, to the spool itself.

use super::exit::Failure;
use super::surroundings;
use crate::admin::{Door, DoorError, Facts, Office, Side, router};
use crate::clock::Clock;
use crate::config::Premises;
use crate::spool::{Inspector, Spool, SpoolError, SpoolSettings};
use std::path::Path;

/// What a command is going to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// Only look.
    Look,
    /// Change something.
    Change,
}

/// A way to the bridge.
pub(super) struct Reached {
    pub(super) door: Door,
    /// Open while no bridge runs and something is to be changed.
    spool: Option<Spool>,
}

/// Finds the way that there is.
pub(super) async fn reach(config: Option<&Path>, intent: Intent) -> Result<Reached, Failure> {
    let premises = surroundings::premises(config)?;
    let door = Door::by_socket(&premises.admin.control);
    match door.knock().await {
        Ok(()) => return Ok(Reached { door, spool: None }),
        Err(DoorError::NotRunning(_)) => {}
        Err(error) => return Err(Failure::system(error)),
    }
    let facts = Facts {
        clock: Clock::machine(),
        hostname: premises.hostname.clone(),
        started: None,
    };
    let directory = premises.state_dir.join("spool");
    let (side, spool) = match intent {
        Intent::Look => (
            Side::Closed(Inspector::open(&directory).map_err(Failure::system)?),
            None,
        ),
        Intent::Change => {
            let spool = open(&premises, &directory)?;
            (Side::Open(Box::new(spool.operator()), None), Some(spool))
        }
    };
    Ok(Reached {
        door: Door::inside(router(Office::new(side, facts))),
        spool,
    })
}

fn open(premises: &Premises, directory: &Path) -> Result<Spool, Failure> {
    // Missing or not to be read: said as when looking.
    drop(Inspector::open(directory).map_err(Failure::system)?);
    check_owner(directory)?;
    let settings = SpoolSettings {
        directory: directory.to_owned(),
        max_size: premises.spool.max_size,
        min_free: premises.spool.min_free,
    };
    // Blocks on the disk, before anything else runs.
    tokio::task::block_in_place(|| Spool::open(&settings, Clock::machine())).map_err(|error| match error {
        SpoolError::Locked(_) => Failure::system(format!(
            "a bridge has this spool open, but does not answer on {}: if it has only just been started, try again; \
             else it was started with another `control` in the section [admin]",
            premises.admin.control.display()
        )),
        error => Failure::system(error),
    })
}

/// What root wrote there, the bridge could not read.
#[cfg(unix)]
fn check_owner(directory: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(directory).map_err(Failure::system)?.uid();
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(Failure::system(format!(
        "no bridge runs, and the spool {} belongs to another user: start the bridge first, or run this as its user \
         (sudo -u '#{owner}' smtp-oauth-bridge …)",
        directory.display()
    )))
}

#[cfg(not(unix))]
fn check_owner(_: &Path) -> Result<(), Failure> {
    Ok(())
}

impl Reached {
    /// Gives the spool back, if it was opened here.
    pub(super) async fn close(self) {
        drop(self.door);
        if let Some(spool) = self.spool {
            let _ = tokio::task::spawn_blocking(|| spool.close()).await;
        }
    }
}

impl From<DoorError> for Failure {
    fn from(error: DoorError) -> Self {
        match error {
            DoorError::Refused(_) => Self::refused(error),
            error => Self::system(error),
        }
    }
}
