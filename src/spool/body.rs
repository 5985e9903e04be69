//! The body of a message as the queue hands it on: its beginning in one piece, the rest as a stream.

use super::disk::Reading;
use super::spool_files::SpoolFiles;
use crate::mail::QueueId;
use bytes::Bytes;
use std::io::{self, Read};

/// The stored body of a message. Cheap to clone; reading it does not change it.
#[derive(Clone, Debug)]
pub struct Body {
    source: Source,
    size: u64,
    checksum: u32,
}

#[derive(Clone, Debug)]
enum Source {
    Memory(Bytes),
    File(SpoolFiles, QueueId),
}

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The file is missing or the disk fails.
    #[error("the stored message cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not what was stored.
    #[error("the stored message is damaged: its checksum does not match")]
    Damaged,
}

impl BodyError {
    /// True if reading it again will not help: the file is gone or is not what was stored.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Damaged => true,
            Self::Io(error) => matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
            ),
        }
    }
}

/// The pieces of a body, one after the other, in bounded memory.
#[derive(Debug)]
pub struct Pieces {
    source: PieceSource,
    left: u64,
    hasher: crc32fast::Hasher,
    checksum: u32,
}

#[derive(Debug)]
enum PieceSource {
    Memory(Bytes),
    File(Box<dyn Reading>),
}

/// Octets in a piece: large enough that reading costs little, a multiple of three so that base64 needs no carry.
const PIECE: usize = 96 * 1024;

impl Body {
    pub(super) fn in_memory(bytes: Bytes, size: u64, checksum: u32) -> Self {
        Self {
            source: Source::Memory(bytes),
            size,
            checksum,
        }
    }

    pub(super) fn in_file(files: SpoolFiles, id: QueueId, size: u64, checksum: u32) -> Self {
        Self {
            source: Source::File(files, id),
            size,
            checksum,
        }
    }

    /// Octets in all.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The first octets, at most `limit`. Blocks on the disk: call it where that is allowed.
    ///
    /// # Errors
    /// [`BodyError::Io`].
    pub fn beginning(&self, limit: usize) -> Result<Bytes, BodyError> {
        match &self.source {
            Source::Memory(bytes) => Ok(bytes.slice(..bytes.len().min(limit))),
            Source::File(files, id) => {
                let mut beginning = Vec::new();
                files
                    .open_body(*id)?
                    .take(limit as u64)
                    .read_to_end(&mut beginning)?;
                Ok(Bytes::from(beginning))
            }
        }
    }

    /// The body from octet `offset` on. What comes before is read all the same, for the checksum.
    ///
    /// Blocks on the disk.
    ///
    /// # Errors
    /// [`BodyError::Io`], and [`BodyError::Damaged`] if the size is not what was stored.
    pub fn pieces(&self, offset: u64) -> Result<Pieces, BodyError> {
        let mut hasher = crc32fast::Hasher::new();
        let source = match &self.source {
            Source::Memory(bytes) => {
                let skipped = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                if bytes.len() as u64 != self.size {
                    return Err(BodyError::Damaged);
                }
                hasher.update(&bytes[..skipped]);
                PieceSource::Memory(bytes.slice(skipped..))
            }
            Source::File(files, id) => {
                let mut file = files.open_body(*id)?;
                if files.body_size(*id)? != self.size {
                    return Err(BodyError::Damaged);
                }
                let mut beginning = Vec::new();
                (&mut file).take(offset).read_to_end(&mut beginning)?;
                hasher.update(&beginning);
                PieceSource::File(file)
            }
        };
        Ok(Pieces {
            source,
            left: self.size.saturating_sub(offset),
            hasher,
            checksum: self.checksum,
        })
    }
}

impl Pieces {
    /// Octets still to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next piece, or `None` at the end. Blocks on the disk.
    ///
    /// # Errors
    /// [`BodyError::Io`]; [`BodyError::Damaged`] *instead of* the last piece if the checksum of the whole body is
    /// wrong, so that a damaged message never leaves us whole.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, BodyError> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE);
        if want == 0 {
            return Ok(None);
        }
        let piece = match &mut self.source {
            PieceSource::Memory(bytes) => bytes.split_to(want),
            PieceSource::File(file) => {
                let mut piece = vec![0; want];
                file.read_exact(&mut piece)?;
                Bytes::from(piece)
            }
        };
        self.hasher.update(&piece);
        self.left -= want as u64;
        if self.left == 0 && self.hasher.clone().finalize() != self.checksum {
            return Err(BodyError::Damaged);
        }
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Timestamp;
    use crate::spool::disk::RealDisk;
    use std::sync::Arc;

    /// The files of a spool, and the name and place of a body in it.
    fn place(directory: &std::path::Path) -> (SpoolFiles, QueueId, std::path::PathBuf) {
        let files = SpoolFiles::prepare(directory, Arc::new(RealDisk), 0).unwrap();
        let id = QueueId::new(Timestamp::from_millis(1_800_000_000_000));
        let path = files.body_path(id);
        (files, id, path)
    }

    fn all(mut pieces: Pieces) -> Result<Vec<u8>, BodyError> {
        let mut out = Vec::new();
        while let Some(piece) = pieces.next_piece()? {
            assert_eq!(piece.len() % 3 * usize::from(pieces.left() > 0), 0);
            out.extend_from_slice(&piece);
        }
        Ok(out)
    }

    #[test]
    fn a_body_reads_the_same_from_memory_and_from_a_file_from_any_offset() {
        let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        let checksum = crc32fast::hash(&bytes);
        let dir = tempfile::tempdir().unwrap();
        let (files, id, path) = place(dir.path());
        std::fs::write(&path, &bytes).unwrap();
        let size = bytes.len() as u64;
        for body in [
            Body::in_memory(Bytes::from(bytes.clone()), size, checksum),
            Body::in_file(files, id, size, checksum),
        ] {
            for offset in [0, 1, 77, 65_536, 300_000] {
                assert!(all(body.pieces(offset as u64).unwrap()).unwrap() == bytes[offset..]);
            }
            assert_eq!(body.beginning(10).unwrap(), bytes[..10]);
            assert_eq!(body.beginning(1_000_000).unwrap().len(), bytes.len());
        }
    }

    #[test]
    fn damage_is_found_before_the_last_piece_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let (files, id, path) = place(dir.path());
        std::fs::write(&path, b"hellO").unwrap();
        let checksum = crc32fast::hash(b"hello");
        assert!(matches!(
            all(Body::in_file(files.clone(), id, 5, checksum).pieces(2).unwrap()),
            Err(BodyError::Damaged)
        ));
        std::fs::write(&path, b"hell").unwrap();
        assert!(matches!(
            Body::in_file(files, id, 5, checksum).pieces(0),
            Err(BodyError::Damaged)
        ));
    }
}
