//! Where do bytes live under keys?
//!
//! A [`Driver`] keeps objects under slash-separated [`Key`]s. It knows nothing of registries or HTTP, and the rooms
//! above know nothing of files or buckets.
//!
//! The contract, which every driver's tests check by calling the same suite (`conformance.rs`):
//!
//! - **Whole objects appear at once.** After [`Driver::put`] and [`Driver::rename`] a reader sees the old object or the
//!   new one, never a part, whatever else runs at the same time.
//! - **What is [`Durability::Durable`] survives a power cut** from the moment the call returns: the object, its name and
//!   every folder on the way to it. What is [`Durability::Light`] survives the end of the process; a power cut may take
//!   it back or leave it empty. Only the state of uploads in progress is written that way.
//! - **What lies there need not be durable**: the process that wrote it may have been killed before it had synced it, and the
//!   next one sees it all the same. Who tells somebody that a thing is kept because it is there calls [`Driver::settle`].
//! - **Appending is the exception.** [`Driver::append`] makes bytes visible as they come; [`Appender::finish`] makes
//!   them durable. Only uploads in progress are written this way, under keys that nothing else reads as truth.
//! - **One appender at a time** for a key, and nobody gives an object another name that somebody appends to: not between
//!   processes either, where the file system has locks. In one process it is the caller's duty, and a call that is abandoned
//!   (its future dropped) may still take effect for a moment: who needs an order must keep the future until it ends.
//! - **Missing is an answer**, [`ErrorKind::NotFound`], never an empty object. Deleting what is missing is `NotFound`.
//! - **A full disk is [`ErrorKind::Full`]** and leaves what was there before.
//! - What a write that never ended leaves behind (`NAME.UUID.tmp`, a name that no object may have) is never listed, and
//!   [`Driver::sweep`] removes it.
//!
//! **Invariant:** memory per open reader or appender is bounded by [`PIECE`] times a small constant, whatever the size of
//! the object; a listing is bounded by the limit that was asked for.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, Stream};

mod appender;
pub mod durable;
pub mod filesystem;
mod measured;

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
pub(crate) mod fault;
#[cfg(test)]
pub(crate) mod memory;
mod sweep;

pub use filesystem::Filesystem;
pub use measured::Measured;

/// How many bytes a reader yields at most at once and how many an appender should be given at once.
pub const PIECE: usize = 512 << 10;

/// The name of an object: components joined by `/`, none of them empty, `.` or `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Joins components. The caller builds them from parsed types.
    ///
    /// # Panics
    /// In debug builds, when a component could step out of its folder; parsed names cannot.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        debug_assert!(text.split('/').all(|part| !part.is_empty() && part != "." && part != ".."), "bad key {text:?}");
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key below this one.
    #[must_use]
    pub fn join(&self, below: &str) -> Self {
        Self::new(format!("{}/{below}", self.0))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Size in bytes.
    pub size: u64,
    /// When it was last written.
    pub modified: SystemTime,
}

/// The state of a key's children: a later one is another as soon as a child was added or taken away, and what happens
/// within the same moment may go unseen. So it says something only once it is older than the clock's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which folder it is: one that was put in its place is another.
    pub folder: (u64, u64),
    /// When a child was last added or taken away. Nobody can set it back.
    pub changed: SystemTime,
}

/// How old the last change of a folder or file must be before we trust that the next will have another time. The coarsest
/// clocks of file systems step by two seconds.
const SETTLED: Duration = Duration::from_secs(3);

impl Mark {
    /// Whether every change from now on makes it another. `now` is from before whatever was looked at under this mark,
    /// so that a change which the look missed came later.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        self.changed.checked_add(SETTLED).is_some_and(|settled| settled <= now)
    }
}

/// A child of a key: an object or a folder of further keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The component below the listed key.
    pub name: String,
    /// Whether further keys lie below it.
    pub is_folder: bool,
}

/// An open object.
pub struct Reader {
    /// The size of the whole object, in bytes.
    pub size: u64,
    /// The bytes from the requested offset on, as many as were asked for.
    pub pieces: Pieces,
}

/// Bytes of an open object, in pieces of at most [`PIECE`].
pub enum Pieces {
    /// All of them, where they are so few that they were read at once. None is no piece.
    Whole(Bytes),
    /// Many of them, some still to be read.
    Many(BoxStream<'static, io::Result<Bytes>>),
}

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::Many(pieces) => pieces.poll_next_unpin(cx),
        }
    }
}

/// What a change promises when the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives a power cut.
    Durable,
    /// Everybody sees it, but the disk may not have it yet: for the state of an upload, which can be made again.
    Light,
}

/// What a look for leftovers came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// What was removed.
    pub removed: u64,
    /// What could not be looked at or removed.
    pub failed: u64,
}

