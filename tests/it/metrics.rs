//! Promise: a monitoring system reads what happened, in a form that its own checker accepts.

use std::io::Write as _;
use std::net::TcpStream;

use reqwest::Method;

use crate::support::command::{Output, command};
use crate::support::content::Content;
use crate::support::pierhead::Site;
use crate::support::{free_port, wait_for};

/// The page of what is counted; `accept` is the form.
fn page(port: u16, accept: &str) -> (String, String) {
    let client = reqwest::blocking::Client::builder().no_proxy().build().expect("a client");
    let answer = client.get(format!("http://127.0.0.1:{port}/metrics")).header("Accept", accept).send();
    let answer = answer.expect("monitoring is answered");
    assert_eq!(answer.status(), 200);
    let form = answer.headers()["content-type"].to_str().expect("text").to_owned();
    (form, answer.text().expect("text"))
}

/// The value of a sample, with its labels as they are written.
fn value(page: &str, sample: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn what_happened_is_counted_and_prometheus_own_checker_accepts_the_page() {
    let site = Site::new();
    let port = free_port();
    site.configure(&[&format!("metrics: {{ address: \":{port}\" }}")]);
    let _server = site.start();
    let registry = site.admin();
    let repository = registry.repository("counted/app", "pull,push");
    let blob = Content::new(1, 100_000);
    repository.push("latest", &[blob]).expect("pushed");
    let manifest = repository.request(Method::GET, "manifests/latest").header("Accept", "*/*");
    assert_eq!(manifest.send().expect("an answer").status(), 200);
    assert_eq!(registry.request(Method::GET, "/v2/").send().expect("an answer").status(), 401);
    let in_the_clear = site.authority().replace("localhost", "127.0.0.1");
    let mut stranger = TcpStream::connect(in_the_clear).expect("the port is open");
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("the stranger may speak");

    let (form, text) = wait_for("the counts", 10, || {
        let (form, text) = page(port, "text/plain;version=0.0.4");
        // Requests and handshakes are counted when they are over.
        value(&text, "pierhead_tls_handshakes_total{outcome=\"failed\"}")?;
        value(&text, "pierhead_http_requests_total{method=\"GET\",endpoint=\"base\",status=\"401\"}")?;
        Some((form, text))
    });
    assert_eq!(form, "text/plain; version=0.0.4; charset=utf-8");
    let at_least = |sample: &str, least: f64| {
        let found = value(&text, sample);
        assert!(found.is_some_and(|found| found >= least), "{sample} is {found:?}, not at least {least}, in\n{text}");
    };
    at_least("pierhead_http_requests_total{method=\"GET\",endpoint=\"manifest\",status=\"200\"}", 1.0);
    at_least("pierhead_http_requests_total{method=\"PUT\",endpoint=\"manifest\",status=\"201\"}", 1.0);
    at_least("pierhead_http_requests_total{method=\"GET\",endpoint=\"base\",status=\"401\"}", 1.0);
    at_least("pierhead_http_requests_total{method=\"GET\",endpoint=\"token\",status=\"200\"}", 1.0);
    at_least("pierhead_http_request_body_bytes_total{endpoint=\"upload\"}", 100_000.0);
    at_least("pierhead_http_request_duration_seconds_count{method=\"PUT\",endpoint=\"manifest\"}", 1.0);
    at_least("pierhead_tls_handshakes_total{outcome=\"done\"}", 1.0);
    at_least("pierhead_connections_accepted_total", 2.0);
    at_least("pierhead_storage_call_duration_seconds_count{call=\"rename\"}", 1.0);
    let certificate = site.directory().join("certs/server.crt");
    let certificate = certificate.canonicalize().expect("it was made");
    at_least(&format!("pierhead_certificate_expiry_timestamp_seconds{{file=\"{}\"}}", certificate.display()), 1.8e9);
    assert_eq!(value(&text, "pierhead_uploads_in_flight"), Some(0.0));
    assert!(!text.contains("counted/app"), "repositories are no labels");

    accepted(&text);
    let (form, text) = page(port, "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3");
    assert!(form.starts_with("application/openmetrics-text; version=1.0.0") && text.ends_with("# EOF\n"), "{form}");
}

/// Prometheus' own checker has no complaints.
fn accepted(text: &str) {
    let checked =
        Output::with_input(command("promtool").args(["check", "metrics"]), |stdin| stdin.write_all(text.as_bytes()));
    let checked = checked.ok();
    assert_eq!((checked.stdout.as_str(), checked.stderr.as_str()), ("", ""), "it has no complaints");
}

#[test]
fn what_goes_to_upstreams_is_counted_by_their_names() {
    let site = Site::new();
    let (port, nobody) = (free_port(), free_port());
    let upstreams = format!("upstreams: {{ theirs: {{ peers: [\"http://127.0.0.1:{nobody}\"], health: off }} }}");
    site.configure(&["registry: false", &upstreams, &format!("metrics: {{ address: \":{port}\" }}")]);
    let _server = site.start();
    let registry = site.registry(None).unguarded();
    assert_eq!(registry.request(Method::GET, "/v2/").send().expect("an answer").status(), 503);
    let text = wait_for("the counts", 10, || {
        let (_, text) = page(port, "text/plain;version=0.0.4");
        value(&text, "pierhead_http_requests_total{method=\"GET\",endpoint=\"base\",status=\"503\"}")?;
        Some(text)
    });
    for (sample, expected) in [
        ("pierhead_upstream_requests_total{upstream=\"theirs\",status=\"none\"}", 1.0),
        ("pierhead_upstream_connect_failures_total{upstream=\"theirs\"}", 1.0),
        ("pierhead_upstream_retries_total{upstream=\"theirs\"}", 0.0),
    ] {
        assert_eq!(value(&text, sample), Some(expected), "{sample} in\n{text}");
    }
    accepted(&text);
}
