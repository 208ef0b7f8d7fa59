//! Endpoints: what a method, a path and a query ask for (OCI distribution-spec, "Endpoints"; Docker Registry HTTP API V2).
//!
//! **Invariant:** an [`Endpoint`] holds parsed values only, so nothing below needs to look at the path again, and nothing
//! in it can step out of a repository's folder.
//!
//! **Invariant:** [`Endpoint::access`] is exhaustive: a new endpoint does not compile until it says what it needs.
//!
//! A path is taken as it is written, but for its last part, where some clients escape the colon of a digest. A name
//! must not be escaped: it is what access is granted to, so it has one spelling.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use super::digest::DigestError;
use super::name::NameError;
use super::query::{Page, Query};
use super::reference::TagError;
use super::{Access, Action, Algorithm, Digest, Reference, RepositoryName, Resource, Tag, UploadId};

/// How many `tag` parameters a manifest push may have. The specification asks for at least ten.
pub const MAX_TAGS: usize = 100;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `GET /v2/`: is this a registry, and do I have the right credentials? (end-1)
    Version,
    /// `GET /v2/_catalog`
    Catalog {
        /// Which part of the list.
        page: Page,
    },
    /// `GET /v2/<name>/tags/list` (end-8)
    Tags {
        /// The repository.
        name: RepositoryName,
        /// Which part of the list.
        page: Page,
    },
    /// `GET` or `HEAD /v2/<name>/manifests/<reference>` (end-3)
    ManifestRead {
        /// The repository.
        name: RepositoryName,
        /// Tag or digest.
        reference: Reference,
    },
    /// `PUT /v2/<name>/manifests/<reference>` (end-7)
    ManifestWrite {
        /// The repository.
        name: RepositoryName,
        /// Tag or digest.
        reference: Reference,
        /// Further tags (`?tag=`, with a digest only), each once.
        tags: Vec<Tag>,
    },
    /// `DELETE /v2/<name>/manifests/<reference>` (end-9), or GitLab's older `/v2/<name>/tags/reference/<tag>`
    ManifestDelete {
        /// The repository.
        name: RepositoryName,
        /// Tag or digest.
        reference: Reference,
    },
    /// `GET /v2/<name>/referrers/<digest>` (end-12)
    Referrers {
        /// The repository.
        name: RepositoryName,
        /// The subject.
        digest: Digest,
        /// Only these (`?artifactType=`); all when empty.
        artifact_types: Vec<String>,
        /// At most so many (`?n=`).
        limit: Option<usize>,
        /// Only what comes after this one (`?last=`), which need not exist. It is a digest, as what is listed: anything
        /// else would begin the list anew, and a client that follows it would never come to an end.
        after: Option<Digest>,
    },
    /// `GET` or `HEAD /v2/<name>/blobs/<digest>` (end-2)
    BlobRead {
        /// The repository.
        name: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// `DELETE /v2/<name>/blobs/<digest>` (end-10)
    BlobDelete {
        /// The repository.
        name: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// `POST /v2/<name>/blobs/uploads/` (end-4, end-11)
    UploadStart {
        /// The repository.
        name: RepositoryName,
        /// `?mount=&from=`: a blob that may be there already.
        mount: Option<Mount>,
        /// `?digest=`: the body is the whole blob.
        digest: Option<Digest>,
    },
    /// `GET` or `HEAD /v2/<name>/blobs/uploads/<upload>` (end-13)
    UploadStatus {
        /// The repository.
        name: RepositoryName,
        /// The session.
        upload: UploadId,
    },
    /// `PATCH /v2/<name>/blobs/uploads/<upload>` (end-5)
    UploadAppend {
        /// The repository.
        name: RepositoryName,
        /// The session.
        upload: UploadId,
    },
    /// `PUT /v2/<name>/blobs/uploads/<upload>?digest=` (end-6)
    UploadCommit {
        /// The repository.
        name: RepositoryName,
        /// The session.
        upload: UploadId,
        /// What the client says it sent.
        digest: Digest,
    },
    /// `DELETE /v2/<name>/blobs/uploads/<upload>` (end-14)
    UploadCancel {
        /// The repository.
        name: RepositoryName,
        /// The session.
        upload: UploadId,
    },
    /// `OPTIONS` of any of these: which methods there are
    Options {
        /// The `Allow` header.
        allow: &'static str,
    },
}

/// A blob to be taken over from another repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The blob.
    pub digest: Digest,
    /// Where it is. `None`: wherever the caller may read.
    pub from: Option<RepositoryName>,
}

