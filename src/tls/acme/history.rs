//! What was tried for a certificate: as much as the next decision needs, so that a restart or another node does not begin
//! anew.

use serde::{Deserialize, Serialize};

use super::order::{Failure, Kind};
use super::{Challenge, renewal};

/// The longest reason that is kept, in bytes.
const LONGEST_REASON: usize = 2000;

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
}

/// What a certificate is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Purpose {
    pub(super) directory: String,
    pub(super) names: Vec<String>,
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

    /// What of it counts for this purpose. Other names, or another directory, have not failed yet; how many certificates
    /// were issued counts all the same, and how often one authority could not see names.
    pub(super) fn for_purpose(self, of: &Purpose) -> Self {
        if self.of == *of {
            return self;
        }
        let failed_proofs = if self.of.directory == of.directory { self.failed_proofs } else { Vec::new() };
        Self { of: of.clone(), failed_proofs, issued: self.issued, ..Self::default() }
    }

    /// Puts times that have yet to come, because a clock was wrong, where they can harm no more; whether there were any.
    pub(super) fn clamp(&mut self, now: i64) -> bool {
        let times = self.failed_proofs.iter_mut().chain(&mut self.issued).chain(&mut self.begun);
        let times = times.chain(self.last.as_mut().map(|last| &mut last.at));
        times.fold(false, |wrong, time| {
            let ahead = *time > now;
            *time = now.min(*time);
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
