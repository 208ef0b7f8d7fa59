//! What a monitoring system reads.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;

use super::*;

fn access(method: &'static str, kind: Kind, status: u16, limit: Option<Limit>) -> Access<'static> {
    Access {
        time: Timestamp::UNIX_EPOCH,
        request_id: "id",
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        subject: None,
        method,
        path: "/v2/secret-project/manifests/latest",
        protocol: "HTTP/1.1",
        status,
        bytes_in: 3,
        bytes_out: 5,
        duration: Duration::from_millis(30),
        repository: Some("secret-project"),
        reference: None,
        digest: None,
        user_agent: None,
        failure: None,
        upstream: None,
        kind,
        limit,
        credentials: false,
        size: None,
        login: false,
    }
}

#[test]
fn requests_are_counted_by_method_endpoint_and_status() {
    let metrics = Metrics::default();
    metrics.request(&access("GET", Kind::Manifest, 200, None));
    metrics.request(&access("GET", Kind::Manifest, 200, None));
    metrics.request(&access("PUT", Kind::Upload, 429, Some(Limit::Uploads)));
    let page = metrics.page(Exposition::Prometheus);
    for line in [
        "pierhead_http_requests_total{method=\"GET\",endpoint=\"manifest\",status=\"200\"} 2",
        "pierhead_http_requests_total{method=\"PUT\",endpoint=\"upload\",status=\"429\"} 1",
        "pierhead_http_request_body_bytes_total{endpoint=\"manifest\"} 6",
        "pierhead_http_response_body_bytes_total{endpoint=\"upload\"} 5",
        "pierhead_http_request_duration_seconds_bucket{method=\"GET\",endpoint=\"manifest\",le=\"0.025\"} 0",
        "pierhead_http_request_duration_seconds_bucket{method=\"GET\",endpoint=\"manifest\",le=\"0.1\"} 2",
        "pierhead_http_request_duration_seconds_bucket{method=\"GET\",endpoint=\"manifest\",le=\"+Inf\"} 2",
        "pierhead_http_request_duration_seconds_sum{method=\"GET\",endpoint=\"manifest\"} 0.06",
        "pierhead_http_request_duration_seconds_count{method=\"GET\",endpoint=\"manifest\"} 2",
        "pierhead_limit_hits_total{limit=\"uploads\"} 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}

#[test]
fn orders_of_certificates_are_counted_and_when_the_next_begins() {
    let metrics = Metrics::default();
    metrics.acme_order("issued");
    metrics.acme_order("unreachable");
    metrics.acme(vec![("a.test".to_owned(), 1_800_000_000, 3)]);
    let page = metrics.page(Exposition::Prometheus);
    for line in [
        "pierhead_acme_orders_total{outcome=\"issued\"} 1",
        "pierhead_acme_orders_total{outcome=\"unreachable\"} 1",
        "pierhead_acme_next_attempt_seconds{certificate=\"a.test\"} 1800000000",
        "pierhead_acme_failures{certificate=\"a.test\"} 3",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}

#[test]
fn what_a_client_sends_is_never_a_label() {
    let metrics = Metrics::default();
    let before = metrics.page(Exposition::Prometheus).lines().count();
    for method in ["BREW", "A\"B", ""] {
        metrics.request(&access(method, Kind::Other, 599, None));
    }
    let page = metrics.page(Exposition::Prometheus);
    assert!(page.contains("{method=\"other\",endpoint=\"other\",status=\"other\"} 3"), "{page}");
    assert!(!page.contains("secret-project"));
    let three_of_the_same = page.lines().count() - before;
    metrics.request(&access("TEA", Kind::Other, 7, None));
    assert_eq!(metrics.page(Exposition::Prometheus).lines().count() - before, three_of_the_same);
}

#[test]
fn connections_and_uploads_are_shown_as_long_as_they_last() {
    let metrics = Metrics::default();
    let (first, second, upload) = (metrics.connection(), metrics.connection(), metrics.upload());
    drop(first);
    let page = metrics.page(Exposition::Prometheus);
    for line in
        ["pierhead_connections_open 1\n", "pierhead_connections_accepted_total 2\n", "pierhead_uploads_in_flight 1\n"]
    {
        assert!(page.contains(line), "{page}");
    }
    drop((second, upload));
    assert!(metrics.page(Exposition::Prometheus).contains("pierhead_connections_open 0\n"));
}

#[test]
fn every_word_of_a_label_is_at_the_place_of_its_value() {
    let metrics = Metrics::default();
    metrics.handshake(Handshake::TimedOut);
    metrics.limit_hit(Limit::FailedLogins);
    metrics.storage_error(StorageCall::Finish);
    metrics.storage_error(StorageCall::Put);
    metrics.certificates(vec![("/etc/a \"b\"\\c.crt".to_owned(), 1_900_000_000)]);
    let page = metrics.page(Exposition::Prometheus);
    for line in [
        "pierhead_tls_handshakes_total{outcome=\"timed_out\"} 1\n",
        "pierhead_limit_hits_total{limit=\"failed_logins\"} 1\n",
        "pierhead_storage_errors_total{call=\"finish\"} 1\n",
        "pierhead_storage_errors_total{call=\"put\"} 1\n",
        "pierhead_certificate_expiry_timestamp_seconds{file=\"/etc/a \\\"b\\\"\\\\c.crt\"} 1900000000\n",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    assert_eq!(Kind::NAMES[Kind::Other as usize], "other");
    assert_eq!(Kind::NAMES[Kind::Upload as usize], "upload");
    assert_eq!(Limit::NAMES[Limit::Uploads as usize], "uploads");
}

#[test]
fn openmetrics_explains_counters_by_their_bare_name_and_ends_visibly() {
    let metrics = Metrics::default();
    metrics.handshake(Handshake::Done);
    let page = metrics.page(Exposition::OpenMetrics);
    assert!(page.contains("# TYPE pierhead_tls_handshakes counter\n"), "{page}");
    assert!(page.contains("\npierhead_tls_handshakes_total{outcome=\"done\"} 1\n"), "{page}");
    assert!(page.ends_with("\n# EOF\n"));
    assert!(!metrics.page(Exposition::Prometheus).contains("# EOF"));
}

#[test]
fn who_asks_for_openmetrics_gets_it_and_everybody_else_the_older_format() {
    for (accept, expected) in [
        ("", Exposition::Prometheus),
        ("*/*", Exposition::Prometheus),
        ("text/plain;version=0.0.4", Exposition::Prometheus),
        ("application/openmetrics-text", Exposition::OpenMetrics),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", Exposition::OpenMetrics),
        // As Prometheus asks.
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            Exposition::OpenMetrics,
        ),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.8", Exposition::Prometheus),
        ("application/openmetrics-text;q=0", Exposition::Prometheus),
    ] {
        assert_eq!(Exposition::accepted(accept), expected, "{accept}");
    }
}
