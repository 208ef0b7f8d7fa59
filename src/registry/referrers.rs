//! Which manifests say something about this one?
//!
//! Signatures, bills of materials and attestations name their subject; a client asks for those of a subject (OCI
//! distribution-spec, "Listing Referrers"). Every manifest of the repository is looked at: correct for every tree, also
//! one that another program wrote, whose clients kept lists under fallback tags (what these list lies in the repository
//! itself, so it is found). It costs what the repository holds, so only a few requests do it at once.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, LINK};
use serde_json::json;

use super::store::{Store, present};
use super::{AT_ONCE, Error, Registry, layout, manifests};
use crate::exchange::Answer;
use crate::oci::manifest::Referrer;
use crate::oci::media_type::OCI_INDEX;
use crate::oci::{Algorithm, Digest, Manifest, Page, RepositoryName};

/// How many requests look through a repository at once.
pub(super) const SCANS: usize = 4;
/// The most referrers in one answer.
const MOST: usize = 1000;
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
        let mut found = scan(&self.store, &name, &subject, after, wanted, limit + 1).await?;
        let more = found.len() > limit;
        found.truncate(limit);
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

/// At most `limit` referrers of a subject, after a digest, sha256 before sha512.
async fn scan(
    store: &Store,
    name: &RepositoryName,
    subject: &Digest,
    after: Option<Digest>,
    wanted: impl Fn(&Referrer) -> bool,
    limit: usize,
) -> Result<Vec<(Digest, Referrer)>, Error> {
    let mut found = Vec::new();
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
            let referrers: Vec<Option<(Digest, Referrer)>> = stream::iter(digests)
                .map(|digest: Digest| async move {
                    let referrer = referrer(store, name, &digest, subject).await?;
                    Ok::<_, Error>(referrer.map(|referrer| (digest, referrer)))
                })
                .buffered(AT_ONCE)
                .try_collect()
                .await?;
            found.extend(referrers.into_iter().flatten().filter(|(_, referrer)| wanted(referrer)));
            if found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
    }
    Ok(found)
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
    let manifest = Manifest::parse(bytes, None).ok();
    let manifest = manifest.filter(|manifest| manifest.subject.as_ref().is_some_and(|named| named.digest == *subject));
    Ok(manifest.map(|manifest| Referrer::new(manifest, digest)))
}
