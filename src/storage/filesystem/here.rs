//! What can be read without waiting?
//!
//! What is hot: a path whose every step is in the kernel's cache of names (`openat2` with `RESOLVE_CACHED`) and bytes that
//! are in its cache of pages (`preadv2` with `RWF_NOWAIT`). To read a link so takes three system calls and 4 microseconds; a
//! trip to the blocking pool takes 50. The kernel says `EAGAIN` in place of waiting for a disk, and then the pool does it.
//! What was read a moment ago takes one call and less than 2, if it is [still the same](super::seen).
//!
//! **Invariants**
//! - Whatever is answered here, the pool would have answered too. What is missing is missing when the kernel knows that it
//!   is; of any other failure the pool has to find out.
//! - Nothing is tried here before a read on the pool has shown that the file system can say `EAGAIN`. Network file
//!   systems and FUSE cannot: there an `open` alone may take as long as their server likes. It is learned for each
//!   [`Branch`] of a tree, because one of them may be a mount, or a link to somewhere else, where another may not: the
//!   blobs on a network, and the links to them on a disk. What is mounted further below counts as what is above it.
//! - What a kernel, a sandbox or a file system refuses once is not tried again in that branch (Linux before 5.12 knows no
//!   `RESOLVE_CACHED`, old profiles of containers forbid `openat2`), and that is said, once for each.
//! - To read leaves no trace: the time of the last access would be a transaction of the file system's, which waits for
//!   its turn in the journal whatever we asked for. Only a file's owner may ask that nobody notes it (`O_NOATIME`); for
//!   files of somebody else mounting with `noatime` does the same.
//! - Paths are looked up from the top each time, as by anybody else: symbolic links are followed, and a root that was
//!   replaced is the new one.
//!
//! Absent on purpose: a descriptor of the root to start from (0.1 microseconds, but a root that is moved away would be
//! read on). A scanner that looks at each file before anybody may open it (fanotify) makes us wait here as it makes
//! everybody wait.

use std::cell::RefCell;
use std::ffi::CStr;
use std::fs::{File, Metadata};
use std::io::{self, IoSliceMut};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::super::Key;
use super::seen::{self, Moment};

/// A longer path is left to the pool.
const LONGEST_PATH: usize = 1024;

/// What is read as a whole here: more would keep other requests of this thread waiting for long.
const WHOLE: usize = 64 << 10;

/// No kernel has smaller pages, and pages are in its cache or not as a whole.
const PAGE: usize = 4096;

thread_local! {
    /// Where small files are read to before their size is known.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; WHOLE].into());
}

/// Reads below a root where we are.
#[derive(Debug)]
pub(super) struct Here {
    /// The root, with a `/` at its end.
    prefix: Box<[u8]>,
    /// What is known of each branch.
    support: [AtomicU8; BRANCHES],
}

/// What lies below one folder at depth [`DEPTH`]. Two folders may share a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Branch(usize);

/// How deep in a tree others lay their mounts and links.
const DEPTH: usize = 4;
/// Far more than there are folders at that depth.
const BRANCHES: usize = 64;

impl Branch {
    pub(super) fn of(key: &Key) -> Self {
        let folder = key.as_str().split('/').take(DEPTH).flat_map(str::bytes);
        Self(folder.fold(0, |sum, byte| (sum * 31 + usize::from(byte)) % BRANCHES))
    }
}

const UNKNOWN: u8 = 0;
const SUPPORTED: u8 = 1;
const REFUSED: u8 = 2;

impl Here {
    pub(super) fn below(root: &Path) -> Self {
        let prefix = [root.as_os_str().as_bytes(), b"/"].concat().into();
        Self { prefix, support: [const { AtomicU8::new(UNKNOWN) }; BRANCHES] }
    }

    /// Does `work` with the path of a key, unless it had to wait or cannot be done here: `None`.
    pub(super) fn attempt<T>(
        &self,
        key: &Key,
        work: impl FnOnce(&Self, &CStr) -> rustix::io::Result<T>,
    ) -> Option<io::Result<T>> {
        let branch = Branch::of(key);
        if !self.is_supported(branch) {
            return None;
        }
        let mut buffer = [0; LONGEST_PATH];
        let outcome = work(self, self.path(key, &mut buffer)?);
        self.judged(branch, outcome)
    }

    /// Takes what the kernel said as an answer, or as a reason to ask on the pool.
    pub(super) fn judged<T>(&self, branch: Branch, outcome: rustix::io::Result<T>) -> Option<io::Result<T>> {
        match outcome {
            Ok(found) => Some(Ok(found)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::SPIPE) => {
                Some(Err(io::ErrorKind::NotFound.into()))
            }
            Err(error) => {
                if is_refusal(error) {
                    self.refused(branch, error);
                }
                None
            }
        }
    }

    fn refused(&self, branch: Branch, error: Errno) {
        if self.support[branch.0].swap(REFUSED, Ordering::Relaxed) != REFUSED {
            let root = String::from_utf8_lossy(&self.prefix);
            tracing::info!(%root, %error, "a part of the storage cannot be read without waiting, and is read by a pool of threads");
        }
    }

