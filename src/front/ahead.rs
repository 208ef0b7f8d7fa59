//! How is a large body read from a client inside TLS?
//!
//! In fewer and larger reads. TLS asks for one record at a time, 16 KiB at most; reading them one by one costs a system
//! call for each, and what is more, the kernel tells the sender after each that there is room again. While a client sends
//! faster than we read, [`Ahead`] takes what the kernel has, up to [`AHEAD`], and hands it on from memory.
//!
//! **Invariant:** a connection holds that memory only while there are bytes in it, or while one read follows the other: as
//! soon as a read would have to wait it is given back, so that an idle connection has none. A client that sends little
//! at a time never makes it be taken. One may send plenty and then not be read from, so no more than [`MOST`] connections
//! hold it at once; others read record by record.
//!
//! **Invariant:** nothing is reordered and nothing is held back: what was read ahead is handed out before anything is
//! read, and the end and errors of the stream come after it.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// How much is read at once: four full records, which stay in the processor's own cache until they are decrypted.
const AHEAD: usize = 64 << 10;

/// Who fills this much at once has more to send: nearly a full record.
const PLENTY: usize = 8 << 10;

/// How many connections may hold that at once: 8 MiB in all.
const MOST: usize = 128;

/// How many do.
static HOLDING: AtomicUsize = AtomicUsize::new(0);

/// A stream that reads ahead while there is plenty to read. Writes are passed on.
#[derive(Debug)]
pub(super) struct Ahead<S> {
    stream: S,
    bytes: BytesMut,
    /// While `bytes` have memory.
    turn: Option<Turn>,
    /// Whether the last read found plenty.
    plenty: bool,
}

impl<S> Ahead<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, bytes: BytesMut::new(), turn: None, plenty: false }
    }

    fn give_back(&mut self) {
        self.bytes = BytesMut::new();
        self.turn = None;
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }
}

