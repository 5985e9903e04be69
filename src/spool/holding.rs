//! The queue runner's questions about what is held, and what it notes of it.

use super::store::{Store, StoreError};
use super::writer::Write;
use crate::db::record::PartId;
use crate::db::{Broken, Parts, QueueReader};
use crate::mail::Timestamp;

impl Store {
    /// What was broken when that was written last.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn broken(&self) -> Result<Vec<Broken>, StoreError> {
        self.read(QueueReader::broken).await
    }

    /// When the oldest message arrived that still waits for an account, or for one mailbox of it.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn oldest_waiting(
        &self,
        account: String,
        mailbox: Option<String>,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.read(move |reader| reader.oldest_waiting(&account, mailbox.as_deref()))
            .await
    }

    /// At most `limit` parts that wait for an account, or for one mailbox of it, whose messages arrived before `before`
    /// and of which nobody was told that they wait for too long; oldest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn waiting_since(
        &self,
        account: String,
        mailbox: Option<String>,
        before: Timestamp,
        limit: usize,
    ) -> Result<Parts, StoreError> {
        self.read(move |reader| reader.waiting_since(&account, mailbox.as_deref(), before, limit))
            .await
    }

    /// At most `limit` parts that wait for a person since before `before`, and of which nobody was told so.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn held_since(&self, before: Timestamp, limit: usize) -> Result<Parts, StoreError> {
        self.read(move |reader| reader.held_since(before, limit)).await
    }

    /// Remembers that an account, or one mailbox of it, is broken. What was broken already stays so since then.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn broke(&self, broken: Broken) -> Result<(), StoreError> {
        self.writer.write(Write::Broke(broken)).await?;
        Ok(())
    }

    /// Forgets that an account, or one mailbox of it, was broken.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn mended(&self, account: String, mailbox: Option<String>) -> Result<(), StoreError> {
        self.writer.write(Write::Mended(account, mailbox)).await?;
        Ok(())
    }

    /// Notes that what waits for a person, and has no such note, does so since `now`.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn note_held(&self, now: Timestamp) -> Result<(), StoreError> {
        self.writer.write(Write::NoteHeld(now)).await?;
        Ok(())
    }

    /// Notes that it was told of a part that it waits for too long: it waits for a person now.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn hold_told(&self, part: PartId) -> Result<(), StoreError> {
        self.writer.write(Write::HoldTold(part)).await?;
        Ok(())
    }
}
