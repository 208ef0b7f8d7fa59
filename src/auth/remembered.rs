//! Was this very token verified before?
//!
//! A signature is checked once for a token, not once for each of the hundreds of requests that it comes with: that is two
//! thirds of what a small request costs. What is remembered is what the token says ([`Vouched`]): its times, and what it
//! allows. Whoever uses it asks it for *now* ([`Vouched::at`]), so that a token ends here when it ends elsewhere.
//!
//! **Invariant:** only a token whose signature, issuer and audience held gets in, so nobody without one can fill it or push
//! others out. What was used longest ago makes room, because tokens live for minutes: by how often they were used, the
//! dead would keep the living out. Whoever asks for tokens without end and uses each costs others a signature check.
//! **Invariant:** tokens are not kept. The key is SHA-256 of all of the token, signature included: another text that is
//! found under it would be a collision. A short keyed hash would be cheaper by half a microsecond, and guessing it would be
//! as good as a signature.
//! **Invariant:** it is bounded by [`BYTES`], and by [`ENTRIES`], since no entry counts for less than its share.
//!
//! What makes it forget: room, and not being used for [`IDLE`]. It belongs to the keys that vouched, and goes with them when
//! they are replaced; what only held for some time (a chain of certificates) carries that time.
//!
//! Absent on purpose: texts longer than [`LONGEST`], which are no tokens. To look for one is to digest it, and anybody may
//! send it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::claims::Vouched;

/// The most bytes in it, about.
const BYTES: u32 = 4 << 20;
/// The most tokens in it.
const ENTRIES: u32 = 4096;
/// A token that was not used for so long is hardly used again: they are valid for 5 minutes by default.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// The longest token.
pub(super) const LONGEST: usize = 64 * 1024;

/// What tokens say that were verified.
pub(super) struct Remembered(Cache<Key, Arc<Entry>>);

type Key = [u8; 32];

struct Entry {
    vouched: Vouched,
    /// The seconds in which the keys vouch for it.
    holds: RangeInclusive<i64>,
}

/// Always.
pub(super) const ALWAYS: RangeInclusive<i64> = i64::MIN..=i64::MAX;

impl Remembered {
    pub(super) fn new() -> Self {
        let weigh = |_: &Key, entry: &Arc<Entry>| {
            let bytes = size_of::<Key>() + size_of::<Entry>() + entry.vouched.bytes();
            u32::try_from(bytes).unwrap_or(u32::MAX).max(BYTES / ENTRIES)
        };
        let bounded = Cache::builder().max_capacity(BYTES.into()).weigher(weigh);
        Self(bounded.eviction_policy(EvictionPolicy::lru()).time_to_idle(IDLE).build())
    }

    /// What the token says: remembered, or found out by `verify`, with the seconds in which that holds.
    pub(super) fn get_or<E>(
        &self,
        token: &str,
        now: Timestamp,
        verify: impl FnOnce() -> Result<(Vouched, RangeInclusive<i64>), E>,
    ) -> Result<Vouched, E> {
        if token.len() > LONGEST {
            return verify().map(|(vouched, _)| vouched);
        }
        let key = key(token);
        if let Some(entry) = self.0.get(&key).filter(|entry| entry.holds.contains(&now.as_second())) {
            return Ok(entry.vouched.clone());
        }
        let (vouched, holds) = verify()?;
        if holds.contains(&now.as_second()) {
            self.0.insert(key, Arc::new(Entry { vouched: vouched.clone(), holds }));
        }
        Ok(vouched)
    }

    /// How many there are, once what is to go has gone.
    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.entry_count()
    }
}

fn key(token: &str) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref()); // 32 bytes
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Grant;
    use crate::oci::scope::parse_all;

    const NOW: Timestamp = Timestamp::constant(1_760_000_000, 0);

    fn vouched(scopes: &str) -> Vouched {
        Vouched::new(Grant { access: parse_all([scopes]), ..Grant::default() }, None, NOW.as_second())
    }

    /// Whether it had to be found out.
    fn is_news(remembered: &Remembered, token: &str, scopes: &str, holds: RangeInclusive<i64>, now: i64) -> bool {
        let mut news = false;
        let found_out = || {
            news = true;
            Ok::<_, ()>((vouched(scopes), holds))
        };
        remembered.get_or(token, Timestamp::from_second(now).unwrap(), found_out).unwrap();
        news
    }

    #[test]
    fn what_was_refused_is_not_remembered_and_what_was_believed_is_while_it_holds() {
        let remembered = Remembered::new();
        let now = NOW.as_second();
        assert!(remembered.get_or("a", NOW, || Err(())).is_err());
        assert_eq!(remembered.len(), 0);
        assert!(is_news(&remembered, "a", "", now - 5..=now + 5, now));
        assert!(!is_news(&remembered, "a", "", ALWAYS, now + 5));
        assert!(is_news(&remembered, "a", "", now - 5..=now + 5, now + 6), "its time is over");
        assert!(is_news(&remembered, "b", "", ALWAYS, now), "another token");
    }

    #[test]
    fn a_text_that_is_too_long_for_a_token_is_neither_looked_for_nor_kept() {
        let (remembered, now) = (Remembered::new(), NOW.as_second());
        for (length, times) in [(LONGEST, 1), (LONGEST + 1, 2)] {
            let token = "x".repeat(length);
            let news = (0..2).filter(|_| is_news(&remembered, &token, "", ALWAYS, now)).count();
            assert_eq!(news, times, "{length}");
        }
        assert_eq!(remembered.len(), 1);
    }

    #[test]
    fn those_that_nobody_uses_any_more_make_room_however_often_they_were_used() {
        let (remembered, now) = (Remembered::new(), NOW.as_second());
        for number in 0..ENTRIES {
            for _ in 0..5 {
                is_news(&remembered, &number.to_string(), "", ALWAYS, now);
            }
        }
        for number in 0..100 {
            let token = format!("fresh {number}");
            is_news(&remembered, &token, "", ALWAYS, now);
            remembered.len(); // what is to go goes
            assert!(!is_news(&remembered, &token, "", ALWAYS, now), "{token}");
        }
    }

    #[test]
    fn it_has_a_bound_in_tokens_and_in_bytes() {
        let now = NOW.as_second();
        let many = Remembered::new();
        for number in 0..2 * ENTRIES {
            is_news(&many, &number.to_string(), "", ALWAYS, now);
        }
        assert!((1..=u64::from(ENTRIES)).contains(&many.len()), "{}", many.len());

        let large = Remembered::new();
        let scopes: Vec<_> = (0..100).map(|number| format!("repository:{}/{number}:pull", "x".repeat(200))).collect();
        for number in 0..ENTRIES {
            is_news(&large, &number.to_string(), &scopes.join(" "), ALWAYS, now);
        }
        let most = u64::from(BYTES) / (100 * 200);
        assert!((1..=most).contains(&large.len()), "{}", large.len());
    }
}