/// One of [`MOST`].
#[derive(Debug)]
struct Turn(&'static AtomicUsize);

impl Turn {
    fn take(holding: &'static AtomicUsize) -> Option<Self> {
        let more = |holding| (holding < MOST).then_some(holding + 1);
        holding.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(holding))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> Ahead<S> {
    /// Reads what is asked for, to where it is wanted.
    fn poll_directly(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (asked, before) = (buf.remaining(), buf.filled().len());
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.plenty = asked >= PLENTY && buf.filled().len() - before == asked;
        Poll::Ready(Ok(()))
    }

    /// Reads as much as there is. The memory is given back unless something came.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bytes.reserve(AHEAD); // the same memory again while one read follows the other
        let read = pin!(self.stream.read_buf(&mut self.bytes)).poll(cx);
        if self.bytes.is_empty() {
            self.give_back();
        }
        self.plenty = !matches!(read, Poll::Ready(Ok(came)) if came < PLENTY);
        read.map_ok(|_| ())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if me.bytes.is_empty() {
            if me.plenty && me.turn.is_none() {
                me.turn = Turn::take(&HOLDING);
            }
            if !me.plenty || me.turn.is_none() {
                return me.poll_directly(cx, buf);
            }
            ready!(me.poll_fill(cx))?;
        }
        let length = buf.remaining().min(me.bytes.len());
        buf.put_slice(&me.bytes[..length]);
        me.bytes.advance(length);
        if me.bytes.is_empty() && !me.plenty {
            me.give_back();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;

    use super::*;

    /// A client whose bytes come in bursts: what is asked for of a burst is given, and between two a read has to wait.
    struct Bursts {
        bursts: VecDeque<Vec<u8>>,
        reads: usize,
    }

    impl AsyncRead for Bursts {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.reads += 1;
            match self.bursts.front_mut() {
                None => return Poll::Ready(Ok(())),
                Some(burst) if burst.is_empty() => {}
                Some(burst) => {
                    let rest = burst.split_off(burst.len().min(buf.remaining()));
                    buf.put_slice(&std::mem::replace(burst, rest));
                    return Poll::Ready(Ok(()));
                }
            }
            self.bursts.pop_front();
            Poll::Pending
        }
    }

    fn numbers(count: usize) -> Vec<u8> {
        (0..count).map(|index| (index % 251) as u8).collect()
    }

    fn sending(bursts: &[&[u8]]) -> Ahead<Bursts> {
        Ahead::new(Bursts { bursts: bursts.iter().map(|burst| burst.to_vec()).collect(), reads: 0 })
    }

    /// What one read of at most so many bytes brings. `None`: it has to wait.
    async fn read(ahead: &mut Ahead<Bursts>, most: usize) -> Option<Vec<u8>> {
        let mut space = vec![0; most];
        let mut buf = ReadBuf::new(&mut space);
        let read = poll_fn(|cx| Poll::Ready(Pin::new(&mut *ahead).poll_read(cx, &mut buf))).await;
        read.is_ready().then(|| buf.filled().to_vec())
    }

    /// All that comes until the stream ends, and how often a read had to wait.
    async fn everything(ahead: &mut Ahead<Bursts>, most: usize) -> (Vec<u8>, usize) {
        let (mut all, mut waits) = (Vec::new(), 0);
        loop {
            match read(ahead, most).await {
                None => {
                    waits += 1;
                    assert_eq!(ahead.bytes.capacity(), 0, "who waits holds no memory");
                }
                Some(bytes) if bytes.is_empty() => return (all, waits),
                Some(bytes) => all.extend(bytes),
            }
        }
    }

    #[tokio::test]
    async fn every_byte_comes_once_and_in_order_however_it_is_sent_and_asked_for() {
        let content = numbers(5 * AHEAD + 17);
        for burst in [1000, PLENTY, AHEAD - 1, AHEAD, AHEAD + 1, 5 * AHEAD] {
            for most in [1, 4096, PLENTY, 16_709, 2 * AHEAD] {
                let bursts: Vec<&[u8]> = content.chunks(burst).collect();
                let mut ahead = sending(&bursts);
                let (all, waits) = everything(&mut ahead, most).await;
                assert!(all == content, "bursts of {burst}, read by {most}");
                assert_eq!(waits, bursts.len(), "bursts of {burst}, read by {most}");
            }
        }
    }

    #[tokio::test]
    async fn a_large_body_is_read_in_few_reads() {
        let mut ahead = sending(&[&numbers(100 * AHEAD)]);
        everything(&mut ahead, 16_709).await;
        assert!(ahead.stream.reads <= 104, "{} reads", ahead.stream.reads);
    }

    #[tokio::test]
    async fn who_sends_little_never_makes_memory_be_taken() {
        let little = numbers(PLENTY - 1);
        let mut ahead = sending(&[&little[..]; 5]);
        for _ in 0..5 {
            assert_eq!(read(&mut ahead, 16_709).await.map(|bytes| bytes.len()), Some(little.len()));
            assert_eq!(ahead.bytes.capacity(), 0);
            assert_eq!(read(&mut ahead, 16_709).await, None);
        }
    }

    #[test]
    fn so_many_hold_memory_at_once_and_no_more() {
        static HOLDING: AtomicUsize = AtomicUsize::new(0);
        let mut turns: Vec<Turn> = std::iter::from_fn(|| Turn::take(&HOLDING)).collect();
        assert_eq!(turns.len(), MOST);
        turns.pop();
        assert!(Turn::take(&HOLDING).is_some());
    }

    #[tokio::test]
    async fn the_last_of_a_body_leaves_no_memory_behind() {
        let mut ahead = sending(&[&numbers(2 * AHEAD), b"the next request"]);
        while read(&mut ahead, 16_709).await.is_some() {}
        assert!(ahead.bytes.capacity() == 0 && ahead.turn.is_none(), "the client is idle");
        assert_eq!(read(&mut ahead, 16_709).await.as_deref(), Some(&b"the next request"[..]));
        assert_eq!((ahead.bytes.capacity(), ahead.plenty), (0, false), "and then sends little");
    }
}
