//! May anything change now?
//!
//! Two may say no: the configuration (`storage.maintenance.readonly`) and the operator while the server runs
//! ([`Maintenance::order`]). Everything can be pulled all the while.
//!
//! **What was begun may end.** From the beginning of a [`Pause`] no upload begins and nothing is deleted. Until the end of
//! its grace time the uploads that there are may go on, and manifests come in: a manifest is the last step of a push and
//! nothing in it says when the push began, so that refusing it would throw away what clients have just finished sending.
//! What somebody pushes of layers that were there already passes with them; who must be sure of a moment takes the end of
//! the grace time, or none.
//!
//! **Invariant:** after the grace time nothing begins to change. A request that still writes then is refused in its middle:
//! its upload stays, with what was answered for. One step that is on its way to the disk (a commit, a tag) is brought to
//! its end, as everywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Error;
use crate::exchange::{Answer, Permit};
use crate::oci::Endpoint;

/// How writes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// 405: clients give up.
    ReadOnly,
    /// 503 with `Retry-After`: clients that can try again do.
    Unavailable,
}

/// A time in which nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// How writes are refused.
    pub mode: Mode,
    /// Since when.
    pub since: Timestamp,
    /// Until when what was begun may end.
    pub grace_until: Timestamp,
}

impl Pause {
    /// From `now` on.
    pub fn new(mode: Mode, now: Timestamp, grace: Duration) -> Self {
        let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
        Self { mode, since: now, grace_until: now.checked_add(grace).unwrap_or(Timestamp::MAX) }
    }

    fn allows(&self, endpoint: &Endpoint, now: Timestamp) -> bool {
        now < self.grace_until && finishes(endpoint)
    }
}

/// Whether a push that was begun may need it.
fn finishes(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::UploadAppend { .. }
        | Endpoint::UploadCommit { .. }
        | Endpoint::UploadCancel { .. }
        | Endpoint::ManifestWrite { .. } => true,
        Endpoint::Version
        | Endpoint::Catalog { .. }
        | Endpoint::Tags { .. }
        | Endpoint::ManifestRead { .. }
        | Endpoint::Referrers { .. }
        | Endpoint::BlobRead { .. }
        | Endpoint::UploadStatus { .. }
        | Endpoint::Options { .. }
        | Endpoint::ManifestDelete { .. }
        | Endpoint::BlobDelete { .. }
        | Endpoint::UploadStart { .. } => false,
    }
}

/// Who says no.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Pauses {
    configured: Option<Pause>,
    ordered: Option<Pause>,
}

impl Pauses {
    fn all(&self) -> impl Iterator<Item = Pause> + use<> {
        self.configured.into_iter().chain(self.ordered)
    }

    /// What a write that may not be is told.
    fn refusal(&self) -> Option<Error> {
        match (self.configured, self.ordered) {
            (_, Some(Pause { mode: Mode::Unavailable, .. })) => Some(Error::Maintenance),
            (_, Some(Pause { mode: Mode::ReadOnly, .. })) => Some(Error::ReadOnly),
            (Some(_), None) => Some(Error::ReadOnlyByConfiguration),
            (None, None) => None,
        }
    }
}

/// Whether anything may change, for all who write.
#[derive(Debug, Default)]
pub struct Maintenance {
    pauses: watch::Sender<Pauses>,
    writing: AtomicUsize,
}

impl Maintenance {
    /// What the configuration says. A pause that lasts already goes on as it began.
    pub fn configure(&self, read_only: bool, now: Timestamp, grace: Duration) {
        let pause = read_only.then(|| Pause::new(Mode::ReadOnly, now, grace));
        self.pauses.send_modify(|pauses| pauses.configured = pause.map(|new| pauses.configured.unwrap_or(new)));
    }

    /// What the operator says from now on.
    pub fn order(&self, pause: Option<Pause>) {
        self.pauses.send_modify(|pauses| pauses.ordered = pause);
    }

    /// What the operator said last.
    pub fn ordered(&self) -> Option<Pause> {
        self.pauses.borrow().ordered
    }

    /// What the configuration says.
    pub fn configured(&self) -> Option<Pause> {
        self.pauses.borrow().configured
    }

    /// How many requests that change something are being answered.
    pub fn writing(&self) -> usize {
        self.writing.load(Ordering::Acquire)
    }

    pub(super) fn is_on(&self) -> bool {
        self.pauses.borrow().all().next().is_some()
    }

    /// Lets a request change something, or says why not.
    pub(super) fn enter(self: &Arc<Self>, endpoint: &Endpoint, now: Timestamp) -> Result<Writing, Error> {
        self.admit(|pause| pause.allows(endpoint, now))
    }

    /// The same for a request that somebody else answers; `finishes`: a push that was begun may need it.
    ///
    /// # Errors
    /// The answer that it gets instead.
    pub fn pass(self: &Arc<Self>, finishes: bool, now: Timestamp) -> Result<Writing, Box<Answer>> {
        let allows = |pause: &Pause| finishes && now < pause.grace_until;
        self.admit(allows).map_err(|refusal| Box::new(refusal.answer()))
    }

    fn admit(self: &Arc<Self>, allows: impl Fn(&Pause) -> bool) -> Result<Writing, Error> {
        // Counted before it is asked whether it may: who reads no writers after the end of the grace can rely on it.
        self.writing.fetch_add(1, Ordering::AcqRel);
        let writing = Writing(self.clone());
        let pauses = *self.pauses.borrow();
        match pauses.refusal() {
            Some(refusal) if !pauses.all().all(|pause| allows(&pause)) => Err(refusal),
            _ => Ok(writing),
        }
    }

    /// Why what is being written must end now, if it must.
    fn is_over(&self, now: Timestamp) -> Option<Error> {
        let pauses = *self.pauses.borrow();
        pauses.refusal().filter(|_| pauses.all().any(|pause| pause.grace_until <= now))
    }

    /// Returns when what is being written must end.
    pub(super) async fn over(&self) -> Error {
        let mut changes = self.pauses.subscribe();
        loop {
            let pauses = *changes.borrow_and_update();
            let end = pauses.all().map(|pause| pause.grace_until).min();
            let left = end.map(|end| Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default());
            let at_the_end = async {
                match left {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = at_the_end => if let Some(refusal) = pauses.refusal() { return refusal },
                _ = changes.changed() => {} // the sender is ours
            }
        }
    }
}

/// A request that changes something, as long as it lives.
#[derive(Debug)]
pub struct Writing(Arc<Maintenance>);

impl Permit for Writing {
    fn withdrawn(&self) -> Option<Answer> {
        self.0.is_over(Timestamp::now()).map(|refusal| refusal.answer())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.writing.fetch_sub(1, Ordering::AcqRel);
    }
}
