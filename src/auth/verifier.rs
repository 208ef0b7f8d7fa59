//! Is this token ours, and what does it allow?
//!
//! **Invariant:** only our own key counts, with the one algorithm it is used with. What the header of a token says about
//! keys is not looked at.
//! **Invariant:** a [`Grant`] exists only when the signature, the issuer, the audience and the times hold. The first three
//! cannot change while we run, so they are remembered ([`super::remembered`]); the times are looked at on each use.

use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::{DecodingKey, Validation};

use super::claims::{Claims, Invalid};
use super::keys::TokenKey;
use super::remembered::{ALWAYS, Remembered};
use super::{Algorithm, Config, Grant};

/// Checks tokens.
pub(super) struct Verifier {
    key: DecodingKey,
    validation: Validation,
    remembered: Remembered,
}

impl Verifier {
    pub(super) fn new(config: &Config, key: &TokenKey) -> Self {
        let (key, algorithm) = match config.algorithm {
            Algorithm::Es256 => (DecodingKey::from_ec_der(&key.public), jsonwebtoken::Algorithm::ES256),
            Algorithm::Rs256 => (DecodingKey::from_rsa_der(&key.public), jsonwebtoken::Algorithm::RS256),
        };
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.service]);
        validation.set_required_spec_claims(&["iss", "aud", "exp", "nbf"]);
        // The library would ask the clock; we check the times below, against the `now` that we are given.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Self { key, validation, remembered: Remembered::new() }
    }

    /// What the token allows now.
    pub(super) fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Grant>, Invalid> {
        let found_out = || {
            let decoded = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation);
            decoded.map(|decoded| (decoded.claims.vouched(), ALWAYS)).map_err(|_| Invalid::Untrue)
        };
        self.remembered.get_or(token, now, found_out)?.at(now)
    }

    /// How many tokens are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> u64 {
        self.remembered.len()
    }
}
