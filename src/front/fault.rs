//! Whose fault is it that a forwarded request came to nothing, and what does that mean for it?

use http::StatusCode;
use pingora::{Error, ErrorType, RetryType};

use super::session::{Record, misfortune};
use crate::exchange::{Answer, BodyError, WireError};

/// How a peer failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum How {
    /// There was no connection.
    Unreached,
    /// It took too long.
    TimedOut,
    /// Any other way.
    #[default]
    Broken,
}

impl How {
    pub(super) fn of(error: &Error) -> Self {
        match error.etype() {
            ErrorType::ConnectRefused | ErrorType::ConnectNoRoute | ErrorType::ConnectError => Self::Unreached,
            ErrorType::ConnectTimedout
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout => Self::TimedOut,
            _ => Self::Broken,
        }
    }
}

/// What became of a request on a connection that broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The peer says that it has not looked at it.
    Unseen,
    /// The connection had been kept, and was perhaps gone before: peers close what is idle just when we send on it.
    Stale,
    Failed,
}

impl Fate {
    pub(super) fn of(error: &Error, reused: bool) -> Self {
        match error.etype() {
            // A stream that was refused, a connection that is being closed in order, or HTTP/1.1 that is asked for: for
            // these, and no others, Pingora has decided on HTTP/2 (RFC 9113 6.8, 7, 8.7).
            ErrorType::H2Error | ErrorType::H2Downgrade if error.retry == RetryType::Decided(true) => Self::Unseen,
            // It is asked by HTTP/1.1 then, if that does no harm.
            ErrorType::InvalidH2 => Self::Stale,
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError | ErrorType::H2Error
                if reused =>
            {
                Self::Stale
            }
            _ => Self::Failed,
        }
    }
}

/// The client's own: the answer that says so. `None`: it left.
pub(super) fn blame_client(error: &Error, record: &mut Record) -> Option<Answer> {
    let (status, code, message) = match (error.etype(), misfortune(error)) {
        (ErrorType::WriteError | ErrorType::WriteTimedout, _) | (_, BodyError::Gone) => {
            record.client_left = true;
            return None;
        }
        (_, BodyError::Stalled) => (StatusCode::REQUEST_TIMEOUT, "UNSUPPORTED", BodyError::Stalled.to_string()),
        (ErrorType::InvalidHTTPHeader, _) => {
            (StatusCode::BAD_REQUEST, "UNSUPPORTED", "the request's header cannot be passed on".to_owned())
        }
        (_, malformed) => (StatusCode::BAD_REQUEST, "UNSUPPORTED", malformed.to_string()),
    };
    record.notes.failure.get_or_insert_with(|| error.to_string());
    Some(Answer::error(status, WireError::new(code, message)))
}
