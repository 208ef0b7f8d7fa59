//! May a peer have requests, and how many?
//!
//! Two opinions count. Health checks say whether a peer is *down*; until the first they have none, and it is not, but
//! neither is it *known* to be well. Failing
//! requests *eject* it for a while: as many in a row as [`Ejection::failures`]. When that while is over it is on
//! probation: what fails then ejects it again, at once and for twice as long, until a request succeeds or the checks bring
//! it back.
//!
//! **Invariant:** nothing here reads a clock.

use std::time::Duration;

use tokio::time::Instant;

use super::{Ejection, Health};

/// No ejection is longer, unless the first already is.
const LONGEST: Duration = Duration::from_secs(300);
/// What a peer that has just come back gets of its weight, at least.
const FIRST_SHARE: f64 = 0.1;

/// How much we think of a peer. The better come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Well,
    /// Its requests failed of late.
    Ejected,
    /// It fails its checks.
    Down,
}

/// What a check changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Up,
    Down,
}

/// How a peer does.
#[derive(Debug, Clone, Default)]
pub(super) struct Condition {
    down: bool,
    /// It has passed a check, or answered a request.
    known: bool,
    /// Checks in a row that said otherwise than `down`.
    against: u32,
    /// Requests in a row that failed.
    failures: u32,
    /// Ejections in a row.
    ejections: u32,
    ejected_until: Option<Instant>,
    /// When it last came back, or will; `None`: it was never away.
    back: Option<Instant>,
}

impl Condition {
    pub(super) fn standing(&self, now: Instant) -> Standing {
        match self.ejected_until {
            _ if self.down => Standing::Down,
            Some(until) if now < until => Standing::Ejected,
            _ => Standing::Well,
        }
    }

    /// Whether it has ever been well.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Whether nothing was wrong of late.
    pub(super) fn is_untroubled(&self) -> bool {
        !self.down && self.against == 0 && self.failures == 0
    }

    /// A check had this result.
    pub(super) fn checked(&mut self, good: bool, health: &Health, now: Instant) -> Option<Change> {
        self.known |= good;
        if good != self.down {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let enough = if good { health.healthy } else { health.unhealthy };
        if self.against < enough.get() {
            return None;
        }
        if good {
            *self = Self { back: Some(now), known: true, ..Self::default() };
            Some(Change::Up)
        } else {
            (self.down, self.against) = (true, 0);
            Some(Change::Down)
        }
    }

    pub(super) fn succeeded(&mut self) {
        (self.failures, self.ejections, self.known) = (0, 0, true);
    }

    /// A request failed. Gives for how long the peer is ejected, if it is; never where it is the last (`may` is false).
    pub(super) fn failed(&mut self, ejection: Option<Ejection>, may: bool, now: Instant) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        let ejection = ejection.filter(|_| may && self.standing(now) == Standing::Well)?;
        if self.failures < ejection.failures.get() {
            return None;
        }
        let doubled = ejection.time.saturating_mul(2_u32.saturating_pow(self.ejections));
        let time = doubled.min(LONGEST.max(ejection.time));
        self.ejections = self.ejections.saturating_add(1);
        self.ejected_until = Some(now + time);
        self.back = self.ejected_until;
        Some(time)
    }

