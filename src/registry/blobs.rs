//! How does a blob go out?
//!
//! Its link in the repository is looked up, then its bytes are streamed from wherever the link points.
//!
//! **Invariant:** a repository shows only what was pushed to it or mounted into it; that another one has the same blob
//! makes no difference.

use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_RANGE, RANGE};
use http::request::Parts;
use http::{Method, StatusCode};

use super::store::present;
use super::{Error, Named, Registry, is_known_to_client, layout, to_the_end};
use crate::exchange::{Answer, Body, Exchange};
use crate::oci::media_type::OCTET_STREAM;
use crate::oci::range::{Requested, Span};
use crate::oci::{Digest, RepositoryName};
use crate::storage::{Durability, Pieces};

/// What a blob's digest names never changes, so it may be kept for a year.
const FOREVER: &str = "max-age=31536000";

impl Registry {
    /// end-2: a blob or a part of it.
    pub(super) async fn read_blob<E: Exchange>(
        &self,
        name: RepositoryName,
        digest: Digest,
        exchange: &mut E,
    ) -> Result<Answer, Error> {
        let linked = self.store.read_link(&layout::layer(&name, &digest)).await?;
        let target = linked.ok_or_else(|| Error::BlobUnknown(digest.clone()))?;
        let head = exchange.head();
        if is_known_to_client(head, &digest) {
            return Ok(described(StatusCode::NOT_MODIFIED, &digest));
        }
        let requested = requested_part(head, &digest);
        if head.method == Method::HEAD {
            let size = self.blob_size(&target, &digest).await?;
            return Ok(content(StatusCode::OK, &digest).header(CONTENT_LENGTH, size.to_string()));
        }
        match requested {
            Requested::Whole => self.stream(&target, &digest, None).await,
            Requested::Nonsense => Err(Error::RangeUnsatisfiable { size: self.blob_size(&target, &digest).await? }),
            Requested::Part(range) => match (range, self.blob_size(&target, &digest).await?) {
                // An empty blob has no parts, and clients that always ask for one get what there is.
                (_, 0) => self.stream(&target, &digest, None).await,
                (range, size) => {
                    let span = range.within(size).ok_or(Error::RangeUnsatisfiable { size })?;
                    self.stream(&target, &digest, Some(span)).await
                }
            },
        }
    }

    async fn blob_size(&self, target: &Digest, digest: &Digest) -> Result<u64, Error> {
        let found = present(self.store.driver().stat(&layout::blob(target)).await)?;
        found.map(|stat| stat.size).ok_or_else(|| lost(digest))
    }

    async fn stream(&self, target: &Digest, digest: &Digest, span: Option<Span>) -> Result<Answer, Error> {
        let (offset, length) = span.map_or((0, None), |span| (span.first, Some(span.length())));
        let opened = present(self.store.driver().open(&layout::blob(target), offset, length).await)?;
        let reader = opened.ok_or_else(|| lost(digest))?;
        let mut answer = match span {
            None => content(StatusCode::OK, digest),
            Some(Span { first, last }) => content(StatusCode::PARTIAL_CONTENT, digest)
                .header(CONTENT_RANGE, format!("bytes {first}-{last}/{}", reader.size)),
        };
        let length = length.unwrap_or(reader.size);
        answer.body = match reader.pieces {
            Pieces::Whole(bytes) if bytes.len() as u64 == length => Body::Bytes(bytes),
            Pieces::Whole(_) => return Err(lost(digest)), // cut off since its size was asked for
            Pieces::Many(pieces) => Body::Stream { length, pieces },
        };
        Ok(answer)
    }

    /// end-10: the repository does not show the blob any more. The bytes stay: others may have them too.
    pub(super) async fn delete_blob(&self, name: RepositoryName, digest: Digest) -> Result<Answer, Error> {
        if !self.config.delete {
            return Err(Error::DeleteDisabled);
        }
        let (store, gates) = (self.store.clone(), self.gates.clone());
        to_the_end(async move {
            let _alone = gates.delete(&name).await;
            let link = layout::layer(&name, &digest);
            store.read_link(&link).await?.ok_or(Error::BlobUnknown(digest))?;
            Ok(store.driver().delete(&link, Durability::Durable).await?)
        })
        .await?;
        Ok(Answer::new(StatusCode::ACCEPTED))
    }
}

/// A link without its blob: a garbage collection that did not know about the link, or a damaged disk.
fn lost(digest: &Digest) -> Error {
    tracing::warn!(%digest, "a repository links to this blob, but its content is gone");
    Error::BlobUnknown(digest.clone())
}

/// The part that is asked for, if the client still means this blob (RFC 9110, 13.1.5) and GETs it (14.2).
fn requested_part(head: &Parts, digest: &Digest) -> Requested {
    let same = head.headers.get(IF_RANGE).is_none_or(|condition| *condition == Named::new(digest).etag);
    let range = head.headers.get(RANGE).and_then(|range| range.to_str().ok());
    range.filter(|_| same && head.method == Method::GET).map_or(Requested::Whole, Requested::parse)
}

fn described(status: StatusCode, digest: &Digest) -> Answer {
    Named::new(digest).answer(status).constant(CACHE_CONTROL, FOREVER)
}

fn content(status: StatusCode, digest: &Digest) -> Answer {
    described(status, digest).constant(CONTENT_TYPE, OCTET_STREAM).constant(ACCEPT_RANGES, "bytes")
}
