//! How does a file grow as a client sends it?
//!
//! Each piece is one trip to the blocking pool and one `pwritev2`.
//!
//! The first [`CACHED`] bytes stay in the page cache: most layers whole. What a registry is asked for most is what was
//! pushed a moment ago, when it is deployed; on a rented disk of 125 MB/s, reading a layer again would cost the first of
//! the machines that pull it half a second for each 64 MiB. They are written when the kernel thinks it time, and at the
//! latest at the end, where no client waits for more than that.
//!
//! What comes after passes through the page cache without staying there (`RWF_DONTCACHE`): the disk begins with every
//! piece at once, the memory that held a piece serves the next one, and what is being pulled is not driven out of memory by
//! a huge push. Where the kernel or the file system does not know the flag, the same comes about in [`STEP`]s: at each the
//! disk is set to work on what is new, and what it has written by then leaves the cache (`POSIX_FADV_DONTNEED`). Measured,
//! pushing 256 MiB: keeping 4, 16 or 64 MiB makes no difference to rate or CPU.
//!
//! **Invariant:** all this is about when the disk writes, never about whether: nothing is durable before
//! [`Appender::finish`]. Nothing here syncs before: the kernel tells of a failed write once, to the next sync, and were this
//! process killed after one in the middle, no later one would be told.

use std::fs::File;
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use tokio::task::spawn_blocking;

use super::filesystem::{finished, release};
use super::{Appender, Error, Key};

/// How much of each file stays in the page cache: more than most layers have.
const CACHED: u64 = 64 << 20;

/// After how many bytes more than that the cache is asked to let go, where it cannot be passed by.
const STEP: u64 = 16 << 20;

/// `RWF_DONTCACHE`, of `linux/fs.h`.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// A file that grows at its end.
pub(super) struct FileAppender {
    key: Key,
    file: Arc<File>,
    begun: u64,
    size: u64,
    /// Whether the kernel has refused to write past the cache.
    cache_all: bool,
    /// Up to where the cache was asked to let go.
    let_go: u64,
}

impl FileAppender {
    /// Goes on with a file of so many bytes.
    pub(super) fn new(key: Key, file: File, size: u64) -> Self {
        Self { key, file: Arc::new(file), begun: size, size, cache_all: false, let_go: size.max(CACHED) }
    }

    /// What the cache is to be asked to let go once the file has `size` bytes, if it is time for that: all that is not to
    /// stay, since of what was new at the last step little had been written by then.
    fn leaving(&mut self, size: u64) -> Option<Range<u64>> {
        if !self.cache_all || size.saturating_sub(self.let_go) < STEP {
            return None;
        }
        self.let_go = size;
        Some(CACHED..size)
    }
}

#[async_trait]
impl Appender for FileAppender {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let (file, at, length) = (self.file.clone(), self.size, bytes.len() as u64);
        let cache = self.cache_all || at < CACHED;
        let leaving = self.leaving(at + length);
        let writing = spawn_blocking(move || {
            let went_past =
                if cache { file.write_all_at(&bytes, at).map(|()| false) } else { write_past_cache(&file, &bytes, at) };
            if let Some(part) = leaving {
                let_go(&file, part);
            }
            went_past
        });
        let went_past = finished(&self.key, writing.await)?;
        self.cache_all |= !cache && !went_past;
        self.size += length;
        Ok(())
    }

    async fn finish(&mut self) -> Result<u64, Error> {
        let file = self.file.clone();
        // The size is part of what fdatasync writes; times are not worth a journal commit.
        let syncing = spawn_blocking(move || file.sync_data());
        finished(&self.key, syncing.await)?;
        Ok(self.size)
    }

    async fn cut_back(&mut self) -> Result<(), Error> {
        let (file, size) = (self.file.clone(), self.begun);
        finished(&self.key, spawn_blocking(move || file.set_len(size)).await)
    }
}

impl Drop for FileAppender {
    fn drop(&mut self) {
        // A write that nobody waits for any more has the file as well: then it is released when that ends.
        if let Some(file) = Arc::get_mut(&mut self.file) {
            release(file);
        }
    }
}

/// Has the disk begin to write a part of a file, and the cache forget what is written of it.
fn let_go(file: &File, part: Range<u64>) {
    let length = NonZeroU64::new(part.end - part.start);
    let _ = fadvise(file, part.start, length, Advice::DontNeed); // advice: without it both happen later
}