/// Why a request is not for any endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No such path.
    #[error("404 page not found")]
    NotFound,
    /// The path lacks its last slash: `/v2`.
    #[error("moved to /v2/")]
    Moved,
    /// The path exists, the method does not.
    #[error("Method not allowed")]
    MethodNotAllowed {
        /// The `Allow` header.
        allow: &'static str,
    },
    /// The repository's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A digest in path or query, or none where there must be one.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A tag in path or query.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// More `tag` parameters than [`MAX_TAGS`].
    #[error("a manifest can be given at most 100 tags at once")]
    TooManyTags,
    /// `n` is not a number, or negative.
    #[error("n must be a number of entries")]
    PageNumber,
    /// The path names an upload that cannot exist.
    #[error("no such upload")]
    Upload,
}

impl Endpoint {
    /// What a request asks for. The path is byte-exact, never decoded by anybody before.
    pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Self, Rejection> {
        let rest = match path.strip_prefix("/v2") {
            Some("") => return Err(Rejection::Moved),
            Some(rest) => rest.strip_prefix('/').ok_or(Rejection::NotFound)?,
            None => return Err(Rejection::NotFound),
        };
        let route = Route::of(rest)?;
        let (query, name) = (Query(query.unwrap_or_default()), || route.name.parse::<RepositoryName>());
        if method == Method::OPTIONS {
            return Ok(Self::Options { allow: route.kind.allow() });
        }
        let read = method == Method::GET || method == Method::HEAD;
        Ok(match (route.kind, method) {
            (Kind::Version, _) if read => Self::Version,
            (Kind::Catalog, _) if read => Self::Catalog { page: page(query)? },
            (Kind::Tags, _) if read => Self::Tags { name: name()?, page: page(query)? },
            (Kind::Manifest, _) if read => Self::ManifestRead { name: name()?, reference: route.reference()? },
            (Kind::Manifest, &Method::PUT) => {
                let (name, reference) = (name()?, route.reference()?);
                let tags = if matches!(reference, Reference::Digest(_)) { tags(query)? } else { Vec::new() };
                Self::ManifestWrite { name, reference, tags }
            }
            (Kind::Manifest, &Method::DELETE) => Self::ManifestDelete { name: name()?, reference: route.reference()? },
            (Kind::TagDelete, &Method::DELETE) => {
                Self::ManifestDelete { name: name()?, reference: Reference::Tag(route.last.parse()?) }
            }
            (Kind::Referrers, _) if read => {
                let (name, digest, Page { limit, after }) = (name()?, route.last.parse()?, page(query)?);
                let after = after.map(|last| last.parse()).transpose()?;
                let wanted = query.all("artifactType").map(Cow::into_owned).filter(|text| !text.is_empty());
                Self::Referrers { name, digest, artifact_types: wanted.collect(), limit, after }
            }
            (Kind::Blob, _) if read => Self::BlobRead { name: name()?, digest: route.last.parse()? },
            (Kind::Blob, &Method::DELETE) => Self::BlobDelete { name: name()?, digest: route.last.parse()? },
            (Kind::Uploads, &Method::POST) => {
                // What to hash with, said early. The digest of the commit says it again, so nothing is kept of it.
                query.one("digest-algorithm").map(|text| text.parse::<Algorithm>()).transpose()?;
                Self::UploadStart { name: name()?, mount: mount(query), digest: digest(query)? }
            }
            (Kind::Upload, _) if read => Self::UploadStatus { name: name()?, upload: route.upload()? },
            (Kind::Upload, &Method::PATCH) => Self::UploadAppend { name: name()?, upload: route.upload()? },
            (Kind::Upload, &Method::PUT) => {
                let (name, upload) = (name()?, route.upload()?);
                Self::UploadCommit { name, upload, digest: digest(query)?.ok_or(DigestError::Format)? }
            }
            (Kind::Upload, &Method::DELETE) => Self::UploadCancel { name: name()?, upload: route.upload()? },
            (kind, _) => return Err(Rejection::MethodNotAllowed { allow: kind.allow() }),
        })
    }

