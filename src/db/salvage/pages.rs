//! The pages of a damaged `queue.db` and of its write-ahead log, read without SQLite, which gives up where something is
//! wrong ("Database File Format" in SQLite's documentation, <https://www.sqlite.org/fileformat2.html>).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The newest version of each page that can be had.
#[derive(Debug)]
pub(super) struct Pages {
    database: Option<File>,
    /// The log's frames by page: where the page begins in the log.
    log: Option<(File, HashMap<u32, u64>)>,
    log_broken: bool,
    size: usize,
    /// Octets of a page that SQLite uses.
    usable: usize,
    count: u32,
    auto_vacuum: bool,
    /// Unused pages, if all of the list could be read.
    free: Option<HashSet<u32>>,
}

/// Whether a page is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Used,
    /// What stands there was deleted.
    Free,
    Unknown,
}

const HEADER: &[u8; 16] = b"SQLite format 3\0";

/// The size of a page in every database that this program makes.
const PAGE_SIZE: usize = 4096;

const LOG_HEADER: u64 = 32;
const FRAME_HEADER: usize = 24;

impl Pages {
    /// Opens what there is of the two files. Blocks on the disk.
    pub(super) fn open(database: &Path, log: &Path) -> io::Result<Self> {
        let database = if_there(File::open(database))?;
        let log = if_there(File::open(log))?;
        let mut pages = Self {
            database,
            log: None,
            log_broken: false,
            size: PAGE_SIZE,
            usable: PAGE_SIZE,
            count: 0,
            auto_vacuum: true,
            free: None,
        };
        if let Some(log) = log {
            let frames = Log::read(&log)?;
            pages.log_broken = frames.lost_commits > 0;
            pages.count = frames.pages.keys().max().copied().unwrap_or(0);
            pages.log = Some((log, frames.pages));
        }
        if let Some(file) = &pages.database {
            let length = u32::try_from(file.metadata()?.len().div_ceil(PAGE_SIZE as u64)).unwrap_or(u32::MAX);
            pages.count = pages.count.max(length);
        }
        if let Some(first) = pages.page(1).filter(|first| first.starts_with(HEADER)) {
            pages.usable = PAGE_SIZE - usize::from(first[20]).min(PAGE_SIZE / 2);
            pages.auto_vacuum = number(&first, 52) != 0;
            pages.free = pages.free_list(number(&first, 32), number(&first, 36));
        }
        Ok(pages)
    }

    /// The number of the last page.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Octets of a page that SQLite uses.
    pub(super) fn usable(&self) -> usize {
        self.usable
    }

    /// True if something in the middle of the log is lost, so that pages may be older than they were.
    pub(super) fn log_broken(&self) -> bool {
        self.log_broken
    }

    /// A page, from 1; `None` if it cannot be read.
    pub(super) fn page(&self, number: u32) -> Option<Vec<u8>> {
        let mut page = vec![0; self.size];
        let (mut file, offset) = match &self.log {
            Some((log, pages)) if pages.contains_key(&number) => (log, pages[&number]),
            _ => (
                self.database.as_ref()?,
                u64::from(number.checked_sub(1)?) * self.size as u64,
            ),
        };
        file.seek(SeekFrom::Start(offset)).ok()?;
        file.read_exact(&mut page).ok()?;
        Some(page)
    }

    /// Whether a page is in use, as far as the database's own books tell.
    pub(super) fn standing(&self, page: u32) -> Standing {
        let mapped = self.auto_vacuum.then(|| self.pointer_map_entry(page)).flatten();
        match (mapped, &self.free) {
            (Some(2), _) => Standing::Free,
            (_, Some(free)) if free.contains(&page) => Standing::Free,
            (Some(1 | 5), _) | (None, Some(_)) => Standing::Used,
            _ => Standing::Unknown,
        }
    }

    /// What the pointer map says of a page: 1 a root, 2 free, 3 and 4 overflow, 5 a node. `None` if there is no entry.
    fn pointer_map_entry(&self, page: u32) -> Option<u8> {
        let entries = u32::try_from(self.usable / 5).ok()?;
        if page < 3 {
            return (page == 1).then_some(1);
        }
        let map = (page - 2) / (entries + 1) * (entries + 1) + 2;
        if map == page {
            return Some(0);
        }
        let at = usize::try_from(page - map - 1).ok()? * 5;
        self.page(map)?.get(at).copied().filter(|kind| *kind != 0)
    }

