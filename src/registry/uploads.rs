//! How does a blob come in?
//!
//! An upload is begun (POST), grows (PATCH, in one stream or in chunks) and is committed under its digest (PUT). Its
//! whole state lies in the tree as Distribution has it: after a restart, or on the other program, it goes on.
//!
//! **The order of a commit**, each step durable before the next: the data; its name among the blobs; the link that makes
//! it visible in the repository; the answer. A crash before the link leaves content that nobody can see. The rename
//! replaces a blob that is there already: it was checked a moment ago, what it replaces may be the torn leftover of
//! another program's crash, and readers of the old file keep it until they are done.
//!
//! A commit may be asked for again: when its answer was lost, or when its link found no room. See `commit_again`.
//!
//! **Invariant:** content that broke off or does not match its digest is never committed. It stays as an upload, so that
//! the client can go on or give the right digest. Content that is larger than a blob may be does not stay: it could never
//! become one. What is announced to be too large is refused before it is read.
//!
//! Absent on purpose: taking a blob over from another repository (`mounts.rs`), removing abandoned uploads (`purge.rs`), and
//! what a `Location` looks like (`location.rs`).

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_RANGE;
use http::{HeaderMap, StatusCode};
use tokio::runtime::Handle;
use tracing::Instrument as _;

use super::intake::{Arrived, Received, Upload, receive, saved_state};
use super::location::DOCKER_UPLOAD_UUID;
use super::store::{Store, present};
use super::turns::{Turn, Turns};
use super::{Error, Registry, layout, to_the_end};
use crate::auth::Grant;
use crate::exchange::{Answer, Exchange, content_length};
use crate::oci::endpoint::Mount;
use crate::oci::range::Span;
use crate::oci::{Algorithm, Digest, Hasher, RepositoryName, UploadId};
use crate::storage::Durability;

impl Registry {
    /// end-4 and end-11: an upload begins, unless the blob is there already or comes along.
    pub(super) async fn start_upload<E: Exchange>(
        &self,
        name: RepositoryName,
        mount: Option<Mount>,
        digest: Option<Digest>,
        grant: &Grant,
        exchange: &mut E,
    ) -> Result<Answer, Error> {
        if let Some(mount) = mount
            && self.mount(&name, &mount, grant).await?
        {
            return Ok(self.created(exchange.caller(), &name, &mount.digest));
        }
        if let Some(digest) = digest {
            self.has_room(0, content_length(&exchange.head().headers))?;
            let first = exchange.read().await?;
            // No body and a digest of something: the client means to send it afterwards.
            if first.is_some() || digest == Digest::of(digest.algorithm(), b"") {
                return self.upload_at_once(name, digest, first, grant, exchange).await;
            }
        }
        let id = UploadId::random();
        let (turn, _attendance) = self.turns.take(id).await?;
        let _turn = self.begin(&name, id, turn, grant).await?;
        Ok(self.progress(exchange.caller(), &name, id, 0).await?.headers(Answer::new(StatusCode::ACCEPTED)))
    }

    /// end-4b: the whole blob in one request. Nobody knows the upload's name, so what fails is removed at once.
    async fn upload_at_once<E: Exchange>(
        &self,
        name: RepositoryName,
        digest: Digest,
        first: Option<Bytes>,
        grant: &Grant,
        exchange: &mut E,
    ) -> Result<Answer, Error> {
        let id = UploadId::random();
        let orphanage = Orphanage::new(self, &name, id);
        let (turn, attendance) = self.turns.take(id).await?;
        let turn = self.begin(&name, id, turn, grant).await?;
        let upload = Upload { name: name.clone(), id, size: 0, limit: self.largest_blob(), turn };
        let received = match first {
            Some(_) => receive(exchange, &self.store, upload, &attendance, first, None).await,
            None => {
                Ok(Received { arrived: Arrived { upload, hasher: Hasher::new(Algorithm::Sha256) }, outcome: Ok(()) })
            }
        };
        let (store, answer) = (self.store.clone(), self.created(exchange.caller(), &name, &digest));
        orphanage.close();
        to_the_end(async move {
            let committed = match received {
                Ok(Received { arrived, outcome: Ok(()) }) => commit(&store, arrived, &digest).await,
                Ok(Received { outcome: Err(error), .. }) | Err(error) => Err(error),
            };
            if committed.is_err() {
                discard(&store, &name, id).await;
            }
            committed
        })
        .await?;
        Ok(answer)
    }

