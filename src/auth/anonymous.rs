//! Does nobody in particular ask too often?
//!
//! What a client gets without saying who it is counts for its network: each token that it asks for without a password,
//! and each request to the registry that is granted to nobody in particular. A 401 never counts, whoever it is for: that is
//! how every client, also one that logs in, learns where to go.
//!
//! Absent on purpose: a limit for those behind a proxy that does not say for whom it speaks. It would be one for all of
//! them together.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderName;

use super::rate::Rate;
use super::{Grant, Limits, endpoint};
use crate::exchange::{Answer, network};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// What was asked for in the last minute by nobody in particular.
pub(super) struct Anonymous(Rate<IpAddr>);

impl Anonymous {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Rate::new(limits.anonymous))
    }

    pub(super) fn limit(&self, limits: Limits) {
        self.0.set(limits.anonymous);
    }

    pub(super) fn forgive(&self, address: IpAddr) -> usize {
        let meant = network(address);
        self.0.forgive(|network| *network == meant)
    }

    /// Counts one request; otherwise how long to wait.
    pub(super) fn ask(&self, network: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        network.map_or(Ok(()), |network| self.0.spend(network, now))
    }

    /// The grant, unless it is for nobody in particular and they asked too often.
    #[allow(clippy::result_large_err, reason = "the answer is sent at once; a box would only move the bytes twice")]
    pub(super) fn admit(&self, grant: Arc<Grant>, network: Option<IpAddr>, now: Instant) -> Result<Arc<Grant>, Answer> {
        if grant.subject.is_some() {
            return Ok(grant);
        }
        let asked = self.ask(network, now).map(|()| grant);
        asked.map_err(|wait| endpoint::anonymous(wait).header(API_VERSION, "registry/2.0"))
    }
}
