//! Who stands before the embedded registry?
//!
//! One of four, as the operator chose ([`Guard`]): our own tokens, those of another service, a file of names and
//! passwords, or nobody. Whoever it is, the registry gets a [`Grant`] from it and knows no difference.
//!
//! **Invariant:** there is no guardian without its keys: what the operator named is read when it is opened, and a file that
//! says nothing is an error there, not a registry that refuses everybody or, worse, nobody.

use std::sync::Arc;

use http::request::Parts;

use super::{Authority, Config, Error, Grant, Guard};
use crate::exchange::{Answer, Caller};
use crate::oci::Access;

/// Decides who may ask the embedded registry for what.
pub struct Guardian(Kind);

enum Kind {
    Own(Arc<Authority>),
    Nobody,
}

impl Guardian {
    /// The guardian that the configuration names; `own` gives out our own tokens. It blocks while it reads files.
    ///
    /// # Errors
    /// A file that cannot be read or has nothing in it; our own tokens without an authority.
    pub fn open(config: &Config, own: Option<Arc<Authority>>) -> Result<Self, Error> {
        Ok(Self(match &config.guard {
            Guard::Own => Kind::Own(own.ok_or(Error::Internal("opening the token service"))?),
            Guard::Nobody => Kind::Nobody,
            Guard::Htpasswd { .. } | Guard::Token(_) => return Err(Error::Internal("opening this kind of guard")),
        }))
    }

    /// What the caller may do, if that is all of `needed`; otherwise the answer that says how to come again.
    #[allow(clippy::result_large_err, reason = "the answer is sent at once; a box would only move the bytes twice")]
    pub async fn authorize(&self, head: &Parts, caller: &Caller, needed: &[Access]) -> Result<Grant, Answer> {
        match &self.0 {
            Kind::Own(authority) => authority.authorize(head, caller, needed),
            Kind::Nobody => Ok(Grant::everything(None)),
        }
    }
}

#[cfg(test)]
mod tests;
