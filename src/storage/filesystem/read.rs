//! How is a file read as a whole, and how in pieces?
//!
//! **Invariant:** a file is read no further than its reader takes it: one piece is all that a stalled download holds, and
//! reading ahead is what the kernel does anyway. The memory of a piece is used again for the next once its taker has
//! dropped it, so a download that goes well reads into one buffer.
//!
//! What is in the page cache is read [here], in pieces that are still in the processor's cache when they are
//! encrypted; what is not, on the blocking pool.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream;

use super::super::{Mark, Pieces, Reader, Stat};
use super::Tree;
use super::here::{self, Branch};

/// How much of a large file is read at once.
pub(super) const PIECE: usize = 128 << 10;

/// Refuses what is not a regular file as missing.
fn object(found: Metadata) -> io::Result<Metadata> {
    if found.is_file() { Ok(found) } else { Err(io::ErrorKind::NotFound.into()) }
}

pub(super) fn stat(found: Metadata) -> io::Result<Stat> {
    let found = object(found)?;
    Ok(Stat { size: found.len(), modified: found.modified()? })
}

/// By the time of its last change (`ctime`): programs that restore a tree set the other times back.
pub(super) fn mark(folder: Metadata) -> io::Result<Mark> {
    if !folder.is_dir() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let seconds = Duration::from_secs(folder.ctime().try_into().unwrap_or_default());
    let nanoseconds = Duration::from_nanos(folder.ctime_nsec().try_into().unwrap_or_default());
    Ok(Mark { folder: (folder.dev(), folder.ino()), changed: SystemTime::UNIX_EPOCH + seconds + nanoseconds })
}

/// The content of a file, `None` when it has more than `limit` bytes. May wait for the disk.
pub(super) fn read_whole(tree: &Tree, branch: Branch, path: &Path, limit: usize) -> io::Result<Option<Bytes>> {
    let file = File::open(path)?;
    let size = object(file.metadata()?)?.len();
    tree.here.learn(branch, &file);
    if size > limit as u64 {
        return Ok(None);
    }
    // A file that grows meanwhile is cut at what it was: objects that are read as a whole never grow in place.
    let mut content = vec![0; size as usize];
    let read = read_on_the_pool(&file, &mut content, 0)?;
    content.truncate(read);
    Ok(Some(content.into()))
}

/// A part of a file that was opened, and what follows of it.
struct Part {
    tree: Arc<Tree>,
    branch: Branch,
    file: Arc<File>,
    /// The size of the whole file.
    size: u64,
    offset: u64,
    left: u64,
    /// The piece that was given last: its memory is for the next one, if nobody else holds it any more.
    given: Bytes,
}

impl Part {
    fn of(tree: &Arc<Tree>, branch: Branch, file: File, offset: u64, length: Option<u64>) -> io::Result<Self> {
        let size = object(file.metadata()?)?.len();
        let offset = offset.min(size);
        let left = length.map_or(size - offset, |length| length.min(size - offset));
        Ok(Self { tree: tree.clone(), branch, file: Arc::new(file), size, offset, left, given: Bytes::new() })
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        tokio::task::coop::consume_budget().await;
        let buffer = self.buffer();
        let (buffer, read) = self.fill(buffer).await?;
        self.took(buffer, read).map(Some)
    }

    /// What was read is the next piece. A file that ends too early is an error, not a short answer.
    fn took(&mut self, mut buffer: BytesMut, read: usize) -> io::Result<Bytes> {
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.truncate(read);
        self.offset += read as u64;
        self.left -= read as u64;
        let piece = buffer.freeze();
        if self.left > 0 {
            self.given = piece.clone();
        }
        Ok(piece)
    }

    /// Memory for the next piece.
    fn buffer(&mut self) -> BytesMut {
        let wanted = self.left.min(PIECE as u64) as usize;
        match std::mem::take(&mut self.given).try_into_mut() {
            Ok(mut buffer) => {
                buffer.resize(wanted, 0);
                buffer
            }
            Err(_) => BytesMut::zeroed(wanted),
        }
    }

    /// As much as can be had without waiting, or all that is asked for.
    async fn fill(&self, mut buffer: BytesMut) -> io::Result<(BytesMut, usize)> {
        if self.tree.here.is_supported(self.branch)
            && let Some(read) = self.tree.here.judged(self.branch, here::read_at(&self.file, &mut buffer, self.offset))
        {
            return Ok((buffer, read?));
        }
        let (file, offset) = (self.file.clone(), self.offset);
        let reading = tokio::task::spawn_blocking(move || {
            let read = read_on_the_pool(&file, &mut buffer, offset)?;
            Ok((buffer, read))
        });
        reading.await.map_err(io::Error::other)?
    }
}

/// A part whose first piece was read, so that a file that cannot be read fails before anything was promised.
pub(super) struct Begun {
    first: Option<Bytes>,
    part: Part,
}

impl Begun {
    /// With a file that was opened here.
    pub(super) async fn here(
        tree: &Arc<Tree>,
        branch: Branch,
        file: File,
        offset: u64,
        length: Option<u64>,
    ) -> io::Result<Self> {
        let mut part = Part::of(tree, branch, file, offset, length)?;
        let first = part.next().await?;
        Ok(Self { first, part })
    }

    /// With a file that is to be opened. May wait for the disk.
    pub(super) fn on_the_pool(
        tree: &Arc<Tree>,
        branch: Branch,
        path: &Path,
        offset: u64,
        length: Option<u64>,
    ) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut part = Part::of(tree, branch, file, offset, length)?;
        tree.here.learn(branch, &part.file);
        if part.left == 0 {
            return Ok(Self { first: None, part });
        }
        let mut buffer = part.buffer();
        let read = read_on_the_pool(&part.file, &mut buffer, part.offset)?;
        let first = Some(part.took(buffer, read)?);
        Ok(Self { first, part })
    }

    pub(super) fn into_reader(self) -> Reader {
        let size = self.part.size;
        if self.part.left == 0 {
            return Reader { size, pieces: Pieces::Whole(self.first.unwrap_or_default()) };
        }
        let rest = stream::try_unfold(self.part, |mut part| async move {
            let piece = part.next().await?;
            Ok(piece.map(|piece| (piece, part)))
        });
        Reader { size, pieces: Pieces::Many(stream::iter(self.first.map(Ok)).chain(rest).boxed()) }
    }
}

/// Reads until the buffer is full or the file ends.
fn read_on_the_pool(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(interrupted) if interrupted.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
