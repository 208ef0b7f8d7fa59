//! How orders go, for a person or a program to look at.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::renewal::{Bar, CHANGES, PROOFS};

/// How the orders of one certificate go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The names that it is ordered for.
    pub names: Vec<String>,
    /// Where it is ordered from.
    pub directory: String,
    /// When it is renewed, or tried again after a failure. Over: as soon as it is its turn.
    pub next: Option<Timestamp>,
    /// When the attempt began that is under way.
    pub since: Option<Timestamp>,
    /// The last failure, if no success came after it.
    pub error: Option<LastError>,
    /// Failures since the last success.
    pub failures: u32,
    /// When the certificate that is there was ordered; none: there is none.
    pub ordered: Option<Timestamp>,
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// When.
    pub at: Timestamp,
    /// Why, and what to do.
    pub reason: String,
}

/// Why a certificate is not ordered now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such certificate.
    #[error("no certificate for {name} is ordered (tls.acme.certificates); those that are: {}", known.join(", "))]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The first names of those that are ordered.
        known: Vec<String>,
    },
    /// More would lead to the authority's limits.
    #[error("no certificate for {name} is ordered now: {why}; it can be tried again at {until}")]
    Spent {
        /// The first name of the certificate.
        name: String,
        /// Why.
        why: String,
        /// From when on it can be tried.
        until: Timestamp,
    },
}

impl Bar {
    pub(super) fn words(self) -> String {
        match self {
            Self::Proofs => {
                format!(
                    "its names could not be proven {PROOFS} times within an hour, and the authority refuses more than a few"
                )
            }
            Self::Limited => "the authority wants to be left alone, as `pierhead cert status` says".to_owned(),
            Self::Fresh => "the one that is there was issued within the last hour".to_owned(),
            Self::Changes => format!("{CHANGES} were issued within a day, and the authority gives only a few a week"),
        }
    }
}
