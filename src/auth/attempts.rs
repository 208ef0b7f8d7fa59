//! Who has guessed too often?
//!
//! Only failed logins count. Each key may fail so many times at once and gets its failures back evenly over a minute
//! (the generic cell rate algorithm, which needs one instant for each key). Attempts that are refused for this reason do
//! not count again, so an honest client that waits as long as it was told gets in.
//!
//! What counts where:
//!
//! - A **stranger** (an account and an address that have not logged in together before) is limited by its address, over
//!   all accounts, and by the account, over all addresses. The first stops one machine from trying many names, the
//!   second stops many machines from trying one.
//! - A **regular** (an account that did log in from this address in the last day) has a limit of its own and meets no
//!   other. So nobody can lock people out of their accounts by failing on purpose from elsewhere, and a broken client
//!   behind a shared address or a proxy does not lock out its neighbours. It gives a guesser nothing: this pair, too, has
//!   only its few failures a minute.
//!
//! **Invariant:** memory is bounded by [`KEYS`] in each table; the least recently used are forgotten first.
//!
//! This is not the `governor` crate, which counts when it asks and cannot look first: with it either every login would
//! count, or one over the limit would still be hashed.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

/// The most keys that each table remembers.
const KEYS: u64 = 16_384;
/// All failures are given back after this long.
const PERIOD: Duration = Duration::from_secs(60);
/// How long a pair of account and address stays a regular.
const REGULAR_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The failed logins of the last minute.
pub(super) struct Attempts<N: Name> {
    accounts: Buckets<Option<N>>,
    sources: Buckets<Source<N>>,
    regulars: Cache<(N, IpAddr), ()>,
}

/// What accounts are named by.
pub(super) trait Name: Hash + Eq + Clone + Send + Sync + 'static {}

impl<T: Hash + Eq + Clone + Send + Sync + 'static> Name for T {}

/// Where an attempt comes from, as far as limits go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Source<N> {
    Stranger(IpAddr),
    Regular(N, IpAddr),
}

impl<N: Name> Attempts<N> {
    pub(super) fn new(failures_per_minute: NonZeroU32) -> Self {
        Self {
            accounts: Buckets::new(failures_per_minute),
            sources: Buckets::new(failures_per_minute),
            regulars: Cache::builder()
                .max_capacity(KEYS)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(REGULAR_FOR)
                .build(),
        }
    }

    /// A login begins. `None` stands for every name that no account can have.
    pub(super) fn attempt(&self, account: Option<&N>, address: IpAddr) -> Attempt<'_, N> {
        let network = network(address);
        let regular = account
            .filter(|account| self.regulars.contains_key(&((*account).clone(), network)))
            .map(|account| Source::Regular(account.clone(), network));
        let source = regular.unwrap_or(Source::Stranger(network));
        Attempt { attempts: self, account: account.cloned(), source, network }
    }
}

/// One login between its beginning and its outcome.
pub(super) struct Attempt<'a, N: Name> {
    attempts: &'a Attempts<N>,
    account: Option<N>,
    source: Source<N>,
    network: IpAddr,
}

impl<N: Name> Attempt<'_, N> {
    /// Whether this account has logged in from this address before.
    pub(super) fn is_regular(&self) -> bool {
        matches!(self.source, Source::Regular(..))
    }

    /// Whether anything at all is heard from there; otherwise how long to wait.
    pub(super) fn check_source(&self, now: Instant) -> Result<(), Duration> {
        self.attempts.sources.check(&self.source, now)
    }

    /// Whether the account may be tried; otherwise how long to wait. A stranger's try at a closed account counts
    /// against its address, because by now it has been compared with the verified logins.
    pub(super) fn check_account(&self, now: Instant) -> Result<(), Duration> {
        if self.is_regular() {
            return Ok(());
        }
        let checked = self.attempts.accounts.check(&self.account, now);
        if checked.is_err() {
            self.attempts.sources.take(self.source.clone(), now);
        }
        checked
    }

    /// The password was right.
    pub(super) fn succeeded(&self) {
        if let Some(account) = &self.account {
            self.attempts.regulars.insert((account.clone(), self.network), ());
        }
    }

    /// The password was wrong.
    pub(super) fn failed(&self, now: Instant) {
        self.attempts.sources.take(self.source.clone(), now);
        if !self.is_regular() {
            self.attempts.accounts.take(self.account.clone(), now);
        }
    }
}

/// An IPv6 customer has at least a /64 to take addresses from, so that is what counts as one client (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

/// For each key, when its failures will all have been given back.
struct Buckets<K> {
    settled: Cache<K, Instant>,
    interval: Duration,
    depth: Duration,
}

