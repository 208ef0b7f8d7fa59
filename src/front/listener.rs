//! What happens to a connection from `accept` to its end?
//!
//! Pingora accepts; then this is its application: [TLS](super::handshake), the choice between HTTP/1.1 and
//! [HTTP/2](super::http2), and the HTTP/1.1 keep-alive loop. Between two requests of that loop nothing is alive but the stream.
//!
//! **Invariant:** a connection is counted from its first moment here to its last, handshake included, so that a drain
//! waits for all of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use jiff::Timestamp;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::sync::watch;
use tokio::time::Instant as Deadline;

use super::connection::{Connection, Whose};
use super::io::FrontIo;
use super::plan::Doorway;
use super::proxy_protocol::{self, Header};
use super::running::Live;
use super::watch::{Phase, Watched};
use super::{ProxyProtocol, Service, handshake, http2, proxy};
use crate::exchange::Kind;
use crate::telemetry::{Access, Handshake};

/// How long a client that had just connected when we began to end may take for its first request.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// The client of a socket in the file system has no address.
const ON_THIS_MACHINE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// One listening address and what serves it.
pub(super) struct Front<S> {
    pub(super) live: Arc<Live<S>>,
    pub(super) doorway: Arc<ArcSwap<Doorway>>,
    /// Kept for as long as a connection listens to it.
    pub(super) _shutdown: Arc<watch::Sender<bool>>,
}

#[async_trait]
impl<S: Service> ServerApp for Front<S> {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let counted = (self.live.connections.enter(), self.live.reports.metrics.connection());
        let (peer, local) = addresses(&stream)?;
        let doorway = self.doorway.load_full();
        let (timeouts, trusted) = {
            let plan = self.live.plan.load();
            (plan.timeouts, plan.trusted.contains(peer.ip()))
        };
        let protocol = doorway.listener.proxy_protocol;
        let deadline = Deadline::now() + timeouts.handshake;
        let client = whose(&mut stream, peer, protocol, trusted, deadline).await?;
        let plan = self.live.plan.load_full();
        let (door, listener) = (self.doorway.clone(), doorway.listener.clone());
        let mut connection = Connection::new(listener, door, &plan, client, local, shutdown.clone());
        connection.certificates = doorway.certificates.clone();
        let admitted = self.live.connections.admit(connection.own_network(&plan.trusted), &plan.limits);
        if let Err(full) = admitted {
            self.live.reports.metrics.limit_hit(full.limit());
            if !self.live.connections.tells(full, connection.peer.ip(), Instant::now()) {
                return None;
            }
            connection.turned_away = Some(full);
        }
        drop(plan);
        let io = self.welcome(stream, &doorway, Arc::new(connection), deadline).await?;
        // In a task of its own: Pingora's holds what accepting and the handshake needed, twice as much as all the rest of a
        // connection that waits.
        let (front, shutdown) = (self.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _counted = (counted, admitted);
            if io.connection().is_http2() {
                Box::pin(http2::serve(&front.live, io, &shutdown)).await;
            } else {
                front.http1(io, &shutdown).await;
            }
        });
        None
    }

    // `cleanup` does nothing: Pingora's `http_cleanup` would drop the connections that wait for their first header.
}

impl<S: Service> Front<S> {
    async fn welcome(
        &self,
        stream: Stream,
        doorway: &Doorway,
        connection: Arc<Connection>,
        deadline: Deadline,
    ) -> Option<FrontIo> {
        let Some(tls) = &doorway.tls else { return clear(stream, connection).ok() };
        let peer = connection.peer;
        // Boxed, so that its state is freed before the connection settles down.
        let handshake = Box::pin(handshake::accept(watched(stream, &connection), doorway, tls, connection));
        let (how, io) = match tokio::time::timeout_at(deadline, handshake).await {
            Ok(Ok(None)) => return None,                                       // no client's
            Ok(Ok(Some(io))) if io.connection().is_plain() => return Some(io), // no handshake at all
            Ok(Ok(Some(io))) => (Handshake::Done, Some(io)),
            Ok(Err(error)) => {
                handshake::report(peer, &error);
                (Handshake::Failed, None)
            }
            Err(_) => {
                tracing::debug!(%peer, "the TLS handshake took too long");
                (Handshake::TimedOut, None)
            }
        };
        self.live.reports.metrics.handshake(how);
        io
    }

    /// The keep-alive loop. When only this listener closes, or another process takes over, a client between two requests
    /// keeps its connection for one more, whose answer closes it: closing first could cross with that request, and not
    /// every client tries again. When the whole server ends there is no time for that.
    async fn http1(&self, mut io: FrontIo, shutdown: &ShutdownWatch) {
        // Of all requests one future: listening anew for each costs more than being asked for each.
        let mut ending = pin!(over(self.live.ending.subscribe(), FIRST_REQUEST_GRACE));
        let mut is_first = true;
        let connection = io.connection().clone();
        loop {
            let begun = tokio::select! {
                biased; // bytes that are there are served, whatever else happens
                begun = io.ready() => begun.unwrap_or(false),
                () = &mut ending => false,
            };
            if !begun {
                return io.close().await;
            }
            if io.head().await.is_err() {
                io.part().await;
                break;
            }
            let Some(same) = self.answer(io, shutdown).await else { break };
            io = same;
            connection.phase.set(Phase::Idle);
            if std::mem::take(&mut is_first) {
                ending.set(over(self.live.ending.subscribe(), Duration::ZERO));
            }
        }
        self.log_refusal(&connection);
    }

