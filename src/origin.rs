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
use crate::exchange::{Answer, Exchange, Kind, Limit, Passage, SendError, send};
use crate::oci::Endpoint;
use crate::registry::{self, Maintenance, Registry};
use crate::telemetry::Metrics;

mod debug;

pub use debug::Debug;

/// The embedded services.
pub struct Embedded {
    registry: Registry,
    guardian: Arc<Guardian>,
    authority: Option<Arc<Authority>>,
    /// Set once, when the server begins to end.
    draining: Arc<AtomicBool>,
    metrics: Metrics,
}

/// The path of the registry's API, with the slash that everything below it shares.
const API: &str = "/v2/";
/// Probes: the process answers; the process can serve.
const HEALTHY: &str = "/-/healthy";
const READY: &str = "/-/ready";

impl Embedded {
    /// The registry, who guards it, our token service, if there is one, and who counts.
    pub fn new(registry: Registry, guardian: Guardian, authority: Option<Arc<Authority>>, metrics: Metrics) -> Self {
        Self { registry, guardian: Arc::new(guardian), authority, draining: Arc::default(), metrics }
    }

    /// The same services, with the registry under another configuration.
    #[must_use]
    pub fn reconfigured(&self, registry: registry::Config) -> Self {
        Self {
            registry: self.registry.reconfigured(registry),
            guardian: self.guardian.clone(),
            authority: self.authority.clone(),
            draining: self.draining.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// Whether anything may change.
    pub fn maintenance(&self) -> Arc<Maintenance> {
        self.registry.maintenance()
    }

    /// From now on we are not ready, so that nobody sends us more.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// From now on so often may be asked.
    pub fn limit(&self, limits: auth::Limits) {
        self.guardian.limit(limits);
        if let Some(authority) = &self.authority {
            authority.limit(limits);
        }
    }

    /// Forgets the failed logins and the anonymous requests that count against somebody; says how many limits that
    /// concerned.
    pub fn forgive(&self, whom: &auth::Whom) -> usize {
        let by_guardian = self.guardian.forgive(whom);
        by_guardian + self.authority.as_ref().map_or(0, |authority| authority.forgive(whom))
    }

    /// What the registry does without being asked, for ever.
    pub async fn tend(&self) {
        tokio::join!(self.registry.keep_purging(), self.registry.keep_sweeping());
    }

    /// Answers one request. A failure to do so is in the exchange's notes.
    pub async fn answer<E: Exchange>(&self, exchange: &mut E) {
        let answer = self.find(exchange).await;
        match send(exchange, answer).await {
            Ok(()) => {}
            Err(SendError::Gone(gone)) => note_failure(exchange, gone.to_string()),
            Err(source @ SendError::Source(_)) => {
                tracing::error!(request_id = exchange.caller().request_id, "{source}");
                note_failure(exchange, source.to_string());
            }
        }
    }

    /// What a request for somebody else's registry is about, or why it must not go there.
    ///
    /// # Errors
    /// The answer that it gets instead.
    pub fn pass(&self, head: &request::Parts) -> Result<Passage, Box<Answer>> {
        let Ok(endpoint) = Endpoint::parse(&head.method, head.uri.path(), head.uri.query()) else {
            return Ok(Passage::default());
        };
        Ok(Passage { kind: kind(&endpoint), ..Passage::default() })
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
                match self.registry.unavailable() {
                    Some(answer) => answer,
                    None => probe(&exchange.head().method, Ok(())).body("").header(CACHE_CONTROL, "no-cache"),
                }
            }
            HEALTHY | READY => self.probed(exchange).await,
            _ if path == "/v2" || path.starts_with(API) => self.registry(exchange).await,
            _ => Answer::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    /// Whether the process answers, or can serve.
    async fn probed<E: Exchange>(&self, exchange: &mut E) -> Answer {
        exchange.notes().kind = Kind::Probe;
        let state = match exchange.head().uri.path() {
            READY if self.draining.load(Ordering::Relaxed) => Err("stopping".to_owned()),
            READY => self.registry.ready().await,
            _ => Ok(()),
        };
        probe(&exchange.head().method, state)
    }

    async fn registry<E: Exchange>(&self, exchange: &mut E) -> Answer {
        if let Some(answer) = self.registry.unavailable() {
            return answer;
        }
        let head = exchange.head();
        let endpoint = match Endpoint::parse(&head.method, head.uri.path(), head.uri.query()) {
            Ok(endpoint) => endpoint,
            Err(rejection) => return self.registry.reject(rejection),
        };
        exchange.notes().kind = kind(&endpoint);
        exchange.notes().login = endpoint == Endpoint::Version && self.guardian.asks_for_passwords();
        let head = exchange.head();
        let granted = match self.guardian.authorize(head, exchange.caller(), &Demand::of(&endpoint)).await {
            Ok(grant) => Ok(grant),
            Err(Refusal { answer, expired, limit }) => {
                let finishing = self.finishing(&endpoint, expired).await;
                exchange.notes().limit = limit;
                finishing.ok_or(answer)
            }
        };
        match granted {
            Ok(grant) => {
                exchange.notes().subject.clone_from(&grant.subject);
                let _shown = brings_content(&endpoint).then(|| self.metrics.upload());
                let answer = self.registry.answer(endpoint, &grant, exchange).await;
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
        Ok(()) => Answer::text(StatusCode::OK, "ok\n").header(CACHE_CONTROL, "no-store"),
        Err(reason) => {
            Answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).header(CACHE_CONTROL, "no-store")
        }
    }
}