impl<K: Hash + Eq + Send + Sync + 'static> Buckets<K> {
    fn new(failures: NonZeroU32) -> Self {
        let interval = PERIOD / failures.get();
        Self {
            settled: Cache::builder()
                .max_capacity(KEYS)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(PERIOD * 2)
                .build(),
            interval,
            depth: interval * (failures.get() - 1),
        }
    }

    /// Whether one more failure would fit; otherwise when it will.
    fn check(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let Some(settled) = self.settled.get(key) else { return Ok(()) };
        match settled.saturating_duration_since(now + self.depth) {
            Duration::ZERO => Ok(()),
            wait => Err(wait),
        }
    }

    /// Counts a failure.
    fn take(&self, key: K, now: Instant) {
        self.settled
            .entry(key)
            .and_upsert_with(|known| known.map_or(now, |known| known.into_value().max(now)) + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::AccountName;

    const HOME: &str = "192.0.2.1";
    const ELSEWHERE: &str = "198.51.100.9";

    fn attempts(limit: u32) -> Attempts<AccountName> {
        Attempts::new(NonZeroU32::new(limit).unwrap())
    }

    fn account(name: &str) -> AccountName {
        name.parse().unwrap()
    }

    /// Fails as often as that is possible, and says how often that was and how long to wait now.
    fn exhaust(attempts: &Attempts<AccountName>, name: &str, address: &str, now: Instant) -> (u32, Duration) {
        let mut failures = 0;
        loop {
            let name = account(name);
            let attempt = attempts.attempt(Some(&name), address.parse().unwrap());
            if let Err(wait) = attempt.check_source(now).and_then(|()| attempt.check_account(now)) {
                return (failures, wait);
            }
            attempt.failed(now);
            failures += 1;
        }
    }

    fn is_heard(attempts: &Attempts<AccountName>, name: &str, address: &str, now: Instant) -> bool {
        let name = account(name);
        let attempt = attempts.attempt(Some(&name), address.parse().unwrap());
        attempt.check_source(now).and_then(|()| attempt.check_account(now)).is_ok()
    }

    #[test]
    fn failures_are_limited_and_come_back_one_by_one() {
        let (attempts, now) = (attempts(10), Instant::now());
        assert_eq!(exhaust(&attempts, "alice", HOME, now), (10, Duration::from_secs(6)));
        assert!(!is_heard(&attempts, "alice", HOME, now + Duration::from_millis(5999)));
        let later = now + Duration::from_secs(6);
        assert_eq!(exhaust(&attempts, "alice", HOME, later), (1, Duration::from_secs(6)));
        let much_later = now + Duration::from_secs(600);
        assert_eq!(exhaust(&attempts, "alice", HOME, much_later), (10, Duration::from_secs(6)));
    }

    #[test]
    fn one_address_cannot_go_on_with_other_names_nor_one_name_from_other_addresses() {
        let (attempts, now) = (attempts(3), Instant::now());
        exhaust(&attempts, "alice", HOME, now);
        assert!(!is_heard(&attempts, "bob", HOME, now));
        assert!(!is_heard(&attempts, "alice", ELSEWHERE, now));
        assert!(is_heard(&attempts, "bob", ELSEWHERE, now));
    }

    #[test]
    fn who_logged_in_from_there_before_is_not_locked_out_by_others() {
        let (attempts, now) = (attempts(3), Instant::now());
        attempts.attempt(Some(&account("alice")), HOME.parse().unwrap()).succeeded();
        exhaust(&attempts, "alice", ELSEWHERE, now);
        exhaust(&attempts, "bob", HOME, now);
        assert!(is_heard(&attempts, "alice", HOME, now), "from home");
        assert!(!is_heard(&attempts, "alice", ELSEWHERE, now), "from elsewhere");
        assert_eq!(exhaust(&attempts, "alice", HOME, now).0, 3, "but has no more guesses than anybody");
    }

    #[test]
    fn a_regulars_failures_lock_nobody_else_out() {
        let (attempts, now) = (attempts(3), Instant::now());
        attempts.attempt(Some(&account("alice")), HOME.parse().unwrap()).succeeded();
        exhaust(&attempts, "alice", HOME, now);
        assert!(is_heard(&attempts, "bob", HOME, now) && is_heard(&attempts, "alice", ELSEWHERE, now));
    }

    #[test]
    fn trying_a_closed_account_costs_the_address_its_tries() {
        let (attempts, now) = (attempts(3), Instant::now());
        exhaust(&attempts, "alice", HOME, now);
        for _ in 0..3 {
            assert!(!is_heard(&attempts, "alice", ELSEWHERE, now));
        }
        assert!(!is_heard(&attempts, "bob", ELSEWHERE, now));
    }

    #[test]
    fn names_that_no_account_can_have_share_one_limit() {
        let (attempts, now) = (attempts(1), Instant::now());
        let attempt = |address: &str| attempts.attempt(None, address.parse().unwrap());
        attempt(HOME).failed(now);
        assert!(attempt(ELSEWHERE).check_account(now).is_err());
    }

    #[test]
    fn an_ipv6_network_and_an_ipv4_address_count_as_one_client() {
        let same = |one: &str, two: &str| network(one.parse().unwrap()) == network(two.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