/// Bytes under keys. See the module's text for what every driver promises.
#[async_trait]
pub trait Driver: fmt::Debug + Send + Sync {
    /// A small object as a whole. One of more than `limit` bytes is refused with [`ErrorKind::TooLarge`], unread.
    async fn get(&self, key: &Key, limit: usize) -> Result<Bytes, Error>;

    /// Opens an object for streaming `length` bytes (or as many as follow) from `offset`.
    async fn open(&self, key: &Key, offset: u64, length: Option<u64>) -> Result<Reader, Error>;

    /// Size and age of an object. A folder is [`ErrorKind::NotFound`].
    async fn stat(&self, key: &Key) -> Result<Stat, Error>;

    /// Writes an object as a whole, atomically, replacing what was there.
    async fn put(&self, key: &Key, bytes: Bytes, durability: Durability) -> Result<(), Error>;

    /// At most `limit` children of a key, in ascending byte order of their names, beginning with the first that is
    /// greater than `after`. A key with nothing below it is [`ErrorKind::NotFound`] or empty.
    async fn list(&self, key: &Key, after: Option<&str>, limit: usize) -> Result<Vec<Entry>, Error>;

    /// The state of a key's children, without looking at them. A key with nothing below it may be [`ErrorKind::NotFound`].
    async fn mark(&self, key: &Key) -> Result<Mark, Error>;

    /// Makes an object that is there durable, whoever wrote it. Costs nothing where this process has done so before, by
    /// writing it or by this.
    async fn settle(&self, key: &Key) -> Result<(), Error>;

    /// Removes an object, or everything below a key (that is not atomic).
    async fn delete(&self, key: &Key, durability: Durability) -> Result<(), Error>;

    /// Removes what writes below a key left behind that never ended, if it was last written `before` this time. May take
    /// long; when it is abandoned, it stops soon. A key with nothing below it has no leftovers.
    async fn sweep(&self, below: &Key, before: SystemTime) -> Result<Swept, Error>;

    /// Moves an object of `size` bytes over whatever is at `to`. Atomic and durable; the bytes of `from` are made durable
    /// first. One that has another size, or that somebody appends to, is [`ErrorKind::Busy`].
    async fn rename(&self, from: &Key, to: &Key, size: u64) -> Result<(), Error>;

    /// Opens an object of exactly `offset` bytes for appending, or makes it. One that has another size, or that somebody
    /// else appends to, is [`ErrorKind::Busy`].
    async fn append(&self, key: &Key, offset: u64) -> Result<Box<dyn Appender>, Error>;
}

/// An object that grows at its end. Dropping it keeps what was written so far, not yet durable. After a failure there is
/// nothing to do but to cut it back.
#[async_trait]
pub trait Appender: Send {
    /// Adds bytes at the end; best given in pieces of about [`PIECE`].
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error>;

    /// Makes everything written durable and returns the object's size. It is the last that is done, but for cutting back
    /// where it fails.
    async fn finish(&mut self) -> Result<u64, Error>;

    /// Takes the object back to the size that it had when it was opened. It is the last that is done.
    async fn cut_back(&mut self) -> Result<(), Error>;
}

/// What went wrong, with which object.
#[derive(Debug, thiserror::Error)]
#[error("{kind} at {key}{}", source.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default())]
pub struct Error {
    /// The condition.
    pub kind: ErrorKind,
    /// The key.
    pub key: String,
    /// The cause below, if there is one.
    pub source: Option<io::Error>,
}

/// Conditions that a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ErrorKind {
    /// There is no such object.
    #[error("no such object")]
    NotFound,
    /// No space, no quota or no inodes left.
    #[error("no space left")]
    Full,
    /// The storage refuses us.
    #[error("permission denied")]
    Denied,
    /// The storage is mounted read-only.
    #[error("read-only storage")]
    ReadOnly,
    /// Somebody else, in another process perhaps, is writing to the object or has written to it.
    #[error("somebody else writes to the object")]
    Busy,
    /// The object is larger than the caller was ready to take.
    #[error("object larger than expected")]
    TooLarge,
    /// Anything else.
    #[error("storage failure")]
    Other,
}

impl Error {
    /// Wraps an I/O error, recognising the conditions above.
    pub fn io(key: impl fmt::Display, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::NotFound,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => ErrorKind::Full,
            io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            io::ErrorKind::ResourceBusy => ErrorKind::Busy,
            _ => ErrorKind::Other,
        };
        Self { kind, key: key.to_string(), source: Some(source) }
    }

    /// An error without a cause below.
    pub fn new(kind: ErrorKind, key: impl fmt::Display) -> Self {
        Self { kind, key: key.to_string(), source: None }
    }

    /// Whether the object is simply not there.
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}
