//! What the operator may say about the embedded registry, checked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;

use super::health;

/// The embedded registry, as meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The root of the tree on disk (`storage.filesystem.rootdirectory`).
    pub root: PathBuf,
    /// Whether blobs, manifests and tags may be deleted (`storage.delete.enabled`).
    pub delete: bool,
    /// Whether nothing may change (`storage.maintenance.readonly.enabled`).
    pub read_only: bool,
    /// When abandoned uploads are removed; `None` for never, and so where nothing may change
    /// (`storage.maintenance.uploadpurging`).
    pub purge: Option<Purge>,
    /// How much may be pushed (`limits`).
    pub limits: Limits,
    /// What nodes share so that each can go on with an upload that another of Distribution's began (`http.secret`).
    pub secret: Option<Secret>,
    /// Whether a `Location` is a path and not a whole URL (`http.relativeurls`).
    pub relative_urls: bool,
    /// The most repositories on one page of the catalog (`catalog.maxentries`).
    pub catalog_page: usize,
    /// The most tags on one page (`tags.maxtags`).
    pub tags_page: usize,
    /// What a manifest must fulfil.
    pub validation: Validation,
    /// What must hold for requests to be answered (`health`).
    pub health: health::Config,
}

impl Config {
    /// What Distribution does where its file is silent, with the tree at `root`.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            delete: false,
            read_only: false,
            purge: Some(Purge::default()),
            limits: Limits::default(),
            secret: None,
            relative_urls: false,
            catalog_page: 1000,
            tags_page: 1000,
            validation: Validation::default(),
            health: health::Config::default(),
        }
    }
}

/// How much may be pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest manifest, in bytes.
    pub manifest: usize,
    /// The largest blob, in bytes; `None`: as large as the disk allows.
    pub blob: Option<u64>,
    /// Uploads at once of one account, or of one address where there are no accounts.
    pub uploads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { manifest: 4 << 20, blob: None, uploads: 256 }
    }
}

/// When abandoned uploads are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purge {
    /// How old an upload must be.
    pub age: Duration,
    /// How often they are looked for.
    pub interval: Duration,
    /// Whether they are only named in the log.
    pub dry_run: bool,
}

impl Default for Purge {
    fn default() -> Self {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        Self { age: hours(168), interval: hours(24), dry_run: false }
    }
}

/// What a manifest must fulfil beyond being one (`validation`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Validation {
    /// Whether none of this is asked: what a manifest names need not be there and may lie anywhere
    /// (`validation.disabled`).
    pub disabled: bool,
    /// `None`: layers may lie at any URL. Otherwise each URL must match one of these (`validation.manifests.urls.allow`).
    pub allow_urls: Option<Vec<Pattern>>,
    /// No URL may match one of these (`validation.manifests.urls.deny`).
    pub deny_urls: Vec<Pattern>,
    /// Which children of an index must be there (`validation.manifests.indexes`).
    pub platforms: Platforms,
}

/// Which children of an index must be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Platforms {
    /// Every one.
    #[default]
    All,
    /// None.
    None,
    /// Those for one of these pairs of operating system and architecture.
    Only(Vec<(String, String)>),
}

/// A regular expression; equal when it is written the same.
#[derive(Debug, Clone)]
pub struct Pattern(pub Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// A key that does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}
