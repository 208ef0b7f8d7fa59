//! What Pingora connects to.
//!
//! Pingora keeps connections by address, name, client certificate and `group_key`, not by authorities, ALPN or timeouts:
//! every [`Dial`] has a group of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pingora::protocols::TcpKeepalive;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{ALPN, HttpPeer, PeerOptions};
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};

use super::credentials::Loaded;
use super::pool::Place;
use super::{Upstream, UpstreamTimeouts};

/// Requests that share an HTTP/2 connection, at most.
const STREAMS: usize = 16;
/// What a peer may send of one answer before we have passed it on: what a client that reads slowly costs.
const STREAM_WINDOW: u32 = 512 << 10;
/// The same for all answers of a connection together: enough for each, so that clients that read slowly keep nothing from
/// the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
/// How often a peer must show that it is there while nothing comes from it, on HTTP/2.
const PING: Duration = Duration::from_secs(20);

/// How the peers of one definition of an upstream are connected to.
#[derive(Debug)]
pub(super) struct Dial {
    group: u64,
    authorities: Option<Arc<CaType>>,
    pair: Option<Arc<CertKey>>,
    http2: bool,
    timeouts: UpstreamTimeouts,
}

impl Dial {
    pub(super) fn new(upstream: &Upstream, credentials: &Loaded) -> Self {
        static GROUPS: AtomicU64 = AtomicU64::new(1);
        // Parsing cannot fail: the certificates were parsed when they were read.
        let wrap = |der: &rustls::pki_types::CertificateDer<'_>| WrappedX509::new(der.to_vec(), parse_x509);
        let pair = credentials.pair.as_ref().map(|(chain, key)| {
            let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
            Arc::new(CertKey::new(chain, key.secret_der().to_vec()))
        });
        Self {
            group: GROUPS.fetch_add(1, Ordering::Relaxed),
            authorities: credentials.authorities.as_ref().map(|all| all.iter().map(wrap).collect()),
            pair,
            http2: upstream.http2,
            timeouts: upstream.timeouts,
        }
    }

    /// A peer for a request.
    pub(super) fn peer(&self, place: &Place) -> HttpPeer {
        let secure = place.origin.is_secure();
        let mut peer = HttpPeer::new(place.address, secure, place.name.clone());
        peer.group_key = self.group;
        self.set_timeouts(&mut peer.options);
        if secure {
            peer.client_cert_key.clone_from(&self.pair);
            peer.options.ca.clone_from(&self.authorities);
            if self.http2 {
                peer.options.alpn = ALPN::H2H1;
                peer.options.max_h2_streams = STREAMS;
                peer.options.h2_stream_window_size = Some(STREAM_WINDOW);
                peer.options.h2_connection_window_size = Some(CONNECTION_WINDOW);
                peer.options.h2_ping_interval = Some(PING);
            }
        }
        peer
    }

    fn set_timeouts(&self, options: &mut PeerOptions) {
        let UpstreamTimeouts { connect, read, write, idle } = self.timeouts;
        options.connection_timeout = Some(connect);
        options.total_connection_timeout = Some(connect);
        options.read_timeout = Some(read);
        options.write_timeout = Some(write);
        options.idle_timeout = Some(idle);
        options.tcp_keepalive = Some(TcpKeepalive {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(15),
            count: 4,
            user_timeout: Duration::ZERO, // the system's
        });
    }
}
