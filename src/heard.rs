//! What do tests hear of the log?

use std::io::{self, Write};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing::{Dispatch, Level};

/// There always, beside what a test listens with. While there is only one, `tracing` asks the thread that comes to a line
/// first whether anybody wants it, and goes by that from then on; with two it asks them, whichever thread it is.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));

/// Keeps what is logged on this thread at this level and above, until the guard is dropped.
pub(crate) fn heard(level: Level) -> (DefaultGuard, Arc<Mutex<Vec<u8>>>) {
    LazyLock::force(&SECOND);
    let kept = Kept::default();
    let heard = kept.0.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_writer(move || kept.clone()).finish();
    (tracing::subscriber::set_default(subscriber), heard)
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_is_heard_although_a_thread_that_does_not_listen_came_to_it_first() {
    let (_guard, heard) = heard(Level::ERROR);
    let say = || tracing::error!("said");
    std::thread::spawn(say).join().unwrap();
    say();
    assert_eq!(String::from_utf8_lossy(&heard.lock()).matches("said").count(), 1);
}
