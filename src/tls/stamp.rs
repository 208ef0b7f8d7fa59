//! Has a file changed?

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::config::Files;

/// What a file is known by, behind all links: whatever replaces it or changes its content changes something of this.
pub(super) type Stamp = Result<Known, io::ErrorKind>;

/// Where it is, how large, when its content was changed and when anything of it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    touched: (i64, i64),
}

/// The files of a pair.
pub(super) fn paths(files: &Files) -> impl Iterator<Item = &Path> {
    [&files.certificate, &files.key].into_iter().chain(&files.password).map(AsRef::as_ref)
}

/// How they are now.
pub(super) fn stamps(files: &Files) -> Vec<Stamp> {
    paths(files).map(stamp).collect()
}

/// How a file is now.
pub(super) fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).map_err(|error| error.kind())?;
    Ok(Known {
        file: (found.dev(), found.ino()),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        touched: (found.ctime(), found.ctime_nsec()),
    })
}
