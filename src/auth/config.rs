//! What the operator may say about tokens and accounts, checked.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::exchange::Origin;

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
    /// How often may be asked, as long as [`Guardian::limit`](super::Guardian::limit) and
    /// [`Authority::limit`](super::Authority::limit) say nothing else.
    pub limits: Limits,
    /// Whether a developer of a group may create projects in it by pushing.
    pub members_may_create_projects: bool,
    /// Who guards the embedded registry.
    pub guard: Guard,
    /// How long after its start an upload may be continued with a token that expired on the way; zero: not at all.
    pub finish_uploads: Duration,
}

/// How often may be asked (`limits`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wrong passwords a minute, for each account and for each client.
    pub failed_logins: NonZeroU32,
    /// What each client may ask for in a minute without saying who it is; `None`: without a limit.
    pub anonymous: Option<NonZeroU32>,
}

/// Who guards the embedded registry (`registry.auth`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// Our own tokens.
    Own,
    /// Nobody: everybody may do everything (`none`).
    Nobody,
    /// Names and passwords in a file; whoever is in it may do everything (`htpasswd`).
    Htpasswd {
        /// What the client is told it logs in to.
        realm: String,
        /// The file: lines of `name:bcrypt`.
        path: PathBuf,
    },
    /// Tokens of another service (`token`).
    Token(Trust),
}

/// Which tokens of another service count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Where clients get tokens.
    pub realm: Realm,
    /// The audience that tokens must have.
    pub service: String,
    /// The issuer that tokens must have.
    pub issuer: String,
    /// Certificates in PEM whose keys sign tokens, or chains to whom do.
    pub bundle: Option<PathBuf>,
    /// Keys that sign tokens, as a JSON Web Key Set.
    pub key_set: Option<PathBuf>,
    /// The algorithms that count, as `RS256`; empty: all that are safe.
    pub algorithms: Vec<String>,
}

/// Where clients get tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Realm {
    /// At this URL.
    Url(String),
    /// At this path of the origin that the client used (`autoredirect`).
    Path(String),
}

impl Realm {
    /// Where clients that came by this origin get tokens.
    pub(super) fn at(&self, origin: &Origin) -> String {
        match self {
            Self::Url(url) => url.clone(),
            Self::Path(path) => format!("{origin}{path}"),
        }
    }
}

/// Signature algorithms of our tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256.
    Es256,
    /// RSA (3072 bits when we make the key), for verifiers that know nothing else.
    Rs256,
}
