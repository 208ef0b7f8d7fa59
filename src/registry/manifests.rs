//! How do manifests come in and go out?
//!
//! A manifest is a blob that a revision link makes a manifest of a repository, and that tags may name.
//!
//! **The order of a push**, each step durable before the next: the look that everything it names is there; the blob; the
//! revision link; the tag's history; what the tag names now; the answer. So no tag names what is not there and no
//! manifest lacks its blobs. Deleting goes the other way: the tags first, then the manifest. The gate of `gates.rs`
//! keeps a delete from coming between.
//!
//! **Invariant:** what is served is byte for byte what was pushed. A stored manifest that does not match its digest (a
//! torn file of another program's crash) counts as missing, so that pushing it again repairs it.
//!
//! **Invariant:** how many clients ask for large manifests, and how slowly they read, costs no memory beyond what a blob's
//! readers cost: [`LARGE_HELD`] are in memory at once while they are looked at, and then they come from their files.
//!
//! What was read and seen to match is remembered under its digest ([`Remembered`]). The links are not: the storage is
//! asked at every request what the tag names, and whether the repository has that manifest, so a tag that moves and a
//! manifest that is deleted, here or by another program, are seen at once. Only the content is not looked at again, which
//! cannot change without changing its name. It can go, though, or be damaged, while its link stays: a garbage collection
//! that ran beside a push, a disk. Then it is served, as it was pushed, for as long as [`LAG`] says, and is missing from
//! then on. What decides about the tree never asks this memory: a push looks at the files ([`references`]).
//!
//! [`LAG`]: super::remembered::LAG

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, VARY};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::remembered::{LARGEST, Remembered};
use super::store::{Store, absorb, present};
use super::writers::{Place, Writers};
use super::{
    DOCKER_CONTENT_DIGEST, Error, Named, Registry, ended, is_known_to_client, layout, negotiation, references,
    to_the_end,
};
use crate::auth::Grant;
use crate::exchange::{Answer, Body, CollectError, Exchange, collect, content_length};
use crate::oci::media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCTET_STREAM};
use crate::oci::{Algorithm, Digest, Hasher, Manifest, MediaType, Reference, RepositoryName, Tag};
use crate::storage::{self, Durability, ErrorKind};

/// The largest manifest that is read, whatever the limit was when it came in.
const READ_LIMIT: usize = 64 << 20;

/// Larger documents are taken apart on the blocking pool, so that other requests do not wait.
const PARSE_HERE: usize = 64 << 10;

/// How many of those at once, in the whole process: in pieces a document takes several times its memory.
const LARGE_AT_ONCE: usize = 2;
static LARGE: Semaphore = Semaphore::const_new(LARGE_AT_ONCE);

/// A manifest that is too large to be remembered is large. So many are held at once, in the whole process, until it is seen
/// that they match. Who holds one waits for no client and for no other of them.
const LARGE_HELD: usize = 8;
static HELD: Semaphore = Semaphore::const_new(LARGE_HELD);

/// Up to this length, which most have, a manifest may come in at any time.
const SMALL: u64 = 64 << 10;
/// How many larger ones may be coming in at once, each of them in memory until it is whole: of all, and of one account.
const COMING: usize = 64;
const COMING_OF_ONE: usize = 8;

/// Room in memory for manifests that are coming in.
#[derive(Debug)]
pub(super) struct Room {
    all: Semaphore,
    each: Arc<Writers>,
}

impl Default for Room {
    fn default() -> Self {
        Self { all: Semaphore::new(COMING), each: Arc::default() }
    }
}

impl Room {
    /// Room for the manifest of a request, as long as what this gives back lives. A small one needs none.
    pub(super) fn enter<E: Exchange>(
        &self,
        grant: &Grant,
        exchange: &E,
    ) -> Result<Option<(Place, SemaphorePermit<'_>)>, Error> {
        if content_length(&exchange.head().headers).is_some_and(|length| length <= SMALL) {
            return Ok(None);
        }
        let place = self.each.enter(grant, exchange.caller(), COMING_OF_ONE)?;
        let permit = self.all.try_acquire().map_err(|_| Error::TooManyUploads)?;
        Ok(Some((place, permit)))
    }
}

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

