//! What do operators and their monitoring see?
//!
//! `/debug/health`: the health checks that fail and why, as Distribution's debug port says it; `/debug/vars`: which
//! program this is. Nobody is asked who they are, so nothing here may be a secret.
//!
//! Absent on purpose: profiles of the running program, which Distribution shows here too.

use std::sync::Arc;

use http::header::{ALLOW, CACHE_CONTROL};
use http::{Method, StatusCode};
use serde_json::json;

use crate::exchange::{Answer, Exchange, send};
use crate::registry::health::Checks;

/// The pages of the debug address.
#[derive(Debug)]
pub struct Debug {
    checks: Arc<Checks>,
}

impl Debug {
    /// Pages that tell of these checks.
    pub fn new(checks: Arc<Checks>) -> Self {
        Self { checks }
    }

    /// Answers one request. A failure to do so is in the exchange's notes.
    pub async fn answer<E: Exchange>(&self, exchange: &mut E) {
        let head = exchange.head();
        let answer = match head.uri.path() {
            "/debug/health" | "/debug/vars" if head.method != Method::GET && head.method != Method::HEAD => {
                Answer::text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed\n").header(ALLOW, "GET, HEAD")
            }
            "/debug/health" => self.health(),
            "/debug/vars" => Answer::json(StatusCode::OK, &json!({ "version": env!("CARGO_PKG_VERSION") })),
            _ => Answer::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        if let Err(error) = send(exchange, answer.header(CACHE_CONTROL, "no-store")).await {
            exchange.notes().failure.get_or_insert(error.to_string());
        }
    }

    fn health(&self) -> Answer {
        let failing = self.checks.failing();
        let status = if failing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Answer::json(status, &json!(failing))
    }
}
