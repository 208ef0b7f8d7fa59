//! Who began an upload, and when?
//!
//! An upload lies in the tree as Distribution has it: `startedat`, then `data`. Beside them lies `owner`, which is ours:
//! the subject of the token that the upload was begun with and who vouched for it. The guard asks for it when a client
//! comes back to its upload with a token that has expired on the way. Distribution neither reads nor minds it, and removes
//! it with the folder.
//!
//! **Invariant:** an upload whose owner cannot be told exactly has none.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::store::{Store, present};
use super::turns::Turn;
use super::{Error, Registry, layout, to_the_end};
use crate::auth::Grant;
use crate::oci::{RepositoryName, UploadId};
use crate::storage::{self, Durability, ErrorKind, Key};

/// How much is read of who and when. A token that says more of its subject did not come through the front.
const LIMIT: usize = 64 << 10;

/// Who began an upload, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Who vouched for the subject: the token's `iss`.
    pub issuer: String,
    /// The token's `sub`; never empty.
    pub subject: String,
    /// When.
    pub at: Timestamp,
}

/// The object `owner`.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    issuer: String,
    subject: String,
}

impl Owner {
    fn of(grant: &Grant) -> Option<Self> {
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Some(Self { issuer: said(&grant.issuer)?, subject: said(&grant.subject)? })
    }
}

impl Registry {
    /// Who began an upload; `None` when there is no such upload, or nobody whose name a token vouched for.
    ///
    /// # Errors
    /// A storage that does not answer.
    pub async fn upload_begun(&self, name: &RepositoryName, id: UploadId) -> Result<Option<Begun>, Error> {
        let Some(text) = text(&self.store, &layout::upload_owner(name, id)).await? else { return Ok(None) };
        let Ok(Owner { issuer, subject }) = serde_json::from_slice(&text) else { return Ok(None) };
        let at = started_at(&self.store, name, id).await?;
        Ok(at.filter(|_| !issuer.is_empty() && !subject.is_empty()).map(|at| Begun { issuer, subject, at }))
    }

    /// Lays down an upload: when it began, who did, and then no data yet, which is what makes it one. The turn is held until
    /// all of it lies there, even when the client is gone by then: whoever removes what it left must not come too early.
    pub(super) async fn begin(
        &self,
        name: &RepositoryName,
        id: UploadId,
        turn: Turn,
        grant: &Grant,
    ) -> Result<Turn, Error> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let owner = Owner::of(grant).and_then(|owner| serde_json::to_vec(&owner).ok());
        let owner = owner.filter(|owner| owner.len() <= LIMIT);
        let (store, name) = (self.store.clone(), name.clone());
        to_the_end(async move {
            let put = async |key, bytes| store.driver().put(&key, bytes, Durability::Light).await;
            put(layout::upload_started(&name, id), now.into()).await?;
            if let Some(owner) = owner {
                put(layout::upload_owner(&name, id), owner.into()).await?;
            }
            put(layout::upload_data(&name, id), Bytes::new()).await?;
            Ok(turn)
        })
        .await
    }
}

/// When an upload began, if it says so in a way that can be read.
pub(super) async fn started_at(
    store: &Store,
    name: &RepositoryName,
    id: UploadId,
) -> Result<Option<Timestamp>, storage::Error> {
    let written = text(store, &layout::upload_started(name, id)).await?;
    Ok(written.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok()))
}

async fn text(store: &Store, key: &Key) -> Result<Option<Bytes>, storage::Error> {
    match store.driver().get(key, LIMIT).await {
        Err(error) if error.kind == ErrorKind::TooLarge => Ok(None),
        other => present(other),
    }
}