impl Registry {
    /// end-3: a manifest as it was pushed. A client that names a manifest gets that one, whatever it accepts, but for the
    /// oldest of Docker's (see `negotiation.rs`).
    pub(super) async fn read_manifest<E: Exchange>(
        &self,
        name: RepositoryName,
        reference: Reference,
        exchange: &mut E,
    ) -> Result<Answer, Error> {
        let unknown = || Error::ManifestUnknown(reference.clone());
        let (digest, by_tag) = match &reference {
            Reference::Digest(digest) => (digest.clone(), false),
            Reference::Tag(tag) => {
                (self.store.read_link(&layout::tag_current(&name, tag)).await?.ok_or_else(unknown)?, true)
            }
        };
        let mut found = self.document(&name, &digest).await?.ok_or_else(unknown)?;
        let depends = by_tag && found.is(DOCKER_LIST);
        if depends && negotiation::takes_images_only(&exchange.head().headers) {
            found = self.usual_image(&name, found).await?.ok_or_else(unknown)?;
        }
        let known = is_known_to_client(exchange.head(), &found.digest);
        let mut answer = found.named.clone().answer(if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK });
        if depends {
            answer = answer.header(VARY, ACCEPT.as_str());
        }
        if known {
            return Ok(answer);
        }
        answer.headers.insert(CONTENT_TYPE, found.content_type.clone());
        answer.body = self.body(&found).await?.ok_or_else(unknown)?;
        Ok(answer)
    }

    /// The content that was seen to match, unless it is gone since. That of a large manifest is read a second time, as its
    /// client takes it.
    async fn body(&self, found: &Document) -> Result<Option<Body>, Error> {
        if found.room.is_none() {
            return Ok(Some(Body::Bytes(found.bytes.clone())));
        }
        let length = found.bytes.len() as u64;
        let opened = present(self.store.driver().open(&layout::blob(&found.target), 0, None).await)?;
        let opened = opened.filter(|reader| reader.size == length);
        Ok(opened.map(|reader| Body::Stream { length, pieces: reader.pieces.boxed() }))
    }

    /// A repository's manifest, if it is there and what it should be.
    async fn document(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Arc<Document>>, Error> {
        let begun = Instant::now();
        let Some(target) = self.store.read_link(&layout::revision(name, digest)).await? else { return Ok(None) };
        let known = self.documents.get(digest, Instant::now()).filter(|document| document.target == target);
        if let Some(document) = known {
            return Ok(Some(document));
        }
        let Some((bytes, room)) = self.content_or_wait(name, digest, &target).await? else { return Ok(None) };
        let document = Arc::new(Document::new(digest, target, bytes, room).await?);
        self.documents.keep(digest.clone(), document.clone(), begun, document.weight());
        Ok(Some(document))
    }

    /// A manifest's content, once there is room for it if it is large.
    async fn content_or_wait(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        target: &Digest,
    ) -> Result<Option<(Bytes, Option<SemaphorePermit<'static>>)>, Error> {
        match self.store.driver().get(&layout::blob(target), LARGEST).await {
            Err(error) if error.kind == ErrorKind::TooLarge => {
                let room = HELD.acquire().await.map_err(|_| Error::ShuttingDown)?;
                Ok(content(&self.store, name, digest, target).await?.map(|bytes| (bytes, Some(room))))
            }
            got => Ok(matching(got, name, digest, target).await?.map(|bytes| (bytes, None))),
        }
    }

    /// What a client gets in place of a list that knows no lists: the image in it, if there is one that such a client can
    /// read, or else the list. Never both are held: each may be large and wait for room.
    async fn usual_image(&self, name: &RepositoryName, list: Arc<Document>) -> Result<Option<Arc<Document>>, Error> {
        let Some(digest) = taking_apart(&list.bytes, |list| Ok(negotiation::usual_image(list))).await? else {
            return Ok(Some(list));
        };
        let listing = list.digest.clone();
        drop(list);
        match self.document(name, &digest).await?.filter(|found| found.is(DOCKER_MANIFEST)) {
            Some(image) => Ok(Some(image)),
            None => self.document(name, &listing).await,
        }
    }

    /// end-7: a manifest, named by a tag or by its digest and further tags.
    pub(super) async fn write_manifest<E: Exchange>(
        &self,
        name: RepositoryName,
        reference: Reference,
        further: Vec<Tag>,
        exchange: &mut E,
    ) -> Result<Answer, Error> {
        let bytes = collect(exchange, self.config.limits.manifest).await.map_err(|error| match error {
            CollectError::TooLarge { limit } => Error::ManifestTooLarge { limit },
            CollectError::Body(broken) => Error::ManifestBody(broken),
        })?;
        let content_type = exchange.head().headers.get(CONTENT_TYPE);
        let content_type = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let manifest = parse(bytes, content_type).await?;
        let (digest, tags) = match reference {
            Reference::Tag(tag) => (digest_of(Algorithm::Sha256, &manifest.bytes).await, vec![tag]),
            Reference::Digest(expected) => {
                let found = digest_of(expected.algorithm(), &manifest.bytes).await;
                if found != expected {
                    return Err(Error::DigestDiffers { expected, found });
                }
                (found, further.clone())
            }
        };
        let mut answer = Answer::new(StatusCode::CREATED)
            .header(LOCATION, self.location(exchange.caller(), &format!("/v2/{name}/manifests/{digest}")))
            .header(DOCKER_CONTENT_DIGEST, digest.to_string());
        if let Some(subject) = &manifest.subject {
            answer = answer.header(OCI_SUBJECT, subject.digest.to_string());
        }
        let named = further.iter().filter_map(|tag| HeaderValue::from_str(tag.as_str()).ok());
        answer.headers.extend(named.map(|tag| (OCI_TAG, tag)));

        let wanted = references::wanted(&manifest, &self.config.validation)?;
        let (store, gates) = (self.store.clone(), self.gates.clone());
        to_the_end(async move {
            let _together = gates.write(&name).await;
            references::check(&store, &name, wanted).await?;
            write(&store, &name, &digest, manifest.bytes, &tags).await
        })
        .await?;
        Ok(answer)
    }

    /// end-9: a tag, or a manifest and every tag that names it.
    pub(super) async fn delete_manifest(&self, name: RepositoryName, reference: Reference) -> Result<Answer, Error> {
        if !self.config.delete {
            return Err(Error::DeleteDisabled);
        }
        let (store, gates) = (self.store.clone(), self.gates.clone());
        to_the_end(async move {
            let _alone = gates.delete(&name).await;
            match &reference {
                Reference::Tag(tag) => match untag(&store, &name, tag).await? {
                    true => Ok(()),
                    false => Err(Error::ManifestUnknown(reference)),
                },
                Reference::Digest(digest) => {
                    let link = layout::revision(&name, digest);
                    if store.read_link(&link).await?.is_none() {
                        return Err(Error::ManifestUnknown(reference));
                    }
                    for tag in super::tags::naming(&store, &name, digest).await? {
                        untag(&store, &name, &tag).await?;
                    }
                    Ok(store.driver().delete(&link, Durability::Durable).await?)
                }
            }
        })
        .await?;
        Ok(Answer::new(StatusCode::ACCEPTED))
    }
}

