//! What happens in which of Pingora's phases? Each delegates; the order is Pingora's.
//!
//! `early_request_filter` starts the clock that fits, `request_filter` [admits](admit) the request and answers through the
//! embedded [`Service`] or sends it on its [way](forward) to somebody else's registry, `logging` writes the access line.
//! Where there is nobody else's registry, these three are done [alone].
//!
//! **Invariants:** every request gets exactly one access line. What a client does wrong is never answered with 5xx and
//! never logged as an error.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, Method, StatusCode, request};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::Service;
use super::admit::{self, Way, Written};
use super::connection::Connection;
use super::forward;
use super::plan::Plan;
use super::refusal::Refusal;
use super::running::Live;
use super::session::{Call, Ending, Record};
use super::stream::Epilogue;
use super::watch::Phase;
use crate::exchange::{self, Answer, BodyError, Caller, Limit, Origin};
use crate::telemetry::{self, Access, Reports};

/// The status that the access line gives a request whose client left before the end.
const CLIENT_LEFT: u16 = 499;

/// The answer was begun and cannot be finished: breaking off is all that tells the client.
const BROKEN_OFF: ErrorType = ErrorType::new("BrokenOff");
const NO_CONNECTION: ErrorType = ErrorType::new("NoConnection");

/// The embedded service behind Pingora's phases.
pub(super) struct App<S> {
    pub(super) plan: Arc<ArcSwap<Plan<S>>>,
    pub(super) reports: Reports,
}

impl<S: Service> Plan<S> {
    /// Admits a request and answers it; false: somebody else's registry is to be asked.
    async fn serve(&self, reports: &Reports, session: &mut ServerSession, record: &mut Record) -> Result<bool> {
        let connection = connection(session)?.clone();
        self.identify(&session.req_header().headers, &connection, record);
        let trusted = connection.is_trusted(&self.trusted);
        join_trace(reports, session, trusted, &connection, record)?;
        let external = || self.origins.external().clone();
        let (origin, told) = match admit::proof(session.req_header().as_ref(), &connection).await {
            Some(answer) => (external(), Some(Way::Told(Box::new(answer), None))),
            None => match receive(self, session, &connection, record) {
                Ok(origin) => (origin, None),
                Err(refusal) => {
                    if matches!(refusal, Refusal::Unproven { .. }) {
                        send_away(session, &connection);
                    }
                    (external(), Some(Way::refused(&refusal)))
                }
            },
        };
        record.secure = admit::came_over_tls(&connection, &origin);
        let address = record.client(&connection);
        let network = connection.network(address, &self.trusted);
        let caller = Caller { address, network, origin, request_id: record.request_id };
        let way = match told {
            Some(way) => way,
            None => self.way(session.req_header().as_ref(), &caller, &connection, record),
        };
        let told = match way {
            Way::Ours => None,
            Way::Told(answer, limit) => Some((answer, limit)),
            Way::Theirs(forwarding) => {
                record.forwarding = Some(forwarding);
                return Ok(false);
            }
        };
        let mut call = Call::new(session, &caller, record, &self.terms, &connection);
        self.answer(&mut call, told).await;
        match call.ending() {
            Ending::Complete => Ok(true),
            Ending::Unanswered | Ending::Truncated => Err(Error::new(BROKEN_OFF)),
        }
    }

    async fn answer(&self, call: &mut Call<'_>, told: Option<(Box<Answer>, Option<Limit>)>) {
        match told {
            Some((answer, limit)) => {
                exchange::Exchange::notes(call).limit = limit;
                let _ = exchange::send(call, *answer).await; // the call remembers whether the client left
            }
            None => {
                // A bug in one request must not take its connection's other streams with it, nor stay without a trace.
                if AssertUnwindSafe(self.service.answer(call)).catch_unwind().await.is_err() {
                    exchange::Exchange::notes(call).failure = Some("the service panicked".to_owned());
                }
            }
        }
        if call.ending() == Ending::Unanswered && !call.client_left() {
            let _ = exchange::send(call, Refusal::Unanswered.answer()).await; // the call remembers how it ended
        }
        call.discard_unwanted().await;
    }
}

