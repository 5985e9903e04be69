//! A disk in memory, for tests: it fails where it is told to, and knows what a power loss may leave of it.
//!
//! It keeps a journal of the steps that were taken. A write is certainly on the disk after the next sync of its file, a
//! name after the next sync of its directory. Of everything else a power loss may leave any part, and of a write either
//! half: [`Journal::unsynced`] and [`Journal::outline`].
//!
//! The database is a second party, which keeps its own promises: with each step a copy of its files is taken.

use super::disk::{Disk, DiskFile, Reading};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct MemoryDisk(Arc<Mutex<State>>);

/// What a disk holds: names and contents.
pub(super) type Image = BTreeMap<PathBuf, Vec<u8>>;

/// Which files a disk holds, without their contents.
pub(super) type Outline = BTreeMap<PathBuf, Origin>;

/// Where a file comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// It was there at the beginning, under this name.
    Before(PathBuf),
    /// Of this number, with what these steps wrote.
    Created(usize, Vec<usize>),
}

#[derive(Debug, Default)]
struct State {
    /// Where the database is, on the real disk.
    database: PathBuf,
    names: BTreeMap<PathBuf, usize>,
    contents: Vec<Vec<u8>>,
    fault: Option<Fault>,
    free: Option<u64>,
    /// The steps so far that could have failed, and on what.
    taken: Vec<String>,
    journal: Journal,
}

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    /// At the step of this number.
    pub(super) at: usize,
    pub(super) kind: FaultKind,
    /// From then on, and not only once.
    pub(super) lasting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// EIO; nothing was done.
    Broken,
    /// ENOSPC; nothing was done.
    Full,
    /// ENOSPC after half of a write.
    FullHalfway,
    /// Half of a write is taken, and that is said.
    Short,
}

/// A step, or something that the test wants to remember between two.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Create(PathBuf, usize),
    Write(usize, usize, Vec<u8>),
    Sync(usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
    SyncDirectory(PathBuf),
    Note(Note),
}

/// What became of a message, by its number in the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Accepted(usize),
    Refused(usize),
    Releasing(usize),
    Released(usize),
}

/// What happened, and how the database was at each moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    pub(super) steps: Vec<Step>,
    /// After each step, which of `databases`.
    pub(super) at: Vec<usize>,
    /// queue.db and queue.db-wal.
    pub(super) databases: Vec<[Vec<u8>; 2]>,
}

impl MemoryDisk {
    /// A disk with these files, beside a database in the directory `database`.
    pub(super) fn new(image: Image, database: &Path) -> Self {
        let (names, contents) = image
            .into_iter()
            .enumerate()
            .map(|(n, (path, content))| ((path, n), content))
            .unzip();
        Self(Arc::new(Mutex::new(State {
            database: database.to_owned(),
            names,
            contents,
            ..State::default()
        })))
    }

    /// What it holds now.
    pub(super) fn image(&self) -> Image {
        let state = self.state();
        let content = |(path, n): (&PathBuf, &usize)| (path.clone(), state.contents[*n].clone());
        state.names.iter().map(content).collect()
    }

    /// Sets or ends a fault, and begins to count anew.
    pub(super) fn set_fault(&self, fault: Option<Fault>) {
        let mut state = self.state();
        state.fault = fault;
        state.taken.clear();
    }

    /// Says how much room there is. It does not change by what is written.
    pub(super) fn set_free(&self, octets: u64) {
        self.state().free = Some(octets);
    }

    /// The steps since the last [`MemoryDisk::set_fault`].
    pub(super) fn taken(&self) -> Vec<String> {
        self.state().taken.clone()
    }

    /// Adds to the journal what became of a message.
    pub(super) fn note(&self, note: Note) {
        self.state().record(Step::Note(note));
    }

