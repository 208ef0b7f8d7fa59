//! What the operator wants of an authority, checked.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::Challenge;
use super::place::digest;

/// The directory of Let's Encrypt.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Let's Encrypt's place to try things out: other limits, and certificates that nobody trusts.
pub const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Certificates that are ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the authority's directory is (RFC 8555 7.1.1): an `https` URL.
    pub directory: String,
    /// Whom to trust for it instead of those that this machine trusts: certificates as PEM.
    pub ca: Option<PathBuf>,
    /// E-mail addresses for the authority.
    pub contact: Vec<String>,
    /// The ways to prove that a name is ours, the preferred first.
    pub challenges: Vec<Challenge>,
    /// The names of each certificate: DNS names, in lower case, `*.` for a wildcard.
    pub certificates: Vec<Vec<String>>,
    /// The account that the authority already knows us by.
    pub account: Option<ExternalAccount>,
    /// The authority's kind of certificate (draft-ietf-acme-profiles).
    pub profile: Option<String>,
    /// The folder from which another server answers `/.well-known/acme-challenge/` on port 80.
    pub webroot: Option<PathBuf>,
    /// How records come into the DNS, for `dns-01`.
    pub dns: Option<Dns>,
    /// Where the account, certificates and answers to challenges are kept; several nodes may share it.
    pub storage: PathBuf,
}

impl Config {
    /// A number for what an authority may refuse us because of, and what is in the files that it names: another after
    /// somebody changed something.
    pub fn digest(&self) -> String {
        let Self { directory: _, ca, contact, challenges, certificates: _, account, profile, webroot, dns, storage: _ } =
            self;
        let key = match dns {
            Some(Dns::Update { key, .. }) => key.as_ref(),
            Some(Dns::Hook { program }) => Some(program),
            None => None,
        };
        let files = [ca.as_ref(), account.as_ref().map(|account| &account.key), key].map(|path| {
            // What cannot be read is said by who needs it.
            path.and_then(|path| std::fs::read(path).ok()).map(Sha256::digest)
        });
        digest(&format!("{:?}", (ca, contact, challenges, account, profile, webroot, dns, files)))
    }
}

/// External account binding (RFC 8555 7.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// What the authority calls the account.
    pub id: String,
    /// A file whose first line is the key that the authority gave for it, in base64url.
    pub key: PathBuf,
}

/// How records come into the DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dns {
    /// By dynamic updates (RFC 2136).
    Update {
        /// The zone's primary server: `HOST:PORT`.
        server: String,
        /// The zone; else the closest one above the name that the server is asked for.
        zone: Option<String>,
        /// A key of TSIG (RFC 8945), as BIND's `tsig-keygen` writes it.
        key: Option<PathBuf>,
    },
    /// By a program of the operator's: `PROGRAM present RECORD. VALUE`, and later `PROGRAM cleanup RECORD. VALUE`.
    Hook {
        /// The program.
        program: PathBuf,
    },
}
