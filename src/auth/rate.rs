//! How often in a minute?
//!
//! Each key may do something so many times at once and gets that back evenly over a minute (the generic cell rate
//! algorithm, which needs one instant for each key). Who is refused is told how long to wait, and being refused does not
//! count, so an honest client that waits as long as it was told gets in.
//!
//! **Invariant:** memory is bounded by [`KEYS`]; the least recently used are forgotten first.
//!
//! This is not the `governor` crate, which counts when it asks and cannot look first: with it either every login would
//! count, or one over the limit would still be hashed. And its tables have no bound.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use moka::ops::compute::{CompResult, Op};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

/// The most keys that are remembered.
pub(super) const KEYS: u64 = 16_384;
/// Everything is given back after this long.
const PERIOD: Duration = Duration::from_secs(60);

/// For each key, when all that it did will have been given back.
pub(super) struct Rate<K> {
    settled: Cache<K, Instant>,
    /// How often; 0: without a limit.
    per_minute: AtomicU32,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Rate<K> {
    /// `None`: as often as anybody likes.
    pub(super) fn new(per_minute: Option<NonZeroU32>) -> Self {
        Self {
            settled: Cache::builder()
                .max_capacity(KEYS)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(PERIOD * 2)
                .build(),
            per_minute: AtomicU32::new(per_minute.map_or(0, NonZeroU32::get)),
        }
    }

    /// From now on so often. What was done before stays done, and is given back as it was to be.
    pub(super) fn set(&self, per_minute: Option<NonZeroU32>) {
        self.per_minute.store(per_minute.map_or(0, NonZeroU32::get), Ordering::Relaxed);
    }

    fn per_minute(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.per_minute.load(Ordering::Relaxed))
    }

    /// Whether once more would fit; otherwise when it will.
    pub(super) fn check(&self, key: &K, now: Instant) -> Result<(), Duration> {
        match (self.per_minute(), self.settled.get(key)) {
            (Some(limit), Some(settled)) => fits(settled, limit, now),
            _ => Ok(()),
        }
    }

    /// Counts once, also above the limit.
    pub(super) fn take(&self, key: K, now: Instant) {
        let Some(limit) = self.per_minute() else { return };
        let settled = self.settled.entry(key);
        settled.and_upsert_with(|known| later(known.map(|known| known.into_value()), limit, now));
    }

    /// Counts once if it fits; otherwise when it will.
    pub(super) fn spend(&self, key: K, now: Instant) -> Result<(), Duration> {
        let Some(limit) = self.per_minute() else { return Ok(()) };
        let outcome = self.settled.entry(key).and_compute_with(|known| match known.map(|known| known.into_value()) {
            Some(settled) if fits(settled, limit, now).is_err() => Op::Nop,
            settled => Op::Put(later(settled, limit, now)),
        });
        match outcome {
            CompResult::Unchanged(entry) => fits(entry.into_value(), limit, now),
            _ => Ok(()),
        }
    }

    /// Gives back everything to the keys that are meant; says to how many.
    pub(super) fn forgive(&self, is_meant: impl Fn(&K) -> bool) -> usize {
        let meant: Vec<_> = self.settled.iter().map(|(key, _)| key).filter(|key| is_meant(key)).collect();
        meant.iter().for_each(|key| self.settled.invalidate(key.as_ref()));
        meant.len()
    }
}

fn interval(per_minute: NonZeroU32) -> Duration {
    PERIOD / per_minute.get()
}

fn fits(settled: Instant, per_minute: NonZeroU32, now: Instant) -> Result<(), Duration> {
    let depth = interval(per_minute) * (per_minute.get() - 1);
    match settled.saturating_duration_since(now + depth) {
        Duration::ZERO => Ok(()),
        wait => Err(wait),
    }
}

fn later(settled: Option<Instant>, per_minute: NonZeroU32, now: Instant) -> Instant {
    settled.map_or(now, |settled| settled.max(now)) + interval(per_minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_minute: u32) -> Rate<u8> {
        Rate::new(NonZeroU32::new(per_minute))
    }

    #[test]
    fn what_is_spent_comes_back_evenly_and_each_key_has_its_own() {
        let (rate, now) = (rate(60), Instant::now());
        assert_eq!((0..100).filter(|_| rate.spend(1, now).is_ok()).count(), 60);
        assert_eq!(rate.spend(1, now), Err(Duration::from_secs(1)));
        assert_eq!(rate.check(&1, now), Err(Duration::from_secs(1)));
        assert_eq!(rate.spend(2, now), Ok(()));
        let later = now + Duration::from_secs(10);
        assert_eq!((0..100).filter(|_| rate.spend(1, later).is_ok()).count(), 10);
    }

    #[test]
    fn without_a_limit_nothing_is_counted_and_a_new_one_holds_at_once() {
        let (rate, now) = (rate(0), Instant::now());
        assert!((0..1000).all(|_| rate.spend(1, now).is_ok()));
        rate.set(NonZeroU32::new(1));
        assert_eq!((rate.spend(1, now), rate.spend(1, now)), (Ok(()), Err(Duration::from_secs(60))));
        rate.set(None);
        assert_eq!((rate.check(&1, now), rate.spend(1, now)), (Ok(()), Ok(())));
    }

    #[test]
    fn whoever_is_forgiven_begins_anew() {
        let (rate, now) = (rate(1), Instant::now());
        for key in [1, 2] {
            rate.take(key, now);
        }
        assert_eq!(rate.forgive(|key| *key == 1), 1);
        assert_eq!((rate.check(&1, now), rate.check(&2, now)), (Ok(()), Err(Duration::from_secs(60))));
        assert_eq!(rate.forgive(|key| *key == 1), 0);
    }

    #[test]
    fn a_flood_of_keys_does_not_fill_the_memory() {
        let (rate, now) = (Rate::new(NonZeroU32::new(10)), Instant::now());
        for key in 0..3 * KEYS {
            rate.take(key, now);
        }
        rate.settled.run_pending_tasks();
        assert!(rate.settled.entry_count() <= KEYS);
    }
}
