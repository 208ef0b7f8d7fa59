//! What does Pingora see of a client's connection?
//!
//! [`FrontIo`] is the client's stream, in the clear or inside TLS, as a Pingora `IO`. Beyond carrying bytes it
//! - gathers small writes until the flush, so that an answer's header and body leave as one TLS record and one packet:
//!   the client wakes up once;
//! - knows the limit of a request header, which Pingora would let grow to a mebibyte;
//! - speaks for us where Pingora would answer an unreadable request by itself, empty and under its own name;
//! - closes politely: what the client still sends is read and thrown away for a moment, because closing a socket with
//!   unread bytes resets it, and a reset can overtake the answer.

use std::fmt;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::dress::Dress;
use super::refusal::{HEADER_LIMIT, Refusal};
use super::watch::{Phase, SharedPhase, Watched};
use super::{Listener, Timeouts};
use crate::telemetry;

/// Writes up to this size wait for their flush: as much as one TLS record holds.
const GATHER: usize = 16 << 10;
/// What rustls may hold for a client. Its default of 64 KiB costs one long download 1.7 times the CPU.
const TLS_BUFFER: usize = 48 << 10;
/// The first bytes of a request are taken into a buffer of this size, enough for most headers whole.
const FIRST_READ: usize = 4 << 10;
/// How long a client may go on sending after our last word, and how much.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 8 << 20;

/// What is known about a connection. Every request on it finds this in Pingora's `proxy_digest.user_data`, the one
/// place that a stream not of Pingora's own can fill for HTTP/1.1 and HTTP/2 alike.
#[derive(Debug)]
pub(super) struct Connection {
    /// Where it came in.
    pub(super) listener: Arc<Listener>,
    /// How long its client may keep us waiting.
    pub(super) timeouts: Timeouts,
    /// The client.
    pub(super) peer: SocketAddr,
    /// Our end.
    pub(super) local: Option<SocketAddr>,
    /// Where it stands.
    pub(super) phase: Arc<SharedPhase>,
    /// What every answer on it carries that is not an answer to a request.
    pub(super) dress: Arc<Dress>,
    /// Whether it is to end as soon as nothing runs on it.
    pub(super) closing: ShutdownWatch,
    /// What the client is told instead of an answer to a request, and under which request id.
    refused: Mutex<Option<(Refusal, String)>>,
    /// Whether HTTP/2 was agreed on.
    http2: AtomicBool,
}

impl Connection {
    pub(super) fn new(
        listener: Arc<Listener>,
        timeouts: Timeouts,
        peer: SocketAddr,
        local: Option<SocketAddr>,
        dress: Arc<Dress>,
        closing: ShutdownWatch,
    ) -> Self {
        let phase = Arc::new(SharedPhase::new(if listener.tls { Phase::Handshake } else { Phase::Header }));
        let refused = Mutex::new(None);
        Self { listener, timeouts, peer, local, phase, dress, closing, refused, http2: AtomicBool::new(false) }
    }

    pub(super) fn refused(&self) -> Option<(Refusal, String)> {
        self.refused.lock().clone()
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }
}

/// A client's stream as a Pingora `IO`.
pub(super) struct FrontIo {
    stream: Inner,
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
    /// Written by Pingora, not yet by us.
    gathered: BytesMut,
    /// Read by [`ready`](Self::ready), not yet by Pingora.
    ahead: BytesMut,
    /// How much Pingora has read of a header that is not complete yet.
    header: usize,
    parting: Option<Parting>,
}

/// The end of a connection: our last bytes, then the end of our side, then patience for the client's.
struct Parting {
    /// When patience ends, with all of it.
    timer: Pin<Box<Sleep>>,
    /// Whether the end of our side has been sent.
    closed: bool,
    /// How much more of what the client still sends is thrown away.
    left: usize,
}

enum Inner {
    Plain(Watched),
    Tls(Box<TlsStream<Watched>>),
}

impl FrontIo {
    pub(super) fn plain(stream: Watched, connection: Arc<Connection>) -> io::Result<Self> {
        Self::new(Inner::Plain(stream), connection)
    }

    pub(super) fn tls(mut stream: TlsStream<Watched>, connection: Arc<Connection>) -> io::Result<Self> {
        let (_, tls) = stream.get_mut();
        tls.set_buffer_limit(Some(TLS_BUFFER));
        connection.http2.store(tls.alpn_protocol() == Some(b"h2"), Ordering::Relaxed);
        Self::new(Inner::Tls(Box::new(stream)), connection)
    }

