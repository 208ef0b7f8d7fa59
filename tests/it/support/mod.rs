//! What the tests stand on: a fresh machine, the server, its peer, the clients, images, and patience with a limit.

pub(crate) mod balancers;
pub(crate) mod certificates;
pub(crate) mod clients;
pub(crate) mod command;
pub(crate) mod content;
pub(crate) mod distribution;
pub(crate) mod handshake;
pub(crate) mod image;
pub(crate) mod machine;
pub(crate) mod named;
pub(crate) mod pebble;
pub(crate) mod pierhead;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod registry;
pub(crate) mod relay;
pub(crate) mod trace;
pub(crate) mod tree;
pub(crate) mod wire;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Waits until `probe` yields something, asking every few milliseconds. Panics with `what` after `seconds`.
pub(crate) fn wait_for<T>(what: &str, seconds: u64, probe: impl FnMut() -> Option<T>) -> T {
    wait_or_say(what, seconds, probe, String::new)
}

/// The same; `stands` says how things stand when it was in vain.
pub(crate) fn wait_or_say<T>(
    what: &str,
    seconds: u64,
    mut probe: impl FnMut() -> Option<T>,
    stands: impl Fn() -> String,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {seconds} s in vain for {what}{}", stands());
        // Between two looks at the condition; this is the one place where tests wait.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the long variants of the random tests are wanted.
pub(crate) fn soak() -> bool {
    std::env::var_os("PIERHEAD_SOAK").is_some_and(|value| value == "1")
}

/// A port of the loopback interface that nobody listens on, below the range that the kernel hands out by itself, and
/// not handed out by this process before.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    let untried = || Some(FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT);
    std::iter::from_fn(untried)
        .take(usize::from(COUNT))
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("::", port)).is_ok())
        .expect("some port between 20000 and 32000 must be free")
}
