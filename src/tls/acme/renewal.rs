//! When is a certificate ordered, and when again after a failure?
//!
//! ```text
//! nothing there, a name missing, from elsewhere   now
//! the authority names a window (RFC 9773)         a point in it that the certificate's name chooses
//! else                                            at 2/3 of its life; at 1/2 of one shorter than ten days
//!
//! not reached, or our own fault                   5 s after the failure, doubling to an hour
//! refused                                         an hour, doubling to a day
//! limited                                         what the authority says, else an hour; a week at most, and at least a
//!                                                 minute, doubling to an hour
//! a name could not be proven                      the next way to prove it at once; after each round through all ways
//!                                                 15 minutes, doubling to 12 hours
//! came to no end: this program was ended          5 s after it began
//! ```
//!
//! **Invariants**
//! - Everything is a function of what it is given; there is no clock and no chance in it, so every node comes to the
//!   same answer.
//! - In any hour at most [`PROOFS`] attempts fail to prove the names of a certificate, or may have, whatever else holds,
//!   restarts and other nodes included: Let's Encrypt allows five.
//! - No other wait is longer than a tenth of what is left of the certificate (at least a second), so that there are always
//!   more attempts before its end; after its end, than a tenth of the time since.

use super::history::History;
use super::order::{Failure, Kind, Window};
use crate::tls::local::seconds;

const SECOND: i64 = 1;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

/// How many attempts may fail to prove names in [`PROOFS_WITHIN`].
///
/// An attempt that came to no end may have failed so, and counts.
pub(super) const PROOFS: usize = 4;
/// An hour, and a minute because the authority's clock is another.
pub(super) const PROOFS_WITHIN: i64 = HOUR + MINUTE;
/// How many certificates are ordered in [`CHANGES_WITHIN`] before the time of the one that is there: more means that two
/// nodes with different configurations share a folder, and each replaces what the other ordered, or that the authority
/// wants each new one to be renewed at once.
pub(super) const CHANGES: usize = 4;
/// Let's Encrypt gives five equal certificates a week.
pub(super) const CHANGES_WITHIN: i64 = DAY;
/// A certificate that lives shorter than this is renewed at half of its life.
const SHORT: i64 = 10 * DAY;
/// After an attempt that came to no end began.
const INTERRUPTED: i64 = 5 * SECOND;
/// The longest that an authority is left alone because it said so.
const LIMITED: i64 = 7 * DAY;
/// Who has a certificate that was issued so long ago needs no other.
const FRESH: i64 = HOUR;
/// Before another way to prove a name is tried.
const OTHER_WAY: i64 = 5 * SECOND;

/// A certificate that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// From when it is valid for us, in seconds since 1970: some authorities say a time long before it was ordered.
    pub(super) from: i64,
    /// Until when.
    pub(super) until: i64,
    /// Whether it is what the configuration wants.
    pub(super) fits: bool,
}

/// Everything that the decision depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    /// What is there.
    pub(super) held: Option<Held>,
    /// When the authority would like it to be renewed.
    pub(super) window: Option<Window>,
    /// What was tried.
    pub(super) history: &'a History,
    /// How many ways there are to prove the names.
    pub(super) ways: u32,
    /// A number that the certificate's name makes: not all are ordered in one moment.
    pub(super) seed: u64,
}

impl Case<'_> {
    /// When the next order begins, in seconds since 1970. It may be over.
    pub(super) fn next(&self) -> i64 {
        let again = self.history.last.as_ref().map_or(i64::MIN, |last| self.again(last));
        self.due().max(again).max(self.interrupted()).max(self.proofs_free())
    }

    /// Until when no order begins although somebody asks for one, and why; the last of such times, which may be over.
    pub(super) fn barred(&self) -> (i64, Bar) {
        let limited = self.history.last.as_ref().filter(|last| matches!(last.kind, Kind::RateLimited(_)));
        let fresh = self.held.filter(|held| held.fits).map_or(i64::MIN, |held| held.from.saturating_add(FRESH));
        let bars = [
            (fresh, Bar::Fresh),
            (self.changes_free(), Bar::Changes),
            (self.proofs_free(), Bar::Proofs),
            (limited.map_or(i64::MIN, |last| self.again(last)), Bar::Limited),
        ];
        bars.into_iter().max_by_key(|(until, _)| *until).unwrap_or((i64::MIN, Bar::Fresh))
    }

    /// When a certificate is needed, if nothing failed.
    pub(super) fn due(&self) -> i64 {
        match self.held {
            Some(held) if held.fits => self.renewal(held),
            _ => self.changes_free(),
        }
    }

    /// From when on one may be replaced before its time.
    fn changes_free(&self) -> i64 {
        free(&self.history.issued, CHANGES, CHANGES_WITHIN)
    }

    /// When a certificate that fits is renewed.
    fn renewal(&self, held: Held) -> i64 {
        let Held { from, until, .. } = held;
        // Whatever the authority would like: there is time for some attempts.
        let latest = until - (until - from) / 10;
        let usual = usual(from, until);
        // Sooner than usual, as when it will be withdrawn, is a change: the new one's window may be over at once, too.
        let sooner = |point: i64| if point < usual { point.max(self.changes_free()).min(usual) } else { point };
        let point = self.window.and_then(|window| point_in(window, self.seed));
        point.map_or(usual, sooner).min(latest)
    }

    /// No wait is longer than this.
    fn longest(&self, since: i64) -> i64 {
        self.held.map_or(i64::MAX, |held| ((held.until - since).abs() / 10).max(SECOND))
    }

    /// When to try again after an attempt that came to no end, or is another node's.
    pub(super) fn interrupted(&self) -> i64 {
        let wait = |begun: i64| begun.saturating_add(INTERRUPTED.min(self.longest(begun)));
        self.history.begun.map_or(i64::MIN, wait)
    }

    /// When to try again after a failure.
    fn again(&self, last: &super::history::Failed) -> i64 {
        let wait = self.wait(last);
        let wait = wait.saturating_add(portion(wait / 10, self.seed));
        last.at.saturating_add(wait.min(self.longest(last.at)))
    }

    fn wait(&self, last: &super::history::Failed) -> i64 {
        let History { unproven, refused, unreachable, limited, .. } = *self.history;
        match last.kind {
            Kind::Validation if unproven % self.ways.max(1) != 0 => OTHER_WAY,
            Kind::Validation => doubled(15 * MINUTE, unproven / self.ways.max(1), 12 * HOUR),
            Kind::RateLimited(said) => {
                let said = said.map_or(HOUR, |said| i64::try_from(said.as_secs()).unwrap_or(i64::MAX));
                said.clamp(doubled(MINUTE, limited, HOUR), LIMITED)
            }
            Kind::Refused => doubled(HOUR, refused, DAY),
            Kind::Unreachable | Kind::Ours => doubled(5 * SECOND, unreachable, HOUR),
        }
    }

    /// From when on names may be proven again, in seconds since 1970.
    pub(super) fn proofs_free(&self) -> i64 {
        let History { failed_proofs, begun, .. } = self.history;
        let times: Vec<i64> = failed_proofs.iter().chain(begun).copied().collect();
        free(&times, PROOFS, PROOFS_WITHIN)
    }
}

