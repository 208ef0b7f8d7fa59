//! What is a request about that somebody else's registry answers?
//!
//! Looser than [`Endpoint`](crate::oci::Endpoint), which holds what we can serve: other registries name their uploads as
//! they like, and say themselves what they do not accept.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use super::API;
use crate::exchange::{Kind, Passage};
use crate::registry::Limits;

/// Whether a path is the API's.
pub(super) fn is_api(path: &str) -> bool {
    path.starts_with(API) || path == API.trim_end_matches('/')
}

/// Whether a request may change something there.
pub(super) fn changes(method: &Method) -> bool {
    ![Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

/// Whether a push that was begun may need it: what goes on with an upload, and manifests.
pub(super) fn finishes(method: &Method, passage: &Passage) -> bool {
    match passage.kind {
        Kind::Upload => passage.upload.is_some(),
        Kind::Manifest => *method == Method::PUT,
        _ => false,
    }
}

/// Of a path of the API, without the right to change anything.
pub(super) fn read(path: &str, limits: &Limits) -> Passage {
    let below = path.strip_prefix(API).unwrap_or_default();
    let (kind, name, last) = parts(below);
    let text = |text: &str| Some(text).filter(|text| !text.is_empty()).map(str::to_owned);
    let last = last.map(decoded).as_deref().and_then(text);
    let (reference, upload) = if kind == Kind::Upload { (None, last) } else { (last, None) };
    // What we do not know may be an upload all the same to somebody.
    let body = if kind == Kind::Manifest { Some(limits.manifest as u64) } else { limits.blob };
    Passage { kind, repository: name.and_then(text), reference, upload, body, permit: None }
}

/// What follows `/v2/`: the kind, the repository, and what follows that. A slash at the end is nothing to some registries.
fn parts(below: &str) -> (Kind, Option<&str>, Option<&str>) {
    let below = below.strip_suffix('/').unwrap_or(below);
    if below.is_empty() {
        return (Kind::Base, None, None);
    }
    if below == "_catalog" {
        return (Kind::Catalog, None, None);
    }
    if let Some(name) = below.strip_suffix("/tags/list") {
        return (Kind::Tags, Some(name), None);
    }
    // Uploads first: they lie below blobs. The last of each word, as a repository may be called by one.
    for (word, kind) in [
        ("/blobs/uploads/", Kind::Upload),
        ("/manifests/", Kind::Manifest),
        ("/tags/reference/", Kind::Manifest),
        ("/referrers/", Kind::Referrers),
        ("/blobs/", Kind::Blob),
    ] {
        let found = below.rsplit_once(word);
        if let Some((name, last)) = found.filter(|(name, last)| !name.is_empty() && !last.contains('/')) {
            return match (kind, last) {
                (Kind::Blob, "uploads") => (Kind::Upload, Some(name), None),
                _ => (kind, Some(name), Some(last)),
            };
        }
    }
    (Kind::Other, None, None)
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_a_request_is_about() {
        let limits = Limits { manifest: 4, blob: Some(9), uploads: 1 };
        for (path, kind, repository, reference, upload, body) in [
            ("/v2/", Kind::Base, None, None, None, Some(9)),
            ("/v2", Kind::Base, None, None, None, Some(9)),
            ("/v2/_catalog", Kind::Catalog, None, None, None, Some(9)),
            ("/v2/a/b/tags/list", Kind::Tags, Some("a/b"), None, None, Some(9)),
            ("/v2/a/b/manifests/latest", Kind::Manifest, Some("a/b"), Some("latest"), None, Some(4)),
            ("/v2/a/tags/reference/v1", Kind::Manifest, Some("a"), Some("v1"), None, Some(4)),
            ("/v2/a/manifests/manifests/v1", Kind::Manifest, Some("a/manifests"), Some("v1"), None, Some(4)),
            ("/v2/a/referrers/sha256:0", Kind::Referrers, Some("a"), Some("sha256:0"), None, Some(9)),
            ("/v2/a/blobs/sha256%3A0", Kind::Blob, Some("a"), Some("sha256:0"), None, Some(9)),
            ("/v2/a/blobs/uploads/", Kind::Upload, Some("a"), None, None, Some(9)),
            ("/v2/a/blobs/uploads", Kind::Upload, Some("a"), None, None, Some(9)),
            ("/v2/a/blobs/uploads/Any~Name", Kind::Upload, Some("a"), None, Some("Any~Name"), Some(9)),
            ("/v2/a/b", Kind::Other, None, None, None, Some(9)),
            ("/v2/a/manifests/tag/", Kind::Manifest, Some("a"), Some("tag"), None, Some(4)),
            ("/v2/a/blobs/uploads/id/", Kind::Upload, Some("a"), None, Some("id"), Some(9)),
            ("/v2/a/blobs/uploads/id/more", Kind::Other, None, None, None, Some(9)),
        ] {
            let read = read(path, &limits);
            let found = (read.kind, read.repository.as_deref(), read.reference.as_deref(), read.upload.as_deref());
            assert_eq!((found, read.body), ((kind, repository, reference, upload), body), "{path}");
        }
    }

    #[test]
    fn what_goes_on_with_a_push_finishes_it() {
        let finishes = |method: Method, path: &str| finishes(&method, &read(path, &Limits::default()));
        assert!(finishes(Method::PATCH, "/v2/a/blobs/uploads/x"));
        assert!(finishes(Method::PUT, "/v2/a/blobs/uploads/x"));
        assert!(finishes(Method::PUT, "/v2/a/manifests/x"));
        assert!(!finishes(Method::DELETE, "/v2/a/manifests/x"));
        assert!(!finishes(Method::POST, "/v2/a/blobs/uploads/"));
        assert!(!finishes(Method::PUT, "/v2/a/b"));
    }
}
