//! What does an upstream learn of a request?
//!
//! What we know, in the headers that registries read, once each; nothing that a client wrote into such a header (Q1 to
//! Q4). Everything else passes as it is, path and query byte for byte (Q5).
//!
//! **Invariant:** `Forwarded` is never sent. Distribution believes it before everything else, and where a part of it is
//! missing it does not look at `X-Forwarded-*` for that part.

use std::net::IpAddr;

use http::header::{COOKIE, HOST, HeaderName};
use http::uri::{PathAndQuery, Uri};
use pingora::Result;
use pingora::http::RequestHeader;

use super::super::{HostSent, Upstream};
use super::edit_request;
use crate::exchange::Origin;
use crate::tls::Demands;

/// What is known of a request on its way to an upstream.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Arrived<'a> {
    /// By which of our names the client called us.
    pub(in super::super) origin: &'a Origin,
    /// Who the client is, once trusted proxies have been asked.
    pub(in super::super) client: IpAddr,
    /// What the request is called.
    pub(in super::super) request_id: &'a str,
    /// Which peer it goes to.
    pub(in super::super) peer: &'a Origin,
    /// Whether it came by a proxy whose word counts.
    pub(in super::super) trusted: bool,
    /// What clients prove, and by which headers that is told.
    pub(in super::super) demands: &'a Demands,
    /// The header that tells whose certificate the client has shown, and whose.
    pub(in super::super) subject: Option<(&'a str, &'a str)>,
}

/// Names by which programs tell each other who the client is, what it asked for and how: ours to say.
const TOLD: [&str; 15] = [
    "forwarded",
    "forwarded-for",
    "client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "x-host",
    "front-end-https",
    "x-url-scheme",
    "x-scheme",
    "x-request-id",
    // Programs that believe these do by POST what a route or the maintenance mode keeps from other methods.
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    // CGI makes it HTTP_PROXY (CVE-2016-5385).
    "proxy",
];
/// Names by which proxies that verify certificates tell whose it was (`Client-Cert`: RFC 9440, whose 2.4 wants it so).
const PROVEN_BEGINNINGS: [&str; 7] =
    ["client-cert", "ssl-client-", "x-amzn-mtls-", "x-arr-clientcert", "x-client-cert", "x-client-verify", "x-ssl-"];
const TOLD_BEGINNINGS: [&str; 6] = ["x-forwarded", "x-real-", "x-original-", "x-rewrite-", "x-remote-", "x-envoy-"];

/// Makes of a client's request what an upstream is to get.
///
/// # Errors
/// A value that no header may hold. None of ours is one.
pub(in super::super) fn request(header: &mut RequestHeader, arrived: &Arrived<'_>, upstream: &Upstream) -> Result<()> {
    forget(header, arrived);
    join_cookies(header)?;
    to_origin_form(header);
    let Arrived { origin, client, request_id, peer, trusted: _, demands: _, subject } = arrived;
    let host = match upstream.host {
        HostSent::Client => origin.authority(),
        HostSent::Peer => peer.authority(),
    };
    let client = client.to_canonical().to_string();
    header.insert_header("Host", host)?;
    header.insert_header("X-Forwarded-Proto", if origin.is_secure() { "https" } else { "http" })?;
    header.insert_header("X-Forwarded-Host", origin.authority())?;
    header.insert_header("X-Forwarded-Port", origin.port().to_string())?;
    header.insert_header("X-Forwarded-For", client.as_str())?;
    header.insert_header("X-Real-IP", client.as_str())?;
    header.insert_header("X-Request-Id", *request_id)?;
    if origin.is_secure() {
        header.insert_header("X-Forwarded-Ssl", "on")?;
    }
    if let Some((name, subject)) = *subject {
        header.insert_header(name.to_owned(), subject)?;
    }
    edit_request(header, &upstream.request_headers);
    Ok(())
}

/// Takes away what only we may say, and what only a proxy before us may.
fn forget(header: &mut RequestHeader, arrived: &Arrived<'_>) {
    let Arrived { trusted, demands, .. } = *arrived;
    let is_told = |name: &HeaderName| {
        is_told(name) || demands.is_ours(name.as_str()) || (!trusted && begins(name, &PROVEN_BEGINNINGS))
    };
    // Most requests have none of these, and names are copied only where there is one.
    if !header.headers.keys().any(is_told) {
        return;
    }
    let told: Vec<HeaderName> = header.headers.keys().filter(|name| is_told(name)).cloned().collect();
    for name in told {
        header.remove_header(&name);
    }
}

/// HTTP/2 may split what HTTP/1.1 has as one field (RFC 9113 8.2.3).
fn join_cookies(header: &mut RequestHeader) -> Result<()> {
    let cookies: Vec<&[u8]> = header.headers.get_all(COOKIE).iter().map(|cookie| cookie.as_bytes()).collect();
    if cookies.len() > 1 {
        let joined = cookies.join(b"; ".as_slice());
        header.insert_header(COOKIE, joined)?;
    }
    Ok(())
}

/// Whether a name is one of those.
fn is_told(name: &HeaderName) -> bool {
    let length = name.as_str().len();
    TOLD.iter().any(|told| told.len() == length && begins(name, &[told])) || begins(name, &TOLD_BEGINNINGS)
}

/// Whether a name begins with one of these, with underscores as well: to programs that know headers as `HTTP_X_REAL_IP` it
/// is the same (CVE-2024-45614).
fn begins(name: &HeaderName, beginnings: &[&str]) -> bool {
    let name = name.as_str().as_bytes();
    let same = |known: u8, byte: u8| known == byte || (known == b'-' && byte == b'_');
    let begins =
        |known: &&str| known.len() <= name.len() && known.bytes().zip(name).all(|(known, byte)| same(known, *byte));
    beginnings.iter().any(begins)
}

/// A request that names us in its target (HTTP/2, or a client that takes us for its proxy) names us in `Host` alone, or
/// Pingora would ask the upstream to be its proxy.
fn to_origin_form(header: &mut RequestHeader) {
    let is_absolute = header.uri.authority().is_some() || !matches!(header.raw_path().first(), Some(b'/' | b'*'));
    if is_absolute {
        let target = header.uri.path_and_query().cloned();
        header.set_uri(Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/"))));
    }
    header.remove_header(&HOST);
}
