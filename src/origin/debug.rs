//! What do operators and their monitoring see?
//!
//! `/debug/health`: the health checks that fail and why, as Distribution's debug port says it; `/debug/vars`: which
//! program this is; `/metrics`, or the path that the operator chose: what is counted; and the probes that are on every
//! listener. Nobody is asked who they are, so nothing here may be a secret.
//!
//! Absent on purpose: profiles of the running program, which Distribution shows here too.

use std::sync::Arc;

use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use serde_json::json;

use crate::exchange::{Answer, Exchange, send};
use crate::registry::Registry;
use crate::registry::health::Checks;
use crate::telemetry::{Exposition, Metrics};

use super::{Embedded, HEALTHY, READY};

/// The pages of the debug address.
pub struct Debug {
    embedded: Arc<Embedded>,
    checks: Option<Arc<Checks>>,
    metrics: Option<String>,
}

impl Debug {
    /// Pages that tell of these services. What is counted is at the path `metrics`, if anywhere.
    pub fn new(embedded: Arc<Embedded>, metrics: Option<String>) -> Self {
        Self { checks: embedded.registry().map(Registry::checks), embedded, metrics }
    }

    /// Answers one request. A failure to do so is in the exchange's notes.
    pub async fn answer<E: Exchange>(&self, exchange: &mut E) {
        let answer = match exchange.head().uri.path() {
            HEALTHY | READY => self.embedded.probed(exchange).await,
            path => self.page(path, exchange.head()),
        };
        if let Err(error) = send(exchange, answer.header(CACHE_CONTROL, "no-store")).await {
            exchange.notes().failure.get_or_insert(error.to_string());
        }
    }

    fn page(&self, path: &str, head: &Parts) -> Answer {
        let page = match path {
            "/debug/health" => self.health(),
            "/debug/vars" => Answer::json(StatusCode::OK, &json!({ "version": env!("CARGO_PKG_VERSION") })),
            path if self.metrics.as_deref() == Some(path) => metrics(&self.embedded.metrics, &head.headers),
            _ => return Answer::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        if head.method == Method::GET || head.method == Method::HEAD {
            return page;
        }
        Answer::text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed\n").header(ALLOW, "GET, HEAD")
    }

    fn health(&self) -> Answer {
        let failing = self.checks.as_ref().map(|checks| checks.failing()).unwrap_or_default();
        let status = if failing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Answer::json(status, &json!(failing))
    }
}

fn metrics(metrics: &Metrics, headers: &HeaderMap) -> Answer {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let exposition = Exposition::accepted(accept);
    Answer::new(StatusCode::OK).header(CONTENT_TYPE, exposition.content_type()).body(metrics.page(exposition))
}
