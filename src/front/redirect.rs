//! Where does a request belong that came in the clear?
//!
//! On a listener that only redirects, and on one that speaks TLS to clients that do not, the answer is the same request
//! at our `https` origin (308, which keeps method and body). It leads to a name that the operator wrote and to no other.
//!
//! **Invariant:** credentials that came in the clear are never redirected. Their client would send them on every request,
//! twice, once for everybody to read, and nobody would notice; so it is told, and fails (426).

use http::header::AUTHORIZATION;
use http::{Method, request};

use super::host::Origins;
use super::refusal::Refusal;
use crate::exchange::Origin;

/// On a listener that does nothing else.
pub(super) fn always(origins: &Origins, head: &request::Parts) -> Refusal {
    let external = || Some(origins.external()).filter(|external| external.is_secure());
    moved(head, origins.secure(head).or_else(external))
}

/// On a listener that speaks TLS: only what a person may have typed, under a name of ours.
pub(super) fn typed(origins: &Origins, head: &request::Parts) -> Refusal {
    let is_read = head.method == Method::GET || head.method == Method::HEAD;
    moved(head, origins.secure(head).filter(|_| is_read))
}

fn moved(head: &request::Parts, origin: Option<&Origin>) -> Refusal {
    match origin {
        Some(origin) if !head.headers.contains_key(AUTHORIZATION) => {
            Refusal::Moved { to: format!("{origin}{}", target(head)) }
        }
        _ => Refusal::SpeaksTls,
    }
}

/// Path and query, byte for byte; the root for `OPTIONS *`.
fn target(head: &request::Parts) -> &str {
    head.uri.path_and_query().map(|target| target.as_str()).filter(|target| target.starts_with('/')).unwrap_or("/")
}
