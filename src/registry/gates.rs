//! When may something be taken away?
//!
//! A manifest is accepted after looking that everything it names is there. Between the look and the link, none of that
//! may be deleted, nor may a manifest go while a tag is being set to it: there would be a manifest without its blobs, or
//! a tag without a manifest. So who writes manifests or tags goes through a repository's gate with others, and who
//! deletes goes alone.
//!
//! Deletes are rare and short, so one of a fixed number of gates serves many repositories. Reading needs no gate: links
//! are replaced whole.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::oci::RepositoryName;

/// How many gates there are.
const GATES: usize = 64;

/// A gate for each repository, some of them shared.
#[derive(Debug)]
pub(super) struct Gates(Vec<Arc<RwLock<()>>>);

impl Gates {
    pub(super) fn new() -> Self {
        Self((0..GATES).map(|_| Arc::default()).collect())
    }

    /// For writing manifests and tags of a repository: together with others who write.
    pub(super) async fn write(&self, name: &RepositoryName) -> OwnedRwLockReadGuard<()> {
        self.of(name).read_owned().await
    }

    /// For deleting in a repository: alone.
    pub(super) async fn delete(&self, name: &RepositoryName) -> OwnedRwLockWriteGuard<()> {
        self.of(name).write_owned().await
    }

    fn of(&self, name: &RepositoryName) -> Arc<RwLock<()>> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        self.0[(hasher.finish() % GATES as u64) as usize].clone()
    }
}
