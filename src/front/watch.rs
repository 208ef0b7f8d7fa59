//! How long may a client keep us waiting?
//!
//! Pingora has no limit for a whole request header, none for HTTP/2 bodies and none for idle connections. So the
//! stream itself watches, below TLS, where every byte counts: a connection is in one [`Phase`], and a read or write
//! that has to wait for the client looks at the clock.
//!
//! **Invariants**
//! - Only waiting for the *client* is timed. Nobody reads or writes the stream while our storage works, so that a
//!   commit may take as long as it takes; the next wait starts a new deadline. While somebody else's registry works the
//!   stream is read, to see the client leave, and that is not timed.
//! - A client that is slow but steady is never cut in the middle of a request: each byte in either direction starts
//!   the deadline anew. What its kernel acknowledged of what our kernel still holds counts as well.
//! - One that sends or takes a byte now and then, only to stay, is cut: in the time that we spent waiting for it, it must
//!   move as much as its [`Steadiness`] asks for.
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
    /// The client of an HTTP/1.1 request waits for somebody else's permission to send its body, and so do we.
    Expecting,
    /// An HTTP/1.1 request is whole and with somebody else's registry: its client owes us nothing but to take the answer.
    /// Reading is pending all the while, to see it leave.
    Awaiting,
    /// HTTP/2. Reading is always pending there, so it says nothing; a client that takes nothing is still cut.
    Streams,
    /// Between two HTTP/1.1 requests.
    Idle,
}

impl Phase {
    /// Whether requests are being answered.
    pub(super) fn is_request(self) -> bool {
        matches!(self, Self::Answering | Self::Expecting | Self::Awaiting | Self::Streams)
    }
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
        let all = [
            Phase::Handshake,
            Phase::Header,
            Phase::Answering,
            Phase::Expecting,
            Phase::Awaiting,
            Phase::Streams,
            Phase::Idle,
        ];
        all[usize::from(self.0.load(Ordering::Acquire))]
    }
}

/// What is asked of a client in the middle of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steadiness {
    /// The longest silence, and the time over which the rate is averaged.
    pub(super) stall: Duration,
    /// Bytes a second.
    minimum_rate: u64,
}

impl Steadiness {
    /// A write that is awaited as a whole is no smaller than this, whatever the rate: small ones cost too much.
    const SMALLEST_WRITE: usize = 4 << 10;

    pub(super) fn of(timeouts: &Timeouts) -> Self {
        Self { stall: timeouts.stall, minimum_rate: timeouts.minimum_rate }
    }

    /// How many bytes must have moved in a time; at least one.
    pub(super) fn least(self, time: Duration) -> u64 {
        let least = u128::from(self.minimum_rate) * time.as_millis() / 1000;
        u64::try_from(least).unwrap_or(u64::MAX).max(1)
    }

    /// At most `piece`, and no more than a steady client takes before it would be silent for too long: for writes of
    /// which one sees only the end.
    pub(super) fn timely(self, piece: usize) -> usize {
        let least = usize::try_from(self.least(self.stall)).unwrap_or(usize::MAX);
        least.clamp(Self::SMALLEST_WRITE, piece.max(Self::SMALLEST_WRITE))
    }
}

/// What a client has moved in the time that we waited for it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waited: Duration,
    moved: u64,
}

impl Pace {
    pub(super) fn add(&mut self, bytes: usize, waited: Duration) {
        self.moved = self.moved.saturating_add(bytes as u64);
        self.waited = self.waited.saturating_add(waited);
    }

    /// Whether it is time to judge.
    pub(super) fn is_over(&self, asked: Steadiness) -> bool {
        self.waited >= asked.stall
    }

    /// Judges, and begins to count anew.
    pub(super) fn begin_anew(&mut self, asked: Steadiness) -> bool {
        let Self { waited, moved } = std::mem::take(self);
        moved >= asked.least(waited)
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
    /// Since when it is waited for in the middle of a request.
    waiting: Option<Instant>,
    pace: Pace,
    /// Set for some deadline, perhaps one that was met long ago: moving it for every request would cost more than
    /// letting it go off in vain now and then.
    timer: Pin<Box<Sleep>>,
    /// What the client's kernel had acknowledged when counting began; unknown while no write had to wait.
    acknowledged: Option<u64>,
    /// The client was too slow in a write of which something has left. Whoever wrote hears it from the next call: an error
    /// would say that nothing did, and it would be written again.
    late: bool,
}

impl Watched {
    pub(super) fn new(inner: Stream, shared: Arc<SharedPhase>, timeouts: Timeouts) -> Self {
        let timer = Box::pin(tokio::time::sleep(timeouts.header));
        let phase = shared.load();
        let (deadline, waiting, pace, acknowledged, late) = (None, None, Pace::default(), None, false);
        let mut watched = Self { inner, shared, timeouts, phase, deadline, waiting, pace, timer, acknowledged, late };
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
            Phase::Answering | Phase::Expecting | Phase::Awaiting | Phase::Streams => self.timeouts.stall,
            Phase::Idle => self.timeouts.idle,
        }
    }

