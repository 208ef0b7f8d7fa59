//! What does Pingora see of a client's connection?
//!
//! [`FrontIo`] is the client's stream, in the clear or inside TLS, as a Pingora `IO`. Beyond carrying bytes it
//! - gathers small writes until the flush, or until nothing more is at hand (Pingora does not flush the header of an answer
//!   whose length is known), so that an answer's header and body leave as one TLS record and one packet: the client wakes
//!   up once;
//! - on HTTP/2, encrypts frames from where they are, and lets those of many answers leave in one packet;
//! - reads each request header whole and [by the letter](super::strict) before Pingora sees any of it: Pingora would let
//!   it grow to a mebibyte, and take for one what others read differently;
//! - speaks for us where Pingora would answer an unreadable request by itself, empty and under its own name;
//! - closes politely: what the client still sends is read and thrown away for a moment, because closing a socket with
//!   unread bytes resets it, and a reset can overtake the answer.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::Limits;
use super::ahead::Ahead;
use super::connection::Connection;
use super::cork::Corked;
use super::frames::Frames;
use super::http2;
use super::refusal::Refusal;
use super::strict::{Chunks, Complete, Head};
use super::watch::{Phase, Watched};
use crate::telemetry;
use crate::tls::Asking;

/// Writes up to this size wait for their flush: as much as one TLS record holds.
const GATHER: usize = 16 << 10;
/// How often somebody asks for more of the client's before what was written meanwhile leaves without its flush: a peer's
/// answer that is at hand is passed on within two turns.
const TURNS: u8 = 3;
/// What rustls may hold for a client. Its default of 64 KiB costs one long download 1.7 times the CPU.
const TLS_BUFFER: usize = 48 << 10;
/// How much of HTTP/2 leaves in one write: three full TLS records.
const SEALED: usize = 48 << 10;
/// What rustls may hold of that: with what encryption adds.
const SEALED_BUFFER: usize = 64 << 10;
/// Request headers are taken into a buffer of this size, enough for most of them whole.
const HEADER_READ: usize = 4 << 10;
/// How long a client may go on sending after our last word, and how much.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 8 << 20;

/// A client's stream as a Pingora `IO`.
pub(super) struct FrontIo {
    stream: Inner,
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
    /// Written by Pingora, not yet by us.
    gathered: BytesMut,
    /// How often something was read in vain since.
    turns: u8,
    /// Read by us, not yet by Pingora.
    ahead: BytesMut,
    /// How much of that is the request's header. Pingora gets it alone, so that it never holds another request's bytes.
    header: usize,
    /// Where the request's body ends, if it comes in chunks.
    chunks: Option<Chunks>,
    /// On HTTP/2.
    frames: Option<Frames>,
    /// On HTTP/2, how much is encrypted and has not left.
    sealed: usize,
    /// On HTTP/2, that another flush is certain to come.
    more: bool,
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
    Tls(Box<TlsStream<Corked<Ahead<Watched>>>>),
}

impl FrontIo {
    pub(super) fn plain(stream: Watched, connection: Arc<Connection>) -> io::Result<Self> {
        Self::new(Inner::Plain(stream), connection)
    }

    /// A client that speaks no TLS although the listener does, with what it has said so far.
    pub(super) fn plain_on_tls(stream: Watched, ahead: BytesMut, connection: Arc<Connection>) -> io::Result<Self> {
        connection.plain.store(true, Ordering::Relaxed);
        Ok(Self { ahead, ..Self::plain(stream, connection)? })
    }

    /// `asking`: what the handshake demanded of the client.
    pub(super) fn tls(
        mut stream: TlsStream<Corked<Ahead<Watched>>>,
        asking: Option<Asking>,
        connection: Arc<Connection>,
    ) -> io::Result<Self> {
        let (_, tls) = stream.get_mut();
        let http2 = tls.alpn_protocol() == Some(b"h2");
        tls.set_buffer_limit(Some(if http2 { SEALED_BUFFER } else { TLS_BUFFER }));
        if let Some(name) = tls.server_name() {
            connection.asked_for.get_or_init(|| name.to_owned());
        }
        if let Some(asking) = asking {
            connection.proof.get_or_init(|| asking.done(tls.peer_certificates()));
        }
        connection.http2.store(http2, Ordering::Relaxed);
        Self::new(Inner::Tls(Box::new(stream)), connection)
    }

