//! How is one certificate kept?
//!
//! A task looks at what is there, asks [`renewal`] when the next order begins, and sleeps until then. An
//! attempt is a [lease](super::lease), a second look, for another node may have ordered in the meantime, an order with a
//! deadline, a check of what came of it, and a file.
//!
//! **Invariants**
//! - An attempt is written down before it begins, so a folder that cannot be written costs no certificate, and a crash
//!   does not make us forget. What was issued is counted before it is written.
//! - What was issued is checked before it takes the place of another. What could not be written is written later, and not
//!   ordered again, while it is better than what is there.
//! - What was tried is written by whoever has the lease.
//! - An attempt takes no longer than a third of the time that is left, but for what the storage folder takes: it is
//!   waited for, however long it hangs. What was begun there may still happen, and there is no certificate without it.
//!   Proofs are part of the attempt, for the authority does not wait for ever.
//! - What hangs at our side is not blamed on the authority.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::desk::{Desk, Seen};
use super::history::{Failed, History};
use super::keeper::Shared;
use super::lease::{Held, Lease};
use super::order::{Authority, Failure, Issued, Kind, Wanted, Window};
use super::proofs::{Noted, Pending, Progress};
use super::renewal::{self, Case};
use super::storage::{self, Certificate, Found, Storage};
use super::voice::Voice;
use super::{Challenge, Place};
use crate::tls::patience::{HANGS, patiently};

/// The longest sleep: clocks are put right, and other nodes order too.
const LOOK: Duration = Duration::from_secs(60);
/// While another node orders.
const POLL: Duration = Duration::from_secs(2);
/// The deadlines of an attempt. The libraries have one of their own, which is shorter than the longest.
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// The deadline of the question when to renew, and its part of the certificate's life: it must not cost the time to.
const WINDOW: (Duration, u32) = (Duration::from_secs(10), 60);
/// How often it is asked at most and at least.
const ASK: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(6 * 60 * 60));

/// Whoever keeps one certificate.
pub(super) struct Task {
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    lease: Lease,
    voice: Voice,
    /// What was tried, while that cannot be written.
    memory: Option<History>,
    /// What was issued and how, while it cannot be written.
    unpublished: Option<(String, Challenge)>,
    window: Option<Asked>,
    /// How often in a row the folder could not be read, did not answer, or gave no lease.
    blind: u32,
}

/// What the authority said about a renewal.
struct Asked {
    of: CertificateDer<'static>,
    window: Option<Window>,
    again: Instant,
}

impl Task {
    pub(super) fn new(shared: Arc<Shared>, desk: Arc<Desk>) -> Self {
        let (lease, voice) = (shared.lease(&desk.place), Voice::of(&desk.place));
        Self { shared, desk, lease, voice, memory: None, unpublished: None, window: None, blind: 0 }
    }