    /// Its part of its weight, 0 to 1: growing evenly for the time of `slow_start` after it came back.
    pub(super) fn share(&self, slow_start: Duration, now: Instant) -> f64 {
        let Some(back) = self.back.filter(|_| !slow_start.is_zero()) else { return 1.0 };
        let since = now.saturating_duration_since(back);
        (since.as_secs_f64() / slow_start.as_secs_f64()).clamp(FIRST_SHARE, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use http::StatusCode;

    use super::super::super::PathPrefix;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn health() -> Health {
        Health {
            path: PathPrefix::new("/v2/").unwrap(),
            interval: 5 * SECOND,
            timeout: 2 * SECOND,
            unhealthy: NonZeroU32::new(2).unwrap(),
            healthy: NonZeroU32::new(3).unwrap(),
            status: vec![StatusCode::UNAUTHORIZED],
        }
    }

    fn ejection() -> Option<Ejection> {
        Some(Ejection { failures: NonZeroU32::new(3).unwrap(), time: 10 * SECOND })
    }

    #[test]
    fn a_peer_is_well_until_it_has_failed_as_often_in_a_row_as_it_takes() {
        let (mut condition, now) = (Condition::default(), Instant::now());
        let mut check = |good| condition.checked(good, &health(), now);
        assert_eq!([false, true, false, false].map(&mut check), [None, None, None, Some(Change::Down)]);
        assert_eq!([false, true, true, false].map(&mut check), [None; 4]);
        assert_eq!([true, true, true].map(&mut check), [None, None, Some(Change::Up)]);
        assert_eq!(condition.standing(now), Standing::Well);
    }

    #[test]
    fn who_was_never_well_is_not_known_and_stays_known_once_it_was() {
        let now = Instant::now();
        let passed = |condition: &mut Condition| assert_eq!(condition.checked(true, &health(), now), None);
        for once_well in [&passed as &dyn Fn(&mut Condition), &Condition::succeeded] {
            let mut condition = Condition::default();
            assert!(!condition.is_known() && condition.is_untroubled());
            assert_eq!(condition.checked(false, &health(), now), None);
            assert!(!condition.is_known() && !condition.is_untroubled());
            once_well(&mut condition);
            assert!(condition.is_known());
        }
    }

    #[test]
    fn failing_requests_eject_for_longer_and_longer_until_one_succeeds() {
        let (mut condition, mut now) = (Condition::default(), Instant::now());
        let fail = |condition: &mut Condition, now| condition.failed(ejection(), true, now);
        assert_eq!((fail(&mut condition, now), fail(&mut condition, now)), (None, None));
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            let time = seconds * SECOND;
            assert_eq!(fail(&mut condition, now), Some(time));
            assert_eq!(fail(&mut condition, now), None, "what ran before changes nothing");
            assert_eq!(condition.standing(now + time - SECOND), Standing::Ejected);
            now += time;
            assert_eq!(condition.standing(now), Standing::Well);
        }
        condition.succeeded();
        assert_eq!(fail(&mut condition, now), None);
    }

    #[test]
    fn the_last_is_not_ejected_and_nobody_where_that_is_off() {
        let (mut condition, now) = (Condition::default(), Instant::now());
        for _ in 0..9 {
            assert_eq!(condition.failed(ejection(), false, now), None);
            assert_eq!(condition.failed(None, true, now), None);
        }
        assert!(condition.failed(ejection(), true, now).is_some(), "what it failed before counts");
    }

    #[test]
    fn checks_that_bring_a_peer_back_end_its_ejection() {
        let (mut condition, now) = (Condition::default(), Instant::now());
        assert!((0..3).any(|_| condition.failed(ejection(), true, now).is_some()));
        assert!((0..2).any(|_| condition.checked(false, &health(), now).is_some()));
        assert_eq!(condition.standing(now), Standing::Down);
        assert!((0..3).any(|_| condition.checked(true, &health(), now).is_some()));
        assert_eq!(condition.standing(now), Standing::Well);
    }

    #[test]
    fn who_comes_back_starts_slowly_and_who_was_never_away_does_not() {
        let (mut condition, now) = (Condition::default(), Instant::now());
        assert_eq!(condition.share(10 * SECOND, now), 1.0);
        assert!((0..3).any(|_| condition.failed(ejection(), true, now).is_some()));
        let shares = [10, 11, 15, 20, 99].map(|after| condition.share(10 * SECOND, now + after * SECOND));
        assert_eq!(shares, [0.1, 0.1, 0.5, 1.0, 1.0]);
        assert_eq!(condition.share(Duration::ZERO, now), 1.0);
    }
}
