//! What the operator may say about the embedded registry, checked.

use std::path::PathBuf;

/// The embedded registry, as meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The root of the tree on disk (`storage.filesystem.rootdirectory`).
    pub root: PathBuf,
    /// Whether blobs, manifests and tags may be deleted (`storage.delete.enabled`).
    pub delete: bool,
    /// The largest manifest, in bytes (`limits.manifest`).
    pub manifest_limit: usize,
}