    /// The pages that the list of unused pages names, if it is as long as it should be.
    fn free_list(&self, mut trunk: u32, count: u32) -> Option<HashSet<u32>> {
        let mut free = HashSet::new();
        while trunk != 0 {
            let page = self.page(trunk)?;
            if !free.insert(trunk) {
                return None;
            }
            let leaves = number(&page, 4) as usize;
            if leaves > self.usable / 4 - 2 {
                return None;
            }
            free.extend((0..leaves).map(|n| number(&page, 8 + 4 * n)));
            trunk = number(&page, 0);
        }
        (free.len() == count as usize).then_some(free)
    }
}

/// True if transactions in a write-ahead log were written after a place where it is damaged: SQLite ends its reading
/// there and would lose them without a word. A last transaction that is not whole is no damage; nobody was told of it.
///
/// # Errors
/// The log cannot be read.
pub(crate) fn log_lost_commits(log: &Path) -> io::Result<bool> {
    match if_there(File::open(log))? {
        // One commit may have been under way when the power failed, its pages on the disk in any order.
        Some(log) => Ok(Log::read(&log)?.lost_commits > 1),
        None => Ok(false),
    }
}

/// The frames of a write-ahead log.
#[derive(Default)]
struct Log {
    /// Where the newest committed version of a page begins.
    pages: HashMap<u32, u64>,
    /// Commits after the first frame that is damaged.
    lost_commits: usize,
}

impl Log {
    /// Reads all frames of the newest generation. Each frame's checksum goes on from the one that stands in the frame
    /// before, so a damaged frame does not hide those behind it.
    fn read(mut file: &File) -> io::Result<Self> {
        let mut log = Self::default();
        let length = file.metadata()?.len();
        if length < LOG_HEADER {
            return Ok(log);
        }
        let mut header = [0; LOG_HEADER as usize];
        file.seek(SeekFrom::Start(0))?;
        let mut reader = io::BufReader::with_capacity(1 << 18, file);
        reader.read_exact(&mut header)?;
        let big = header[3] & 1 == 1;
        let mut sum = checksum(big, (0, 0), &header[..24]);
        let whole =
            number(&header, 0) | 1 == 0x377f_0683 && sum == (number(&header, 24), number(&header, 28));
        if !whole {
            sum = (number(&header, 24), number(&header, 28));
        }
        let mut salt = whole.then(|| (number(&header, 16), number(&header, 20)));
        let (mut broken, mut open) = (!whole, Vec::new());
        let mut offset = LOG_HEADER;
        let mut frame = vec![0; FRAME_HEADER + PAGE_SIZE];
        while offset + frame.len() as u64 <= length {
            reader.read_exact(&mut frame)?;
            let (head, page) = frame.split_at(FRAME_HEADER);
            let next = checksum(big, checksum(big, sum, &head[..8]), page);
            sum = (number(head, 16), number(head, 20));
            let found = (number(head, 8), number(head, 12));
            if next == sum && *salt.get_or_insert(found) == found {
                open.push((number(head, 0), offset + FRAME_HEADER as u64));
                if number(head, 4) != 0 {
                    log.pages.extend(open.drain(..));
                    log.lost_commits += usize::from(broken);
                }
            } else {
                broken = true;
            }
            offset += frame.len() as u64;
        }
        Ok(log)
    }
}

/// The checksum of the log, over pairs of 32-bit numbers.
fn checksum(big: bool, (mut a, mut b): (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let word = |bytes: &[u8]| {
        let word = number(bytes, 0);
        if big { word } else { word.swap_bytes() }
    };
    for pair in bytes.chunks_exact(8) {
        a = a.wrapping_add(word(pair)).wrapping_add(b);
        b = b.wrapping_add(word(&pair[4..])).wrapping_add(a);
    }
    (a, b)
}

/// The big-endian number at an offset; 0 behind the end.
pub(super) fn number(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
        _ => 0,
    }
}

fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}
