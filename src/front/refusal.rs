//! What do we say to a request that never reaches the registry?
//!
//! Everything here is OCI JSON, because registry clients print the message of such a body and nothing of any other.

use std::fmt::Write as _;

use http::header::ALLOW;
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::protocols::http::date::get_cached_date;
use serde_json::json;

use super::Prefix;
use crate::exchange::{Answer, Body, Limit, Origin, WireError};

/// The longest header section of a request, from the method to the empty line.
pub(super) const HEADER_LIMIT: usize = 64 << 10;
/// The most header fields of a request.
pub(super) const FIELD_LIMIT: usize = 100;
/// The longest path and query.
pub(super) const TARGET_LIMIT: usize = 8 << 10;

/// Why a request goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not HTTP/1.1 by the letter (RFC 9112).
    Malformed,
    /// More than [`HEADER_LIMIT`].
    HeaderTooLarge,
    /// Begun, but not finished within the header deadline.
    HeaderTooSlow,
    /// Plain HTTP where TLS is spoken.
    SpeaksTls,
    /// More than [`FIELD_LIMIT`].
    TooManyFields,
    /// More than [`TARGET_LIMIT`].
    TargetTooLong,
    /// Bytes that no URI has.
    TargetNotText,
    /// `CONNECT`: we are nobody's forward proxy.
    Connect,
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
        let code = if status.is_server_error() { "UNKNOWN" } else { "UNSUPPORTED" };
        let error = WireError::new(code, self.message());
        match self {
            Self::Misdirected { external, .. } => {
                Answer::error(status, error.detail(json!({ "origin": external.to_string() })))
            }
            Self::Connect => Answer::error(status, error).header(ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE"),
            _ => Answer::error(status, error),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed | Self::SpeaksTls | Self::TargetNotText | Self::HostMissing | Self::HostMalformed => {
                StatusCode::BAD_REQUEST
            }
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeaderTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Elsewhere { .. } => StatusCode::NOT_FOUND,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Misdirected { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::HeaderTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Unanswered => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The limit that the client ran into, if that is why.
    pub(super) fn limit(&self) -> Option<Limit> {
        match self {
            Self::HeaderTooLarge | Self::TooManyFields => Some(Limit::Header),
            Self::TargetTooLong => Some(Limit::Target),
            _ => None,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Malformed => "the request is not valid HTTP/1.1".to_owned(),
            Self::HeaderTooLarge => format!("the request header is larger than {HEADER_LIMIT} bytes"),
            Self::HeaderTooSlow => "the request header took too long to arrive".to_owned(),
            Self::SpeaksTls => "this port speaks TLS: use https://".to_owned(),
            Self::TooManyFields => format!("the request has more than {FIELD_LIMIT} header fields"),
            Self::TargetTooLong => format!("path and query are longer than {TARGET_LIMIT} bytes"),
            Self::TargetNotText => "path and query must be ASCII, percent-encoded".to_owned(),
            Self::Connect => "CONNECT is not served here".to_owned(),
            Self::HostMissing => "an HTTP/1.1 request must have one Host header".to_owned(),
            Self::HostMalformed => "the Host header is not HOST or HOST:PORT".to_owned(),
            // The operator reads this in the client's output.
            Self::Misdirected { host, external } => {
                format!(
                    "this registry is {external} and not {host:?}; to answer under that name too, add it to `aliases`"
                )
            }
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
