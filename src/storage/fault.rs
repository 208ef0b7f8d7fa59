//! A driver for tests that counts the calls and makes one of them fail.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Appender, Driver, Durability, Entry, Error, ErrorKind, Key, Mark, Reader, Stat, Swept};

/// What the chosen call does before it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing: the process died, or the disk refused, before it.
    Before,
    /// Everything: the process died after it, or the answer was lost.
    After,
    /// Nothing, and later calls work again: the disk was full for a moment.
    Once,
}

/// Passes every call on, counts it, and fails the n-th and (but for [`Failure::Once`]) all that follow, as if the process
/// had ended there.
#[derive(Debug)]
pub(crate) struct FaultDriver {
    inner: Arc<dyn Driver>,
    calls: Arc<Calls>,
    older: Duration,
    durable: Mutex<BTreeSet<Key>>,
}

#[derive(Debug)]
struct Calls {
    made: AtomicUsize,
    fatal: usize,
    failure: Failure,
    kind: ErrorKind,
}

/// Whether a call may do its work, and whether it may tell.
enum Fate {
    Succeed,
    WorkThenFail,
    Fail,
}

impl FaultDriver {
    /// Only counts.
    pub(crate) fn counting(inner: Arc<dyn Driver>) -> Self {
        Self::failing(inner, usize::MAX, Failure::Before, ErrorKind::Other)
    }

    /// Fails the call with this number (the first is 0) and every later one with `kind`.
    pub(crate) fn failing(inner: Arc<dyn Driver>, fatal: usize, failure: Failure, kind: ErrorKind) -> Self {
        let calls = Calls { made: AtomicUsize::new(0), fatal, failure, kind };
        Self { inner, calls: Arc::new(calls), older: Duration::ZERO, durable: Mutex::default() }
    }

    /// Only counts, and says of every mark that it is so much older than it is: as if the test had waited. What is
    /// changed within a step of the clock goes unseen then, so the test must let it [step](clock_steps).
    pub(crate) fn ageing(inner: Arc<dyn Driver>, older: Duration) -> Self {
        Self { older, ..Self::counting(inner) }
    }

    /// How many calls were made so far, failed ones included.
    pub(crate) fn calls(&self) -> usize {
        self.calls.made.load(Ordering::SeqCst)
    }
}

impl FaultDriver {
    /// Whether a call made this object durable. One that was there before may be what a killed process left unsynced.
    pub(crate) fn made_durable(&self, key: &Key) -> bool {
        self.durable.lock().contains(key)
    }

    fn note(&self, key: &Key) {
        self.durable.lock().insert(key.clone());
    }
}

impl Calls {
    fn next(&self) -> Fate {
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        match self.failure {
            _ if number < self.fatal => Fate::Succeed,
            Failure::After if number == self.fatal => Fate::WorkThenFail,
            Failure::Once if number > self.fatal => Fate::Succeed,
            Failure::Before | Failure::After | Failure::Once => Fate::Fail,
        }
    }

    async fn around<T>(&self, key: &Key, work: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        let failure = || Err(Error::new(self.kind, key));
        match self.next() {
            Fate::Succeed => work.await,
            Fate::WorkThenFail => work.await.and_then(|_| failure()),
            Fate::Fail => failure(),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Driver for FaultDriver {
    async fn get(&self, key: &Key, limit: usize) -> Result<Bytes, Error> {
        self.calls.around(key, self.inner.get(key, limit)).await
    }

    async fn open(&self, key: &Key, offset: u64, length: Option<u64>) -> Result<Reader, Error> {
        self.calls.around(key, self.inner.open(key, offset, length)).await
    }

    async fn stat(&self, key: &Key) -> Result<Stat, Error> {
        self.calls.around(key, self.inner.stat(key)).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, durability: Durability) -> Result<(), Error> {
        self.calls.around(key, self.inner.put(key, bytes, durability)).await?;
        if durability == Durability::Durable {
            self.note(key);
        }
        Ok(())
    }

    async fn settle(&self, key: &Key) -> Result<(), Error> {
        self.calls.around(key, self.inner.settle(key)).await?;
        self.note(key);
        Ok(())
    }

    async fn list(&self, key: &Key, after: Option<&str>, limit: usize) -> Result<Vec<Entry>, Error> {
        self.calls.around(key, self.inner.list(key, after, limit)).await
    }

    async fn mark(&self, key: &Key) -> Result<Mark, Error> {
        let mark = self.calls.around(key, self.inner.mark(key)).await?;
        Ok(Mark { changed: mark.changed - self.older, ..mark })
    }

    async fn delete(&self, key: &Key, durability: Durability) -> Result<(), Error> {
        self.calls.around(key, self.inner.delete(key, durability)).await
    }

    async fn sweep(&self, below: &Key, before: SystemTime) -> Result<Swept, Error> {
        self.calls.around(below, self.inner.sweep(below, before)).await
    }

    async fn rename(&self, from: &Key, to: &Key, size: u64) -> Result<(), Error> {
        self.calls.around(to, self.inner.rename(from, to, size)).await?;
        self.note(to);
        Ok(())
    }

    async fn append(&self, key: &Key, offset: u64) -> Result<Box<dyn Appender>, Error> {
        let inner = self.calls.around(key, self.inner.append(key, offset)).await?;
        Ok(Box::new(FaultAppender { inner, key: key.clone(), calls: self.calls.clone() }))
    }
}

/// Waits until what changes in a folder is stamped with another time than what changed before.
pub(crate) fn clock_steps(folder: &std::path::Path) {
    let stamp = || {
        let file = tempfile::NamedTempFile::new_in(folder).unwrap();
        let found = file.as_file().metadata().unwrap();
        (found.ctime(), found.ctime_nsec())
    };
    let first = stamp();
    while stamp() == first {
        std::thread::yield_now();
    }
}

struct FaultAppender {
    inner: Box<dyn Appender>,
    key: Key,
    calls: Arc<Calls>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Appender for FaultAppender {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.calls.around(&self.key, self.inner.write(bytes)).await
    }

    async fn finish(&mut self) -> Result<u64, Error> {
        self.calls.around(&self.key, self.inner.finish()).await
    }

    async fn cut_back(&mut self) -> Result<(), Error> {
        self.calls.around(&self.key, self.inner.cut_back()).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Filesystem, conformance};
    use super::*;

    #[tokio::test]
    async fn a_driver_that_only_counts_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        conformance::suite(&FaultDriver::counting(Arc::new(Filesystem::new(dir.path())))).await;
    }

    #[tokio::test]
    async fn the_chosen_call_fails_before_or_after_its_work_and_nothing_works_any_more() {
        for (failure, done) in [(Failure::Before, false), (Failure::After, true)] {
            let dir = tempfile::tempdir().unwrap();
            let disk = Arc::new(Filesystem::new(dir.path()));
            let driver = FaultDriver::failing(disk.clone(), 1, failure, ErrorKind::Full);
            let (first, second) = (Key::new("first"), Key::new("second"));
            driver.put(&first, "1".into(), Durability::Light).await.unwrap();
            let failed = driver.put(&second, "2".into(), Durability::Light).await.unwrap_err();
            assert_eq!(failed.kind, ErrorKind::Full);
            assert!(driver.get(&first, 10).await.is_err());
            assert_eq!((disk.stat(&second).await.is_ok(), driver.calls()), (done, 3));
        }
    }
}
