//! Floor 2: the configuration. One direction, two shapes: the document as written becomes [`Config`], the
//! meaning, in which invalid values do not exist.

mod access;
mod alerts;
mod certificates;
mod document;
mod excerpt;
mod field;
mod key_path;
mod listener;
mod meaning;
mod problem;
mod reader;
mod secret;
mod sections;
#[cfg(test)]
mod tests;
mod units;

pub use meaning::{
    Access, Account, Admin, Alerts, AuthMode, BareNewline, Bind, CertificateFiles, ClientId, Cloud, Config,
    Delivery, Endpoint, Endpoints, FailuresTo, Grant, History, Limits, Listener, Log, LogFormat, LogLevel,
    OnUncertain, Premises, Provider, Report, SenderPattern, Spool, Tenant, Tls, TlsMode, Transport, Users,
    Webhook, WebhookFormat,
};
pub use problem::{LoadError, Place, Problem, Warning};
pub use secret::{Secret, SecretSource};

pub use units::{format_duration, format_size, parse_duration, parse_size};

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

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

/// A configuration that is larger than this is something else.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads the file and the variables, and the secrets that they name.
///
/// # Errors
/// All problems together, each with its place and what to do about it. None contains a secret.
pub fn load(path: &Path, surroundings: &Surroundings) -> Result<Loaded, LoadError> {
    let text = read(path)?;
    parse(&text, path, surroundings)
}

/// Reads the first of the `candidates` that exists; without any, the variables alone.
///
/// # Errors
/// As [`load`]. If there is neither a file nor a variable, [`LoadError::is_missing`] is true.
pub fn load_default(candidates: &[&Path], surroundings: &Surroundings) -> Result<Loaded, LoadError> {
    // Only what certainly does not exist is passed over: a file that may not be read is a problem.
    let exists = |path: &&&Path| !matches!(path.try_exists(), Ok(false));
    if let Some(path) = candidates.iter().find(exists) {
        return load(path, surroundings);
    }
    if document::has_variables(&surroundings.variables) {
        return understand(
            document::Table::new(),
            Place::Environment,
            PathBuf::new(),
            surroundings,
        )
        .0;
    }
    let looked: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    Err(LoadError {
        problems: vec![Problem {
            place: Place::Environment,
            key: String::new(),
            message: format!("there is no configuration; looked for {}", looked.join(" and ")),
            hint: Some("name the file with --config FILE; or try the program out with `run --sandbox`, which needs none".to_owned()),
            excerpt: None,
        }],
        missing: true,
    })
}

/// Reads from the file `named`, or the first of the `candidates` that exists, where the bridge is. The rest of it may
/// be wrong, and its secrets may be out of reach: the tools must work when the bridge does not.
///
/// # Errors
/// As [`load`].
pub fn load_premises(
    named: Option<&Path>,
    candidates: &[&Path],
    surroundings: &Surroundings,
) -> Result<Premises, LoadError> {
    let exists = |path: &&&Path| !matches!(path.try_exists(), Ok(false));
    let Some(path) = named.or_else(|| candidates.iter().find(exists).copied()) else {
        // Variables alone, or the message that there is nothing.
        let config = load_default(candidates, surroundings)?.config;
        return Ok(Premises {
            hostname: config.hostname,
            state_dir: config.state_dir,
            spool: config.spool,
            admin: config.admin,
        });
    };
    let failed = |problems| LoadError {
        problems,
        missing: false,
    };
    let mut root = document::from_toml(&read(path)?, path).map_err(failed)?;
    let problems = document::overlay(&mut root, &surroundings.variables);
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let context = reader::Context::new(surroundings, Place::File(path.to_owned()), directory);
    let premises = sections::premises(context.root(root));
    let mut found = context.finish(sections::LATER).problems;
    match premises {
        Some(premises) if found.is_empty() && problems.is_empty() => Ok(premises),
        _ => {
            found.extend(problems);
            Err(failed(found))
        }
    }
}

/// As [`load`], from the text of a file; `path` stands in messages, and relative paths begin at its directory.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, path: &Path, surroundings: &Surroundings) -> Result<Loaded, LoadError> {
    parse_with_keys(text, path, surroundings).0
}

/// The keys that were asked for, with their defaults in TOML notation.
type Known = BTreeMap<String, Option<&'static str>>;

fn parse_with_keys(
    text: &str,
    path: &Path,
    surroundings: &Surroundings,
) -> (Result<Loaded, LoadError>, Known) {
    match document::from_toml(text, path) {
        Ok(root) => {
            let directory = path.parent().unwrap_or(Path::new("")).to_owned();
            understand(root, Place::File(path.to_owned()), directory, surroundings)
        }
        Err(problems) => (
            Err(LoadError {
                problems,
                missing: false,
            }),
            Known::new(),
        ),
    }
}

/// From the document to its meaning.
fn understand(
    mut root: document::Table,
    whole: Place,
    directory: PathBuf,
    surroundings: &Surroundings,
) -> (Result<Loaded, LoadError>, Known) {
    let mut problems = document::overlay(&mut root, &surroundings.variables);
    let context = reader::Context::new(surroundings, whole.clone(), directory);
    let config = sections::config(context.root(root));
    let findings = context.finish(sections::LATER);
    problems.extend(findings.problems);
    problems.sort();
    let result = match config {
        Some(config) if problems.is_empty() => Ok(Loaded {
            config,
            warnings: findings.warnings,
        }),
        _ => {
            if problems.is_empty() {
                // Whoever answers `None` notes why; should one forget it, this is still an error with a text.
                problems.push(whole_problem(
                    whole,
                    "cannot be understood",
                    "report this as a bug",
                ));
            }
            Err(LoadError {
                problems,
                missing: false,
            })
        }
    };
    (result, findings.known)
}

fn read(path: &Path) -> Result<String, LoadError> {
    let refuse = |message: &str, hint: &str, missing| LoadError {
        problems: vec![whole_problem(Place::File(path.to_owned()), message, hint)],
        missing,
    };
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => refuse("the file does not exist", "name another with --config FILE", true),
        io::ErrorKind::PermissionDenied => refuse(
            "the file may not be read by the user that runs this",
            "run it as the bridge's user or as administrator, or change the file's owner or mode",
            false,
        ),
        kind => refuse(
            &format!("the file cannot be read: {kind}"),
            "check the path",
            false,
        ),
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(refuse("this is a directory", "name the file in it", false));
    }
    if metadata.len() > MAX_FILE {
        return Err(refuse(
            "the file is too large for a configuration",
            "check that it is the right file",
            false,
        ));
    }
    let octets = std::fs::read(path).map_err(unreadable)?;
    String::from_utf8(octets).map_err(|_| {
        refuse(
            "the file is not a UTF-8 text",
            "save it as UTF-8: in Notepad under \"Encoding\"",
            false,
        )
    })
}

fn whole_problem(place: Place, message: &str, hint: &str) -> Problem {
    Problem {
        place,
        key: String::new(),
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
        excerpt: None,
    }
}
