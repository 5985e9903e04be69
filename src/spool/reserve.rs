//! The reserve of disk space: given up when the disk is full, made anew when there is room again.

use super::spool_files::SpoolFiles;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Keeps the reserve of one spool.
#[derive(Debug)]
pub(super) struct Reserve {
    files: SpoolFiles,
    /// Octets that must stay free beside it.
    min_free: u64,
    look: Duration,
    refilling: Option<Refilling>,
}

/// A thread that waits for room. It ends with its work, or when `stop` is dropped.
#[derive(Debug)]
struct Refilling {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// How often is looked whether there is room again.
pub(super) const LOOK: Duration = Duration::from_secs(10);

impl Reserve {
    /// Makes the reserve of a spool that is being opened, now or later. `look` says how often to try.
    pub(super) fn new(files: SpoolFiles, min_free: u64, look: Duration) -> Self {
        let mut reserve = Self {
            files,
            min_free,
            look,
            refilling: None,
        };
        if let Err(error) = reserve.files.fill_reserve() {
            tracing::warn!(%error, "the spool has no reserve of disk space yet; free some space");
            reserve.refill_later();
        }
        reserve
    }

    /// Gives the reserve back to the file system. True if there was one.
    pub(super) fn give_up(&mut self) -> bool {
        let given = self.files.give_up_reserve();
        if given {
            self.refill_later();
        }
        given
    }

    fn refill_later(&mut self) {
        if self
            .refilling
            .as_ref()
            .is_some_and(|refilling| !refilling.thread.is_finished())
        {
            return;
        }
        let (stop, stopped) = channel();
        let (files, min_free, look) = (self.files.clone(), self.min_free, self.look);
        let thread = std::thread::Builder::new()
            .name("spool-reserve".to_owned())
            .spawn(move || refill(&files, min_free, look, &stopped));
        match thread {
            Ok(thread) => self.refilling = Some(Refilling { stop, thread }),
            Err(error) => tracing::warn!(%error, "the spool stays without a reserve until the next start"),
        }
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        if let Some(Refilling { stop, thread }) = self.refilling.take() {
            drop(stop);
            // It only fills a file; a panic there has nothing to do with us.
            let _ = thread.join();
        }
    }
}

fn refill(files: &SpoolFiles, min_free: u64, look: Duration, stopped: &Receiver<()>) {
    let needed = files.reserve_size().saturating_add(min_free);
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(look) {
        // It must not take the room that mail needs to be taken again.
        let room = files.free().is_ok_and(|free| free >= needed);
        // It may have been given up again while it was made.
        if room && files.fill_reserve().is_ok() && files.has_reserve() {
            tracing::info!("the spool has its reserve of disk space again");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::memory_disk::{Fault, FaultKind, Image, MemoryDisk};
    use std::path::Path;
    use std::sync::Arc;

    fn files(disk: &MemoryDisk, directory: &Path) -> SpoolFiles {
        SpoolFiles::prepare(directory, Arc::new(disk.clone()), 5000).unwrap()
    }

    fn reserved(disk: &MemoryDisk) -> Option<usize> {
        disk.image()
            .iter()
            .find(|(path, _)| path.ends_with("reserve"))
            .map(|(_, content)| content.len())
    }

    fn wait_until(what: impl Fn() -> bool) {
        for _ in 0..10_000 {
            if what() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("it does not come");
    }

    const SOON: Duration = Duration::from_millis(1);

    #[test]
    fn the_reserve_comes_back_when_there_is_room_and_not_before() {
        let disk = MemoryDisk::new(Image::new(), Path::new(""));
        let mut reserve = Reserve::new(files(&disk, Path::new("/spool")), 1000, SOON);
        assert_eq!(reserved(&disk), Some(5000));
        disk.set_free(5999);
        assert!(reserve.give_up());
        assert!(!reserve.give_up(), "there is none to give");
        wait_until(|| {
            disk.taken()
                .iter()
                .filter(|step| step.starts_with("free"))
                .count()
                > 3
        });
        assert_eq!(reserved(&disk), None);
        disk.set_free(6000);
        wait_until(|| reserved(&disk) == Some(5000));
        assert!(reserve.give_up(), "and again");
        wait_until(|| reserved(&disk) == Some(5000));
    }

    #[test]
    fn a_disk_that_is_full_at_start_gets_its_reserve_later() {
        let disk = MemoryDisk::new(Image::new(), Path::new(""));
        let files = files(&disk, Path::new("/spool"));
        let fault = |at| Fault {
            at,
            kind: FaultKind::FullHalfway,
            lasting: false,
        };
        // The steps are: size, unlink, create, write.
        disk.set_fault(Some(fault(3)));
        let _reserve = Reserve::new(files, 0, SOON);
        assert_eq!(disk.taken()[3], "write reserve");
        wait_until(|| reserved(&disk) == Some(5000));
    }

    #[test]
    fn closing_does_not_wait_for_room() {
        let disk = MemoryDisk::new(Image::new(), Path::new(""));
        disk.set_free(0);
        let mut reserve = Reserve::new(files(&disk, Path::new("/spool")), 0, Duration::from_secs(3600));
        assert!(reserve.give_up());
        drop(reserve);
    }
}
