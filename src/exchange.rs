//! What does one request look like to the rooms that answer it, and what do they hand back?
//!
//! [`Exchange`] is the seam between the wire and the product: the front implements it for Pingora's session, tests
//! implement it for a plain struct ([`memory::Recorded`]). A room that answers reads from it and returns an
//! [`Answer`]; [`send`] puts that on the wire.
//!
//! **Invariant:** nothing here buffers a body. [`Exchange::read`] takes from the socket only when it is called, and
//! [`Exchange::write`] returns only when the connection has taken the bytes, so back-pressure reaches both ends.
//!
//! Absent on purpose: routing, authentication, anything that knows what a registry is.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

mod id;
pub mod memory;

pub use id::RequestId;
pub(crate) use id::unique;

/// One request and the way to answer it.
///
/// Bodies stream both ways. The order of calls is: any number of [`read`](Exchange::read), then one
/// [`respond`](Exchange::respond), then any number of [`write`](Exchange::write) until one says `end`.
pub trait Exchange: Send {
    /// Method, URI (path and query byte-exact, never decoded) and headers.
    fn head(&self) -> &http::request::Parts;

    /// Who asks, by what name, and under which request id.
    fn caller(&self) -> &Caller;

    /// What the access line will say about this request; the rooms that learn it write it here.
    fn notes(&mut self) -> &mut Notes;

    /// The next piece of the request body, `None` at its end. The first call answers `Expect: 100-continue`.
    fn read(&mut self) -> impl Future<Output = Result<Option<Bytes>, BodyError>> + Send;

    /// Sends the status line and headers; `end` when no body follows.
    fn respond(&mut self, head: http::response::Parts, end: bool) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Sends a piece of the response body; `end` with the last.
    fn write(&mut self, bytes: Bytes, end: bool) -> impl Future<Output = Result<(), Gone>> + Send;
}

/// The client's side of a request, resolved by the front and trusted by everyone behind it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The client's address (never a header that the client could have written).
    pub address: IpAddr,
    /// Whose limits the request counts under: the client's [`network`]. `None` when it came through a proxy that does
    /// not say for whom it speaks.
    pub network: Option<IpAddr>,
    /// The origin that the client used, one of those the operator named. Every absolute URL we send starts with it.
    pub origin: Origin,
    /// Names this request in logs and in the `X-Request-Id` response header.
    pub request_id: RequestId,
}

/// What counts as one client: an IPv4 address, and of IPv6 a /64, for a customer has at least that to take addresses from
/// (RFC 6177).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

/// What the access line says beyond method, path and status.
#[derive(Debug, Default, Clone)]
pub struct Notes {
    /// The authenticated account, if any.
    pub subject: Option<String>,
    /// The repository that the request is about.
    pub repository: Option<String>,
    /// Tag or digest as the client wrote it.
    pub reference: Option<String>,
    /// The digest that was served or stored.
    pub digest: Option<String>,
    /// The inside of a failure, for the log and never for the client.
    pub failure: Option<String>,
    /// What kind of thing the request is about.
    pub kind: Kind,
    /// The limit that it was refused for, if it was.
    pub limit: Option<Limit>,
    /// The size of the content that the request completed, when its own body was not all of it.
    pub size: Option<u64>,
    /// Whether asking was a login: the password that came with it is what was looked at.
    pub login: bool,
}

/// What a request is about, for who counts requests: one word for each, and never more of them than are here.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/v2/` itself.
    Base,
    /// The list of repositories.
    Catalog,
    /// A list of tags.
    Tags,
    /// A manifest, by tag or digest.
    Manifest,
    /// A list of referrers.
    Referrers,
    /// A blob.
    Blob,
    /// A blob on its way to us.
    Upload,
    /// The token endpoint.
    Token,
    /// `/`, and whether we are healthy and ready.
    Probe,
    /// Nothing that we serve, or nothing that got that far.
    #[default]
    Other,
}

impl Kind {
    /// The words, in the order of the kinds.
    pub const NAMES: [&'static str; 10] =
        ["base", "catalog", "tags", "manifest", "referrers", "blob", "upload", "token", "probe", "other"];
}

/// What a request for somebody else's registry is about, as far as the front must know.
#[derive(Debug, Default)]
pub struct Passage {
    /// What kind of thing.
    pub kind: Kind,
    /// The repository.
    pub repository: Option<String>,
    /// Tag or digest as the client wrote it.
    pub reference: Option<String>,
    /// The upload that it goes on with.
    pub upload: Option<String>,
    /// The most that its body may hold, in bytes.
    pub body: Option<u64>,
    /// Held until it is over, if it changes anything.
    pub permit: Option<Box<dyn Permit>>,
}

impl Passage {
    /// What a client is told whose body is larger than that.
    pub fn too_large(&self) -> Answer {
        let limit = self.body.unwrap_or_default();
        let (code, what) = match self.kind {
            Kind::Manifest => ("MANIFEST_INVALID", "manifest"),
            Kind::Upload => ("SIZE_INVALID", "blob"),
            _ => ("SIZE_INVALID", "body"),
        };
        let message = format!("the {what} is larger than the limit of {limit} bytes");
        Answer::error(StatusCode::PAYLOAD_TOO_LARGE, WireError::new(code, message))
    }
}

/// The right to change something, as long as it lasts.
pub trait Permit: fmt::Debug + Send + Sync {
    /// What the client is told in the middle of its request, once nothing may change any more.
    fn withdrawn(&self) -> Option<Answer>;
}

/// A limit that somebody can run into, for who counts that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Open connections in all.
    Connections,
    /// Open connections of one client.
    ConnectionsPerClient,
    /// The bytes or fields of a request's header.
    Header,
    /// The length of path and query.
    Target,
    /// The size of a body.
    Body,
    /// Requests of those who do not say who they are.
    Anonymous,
    /// Wrong passwords.
    FailedLogins,
    /// Uploads at a time.
    Uploads,
}

