//! How long is a disk waited for?
//!
//! As long as it takes: a thread that hangs cannot be ended, and what it writes may still be written. But whoever runs the
//! server is told.

use std::time::Duration;

use tokio::time::timeout;

/// What does not answer for so long hangs: a folder on a network whose server is away, as a rule.
pub(super) const HANGS: Duration = Duration::from_secs(30);

/// Waits for what goes on elsewhere, and tells each time that another [`HANGS`] has passed without an end.
pub(super) async fn patiently<T>(work: impl Future<Output = T>, mut tell: impl FnMut()) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        match timeout(HANGS, &mut work).await {
            Ok(done) => return done,
            Err(_) => tell(),
        }
    }
}

/// The same for a look at files, with the word for the log: once, and that it is over.
pub(super) async fn look<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut hangs = false;
    let done = patiently(work, || {
        if !std::mem::replace(&mut hangs, true) {
            let seconds = HANGS.as_secs();
            tracing::error!(
                "{what} have not answered for {seconds} s: until they do, nothing that changes there counts"
            );
        }
    });
    let done = done.await;
    if hangs {
        tracing::warn!("{what} answer again");
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_hangs_is_told_of_and_comes_to_its_end_all_the_same() {
        for (seconds, times) in [(0, 0), (29, 0), (31, 1), (100, 3)] {
            let mut told = 0;
            let work = async {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                "done"
            };
            assert_eq!((patiently(work, || told += 1).await, told), ("done", times), "{seconds} s");
        }
    }
}
