//! Who says which trace a request belongs to.

use opentelemetry_http::{HttpClient, HttpError, Request, Response};

use super::forward::{Theirs, to_hub, upstream};
use super::*;
use crate::telemetry::traces;

/// Nobody runs the export, so nothing is ever sent.
#[derive(Debug)]
struct Silent;

#[async_trait::async_trait]
impl HttpClient for Silent {
    async fn send_bytes(&self, _: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        unreachable!("nobody runs the export")
    }
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn tracing() -> Reports {
    let config = traces::Config { endpoint: Some("http://127.0.0.1:4318/v1/traces".to_owned()), sample: 1.0 };
    let (traces, _) = traces::open(&config, Silent, Reports::off().metrics).unwrap();
    Reports { traces, ..Reports::off() }
}

/// What whoever answers is told, when the client said `lines`.
async fn told(trusted: bool, lines: &str) -> String {
    let door = Door::telling(tracing(), |config, _| {
        if trusted {
            config.trusted_proxies = ["127.0.0.1".parse().unwrap()].into_iter().collect();
        }
    });
    let mut wire = door.clear().await;
    wire.send(door.request("GET /trace", lines)).await;
    wire.reply().await.text().to_owned()
}

#[tokio::test]
async fn what_answers_sees_our_span_in_the_trace_of_a_trusted_proxy_and_of_nobody_else() {
    let lines = format!("traceparent: {PARENT}\r\ntracestate: a=1,b=2\r\n");
    let ours = told(true, &lines).await;
    assert!(ours.starts_with("[\"00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{ours}");
    assert!(!ours.contains("00f067aa0ba902b7"), "the parent is our span now: {ours}");
    assert!(ours.ends_with("-01\"] [\"a=1,b=2\"]"), "{ours}");
    let another = told(false, &lines).await;
    assert!(!another.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "{another}");
    assert!(another.ends_with("-01\"] []"), "what belongs to their trace goes with it: {another}");
}

#[tokio::test]
async fn what_cannot_be_read_begins_a_trace() {
    let twice = format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n");
    let zero = "traceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01\r\n";
    for lines in ["", "traceparent: 00-xyz\r\ntracestate: a=1\r\n", zero, &twice] {
        let ours = told(true, lines).await;
        assert!(ours.starts_with("[\"00-") && ours.ends_with("-01\"] []"), "{lines}: {ours}");
        assert!(!ours.contains("4bf92f3577b34da6a3ce929d0e0e4736") && !ours.contains("00-000000"), "{lines}: {ours}");
    }
}

#[tokio::test]
async fn a_peer_sees_our_span_and_no_strangers_trace() {
    let theirs = Theirs::open().await;
    let door = Door::telling(tracing(), |config, _| {
        config.routes = vec![to_hub("/v2/")];
        config.upstreams = vec![upstream(&[theirs.origin()])];
    });
    let mut wire = door.clear().await;
    wire.send(door.request("GET /v2/echo", &format!("traceparent: {PARENT}\r\ntracestate: a=1\r\n"))).await;
    let seen = wire.reply().await.text().to_lowercase();
    let lines: Vec<&str> = seen.lines().filter(|line| line.starts_with("trace")).collect();
    let [parent] = lines[..] else { panic!("{lines:?}") };
    assert!(parent.starts_with("traceparent: 00-") && !parent.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "{parent}");
}
