//! Endpoints: what a method, a path and a query ask for (OCI distribution-spec, "Endpoints"; Docker Registry HTTP API V2).
//!
//! **Invariant:** an [`Endpoint`] holds parsed values only, so nothing below needs to look at the path again, and nothing
//! in it can step out of a repository's folder.
//!
//! **Invariant:** [`Endpoint::access`] is exhaustive: a new endpoint does not compile until it says what it needs.
//!
//! What shape a path has, `route.rs` tells. A name must not be escaped: it is what access is granted to, so it has one
//! spelling.

use std::borrow::Cow;

use http::Method;

use super::digest::DigestError;
use super::name::NameError;
use super::query::{Page, Query};
use super::reference::TagError;
use super::route::{Kind, Route};
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
mod tests;
