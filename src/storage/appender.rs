//! How does a file grow as a client sends it?
//!
//! Each piece is one trip to the blocking pool and one `pwritev2`.
//!
//! The first [`CACHED`] bytes stay in the page cache: most layers whole. What a registry is asked for most is what was
//! pushed a moment ago, when it is deployed; on a rented disk of 125 MB/s, reading a layer again would cost the first of
//! the machines that pull it half a second for each 64 MiB. So that the client need not wait for all of it at the end,
//! the disk is set to work every [`EARLY`] bytes while more arrives.
//!
//! What comes after passes through the page cache without staying there (`RWF_DONTCACHE`): the disk begins with every
//! piece at once, the memory that held a piece serves the next one, and what is being pulled is not driven out of memory by
//! a huge push. Where the kernel or the file system does not know the flag, the same comes about in larger steps: at each
//! the disk is set to work on what is new, and what it has written by then leaves the cache. Measured, pushing 256 MiB:
//! keeping 4, 16 or 64 MiB makes no difference to rate or CPU, nor does the early start with a disk that keeps up.
//!
//! **Invariant:** all this is about when the disk writes, never about whether: nothing is durable before
//! [`Appender::finish`]. The kernel tells of a failed write once, to the next sync. So the disk is set to work by what asks
//! for no outcome (`POSIX_FADV_DONTNEED`): a sync in the middle would be told, and if this process were killed then, no
//! later one would be.

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

use super::filesystem::finished;
use super::{Appender, Error, Key};

/// How much of each file stays in the page cache: more than most layers have.
const CACHED: u64 = 64 << 20;

/// After how many bytes that stay in the cache the disk is set to work.
const EARLY: u64 = 16 << 20;

/// `RWF_DONTCACHE`, of `linux/fs.h`.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// A file that grows at its end.
pub(super) struct FileAppender {
    key: Key,
    file: Arc<File>,
    size: u64,
    /// Whether the kernel has refused to write past the cache.
    cache_all: bool,
    /// Up to where the disk has been set to work.
    begun: u64,
}

impl FileAppender {
    /// Goes on with a file of so many bytes.
    pub(super) fn new(key: Key, file: File, size: u64) -> Self {
        Self { key, file: Arc::new(file), size, cache_all: false, begun: size }
    }

    /// What the disk is to be set to work on, if that is worth it, once the file has `size` bytes. Of what lies beyond
    /// [`CACHED`] all, so that what was written of it leaves the cache.
    fn early(&mut self, size: u64) -> Option<Range<u64>> {
        let cached = if self.cache_all { size } else { size.min(CACHED) };
        if cached.saturating_sub(self.begun) < EARLY {
            return None;
        }
        let from = self.begun.min(CACHED);
        self.begun = cached;
        Some(from..cached)
    }
}

#[async_trait]
impl Appender for FileAppender {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let (file, at, length) = (self.file.clone(), self.size, bytes.len() as u64);
        let cache = self.cache_all || at < CACHED;
        let early = self.early(at + length);
        let writing = spawn_blocking(move || {
            let went_past =
                if cache { file.write_all_at(&bytes, at).map(|()| false) } else { write_past_cache(&file, &bytes, at) };
            if let Some(early) = early {
                set_to_work(&file, early);
            }
            went_past
        });
        let went_past = finished(&self.key, writing.await)?;
        self.cache_all |= !cache && !went_past;
        self.size += length;
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<u64, Error> {
        let Self { key, file, size, .. } = *self;
        // The size is part of what fdatasync writes; times are not worth a journal commit.
        finished(&key, spawn_blocking(move || file.sync_data()).await)?;
        Ok(size)
    }
}

/// Has the disk begin to write a part of a file, and forgets of it what is written.
fn set_to_work(file: &File, part: Range<u64>) {
    let length = NonZeroU64::new(part.end - part.start);
    let _ = fadvise(file, part.start, length, Advice::DontNeed); // advice: without it the disk begins later
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

    /// What the disk is set to work on while so many MiB come, one by one.
    fn begun_early(appender: &mut FileAppender, mebibytes: u64) -> Vec<Range<u64>> {
        let before = appender.size;
        (1..=mebibytes).filter_map(|count| appender.early(before + (count << 20))).collect()
    }

    fn appender(size: u64) -> FileAppender {
        FileAppender::new(Key::new("data"), tempfile::tempfile().unwrap(), size)
    }

    #[test]
    fn the_disk_is_set_to_work_before_the_end_and_not_for_small_uploads() {
        assert_eq!(begun_early(&mut appender(0), 15), []);
        let steps = [0..EARLY, EARLY..2 * EARLY, 2 * EARLY..3 * EARLY, 3 * EARLY..CACHED];
        assert_eq!(begun_early(&mut appender(0), 200), steps, "what goes past the cache needs no help");
        assert_eq!(begun_early(&mut appender(CACHED), 200), []);
    }

    #[test]
    fn where_all_goes_through_the_cache_it_leaves_in_steps() {
        let mut appender = appender(CACHED);
        appender.cache_all = true;
        assert_eq!(begun_early(&mut appender, 40), [CACHED..CACHED + EARLY, CACHED..CACHED + 2 * EARLY]);
    }

    #[test]
    fn what_the_disk_was_set_to_work_on_can_still_be_read() {
        let (file, written) = (tempfile::tempfile().unwrap(), vec![7; 1 << 20]);
        file.write_all_at(&written, 0).unwrap();
        for part in [0..1 << 19, 0..1 << 20] {
            set_to_work(&file, part);
        }
        let mut read = vec![0; written.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == written);
    }

    /// A wrong flag would look like an old kernel.
    #[test]
    fn where_the_kernel_knows_the_flag_it_is_taken() {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let numbers: Vec<u32> = release.split(['.', '-']).map_while(|part| part.trim().parse().ok()).collect();
        let file = tempfile::tempfile().unwrap();
        let knows = [0xef53, 0x5846_5342].contains(&rustix::fs::fstatfs(&file).unwrap().f_type); // ext4, XFS
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
