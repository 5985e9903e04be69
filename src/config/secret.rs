//! Secrets: where they come from, and how they stay unseen.

use super::document::Value;
use super::field::Field;
use super::problem::Place;
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

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

/// A larger file is not a secret.
const MAX_SECRET: usize = 64 * 1024;

const WAYS: &str = "write the secret alone into a file and { file = \"/path/of/the/file\" } here; \
                    { env = \"VARIABLE\" } and { credential = \"NAME\" } (systemd) are possible too";

/// Reads a key whose value says where a secret is. Never lets the secret itself into a message.
pub(super) fn read(field: Field<'_>) -> Option<Secret> {
    let context = field.context;
    if let (Place::Variable(name), Value::Text(text)) = (&field.node.place, &field.node.value) {
        // The variable of the key itself is as good a place for a secret as any other variable.
        let source = SecretSource::Variable(name.clone());
        let value = Zeroizing::new(text.as_bytes().to_vec());
        return accept(&field, source, value);
    }
    match &field.node.value {
        Value::Table(_) => {}
        Value::String(_) => {
            return field.refuse("a secret must not stand in the configuration itself", WAYS);
        }
        _ => return field.refuse("must say where the secret is", WAYS),
    }
    let mut section = field.section(WAYS)?;
    section.prefer_variables();
    let ways = [
        section.take("file"),
        section.take("env"),
        section.take("credential"),
    ];
    let complete = !section.has_more();
    let count = ways.iter().flatten().count();
    if count > 1 {
        section.refuse(
            "names more than one place of the secret",
            "keep one of file, env and credential",
        );
    } else if count == 0 && complete {
        section.refuse("does not say where the secret is", WAYS);
    }
    section.finish();
    if count != 1 {
        return None;
    }
    match ways {
        [Some(field), _, _] => {
            let path = field.path()?;
            let shown = field.text()?.contains(['/', '\\']).then_some(path.as_path());
            let value = read_file(&field, &path, shown, "the secret's file", MAX_SECRET)?;
            let secret = accept(&field, SecretSource::File(path.clone()), value)?;
            warn_if_others_can_read(&field, &path, "the secret's file");
            Some(secret)
        }
        [_, Some(field), _] => {
            let name = field.text()?;
            match context.surroundings.variables.get(name) {
                Some(text) => {
                    let value = Zeroizing::new(text.as_bytes().to_vec());
                    accept(&field, SecretSource::Variable(name.to_owned()), value)
                }
                None => field.refuse(
                    "there is no environment variable of this name",
                    "write the name of the variable here, not the secret, and see that the service gets it",
                ),
            }
        }
        [_, _, Some(field)] => {
            let name = field.text()?;
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
                return field.refuse(
                    "is not the name of a credential",
                    "write the name that stands before the colon in LoadCredential=",
                );
            }
            let Some(directory) = context.surroundings.variables.get("CREDENTIALS_DIRECTORY") else {
                return field.refuse(
                    "there are no systemd credentials here (CREDENTIALS_DIRECTORY is not set)",
                    "add LoadCredential=NAME:/path/of/the/file to the service, or use { file = … }",
                );
            };
            let path = PathBuf::from(directory).join(name);
            let value = read_file(&field, &path, None, "the credential", MAX_SECRET)?;
            accept(&field, SecretSource::Credential(name.to_owned()), value)
        }
        _ => None,
    }
}

/// Checks that the value can be a secret.
fn accept(field: &Field<'_>, source: SecretSource, octets: Zeroizing<Vec<u8>>) -> Option<Secret> {
    let utf16 = octets.starts_with(&[0xff, 0xfe]) || octets.starts_with(&[0xfe, 0xff]);
    let text = match std::str::from_utf8(&octets) {
        Ok(text) => text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']),
        Err(_) if utf16 => {
            return field.refuse(
                "the secret is stored as UTF-16",
                "save the file as UTF-8: in Notepad under \"Encoding\", in PowerShell with -Encoding ascii",
            );
        }
        Err(_) => {
            return field.refuse(
                "the secret is not a text (not UTF-8)",
                "copy the secret's Value from the portal again",
            );
        }
    };
    if text.trim().is_empty() {
        return field.refuse(
            "the secret is empty",
            "copy the secret's Value from the portal into it",
        );
    }
    if text.contains(char::is_control) {
        return field.refuse(
            "the secret has more than one line, or control characters",
            "the place must hold the secret's Value and nothing else",
        );
    }
    if text.trim() != text {
        field.warn(
            "the secret begins or ends with a space",
            "remove the space unless it belongs to the secret",
        );
    }
    if uuid::Uuid::try_parse(text.trim()).is_ok() {
        field.warn(
            "the secret looks like an ID: probably the \"Secret ID\" was copied instead of the \"Value\"",
            "copy the column \"Value\"; the portal shows it only once, so create a new secret if it is gone",
        );
    }
    Some(Secret::new(source, SecretString::from(text.to_owned())))
}

/// Reads a small file. `shown` is its path if that may stand in a message.
pub(super) fn read_file(
    field: &Field<'_>,
    path: &Path,
    shown: Option<&Path>,
    what: &str,
    limit: usize,
) -> Option<Zeroizing<Vec<u8>>> {
    let name = match shown {
        Some(path) => format!("{what} {}", path.display()),
        None => what.to_owned(),
    };
    let opened = File::open(path).and_then(|file| {
        let metadata = file.metadata()?;
        Ok((file, metadata))
    });
    let (file, metadata) = match opened {
        Ok(opened) => opened,
        Err(error) => return unreadable(field, &name, shown.is_some(), &error),
    };
    if metadata.is_dir() {
        return field.refuse(format!("{name} is a directory"), "write the path of a file");
    }
    if metadata.len() > limit as u64 {
        return field.refuse(format!("{name} is too large"), "check that it is the right file");
    }
    // Room for all of it at once: a buffer that moves when it grows would leave a copy behind that nobody zeroes.
    let room = usize::try_from(metadata.len())
        .unwrap_or(limit)
        .clamp(4096, limit)
        + 64;
    let mut octets = Zeroizing::new(Vec::with_capacity(room));
    match file.take(limit as u64).read_to_end(&mut octets) {
        Ok(_) => Some(octets),
        Err(error) => unreadable(field, &name, shown.is_some(), &error),
    }
}

fn unreadable<T>(field: &Field<'_>, name: &str, shown: bool, error: &io::Error) -> Option<T> {
    match error.kind() {
        io::ErrorKind::NotFound if shown => {
            field.refuse(format!("{name} does not exist"), "create it, or correct the path")
        }
        io::ErrorKind::NotFound => field.refuse(
            format!("{name} does not exist"),
            "the value must be a path; a relative one begins at the directory of the configuration",
        ),
        io::ErrorKind::PermissionDenied => field.refuse(
            format!("{name} may not be read by the user that the bridge runs as"),
            "make that user the file's owner, with chown",
        ),
        kind => field.refuse(format!("{name} cannot be read: {kind}"), "check the path"),
    }
}

/// Notes a doubt about a file that is nobody else's business.
#[cfg(unix)]
pub(super) fn warn_if_others_can_read(field: &Field<'_>, path: &Path, what: &str) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        field.warn(
            format!(
                "other users of this machine can read {what} (mode {:03o})",
                mode & 0o777
            ),
            format!("chmod 600 {}", path.display()),
        );
    }
}

/// Other systems have other means.
#[cfg(not(unix))]
pub(super) fn warn_if_others_can_read(_field: &Field<'_>, _path: &Path, _what: &str) {}
