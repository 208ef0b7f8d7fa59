//! How long may the client of an HTTP/2 stream owe its body, while Pingora takes that to somebody else's registry?
//!
//! Pingora has no limit of its own there, and the connection below may be busy with other streams. So whoever runs a
//! request also runs its watch, and drops the request when the watch [is over](StreamWatch::over): the stream is reset and
//! the peer's connection broken off, so that nobody takes what came for whole.
//!
//! **Invariant:** a peer that is slow to take the body is not the client's fault. Pingora asks the client for more as soon
//! as the peer has taken something, which it must within its own `write` time: that is added to the client's.
//!
//! Absent on purpose: HTTP/1.1 ([`watch`](super::watch)), bodies that our own services read
//! ([`session`](super::session)), answers that are not taken (Pingora's write timeout).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::watch::Steadiness;

tokio::task_local! {
    /// Of the request that the task is for.
    static WATCH: Arc<StreamWatch>;
}

/// What is told of a request that is given up.
pub(super) type Epilogue = Box<dyn FnOnce(GivenUp) + Send>;

/// How far it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct GivenUp {
    /// How many bytes of its body had come.
    pub(super) came: u64,
    /// And of its answer had been sent on.
    pub(super) gave: u64,
    /// What that was, and when it began.
    pub(super) answered: Option<(StatusCode, Instant)>,
}

/// Runs a request's future, at most as long as its watch lets it.
pub(super) async fn watched<T>(request: impl Future<Output = T>) {
    let watch = Arc::new(StreamWatch::new());
    let run = async {
        tokio::select! {
            biased;
            _ = request => {} // whatever it gives back is of no use on HTTP/2
            () = watch.over() => {}
        }
    };
    WATCH.scope(watch.clone(), run).await;
}

/// The watch of the request that this task is for, if it has one.
pub(super) fn current() -> Option<Arc<StreamWatch>> {
    WATCH.try_with(Arc::clone).ok()
}

/// What is known of one request's body.
pub(super) struct StreamWatch {
    since: Instant,
    came: AtomicU64,
    gave: AtomicU64,
    answered: OnceLock<(StatusCode, Instant)>,
    /// When the last of it came, in milliseconds.
    last: AtomicU64,
    owed: Mutex<Option<Owed>>,
    begun: Notify,
}

/// A body that is owed.
struct Owed {
    /// The longest time without a piece, and the time over which the rate is judged.
    time: Duration,
    /// How many bytes must come in each such time.
    least: u64,
    epilogue: Epilogue,
}

impl fmt::Debug for StreamWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamWatch").field("came", &self.came).finish_non_exhaustive()
    }
}

impl StreamWatch {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            came: AtomicU64::new(0),
            gave: AtomicU64::new(0),
            answered: OnceLock::new(),
            last: AtomicU64::new(0),
            owed: Mutex::new(None),
            begun: Notify::new(),
        }
    }

    /// From now on the client owes its body to a peer that takes its pieces within `write`.
    pub(super) fn begin(&self, asked: Steadiness, write: Duration, epilogue: Epilogue) {
        self.note(0);
        let owed = Owed { time: asked.stall + write, least: asked.least(asked.stall), epilogue };
        *self.owed.lock() = Some(owed);
        self.begun.notify_one();
    }

    /// A piece came.
    pub(super) fn note(&self, bytes: usize) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
        self.came.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The answer begins, perhaps before the body has come.
    pub(super) fn answered(&self, status: StatusCode) {
        self.answered.get_or_init(|| (status, Instant::now()));
    }

    /// A piece of it goes to the client.
    pub(super) fn gave(&self, bytes: usize) {
        self.gave.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn given_up(&self) -> GivenUp {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        GivenUp { came: load(&self.came), gave: load(&self.gave), answered: self.answered.get().copied() }
    }

    /// It has all come, or is wanted no more.
    pub(super) fn end(&self) {
        *self.owed.lock() = None;
    }

    /// Returns when the client has owed its body for too long.
    async fn over(&self) {
        loop {
            self.begun.notified().await;
            while let Some((time, least)) = self.asked() {
                if !self.is_steady(time, least).await
                    && let Some(owed) = self.owed.lock().take()
                {
                    return (owed.epilogue)(self.given_up());
                }
            }
        }
    }

    fn asked(&self) -> Option<(Duration, u64)> {
        self.owed.lock().as_ref().map(|owed| (owed.time, owed.least))
    }

    /// Watches for one `time`, or until it is too long that nothing came.
    async fn is_steady(&self, time: Duration, least: u64) -> bool {
        let (judged, before) = (Instant::now() + time, self.came.load(Ordering::Relaxed));
        loop {
            let last = self.since + Duration::from_millis(self.last.load(Ordering::Relaxed));
            let now = Instant::now();
            if now >= last + time {
                return false;
            }
            if now >= judged {
                return self.came.load(Ordering::Relaxed) - before >= least;
            }
            tokio::time::sleep_until(judged.min(last + time)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::Timeouts;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// How many bytes had come when the request was given up; `None` when it came to its end.
    async fn run(request: impl Future<Output = ()>) -> Option<u64> {
        let given_up = Arc::new(Mutex::new(None));
        let told = given_up.clone();
        watched(async move {
            let asked = Steadiness::of(&Timeouts { stall: seconds(60), minimum_rate: 100, ..Timeouts::default() });
            let epilogue = Box::new(move |end: GivenUp| *told.lock() = Some(end.came));
            current().unwrap().begin(asked, seconds(30), epilogue);
            request.await;
        })
        .await;
        Arc::into_inner(given_up).and_then(Mutex::into_inner)
    }

    async fn pieces(count: usize, bytes: usize, pause: Duration) {
        for _ in 0..count {
            tokio::time::sleep(pause).await;
            current().unwrap().note(bytes);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_or_next_to_nothing_is_given_up_and_who_is_slow_is_not() {
        let begun = Instant::now();
        let silent = run(async {
            pieces(3, 5000, seconds(10)).await;
            std::future::pending().await
        });
        assert_eq!(silent.await, Some(15_000));
        assert_eq!(begun.elapsed().as_secs(), 30 + 90);
        assert_eq!(run(pieces(100, 6000, seconds(60))).await, None, "100 bytes a second");
        assert!(run(pieces(100, 1, seconds(10))).await.is_some(), "a drip");
        let done = run(async {
            pieces(1, 1, seconds(1)).await;
            current().unwrap().end();
            tokio::time::sleep(seconds(3600)).await;
        });
        assert_eq!(done.await, None, "nothing is owed while the peer takes its time");
    }
}