/// Writes all of the bytes. Returns whether they could be kept out of the cache.
fn write_past_cache(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<bool> {
    while !bytes.is_empty() {
        match pwritev2(file, &[IoSlice::new(bytes)], at, DONT_CACHE) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(Errno::INTR) => {}
            // The kernel knows no such flag, the file system does not, or a filter of system calls does not let it through.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::PERM) => {
                return file.write_all_at(bytes, at).map(|()| false);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;

    use rustix::io::preadv2;

    use super::*;

    #[tokio::test]
    async fn what_goes_past_the_cache_is_there_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let file = File::create(&path).unwrap();
        file.set_len(CACHED - 3).unwrap();
        let mut appender = Box::new(FileAppender::new(Key::new("data"), file, CACHED - 3));
        let pieces: [Bytes; 4] = ["abcde".into(), vec![7; 300_001].into(), Bytes::new(), vec![8; 70_000].into()];
        for piece in &pieces {
            appender.write(piece.clone()).await.unwrap();
        }
        assert_eq!(appender.finish().await.unwrap(), CACHED - 3 + 370_006);
        let written = std::fs::read(path).unwrap();
        assert!(written[CACHED as usize - 3..] == pieces.concat());
    }

    /// What the cache is asked to let go while so many MiB come, one by one.
    fn leaving(appender: &mut FileAppender, mebibytes: u64) -> Vec<Range<u64>> {
        let before = appender.size;
        (1..=mebibytes).filter_map(|count| appender.leaving(before + (count << 20))).collect()
    }

    #[test]
    fn where_the_cache_cannot_be_passed_by_it_is_asked_to_let_go_and_never_of_the_beginning() {
        let appender = |size, cache_all| {
            let mut appender = FileAppender::new(Key::new("data"), tempfile::tempfile().unwrap(), size);
            appender.cache_all = cache_all;
            appender
        };
        let steps = [CACHED..CACHED + STEP, CACHED..CACHED + 2 * STEP];
        for begun in [0, 63 << 20, CACHED] {
            let rest = (CACHED - begun + 2 * STEP) >> 20;
            assert_eq!(leaving(&mut appender(begun, true), rest), steps, "from {begun}");
        }
        assert_eq!(leaving(&mut appender(CACHED + STEP, true), 15), [], "resumed");
        assert_eq!(leaving(&mut appender(CACHED, false), 100), [], "what went past needs no help");
    }

    #[test]
    fn what_is_let_go_leaves_the_cache_and_nothing_else() {
        const HALF: u64 = 4 << 20; // the kernel lets go of whole folios, which have 2 MiB at most
        let (file, written) = (tempfile::tempfile().unwrap(), vec![7; 2 * HALF as usize]);
        file.write_all_at(&written, 0).unwrap();
        file.sync_all().unwrap();
        let_go(&file, HALF..2 * HALF);
        let is_cached = |at| {
            let read = preadv2(&file, &mut [IoSliceMut::new(&mut [0])], at, ReadWriteFlags::NOWAIT);
            read.map(|_| true).or_else(|error| if error == Errno::AGAIN { Ok(false) } else { Err(error) })
        };
        let kept = [0, HALF - 1, HALF, 2 * HALF - 1].map(is_cached);
        if is_on_a_disk(&file) {
            assert_eq!(kept, [true, true, false, false].map(Ok));
        }
        let mut read = vec![0; written.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == written);
    }

    /// In a file system that is known to have pages that leave, and to know the flag.
    fn is_on_a_disk(file: &File) -> bool {
        [0xef53, 0x5846_5342].contains(&rustix::fs::fstatfs(file).unwrap().f_type) // ext4, XFS
    }

    /// A wrong flag would look like an old kernel.
    #[test]
    fn where_the_kernel_knows_the_flag_it_is_taken() {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let numbers: Vec<u32> = release.split(['.', '-']).map_while(|part| part.trim().parse().ok()).collect();
        let file = tempfile::tempfile().unwrap();
        let knows = is_on_a_disk(&file);
        let went_past = write_past_cache(&file, b"content", 0).unwrap();
        assert!(went_past || !knows || numbers < vec![6, 16], "on Linux {release}");
    }

    #[test]
    fn where_the_kernel_will_not_the_bytes_are_written_all_the_same() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap(); // in memory: there is nothing but the cache
        let path = dir.path().join("data");
        let file = File::create(&path).unwrap();
        assert!(!write_past_cache(&file, b"content", 0).unwrap());
        assert_eq!(std::fs::read(path).unwrap(), b"content");
    }

    #[test]
    fn a_write_that_fails_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        File::create(&path).unwrap();
        assert!(write_past_cache(&File::open(&path).unwrap(), b"x", 0).is_err(), "opened for reading");
    }
}
