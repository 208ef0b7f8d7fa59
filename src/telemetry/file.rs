//! How does a log become a file that somebody else may move away?
//!
//! The file is opened for appending and kept open. Whoever rotates logs renames it and sends SIGUSR1; then the name is
//! opened anew and lines go on there. This is the one place where we write files otherwise than through
//! [`durable`](crate::storage::durable): a log has no state that must be whole, it grows at its end, and waiting for the
//! disk after every line would make the disk's patience everybody's.
//!
//! **Invariants:** a file is 0640 when we make it, less the umask: who asked for what is not for everybody. What cannot
//! be written (a full disk) is counted and said on stderr, once when it begins and once when it is over.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::lines::Sink;

/// The mode of a log that we make.
const MODE: u32 = 0o640;

/// A file that lines are appended to.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Lines that could not be written since the last that could.
    lost: usize,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append(path)?, lost: 0 })
    }

    /// Says what was lost, at the beginning of the line after it: where it broke off nobody knows.
    fn recovered(&mut self) -> io::Result<()> {
        if self.lost > 0 {
            self.file.write_all(b"\n")?;
            tracing::warn!(
                lines = self.lost,
                "the log {} is written again; these lines were lost",
                self.path.display()
            );
            self.lost = 0;
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

impl Sink for LogFile {
    fn write(&mut self, lines: &[u8]) {
        if let Err(error) = self.recovered().and_then(|()| self.file.write_all(lines)) {
            if self.lost == 0 {
                tracing::error!("the log {} cannot be written: {error}; its lines are lost", self.path.display());
            }
            self.lost += lines.iter().filter(|byte| **byte == b'\n').count().max(1);
        }
    }

    fn reopen(&mut self) {
        match append(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => {
                tracing::error!("the log {} cannot be opened anew: {error}; the old file goes on", self.path.display());
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "what these tests write need not outlive a power failure")]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn lines_are_appended_and_go_on_in_a_new_file_when_the_old_one_was_moved_away() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("a.log"), folder.path().join("a.log.1"));
        fs::write(&path, b"before\n").unwrap();
        let mut log = LogFile::open(&path).unwrap();
        log.write(b"one\n");
        fs::rename(&path, &moved).unwrap();
        log.write(b"two\n");
        log.reopen();
        log.write(b"three\n");
        assert_eq!(fs::read_to_string(&moved).unwrap(), "before\none\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "only we write, only our group reads: {mode:o}");
    }

    #[test]
    fn a_name_that_cannot_be_opened_anew_leaves_the_old_file_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let (below, moved) = (folder.path().join("below"), folder.path().join("moved"));
        fs::create_dir(&below).unwrap();
        let mut log = LogFile::open(&below.join("a.log")).unwrap();
        fs::rename(&below, &moved).unwrap();
        log.reopen();
        log.write(b"still\n");
        assert_eq!(fs::read_to_string(moved.join("a.log")).unwrap(), "still\n");
    }

    #[test]
    fn what_a_full_disk_takes_is_counted_and_lines_are_whole_again_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut log = LogFile::open(&path).unwrap();
        log.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        log.write(b"one\ntwo\n");
        log.write(b"three\n");
        assert_eq!(log.lost, 3);
        log.reopen();
        log.write(b"four\n");
        assert_eq!((log.lost, fs::read_to_string(&path).unwrap().as_str()), (0, "\nfour\n"));
    }
}