    /// Answers the request that has begun to come, and gives its stream back for the next one.
    async fn answer(&self, io: FrontIo, shutdown: &ShutdownWatch) -> Option<FrontIo> {
        let plan = self.live.plan.load_full();
        let stream = if plan.upstreams.is_empty() {
            // Boxed, so that a connection between two requests does not keep room for one.
            Box::pin(proxy::next_alone(&self.live, plan, session(io))).await?
        } else {
            self.live.proxy.load_full().process_new_http(session(io), shutdown).await?.consume().0
        };
        stream.into_any().downcast::<FrontIo>().ok().map(|same| *same)
    }

    /// A request that could not be read is nobody's to answer, hence its line is written here.
    fn log_refusal(&self, connection: &Connection) {
        let Some((refusal, request_id)) = connection.refused() else { return };
        self.live.reports.request(&Access {
            time: Timestamp::now(),
            request_id: request_id.as_str(),
            client: connection.peer.ip().to_canonical(),
            subject: None,
            method: "-",
            path: "-",
            protocol: "HTTP/1.1",
            status: refusal.status().as_u16(),
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            repository: None,
            reference: None,
            digest: None,
            user_agent: None,
            failure: None,
            upstream: None,
            kind: Kind::Other,
            limit: refusal.limit(),
            credentials: false,
            size: None,
            login: false,
        });
    }
}

fn session(io: FrontIo) -> ServerSession {
    let mut session = ServerSession::new_http1(Box::new(io));
    session.set_keepalive(Some(0)); // no timers of Pingora's: the stream watches
    session
}

fn clear(stream: Stream, connection: Arc<Connection>) -> io::Result<FrontIo> {
    FrontIo::plain(watched(stream, &connection), connection)
}

fn watched(stream: Stream, connection: &Connection) -> Watched {
    Watched::new(stream, connection.phase.clone(), connection.timeouts)
}

/// Returns when the server has begun to end, `grace` later.
async fn over(mut ending: watch::Receiver<bool>, grace: Duration) {
    // An error means that whoever could have told us is gone: that is an end as well.
    let _ = ending.wait_for(|ending| *ending).await;
    tokio::time::sleep(grace).await;
}

/// The other end and ours. A socket in the file system has no address: whoever connects there is on this machine.
fn addresses(stream: &Stream) -> Option<(SocketAddr, Option<SocketAddr>)> {
    use pingora::protocols::l4::socket::SocketAddr::{Inet, Unix};
    let socket = stream.get_socket_digest()?;
    match (socket.peer_addr(), socket.local_addr()) {
        (Some(Inet(peer)), local) => Some((*peer, local.and_then(|local| local.as_inet()).copied())),
        (_, Some(Unix(_))) => Some((ON_THIS_MACHINE, None)),
        _ => None,
    }
}

/// Whose connection it is, and whether that is known. `None`: nobody's that we would talk to.
async fn whose(
    stream: &mut Stream,
    peer: SocketAddr,
    protocol: ProxyProtocol,
    trusted: bool,
    deadline: Deadline,
) -> Option<Whose> {
    let unnamed = Whose { peer, named: false, speaks_http: true };
    match protocol {
        ProxyProtocol::Off => return Some(Whose { named: true, ..unnamed }),
        ProxyProtocol::Optional if !trusted => return Some(unnamed),
        ProxyProtocol::Required if !trusted => {
            tracing::debug!(%peer, "closed: a PROXY header is required here, and this is none of trusted_proxies");
            return None;
        }
        ProxyProtocol::Optional | ProxyProtocol::Required => {}
    }
    let header = async {
        if protocol == ProxyProtocol::Optional && !proxy_protocol::announced(stream).await? {
            return Ok(None);
        }
        proxy_protocol::read(stream).await.map(Some)
    };
    match tokio::time::timeout_at(deadline, header).await {
        Ok(Ok(Some(Header::For(peer)))) => Some(Whose { peer, named: true, speaks_http: true }),
        Ok(Ok(Some(Header::Unnamed))) => Some(Whose { peer, named: true, speaks_http: false }),
        Ok(Ok(None)) => Some(unnamed),
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(%peer, "closed: a trusted proxy sent no PROXY header; does its configuration say that it should?");
            None
        }
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "closed before its PROXY header was whole");
            None
        }
        Err(_) => {
            tracing::debug!(%peer, "closed: its PROXY header took too long");
            None
        }
    }
}