/// Why no order begins although somebody asks for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Bar {
    /// The names could not be proven too often.
    #[default]
    Proofs,
    /// The authority wants to be left alone.
    Limited,
    /// There is one that is hardly an hour old.
    Fresh,
    /// There were too many within a day.
    Changes,
}

/// Without a word of the authority's.
pub(super) fn usual(from: i64, until: i64) -> i64 {
    let life = until - from;
    if life < SHORT { from + life / 2 } else { from + life / 3 * 2 }
}

/// When a certificate should have been renewed long ago: half of the time that was for it is over.
pub(in crate::tls) fn overdue(from: i64, until: i64) -> i64 {
    until - (until - usual(from, until)) / 2
}

/// RFC 9773 4.2: any point in the window, here one that stays the same. A window that ends before it begins is none.
fn point_in(window: Window, seed: u64) -> Option<i64> {
    let (start, end) = (seconds(window.start), seconds(window.end));
    (end > start).then(|| start + portion(end - start, seed))
}

/// A part of a whole.
fn portion(whole: i64, seed: u64) -> i64 {
    let parts = i64::from(u16::MAX);
    let part = i64::try_from(seed % u64::from(u16::MAX)).unwrap_or_default();
    whole / parts * part + whole % parts * part / parts
}

/// The first wait, doubled with each failure after the first.
fn doubled(first: i64, failures: u32, longest: i64) -> i64 {
    let doublings = failures.saturating_sub(1).min(32);
    first.saturating_mul(1 << doublings).min(longest)
}

/// From when on there may be one more, when at most so many may lie within so long.
fn free(times: &[i64], most: usize, within: i64) -> i64 {
    let nth = times.len().checked_sub(most).and_then(|nth| times.get(nth));
    nth.map_or(i64::MIN, |time| time.saturating_add(within))
}

/// What a failure adds to a history.
pub(super) fn failed(history: &mut History, failure: &Failure, now: i64) {
    history.begun = None;
    // Whoever looked at proofs may have counted this, however it ended.
    if failure.proven || failure.kind == Kind::Validation {
        remember(&mut history.failed_proofs, now, PROOFS);
    }
    let count = match failure.kind {
        Kind::Validation => &mut history.unproven,
        Kind::Refused => &mut history.refused,
        Kind::Unreachable | Kind::Ours => &mut history.unreachable,
        Kind::RateLimited(_) => &mut history.limited,
    };
    *count = count.saturating_add(1);
    history.fails(super::history::Failed::of(failure, now));
}

/// The authority issued one, whatever becomes of it here.
pub(super) fn issued(history: &mut History, now: i64) {
    remember(&mut history.issued, now, CHANGES);
}

/// What a success makes of it: what was issued is there.
pub(super) fn done(history: &mut History, by: super::Challenge) {
    *history = History {
        issued: std::mem::take(&mut history.issued),
        failed_proofs: std::mem::take(&mut history.failed_proofs),
        by: Some(by.name().to_owned()),
        of: std::mem::take(&mut history.of),
        ..History::default()
    };
}

/// Adds a time; of the older ones no more than the decision needs are kept.
pub(super) fn remember(times: &mut Vec<i64>, now: i64, most: usize) {
    times.push(now);
    times.sort_unstable();
    times.drain(..times.len().saturating_sub(most));
}

#[cfg(test)]
mod tests;
