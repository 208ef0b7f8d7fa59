//! How far is an order with its proofs?
//!
//! For whoever gives it up in the middle: whether the authority could have looked at one, and whether it is one of our
//! own places that keeps the order waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::super::Challenge;
use super::super::order::{Failure, Proof, Proofs};

/// Proofs of one order that note how far they are.
pub(in super::super) struct Noted {
    proofs: Arc<dyn Proofs>,
    progress: Arc<Progress>,
}

/// How far they are.
#[derive(Debug, Default)]
pub(in super::super) struct Progress {
    presented: AtomicBool,
    /// By number, so that the first has been here for the longest time.
    pending: Mutex<(u64, BTreeMap<u64, Pending>)>,
}

/// A proof that is on its way to where the authority is to look.
#[derive(Debug, Clone)]
pub(in super::super) struct Pending {
    by: Challenge,
    name: String,
    since: Instant,
}

impl Noted {
    /// Proofs for one order, and how far they are.
    pub(in super::super) fn of(proofs: &Arc<dyn Proofs>) -> (Arc<dyn Proofs>, Arc<Progress>) {
        let progress = Arc::<Progress>::default();
        (Arc::new(Self { proofs: Arc::clone(proofs), progress: Arc::clone(&progress) }), progress)
    }
}

#[async_trait]
impl Proofs for Noted {
    async fn present(&self, proof: &Proof) -> Result<(), Failure> {
        let _pending = self.progress.begin(proof);
        self.proofs.present(proof).await?;
        self.progress.presented.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn withdraw(&self, proof: &Proof) {
        self.proofs.withdraw(proof).await;
    }
}

impl Progress {
    /// Whether a proof was presented: the authority is not asked to look before.
    pub(in super::super) fn has_presented(&self) -> bool {
        self.presented.load(Ordering::Relaxed)
    }

    /// What has been on its way for so long, if anything has.
    pub(in super::super) fn stuck(&self, time: Duration) -> Option<Pending> {
        let oldest = self.pending.lock().1.first_key_value().map(|(_, pending)| pending.clone());
        oldest.filter(|pending| pending.since.elapsed() >= time)
    }

    /// Notes that it is on its way, until what this gives is dropped.
    fn begin(&self, proof: &Proof) -> OnItsWay<'_> {
        let one = Pending { by: proof.by, name: proof.name.clone(), since: Instant::now() };
        let mut pending = self.pending.lock();
        pending.0 += 1;
        let number = pending.0;
        pending.1.insert(number, one);
        OnItsWay { progress: self, number }
    }
}

impl Pending {
    /// Whether it goes into a folder. A DNS server and a program of the operator's have deadlines of their own.
    pub(in super::super) fn is_at_folder(&self) -> bool {
        self.by != Challenge::Dns01
    }

    /// What keeps it, and where to look.
    pub(in super::super) fn reason(&self) -> String {
        let Self { by, name, since } = self;
        let place = match by {
            Challenge::TlsAlpn01 => "the folder has not answered (`tls.acme.storage`)",
            Challenge::Http01 => "a folder has not answered (`tls.acme.storage`, `tls.acme.webroot`)",
            Challenge::Dns01 => "the DNS server or the program has not ended (`tls.acme.dns`)",
        };
        let seconds = since.elapsed().as_secs();
        format!("the proof that {name} is ours cannot be shown by {}: {place} for {seconds} s", by.name())
    }
}

struct OnItsWay<'a> {
    progress: &'a Progress,
    number: u64,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.progress.pending.lock().1.remove(&self.number);
    }
}
