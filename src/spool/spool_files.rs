//! The files of a spool: their names, and the order of the steps that make and remove them.

use super::disk::{Disk, DiskFile, Reading};
use crate::mail::QueueId;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of one spool directory. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct SpoolFiles {
    root: PathBuf,
    disk: Arc<dyn Disk>,
    reserve: u64,
}

/// Octets in `reserve`.
pub(super) const RESERVE: u64 = 16 * 1024 * 1024;

/// How the names of copies begin.
const COPY: &str = "backup-";

impl SpoolFiles {
    /// Makes the directories that are missing and syncs them, so that later only the shard of a new body has to
    /// be synced. `reserve` is the size of the reserve.
    pub(super) fn prepare(root: &Path, disk: Arc<dyn Disk>, reserve: u64) -> io::Result<Self> {
        let files = Self {
            root: root.to_owned(),
            disk,
            reserve,
        };
        let disk = &files.disk;
        disk.make_directory(root)?;
        disk.make_directory(&files.corrupt())?;
        disk.make_directory(&root.join("body"))?;
        for shard in 0..64 {
            disk.make_directory(&files.shard(shard))?;
        }
        disk.sync_directory(&root.join("body"))?;
        disk.sync_directory(root)?;
        // The spool's directory, and the state directory that may be as new.
        for parent in root
            .ancestors()
            .skip(1)
            .take(2)
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            disk.sync_directory(parent)?;
        }
        Ok(files)
    }

    /// Those of a spool that is there already, for reading.
    pub(super) fn at(root: &Path, disk: Arc<dyn Disk>) -> Self {
        Self {
            root: root.to_owned(),
            disk,
            reserve: RESERVE,
        }
    }

    pub(super) fn database(&self) -> PathBuf {
        super::database(&self.root)
    }

    pub(super) fn corrupt(&self) -> PathBuf {
        self.root.join("corrupt")
    }

    pub(super) fn body_path(&self, id: QueueId) -> PathBuf {
        self.shard(id.shard()).join(format!("{id}.eml"))
    }

    pub(super) fn envelope_path(&self, id: QueueId) -> PathBuf {
        self.shard(id.shard()).join(format!("{id}.env"))
    }

    fn shard(&self, shard: u8) -> PathBuf {
        self.root.join("body").join(format!("{shard:02x}"))
    }

    /// The lock that a running daemon holds; released when the file is dropped, also by a kill.
    pub(super) fn lock(&self) -> Result<File, TryLockError> {
        self.disk.lock(&self.root.join("lock"))
    }

    /// The id of this spool, or `None` if the spool is new, or the file says nothing that is an id.
    pub(super) fn read_id(&self) -> io::Result<Option<[u8; 16]>> {
        match self.read(&self.root.join("id")) {
            Ok(text) => Ok(std::str::from_utf8(&text)
                .ok()
                .and_then(|text| text.trim().parse::<QueueId>().ok())
                .map(|id| *id.as_bytes())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write_id(&self, id: [u8; 16]) -> io::Result<()> {
        let temporary = self.root.join("id.new");
        self.remove(&temporary)?;
        self.write_synced(&temporary, format!("{}\n", QueueId::from_bytes(id)).as_bytes())?;
        self.disk.rename(&temporary, &self.root.join("id"))?;
        self.disk.sync_directory(&self.root)
    }

    /// Step 1 of a large body: a new file.
    pub(super) fn create_body(&self, id: QueueId) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(&self.body_path(id))
    }

    /// Where a copy of the database lies while a backup is made.
    pub(super) fn copy_path(&self, id: QueueId) -> PathBuf {
        self.root.join(format!("{COPY}{id}.db"))
    }

    /// Removes such a copy, and what SQLite has left beside it.
    pub(super) fn remove_copy(&self, path: &Path) -> io::Result<()> {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut file = path.as_os_str().to_owned();
            file.push(suffix);
            self.remove(Path::new(&file))?;
        }
        Ok(())
    }

    /// Removes the copies of backups that a kill has interrupted.
    pub(super) fn remove_old_copies(&self) -> io::Result<()> {
        let is_copy = |path: &PathBuf| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(COPY))
        };
        let files = self.disk.list(&self.root)?;
        files
            .iter()
            .filter(|path| is_copy(path))
            .try_for_each(|path| self.remove(path))
    }

    /// Octets of any file of the spool.
    pub(super) fn size(&self, path: &Path) -> io::Result<u64> {
        self.disk.size(path)
    }

    /// Opens any file of the spool for reading.
    pub(super) fn open(&self, path: &Path) -> io::Result<Box<dyn Reading>> {
        self.disk.open(path)
    }

    /// Opens a body for reading.
    pub(super) fn open_body(&self, id: QueueId) -> io::Result<Box<dyn Reading>> {
        self.disk.open(&self.body_path(id))
    }

    /// Octets of a body's file.
    pub(super) fn body_size(&self, id: QueueId) -> io::Result<u64> {
        self.disk.size(&self.body_path(id))
    }

    /// Steps 3 to 5 of a large body, after its last octet was written: everything on the disk, including the
    /// names of the files.
    pub(super) fn seal_body(&self, id: QueueId, body: &mut dyn DiskFile, envelope: &[u8]) -> io::Result<()> {
        body.sync()?;
        self.write_synced(&self.envelope_path(id), envelope)?;
        self.disk.sync_directory(&self.shard(id.shard()))
    }

    /// Removes a large body and its envelope where they exist. Not synced: what comes back after a power loss is
    /// swept.
    pub(super) fn remove_body(&self, id: QueueId) -> io::Result<()> {
        let removed = self.remove(&self.body_path(id));
        // The second goes although the first could not.
        self.remove(&self.envelope_path(id)).and(removed)
    }

    /// All files below `body/`.
    pub(super) fn body_files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for shard in 0..64 {
            files.extend(self.disk.list(&self.shard(shard))?);
        }
        Ok(files)
    }

    /// All of a file.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.disk.open(path)?.read_to_end(&mut content)?;
        Ok(content)
    }

    /// Moves a file to `corrupt/`, under its own name and, if that is taken, with a number.
    pub(super) fn set_aside(&self, path: &Path) -> io::Result<PathBuf> {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut target = self.corrupt().join(&name);
        for number in 1.. {
            if !self.exists(&target) {
                break;
            }
            target = self.corrupt().join(format!("{name}.{number}"));
        }
        self.disk.rename(path, &target)?;
        self.disk.sync_directory(&self.corrupt())?;
        Ok(target)
    }

    /// A file beside queue.db.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Moves queue.db and its write-ahead log to `corrupt/`, under names that belong together; what of them is there.
    /// Answers where the first of them is now.
    pub(super) fn set_database_aside(&self) -> io::Result<PathBuf> {
        let names = |number: u32, suffix: &str| match number {
            0 => self.corrupt().join(format!("queue.db{suffix}")),
            _ => self.corrupt().join(format!("queue.db.{number}{suffix}")),
        };
        let log = self.root.join("queue.db-wal").exists();
        let free = |n: &u32| !(names(*n, "").exists() || log && names(*n, "-wal").exists());
        let number = (0..u32::MAX).find(free).unwrap_or(0);
        // The log first: after a kill in between, the database finds the same number.
        for suffix in ["-wal", ""] {
            let from = self.root.join(format!("queue.db{suffix}"));
            if from.exists() {
                self.disk.rename(&from, &names(number, suffix))?;
            }
        }
        // An index of the log, worth nothing without it.
        self.remove(&self.root.join("queue.db-shm"))?;
        self.disk.sync_directory(&self.corrupt())?;
        self.disk.sync_directory(&self.root)?;
        Ok(names(number, ""))
    }

    /// Gives a closed database another name.
    pub(super) fn rename_database(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(&self.root.join(from), &self.root.join(to))?;
        self.disk.sync_directory(&self.root)
    }

    /// Removes a database that is not needed, if it is there.
    pub(super) fn remove_database(&self, name: &str) -> io::Result<()> {
        for suffix in ["-wal", "-shm", ""] {
            self.remove(&self.root.join(format!("{name}{suffix}")))?;
        }
        Ok(())
    }

    /// Writes to `corrupt/` what is left of a message.
    pub(super) fn keep_remains(&self, id: QueueId, text: &[u8]) -> io::Result<()> {
        let path = self.corrupt().join(format!("{id}.eml"));
        self.remove(&path)?;
        self.write_synced(&path, text)
    }

    /// Remembers that queue.db seems to be damaged: the next start looks closely.
    pub(super) fn suspect_database(&self) {
        if !self.database_is_suspected()
            && let Err(error) = self.write_synced(&self.root.join("suspect"), b"")
        {
            tracing::warn!(%error, "that queue.db is damaged could not be noted");
        }
    }

    /// Whether [`SpoolFiles::suspect_database`] was called before this start.
    pub(super) fn database_is_suspected(&self) -> bool {
        self.exists(&self.root.join("suspect"))
    }

    /// The database is good, or is another one now.
    pub(super) fn acquit_database(&self) -> io::Result<()> {
        self.remove(&self.root.join("suspect"))
    }

    /// Makes the reserve if there is none.
    pub(super) fn fill_reserve(&self) -> io::Result<()> {
        let path = self.root.join("reserve");
        if self.has_reserve() {
            return Ok(());
        }
        self.remove(&path)?;
        let mut file = self.disk.create(&path)?;
        // Written out: a sparse file would reserve nothing.
        let zeros = vec![0u8; 1024 * 1024];
        let mut left = self.reserve;
        let mut filled = Ok(());
        while left > 0 && filled.is_ok() {
            let piece = left.min(zeros.len() as u64);
            filled = file.write_all(&zeros[..usize::try_from(piece).unwrap_or(zeros.len())]);
            left -= piece;
        }
        let filled = filled.and_then(|()| file.sync());
        if filled.is_err() {
            self.remove(&path)?;
        }
        filled
    }

    /// True if the reserve is there, and whole.
    pub(super) fn has_reserve(&self) -> bool {
        self.disk
            .size(&self.root.join("reserve"))
            .is_ok_and(|size| size == self.reserve)
    }

    /// Gives the reserve back to the file system. True if there was one.
    pub(super) fn give_up_reserve(&self) -> bool {
        self.disk.unlink(&self.root.join("reserve")).is_ok()
    }

    /// Octets that a whole reserve takes.
    pub(super) fn reserve_size(&self) -> u64 {
        self.reserve
    }

    /// Octets that may still be written on this file system.
    pub(super) fn free(&self) -> io::Result<u64> {
        self.disk.free(&self.root)
    }

    fn exists(&self, path: &Path) -> bool {
        self.disk.size(path).is_ok()
    }

    /// Removes a file if it is there.
    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.disk.unlink(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// A new file, with its content on the disk, but not yet its name.
    fn write_synced(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = self.disk.create(path)?;
        file.write_all(content)?;
        file.sync()
    }
}