#[async_trait]
impl<S: Service> ProxyHttp for App<S> {
    type CTX = Record;

    fn new_ctx(&self) -> Record {
        Record::new()
    }

    /// None: the default would add compression.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, _: &mut Record) -> Result<()> {
        begin(&self.plan.load(), session)
    }

    async fn request_filter(&self, session: &mut Session, record: &mut Record) -> Result<bool> {
        let plan = self.plan.load_full(); // one look: the whole request goes by it
        plan.serve(&self.reports, session, record).await
    }

    async fn upstream_peer(&self, session: &mut Session, record: &mut Record) -> Result<Box<HttpPeer>> {
        forward::choose(session, record).await
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        header: &mut RequestHeader,
        record: &mut Record,
    ) -> Result<()> {
        forward::send_header(session, header, record).await?;
        if session.is_http2() && !session.is_body_done() {
            let client = record.client(connection(session)?);
            let epilogue = epilogue(&self.reports, session.req_header().as_ref(), record, client);
            if let Some(forwarding) = &mut record.forwarding {
                forwarding.watch(epilogue);
            }
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        piece: &mut Option<Bytes>,
        end: bool,
        record: &mut Record,
    ) -> Result<()> {
        forward::take_piece(session, piece, end, record)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        header: &mut ResponseHeader,
        record: &mut Record,
    ) -> Result<()> {
        forward::receive_header(session, header, record)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        header: &mut ResponseHeader,
        record: &mut Record,
    ) -> Result<()> {
        forward::dress(session, header, record)
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        piece: &mut Option<Bytes>,
        _: bool,
        record: &mut Record,
    ) -> Result<Option<Duration>> {
        forward::give_piece(piece.as_ref(), record);
        Ok(None)
    }

    fn fail_to_connect(&self, _: &mut Session, _: &HttpPeer, record: &mut Record, error: Box<Error>) -> Box<Error> {
        forward::not_connected(record, error)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        record: &mut Record,
        reused: bool,
    ) -> Box<Error> {
        forward::broken(session, record, reused, error)
    }

    /// Of what was ours to answer, whatever could be said was said in `request_filter`: what is left is a connection to
    /// break off.
    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, record: &mut Record) -> FailToProxy {
        forward::fail(session, error, record).await;
        FailToProxy { error_code: status(record), can_reuse_downstream: false }
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Record, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }

    /// [`logging`](Self::logging) tells, with the request id and at a level that fits.
    fn suppress_error_log(&self, _: &Session, _: &Record, _: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, record: &mut Record) {
        log(&self.reports, session, error, record);
    }
}

/// Answers a request by a plan that knows nobody else's registry: what Pingora's phases do, without the 14 KiB of state in
/// which it would pass the request on. Says whether the answer is whole; where it is not, dropping the session resets the
/// stream, or breaks the connection off.
pub(super) async fn alone<S: Service>(live: &Live<S>, plan: &Plan<S>, session: &mut ServerSession) -> bool {
    let mut record = Record::new();
    let served = match begin(plan, session) {
        Ok(()) => plan.serve(&live.reports, session, &mut record).await,
        failed => failed.map(|()| false),
    };
    let error = match served {
        Ok(true) => None,
        Ok(false) => Some(Error::new(BROKEN_OFF)), // never: there is nobody else
        Err(error) => Some(error),
    };
    log(&live.reports, session, error.as_deref(), &mut record);
    error.is_none()
}

