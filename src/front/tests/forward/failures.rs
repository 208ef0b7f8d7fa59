//! Peers that are gone, broken, slow or not there.

use super::*;

async fn ask(door: &Door, line: &str, headers: &str) -> Reply {
    let mut wire = door.clear().await;
    wire.send(door.request(line, headers)).await;
    wire.reply().await
}

fn is_unavailable(reply: &Reply) {
    let value: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(value["errors"][0]["code"], "UNAVAILABLE");
    assert_eq!(reply.header("docker-distribution-api-version"), Some("registry/2.0"));
    assert!(reply.header("retry-after").is_some() && reply.header("x-request-id").is_some());
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_passed_over_whatever_the_method() {
    let theirs = Theirs::open().await;
    let door = before_upstream(upstream(&[nobody(), theirs.origin(), nobody()]), |_| {});
    for _ in 0..6 {
        assert_eq!(ask(&door, "GET /v2/206", "").await.status, 206);
        let mut wire = door.clear().await;
        wire.send(door.request("PATCH /v2/x", "Content-Length: 5\r\n") + "hello").await;
        assert_eq!(wire.reply().await.text(), "5");
    }
}

#[tokio::test]
async fn no_more_peers_are_tried_than_attempts_say_and_then_it_is_503() {
    let theirs = Theirs::open().await;
    let mut upstream = upstream(&[nobody(), nobody(), theirs.origin()]);
    upstream.attempts = NonZeroU32::new(2).unwrap();
    let door = before_upstream(upstream, |_| {});
    let reply = ask(&door, "GET /v2/206", "").await;
    assert_eq!(reply.status, 503);
    is_unavailable(&reply);
    assert_eq!(theirs.all(), "");
}

#[tokio::test]
async fn a_peer_that_closes_is_502_and_a_write_is_sent_once() {
    let (one, other) = (Theirs::open().await, Theirs::open().await);
    let door = before(&[&one, &other]);
    for (line, body) in [("PUT /v2/close", "Content-Length: 5\r\n"), ("POST /v2/close", "Content-Length: 0\r\n")] {
        let before = one.seen().len() + other.seen().len();
        let mut wire = door.clear().await;
        wire.send(door.request(line, body)).await;
        if body.contains('5') {
            wire.send("hello").await;
        }
        let reply = wire.reply().await;
        assert_eq!(reply.status, 502);
        is_unavailable(&reply);
        assert_eq!(one.seen().len() + other.seen().len(), before + 1, "{line}");
    }
    let before = one.seen().len() + other.seen().len();
    assert_eq!(ask(&door, "GET /v2/close", "").await.status, 502);
    assert_eq!(one.seen().len() + other.seen().len(), before + 2, "each was asked once");
}

#[tokio::test]
async fn an_answer_that_is_none_is_502() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let reply = ask(&door, "GET /v2/garbage", "").await;
    assert_eq!(reply.status, 502);
    is_unavailable(&reply);
}

#[tokio::test]
async fn a_peer_that_does_not_answer_is_504() {
    let theirs = Theirs::open().await;
    let mut upstream = upstream(&[theirs.origin()]);
    upstream.timeouts.read = Duration::from_millis(200);
    let door = before_upstream(upstream, |config| config.timeouts.stall = Duration::from_millis(200));
    let reply = ask(&door, "GET /v2/hang", "").await;
    assert_eq!(reply.status, 504);
    is_unavailable(&reply);
    let mut wire = door.clear().await;
    wire.send(door.request("PUT /v2/hang", "Content-Length: 5\r\n") + "hello").await;
    assert_eq!(wire.reply().await.status, 504);
    assert_eq!(theirs.all().matches("PUT /v2/hang").count(), 1);
    assert_eq!(door.http2().get(door.url("/v2/hang")).send().await.unwrap().status().as_u16(), 504);
}

