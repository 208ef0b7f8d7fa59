//! Who goes first when two processes start at once?
//!
//! A file of our own that nobody else may open, so nobody else can lock it: anybody who may read a folder could lock that.
//! It stays: whoever removed it could remove one that somebody else has just locked.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::storage::durable;

/// The name of the file in the folder that it is for.
const FILE_NAME: &str = "pierhead.lock";
/// How long we wait for another process, which needs a fraction of that.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long until we look again.
const PAUSE: Duration = Duration::from_millis(20);

/// Makes the folder if it is missing, and waits until no other process of ours is making something in it. That holds
/// until the returned file is closed. It blocks, but not for ever.
pub fn lock(folder: &Path) -> io::Result<File> {
    durable::make_dirs(folder)?;
    lock_within(folder, PATIENCE)
}

fn lock_within(folder: &Path, patience: Duration) -> io::Result<File> {
    let path = folder.join(FILE_NAME);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(durable::SECRET).open(&path)?;
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if begin.elapsed() < patience => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {
                let problem = format!(
                    "another process has locked {path} for {seconds} seconds; `fuser -v {path}` shows which",
                    path = path.display(),
                    seconds = patience.as_secs()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_lock_is_had_once_and_again_when_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(&folder.path().join("new")).unwrap();
        let refused = lock_within(&folder.path().join("new"), Duration::ZERO).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        assert!(refused.to_string().contains("new/pierhead.lock"), "{refused}");
        drop(held);
        lock_within(&folder.path().join("new"), Duration::ZERO).unwrap();
    }

    #[test]
    fn only_we_may_open_it_and_a_lock_on_the_folder_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let other = File::open(folder.path()).unwrap();
        other.lock().unwrap();
        lock_within(folder.path(), Duration::ZERO).unwrap();
        let mode = folder.path().join(FILE_NAME).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