    pub(super) async fn keep(mut self) {
        loop {
            let pause = self.round().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.desk.bell.notified() => {}
            }
        }
    }

    /// Does what is to be done now, and says how long to sleep.
    async fn round(&mut self) -> Duration {
        let mut found = match self.look().await {
            Ok(found) => found,
            Err(failure) => return self.is_blind(&failure, None),
        };
        if found.history.clamp(self.shared.now()) {
            self.put_right().await;
        }
        self.ask_for_window(&found).await;
        let (now, next) = (self.shared.now(), self.next(&found));
        let is_wanted = self.is_wanted(&found);
        if !is_wanted {
            self.blind = 0; // a look was all there was to do
        }
        self.note(&found, next);
        self.voice.remind(&found, next, now);
        if !is_wanted {
            return LOOK.min(Duration::from_secs(u64::try_from(next.saturating_sub(now)).unwrap_or_default()));
        }
        let shared = Arc::clone(&self.shared);
        let Ok(_turn) = shared.turns.acquire().await else { return LOOK }; // closed: this is the end
        let held = match self.take_lease().await {
            Ok(held) => held,
            // Whoever has it may be at it: what he tried stays as he wrote it, and counts as that.
            Err(failure) => return self.is_blind(&failure, Some(&found)),
        };
        if std::mem::take(&mut self.blind) > 0 {
            self.note(&found, next);
        }
        let Some(held) = held else {
            self.desk.note(|seen| seen.since = found.history.begun); // another node's
            return POLL;
        };
        self.attempt_under(&held).await;
        Duration::ZERO
    }

    /// Does something with the storage folder. While that hangs nothing is decided, but for that it does, which is said.
    async fn at_folder<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Storage) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let shared = Arc::clone(&self.shared);
        patiently(shared.at_folder(work), || self.hangs()).await
    }

    async fn look(&mut self) -> Result<Found, Failure> {
        let place = self.desk.place.clone();
        let mut found = self.at_folder(move |storage| storage.look(&place)).await?;
        if let Some(memory) = &self.memory {
            found.history = memory.clone();
        }
        found.history.forgive(&self.shared.settings);
        Ok(found)
    }

    /// Writes down other times than such as have yet to come, unless another node is at it, which does the same.
    async fn put_right(&mut self) {
        let Ok(Some(held)) = self.take_lease().await else { return };
        held.during(async {
            let Ok(mut found) = self.look().await else { return };
            if found.history.clamp(self.shared.now()) {
                tracing::warn!("what was tried for {} lies in the future: was a clock wrong?", self.desk.place.first());
                // What cannot be written is put right at the next look.
                self.remember(&found.history).await.unwrap_or_else(|error| tracing::debug!(%error, "times stay"));
            }
        })
        .await;
    }

    /// What is there cannot be seen, or not be changed by one node alone, so nothing is tried.
    fn is_blind(&mut self, failure: &Failure, found: Option<&Found>) -> Duration {
        let wait = LOOK.min(Duration::from_secs(2 << self.blind.min(5)));
        self.is_blind_for(wait, failure, found);
        wait
    }

    fn hangs(&mut self) {
        let reason = format!("the folder has not answered for {} s (tls.acme.storage)", HANGS.as_secs());
        self.is_blind_for(HANGS, &Failure::new(Kind::Ours, reason), None);
    }

    fn is_blind_for(&mut self, wait: Duration, failure: &Failure, found: Option<&Found>) {
        self.blind = self.blind.saturating_add(1);
        let now = self.shared.now();
        let next = now.saturating_add(i64::try_from(wait.as_secs()).unwrap_or_default());
        let failures = self.blind;
        self.desk.note(|seen| {
            *seen = Seen { next, last: Some(Failed::of(failure, now)), failures, ..seen.clone() };
        });
        self.shared.measure();
        self.voice.failed(failure, found, next, now);
    }

    fn case<'a>(&self, found: &'a Found) -> Case<'a> {
        let place = &self.desk.place;
        let of = |asked: &&Asked| found.certificate.as_ref().is_some_and(|certificate| certificate.der == asked.of);
        Case {
            held: found.certificate.as_ref().map(|certificate| certificate.held(place)),
            window: self.window.as_ref().filter(of).and_then(|asked| asked.window),
            history: &found.history,
            ways: u32::try_from(place.ways.len()).unwrap_or(1),
            seed: place.seed(),
        }
    }

    fn next(&self, found: &Found) -> i64 {
        self.case(found).next()
    }

    /// Whether there is to be an order now: it is time, or somebody asked for one and none came since.
    fn is_wanted(&self, found: &Found) -> bool {
        let (now, case) = (self.shared.now(), self.case(found));
        let since = found.certificate.as_ref().and_then(Certificate::ordered);
        let asked = self.desk.seen().asked.filter(|asked| since.is_none_or(|since| since <= *asked));
        if asked.is_none() || case.barred().0 > now {
            self.desk.note(|seen| seen.asked = None);
            return case.next() <= now;
        }
        true
    }

    /// Whether another node is, or was a moment ago.
    fn is_another_at_it(&self, found: &Found) -> bool {
        self.case(found).interrupted() > self.shared.now()
    }

    /// Notes how it is, for who wants to know. What was tried before is no news while we are [blind](Self::is_blind):
    /// that stays the failure that is shown, also between the rounds.
    fn note(&self, found: &Found, next: i64) {
        let Found { certificate, history } = found;
        let (now, barred) = (self.shared.now(), self.case(found).barred());
        self.desk.note(|seen| {
            let (last, failures) = match self.blind {
                0 => (history.last.clone(), history.failures()),
                _ => (seen.last.clone(), seen.failures),
            };
            *seen = Seen {
                next: next.max(now),
                since: history.begun.filter(|_| self.is_another_at_it(found)),
                last,
                failures,
                barred,
                ordered: certificate.as_ref().and_then(Certificate::ordered),
                asked: seen.asked,
            };
        });
        self.shared.measure();
    }

    /// RFC 9773. Without an answer the decision is the usual one.
    async fn ask_for_window(&mut self, found: &Found) {
        let Some(certificate) = found.certificate.as_ref().filter(|one| one.held(&self.desk.place).fits) else {
            return;
        };
        let known = self.window.as_ref().filter(|asked| asked.of == certificate.der);
        if known.is_some_and(|asked| Instant::now() < asked.again) {
            return;
        }
        let der = certificate.der.clone();
        let before = known.and_then(|asked| asked.window);
        let life = certificate.facts.not_after.saturating_sub(certificate.facts.not_before);
        let life = Duration::from_secs(u64::try_from(life).unwrap_or_default());
        let window = self.window_of(der.clone(), WINDOW.0.min(life / WINDOW.1)).await.unwrap_or_else(|failure| {
            // What is at fault at our side is told when there is something to order.
            tracing::debug!(%failure, "it is not known when the authority wants {} renewed", self.desk.place.first());
            before
        });
        self.window = Some(Asked { of: der, window, again: Instant::now() + (life / 8).clamp(ASK.0, ASK.1) });
    }

    async fn window_of(&mut self, der: CertificateDer<'static>, limit: Duration) -> Result<Option<Window>, Failure> {
        let authority = self.authority().await?;
        isolated(async move { authority.renewal(&der).await }, limit, &Progress::default()).await
    }

    /// The authority. Where it is not known yet, the key of our account is read before the authority has its deadline: it
    /// does not keep our folder from answering.
    async fn authority(&mut self) -> Result<Arc<dyn Authority>, Failure> {
        if let Some(authority) = self.shared.known_authority().await {
            return Ok(authority);
        }
        let directory = self.desk.place.directory.clone();
        let key = self.at_folder(move |storage| storage.account_key(&directory)).await?;
        self.shared.authority(key).await
    }

    async fn take_lease(&mut self) -> Result<Option<Held>, Failure> {
        let mut lease = self.lease.clone();
        let taking = self.at_folder(move |_| {
            let taken = lease.take(Instant::now());
            Ok((lease, taken))
        });
        let (lease, taken) = taking.await?;
        self.lease = lease;
        taken.map_err(|error| storage::ours(&self.desk.place.pem, "take the lease of", &error))
    }

    async fn attempt_under(&mut self, held: &Held) {
        held.during(async {
            match self.look().await {
                Ok(mut found) => {
                    found.history.clamp(self.shared.now());
                    if self.is_wanted(&found) {
                        self.attempt(found).await;
                    }
                }
                Err(failure) => drop(self.is_blind(&failure, None)), // the next round says it again
            }
        })
        .await;
    }

    /// One attempt, with this node alone at it.
    async fn attempt(&mut self, found: Found) {
        let now = self.shared.now();
        let mut history = found.history.clone();
        history.begin(now);
        let outcome = match self.remember(&history).await {
            Ok(()) => {
                self.desk.note(|seen| (seen.since, seen.asked) = (Some(now), None));
                self.order(&found, &mut history).await
            }
            Err(failure) => Err(failure),
        };
        self.end(&found, history, outcome).await;
    }

    /// Notes what came of an attempt.
    async fn end(&mut self, found: &Found, mut history: History, outcome: Result<Challenge, Failure>) {
        let now = self.shared.now();
        match &outcome {
            Ok(by) => renewal::done(&mut history, *by),
            Err(failure) => {
                renewal::failed(&mut history, failure, now);
                history.fails_with(self.shared.settings.clone());
            }
        }
        self.memory = self.remember(&history).await.err().map(|_| history.clone());
        if matches!(&outcome, Err(Failure { kind: Kind::Refused | Kind::Unreachable, .. })) {
            self.shared.forget_authority().await; // what it was made of may be mended: the account's key, whom to trust
        }
        let failure = outcome.as_ref().err();
        self.shared.metrics.acme_order(failure.map_or("issued", |failure| failure.kind.name()));
        let found = Found { history, ..found.clone() };
        let next = self.next(&found);
        self.desk.note(|seen| seen.asked = None);
        if let Some(failure) = failure {
            self.blind = 0; // whatever hung meanwhile, this is what came of it
            self.note(&found, next);
            self.voice.failed(failure, Some(&found), next, now);
        } else {
            self.voice.issued();
        }
    }

    /// From names to a certificate in its file.
    async fn order(&mut self, found: &Found, history: &mut History) -> Result<Challenge, Failure> {
        let (place, now) = (self.desk.place.clone(), self.shared.now());
        let unpublished = self.unpublished.take();
        let (text, by) = match unpublished.filter(|(text, _)| storage::is_better(text, &place, found, now)) {
            Some(unpublished) => unpublished,
            None => {
                let (by, ways) = ways(&self.desk.place, history)?;
                self.voice.begins(by);
                let issued = self.issue(found, ways).await?;
                // Before anything can become of it: a crash must not make us forget that there was one.
                renewal::issued(history, self.shared.now());
                self.remember(history)
                    .await
                    .unwrap_or_else(|error| tracing::debug!(%error, "it is written at the end"));
                (self.check(&issued, found)?, by)
            }
        };
        self.unpublished = Some((text.clone(), by));
        self.at_folder(move |storage| storage.publish(&place, &text)).await?;
        self.unpublished = None;
        Ok(by)
    }

    /// What the authority issues.
    async fn issue(&mut self, found: &Found, ways: Vec<Challenge>) -> Result<Issued, Failure> {
        let (authority, place) = (self.authority().await?, self.desk.place.clone());
        let replaced = found.certificate.as_ref().filter(|one| one.is_from(&place.directory));
        let replaced = replaced.map(|certificate| certificate.der.clone());
        let held = found.certificate.as_ref().map(|certificate| certificate.held(&place));
        let deadline = deadline(held.map_or(0, |held| held.until - self.shared.now()));
        let (proofs, progress) = Noted::of(&self.shared.proofs);
        let order = async move {
            let wanted = Wanted { names: &place.names, ways: &ways, replaces: replaced.as_ref() };
            authority.order(&wanted, &proofs).await
        };
        patiently(isolated(order, deadline, &progress), || {
            if let Some(pending) = progress.stuck(HANGS).filter(Pending::is_at_folder) {
                self.is_blind_for(HANGS, &Failure::new(Kind::Ours, pending.reason()), None);
            }
        })
        .await
    }

    /// The text of what was issued, if it is what was ordered.
    fn check(&self, issued: &Issued, found: &Found) -> Result<String, Failure> {
        storage::checked(issued, &self.desk.place, found.certificate.as_ref(), self.shared.now()).map_err(|reason| {
            Failure::new(
                Kind::Refused,
                format!("what {} issued is not what was ordered: {reason}", self.desk.place.directory),
            )
        })
    }

    async fn remember(&mut self, history: &History) -> Result<(), Failure> {
        let (place, history) = (self.desk.place.clone(), history.clone());
        self.at_folder(move |storage| storage.remember(&place, &history)).await
    }
}

