//! Which of the embedded services answers, and may the caller ask?
//!
//! The request's journey behind the front, in reading order: path to service, endpoint to needed access, guard to grant,
//! handler to answer, answer to the wire.
//!
//! **Invariant:** every request gets an answer, and nothing of the registry runs before its access was granted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{CACHE_CONTROL, HeaderName};
use http::{Method, StatusCode, request};
use jiff::Timestamp;

use crate::auth::{self, Authority, Beginning, Demand, Expired, Grant, Guardian, Refusal};
use crate::exchange::{Answer, Exchange, Kind, Limit, Passage, SendError, WireError, send};
use crate::oci::Endpoint;
use crate::registry::{self, Limits, Maintenance, Registry};
use crate::telemetry::Metrics;

mod debug;
mod passage;

pub use debug::Debug;

/// The embedded services, as many as there are.
pub struct Embedded {
    guarded: Option<Guarded>,
    authority: Option<Arc<Authority>>,
    /// Whether anything may change, here or where requests are handed on to.
    maintenance: Arc<Maintenance>,
    /// How much may be pushed, here or there.
    limits: Limits,
    /// Set once, when the server begins to end.
    draining: Arc<AtomicBool>,
    metrics: Metrics,
}

/// The registry, and who guards it.
struct Guarded {
    registry: Registry,
    guardian: Arc<Guardian>,
}

/// The path of the registry's API, with the slash that everything below it shares.
const API: &str = "/v2/";
/// Probes: the process answers; the process can serve.
const HEALTHY: &str = "/-/healthy";
const READY: &str = "/-/ready";

impl Embedded {
    /// The registry, who guards it, our token service, if there is one, and who counts.
    pub fn new(registry: Registry, guardian: Guardian, authority: Option<Arc<Authority>>, metrics: Metrics) -> Self {
        let (maintenance, limits) = (registry.maintenance(), registry.limits());
        let guarded = Some(Guarded { registry, guardian: Arc::new(guardian) });
        Self { guarded, authority, maintenance, limits, draining: Arc::default(), metrics }
    }

    /// Our token service, if there is one, and what of others' registries goes through us.
    pub fn without_registry(authority: Option<Arc<Authority>>, limits: Limits, metrics: Metrics) -> Self {
        Self { guarded: None, authority, maintenance: Arc::default(), limits, draining: Arc::default(), metrics }
    }

