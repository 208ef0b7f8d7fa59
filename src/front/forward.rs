//! What happens to a request that somebody else's registry answers?
//!
//! In Pingora's order: a peer is [chosen](choose) (again, when one could not be reached), the header is
//! [made](send_header) what the peer is to get, the pieces of the body are [counted](take_piece) on their way, the header
//! of the answer is [put right](receive_header) and [dressed](dress); when it ends badly the client is [told](fail), or
//! its connection is broken off if it was told something already.
//!
//! **Invariants**
//! - A request of which a peer got a byte is sent to no other, but for `GET` and `HEAD` without a body of which nothing
//!   was answered. An answer that was begun is never begun anew.
//! - An answer that does not reach its end does not look as if it had, but to a client of HTTP/1.0 that knows no length:
//!   there the end of the connection is all there is (RFC 9112 6.3).
//! - Nothing of a body is kept but the few pieces that Pingora hands from one side to the other.
//! - Whose fault it is decides what the client is told: 4xx for its own, 5xx for the peer's.
//!
//! What Pingora decides: a peer that stops taking a body is given up only after `write`, and then `read` for an answer that
//! it may have given. After an answer that came before the end of the body the request goes on until the client ends it, or
//! owes it for too long. A write that a peer has refused on HTTP/2 is tried again only if it has no body. `read` is one time
//! from the header to the end, which each piece of a body starts anew: so that a client has its own for the next piece, it
//! is not less than `stall` where there is a body.
//!
//! Absent on purpose: which peer ([`upstream`](super::upstream)), what stands in the headers
//! ([`rewrite`]), upgrades of the connection: nobody pushes images through them.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName, RETRY_AFTER, SERVER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use percent_encoding::percent_decode_str;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::upstreams::peer::{ALPN, HttpPeer, HttpUpstreamRequestPolicy};
use pingora::{Error, ErrorSource, ErrorType, Result};
use tokio::time::Instant;

use super::connection::Connection;
use super::fault::{Fate, How, blame_client};
use super::host::Origins;
use super::refusal::Refusal;
use super::rewrite::{self, Arrived, Place};
use super::session::{self, Call, Record, Terms};
use super::stream::{self, Epilogue, StreamWatch};
use super::upstream::{Picked, Pool};
use super::watch::Phase;
use super::{http2, mount};
use crate::exchange::{Answer, BodyError, Caller, Kind, Limit, Passage, WireError, content_length, send};
use crate::telemetry::{self, Forwarded, Held};
use crate::tls::Demands;

/// No peer is left to be asked.
const NO_PEER: ErrorType = ErrorType::new("NoPeer");
/// [`Progress::stopped`] says why.
const REFUSED: ErrorType = ErrorType::new("Refused");
/// How many connections that peers had just given up may be met for one request.
const STALE: u32 = 4;
/// When it makes sense to try again where peers fail, in seconds: as long as it takes to notice that one is back.
const TRY_AGAIN: &str = "5";
/// How much of a body must be with the peer before its HTTP/2 connection is lent a window: by then a client that may not
/// send it has been told so.
const LENT_AFTER: u64 = 512 << 10;

/// Where a request goes, and as what.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) pool: Arc<Pool>,
    pub(super) passage: Passage,
    pub(super) counts: Arc<Forwarded>,
    /// Held while content is on its way.
    pub(super) _upload: Option<Held>,
    pub(super) origins: Arc<Origins>,
    /// Whether it came by a proxy whose word counts.
    pub(super) trusted: bool,
    /// What clients must or may prove.
    pub(super) demands: Arc<Demands>,
    /// The path of the token endpoint that clients reach by us.
    pub(super) token: Option<Arc<str>>,
}

/// A request that is forwarded.
#[derive(Debug)]
pub(super) struct Forwarding {
    way: Way,
    caller: Caller,
    terms: Terms,
    connection: Arc<Connection>,
    progress: Progress,
}

