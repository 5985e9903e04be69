//! Every step that touches a file of the spool. SQLite's own files are its own business.

use crate::files::make_private_directory;
use crate::mail::QueueId;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The files of one spool directory.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    root: PathBuf,
}

/// Octets in `reserve`.
const RESERVE: u64 = 16 * 1024 * 1024;

impl Disk {
    /// Makes the directories that are missing and syncs them, so that later only the shard of a new body has to
    /// be synced.
    pub(super) fn prepare(root: &Path) -> io::Result<Self> {
        let disk = Self {
            root: root.to_owned(),
        };
        make_private_directory(root)?;
        make_private_directory(&disk.corrupt())?;
        make_private_directory(&root.join("body"))?;
        for shard in 0..64 {
            make_private_directory(&disk.shard(shard))?;
        }
        sync_dir(&root.join("body"))?;
        sync_dir(root)?;
        // The spool's directory, and the state directory that may be as new.
        for parent in root
            .ancestors()
            .skip(1)
            .take(2)
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            sync_dir(parent)?;
        }
        Ok(disk)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.root.join("queue.db")
    }

    pub(super) fn corrupt(&self) -> PathBuf {
        self.root.join("corrupt")
    }

    pub(super) fn body_path(&self, id: QueueId) -> PathBuf {
        self.shard(id.shard()).join(format!("{id}.eml"))
    }

    fn envelope_path(&self, id: QueueId) -> PathBuf {
        self.shard(id.shard()).join(format!("{id}.env"))
    }

    fn shard(&self, shard: u8) -> PathBuf {
        self.root.join("body").join(format!("{shard:02x}"))
    }

    /// The lock that a running daemon holds; released when the file is dropped, also by a kill.
    pub(super) fn lock(&self) -> Result<File, fs::TryLockError> {
        let path = self.root.join("lock");
        let file = private()
            .truncate(false)
            .open(path)
            .map_err(fs::TryLockError::Error)?;
        file.try_lock()?;
        Ok(file)
    }

    /// The id of this spool, or `None` if the spool is new.
    pub(super) fn read_id(&self) -> io::Result<Option<[u8; 16]>> {
        match fs::read_to_string(self.root.join("id")) {
            Ok(text) => Ok(text.trim().parse::<QueueId>().ok().map(|id| *id.as_bytes())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write_id(&self, id: [u8; 16]) -> io::Result<()> {
        let temporary = self.root.join("id.new");
        let mut file = private().truncate(true).open(&temporary)?;
        file.write_all(format!("{}\n", QueueId::from_bytes(id)).as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, self.root.join("id"))?;
        sync_dir(&self.root)
    }

    /// Step 1 of a large body: a new file.
    pub(super) fn create_body(&self, id: QueueId) -> io::Result<File> {
        private().create_new(true).open(self.body_path(id))
    }

    /// Steps 3 to 5 of a large body, after its last octet was written: everything on the disk, including the
    /// names of the files.
    pub(super) fn seal_body(&self, id: QueueId, body: &File, envelope: &[u8]) -> io::Result<()> {
        body.sync_all()?;
        let mut file = private().create_new(true).open(self.envelope_path(id))?;
        file.write_all(envelope)?;
        file.sync_all()?;
        sync_dir(&self.shard(id.shard()))
    }

    /// Removes a large body and its envelope where they exist. Not synced: what comes back after a power loss is
    /// swept.
    pub(super) fn remove_body(&self, id: QueueId) -> io::Result<()> {
        for path in [self.body_path(id), self.envelope_path(id)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// All files below `body/`.
    pub(super) fn body_files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for shard in 0..64 {
            for entry in fs::read_dir(self.shard(shard))? {
                files.push(entry?.path());
            }
        }
        Ok(files)
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
            if !target.exists() {
                break;
            }
            target = self.corrupt().join(format!("{name}.{number}"));
        }
        fs::rename(path, &target)?;
        sync_dir(&self.corrupt())?;
        Ok(target)
    }

    /// Makes the reserve if there is none.
    pub(super) fn fill_reserve(&self) -> io::Result<()> {
        let path = self.root.join("reserve");
        if path.metadata().is_ok_and(|m| m.len() == RESERVE) {
            return Ok(());
        }
        let mut file = private().truncate(true).open(&path)?;
        // Written out: a sparse file would reserve nothing.
        let zeros = vec![0u8; 1024 * 1024];
        let filled = (0..RESERVE / zeros.len() as u64).try_for_each(|_| file.write_all(&zeros));
        if filled.and_then(|()| file.sync_all()).is_err() {
            fs::remove_file(&path)?;
        }
        Ok(())
    }

    /// Gives the reserve back to the file system. True if there was one.
    pub(super) fn give_up_reserve(&self) -> bool {
        fs::remove_file(self.root.join("reserve")).is_ok()
    }

    /// Octets that may still be written on this file system.
    pub(super) fn free(&self) -> io::Result<u64> {
        free_space(&self.root)
    }
}

#[cfg(unix)]
fn free_space(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(not(unix))]
fn free_space(_: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes the names in a directory durable. Windows has no such call, and does it by itself.
fn sync_dir(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(path)?.sync_all()
    } else {
        Ok(())
    }
}
