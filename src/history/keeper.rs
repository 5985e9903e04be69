//! Keeps `history.db`: opens it, takes events, removes what is old, sets it aside if it is damaged. Blocks on the disk.

use super::entry::entry;
use crate::db::history::{HistoryError, HistoryWriter};
use crate::files;
use crate::mail::Timestamp;
use crate::telemetry::Event;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the history is, and how much of it is kept.
#[derive(Clone, Debug)]
pub struct KeeperSettings {
    /// The database.
    pub path: PathBuf,
    /// How long messages are remembered after they arrived; twice as long if they are not done.
    pub keep: Duration,
    /// Octets of the database at most; then the oldest go.
    pub max_size: u64,
}

/// The only writer of the history.
#[derive(Debug)]
pub struct Keeper {
    settings: KeeperSettings,
    /// Opened when it is needed, and again after every error.
    writer: Option<HistoryWriter>,
}

/// Why events could not be taken. They stay in the outbox.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The database.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The file cannot be made, or moved away.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl Keeper {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(settings: KeeperSettings) -> Self {
        Self {
            settings,
            writer: None,
        }
    }

    /// Takes events from the outbox, all or none; they are on the disk when this returns. What was taken before
    /// changes nothing. Events that cannot be read are left out, loudly.
    ///
    /// # Errors
    /// [`KeeperError`]. A damaged history is none: it is set aside, and a new one begun.
    pub fn take(&mut self, outbox: &[(i64, String)]) -> Result<(), KeeperError> {
        let mut entries = Vec::with_capacity(outbox.len());
        for (number, text) in outbox {
            match Event::from_json(text) {
                Ok(event) => entries.push(entry(&event)),
                Err(error) => tracing::error!(
                    number,
                    %error,
                    "an event cannot be read and is missing in the history; was the bridge downgraded?"
                ),
            }
        }
        self.with_writer(|writer| writer.take(&entries))
    }

    /// Removes some of what is too old, or too much. True if there is more to be removed.
    ///
    /// # Errors
    /// As [`Keeper::take`].
    pub fn purge(&mut self, now: Timestamp) -> Result<bool, KeeperError> {
        let (keep, max_size) = (self.settings.keep, self.settings.max_size);
        self.with_writer(|writer| writer.purge(now, keep, max_size))
    }

    fn with_writer<T>(
        &mut self,
        work: impl Fn(&mut HistoryWriter) -> Result<T, HistoryError>,
    ) -> Result<T, KeeperError> {
        match self.attempt(&work) {
            Err(KeeperError::History(HistoryError::Damaged(error))) => {
                let aside = set_aside(&self.settings.path)?;
                tracing::error!(
                    %error,
                    moved_to = %aside.display(),
                    "the history is damaged and was set aside; a new one begins, and mail is not affected"
                );
                self.attempt(&work)
            }
            result => result,
        }
    }

    fn attempt<T>(
        &mut self,
        work: impl Fn(&mut HistoryWriter) -> Result<T, HistoryError>,
    ) -> Result<T, KeeperError> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => open(&self.settings.path)?,
        };
        // After an error the connection is closed: the next begins anew.
        let done = work(&mut writer)?;
        self.writer = Some(writer);
        Ok(done)
    }

    /// Limits the size of the database, as a full disk would.
    #[cfg(test)]
    pub(super) fn limit_pages(&mut self, pages: u32) {
        let mut writer = open(&self.settings.path).unwrap();
        writer.limit_pages(pages).unwrap();
        self.writer = Some(writer);
    }
}

/// It says who wrote to whom, so only its owner may read it.
fn open(path: &Path) -> Result<HistoryWriter, KeeperError> {
    if !path.exists() {
        let file_error = |error| KeeperError::File {
            path: path.to_owned(),
            error,
        };
        if let Some(directory) = path.parent() {
            files::make_private_directory(directory).map_err(file_error)?;
        }
        // What belongs to a former one must not be taken for this one's.
        remove_side_files(path).map_err(file_error)?;
        files::write_private(path, b"").map_err(file_error)?;
    }
    Ok(HistoryWriter::open(path)?)
}

/// Moves the damaged database away; an older damaged one makes room, so that damage cannot fill the disk.
fn set_aside(path: &Path) -> Result<PathBuf, KeeperError> {
    let aside = with_suffix(path, ".damaged");
    std::fs::rename(path, &aside)
        .and_then(|()| remove_side_files(path))
        .map_err(|error| KeeperError::File {
            path: path.to_owned(),
            error,
        })?;
    Ok(aside)
}

fn remove_side_files(path: &Path) -> io::Result<()> {
    for suffix in ["-wal", "-shm"] {
        match std::fs::remove_file(with_suffix(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
