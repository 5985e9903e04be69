//! Headers of a tar archive (POSIX.1-2017 pax, "ustar Interchange Format"), which every system can unpack.

use crate::mail::Timestamp;

/// Everything in an archive comes in blocks of so many octets.
const BLOCK: usize = 512;

/// The header of a directory, or of a file of `size` octets; only the owner may read what it becomes.
pub(super) fn header(path: &str, entry: Entry, changed: Timestamp) -> [u8; BLOCK] {
    let (mode, size, kind) = match entry {
        Entry::Directory => (0o700, 0, b'5'),
        Entry::File(size) => (0o600, size, b'0'),
    };
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &path.as_bytes()[..path.len().min(100)]);
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < 1 << 33 {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        // As GNU, BSD and libarchive write what octal digits have no room for.
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    let seconds = u64::try_from(changed.millis() / 1000).unwrap_or(0);
    put(136, format!("{:011o}\0", seconds.min((1 << 33) - 1)).as_bytes());
    // While the checksum is computed, it counts as blanks.
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u64 = block.iter().map(|octet| u64::from(*octet)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// What a header is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Directory,
    /// With so many octets.
    File(u64),
}

/// What follows the octets of a file.
pub(super) fn padding(size: u64) -> &'static [u8] {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    &ZEROS[..(BLOCK - over) % BLOCK]
}

/// How an archive ends.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_what_tar_writes() {
        let header = header(
            "spool/id",
            Entry::File(33),
            Timestamp::from_millis(1_795_250_820_000),
        );
        assert_eq!(&header[..9], b"spool/id\0");
        assert_eq!(&header[100..108], b"0000600\0");
        assert_eq!(&header[124..136], b"00000000041\0");
        assert_eq!(&header[136..148], b"15300255204\0");
        assert_eq!(&header[156..158], b"0\0");
        assert_eq!(&header[257..265], b"ustar\x0000");
        let sum = std::str::from_utf8(&header[148..154]).unwrap();
        let mut unsummed = header;
        unsummed[148..156].fill(b' ');
        let expected: u32 = unsummed.iter().map(|octet| u32::from(*octet)).sum();
        assert_eq!(u32::from_str_radix(sum, 8), Ok(expected));
        assert_eq!(padding(33).len(), 479);
        assert_eq!(padding(1024).len(), 0);
    }

    #[test]
    fn a_size_that_octal_digits_cannot_tell_is_binary() {
        let header = header("x", Entry::File(1 << 33), Timestamp::from_millis(0));
        assert_eq!(header[124..136], [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
    }
}
