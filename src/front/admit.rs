//! May a request come in, by which of our names, and which way does it go?
//!
//! In this order: the request is [named](Plan::identify), what may be answered to anybody is looked for ([`proof`]), it is
//! [admitted](Plan::admit), the internal port's prefix is [taken off](Plan::mount), the listener's gate is
//! [asked](enter), and the [way](Plan::way) is chosen.
//!
//! **Invariant:** all of it goes by the request's head and its connection alone. Nothing here reads a body or writes an
//! answer, so it is the same however the head was read.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::CACHE_CONTROL;
use http::{HeaderMap, Method, StatusCode, Uri, request};

use super::connection::Connection;
use super::forward::Forwarding;
use super::host::{Arrival, READY, is_probe};
use super::limits::Limits;
use super::peer::Told;
use super::plan::Plan;
use super::refusal::Refusal;
use super::session::Record;
use super::{Service, Target, mount, redirect, route};
use crate::exchange::{Answer, Caller, Kind, Limit, Origin};
use crate::telemetry;

/// What becomes of a request.
pub(super) enum Way {
    /// The embedded services answer.
    Ours,
    /// It gets this answer.
    Told(Box<Answer>, Option<Limit>),
    /// Somebody else's registry answers.
    Theirs(Box<Forwarding>),
}

/// The target of a request as its client wrote it, before anything became of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) length: usize,
    /// Whether it is UTF-8.
    pub(super) is_text: bool,
}

impl<S: Service> Plan<S> {
    /// Whose request it is and what it is called. A name that just anybody may choose could be somebody else's, on this
    /// machine as well: a proxy here that nobody told us to trust hands on what its clients send.
    pub(super) fn identify(&self, headers: &HeaderMap, connection: &Connection, record: &mut Record) {
        let offered = headers.get("x-request-id").filter(|_| connection.is_trusted(&self.trusted));
        record.request_id = telemetry::request_id(offered);
        record.client = Some(connection.client(headers, &self.trusted));
    }

    /// What the request must satisfy before anybody looks at it.
    pub(super) fn admit(
        &self,
        head: &request::Parts,
        written: Written,
        connection: &Connection,
    ) -> Result<Origin, Refusal> {
        if let Some(full) = connection.turned_away {
            return Err(Refusal::TooManyConnections(full));
        }
        let Limits { fields, target, .. } = self.limits;
        if head.headers.len() > fields {
            return Err(Refusal::TooManyFields { limit: fields });
        }
        if written.length > target {
            return Err(Refusal::TargetTooLong { limit: target });
        }
        if !written.is_text {
            return Err(Refusal::TargetNotText);
        }
        if head.method == Method::CONNECT || head.method == Method::TRACE {
            return Err(Refusal::Method);
        }
        let listener = &connection.listener;
        if !is_probe(head.uri.path()) {
            if connection.is_plain() {
                return Err(redirect::typed(&self.origins, head));
            }
            if connection.doorway.load().listener.redirect {
                return Err(redirect::always(&self.origins, head));
            }
            if !connection.named {
                return Err(Refusal::Unnamed);
            }
        }
        let trusted = connection.is_trusted(&self.trusted);
        let arrival = Arrival {
            tls: listener.tls,
            internal: listener.internal,
            local: connection.local,
            // A proxy does what it was told, and asks for one name whatever its clients ask for.
            shown: connection.shown().filter(|_| !trusted),
        };
        let origin = match trusted {
            true => self.origins.of_forwarded(head, arrival, &Told::by(&head.headers))?,
            false => self.origins.of(head, arrival)?,
        };
        let is_exempt = listener.internal || is_probe(head.uri.path());
        if is_exempt || connection.has_proven(&self.demands, origin.host(), trusted) {
            return Ok(origin);
        }
        Err(Refusal::Unproven { could: listener.tls && !trusted, origin })
    }

