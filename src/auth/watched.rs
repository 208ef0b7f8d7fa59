//! What does the file say now?
//!
//! Keys and passwords of others are files that change while we run. They are looked at on use, at most once a second and
//! away from the async workers; what was read last serves everybody meanwhile.
//!
//! **Invariant:** a file that turned bad, or went away, changes nothing: what it said before counts until it says something
//! that makes sense again, and the log tells once.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Error;

/// How often a file is looked at, at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// The content of some files, as they were when last looked at.
pub(super) struct Watched<T>(Arc<Inner<T>>);

struct Inner<T> {
    files: Vec<PathBuf>,
    read: Box<dyn Fn() -> Result<T, Error> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    content: Arc<T>,
    /// Of the files that were read, or tried and found bad.
    stamps: Vec<Option<Stamp>>,
    looked: Instant,
    /// Whether the log was told that the files cannot be read.
    told: bool,
}

/// What changes when a file does: replaced files have another inode, rewritten ones another size or time, and those whose
/// owner or mode changed, so that we may read them now, another time too (`ctime`, which nobody can set back).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            seconds: metadata.ctime(),
            nanoseconds: metadata.ctime_nsec(),
        }
    }
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads the files for the first time, which must succeed. It blocks.
    pub(super) fn open(
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        // Stamps first: a change while we read is then seen the next time.
        let stamps = stamps(&files);
        let content = Arc::new(read()?);
        let state = Mutex::new(State { content, stamps, looked: Instant::now(), told: false });
        Ok(Self(Arc::new(Inner { files, read: Box::new(read), state })))
    }

    /// What the files say.
    pub(super) async fn content(&self, now: Instant) -> Arc<T> {
        {
            let mut state = self.0.state.lock();
            if now.saturating_duration_since(state.looked) < INTERVAL {
                return state.content.clone();
            }
            state.looked = now; // whoever comes while we look takes what there is
        }
        let inner = self.0.clone();
        match tokio::task::spawn_blocking(move || inner.look()).await {
            Ok(content) => content,
            Err(_) => self.0.state.lock().content.clone(), // only at the end of the process
        }
    }
}

impl<T> Inner<T> {
    fn look(&self) -> Arc<T> {
        let stamps = stamps(&self.files);
        {
            let state = self.state.lock();
            if state.stamps == stamps {
                return state.content.clone();
            }
        }
        let read = (self.read)();
        let mut state = self.state.lock();
        match read {
            Ok(content) => {
                tracing::info!(files = ?self.files, "read again, because it changed");
                (state.content, state.stamps, state.told) = (Arc::new(content), stamps, false);
            }
            Err(error) => {
                if !std::mem::replace(&mut state.told, true) {
                    tracing::error!("{error}; what was read before still counts");
                }
                // What could not be read is tried again, unchanged as it may be; what makes no sense is not.
                if !matches!(error, Error::File { .. }) {
                    (state.stamps, state.told) = (stamps, false);
                }
            }
        }
        state.content.clone()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    // Whatever is wrong with it, reading it will say so.
    files.iter().map(|file| std::fs::metadata(file).ok().map(|metadata| Stamp::of(&metadata))).collect()
}

/// The bytes of such a file, which must not be larger than that. It blocks.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    let size = read.map_err(|source| Error::File { path: path.to_owned(), source })?;
    if size as u64 > limit {
        return Err(Error::Key { path: path.to_owned(), problem: format!("is larger than {limit} bytes") });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::durable;

    #[tokio::test]
    async fn a_changed_file_is_read_again_after_a_second_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let write = |text: &str| durable::write(&file, text.as_bytes(), 0o600).unwrap();
        write("one");
        let path = file.clone();
        let read = move || match std::fs::read_to_string(&path) {
            Ok(text) if text == "bad" => Err(Error::Internal("reading")),
            Ok(text) => Ok(text),
            Err(source) => Err(Error::File { path: path.clone(), source }),
        };
        let watched = Watched::open(vec![file.clone()], read).unwrap();
        let mut now = Instant::now();
        write("two");
        assert_eq!(*watched.content(now).await, "one", "it was looked at just now");
        for (text, expected) in [("two", "two"), ("bad", "two"), ("three", "three")] {
            write(text);
            now += INTERVAL;
            assert_eq!(*watched.content(now).await, expected);
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(*watched.content(now + INTERVAL).await, "three", "a file that is gone");
        write("four");
        assert_eq!(*watched.content(now + INTERVAL * 2).await, "four");
    }
}
