//! How does a file come to rest so that a power cut cannot take it back?
//!
//! Every file of ours is written here, and in one way. [`write()`] of `dir/name` is, in system calls:
//!
//! ```text
//! openat("dir/name.<uuid>.tmp", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, mode) = 3
//! write(3, ...)                                       until all is written
//! fsync(3)                                            the bytes are on the disk, under a name nobody reads
//! close(3)
//! rename("dir/name.<uuid>.tmp", "dir/name")           from one instant to the next: old or new, never half
//! openat("dir", O_RDONLY|O_CLOEXEC) = 3
//! fsync(3)                                            the name is on the disk
//! close(3)
//! ```
//!
//! and [`make_dirs`] of `a/b/c`, where `a` is there already: `mkdir("a/b")`, `fsync("a")`, `mkdir("a/b/c")`, `fsync("a/b")`.
//!
//! - The first `fsync` comes before the rename, else the name could outlive its bytes: an empty file after a power cut.
//! - The second comes before we return, else what we acknowledged could still be forgotten.
//! - A failed `fsync` is final. The kernel may have dropped the pages and would call a second attempt a success.
//! - The temporary name lies in the same directory, because a rename is atomic only within one file system, and has the
//!   form that Distribution uses, so that either program recognises what the other left behind ([`is_temporary`]).
//!
//! Everything here blocks: callers in async code go through `spawn_blocking`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// The mode of files that anybody may read, less the umask.
pub const PUBLIC: u32 = 0o644;
/// The mode of files that only we may read.
pub const SECRET: u32 = 0o600;
/// The mode of directories, less the umask.
const DIRECTORY: u32 = 0o755;
/// The mode of directories that only we may look into.
const PRIVATE_DIRECTORY: u32 = 0o700;

/// Writes a file as a whole, replacing what was there. Whoever looks sees the old content or the new one.
///
/// The directory must exist. On failure the old file is untouched and nothing is left behind.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    place(path, bytes, mode, true)
}

/// Writes a file as a whole where there is none: of several who do, on one machine or on several that share the folder,
/// one succeeds, and nobody sees it half. The others get `AlreadyExists`. A hard link does it, also over NFS.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let placed = fill(&temporary, bytes, mode, true).and_then(|()| std::fs::hard_link(&temporary, path));
    // What cannot be removed is recognised as temporary.
    let _ = std::fs::remove_file(&temporary);
    placed?;
    sync_parent(path)
}

/// Overwrites the beginning of a file that is there. Whoever looks may see half of it, and a power cut may take it back:
/// for a sign of life.
pub fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(bytes)
}

/// As [`write()`], but a power cut may take the file back or leave it empty: for what can be made again.
pub fn write_lightly(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    place(path, bytes, mode, false)
}

fn place(path: &Path, bytes: &[u8], mode: u32, sync: bool) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let placed = fill(&temporary, bytes, mode, sync).and_then(|()| replace(&temporary, path));
    if placed.is_err() {
        // The failure that matters is the one above; what cannot be removed is recognised as temporary.
        let _ = std::fs::remove_file(&temporary);
    }
    placed?;
    if sync { sync_parent(path) } else { Ok(()) }
}

fn fill(path: &Path, bytes: &[u8], mode: u32, sync: bool) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    if sync { file.sync_all() } else { Ok(()) }
}

/// Makes a file that somebody else wrote durable, and its name.
pub(super) fn settle(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    sync_parent(path)
}

/// Moves a file over whatever is at `to`, in the same file system. Its bytes are made durable first, its name after.
///
/// Only the target's directory is synced: a journalled rename is one transaction, so the old name cannot come back
/// alone, and on a file system without a journal a second name for the same bytes is the lesser evil.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    replace(from, to)?;
    sync_parent(to)
}

#[allow(clippy::disallowed_methods, reason = "this is the durable rename that the ban points to")]
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

/// Makes a directory and its missing parents, each of them durable.
pub fn make_dirs(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = parent(path) {
        make_dirs(parent)?;
    }
    make_dir_lightly(path)?;
    sync_parent(path)
}

