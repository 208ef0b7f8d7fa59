//! Who may keep whom waiting.

use super::*;

const SHORT: Timeouts = Timeouts {
    handshake: Duration::from_secs(10),
    header: Duration::from_secs(10),
    idle: Duration::from_secs(10),
    stall: Duration::from_millis(300),
    minimum_rate: 100,
    drain: Duration::from_secs(10),
};

fn short(theirs: &Theirs) -> Door {
    before_upstream(upstream(&[theirs.origin()]), |config| config.timeouts = SHORT)
}

#[tokio::test]
async fn a_peer_may_take_longer_than_a_client() {
    let theirs = Theirs::open().await;
    let door = short(&theirs);
    let mut wire = door.clear().await;
    wire.send(door.request("PUT /v2/hang", "Content-Length: 5\r\n") + "hello").await;
    let commit = tokio::spawn(door.http2().put(door.url("/v2/hang")).body("hello").send());
    eventually(|| theirs.all().matches("PUT /v2/hang").count() == 2).await;
    tokio::time::sleep(SHORT.stall * 4).await; // the time that passes is what is tested
    theirs.state.gate.add_permits(2);
    assert_eq!(wire.reply().await.status, 201);
    assert_eq!(within(commit).await.unwrap().unwrap().status().as_u16(), 201);
}

#[tokio::test]
async fn permission_may_take_longer_than_a_client() {
    let theirs = Theirs::open().await;
    let door = short(&theirs);
    let mut wire = door.clear().await;
    wire.send(door.request("PUT /v2/continue", "Content-Length: 5\r\nExpect: 100-continue\r\n")).await;
    tokio::time::sleep(SHORT.stall * 4).await; // the time that passes is what is tested
    theirs.state.gate.add_permits(1);
    assert_eq!(wire.head().await.status, 100);
    wire.send("hello").await;
    assert_eq!(wire.reply().await.status, 201);
}

#[tokio::test]
async fn a_client_that_owes_its_body_is_cut() {
    let theirs = Theirs::open().await;
    let door = short(&theirs);
    let mut wire = door.clear().await;
    wire.send(door.request("PATCH /v2/x", "Content-Length: 100\r\n") + "half").await;
    assert_eq!(wire.reply().await.status, 408);
    eventually(|| theirs.state.ended.load(Ordering::Relaxed) == 1).await;
    assert_eq!(door.lines(1).await[0]["status"], 408);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let theirs = Theirs::open().await;
    let door = short(&theirs);
    let mut wire = door.clear().await;
    wire.send(door.request("GET /v2/gen?n=1000000000", "")).await;
    eventually(|| theirs.state.ended.load(Ordering::Relaxed) == 1).await;
    assert_eq!(door.lines(1).await[0]["status"], 499);
}

#[tokio::test]
async fn a_client_of_http2_that_owes_its_body_is_cut_and_its_other_requests_are_not() {
    let theirs = Theirs::open().await;
    let mut upstream = upstream(&[theirs.origin()]);
    upstream.timeouts.write = Duration::from_millis(300);
    let door = before_upstream(upstream, |config| config.timeouts = SHORT);
    let client = door.http2();
    let pieces = futures_util::stream::once(async { Ok::<_, std::io::Error>("half") });
    let endless = futures_util::StreamExt::chain(pieces, futures_util::stream::pending());
    let upload = client.put(door.url("/v2/x")).body(reqwest::Body::wrap_stream(endless)).send();
    let upload = tokio::spawn(upload);
    eventually(|| theirs.all().contains("half")).await;
    let commit = tokio::spawn(client.put(door.url("/v2/hang")).body("hello").send());
    assert!(within(upload).await.unwrap().is_err(), "the stream is reset");
    eventually(|| theirs.state.ended.load(Ordering::Relaxed) == 1).await;
    let line = &door.lines(1).await[0];
    assert_eq!((line["status"].as_u64(), line["bytes_in"].as_u64()), (Some(408), Some(4)));
    theirs.state.gate.add_permits(1);
    assert_eq!(within(commit).await.unwrap().unwrap().status().as_u16(), 201);
    assert_eq!(door.running.connections(), 1);
}