/// How far it is.
#[derive(Debug, Default)]
struct Progress {
    /// How many peers were asked.
    attempts: u32,
    /// Those that are not asked again.
    tried: Vec<SocketAddr>,
    /// Whether one of them took the request and failed.
    broke: bool,
    picked: Option<Picked>,
    /// How many times one of them had given up a connection that we meant to use.
    stale: u32,
    /// What went wrong with the last of them.
    failed: Option<(String, How)>,
    /// What the last of them answered, and when that began.
    answered: Option<(StatusCode, Instant)>,
    /// Bytes of the body that came.
    came: u64,
    /// Who minds that they do, on HTTP/2.
    watch: Option<Arc<StreamWatch>>,
    /// Whether the client waits for permission to send its body.
    expects: bool,
    /// Set when it is told something before the answer: whether its connection was to be kept. Pingora forgets that when it
    /// writes a header before the body is read, even such a one.
    kept: Option<Option<u64>>,
    /// Set when we go no further.
    stopped: Option<Stop>,
    lent: bool,
}

/// Why we go no further with a request in its middle.
#[derive(Debug)]
enum Stop {
    /// Its body is larger than it may be.
    TooLarge,
    /// Nothing may change any more.
    Withdrawn,
    /// The answer would lead the client astray.
    Astray,
    /// The peer speaks another protocol from now on, for which nobody asked.
    Switched,
    /// The client owes its body, and the peer waits for that no longer.
    Stalled,
}

impl Forwarding {
    pub(super) fn new(way: Way, caller: Caller, terms: Terms, connection: Arc<Connection>) -> Self {
        Self { way, caller, terms, connection, progress: Progress::default() }
    }

    /// Minds from now on that the client sends its body, on HTTP/2.
    pub(super) fn watch(&mut self, epilogue: Epilogue) {
        self.progress.watch = stream::current();
        if let Some(watch) = &self.progress.watch {
            watch.begin(self.terms.steadiness, self.way.pool.config().timeouts.write, epilogue);
        }
    }

    /// For the access line of a request that began then.
    pub(super) fn report(&self, begun: Instant) -> telemetry::Upstream<'_> {
        telemetry::Upstream {
            name: &self.way.pool.config().name,
            peer: self.progress.picked.as_ref().map(Picked::address),
            first_byte: self.progress.answered.map(|(_, at)| at.saturating_duration_since(begun)),
        }
    }

    /// At its end.
    pub(super) fn count(&self) {
        self.way.counts.answered(self.progress.answered.map(|(status, _)| status.as_u16()));
    }

    pub(super) fn counts(&self) -> Arc<Forwarded> {
        self.way.counts.clone()
    }

    /// Why it must not even be begun.
    pub(super) fn refusal(&self, headers: &HeaderMap) -> Option<Answer> {
        let length = content_length(headers)?;
        self.way.passage.body.is_some_and(|limit| length > limit).then(|| self.way.passage.too_large())
    }

    fn may_try_again(&self) -> bool {
        self.progress.attempts < self.way.pool.config().attempts.get()
    }

    /// The client owes nothing now: only that it takes the answer is waited for.
    fn owes_nothing(&self) {
        self.set_phase(Phase::Awaiting);
    }

    fn set_phase(&self, phase: Phase) {
        if !self.connection.is_http2() {
            self.connection.phase.set(phase);
        }
    }

    /// Which peer has the upload, where the answer names one.
    fn learn(&self, header: &ResponseHeader, picked: &Picked) {
        const UPLOAD: HeaderName = HeaderName::from_static("docker-upload-uuid");
        if self.way.passage.kind != Kind::Upload || !header.status.is_success() {
            return;
        }
        let text = |name: &HeaderName| header.headers.get(name).and_then(|value| value.to_str().ok());
        let location = || {
            let location = text(&header::LOCATION)?;
            location.split('?').next()?.rsplit_once("/blobs/uploads/").map(|(_, upload)| upload)
        };
        // As the next request's path is read: the upload is the same, however somebody writes it.
        let upload = location().map(|upload| percent_decode_str(upload).decode_utf8_lossy());
        let upload = upload.or_else(|| text(&UPLOAD).map(Cow::Borrowed));
        if let Some(upload) = upload.as_deref().or(self.way.passage.upload.as_deref()) {
            self.way.pool.learn(upload, picked);
        }
    }

    /// Remembers what went wrong with a peer, in case there is no other.
    fn note(&mut self, error: &Error) {
        let peer = self.progress.picked.as_ref().map(|picked| format!("{}: ", picked.origin())).unwrap_or_default();
        let (upstream, request_id) = (&self.way.pool.config().name, &self.caller.request_id);
        tracing::debug!(%upstream, %request_id, "{peer}{error}");
        self.progress.failed = Some((format!("{peer}{error}"), How::of(error)));
    }

    /// The connection was given up before the request came to it: that is no failure of the peer's, and no attempt, and it
    /// may be asked again. False: that happened too often.
    fn forgive(&mut self) -> bool {
        let progress = &mut self.progress;
        if progress.stale >= STALE {
            return false;
        }
        progress.stale += 1;
        progress.attempts -= 1;
        progress.tried.pop();
        true
    }

    /// Whether it is the client's turn to send.
    fn is_owed(&self, session: &mut Session) -> bool {
        !session.is_body_done() && !self.progress.expects && self.progress.answered.is_none()
    }

    fn stop<T>(&mut self, why: Stop) -> Result<T> {
        self.progress.stopped = Some(why);
        Err(Error::new(REFUSED))
    }
}

