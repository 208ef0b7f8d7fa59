//! How is the front door opened, changed while it is open, and closed without losing anybody?
//!
//! Pingora is a library here: its listening services run in our runtime, on sockets that were bound before. Closing
//! ([`Running::drain`]) stops accepting, lets every request that runs come to its end, tells HTTP/2 clients to go
//! elsewhere (GOAWAY) and closes connections that are between two requests. A listener that a change
//! ([`Running::change`]) takes away ends in the same way, alone.

use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use pingora::apps::HttpServerOptions;
use pingora::listeners::{L4BufferSettings, ListenerConfig, Listeners};
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ListenFds};
use pingora::services::Service as _;
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::http2::Windows;
use super::limits::Connections;
use super::listener::Front;
use super::plan::{Doorway, Plan};
use super::proxy::App;
use super::upstream::Upstreams;
use super::{Address, Config, Credentials, Listener, Service, UpstreamError};
use crate::telemetry::Reports;
use crate::tls::acme::Answers;
use crate::tls::{Certificates, Demands};

/// Connections that were accepted but have not reached us are invisible; by then they have.
const SETTLE: Duration = Duration::from_millis(50);

/// Why the front door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener speaks TLS and there is no certificate.
    #[error("{0} speaks TLS, and there is no certificate to show")]
    NoCertificate(Address),
    /// A socket could not be prepared.
    #[error("the listening socket of {0} cannot be used: {1}")]
    Socket(Address, #[source] std::io::Error),
    /// Pingora reads the machine's certificates when it starts, and panics when it cannot.
    #[error("the certificates that this machine trusts cannot be read; see SSL_CERT_FILE and SSL_CERT_DIR")]
    TrustStore,
    /// An upstream that cannot be used as it is configured.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// A socket that was bound.
#[derive(Debug)]
pub enum Socket {
    /// Of an address and port.
    Tcp(TcpListener),
    /// Of a path.
    Unix(UnixListener),
}

impl Socket {
    fn duplicate(&self) -> std::io::Result<OwnedFd> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(OwnedFd::from),
            Self::Unix(socket) => socket.try_clone().map(OwnedFd::from),
        }
    }
}

/// What TLS is negotiated by.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// On every listener that speaks TLS, with clients of whom nothing is demanded.
    pub usual: Option<Arc<ServerConfig>>,
    /// What clients must or may prove on public listeners, by the name that they ask for.
    pub demands: Arc<Demands>,
    /// What is shown, by the name that the client asks for.
    pub certificates: Option<Arc<Certificates>>,
    /// On the internal one instead, if it speaks TLS.
    pub internal: Option<Arc<ServerConfig>>,
    /// With upstreams.
    pub upstreams: Credentials,
    /// What proves to an authority that our names are ours, on every public listener.
    pub answers: Option<Answers>,
}

impl Tls {
    /// What fits a listener.
    fn doorway(&self, listener: &Listener) -> Result<Doorway, Error> {
        let own = self.internal.as_ref().filter(|_| listener.internal);
        let tls = own.or(self.usual.as_ref()).filter(|_| listener.tls).cloned();
        if listener.tls && tls.is_none() {
            return Err(Error::NoCertificate(listener.address.clone()));
        }
        let certificates = if own.is_none() && listener.tls { self.certificates.clone() } else { None };
        // An authority comes as the public does.
        let answers = self.answers.clone().filter(|_| !listener.internal);
        // The internal port has its own (`Internal::tls`).
        let demands = if listener.internal { Arc::default() } else { self.demands.clone() };
        Ok(Doorway { listener: Arc::new(listener.clone()), tls, demands, certificates, answers })
    }
}

/// Serves these sockets until [`Running::drain`]. Must be called in a tokio runtime, once the process has a default
/// crypto provider. `tls` must offer `http/1.1` by ALPN, and `h2` where HTTP/2 is wanted.
pub fn open<S: Service>(
    config: Config,
    service: Arc<S>,
    tls: &Tls,
    reports: Reports,
    sockets: Vec<(Socket, Listener)>,
) -> Result<Running<S>, Error> {
    let upstreams = Upstreams::new(config.upstreams.clone(), &tls.upstreams, &config.external_url, None)?;
    upstreams.tend();
    upstreams.report_to(&reports.metrics);
    let plan =
        Arc::new(ArcSwap::from_pointee(Plan::new(config, upstreams, tls.demands.clone(), service, &reports.metrics)));
    let proxy = proxy(App { plan: plan.clone(), reports: reports.clone() })?;
    let proxy = ArcSwap::new(proxy);
    let (connections, windows, ending) = (Arc::default(), Arc::default(), watch::Sender::new(false));
    let live = Live { plan, proxy, connections, windows, reports, ending };
    let mut running = Running { live: Arc::new(live), doors: Vec::new(), services: JoinSet::new() };
    for new in prepare(sockets, tls)? {
        running.open(new);
    }
    Ok(running)
}

