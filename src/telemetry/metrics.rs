//! What is counted, and under which names?
//!
//! [`Metrics`] is handed to whoever sees something happen; its methods say what. [`Metrics::page`] is what a monitoring
//! system reads. The names are listed in the README and are a promise, like the keys of the configuration.
//!
//! **Invariants**
//! - Counting takes no lock and allocates nothing: a few atomic additions for a request, none for a piece of a body.
//! - What a client sends is never a label. Every label's values are a list in this file, so that nobody can make us
//!   remember more by asking for more; the exceptions, the files of certificates, those that are ordered and the
//!   peers of upstreams, are the operator's own lists.
//!
//! Absent on purpose: repositories and accounts. The access and audit lines tell of those.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::Access;
use crate::exchange::{Kind, Limit};

mod acme;
mod family;
mod forwarded;
mod page;
mod process;
mod upstreams;

use family::{Counters, Histograms, Label};
pub use forwarded::Forwarded;
pub use page::Exposition;
use page::Page;
pub use upstreams::PeerState;

/// Everything that is counted. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Counts>);

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// A connection came of it.
    Done,
    /// The client spoke something else, did not trust us, or left.
    Failed,
    /// It took longer than `timeouts.handshake`.
    TimedOut,
}

/// What the storage was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the calls of the storage's driver, which explains them")]
pub enum StorageCall {
    Get,
    Open,
    Read,
    Stat,
    Put,
    List,
    Mark,
    Delete,
    Sweep,
    Rename,
    Append,
    Write,
    Finish,
    Settle,
}

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", OTHER];
/// Every status that we answer, and 499 for clients that left.
const STATUSES: &[&str] = &[
    "200", "201", "202", "204", "206", "301", "302", "304", "307", "308", "400", "401", "403", "404", "405", "408",
    "409", "411", "412", "413", "414", "415", "416", "417", "421", "426", "429", "431", "499", "500", "501", "502",
    "503", "504", "505", "507", OTHER,
];
/// What a list does not have: its last entry.
const OTHER: &str = "other";

const METHOD: Label = Label { name: "method", values: METHODS };
const STATUS: Label = Label { name: "status", values: STATUSES };
const ENDPOINT: Label = Label { name: "endpoint", values: &Kind::NAMES };
const OUTCOME: Label = Label { name: "outcome", values: &["done", "failed", "timed_out"] };
#[cfg(feature = "opentelemetry")]
const SPANS: Label = Label { name: "outcome", values: &["sent", "dropped"] };
const LIMIT: Label = Label { name: "limit", values: &Limit::NAMES };
const CALL: Label = Label {
    name: "call",
    values: &[
        "get", "open", "read", "stat", "put", "list", "mark", "delete", "sweep", "rename", "append", "write", "finish",
        "settle",
    ],
};

#[derive(Debug)]
struct Counts {
    started: SystemTime,
    requests: Counters<3>,
    durations: Histograms<2>,
    bytes_in: Counters<1>,
    bytes_out: Counters<1>,
    accepted: Counters<0>,
    connections: Gauge,
    handshakes: Counters<1>,
    uploads: Gauge,
    limits: Counters<1>,
    storage: Histograms<1>,
    storage_errors: Counters<1>,
    #[cfg(feature = "opentelemetry")]
    spans: Counters<1>,
    /// Files and the seconds since 1970 until which their certificates are valid. Locked at a reload and for a page.
    certificates: Mutex<Vec<(String, i64)>>,
    acme: acme::Acme,
    upstreams: upstreams::Upstreams,
    forwarded: forwarded::All,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            started: SystemTime::now(),
            requests: Counters::new([METHOD, ENDPOINT, STATUS]),
            durations: Histograms::new([METHOD, ENDPOINT]),
            bytes_in: Counters::new([ENDPOINT]),
            bytes_out: Counters::new([ENDPOINT]),
            accepted: Counters::new([]),
            connections: Gauge::default(),
            handshakes: Counters::new([OUTCOME]),
            uploads: Gauge::default(),
            limits: Counters::new([LIMIT]),
            storage: Histograms::new([CALL]),
            storage_errors: Counters::new([CALL]),
            #[cfg(feature = "opentelemetry")]
            spans: Counters::new([SPANS]),
            certificates: Mutex::default(),
            acme: acme::Acme::default(),
            upstreams: upstreams::Upstreams::default(),
            forwarded: forwarded::All::default(),
        }
    }
}

impl Metrics {
    /// A request came to its end.
    pub fn request(&self, access: &Access<'_>) {
        let counts = &self.0;
        let (method, kind) = (METHOD.position(access.method), access.kind as usize);
        // Three digits, in memory of our own.
        let mut digits = [0; 3];
        let status = text_of(access.status, &mut digits);
        counts.requests.add([method, kind, STATUS.position(status)], 1);
        counts.durations.observe([method, kind], access.duration);
        counts.bytes_in.add([kind], access.bytes_in);
        counts.bytes_out.add([kind], access.bytes_out);
        if let Some(limit) = access.limit {
            self.limit_hit(limit);
        }
    }

    /// A connection was accepted; it is open as long as what this gives back lives.
    pub fn connection(&self) -> Held {
        self.0.accepted.add([], 1);
        self.0.connections.hold()
    }

    /// A TLS handshake ended.
    pub fn handshake(&self, how: Handshake) {
        self.0.handshakes.add([how as usize], 1);
    }

