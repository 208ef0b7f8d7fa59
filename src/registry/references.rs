//! Is everything there that a manifest names?
//!
//! An image's configuration and layers must be blobs of its repository, an index's entries manifests of it: then whoever
//! can pull a manifest can pull all of it. Layers that live elsewhere need not be there; the operator may say where that
//! may be (`validation.manifests.urls`), which of an index's children must be there (`validation.manifests.indexes`), or
//! that nothing is asked at all (`validation.disabled`).
//!
//! What is there was perhaps never sent to this process: a client asks (HEAD) and skips what there is. So its link is made
//! durable before the manifest is; for what this process wrote itself that costs nothing.
//!
//! Absent on purpose: the subject. A signature may come before what it signs (OCI distribution-spec, "Pushing Manifests
//! with Subject").

use std::collections::HashSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::store::{Store, present};
use super::{AT_ONCE, Error, Platforms, Validation, layout};
use crate::oci::{Descriptor, Digest, Manifest, Platform, RepositoryName};
use crate::storage;

/// How much of a URL is repeated to the client that wrote it.
const MAX_URL: usize = 200;

/// As what content must be in a repository before a manifest may name it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    Blob,
    Manifest,
    /// BuildKit keeps caches as indexes whose entries are layers: what does not say that it is a manifest may be a blob.
    Either,
}

impl Wanted {
    fn of_child(child: &Descriptor) -> Self {
        match &child.media_type {
            Some(kind) if !kind.is_image() && !kind.is_index() => Self::Either,
            _ => Self::Manifest,
        }
    }
}

/// What must be there before this manifest, each once.
pub(super) fn wanted(manifest: &Manifest, rules: &Validation) -> Result<Vec<(Digest, Wanted)>, Error> {
    if rules.disabled {
        return Ok(Vec::new());
    }
    let blobs = manifest.config.iter().chain(&manifest.layers);
    let urls = blobs.clone().chain(&manifest.children).flat_map(|named| &named.urls);
    if let Some(url) = urls.into_iter().find(|url| !rules.allow(url)) {
        return Err(Error::UrlRefused { url: url.chars().take(MAX_URL).collect() });
    }
    let blobs = blobs.filter(|layer| !layer.is_elsewhere()).map(|blob| (blob.digest.clone(), Wanted::Blob));
    let children = manifest.children.iter().filter(|child| rules.platforms.contain(child.platform.as_ref()));
    let children = children.map(|child| (child.digest.clone(), Wanted::of_child(child)));
    let mut seen = HashSet::new();
    Ok(blobs.chain(children).filter(|(digest, _)| seen.insert(digest.clone())).collect())
}

impl Validation {
    fn allow(&self, url: &str) -> bool {
        let allowed = self.allow_urls.as_ref().is_none_or(|patterns| patterns.iter().any(|it| it.0.is_match(url)));
        allowed && !self.deny_urls.iter().any(|it| it.0.is_match(url))
    }
}

impl Platforms {
    /// A child that does not say what it is for is for none in particular.
    fn contain(&self, platform: Option<&Platform>) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Only(listed) => platform
                .is_some_and(|found| listed.iter().any(|(os, arch)| *os == found.os && *arch == found.architecture)),
        }
    }
}

/// Looks that all this is there.
pub(super) async fn check(store: &Store, name: &RepositoryName, wanted: Vec<(Digest, Wanted)>) -> Result<(), Error> {
    let missing: Vec<Option<Digest>> = stream::iter(wanted)
        .map(|(digest, wanted)| async move {
            let there = is_there(store, name, &digest, wanted).await?;
            Ok::<_, storage::Error>((!there).then_some(digest))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let missing: Vec<Digest> = missing.into_iter().flatten().collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::ReferencesUnknown(missing)) }
}

async fn is_there(
    store: &Store,
    name: &RepositoryName,
    digest: &Digest,
    wanted: Wanted,
) -> Result<bool, storage::Error> {
    let revision = layout::revision(name, digest);
    let (link, there) = if matches!(wanted, Wanted::Manifest | Wanted::Either)
        && let Some(target) = store.read_link(&revision).await?
    {
        (revision, present(store.driver().stat(&layout::blob(&target)).await)?.is_some())
    } else if matches!(wanted, Wanted::Blob | Wanted::Either) {
        (layout::layer(name, digest), store.find_blob(name, digest).await?.is_some())
    } else {
        return Ok(false);
    };
    // One that goes away meanwhile is not there.
    Ok(there && present(store.driver().settle(&link).await)?.is_some())
}
