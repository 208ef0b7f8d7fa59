//! How long may a client keep us waiting?
//!
//! Pingora has no limit for a whole request header, none for HTTP/2 bodies and none for idle connections. So the
//! stream itself watches, below TLS, where every byte counts: a connection is in one [`Phase`], and a read or write
//! that has to wait for the client looks at the clock.
//!
//! **Invariants**
//! - Only waiting for the *client* is timed. Nobody reads or writes the stream while our storage works, so that a
//!   commit may take as long as it takes; the next wait starts a new deadline.
//! - A client that is slow but steady is never cut in the middle of a request: each byte in either direction starts
//!   the deadline anew, and so does each byte that its kernel acknowledged of what our kernel still holds.
//!
//! Absent on purpose: one stalled HTTP/2 stream among busy ones, which only [`session`](super::session) can see.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Timeouts;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// TLS is being set up. The handshake's own deadline holds.
    Handshake,
    /// A request header is due, all of it by one deadline.
    Header,
    /// An HTTP/1.1 request is being answered: whichever side waits for the client, it waits no longer than `stall`.
    Answering,
    /// HTTP/2. Reading is always pending there, so it says nothing; a client that takes nothing is still cut.
    Streams,
    /// Between two HTTP/1.1 requests.
    Idle,
}

/// The phase, shared by the stream that watches and those who know what happens on it.
#[derive(Debug)]
pub(super) struct SharedPhase(AtomicU8);

impl SharedPhase {
    pub(super) fn new(phase: Phase) -> Self {
        Self(AtomicU8::new(phase as u8))
    }

    pub(super) fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    pub(super) fn load(&self) -> Phase {
        let all = [Phase::Handshake, Phase::Header, Phase::Answering, Phase::Streams, Phase::Idle];
        all[usize::from(self.0.load(Ordering::Acquire))]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Read,
    Write,
}

/// A client's stream that gives up with [`io::ErrorKind::TimedOut`] when the client exceeds its phase's limit.
pub(super) struct Watched {
    inner: Stream,
    shared: Arc<SharedPhase>,
    timeouts: Timeouts,
    /// The phase that `deadline` belongs to.
    phase: Phase,
    /// When the client's time is over. `None` while nobody waits for it.
    deadline: Option<Instant>,
    /// Set for some deadline, perhaps one that was met long ago: moving it for every request would cost more than
    /// letting it go off in vain now and then.
    timer: Pin<Box<Sleep>>,
    /// What the client's kernel had acknowledged when the timer last went off.
    acknowledged: u64,
}

impl Watched {
    pub(super) fn new(inner: Stream, shared: Arc<SharedPhase>, timeouts: Timeouts) -> Self {
        let timer = Box::pin(tokio::time::sleep(timeouts.header));
        let phase = shared.load();
        let mut watched = Self { inner, shared, timeouts, phase, deadline: None, timer, acknowledged: 0 };
        watched.enter(phase);
        watched
    }

    pub(super) fn inner(&self) -> &Stream {
        &self.inner
    }

    fn limit(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Handshake => self.timeouts.handshake,
            Phase::Header => self.timeouts.header,
            Phase::Answering | Phase::Streams => self.timeouts.stall,
            Phase::Idle => self.timeouts.idle,
        }
    }

    /// Header and idle time are counted from here; a stall only from the first time that we have to wait.
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.deadline = match phase {
            Phase::Header | Phase::Idle => Some(Instant::now() + self.limit(phase)),
            Phase::Handshake | Phase::Answering | Phase::Streams => None,
        };
    }

    fn follow(&mut self) -> Phase {
        let phase = self.shared.load();
        if phase != self.phase {
            self.enter(phase);
        }
        phase
    }

    /// Bytes moved.
    fn moved(&mut self, side: Side) {
        match (self.follow(), side) {
            (Phase::Answering | Phase::Streams, _) => self.deadline = None,
            (Phase::Idle, Side::Read) => {
                self.shared.set(Phase::Header);
                self.enter(Phase::Header);
            }
            (Phase::Handshake | Phase::Header | Phase::Idle, _) => {}
        }
    }

    /// Nothing moves: ready when the client's time is over, else we are woken when it will be.
    fn patience(&mut self, cx: &mut Context<'_>, side: Side) -> Poll<()> {
        let phase = self.follow();
        if phase == Phase::Handshake || (phase == Phase::Streams && side == Side::Read) {
            return Poll::Pending;
        }
        loop {
            let limit = self.limit(phase);
            let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + limit);
            if deadline < self.timer.deadline() {
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() < deadline {
                self.timer.as_mut().reset(deadline);
            } else if side == Side::Write && matches!(phase, Phase::Answering | Phase::Streams) && self.acknowledges() {
                self.deadline = None;
            } else {
                return Poll::Ready(());
            }
        }
    }

    /// Whether the client's kernel took anything since we last asked. Our kernel may hold megabytes for a slow client
    /// and becomes writable again only when a third of that is gone: until then only this shows that it is steady.
    /// The first answer is always yes, hence a stalled client is cut after one to two times the limit.
    fn acknowledges(&mut self) -> bool {
        let socket = self.inner.get_socket_digest();
        let now = socket.and_then(|socket| socket.tcp_info()).map_or(0, |info| info.tcpi_bytes_acked);
        now > std::mem::replace(&mut self.acknowledged, now)
    }

    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        side: Side,
        result: Poll<io::Result<T>>,
        moved: impl FnOnce(&T) -> bool,
    ) -> Poll<io::Result<T>> {
        match &result {
            Poll::Pending => self.patience(cx, side).map(|()| Err(io::ErrorKind::TimedOut.into())),
            Poll::Ready(Ok(value)) => {
                if moved(value) {
                    self.moved(side);
                }
                result
            }
            Poll::Ready(Err(_)) => result,
        }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let before = buf.filled().len();
        let result = Pin::new(&mut me.inner).poll_read(cx, buf);
        let any = buf.filled().len() > before;
        me.judge(cx, Side::Read, result, |()| any)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let result = Pin::new(&mut me.inner).poll_write(cx, bytes);
        me.judge(cx, Side::Write, result, |&written| written > 0)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let result = Pin::new(&mut me.inner).poll_write_vectored(cx, bytes);
        me.judge(cx, Side::Write, result, |&written| written > 0)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let result = Pin::new(&mut me.inner).poll_flush(cx);
        me.judge(cx, Side::Write, result, |()| false)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let result = Pin::new(&mut me.inner).poll_shutdown(cx);
        me.judge(cx, Side::Write, result, |()| false)
    }
}
