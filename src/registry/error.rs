//! What is a client told when something cannot be done?
//!
//! One enum of conditions, and one table that gives each its status and its code. The message is for the person in front
//! of the client and safe to show; what happened inside goes to the access line ([`Error::inside`]).

use std::error::Error as _;

use http::StatusCode;
use http::header::{ALLOW, CONTENT_RANGE, LOCATION, RETRY_AFTER};
use serde_json::{Value, json};

use super::READ_METHODS;
use super::location::Progress;
use crate::exchange::{Answer, BodyError, WireError};
use crate::metadata;
use crate::oci::endpoint::Rejection;
use crate::oci::manifest::ManifestError;
use crate::oci::range::RangeError;
use crate::oci::{Digest, Reference, RepositoryName};
use crate::storage::{self, ErrorKind};

/// When it makes sense to try again where there were too many uploads, in seconds: they come and go.
const UPLOAD_AGAIN: &str = "5";
/// When to try again during maintenance, in seconds.
const COME_BACK: &str = "60";

/// Why a request could not be granted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository does not have this blob.
    #[error("blob unknown to registry")]
    BlobUnknown(Digest),
    /// Nothing was ever pushed under this name.
    #[error("repository name not known to registry")]
    NameUnknown(RepositoryName),
    /// The repository does not have this manifest.
    #[error("manifest unknown")]
    ManifestUnknown(Reference),
    /// The document is not a manifest that can be kept.
    #[error(transparent)]
    ManifestInvalid(#[from] ManifestError),
    /// The document is longer than the limit.
    #[error("the manifest is larger than the limit of {limit} bytes")]
    ManifestTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The manifest names content that the repository does not have.
    #[error("blob unknown to registry: push what the manifest refers to before the manifest")]
    ReferencesUnknown(Vec<Digest>),
    /// The manifest names a place that the operator does not want images to come from.
    #[error("this registry does not take content from {url}: its operator says which URLs a manifest may name")]
    UrlRefused {
        /// The first such place.
        url: String,
    },
    /// The content is not what the client said it is.
    #[error("the provided digest does not match the uploaded content: expected {expected}, got {found}")]
    DigestDiffers {
        /// What the client said.
        expected: Digest,
        /// What it sent.
        found: Digest,
    },
    /// There is no such upload, or it has come to its end.
    #[error("blob upload unknown to registry")]
    UploadUnknown,
    /// The work of another request on the upload does not end.
    #[error("another request is writing to this upload: one at a time")]
    UploadBusy,
    /// Another request came to go on with the upload.
    #[error("another request goes on with this upload: one at a time")]
    UploadDisplaced,
    /// More uploads than the limit are being written to.
    #[error("too many uploads at once: try again in a moment")]
    TooManyUploads,
    /// The account has as many uploads running as one may have.
    #[error("{limit} uploads at once are the most for one login: try again when one of them has ended")]
    TooManyOfOne {
        /// The limit.
        limit: usize,
    },
    /// The blob is, or would be, larger than the limit.
    #[error("the blob is larger than the limit of {limit} bytes")]
    BlobTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// A chunk does not begin where the upload ends.
    #[error("the chunk does not begin where the upload ends: go on from there")]
    ChunkOutOfOrder(Progress),
    /// A chunk is not as long as its range says.
    #[error("the chunk is not as long as its Content-Range says")]
    ChunkLength,
    /// The `Content-Range` cannot be read.
    #[error(transparent)]
    ContentRange(#[from] RangeError),
    /// No byte of the blob lies in the range.
    #[error("no byte of the blob lies in the range")]
    RangeUnsatisfiable {
        /// The blob's size in bytes.
        size: u64,
    },
    /// Deleting is switched off.
    #[error("deleting is disabled: set registry.storage.delete.enabled to allow it")]
    DeleteDisabled,
    /// The body of a manifest ended early.
    #[error(transparent)]
    ManifestBody(BodyError),
    /// The body of an upload ended early.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The storage failed.
    #[error("{}", outside(.0.kind))]
    Storage(#[from] storage::Error),
    /// The metadata database failed.
    #[error("the registry's index of manifests failed: its operator finds the reason in the log")]
    Index(#[from] metadata::Error),
    /// Nothing may change, by the operator's order.
    #[error("the registry is read-only for maintenance: images can be pulled, nothing can be pushed or deleted")]
    ReadOnly,
    /// The same, and clients should try again.
    #[error("the registry is under maintenance: images can be pulled; try again later to push or delete")]
    Maintenance,
    /// Nothing may change, and that is how it is configured.
    #[error("the registry is read-only")]
    ReadOnlyByConfiguration,
    /// The server is going down.
    #[error("the registry is shutting down: try again")]
    ShuttingDown,
}

/// What a client may know of a failure of the storage.
fn outside(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Full => "the registry has no space left: nothing was lost, but its operator must make room first",
        ErrorKind::Denied => "the registry may not write to its storage: its operator finds the reason in the log",
        ErrorKind::ReadOnly => "the registry's storage is read-only at the moment",
        ErrorKind::Busy => "another server of this registry goes on with this upload: one at a time",
        ErrorKind::NotFound | ErrorKind::TooLarge | ErrorKind::Other => {
            "the registry's storage failed: its operator finds the reason in the log"
        }
    }
}

impl Error {
    /// The table: status and code of every condition (Docker's and the OCI's codes with Distribution's status).
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BlobUnknown(_) => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::NameUnknown(_) => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Self::ManifestUnknown(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::ManifestInvalid(_) | Self::UrlRefused { .. } => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::ManifestTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID"),
            Self::ReferencesUnknown(_) => (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN"),
            Self::DigestDiffers { .. } => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::UploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::UploadBusy | Self::UploadDisplaced => (StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID"),
            Self::TooManyUploads | Self::TooManyOfOne { .. } => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::BlobTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Self::ChunkOutOfOrder(_) => (StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID"),
            Self::ChunkLength => (StatusCode::BAD_REQUEST, "SIZE_INVALID"),
            Self::ContentRange(_) => (StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID"),
            Self::RangeUnsatisfiable { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID"),
            Self::DeleteDisabled => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::ManifestBody(BodyError::Gone | BodyError::Malformed) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::ManifestBody(BodyError::Stalled) => (StatusCode::REQUEST_TIMEOUT, "MANIFEST_INVALID"),
            Self::Body(BodyError::Gone | BodyError::Malformed) => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::Body(BodyError::Stalled) => (StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID"),
            Self::Storage(cause) => match cause.kind {
                ErrorKind::Full => (StatusCode::INSUFFICIENT_STORAGE, "UNAVAILABLE"),
                ErrorKind::Denied | ErrorKind::ReadOnly => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
                ErrorKind::Busy => (StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID"),
                ErrorKind::NotFound | ErrorKind::TooLarge | ErrorKind::Other => {
                    (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN")
                }
            },
            Self::ReadOnly | Self::ReadOnlyByConfiguration => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::Index(_) | Self::ShuttingDown | Self::Maintenance => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        }
    }

    /// The wire's form.
    pub(super) fn answer(&self) -> Answer {
        let (status, code) = self.status_and_code();
        let error = |detail: Value| WireError::new(code, self.to_string()).detail(detail);
        match self {
            Self::ReferencesUnknown(digests) => {
                let errors: Vec<WireError> = digests.iter().map(|digest| error(json!(digest.to_string()))).collect();
                Answer::errors(status, &errors)
            }
            Self::BlobUnknown(digest) => Answer::error(status, error(json!({ "digest": digest.to_string() }))),
            Self::NameUnknown(name) => Answer::error(status, error(json!({ "name": name.as_str() }))),
            Self::ManifestUnknown(reference) => {
                Answer::error(status, error(json!({ "reference": reference.to_string() })))
            }
            Self::TooManyUploads | Self::TooManyOfOne { .. } => {
                Answer::error(status, error(Value::Null)).header(RETRY_AFTER, UPLOAD_AGAIN)
            }
            Self::ChunkOutOfOrder(progress) => progress.headers(Answer::error(status, error(Value::Null))),
            Self::RangeUnsatisfiable { size } => {
                Answer::error(status, error(Value::Null)).header(CONTENT_RANGE, format!("bytes */{size}"))
            }
            Self::ReadOnly => Answer::error(status, error(Value::Null)).header(ALLOW, READ_METHODS),
            // As Distribution says it.
            Self::ReadOnlyByConfiguration => reject(Rejection::MethodNotAllowed { allow: READ_METHODS }),
            Self::Maintenance => Answer::error(status, error(Value::Null)).header(RETRY_AFTER, COME_BACK),
            _ => Answer::error(status, error(Value::Null)),
        }
    }

    /// What the access line says beyond the message: the chain of causes, never shown to a client.
    pub fn inside(&self) -> String {
        match self {
            // Its source is in its own text.
            Self::Storage(cause) => cause.to_string(),
            other => match other.source() {
                Some(cause) if cause.to_string() != other.to_string() => format!("{other}: {cause}"),
                _ => other.to_string(),
            },
        }
    }
}

/// The answer to a request that is for no endpoint.
pub(super) fn reject(rejection: Rejection) -> Answer {
    let bad = |code| Answer::error(StatusCode::BAD_REQUEST, WireError::new(code, rejection.to_string()));
    // Text where Distribution's router answers, and not its registry: clients do not read it, people do.
    match rejection {
        Rejection::NotFound => Answer::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        Rejection::Moved => Answer::new(StatusCode::MOVED_PERMANENTLY).header(LOCATION, "/v2/"),
        Rejection::MethodNotAllowed { allow } => {
            Answer::text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed\n").header(ALLOW, allow)
        }
        Rejection::Name(_) => bad("NAME_INVALID"),
        Rejection::Digest(_) => bad("DIGEST_INVALID"),
        Rejection::Tag(_) | Rejection::TooManyTags => bad("TAG_INVALID"),
        Rejection::PageNumber => bad("PAGINATION_NUMBER_INVALID"),
        Rejection::Upload => Error::UploadUnknown.answer(),
    }
}