impl Limit {
    /// The words, in the order of the limits.
    pub const NAMES: [&'static str; 8] =
        ["connections", "connections_per_client", "header", "target", "body", "anonymous", "failed_logins", "uploads"];
}

/// Scheme, host and port as in a URL: `https://registry.example.com:5050`.
///
/// The default port of the scheme is never written, so two spellings of one origin compare equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    secure: bool,
    authority: Arc<str>,
}

impl Origin {
    /// Builds an origin from its scheme and an authority (`host`, `host:port`, `[v6]:port`), lower-casing the host.
    pub fn new(secure: bool, authority: &str) -> Result<Self, OriginError> {
        let authority = authority.to_ascii_lowercase();
        let parsed: http::uri::Authority = authority.parse().map_err(|_| OriginError)?;
        let has_port = parsed.as_str().len() > parsed.host().len();
        let port_is_bad = has_port && parsed.port().is_none_or(|port| port.as_u16() == 0);
        if parsed.as_str().contains('@') || parsed.host().is_empty() || port_is_bad {
            return Err(OriginError);
        }
        let default_port = if secure { 443 } else { 80 };
        let authority = match parsed.port() {
            Some(port) if port.as_u16() == default_port => parsed.host().into(),
            _ => authority.into(),
        };
        Ok(Self { secure, authority })
    }

    /// Whether the scheme is `https`.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// `host` or `host:port`, as a `Host` header has it.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host alone; an IPv6 literal keeps its brackets.
    pub fn host(&self) -> &str {
        match self.authority.rfind(':') {
            Some(colon) if !self.authority[colon..].contains(']') => &self.authority[..colon],
            _ => &self.authority,
        }
    }

    /// The port, by default that of the scheme.
    pub fn port(&self) -> u16 {
        let written = self.authority[self.host().len()..].strip_prefix(':');
        written.and_then(|port| port.parse().ok()).unwrap_or(if self.secure { 443 } else { 80 })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.secure { "https" } else { "http" }, self.authority)
    }
}

impl std::str::FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let (secure, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else {
            return Err(OriginError);
        };
        Self::new(secure, rest.strip_suffix('/').unwrap_or(rest))
    }
}

/// The text is not `http(s)://host[:port]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be https://HOST[:PORT] or http://HOST[:PORT], without path, query or user")]
pub struct OriginError;

/// Why the request body ended before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The client closed or reset the connection.
    #[error("the client went away in mid-body")]
    Gone,
    /// The client sent nothing for longer than the stall limit.
    #[error("the client sent nothing for too long")]
    Stalled,
    /// The framing is broken (chunk sizes, more or fewer bytes than announced).
    #[error("the request body is malformed")]
    Malformed,
}

/// The client is not there to be answered any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client went away")]
pub struct Gone;

