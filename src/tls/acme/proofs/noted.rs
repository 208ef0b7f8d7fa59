//! Could the authority have looked at a proof?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::super::order::{Failure, Proof, Proofs};

/// Notes that a proof was presented: the authority is not asked to look before.
pub(in super::super) struct Noted {
    proofs: Arc<dyn Proofs>,
    presented: Arc<AtomicBool>,
}

impl Noted {
    /// Proofs for one order, and whether any was presented so far.
    pub(in super::super) fn of(proofs: &Arc<dyn Proofs>) -> (Arc<dyn Proofs>, Arc<AtomicBool>) {
        let presented = Arc::new(AtomicBool::new(false));
        (Arc::new(Self { proofs: Arc::clone(proofs), presented: Arc::clone(&presented) }), presented)
    }
}

#[async_trait]
impl Proofs for Noted {
    async fn present(&self, proof: &Proof) -> Result<(), Failure> {
        self.proofs.present(proof).await?;
        self.presented.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn withdraw(&self, proof: &Proof) {
        self.proofs.withdraw(proof).await;
    }
}
