//! What is said between whoever decides that a certificate is needed and whoever speaks with the authority?
//!
//! [`Authority::order`] takes names and gives a certificate. Two libraries can do it (see their modules); neither decides
//! when, how often, or what becomes of the result.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::Challenge;

/// An authority that certificates can be ordered from.
#[async_trait]
pub(super) trait Authority: Send + Sync {
    /// Orders a certificate and waits for it. Every call over the network has a deadline; a nonce that the authority does
    /// not like (RFC 8555 6.5) is no failure and is tried again at once, within bounds.
    async fn order(&self, wanted: &Wanted<'_>, proofs: &Arc<dyn Proofs>) -> Result<Issued, Failure>;

    /// When the authority would like a certificate to be renewed (RFC 9773); `None` when it does not say.
    async fn renewal(&self, certificate: &CertificateDer<'_>) -> Result<Option<Window>, Failure>;
}

/// What is ordered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The names, `*.` for a wildcard.
    pub(super) names: &'a [String],
    /// The ways to prove each name: the first that the authority offers for it is taken. A wildcard is always proven by
    /// [`Challenge::Dns01`].
    pub(super) ways: &'a [Challenge],
    /// The certificate that is to be replaced (RFC 9773 5), if this authority made it.
    pub(super) replaces: Option<&'a CertificateDer<'static>>,
}

/// What came of it.
#[derive(Clone)]
pub(super) struct Issued {
    /// PEM: the certificate, then its chain.
    pub(super) chain: String,
    /// PEM (PKCS #8): its key, made for it.
    pub(super) key: String,
}

/// A proof that a name is ours, to be found where the authority looks for it.
#[derive(Debug, Clone)]
pub(super) struct Proof {
    /// Where it looks.
    pub(super) by: Challenge,
    /// The name, without `*.`.
    pub(super) name: String,
    /// What it calls the challenge.
    pub(super) token: String,
    /// What it expects (RFC 8555 8.1).
    pub(super) key_authorization: String,
}

/// Whoever puts proofs where the authority looks.
#[async_trait]
pub(super) trait Proofs: Send + Sync {
    /// Puts it there, and returns when it can be seen. It has a deadline of its own.
    async fn present(&self, proof: &Proof) -> Result<(), Failure>;

    /// Takes it away again, within a deadline of its own. Called once for each that was presented, whatever came of it.
    async fn withdraw(&self, proof: &Proof);

    /// Takes away what lies in folders since before then, because a process ended or a folder failed: no order needs it.
    async fn clean(&self, _before: SystemTime) {}
}

/// The time in which an authority would like a certificate to be renewed (RFC 9773 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// From.
    pub(super) start: SystemTime,
    /// Until.
    pub(super) end: SystemTime,
}

/// Why there is no certificate.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Failure {
    /// What it means for the next attempt.
    pub(super) kind: Kind,
    /// What happened, at which name and URL, in the authority's own words where it had some, and what to do.
    pub(super) reason: String,
    /// Whether the authority had been asked to look at proofs by then, so that it may count this as one that failed.
    pub(super) proven: bool,
}

impl Failure {
    /// Before anybody was asked to look at a proof.
    pub(super) fn new(kind: Kind, reason: String) -> Self {
        Self { kind, reason, proven: false }
    }
}

/// What a failure means for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// The authority looked, and did not see that a name is ours. It counts how often.
    Validation,
    /// It wants to be left alone, for so long if it said so.
    RateLimited(Option<Duration>),
    /// It refused something else, and would refuse it again.
    Refused,
    /// It could not be reached, or did not answer in time, or answered something that makes no sense.
    Unreachable,
    /// It is not the authority's fault: a folder that cannot be written, a program that failed, a DNS server.
    Ours,
}

impl Kind {
    /// For counts.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::RateLimited(_) => "rate_limited",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Ours => "ours",
        }
    }
}
