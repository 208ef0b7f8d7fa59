//! Which manifests say something about this one?
//!
//! Signatures, bills of materials and attestations name their subject; a client asks for those of a subject (OCI
//! distribution-spec, "Listing Referrers"). Every manifest of the repository is looked at: correct for every tree, also
//! one that another program wrote, whose clients kept lists under fallback tags (what these list lies in the repository
//! itself, so it is found). It costs what the repository holds, so only a few requests do it at once.
//!
//! **Invariant:** memory is bounded by [`PAGE`] and by [`DOCUMENTS`] manifests for each of [`SCANS`] requests, whatever
//! the annotations of the manifests hold: a page also ends when it is large, and the next one begins there.

use std::pin::pin;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, LINK};
use serde_json::json;

use super::store::{Store, present};
use super::{Error, Registry, layout, manifests};
use crate::exchange::Answer;
use crate::oci::manifest::Referrer;
use crate::oci::media_type::OCI_INDEX;
use crate::oci::{Algorithm, Digest, Page, RepositoryName};

/// How many requests look through a repository at once.
pub(super) const SCANS: usize = 2;
/// The most referrers in one answer.
const MOST: usize = 1000;
/// The most bytes of referrers in one answer; a single one may be larger.
const PAGE: usize = 4 << 20;
/// How many manifests a request holds at once while it looks.
const DOCUMENTS: usize = 4;
/// How many revisions are looked at in one go.
const BATCH: usize = 1000;

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

impl Registry {
    /// end-12: an index of the manifests whose subject this is, in the order of their digests.
    pub(super) async fn list_referrers(
        &self,
        name: RepositoryName,
        subject: Digest,
        artifact_types: Vec<String>,
        page: Page,
    ) -> Result<Answer, Error> {
        let _turn = self.scans.acquire().await.map_err(|_| Error::ShuttingDown)?;
        let limit = page.limit.unwrap_or(MOST).min(MOST);
        let wanted = |referrer: &Referrer| {
            artifact_types.is_empty()
                || referrer.artifact_type.as_ref().is_some_and(|kind| artifact_types.contains(kind))
        };
        let after = page.after.and_then(|last| last.parse::<Digest>().ok());
        let Scanned { found, more } = scan(&self.store, &name, &subject, after, wanted, limit).await?;
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
    store: &Store,
    name: &RepositoryName,
    subject: &Digest,
    after: Option<Digest>,
    wanted: impl Fn(&Referrer) -> bool,
    limit: usize,
) -> Result<Scanned, Error> {
    let (mut found, mut weight) = (Vec::new(), 0);
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let mut last = match &after {
            Some(after) if after.algorithm() > algorithm => continue,
            Some(after) if after.algorithm() == algorithm => Some(after.hex().to_owned()),
            _ => None,
        };
        loop {
            let listed = store.driver().list(&layout::revisions(name, algorithm), last.as_deref(), BATCH).await;
            let Some(entries) = present(listed)?.filter(|entries| !entries.is_empty()) else { break };
            last = entries.last().map(|entry| entry.name.clone());
            let digests = entries.into_iter().filter_map(|entry| format!("{algorithm}:{}", entry.name).parse().ok());
            let referrers = stream::iter(digests)
                .map(|digest: Digest| async move {
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
    Ok(Scanned { found, more: false })
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
