//! What happens to an HTTP/2 connection?
//!
//! The loop that Pingora would run, with bounds that Pingora has not. One connection gets
//! - as much of a window as an upload needs over a long link, out of a store for all connections together;
//! - as many requests at once as the codec lets it have open, those included that it gave up and we still work on, and as
//!   there are [places](super::limits) for;
//! - a task of its own for each request that waits and is no download, and none for the others;
//! - a limit to the requests that it gives up, and to those that are none.
//!
//! **Invariants**
//! - What clients have sent and we have not taken fits in [`WINDOWS`] and 64 KiB for each connection.
//! - For a request without a place nothing is opened, nor is it told of as a request: its stream is reset as not looked at.
//!   Clients know that they may repeat it, and most do by themselves.
//! - A connection on which no request runs is closed after the idle time, whatever else comes on it.
//!
//! Absent on purpose: frames that carry nothing ([`frames`](super::frames)), stalls ([`watch`](super::watch) and
//! [`session`](super::session)).

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use http::Method;
use parking_lot::Mutex;
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use pingora::protocols::{Digest, GetProxyDigest, GetSocketDigest};
use pingora::server::ShutdownWatch;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connection::Connection;
use super::io::FrontIo;
use super::limits::{Full, OWN_STREAMS, Place};
use super::plan::Plan;
use super::running::Live;
use super::stream::watched;
use super::{Limits, Service, proxy};
use crate::exchange;

/// How much one stream may send before we have taken any: three times what is on its way at 400 Mbit/s over 80 ms. The
/// client learns that it may go on when we have taken half.
const STREAM_WINDOW: u32 = 12 << 20;
/// The same for a connection with an upload.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// What every connection has by the protocol (RFC 9113 6.9.2), enough where nothing is uploaded.
const LEAST_WINDOW: u32 = 65_535;
/// What is lent to all connections together.
const WINDOWS: u32 = 256 << 20;
/// One connection gets at most this part of what is left, so that there is always something left for the next.
const SHARE: u32 = 8;
/// The largest frame that we take: fewer, larger pieces.
const FRAME: u32 = 64 << 10;
/// How much of an answer one stream may hold in memory.
const SEND_BUFFER: usize = 256 << 10;
/// Requests at once with those that the client gave up, as a multiple of its limit: the codec does not count these any
/// more, but they cost.
const RUNNING: usize = 2;
/// How many more requests a client may give up than it lets finish.
const GIVEN_UP: usize = 200;
/// How many malformed requests one connection may send.
const MALFORMED: usize = 32;
/// What the stream of a request is reset with that was not looked at, so that it may be repeated whatever it was (RFC 9113
/// 7 and 8.7).
const REFUSED_STREAM: u32 = 7;

/// Our bounds on header lists and streams, and our windows.
fn options(limits: &Limits) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buffer_size(SEND_BUFFER);
    options
}

/// What is left of [`WINDOWS`].
#[derive(Debug)]
pub(super) struct Windows(Mutex<u32>);

impl Default for Windows {
    fn default() -> Self {
        Self(Mutex::new(WINDOWS))
    }
}

impl Windows {
    fn borrow(self: &Arc<Self>) -> Lease {
        let mut left = self.0.lock();
        let size = (*left / SHARE).min(CONNECTION_WINDOW);
        *left -= size;
        Lease { size, windows: self.clone() }
    }
}

/// What one connection may send beyond [`LEAST_WINDOW`]. A window that was granted cannot be taken back, so it is given
/// back at the end of the connection and not of the upload.
struct Lease {
    size: u32,
    windows: Arc<Windows>,
}

impl Lease {
    fn window(&self) -> u32 {
        self.size.max(LEAST_WINDOW)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.windows.0.lock() += self.size;
    }
}

/// Requests that the client gave up, less those that it let finish.
#[derive(Debug, Default)]
pub(super) struct GivenUp(AtomicUsize);

impl GivenUp {
    pub(super) fn count(&self, given_up: bool) {
        let count = |more: usize| Some(if given_up { more.saturating_add(1) } else { more.saturating_sub(1) });
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count); // it always has a value
    }

    fn are_too_many(&self) -> bool {
        self.0.load(Ordering::Relaxed) > GIVEN_UP
    }
}

