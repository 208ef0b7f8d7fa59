//! What did a client prove, and does it still hold?
//!
//! A connection outlives the handshake in which its client was verified. What it showed is kept, and verified again when
//! the authorities or what they withdrew have changed, and once a [minute](LASTS) since anything of it may run out.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use super::{Demand, subject};

/// How long a verdict counts.
const LASTS: Duration = Duration::from_secs(60);

/// Who verifies at a time. Another one has other authorities or other lists.
type Judge = Arc<dyn ClientCertVerifier>;

/// The handshake in which somebody is asked.
#[derive(Debug)]
pub struct Asking {
    demand: Arc<Demand>,
    judge: Weak<Judge>,
}

/// What a client showed, of which it has the key.
#[derive(Debug)]
pub struct Proof {
    chain: Vec<CertificateDer<'static>>,
    subject: Option<String>,
    verdict: Mutex<Verdict>,
}

#[derive(Debug)]
struct Verdict {
    /// Only to be compared: what it had read is let go.
    by: Weak<Judge>,
    at: UnixTime,
    good: bool,
}

impl Asking {
    /// Before the handshake, so that what changes in it is seen.
    pub fn by(demand: Arc<Demand>) -> Self {
        let judge = Arc::downgrade(&demand.verifier.now.load());
        Self { demand, judge }
    }

    /// What is asked.
    pub fn demand(&self) -> &Demand {
        &self.demand
    }

    /// What was proven when the handshake is done: no session is resumed where anything is asked, so that it was verified
    /// now.
    pub fn done(self, chain: Option<&[CertificateDer<'_>]>) -> Proof {
        let chain: Vec<_> = chain.unwrap_or_default().iter().map(|one| one.clone().into_owned()).collect();
        let subject = chain.first().and_then(subject::of);
        let verdict = Verdict { by: self.judge, at: UnixTime::now(), good: subject.is_some() };
        Proof { chain, subject, verdict: Mutex::new(verdict) }
    }
}

impl Proof {
    /// Whose certificate it is, if there is one and this would let it in now.
    pub fn subject(&self, demand: &Demand, now: UnixTime) -> Option<&str> {
        let (own, others) = self.chain.split_first()?;
        let judge = demand.verifier.now.load();
        let mut verdict = self.verdict.lock();
        let age = now.as_secs().checked_sub(verdict.at.as_secs());
        let lasts = age.is_some_and(|age| age < LASTS.as_secs());
        if !lasts || !std::ptr::eq(verdict.by.as_ptr(), Arc::as_ptr(&judge)) {
            let verified = demand.verifier.verify_client_cert(own, others, now);
            if let Err(reason) = &verified {
                tracing::info!(subject = self.subject, %reason, "a client's certificate is not accepted any more");
            }
            *verdict = Verdict { by: Arc::downgrade(&judge), at: now, good: verified.is_ok() };
        }
        self.subject.as_deref().filter(|_| verdict.good)
    }
}
