//! Floor 1: the configuration. One direction, two shapes: the document as written becomes [`Config`], the
//! meaning, in which invalid values do not exist.

mod meaning;
mod problem;
mod secret;

pub use meaning::{
    Account, ClientId, Cloud, Config, Delivery, Endpoint, Endpoints, Grant, Listener, Log, LogFormat,
    LogLevel, OnUncertain, Provider, Spool, Tenant, Tls, Transport,
};
pub use problem::{LoadError, Place, Problem, Warning};
pub use secret::{Secret, SecretSource};

use std::collections::BTreeMap;
use std::fmt;

/// What a configuration depends on besides its file. Only the command line fills this.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// The environment.
    pub variables: BTreeMap<String, String>,
    /// The name of this machine.
    pub machine_name: String,
}

impl fmt::Debug for Surroundings {
    /// Prints the names of the variables only: their values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("variables", &self.variables.keys())
            .field("machine_name", &self.machine_name)
            .finish()
    }
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it means.
    pub config: Config,
    /// What the administrator should look at.
    pub warnings: Vec<Warning>,
}