    /// Everything since the disk was made.
    pub(super) fn journal(&self) -> Journal {
        self.state().journal.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// Counts a step, and fails it if it is to fail. Half a write is the writer's business.
    fn step(&mut self, name: &str, path: &Path) -> io::Result<()> {
        match self.fault_now(name, path) {
            None | Some(FaultKind::Short | FaultKind::FullHalfway) => Ok(()),
            Some(kind) => Err(error(kind)),
        }
    }

    fn fault_now(&mut self, name: &str, path: &Path) -> Option<FaultKind> {
        let number = self.taken.len();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        self.taken.push(format!("{name} {file}"));
        let due = |fault: &Fault| fault.at == number || fault.lasting && number > fault.at;
        self.fault.filter(due).map(|fault| fault.kind)
    }

    fn record(&mut self, step: Step) {
        let read = |name| std::fs::read(self.database.join(name)).unwrap_or_default();
        let database = [read("queue.db"), read("queue.db-wal")];
        let journal = &mut self.journal;
        if journal.databases.last() != Some(&database) {
            journal.databases.push(database);
        }
        journal.steps.push(step);
        journal.at.push(journal.databases.len() - 1);
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names
            .get(path)
            .copied()
            .ok_or(io::ErrorKind::NotFound.into())
    }
}

fn error(kind: FaultKind) -> io::Error {
    match kind {
        FaultKind::Broken => io::Error::from_raw_os_error(5), // EIO
        FaultKind::Full | FaultKind::FullHalfway | FaultKind::Short => io::ErrorKind::StorageFull.into(),
    }
}

impl Disk for MemoryDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.state().step("make_directory", path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.step("create", path)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = state.contents.len();
        state.contents.push(Vec::new());
        state.names.insert(path.to_owned(), number);
        state.record(Step::Create(path.to_owned(), number));
        Ok(Box::new(MemoryFile {
            disk: self.clone(),
            path: path.to_owned(),
            number,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Reading>> {
        let mut state = self.state();
        state.step("open", path)?;
        let number = state.find(path)?;
        Ok(Box::new(Cursor::new(state.contents[number].clone())))
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.state();
        state.step("size", path)?;
        let number = state.find(path)?;
        Ok(state.contents[number].len() as u64)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step("rename", from)?;
        let number = state.find(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), number);
        state.record(Step::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step("unlink", path)?;
        state.find(path)?;
        state.names.remove(path);
        state.record(Step::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step("sync_directory", path)?;
        state.record(Step::SyncDirectory(path.to_owned()));
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.state();
        state.step("list", directory)?;
        let inside = |path: &&PathBuf| path.parent() == Some(directory);
        Ok(state.names.keys().filter(inside).cloned().collect())
    }

    fn free(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.state();
        state.step("free", path)?;
        Ok(state.free.unwrap_or(u64::MAX))
    }

    fn lock(&self, path: &Path) -> Result<File, TryLockError> {
        self.state().step("lock", path).map_err(TryLockError::Error)?;
        super::disk::RealDisk.lock(path)
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    path: PathBuf,
    number: usize,
}

impl Write for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        let fault = state.fault_now("write", &self.path);
        let taken = match fault {
            None => bytes,
            Some(kind @ (FaultKind::Broken | FaultKind::Full)) => return Err(error(kind)),
            Some(FaultKind::FullHalfway | FaultKind::Short) => &bytes[..bytes.len().div_ceil(2)],
        };
        let offset = state.contents[self.number].len();
        state.contents[self.number].extend_from_slice(taken);
        // A power loss may leave either half.
        let (first, second) = taken.split_at(taken.len() / 2);
        state.record(Step::Write(self.number, offset, first.to_vec()));
        state.record(Step::Write(self.number, offset + first.len(), second.to_vec()));
        match fault {
            Some(FaultKind::FullHalfway) => Err(error(FaultKind::Full)),
            _ => Ok(taken.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.step("sync", &self.path)?;
        state.record(Step::Sync(self.number));
        Ok(())
    }
}

impl Journal {
    /// Of the first `length` steps, the numbers of those that a power loss may undo.
    pub(super) fn unsynced(&self, length: usize) -> Vec<usize> {
        let (mut files, mut directories) = (BTreeSet::new(), BTreeSet::new());
        let mut unsynced = Vec::new();
        let parent = |path: &Path| path.parent().unwrap_or(path).to_owned();
        for (number, step) in self.steps[..length].iter().enumerate().rev() {
            let durable = match step {
                Step::Sync(file) => {
                    files.insert(*file);
                    true
                }
                Step::SyncDirectory(path) => {
                    directories.insert(path.clone());
                    true
                }
                Step::Note(_) => true,
                Step::Write(file, ..) => files.contains(file),
                Step::Create(path, _) | Step::Unlink(path) | Step::Rename(_, path) => {
                    directories.contains(&parent(path))
                }
            };
            if !durable {
                unsynced.push(number);
            }
        }
        unsynced.reverse();
        unsynced
    }

    /// Which files are on the disk if of the first `length` steps those of the numbers `undone` never came there. It
    /// began with `before`.
    pub(super) fn outline(&self, before: &Image, length: usize, undone: &BTreeSet<usize>) -> Outline {
        let mut names: BTreeMap<PathBuf, Origin> = before
            .keys()
            .map(|path| (path.clone(), Origin::Before(path.clone())))
            .collect();
        let mut writes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, step) in self.steps[..length].iter().enumerate() {
            if undone.contains(&number) {
                continue;
            }
            match step {
                Step::Create(path, file) => {
                    names.insert(path.clone(), Origin::Created(*file, Vec::new()));
                }
                Step::Write(file, ..) => writes.entry(*file).or_default().push(number),
                Step::Rename(from, to) => {
                    if let Some(origin) = names.remove(from) {
                        names.insert(to.clone(), origin);
                    }
                }
                Step::Unlink(path) => {
                    names.remove(path);
                }
                Step::Sync(_) | Step::SyncDirectory(_) | Step::Note(_) => {}
            }
        }
        for origin in names.values_mut() {
            if let Origin::Created(file, written) = origin {
                *written = writes.get(file).cloned().unwrap_or_default();
            }
        }
        names
    }

    /// The files of an outline with their contents.
    pub(super) fn image(&self, before: &Image, outline: &Outline) -> Image {
        let content = |origin: &Origin| match origin {
            Origin::Before(path) => before[path].clone(),
            Origin::Created(_, writes) => {
                let mut content = Vec::new();
                for number in writes {
                    if let Step::Write(_, offset, bytes) = &self.steps[*number] {
                        let end = offset + bytes.len();
                        // What lies before a write that came alone reads as zeros.
                        content.resize(content.len().max(end), 0);
                        content[*offset..end].copy_from_slice(bytes);
                    }
                }
                content
            }
        };
        outline
            .iter()
            .map(|(path, origin)| (path.clone(), content(origin)))
            .collect()
    }
}
