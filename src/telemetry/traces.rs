//! Which trace is a request part of, and how does its span reach a collector?
//!
//! One span for each request, made at its end of what the access line is made of. The front asks [`Traces::begin`] which
//! trace a request belongs to, hands on what [`Trace::headers`] says, and tells [`Traces::end`] how it went. What is told
//! waits in a queue for `Export`, which sends it by OTLP over HTTP.
//!
//! Only with the cargo feature `opentelemetry` is there anything behind these names; without it they are empty, and the
//! key that would switch them on is refused.
//!
//! **Invariants**
//! - A request never waits for a collector: a full queue costs spans, which are counted.
//! - Only a trusted proxy says which trace a request is part of. What anybody else says is replaced, not handed on.
//!
//! Absent on purpose: spans of what happens within a request (the metrics tell), spans of probes, metrics and logs by OTLP.

#[cfg(feature = "opentelemetry")]
mod export;
#[cfg(not(feature = "opentelemetry"))]
mod nothing;
#[cfg(feature = "opentelemetry")]
mod spans;

#[cfg(test)]
#[cfg(feature = "opentelemetry")]
mod tests;

#[cfg(feature = "opentelemetry")]
pub use export::{Export, Unusable, open};
#[cfg(not(feature = "opentelemetry"))]
pub use nothing::{Trace, Traces};
#[cfg(feature = "opentelemetry")]
pub use spans::{Trace, Traces};

/// Where spans of requests go, as meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The URL of a collector; `None` for no spans at all.
    pub endpoint: Option<String>,
    /// Which part of the traces that begin here is sent, between 0 and 1.
    pub sample: f64,
}
