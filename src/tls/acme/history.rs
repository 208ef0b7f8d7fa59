//! What was tried for a certificate: as much as the next decision needs, so that a restart or another node does not begin
//! anew.

use serde::{Deserialize, Serialize};

use super::order::{Failure, Kind};
use super::place::digest;
use super::{Challenge, renewal};

/// How far ahead the clock of another node may be.
const AHEAD: i64 = 5 * 60;
/// The longest reason that is kept, in bytes.
const LONGEST_REASON: usize = 2000;
/// How many settings and purposes are known to have failed: more than those of nodes that share a folder and differ, or
/// each would try again because of the other.
const SETTINGS: usize = 32;

/// What was tried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct History {
    /// For which names and from which directory.
    pub(super) of: Purpose,
    /// Attempts since the last success that could not prove a name.
    pub(super) unproven: u32,
    /// ... that were refused.
    pub(super) refused: u32,
    /// ... that did not reach the authority, or failed here.
    pub(super) unreachable: u32,
    /// ... that came too often.
    pub(super) limited: u32,
    /// When the last attempts failed to prove a name, in seconds since 1970.
    pub(super) failed_proofs: Vec<i64>,
    /// When the last certificates were issued.
    pub(super) issued: Vec<i64>,
    /// When the attempt that is under way began. Nobody is at it: whoever was did not live to tell.
    pub(super) begun: Option<i64>,
    /// The last failure, if no success came after it.
    pub(super) last: Option<Failed>,
    /// The way that proved the names last.
    pub(super) by: Option<String>,
    /// With which settings, and for which purposes, attempts failed since the last success: digests, the last few.
    pub(super) failed_with: Vec<String>,
}

/// What a certificate is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Purpose {
    pub(super) directory: String,
    pub(super) names: Vec<String>,
}

impl Purpose {
    fn digest(&self) -> String {
        digest(&format!("{} {}", self.directory, self.names.join(" ")))
    }
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failed {
    /// When, in seconds since 1970.
    pub(super) at: i64,
    pub(super) kind: Kind,
    pub(super) reason: String,
}

impl Failed {
    pub(super) fn of(failure: &Failure, at: i64) -> Self {
        let mut reason = failure.reason.clone();
        reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
        Self { at, kind: failure.kind, reason }
    }
}

impl History {
    /// Failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        [self.unproven, self.refused, self.unreachable, self.limited].into_iter().fold(0, u32::saturating_add)
    }

    /// What of it counts for this purpose. For what has not failed yet, as other names, there is nothing to wait for, but
    /// an authority that wants to be left alone. Once it failed, too, each of two nodes that differ waits for what became
    /// of the other's attempts, or they would order in turns without a pause. Budgets know no purpose.
    pub(super) fn for_purpose(mut self, of: &Purpose) -> Self {
        if self.of == *of {
            return self;
        }
        let elsewhere = self.of.directory != of.directory;
        let limited = self.last.as_ref().is_some_and(|last| matches!(last.kind, Kind::RateLimited(_)));
        if !self.failed_with.contains(&of.digest()) && (elsewhere || !limited) {
            let Self { failed_proofs, issued, begun, failed_with, .. } = self;
            self = Self { failed_proofs, issued, begun, failed_with, ..Self::default() };
        }
        Self { of: of.clone(), by: None, ..self }
    }

    /// An attempt failed.
    pub(super) fn fails(&mut self, failed: Failed) {
        self.fails_with(self.of.digest());
        self.last = Some(failed);
    }

    /// With settings that have not failed yet there is nothing to wait for: somebody may have mended what was refused. A
    /// failure to prove a name is none of theirs.
    pub(super) fn forgive(&mut self, settings: &str) {
        let theirs = |last: &Failed| matches!(last.kind, Kind::Refused | Kind::Unreachable | Kind::Ours);
        if self.last.as_ref().is_some_and(theirs) && !self.failed_with.iter().any(|failed| failed == settings) {
            (self.last, self.refused, self.unreachable) = (None, 0, 0);
        }
    }

    /// An attempt with these settings, or for this purpose, failed.
    pub(super) fn fails_with(&mut self, digest: String) {
        self.failed_with.retain(|known| *known != digest);
        self.failed_with.push(digest);
        self.failed_with.drain(..self.failed_with.len().saturating_sub(SETTINGS));
    }

    /// Puts times that have yet to come, because a clock was wrong, where they can harm no more; whether there were any.
    /// The clocks of two nodes are never the same.
    pub(super) fn clamp(&mut self, now: i64) -> bool {
        let times = self.failed_proofs.iter_mut().chain(&mut self.issued).chain(&mut self.begun);
        let times = times.chain(self.last.as_mut().map(|last| &mut last.at));
        times.fold(false, |wrong, time| {
            let ahead = *time > now.saturating_add(AHEAD);
            if ahead {
                *time = now;
            }
            wrong | ahead
        })
    }

    /// An attempt begins. If one did that came to no end, it may have failed to prove a name, and is counted as if it had.
    pub(super) fn begin(&mut self, now: i64) {
        if self.begun.replace(now).is_some() {
            renewal::remember(&mut self.failed_proofs, now, renewal::PROOFS);
        }
    }

    /// The ways to prove names in the next attempt: first the one that did it last, then the others in the operator's
    /// order; each failure to prove one begins one further.
    pub(super) fn ways(&self, ways: &[Challenge]) -> Vec<Challenge> {
        let first = ways.iter().position(|way| Some(way.name()) == self.by.as_deref()).unwrap_or_default();
        let (step, count) = (usize::try_from(self.unproven).unwrap_or_default(), ways.len().max(1));
        let mut ways = ways.to_vec();
        ways.rotate_left((first + step % count) % count);
        ways
    }
}