    pub(super) fn is_supported(&self, branch: Branch) -> bool {
        self.support[branch.0].load(Ordering::Relaxed) == SUPPORTED
    }

    /// Finds out, with a file that was opened on the pool, whether its file system can refuse to wait.
    pub(super) fn learn(&self, branch: Branch, file: &File) {
        let support = &self.support[branch.0];
        if support.load(Ordering::Relaxed) != UNKNOWN {
            return;
        }
        match read_at(file, &mut [0], 0) {
            Ok(_) | Err(Errno::AGAIN) => {
                // Somebody else's refusal counts for more.
                let _ = support.compare_exchange(UNKNOWN, SUPPORTED, Ordering::Relaxed, Ordering::Relaxed);
            }
            Err(error) if is_refusal(error) => self.refused(branch, error),
            Err(_) => {} // of this file alone
        }
    }

    #[cfg(test)]
    pub(super) fn refuse(&self) {
        self.support.iter().for_each(|branch| branch.store(REFUSED, Ordering::Relaxed));
    }

    /// What is known of this branch holds for all.
    #[cfg(test)]
    pub(super) fn spread(&self, Branch(known): Branch) {
        let known = self.support[known].load(Ordering::Relaxed);
        self.support.iter().for_each(|branch| branch.store(known, Ordering::Relaxed));
    }

    /// Opens a file to read it. Not even a pipe without a writer, or a lease of somebody else, makes us wait.
    pub(super) fn open(&self, path: &CStr) -> rustix::io::Result<File> {
        let how = OFlags::RDONLY | OFlags::NONBLOCK;
        match open_as(path, how | OFlags::NOATIME) {
            Err(Errno::PERM) => open_as(path, how), // somebody else's, or a sandbox forbids it all
            opened => opened,
        }
    }

    /// What a file or folder is.
    pub(super) fn look(&self, path: &CStr) -> rustix::io::Result<Metadata> {
        open_as(path, OFlags::PATH)?.metadata().map_err(|_| Errno::AGAIN)
    }

    /// The content of a small file, `None` when it has more than `limit` bytes.
    pub(super) fn read_whole(&self, path: &CStr, limit: usize, now: Moment) -> rustix::io::Result<Option<Bytes>> {
        if let Some(content) = seen::again(path, now) {
            return Ok((content.len() <= limit).then_some(content));
        }
        let file = self.open(path)?;
        let state = seen::State::of(&file)?;
        let content = read_open(&file, limit)?;
        if let Some(content) = &content {
            seen::keep(path, state, content, now);
        }
        Ok(content)
    }

    fn path<'a>(&self, key: &Key, buffer: &'a mut [u8; LONGEST_PATH]) -> Option<&'a CStr> {
        let (prefix, key) = (&*self.prefix, key.as_str().as_bytes());
        let end = prefix.len() + key.len();
        buffer.get_mut(..prefix.len())?.copy_from_slice(prefix);
        buffer.get_mut(prefix.len()..end)?.copy_from_slice(key);
        CStr::from_bytes_with_nul(buffer.get(..=end)?).ok()
    }
}

/// Whether it would be said of every file there.
fn is_refusal(error: Errno) -> bool {
    matches!(error, Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL)
}

fn open_as(path: &CStr, how: OFlags) -> rustix::io::Result<File> {
    openat2(CWD, path, how | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::CACHED).map(File::from)
}

fn read_open(file: &File, limit: usize) -> rustix::io::Result<Option<Bytes>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let scratch = &mut scratch[..WHOLE.min(limit.saturating_add(1))];
        let size = fill(file, scratch)?;
        match scratch.len() {
            _ if size > limit => Ok(None),
            full if size == full => Err(Errno::AGAIN), // too large for us
            _ => Ok(Some(Bytes::copy_from_slice(&scratch[..size]))),
        }
    })
}

/// Reads until the buffer is full or the file ends. A read that ends within a page met the end of the file; one that ends
/// between two may have met a page that is not in the cache.
fn fill(file: &File, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    let mut filled = 0;
    loop {
        let read = read_at(file, &mut buffer[filled..], filled as u64)?;
        filled += read;
        if read == 0 || filled == buffer.len() || !filled.is_multiple_of(PAGE) {
            return Ok(filled);
        }
    }
}

