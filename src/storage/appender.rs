//! How does a file grow as a client sends it?
//!
//! Each piece is one trip to the blocking pool and one `pwritev2`.
//!
//! What comes after the first [`CACHED`] bytes passes through the page cache without staying there (`RWF_DONTCACHE`, Linux
//! 6.14): the disk begins with every piece at once instead of with all of them when the client waits for its answer, the
//! memory that held a piece serves the next one, and what is being pulled is not driven out of memory by what is being
//! pushed. The price: who pulls a large layer first reads it from the disk. Small layers, which are most, stay in memory.
//! Where the kernel or the file system does not know the flag, writing is as it always was.
//!
//! **Invariant:** the flag is about when the disk writes, never about whether: nothing is durable before
//! [`Appender::finish`], which returns what went wrong on the way as well.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags, pwritev2};

use super::filesystem::finished;
use super::{Appender, Error, Key};

/// How much of each file stays in the page cache: more than most layers have.
const CACHED: u64 = 4 << 20;

/// `RWF_DONTCACHE`, of `linux/fs.h`.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// A file that grows at its end.
pub(super) struct FileAppender {
    key: Key,
    file: Arc<File>,
    size: u64,
    /// Whether the kernel has refused to write past the cache.
    cache_all: bool,
}

impl FileAppender {
    /// Goes on with a file of so many bytes.
    pub(super) fn new(key: Key, file: File, size: u64) -> Self {
        Self { key, file: Arc::new(file), size, cache_all: false }
    }
}

#[async_trait]
impl Appender for FileAppender {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let (file, at, length) = (self.file.clone(), self.size, bytes.len() as u64);
        let cache = self.cache_all || at < CACHED;
        let writing = tokio::task::spawn_blocking(move || {
            if cache { file.write_all_at(&bytes, at).map(|()| true) } else { write_past_cache(&file, &bytes, at) }
        });
        let went_past = finished(&self.key, writing.await)?;
        self.cache_all |= !went_past;
        self.size += length;
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<u64, Error> {
        let Self { key, file, size, .. } = *self;
        // The size is part of what fdatasync writes; times are not worth a journal commit.
        finished(&key, tokio::task::spawn_blocking(move || file.sync_data()).await)?;
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
