//! What is said about orders, and how often?
//!
//! Attempts may fail every few seconds. A failure is said when it is another than before, and once an hour. While clients
//! refuse what is shown, or soon will, it is said once an hour whether or not there are attempts.

use std::time::Duration;

use tokio::time::Instant;

use super::order::{Failure, Kind};
use super::storage::Found;
use super::{Challenge, Place, renewal};
use crate::tls::remark::time;

const HOURLY: Duration = Duration::from_secs(60 * 60);
/// The same failure in other words (a URL, a number) is not another before this.
const OTHER_WORDS: Duration = Duration::from_secs(60);

/// Whoever says it, for one certificate.
#[derive(Debug)]
pub(super) struct Voice {
    names: String,
    directory: String,
    said: Option<Said>,
}

#[derive(Debug)]
struct Said {
    kind: Kind,
    reason: String,
    shown: Shown,
    at: Instant,
}

/// How what is shown does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Unknown,
    Nothing,
    Good(i64),
    Overdue(i64),
    Expired(i64),
}

impl Voice {
    pub(super) fn of(place: &Place) -> Self {
        Self { names: place.names.join(", "), directory: place.directory.clone(), said: None }
    }

    pub(super) fn begins(&self, by: Challenge) {
        tracing::info!("a certificate for {} is ordered from {}, by {}", self.names, self.directory, by.name());
    }

    pub(super) fn issued(&mut self) {
        self.said = None;
        tracing::info!("a certificate for {} came from {}", self.names, self.directory);
    }

    /// An attempt failed, with this there.
    pub(super) fn failed(&mut self, failure: &Failure, found: Option<&Found>, next: i64, now: i64) {
        let shown = found.map_or(Shown::Unknown, |found| Shown::of(found, now));
        let is_new = self.said.as_ref().is_none_or(|said| {
            let age = said.at.elapsed();
            let changed = said.kind != failure.kind || !said.shown.is_like(shown);
            changed || age >= HOURLY || (said.reason != failure.reason && age >= OTHER_WORDS)
        });
        if is_new {
            self.say(failure.kind, &failure.reason, shown, next.max(now));
        }
    }

    /// Says again what is wrong, where that is urgent.
    pub(super) fn remind(&mut self, found: &Found, next: i64, now: i64) {
        let shown = Shown::of(found, now);
        let silent = self.said.as_ref().is_none_or(|said| said.at.elapsed() >= HOURLY || !said.shown.is_like(shown));
        let urgent = !matches!(shown, Shown::Good(_));
        if let Some(last) = found.history.last.as_ref().filter(|_| silent && urgent) {
            self.say(last.kind, &last.reason, shown, next.max(now));
        }
    }

    fn say(&mut self, kind: Kind, reason: &str, shown: Shown, next: i64) {
        let (names, directory, again) = (&self.names, &self.directory, time(next));
        let shown_is = shown.words();
        tracing::error!(
            "no certificate for {names} from {directory}: {reason}; {shown_is}; the next attempt is at {again}"
        );
        self.said = Some(Said { kind, reason: reason.to_owned(), shown, at: Instant::now() });
    }
}

impl Shown {
    fn of(found: &Found, now: i64) -> Self {
        let Some(certificate) = &found.certificate else { return Self::Nothing };
        let (from, until) = (certificate.facts.not_before, certificate.facts.not_after);
        match () {
            () if now >= until => Self::Expired(until),
            () if now >= renewal::overdue(from, until) => Self::Overdue(until),
            () => Self::Good(until),
        }
    }

    fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    fn words(self) -> String {
        match self {
            Self::Unknown => "what is shown stays".to_owned(),
            Self::Nothing => "the local authority's is shown, which clients do not trust".to_owned(),
            Self::Good(until) => format!("the one that is shown is good until {}", time(until)),
            Self::Overdue(until) => format!("the one that is shown EXPIRES SOON, at {}", time(until)),
            Self::Expired(until) => format!("the one that is shown EXPIRED at {}, and clients refuse it", time(until)),
        }
    }
}
