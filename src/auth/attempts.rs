//! Who has guessed too often?
//!
//! Only failed logins count, each key's at the same [`Rate`]. Attempts that are refused for this reason do not count
//! again.
//!
//! What counts where:
//!
//! - A **stranger** (an account and an address that have not logged in together before) is limited by its address, over
//!   all accounts, and by the account, over all addresses. The first stops one machine from trying many names, the
//!   second stops many machines from trying one.
//! - A **regular** (an account that did log in from this address in the last day, or nearly: see [`RENEWED_AFTER`]) has
//!   a limit of its own and meets no other. So nobody can lock people out of their accounts by failing on purpose from
//!   elsewhere, and a broken client behind a shared address or a proxy does not lock out its neighbours. It gives a guesser
//!   nothing: this pair, too, has only its few failures a minute.
//!
//! - **Behind a proxy that does not say for whom it speaks**, everybody has the same address, and it is nobody's. A limit
//!   of it would let one guesser lock all others out, for as long as they like and with names that do not even exist. So
//!   there each account has, as a regular has, a limit of its own; who floods a name there keeps out whoever has that
//!   name, and the work is bounded by [`hashing`](super::hashing). A proxy that says for whom it speaks and is trusted is
//!   better: then it is the guesser's address that is limited.
//!
//! **Invariant:** memory is bounded by [`KEYS`] in each table; the least recently used are forgotten first.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::rate::{KEYS, Rate};

/// How long a pair of account and address stays a regular.
const REGULAR_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How old that may become before another login makes it new. Builds log in many times a second, and writing it down costs
/// more than looking it up; so a pair stays a regular for a day after its last login, less at most this.
const RENEWED_AFTER: Duration = Duration::from_secs(60 * 60);

/// The failed logins of the last minute.
pub(super) struct Attempts<N: Name> {
    accounts: Rate<Option<N>>,
    sources: Rate<Source<N>>,
    /// Since when they are.
    regulars: Cache<(N, Option<IpAddr>), Instant>,
}

/// What accounts are named by.
pub(super) trait Name: Hash + Eq + Clone + Send + Sync + 'static {}

impl<T: Hash + Eq + Clone + Send + Sync + 'static> Name for T {}

/// Where an attempt comes from, as far as limits go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Source<N> {
    /// An address, whatever account it tries.
    Address(IpAddr),
    /// An account at an address, or at none of its own.
    Pair(Option<N>, Option<IpAddr>),
}

impl<N: Name> Attempts<N> {
    pub(super) fn new(failures_per_minute: NonZeroU32) -> Self {
        Self {
            accounts: Rate::new(Some(failures_per_minute)),
            sources: Rate::new(Some(failures_per_minute)),
            regulars: Cache::builder()
                .max_capacity(KEYS)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(REGULAR_FOR)
                .build(),
        }
    }

    /// From now on so many failures a minute.
    pub(super) fn limit(&self, failures_per_minute: NonZeroU32) {
        self.accounts.set(Some(failures_per_minute));
        self.sources.set(Some(failures_per_minute));
    }

    /// A login begins. `account` is `None` for every name that no account can have, `network` where it is nobody's
    /// ([`Caller::network`](crate::exchange::Caller)).
    pub(super) fn attempt(&self, account: Option<&N>, network: Option<IpAddr>) -> Attempt<'_, N> {
        let regular_since = account.and_then(|account| self.regulars.get(&(account.clone(), network)));
        let source = match network {
            Some(network) if regular_since.is_none() => Source::Address(network),
            _ => Source::Pair(account.cloned(), network),
        };
        Attempt { attempts: self, account: account.cloned(), regular_since, source, network }
    }

    /// Gives an address, and every account at it, its tries back; says how many limits that concerned.
    pub(super) fn forgive_network(&self, network: IpAddr) -> usize {
        self.sources.forgive(|source| match source {
            Source::Address(from) => *from == network,
            Source::Pair(_, from) => *from == Some(network),
        })
    }

    /// Gives an account its tries back, wherever it is tried from; says how many limits that concerned.
    pub(super) fn forgive_account(&self, account: &N) -> usize {
        let is_meant = |name: &Option<N>| name.as_ref() == Some(account);
        let at_addresses = self.sources.forgive(|source| match source {
            Source::Address(_) => false,
            Source::Pair(name, _) => is_meant(name),
        });
        self.accounts.forgive(is_meant) + at_addresses
    }
}

/// One login between its beginning and its outcome.
pub(super) struct Attempt<'a, N: Name> {
    attempts: &'a Attempts<N>,
    account: Option<N>,
    regular_since: Option<Instant>,
    source: Source<N>,
    network: Option<IpAddr>,
}