/// Why a body could not be collected into memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectError {
    /// More bytes than the limit allows.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit that was passed, in bytes.
        limit: usize,
    },
    /// The body ended early.
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// Reads a whole body of at most `limit` bytes. A `Content-Length` above it is refused before anything is read.
pub async fn collect<E: Exchange>(exchange: &mut E, limit: usize) -> Result<Bytes, CollectError> {
    if content_length(&exchange.head().headers).is_some_and(|length| length > limit as u64) {
        return Err(CollectError::TooLarge { limit });
    }
    let mut body = BytesMut::new();
    while let Some(piece) = exchange.read().await? {
        if body.len() + piece.len() > limit {
            return Err(CollectError::TooLarge { limit });
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// Headers, in lower case, that say where a message ends or which it is, so that nobody but the front may say them.
pub const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

/// Headers, in lower case, that a registry tells its clients and they could not go on without.
pub const ANSWERS: [&str; 8] = [
    "content-encoding",
    "content-range",
    "docker-content-digest",
    "docker-upload-uuid",
    "link",
    "location",
    "range",
    "www-authenticate",
];

/// The announced length of a body, if the header is there and a number.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The bytes after the headers of an [`Answer`].
pub enum Body {
    /// None. A `Content-Length` among the headers is kept: that is how HEAD is answered.
    Empty,
    /// All there already.
    Bytes(Bytes),
    /// `length` bytes that arrive piece by piece; a failure truncates the response visibly.
    Stream {
        /// Exactly how many bytes `pieces` yields.
        length: u64,
        /// The bytes, in pieces small enough to be written one by one.
        pieces: BoxStream<'static, io::Result<Bytes>>,
    },
}

/// How many headers there is room for from the start: what nearly all answers have, so that it does not grow.
const HEADERS: usize = 12;

/// Status, headers and body of a response.
pub struct Answer {
    /// The status code.
    pub status: StatusCode,
    /// Response headers; `Content-Length` is added by [`send`] from the body.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
}

impl Answer {
    /// An answer without body.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::with_capacity(HEADERS), body: Body::Empty }
    }

    /// Sets a header. A value that no header may hold (it would need a control character) is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Sets a header to what is known to be one.
    #[must_use]
    pub fn constant(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Body::Bytes(body.into());
        self
    }

    /// A JSON document.
    pub fn json(status: StatusCode, value: &Value) -> Self {
        let mut text = value.to_string();
        text.push('\n');
        Self::new(status).constant(CONTENT_TYPE, "application/json; charset=utf-8").body(text)
    }

    /// Plain text, as Distribution answers what its router does not know.
    pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self::new(status).constant(CONTENT_TYPE, "text/plain; charset=utf-8").body(text)
    }

    /// One error in the form that every registry client prints (OCI distribution-spec, "Error Codes").
    pub fn error(status: StatusCode, error: WireError) -> Self {
        Self::errors(status, &[error])
    }

    /// Several errors in one body.
    pub fn errors(status: StatusCode, errors: &[WireError]) -> Self {
        let list: Vec<Value> = errors
            .iter()
            .map(|error| match &error.detail {
                Value::Null => json!({ "code": error.code, "message": error.message }),
                detail => json!({ "code": error.code, "message": error.message, "detail": detail }),
            })
            .collect();
        Self::json(status, &json!({ "errors": list }))
    }
}

/// One entry of an OCI error body: what the client is told, safe to show to anyone.
#[derive(Debug, Clone, PartialEq)]
pub struct WireError {
    /// A code of the specification, in capitals.
    pub code: &'static str,
    /// What happened and what to do, for a person.
    pub message: Cow<'static, str>,
    /// Machine-readable detail, or null.
    pub detail: Value,
}

impl WireError {
    /// An error without detail.
    pub fn new(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), detail: Value::Null }
    }

    /// Adds the detail.
    #[must_use]
    pub fn detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }
}

/// Puts an answer on the wire. Nothing follows a failed write: the missing end tells the client that it is truncated.
pub async fn send<E: Exchange>(exchange: &mut E, answer: Answer) -> Result<(), SendError> {
    let Answer { status, mut headers, body } = answer;
    let length = match &body {
        // RFC 9110 8.6: a 204 has none, and that of a 304 would have to be the 200's.
        Body::Empty if headers.contains_key(CONTENT_LENGTH) || [204, 304].contains(&status.as_u16()) => None,
        Body::Empty => Some(0),
        Body::Bytes(bytes) => Some(bytes.len() as u64),
        Body::Stream { length, .. } => Some(*length),
    };
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = status;
    head.headers = headers;
    let bodyless = exchange.head().method == http::Method::HEAD;
    match body {
        Body::Empty => exchange.respond(head, true).await?,
        _ if bodyless || length == Some(0) => exchange.respond(head, true).await?,
        Body::Bytes(bytes) => {
            exchange.respond(head, false).await?;
            exchange.write(bytes, true).await?;
        }
        Body::Stream { length, mut pieces } => {
            exchange.respond(head, false).await?;
            let mut left = length;
            while left > 0 {
                let piece = match pieces.next().await {
                    Some(piece) => piece?,
                    None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                };
                left =
                    left.checked_sub(piece.len() as u64).ok_or(io::ErrorKind::InvalidData).map_err(io::Error::from)?;
                exchange.write(piece, left == 0).await?;
            }
        }
    }
    Ok(())
}

/// Why an answer did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The client left.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The body's source failed in the middle; the client sees a truncated response.
    #[error("the body could not be read to its end: {0}")]
    Source(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_ports_are_not_written_and_spellings_compare_equal() {
        let long: Origin = "https://Registry.example.com:443/".parse().unwrap();
        let short: Origin = "https://registry.example.com".parse().unwrap();
        assert_eq!(long, short);
        assert_eq!((short.host(), short.port()), ("registry.example.com", 443));
        let v6: Origin = "http://[::1]:5000".parse().unwrap();
        assert_eq!((v6.host(), v6.port(), v6.to_string().as_str()), ("[::1]", 5000, "http://[::1]:5000"));
    }

    #[test]
    fn an_ipv6_network_and_an_ipv4_address_count_as_one_client() {
        let same = |one: &str, two: &str| network(one.parse().unwrap()) == network(two.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn origins_with_path_user_or_no_scheme_are_refused() {
        for bad in [
            "registry.example.com",
            "https://",
            "https://a/b",
            "https://u@a",
            "ftp://a",
            "https://a:",
            "https://a?b",
            "https://a:99999",
            "https://a:0",
            "https://a:x",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