#[tokio::test]
async fn a_client_that_was_refused_permission_and_stays_is_cut() {
    let theirs = Theirs::open().await;
    let door = short(&theirs);
    let mut wire = door.clear().await;
    wire.send(door.request("PUT /v2/early", "Content-Length: 5\r\nExpect: 100-continue\r\n")).await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (401, Some("close")));
    wire.rest().await;
    eventually(|| theirs.state.ended.load(Ordering::Relaxed) == 1).await;
    assert_eq!(door.lines(1).await[0]["status"], 401);
}

#[tokio::test]
async fn a_client_of_http2_that_was_answered_and_owes_its_body_is_told_of_by_its_answer() {
    let theirs = Theirs::open().await;
    let mut upstream = upstream(&[theirs.origin()]);
    upstream.timeouts.write = Duration::from_millis(300);
    let door = before_upstream(upstream, |config| config.timeouts = SHORT);
    let pieces = futures_util::stream::once(async { Ok::<_, std::io::Error>("half") });
    let endless = futures_util::StreamExt::chain(pieces, futures_util::stream::pending());
    let client = door.http2();
    let upload = client.put(door.url("/v2/early")).body(reqwest::Body::wrap_stream(endless)).send();
    let reply = within(upload).await.unwrap();
    assert_eq!(reply.status().as_u16(), 401);
    let line = &door.lines(1).await[0];
    assert_eq!((line["status"].as_u64(), line["bytes_out"].as_u64()), (Some(401), Some(2)));
    assert_eq!(line["peer"].as_str(), Some(theirs.address.to_string().as_str()));
    assert!(line["upstream"] == "hub" && line["first_byte_ms"].as_f64().is_some(), "{line}");
    let page = door.reports.metrics.page(crate::telemetry::Exposition::Prometheus);
    let counted = "pierhead_upstream_requests_total{upstream=\"hub\",status=\"4xx\"} 1";
    assert!(page.lines().any(|line| line == counted), "{page}");
}

#[tokio::test]
async fn a_client_that_owes_its_body_is_told_so_where_the_peers_time_ends_with_its_own() {
    let theirs = Theirs::open().await;
    let mut upstream = upstream(&[theirs.origin()]);
    upstream.timeouts.read = SHORT.stall;
    // What is left to be said is less than this asks for.
    let timeouts = Timeouts { minimum_rate: 1 << 20, ..SHORT };
    let door = before_upstream(upstream, |config| config.timeouts = timeouts);
    let mut wires = JoinSet::new();
    for number in 0..200 {
        let mut wire = door.clear().await;
        let head = door.request("PATCH /v2/x", "Content-Length: 100\r\n");
        wires.spawn(async move {
            wire.send(head).await;
            tokio::time::sleep(SHORT.stall * number / 400).await; // so that the ends come at all kinds of times
            wire.send("half").await;
            wire.reply().await.status
        });
    }
    assert_eq!(wires.join_all().await, [408; 200]);
    assert!(door.lines(200).await.iter().all(|line| line["status"] == 408));
}

#[tokio::test]
async fn a_client_has_its_own_time_to_send_its_body_where_the_peers_is_shorter() {
    let theirs = Theirs::open().await;
    let mut upstream = upstream(&[theirs.origin()]);
    upstream.timeouts.read = Duration::from_millis(50);
    let door = before_upstream(upstream, |_| {});
    let mut wire = door.clear().await;
    wire.send(door.request("PATCH /v2/x", "Content-Length: 5\r\n") + "he").await;
    eventually(|| theirs.all().ends_with("he")).await;
    tokio::time::sleep(Duration::from_millis(400)).await; // the time that passes is what is tested
    wire.send("llo").await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.text()), (201, "5"));
}
