//! How is a Pingora session an [`Exchange`]?
//!
//! **Invariants**
//! - The body is read when the service asks for it and not before; `100 Continue` is sent with the first question, so
//!   that a client whose request is refused by its header alone never sends the body.
//! - Writes go out in pieces of [`PIECE`] and wait for the connection: a client that stops reading stops the service.
//! - A `HEAD` request gets no body whatever the service writes (RFC 9110 9.3.2). Pingora sees to that only on HTTP/1.1.
//! - An answer that was begun and not brought to its end is reported as [`Ending::Truncated`], and the connection (or
//!   stream) is then broken off, never ended cleanly.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request, response};
use jiff::Timestamp;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorType};
use tokio::time::Instant;

use super::connection::Connection;
use super::dress::Dress;
use super::forward::Forwarding;
use super::http2;
use super::mount::{self, Mounted};
use super::watch::{Pace, Steadiness};
use crate::exchange::{BodyError, Caller, Exchange, Gone, Kind, Notes, RequestId};
use crate::telemetry::traces::Trace;

/// How much is handed to the connection at once. rustls encrypts this much without a second copy.
const PIECE: usize = 32 << 10;
/// The same on HTTP/2: with its header, one frame is one TLS record.
const FRAME: usize = (16 << 10) - 9;
/// How much of a request body that nobody wanted is read after the answer, and for how long: enough for a client that
/// reads only after it has sent, too little for one that means harm. On HTTP/1.1 the stream itself does this.
const UNWANTED: usize = 8 << 20;
const UNWANTED_TIME: Duration = Duration::from_secs(2);

/// Pingora's name for an answer that ends before its `Content-Length`.
const SHORT_ANSWER: &str = "PrematureBodyEnd";

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What the access line will be made of.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) time: Timestamp,
    pub(super) begun: Instant,
    pub(super) answered: Option<Instant>,
    pub(super) request_id: RequestId,
    /// Who asks, once that is known.
    pub(super) client: Option<IpAddr>,
    pub(super) status: Option<StatusCode>,
    pub(super) client_left: bool,
    pub(super) notes: Notes,
    /// Set when the request came by the prefix.
    pub(super) mounted: Option<Mounted>,
    /// Whether the client came over TLS, to us or to who stands before us.
    pub(super) secure: bool,
    /// Its place in a trace.
    pub(super) trace: Trace,
    /// Set when somebody else's registry answers.
    pub(super) forwarding: Option<Box<Forwarding>>,
}

impl Record {
    pub(super) fn new() -> Self {
        Self {
            time: Timestamp::now(),
            begun: Instant::now(),
            answered: None,
            request_id: RequestId::NONE,
            client: None,
            status: None,
            client_left: false,
            notes: Notes::default(),
            mounted: None,
            secure: false,
            trace: Trace::none(),
            forwarding: None,
        }
    }

    /// Who asks: at least the other end of the connection is known.
    pub(super) fn client(&self, connection: &Connection) -> IpAddr {
        self.client.unwrap_or_else(|| connection.peer.ip().to_canonical())
    }
}

/// What every exchange is held under.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// How steady the client of an HTTP/2 stream must be; on HTTP/1.1 the connection watches.
    pub(super) steadiness: Steadiness,
    /// What every answer carries.
    pub(super) dress: Arc<Dress>,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing was answered.
    Unanswered,
    /// The answer was begun; the client must not take it for whole.
    Truncated,
    /// The answer is complete.
    Complete,
}