/// The peer to ask next.
pub(super) async fn choose(session: &mut Session, record: &mut Record) -> Result<Box<HttpPeer>> {
    let Some(forwarding) = &mut record.forwarding else { return Err(Error::new(NO_PEER)) };
    forwarding.progress.picked = None; // it is none of the one before any more
    let key = forwarding.way.pool.key(&forwarding.way.passage);
    let picked = forwarding.way.pool.pick(key, &forwarding.progress.tried).await;
    let picked = picked.ok_or_else(|| Error::new(NO_PEER))?;
    let mut peer = picked.http_peer();
    peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
    // On HTTP/2 Pingora would answer an old client in chunks, and count a body's way to the peer as waiting for its answer.
    if session.req_header().version < Version::HTTP_11 || http2::has_long_body(session) {
        peer.options.alpn = ALPN::H1;
    }
    if !session.is_body_empty() {
        let stall = forwarding.terms.steadiness.stall;
        peer.options.read_timeout = peer.options.read_timeout.map(|read| read.max(stall));
    }
    let progress = &mut forwarding.progress;
    progress.attempts += 1;
    progress.answered = None;
    if progress.attempts > 1 {
        forwarding.way.counts.again();
    }
    progress.tried.push(picked.address());
    progress.picked = Some(picked);
    Ok(Box::new(peer))
}

/// Makes of the client's header what the peer is to get.
pub(super) async fn send_header(session: &mut Session, header: &mut RequestHeader, record: &mut Record) -> Result<()> {
    let Some(forwarding) = &mut record.forwarding else { return Err(Error::new(NO_PEER)) };
    let Some(picked) = &forwarding.progress.picked else { return Err(Error::new(NO_PEER)) };
    let Caller { address, origin, request_id, .. } = &forwarding.caller;
    let (demands, trusted) = (&forwarding.way.demands, forwarding.way.trusted);
    let subject = forwarding.connection.subject(demands, origin.host());
    let request_id = request_id.as_str();
    let arrived = Arrived { origin, client: *address, request_id, peer: picked.origin(), trusted, demands, subject };
    rewrite::request(header, &arrived, forwarding.way.pool.config())?;
    if session.req_header().version < Version::HTTP_11 {
        session.downstream_session.set_ignore_info_resp(true); // it knows no 1xx (RFC 9110 15.2)
    }
    let empty = session.is_body_empty();
    if empty && session.is_http2() && [Method::POST, Method::PUT, Method::PATCH].contains(&header.method) {
        header.insert_header("Content-Length", "0")?; // on HTTP/1.1 some ask for it (RFC 9110 8.6)
    }
    invite_body(session, header, forwarding).await?;
    if session.is_body_done() {
        forwarding.owes_nothing();
    } else if forwarding.progress.expects {
        forwarding.set_phase(Phase::Expecting);
    }
    Ok(())
}