    /// What a caller must be allowed to do.
    ///
    /// Mounting needs no right to the source here ([`Endpoint::useful_access`]): without it the mount is not made and an
    /// ordinary upload begins, as the specification wants for every mount that cannot be made. Whoever may push may also
    /// look at, and give up, an upload.
    pub fn access(&self) -> Vec<Access> {
        let on = |name: &RepositoryName, actions: &[Action]| vec![Access::repository(name, actions)];
        match self {
            Self::Version | Self::Options { .. } => Vec::new(),
            Self::Catalog { .. } => vec![Access { resource: Resource::Catalog, actions: vec![Action::All] }],
            Self::Tags { name, .. }
            | Self::ManifestRead { name, .. }
            | Self::Referrers { name, .. }
            | Self::BlobRead { name, .. } => on(name, &[Action::Pull]),
            Self::ManifestWrite { name, .. }
            | Self::UploadStart { name, .. }
            | Self::UploadStatus { name, .. }
            | Self::UploadAppend { name, .. }
            | Self::UploadCommit { name, .. }
            | Self::UploadCancel { name, .. } => on(name, &[Action::Pull, Action::Push]),
            Self::ManifestDelete { name, .. } | Self::BlobDelete { name, .. } => on(name, &[Action::Delete]),
        }
    }

    /// What a caller had better be allowed to do as well: to read the repository that a blob is to be mounted from.
    pub fn useful_access(&self) -> Option<Access> {
        match self {
            Self::UploadStart { name, mount: Some(Mount { from: Some(from), .. }), .. } if from != name => {
                Some(Access::repository(from, &[Action::Pull]))
            }
            _ => None,
        }
    }

    /// Whether it changes anything.
    pub fn changes(&self) -> bool {
        match self {
            Self::Version
            | Self::Catalog { .. }
            | Self::Tags { .. }
            | Self::ManifestRead { .. }
            | Self::Referrers { .. }
            | Self::BlobRead { .. }
            | Self::UploadStatus { .. }
            | Self::Options { .. } => false,
            Self::ManifestWrite { .. }
            | Self::ManifestDelete { .. }
            | Self::BlobDelete { .. }
            | Self::UploadStart { .. }
            | Self::UploadAppend { .. }
            | Self::UploadCommit { .. }
            | Self::UploadCancel { .. } => true,
        }
    }

    /// The repository that it is about.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Version | Self::Catalog { .. } | Self::Options { .. } => None,
            Self::Tags { name, .. }
            | Self::ManifestRead { name, .. }
            | Self::ManifestWrite { name, .. }
            | Self::ManifestDelete { name, .. }
            | Self::Referrers { name, .. }
            | Self::BlobRead { name, .. }
            | Self::BlobDelete { name, .. }
            | Self::UploadStart { name, .. }
            | Self::UploadStatus { name, .. }
            | Self::UploadAppend { name, .. }
            | Self::UploadCommit { name, .. }
            | Self::UploadCancel { name, .. } => Some(name),
        }
    }

    /// The tag or digest that the client named, for the access line.
    pub fn reference(&self) -> Option<String> {
        match self {
            Self::ManifestRead { reference, .. }
            | Self::ManifestWrite { reference, .. }
            | Self::ManifestDelete { reference, .. } => Some(reference.to_string()),
            Self::Referrers { digest, .. }
            | Self::BlobRead { digest, .. }
            | Self::BlobDelete { digest, .. }
            | Self::UploadCommit { digest, .. } => Some(digest.to_string()),
            Self::UploadStart { mount, digest, .. } => {
                mount.as_ref().map(|mount| &mount.digest).or(digest.as_ref()).map(Digest::to_string)
            }
            Self::Version
            | Self::Catalog { .. }
            | Self::Options { .. }
            | Self::Tags { .. }
            | Self::UploadStatus { .. }
            | Self::UploadAppend { .. }
            | Self::UploadCancel { .. } => None,
        }
    }
}

/// The shape of a path.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Version,
    Catalog,
    Tags,
    Manifest,
    TagDelete,
    Referrers,
    Blob,
    Uploads,
    Upload,
}

