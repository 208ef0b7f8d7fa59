//! Stand-in.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use pingora::upstreams::peer::HttpPeer;

use super::{Peer, Upstream};

#[derive(Debug)]
pub(super) struct Pool {
    config: Upstream,
    next: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct Picked {
    peer: Peer,
    address: SocketAddr,
    config: Upstream,
}

impl Picked {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }
    pub(super) fn succeeded(&self) {}
    pub(super) fn failed(&self) {}
    pub(super) fn http_peer(&self) -> HttpPeer {
        let mut peer = HttpPeer::new(self.address, false, String::new());
        let timeouts = self.config.timeouts;
        peer.options.connection_timeout = Some(timeouts.connect);
        peer.options.total_connection_timeout = Some(timeouts.connect);
        peer.options.read_timeout = Some(timeouts.read);
        peer.options.write_timeout = Some(timeouts.write);
        peer.options.idle_timeout = Some(timeouts.idle);
        peer
    }
}

impl Pool {
    pub(super) fn config(&self) -> &Upstream {
        &self.config
    }
    pub(super) fn pick(&self, _key: Option<&str>, tried: &[SocketAddr], _now: Instant) -> Option<Picked> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.config.peers.len();
        (0..count).map(|i| &self.config.peers[(n + i) % count]).find_map(|peer| {
            let address: SocketAddr = peer.origin.authority().parse().ok()?;
            (!tried.contains(&address)).then(|| Picked { peer: peer.clone(), address, config: self.config.clone() })
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Upstreams(Vec<Arc<Pool>>);

impl Upstreams {
    pub(super) fn new(config: Vec<Upstream>) -> Self {
        Self(config.into_iter().map(|config| Arc::new(Pool { config, next: AtomicUsize::new(0) })).collect())
    }
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Pool>> {
        self.0.iter().find(|pool| &*pool.config.name == name)
    }
    pub(super) fn unready(&self) -> Option<String> {
        None
    }
}
