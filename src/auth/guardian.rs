//! Who stands before the embedded registry?
//!
//! One of four, as the operator chose ([`Guard`]): our own tokens, those of another service, a file of names and
//! passwords, or nobody. Whoever it is, the registry gets a [`Grant`] from it and knows no difference.
//!
//! **Invariant:** there is no guardian without its keys: what the operator named is read when it is opened, and a file that
//! says nothing is an error there, not a registry that refuses everybody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use jiff::Timestamp;

use super::challenge::{self, Desk, Reason};
use super::claims::Invalid;
use super::credential;
use super::endpoint::Moment;
use super::htpasswd::Htpasswd;
use super::trust::Trusted;
use super::{Anonymous, Authority, Beginning, Config, Demand, Error, Expired, Grant, Guard, Limits, Whom};
use crate::exchange::{Answer, Caller, Limit, network};
use crate::oci::RepositoryName;

/// Decides who may ask the embedded registry for what.
pub struct Guardian {
    kind: Kind,
    anonymous: Arc<Anonymous>,
    finish_uploads: Duration,
}

enum Kind {
    Own(Arc<Authority>),
    Nobody(Arc<Grant>),
    Htpasswd(Box<Htpasswd>),
    Token(Box<Trusted>),
}

/// Why the caller may not go on.
pub struct Refusal {
    /// What to answer.
    pub answer: Answer,
    /// The token of which everything holds but its time, if that is why: an upload may perhaps be finished with it
    /// ([`Guardian::may_finish`]).
    pub expired: Option<Box<Expired>>,
    /// The limit that the caller ran into, where the answer alone does not tell.
    pub limit: Option<Limit>,
}

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Self {
        Self { answer, expired: None, limit: None }
    }
}

impl Guardian {
    /// The guardian that the configuration names; `own` gives out our own tokens. It blocks while it reads files.
    ///
    /// # Errors
    /// A file that cannot be read or has nothing in it; our own tokens without an authority.
    pub fn open(config: &Config, own: Option<Arc<Authority>>) -> Result<Self, Error> {
        let anonymous = match &own {
            Some(own) => own.anonymous.clone(),
            None => Arc::new(Anonymous::new(config.limits)),
        };
        let kind = match &config.guard {
            Guard::Own => Kind::Own(own.ok_or(Error::Internal("opening the token service"))?),
            Guard::Nobody => Kind::Nobody(Arc::new(Grant::everything(None))),
            Guard::Htpasswd { realm, path } => {
                Kind::Htpasswd(Box::new(Htpasswd::open(realm, path, config.limits.failed_logins)?))
            }
            Guard::Token(trust) => Kind::Token(Box::new(Trusted::open(trust)?)),
        };
        Ok(Self { kind, anonymous, finish_uploads: config.finish_uploads })
    }

    /// From now on it may be asked so often.
    pub fn limit(&self, limits: Limits) {
        self.anonymous.limit(limits);
        match &self.kind {
            Kind::Own(authority) => authority.limit(limits),
            Kind::Htpasswd(htpasswd) => htpasswd.attempts.limit(limits.failed_logins),
            Kind::Nobody(_) | Kind::Token(_) => {}
        }
    }

    /// Forgets what counts against somebody; says how many limits that concerned.
    pub fn forgive(&self, whom: &Whom) -> usize {
        match (&self.kind, whom) {
            (Kind::Own(authority), _) => authority.forgive(whom),
            (Kind::Htpasswd(htpasswd), Whom::Account(name)) => htpasswd.forgive_name(name),
            (Kind::Htpasswd(htpasswd), Whom::Address(address)) => {
                htpasswd.attempts.forgive_network(network(*address)) + self.anonymous.forgive(*address)
            }
            (Kind::Nobody(_) | Kind::Token(_), Whom::Address(address)) => self.anonymous.forgive(*address),
            (Kind::Nobody(_) | Kind::Token(_), Whom::Account(_)) => 0,
        }
    }