    /// The same services, with the registry under another configuration.
    #[must_use]
    pub fn reconfigured(&self, registry: registry::Config) -> Self {
        let limits = registry.limits;
        let reconfigured = |guarded: &Guarded| Guarded {
            registry: guarded.registry.reconfigured(registry),
            guardian: guarded.guardian.clone(),
        };
        Self {
            guarded: self.guarded.as_ref().map(reconfigured),
            authority: self.authority.clone(),
            maintenance: self.maintenance.clone(),
            limits,
            draining: self.draining.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// Whether anything may change.
    pub fn maintenance(&self) -> Arc<Maintenance> {
        self.maintenance.clone()
    }

    /// Whether the registry is among them.
    pub fn has_registry(&self) -> bool {
        self.guarded.is_some()
    }

    fn registry(&self) -> Option<&Registry> {
        self.guarded.as_ref().map(|guarded| &guarded.registry)
    }

    /// From now on we are not ready, so that nobody sends us more.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// From now on so often may be asked.
    pub fn limit(&self, limits: auth::Limits) {
        if let Some(guarded) = &self.guarded {
            guarded.guardian.limit(limits);
        }
        if let Some(authority) = &self.authority {
            authority.limit(limits);
        }
    }

    /// Forgets the failed logins and the anonymous requests that count against somebody; says how many limits that
    /// concerned.
    pub fn forgive(&self, whom: &auth::Whom) -> usize {
        let by_guardian = self.guarded.as_ref().map_or(0, |guarded| guarded.guardian.forgive(whom));
        by_guardian + self.authority.as_ref().map_or(0, |authority| authority.forgive(whom))
    }

    /// What the registry does without being asked, for ever.
    pub async fn tend(&self) {
        if let Some(registry) = self.registry() {
            tokio::join!(registry.keep_purging(), registry.keep_sweeping());
        }
    }

    /// Answers one request. A failure to do so is in the exchange's notes.
    pub async fn answer<E: Exchange>(&self, exchange: &mut E) {
        let answer = self.find(exchange).await;
        match send(exchange, answer).await {
            Ok(()) => {}
            Err(SendError::Gone(gone)) => note_failure(exchange, gone.to_string()),
            Err(source @ SendError::Source(_)) => {
                tracing::error!(request_id = %exchange.caller().request_id, "{source}");
                note_failure(exchange, source.to_string());
            }
        }
    }

    /// What a request for somebody else's registry is about, or why it must not go there.
    ///
    /// # Errors
    /// The answer that it gets instead.
    pub fn pass(&self, head: &request::Parts) -> Result<Passage, Box<Answer>> {
        let path = head.uri.path();
        if !passage::is_api(path) {
            return Ok(Passage::default());
        }
        let passage = passage::read(path, &self.limits);
        if !passage::changes(&head.method) {
            return Ok(passage);
        }
        let finishes = passage::finishes(&head.method, &passage);
        let permit = self.maintenance().pass(finishes, Timestamp::now())?;
        Ok(Passage { permit: Some(Box::new(permit)), ..passage })
    }

    async fn find<E: Exchange>(&self, exchange: &mut E) -> Answer {
        let path = exchange.head().uri.path();
        if let Some(authority) = self.authority.as_ref().filter(|authority| authority.path() == path) {
            exchange.notes().kind = Kind::Token;
            return authority.token(exchange).await;
        }
        match path {
            // Load balancers ask it, and Distribution answers so.
            "/" => {
                exchange.notes().kind = Kind::Probe;
                match self.registry().and_then(Registry::unavailable) {
                    Some(answer) => answer,
                    None => probe(&exchange.head().method, Ok(())).body("").constant(CACHE_CONTROL, "no-cache"),
                }
            }
            HEALTHY | READY => self.probed(exchange).await,
            path if passage::is_api(path) => match &self.guarded {
                Some(guarded) => self.guarded(guarded, exchange).await,
                None => unrouted(),
            },
            _ => Answer::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    /// Whether the process answers, or can serve.
    async fn probed<E: Exchange>(&self, exchange: &mut E) -> Answer {
        exchange.notes().kind = Kind::Probe;
        let state = match exchange.head().uri.path() {
            READY if self.draining.load(Ordering::Relaxed) => Err("stopping".to_owned()),
            READY => match self.registry() {
                Some(registry) => registry.ready().await,
                None => Ok(()),
            },
            _ => Ok(()),
        };
        probe(&exchange.head().method, state)
    }

    async fn guarded<E: Exchange>(&self, guarded: &Guarded, exchange: &mut E) -> Answer {
        let Guarded { registry, guardian } = guarded;
        if let Some(answer) = registry.unavailable() {
            return answer;
        }
        let head = exchange.head();
        let endpoint = match Endpoint::parse(&head.method, head.uri.path(), head.uri.query()) {
            Ok(endpoint) => endpoint,
            Err(rejection) => return registry.reject(rejection),
        };
        exchange.notes().kind = kind(&endpoint);
        exchange.notes().login = endpoint == Endpoint::Version && guardian.asks_for_passwords();
        let head = exchange.head();
        let granted = match guardian.authorize(head, exchange.caller(), &Demand::of(&endpoint)).await {
            Ok(grant) => Ok(grant),
            Err(Refusal { answer, expired, limit }) => {
                let finishing = guarded.finishing(&endpoint, expired).await;
                exchange.notes().limit = limit;
                finishing.map(Arc::new).ok_or(answer)
            }
        };
        match granted {
            Ok(grant) => {
                exchange.notes().subject.clone_from(&grant.subject);
                let _shown = brings_content(&endpoint).then(|| self.metrics.upload());
                let answer = registry.answer(endpoint, &grant, exchange).await;
                note_limit(exchange, &answer, StatusCode::PAYLOAD_TOO_LARGE, Limit::Body);
                note_limit(exchange, &answer, StatusCode::TOO_MANY_REQUESTS, Limit::Uploads);
                answer
            }
            Err(challenge) => {
                note_limit(exchange, &challenge, StatusCode::TOO_MANY_REQUESTS, Limit::FailedLogins);
                challenge
            }
        }
    }
}

impl Guarded {
    /// The right to go on with the upload that this is about, for who began it with a token that expired on the way.
    async fn finishing(&self, endpoint: &Endpoint, expired: Option<Box<Expired>>) -> Option<Grant> {
        let expired = expired?;
        let (name, upload) = expired.upload(endpoint)?;
        let begun = match self.registry.upload_begun(name, upload).await {
            Ok(begun) => begun?,
            Err(error) => {
                tracing::error!("who began an upload cannot be told: {error}");
                return None;
            }
        };
        let began = Beginning { issuer: &begun.issuer, subject: &begun.subject, at: begun.at };
        self.guardian.may_finish(&expired, name, began, Timestamp::now()).await
    }
}

/// What clients are told of a registry that is neither here nor anywhere that a route names.
fn unrouted() -> Answer {
    let message = "no registry is served here: no route of Pierhead's takes this request";
    Answer::error(StatusCode::NOT_FOUND, WireError::new("NAME_UNKNOWN", message))
}

/// What this status means where it comes from.
fn note_limit<E: Exchange>(exchange: &mut E, answer: &Answer, status: StatusCode, limit: Limit) {
    if answer.status == status {
        exchange.notes().limit.get_or_insert(limit);
    }
}

fn kind(endpoint: &Endpoint) -> Kind {
    match endpoint {
        Endpoint::Version => Kind::Base,
        Endpoint::Catalog { .. } => Kind::Catalog,
        Endpoint::Tags { .. } => Kind::Tags,
        Endpoint::ManifestRead { .. } | Endpoint::ManifestWrite { .. } | Endpoint::ManifestDelete { .. } => {
            Kind::Manifest
        }
        Endpoint::Referrers { .. } => Kind::Referrers,
        Endpoint::BlobRead { .. } | Endpoint::BlobDelete { .. } => Kind::Blob,
        Endpoint::UploadStart { .. }
        | Endpoint::UploadStatus { .. }
        | Endpoint::UploadAppend { .. }
        | Endpoint::UploadCommit { .. }
        | Endpoint::UploadCancel { .. } => Kind::Upload,
        Endpoint::Options { .. } => Kind::Other,
    }
}

/// Whether the request's body is (a part of) a blob.
fn brings_content(endpoint: &Endpoint) -> bool {
    matches!(
        endpoint,
        Endpoint::UploadStart { digest: Some(_), mount: None, .. }
            | Endpoint::UploadAppend { .. }
            | Endpoint::UploadCommit { .. }
    )
}

fn note_failure<E: Exchange>(exchange: &mut E, failure: String) {
    exchange.notes().failure.get_or_insert(failure);
}

/// A probe's answer: 200 or 503, with the reason as text for whoever looks.
fn probe(method: &Method, state: Result<(), String>) -> Answer {
    if method != Method::GET && method != Method::HEAD {
        let allow = Answer::text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed\n");
        return allow.header(HeaderName::from_static("allow"), "GET, HEAD");
    }
    match state {
        Ok(()) => Answer::text(StatusCode::OK, "ok\n").constant(CACHE_CONTROL, "no-store"),
        Err(reason) => {
            Answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).constant(CACHE_CONTROL, "no-store")
        }
    }
}