/// What the open door consists of, for all listeners together.
pub(super) struct Live<S> {
    pub(super) plan: Arc<ArcSwap<Plan<S>>>,
    /// Looks at the plan; is itself replaced with it, as it connects to upstreams and reads whom this machine trusts when it
    /// is made. Connections to them that wait for requests end with the one that had them.
    pub(super) proxy: ArcSwap<HttpProxy<App<S>>>,
    pub(super) connections: Arc<Connections>,
    pub(super) windows: Arc<Windows>,
    pub(super) reports: Reports,
    /// Whether the whole server ends.
    pub(super) ending: watch::Sender<bool>,
}

/// A listening address about to be opened: from here on nothing fails.
struct New {
    doorway: Doorway,
    listeners: Listeners,
    sockets: ListenFds,
    duplicate: OwnedFd,
}

fn prepare(sockets: Vec<(Socket, Listener)>, tls: &Tls) -> Result<Vec<New>, Error> {
    let one = |(socket, listener): (Socket, Listener)| {
        let doorway = tls.doorway(&listener)?;
        let refused = |error| Error::Socket(listener.address.clone(), error);
        let duplicate = socket.duplicate().map_err(refused)?;
        let (listeners, sockets) = adopt(socket).map_err(refused)?;
        Ok(New { doorway, listeners, sockets, duplicate })
    };
    sockets.into_iter().map(one).collect()
}

async fn serve<S: Service>(front: Front<S>, listeners: Listeners, sockets: ListenFds, ending: watch::Receiver<bool>) {
    let address = front.doorway.load().listener.address.clone();
    let mut service = pingora::services::listening::Service::with_listeners(address.to_string(), listeners, front);
    // It panics when it cannot listen, which nobody would hear of: the process goes on.
    let _ = AssertUnwindSafe(service.start_service(Some(sockets), ending.clone(), 1)).catch_unwind().await;
    if !*ending.borrow() {
        tracing::error!(%address, "no longer listening");
    }
}

fn proxy<S: Service>(app: App<S>) -> Result<Arc<HttpProxy<App<S>>>, Error> {
    // `attempts` of the upstream says when it is enough.
    let conf = Arc::new(ServerConf { max_retries: usize::MAX, ..ServerConf::default() });
    let build = AssertUnwindSafe(|| http_proxy(&conf, app));
    let mut proxy = std::panic::catch_unwind(build).map_err(|_| Error::TrustStore)?;
    let mut options = HttpServerOptions::default();
    options.h2c = false; // it waits for the client's first bytes without a limit
    options.allow_connect_method_proxying = true; // to be refused by us, in our words
    proxy.server_options = Some(options);
    Ok(Arc::new(proxy))
}

/// Hands a bound socket to Pingora the way one process hands it to the next: in a table of descriptors by address.
fn adopt(socket: Socket) -> std::io::Result<(Listeners, ListenFds)> {
    let (name, config, descriptor) = match socket {
        Socket::Tcp(socket) => adopt_tcp(socket)?,
        Socket::Unix(socket) => adopt_unix(socket)?,
    };
    let mut listeners = Listeners::new();
    // TLS has buffers of its own, and so has our reading of headers: with Pingora's an idle connection costs three times as much.
    listeners.add_listener(config.l4_buffer(L4BufferSettings::unbuffered()));
    let mut table = Fds::new();
    table.add(name, descriptor);
    Ok((listeners, Arc::new(Mutex::new(table))))
}

fn adopt_tcp(socket: TcpListener) -> std::io::Result<(String, ListenerConfig, RawFd)> {
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?.to_string();
    probe(&socket)?;
    let config = ListenerConfig::tcp(address.clone());
    Ok((address, config, socket.into_raw_fd()))
}

/// A client that is gone without a word is noticed: every connection has this from its listening socket (tcp(7)), and it
/// need not be set on each. How long unacknowledged bytes may stay is the system's: the stream watches them itself.
fn probe(socket: &TcpListener) -> std::io::Result<()> {
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(socket, 4)?;
    Ok(())
}

fn adopt_unix(socket: UnixListener) -> std::io::Result<(String, ListenerConfig, RawFd)> {
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    let path = address.as_pathname().and_then(Path::to_str).ok_or(std::io::ErrorKind::InvalidInput)?;
    // Pingora would open it to everybody. Whoever bound it has decided who may come.
    let permissions = std::fs::metadata(path)?.permissions();
    Ok((path.to_owned(), ListenerConfig::uds(path).permissions(permissions), socket.into_raw_fd()))
}

/// The open front door. Dropping it closes it at once.
pub struct Running<S> {
    live: Arc<Live<S>>,
    doors: Vec<OpenDoor>,
    /// Who accepts, also where accepting is just being ended.
    services: JoinSet<()>,
}

/// A listening address that is open.
struct OpenDoor {
    doorway: Arc<ArcSwap<Doorway>>,
    shutdown: Arc<watch::Sender<bool>>,
    /// The listening socket, for another process. As long as anybody has it, clients can connect.
    socket: OwnedFd,
}

impl OpenDoor {
    /// Stops accepting; connections are told to end when nothing runs on them.
    fn close(self) {
        self.shutdown.send_replace(true);
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open when the time was over.
    pub left: usize,
}

impl<S> Drop for Running<S> {
    /// Who accepts does not end with whoever started it, only when it is told.
    fn drop(&mut self) {
        self.doors.drain(..).for_each(OpenDoor::close);
    }
}

impl<S: Service> Running<S> {
    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.live.connections.count()
    }

