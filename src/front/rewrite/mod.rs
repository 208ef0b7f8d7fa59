//! What must change in the headers between a client and a registry that somebody else runs?
//!
//! A registry builds URLs from what it is told of the client's side, and clients push to those URLs. A wrong scheme, host
//! or port there is the push that begins anew for ever. So the registry is told the truth ([`request()`]), and what it
//! says is put right where it was told something else ([`response`]): `Location` ([`location`]), the realms of challenges
//! ([`challenge`]) and `Link` ([`link`]).
//!
//! **Invariants**
//! - Pure: no I/O, nothing is remembered, no time.
//! - Of a URL only scheme and authority change; path and query keep their bytes. A URL of a stranger (storage that a
//!   registry redirects to) keeps all of its bytes: those are signed.
//! - Every URL of ours that a client is given begins with the origin that it used.
//! - Twice is the same as once. An answer without these headers costs look-ups and no allocation.
//!
//! Absent on purpose: prefixes before `/v2/` (`external_url` has no path, and paths pass as they are), bodies.

use std::net::{IpAddr, SocketAddr};

use http::Method;
use http::header::{CONNECTION, HeaderName, HeaderValue, LINK, LOCATION, STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE};
use pingora::http::{RequestHeader, ResponseHeader};

use super::{HeaderEdits, Upstream};
use crate::exchange::Origin;

mod challenge;
mod link;
mod location;
mod names;
mod request;
#[cfg(test)]
mod tests;

pub(super) use request::{Arrived, request};

/// Where an answer goes, and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// What the client asked for it with.
    pub(super) method: &'a Method,
    /// By which of our names the client called us.
    pub(super) origin: &'a Origin,
    /// All of our names.
    pub(super) ours: &'a [Origin],
    /// Who the client is, once trusted proxies have been asked.
    pub(super) client: IpAddr,
    /// Who answered.
    pub(super) upstream: &'a Upstream,
    /// At which address, if that is known.
    pub(super) address: Option<SocketAddr>,
    /// The path of the token endpoint, if that is one that clients reach by us.
    pub(super) token: Option<&'a str>,
}

/// Something in an answer that sends clients where they perhaps should not go. With `strict` it is not passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Concern {
    /// L10: content would go to somebody else.
    #[error("the upstream sends the client's content to {0}")]
    Upload(String),
    /// L11: different clients may read it in different ways.
    #[error("the upstream's {0} is not a URL that can be understood")]
    Unreadable(&'static str),
    /// A list would be continued by somebody else.
    #[error("the upstream sends the client to {0} for the rest of the list")]
    Link(String),
    /// W5: credentials would go to somebody whom the operator did not name.
    #[error("the upstream sends the client to {0} for a token, which is not one of its realms")]
    Realm(String),
    /// W2 without a list that tells better: passwords would go in the clear.
    #[error("the upstream sends the client to http://{0} for a token: passwords would go in the clear")]
    ClearRealm(String),
    /// A challenge that different clients may read in different ways.
    #[error("the upstream's challenge cannot be understood")]
    Challenge,
}

/// The answer must not be passed on: `strict` and a [`Concern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub(super) struct Refused(#[from] pub(super) Concern);

/// What becomes of a header line: `None` where it stays as it is, and what is to be said about it.
type Edit = (Option<Vec<u8>>, Option<Concern>);

/// Puts the headers of an upstream's answer right, before the [dress](super::dress) is put on.
///
/// # Errors
/// With `strict`, what sends clients elsewhere. Without, the first such thing is returned for the log.
pub(super) fn response(header: &mut ResponseHeader, place: &Place<'_>) -> Result<Option<Concern>, Refused> {
    let status = header.status;
    let location = lines(header, &LOCATION, "Location", |line| location::edit(line, status, place));
    let challenge = lines(header, &WWW_AUTHENTICATE, "WWW-Authenticate", |line| challenge::edit(line, place));
    let link = lines(header, &LINK, "Link", |line| link::edit(line, place));
    let concern = location.or(challenge).or(link);
    if let Some(concern) = concern.clone().filter(|_| place.upstream.strict) {
        return Err(Refused(concern));
    }
    undress(header);
    edit_response(header, &place.upstream.response_headers);
    Ok(concern)
}

/// Edits every line of a header, and puts lines back only if one of them changes.
fn lines(
    header: &mut ResponseHeader,
    name: &HeaderName,
    spelling: &'static str,
    edit: impl Fn(&[u8]) -> Edit,
) -> Option<Concern> {
    if !header.headers.contains_key(name) {
        return None;
    }
    let edits: Vec<Edit> = header.headers.get_all(name).iter().map(|line| edit(line.as_bytes())).collect();
    if edits.iter().any(|(line, _)| line.is_some()) {
        let old: Vec<HeaderValue> = header.headers.get_all(name).iter().cloned().collect();
        header.remove_header(name);
        for (old, (new, _)) in old.into_iter().zip(&edits) {
            // The pieces of a line and of a URL that was checked: nothing in there that a header cannot hold.
            let new = new.as_deref().and_then(|new| HeaderValue::from_bytes(new).ok());
            let _ = header.append_header(spelling, new.unwrap_or(old)); // fails only beyond 32768 lines, and one was taken away
        }
    }
    edits.into_iter().find_map(|(_, concern)| concern)
}

/// Takes off what is said of the connection to the upstream, and what we say ourselves.
fn undress(header: &mut ResponseHeader) {
    const HOP: [&str; 7] =
        ["keep-alive", "proxy-connection", "proxy-authenticate", "te", "trailer", "upgrade", "x-request-id"];
    if header.headers.contains_key(CONNECTION) {
        for name in nominated(header) {
            header.remove_header(&name);
        }
        header.remove_header(&CONNECTION);
    }
    for name in HOP {
        header.remove_header(name);
    }
    // RFC 6797 8.1: clients look at the first only. TLS is ours, and so is what is said of it.
    header.remove_header(&STRICT_TRANSPORT_SECURITY);
}

/// What `Connection` names (RFC 9110 7.6.1), but for what says where the body ends.
fn nominated(header: &ResponseHeader) -> Vec<HeaderName> {
    let lines = header.headers.get_all(CONNECTION).iter().map(HeaderValue::as_bytes);
    let words = lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let names = words.filter_map(|word| HeaderName::from_bytes(word).ok());
    names.filter(|name| !["content-length", "transfer-encoding"].contains(&name.as_str())).collect()
}

fn edit_response(header: &mut ResponseHeader, edits: &HeaderEdits) {
    for name in &edits.remove {
        header.remove_header(name);
    }
    for (name, value) in &edits.set {
        let _ = header.insert_header(name, value.clone()); // name and value are checked types
    }
    for (name, value) in &edits.add {
        let _ = header.append_header(name, value.clone()); // as above, and no answer has 32768 lines
    }
}

fn edit_request(header: &mut RequestHeader, edits: &HeaderEdits) {
    for name in &edits.remove {
        header.remove_header(name);
    }
    for (name, value) in &edits.set {
        let _ = header.insert_header(name, value.clone()); // name and value are checked types
    }
    for (name, value) in &edits.add {
        let _ = header.append_header(name, value.clone()); // as above, and no request has 32768 lines
    }
}
