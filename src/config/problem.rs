//! What is wrong with a configuration, where, and what to do about it.
//!
//! No text here ever repeats a value of the configuration: an administrator may have pasted a secret anywhere.
//! The place is exact enough to find it.

use std::fmt;
use std::path::PathBuf;

/// Where something in the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File(PathBuf),
    /// A position in the file; line and column (in characters) count from 1.
    Position {
        /// The file.
        file: PathBuf,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// The environment as a whole, where there is no file.
    Environment,
}

/// One thing that must be changed before the configuration can be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The full path of the key, for example `account.office.tenant`; empty if no key is concerned.
    pub key: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// The line itself with a caret below, for a mistake in the notation. Values in it are masked.
    pub excerpt: Option<String>,
}

/// Something that works but is probably not meant, or not wise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning(pub Problem);

/// Why a configuration cannot be used: all its problems, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    pub(super) problems: Vec<Problem>,
    pub(super) missing: bool,
}

impl LoadError {
    /// All problems, in the order of the file; never empty.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// True if there is simply no configuration yet.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.missing
    }
}

impl std::error::Error for LoadError {}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        if self.problems.len() > 1 {
            write!(f, "\n{} problems", self.problems.len())?;
        }
        Ok(())
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        for text in self.excerpt.iter() {
            write!(f, "\n{text}")?;
        }
        for hint in self.hint.iter() {
            write!(f, "\n    hint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Position { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Environment => f.write_str("environment"),
        }
    }
}