    /// The body of an upload is on its way as long as what this gives back lives.
    pub fn upload(&self) -> Held {
        self.0.uploads.hold()
    }

    /// Somebody was turned away because of a limit. Of a request, [`Metrics::request`] tells.
    pub fn limit_hit(&self, limit: Limit) {
        self.0.limits.add([limit as usize], 1);
    }

    /// The storage answered.
    pub fn storage_call(&self, call: StorageCall, took: Duration) {
        self.0.storage.observe([call as usize], took);
    }

    /// The storage failed. That something is missing is no failure.
    pub fn storage_error(&self, call: StorageCall) {
        self.0.storage_errors.add([call as usize], 1);
    }

    /// A collector took spans.
    #[cfg(feature = "opentelemetry")]
    pub fn spans_sent(&self, count: u64) {
        self.0.spans.add([0], count);
    }

    /// Spans were given up: there was no room for them, or the collector did not take them.
    #[cfg(feature = "opentelemetry")]
    pub fn spans_dropped(&self, count: u64) {
        self.0.spans.add([1], count);
    }

    /// These certificates are shown now: the name of the file, and the seconds since 1970 until which it is valid.
    pub fn certificates(&self, shown: Vec<(String, i64)>) {
        *self.0.certificates.lock() = shown;
    }

    /// An order of a certificate came to an end: `issued`, or why it failed.
    pub fn acme_order(&self, outcome: &str) {
        self.0.acme.order(outcome);
    }

    /// How the orders of certificates go now: what each is called, when its next order begins in seconds since 1970, and
    /// how many failed since the last success.
    pub fn acme(&self, certificates: Vec<(String, i64, u32)>) {
        self.0.acme.set(certificates);
    }

    /// What is counted of the upstream of this name.
    pub fn forwarded(&self, upstream: &Arc<str>) -> Arc<Forwarded> {
        self.0.forwarded.of(upstream)
    }

    /// Who knows how the peers of upstreams do from now on. It is asked once for each page.
    pub fn upstreams(&self, ask: impl Fn() -> Vec<PeerState> + Send + Sync + 'static) {
        self.0.upstreams.ask(Box::new(ask));
    }

    /// Everything, for a monitoring system.
    pub fn page(&self, exposition: Exposition) -> String {
        let counts = &self.0;
        let mut page = Page::new(exposition);
        page.gauge("pierhead_build_info", "Which program this is.");
        page.sample("pierhead_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        counts.requests.show(&mut page, "pierhead_http_requests_total", "Requests that came to their end.");
        counts.durations.show(
            &mut page,
            "pierhead_http_request_duration_seconds",
            "From the end of a request's header to the end of its answer.",
        );
        counts.bytes_in.show(
            &mut page,
            "pierhead_http_request_body_bytes_total",
            "Bytes of request bodies that were read.",
        );
        counts.bytes_out.show(
            &mut page,
            "pierhead_http_response_body_bytes_total",
            "Bytes of response bodies that were sent.",
        );
        counts.accepted.show(&mut page, "pierhead_connections_accepted_total", "Connections that were accepted.");
        counts.connections.show(&mut page, "pierhead_connections_open", "Connections that are open.");
        counts.handshakes.show(&mut page, "pierhead_tls_handshakes_total", "TLS handshakes that ended.");
        self.show_certificates(&mut page);
        counts.acme.show(&mut page);
        counts.uploads.show(&mut page, "pierhead_uploads_in_flight", "Uploads whose bytes are on their way.");
        counts.limits.show(
            &mut page,
            "pierhead_limit_hits_total",
            "Requests and connections that a limit turned away.",
        );
        counts.storage.show(&mut page, "pierhead_storage_call_duration_seconds", "How long calls of the storage took.");
        counts.storage_errors.show(&mut page, "pierhead_storage_errors_total", "Calls of the storage that failed.");
        #[cfg(feature = "opentelemetry")]
        counts.spans.show(
            &mut page,
            "pierhead_trace_spans_total",
            "Spans that a collector took, or that were given up.",
        );
        counts.forwarded.show(&mut page);
        counts.upstreams.show(&mut page);
        process::show(&mut page, counts.started);
        page.finish()
    }

    fn show_certificates(&self, page: &mut Page) {
        const NAME: &str = "pierhead_certificate_expiry_timestamp_seconds";
        page.gauge(NAME, "Until when a certificate that is shown is valid, in seconds since 1970.");
        for (file, until) in self.0.certificates.lock().iter() {
            page.sample(NAME, &[("file", file)], until);
        }
    }
}

fn text_of(status: u16, digits: &mut [u8; 3]) -> &str {
    for (place, digit) in [100, 10, 1].into_iter().zip(digits.iter_mut()) {
        *digit = b'0' + u8::try_from(status / place % 10).unwrap_or_default();
    }
    std::str::from_utf8(digits).unwrap_or_default()
}

/// How many there are of something now.
#[derive(Debug, Clone, Default)]
struct Gauge(Arc<AtomicU64>);

impl Gauge {
    fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }

    fn show(&self, page: &mut Page, name: &str, help: &str) {
        page.gauge(name, help);
        page.sample(name, &[], self.0.load(Ordering::Relaxed));
    }
}

/// One more of something, as long as this lives.
#[derive(Debug)]
#[must_use]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
