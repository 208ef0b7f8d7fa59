//! Who speaks with the authority, and how?
//!
//! ```text
//! drive     one order from names to a certificate: what is said when, deadlines, nonces, pauses
//! plain     the calls of an order by rustls-acme
//! full      the same by instant-acme, which also knows bound accounts, profiles, DNS-01, ARI; account: who we are there
//! http      what both need of the web: whom to trust, proxies, deadlines, limits
//! shown     the proofs of an order, from when they are presented until they are withdrawn
//! problem   what an authority's refusal means, and what to do about it
//! ```
//!
//! [`choose`] says which library does it. Both do the same things in the same order, because [`drive`] tells them.
//!
//! **Invariants**
//! - Every call has a deadline, and so has the whole order. An answer that never comes is a [`Failure`] like any other.
//! - A proof that was presented is withdrawn, whatever came of the order, also when it is given up in the middle. When the
//!   process ends in that moment it may stay: nobody is there to take it away.
//! - The key of a certificate is made for its order and is used for no other.
//!
//! **Not here, on purpose:** when to order, how often, and where the certificate goes.

mod account;
mod drive;
mod full;
mod http;
mod plain;
mod problem;
mod shown;

use std::sync::Arc;

use async_trait::async_trait;
use rustls::pki_types::CertificateDer;

use super::order::{Authority, Failure, Issued, Kind, Proofs, Wanted, Window};
use super::{Challenge, Config};
use drive::{PATIENCE, Patience};

/// A library that speaks ACME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    /// rustls-acme.
    Plain,
    /// instant-acme.
    Full,
}

/// rustls-acme, unless something is wanted that only instant-acme has.
fn choose(config: &Config, proxied: bool) -> Engine {
    let by_dns = config.challenges.contains(&Challenge::Dns01);
    let more = config.account.is_some() || config.profile.is_some() || by_dns || proxied;
    if more { Engine::Full } else { Engine::Plain }
}

/// The authority of the configuration, where this key (PKCS #8, P-256) is our account. Nothing is said to it yet.
///
/// # Errors
/// A file of the configuration that cannot be read or used.
pub(super) fn authority(config: &Config, account_key_pkcs8: Vec<u8>) -> Result<Arc<dyn Authority>, Failure> {
    made(config, account_key_pkcs8, choose(config, http::proxied()), PATIENCE)
}

fn made(config: &Config, key: Vec<u8>, engine: Engine, patience: Patience) -> Result<Arc<dyn Authority>, Failure> {
    let trust = http::trust(config)?;
    let web = http::Web::new(&trust)?;
    let plain = (engine == Engine::Plain).then(|| plain::Plain::new(config, key.clone(), trust, web.clone(), patience));
    Ok(Arc::new(Engines { plain, full: full::Full::new(config, key, web, patience)? }))
}

/// An authority, and who speaks with it.
struct Engines {
    /// Who orders, if it can do all that is wanted.
    plain: Option<plain::Plain>,
    /// Else.
    full: full::Full,
}

#[async_trait]
impl Authority for Engines {
    async fn order(&self, wanted: &Wanted<'_>, proofs: &Arc<dyn Proofs>) -> Result<Issued, Failure> {
        match &self.plain {
            Some(plain) => plain.order(wanted, proofs).await,
            None => self.full.order(wanted, proofs).await,
        }
    }

    async fn renewal(&self, certificate: &CertificateDer<'_>) -> Result<Option<Window>, Failure> {
        self.full.renewal(certificate).await
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
