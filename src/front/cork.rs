//! When does what TLS says during its handshake leave?
//!
//! With what is said next, or when we would wait for the client. Of TLS 1.3 the last thing that a server says are tickets,
//! which nobody waits for: they share a packet with the first answer if its request is there already.
//!
//! **Invariant:** nobody waits for the client while something is held back that it might wait for.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that holds writes back until a read has to wait, the handshake is over and something else is written, or the
/// end.
#[derive(Debug)]
pub(super) struct Corked<S> {
    stream: S,
    held: Vec<u8>,
    /// How much of that has left.
    sent: usize,
    corked: bool,
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, held: Vec::new(), sent: 0, corked: true }
    }

    /// The handshake is over: from now on flushes count.
    pub(super) fn uncork(&mut self) {
        self.corked = false;
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.held.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        (self.held, self.sent) = (Vec::new(), 0); // an idle connection holds no buffer
        Poll::Ready(Ok(()))
    }

    /// Writes what is held and these, as far as they go together. `None`: nothing is held any more, and none of these is
    /// written.
    fn poll_join(&mut self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<Option<usize>>> {
        let held = &self.held[self.sent..];
        let mut all = Vec::with_capacity(1 + bytes.len());
        all.push(IoSlice::new(held));
        all.extend(bytes.iter().map(|bytes| IoSlice::new(bytes)));
        let (held, written) = (held.len(), ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &all))?);
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.sent += written.min(held);
        ready!(self.poll_drain(cx))?;
        Poll::Ready(Ok(written.checked_sub(held).filter(|more| *more > 0)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Corked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending()
            && !self.held.is_empty()
            && let Poll::Ready(Err(error)) = self.poll_drain(cx)
        {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        if me.corked {
            let before = me.held.len();
            bytes.iter().for_each(|bytes| me.held.extend_from_slice(bytes));
            return Poll::Ready(Ok(me.held.len() - before));
        }
        if !me.held.is_empty()
            && let Some(written) = ready!(me.poll_join(cx, bytes))?
        {
            return Poll::Ready(Ok(written));
        }
        Pin::new(&mut me.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.corked {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future as _, poll_fn};
    use std::pin::pin;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A client that says nothing, and takes so much at once.
    struct Silent {
        writes: Vec<Vec<u8>>,
        most: usize,
    }

    impl AsyncRead for Silent {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Silent {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let mut all: Vec<u8> = bytes.iter().flat_map(|bytes| bytes.to_vec()).collect();
            all.truncate(self.most);
            self.writes.push(all);
            Poll::Ready(Ok(self.writes.last().map_or(0, Vec::len)))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn holding(most: usize) -> Corked<Silent> {
        let mut corked = Corked::new(Silent { writes: Vec::new(), most });
        corked.write_all(b"tickets").await.unwrap();
        corked.flush().await.unwrap();
        assert!(corked.stream.writes.is_empty());
        corked
    }

    #[tokio::test]
    async fn nobody_waits_for_a_client_while_something_is_held_back() {
        for uncorked in [false, true] {
            let mut corked = holding(100).await;
            corked.corked = !uncorked;
            let waits = poll_fn(|cx| Poll::Ready(pin!(corked.read_u8()).as_mut().poll(cx).is_pending()));
            assert!(waits.await);
            assert_eq!(corked.stream.writes, [b"tickets"]);
        }
    }

    #[tokio::test]
    async fn what_is_held_back_leaves_together_with_what_comes_next_and_before_it() {
        for (most, writes) in [(100, 1), (7, 3), (10, 2), (1, 13)] {
            let mut corked = holding(most).await;
            corked.uncork();
            corked.write_all(b"answer").await.unwrap();
            assert_eq!(corked.stream.writes.concat(), b"ticketsanswer");
            assert!(corked.stream.writes.len() <= writes + 1, "{:?}", corked.stream.writes);
            assert_eq!(corked.held.capacity(), 0);
        }
    }

    #[tokio::test]
    async fn what_is_held_back_leaves_with_the_flush_after_the_handshake_and_with_the_end() {
        let mut corked = holding(100).await;
        corked.uncork();
        corked.flush().await.unwrap();
        assert_eq!(corked.stream.writes, [b"tickets"]);
        let mut corked = holding(100).await;
        corked.shutdown().await.unwrap();
        assert_eq!(corked.stream.writes, [b"tickets"]);
    }
}
