//! What is shown, for a person or a program to look at.

use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::acme;
use super::files::Pair;
use super::served::Shown;

/// One certificate that is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its file.
    pub file: String,
    /// The DNS names and addresses that it carries.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// From when it is valid.
    pub not_before: Option<Timestamp>,
    /// Until when it is valid.
    pub not_after: Option<Timestamp>,
    /// Whole days until then; negative when it is over.
    pub days_left: i64,
    /// What is sent: whose certificates, the server's own first.
    pub chain: Vec<String>,
    /// The change of the files that was refused last, if nothing good came after it.
    pub refused: Option<Refused>,
    /// How its orders go, if it is ordered from an authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme: Option<acme::Status>,
}

/// A change of the files that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// When.
    pub at: Timestamp,
    /// Why, and what to do.
    pub reason: String,
}

impl Status {
    /// What is shown, without its refusals and orders.
    pub fn of(shown: &Shown, now: SystemTime) -> Vec<Self> {
        shown.certificates.pairs().iter().map(|pair| Self::of_pair(pair, now)).collect()
    }

    fn of_pair(pair: &Arc<Pair>, now: SystemTime) -> Self {
        let leaf = pair.leaf();
        let left = leaf.not_after - super::local::seconds(now);
        Self {
            file: pair.files.certificate.display().to_string(),
            names: leaf.names.iter().chain(&leaf.addresses).cloned().collect(),
            issuer: leaf.issuer.clone(),
            not_before: Timestamp::from_second(leaf.not_before).ok(),
            not_after: Timestamp::from_second(leaf.not_after).ok(),
            days_left: left.div_euclid(24 * 60 * 60),
            chain: pair.chain.iter().map(|one| one.subject.clone()).collect(),
            refused: None,
            acme: None,
        }
    }
}
