//! How the program ends, after sysexits.h.

use std::fmt;
use std::process::ExitCode;

/// A command that did not succeed: what to tell, and who must act.
#[derive(Debug)]
pub(super) struct Failure {
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The answer is no.
    No = 1,
    /// What was typed is wrong (`EX_DATAERR`).
    Data = 65,
    /// The configuration is wrong (`EX_CONFIG`).
    Config = 78,
    /// Something on this machine is not as it must be (`EX_OSERR`).
    System = 71,
    /// A bug, or close to one (`EX_SOFTWARE`).
    Internal = 70,
}

impl Failure {
    pub(super) fn config(text: impl fmt::Display) -> Self {
        Self {
            kind: Kind::Config,
            text: text.to_string(),
        }
    }

    pub(super) fn data(text: impl fmt::Display) -> Self {
        Self {
            kind: Kind::Data,
            text: text.to_string(),
        }
    }

    pub(super) fn refused(text: impl fmt::Display) -> Self {
        Self {
            kind: Kind::No,
            text: text.to_string(),
        }
    }

    pub(super) fn system(text: impl fmt::Display) -> Self {
        Self {
            kind: Kind::System,
            text: text.to_string(),
        }
    }

    pub(super) fn internal(text: impl fmt::Display) -> Self {
        Self {
            kind: Kind::Internal,
            text: text.to_string(),
        }
    }

    /// The answer is no, and standard output says why.
    pub(super) fn told() -> Self {
        Self::refused("")
    }

    /// True if there is nothing more to say.
    pub(super) fn was_told(&self) -> bool {
        self.text.is_empty()
    }

    /// The same failure with advice that only this command can give.
    pub(super) fn hint(mut self, hint: &str) -> Self {
        self.text = format!("{}\nhint: {hint}", self.text.trim_end());
        self
    }

    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}
