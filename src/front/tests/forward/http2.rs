//! Peers that speak HTTP/2: here another door of ours, whose services are the script.

use futures_util::stream;
use reqwest::Body;
use std::io::Write as _;

use super::*;

/// A door before another door. The file is the certificate of the other.
fn before_another() -> (Door, Door, tempfile::TempDir) {
    let theirs = Door::open();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::File::create(&ca).unwrap().write_all(theirs.pem.as_bytes()).unwrap();
    let mut upstream = upstream(&[format!("https://localhost:{}", theirs.tls.port())]);
    upstream.http2 = true;
    upstream.host = HostSent::Peer;
    upstream.tls.ca = Some(ca);
    let ours = before_upstream(upstream, |config| config.routes = vec![to_hub("/")]);
    (ours, theirs, folder)
}

#[tokio::test]
async fn requests_and_answers_pass_between_the_protocols() {
    let (ours, theirs, _folder) = before_another();
    let mut wire = ours.clear().await;
    wire.send(ours.request("GET /v2/where?a=%2F", "")).await;
    let reply = wire.reply().await;
    assert_eq!(
        (reply.status, reply.text()),
        (202, format!("https://localhost:{}/v2/where?a=%2F", theirs.tls.port()).as_str())
    );
    let location = format!("http://localhost:{}/v2/x?n=1", ours.clear.port());
    assert_eq!(reply.header("location"), Some(location.as_str()));
    wire.send(ours.request("HEAD /gen?n=1000", "")).await;
    assert_eq!(wire.head().await.header("content-length"), Some("1000"));
    wire.send(ours.request("PUT /echo", "Content-Length: 5\r\n") + "hello").await;
    assert_eq!(wire.reply().await.text(), "hello");
    let client = ours.http2();
    assert_eq!(client.put(ours.url("/echo")).body("hello").send().await.unwrap().text().await.unwrap(), "hello");
    assert_eq!(client.get(ours.url("/gen?n=3000000")).send().await.unwrap().bytes().await.unwrap().len(), 3_000_000);
    assert!(theirs.lines(5).await.iter().all(|line| line["protocol"] == "HTTP/2.0"));
}

#[tokio::test]
async fn permission_to_send_a_body_is_given_here_where_the_peers_would_not_arrive() {
    let (ours, theirs, _folder) = before_another();
    let mut wire = ours.clear().await;
    for _ in 0..2 {
        wire.send(ours.request("PUT /echo", "Content-Length: 5\r\nExpect: 100-continue\r\n")).await;
        assert_eq!(wire.head().await.status, 100);
        wire.send("hello").await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.text(), reply.header("connection")), (200, "hello", Some("keep-alive")));
    }
    assert_eq!(theirs.lines(2).await[0]["protocol"], "HTTP/2.0");
}

#[tokio::test]
async fn long_bodies_go_by_http1_where_the_time_for_an_answer_begins_after_them() {
    let (ours, theirs, _folder) = before_another();
    let body = Body::wrap_stream(stream::iter((0..32).map(|_| Ok::<_, std::io::Error>(vec![0_u8; 64 << 10]))));
    let reply = ours.http2().put(ours.url("/sink")).body(body).send().await.unwrap();
    assert_eq!(reply.text().await.unwrap(), (2 << 20).to_string());
    assert_eq!(theirs.lines(1).await[0]["protocol"], "HTTP/1.1");
    assert_eq!(ours.http2().get(ours.url("/origin")).send().await.unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let (ours, _theirs, _folder) = before_another();
    let mut wire = ours.clear().await;
    wire.send(ours.request("GET /half", "")).await;
    assert_eq!(wire.head().await.status, 200);
    assert!(wire.rest().await.len() <= 100_000);
    let reply = ours.http2().get(ours.url("/half")).send().await.unwrap();
    assert!(reply.bytes().await.is_err());
}