/// The way that is tried first, and all of them in that order.
fn ways(place: &Place, history: &History) -> Result<(Challenge, Vec<Challenge>), Failure> {
    let ways = history.ways(&place.ways);
    ways.first().copied().map(|first| (first, ways)).ok_or_else(|| {
        Failure::new(
            Kind::Ours,
            "a wildcard can be proven by dns-01 only, which is not among tls.acme.challenges".to_owned(),
        )
    })
}

/// A third of what is left; where nothing is left, as long as it takes.
fn deadline(left: i64) -> Duration {
    let third = Duration::from_secs(u64::try_from(left / 3).unwrap_or_default());
    if left > 0 { third.clamp(SHORTEST, LONGEST) } else { LONGEST }
}

/// Does what a library may hang or panic in. Where it comes to no end, the authority may have looked at what was presented,
/// and whoever it waits for is to blame.
async fn isolated<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    deadline: Duration,
    progress: &Progress,
) -> Result<T, Failure> {
    let mut one = JoinSet::new(); // aborts what it has when it is dropped
    one.spawn(work);
    let cut_off = |kind, reason| Err(Failure { proven: progress.has_presented(), ..Failure::new(kind, reason) });
    match timeout(deadline, one.join_next()).await {
        Ok(Some(Ok(done))) => done,
        Ok(Some(Err(error))) => cut_off(Kind::Ours, format!("a fault of this program: {error}")),
        Ok(None) | Err(_) => {
            let given_up = format!("it was given up after {} s", deadline.as_secs());
            match progress.stuck(HANGS.min(deadline / 2)) {
                Some(pending) => cut_off(Kind::Ours, format!("{given_up}: {}", pending.reason())),
                None => cut_off(Kind::Unreachable, format!("{given_up} without an end")),
            }
        }
    }
}
