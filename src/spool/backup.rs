//! A copy of the whole spool as it stands at one moment, while mail comes in and goes out.
//!
//! The database is copied first, in one read transaction. Then come the bodies that this copy says are files: they never
//! change. What was sent or deleted meanwhile has no body any more, and is taken out of the copy, which comes last. So
//! every message in the archive is whole. What was accepted after the first moment is not in it.

use super::envelope_file::write_envelope;
use super::inspector::Inspector;
use super::spool_files::SpoolFiles;
use super::tar::{END, Entry, header, padding};
use crate::db::{DbError, QueueReader, QueueWriter};
use crate::mail::QueueId;
use crate::mail::Timestamp;
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// What a backup has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackedUp {
    /// Messages in it.
    pub messages: u64,
    /// Messages whose body is lost: they are in the queue and in the backup, without it.
    pub without_body: u64,
}

/// Names that are looked at together.
const STEP: usize = 1000;

/// A copy of the database beside it, which goes away with this value.
struct Copy {
    files: SpoolFiles,
    path: PathBuf,
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = self.files.remove_copy(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the copy that a backup needed could not be removed");
        }
    }
}

impl Inspector {
    /// Writes a tar archive of the spool to `out`: unpacked into an empty `state_dir`, it is that spool. Blocks on the
    /// disk, and needs as much of it as `queue.db` takes.
    ///
    /// # Errors
    /// Those of the disk, of the database and of `out`; what was written until then is no archive.
    pub fn backup(&self, out: &mut dyn Write, now: Timestamp) -> io::Result<BackedUp> {
        let files = self.files();
        // A connection of its own: this takes longer than others want to wait.
        let live = QueueReader::open(&files.database()).map_err(io::Error::other)?;
        let copy = Copy {
            path: files.copy_path(QueueId::new(now)),
            files: files.clone(),
        };
        live.copy_to(&copy.path).map_err(io::Error::other)?;
        let mut done = BackedUp::default();
        let mut directory = |path: &str| out.write_all(&header(path, Entry::Directory, now));
        directory("spool/")?;
        directory("spool/body/")?;
        (0..64).try_for_each(|shard| directory(&format!("spool/body/{shard:02x}/")))?;
        let gone = write_bodies(files, &live, &copy, out, &mut done, now)?;
        let id = take_out(&copy, &gone).map_err(io::Error::other)?;
        done.messages = id.1.saturating_sub(gone.len() as u64);
        let text = format!("{}\n", QueueId::from_bytes(id.0));
        write_file(out, "spool/id", text.len() as u64, &mut text.as_bytes(), now)?;
        let size = files.size(&copy.path)?;
        write_file(out, "spool/queue.db", size, &mut files.open(&copy.path)?, now)?;
        out.write_all(&END)?;
        Ok(done)
    }
}

/// Writes the bodies that are files. Answers the messages that went away in the meantime.
fn write_bodies(
    files: &SpoolFiles,
    live: &QueueReader,
    copy: &Copy,
    out: &mut dyn Write,
    done: &mut BackedUp,
    now: Timestamp,
) -> io::Result<Vec<QueueId>> {
    let copied = QueueReader::open(&copy.path).map_err(io::Error::other)?;
    let (mut after, mut gone) = (QueueId::from_bytes([0; 16]), Vec::new());
    loop {
        let ids = copied.with_body_files(after, STEP).map_err(io::Error::other)?;
        let Some(last) = ids.last() else { return Ok(gone) };
        after = *last;
        for id in ids {
            let opened = files
                .body_size(id)
                .and_then(|size| Ok((size, files.open_body(id)?)));
            let (size, mut body) = match opened {
                Ok(opened) => opened,
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Err(_) if live.contains(id).map_err(io::Error::other)? => {
                    done.without_body += 1;
                    continue;
                }
                Err(_) => {
                    gone.push(id);
                    continue;
                }
            };
            let name = format!("spool/body/{:02x}/{id}", id.shard());
            write_file(out, &format!("{name}.eml"), size, &mut body, now)?;
            // A damaged record has no envelope, but its body is there.
            if let Ok(Some(message)) = copied.message(id) {
                let text = write_envelope(&message);
                write_file(
                    out,
                    &format!("{name}.env"),
                    text.len() as u64,
                    &mut text.as_bytes(),
                    now,
                )?;
            }
        }
    }
}