/// `Expect: 100-continue` is the peer's to answer, who may have another answer; but where its permission would not reach
/// the client, or Pingora would not hear of it (HTTP/2), the body is simply sent.
async fn invite_body(session: &mut Session, header: &mut RequestHeader, forwarding: &mut Forwarding) -> Result<()> {
    let Some(expected) = header.remove_header(&header::EXPECT) else { return Ok(()) };
    let head = session.req_header();
    let can_wait = head.version == Version::HTTP_11 && session::is_continue(&expected);
    if !can_wait || session.is_body_empty() || forwarding.progress.came > 0 {
        return Ok(());
    }
    if header.version == Version::HTTP_2 {
        return session::continue_body(session).await.map_err(|error| error.into_down());
    }
    forwarding.progress.expects = true;
    header.insert_header("Expect", "100-continue")
}

/// A piece of the body on its way to the peer.
pub(super) fn take_piece(
    session: &mut Session,
    piece: &mut Option<Bytes>,
    end: bool,
    record: &mut Record,
) -> Result<()> {
    let Some(forwarding) = &mut record.forwarding else { return Ok(()) };
    if end && piece.as_ref().is_some_and(Bytes::is_empty) {
        *piece = None; // Pingora would write it as a chunk, which is the end of the body, before the end of the body
    }
    let bytes = piece.as_ref().map_or(0, Bytes::len);
    let progress = &mut forwarding.progress;
    progress.came += bytes as u64;
    let came = progress.came;
    if let Some(watch) = &progress.watch {
        watch.note(bytes);
        if end {
            watch.end();
        }
    }
    if let Some(kept) = progress.kept.take() {
        session.set_keepalive(kept);
    }
    if bytes > 0 && std::mem::take(&mut progress.expects) {
        forwarding.set_phase(Phase::Answering);
    }
    if forwarding.way.passage.body.is_some_and(|limit| came > limit) {
        record.notes.limit = Some(Limit::Body);
        return forwarding.stop(Stop::TooLarge);
    }
    if forwarding.way.passage.permit.as_ref().is_some_and(|permit| permit.withdrawn().is_some()) {
        return forwarding.stop(Stop::Withdrawn);
    }
    if end {
        forwarding.owes_nothing();
    } else if came >= LENT_AFTER && !forwarding.progress.lent && forwarding.way.passage.kind == Kind::Upload {
        forwarding.progress.lent = true;
        if http2::is_long(session) {
            forwarding.connection.wants_window.notify_one();
        }
    }
    Ok(())
}

/// The header of the peer's answer, or of one before it (1xx).
pub(super) fn receive_header(session: &Session, header: &mut ResponseHeader, record: &mut Record) -> Result<()> {
    let Some(forwarding) = &mut record.forwarding else { return Ok(()) };
    if header.status.is_informational() {
        if header.status == StatusCode::SWITCHING_PROTOCOLS {
            record.notes.failure = Some("the peer switched protocols without being asked".to_owned());
            return forwarding.stop(Stop::Switched);
        }
        if header.status == StatusCode::CONTINUE && std::mem::take(&mut forwarding.progress.expects) {
            forwarding.set_phase(Phase::Answering); // the client's turn
        }
        forwarding.progress.kept = Some(session.get_keepalive());
        return Ok(());
    }
    if std::mem::take(&mut forwarding.progress.expects) {
        forwarding.set_phase(Phase::Answering); // no permission will come: a client that stays silent is not waited for
    }
    if let Some(picked) = &forwarding.progress.picked {
        let now = Instant::now();
        forwarding.progress.answered = Some((header.status, now));
        picked.answered(header.status, now);
        forwarding.learn(header, picked);
    }
    header.remove_header(&SERVER); // before the operator's own
    if header.status == StatusCode::NO_CONTENT {
        header.remove_header(&header::CONTENT_LENGTH); // RFC 9110 8.6
    }
    let place = Place {
        method: &session.req_header().method,
        origin: &forwarding.caller.origin,
        ours: forwarding.way.origins.all(),
        client: forwarding.caller.address,
        upstream: forwarding.way.pool.config(),
        address: forwarding.progress.picked.as_ref().map(Picked::address),
        token: forwarding.way.token.as_deref(),
    };
    match rewrite::response(header, &place) {
        Ok(None) => Ok(()),
        Ok(Some(concern)) => {
            let (upstream, request_id) = (&forwarding.way.pool.config().name, &forwarding.caller.request_id);
            tracing::warn!(%upstream, %request_id, "{concern}");
            Ok(())
        }
        Err(refused) => {
            record.notes.failure = Some(refused.to_string());
            forwarding.stop(Stop::Astray)
        }
    }
}