/// The requests that run on a connection.
#[derive(Debug)]
struct Requests {
    running: AtomicUsize,
    /// Those of them that the connection's place pays for.
    own: AtomicUsize,
    none: Notify,
    /// When the last one ended; before the first, when the connection began.
    ended: Mutex<Instant>,
}

impl Requests {
    fn new() -> Self {
        Self {
            running: AtomicUsize::new(0),
            own: AtomicUsize::new(0),
            none: Notify::new(),
            ended: Mutex::new(Instant::now()),
        }
    }

    /// One more. `further` is asked for a place when the connection's own is used up. Only the connection's task begins
    /// requests, so that between a look at the numbers and their change others can but make room.
    fn begin(self: &Arc<Self>, further: impl FnOnce() -> Result<Place, Full>) -> Result<Running, Full> {
        let place = if self.own.load(Ordering::Relaxed) < OWN_STREAMS {
            self.own.fetch_add(1, Ordering::Relaxed);
            None
        } else {
            Some(further()?)
        };
        self.running.fetch_add(1, Ordering::Relaxed);
        Ok(Running { requests: self.clone(), place })
    }

    async fn none(&self) {
        while self.running.load(Ordering::Acquire) != 0 {
            self.none.notified().await; // a notification that nobody waited for is kept
        }
    }

    /// Returns when none has run for so long. One timer does for many requests: where it goes off too early, it is set again.
    async fn idle(&self, time: Duration) {
        loop {
            self.none().await;
            let over = *self.ended.lock() + time;
            if Instant::now() >= over {
                return;
            }
            tokio::time::sleep_until(over).await;
        }
    }
}

#[derive(Debug)]
struct Running {
    requests: Arc<Requests>,
    /// `None`: its connection's.
    place: Option<Place>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let requests = &self.requests;
        if self.place.is_none() {
            requests.own.fetch_sub(1, Ordering::Relaxed);
        }
        *requests.ended.lock() = Instant::now();
        if requests.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            requests.none.notify_one();
        }
    }
}

/// What answers one request.
type Request = BoxFuture<'static, ()>;

/// Serves a connection to its end.
pub(super) async fn serve<S: Service>(live: &Arc<Live<S>>, io: FrontIo, shutdown: &ShutdownWatch) {
    let mut here = FuturesUnordered::new();
    drive(live, io, shutdown, &mut here).await;
    if !here.is_empty() {
        tokio::spawn(here.collect::<()>()); // they see that their client has left, and say so
    }
}

/// `here`: downloads from our own registry run in the connection's own task. With one of their own each frame of them would
/// wake another thread, and wait for it. What is read for them does not hold this one up: it is in the kernel's cache, or
/// waited for. Where requests may go to other registries, whose answers are decrypted and copied, each has its own task.
async fn drive<S: Service>(
    live: &Arc<Live<S>>,
    io: FrontIo,
    shutdown: &ShutdownWatch,
    here: &mut FuturesUnordered<Request>,
) {
    let connection = io.connection().clone();
    let digest = Arc::new(Digest {
        proxy_digest: io.get_proxy_digest(),
        socket_digest: io.get_socket_digest(),
        ..Digest::default()
    });
    let Ok(mut http2) = handshake(Box::new(io), Some(options(&connection.limits))).await else { return };
    let requests = Arc::new(Requests::new());
    let most = RUNNING.saturating_mul(connection.limits.streams as usize);
    let (mut ended, mut malformed, mut lease) = (false, 0, None);
    // They live as long as the connection: making them anew for each request costs a dozen locks.
    let mut end = pin!(end(shutdown.clone(), &connection));
    let mut wants_window = pin!(connection.wants_window.notified());
    let mut idle = pin!(requests.idle(connection.timeouts.idle));
    loop {
        let accepted = tokio::select! {
            biased; // all before the last are soon pending, whatever a client does: buffers are full, and sockets make pauses
            // Before whatever uses up the turn: a busy client is told of the end as well.
            () = &mut end, if !ended => {
                http2.graceful_shutdown();
                ended = true;
                continue;
            }
            Some(()) = here.next(), if !here.is_empty() => continue,
            // This also drives everything else on the connection.
            accepted = HttpSession::from_h2_conn(&mut http2, digest.clone()) => accepted,
            () = &mut wants_window, if lease.is_none() => {
                let lent = live.windows.borrow();
                http2.set_target_window_size(lent.window());
                lease = Some(lent);
                continue;
            }
            () = &mut idle => return,
        };
        let mut stream = match accepted {
            Ok(Some(H2Accept::Session(stream))) => stream,
            Ok(Some(H2Accept::Rejected)) if malformed < MALFORMED => {
                malformed += 1;
                continue;
            }
            Ok(Some(H2Accept::Rejected)) => return report(&connection, "malformed requests"),
            Ok(None) | Err(_) => return,
        };
        if requests.running.load(Ordering::Relaxed) >= most || connection.given_up.are_too_many() {
            return report(&connection, "requests given up");
        }
        let plan = live.plan.load_full();
        let Some(running) = admit(live, &plan, &connection, &requests, &mut stream) else { continue };
        let download = matches!(stream.req_header().method, Method::GET | Method::HEAD);
        let ours = plan.upstreams.is_empty();
        let mut request = answer(live, plan, ServerSession::new_http2(stream), shutdown, running);
        if !is_done(&mut request).await {
            if ours && download { here.push(request) } else { drop(tokio::spawn(request)) }
        }
    }
}

