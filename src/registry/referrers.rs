//! Which manifests say something about this one?
//!
//! Signatures, bills of materials and attestations name their subject; a client asks for those of a subject (OCI
//! distribution-spec, "Listing Referrers"). The index says which manifests may be among them; each is read and asked for
//! its subject, so that what is listed is what lies in the tree now. Without an index every manifest of the repository is
//! looked at, which costs what the repository holds, so only a few requests do it at once.
//!
//! Clients of registries without this list keep one themselves, an index under a tag made of the subject's digest. What
//! such a list names and has "a valid `subject` field" belongs into ours (OCI distribution-spec, "Enabling the Referrers
//! API"); it lies in the repository itself, so it is found as any other manifest, and such lists need not be read. An
//! entry without that field or with another subject is no referrer: clients may not be told that it is.
//!
//! **Invariant:** memory is bounded by [`PAGE`] and by [`DOCUMENTS`] manifests for each of [`SCANS`] requests, whatever
//! the annotations of the manifests hold: a page also ends when it is large, and the next one begins there.

use std::pin::pin;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, LINK};
use serde_json::json;

use super::index::Index;
use super::store::Store;
use super::{Error, Registry, manifests};
use crate::exchange::Answer;
use crate::oci::manifest::Referrer;
use crate::oci::media_type::OCI_INDEX;
use crate::oci::{Digest, Page, RepositoryName};

/// How many requests look through a repository at once.
pub(super) const SCANS: usize = 2;
/// The most referrers in one answer.
const MOST: usize = 1000;
/// The most bytes of referrers in one answer; a single one may be larger.
const PAGE: usize = 4 << 20;
/// How many manifests a request holds at once while it looks.
pub(super) const DOCUMENTS: usize = 4;

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

impl Registry {
    /// end-12: an index of the manifests whose subject this is, in the order of their digests.
    pub(super) async fn list_referrers(
        &self,
        name: RepositoryName,
        subject: Digest,
        artifact_types: Vec<String>,
        limit: Option<usize>,
        after: Option<Digest>,
    ) -> Result<Answer, Error> {
        let _turn = self.scans.acquire().await.map_err(|_| Error::ShuttingDown)?;
        // An empty page would read as "there are none".
        let limit = limit.unwrap_or(MOST).clamp(1, MOST);
        let wanted = |referrer: &Referrer| {
            artifact_types.is_empty()
                || referrer.artifact_type.as_ref().is_some_and(|kind| artifact_types.contains(kind))
        };
        let Scanned { found, more } = scan((&self.store, &self.index), &name, &subject, after, wanted, limit).await?;
        let referrers: Vec<&Referrer> = found.iter().map(|(_, referrer)| referrer).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": referrers });
        let mut answer = Answer::json(StatusCode::OK, &index).header(CONTENT_TYPE, OCI_INDEX);
        if !artifact_types.is_empty() {
            answer = answer.header(OCI_FILTERS_APPLIED, "artifactType");
        }
        if let Some((last, _)) = found.last().filter(|_| more) {
            let next = Page::query(limit, &last.to_string());
            let filter: String =
                artifact_types.iter().map(|kind| format!("&{}", Page::parameter("artifactType", kind))).collect();
            answer = answer.header(LINK, format!("</v2/{name}/referrers/{subject}?{next}{filter}>; rel=\"next\""));
        }
        Ok(answer)
    }
}

/// A page of referrers, and whether there are more.
struct Scanned {
    found: Vec<(Digest, Referrer)>,
    more: bool,
}

/// At most `limit` referrers of a subject and about [`PAGE`] bytes, after a digest, sha256 before sha512.
async fn scan(
    (store, index): (&Store, &Index),
    name: &RepositoryName,
    subject: &Digest,
    mut after: Option<Digest>,
    wanted: impl Fn(&Referrer) -> bool,
    limit: usize,
) -> Result<Scanned, Error> {
    let (mut found, mut weight) = (Vec::new(), 0);
    loop {
        let digests = index.candidates(store, name, subject, after.as_ref()).await?;
        let Some(last) = digests.last() else { return Ok(Scanned { found, more: false }) };
        after = Some(last.clone());
        let referrers = stream::iter(digests)
            .map(|digest| async move {
                let referrer = referrer(store, name, &digest, subject).await?;
                Ok::<_, Error>(referrer.map(|referrer| (digest, referrer)))
            })
            .buffered(DOCUMENTS);
        let mut referrers = pin!(referrers);
        while let Some(referrer) = referrers.try_next().await? {
            let Some((digest, referrer)) = referrer.filter(|(_, referrer)| wanted(referrer)) else { continue };
            weight += referrer.weight();
            if found.len() == limit || (weight > PAGE && !found.is_empty()) {
                return Ok(Scanned { found, more: true });
            }
            found.push((digest, referrer));
        }
    }
}

/// How a manifest is listed, if this is its subject.
async fn referrer(
    store: &Store,
    name: &RepositoryName,
    digest: &Digest,
    subject: &Digest,
) -> Result<Option<Referrer>, Error> {
    let Some(bytes) = manifests::read(store, name, digest).await? else { return Ok(None) };
    // What cannot be read as a manifest was not pushed here, and names no subject.
    let manifest = match manifests::parse(bytes, None).await {
        Ok(manifest) => Some(manifest),
        Err(Error::ManifestInvalid(_)) => None,
        Err(error) => return Err(error),
    };
    let manifest = manifest.filter(|manifest| manifest.subject.as_ref().is_some_and(|named| named.digest == *subject));
    Ok(manifest.map(|manifest| Referrer::new(manifest, digest)))
}
