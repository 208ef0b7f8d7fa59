//! What does a span say about a request?

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};
use tokio::sync::mpsc;

use crate::exchange::Kind;
use crate::telemetry::{Access, Metrics};

/// The longest text that a span carries: what a client sends may be much longer, and thousands of spans may wait.
const TEXT_LIMIT: usize = 512;

/// Who is told of requests. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Traces(Option<Arc<Told>>);

#[derive(Debug)]
struct Told {
    queue: mpsc::Sender<SpanData>,
    sample: f64,
    scope: InstrumentationScope,
    metrics: Metrics,
}

/// The place of one request in its trace; none when nobody is told.
#[derive(Debug, Clone)]
pub struct Trace(Option<Place>);

#[derive(Debug, Clone)]
struct Place {
    context: SpanContext,
    /// The proxy's span, if one sent the request.
    parent: SpanId,
    /// The other end of the connection.
    peer: IpAddr,
}

impl Traces {
    /// Nobody is told.
    pub fn off() -> Self {
        Self(None)
    }

    pub(super) fn to(queue: mpsc::Sender<SpanData>, sample: f64, metrics: Metrics) -> Self {
        let scope = InstrumentationScope::builder("pierhead").with_version(env!("CARGO_PKG_VERSION")).build();
        Self(Some(Arc::new(Told { queue, sample, scope, metrics })))
    }

    /// Which trace a request belongs to: the one that it says, if a trusted proxy sent it, else a new one.
    pub fn begin(&self, headers: &HeaderMap, trusted: bool, peer: IpAddr) -> Trace {
        let Some(told) = &self.0 else { return Trace(None) };
        let parent = if trusted { sent_with(headers) } else { SpanContext::NONE };
        let ids = RandomIdGenerator::default();
        let (trace, flags) = if parent.is_valid() {
            (parent.trace_id(), parent.trace_flags())
        } else {
            let trace = ids.new_trace_id();
            (trace, TraceFlags::NOT_SAMPLED.with_sampled(is_chosen(trace, told.sample)))
        };
        let context = SpanContext::new(trace, ids.new_span_id(), flags, false, parent.trace_state().clone());
        Trace(Some(Place { context, parent: parent.span_id(), peer }))
    }

    /// A request came to its end. Nobody waits: what finds no room in the queue is counted and forgotten.
    pub fn end(&self, trace: &Trace, access: &Access<'_>) {
        let (Some(told), Trace(Some(place))) = (&self.0, trace) else { return };
        if !place.context.is_sampled() || access.kind == Kind::Probe {
            return;
        }
        if told.queue.try_send(span(place, access, told.scope.clone())).is_err() {
            told.metrics.spans_dropped(1);
        }
    }
}

impl Trace {
    /// No trace.
    pub fn none() -> Self {
        Self(None)
    }

    /// What whoever answers the request is to see: these headers, and none where there is no value.
    pub fn headers(&self) -> Vec<(&'static str, Option<HeaderValue>)> {
        let Some(Place { context, .. }) = &self.0 else { return Vec::new() };
        let flags = context.trace_flags() & TraceFlags::SAMPLED;
        let parent = format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id());
        let state = Some(context.trace_state().header()).filter(|state| !state.is_empty());
        // Hexadecimal digits fit in a header, and what came in one fits in one.
        let value = |text: String| HeaderValue::try_from(text).ok();
        vec![("traceparent", value(parent)), ("tracestate", state.and_then(value))]
    }
}

/// W3C Trace Context, if it is there and well-formed.
fn sent_with(headers: &HeaderMap) -> SpanContext {
    if headers.get_all("traceparent").iter().count() != 1 {
        return SpanContext::NONE; // of several, none is known to be the right one
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
    context.span().span_context().clone()
}

/// Whether a trace is among the part that is sent. All who go by its id alone choose the same.
fn is_chosen(trace: TraceId, part: f64) -> bool {
    const BITS: u32 = 53; // as many as a float holds exactly
    let place = u128::from_be_bytes(trace.to_bytes()) & ((1 << BITS) - 1);
    (place as f64) < part * 2f64.powi(BITS as i32)
}

/// The names are those of OpenTelemetry's conventions for HTTP servers, and `pierhead.*` where they have none.
fn span(place: &Place, access: &Access<'_>, scope: InstrumentationScope) -> SpanData {
    let start = SystemTime::from(access.time);
    let kind = Kind::NAMES[access.kind as usize];
    // A method of a client's own invention is not a name that many spans share.
    let method = if KNOWN.contains(&access.method) { access.method } else { "HTTP" };
    let (path, query) = access.path.split_once('?').map_or((access.path, None), |(path, query)| (path, Some(query)));
    let version = if access.protocol == "HTTP/2.0" { "2" } else { "1.1" };
    let mut attributes = vec![
        KeyValue::new("http.request.method", if method == "HTTP" { "_OTHER".into() } else { shortened(method) }),
        KeyValue::new("url.path", shortened(path)),
        KeyValue::new("http.response.status_code", i64::from(access.status)),
        KeyValue::new("network.protocol.version", version),
        KeyValue::new("client.address", access.client.to_string()),
        KeyValue::new("network.peer.address", place.peer.to_canonical().to_string()),
        KeyValue::new("http.request.body.size", bytes(access.bytes_in)),
        KeyValue::new("http.response.body.size", bytes(access.bytes_out)),
        KeyValue::new("pierhead.kind", kind),
        KeyValue::new("pierhead.request_id", access.request_id.to_owned()),
    ];
    let more = [
        ("url.query", query),
        ("user_agent.original", access.user_agent),
        ("pierhead.repository", access.repository),
        ("pierhead.reference", access.reference),
        ("pierhead.digest", access.digest),
        ("pierhead.upstream", access.upstream.as_ref().map(|upstream| upstream.name)),
    ];
    let known = more.into_iter().filter_map(|(name, value)| Some(KeyValue::new(name, shortened(value?))));
    attributes.extend(known);
    let status = if access.status >= 500 {
        attributes.push(KeyValue::new("error.type", access.status.to_string()));
        Status::error(access.failure.map(shortened).unwrap_or_default())
    } else {
        Status::Unset
    };
    SpanData {
        span_context: place.context.clone(),
        parent_span_id: place.parent,
        parent_span_is_remote: place.parent != SpanId::INVALID,
        span_kind: SpanKind::Server,
        name: Cow::Owned(format!("{method} {kind}")),
        start_time: start,
        end_time: start + access.duration,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status,
        instrumentation_scope: scope,
    }
}

const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];

fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// At most [`TEXT_LIMIT`] bytes of it.
fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_LIMIT)].to_owned()
}