/// Begins a request. `None`: there is no place for it, and its client was told that nobody looked at it.
fn admit<S: Service>(
    live: &Live<S>,
    plan: &Plan<S>,
    connection: &Connection,
    requests: &Arc<Requests>,
    stream: &mut HttpSession,
) -> Option<Running> {
    let further = || live.connections.admit_further(connection.own_network(&plan.trusted), &plan.limits);
    match requests.begin(further) {
        Ok(running) => Some(running),
        Err(full) => {
            stream.shutdown_with_reason(REFUSED_STREAM.into());
            live.reports.metrics.limit_hit(full.limit());
            live.connections.refused(full, connection.peer.ip(), std::time::Instant::now());
            None
        }
    }
}

/// What answers a request: our own registry alone, or whoever its way leads to.
fn answer<S: Service>(
    live: &Arc<Live<S>>,
    plan: Arc<Plan<S>>,
    mut stream: ServerSession,
    shutdown: &ShutdownWatch,
    running: Running,
) -> Request {
    if plan.upstreams.is_empty() {
        let live = live.clone();
        let answer = async move {
            proxy::alone(&live, &plan, &mut stream).await; // an answer that is not whole is reset with its stream
        };
        request(answer, running)
    } else {
        let (proxy, shutdown) = (live.proxy.load_full(), shutdown.clone());
        request(async move { watched(proxy.process_new_http(stream, &shutdown)).await }, running)
    }
}

/// A panic ends the request alone, wherever it runs.
fn request(request: impl Future<Output = ()> + Send + 'static, running: Running) -> Request {
    AssertUnwindSafe(request).catch_unwind().map(|_| drop(running)).boxed()
}

/// Takes a request as far as it goes without waiting, which most go to their end.
async fn is_done(request: &mut Request) -> bool {
    poll_fn(|cx| Poll::Ready(request.as_mut().poll(cx).is_ready())).await
}

/// Returns when the connection has to end: its listener does, or its client has to come anew.
async fn end(mut shutdown: ShutdownWatch, connection: &Connection) {
    tokio::select! {
        _ = shutdown.wait_for(|ending| *ending) => {} // whoever could have told us being gone is an end as well
        () = connection.outdated.notified() => {}
    }
}

/// Whether more is coming on a stream than the least window takes.
pub(super) fn is_long(stream: &mut ServerSession) -> bool {
    stream.is_http2() && has_long_body(stream)
}

/// The same, whatever it is coming on.
pub(super) fn has_long_body(request: &mut ServerSession) -> bool {
    let length = exchange::content_length(&request.req_header().headers);
    !request.is_body_empty() && length.is_none_or(|length| length > u64::from(LEAST_WINDOW))
}

/// Tells the operator who was sent away.
pub(super) fn report(connection: &Connection, what: &str) {
    tracing::info!(client = %connection.peer.ip(), "a client was sent away: too many {what}");
}