/// Makes a directory that only we may look into, and its missing parents.
pub fn make_private_dirs(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = parent(path) {
        make_private_dirs(parent)?;
    }
    make_dir(path, PRIVATE_DIRECTORY)?;
    sync_parent(path)
}

/// Makes one directory in a parent that exists, unless it is there, without waiting for the disk.
pub(super) fn make_dir_lightly(path: &Path) -> io::Result<()> {
    make_dir(path, DIRECTORY)
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes a directory and its missing parents, without waiting for the disk.
pub(super) fn make_dirs_lightly(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(DIRECTORY).recursive(true).create(path)
}

/// Makes the directory entry of a path durable, or the removal of it.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match File::open(parent(path).unwrap_or(Path::new(".")))?.sync_all() {
        // Some network and user-space file systems cannot sync a directory and say EINVAL; they write it through.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

/// The parent directory; none for `/` and for a name in the working directory.
fn parent(path: &Path) -> Option<&Path> {
    path.parent().filter(|parent| !parent.as_os_str().is_empty())
}

/// `<name>.<uuid>.tmp`, as Distribution 3 names what it has not finished.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.tmp", Uuid::new_v4()));
    Ok(path.with_file_name(name))
}

/// Whether a file's name says that it was never finished: `<name>.<uuid>.tmp`, ours or Distribution's.
pub fn is_temporary(name: &str) -> bool {
    let uuid = name.strip_suffix(".tmp").and_then(|stem| stem.rsplit_once('.'));
    uuid.is_some_and(|(name, uuid)| !name.is_empty() && uuid.len() == 36 && Uuid::try_parse(uuid).is_ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_write_replaces_the_file_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("name");
        write(&path, b"old and longer", PUBLIC).unwrap();
        write(&path, b"new", PUBLIC).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["name"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let occupied = dir.path().join("folder");
        std::fs::create_dir_all(occupied.join("with content")).unwrap();
        assert!(write(&occupied, b"x", PUBLIC).is_err(), "a file cannot replace a folder");
        assert_eq!(names(dir.path()), ["folder"]);
    }

    #[test]
    fn a_secret_is_readable_by_its_owner_only_even_where_the_file_was_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write(&path, b"public by mistake", PUBLIC).unwrap();
        write(&path, b"key", SECRET).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn of_several_who_create_a_file_one_succeeds_and_the_others_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let made: Vec<bool> = std::thread::scope(|scope| {
            let path = &path;
            let makers: Vec<_> =
                (0..8).map(|one| scope.spawn(move || create(path, &[b'0' + one; 3], SECRET).is_ok())).collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        let winner = made.iter().position(|made| *made).unwrap();
        assert_eq!(made.iter().filter(|made| **made).count(), 1);
        assert_eq!(std::fs::read(&path).unwrap(), [b'0' + u8::try_from(winner).unwrap(); 3]);
        assert_eq!(
            (names(dir.path()), path.metadata().unwrap().permissions().mode() & 0o777),
            (vec!["key.pem".to_owned()], SECRET)
        );
        assert_eq!(create(&path, b"", SECRET).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn private_directories_are_for_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        make_private_dirs(&deep).unwrap();
        make_private_dirs(&deep).unwrap();
        for path in [deep.as_path(), deep.parent().unwrap()] {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn directories_are_made_all_the_way_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        make_dirs(&deep).unwrap();
        make_dirs(&deep).unwrap();
        assert!(deep.is_dir());
        std::fs::File::create(deep.join("file")).unwrap();
        assert!(make_dirs(&deep.join("file/below")).is_err());
    }

    #[test]
    fn temporaries_are_recognised_and_tags_that_look_similar_are_not() {
        assert!(is_temporary("link.0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10.tmp"));
        assert!(is_temporary(temporary_beside(Path::new("a/data")).unwrap().file_name().unwrap().to_str().unwrap()));
        for name in ["v1.tmp", "link", "data.tmp", ".0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10.tmp", "a.0b3bbd51.tmp"] {
            assert!(!is_temporary(name), "{name}");
        }
    }
}