    /// Takes the internal port's prefix off the request: gives what is left, if there was one.
    pub(super) fn mount(
        &self,
        uri: &Uri,
        connection: &Connection,
        record: &mut Record,
    ) -> Result<Option<Uri>, Refusal> {
        let Some(prefix) = self.prefix.as_ref().filter(|_| connection.listener.internal) else { return Ok(None) };
        let Some((mounted, uri)) = mount::enter(prefix, uri)? else { return Ok(None) };
        record.mounted = Some(mounted);
        Ok(Some(uri))
    }

    /// Which way an admitted request goes.
    pub(super) fn way(
        &self,
        head: &request::Parts,
        caller: &Caller,
        connection: &Arc<Connection>,
        record: &mut Record,
    ) -> Way {
        let ours = connection.listener.internal || is_probe(head.uri.path());
        if head.uri.path() == READY
            && let Some(reason) = self.unready()
        {
            record.notes.kind = Kind::Probe;
            let answer = Answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));
            return Way::Told(Box::new(answer.header(CACHE_CONTROL, "no-store")), None);
        }
        if ours {
            return Way::Ours;
        }
        let name = match route::choose(&self.routes, head, &caller.origin) {
            Ok(Target::Embedded) => return Way::Ours,
            Ok(Target::Redirect(redirect)) => return Way::Told(Box::new(redirect.answer(head)), None),
            Ok(Target::Answer(fixed)) => return Way::Told(Box::new(fixed.answer()), None),
            Ok(Target::Upstream(name)) => name,
            Err(refusal) => return Way::refused(&refusal),
        };
        let passage = match self.service.pass(head) {
            Ok(passage) => passage,
            Err(answer) => return Way::Told(answer, None),
        };
        let is_token = self.token.as_deref() == Some(head.uri.path());
        record.notes.kind = if is_token { Kind::Token } else { passage.kind };
        record.notes.repository.clone_from(&passage.repository);
        record.notes.reference.clone_from(&passage.reference);
        let Some(way) = self.forward(name, head, passage, connection) else {
            return Way::refused(&Refusal::Unanswered);
        };
        let forwarding = Forwarding::new(way, caller.clone(), self.terms.clone(), connection.clone());
        match forwarding.refusal(&head.headers) {
            Some(answer) => Way::Told(Box::new(answer), Some(Limit::Body)),
            None => Way::Theirs(Box::new(forwarding)),
        }
    }
}

impl Way {
    pub(super) fn refused(refusal: &Refusal) -> Self {
        Self::Told(Box::new(refusal.answer()), refusal.limit())
    }
}

/// What proves to an authority that a name is ours (RFC 8555 8.3), if it asks for that. It comes by whatever way there is,
/// in the clear or by an address, before anything that is for clients; what is not being proven is a request like any.
pub(super) async fn proof(head: &request::Parts, connection: &Connection) -> Option<Answer> {
    let token = head.uri.path().strip_prefix("/.well-known/acme-challenge/")?;
    let answers = connection.doorway.load().answers.clone()?;
    let is_read = head.method == Method::GET || head.method == Method::HEAD;
    let proof = if is_read { answers.http(token).await? } else { return None };
    tracing::info!(client = %connection.peer.ip(), token, "an authority was told that a name is ours");
    Some(Answer::text(StatusCode::OK, proof).header(CACHE_CONTROL, "no-store"))
}

/// Whether the client's own connection is TLS: to us, or to a balancer before a listener that serves an `https://` origin
/// in the clear.
pub(super) fn came_over_tls(connection: &Connection, origin: &Origin) -> bool {
    let listener = &connection.listener;
    let by_a_balancer = origin.is_secure() && !listener.redirect;
    !connection.is_plain() && !listener.internal && (listener.tls || by_a_balancer)
}

/// Whether the listener is for this client. The path is as behind a prefix.
pub(super) fn enter(head: &request::Parts, connection: &Connection, client: IpAddr) -> Result<(), Refusal> {
    if is_probe(head.uri.path()) {
        return Ok(());
    }
    connection.doorway.load().listener.gate.admit(&head.method, head.uri.path(), client)
}