    /// Those of `listeners` whose address is not open. A [`change`](Self::change) to them needs their sockets.
    pub fn not_open(&self, listeners: &[Listener]) -> Vec<Listener> {
        let found = self.find(listeners);
        listeners.iter().zip(found).filter(|(_, door)| door.is_none()).map(|(listener, _)| listener.clone()).collect()
    }

    /// Puts another configuration in force for the next requests and connections: all of it, or nothing when it fails.
    /// `sockets` are of those listeners that were [not open](Self::not_open). What is listed no more is closed, and its
    /// connections end when nothing runs on them.
    ///
    /// # Errors
    /// Whatever keeps a door from being opened.
    pub fn change(
        &mut self,
        config: Config,
        service: Arc<S>,
        tls: &Tls,
        sockets: Vec<(Socket, Listener)>,
    ) -> Result<(), Error> {
        let kept = self.find(&config.listeners);
        let kept = config.listeners.iter().zip(kept).filter_map(|(listener, door)| Some((door?, listener)));
        let kept: Vec<_> =
            kept.map(|(door, listener)| Ok((door, tls.doorway(listener)?))).collect::<Result<_, Error>>()?;
        let new = prepare(sockets, tls)?;
        let previous = self.live.plan.load_full();
        let (external, previous) = (&config.external_url, Some(&previous.upstreams));
        let upstreams = Upstreams::new(config.upstreams.clone(), &tls.upstreams, external, previous)?;
        let app = App { plan: self.live.plan.clone(), reports: self.live.reports.clone() };
        let proxy = proxy(app)?;

        let metrics = &self.live.reports.metrics;
        upstreams.tend();
        upstreams.report_to(metrics);
        self.live.plan.store(Arc::new(Plan::new(config, upstreams, tls.demands.clone(), service, metrics)));
        self.live.proxy.store(proxy);
        let mut doors: Vec<Option<OpenDoor>> = std::mem::take(&mut self.doors).into_iter().map(Some).collect();
        for (door, doorway) in kept {
            if let Some(door) = doors[door].take() {
                door.doorway.store(Arc::new(doorway));
                self.doors.push(door);
            }
        }
        doors.into_iter().flatten().for_each(OpenDoor::close);
        new.into_iter().for_each(|new| self.open(new));
        Ok(())
    }

    /// For each listener the open door with its address, each door once.
    fn find(&self, listeners: &[Listener]) -> Vec<Option<usize>> {
        let mut free = vec![true; self.doors.len()];
        let mut take = |address: &Address| {
            let fits = |door: &usize| free[*door] && self.doors[*door].doorway.load().listener.address == *address;
            let found = (0..self.doors.len()).find(fits)?;
            free[found] = false;
            Some(found)
        };
        listeners.iter().map(|listener| take(&listener.address)).collect()
    }

    fn open(&mut self, new: New) {
        let New { doorway, listeners, sockets, duplicate } = new;
        let doorway = Arc::new(ArcSwap::from_pointee(doorway));
        let (shutdown, ending) = watch::channel(false);
        let shutdown = Arc::new(shutdown);
        let front = Front { live: self.live.clone(), doorway: doorway.clone(), _shutdown: shutdown.clone() };
        self.services.spawn(serve(front, listeners, sockets, ending));
        self.doors.push(OpenDoor { doorway, shutdown, socket: duplicate });
    }

    /// The listening sockets and where they listen, for another process.
    pub fn sockets(&self) -> Vec<(Address, BorrowedFd<'_>)> {
        self.doors.iter().map(|door| (door.doorway.load().listener.address.clone(), door.socket.as_fd())).collect()
    }

    /// Stops accepting and waits until the last connection has ended, at most for the configured time. Connections between
    /// two requests are closed at once.
    pub async fn drain(self) -> Drained {
        self.live.ending.send_replace(true);
        self.hand_over().await
    }

    /// The same while another process accepts on our sockets: connections between two requests may have one more.
    pub async fn hand_over(mut self) -> Drained {
        let deadline = Instant::now() + self.live.plan.load().timeouts.drain;
        self.doors.drain(..).for_each(OpenDoor::close);
        while self.services.join_next().await.is_some() {}
        let connections = &self.live.connections;
        loop {
            tokio::time::sleep(SETTLE).await;
            if connections.count() == 0 || tokio::time::timeout_at(deadline, connections.none()).await.is_err() {
                return Drained { left: connections.count() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn connections_have_the_probes_of_their_listening_socket() {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        probe(&listening).unwrap();
        let _client = TcpStream::connect(listening.local_addr().unwrap()).unwrap();
        let (accepted, _) = listening.accept().unwrap();
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), Duration::from_secs(60));
        assert_eq!(sockopt::tcp_keepintvl(&accepted).unwrap(), Duration::from_secs(15));
        assert_eq!(sockopt::tcp_keepcnt(&accepted).unwrap(), 4);
    }
}
