//! Media types: which documents are manifests, and which layers a registry need not have.

use std::fmt;
use std::str::FromStr;

/// An OCI image manifest (OCI image-spec, manifest.md).
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index (OCI image-spec, image-index.md).
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// A Docker image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// A Docker image manifest, version 2 schema 1: neither made nor read by any client of today.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// The same, signed.
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Anything: what blobs are served as.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// The longest media type that may be written (RFC 6838, 4.2: two names of at most 127 characters).
const MAX_LENGTH: usize = 255;

/// `type/subtype` without parameters: visible ASCII, so that it can be sent as a `Content-Type`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MediaType(Box<str>);

impl MediaType {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads a `Content-Type` header: parameters such as `; charset=utf-8` are dropped.
    pub fn from_content_type(value: &str) -> Result<Self, MediaTypeError> {
        value.split(';').next().unwrap_or_default().trim().parse()
    }

    /// Whether such a document lists manifests.
    pub fn is_index(&self) -> bool {
        matches!(self.as_str(), OCI_INDEX | DOCKER_LIST)
    }

    /// Whether such a document lists layers.
    pub fn is_image(&self) -> bool {
        matches!(self.as_str(), OCI_MANIFEST | DOCKER_MANIFEST)
    }

    /// Whether such a document is one that this registry does not take (and no client of today makes).
    pub fn is_obsolete(&self) -> bool {
        matches!(self.as_str(), DOCKER_SCHEMA1 | DOCKER_SCHEMA1_SIGNED)
    }

    /// Whether clients get such a layer elsewhere, so that a registry need not hold it
    /// (OCI image-spec, layer.md "Non-Distributable Layers"; Docker's foreign layers).
    pub fn is_non_distributable(&self) -> bool {
        self.0.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
            || self.0.starts_with("application/vnd.docker.image.rootfs.foreign.diff.tar")
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MediaType {
    type Err = MediaTypeError;

    fn from_str(text: &str) -> Result<Self, MediaTypeError> {
        // RFC 6838, 4.2 "restricted-name-chars", and RFC 9110 tokens, which real types have gone beyond.
        let token = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
        };
        match text.split_once('/') {
            Some((kind, subtype)) if text.len() <= MAX_LENGTH && token(kind) && token(subtype) => Ok(Self(text.into())),
            _ => Err(MediaTypeError),
        }
    }
}

/// The text is not a media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a media type is TYPE/SUBTYPE")]
pub struct MediaTypeError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_dropped() {
        let parsed = MediaType::from_content_type("application/vnd.oci.image.index.v1+json ; charset=utf-8").unwrap();
        assert_eq!(parsed.as_str(), OCI_INDEX);
        assert!(parsed.is_index() && !parsed.is_image());
    }

    #[test]
    fn what_is_no_type_is_refused() {
        for bad in ["", "json", "/", "a/", "/b", "a/b/c", "a b/c", "text/plain\n", "a/b\u{e9}"] {
            assert!(bad.parse::<MediaType>().is_err(), "{bad:?}");
        }
        assert!(format!("a/{}", "b".repeat(254)).parse::<MediaType>().is_err());
    }

    #[test]
    fn layers_that_live_elsewhere() {
        for text in [
            "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        ] {
            assert!(text.parse::<MediaType>().unwrap().is_non_distributable(), "{text}");
        }
        assert!(!"application/vnd.oci.image.layer.v1.tar".parse::<MediaType>().unwrap().is_non_distributable());
    }

    proptest! {
        #[test]
        fn a_parsed_type_can_be_a_header(text in "\\PC{0,40}") {
            if let Ok(parsed) = MediaType::from_content_type(&text) {
                prop_assert!(http::HeaderValue::from_str(parsed.as_str()).is_ok());
                prop_assert_eq!(MediaType::from_content_type(parsed.as_str()), Ok(parsed));
            }
        }
    }
}