/// One request on a Pingora session.
pub(super) struct Call<'a> {
    session: &'a mut ServerSession,
    caller: &'a Caller,
    record: &'a mut Record,
    terms: &'a Terms,
    /// Whether the connection is to end: the answer then says so.
    connection: &'a Connection,
    ending: Ending,
    continued: bool,
    /// Of the body, on HTTP/2.
    pace: Pace,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        session: &'a mut ServerSession,
        caller: &'a Caller,
        record: &'a mut Record,
        terms: &'a Terms,
        connection: &'a Connection,
    ) -> Self {
        Self {
            session,
            caller,
            record,
            terms,
            connection,
            ending: Ending::Unanswered,
            continued: false,
            pace: Pace::default(),
        }
    }

    pub(super) fn ending(&self) -> Ending {
        self.ending
    }

    pub(super) fn client_left(&self) -> bool {
        self.record.client_left
    }

    /// Reads what is left of an HTTP/2 request body after its answer, within limits: ending the stream at once makes
    /// the client see a reset, and some then throw the answer away.
    pub(super) async fn discard_unwanted(&mut self) {
        if !self.session.is_http2() || self.session.is_body_done() {
            return;
        }
        let session = &mut *self.session;
        let discard = async move {
            let mut left = UNWANTED;
            while left > 0 {
                let Ok(Some(bytes)) = session.read_request_body().await else { return };
                left = left.saturating_sub(bytes.len());
            }
        };
        let _ = tokio::time::timeout(UNWANTED_TIME, discard).await; // whether all came or not, the answer is out
    }

    /// `Expect: 100-continue` is answered when the body is first asked for (RFC 9110 10.1.1).
    async fn invite_body(&mut self) -> Result<(), BodyError> {
        if std::mem::replace(&mut self.continued, true) || self.ending != Ending::Unanswered {
            return Ok(());
        }
        // The registry reads what may be long only of those who may send it.
        if self.record.notes.kind == Kind::Upload && http2::is_long(self.session) {
            self.connection.wants_window.notify_one();
        }
        let head = self.session.req_header();
        let expected = head.headers.get(header::EXPECT).is_some_and(is_continue);
        if !expected || head.version != Version::HTTP_11 || self.session.is_body_empty() {
            return Ok(());
        }
        continue_body(self.session).await.map_err(|_| self.left(BodyError::Gone))
    }

    async fn read_piece(&mut self) -> Result<Option<Bytes>, BodyError> {
        let read = if self.session.is_http2() {
            self.read_from_stream().await?
        } else {
            self.session.read_request_body().await
        };
        read.map_err(|error| {
            // Where this body ends nobody knows, so nothing after it may be taken for a request (RFC 9112 11.2).
            self.session.set_keepalive(None);
            match misfortune(&error) {
                BodyError::Gone => self.left(BodyError::Gone),
                other => other,
            }
        })
    }

    /// Pingora has no limit of its own for a stream.
    async fn read_from_stream(&mut self) -> Result<Result<Option<Bytes>, Box<Error>>, BodyError> {
        let (begun, steadiness) = (Instant::now(), self.terms.steadiness);
        let read = tokio::time::timeout(steadiness.stall, self.session.read_request_body()).await;
        let read = read.map_err(|_| BodyError::Stalled)?;
        let bytes = if let Ok(Some(bytes)) = &read { bytes.len() } else { return Ok(read) };
        self.pace.add(bytes, begun.elapsed());
        if self.pace.is_over(steadiness) && !self.pace.begin_anew(steadiness) {
            return Err(BodyError::Stalled);
        }
        Ok(read)
    }

    fn left<E>(&mut self, error: E) -> E {
        self.record.client_left = true;
        error
    }

    fn dress(&self, headers: &mut HeaderMap) {
        let api = mount::is_api(self.session.req_header().uri.path());
        self.terms.dress.put_on(headers, self.record.secure, api);
        if let Some(mounted) = &self.record.mounted {
            mounted.leave(headers, &self.caller.origin);
        }
    }

    /// Whether a write worked. One that did not leaves the answer truncated.
    fn sent(&mut self, result: Result<(), Box<Error>>, end: bool) -> Result<(), Gone> {
        match result {
            Ok(()) if end => {
                self.ending = Ending::Complete;
                self.record.answered = Some(Instant::now());
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(error) => {
                if error.etype.as_str() == SHORT_ANSWER {
                    self.record
                        .notes
                        .failure
                        .get_or_insert_with(|| "the answer is shorter than it announced".to_owned());
                } else {
                    self.record.client_left = true;
                }
                Err(Gone)
            }
        }
    }
}

impl Exchange for Call<'_> {
    fn head(&self) -> &request::Parts {
        self.session.req_header().as_ref()
    }

    fn caller(&self) -> &Caller {
        self.caller
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.record.notes
    }

    async fn read(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.invite_body().await?;
        loop {
            match self.read_piece().await? {
                Some(bytes) if bytes.is_empty() => {} // an HTTP/2 DATA frame may be
                piece => return Ok(piece),
            }
        }
    }

    async fn respond(&mut self, mut head: response::Parts, end: bool) -> Result<(), Gone> {
        head.headers.insert(REQUEST_ID, self.caller.request_id.to_header());
        if let Some(digest) = head.headers.get_mut(CONTENT_DIGEST) {
            digest.set_sensitive(true); // like the request id: a client asks for most only once
        }
        self.dress(&mut head.headers);
        if *self.connection.closing.borrow() {
            self.session.set_keepalive(None);
        }
        self.record.status = Some(head.status);
        self.ending = Ending::Truncated;
        let end = end || self.head().method == Method::HEAD;
        let header = Box::new(ResponseHeader::from(head));
        let written = match &mut *self.session {
            ServerSession::H2(stream) => stream.write_response_header(header, end),
            other if end => match other.write_response_header(header).await {
                Ok(()) => other.finish_body().await,
                failed => failed,
            },
            other => other.write_response_header(header).await,
        };
        self.sent(written, end)
    }

    async fn write(&mut self, mut bytes: Bytes, end: bool) -> Result<(), Gone> {
        if self.ending == Ending::Complete {
            return Ok(()); // HEAD
        }
        let most = if self.session.is_http2() { self.terms.steadiness.timely(FRAME) } else { PIECE };
        loop {
            let piece = bytes.split_to(bytes.len().min(most));
            let last = end && bytes.is_empty();
            let written = self.session.write_response_body(piece, last).await;
            self.sent(written, last)?;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Whether this is what a client expects that waits for permission to send its body.
pub(super) fn is_continue(expected: &HeaderValue) -> bool {
    expected.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

/// Permits the client to send its body.
pub(super) async fn continue_body(session: &mut ServerSession) -> Result<(), Box<Error>> {
    // Pingora gives up the connection when it writes a header before the body is read, even this one.
    let keepalive = session.get_keepalive();
    let invited = session.write_continue_response().await;
    session.set_keepalive(keepalive);
    invited
}

/// Whose fault it is that a body cannot be read.
pub(super) fn misfortune(error: &Error) -> BodyError {
    match error.etype() {
        ErrorType::ReadTimedout => BodyError::Stalled,
        ErrorType::ReadError if is(error, io::ErrorKind::TimedOut) => BodyError::Stalled,
        ErrorType::ReadError if is(error, io::ErrorKind::InvalidData) => BodyError::Malformed,
        // Of HTTP/2's stream errors only the text tells whose they are, and after none can the stream be answered.
        ErrorType::ReadError | ErrorType::ConnectionClosed | ErrorType::H2Error => BodyError::Gone,
        _ => BodyError::Malformed,
    }
}

fn is(error: &Error, kind: io::ErrorKind) -> bool {
    let cause = error.cause.as_ref().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == kind)
}
