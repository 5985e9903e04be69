//! Floor 2: files and directories that only their owner may read.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Makes a directory with mode 0700, and those above it that are missing. One that is there stays as it is.
///
/// # Errors
/// The system's.
pub fn make_private_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Writes `path` whole or not at all, with mode 0600, by way of a file beside it that ends in `.new`.
///
/// # Errors
/// The system's; then `path` is what it was before.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_whole_private_and_replaces_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("a/b");
        make_private_directory(&inside).unwrap();
        make_private_directory(&inside).unwrap();
        let path = inside.join("x.key");
        for content in ["first", "2"] {
            write_private(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert!(!inside.join("x.new").exists());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::metadata(&inside).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
}
