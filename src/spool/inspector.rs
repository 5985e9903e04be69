//! What people and their programs may ask of the spool. Reading only, on a connection of its own: neither acceptance
//! nor delivery waits for it.

use super::body::Body;
use super::disk::RealDisk;
use super::spool_files::SpoolFiles;
use super::store::StoreError;
use crate::db::record::{Message, Stored};
use crate::db::{Ages, DbError, Entry, OpenError, Overview, QueueReader, RecipientState, Search};
use crate::mail::QueueId;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A view of the messages in a spool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inspector {
    reader: Arc<Mutex<QueueReader>>,
    files: SpoolFiles,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The messages, oldest first.
    pub entries: Vec<Entry>,
    /// Where to go on, if there may be more.
    pub next: Option<QueueId>,
    /// How many rows were looked at for this page.
    pub looked_at: u64,
}

/// All that is known of a message but its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Its line in a list.
    pub entry: Entry,
    /// What was stored when it was accepted.
    pub message: Message,
    /// Its recipients, in the order of the envelope.
    pub recipients: Vec<RecipientState>,
}

/// Why a spool cannot be looked at while no bridge runs.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is none.
    #[error(
        "there is no queue in {}: the bridge has never run with this configuration, or state_dir is another one",
        .0.display()
    )]
    Missing(PathBuf),
    /// It may not be read.
    #[error(
        "the queue {} may not be read by this user ({error}): run this as the user that runs the bridge \
         (sudo -u USER smtp-oauth-bridge …), or as administrator", path.display()
    )]
    Forbidden {
        /// The database.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The database.
    #[error("the queue {} cannot be read: {error}", path.display())]
    Db {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        error: OpenError,
    },
}

/// How long a search may look before it answers with what it has.
const PATIENCE: Duration = Duration::from_millis(500);

impl Inspector {
    pub(super) fn new(files: SpoolFiles) -> Result<Self, DbError> {
        Ok(Self {
            reader: Arc::new(Mutex::new(QueueReader::open(&files.database())?)),
            files,
        })
    }

    /// Opens the spool in `directory` for reading although no bridge runs. Blocks on the disk.
    ///
    /// # Errors
    /// [`InspectError`]
    pub fn open(directory: &Path) -> Result<Self, InspectError> {
        let files = SpoolFiles::at(directory, Arc::new(RealDisk));
        let path = files.database();
        if let Err(error) = std::fs::File::open(&path) {
            return Err(match error.kind() {
                io::ErrorKind::NotFound => InspectError::Missing(directory.to_owned()),
                _ => InspectError::Forbidden { path, error },
            });
        }
        let reader = QueueReader::open_closed(&path).map_err(|error| InspectError::Db { path, error })?;
        Ok(Self {
            reader: Arc::new(Mutex::new(reader)),
            files,
        })
    }

    /// A page of the messages that are searched for. Ends after half a second with what was found until then; `next`
    /// says where to go on.
    ///
    /// # Errors
    /// [`StoreError`]
    ///
    /// # Cancellation
    /// Safe, as for all methods.
    pub async fn page(&self, search: Search) -> Result<Page, StoreError> {
        self.read(move |reader| {
            let found = reader.search(&search, patience())?;
            let entries = found.ids.iter().filter_map(|id| reader.entry(*id).transpose());
            Ok(Page {
                entries: entries.collect::<Result<_, _>>()?,
                next: found.next,
                looked_at: found.looked_at,
            })
        })
        .await
    }

    /// As [`page`](Self::page), with nothing but the names, of which there may be many.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn ids(&self, search: Search) -> Result<(Vec<QueueId>, Option<QueueId>), StoreError> {
        self.read(move |reader| {
            let found = reader.search(&search, patience())?;
            Ok((found.ids, found.next))
        })
        .await
    }

    /// The messages whose ids lie in a range, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn between(&self, range: (QueueId, QueueId), limit: usize) -> Result<Vec<QueueId>, StoreError> {
        self.read(move |reader| reader.between(range, limit)).await
    }

    /// All that is known of a message but its text.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn details(&self, id: QueueId) -> Result<Details, StoreError> {
        let found = self
            .read(move |reader| {
                let (Some(entry), Some(message)) = (reader.entry(id)?, reader.message(id)?) else {
                    return Ok(None);
                };
                let recipients = reader.all_recipients(id)?;
                Ok(Some(Details {
                    entry,
                    message,
                    recipients,
                }))
            })
            .await?;
        found.ok_or(StoreError::Unknown(id))
    }

    /// A message with its body.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn message(&self, id: QueueId) -> Result<(Message, Body), StoreError> {
        let files = self.files.clone();
        let found = self
            .read(move |reader| {
                let (Some(message), Some(stored)) = (reader.message(id)?, reader.body(id)?) else {
                    return Ok(None);
                };
                let body = match stored {
                    Stored::Inline(bytes) => Body::in_memory(bytes, message.size, message.checksum),
                    Stored::File => Body::in_file(files, id, message.size, message.checksum),
                };
                Ok(Some((message, body)))
            })
            .await?;
        found.ok_or(StoreError::Unknown(id))
    }

    /// How much there is of each kind.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn overview(&self) -> Result<Overview, StoreError> {
        self.read(|reader| reader.overview(patience())).await
    }

    pub(super) fn files(&self) -> &SpoolFiles {
        &self.files
    }

    /// How long the oldest messages wait.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn ages(&self) -> Result<Ages, StoreError> {
        self.read(QueueReader::ages).await
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&QueueReader) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = self.reader.clone();
        let answer = tokio::task::spawn_blocking(move || {
            // A question that panicked has left nothing half done: the connection only reads.
            question(&reader.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match answer.await {
            Ok(answer) => answer.map_err(|error| StoreError::Db(Arc::new(error))),
            Err(_) => Err(StoreError::Closing),
        }
    }
}

fn patience() -> impl FnMut() -> bool {
    let until = Instant::now() + PATIENCE;
    move || Instant::now() < until
}
