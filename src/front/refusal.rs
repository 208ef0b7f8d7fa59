//! What do we say to a request that never reaches the registry?
//!
//! Everything here is OCI JSON, because registry clients print the message of such a body and nothing of any other.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::{ALLOW, LOCATION, RETRY_AFTER, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::protocols::http::date::get_cached_date;
use serde_json::json;

use super::Prefix;
use super::limits::Full;
use crate::exchange::{Answer, Body, Limit, Origin, WireError};

/// When it makes sense to connect again, in seconds: connections come and go.
const CONNECT_AGAIN: &str = "5";

/// Why a request goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not HTTP/1.1 by the letter (RFC 9112).
    Malformed,
    /// A longer header section, from the method to the empty line, than this many bytes.
    HeaderTooLarge {
        /// [`Limits::header`](super::Limits).
        limit: usize,
    },
    /// Begun, but not finished within the header deadline.
    HeaderTooSlow,
    /// Plain HTTP where TLS is spoken, or is to be (RFC 9110 15.5.22).
    SpeaksTls,
    /// Plain HTTP where TLS is spoken, by a client that can be told where.
    Moved {
        /// The whole URL.
        to: String,
    },
    /// A connection without a header of the PROXY protocol where there should be one.
    Unnamed,
    /// The client's address is not among those that the listener is for.
    Denied {
        /// The address.
        client: IpAddr,
        /// What it may not do.
        what: &'static str,
    },
    /// More header fields than this.
    TooManyFields {
        /// [`Limits::fields`](super::Limits).
        limit: usize,
    },
    /// A longer path and query than this many bytes.
    TargetTooLong {
        /// [`Limits::target`](super::Limits).
        limit: usize,
    },
    /// There was no room for the connection.
    TooManyConnections(Full),
    /// Bytes that no URI has.
    TargetNotText,
    /// A path that others behind us could read differently.
    Ambiguous,
    /// `CONNECT`: we are nobody's forward proxy. `TRACE`: what proxies add to a request is not its client's to see.
    Method,
    /// HTTP/1.1 without a `Host`.
    HostMissing,
    /// A `Host` that names no host.
    HostMalformed,
    /// A name that is not ours (RFC 9110 15.5.20).
    Misdirected {
        /// What the client called us.
        host: String,
        /// What the world calls us; aliases may be inside names and are told to nobody.
        external: Origin,
    },
    /// A name of ours, on a connection that was made for another with a certificate of its own.
    OtherCertificate {
        /// What the client called us.
        host: String,
        /// What it had asked for.
        asked_for: String,
    },
    /// A name of ours, on a connection whose client has not proven who it is as the name demands.
    Unproven {
        /// By which it came.
        origin: Origin,
        /// Whether the client could, on a connection by that name.
        could: bool,
    },
    /// The API lies below a prefix.
    Elsewhere {
        /// Which.
        prefix: Prefix,
    },
    /// The service ended without an answer.
    Unanswered,
}

