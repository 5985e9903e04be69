//! What happens at start to files without a row (state S1).

use super::open::Swept;
use super::spool_files::SpoolFiles;
use crate::db::{DbError, QueueReader};
use crate::mail::QueueId;

/// Removes body files that belong to no row, if the database vouches for that; else sets them aside.
pub(super) fn sweep(files: &SpoolFiles, reader: &QueueReader, vouches: bool) -> Result<Swept, DbError> {
    let mut swept = Swept::default();
    let found = match files.body_files() {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "the spool could not be swept");
            return Ok(swept);
        }
    };
    for path in found {
        let id: Option<QueueId> = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        let is_body = path.extension().is_some_and(|extension| extension == "eml");
        let done = match id {
            Some(id) if reader.contains(id)? => continue,
            Some(id) if vouches => files
                .remove_body(id)
                .map(|()| swept.removed += usize::from(is_body)),
            _ => files.set_aside(&path).map(|_| swept.set_aside += 1),
        };
        if let Err(error) = done {
            tracing::warn!(path = %path.display(), %error, "a file without a message could not be removed");
        }
    }
    Ok(swept)
}
