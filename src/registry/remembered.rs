//! What of the tree is kept in memory between two requests, and for how long?
//!
//! Answers that cost many reads and are asked for again and again: pages of tags (`tags.rs`) and manifests
//! (`manifests.rs`). Both look at the tree on every request as well, and say what that look tells. What it does not tell
//! comes from others: another program may write the same tree at the same time, an operator may restore a part of it,
//! and some file systems keep no record of what changes. So whatever the look says,
//!
//! **Invariant:** nothing is answered from memory that was read [`LAG`] before. To a client that is as if it had asked so
//! much earlier; to us it costs two readings in a second of what would be read at every request. From half of that age on
//! one request reads it anew while the others still get what is there, so that a crowd does not read it all at once.
//!
//! **Invariant:** each memory is bounded by [`MOST`] bytes, and by `MOST / OVERHEAD` entries. What is as old as [`LAG`], and
//! so of no use to anybody, leaves at one of the next requests.
//!
//! **Invariant:** only an answer that somebody was granted gets in or pushes another out: nobody comes here before.
//!
//! Absent on purpose: what is not there. A tag, a manifest or a repository that is missing is looked for each time.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moka::sync::Cache;

/// How old what is remembered may be.
pub(super) const LAG: Duration = Duration::from_secs(1);
/// How many bytes each memory holds at most.
const MOST: u64 = 8 << 20;
/// The largest answer that is remembered: a larger one would push too many others out.
pub(super) const LARGEST: usize = 256 << 10;
/// What an entry weighs beside its bytes, about.
const OVERHEAD: usize = 512;

/// Answers that were read not long ago.
pub(super) struct Remembered<K, V> {
    entries: Cache<K, Entry<V>>,
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    read: Instant,
    /// Whether somebody reads it anew.
    renewed: Arc<AtomicBool>,
    bytes: usize,
}

impl<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static> Remembered<K, V> {
    pub(super) fn new() -> Self {
        let weigh = |_: &K, entry: &Entry<V>| u32::try_from(entry.bytes + OVERHEAD).unwrap_or(u32::MAX);
        Self { entries: Cache::builder().weigher(weigh).max_capacity(MOST).time_to_live(LAG).build() }
    }

    /// What was read within the last [`LAG`] before now, which is after whatever the caller waited for, unless it is on the
    /// caller to read it anew.
    pub(super) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let entry = self.entries.get(key)?;
        let age = now.saturating_duration_since(entry.read);
        let is_ours_to_read = || age >= LAG / 2 && !entry.renewed.swap(true, Ordering::Relaxed);
        (age < LAG && !is_ours_to_read()).then_some(entry.value)
    }

    /// Keeps what began to be `read` then and holds so many bytes, the key's among them.
    pub(super) fn keep(&self, key: K, value: V, read: Instant, bytes: usize) {
        if bytes <= LARGEST {
            self.entries.insert(key, Entry { value, read, renewed: Arc::default(), bytes });
        }
    }
}

impl<K, V> fmt::Debug for Remembered<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").field("entries", &self.entries.entry_count()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_forgotten_after_the_lag_and_not_before() {
        let (memory, read) = (Remembered::new(), Instant::now());
        memory.keep("key", 1, read, 3);
        let (half, almost) = (LAG / 2, LAG - Duration::from_nanos(1));
        assert_eq!(memory.get(&"key", read + half - Duration::from_nanos(1)), Some(1));
        assert_eq!(memory.get(&"key", read + half), None, "the first one reads it anew");
        assert_eq!((memory.get(&"key", read + half), memory.get(&"key", read + almost)), (Some(1), Some(1)));
        assert_eq!((memory.get(&"key", read + LAG), memory.get(&"other", read)), (None, None));
        memory.keep("key", 2, read + LAG, 3);
        assert_eq!(memory.get(&"key", read + LAG), Some(2));
    }

    #[test]
    fn what_is_too_old_to_be_answered_is_not_held_either() {
        let memory: Remembered<u8, ()> = Remembered::new();
        assert_eq!(memory.entries.policy().time_to_live(), Some(LAG));
    }

    #[test]
    fn it_is_bounded_in_bytes_and_in_entries_and_takes_nothing_huge() {
        let now = Instant::now();
        let (small, large) = (Remembered::new(), Remembered::new());
        for number in 0..40_000 {
            small.keep(number, (), now, 0);
        }
        for number in 0..200 {
            large.keep(number, (), now, LARGEST);
        }
        small.entries.run_pending_tasks();
        large.entries.run_pending_tasks();
        assert!((1..=MOST / OVERHEAD as u64).contains(&small.entries.entry_count()));
        assert!((1..=MOST / LARGEST as u64).contains(&large.entries.entry_count()));
        large.keep(1000, (), now, LARGEST + 1);
        assert_eq!(large.get(&1000, now), None);
    }
}
