//! Is this token ours, and what does it allow?
//!
//! **Invariant:** only our own key counts, with the one algorithm it is used with. What the header of a token says about
//! keys is not looked at.
//! **Invariant:** a [`Grant`] exists only when the signature, the issuer, the audience and the times hold.

use jiff::Timestamp;
use jsonwebtoken::{DecodingKey, Validation};
use serde::Deserialize;

use super::keys::TokenKey;
use super::{Algorithm, Config, Grant};
use crate::oci::{Access, Resource, Scope};

/// How much clocks may differ, in seconds, as Distribution allows.
const LEEWAY: i64 = 60;

/// Checks tokens.
pub(super) struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

/// The claims that decide; others may come along.
#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    iss: String,
    exp: i64,
    nbf: i64,
    #[serde(default)]
    access: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
}

/// The text is not a token of ours, or not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Invalid;

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
        Self { key, validation }
    }

    /// What the token allows now.
    pub(super) fn verify(&self, token: &str, now: Timestamp) -> Result<Grant, Invalid> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation).map_err(|_| Invalid)?.claims;
        let now = now.as_second();
        if claims.exp.saturating_add(LEEWAY) <= now || claims.nbf.saturating_sub(LEEWAY) > now {
            return Err(Invalid);
        }
        Ok(Grant {
            subject: claims.sub,
            issuer: Some(claims.iss),
            access: claims.access.iter().filter_map(Entry::parse).collect(),
            everything: false,
        })
    }
}

impl Entry {
    /// What a later version of ours may have granted and this one does not know is left out.
    fn parse(&self) -> Option<Access> {
        let Scope(access) = format!("{}:{}:{}", self.kind, self.name, self.actions.join(",")).parse().ok()?;
        let exact = match &access.resource {
            Resource::Repository(name) => name.as_str() == self.name,
            Resource::Catalog => true,
        };
        exact.then_some(access)
    }
}
