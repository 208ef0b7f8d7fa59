//! Who asks, and what may they do?
//!
//! A client that comes without a token is sent to the token endpoint ([`Guardian::authorize`], the challenge), shows
//! its password there, and gets a signed token that lists what it may do ([`Authority::token`]). With that it comes back;
//! the token alone is checked from then on.
//!
//! ```text
//! endpoint -> request     what is asked, and what is shown (credential)
//!          -> accounts    is it really them: attempts (limits), hashing (bounded work), password
//!          -> permissions what of it is allowed: the matrix, projects and members from the database
//!          -> issuer      the token, signed with the key (keys)
//! guardian -> demand            what the request needs, and what it had better have
//!          -> verifier, trust   is the token ours, or of whom we trust: what does it say (claims, remembered): a Grant
//!          -> htpasswd          or the password that of the file
//!          -> challenge         or how to come again
//!          -> continuation      or was the token good when this upload began
//!          -> anonymous         does nobody in particular ask too often (rate)
//! ```
//!
//! **Invariant:** an unknown project or account and a forbidden one cannot be told apart: same status, same body, same
//! work.
//! **Invariant:** work and memory are bounded whatever arrives: hashes at once, waiting logins, remembered logins,
//! counted failures, bytes of a form and scopes of a request each have a named limit.
//! **Invariant:** no secret reaches a log or an answer. Passwords and hashes do not print.
//!
//! A right that is taken away ends with the last token that has it: after `token.duration` at most, and a minute more for
//! clients whose clocks differ (they count from `issued_at`).
//!
//! Absent on purpose: refresh tokens, sessions, and credentials other than passwords (access, deploy and job tokens have
//! their place in `credential`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::request::Parts;
use jiff::Timestamp;

use crate::exchange::{Answer, Caller, Exchange, network};
use crate::metadata::Database;
use crate::oci::RepositoryName;

mod accounts;
mod anonymous;
mod attempts;
mod challenge;
mod claims;
mod config;
mod continuation;
mod credential;
mod demand;
mod endpoint;
mod error;
mod grant;
mod guardian;
mod hashing;
mod htpasswd;
mod issuer;
mod keys;
mod password;
mod permissions;
mod rate;
mod remembered;
mod request;
mod trust;
mod verifier;
mod watched;

pub use accounts::{FirstAdmin, first_admin, needs_first_admin};
pub use config::{Algorithm, Config, Guard, Limits, Realm, Trust};
pub use continuation::{Beginning, Expired};
pub use demand::Demand;
pub use error::Error;
pub use grant::Grant;
pub use guardian::{Guardian, Refusal};
pub use password::{Password, PasswordError, first_password};

use accounts::Accounts;
use anonymous::Anonymous;
use challenge::Desk;
use credential::Identity;
use endpoint::Moment;
use issuer::Issuer;
use keys::TokenKey;
use permissions::Permissions;
use verifier::Verifier;

/// Who may be forgiven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Everybody at an address; of IPv6, in its /64.
    Address(IpAddr),
    /// An account, wherever it is tried from.
    Account(String),
}

/// Gives out tokens and checks them.
pub struct Authority {
    config: Config,
    /// Where [`token`](Self::token) is asked.
    realm: Realm,
    accounts: Accounts,
    permissions: Permissions,
    database: Database,
    key: TokenKey,
    issuer: Issuer,
    verifier: Verifier,
    anonymous: Arc<Anonymous>,
}

impl Authority {
    /// Reads the key of our tokens, making it (and its certificate) on first start. It blocks for as long as that takes.
    pub fn open(config: Config, database: Database) -> Result<Self, Error> {
        let key = TokenKey::open(&config, Timestamp::now())?;
        Ok(Self {
            accounts: Accounts::new(&config, database.clone())?,
            permissions: Permissions {
                database: database.clone(),
                members_may_create_projects: config.members_may_create_projects,
            },
            database,
            anonymous: Arc::new(Anonymous::new(config.limits)),
            issuer: Issuer::new(&config, &key),
            verifier: Verifier::new(&config, &key),
            key,
            realm: Realm::Path(config.path.clone()),
            config,
        })
    }

    /// From now on it may be asked so often.
    pub fn limit(&self, limits: Limits) {
        self.accounts.attempts.limit(limits.failed_logins);
        self.anonymous.limit(limits);
    }

    /// Forgets what counts against somebody; says how many limits that concerned.
    pub fn forgive(&self, whom: &Whom) -> usize {
        let attempts = &self.accounts.attempts;
        match whom {
            Whom::Address(address) => attempts.forgive_network(network(*address)) + self.anonymous.forgive(*address),
            Whom::Account(name) => name.parse().map_or(0, |name| attempts.forgive_account(&name)),
        }
    }

    /// The path that [`token`](Self::token) is to be asked at.
    pub fn path(&self) -> &str {
        &self.config.path
    }

    /// Answers a request to the token endpoint, with any method.
    pub async fn token<E: Exchange>(&self, exchange: &mut E) -> Answer {
        let now = Moment { wall: Timestamp::now(), steady: Instant::now() };
        endpoint::answer(self, exchange, now).await
    }

    /// What the request's token allows, if that meets the demand; otherwise the challenge to answer with.
    #[allow(clippy::result_large_err, reason = "the answer is sent at once; a box would only move the bytes twice")]
    fn authorize_at(
        &self,
        head: &Parts,
        caller: &Caller,
        demand: &Demand,
        now: Timestamp,
    ) -> Result<Arc<Grant>, Refusal> {
        let (realm, origin) = (&self.realm, &caller.origin);
        let desk = Desk { realm, origin, service: &self.config.service, names_what_it_refuses: true };
        let token = credential::bearer(&head.headers);
        guardian::decide(token.map(|token| self.verifier.verify(token, now)), desk, demand)
    }

    /// Whether the account was there at that time already, still is, and still may push.
    async fn may_still_push(&self, name: &str, repository: &RepositoryName, since: Timestamp) -> Result<bool, Error> {
        let Ok(name) = name.parse() else { return Ok(false) };
        match self.database.account(&name).await? {
            // Uploads know the second that they began in.
            Some(account) if account.created_at.as_second() <= since.as_second() => {
                Ok(self.permissions.may_push(&Identity::Account(account), repository).await?)
            }
            _ => Ok(false),
        }
    }

    /// The certificate that other registries need as `rootcertbundle`, in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.key.certificate
    }
}

/// [`Authority::certificate_pem`] for whoever needs no accounts; makes the key when it is missing, like the first start.
pub fn certificate(config: &Config, now: SystemTime) -> Result<String, Error> {
    let now = Timestamp::try_from(now).map_err(|_| Error::Internal("the clock"))?;
    Ok(TokenKey::open(config, now)?.certificate)
}

#[cfg(test)]
mod tests;
