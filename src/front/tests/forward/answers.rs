//! What reaches a client of an answer.

use super::*;

#[tokio::test]
async fn answers_without_a_body_keep_what_they_say_of_it() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    wire.send(door.request("HEAD /v2/x", "")).await;
    assert_eq!(wire.head().await.header("content-length"), Some("1000"));
    wire.send(door.request("GET /v2/204", "")).await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.header("range"), reply.header("content-length")), (204, Some("0-9"), None));
    assert_eq!(reply.header("transfer-encoding"), None);
    wire.send(door.request("GET /v2/304", "If-None-Match: \"x\"\r\n")).await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.header("etag"), reply.header("transfer-encoding")), (304, Some("\"x\""), None));
    let client = door.http2();
    let reply = client.head(door.url("/v2/x")).send().await.unwrap();
    assert_eq!(reply.headers()["content-length"], "1000");
    assert_eq!(reply.bytes().await.unwrap().len(), 0);
    assert_eq!(client.get(door.url("/v2/204")).send().await.unwrap().status().as_u16(), 204);
    assert_eq!(client.get(door.url("/v2/304")).send().await.unwrap().status().as_u16(), 304);
}

#[tokio::test]
async fn an_answer_is_dressed_and_says_nothing_of_the_peers_program() {
    let theirs = Theirs::open().await;
    let door = before_upstream(upstream(&[theirs.origin()]), |config| config.hsts = Some(Duration::from_secs(60)));
    let mut wire = door.clear().await;
    wire.send(door.request("GET /v2/206", "Range: bytes=2-4\r\n")).await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.text(), reply.header("content-range")), (206, "cde", Some("bytes 2-4/10")));
    assert_eq!(reply.header("server"), None);
    assert_eq!(reply.header("docker-distribution-api-version"), Some("registry/2.0"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    let line = &door.lines(1).await[0];
    assert_eq!(reply.header("x-request-id"), line["request_id"].as_str());
    let reply = door.http2().get(door.url("/v2/early")).send().await.unwrap();
    assert_eq!(reply.headers()["strict-transport-security"], "max-age=60", "on the first answer that anybody gets");
}

#[tokio::test]
async fn locations_lead_back_by_the_name_that_the_client_used() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let reply = door.http2().post(door.url("/v2/where")).send().await.unwrap();
    let location = format!("https://localhost:{}/v2/a/blobs/uploads/x?_state=a%2Fb%3D", door.tls.port());
    assert_eq!(reply.headers()["location"], location);
}

#[tokio::test]
async fn chunks_become_what_the_client_understands() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    wire.send(door.request("GET /v2/chunked", "Connection: close\r\n")).await;
    let text = String::from_utf8(wire.rest().await).unwrap();
    assert!(text.contains("Transfer-Encoding: chunked") && text.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{text}");
    assert_eq!(door.http2().get(door.url("/v2/chunked")).send().await.unwrap().text().await.unwrap(), "hello");
    let mut wire = door.clear().await;
    wire.send(format!("GET /v2/chunked HTTP/1.0\r\nHost: localhost:{}\r\n\r\n", door.clear.port())).await;
    let text = String::from_utf8(wire.rest().await).unwrap();
    assert!(text.ends_with("\r\n\r\nhello") && !text.to_lowercase().contains("chunked"), "{text}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    for path in ["/v2/half", "/v2/halfchunked"] {
        let mut wire = door.clear().await;
        wire.send(door.request(&format!("GET {path}"), "")).await;
        assert_eq!(wire.head().await.status, 200);
        let rest = wire.rest().await;
        assert!(rest.len() <= 100_000 && !rest.ends_with(b"0\r\n\r\n"), "{path}");
        let reply = door.http2().get(door.url(path)).send().await.unwrap();
        assert!(reply.bytes().await.is_err(), "{path}");
    }
    assert_eq!(theirs.all().matches("GET /v2/half HTTP").count(), 2, "what was begun is not begun anew");
    let lines = door.lines(4).await;
    assert!(lines.iter().all(|line| line["failure"].as_str().is_some_and(|text| text.contains("hub"))), "{lines:?}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_stops_the_peer() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let size: u64 = 128 << 20;
    let reply = door.http2().get(door.url(&format!("/v2/gen?n={size}"))).send().await.unwrap();
    let sent = settled(&theirs.state.moved).await;
    assert!(sent < 24 << 20, "windows and sockets, not {sent}");
    assert_eq!(reply.bytes().await.unwrap().len() as u64, size);
}

#[tokio::test]
async fn what_came_of_an_answer_is_passed_on_before_the_rest_comes() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    for mut wire in [door.clear().await, door.tls("http/1.1").await] {
        wire.send(door.request("GET /v2/slow", "")).await;
        assert_eq!(wire.head().await.status, 200);
        while wire.buffer.len() < 5 {
            assert!(wire.more().await);
        }
        assert_eq!(wire.buffer, b"01234");
        theirs.state.gate.add_permits(1);
        while wire.buffer.len() < 10 {
            assert!(wire.more().await);
        }
        assert_eq!(wire.buffer, b"0123456789");
    }
}

#[tokio::test]
async fn what_came_of_a_short_answer_is_passed_on_before_it_is_broken_off() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    for _ in 0..5 {
        let mut wire = door.clear().await;
        wire.send(door.request("GET /v2/short", "")).await;
        assert_eq!(wire.head().await.header("content-length"), Some("10"));
        assert_eq!(wire.rest().await, b"01234");
    }
}

#[tokio::test]
async fn a_protocol_that_nobody_asked_for_is_502_and_no_failure_that_is_tried_again() {
    let (one, other) = (Theirs::open().await, Theirs::open().await);
    let door = before(&[&one, &other]);
    for headers in ["", "Connection: upgrade\r\nUpgrade: x\r\n"] {
        let before = one.seen().len() + other.seen().len();
        let mut wire = door.clear().await;
        wire.send(door.request("GET /v2/switch", headers)).await;
        assert_eq!(wire.reply().await.status, 502);
        assert_eq!(one.seen().len() + other.seen().len(), before + 1, "{headers}");
    }
    assert!(!(one.all() + &other.all()).to_lowercase().contains("upgrade"), "nobody is asked");
}

#[tokio::test]
async fn an_answer_that_has_no_body_does_not_say_how_long_one_is() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    for _ in 0..2 {
        wire.send(door.request("GET /v2/204long", "")).await;
        let reply = wire.head().await;
        assert_eq!((reply.status, reply.header("content-length")), (204, None));
    }
}

#[tokio::test]
async fn an_old_client_gets_no_answer_before_the_answer() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    for headers in ["", "Content-Length: 0\r\nExpect: 100-continue\r\n"] {
        let mut wire = door.clear().await;
        let host = format!("Host: localhost:{}\r\n", door.clear.port());
        wire.send(format!("GET /v2/hints HTTP/1.0\r\n{host}{headers}\r\n")).await;
        assert_eq!(wire.reply().await.text(), "done", "{headers}");
    }
}