#[cfg(test)]
mod tests {
    use super::super::limits::Connections;
    use super::*;

    fn begin(requests: &Arc<Requests>) -> Running {
        requests.begin(|| panic!("a connection's own place is enough for a few")).unwrap()
    }

    #[test]
    fn there_is_always_a_window_for_the_next_and_all_of_them_fit() {
        let windows = Arc::new(Windows::default());
        let first = windows.borrow();
        assert_eq!(first.window(), CONNECTION_WINDOW);
        let leases: Vec<Lease> = (0..10_000).map(|_| windows.borrow()).collect();
        assert!(leases.iter().all(|lease| lease.window() >= LEAST_WINDOW));
        assert!(leases.iter().map(|lease| u64::from(lease.size)).sum::<u64>() <= u64::from(WINDOWS - first.size));
        drop((first, leases));
        assert_eq!(*windows.0.lock(), WINDOWS);
    }

    #[tokio::test]
    async fn a_request_goes_as_far_as_it_can_at_once_and_its_panic_ends_nothing_else() {
        let requests = Arc::new(Requests::new());
        assert!(is_done(&mut request(async {}, begin(&requests))).await);
        assert!(is_done(&mut request(async { panic!("as the test wants") }, begin(&requests))).await);
        let gate = Arc::new(Notify::new());
        let opened = gate.clone();
        let mut waiting = request(
            async move {
                opened.notified().await;
                panic!("as the test wants")
            },
            begin(&requests),
        );
        assert!(!is_done(&mut waiting).await);
        assert_eq!(requests.running.load(Ordering::Relaxed), 1);
        let elsewhere = tokio::spawn(waiting);
        gate.notify_one();
        elsewhere.await.unwrap();
        assert_eq!(requests.running.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_a_connections_place_does_not_pay_for_has_a_place_until_its_work_ends_however_it_does() {
        let (connections, requests) = (Connections::default(), Arc::new(Requests::new()));
        let limits = Limits { further_streams: 1, ..Limits::default() };
        let client = Some("192.0.2.1".parse().unwrap());
        let further = || connections.admit_further(client, &limits);
        let own: Vec<Running> = (0..OWN_STREAMS).map(|_| begin(&requests)).collect();
        let ways: [fn(Running); 3] = [
            |running| {
                assert_eq!(is_done(&mut request(async {}, running)).now_or_never(), Some(true));
            },
            |running| {
                let panicking = async { panic!("as the test wants") };
                assert_eq!(is_done(&mut request(panicking, running)).now_or_never(), Some(true));
            },
            |running| {
                let mut waiting = request(std::future::pending(), running);
                assert_eq!(is_done(&mut waiting).now_or_never(), Some(false));
            },
        ];
        for end in ways {
            let running = requests.begin(further).unwrap();
            assert_eq!(requests.begin(further).unwrap_err(), Full::Client);
            assert_eq!(requests.running.load(Ordering::Relaxed), OWN_STREAMS + 1, "what was refused does not run");
            end(running);
        }
        let running = requests.begin(further).unwrap();
        drop(own);
        let own: Vec<Running> = (0..OWN_STREAMS).map(|_| begin(&requests)).collect();
        assert_eq!(requests.begin(further).unwrap_err(), Full::Client);
        drop((running, own));
        assert_eq!(requests.running.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_no_request_has_run_for_so_long() {
        let requests = Arc::new(Requests::new());
        let (begun, minute) = (Instant::now(), Duration::from_secs(60));
        let idle = tokio::spawn({
            let requests = requests.clone();
            async move { requests.idle(minute).await }
        });
        for _ in 0..3 {
            tokio::time::sleep(minute / 2).await;
            let running = begin(&requests);
            tokio::time::sleep(3 * minute).await;
            drop(running);
        }
        idle.await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 3 * (30 + 180) + 60);
    }

    #[test]
    fn requests_that_finish_make_up_for_requests_given_up() {
        let given_up = GivenUp::default();
        given_up.count(false);
        for _ in 0..GIVEN_UP {
            given_up.count(true);
        }
        assert!(!given_up.are_too_many());
        given_up.count(true);
        assert!(given_up.are_too_many());
        given_up.count(false);
        assert!(!given_up.are_too_many());
    }
}
