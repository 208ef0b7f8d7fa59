//! Which repositories are there?
//!
//! A repository is a folder that has `_manifests`, and may lie below another (`a` and `a/b`). They are walked in path
//! order, component by component: `a`, `a/b`, `a-b`, as Distribution lists them. That is not the order of the names as
//! text, where `-` comes before `/`.
//!
//! **Invariant:** a page costs what it shows and the depth of where it starts, not what lies before it.

use http::StatusCode;
use http::header::LINK;
use serde_json::json;

use super::store::{Store, present};
use super::{Error, Registry, layout};
use crate::exchange::Answer;
use crate::oci::name::MAX_LENGTH;
use crate::oci::{Page, RepositoryName};
use crate::storage::{self, Entry, Key};

/// How many repositories an answer has when the client does not say.
const USUAL: usize = 100;
/// How many entries of a folder are held at once. A listing reads the whole folder, so one suffices for the usual largest
/// answer and the look beyond it, with some that are no repositories.
const BATCH: usize = 1024;

impl Registry {
    /// `GET /v2/_catalog`: names with a `Link` to the next part when there is more.
    pub(super) async fn list_catalog(&self, page: Page) -> Result<Answer, Error> {
        let limit = page.limit.unwrap_or(USUAL).min(self.config.catalog_page);
        let mut names = self.repositories(page.after.as_deref(), limit + 1).await?;
        let more = names.len() > limit;
        names.truncate(limit);
        let texts: Vec<&str> = names.iter().map(RepositoryName::as_str).collect();
        let answer = Answer::json(StatusCode::OK, &json!({ "repositories": texts }));
        Ok(match texts.last().filter(|_| more) {
            Some(last) => answer.header(LINK, format!("</v2/_catalog?{}>; rel=\"next\"", Page::query(limit, last))),
            None => answer,
        })
    }

    /// At most `limit` repositories in path order, beginning after a name that need not exist.
    pub async fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Vec<RepositoryName>, Error> {
        let mut found = Vec::new();
        let mut walk = Walk::starting_after(&self.store, after.unwrap_or_default(), layout::MANIFESTS);
        while found.len() < limit
            && let Some(name) = walk.next().await?
        {
            found.push(name);
        }
        Ok(found)
    }
}

/// Where we are in the tree: the folders from the root to here, each with what is still to be visited in it.
pub(super) struct Walk<'a> {
    store: &'a Store,
    /// The folder by which we know what is looked for.
    mark: &'static str,
    open: Vec<Folder>,
    /// How many times it may still list a folder.
    listings: usize,
}

/// A folder that is being gone through.
struct Folder {
    /// The name so far; empty at the root.
    path: String,
    /// Entries that were listed and not visited, the next one last.
    entries: Vec<Entry>,
    /// What the next listing starts after; `None` when there is nothing more to list.
    unlisted: Option<Option<String>>,
}

impl<'a> Walk<'a> {
    /// For the repositories that have the folder `mark`. Opens every folder on the way to `after`, each to go on behind
    /// the component that leads there.
    pub(super) fn starting_after(store: &'a Store, after: &str, mark: &'static str) -> Self {
        let mut open = Vec::new();
        let mut path = String::new();
        for component in after.split('/') {
            open.push(Folder { path: path.clone(), entries: Vec::new(), unlisted: Some(Some(component.to_owned())) });
            let below = join(&path, component);
            if below.parse::<RepositoryName>().is_err() {
                // No folder of ours has such a name, so there is nothing below it.
                return Self { store, mark, open, listings: usize::MAX };
            }
            path = below;
        }
        open.push(Folder { path, entries: Vec::new(), unlisted: Some(None) });
        Self { store, mark, open, listings: usize::MAX }
    }

    /// Ends early, when it has listed folders so many times: once for each that it looks into.
    pub(super) fn within(self, listings: usize) -> Self {
        Self { listings, ..self }
    }

    /// How many listings are left.
    pub(super) fn listings(&self) -> usize {
        self.listings
    }

    pub(super) async fn next(&mut self) -> Result<Option<RepositoryName>, storage::Error> {
        while let Some(folder) = self.open.last_mut() {
            let Some(entry) = folder.entries.pop() else {
                match folder.unlisted.take() {
                    Some(after) => {
                        let Some(left) = self.listings.checked_sub(1) else { return Ok(None) };
                        self.listings = left;
                        folder.list(self.store, after).await?;
                    }
                    None => drop(self.open.pop()),
                }
                continue;
            };
            let path = join(&folder.path, &entry.name);
            if !entry.is_folder || path.len() > MAX_LENGTH {
                continue;
            }
            // What is not part of a name (`_layers`, `lost+found`) is not looked into.
            let Ok(name) = path.parse::<RepositoryName>() else { continue };
            let Some(left) = self.listings.checked_sub(1) else { return Ok(None) };
            self.listings = left;
            let mut below = Folder { path, entries: Vec::new(), unlisted: None };
            below.list(self.store, None).await?;
            let is_marked = below.has(self.store, self.mark).await?;
            self.open.push(below);
            if is_marked {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

impl Folder {
    /// Lists the next entries.
    async fn list(&mut self, store: &Store, after: Option<String>) -> Result<(), storage::Error> {
        let listed = present(store.driver().list(&self.key(), after.as_deref(), BATCH).await)?.unwrap_or_default();
        if listed.len() == BATCH {
            self.unlisted = Some(listed.last().map(|entry| entry.name.clone()));
        }
        self.entries = listed;
        self.entries.reverse();
        Ok(())
    }

    /// Whether it has this folder: usually seen in its first entries, which were just listed.
    async fn has(&self, store: &Store, mark: &str) -> Result<bool, storage::Error> {
        if self.unlisted.is_none() {
            return Ok(self.entries.iter().any(|entry| entry.is_folder && entry.name == mark));
        }
        Ok(present(store.driver().list(&self.key().join(mark), None, 1).await)?.is_some_and(|found| !found.is_empty()))
    }

    fn key(&self) -> Key {
        layout::repositories(&self.path)
    }
}

fn join(path: &str, component: &str) -> String {
    if path.is_empty() { component.to_owned() } else { format!("{path}/{component}") }
}
