//! Where a spool can be.

use std::path::Path;

/// The kind of network file system that `path`, or what exists of it, is on; `None` for a local disk, or where that
/// cannot be found out. SQLite's write-ahead log needs memory that is shared between processes, and a sync that
/// keeps its promise ("Write-Ahead Logging" in SQLite's documentation): neither can be had over a network.
#[must_use]
pub fn network_file_system(path: &Path) -> Option<&'static str> {
    path.ancestors().find_map(kind_of).and_then(named)
}

/// The magic number of the file system that a path is on, if it exists.
#[cfg(target_os = "linux")]
fn kind_of(path: &Path) -> Option<u32> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    // The number is one of 32 bits, whatever the type is that carries it.
    rustix::fs::statfs(path).ok().map(|found| found.f_type as u32)
}

#[cfg(not(target_os = "linux"))]
fn kind_of(_: &Path) -> Option<u32> {
    None
}

/// Magic numbers as in statfs(2).
fn named(magic: u32) -> Option<&'static str> {
    match magic {
        0x6969 => Some("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x00c3_6400 => Some("Ceph"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x7375_7245 => Some("Coda"),
        0x564c => Some("NCP"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_disk_is_fine_also_where_the_directory_is_still_to_be_made() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(network_file_system(directory.path()), None);
        assert_eq!(network_file_system(&directory.path().join("a/b")), None);
        #[cfg(target_os = "linux")]
        {
            assert!(kind_of(directory.path()).is_some());
            assert!(kind_of(&directory.path().join("a")).is_none());
            assert!(kind_of(Path::new("")).is_some());
        }
    }

    #[test]
    fn network_file_systems_are_known_by_their_numbers() {
        for (magic, name) in [
            (0x6969, Some("NFS")),
            (0xff53_4d42, Some("SMB")),
            (0xef53, None),
            (0x0102_1994, None),
        ] {
            assert_eq!(named(magic), name);
        }
    }
}