    fn new(stream: Inner, connection: Arc<Connection>) -> io::Result<Self> {
        connection.phase.set(Phase::Header);
        // The digest wants the answer of a CONNECT proxy, which nobody here is; only `user_data` is ours.
        let response = ResponseHeader::build(200, Some(0)).map_err(io::Error::other)?;
        let digest = Arc::new(ProxyDigest::new(Box::new(response), Some(Box::new(connection.clone()))));
        Ok(Self {
            stream,
            connection,
            digest,
            gathered: BytesMut::new(),
            ahead: BytesMut::new(),
            header: 0,
            parting: None,
        })
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Waits for the first bytes of the next HTTP/1.1 request with nothing but this stream alive. False: the client
    /// has closed.
    pub(super) async fn ready(&mut self) -> io::Result<bool> {
        self.header = 0;
        std::future::poll_fn(|cx| {
            // On the stack only while it is polled: an idle connection must not carry a buffer.
            let mut space = [MaybeUninit::uninit(); FIRST_READ];
            let mut buf = ReadBuf::uninit(&mut space);
            ready!(self.stream.poll_read(cx, &mut buf))?;
            self.ahead.extend_from_slice(buf.filled());
            Poll::Ready(Ok(!buf.filled().is_empty()))
        })
        .await
    }

    /// Says goodbye to a client that is between two requests. It never fails: whoever is gone needs no goodbye.
    pub(super) async fn close(&mut self) {
        let parting = self.begin_parting();
        self.parting = Some(Parting { left: 0, ..parting });
        let _ = AsyncWriteExt::shutdown(self).await; // whoever is gone needs no goodbye
    }

    /// Says goodbye in the middle of something: the client gets a moment to stop talking and to hear us out.
    pub(super) async fn part(&mut self) {
        let _ = AsyncWriteExt::shutdown(self).await; // whoever is gone needs no goodbye
    }

    /// From now on all that this connection will ever say is this.
    pub(super) fn refuse(&self, refusal: Refusal) {
        self.connection.refused.lock().get_or_insert_with(|| (refusal, telemetry::request_id(None)));
    }

    /// On HTTP/1.1, whether Pingora has not yet told anybody of a request: what it writes now is its own invention.
    fn is_before_request(&self) -> bool {
        !self.connection.is_http2() && self.connection.phase.load() != Phase::Answering
    }

    /// Hands what was gathered to the stream.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(self.stream.poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
        }
        self.gathered = BytesMut::new(); // an idle connection holds no buffer
        Poll::Ready(Ok(()))
    }

    /// Says the refusal, if there is one, before anything else is said.
    fn begin_parting(&mut self) -> Parting {
        if let Some((refusal, request_id)) = self.connection.refused() {
            let (dress, secure) = (&self.connection.dress, matches!(self.stream, Inner::Tls(_)));
            // Whether it was for the API is not known; what says that this is a registry harms nobody.
            let answer = refusal.to_http1(&request_id, |headers| dress.put_on(headers, secure, true));
            self.gathered = BytesMut::from(&answer[..]);
        }
        Parting { timer: Box::pin(tokio::time::sleep(LINGER)), closed: false, left: LINGER_BYTES }
    }

    fn poll_parting(&mut self, cx: &mut Context<'_>, parting: &mut Parting) -> Poll<io::Result<()>> {
        if parting.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if !parting.closed {
            ready!(self.poll_drain(cx))?;
            ready!(self.stream.poll_shutdown(cx))?;
            parting.closed = true;
        }
        while parting.left > 0 {
            let mut space = [MaybeUninit::uninit(); GATHER];
            let mut buf = ReadBuf::uninit(&mut space);
            ready!(self.stream.poll_read(cx, &mut buf))?;
            match buf.filled().len() {
                0 => break,
                read => parting.left = parting.left.saturating_sub(read),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Inner {
    fn watched(&self) -> &Watched {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for FrontIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        let before = buf.filled().len();
        if me.ahead.is_empty() {
            // Pingora reads on only while the header is incomplete: what it has read is all header.
            if me.header >= HEADER_LIMIT && me.is_before_request() {
                me.refuse(Refusal::HeaderTooLarge);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if let Err(error) = ready!(me.stream.poll_read(cx, buf)) {
                if error.kind() == io::ErrorKind::TimedOut && me.header > 0 && me.is_before_request() {
                    me.refuse(Refusal::HeaderTooSlow);
                }
                return Poll::Ready(Err(error));
            }
        } else {
            let taken = me.ahead.split_to(me.ahead.len().min(buf.remaining()));
            buf.put_slice(&taken);
            if me.ahead.is_empty() {
                me.ahead = BytesMut::new();
            }
        }
        me.header = me.header.saturating_add(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FrontIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        if me.is_before_request() {
            me.refuse(Refusal::Malformed);
            return Poll::Ready(Ok(bytes.len()));
        }
        if me.gathered.len() + bytes.len() <= GATHER {
            me.gathered.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(me.poll_drain(cx))?;
        me.stream.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        self.stream.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut parting = self.parting.take().unwrap_or_else(|| self.begin_parting());
        let parted = self.poll_parting(cx, &mut parting);
        self.parting = Some(parting);
        parted
    }
}

#[async_trait]
impl Shutdown for FrontIo {
    async fn shutdown(&mut self) {
        self.part().await;
    }
}

impl fmt::Debug for FrontIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrontIo").field("peer", &self.connection.peer).finish_non_exhaustive()
    }
}

impl UniqueID for FrontIo {
    fn id(&self) -> UniqueIDType {
        self.stream.watched().inner().id()
    }
}

impl Ssl for FrontIo {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.connection.is_http2() { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for FrontIo {
    /// Nobody asks; Pingora would copy it for every request.
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for FrontIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for FrontIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.watched().inner().get_socket_digest()
    }
}

impl Peek for FrontIo {}
