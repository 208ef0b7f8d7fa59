//! What became of requests that went to upstreams?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::page::Page;

/// The first digit of a status, and whether there was any.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// What is counted of one upstream. The names of upstreams are the operator's own list.
#[derive(Debug, Default)]
pub struct Forwarded {
    answers: [AtomicU64; CLASSES.len()],
    unreached: AtomicU64,
    again: AtomicU64,
}

impl Forwarded {
    /// A request ended to which its last peer answered this, or nothing.
    pub fn answered(&self, status: Option<u16>) {
        let class = status.map_or(0, |status| usize::from(status / 100)).min(CLASSES.len() - 1);
        self.answers[class].fetch_add(1, Ordering::Relaxed);
    }

    /// A peer could not be connected to.
    pub fn unreached(&self) {
        self.unreached.fetch_add(1, Ordering::Relaxed);
    }

    /// A request went to a peer once more.
    pub fn again(&self) {
        self.again.fetch_add(1, Ordering::Relaxed);
    }
}

/// All of them, by name. Locked when the configuration changes and for a page.
#[derive(Debug, Default)]
pub(super) struct All(Mutex<BTreeMap<Arc<str>, Arc<Forwarded>>>);

impl All {
    pub(super) fn of(&self, upstream: &Arc<str>) -> Arc<Forwarded> {
        self.0.lock().entry(upstream.clone()).or_default().clone()
    }

    pub(super) fn show(&self, page: &mut Page) {
        let all = self.0.lock();
        if all.is_empty() {
            return;
        }
        let name = "pierhead_upstream_requests_total";
        page.counter(name, "Requests that went to an upstream, by the class of the answer.");
        for (upstream, counts) in all.iter() {
            for (class, count) in CLASSES.iter().zip(&counts.answers) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    page.sample(name, &[("upstream", upstream), ("status", class)], count);
                }
            }
        }
        let mut single = |name, help, count: fn(&Forwarded) -> &AtomicU64| {
            page.counter(name, help);
            for (upstream, counts) in all.iter() {
                page.sample(name, &[("upstream", upstream)], count(counts).load(Ordering::Relaxed));
            }
        };
        let help = "Connections to peers of an upstream that did not come about.";
        single("pierhead_upstream_connect_failures_total", help, |counts| &counts.unreached);
        let help = "How often a request went to a peer once more.";
        single("pierhead_upstream_retries_total", help, |counts| &counts.again);
    }
}
