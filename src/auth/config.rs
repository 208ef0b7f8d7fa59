//! What the operator may say about tokens and accounts, checked.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// Token service and accounts, as meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the token endpoint is served: `/jwt/auth`.
    pub path: String,
    /// The audience of our tokens and the `service` that clients must name.
    pub service: String,
    /// The `iss` of our tokens.
    pub issuer: String,
    /// How long a token is valid.
    pub duration: Duration,
    /// How tokens are signed.
    pub algorithm: Algorithm,
    /// The private key (PEM, PKCS#8). Made on first start when it is missing.
    pub key: PathBuf,
    /// The certificate of that key, which other registries need as `rootcertbundle`. Made with the key.
    pub certificate: PathBuf,
    /// Wrong passwords per minute, for each account and for each client address.
    pub failed_logins: NonZeroU32,
    /// Whether a developer of a group may create projects in it by pushing.
    pub members_may_create_projects: bool,
}

/// Signature algorithms of our tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256.
    Es256,
    /// RSA (3072 bits when we make the key), for verifiers that know nothing else.
    Rs256,
}