/// The same for the next request of an HTTP/1.1 connection, whose head is yet to be read. Gives the stream back for the one
/// after it.
pub(super) async fn next_alone<S: Service>(
    live: &Live<S>,
    plan: Arc<Plan<S>>,
    mut session: ServerSession,
) -> Option<Stream> {
    match session.read_request().await {
        Ok(true) => {}
        Ok(false) => return None, // the client left
        Err(error) => {
            if error.etype() == &ErrorType::InvalidHTTPHeader {
                let _ = session.respond_error(400).await; // the connection ends, whether that is heard or not
            }
            session.shutdown().await;
            return None;
        }
    }
    if !alone(live, &plan, &mut session).await {
        return None;
    }
    let reusable = session.finish().await.ok()??;
    Some(reusable.into_parts().0)
}

/// Starts the clock that fits.
fn begin<S>(plan: &Plan<S>, session: &mut ServerSession) -> Result<()> {
    let connection = connection(session)?;
    if session.is_http2() {
        connection.phase.set(Phase::Streams);
        session.set_write_timeout(Some(plan.terms.steadiness.stall));
    } else {
        connection.phase.set(Phase::Answering);
        let is_turned_away = connection.turned_away.is_some();
        session.set_read_timeout(None); // the stream watches
        // What comes after CONNECT is meant for somebody else.
        if is_turned_away || session.req_header().method == Method::CONNECT {
            session.set_keepalive(None);
        }
    }
    Ok(())
}

fn log(reports: &Reports, session: &ServerSession, error: Option<&Error>, record: &mut Record) {
    // Neither one whose client left or let us wait, nor one that was told what is wrong.
    let told = record.client_left || record.answered.is_some();
    let broken_off = error.is_some_and(|error| !told && error.esource != ErrorSource::Downstream);
    if broken_off {
        record.notes.failure.get_or_insert_with(|| "the answer was broken off".to_owned());
    }
    if let Some(failure) = &record.notes.failure {
        if status(record) >= 500 || broken_off {
            tracing::error!(request_id = %record.request_id, failure, "a request failed");
        } else {
            tracing::debug!(request_id = %record.request_id, failure, "a request was refused");
        }
    }
    if let Some(forwarding) = &record.forwarding {
        forwarding.count();
    }
    let Ok(connection) = connection(session) else { return };
    connection.given_up.count(record.client_left);
    report(reports, session, connection, record);
}

/// By which of our names a request came, if it may come at all.
fn receive<S: Service>(
    plan: &Plan<S>,
    session: &mut ServerSession,
    connection: &Connection,
    record: &mut Record,
) -> Result<Origin, Refusal> {
    let header = session.req_header();
    let written = Written { length: header.raw_path().len(), is_text: header.raw_path_is_utf8() };
    let origin = plan.admit(header.as_ref(), written, connection)?;
    if let Some(uri) = plan.mount(&header.uri, connection, record)? {
        session.req_header_mut().set_uri(uri);
    }
    admit::enter(session.req_header().as_ref(), connection, record.client(connection))?;
    Ok(origin)
}

/// Has the client come anew: on this connection it will not do better, and most would send all they have on it.
fn send_away(session: &mut ServerSession, connection: &Connection) {
    if session.is_http2() {
        connection.outdated.notify_one();
    } else {
        session.set_keepalive(None);
    }
}

/// Makes the request part of a trace, and whoever answers it sees that.
fn join_trace(
    reports: &Reports,
    session: &mut ServerSession,
    trusted: bool,
    connection: &Connection,
    record: &mut Record,
) -> Result<()> {
    record.trace = reports.traces.begin(&session.req_header().headers, trusted, connection.peer.ip());
    for (name, value) in record.trace.headers() {
        match value {
            Some(value) => session.req_header_mut().insert_header(name, value)?,
            None => drop(session.req_header_mut().remove_header(name)),
        }
    }
    Ok(())
}

