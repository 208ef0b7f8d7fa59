//! What is asked of a caller?
//!
//! Two lists, because clients learn from the first answer what to fetch a token for, and fetch it once. What is *needed*
//! decides whether they may go on. What is *useful* is asked for with it, and its lack refuses nothing: a blob is mounted
//! for who may read where it lies, and sent once more by everybody else.
//!
//! Distribution needs both. A token of ours that says nothing about the useful part is challenged too, for both, so that
//! the client comes again with a token for both. That ends after one round: our tokens name what was asked for and
//! refused as well, with no action, and a token that names it, with actions or without, is not challenged again. Tokens
//! of other services may leave out what they refuse, so there is no telling; they go on as they are.

use super::Grant;
use crate::oci::{Access, Endpoint};

/// What is asked of a caller.
#[derive(Debug, Clone)]
pub struct Demand {
    /// Without this they may not go on.
    pub needed: Vec<Access>,
    /// With this more can be done for them.
    pub useful: Option<Access>,
}

impl Demand {
    /// What an endpoint asks.
    pub fn of(endpoint: &Endpoint) -> Self {
        Self { needed: endpoint.access(), useful: endpoint.useful_access() }
    }

    /// Everything, the needed first: some clients push with the first scope that they read.
    pub(super) fn all(&self) -> impl Iterator<Item = &Access> {
        self.needed.iter().chain(&self.useful)
    }

    /// Whether the grant is enough.
    pub(super) fn is_met_by(&self, grant: &Grant) -> bool {
        self.needed.iter().all(|access| grant.allows(access))
    }

    /// Whether nobody asked for the useful part when this was granted.
    pub(super) fn is_more_than_was_asked(&self, grant: &Grant) -> bool {
        self.useful.as_ref().is_some_and(|access| !grant.mentions(&access.resource))
    }
}