    fn new(stream: Inner, connection: Arc<Connection>) -> io::Result<Self> {
        connection.phase.set(Phase::Header);
        let frames = connection.is_http2().then(Frames::new);
        // The digest wants the answer of a CONNECT proxy, which nobody here is; only `user_data` is ours.
        let response = ResponseHeader::build(200, Some(0)).map_err(io::Error::other)?;
        let digest = Arc::new(ProxyDigest::new(Box::new(response), Some(Box::new(connection.clone()))));
        Ok(Self {
            stream,
            connection,
            digest,
            gathered: BytesMut::new(),
            turns: 0,
            ahead: BytesMut::new(),
            header: 0,
            chunks: None,
            frames,
            sealed: 0,
            more: false,
            parting: None,
        })
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Waits for the first bytes of the next HTTP/1.1 request with nothing but this stream alive. False: the client
    /// has closed.
    pub(super) async fn ready(&mut self) -> io::Result<bool> {
        if self.ahead.is_empty() && self.read_ahead().await? == 0 {
            return Ok(false);
        }
        self.connection.phase.set(Phase::Header); // where the bytes came together with others, nobody else says so
        Ok(true)
    }

    /// Reads the rest of the header that [`ready`](Self::ready) saw the beginning of. After an error there is nothing
    /// to read any more, and perhaps a refusal to tell.
    pub(super) async fn head(&mut self) -> io::Result<()> {
        let Limits { header, fields, .. } = self.connection.limits;
        let mut head = Head::new(fields);
        loop {
            match head.read(&self.ahead) {
                Ok(Some(Complete { length, chunked })) => {
                    self.header = length;
                    self.chunks = chunked.then(Chunks::default);
                    return Ok(());
                }
                Ok(None) if self.ahead.len() < header => {}
                Ok(None) => return Err(self.turn_away(Refusal::HeaderTooLarge { limit: header })),
                Err(refusal) => return Err(self.turn_away(refusal)),
            }
            match self.read_ahead().await {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(self.turn_away(Refusal::HeaderTooSlow));
                }
                read => read?,
            };
        }
    }