/// The connection that a session belongs to. It always has one: every stream is a [`FrontIo`](super::io::FrontIo).
fn connection(session: &ServerSession) -> Result<&Arc<Connection>> {
    let digest = session.digest().and_then(|digest| digest.proxy_digest.as_ref());
    let data = digest.and_then(|digest| digest.user_data.as_ref());
    data.and_then(|data| data.downcast_ref::<Arc<Connection>>()).ok_or_else(|| Error::new(NO_CONNECTION))
}

fn status(record: &Record) -> u16 {
    match record.status {
        _ if record.client_left => CLIENT_LEFT,
        Some(status) => status.as_u16(),
        None => 500,
    }
}

fn report(reports: &Reports, session: &ServerSession, connection: &Connection, record: &Record) {
    let bytes = (session.body_bytes_read() as u64, session.body_bytes_sent() as u64);
    let upstream = record.forwarding.as_deref().map(|forwarding| forwarding.report(record.begun));
    let (head, client) = (session.req_header().as_ref(), record.client(connection));
    tell(reports, head, record, client, session.is_http2(), bytes, upstream);
}

/// What is told of a request that is given up because its client owes its body.
fn epilogue(reports: &Reports, head: &request::Parts, record: &Record, client: IpAddr) -> Epilogue {
    let (reports, head) = (reports.clone(), head.clone());
    let mut unfinished = Record::new();
    (unfinished.time, unfinished.begun) = (record.time, record.begun);
    unfinished.request_id = record.request_id;
    unfinished.trace = record.trace.clone();
    unfinished.status = Some(StatusCode::REQUEST_TIMEOUT);
    unfinished.notes = record.notes.clone();
    unfinished.notes.failure = Some(BodyError::Stalled.to_string());
    let (peer, counts) = record
        .forwarding
        .as_deref()
        .map(|forwarding| {
            let telemetry::Upstream { name, peer, .. } = forwarding.report(record.begun);
            ((name.to_owned(), peer), forwarding.counts())
        })
        .unzip();
    Box::new(move |end| {
        let answered = end.answered;
        unfinished.status = answered.map(|(status, _)| status).or(unfinished.status);
        let first_byte = answered.map(|(_, at)| at.saturating_duration_since(unfinished.begun));
        let upstream = peer.as_ref().map(|(name, peer)| telemetry::Upstream { name, peer: *peer, first_byte });
        if let Some(counts) = counts {
            counts.answered(answered.map(|(status, _)| status.as_u16()));
        }
        tell(&reports, &head, &unfinished, client, true, (end.came, end.gave), upstream);
    })
}

/// `bytes` of the bodies of request and answer.
fn tell(
    reports: &Reports,
    head: &request::Parts,
    record: &Record,
    client: IpAddr,
    http2: bool,
    (bytes_in, bytes_out): (u64, u64),
    upstream: Option<telemetry::Upstream<'_>>,
) {
    let target = match &record.mounted {
        Some(mounted) => &mounted.target,
        None => head.uri.path_and_query().map_or("*", |target| target.as_str()),
    };
    let notes = &record.notes;
    let path = telemetry::redact(target);
    let access = Access {
        time: record.time,
        request_id: record.request_id.as_str(),
        client,
        subject: notes.subject.as_deref(),
        method: head.method.as_str(),
        path: &path,
        protocol: if http2 { "HTTP/2.0" } else { "HTTP/1.1" },
        status: status(record),
        bytes_in,
        bytes_out,
        duration: record.answered.unwrap_or_else(tokio::time::Instant::now) - record.begun,
        repository: notes.repository.as_deref(),
        reference: notes.reference.as_deref(),
        digest: notes.digest.as_deref(),
        user_agent: head.headers.get(USER_AGENT).map(HeaderValue::to_str).and_then(Result::ok),
        failure: notes.failure.as_deref(),
        upstream,
        kind: notes.kind,
        limit: notes.limit,
        credentials: head.headers.contains_key(AUTHORIZATION),
        size: notes.size,
        login: notes.login,
    };
    reports.request(&access);
    reports.traces.end(&record.trace, &access);
}
