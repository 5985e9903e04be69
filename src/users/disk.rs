//! The users file on the disk: read again when it has changed, replaced as a whole.

use super::file::{BadLine, Users};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// More than this is no users file.
const MAX_FILE: u64 = 8 * 1024 * 1024;

/// Why the users file cannot be read or written. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// Reading.
    #[error("the users file {} cannot be read: {reason}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// Writing.
    #[error("the users file {} cannot be written: {reason}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
}

/// Reads the text of the users file; one that does not exist is empty.
///
/// # Errors
/// [`UsersError::Read`]
pub fn read(path: &Path) -> Result<String, UsersError> {
    Ok(read_with_stamp(path)?.0)
}

/// Changes the text of the users file and replaces it as a whole: whoever reads it meanwhile sees the old or the new
/// one, and after a power cut one of them is there. Two editors wait for each other.
///
/// The new file has mode 0600 and the owner of the old one; a first one gets the owner of its directory, so that
/// what root does with it the bridge's user can read.
///
/// # Errors
/// [`UsersError`], or what `change` answers; the file is then as it was.
pub fn edit<E: From<UsersError>>(
    path: &Path,
    change: impl FnOnce(&str) -> Result<String, E>,
) -> Result<(), E> {
    // A link is followed, not replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let fail = |error: io::Error| UsersError::Write {
        path: path.to_owned(),
        reason: explained(&error, "the directory of the file"),
    };
    let lock = private().open(beside(&target, ".lock")).map_err(fail)?;
    lock.lock().map_err(fail)?;
    let text = change(&read(path)?)?;
    Ok(replace(&target, &text).map_err(fail)?)
}

/// The users file as it is now.
#[derive(Debug)]
pub(super) struct Live {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stamp: Option<Stamp>,
    users: Option<Arc<Users>>,
    /// The last trouble that was logged, so that it is logged once.
    told: Option<String>,
}

/// What changes whenever a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<std::time::SystemTime>,
    /// Inode and time of its change: a file that was replaced differs in them though all else be the same.
    node: (u64, i64, i64),
}

impl Live {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            state: Mutex::default(),
        }
    }

    /// Everybody who may log in now. Reads the file only if it has changed. One that cannot be read leaves the users of
    /// the last time in force; `None` if there was no last time.
    pub(super) fn users(&self) -> Option<Arc<Users>> {
        // What is in the state is whole at every moment, so that a panic elsewhere does it no harm.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = fs::metadata(&self.path).map(|metadata| Stamp::of(&metadata));
        if let (Ok(stamp), Some(old), Some(users)) = (&stamp, state.stamp, &state.users)
            && *stamp == old
        {
            return Some(users.clone());
        }
        match read_with_stamp(&self.path) {
            Ok((text, stamp)) => {
                let (users, bad) = Users::parse(&text);
                if state.users.is_none() || stamp.is_some() || state.stamp.is_some() {
                    self.tell(&mut state, &users, &bad, stamp.is_some());
                }
                (state.stamp, state.users) = (stamp, Some(Arc::new(users)));
            }
            Err(error) => {
                let text = error.to_string();
                if state.told.as_ref() != Some(&text) {
                    tracing::error!(error = text, "the users that were read last stay in force");
                    state.told = Some(text);
                }
            }
        }
        state.users.clone()
    }

    fn tell(&self, state: &mut State, users: &Users, bad: &[BadLine], exists: bool) {
        let file = self.path.display();
        if !exists {
            tracing::warn!(%file, "there is no users file, so nobody can log in: `smtp-oauth-bridge user add NAME` makes one");
        } else {
            tracing::info!(%file, users = users.all().len(), "users file read");
        }
        for BadLine { line, reason } in bad.iter().take(20) {
            tracing::error!(%file, line, reason, "a line of the users file is not understood; the others are in force");
        }
        let unlike = users.unlike_ours();
        if let Some(line) = unlike.first() {
            tracing::warn!(
                %file, line, hashes = unlike.len(),
                "password hashes of another cost than ours: the time of an answer tells that these users exist; \
                 `smtp-oauth-bridge user add NAME` makes new ones"
            );
        }
        state.told = None;
        #[cfg(unix)]
        if let Ok(metadata) = fs::metadata(&self.path) {
            use std::os::unix::fs::MetadataExt;
            if metadata.mode() & 0o077 != 0 {
                tracing::warn!(%file, "other users of this machine can read the password hashes: chmod 600 {file}");
            }
        }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let node = {
            use std::os::unix::fs::MetadataExt;
            (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
        };
        #[cfg(not(unix))]
        let node = (0, 0, 0);
        Self {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            node,
        }
    }
}

