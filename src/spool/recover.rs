//! A damaged database, and how the mail in it comes into a new one.
//!
//! 1. `queue.db.part` is begun, and what can be read of the damaged database and of body files is brought into it.
//! 2. It becomes `queue.db.new`: it is complete.
//! 3. The damaged files move to `corrupt/`.
//! 4. `queue.db.new` becomes `queue.db`.
//!
//! A start after a kill begins with step 1 again, or goes on with step 3.

use super::envelope_file::read_envelope;
use super::spool_files::SpoolFiles;
use crate::db::{DbError, QueueReader, QueueWriter, Salvaged};
use crate::mail::QueueId;
use std::io;
use std::path::{Path, PathBuf};

/// What was done about a damaged database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Where it is now.
    pub moved_to: PathBuf,
    /// What could be read of it.
    pub salvaged: Salvaged,
    /// Messages that were queued again from their files, to be held for a person.
    pub from_files: u64,
    /// Why nothing could be recovered, if so: there is no room, for example.
    pub failed: Option<String>,
}

/// Goes on with a recovery that was cut off.
pub(super) fn resume(files: &SpoolFiles) -> io::Result<()> {
    files.remove_database("queue.db.part")?;
    if files.beside("queue.db.new").exists() {
        exchange(files)?;
    }
    Ok(())
}

/// Recovers what can be recovered, and sets the damaged files aside. `fresh` names the new database, so that it cannot be
/// taken for the one that knew all bodies.
///
/// # Errors
/// The damaged files cannot be moved. That nothing can be recovered is no error: the program must be able to start.
pub(super) fn recover(files: &SpoolFiles, fresh: [u8; 16]) -> io::Result<Recovered> {
    let mut recovered = Recovered::default();
    match build(files, fresh, &mut recovered) {
        Ok(()) => files.rename_database("queue.db.part", "queue.db.new")?,
        Err(error) => {
            files.remove_database("queue.db.part")?;
            recovered = Recovered {
                failed: Some(error.to_string()),
                ..Recovered::default()
            };
        }
    }
    recovered.moved_to = exchange(files)?;
    Ok(recovered)
}

fn build(files: &SpoolFiles, fresh: [u8; 16], recovered: &mut Recovered) -> Result<(), DbError> {
    let part = files.beside("queue.db.part");
    let mut db = QueueWriter::open(&part, fresh).map_err(|error| DbError::Unavailable(error.to_string()))?;
    let mut remains = |remains: crate::db::Remains| {
        let id = remains.id;
        let kept = remains.text.map(|text| files.keep_remains(id, &text));
        if let Some(Err(error)) = &kept {
            tracing::error!(%id, %error, "the text of a message could not be kept");
        }
        tracing::error!(
            %id,
            recipients = remains.recipients.join(" "),
            text_in_corrupt = matches!(kept, Some(Ok(()))),
            "of this message too little is left to keep it in the queue"
        );
    };
    recovered.salvaged = db.salvage(
        &files.database(),
        &files.beside("queue.db-wal"),
        &|id| files.body_size(id).ok(),
        &mut remains,
    )?;
    let reader = QueueReader::open(&part)?;
    // Without a list of them there is nothing to be recovered from them; the sweep sets aside what it finds.
    for path in files.body_files().unwrap_or_default() {
        if path.extension().is_some_and(|extension| extension == "eml")
            && from_files(files, &mut db, &reader, &path)?
        {
            recovered.from_files += 1;
        }
    }
    let queued = |id: &QueueId| reader.contains(*id).unwrap_or(false);
    recovered.salvaged.lost.retain(|id| !queued(id));
    Ok(())
}

/// Queues a message from its files, if its record is missing or is another one than its envelope says.
fn from_files(
    files: &SpoolFiles,
    db: &mut QueueWriter,
    reader: &QueueReader,
    path: &Path,
) -> Result<bool, DbError> {
    let id = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .and_then(|stem| stem.parse().ok());
    let Some(id): Option<QueueId> = id else {
        return Ok(false);
    };
    let text = files.read(&files.envelope_path(id)).ok();
    let message = text.and_then(|text| read_envelope(std::str::from_utf8(&text).ok()?).ok());
    let Some(message) = message.filter(|message| message.id == id) else {
        return Ok(false);
    };
    if files.body_size(id).ok() != Some(message.size) {
        return Ok(false);
    }
    match reader.message(id) {
        Ok(Some(known)) if known == message => Ok(false),
        Ok(_) | Err(DbError::Row { .. }) => db.insert_recovered(&message).map(|()| true),
        Err(error) => Err(error),
    }
}

/// Steps 3 and 4. Where the damaged database is now.
fn exchange(files: &SpoolFiles) -> io::Result<PathBuf> {
    let aside = files.set_database_aside()?;
    if files.beside("queue.db.new").exists() {
        files.rename_database("queue.db.new", "queue.db")?;
    }
    Ok(aside)
}