impl Kind {
    /// The methods that a path of this shape has, in alphabetical order. GitLab takes a DELETE among those of a manifest
    /// as proof that tags can be deleted.
    fn allow(self) -> &'static str {
        match self {
            Self::Version | Self::Catalog | Self::Tags | Self::Referrers => "GET, HEAD",
            Self::Manifest => "DELETE, GET, HEAD, PUT",
            Self::TagDelete => "DELETE",
            Self::Blob => "DELETE, GET, HEAD",
            Self::Uploads => "POST",
            Self::Upload => "DELETE, GET, HEAD, PATCH, PUT",
        }
    }
}

/// A path taken apart, its parts not yet looked at.
struct Route<'a> {
    kind: Kind,
    name: &'a str,
    last: Cow<'a, str>,
}

impl<'a> Route<'a> {
    /// Takes apart what follows `/v2/`. Names hold slashes, so the end decides.
    fn of(rest: &'a str) -> Result<Self, Rejection> {
        let parts: Vec<&str> = rest.split('/').collect();
        let (kind, suffix) = match parts.as_slice() {
            [""] => (Kind::Version, 0),
            ["_catalog"] => (Kind::Catalog, 0),
            [.., "tags", "list"] => (Kind::Tags, 2),
            [.., "tags", "reference", _] => (Kind::TagDelete, 3),
            [.., "manifests", _] => (Kind::Manifest, 2),
            [.., "referrers", _] => (Kind::Referrers, 2),
            [.., "blobs", "uploads", ""] => (Kind::Uploads, 3),
            [.., "blobs", "uploads"] => (Kind::Uploads, 2),
            [.., "blobs", "uploads", _] => (Kind::Upload, 3),
            [.., "blobs", _] => (Kind::Blob, 2),
            _ => return Err(Rejection::NotFound),
        };
        let (name, tail) = parts.split_at(parts.len() - suffix);
        let tail_length: usize = tail.iter().map(|part| part.len() + 1).sum();
        let name_length = if name.is_empty() { 0 } else { rest.len() - tail_length };
        let last = percent_decode_str(tail.last().copied().unwrap_or_default()).decode_utf8_lossy();
        Ok(Self { kind, name: &rest[..name_length], last })
    }

    fn reference(&self) -> Result<Reference, Rejection> {
        // A colon cannot be part of a tag, so whoever wrote one meant a digest.
        if self.last.contains(':') {
            Ok(Reference::Digest(self.last.parse()?))
        } else {
            Ok(Reference::Tag(self.last.parse()?))
        }
    }

    fn upload(&self) -> Result<UploadId, Rejection> {
        self.last.parse().map_err(|_| Rejection::Upload)
    }
}

/// Which part of a list is asked for.
fn page(query: Query<'_>) -> Result<Page, Rejection> {
    let limit = match query.one("n") {
        Some(number) => Some(number.parse().map_err(|_| Rejection::PageNumber)?),
        None => None,
    };
    Ok(Page { limit, after: query.one("last").map(Cow::into_owned) })
}

fn digest(query: Query<'_>) -> Result<Option<Digest>, Rejection> {
    Ok(query.one("digest").map(|text| text.parse()).transpose()?)
}

/// A mount that makes no sense is no mount, as one that cannot be made.
fn mount(query: Query<'_>) -> Option<Mount> {
    let digest = query.one("mount")?.parse().ok()?;
    let from = query.one("from").map(|text| text.parse()).transpose().ok()?;
    Some(Mount { digest, from })
}

