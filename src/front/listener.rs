//! What happens to a connection from `accept` to its end?
//!
//! Pingora accepts; then this is the application in front of its `HttpProxy`: TLS, the choice between HTTP/1.1 and
//! HTTP/2, and the HTTP/1.1 keep-alive loop. Between two requests of that loop nothing is alive but the stream.
//!
//! **Invariant:** a connection is counted from its first moment here to its last, handshake included, so that a drain
//! waits for all of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use jiff::Timestamp;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use rustls::server::Acceptor;
use rustls::{AlertDescription, ServerConfig};
use tokio_rustls::LazyConfigAcceptor;

use super::io::{Connection, FrontIo};
use super::plan::Doorway;
use super::refusal::Refusal;
use super::running::Live;
use super::watch::{Phase, Watched};
use super::{Address, Service};
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
}

#[async_trait]
impl<S: Service> ServerApp for Front<S> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let _counted = self.live.connections.enter();
        let _shown = self.live.reports.metrics.connection();
        let (peer, local) = addresses(&stream);
        let doorway = self.doorway.load_full();
        let peer = match doorway.listener.address {
            Address::Tcp(_) => peer?,
            Address::Unix(_) => ON_THIS_MACHINE,
        };
        let plan = self.live.plan.load();
        let (timeouts, dress) = (plan.timeouts, plan.terms.dress.clone());
        drop(plan);
        let connection = Connection::new(doorway.listener.clone(), timeouts, peer, local, dress, shutdown.clone());
        let io = self.welcome(stream, doorway.tls.clone(), Arc::new(connection)).await?;
        if io.connection().is_http2() {
            self.live.proxy.load_full().process_new(Box::new(io), shutdown).await;
        } else {
            self.http1(io, shutdown).await;
        }
        None
    }

    // `cleanup` does nothing: Pingora's `http_cleanup` would drop the connections that wait for their first header.
}

impl<S: Service> Front<S> {
    async fn welcome(
        &self,
        stream: Stream,
        tls: Option<Arc<ServerConfig>>,
        connection: Arc<Connection>,
    ) -> Option<FrontIo> {
        let Some(tls) = tls else { return clear(stream, connection).ok() };
        let (limit, peer) = (connection.timeouts.handshake, connection.peer);
        // Boxed, so that its state is freed before the connection settles down.
        let handshake = Box::pin(self.handshake(stream, tls, connection));
        let (how, io) = match tokio::time::timeout(limit, handshake).await {
            Ok(Ok(Some(io))) => (Handshake::Done, Some(io)),
            Ok(Ok(None)) => (Handshake::Failed, None),
            Ok(Err(error)) => {
                report_handshake(peer, &error);
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

    /// `None`: the client spoke no TLS and was told so.
    async fn handshake(
        &self,
        mut stream: Stream,
        tls: Arc<ServerConfig>,
        connection: Arc<Connection>,
    ) -> io::Result<Option<FrontIo>> {
        let mut first = [0];
        stream.try_peek(&mut first).await?;
        if first[0].is_ascii_uppercase() {
            // A method's first letter, where TLS has 22: the likeliest mistake with a registry on a port of its own.
            let mut io = clear(stream, connection)?;
            io.refuse(Refusal::SpeaksTls);
            io.part().await;
            self.log_refusal(io.connection());
            return Ok(None);
        }
        let stream = watched(stream, &connection);
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        FrontIo::tls(hello.into_stream(tls).await?, connection).map(Some)
    }

    /// The keep-alive loop.
    async fn http1(&self, mut io: FrontIo, shutdown: &ShutdownWatch) {
        let mut ending = shutdown.clone();
        let mut grace = FIRST_REQUEST_GRACE;
        let connection = io.connection().clone();
        loop {
            let begun = tokio::select! {
                biased; // bytes that are there are served, whatever else happens
                begun = io.ready() => begun.unwrap_or(false),
                () = over(&mut ending, grace) => false,
            };
            if !begun {
                return io.close().await;
            }
            let mut session = ServerSession::new_http1(Box::new(io));
            session.set_keepalive(Some(0)); // no timers of Pingora's: the stream watches
            let Some(reused) = self.live.proxy.load_full().process_new_http(session, shutdown).await else { break };
            let (stream, _) = reused.consume();
            let Ok(same) = stream.into_any().downcast::<FrontIo>() else { break };
            io = *same;
            connection.phase.set(Phase::Idle);
            grace = Duration::ZERO;
        }
        self.log_refusal(&connection);
    }

    /// A request that could not be read reaches no phase of Pingora's, hence its line is written here.
    fn log_refusal(&self, connection: &Connection) {
        let Some((refusal, request_id)) = connection.refused() else { return };
        self.live.reports.request(&Access {
            time: Timestamp::now(),
            request_id: &request_id,
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
            kind: Kind::Other,
            limit: refusal.limit(),
            credentials: false,
            size: None,
        });
    }
}

fn clear(stream: Stream, connection: Arc<Connection>) -> io::Result<FrontIo> {
    FrontIo::plain(watched(stream, &connection), connection)
}

fn watched(stream: Stream, connection: &Connection) -> Watched {
    Watched::new(stream, connection.phase.clone(), connection.timeouts)
}

/// Returns when the server has begun to end, `grace` later.
async fn over(ending: &mut ShutdownWatch, grace: Duration) {
    // An error means that whoever could have told us is gone: that is an end as well.
    let _ = ending.wait_for(|ending| *ending).await;
    tokio::time::sleep(grace).await;
}

fn addresses(stream: &Stream) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let Some(socket) = stream.get_socket_digest() else { return (None, None) };
    let inet = |address: Option<&pingora::protocols::l4::socket::SocketAddr>| address?.as_inet().copied();
    (inet(socket.peer_addr()), inet(socket.local_addr()))
}

/// Scanners and clients that change their mind are no news. A client that does not trust us is: its user sees only a
/// TLS error, and the operator can help.
fn report_handshake(peer: SocketAddr, error: &io::Error) {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown),
        )) => tracing::info!(client = %peer.ip(), ?alert, "a client does not trust our certificate"),
        _ => tracing::debug!(%peer, %error, "TLS handshake failed"),
    }
}
