//! Who answers where somebody else runs the registry?
//!
//! An [`Upstream`] is what the operator said; a [`Pool`] is what it is at the moment: its peers by address, how each of
//! them does, and whose turn it is. In the order of a request:
//! - [`pool`]: [`Pool::pick`] chooses a peer, and the [`Picked`] that it gives counts as running until it is dropped;
//! - [`balance`]: whose turn it is; [`condition`]: who may have one;
//! - [`dial`]: the peer as Pingora connects to it; [`credentials`]: what TLS with it needs from files;
//! - [`resolve`]: which addresses a name has now; [`check`]: which peers are well.
//!
//! **Invariants**
//! - TLS with a peer is always verified, for the name or address that the operator wrote. Pingora verifies nothing where
//!   there is no name to ask for, so [`dial`] never leaves it empty.
//! - Connections of one upstream are never used for another, nor for the same one after its definition has changed.
//! - A peer that is not well gets requests only when there is no other: a bad peer is better than none.
//! - Nothing here waits for a name to be resolved but a request that comes before the first answer.
//!
//! Absent on purpose: what is sent to a peer and what becomes of its answer; when a request is tried again.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::exchange::Origin;
use crate::telemetry::Metrics;

mod balance;
mod check;
mod condition;
mod config;
mod credentials;
mod dial;
mod pool;
mod resolve;

#[cfg(test)]
mod tests;

use check::Checker;
pub use config::{
    Balance, Ejection, HeaderEdits, Health, HostSent, LocationForm, Peer, Realm, Upstream, UpstreamTimeouts,
    UpstreamTls,
};
pub use credentials::{Credentials, Error};
pub(super) use pool::{Picked, Pool};

/// The upstreams of a plan.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    pools: BTreeMap<Arc<str>, Arc<Pool>>,
    /// What connects for checks, where there are any.
    checker: Option<Checker>,
}

impl Upstreams {
    /// Those of a configuration; `external` is what checks call us. One that `previous` has in the same words and with the
    /// same files stays as it is: how its peers do, and which uploads they have. Not the connections to them that wait for
    /// requests: these end with the connector, which a change replaces.
    ///
    /// # Errors
    /// `credentials` are not those of these upstreams, or whom this machine trusts cannot be read.
    pub(super) fn new(
        upstreams: Vec<Upstream>,
        credentials: &Credentials,
        external: &Origin,
        previous: Option<&Self>,
    ) -> Result<Self, Error> {
        let checked = upstreams.iter().any(|upstream| upstream.health.is_some());
        let checker = if checked { Some(Checker::new(external.clone())?) } else { None };
        let mut pools = BTreeMap::new();
        for upstream in upstreams {
            let credentials = credentials.of(&upstream)?;
            let name = Arc::clone(&upstream.name);
            let kept = previous.and_then(|previous| previous.get(&name));
            let kept = kept.filter(|pool| *pool.config() == upstream && pool.has(&credentials)).cloned();
            pools.insert(name, kept.unwrap_or_else(|| Arc::new(Pool::new(upstream, credentials))));
        }
        Ok(Self { pools, checker })
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// The one of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Pool>> {
        self.pools.get(name)
    }

    /// Begins to look after the peers, in the background, until the last plan and request that has a pool is gone. To be
    /// called in a runtime, when the plan comes into force. What is looked after already goes on.
    pub(super) fn tend(&self) {
        for pool in self.pools.values() {
            pool.tend(self.checker.clone());
        }
    }

    /// Has these counted from now on.
    pub(super) fn report_to(&self, metrics: &Metrics) {
        let pools: Vec<_> = self.pools.values().map(Arc::downgrade).collect();
        metrics.upstreams(move || {
            let now = tokio::time::Instant::now();
            pools.iter().filter_map(Weak::upgrade).flat_map(|pool| pool.states(now)).collect()
        });
    }

    /// Why no request to one of these can succeed now: none of them has a peer that is well.
    pub(super) fn unready(&self, names: &[Arc<str>]) -> Option<String> {
        let now = tokio::time::Instant::now();
        let pools: Vec<_> = names.iter().filter_map(|name| self.get(name)).collect();
        if pools.is_empty() || pools.iter().any(|pool| pool.has_somebody(now)) {
            return None;
        }
        let unknown = pools.iter().any(|pool| pool.may_have_somebody(now));
        let why = if unknown { "no peer has answered yet" } else { "no peer is well" };
        Some(format!("upstream {}: {why}", names.join(", ")))
    }
}
