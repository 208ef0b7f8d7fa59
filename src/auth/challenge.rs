//! What does a caller hear who may not pass?
//!
//! Always 401, as from Distribution: clients take the realm and the scope from it, fetch a token and come again. Whether
//! the repository exists is not said, and where tokens count no other credential is looked at: a Basic password sent
//! straight to the registry gets the same challenge.

use http::StatusCode;
use http::header::{HeaderName, WWW_AUTHENTICATE};
use serde_json::{Value, json};

use super::{Demand, Realm};
use crate::exchange::{Answer, Origin, WireError};
use crate::oci::Access;

/// Tells clients that this is a registry (Docker Registry HTTP API V2, "API Version Check").
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Why the caller may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// No token.
    Missing,
    /// A token that is not ours, or is not valid now.
    Invalid,
    /// A token that allows less than is needed.
    Insufficient,
    /// A token that is enough, of somebody who did not ask for all that would be of use.
    AskedTooLittle,
}

/// Where tokens are given out, and for whom: what a challenge tells the client to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Desk<'a> {
    pub(super) realm: &'a Realm,
    /// By which the client came.
    pub(super) origin: &'a Origin,
    pub(super) service: &'a str,
    /// Whether its tokens name what was asked for and refused: then who asked can be told from who did not.
    pub(super) names_what_it_refuses: bool,
}

/// The challenge (RFC 6750 3, with Distribution's `service`).
pub(super) fn bearer(desk: Desk<'_>, demand: &Demand, reason: Reason) -> Answer {
    let mut value = format!("Bearer realm={},service={}", quoted(&desk.realm.at(desk.origin)), quoted(desk.service));
    let scopes: Vec<String> = demand.all().map(Access::to_string).collect();
    if !scopes.is_empty() {
        value.push_str(&format!(",scope={}", quoted(&scopes.join(" "))));
    }
    let message = match reason {
        Reason::Missing => "authentication required",
        Reason::Invalid => {
            value.push_str(",error=\"invalid_token\"");
            "authentication required: the token is not valid, or not any more"
        }
        Reason::Insufficient => {
            value.push_str(",error=\"insufficient_scope\"");
            "authentication required: this login does not allow it, or there is no such repository"
        }
        Reason::AskedTooLittle => {
            value.push_str(",error=\"insufficient_scope\"");
            "authentication required: the token was not asked for the repository that the blob is to be mounted from"
        }
    };
    unauthorized(value, message, demand)
}

/// The challenge where names and passwords count (RFC 7617 2).
pub(super) fn basic(realm: &str, demand: &Demand) -> Answer {
    unauthorized(format!("Basic realm={}", quoted(realm)), "authentication required", demand)
}

fn unauthorized(challenge: String, message: &'static str, demand: &Demand) -> Answer {
    let error = WireError::new("UNAUTHORIZED", message).detail(detail(demand));
    Answer::error(StatusCode::UNAUTHORIZED, error)
        .header(WWW_AUTHENTICATE, challenge)
        .header(API_VERSION, "registry/2.0")
}

/// Distribution's list of what was asked, one entry for each action.
fn detail(demand: &Demand) -> Value {
    let entries: Vec<Value> = demand
        .all()
        .flat_map(|access| access.actions.iter().map(move |action| (&access.resource, action)))
        .map(|(resource, action)| {
            json!({ "Type": resource.kind(), "Class": "", "Name": resource.name(), "Action": action.as_str() })
        })
        .collect();
    if entries.is_empty() { Value::Null } else { Value::Array(entries) }
}

/// A quoted-string (RFC 9110 5.6.4).
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
