//! What is known about a connection, for all who deal with it?
//!
//! Where it came in, whose it is, what it may do and what it has done so far: one [`Connection`], shared by its stream and
//! by every request on it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use http::HeaderMap;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use rustls::pki_types::UnixTime;
use tokio::sync::Notify;

use super::dress::Dress;
use super::host::Shown;
use super::http2::GivenUp;
use super::limits::Full;
use super::plan::{Doorway, Plan};
use super::refusal::Refusal;
use super::watch::{Phase, SharedPhase};
use super::{Limits, Listener, Networks, Timeouts, peer};
use crate::exchange::{self, RequestId};
use crate::tls::{Certificates, Demand, Demands, Proof};

/// Whose connection it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose {
    pub(super) peer: SocketAddr,
    pub(super) named: bool,
    pub(super) speaks_http: bool,
}

/// What is known about a connection. Every request on it finds this in Pingora's `proxy_digest.user_data`, the one
/// place that a stream not of Pingora's own can fill for HTTP/1.1 and HTTP/2 alike.
#[derive(Debug)]
pub(super) struct Connection {
    /// Where it came in.
    pub(super) listener: Arc<Listener>,
    /// What holds there by now: who may come in is asked for each request.
    pub(super) doorway: Arc<ArcSwap<Doorway>>,
    /// How long its client may keep us waiting.
    pub(super) timeouts: Timeouts,
    /// The client, as far as the connection tells.
    pub(super) peer: SocketAddr,
    /// Whether `peer` is known for the client (or a proxy for the one that it names): false where a load balancer should
    /// have said whose connection it is and did not.
    pub(super) named: bool,
    /// Whether `peer`, if it is a trusted proxy, speaks HTTP. One that spoke the PROXY protocol for itself does not, and
    /// forwarding headers are then its client's.
    speaks_http: bool,
    /// Our end.
    pub(super) local: Option<SocketAddr>,
    /// How much its client may send at once.
    pub(super) limits: Limits,
    /// Set when there was no room for it: its one request is told so.
    pub(super) turned_away: Option<Full>,
    /// Where it stands.
    pub(super) phase: Arc<SharedPhase>,
    /// What every answer on it carries that is not an answer to a request.
    pub(super) dress: Arc<Dress>,
    /// Whether it is to end as soon as nothing runs on it.
    pub(super) closing: ShutdownWatch,
    /// What the client is told instead of an answer to a request, and under which request id.
    pub(super) refused: Mutex<Option<(Refusal, RequestId)>>,
    /// On HTTP/2, requests that its client gave up.
    pub(super) given_up: GivenUp,
    /// On HTTP/2, that somebody who may reads a body which could need more than the least window.
    pub(super) wants_window: Notify,
    /// What the client may have been shown, if that depends on the name that it asked for.
    pub(super) certificates: Option<Arc<Certificates>>,
    /// The name that it asked for.
    pub(super) asked_for: OnceLock<String>,
    /// What the client proved in the handshake, if it was asked.
    pub(super) proof: OnceLock<Proof>,
    /// On HTTP/2, that its client has to come anew: it ends when nothing runs on it.
    pub(super) outdated: Notify,
    /// Whether HTTP/2 was agreed on.
    pub(super) http2: AtomicBool,
    /// Whether the client does not speak TLS although the listener does.
    pub(super) plain: AtomicBool,
}

impl Connection {
    pub(super) fn new<S>(
        listener: Arc<Listener>,
        doorway: Arc<ArcSwap<Doorway>>,
        plan: &Plan<S>,
        Whose { peer, named, speaks_http }: Whose,
        local: Option<SocketAddr>,
        closing: ShutdownWatch,
    ) -> Self {
        let phase = Arc::new(SharedPhase::new(if listener.tls { Phase::Handshake } else { Phase::Header }));
        Self {
            listener,
            doorway,
            timeouts: plan.timeouts,
            peer,
            named,
            speaks_http,
            local,
            limits: plan.limits,
            turned_away: None,
            phase,
            dress: plan.terms.dress.clone(),
            closing,
            refused: Mutex::new(None),
            given_up: GivenUp::default(),
            wants_window: Notify::new(),
            certificates: None,
            asked_for: OnceLock::new(),
            proof: OnceLock::new(),
            outdated: Notify::new(),
            http2: AtomicBool::new(false),
            plain: AtomicBool::new(false),
        }
    }