/// The text, and the stamp of the very file that it was read from; no stamp if there is no file.
fn read_with_stamp(path: &Path) -> Result<(String, Option<Stamp>), UsersError> {
    let fail = |reason: String| UsersError::Read {
        path: path.to_owned(),
        reason,
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((String::new(), None)),
        Err(error) => return Err(fail(explained(&error, "the file"))),
    };
    let read = |file: &mut File| {
        let metadata = file.metadata()?;
        let mut octets = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut octets)?;
        Ok((metadata, octets))
    };
    let (metadata, octets) =
        read(&mut file).map_err(|error: io::Error| fail(explained(&error, "the file")))?;
    if octets.len() as u64 > MAX_FILE {
        return Err(fail(
            "it is too large: check that `file` in [users] names the right one".to_owned(),
        ));
    }
    let text =
        String::from_utf8(octets).map_err(|_| fail("it is not a UTF-8 text: save it as UTF-8".to_owned()))?;
    Ok((text, Some(Stamp::of(&metadata))))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = beside(path, ".new");
    let written = (|| {
        let mut file = private().truncate(true).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        own_like_the_old(path, &file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    #[cfg(unix)]
    File::open(directory(path))?.sync_all()?;
    Ok(())
}

/// Root gives the new file to whom the old one belongs, or else the directory.
#[cfg(unix)]
fn own_like_the_old(path: &Path, file: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    if rustix::process::geteuid().is_root() {
        let like = fs::metadata(path).or_else(|_| fs::metadata(directory(path)))?;
        fchown(file, Some(like.uid()), Some(like.gid()))?;
    }
    // A file left by an earlier, interrupted edit may have any mode.
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn own_like_the_old(_: &Path, _: &File) -> io::Result<()> {
    Ok(())
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn explained(error: &io::Error, what: &str) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            format!(
                "permission denied: run this as the bridge's user or as root, or change the owner of {what}"
            )
        }
        ErrorKind::NotFound => "its directory does not exist: make it, or run the bridge once".to_owned(),
        _ => format!("{error}: check {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::{self, EditError, Senders};
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$lAk6SGd8H0xOyr4hhEMLVGU0/Aoj0M8LdUl1dAcEXKk";

    fn add(path: &Path, name: &str) {
        edit::<UsersError>(path, |text| Ok(file::add(text, name, HASH, &Senders::default()))).unwrap();
    }

    #[test]
    fn changes_are_seen_at_once_and_trouble_leaves_the_old_ones_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let live = Live::new(path.clone());
        assert!(live.users().unwrap().is_empty());
        add(&path, "anna");
        let first = live.users().unwrap();
        assert!(first.get("anna").is_some());
        assert!(Arc::ptr_eq(&first, &live.users().unwrap()));
        for n in 0..20 {
            add(&path, &format!("u{n}"));
            assert!(live.users().unwrap().get(&format!("u{n}")).is_some());
        }
        fs::write(&path, b"\xff\xfe").unwrap();
        assert!(live.users().unwrap().get("u19").is_some());
        fs::write(&path, format!("broken\nbob {HASH}\n")).unwrap();
        let now = live.users().unwrap();
        assert!(now.get("bob").is_some() && now.get("anna").is_none());
        fs::remove_file(&path).unwrap();
        assert!(live.users().unwrap().is_empty());
    }

    #[test]
    fn a_file_that_was_never_readable_has_no_users() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Live::new(directory.path().into()).users().is_none());
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        #[derive(Debug)]
        enum Failed {
            Edit(EditError),
            Disk,
        }
        impl From<UsersError> for Failed {
            fn from(_: UsersError) -> Self {
                Self::Disk
            }
        }
        let removed = edit(&path, |text| file::remove(text, "eve").map_err(Failed::Edit));
        assert!(matches!(removed, Err(Failed::Edit(EditError::NoSuchUser(_)))));
        assert!(!path.exists());
        let nowhere = directory.path().join("missing/users");
        let error = edit::<UsersError>(&nowhere, |_| Ok(String::new())).unwrap_err();
        assert!(
            error.to_string().contains("its directory does not exist"),
            "{error}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_private_and_a_link_stays_a_link() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("real"), directory.path().join("users"));
        fs::write(&path, "# ours\n").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        add(&link, "anna");
        assert!(link.is_symlink());
        assert!(read(&path).unwrap().starts_with("# ours\nanna "));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(!directory.path().join("real.new").exists());
    }
}
