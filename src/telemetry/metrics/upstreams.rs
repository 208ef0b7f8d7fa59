//! How do the peers of upstreams do? They know; they are asked when a page is wanted.

use std::fmt;

use parking_lot::Mutex;

use super::page::Page;

/// A peer and how it does. Its labels are the operator's words and what names resolve to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerState {
    /// The upstream.
    pub upstream: String,
    /// The peer as it is configured.
    pub peer: String,
    /// Its address.
    pub address: String,
    /// Whether it gets requests.
    pub well: bool,
    /// Requests that it has at the moment.
    pub running: u64,
    /// How often it got no more for a while because its requests failed.
    pub ejections: u64,
    /// Checks that it passed.
    pub passed: u64,
    /// Checks that it failed.
    pub failed: u64,
}

type Ask = Box<dyn Fn() -> Vec<PeerState> + Send + Sync>;

/// Whom to ask.
#[derive(Default)]
pub(super) struct Upstreams(Mutex<Option<Ask>>);

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upstreams")
    }
}

impl Upstreams {
    pub(super) fn ask(&self, ask: Ask) {
        *self.0.lock() = Some(ask);
    }

    pub(super) fn show(&self, page: &mut Page) {
        let peers = self.0.lock().as_ref().map(|ask| ask()).unwrap_or_default();
        if peers.is_empty() {
            return;
        }
        let mut gauge = |name, help, value: fn(&PeerState) -> u64| {
            page.gauge(name, help);
            show_each(page, name, &peers, value);
        };
        gauge("pierhead_upstream_peer_up", "Whether a peer of an upstream is well: 1 or 0.", |peer| peer.well.into());
        gauge("pierhead_upstream_requests_running", "Requests that a peer has.", |peer| peer.running);
        let mut counter = |name, help, value: fn(&PeerState) -> u64| {
            page.counter(name, help);
            show_each(page, name, &peers, value);
        };
        counter(
            "pierhead_upstream_ejections_total",
            "How often a peer got no more requests for a while because they failed.",
            |peer| peer.ejections,
        );
        counter("pierhead_upstream_checks_passed_total", "Health checks that a peer passed.", |peer| peer.passed);
        counter("pierhead_upstream_checks_failed_total", "Health checks that a peer failed.", |peer| peer.failed);
    }
}

fn show_each(page: &mut Page, name: &str, peers: &[PeerState], value: fn(&PeerState) -> u64) {
    for state in peers {
        let PeerState { upstream, peer, address, .. } = state;
        page.sample(name, &[("upstream", upstream), ("peer", peer), ("address", address)], value(state));
    }
}
