//! How are links and blobs read and written?
//!
//! **Write order is the safety**: data, then the link that makes it visible, then the name. Everything here returns only
//! when what it wrote is durable, so the order of calls is the order on the disk, and a crash between two of them leaves
//! something that nobody can see yet.
//!
//! What is there need not be durable, though: another process may have been killed before its last step was. Whoever
//! acknowledges something because it is there makes it durable first (`Driver::settle`). The last step is enough: what a
//! link names was durable before the link was written.
//!
//! **Invariant:** a link that is empty or holds no digest (another program died while it wrote it) counts as missing,
//! never as a failure.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::layout;
use crate::oci::{Digest, Hasher, RepositoryName};
use crate::storage::{Driver, Durability, Error, ErrorKind, Key, Stat};

/// A link is the text of a digest: at most 135 bytes.
const LINK_LIMIT: usize = 1024;

/// Up to so many bytes are hashed where we are; more go to the blocking pool, which costs about as much as these.
const HASH_HERE: usize = 32 << 10;

/// The tree on its driver.
#[derive(Debug, Clone)]
pub(super) struct Store {
    driver: Arc<dyn Driver>,
}

impl Store {
    pub(super) fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver }
    }

    pub(super) fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// What a link names.
    pub(super) async fn read_link(&self, key: &Key) -> Result<Option<Digest>, Error> {
        let text = match self.driver.get(key, LINK_LIMIT).await {
            Err(error) if error.kind == ErrorKind::TooLarge => Bytes::new(),
            other => match present(other)? {
                Some(text) => text,
                None => return Ok(None),
            },
        };
        let digest = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        if digest.is_none() {
            tracing::warn!(%key, "this link holds no digest and counts as missing");
        }
        Ok(digest)
    }

    /// Writes a link, replacing what it said.
    pub(super) async fn write_link(&self, key: &Key, digest: &Digest) -> Result<(), Error> {
        self.driver.put(key, digest.to_string().into(), Durability::Durable).await
    }

    /// The blob that a repository's digest names and its size, if both the link and the blob are there.
    ///
    /// The two digests differ where Distribution filed sha512 content under sha256.
    pub(super) async fn find_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<(Digest, Stat)>, Error> {
        let Some(target) = self.read_link(&layout::layer(name, digest)).await? else { return Ok(None) };
        let stat = present(self.driver.stat(&layout::blob(&target)).await)?;
        Ok(stat.map(|stat| (target, stat)))
    }

    /// Goes on hashing an object from `offset` to its end.
    pub(super) async fn hash_object(&self, key: &Key, offset: u64, mut hasher: Hasher) -> Result<Hasher, Error> {
        let mut pieces = self.driver.open(key, offset, None).await?.pieces;
        while let Some(piece) = pieces.try_next().await.map_err(|cause| Error::io(key, cause))? {
            hasher = absorb(hasher, piece).await;
        }
        Ok(hasher)
    }
}

/// Missing as an answer and not as a failure.
pub(super) fn present<T>(outcome: Result<T, Error>) -> Result<Option<T>, Error> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes bytes into a hash without keeping other requests waiting.
pub(super) async fn absorb(mut hasher: Hasher, bytes: Bytes) -> Hasher {
    if bytes.len() <= HASH_HERE {
        hasher.update(&bytes);
        return hasher;
    }
    let hashing = tokio::task::spawn_blocking(move || {
        hasher.update(&bytes);
        hasher
    });
    match hashing.await {
        Ok(hasher) => hasher,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down and will not poll this again.
            Err(_) => std::future::pending().await,
        },
    }
}
