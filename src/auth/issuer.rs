//! What does a token say?
//!
//! A JWS as Distribution's token specification has it, with the claims that GitLab's tokens carry. It names its key
//! twice, because registries differ in what they look for: `x5c` is what Distribution 2, Distribution 3 and GitLab's fork
//! all try first; `kid` is libtrust's fingerprint, for anything older that only knows that.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::credential::Identity;
use super::keys::TokenKey;
use super::{Algorithm, Config, Error};
use crate::exchange::unique;
use crate::metadata::AccountName;
use crate::oci::{Access, Action};

/// How far before its making a token begins, in seconds: for a verifier whose clock is a little behind.
const BACKDATED: i64 = 5;
/// Claims are rarely longer, and signatures never: room that is made at once.
const USUAL: usize = 512;

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
        let now = now.as_second();
        let claims = Claims {
            iss: &self.issuer,
            sub: identity.name().map(AccountName::as_str),
            aud: &self.audience,
            auth_type: identity.kind(),
            access: access.iter().map(Entry::of).collect(),
            iat: now,
            nbf: now - BACKDATED,
            exp: now.saturating_add(self.lifetime),
            jti: uuid::Builder::from_random_bytes(unique()).into_uuid(),
        };
        let mut text = Vec::with_capacity(USUAL);
        serde_json::to_writer(&mut text, &claims).map_err(|_| Error::Internal("writing a token"))?;
        let mut token = String::with_capacity(self.header.len() + 2 * text.len() + USUAL);
        token.push_str(&self.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(text, &mut token);
        let signature = key.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// The claims of a token; nobody in particular has no `sub`.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    aud: &'a str,
    auth_type: &'a str,
    access: Vec<Entry<'a>>,
    iat: i64,
    nbf: i64,
    exp: i64,
    #[serde(serialize_with = "hyphenated")]
    jti: uuid::Uuid,
}

fn hyphenated<S: serde::Serializer>(id: &uuid::Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()))
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    name: &'a str,
    actions: Vec<&'static str>,
}

impl<'a> Entry<'a> {
    fn of(access: &'a Access) -> Self {
        let actions = access.actions.iter().copied().map(Action::as_str).collect();
        Self { kind: access.resource.kind(), name: access.resource.name(), actions }
    }
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