impl<N: Name> Attempt<'_, N> {
    /// Whether this account has logged in from this address before.
    pub(super) fn is_regular(&self) -> bool {
        self.regular_since.is_some()
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
    pub(super) fn succeeded(&self, now: Instant) {
        let is_fresh = |since| now.saturating_duration_since(since) < RENEWED_AFTER;
        if let Some(account) = &self.account
            && !self.regular_since.is_some_and(is_fresh)
        {
            self.attempts.regulars.insert((account.clone(), self.network), now);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::AccountName;

    const HOME: &str = "192.0.2.1";
    const ELSEWHERE: &str = "198.51.100.9";
    /// Where everybody has the same address.
    const PROXY: &str = "a proxy";

    fn attempts(limit: u32) -> Attempts<AccountName> {
        Attempts::new(NonZeroU32::new(limit).unwrap())
    }

    fn at(address: &str) -> Option<IpAddr> {
        (address != PROXY).then(|| address.parse().unwrap())
    }

    fn account(name: &str) -> AccountName {
        name.parse().unwrap()
    }

    /// Fails as often as that is possible, and says how often that was and how long to wait now.
    fn exhaust(attempts: &Attempts<AccountName>, name: &str, address: &str, now: Instant) -> (u32, Duration) {
        let mut failures = 0;
        loop {
            let name = account(name);
            let attempt = attempts.attempt(Some(&name), at(address));
            if let Err(wait) = attempt.check_source(now).and_then(|()| attempt.check_account(now)) {
                return (failures, wait);
            }
            attempt.failed(now);
            failures += 1;
        }
    }

    fn is_heard(attempts: &Attempts<AccountName>, name: &str, address: &str, now: Instant) -> bool {
        let name = account(name);
        let attempt = attempts.attempt(Some(&name), at(address));
        attempt.check_source(now).and_then(|()| attempt.check_account(now)).is_ok()
    }

    #[test]
    fn a_regular_that_logs_in_often_is_written_down_once_an_hour() {
        let (attempts, now) = (attempts(3), Instant::now());
        let alice = account("alice");
        let since_after = |passed: Duration| {
            attempts.attempt(Some(&alice), at(HOME)).succeeded(now + passed);
            attempts.attempt(Some(&alice), at(HOME)).regular_since.unwrap() - now
        };
        assert_eq!(since_after(Duration::ZERO), Duration::ZERO);
        assert_eq!(since_after(RENEWED_AFTER - Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(since_after(RENEWED_AFTER), RENEWED_AFTER);
        assert_eq!(since_after(Duration::ZERO), RENEWED_AFTER, "a login that took its time");
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
        attempts.attempt(Some(&account("alice")), at(HOME)).succeeded(now);
        exhaust(&attempts, "alice", ELSEWHERE, now);
        exhaust(&attempts, "bob", HOME, now);
        assert!(is_heard(&attempts, "alice", HOME, now), "from home");
        assert!(!is_heard(&attempts, "alice", ELSEWHERE, now), "from elsewhere");
        assert_eq!(exhaust(&attempts, "alice", HOME, now).0, 3, "but has no more guesses than anybody");
    }

    #[test]
    fn a_regulars_failures_lock_nobody_else_out() {
        let (attempts, now) = (attempts(3), Instant::now());
        attempts.attempt(Some(&account("alice")), at(HOME)).succeeded(now);
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
        let attempt = |address: &str| attempts.attempt(None, at(address));
        attempt(HOME).failed(now);
        assert!(attempt(ELSEWHERE).check_account(now).is_err());
    }

    #[test]
    fn behind_a_proxy_that_names_nobody_a_guesser_locks_out_no_name_but_the_guessed() {
        let (attempts, now) = (attempts(3), Instant::now());
        for number in 0..100 {
            exhaust(&attempts, &format!("guess{number}"), PROXY, now);
        }
        assert_eq!(exhaust(&attempts, "alice", PROXY, now).0, 3, "who has the same few guesses as anywhere");
        assert!(is_heard(&attempts, "bob", PROXY, now) && is_heard(&attempts, "bob", HOME, now));
        assert!(!is_heard(&attempts, "alice", PROXY, now) && !is_heard(&attempts, "alice", HOME, now));
    }

    #[test]
    fn behind_a_proxy_a_closed_account_is_not_compared_without_end() {
        let (attempts, now) = (attempts(3), Instant::now());
        exhaust(&attempts, "alice", HOME, now);
        let attempt = attempts.attempt(Some(&account("alice")), None);
        let compared = (0..10).filter(|_| attempt.check_source(now).is_ok() && attempt.check_account(now).is_err());
        assert_eq!(compared.count(), 3);
    }

    #[test]
    fn an_address_and_an_account_can_be_forgiven() {
        let (attempts, now) = (attempts(3), Instant::now());
        let home = at(HOME).unwrap();
        exhaust(&attempts, "alice", HOME, now);
        assert_eq!(attempts.forgive_network(home), 1);
        assert!(is_heard(&attempts, "bob", HOME, now) && !is_heard(&attempts, "alice", HOME, now));
        assert_eq!(attempts.forgive_account(&account("alice")), 1);
        assert!(is_heard(&attempts, "alice", HOME, now));
        assert_eq!(attempts.forgive_account(&account("alice")), 0);
    }

    #[test]
    fn a_new_limit_holds_at_once() {
        let (attempts, now) = (attempts(3), Instant::now());
        attempts.limit(NonZeroU32::new(5).unwrap());
        assert_eq!(exhaust(&attempts, "alice", HOME, now).0, 5);
    }
}