    /// end-13: how far an upload has come.
    pub(super) async fn upload_status<E: Exchange>(
        &self,
        name: RepositoryName,
        id: UploadId,
        exchange: &mut E,
    ) -> Result<Answer, Error> {
        let size = size(&self.store, &name, id).await?;
        Ok(self.progress(exchange.caller(), &name, id, size).await?.headers(Answer::new(StatusCode::NO_CONTENT)))
    }

    /// end-5: more of a blob, as a stream or, with a `Content-Range`, as a chunk.
    pub(super) async fn append_to_upload<E: Exchange>(
        &self,
        name: RepositoryName,
        id: UploadId,
        exchange: &mut E,
    ) -> Result<Answer, Error> {
        let chunk = chunk(&exchange.head().headers)?;
        let (turn, attendance) = self.turns.take(id).await?;
        let size = self.resume(&name, id, chunk, exchange).await?;
        let upload = Upload { name: name.clone(), id, size, limit: self.largest_blob(), turn };
        let received = receive(exchange, &self.store, upload, &attendance, None, chunk.map(Span::length)).await?;
        let arrived = self.kept(received).await?;
        let progress = self.progress(exchange.caller(), &name, id, arrived.upload.size).await?;
        Ok(progress.headers(Answer::new(StatusCode::ACCEPTED)))
    }

    /// end-6: the rest of a blob, if anything, and its digest.
    pub(super) async fn commit_upload<E: Exchange>(
        &self,
        name: RepositoryName,
        id: UploadId,
        digest: Digest,
        exchange: &mut E,
    ) -> Result<Answer, Error> {
        let chunk = chunk(&exchange.head().headers)?;
        let (turn, attendance) = self.turns.take(id).await?;
        let size = match self.resume(&name, id, chunk, exchange).await {
            Err(Error::UploadUnknown) => {
                self.commit_again(&name, id, &digest, turn).await?;
                return Ok(self.created(exchange.caller(), &name, &digest));
            }
            outcome => outcome?,
        };
        let upload = Upload { name: name.clone(), id, size, limit: self.largest_blob(), turn };
        let received = receive(exchange, &self.store, upload, &attendance, None, chunk.map(Span::length)).await?;
        let arrived = self.kept(received).await?;
        let (store, answer) = (self.store.clone(), self.created(exchange.caller(), &name, &digest));
        let size = arrived.upload.size;
        to_the_end(async move { commit(&store, arrived, &digest).await }).await?;
        exchange.notes().size = Some(size);
        Ok(answer)
    }

    /// A commit that is asked for once more, because its answer was lost or its last step failed. When the link is there,
    /// what is left of the upload is all there is to do. When only the blob is there, the upload's hash state proves that
    /// this upload brought it. Either may be what a killed process left, and is made durable before it is acknowledged.
    async fn commit_again(
        &self,
        name: &RepositoryName,
        id: UploadId,
        digest: &Digest,
        turn: Turn,
    ) -> Result<(), Error> {
        let linked = self.store.find_blob(name, digest).await?.is_some();
        if !linked {
            let blob = present(self.store.driver().stat(&layout::blob(digest)).await)?.ok_or(Error::UploadUnknown)?;
            let state = saved_state(&self.store, name, id, blob.size).await.ok_or(Error::UploadUnknown)?;
            if state.finish() != *digest {
                return Err(Error::UploadUnknown);
            }
        }
        let (store, name, digest) = (self.store.clone(), name.clone(), digest.clone());
        to_the_end(async move {
            let _turn = turn;
            let link = layout::layer(&name, &digest);
            if linked {
                store.driver().settle(&link).await?;
            } else {
                store.driver().settle(&layout::blob(&digest)).await?;
                store.write_link(&link, &digest).await?;
            }
            discard(&store, &name, id).await;
            Ok(())
        })
        .await
    }

    /// end-14: the client gives up. What a crash left of an upload, with or without data, goes as well.
    pub(super) async fn cancel_upload(&self, name: RepositoryName, id: UploadId) -> Result<Answer, Error> {
        let (turn, _attendance) = self.turns.take(id).await?;
        let store = self.store.clone();
        to_the_end(async move {
            let _turn = turn;
            let removed = store.driver().delete(&layout::upload(&name, id), Durability::Light).await;
            present(removed)?.ok_or(Error::UploadUnknown)
        })
        .await?;
        Ok(Answer::new(StatusCode::NO_CONTENT).header(DOCKER_UPLOAD_UUID, id.to_string()))
    }

