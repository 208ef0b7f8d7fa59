//! Is this token of another service one that counts?
//!
//! Tokens as Distribution's specification has them, signed by whom the operator trusts ([`Trust`]). The header says by whom,
//! in one of three ways, tried in Distribution's order until one leads to a trusted key: a chain of certificates (`x5c`), the
//! key itself (`jwk`), or its name (`kid`). Trying on after a chain that leads nowhere (an issuer that renewed the
//! certificate of a known key) gives nothing away: whoever signed could have left the chain out.
//!
//! A header with none of them is tried with every trusted key. That is safe, because each of them would have been believed
//! under its name, and a key only verifies with the algorithms of its kind. (Distribution 2 refuses such tokens.)
//!
//! What was verified once is remembered ([`super::remembered`]) with the keys that vouched for it, for as long as the
//! certificates that they came with are valid.
//!
//! **Invariant:** claims are looked at only after the signature was found to be that of a trusted key.
//! **Invariant:** whatever text arrives, the work is bounded: [`MAX_TOKEN`], [`anchors`]' chain length and number of keys.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::Value;

use super::challenge::Desk;
use super::claims::{Claims, Invalid, Vouched};
use super::remembered::{ALWAYS, LONGEST, Remembered};
use super::watched::Watched;
use super::{Error, Grant, Trust};
use crate::exchange::Origin;
use anchors::Anchors;
use complaints::Complaints;
use key::{ALGORITHMS, Jwk, Key};

mod anchors;
mod complaints;
mod key;

pub(super) use key::libtrust_id;

/// The longest token, in bytes.
const MAX_TOKEN: usize = LONGEST;
/// The most audiences of a token.
const MAX_AUDIENCES: usize = 10;

/// Checks the tokens of another service.
pub(super) struct Trusted {
    trust: Trust,
    keys: Watched<Keys>,
    complaints: Complaints,
}

/// The trusted keys, and the tokens that they vouched for: files that are read again begin with none.
struct Keys {
    anchors: Anchors,
    remembered: Remembered,
}

impl Keys {
    fn read(trust: &Trust) -> Result<Self, Error> {
        Ok(Self { anchors: Anchors::read(trust)?, remembered: Remembered::new() })
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    jwk: Option<Jwk>,
    x5c: Option<Vec<String>>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn list(&self) -> &[String] {
        match self {
            Self::One(audience) => std::slice::from_ref(audience),
            Self::Several(list) => list,
        }
    }
}

#[derive(Deserialize)]
struct Addressed {
    aud: Audience,
}

impl Trusted {
    /// Reads the keys. It blocks.
    pub(super) fn open(trust: &Trust) -> Result<Self, Error> {
        if let Some(unknown) = trust.algorithms.iter().find(|name| !ALGORITHMS.contains(&name.as_str())) {
            return Err(Error::Algorithm(unknown.clone()));
        }
        let files = trust.bundle.iter().chain(&trust.key_set).cloned().collect();
        let read = trust.clone();
        let keys = Watched::open(files, move || Keys::read(&read))?;
        Ok(Self { trust: trust.clone(), keys, complaints: Complaints::default() })
    }

    /// What clients that came by this origin are told.
    pub(super) fn desk<'a>(&'a self, origin: &'a Origin) -> Desk<'a> {
        Desk { realm: &self.trust.realm, origin, service: &self.trust.service, names_what_it_refuses: false }
    }

    /// What the token allows now.
    pub(super) async fn verify(&self, token: &str, now: Timestamp, steady: Instant) -> Result<Arc<Grant>, Invalid> {
        let Keys { anchors, remembered } = &*self.keys.content(steady).await;
        remembered.get_or(token, now, || self.verify_with(anchors, token, now, steady))?.at(now)
    }

    /// What the token says, and the seconds around now in which those keys vouch for it.
    fn verify_with(
        &self,
        anchors: &Anchors,
        token: &str,
        now: Timestamp,
        steady: Instant,
    ) -> Result<(Vouched, RangeInclusive<i64>), Invalid> {
        let parts = Parts::of(token).ok_or(Invalid::Untrue)?;
        let allowed = &self.trust.algorithms;
        let named = allowed.is_empty() || allowed.contains(&parts.header.alg);
        // RFC 7515 4.1.11: what must be understood and is not makes the token invalid.
        if !named || parts.header.crit.is_some() {
            return Err(Invalid::Untrue);
        }
        let (candidates, holds) = candidates(&parts.header, anchors, now);
        if candidates.is_empty() {
            self.complaints.untrusted(parts.header.kid.as_deref(), anchors.ids(), steady);
            return Err(Invalid::Untrue);
        }
        let signs = |key: &Key| key.verifies(&parts.header.alg, parts.signed.as_bytes(), &parts.signature);
        if !candidates.iter().any(signs) {
            return Err(Invalid::Untrue);
        }
        Ok((self.claims(&parts.claims, steady)?.vouched(), holds))
    }

    /// The claims, if they are by the issuer and for us.
    fn claims(&self, text: &[u8], steady: Instant) -> Result<Claims, Invalid> {
        let claims: Claims = serde_json::from_slice(text).map_err(|_| Invalid::Untrue)?;
        let Addressed { aud } = serde_json::from_slice(text).map_err(|_| Invalid::Untrue)?;
        if claims.iss != self.trust.issuer {
            self.complaints.issuer(&claims.iss, &self.trust.issuer, steady);
            return Err(Invalid::Untrue);
        }
        let audiences = aud.list();
        if audiences.len() > MAX_AUDIENCES || !audiences.contains(&self.trust.service) {
            self.complaints.audience(audiences.iter().map(String::as_str), &self.trust.service, steady);
            return Err(Invalid::Untrue);
        }
        Ok(claims)
    }
}

/// A token taken apart (RFC 7515 7.1), nothing of it believed yet.
struct Parts<'a> {
    header: Header,
    signed: &'a str,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Option<Self> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?; // a dot too many is no base64
        let decoded = |text| URL_SAFE_NO_PAD.decode(text).ok();
        let header = serde_json::from_slice(&decoded(header)?).ok()?;
        Some(Self { header, signed, claims: decoded(claims)?, signature: decoded(signature)? })
    }
}

/// The trusted keys that may have signed, and the seconds around now in which they are trusted.
fn candidates(header: &Header, anchors: &Anchors, now: Timestamp) -> (Vec<Key>, RangeInclusive<i64>) {
    if let Some((key, holds)) = header.x5c.as_deref().and_then(chain).and_then(|chain| anchors.leaf(&chain, now)) {
        return (vec![key], holds);
    }
    if let Some(key) = header.jwk.as_ref().and_then(Key::of_jwk).filter(|key| anchors.holds(key)) {
        return (vec![key], ALWAYS);
    }
    let named = match &header.kid {
        Some(id) => anchors.named(id).cloned().collect(),
        None if header.x5c.is_none() && header.jwk.is_none() => anchors.all().cloned().collect(),
        None => Vec::new(),
    };
    (named, ALWAYS)
}

fn chain(encoded: &[String]) -> Option<Vec<CertificateDer<'static>>> {
    encoded.iter().map(|text| STANDARD.decode(text).ok().map(CertificateDer::from)).collect()
}

#[cfg(test)]
mod tests;
