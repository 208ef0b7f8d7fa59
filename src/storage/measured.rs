//! A driver that counts and times another.
//!
//! The pieces of an open object are not timed: between two of them it is the client that takes its time.

use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::{Appender, Driver, Durability, Entry, Error, Key, Mark, Pieces, Reader, Stat, Swept};
use crate::telemetry::{Metrics, StorageCall};

/// Passes every call on, and tells how long it took and whether it failed.
#[derive(Debug)]
pub struct Measured {
    inner: Arc<dyn Driver>,
    metrics: Metrics,
}

impl Measured {
    /// Measures a driver.
    pub fn new(inner: Arc<dyn Driver>, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }

    fn counting_failures(
        &self,
        pieces: BoxStream<'static, io::Result<Bytes>>,
    ) -> BoxStream<'static, io::Result<Bytes>> {
        let metrics = self.metrics.clone();
        let pieces = pieces.inspect(move |piece| {
            if piece.is_err() {
                metrics.storage_error(StorageCall::Read);
            }
        });
        pieces.boxed()
    }
}

async fn timed<T>(
    metrics: &Metrics,
    call: StorageCall,
    work: impl Future<Output = Result<T, Error>> + Send,
) -> Result<T, Error> {
    let begun = Instant::now();
    let outcome = work.await;
    metrics.storage_call(call, begun.elapsed());
    if outcome.as_ref().is_err_and(|error| !error.is_not_found()) {
        metrics.storage_error(call);
    }
    outcome
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Driver for Measured {
    async fn get(&self, key: &Key, limit: usize) -> Result<Bytes, Error> {
        timed(&self.metrics, StorageCall::Get, self.inner.get(key, limit)).await
    }

    async fn open(&self, key: &Key, offset: u64, length: Option<u64>) -> Result<Reader, Error> {
        let reader = timed(&self.metrics, StorageCall::Open, self.inner.open(key, offset, length)).await?;
        let pieces = match reader.pieces {
            whole @ Pieces::Whole(_) => whole,
            Pieces::Many(pieces) => Pieces::Many(self.counting_failures(pieces)),
        };
        Ok(Reader { size: reader.size, pieces })
    }

    async fn stat(&self, key: &Key) -> Result<Stat, Error> {
        timed(&self.metrics, StorageCall::Stat, self.inner.stat(key)).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, durability: Durability) -> Result<(), Error> {
        timed(&self.metrics, StorageCall::Put, self.inner.put(key, bytes, durability)).await
    }

    async fn settle(&self, key: &Key) -> Result<(), Error> {
        timed(&self.metrics, StorageCall::Settle, self.inner.settle(key)).await
    }

    async fn list(&self, key: &Key, after: Option<&str>, limit: usize) -> Result<Vec<Entry>, Error> {
        timed(&self.metrics, StorageCall::List, self.inner.list(key, after, limit)).await
    }

    async fn mark(&self, key: &Key) -> Result<Mark, Error> {
        timed(&self.metrics, StorageCall::Mark, self.inner.mark(key)).await
    }

    async fn delete(&self, key: &Key, durability: Durability) -> Result<(), Error> {
        timed(&self.metrics, StorageCall::Delete, self.inner.delete(key, durability)).await
    }

    async fn sweep(&self, below: &Key, before: SystemTime) -> Result<Swept, Error> {
        timed(&self.metrics, StorageCall::Sweep, self.inner.sweep(below, before)).await
    }

    async fn rename(&self, from: &Key, to: &Key, size: u64) -> Result<(), Error> {
        timed(&self.metrics, StorageCall::Rename, self.inner.rename(from, to, size)).await
    }

    async fn append(&self, key: &Key, offset: u64) -> Result<Box<dyn Appender>, Error> {
        let inner = timed(&self.metrics, StorageCall::Append, self.inner.append(key, offset)).await?;
        Ok(Box::new(MeasuredAppender { inner, metrics: self.metrics.clone() }))
    }
}

struct MeasuredAppender {
    inner: Box<dyn Appender>,
    metrics: Metrics,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Appender for MeasuredAppender {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        timed(&self.metrics, StorageCall::Write, self.inner.write(bytes)).await
    }

    async fn finish(&mut self) -> Result<u64, Error> {
        timed(&self.metrics, StorageCall::Finish, self.inner.finish()).await
    }

    async fn cut_back(&mut self) -> Result<(), Error> {
        timed(&self.metrics, StorageCall::Append, self.inner.cut_back()).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::{Failure, FaultDriver};
    use super::super::{ErrorKind, Filesystem, conformance};
    use super::*;
    use crate::telemetry::Exposition;

    #[tokio::test]
    async fn a_measured_driver_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        conformance::suite(&Measured::new(Arc::new(Filesystem::new(dir.path())), Metrics::default())).await;
    }

    #[tokio::test]
    async fn what_is_missing_is_no_failure_and_what_fails_is() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::default();
        let missing = Measured::new(Arc::new(Filesystem::new(dir.path())), metrics.clone());
        missing.stat(&Key::new("missing")).await.unwrap_err();
        let broken = FaultDriver::failing(Arc::new(Filesystem::new(dir.path())), 0, Failure::Before, ErrorKind::Full);
        let broken = Measured::new(Arc::new(broken), metrics.clone());
        broken.put(&Key::new("full"), "x".into(), Durability::Light).await.unwrap_err();
        let page = metrics.page(Exposition::Prometheus);
        assert!(page.contains("pierhead_storage_call_duration_seconds_count{call=\"stat\"} 1\n"), "{page}");
        assert!(page.contains("pierhead_storage_errors_total{call=\"put\"} 1\n"), "{page}");
        assert!(!page.contains("pierhead_storage_errors_total{call=\"stat\"}"), "{page}");
    }
}
