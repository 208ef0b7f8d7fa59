//! Is a blob held by another repository already, so that nobody need send it again?
//!
//! A client may name the repository, or leave it to us to find one (end-11). Then those are searched that the caller may
//! read: what a token names, or, where everybody may do everything, the tree, the neighbours of the target first. What a
//! token does not name is not searched, though its account may read it: who hands on a token for one repository hands on no
//! more than that.
//!
//! **Invariant:** only a link that is there now is taken over. That the content lies among the blobs is not enough: it may
//! be what is left of a repository that was deleted, or of a push that never ended.
//! **Invariant:** a search costs at most [`REPOSITORIES`] reads or [`LISTINGS`] listings, however large the tree. What it
//! does not find is sent once more, and nothing else is lost.
//!
//! Whether a blob exists where the caller may not read is nobody's business: then an ordinary upload begins.

use super::catalog::Walk;
use super::store::present;
use super::{Error, Registry, layout, to_the_end};
use crate::auth::Grant;
use crate::oci::endpoint::Mount;
use crate::oci::{Digest, RepositoryName};

/// How many repositories that a token names are searched.
const REPOSITORIES: usize = 100;
/// How many folders of the tree are listed for a search. Each is a repository or a namespace, and costs a listing and the
/// look for a link: some tens of milliseconds altogether, and seconds where a disk must move its head for each.
const LISTINGS: usize = 256;

impl Registry {
    /// Makes a blob visible in `name` if it is so already, or can be found where the caller may read.
    pub(super) async fn mount(&self, name: &RepositoryName, mount: &Mount, grant: &Grant) -> Result<bool, Error> {
        let digest = &mount.digest;
        if self.held_by(name, digest).await?.is_some() {
            self.store.driver().settle(&layout::layer(name, digest)).await?;
            return Ok(true);
        }
        let found = match &mount.from {
            Some(from) if grant.may_pull(from) => self.held_by(from, digest).await?,
            Some(_) => None,
            None if grant.everything => self.held_by_any(name, digest).await?,
            None => self.held_by_one_of(grant.readable().take(REPOSITORIES), digest).await?,
        };
        let Some(target) = found else { return Ok(false) };
        let (store, link) = (self.store.clone(), layout::layer(name, digest));
        to_the_end(async move { Ok(store.write_link(&link, &target).await?) }).await?;
        Ok(true)
    }

    async fn held_by(&self, source: &RepositoryName, digest: &Digest) -> Result<Option<Digest>, Error> {
        Ok(self.store.find_blob(source, digest).await?.map(|(target, _)| target))
    }

    async fn held_by_one_of(
        &self,
        sources: impl Iterator<Item = &RepositoryName>,
        digest: &Digest,
    ) -> Result<Option<Digest>, Error> {
        for source in sources {
            if let Some(target) = self.held_by(source, digest).await? {
                return Ok(Some(target));
            }
        }
        Ok(None)
    }

    /// Searches the tree once around, from the namespace of `name` to its end, then from its beginning to there. Most
    /// blobs are nowhere, which one look tells. (Nor are those then found that Distribution filed under another digest.)
    async fn held_by_any(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Digest>, Error> {
        if present(self.store.driver().stat(&layout::blob(digest)).await)?.is_none() {
            return Ok(None);
        }
        let namespace = name.as_str().rsplit_once('/').map_or("", |(namespace, _)| namespace);
        let mut onward = Walk::starting_after(&self.store, namespace, layout::LAYERS).within(LISTINGS);
        let found = self.held_along(&mut onward, None, digest).await?;
        if found.is_some() || namespace.is_empty() {
            return Ok(found);
        }
        let mut around = Walk::starting_after(&self.store, "", layout::LAYERS).within(onward.listings());
        self.held_along(&mut around, Some(namespace), digest).await
    }

    /// Searches a walk, to its end or to where the names below `until` begin.
    async fn held_along(
        &self,
        walk: &mut Walk<'_>,
        until: Option<&str>,
        digest: &Digest,
    ) -> Result<Option<Digest>, Error> {
        while let Some(source) = walk.next().await? {
            if until.is_some_and(|namespace| is_below(&source, namespace)) {
                break;
            }
            if let Some(target) = self.held_by(&source, digest).await? {
                return Ok(Some(target));
            }
        }
        Ok(None)
    }
}

fn is_below(name: &RepositoryName, namespace: &str) -> bool {
    name.as_str().strip_prefix(namespace).is_some_and(|below| below.starts_with('/'))
}