/// Takes messages out of the copy. Answers the id of its spool, and how many messages it had.
fn take_out(copy: &Copy, gone: &[QueueId]) -> Result<([u8; 16], u64), DbError> {
    let mut db =
        QueueWriter::open(&copy.path, [0; 16]).map_err(|error| DbError::Unavailable(error.to_string()))?;
    let (_, messages) = QueueReader::open(&copy.path)?.totals()?;
    db.begin()?;
    db.remove(gone)?;
    db.commit()?;
    Ok((db.spool_id(), messages))
}

fn write_file(
    out: &mut dyn Write,
    path: &str,
    size: u64,
    content: &mut dyn Read,
    now: Timestamp,
) -> io::Result<()> {
    out.write_all(&header(path, Entry::File(size), now))?;
    if io::copy(&mut content.take(size), out)? != size {
        return Err(io::Error::other(format!(
            "{path} became shorter while it was copied"
        )));
    }
    out.write_all(padding(size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Order;
    use crate::spool::tests::{accept, close, open, read_back, text};
    use crate::spool::{Change, Reports};
    use tempfile::TempDir;

    /// The files of an archive, by their names.
    fn unpacked(archive: &[u8]) -> std::collections::BTreeMap<String, Vec<u8>> {
        let (mut at, mut files) = (0, std::collections::BTreeMap::new());
        while archive[at] != 0 {
            let block = &archive[at..at + 512];
            let end = block.iter().position(|octet| *octet == 0).unwrap();
            let name = String::from_utf8(block[..end].to_vec()).unwrap();
            let size = usize::from_str_radix(std::str::from_utf8(&block[124..135]).unwrap(), 8).unwrap();
            if block[156] == b'0' {
                files.insert(name, archive[at + 512..at + 512 + size].to_vec());
            }
            at += 512 + size.div_ceil(512) * 512;
        }
        assert!(archive[at..].iter().all(|octet| *octet == 0));
        files
    }

    /// Sends a message away as soon as the first body comes along, when the database is copied already.
    struct Meddler<'a> {
        archive: Vec<u8>,
        meddle: Option<Box<dyn FnOnce() + 'a>>,
    }

    impl Write for Meddler<'_> {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            if octets.starts_with(b"spool/body/3f/")
                && let Some(meddle) = self.meddle.take()
            {
                meddle();
            }
            self.archive.extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backup_is_a_spool_in_which_every_message_is_whole() {
        let dir = TempDir::new().unwrap();
        let spool = open(dir.path());
        let small = accept(&spool, &text(300), 2).await;
        let large = accept(&spool, &text(300_000), 1).await;
        let fleeting = accept(&spool, &text(200_000), 1).await;
        let operator = spool.operator();
        let runtime = tokio::runtime::Handle::current();
        let (archive, done) = tokio::task::spawn_blocking({
            let operator = operator.clone();
            move || {
                let delete = Change {
                    message: fleeting.id,
                    order: Order::Delete,
                    at: fleeting.arrived,
                    events: Vec::new(),
                    reports: Reports::default(),
                };
                let inspector = operator.inspector().clone();
                let mut out = Meddler {
                    archive: Vec::new(),
                    meddle: Some(Box::new(move || {
                        runtime.block_on(operator.change(delete)).unwrap();
                    })),
                };
                let done = inspector.backup(&mut out, fleeting.arrived).unwrap();
                (out.archive, done)
            }
        })
        .await
        .unwrap();
        assert_eq!((done.messages, done.without_body), (2, 0));
        drop(operator);
        close(spool);
        let names = |dir: &TempDir| {
            let entries = std::fs::read_dir(dir.path()).unwrap();
            entries
                .map(|entry| entry.unwrap().file_name())
                .collect::<Vec<_>>()
        };
        assert!(
            !names(&dir)
                .iter()
                .any(|name| name.to_string_lossy().starts_with("backup")),
            "nothing is left behind: {:?}",
            names(&dir)
        );

        let restored = TempDir::new().unwrap();
        for (name, content) in unpacked(&archive) {
            let path = restored.path().join(name.strip_prefix("spool/").unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let spool = open(restored.path());
        assert_eq!((spool.swept().messages, spool.swept().removed), (2, 0));
        assert!(!spool.swept().replaced, "the id is that of the database");
        assert_eq!(read_back(&spool, small.id).await, (small, text(300)));
        assert_eq!(read_back(&spool, large.id).await, (large, text(300_000)));
        close(spool);
    }
}