    /// Whether it looks at passwords itself: then `/v2/` is where clients log in.
    pub fn asks_for_passwords(&self) -> bool {
        matches!(self.kind, Kind::Htpasswd(_))
    }

    /// What the caller may do, if that meets the demand; otherwise the answer that says how to come again.
    pub async fn authorize(&self, head: &Parts, caller: &Caller, demand: &Demand) -> Result<Arc<Grant>, Refusal> {
        let now = Moment { wall: Timestamp::now(), steady: Instant::now() };
        self.authorize_at(head, caller, demand, now).await
    }

    pub(super) async fn authorize_at(
        &self,
        head: &Parts,
        caller: &Caller,
        demand: &Demand,
        now: Moment,
    ) -> Result<Arc<Grant>, Refusal> {
        let grant = self.vouch(head, caller, demand, now).await?;
        if matches!(self.kind, Kind::Token(_)) {
            // Whoever gave the token knows who asked, and need not say so in it: GitLab names no deploy token's user.
            return Ok(grant);
        }
        let admitted = self.anonymous.admit(grant, caller.network, now.steady);
        admitted.map_err(|answer| Refusal { limit: Some(Limit::Anonymous), ..answer.into() })
    }

    /// What the caller may do, however often they ask.
    async fn vouch(&self, head: &Parts, caller: &Caller, demand: &Demand, now: Moment) -> Result<Arc<Grant>, Refusal> {
        match &self.kind {
            Kind::Own(authority) => authority.authorize_at(head, caller, demand, now.wall),
            Kind::Nobody(grant) => Ok(grant.clone()),
            Kind::Htpasswd(htpasswd) => Ok(Arc::new(htpasswd.authorize(head, caller, demand, now.steady).await?)),
            Kind::Token(trusted) => {
                let verified = match credential::bearer(&head.headers) {
                    Some(token) => Some(trusted.verify(token, now.wall, now.steady).await),
                    None => None,
                };
                decide(verified, trusted.desk(&caller.origin), demand)
            }
        }
    }

    /// The right to go on with this upload of `name`, if the expired token is of whoever began it so ([`Expired`] says
    /// exactly when and why).
    pub async fn may_finish(
        &self,
        expired: &Expired,
        name: &RepositoryName,
        began: Beginning<'_>,
        now: Timestamp,
    ) -> Option<Grant> {
        if !expired.continues(began, self.finish_uploads, now) {
            return None;
        }
        match &self.kind {
            Kind::Own(authority) => {
                let still = authority.may_still_push(expired.subject()?, name, began.at).await;
                let still = still.inspect_err(|error| tracing::error!("looking up who finishes an upload: {error}"));
                still.unwrap_or(false).then(|| expired.grant(name))
            }
            Kind::Token(_) => Some(expired.grant(name)),
            Kind::Nobody(_) | Kind::Htpasswd(_) => None, // no tokens, so none expires
        }
    }
}

/// From what was found out about a token, if there was one, to the grant or the challenge.
#[allow(clippy::result_large_err, reason = "the answer is sent at once; a box would only move the bytes twice")]
pub(super) fn decide(
    verified: Option<Result<Arc<Grant>, Invalid>>,
    desk: Desk<'_>,
    demand: &Demand,
) -> Result<Arc<Grant>, Refusal> {
    let challenge = |reason| challenge::bearer(desk, demand, reason);
    match verified {
        None => Err(challenge(Reason::Missing).into()),
        Some(Ok(grant)) if !demand.is_met_by(&grant) => Err(challenge(Reason::Insufficient).into()),
        Some(Ok(grant)) if desk.names_what_it_refuses && demand.is_more_than_was_asked(&grant) => {
            Err(challenge(Reason::AskedTooLittle).into())
        }
        Some(Ok(grant)) => Ok(grant),
        Some(Err(Invalid::Untrue)) => Err(challenge(Reason::Invalid).into()),
        Some(Err(Invalid::Expired(expired))) => {
            Err(Refusal { answer: challenge(Reason::Invalid), expired: Some(expired), limit: None })
        }
    }
}

#[cfg(test)]
mod tests;