fn tags(query: Query<'_>) -> Result<Vec<Tag>, Rejection> {
    let mut tags = Vec::new();
    for (number, text) in query.all("tag").enumerate() {
        if number >= MAX_TAGS {
            return Err(Rejection::TooManyTags);
        }
        let tag = text.parse()?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Algorithm;
    use super::*;

    fn parse(request: &str) -> Result<Endpoint, Rejection> {
        let (method, target) = request.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        Endpoint::parse(&method.parse().unwrap(), path, query)
    }

    fn ok(request: &str) -> Endpoint {
        parse(request).unwrap_or_else(|rejection| panic!("{request}: {rejection:?}"))
    }

    fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"x")
    }

    const UPLOAD: &str = "0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10";

    /// Every endpoint, how it is asked for, and what it needs.
    fn table() -> Vec<(String, Endpoint, &'static str)> {
        let name: RepositoryName = "g/p".parse().unwrap();
        let (tag, upload) = (Reference::Tag("v1".parse().unwrap()), UPLOAD.parse::<UploadId>().unwrap());
        let reference = Reference::Digest(digest());
        let d = digest();
        vec![
            ("GET /v2/".into(), Endpoint::Version, ""),
            ("HEAD /v2/".into(), Endpoint::Version, ""),
            ("GET /v2/_catalog".into(), Endpoint::Catalog { page: Page::default() }, "registry:catalog:*"),
            ("GET /v2/g/p/tags/list".into(), Endpoint::Tags { name: name.clone(), page: Page::default() }, "pull"),
            (
                "GET /v2/g/p/manifests/v1".into(),
                Endpoint::ManifestRead { name: name.clone(), reference: tag.clone() },
                "pull",
            ),
            (
                format!("HEAD /v2/g/p/manifests/{d}"),
                Endpoint::ManifestRead { name: name.clone(), reference: reference.clone() },
                "pull",
            ),
            (
                "PUT /v2/g/p/manifests/v1".into(),
                Endpoint::ManifestWrite { name: name.clone(), reference: tag.clone(), tags: vec![] },
                "pull,push",
            ),
            (
                format!("PUT /v2/g/p/manifests/{d}?tag=a&tag=b"),
                Endpoint::ManifestWrite {
                    name: name.clone(),
                    reference,
                    tags: vec!["a".parse().unwrap(), "b".parse().unwrap()],
                },
                "pull,push",
            ),
            (
                "DELETE /v2/g/p/manifests/v1".into(),
                Endpoint::ManifestDelete { name: name.clone(), reference: tag.clone() },
                "delete",
            ),
            (
                "DELETE /v2/g/p/tags/reference/v1".into(),
                Endpoint::ManifestDelete { name: name.clone(), reference: tag },
                "delete",
            ),
            (
                format!("GET /v2/g/p/referrers/{d}?artifactType=a%2Fb"),
                Endpoint::Referrers {
                    name: name.clone(),
                    digest: digest(),
                    artifact_types: vec!["a/b".into()],
                    limit: None,
                    after: None,
                },
                "pull",
            ),
            (
                format!("GET /v2/g/p/blobs/{d}?ns=example.com"),
                Endpoint::BlobRead { name: name.clone(), digest: digest() },
                "pull",
            ),
            (
                format!("DELETE /v2/g/p/blobs/{d}"),
                Endpoint::BlobDelete { name: name.clone(), digest: digest() },
                "delete",
            ),
            (
                "POST /v2/g/p/blobs/uploads/".into(),
                Endpoint::UploadStart { name: name.clone(), mount: None, digest: None },
                "pull,push",
            ),
            (
                format!("GET /v2/g/p/blobs/uploads/{UPLOAD}?_state=x"),
                Endpoint::UploadStatus { name: name.clone(), upload },
                "pull,push",
            ),
            (
                format!("PATCH /v2/g/p/blobs/uploads/{UPLOAD}"),
                Endpoint::UploadAppend { name: name.clone(), upload },
                "pull,push",
            ),
            (
                format!("PUT /v2/g/p/blobs/uploads/{UPLOAD}?digest={d}"),
                Endpoint::UploadCommit { name: name.clone(), upload, digest: digest() },
                "pull,push",
            ),
            (format!("DELETE /v2/g/p/blobs/uploads/{UPLOAD}"), Endpoint::UploadCancel { name, upload }, "pull,push"),
            ("OPTIONS /v2/g/p/manifests/tag".into(), Endpoint::Options { allow: "DELETE, GET, HEAD, PUT" }, ""),
        ]
    }

    #[test]
    fn every_endpoint_is_recognised_and_says_what_it_needs() {
        for (request, expected, actions) in table() {
            let endpoint = ok(&request);
            assert_eq!(endpoint, expected, "{request}");
            let needed: Vec<String> = endpoint.access().iter().map(Access::to_string).collect();
            match actions {
                "" => assert!(needed.is_empty(), "{request} {needed:?}"),
                catalog if catalog.starts_with("registry") => assert_eq!(needed, [catalog]),
                actions => assert_eq!(needed, [format!("repository:g/p:{actions}")], "{request}"),
            }
        }
    }

    #[test]
    fn a_mount_names_a_blob_and_perhaps_a_repository() {
        let mount = |query: &str| match ok(&format!("POST /v2/a/blobs/uploads/?{query}")) {
            Endpoint::UploadStart { mount, .. } => mount.map(|mount| (mount.digest, mount.from)),
            other => panic!("{other:?}"),
        };
        let (plain, escaped) = (digest().to_string(), digest().to_string().replace(':', "%3A"));
        let from: RepositoryName = "other/repository".parse().unwrap();
        assert_eq!(mount(&format!("mount={plain}&from=other/repository")), Some((digest(), Some(from.clone()))));
        assert_eq!(mount(&format!("from=other%2Frepository&origin=h&mount={escaped}")), Some((digest(), Some(from))));
        assert_eq!(mount(&format!("mount={plain}")), Some((digest(), None)));
        assert_eq!(mount("mount=&from=b"), None);
        assert_eq!(mount("mount=nonsense&from=b"), None);
        assert_eq!(mount(&format!("mount={plain}&from=../b")), None, "not a search through everything readable");
    }

    #[test]
    fn only_a_mount_from_another_repository_has_use_for_more_than_it_needs() {
        let useful = |request: &str| ok(request).useful_access().map(|access| access.to_string());
        let mount = format!("POST /v2/g/p/blobs/uploads/?mount={}", digest());
        assert_eq!(useful(&format!("{mount}&from=a/b")).as_deref(), Some("repository:a/b:pull"));
        assert_eq!(useful(&format!("{mount}&from=g/p")), None, "what is needed covers it");
        assert_eq!(useful(&mount), None);
        assert!(table().iter().all(|(request, ..)| useful(request).is_none()));
    }

    #[test]
    fn pages() {
        let page = |query: &str| match ok(&format!("GET /v2/a/tags/list?{query}")) {
            Endpoint::Tags { page, .. } => (page.limit, page.after),
            other => panic!("{other:?}"),
        };
        assert_eq!(page("n=0"), (Some(0), None));
        assert_eq!(page("n=5&last=v1%2E0+x"), (Some(5), Some("v1.0 x".into())));
        assert_eq!(page("n=&last="), (None, None));
        for bad in ["n=-1", "n=x", "n=1.5", "n=99999999999999999999"] {
            assert_eq!(parse(&format!("GET /v2/_catalog?{bad}")), Err(Rejection::PageNumber), "{bad}");
        }
        let odd = "a&b+c%d e=f#<\u{e9}>";
        assert_eq!(page(&Page::query(7, odd)), (Some(7), Some(odd.into())), "what we send comes back as it was");

        let referrers = format!("GET /v2/a/referrers/{}?", digest());
        let after = |last: &str| match parse(&format!("{referrers}{}", Page::query(7, last))) {
            Ok(Endpoint::Referrers { limit: Some(7), after, .. }) => Ok(after),
            Ok(other) => panic!("{other:?}"),
            Err(rejection) => Err(rejection),
        };
        assert_eq!(after(&digest().to_string()), Ok(Some(digest())));
        assert_eq!(after(""), Ok(None));
        for no_digest in ["v1.0", "sha256:8", "1", "sha256"] {
            assert!(matches!(after(no_digest), Err(Rejection::Digest(_))), "{no_digest}");
        }
    }

    #[test]
    fn names_may_hold_the_words_of_the_api() {
        for name in ["blobs", "a/manifests", "tags/list", "manifests/manifests", "a/blobs/uploads", "v2"] {
            let endpoint = ok(&format!("GET /v2/{name}/manifests/latest"));
            assert_eq!(endpoint.repository().unwrap().as_str(), name);
        }
    }

    #[test]
    fn an_escaped_colon_is_a_colon_and_an_escaped_name_is_no_name() {
        let escaped = digest().to_string().replace(':', "%3a");
        assert_eq!(ok(&format!("GET /v2/a/blobs/{escaped}")).reference(), Some(digest().to_string()));
        assert_eq!(parse("GET /v2/a%2Fb/manifests/v1"), Err(NameError::Format.into()));
        assert_eq!(parse("GET /v2/a/manifests/v%2F1"), Err(TagError.into()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (request, rejection) in [
            ("GET /v2", Rejection::Moved),
            ("GET /v2/a", Rejection::NotFound),
            ("GET /v3/", Rejection::NotFound),
            ("GET /v2x/a/tags/list", Rejection::NotFound),
            ("GET /v2/a/b/c", Rejection::NotFound),
            ("GET /v2/A/tags/list", NameError::Format.into()),
            ("GET /v2//tags/list", NameError::Format.into()),
            ("GET /v2/tags/list", NameError::Format.into()),
            ("GET /v2/../../etc/manifests/passwd", NameError::Format.into()),
            ("GET /v2/a/../b/manifests/v1", NameError::Format.into()),
            ("GET /v2/a/manifests/..", TagError.into()),
            ("GET /v2/a/manifests/", TagError.into()),
            ("PUT /v2/a/manifests/sha256:baddigeststring", DigestError::Format.into()),
            ("GET /v2/a/blobs/sha256:baddigeststring", DigestError::Format.into()),
            ("GET /v2/a/blobs/md5:0123", DigestError::Algorithm.into()),
            ("POST /v2/a/blobs/uploads/?digest=x", DigestError::Format.into()),
            ("GET /v2/a/blobs/uploads/not-a-uuid", Rejection::Upload),
            ("PUT /v2/a/blobs/uploads/0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10", DigestError::Format.into()),
            ("PUT /v2/a/blobs/uploads/0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10?digest=", DigestError::Format.into()),
            ("POST /v2/", Rejection::MethodNotAllowed { allow: "GET, HEAD" }),
            ("POST /v2/a/manifests/v1", Rejection::MethodNotAllowed { allow: "DELETE, GET, HEAD, PUT" }),
            ("GET /v2/a/blobs/uploads/", Rejection::MethodNotAllowed { allow: "POST" }),
            ("POST /v2/a/blobs/uploads/x", Rejection::MethodNotAllowed { allow: "DELETE, GET, HEAD, PATCH, PUT" }),
            ("GET /v2/a/tags/reference/v1", Rejection::MethodNotAllowed { allow: "DELETE" }),
        ] {
            assert_eq!(parse(request), Err(rejection), "{request}");
        }
        let once = parse(&format!("PUT /v2/a/manifests/{}?tag=a&tag=b&tag=a", digest()));
        assert!(matches!(once, Ok(Endpoint::ManifestWrite { tags, .. }) if tags.len() == 2));
        let tags = "tag=a&".repeat(MAX_TAGS + 1);
        assert_eq!(parse(&format!("PUT /v2/a/manifests/{}?{tags}", digest())), Err(Rejection::TooManyTags));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(method in "(GET|HEAD|PUT|PATCH|POST|DELETE|OPTIONS|X)", path in "\\PC{0,80}", query in proptest::option::of("\\PC{0,80}")) {
            let _ = Endpoint::parse(&method.parse().unwrap(), &path, query.as_deref());
            let _ = Endpoint::parse(&method.parse().unwrap(), &format!("/v2/{path}"), query.as_deref());
        }

        #[test]
        fn a_parsed_name_never_steps_out(
            method in "(GET|PUT|PATCH|POST|DELETE)",
            name in "[a-z./_%-]{0,12}(/[a-z0-9./_%2-]{0,8}){0,3}",
            tail in "(tags/list|manifests/[a-z.%/]{1,4}|blobs/uploads/|blobs/[a-z:]{1,9}|referrers/x)",
        ) {
            if let Ok(endpoint) = Endpoint::parse(&method.parse().unwrap(), &format!("/v2/{name}/{tail}"), None)
                && let Some(parsed) = endpoint.repository() {
                prop_assert!(parsed.components().all(|part| !part.is_empty() && !part.starts_with(['.', '_'])));
                prop_assert!(!parsed.as_str().contains(['%', '\\', '\0']));
                prop_assert!(parsed.as_str().starts_with(name.as_str()), "{} is not {}", parsed, name);
            }
        }
    }
}