    /// How many bytes of an upload have arrived, if the chunk continues it.
    async fn resume<E: Exchange>(
        &self,
        name: &RepositoryName,
        id: UploadId,
        chunk: Option<Span>,
        exchange: &mut E,
    ) -> Result<u64, Error> {
        let size = size(&self.store, name, id).await?;
        if chunk.is_some_and(|chunk| chunk.first != size) {
            return Err(Error::ChunkOutOfOrder(self.progress(exchange.caller(), name, id, size).await?));
        }
        let announced = content_length(&exchange.head().headers);
        if chunk.zip(announced).is_some_and(|(chunk, announced)| chunk.length() != announced) {
            return Err(Error::ChunkLength);
        }
        self.has_room(size, announced.or(chunk.map(Span::length)))?;
        Ok(size)
    }

    fn largest_blob(&self) -> u64 {
        self.config.limits.blob.unwrap_or(u64::MAX)
    }

    /// Whether an upload of this size may grow by what is announced.
    fn has_room(&self, size: u64, announced: Option<u64>) -> Result<(), Error> {
        let limit = self.largest_blob();
        let fits = size.saturating_add(announced.unwrap_or(0)) <= limit;
        if fits { Ok(()) } else { Err(Error::BlobTooLarge { limit }) }
    }

    /// What arrived, if it is what the client meant to send. An upload that grew too large is given up.
    async fn kept(&self, Received { arrived, outcome }: Received) -> Result<Arrived, Error> {
        let Err(error) = outcome else { return Ok(arrived) };
        if matches!(error, Error::BlobTooLarge { .. }) {
            let store = self.store.clone();
            to_the_end(async move {
                discard(&store, &arrived.upload.name, arrived.upload.id).await;
                drop(arrived); // and with it the turn
                Ok(())
            })
            .await?;
        }
        Err(error)
    }
}

/// The part of the blob that a body is, if the client says so.
fn chunk(headers: &HeaderMap) -> Result<Option<Span>, Error> {
    let Some(value) = headers.get(CONTENT_RANGE) else { return Ok(None) };
    Ok(Some(String::from_utf8_lossy(value.as_bytes()).parse()?))
}

/// Removes an upload whose name nobody knows when the request that makes it is dropped: the client vanished.
struct Orphanage(Option<(Store, Arc<Turns>, RepositoryName, UploadId)>);

impl Orphanage {
    fn new(registry: &Registry, name: &RepositoryName, id: UploadId) -> Self {
        Self(Some((registry.store.clone(), registry.turns.clone(), name.clone(), id)))
    }

    /// The upload has somebody else to care for it.
    fn close(mut self) {
        self.0 = None;
    }
}

impl Drop for Orphanage {
    fn drop(&mut self) {
        let Some((store, turns, name, id)) = self.0.take() else { return };
        let removing = async move {
            // What has arrived may still be on its way to the disk. Who waits in vain leaves it to be found by age.
            if let Ok(_turn) = turns.take(id).await {
                discard(&store, &name, id).await;
            }
        };
        // No runtime: the process ends.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(removing.in_current_span());
        }
    }
}

/// How many bytes of an upload have arrived.
async fn size(store: &Store, name: &RepositoryName, id: UploadId) -> Result<u64, Error> {
    let data = present(store.driver().stat(&layout::upload_data(name, id)).await)?;
    data.map(|data| data.size).ok_or(Error::UploadUnknown)
}

/// Makes what has arrived a blob of the repository, if it is what the client says.
async fn commit(store: &Store, arrived: Arrived, digest: &Digest) -> Result<(), Error> {
    let Arrived { upload, hasher } = arrived;
    let data = layout::upload_data(&upload.name, upload.id);
    let hasher = match digest.algorithm() {
        Algorithm::Sha256 => hasher,
        // Nobody tells while the data comes which algorithm it will be, so it is read again for the rarer one.
        Algorithm::Sha512 => store.hash_object(&data, 0, Hasher::new(Algorithm::Sha512)).await?,
    };
    let found = hasher.finish();
    if found != *digest {
        return Err(Error::DigestDiffers { expected: digest.clone(), found });
    }
    // Exactly what was hashed: another server that went on with it finds it taken, or has made it longer.
    store.driver().rename(&data, &layout::blob(digest), upload.size).await?;
    store.write_link(&layout::layer(&upload.name, digest), digest).await?;
    discard(store, &upload.name, upload.id).await;
    // Held to here: what is left of the upload is no longer anybody's to write to.
    drop(upload.turn);
    Ok(())
}

/// Removes what is left of an upload. What stays behind is found by age.
pub(super) async fn discard(store: &Store, name: &RepositoryName, id: UploadId) {
    let removed = present(store.driver().delete(&layout::upload(name, id), Durability::Light).await);
    if let Err(error) = removed {
        tracing::warn!(%error, "the rest of an upload could not be removed");
    }
}
