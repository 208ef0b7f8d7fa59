//! Which tags does a repository have?
//!
//! **Invariant:** a tag that is listed had a readable link when it was read, which is not longer than [`LAG`] ago: a
//! folder without one (Distribution leaves it when it dies between the two) is no tag.
//!
//! A page costs a listing and a read for each tag, so it is remembered ([`Remembered`]), together with the [`Mark`] of the
//! folder of tags before it was read. Every request asks for that mark, and is answered from memory only if it is the
//! same. This is how a remembered tag can have come, gone or turned bad since, and what tells us:
//!
//! - A tag that comes, here or by another program, is a folder that is made in the folder of tags; one that is deleted is
//!   a folder that is removed. Both change the mark before the change is acknowledged, and nobody can set it back. A
//!   folder that was put in the place of all tags (a restore) is another folder.
//! - A change within the same step of the clock as the one before it would not: a mark counts only once it is settled.
//! - A folder whose link is still to come, because somebody is just pushing, or died while he did: when it comes, the mark
//!   stays. So a page is remembered only if every folder in it had a readable link.
//! - A tag that moves stays listed. What it names is no part of a page.
//! - A link that is taken away or torn while its folder stays. We take the link first and the folder next, Distribution
//!   and GitLab's registry remove both in one walk; between the two, and for good if one dies there, the mark is as it
//!   was. So it is when somebody damages a link, or a tag's folder is a symbolic link and what it leads to changes, or
//!   the file system does not keep such times (some that are mounted over a network). Then [`LAG`] bounds it: the tag is
//!   listed for so long, and its manifest is missing for who asks for that. A listing without memory is as old by the
//!   time that a client has read it.
//!
//! [`LAG`]: super::remembered::LAG

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::remembered::Remembered;
use super::store::{Store, present};
use super::{AT_ONCE, Error, Registry, layout};
use crate::exchange::Answer;
use crate::oci::{Digest, Page, RepositoryName, Tag};
use crate::storage::{self, Mark};

/// How many tags are read at once where all are wanted.
const BATCH: usize = 10_000;

/// The pages that are remembered.
pub(super) type Pages = Remembered<Asked, Listed>;

/// Which page: at most so many tags of a repository, after a name.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    name: RepositoryName,
    after: Option<String>,
    limit: usize,
}

/// A page as it is answered, and the state of the folder of tags before it was read.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    mark: Option<Mark>,
    body: Bytes,
    next: Option<HeaderValue>,
}

impl Registry {
    /// end-8: tags in ASCII order, with a `Link` to the next part when there is more.
    pub(super) async fn list_tags(&self, name: RepositoryName, page: Page) -> Result<Answer, Error> {
        let most = self.config.tags_page;
        let asked = Asked { limit: page.limit.unwrap_or(most).min(most), name, after: page.after };
        let begun = Instant::now();
        let mark = present(self.store.driver().mark(&layout::tags(&asked.name)).await)?;
        let known = mark.and_then(|_| self.pages.get(&asked, Instant::now())).filter(|listed| listed.mark == mark);
        if let Some(listed) = known {
            return Ok(listed.answer());
        }
        let is_settled = mark.is_some_and(|mark| mark.is_settled(SystemTime::now()));
        let read = page_of(&self.store, &asked.name, asked.after.clone(), asked.limit + 1).await?;
        if read.tags.is_empty() {
            // An empty page of a repository is not the same as no repository.
            let folder = present(self.store.driver().list(&layout::manifests(&asked.name), None, 1).await)?;
            if folder.is_none_or(|entries| entries.is_empty()) {
                return Err(Error::NameUnknown(asked.name));
            }
        }
        let listed = Listed::new(&asked, mark, &read.tags);
        let answer = listed.answer();
        if is_settled && read.all {
            let bytes = listed.weight() + asked.weight();
            self.pages.keep(asked, listed, begun, bytes);
        }
        Ok(answer)
    }
}

impl Asked {
    fn weight(&self) -> usize {
        self.name.as_str().len() + self.after.as_ref().map_or(0, String::len)
    }
}

impl Listed {
    /// Of the tags that were read: those asked for, and one more if there is one.
    fn new(asked: &Asked, mark: Option<Mark>, tags: &[(Tag, Digest)]) -> Self {
        let Asked { name, limit, .. } = asked;
        let shown: Vec<&str> = tags.iter().take(*limit).map(|(tag, _)| tag.as_str()).collect();
        let last = shown.last().filter(|_| tags.len() > *limit);
        let next = last.map(|last| format!("</v2/{name}/tags/list?{}>; rel=\"next\"", Page::query(*limit, last)));
        let body = format!("{}\n", json!({ "name": name.as_str(), "tags": shown }));
        let next = next.and_then(|next| HeaderValue::try_from(next).ok());
        Self { mark, body: body.into(), next }
    }

    fn answer(&self) -> Answer {
        let answer = Answer::new(StatusCode::OK).constant(CONTENT_TYPE, "application/json; charset=utf-8");
        let mut answer = answer.body(self.body.clone());
        answer.headers.extend(self.next.clone().map(|next| (LINK, next)));
        answer
    }

    fn weight(&self) -> usize {
        self.body.len() + self.next.as_ref().map_or(0, HeaderValue::len)
    }
}

/// Tags, and what they name.
struct Read {
    tags: Vec<(Tag, Digest)>,
    /// Whether every folder that was looked at is a tag.
    all: bool,
}

/// The tags that name a digest now.
pub(super) async fn naming(store: &Store, name: &RepositoryName, digest: &Digest) -> Result<Vec<Tag>, Error> {
    let mut naming = Vec::new();
    let mut after = None;
    loop {
        let tags = page_of(store, name, after, BATCH).await?.tags;
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
) -> Result<Read, storage::Error> {
    let mut read = Read { tags: Vec::new(), all: true };
    loop {
        let wanted = limit - read.tags.len();
        let listed = present(store.driver().list(&layout::tags(name), after.as_deref(), wanted).await)?;
        let Some(entries) = listed.filter(|entries| !entries.is_empty()) else { return Ok(read) };
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
        read.all &= found.iter().all(Option::is_some);
        read.tags.extend(found.into_iter().flatten());
        if at_the_end || read.tags.len() >= limit {
            return Ok(read);
        }
    }
}