impl Refusal {
    pub(super) fn answer(&self) -> Answer {
        let status = self.status();
        let code = match status {
            StatusCode::FORBIDDEN => "DENIED",
            StatusCode::TOO_MANY_REQUESTS => "TOOMANYREQUESTS",
            status if status.is_server_error() => "UNKNOWN",
            _ => "UNSUPPORTED",
        };
        let error = WireError::new(code, self.message());
        match self {
            Self::Misdirected { external, .. } => {
                Answer::error(status, error.detail(json!({ "origin": external.to_string() })))
            }
            Self::Moved { to } => Answer::error(status, error).header(LOCATION, to),
            // The answer must name what to speak instead (RFC 9110 15.5.22).
            Self::SpeaksTls => Answer::error(status, error).header(UPGRADE, "TLS/1.2, HTTP/1.1"),
            Self::TooManyConnections(_) => Answer::error(status, error).header(RETRY_AFTER, CONNECT_AGAIN),
            Self::Method => Answer::error(status, error).header(ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE"),
            _ => Answer::error(status, error),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed | Self::TargetNotText | Self::Ambiguous | Self::HostMissing | Self::HostMalformed => {
                StatusCode::BAD_REQUEST
            }
            Self::SpeaksTls => StatusCode::UPGRADE_REQUIRED,
            Self::Moved { .. } => StatusCode::PERMANENT_REDIRECT,
            Self::Unnamed | Self::Denied { .. } => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeaderTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Elsewhere { .. } => StatusCode::NOT_FOUND,
            Self::TargetTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::Misdirected { .. } | Self::OtherCertificate { .. } | Self::Unproven { .. } => {
                StatusCode::MISDIRECTED_REQUEST
            }
            Self::HeaderTooLarge { .. } | Self::TooManyFields { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooManyConnections(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unanswered => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The limit that the client ran into, if that is why.
    pub(super) fn limit(&self) -> Option<Limit> {
        match self {
            Self::HeaderTooLarge { .. } | Self::TooManyFields { .. } => Some(Limit::Header),
            Self::TargetTooLong { .. } => Some(Limit::Target),
            _ => None,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Malformed => "the request is not valid HTTP/1.1".to_owned(),
            Self::HeaderTooLarge { limit } => format!("the request header is larger than {limit} bytes"),
            Self::HeaderTooSlow => "the request header took too long to arrive".to_owned(),
            Self::SpeaksTls => "nothing is served in the clear here: use https://".to_owned(),
            Self::Moved { to } => format!("nothing is served in the clear here: use {to}"),
            Self::Unnamed => {
                "this port is for a load balancer, which did not say whose connection it is (PROXY protocol)".to_owned()
            }
            Self::Denied { client, what } => format!("clients at {client} may not {what} here"),
            Self::TooManyFields { limit } => format!("the request has more than {limit} header fields"),
            Self::TargetTooLong { limit } => format!("path and query are longer than {limit} bytes"),
            Self::TooManyConnections(Full::Everybody) => {
                "the registry has no room for more connections; try again".to_owned()
            }
            Self::TooManyConnections(Full::Client) => {
                "too many connections from this address; use fewer, or try again later".to_owned()
            }
            Self::TargetNotText => "path and query must be ASCII, percent-encoded".to_owned(),
            Self::Ambiguous => {
                "the path can be read in more than one way: no . or .. between slashes, no backslash, no // or ; \
                 in /v2/, and no letter or slash escaped there"
                    .to_owned()
            }
            Self::Method => "neither CONNECT nor TRACE is served here".to_owned(),
            Self::HostMissing => "an HTTP/1.1 request must have one Host header".to_owned(),
            Self::HostMalformed => "the Host header is not HOST or HOST:PORT".to_owned(),
            // The operator reads this in the client's output.
            Self::Misdirected { host, external } => {
                format!(
                    "this registry is {external} and not {host:?}; to answer under that name too, add it to `aliases`"
                )
            }
            Self::OtherCertificate { host, asked_for } => {
                format!("this connection was made for {asked_for}, and {host} has another certificate: open one for it")
            }
            Self::Unproven { origin, could: true } => format!(
                "clients of {} are asked for certificates in another way than on this connection (`tls.client_auth`): \
                 open a new one to {origin}, by that name",
                origin.host()
            ),
            Self::Unproven { origin, could: false } => format!(
                "clients of {} must show certificates (`tls.client_auth`), which they cannot on this way to the registry",
                origin.host()
            ),
            Self::Elsewhere { prefix } => format!("the registry's API is at {}/v2/", prefix.as_str()),
            Self::Unanswered => "an internal error; the server's log has more under the X-Request-Id".to_owned(),
        }
    }

    /// The whole answer, for a connection on which no request was understood; it is closed afterwards.
    pub(super) fn to_http1(&self, request_id: &str, dress: impl FnOnce(&mut HeaderMap)) -> Vec<u8> {
        let mut answer = self.answer();
        dress(&mut answer.headers);
        let body = match answer.body {
            Body::Bytes(bytes) => bytes,
            Body::Empty | Body::Stream { .. } => Default::default(),
        };
        let mut head = format!("HTTP/1.1 {}\r\n", answer.status);
        let mut field = |name: &str, value: &str| {
            let _ = write!(head, "{name}: {value}\r\n"); // writing to a String does not fail
        };
        field("Date", text(&get_cached_date()));
        for (name, value) in &answer.headers {
            field(name.as_str(), text(value));
        }
        field("Content-Length", &body.len().to_string());
        field("X-Request-Id", request_id);
        field("Connection", "close");
        head.push_str("\r\n");
        [head.as_bytes(), &body].concat()
    }
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or_default()
}
