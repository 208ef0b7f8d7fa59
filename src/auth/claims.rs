//! What does a token whose signature holds say, and does it say so now?

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use super::Grant;
use super::continuation::Expired;
use crate::oci::{Access, Resource, Scope};

/// How much clocks may differ, in seconds, as Distribution allows.
pub(super) const LEEWAY: i64 = 60;

/// The claims that decide; others may come along.
#[derive(Deserialize)]
pub(super) struct Claims {
    sub: Option<String>,
    pub(super) iss: String,
    exp: i64,
    nbf: Option<i64>,
    #[serde(default, deserialize_with = "null_is_empty")]
    access: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    actions: Vec<String>,
}

/// Why a text is no token that counts.
#[derive(Debug, Clone)]
pub(super) enum Invalid {
    /// It is not signed by whom we trust, or not for us, or not yet.
    Untrue,
    /// Everything about it holds but that its time is over.
    Expired(Box<Expired>),
}

impl Claims {
    /// What they say; signature, issuer and audience must have been checked.
    pub(super) fn vouched(self) -> Vouched {
        let grant = Grant {
            subject: self.sub.filter(|subject| !subject.is_empty()), // as anonymous tokens have it
            issuer: Some(self.iss),
            access: self.access.iter().filter_map(Entry::parse).collect(),
            everything: false,
        };
        Vouched::new(grant, self.nbf, self.exp)
    }
}

/// What a token says of which everything holds, but perhaps its time.
#[derive(Debug, Clone)]
pub(super) struct Vouched {
    grant: Arc<Grant>,
    /// From when to when it counts, in seconds, as its claims have it.
    nbf: Option<i64>,
    exp: i64,
}

impl Vouched {
    pub(super) fn new(grant: Grant, nbf: Option<i64>, exp: i64) -> Self {
        Self { grant: Arc::new(grant), nbf, exp }
    }

    /// What it allows at this moment.
    pub(super) fn at(self, now: Timestamp) -> Result<Arc<Grant>, Invalid> {
        let now = now.as_second();
        if self.nbf.is_some_and(|nbf| nbf.saturating_sub(LEEWAY) > now) {
            return Err(Invalid::Untrue);
        }
        let expired_at = self.exp.saturating_add(LEEWAY);
        if expired_at <= now {
            return Err(Invalid::Expired(Box::new(Expired::new(self.grant, expired_at))));
        }
        Ok(self.grant)
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.grant.bytes()
    }
}

impl Entry {
    /// Types, names and actions that this version does not know are left out.
    fn parse(&self) -> Option<Access> {
        let Scope(mut access) = format!("{}:{}:", self.kind, self.name).parse().ok()?;
        access.actions = self.actions.iter().filter_map(|action| action.parse().ok()).collect();
        let exact = match &access.resource {
            Resource::Repository(name) => name.as_str() == self.name,
            Resource::Catalog => true,
        };
        exact.then_some(access)
    }
}

/// Go writes an empty list as `null`.
fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