#[tokio::test]
async fn what_a_peer_says_of_itself_is_passed_on() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let reply = ask(&door, "GET /v2/busy", "").await;
    assert_eq!((reply.status, reply.text(), reply.header("retry-after")), (503, "busy", Some("7")));
}

#[tokio::test]
async fn no_peer_at_all_is_503() {
    let door = before_upstream(upstream(&[]), |_| {});
    let reply = ask(&door, "GET /v2/", "").await;
    assert_eq!(reply.status, 503);
    is_unavailable(&reply);
}

#[tokio::test]
async fn a_clients_faults_are_its_own() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    wire.send(door.request("PATCH /v2/x", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\nnonsense\r\n").await;
    assert_eq!(wire.reply().await.status, 400);
    assert!(!theirs.all().contains("nonsense"));
    let reply = ask(&door, "GET /v2/x", "Connection: x-forwarded-for\r\n").await;
    assert_eq!(reply.status, 400);
    let lines = door.lines(2).await;
    assert!(lines.iter().all(|line| line["status"] == 400));
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_a_read_nothing_and_a_write_is_not_sent_again() {
    let theirs = Theirs::open().await;
    let mut upstream = upstream(&[theirs.origin()]);
    upstream.attempts = NonZeroU32::MIN;
    let door = before_upstream(upstream, |_| {});
    assert_eq!(ask(&door, "GET /v2/206", "").await.status, 206);
    assert_eq!(ask(&door, "GET /v2/stale", "").await.status, 201);
    assert_eq!((theirs.seen().len(), theirs.all().matches("GET /v2/stale").count()), (2, 2));
    assert_eq!(ask(&door, "PUT /v2/stale", "Content-Length: 0\r\n").await.status, 502);
    assert_eq!(theirs.all().matches("PUT /v2/stale").count(), 1);
}

#[tokio::test]
async fn a_peer_that_goes_away_in_the_middle_of_an_upload_is_502() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    wire.send(door.request("PATCH /v2/a/blobs/uploads/x", "Content-Length: 1000000000\r\n") + "hello").await;
    eventually(|| theirs.all().contains("hello")).await;
    drop(theirs);
    let reply = wire.reply().await;
    assert_eq!(reply.status, 502);
    is_unavailable(&reply);
}

#[tokio::test]
async fn who_did_it_decides_how_it_is_logged() {
    let (_guard, errors) = super::super::http1::errors();
    let theirs = Theirs::open().await;
    let mut upstream = upstream(&[theirs.origin()]);
    upstream.timeouts.write = Duration::from_millis(300);
    let door = before_upstream(upstream, |config| config.timeouts.stall = Duration::from_millis(300));
    for (line, body, status) in [
        ("PATCH /v2/x", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n", 400),
        ("PUT /v2/small/x", "Transfer-Encoding: chunked\r\n\r\n3e9\r\n", 413),
        ("PATCH /v2/x", "Content-Length: 10\r\n\r\nhalf", 408),
    ] {
        let mut wire = door.clear().await;
        let head = format!("{line} HTTP/1.1\r\nHost: localhost:{}\r\n{body}", door.clear.port());
        wire.send(if status == 413 { head + &"x".repeat(1001) } else { head }).await;
        assert_eq!(wire.reply().await.status, status);
    }
    let mut wire = door.clear().await;
    wire.send(door.request("PUT /v2/early", "Content-Length: 5\r\n") + "ha").await;
    assert_eq!(wire.reply().await.status, 401);
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(vec![0_u8; 1001])]));
    let reply = door.http2().put(door.url("/v2/small/x")).body(body).send().await.unwrap();
    assert_eq!(reply.status().as_u16(), 413);
    door.lines(5).await;
    assert_eq!(String::from_utf8_lossy(&errors.lock()), "");
    assert_eq!(ask(&door, "GET /v2/close", "").await.status, 502);
    door.lines(6).await;
    let errors = errors.lock();
    assert_eq!(String::from_utf8_lossy(&errors).matches("a request failed").count(), 1, "a peer's fault is one");
}
