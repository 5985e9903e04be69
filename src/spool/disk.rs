//! The steps that the spool takes on a file system, one method each, so that tests can let each of them fail and can
//! play what a power loss leaves of them. SQLite's own files are its own business.

use crate::files::make_private_directory;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A file system. What is written is durable after [`DiskFile::sync`]; a name that was made, changed or removed is
/// durable after [`Disk::sync_directory`] of its directory.
pub(super) trait Disk: Debug + Send + Sync {
    /// Makes a directory with mode 0700 and those above it, where they are missing.
    fn make_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes a new file with mode 0600, for writing. One that is there is an error.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading, from its first octet on.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Reading>>;

    /// Octets of a file.
    fn size(&self, path: &Path) -> io::Result<u64>;

    /// Gives a file another name, in place of a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// The files in a directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// Octets that may still be written below `path`.
    fn free(&self, path: &Path) -> io::Result<u64>;

    /// Takes the lock of a spool; it is given up when the file is dropped, also by a kill.
    fn lock(&self, path: &Path) -> Result<File, fs::TryLockError>;
}

/// A new file that is being written. `write` may take less than it is given.
pub(super) trait DiskFile: Write + Debug + Send + Sync {
    /// Makes everything that was written durable, but not the file's name.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file that is being read.
pub(super) trait Reading: Read + Debug + Send + Sync {}

impl<T: Read + Debug + Send + Sync> Reading for T {}

/// The file system of this machine.
#[derive(Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        make_private_directory(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(private().create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Reading>> {
        Ok(Box::new(File::open(path)?))
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        // Windows has no such call, and does it by itself.
        if cfg!(unix) {
            File::open(path)?.sync_all()
        } else {
            Ok(())
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn free(&self, path: &Path) -> io::Result<u64> {
        free_space(path)
    }

    fn lock(&self, path: &Path) -> Result<File, fs::TryLockError> {
        let file = private()
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(fs::TryLockError::Error)?;
        file.try_lock()?;
        Ok(file)
    }
}

impl DiskFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
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
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
