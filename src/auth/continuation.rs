//! May an upload be finished with a token that expired on the way?
//!
//! Tokens last minutes, a layer of many gigabytes lasts longer. Clients that send a layer in one request fetch a new token
//! only when they are refused, after all of the bytes; then they start from the beginning, and never end. So whoever began
//! an upload may go on with that upload.
//!
//! Exactly this is allowed: to ask for the state of one upload, to append to it and to close it, for
//! `finish_uploads` after it began, to who shows a token of which everything holds but the end of its time, and that
//!
//! - names a subject, the one who began the upload, vouched for by the same issuer. The anonymous share a name, so one of
//!   them proves nothing about another;
//! - had not expired when the upload began: it expired *on the way*. A token of last week opens nothing of today;
//! - allows to push to that very repository. It did when the upload began, or the upload would not be there.
//!
//! Where the tokens are our own, the account and its right to push are looked up once more, as for a new token: an account
//! removed (or removed and made again under the same name) or a right taken away ends it at once. For tokens of another
//! service we cannot ask; what it said when it signed counts, as it does for the life of each token.
//!
//! What somebody gains who steals such a token: bytes in an upload whose name (a random UUID) they must know as well, under
//! a digest that they must match. Nothing becomes visible by that: a blob is served once a manifest names it, and a manifest
//! needs a token that is valid. This is why nothing else is allowed: no manifest, no tag, no deletion, no reading of blobs,
//! no beginning of another upload, and no giving up of this one, which loses work and never hurries.
//!
//! A token counts within its leeway as one that has not expired, here as elsewhere.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Grant;
use super::claims::LEEWAY;
use crate::oci::{Access, Action, Endpoint, RepositoryName, UploadId};

/// A token of which everything holds but its time. It allows nothing by itself.
#[derive(Debug, Clone)]
pub struct Expired {
    grant: Arc<Grant>,
    /// When it ceased to count, in seconds since 1970.
    at: i64,
}

/// How an upload began.
#[derive(Debug, Clone, Copy)]
pub struct Beginning<'a> {
    /// Who vouched for whoever began it.
    pub issuer: &'a str,
    /// Who began it.
    pub subject: &'a str,
    /// When.
    pub at: Timestamp,
}

impl Expired {
    pub(super) fn new(grant: Arc<Grant>, at: i64) -> Self {
        Self { grant, at }
    }

    /// The upload that this token might continue, if the request is one that may: what is to be looked up next.
    pub fn upload<'a>(&self, endpoint: &'a Endpoint) -> Option<(&'a RepositoryName, UploadId)> {
        let (name, upload) = match endpoint {
            Endpoint::UploadStatus { name, upload }
            | Endpoint::UploadAppend { name, upload }
            | Endpoint::UploadCommit { name, upload, .. } => (name, upload),
            _ => return None,
        };
        let named = self.grant.subject.as_deref().is_some_and(|subject| !subject.is_empty());
        (named && self.grant.allows(&needed(name))).then_some((name, *upload))
    }

    /// Whether it expired on the way of this upload, which began not longer than `window` ago by the same somebody.
    pub(super) fn continues(&self, began: Beginning<'_>, window: Duration, now: Timestamp) -> bool {
        let same = self.grant.subject.as_deref() == Some(began.subject)
            && !began.subject.is_empty()
            && self.grant.issuer.as_deref() == Some(began.issuer);
        let (began, now) = (began.at.as_second(), now.as_second());
        let until = i64::try_from(window.as_secs()).ok().and_then(|window| began.checked_add(window));
        // An upload that begins in the future has a date that cannot be counted from.
        let in_time = began <= now + LEEWAY && until.is_none_or(|until| now < until);
        same && in_time && self.at > began
    }

    /// Whoever the token was given to.
    pub(super) fn subject(&self) -> Option<&str> {
        self.grant.subject.as_deref()
    }

    /// The right to push to this repository and nothing else.
    pub(super) fn grant(&self, name: &RepositoryName) -> Grant {
        let (subject, issuer) = (self.grant.subject.clone(), self.grant.issuer.clone());
        Grant { subject, issuer, access: vec![needed(name)], everything: false }
    }
}

fn needed(name: &RepositoryName) -> Access {
    Access::repository(name, &[Action::Pull, Action::Push])
}
