//! What is left of traces in a binary that was built without them?

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};

use crate::telemetry::Access;

/// Nobody who is told of requests.
#[derive(Debug, Clone)]
pub struct Traces;

/// No trace.
#[derive(Debug, Clone)]
pub struct Trace;

impl Traces {
    /// Nobody is told.
    pub fn off() -> Self {
        Self
    }

    /// No trace begins.
    pub fn begin(&self, _: &HeaderMap, _: bool, _: IpAddr) -> Trace {
        Trace
    }

    /// Nobody is told.
    pub fn end(&self, _: &Trace, _: &Access<'_>) {}
}

impl Trace {
    /// No trace.
    pub fn none() -> Self {
        Self
    }

    /// Headers stay as they are.
    pub fn headers(&self) -> [(&'static str, Option<HeaderValue>); 0] {
        []
    }
}
