//! What shape does a path of the API have?
//!
//! Names hold slashes, so the end decides. A path is taken as it is written, but for its last part, where some clients
//! escape the colon of a digest.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::endpoint::Rejection;
use super::{Reference, UploadId};

/// The shape of a path.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
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
    pub(super) fn allow(self) -> &'static str {
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
pub(super) struct Route<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a str,
    pub(super) last: Cow<'a, str>,
}

impl<'a> Route<'a> {
    /// Takes apart what follows `/v2/`.
    pub(super) fn of(rest: &'a str) -> Result<Self, Rejection> {
        let mut from_the_end = rest.rsplit('/');
        let last = from_the_end.next().unwrap_or_default();
        let (second, third) = (from_the_end.next(), from_the_end.next());
        let (kind, suffix) = match (third, second, last) {
            (_, None, "") => (Kind::Version, 0),
            (_, None, "_catalog") => (Kind::Catalog, 0),
            (_, Some("tags"), "list") => (Kind::Tags, 2),
            (Some("tags"), Some("reference"), _) => (Kind::TagDelete, 3),
            (_, Some("manifests"), _) => (Kind::Manifest, 2),
            (_, Some("referrers"), _) => (Kind::Referrers, 2),
            (Some("blobs"), Some("uploads"), "") => (Kind::Uploads, 3),
            (_, Some("blobs"), "uploads") => (Kind::Uploads, 2),
            (Some("blobs"), Some("uploads"), _) => (Kind::Upload, 3),
            (_, Some("blobs"), _) => (Kind::Blob, 2),
            _ => return Err(Rejection::NotFound),
        };
        // Each part of the suffix with the slash before it; where there is no name, there is none before the first.
        let suffix: usize = rest.rsplit('/').take(suffix).map(|part| part.len() + 1).sum();
        let name = &rest[..rest.len().saturating_sub(suffix)];
        Ok(Self { kind, name, last: percent_decode_str(last).decode_utf8_lossy() })
    }

    pub(super) fn reference(&self) -> Result<Reference, Rejection> {
        // A colon cannot be part of a tag, so whoever wrote one meant a digest.
        if self.last.contains(':') {
            Ok(Reference::Digest(self.last.parse()?))
        } else {
            Ok(Reference::Tag(self.last.parse()?))
        }
    }

    pub(super) fn upload(&self) -> Result<UploadId, Rejection> {
        self.last.parse().map_err(|_| Rejection::Upload)
    }
}