/// What every answer carries.
pub(super) fn dress(session: &mut Session, header: &mut ResponseHeader, record: &mut Record) -> Result<()> {
    if header.status.is_informational() {
        return Ok(());
    }
    let Some(forwarding) = &record.forwarding else { return Ok(()) };
    let head = session.req_header();
    let (api, old) = (mount::is_api(head.uri.path()), head.version < Version::HTTP_11);
    let added = forwarding.terms.dress.missing(&header.headers, record.secure, api);
    for (name, value) in added {
        header.append_header(name, value)?;
    }
    header.insert_header(session::REQUEST_ID, forwarding.caller.request_id.to_header())?;
    if old {
        header.remove_header(&TRANSFER_ENCODING); // its answer ends with the connection
    }
    if *forwarding.connection.closing.borrow() {
        session.set_keepalive(None);
    }
    const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
    let digest = header.headers.get(DIGEST).map(HeaderValue::to_str).and_then(Result::ok);
    record.notes.digest = digest.map(str::to_owned);
    record.status = Some(header.status);
    if let Some(watch) = &forwarding.progress.watch {
        watch.answered(header.status);
    }
    Ok(())
}

/// A piece of the answer on its way to the client.
pub(super) fn give_piece(piece: Option<&Bytes>, record: &Record) {
    let watch = record.forwarding.as_ref().and_then(|forwarding| forwarding.progress.watch.as_ref());
    if let (Some(watch), Some(piece)) = (watch, piece) {
        watch.gave(piece.len());
    }
}

/// A peer could not be reached, so that none has a byte of the request: another may be asked, whatever it is.
pub(super) fn not_connected(record: &mut Record, mut error: Box<Error>) -> Box<Error> {
    let Some(forwarding) = &mut record.forwarding else { return error };
    forwarding.note(&error);
    // Of HTTP/2, one that other requests share may have died before ours.
    if *error.etype() != ErrorType::H2Error || !forwarding.forgive() {
        forwarding.way.counts.unreached();
        if let Some(picked) = &forwarding.progress.picked {
            picked.failed(Instant::now());
        }
    }
    error.set_retry(forwarding.may_try_again());
    error
}

/// Something went wrong when a peer had been reached.
pub(super) fn broken(session: &mut Session, record: &mut Record, reused: bool, mut error: Box<Error>) -> Box<Error> {
    let Some(forwarding) = &mut record.forwarding else { return error };
    let fate = Fate::of(&error, reused);
    error.set_retry(false);
    if error.esource != ErrorSource::Upstream {
        return error;
    }
    if *error.etype() == ErrorType::ReadTimedout && forwarding.is_owed(session) {
        record.notes.failure = Some(BodyError::Stalled.to_string());
        forwarding.progress.stopped = Some(Stop::Stalled);
        return error;
    }
    forwarding.note(&error);
    let unanswered = session.response_written().is_none();
    let forgiven = fate != Fate::Failed && unanswered && forwarding.forgive();
    if !forgiven {
        forwarding.progress.broke = true;
        if let Some(picked) = &forwarding.progress.picked {
            picked.failed(Instant::now());
        }
    }
    let method = &session.req_header().method;
    let harmless = fate == Fate::Unseen || [Method::GET, Method::HEAD].contains(method);
    let whole = harmless && forwarding.progress.came == 0 && session.is_body_done() && unanswered;
    error.set_retry(whole && forwarding.may_try_again());
    error
}

