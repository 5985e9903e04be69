//! Taking over a message from a file, under the name that it has.

use super::intake::{AcceptError, Draft};
use super::operator::Operator;
use super::store::StoreError;
use crate::db::record::Message;

/// A message that is being taken over. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Importing {
    draft: Draft,
    expected: Message,
}

/// Why a message was not taken over. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Its text is not the one that belongs to the envelope.
    #[error(
        "the message is damaged, or belongs to another envelope: it has {found} octets with the checksum {checksum:08x}, \
         and the envelope says {} octets with {:08x}", .expected.0, .expected.1
    )]
    Damaged {
        /// Octets that came.
        found: u64,
        /// Their CRC-32.
        checksum: u32,
        /// What the envelope says of both.
        expected: (u64, u32),
    },
    /// The spool.
    #[error(transparent)]
    Accept(#[from] AcceptError),
}

impl Operator {
    /// Begins to take a message over; `None` if it is in the queue already.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn import(&self, message: Message) -> Result<Option<Importing>, StoreError> {
        let id = message.id;
        if self.inspector.read(move |reader| reader.contains(id)).await? {
            return Ok(None);
        }
        Ok(Some(Importing {
            draft: self.intake.begin_as(id, message.arrived),
            expected: message,
        }))
    }
}

impl Importing {
    /// Adds to the text.
    ///
    /// # Errors
    /// [`ImportError`]; drop it then.
    ///
    /// # Cancellation
    /// Not safe: drop it after a cancelled call.
    pub async fn write(&mut self, octets: &[u8]) -> Result<(), ImportError> {
        Ok(self.draft.write(octets).await?)
    }

    /// Takes responsibility for the message, if it is whole; `events` are told to the history in the same transaction.
    ///
    /// # Errors
    /// [`ImportError`]; nothing is left behind.
    pub async fn finish(self, events: Vec<String>) -> Result<Message, ImportError> {
        let Self { draft, expected } = self;
        let (found, checksum) = (draft.size(), draft.checksum());
        if (found, checksum) != (expected.size, expected.checksum) {
            return Err(ImportError::Damaged {
                found,
                checksum,
                expected: (expected.size, expected.checksum),
            });
        }
        Ok(draft
            .accept_telling(expected.envelope, expected.origin, events)
            .await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::tests::{accept, body_files, close, open, read_back, text};
    use crate::spool::{read_envelope, write_envelope};
    use tempfile::TempDir;

    #[tokio::test]
    async fn a_message_is_taken_over_once_and_only_whole() {
        let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (old, new) = (open(from.path()), open(to.path()));
        for octets in [500, 150_000] {
            let message = accept(&old, &text(octets), 3).await;
            let (_, body) = read_back(&old, message.id).await;
            let envelope = read_envelope(&write_envelope(&message)).unwrap();
            let operator = new.operator();
            for damaged in [&body[..octets - 1], &[&body[1..], b"?"].concat()] {
                let mut importing = operator.import(envelope.clone()).await.unwrap().unwrap();
                importing.write(damaged).await.unwrap();
                let error = importing.finish(Vec::new()).await.unwrap_err();
                assert!(matches!(error, ImportError::Damaged { .. }), "{error}");
                assert!(operator.inspector().details(message.id).await.is_err());
                assert!(body_files(to.path()).is_empty());
            }
            let mut importing = operator.import(envelope.clone()).await.unwrap().unwrap();
            for piece in body.chunks(40_000) {
                importing.write(piece).await.unwrap();
            }
            let told = vec!["imported".to_owned()];
            assert_eq!(importing.finish(told).await.unwrap(), message);
            let outbox = new.store().outbox(100).await.unwrap();
            assert_eq!(outbox.last().unwrap().1, "imported");
            assert_eq!(read_back(&new, message.id).await, (message, body));
            assert!(operator.import(envelope).await.unwrap().is_none(), "it is there");
            drop(operator);
            let operator = new.operator();
            let all = crate::spool::Search {
                limit: 10,
                ..crate::spool::Search::default()
            };
            for id in operator.inspector().ids(all).await.unwrap().0 {
                let delete = crate::spool::Change {
                    message: id,
                    order: crate::spool::Order::Delete,
                    at: crate::spool::tests::NOW,
                    events: Vec::new(),
                    reports: crate::spool::Reports::default(),
                };
                operator.change(delete).await.unwrap();
            }
        }
        close(old);
        close(new);
    }
}