    /// Header and idle time are counted from here; a stall only from the first time that we have to wait.
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        (self.waiting, self.pace, self.acknowledged, self.late) = (None, Pace::default(), None, false);
        self.deadline = match phase {
            Phase::Header | Phase::Idle => Some(Instant::now() + self.limit(phase)),
            Phase::Handshake | Phase::Answering | Phase::Expecting | Phase::Awaiting | Phase::Streams => None,
        };
    }

    fn follow(&mut self) -> Phase {
        let phase = self.shared.load();
        if phase != self.phase {
            self.enter(phase);
        }
        phase
    }

    /// Bytes moved. False: over the time that we waited for them, too few.
    fn moved(&mut self, side: Side, bytes: usize) -> bool {
        match (self.follow(), side) {
            (Phase::Answering, _) => self.keeps_pace(bytes),
            (Phase::Expecting | Phase::Awaiting | Phase::Streams, Side::Write) => self.keeps_pace(bytes),
            (Phase::Idle, Side::Read) => {
                self.shared.set(Phase::Header);
                self.enter(Phase::Header);
                true
            }
            (Phase::Handshake | Phase::Header | Phase::Idle, _) => true,
            (Phase::Expecting | Phase::Awaiting | Phase::Streams, Side::Read) => true,
        }
    }

    fn keeps_pace(&mut self, bytes: usize) -> bool {
        self.deadline = None;
        let waited = self.waiting.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.pace.add(bytes, waited);
        let asked = Steadiness::of(&self.timeouts);
        if !self.pace.is_over(asked) {
            return true;
        }
        self.pace.moved = self.pace.moved.max(self.acknowledged());
        self.acknowledged = None;
        self.pace.begin_anew(asked)
    }

    /// Nothing moves: ready when the client's time is over, else we are woken when it will be.
    fn patience(&mut self, cx: &mut Context<'_>, side: Side) -> Poll<()> {
        let phase = self.follow();
        let only_writes = matches!(phase, Phase::Expecting | Phase::Awaiting | Phase::Streams);
        if phase == Phase::Handshake || (only_writes && side == Side::Read) {
            return Poll::Pending;
        }
        loop {
            let deadline = self.deadline.unwrap_or_else(|| self.wait(side));
            if deadline < self.timer.deadline() {
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() < deadline {
                self.timer.as_mut().reset(deadline);
            } else if side == Side::Write && phase.is_request() && self.takes() {
                self.deadline = None;
            } else {
                // What is left to be said, that it took too long, is not measured by that.
                (self.waiting, self.pace) = (None, Pace::default());
                return Poll::Ready(());
            }
        }
    }

    /// The client's time begins.
    fn wait(&mut self, side: Side) -> Instant {
        let now = Instant::now();
        let deadline = now + self.limit(self.phase);
        self.deadline = Some(deadline);
        self.waiting.get_or_insert(now);
        if side == Side::Write && self.acknowledged.is_none() {
            self.acknowledged = Some(self.all_acknowledged());
        }
        deadline
    }

    /// Whether the client's kernel took enough while our own took nothing. That may hold megabytes for a slow client and
    /// becomes writable again only when a third of them is gone: until then only this shows that it is steady.
    fn takes(&mut self) -> bool {
        let waited = self.waiting.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.pace.add(0, waited);
        self.pace.moved = self.acknowledged();
        self.acknowledged = None;
        self.pace.begin_anew(Steadiness::of(&self.timeouts))
    }

    /// What the client's kernel acknowledged since counting began.
    fn acknowledged(&self) -> u64 {
        self.acknowledged.map_or(0, |before| self.all_acknowledged().saturating_sub(before))
    }

    fn all_acknowledged(&self) -> u64 {
        let socket = self.inner.get_socket_digest();
        socket.and_then(|socket| socket.tcp_info()).map_or(0, |info| info.tcpi_bytes_acked)
    }

    /// Says once what the last write could not say.
    fn in_time(&mut self) -> io::Result<()> {
        self.follow();
        if std::mem::take(&mut self.late) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        side: Side,
        result: Poll<io::Result<T>>,
        moved: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match &result {
            Poll::Pending => self.patience(cx, side).map(|()| Err(io::ErrorKind::TimedOut.into())),
            Poll::Ready(Ok(value)) => {
                let bytes = moved(value);
                let steady = bytes == 0 || self.moved(side, bytes);
                self.late = !steady && side == Side::Write;
                if steady || self.late { result } else { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) }
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
        me.in_time()?;
        let before = buf.filled().len();
        let result = Pin::new(&mut me.inner).poll_read(cx, buf);
        let came = buf.filled().len() - before;
        me.judge(cx, Side::Read, result, |()| came)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        me.in_time()?;
        let result = Pin::new(&mut me.inner).poll_write(cx, bytes);
        me.judge(cx, Side::Write, result, |&written| written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        me.in_time()?;
        let result = Pin::new(&mut me.inner).poll_write_vectored(cx, bytes);
        me.judge(cx, Side::Write, result, |&written| written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        me.in_time()?;
        let result = Pin::new(&mut me.inner).poll_flush(cx);
        me.judge(cx, Side::Write, result, |()| 0)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let result = Pin::new(&mut me.inner).poll_shutdown(cx);
        me.judge(cx, Side::Write, result, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use pingora::protocols::{
        GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
        UniqueIDType,
    };
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// A client that takes a byte after each pause.
    #[derive(Debug)]
    struct Dripping {
        pause: Pin<Box<Sleep>>,
        taken: Arc<AtomicUsize>,
    }

    const PAUSE: Duration = Duration::from_millis(250);

    impl AsyncRead for Dripping {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Dripping {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            ready!(self.pause.as_mut().poll(cx));
            self.pause.as_mut().reset(Instant::now() + PAUSE);
            self.taken.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(Ok(1))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[async_trait]
    impl Shutdown for Dripping {
        async fn shutdown(&mut self) {}
    }
    impl UniqueID for Dripping {
        fn id(&self) -> UniqueIDType {
            0
        }
    }
    impl Ssl for Dripping {}
    impl GetTimingDigest for Dripping {
        fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
            Vec::new()
        }
    }
    impl GetProxyDigest for Dripping {
        fn get_proxy_digest(&self) -> Option<Arc<pingora::protocols::raw_connect::ProxyDigest>> {
            None
        }
    }
    impl GetSocketDigest for Dripping {
        fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
            None
        }
    }
    impl Peek for Dripping {}

    #[tokio::test]
    async fn who_is_cut_in_a_write_was_told_nothing_that_would_be_said_again() {
        let timeouts = Timeouts { stall: PAUSE * 3 / 2, minimum_rate: 1000, ..Timeouts::default() };
        let taken = Arc::new(AtomicUsize::new(0));
        let client = Dripping { pause: Box::pin(tokio::time::sleep(PAUSE)), taken: taken.clone() };
        let mut watched = Watched::new(Box::new(client), Arc::new(SharedPhase::new(Phase::Answering)), timeouts);
        let (mut told, mut rest) = (0, &b"0123456789"[..]);
        let error = loop {
            match watched.write(rest).await {
                Ok(written) => (told, rest) = (told + written, &rest[written..]),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(told > 0 && told == taken.load(Ordering::Relaxed), "{told} {taken:?}");
    }

    const ASKED: Steadiness = Steadiness { stall: Duration::from_secs(60), minimum_rate: 512 };

    #[test]
    fn a_client_is_judged_by_the_time_that_it_was_waited_for() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::default();
        for _ in 0..59 {
            pace.add(512, second);
            assert!(!pace.is_over(ASKED));
        }
        pace.add(512, second);
        assert!(pace.is_over(ASKED) && pace.begin_anew(ASKED));
        pace.add(1, 59 * second);
        pace.add(1, 59 * second);
        assert!(pace.is_over(ASKED) && !pace.begin_anew(ASKED), "a byte a minute is a stall");
        pace.add(0, 60 * second);
        let anything = Steadiness { minimum_rate: 0, ..ASKED };
        assert!(!pace.begin_anew(anything), "without a rate it takes silence");
        pace.add(1, 60 * second);
        assert!(pace.begin_anew(anything));
    }

    #[test]
    fn a_write_that_is_awaited_whole_is_no_larger_than_a_steady_client_takes() {
        assert_eq!(ASKED.timely(32 << 10), 60 * 512);
        assert_eq!(Steadiness { minimum_rate: 1 << 20, ..ASKED }.timely(32 << 10), 32 << 10);
        assert_eq!(Steadiness { minimum_rate: 0, ..ASKED }.timely(32 << 10), 4 << 10);
    }
}