/// The manifests that are remembered, by the digests that they are asked for by.
pub(super) type Documents = Remembered<Digest, Arc<Document>>;

/// A stored manifest as it is answered.
#[derive(Debug)]
pub(super) struct Document {
    digest: Digest,
    /// What the revision link named, and the content was seen to match.
    target: Digest,
    bytes: Bytes,
    /// What it is served as, if that can be told.
    media_type: Option<MediaType>,
    content_type: HeaderValue,
    named: Named,
    /// What it holds while it is in memory, if it is large.
    room: Option<SemaphorePermit<'static>>,
}

impl Document {
    async fn new(
        digest: &Digest,
        target: Digest,
        bytes: Bytes,
        room: Option<SemaphorePermit<'static>>,
    ) -> Result<Self, Error> {
        let media_type = taking_apart(&bytes, |bytes| Ok(Manifest::served_as(&bytes))).await?;
        let content_type = media_type.as_ref().and_then(|found| HeaderValue::from_str(found.as_str()).ok());
        let content_type = content_type.unwrap_or_else(|| HeaderValue::from_static(OCTET_STREAM));
        let named = Named::new(digest);
        Ok(Self { digest: digest.clone(), target, bytes, media_type, content_type, named, room })
    }

    fn is(&self, media_type: &str) -> bool {
        self.media_type.as_ref().is_some_and(|found| found.as_str() == media_type)
    }

