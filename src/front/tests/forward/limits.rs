//! What may be sent on, how much of it, and until when.

use futures_util::stream;
use reqwest::Body;

use super::*;
use crate::telemetry::Exposition;

#[tokio::test]
async fn what_may_not_be_passed_on_is_answered_here() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    wire.send(door.request("PUT /v2/paused/x", "Content-Length: 0\r\n")).await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.text()), (405, "paused"));
    assert_eq!(theirs.all(), "");
}

#[tokio::test]
async fn a_body_larger_than_it_may_be_is_413_whether_it_says_so_or_not() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    wire.send(door.request("PUT /v2/small/x", "Content-Length: 1001\r\n")).await;
    let reply = wire.reply().await;
    assert_eq!(
        (reply.status, reply.text().contains("MANIFEST_INVALID") && reply.text().contains("1000 bytes")),
        (413, true)
    );
    assert_eq!(theirs.all(), "");
    let mut wire = door.clear().await;
    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1000));
    wire.send(door.request("PUT /v2/small/x", "Transfer-Encoding: chunked\r\n") + &chunk + "0\r\n\r\n").await;
    assert_eq!(wire.reply().await.status, 201, "as large as it may be");
    wire.send(door.request("PUT /v2/small/x", "Transfer-Encoding: chunked\r\n") + &chunk + "1\r\nx\r\n").await;
    assert_eq!(wire.reply().await.status, 413);
    let body = Body::wrap_stream(stream::iter([Ok::<_, std::io::Error>(vec![0_u8; 1001])]));
    let reply = door.http2().put(door.url("/v2/small/x")).body(body).send().await.unwrap();
    assert_eq!(reply.status().as_u16(), 413);
    let page = || door.reports.metrics.page(Exposition::Prometheus);
    eventually(|| page().contains("pierhead_limit_hits_total{limit=\"body\"} 3")).await;
}

#[tokio::test]
async fn a_write_is_broken_off_when_nothing_may_change_any_more() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    wire.send(door.request("PATCH /v2/permitted/x", "Content-Length: 10\r\n") + "hello").await;
    eventually(|| theirs.all().contains("hello")).await;
    door.script.withdrawn.store(true, Ordering::Relaxed);
    wire.send("world").await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.text()), (503, "no more changes"));
    assert!(!theirs.all().contains("world"));
}

#[tokio::test]
async fn the_access_line_and_the_counts_tell_who_answered() {
    let theirs = Theirs::open().await;
    let door = before_upstream(upstream(&[nobody(), theirs.origin()]), |_| {});
    for _ in 0..2 {
        let mut wire = door.clear().await;
        wire.send(door.request("GET /v2/206", "")).await;
        assert_eq!(wire.reply().await.status, 206);
    }
    let mut wire = door.clear().await;
    wire.send(door.request("GET /v2/busy", "")).await;
    assert_eq!(wire.reply().await.status, 503);
    for line in door.lines(3).await {
        assert_eq!((line["upstream"].as_str(), line["kind"].as_str()), (Some("hub"), None));
        assert_eq!(line["peer"].as_str(), Some(theirs.address.to_string().as_str()));
        assert_eq!((line["repository"].as_str(), line["reference"].as_str()), (Some("a/b"), Some("latest")));
        assert!(line["first_byte_ms"].as_f64().unwrap() <= line["duration_ms"].as_f64().unwrap());
    }
    let page = door.reports.metrics.page(Exposition::Prometheus);
    for line in [
        "pierhead_upstream_requests_total{upstream=\"hub\",status=\"2xx\"} 2",
        "pierhead_upstream_requests_total{upstream=\"hub\",status=\"5xx\"} 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in {page}");
    }
    let number = |name: &str| -> u64 {
        let line = page.lines().find(|line| line.starts_with(&format!("{name}{{upstream=\"hub\"}}"))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let failures = number("pierhead_upstream_connect_failures_total");
    assert!(failures >= 1 && number("pierhead_upstream_retries_total") == failures, "{page}");
    assert!(page.contains("pierhead_upstream_peer_up{upstream=\"hub\""), "{page}");
}

#[tokio::test]
async fn who_has_no_peer_left_is_not_ready() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    wire.send(door.request("GET /-/ready", "")).await;
    assert_eq!(wire.reply().await.status, 404, "the script's own answer");
    let door = before_upstream(upstream(&[]), |_| {});
    let mut wire = door.clear().await;
    wire.send(door.request("GET /-/ready", "")).await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.text()), (503, "upstream hub: no peer is well\n"));
    wire.send(door.request("GET /-/healthy", "")).await;
    assert_eq!(wire.reply().await.status, 404, "the script's own answer");
}

#[tokio::test]
async fn what_the_api_can_do_without_is_not_waited_for() {
    for (routes, registry, ready) in [
        (vec![to_hub("/jwt/auth")], false, true),
        (vec![], false, true),
        (vec![to_hub("/v2/theirs/")], true, true),
        (vec![to_hub("/v2/theirs/")], false, false),
        (vec![to_hub("/")], true, false),
    ] {
        let mut door = before_upstream(upstream(&[]), |config| config.routes.clone_from(&routes));
        door.script.registry.store(registry, Ordering::Relaxed);
        door.running.change(door.config.clone(), door.script.clone(), &door.certificates, Vec::new()).unwrap();
        let mut wire = door.clear().await;
        wire.send(door.request("GET /-/ready", "")).await;
        // 404 is the script's own answer.
        assert_eq!(wire.reply().await.status, if ready { 404 } else { 503 }, "{routes:?}");
    }
    // One that is lost of two that can be asked.
    let theirs = Theirs::open().await;
    let lost = Upstream { name: "lost".into(), ..upstream(&[]) };
    let door = before_upstream(upstream(&[theirs.origin()]), |config| {
        config.upstreams.push(lost);
        config.routes.insert(0, route("/v2/mirror/", Target::Upstream("lost".into())));
    });
    let mut wire = door.clear().await;
    wire.send(door.request("GET /-/ready", "")).await;
    assert_eq!(wire.reply().await.status, 404);
}