/// One read of what can be had without waiting: less than asked for is no sign of the end, nothing is.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(support: u8) -> Here {
        let here = Here::below(Path::new("/root"));
        here.support.iter().for_each(|branch| branch.store(support, Ordering::Relaxed));
        here
    }

    fn is_supported(here: &Here, key: &str) -> bool {
        here.is_supported(Branch::of(&Key::new(key)))
    }

    fn learn(here: &Here, key: &str, file: &File) {
        here.learn(Branch::of(&Key::new(key)), file);
    }

    #[test]
    fn what_was_refused_once_is_not_tried_again() {
        for refusal in [Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP, Errno::INVAL] {
            let here = here(SUPPORTED);
            assert!(here.attempt(&Key::new("a"), |_, _| Err::<(), _>(refusal)).is_none());
            assert!(
                here.attempt(&Key::new("a"), |_, _| -> rustix::io::Result<()> { panic!("{refusal} again") }).is_none()
            );
            learn(&here, "a", &tempfile::tempfile().unwrap());
            assert!(!is_supported(&here, "a"));
        }
    }

    #[test]
    fn what_would_have_to_wait_or_fails_is_left_to_the_pool_this_time() {
        let here = here(SUPPORTED);
        for failure in [Errno::AGAIN, Errno::IO, Errno::MFILE, Errno::ACCESS, Errno::LOOP] {
            assert!(here.attempt(&Key::new("a"), |_, _| Err::<(), _>(failure)).is_none());
        }
        assert!(here.attempt(&Key::new("a"), |_, _| Ok(())).unwrap().is_ok());
    }

    #[test]
    fn nothing_is_tried_before_a_file_has_shown_that_it_works() {
        let here = here(UNKNOWN);
        assert!(here.attempt(&Key::new("a"), |_, _| Ok(())).is_none());
        let Branch(branch) = Branch::of(&Key::new("a"));
        let pipe = std::io::pipe().unwrap().0;
        learn(&here, "a", &File::from(std::os::fd::OwnedFd::from(pipe)));
        assert_eq!(here.support[branch].load(Ordering::Relaxed), UNKNOWN, "a pipe says nothing of other files");
        learn(&here, "a", &File::open("/proc/self/status").unwrap());
        assert_eq!(here.support[branch].load(Ordering::Relaxed), REFUSED, "a file system that always waits");
    }

    #[test]
    fn what_is_learned_of_the_links_says_nothing_of_the_blobs_which_may_be_elsewhere() {
        let (links, blobs) = ("docker/registry/v2/repositories/a/link", "docker/registry/v2/blobs/sha256/data");
        let here = here(UNKNOWN);
        here.support[Branch::of(&Key::new(links)).0].store(SUPPORTED, Ordering::Relaxed);
        assert!(is_supported(&here, links) && is_supported(&here, "docker/registry/v2/repositories/b/c/link"));
        assert!(!is_supported(&here, blobs));
        here.support[Branch::of(&Key::new(blobs)).0].store(SUPPORTED, Ordering::Relaxed);
        assert!(here.attempt(&Key::new(blobs), |_, _| Err::<(), _>(Errno::OPNOTSUPP)).is_none());
        assert!(is_supported(&here, links) && !is_supported(&here, blobs));
    }

    #[test]
    fn a_file_of_ours_is_read_without_a_trace() {
        let (here, file) = (here(SUPPORTED), tempfile::NamedTempFile::new().unwrap());
        let path = std::ffi::CString::new(file.path().as_os_str().as_bytes()).unwrap();
        let opened = match here.open(&path) {
            Err(Errno::NOSYS | Errno::PERM) => return, // no openat2 here
            Err(Errno::AGAIN) => return,               // somebody else is at that folder
            opened => opened.unwrap(),
        };
        assert!(rustix::fs::fcntl_getfl(&opened).unwrap().contains(OFlags::NOATIME));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "somebody else writes")]
    fn a_small_file_is_read_once_and_again_once_it_has_changed() {
        let (here, file) = (here(SUPPORTED), tempfile::NamedTempFile::new().unwrap());
        let path = std::ffi::CString::new(file.path().as_os_str().as_bytes()).unwrap();
        let now = seen::later();
        let read = |limit| here.read_whole(&path, limit, now).map(Option::unwrap_or_default);
        for content in ["one", "two"] {
            std::fs::write(file.path(), content).unwrap();
            match read(3) {
                Err(Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP) => return, // nothing is read here
                Err(Errno::AGAIN) => return,                                  // somebody else is at that folder
                found => assert_eq!(found.unwrap(), content),
            }
            assert_eq!(seen::again(&path, now).unwrap(), content);
            assert_eq!(
                (read(3).unwrap(), read(2).unwrap()),
                (content.into(), Bytes::new()),
                "the limit holds for both"
            );
            crate::storage::fault::clock_steps(file.path().parent().unwrap());
        }
    }

    #[test]
    fn what_is_no_file_is_left_to_the_pool() {
        let here = here(SUPPORTED);
        for path in [c"/dev/null", c"/"] {
            let found = here.read_whole(path, 10, Moment::now());
            assert!(found.is_err_and(|error| !matches!(error, Errno::NOENT)), "{path:?}");
        }
    }

    #[test]
    fn a_path_is_root_and_key_or_left_to_the_pool() {
        let (here, mut buffer) = (here(SUPPORTED), [0; LONGEST_PATH]);
        assert_eq!(here.path(&Key::new("a/b"), &mut buffer), Some(c"/root/a/b"));
        let longest = "a".repeat(LONGEST_PATH - "/root/".len() - 1);
        let path = here.path(&Key::new(longest.clone()), &mut [0; LONGEST_PATH]).map(CStr::count_bytes);
        assert_eq!(path, Some(LONGEST_PATH - 1));
        assert_eq!(here.path(&Key::new(longest + "a"), &mut [0; LONGEST_PATH]), None);
        assert_eq!(here.path(&Key::new("a\0b"), &mut [0; LONGEST_PATH]), None);
    }
}