    /// Whether it is a proxy's whose word counts.
    pub(super) fn is_trusted(&self, trusted: &Networks) -> bool {
        self.speaks_http && trusted.contains(self.peer.ip())
    }

    /// Whom a request on it is from.
    pub(super) fn client(&self, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
        match self.is_trusted(trusted) {
            true => peer::client(self.peer.ip(), headers, trusted),
            false => self.peer.ip().to_canonical(),
        }
    }

    /// Whose limits the connection itself counts under: a trusted proxy's are those of all its clients, and no limit.
    pub(super) fn own_network(&self, trusted: &Networks) -> Option<IpAddr> {
        self.network(self.peer.ip(), trusted)
    }

    /// Whose limits a request of this client counts under. `None` when it came through a trusted proxy, or a program on
    /// this machine in the clear (a reverse proxy, as a rule), that did not say for whom it speaks: its limits would be
    /// everybody's.
    pub(super) fn network(&self, client: IpAddr, trusted: &Networks) -> Option<IpAddr> {
        let in_the_file_system = self.local.is_none();
        let local = self.peer.ip().to_canonical().is_loopback() && (in_the_file_system || !self.listener.tls);
        let unnamed = client.to_canonical() == self.peer.ip().to_canonical();
        let shared = unnamed && (local || !self.limits.by_address || trusted.contains(self.peer.ip()));
        (!shared).then(|| exchange::network(client))
    }

    pub(super) fn refused(&self) -> Option<(Refusal, RequestId)> {
        self.refused.lock().clone()
    }

    /// The client speaks no TLS although the listener does.
    pub(super) fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Relaxed)
    }

    /// What TLS has shown the client, if it asked for a name.
    pub(super) fn shown(&self) -> Option<Shown<'_>> {
        Some(Shown { to: self.asked_for.get()?, of: self.certificates.as_ref()? })
    }

    /// Whether a request may be about this name, as far as its client has to prove who it is.
    ///
    /// Where a certificate is required, the one that was shown must be good for what holds now. The name that the client
    /// asked TLS for must demand the same as this one: else it could ask TLS for a name that demands nothing and HTTP for
    /// one that does. Both go by what holds now, so that a reload sends nobody away who could come again as he is. Also a
    /// proxy whose word counts proves nothing about its clients, so that it must itself show what is required; it may ask
    /// for a name that requires nothing by any other (as may whoever comes in the clear), and then nobody's certificate
    /// counts.
    pub(super) fn has_proven(&self, demands: &Demands, name: &str, trusted: bool) -> bool {
        match demands.of(Some(name)) {
            None if self.proof.get().is_none() => true,
            Some(demanded) if demanded.is_required() => self.proven(demands, demanded).is_some(),
            demanded => trusted || !self.listener.tls || self.was_asked_for(demands, demanded),
        }
    }

    /// Whose certificate counts for a request about this name, and the header that says so.
    pub(super) fn subject<'c>(&'c self, demands: &'c Demands, name: &str) -> Option<(&'c str, &'c str)> {
        let demanded = demands.of(Some(name))?;
        Some((demanded.header(), self.proven(demands, demanded)?))
    }

    /// Whose certificate counts where this is demanded. It is verified by what the name demands that the client asked TLS
    /// for, which is one and the same for all requests of a connection.
    fn proven(&self, demands: &Demands, demanded: &Demand) -> Option<&str> {
        let proof = self.proof.get()?;
        let asked = demands.of(self.asked_for.get().map(String::as_str))?;
        asked.is_as(demanded).then(|| proof.subject(asked, UnixTime::now()))?
    }

    /// Whether the name that the client asked TLS for demands the same.
    fn was_asked_for(&self, demands: &Demands, demanded: Option<&Arc<Demand>>) -> bool {
        match (demands.of(self.asked_for.get().map(String::as_str)), demanded) {
            (Some(asked), Some(demanded)) => asked.is_as(demanded),
            (asked, demanded) => asked.is_none() && demanded.is_none(),
        }
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }
}
