//! Which tags does a repository have?
//!
//! **Invariant:** a listed tag can be pulled by its name: a folder without a readable link (Distribution leaves one when
//! it dies between the two) is no tag.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::StatusCode;
use http::header::LINK;
use serde_json::json;

use super::store::{Store, present};
use super::{AT_ONCE, Error, Registry, layout};
use crate::exchange::Answer;
use crate::oci::{Digest, Page, RepositoryName, Tag};
use crate::storage;

/// How many tags are read at once where all are wanted.
const BATCH: usize = 10_000;

impl Registry {
    /// end-8: tags in ASCII order, with a `Link` to the next part when there is more.
    pub(super) async fn list_tags(&self, name: RepositoryName, page: Page) -> Result<Answer, Error> {
        let most = self.config.tags_page;
        let limit = page.limit.unwrap_or(most).min(most);
        let mut tags = page_of(&self.store, &name, page.after, limit + 1).await?;
        if tags.is_empty() {
            // An empty page of a repository is not the same as no repository.
            let folder = present(self.store.driver().list(&layout::manifests(&name), None, 1).await)?;
            if folder.is_none_or(|entries| entries.is_empty()) {
                return Err(Error::NameUnknown(name));
            }
        }
        let more = tags.len() > limit;
        tags.truncate(limit);
        let names: Vec<&str> = tags.iter().map(|(tag, _)| tag.as_str()).collect();
        let answer = Answer::json(StatusCode::OK, &json!({ "name": name.as_str(), "tags": names }));
        Ok(match names.last().filter(|_| more) {
            Some(last) => {
                answer.header(LINK, format!("</v2/{name}/tags/list?{}>; rel=\"next\"", Page::query(limit, last)))
            }
            None => answer,
        })
    }
}

/// The tags that name a digest now.
pub(super) async fn naming(store: &Store, name: &RepositoryName, digest: &Digest) -> Result<Vec<Tag>, Error> {
    let mut naming = Vec::new();
    let mut after = None;
    loop {
        let tags = page_of(store, name, after, BATCH).await?;
        let Some((last, _)) = tags.last() else { return Ok(naming) };
        after = Some(last.as_str().to_owned());
        naming.extend(tags.into_iter().filter(|(_, current)| current == digest).map(|(tag, _)| tag));
    }
}

/// At most `limit` tags after a name, and what they name. A listing reads the whole folder, so one asks for all that is
/// wanted.
async fn page_of(
    store: &Store,
    name: &RepositoryName,
    mut after: Option<String>,
    limit: usize,
) -> Result<Vec<(Tag, Digest)>, storage::Error> {
    let mut tags: Vec<(Tag, Digest)> = Vec::new();
    loop {
        let wanted = limit - tags.len();
        let listed = present(store.driver().list(&layout::tags(name), after.as_deref(), wanted).await)?;
        let Some(entries) = listed.filter(|entries| !entries.is_empty()) else { return Ok(tags) };
        after = entries.last().map(|entry| entry.name.clone());
        let at_the_end = entries.len() < wanted;
        let named = entries.into_iter().filter(|entry| entry.is_folder).filter_map(|entry| entry.name.parse().ok());
        let found: Vec<Option<(Tag, Digest)>> = stream::iter(named)
            .map(|tag: Tag| async move {
                let current = store.read_link(&layout::tag_current(name, &tag)).await?;
                Ok::<_, storage::Error>(current.map(|digest| (tag, digest)))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        tags.extend(found.into_iter().flatten());
        if at_the_end || tags.len() >= limit {
            return Ok(tags);
        }
    }
}
