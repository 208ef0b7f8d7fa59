//! What does a token say?
//!
//! A JWS as Distribution's token specification has it, with the claims that GitLab's tokens carry. It names its key
//! twice, because registries differ in what they look for: `x5c` is what Distribution 2, Distribution 3 and GitLab's fork
//! all try first; `kid` is libtrust's fingerprint, for anything older that only knows that.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::credential::Identity;
use super::keys::TokenKey;
use super::{Algorithm, Config, Error};
use crate::oci::{Access, Action};

/// How far before its making a token begins, in seconds: for a verifier whose clock is a little behind.
const BACKDATED: i64 = 5;

/// Makes tokens.
pub(super) struct Issuer {
    /// The header, encoded: it is the same in every token.
    header: String,
    issuer: String,
    audience: String,
    lifetime: i64,
}

impl Issuer {
    pub(super) fn new(config: &Config, key: &TokenKey) -> Self {
        let header = json!({ "typ": "JWT", "alg": config.algorithm.name(), "kid": key.id, "x5c": [key.x5c] });
        Self {
            header: URL_SAFE_NO_PAD.encode(header.to_string()),
            issuer: config.issuer.clone(),
            audience: config.service.clone(),
            lifetime: i64::try_from(config.duration.as_secs()).unwrap_or(i64::MAX),
        }
    }

    /// How long a token is valid, in seconds.
    pub(super) fn lifetime(&self) -> i64 {
        self.lifetime
    }

    /// A token for somebody, or nobody, that allows exactly `access`.
    pub(super) fn issue(
        &self,
        key: &TokenKey,
        identity: &Identity,
        access: &[Access],
        now: Timestamp,
    ) -> Result<String, Error> {
        let access: Vec<_> = access.iter().map(entry).collect();
        let now = now.as_second();
        let mut claims = json!({
            "iss": self.issuer,
            "aud": self.audience,
            "auth_type": identity.kind(),
            "access": access,
            "iat": now,
            "nbf": now - BACKDATED,
            "exp": now.saturating_add(self.lifetime),
            "jti": Uuid::new_v4().to_string(),
        });
        if let Some(name) = identity.name() {
            claims["sub"] = json!(name.as_str());
        }
        let signed = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = key.sign(signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn entry(access: &Access) -> serde_json::Value {
    let actions: Vec<&str> = access.actions.iter().copied().map(Action::as_str).collect();
    json!({ "type": access.resource.kind(), "name": access.resource.name(), "actions": actions })
}

impl Algorithm {
    /// As JWS headers say it (RFC 7518 3.1).
    fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}