    /// Its content, and the digest in five places.
    fn weight(&self) -> usize {
        self.bytes.len() + 5 * self.digest.as_str().len()
    }
}

/// The bytes of a repository's manifest, if they are there and what they should be.
pub(super) async fn read(store: &Store, name: &RepositoryName, digest: &Digest) -> Result<Option<Bytes>, Error> {
    match store.read_link(&layout::revision(name, digest)).await? {
        Some(target) => content(store, name, digest, &target).await,
        None => Ok(None),
    }
}

/// The content that a manifest's revision link names, if it is there and what it should be.
async fn content(
    store: &Store,
    name: &RepositoryName,
    digest: &Digest,
    target: &Digest,
) -> Result<Option<Bytes>, Error> {
    matching(store.driver().get(&layout::blob(target), READ_LIMIT).await, name, digest, target).await
}

/// What was read of a manifest, if it is what it should be.
async fn matching(
    got: Result<Bytes, storage::Error>,
    name: &RepositoryName,
    digest: &Digest,
    target: &Digest,
) -> Result<Option<Bytes>, Error> {
    let bytes = match got {
        Err(error) if error.is_not_found() || error.kind == ErrorKind::TooLarge => {
            tracing::warn!(%digest, repository = %name, "this manifest's content is gone, or too large for one");
            return Ok(None);
        }
        got => got?,
    };
    if digest_of(target.algorithm(), &bytes).await != *target {
        tracing::warn!(%digest, repository = %name, "this manifest is damaged: pushing it again repairs it");
        return Ok(None);
    }
    Ok(Some(bytes))
}

/// Reads a document that came with this `Content-Type`.
pub(super) async fn parse(bytes: Bytes, content_type: Option<String>) -> Result<Manifest, Error> {
    taking_apart(&bytes, move |bytes| Ok(Manifest::parse(bytes, content_type.as_deref())?)).await
}

/// Does what reads a whole document where it keeps nobody waiting.
async fn taking_apart<T: Send + 'static>(
    bytes: &Bytes,
    work: impl FnOnce(Bytes) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let bytes = bytes.clone();
    if bytes.len() <= PARSE_HERE {
        return work(bytes);
    }
    let turn = LARGE.acquire().await.map_err(|_| Error::ShuttingDown)?;
    ended(
        tokio::task::spawn_blocking(move || {
            // Held by the work and not by the request, which may be gone before it ends.
            let _turn = turn;
            work(bytes)
        })
        .await,
    )
}

async fn digest_of(algorithm: Algorithm, bytes: &Bytes) -> Digest {
    absorb(Hasher::new(algorithm), bytes.clone()).await.finish()
}

/// Data, reference, name: in this order.
async fn write(store: &Store, name: &RepositoryName, digest: &Digest, bytes: Bytes, tags: &[Tag]) -> Result<(), Error> {
    store.driver().put(&layout::blob(digest), bytes, Durability::Durable).await?;
    store.write_link(&layout::revision(name, digest), digest).await?;
    for tag in tags {
        store.write_link(&layout::tag_index(name, tag, digest), digest).await?;
        store.write_link(&layout::tag_current(name, tag), digest).await?;
    }
    Ok(())
}

/// Takes a tag away, and says whether there was one. What it names now goes first: without it there is no tag, whatever
/// else of its folder a crash leaves behind.
async fn untag(store: &Store, name: &RepositoryName, tag: &Tag) -> Result<bool, Error> {
    let removed = store.driver().delete(&layout::tag_current(name, tag), Durability::Durable).await;
    if present(removed)?.is_none() {
        return Ok(false);
    }
    present(store.driver().delete(&layout::tag(name, tag), Durability::Light).await)?;
    Ok(true)
}