    async fn read_ahead(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            // On the stack only while it is polled: an idle connection must not carry a buffer.
            let mut space = [MaybeUninit::uninit(); HEADER_READ];
            let mut buf = ReadBuf::uninit(&mut space);
            ready!(self.stream.poll_read(cx, &mut buf))?;
            self.ahead.extend_from_slice(buf.filled());
            Poll::Ready(Ok(buf.filled().len()))
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

    fn turn_away(&self, refusal: Refusal) -> io::Error {
        self.refuse(refusal);
        io::ErrorKind::InvalidData.into()
    }

    /// On HTTP/1.1, whether Pingora has not yet told anybody of a request: what it writes now is its own invention.
    fn is_before_request(&self) -> bool {
        !self.connection.is_http2() && !self.connection.phase.load().is_request()
    }

    /// Hands what was gathered to the stream. After a failure nobody knows how much of it has left (TLS keeps what it could
    /// not send), so that it is never said again.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(self.stream.poll_write(cx, &self.gathered));
            let written = written
                .and_then(|written| if written > 0 { Ok(written) } else { Err(io::ErrorKind::WriteZero.into()) });
            match written {
                Ok(written) => self.gathered.advance(written),
                Err(error) => {
                    self.gathered = BytesMut::new();
                    return Poll::Ready(Err(error));
                }
            }
        }
        self.gathered = BytesMut::new(); // an idle connection holds no buffer
        Poll::Ready(Ok(()))
    }

    /// Whoever reads in the middle of an answer has nothing more to write for now. A few turns later that is certain.
    fn poll_gathered(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.turns < TURNS {
            if self.gathered.is_empty() {
                return Ok(());
            }
            self.turns += 1;
            if self.turns < TURNS {
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
        let flushed = match self.poll_drain(cx)? {
            Poll::Ready(()) => self.stream.poll_flush(cx)?,
            Poll::Pending => Poll::Pending, // we are woken
        };
        if flushed.is_ready() {
            self.turns = 0;
        }
        Ok(())
    }

    /// Says the refusal, if there is one, before anything else is said.
    fn begin_parting(&mut self) -> Parting {
        if let Some((refusal, request_id)) = self.connection.refused() {
            let (dress, secure) = (&self.connection.dress, matches!(self.stream, Inner::Tls(_)));
            // Whether it was for the API is not known; what says that this is a registry harms nobody.
            let answer = refusal.to_http1(request_id.as_str(), |headers| dress.put_on(headers, secure, true));
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
            Self::Tls(stream) => stream.get_ref().0.get_ref().get_ref(),
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

impl FrontIo {
    /// Hands over what was read ahead.
    fn give(&mut self, buf: &mut ReadBuf<'_>, length: usize) {
        let taken = self.ahead.split_to(length);
        buf.put_slice(&taken);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new(); // an idle connection holds no buffer
        }
    }

    /// Encrypts frames of HTTP/2 into what TLS holds for the client, from where they are. They leave with the flush, or when
    /// the next ones would make it too much.
    fn poll_seal(&mut self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length: usize = bytes.iter().map(|bytes| bytes.len()).sum();
        if self.sealed > 0 && self.sealed + length > SEALED {
            ready!(self.stream.poll_flush(cx))?;
            self.sealed = 0;
        }
        let written = loop {
            let written = match &mut self.stream {
                Inner::Tls(stream) => stream.get_mut().1.writer().write_vectored(bytes)?,
                Inner::Plain(stream) => ready!(Pin::new(stream).poll_write_vectored(cx, bytes))?,
            };
            if written > 0 || length == 0 {
                break written;
            }
            ready!(self.stream.poll_flush(cx))?;
        };
        self.sealed += written;
        // The codec flushes after each frame with data of its own, and once more when nothing follows the last one (h2
        // 0.4.20, `poll_complete`).
        self.more = bytes.len() > 1;
        if let Some(frames) = &mut self.frames {
            frames.sent(written);
        }
        Poll::Ready(Ok(written))
    }

    /// Ready when the client leaves. Whatever else it sends is its next request's, and so much of that is kept as a header
    /// is read into; Pingora would take it for a mistake.
    fn poll_departure(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < HEADER_READ {
            let mut space = [MaybeUninit::uninit(); HEADER_READ];
            let mut buf = ReadBuf::uninit(&mut space);
            ready!(self.stream.poll_read(cx, &mut buf))?;
            match buf.filled() {
                [] if self.ahead.is_empty() => return Poll::Ready(Ok(())),
                [] => break, // it has said all that it wants, and waits for the answers
                more => self.ahead.extend_from_slice(more),
            }
        }
        Poll::Pending
    }

    /// Bytes of the body, from where they are.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.ahead.is_empty() {
            ready!(self.stream.poll_read(cx, buf))?;
        } else {
            self.give(buf, self.ahead.len().min(buf.remaining()));
        }
        let Some(chunks) = &mut self.chunks else { return Poll::Ready(Ok(())) };
        let came = &buf.filled()[before..];
        let ours = chunks.read(came).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        if ours == 0 && !came.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into())); // Pingora sees no end where we see one
        }
        if ours < came.len() {
            let others = BytesMut::from(&came[ours..]);
            let ahead = std::mem::replace(&mut self.ahead, others);
            self.ahead.unsplit(ahead);
            buf.set_filled(before + ours);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for FrontIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if let Some(frames) = &mut me.frames {
            let before = buf.filled().len();
            ready!(me.stream.poll_read(cx, buf))?;
            let read = frames.read(&buf.filled()[before..]);
            return Poll::Ready(read.map_err(|_| {
                http2::report(&me.connection, "frames that carry nothing");
                io::ErrorKind::InvalidData.into()
            }));
        }
        if me.header > 0 {
            let length = me.header.min(buf.remaining());
            me.header -= length;
            me.give(buf, length);
            return Poll::Ready(Ok(()));
        }
        if me.is_before_request() {
            return Poll::Ready(Err(me.turn_away(Refusal::Malformed))); // Pingora sees no end where we see one
        }
        me.poll_gathered(cx)?;
        if me.connection.phase.load() == Phase::Awaiting {
            return me.poll_departure(cx);
        }
        me.poll_body(cx, buf)
    }
}

impl AsyncWrite for FrontIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        if me.frames.is_some() {
            return me.poll_seal(cx, &[IoSlice::new(bytes)]);
        }
        if me.is_before_request() {
            me.refuse(Refusal::Malformed);
            return Poll::Ready(Ok(bytes.len()));
        }
        me.turns = 0;
        if me.gathered.len() + bytes.len() <= GATHER {
            me.gathered.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(me.poll_drain(cx))?;
        me.stream.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.frames.is_some() {
            return self.poll_seal(cx, bytes);
        }
        let first = bytes.iter().find(|bytes| !bytes.is_empty());
        self.poll_write(cx, first.map_or(&[], |bytes| bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.frames.is_some()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.more) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx))?;
        ready!(self.stream.poll_flush(cx))?;
        self.sealed = 0;
        Poll::Ready(Ok(()))
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
