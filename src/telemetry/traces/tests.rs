use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};

use super::*;
use crate::exchange::Kind;
use crate::telemetry::{Access, Exposition, Metrics};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A collector that answers every batch with this.
#[derive(Debug, Clone)]
struct Answering(StatusCode, Arc<AtomicUsize>);

#[async_trait::async_trait]
impl HttpClient for Answering {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        assert_eq!(request.uri(), "http://127.0.0.1:4318/v1/traces");
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(Response::builder().status(self.0).body(Bytes::new())?)
    }
}

fn open(answer: StatusCode, sample: f64) -> (Traces, Export, Metrics, Answering) {
    let config = Config { endpoint: Some("http://127.0.0.1:4318/v1/traces".to_owned()), sample };
    let (metrics, client) = (Metrics::default(), Answering(answer, Arc::default()));
    let (traces, export) = super::open(&config, client.clone(), metrics.clone()).unwrap();
    (traces, export.unwrap(), metrics, client)
}

fn tell(traces: &Traces, kind: Kind) {
    let trace = traces.begin(&HeaderMap::new(), false, HERE);
    let access = Access {
        time: "2026-11-21T10:00:00Z".parse().unwrap(),
        request_id: "r-1",
        client: HERE,
        subject: None,
        method: "GET",
        path: &"/ü".repeat(10_000),
        protocol: "HTTP/2.0",
        status: 200,
        bytes_in: 0,
        bytes_out: 0,
        duration: Duration::from_millis(1),
        repository: None,
        reference: None,
        digest: None,
        user_agent: None,
        failure: None,
        kind,
        limit: None,
        credentials: false,
        size: None,
        login: false,
        upstream: None,
    };
    traces.end(&trace, &access);
}

/// How many spans a collector took, and how many were given up.
fn counted(metrics: &Metrics) -> (u64, u64) {
    let page = metrics.page(Exposition::Prometheus);
    let count = |outcome: &str| {
        let name = format!("pierhead_trace_spans_total{{outcome=\"{outcome}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
    };
    (count("sent"), count("dropped"))
}

#[tokio::test]
async fn what_finds_no_room_is_dropped_and_counted_and_what_waited_goes_at_the_end() {
    let (traces, export, metrics, client) = open(StatusCode::OK, 1.0);
    for _ in 0..5_000 {
        tell(&traces, Kind::Blob); // nobody runs the export yet, and nobody waits
    }
    assert_eq!(counted(&metrics), (0, 5_000 - 4_096));
    export.run(std::future::ready(())).await;
    assert_eq!(counted(&metrics), (4_096, 5_000 - 4_096));
    assert_eq!(client.1.load(Ordering::Relaxed), 8, "many go at once");
    tell(&traces, Kind::Blob);
    assert_eq!(counted(&metrics).1, 5_000 - 4_096 + 1, "after the end nobody takes them");
}

#[tokio::test]
async fn what_the_collector_refuses_is_counted() {
    let (traces, export, metrics, _) = open(StatusCode::BAD_REQUEST, 1.0);
    tell(&traces, Kind::Blob);
    export.run(std::future::ready(())).await;
    assert_eq!(counted(&metrics), (0, 1));
}

#[tokio::test]
async fn probes_make_no_spans_and_of_the_rest_as_many_as_the_operator_wants() {
    for (sample, least, most) in [(0.0, 0, 0), (0.25, 150, 350), (1.0, 1_000, 1_000)] {
        let (traces, export, metrics, _) = open(StatusCode::OK, sample);
        for _ in 0..1_000 {
            tell(&traces, Kind::Manifest);
            tell(&traces, Kind::Probe);
        }
        export.run(std::future::ready(())).await;
        let (sent, dropped) = counted(&metrics);
        assert!((least..=most).contains(&sent) && dropped == 0, "{sample}: {sent} sent, {dropped} dropped");
    }
}