/// Tells the client what went wrong, unless it was told something already.
pub(super) async fn fail(session: &mut Session, error: &Error, record: &mut Record) {
    let Some(mut forwarding) = record.forwarding.take() else { return };
    let answered = session.response_written().is_some_and(|written| !written.status.is_informational());
    let answer = match forwarding.progress.stopped.take() {
        Some(stopped) => Some(forwarding.explain(&stopped)),
        None => forwarding.blame(error, record),
    };
    if answered && error.esource != ErrorSource::Downstream && !session.is_http2() {
        session.downstream_session.shutdown().await; // what came of the answer is the client's
    }
    if let (false, Some(answer)) = (answered, answer) {
        session.set_keepalive(None);
        let Forwarding { caller, terms, connection, .. } = &*forwarding;
        // It owes nothing any more. How long it was waited for is not held against what it is told now, whoever's time was
        // over first.
        forwarding.owes_nothing();
        let mut call = Call::new(session, caller, record, terms, connection);
        let _ = send(&mut call, answer).await; // the call remembers whether the client left
        call.discard_unwanted().await;
        if !session.is_http2() {
            session.downstream_session.shutdown().await; // politely: what it still sends must not overtake the answer
        }
    }
    record.forwarding = Some(forwarding);
}

impl Forwarding {
    fn explain(&self, stopped: &Stop) -> Answer {
        match stopped {
            Stop::TooLarge => self.way.passage.too_large(),
            Stop::Withdrawn => {
                let withdrawn = self.way.passage.permit.as_ref().and_then(|permit| permit.withdrawn());
                withdrawn.unwrap_or_else(|| Refusal::Unanswered.answer()) // the pause ended in this moment
            }
            Stop::Switched => {
                let message = "the registry's server answered in another protocol: its operator finds what in the log, by \
                               the request's id";
                Answer::error(StatusCode::BAD_GATEWAY, WireError::new("UNKNOWN", message))
            }
            Stop::Stalled => {
                let stalled = WireError::new("UNSUPPORTED", BodyError::Stalled.to_string());
                Answer::error(StatusCode::REQUEST_TIMEOUT, stalled)
            }
            Stop::Astray => {
                let message = "the registry's answer would lead elsewhere: its operator finds where in the log, by the \
                               request's id";
                Answer::error(StatusCode::BAD_GATEWAY, WireError::new("UNKNOWN", message))
            }
        }
    }

    /// Whose fault it is: the answer that says so. `None`: there is nobody to be told.
    fn blame(&self, error: &Error, record: &mut Record) -> Option<Answer> {
        if error.esource == ErrorSource::Downstream {
            return blame_client(error, record);
        }
        let name = &self.way.pool.config().name;
        let (inside, how) = self.progress.failed.clone().unwrap_or_else(|| (error.to_string(), How::default()));
        record.notes.failure.get_or_insert_with(|| format!("upstream {name}: {inside}"));
        let nobody = *error.etype() == NO_PEER;
        if !nobody && error.esource != ErrorSource::Upstream {
            return Some(Refusal::Unanswered.answer());
        }
        let (status, message) = match how {
            _ if nobody && self.progress.tried.is_empty() => {
                (StatusCode::SERVICE_UNAVAILABLE, "no server of the registry is well: try again in a moment")
            }
            // None has a byte of the request, so that it may simply come again.
            How::Unreached if !self.progress.broke => {
                (StatusCode::SERVICE_UNAVAILABLE, "no server of the registry can be reached: try again in a moment")
            }
            How::TimedOut => {
                (StatusCode::GATEWAY_TIMEOUT, "the registry's server does not answer: try again in a moment")
            }
            How::Unreached | How::Broken => {
                (StatusCode::BAD_GATEWAY, "the registry's server cannot be used, or broke off: try again in a moment")
            }
        };
        Some(Answer::error(status, WireError::new("UNAVAILABLE", message)).header(RETRY_AFTER, TRY_AGAIN))
    }
}
