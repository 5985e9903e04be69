//! Secrets: where they come from, and how they stay unseen.

use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::path::PathBuf;

/// A secret that knows where it came from.
///
/// Its `Debug` prints the source only, and the memory is zeroed when it is dropped.
#[derive(Clone)]
pub struct Secret {
    source: SecretSource,
    value: SecretString,
}

/// Where a secret came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that holds nothing else.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A systemd credential: the file of this name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

impl Secret {
    /// A secret with its source, for those who do not read it from a configuration.
    #[must_use]
    pub fn new(source: SecretSource, value: SecretString) -> Self {
        Self { source, value }
    }

    /// Where it came from, for messages.
    #[must_use]
    pub fn source(&self) -> &SecretSource {
        &self.source
    }

    /// The secret itself: only for the request that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.source)
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Credential(name) => write!(f, "systemd credential {name}"),
        }
    }
}
