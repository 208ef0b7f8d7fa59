//! Who is well? Every peer is asked, and what it answers counts.
//!
//! A check is a request like any other, as a client on this machine would send it to our first name, on a connection of its
//! own: the same name, certificate and authorities. Only HTTP/2 is not spoken, so that it says something about new
//! connections too. A peer that speaks nothing else is down; long uploads could not reach it either.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};

use futures_util::future::join_all;
use http::StatusCode;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::{ALPN, HttpPeer};
use tokio::time::Instant;

use super::super::rewrite::{self, Arrived};
use super::condition::Change;
use super::pool::{Place, Pool};
use super::resolve::jittered;
use super::{Error, Health, Upstream};
use crate::exchange::Origin;
use crate::telemetry;
use crate::tls::Demands;

/// More of an answer than this is not waited for.
const ENOUGH: usize = 64 << 10;

/// What connects for checks.
#[derive(Clone)]
pub(super) struct Checker {
    connector: Arc<Connector>,
    /// What clients call us.
    external: Origin,
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checker")
    }
}

impl Checker {
    pub(super) fn new(external: Origin) -> Result<Self, Error> {
        // It reads the certificates that this machine trusts, and panics when it cannot.
        let build = AssertUnwindSafe(|| Connector::new(None));
        let connector = std::panic::catch_unwind(build).map_err(|_| Error::TrustStore)?;
        Ok(Self { connector: Arc::new(connector), external })
    }

    /// The status that it answers, with the whole of its answer.
    async fn ask(
        &self,
        peer: &HttpPeer,
        place: &Place,
        upstream: &Upstream,
        path: &str,
    ) -> pingora::Result<Option<StatusCode>> {
        let (mut session, _) = self.connector.get_http_session(peer).await?;
        let mut head = RequestHeader::build("GET", path.as_bytes(), None)?;
        let request_id = telemetry::request_id(None);
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let demands = Demands::default(); // nobody has sent it
        let arrived = Arrived {
            origin: &self.external,
            client,
            request_id: request_id.as_str(),
            peer: &place.origin,
            trusted: false,
            demands: &demands,
            subject: None,
        };
        rewrite::request(&mut head, &arrived, upstream)?;
        head.insert_header("User-Agent", concat!("pierhead/", env!("CARGO_PKG_VERSION"), " (health check)"))?;
        head.insert_header("Connection", "close")?;
        session.write_request_header(Box::new(head)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let mut read = 0;
        while let Some(piece) = session.read_response_body().await? {
            read += piece.len();
            if read > ENOUGH {
                break;
            }
        }
        let status = session.response_header().map(|head| head.status);
        session.shutdown().await;
        Ok(status)
    }

    /// Whether a peer is well; if not, what is wrong.
    async fn judge(&self, pool: &Pool, place: &Place, health: &Health) -> Result<(), String> {
        let mut peer = pool.peer(place);
        peer.options.alpn = ALPN::H1;
        let asked = self.ask(&peer, place, pool.config(), health.path.as_str());
        match tokio::time::timeout(health.timeout, asked).await {
            Err(_) => Err(format!("no whole answer within {:?}", health.timeout)),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(Some(status))) if health.status.contains(&status) => Ok(()),
            Ok(Ok(status)) => Err(status.map_or_else(|| "no status".to_owned(), |status| format!("answers {status}"))),
        }
    }
}

/// Asks every peer again and again, until the pool is gone.
pub(super) async fn keep_checking(pool: Weak<Pool>, health: Health) {
    let mut names = true;
    loop {
        let begun = Instant::now();
        let Some(pool) = pool.upgrade() else { return };
        if std::mem::take(&mut names) {
            pool.wait_for_addresses(health.interval).await;
        }
        join_all(pool.places().into_iter().map(|place| check(&pool, place, &health))).await;
        drop(pool);
        tokio::time::sleep_until(begun + jittered(health.interval)).await;
    }
}

async fn check(pool: &Pool, place: Arc<Place>, health: &Health) {
    let Some(checker) = pool.checker() else { return };
    let found = checker.judge(pool, &place, health).await;
    let (upstream, Place { origin, address, .. }) = (&pool.config().name, &*place);
    match (pool.checked(&place, found.is_ok(), health, Instant::now()), found) {
        (Some(Change::Down), Err(why)) => {
            tracing::warn!(%upstream, peer = %origin, %address, why, "a peer is not well: it gets requests only when no other is");
        }
        (Some(Change::Up), _) => tracing::info!(%upstream, peer = %origin, %address, "a peer is well again"),
        (_, Err(why)) => tracing::debug!(%upstream, peer = %origin, %address, why, "a health check failed"),
        _ => {}
    }
}
