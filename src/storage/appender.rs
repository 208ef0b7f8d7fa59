//! How does a file grow as a client sends it?
//!
//! Each piece is one trip to the blocking pool and one `pwritev2`.
//!
//! The first [`CACHED`] bytes stay in the page cache: most layers whole. What a registry is asked for most is what was
//! pushed a moment ago, when it is deployed; on a rented disk of 125 MB/s, reading a layer again would cost the first of
//! the machines that pull it half a second for each 64 MiB. So that the client need not wait for all of it at the end,
//! the disk is set to work every [`EARLY`] bytes while more arrives. One such sync at a time, and none for small uploads.
//!
//! What comes after passes through the page cache without staying there (`RWF_DONTCACHE`, Linux 6.14): the disk begins
//! with every piece at once, the memory that held a piece serves the next one, and what is being pulled is not driven out
//! of memory by a huge push. Where the kernel or the file system does not know the flag, all of it stays, and the disk is
//! set to work all along. Measured, pushing 256 MiB: keeping 4, 16 or 64 MiB makes no difference to rate or CPU, nor does
//! the early start with a disk that keeps up.
//!
//! **Invariant:** all this is about when the disk writes, never about whether: nothing is durable before
//! [`Appender::finish`], which returns what went wrong on the way as well. The kernel tells an open file of a failed
//! write once, and it may tell an early sync: that one's outcome is therefore always awaited and passed on.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use tokio::task::{JoinHandle, spawn_blocking};

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
    /// The latest early sync, until its outcome was looked at.
    early: Option<JoinHandle<io::Result<()>>>,
}

impl FileAppender {
    /// Goes on with a file of so many bytes.
    pub(super) fn new(key: Key, file: File, size: u64) -> Self {
        Self { key, file: Arc::new(file), size, cache_all: false, begun: size, early: None }
    }

    /// Sets the disk to work on what lies in the cache, if that is worth it and it is not at work already.
    async fn sync_early(&mut self) -> Result<(), Error> {
        let cached = if self.cache_all { self.size } else { self.size.min(CACHED) };
        let busy = self.early.as_ref().is_some_and(|early| !early.is_finished());
        if busy || cached.saturating_sub(self.begun) < EARLY {
            return Ok(());
        }
        self.end_early().await?;
        let file = self.file.clone();
        self.early = Some(spawn_blocking(move || file.sync_data()));
        self.begun = self.size;
        Ok(())
    }

    /// What the latest early sync came to.
    async fn end_early(&mut self) -> Result<(), Error> {
        match self.early.take() {
            Some(early) => finished(&self.key, early.await),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Appender for FileAppender {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let (file, at, length) = (self.file.clone(), self.size, bytes.len() as u64);
        let cache = self.cache_all || at < CACHED;
        let writing = spawn_blocking(move || {
            if cache { file.write_all_at(&bytes, at).map(|()| true) } else { write_past_cache(&file, &bytes, at) }
        });
        let went_past = finished(&self.key, writing.await)?;
        self.cache_all |= !went_past;
        self.size += length;
        self.sync_early().await
    }

    async fn finish(mut self: Box<Self>) -> Result<u64, Error> {
        self.end_early().await?;
        let Self { key, file, size, .. } = *self;
        // The size is part of what fdatasync writes; times are not worth a journal commit.
        finished(&key, spawn_blocking(move || file.sync_data()).await)?;
        Ok(size)
    }
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

    /// An appender in the middle of an upload that has so many bytes.
    fn begun_at(size: u64) -> (tempfile::TempDir, Box<FileAppender>) {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("data")).unwrap();
        file.set_len(size).unwrap();
        (dir, Box::new(FileAppender::new(Key::new("data"), file, size)))
    }

    async fn write_mebibytes(appender: &mut FileAppender, count: usize) {
        let mebibyte = Bytes::from(vec![7; 1 << 20]);
        for _ in 0..count {
            appender.write(mebibyte.clone()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_disk_is_set_to_work_before_the_end_and_not_for_small_uploads() {
        let (_dir, mut appender) = begun_at(CACHED - EARLY);
        write_mebibytes(&mut appender, 15).await;
        assert!(appender.early.is_none(), "an upload of 15 MiB is small");
        write_mebibytes(&mut appender, 1).await;
        assert_eq!((appender.early.is_some(), appender.begun), (true, CACHED));
        appender.end_early().await.unwrap();
        write_mebibytes(&mut appender, 20).await;
        let beyond = if appender.cache_all { CACHED + EARLY } else { CACHED };
        assert_eq!(appender.begun, beyond, "what goes past the cache needs no help");
        assert_eq!(appender.finish().await.unwrap(), CACHED + (20 << 20));
    }

    #[tokio::test]
    async fn where_all_stays_in_the_cache_the_disk_is_set_to_work_all_along() {
        let (_dir, mut appender) = begun_at(CACHED);
        appender.cache_all = true;
        write_mebibytes(&mut appender, 16).await;
        assert_eq!((appender.early.is_some(), appender.begun), (true, CACHED + EARLY));
    }

    /// The kernel would not tell the last sync again.
    #[tokio::test]
    async fn what_an_early_sync_was_told_is_not_lost() {
        for more in [0, 16] {
            let (_dir, mut appender) = begun_at(0);
            let early = spawn_blocking(|| Err(io::Error::from(Errno::IO)));
            while !early.is_finished() {
                tokio::task::yield_now().await;
            }
            appender.early = Some(early);
            let outcome = async move {
                for _ in 0..more {
                    appender.write(vec![7; 1 << 20].into()).await?;
                }
                appender.finish().await
            };
            let error = outcome.await.unwrap_err();
            assert_eq!(error.source.unwrap().raw_os_error(), Some(Errno::IO.raw_os_error()), "after {more} MiB more");
        }
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
