//! What reaches a peer of a request.

use futures_util::stream;
use reqwest::Body;

use super::*;

#[tokio::test]
async fn path_and_query_arrive_byte_for_byte() {
    let theirs = Theirs::open().await;
    let door = before_upstream(upstream(&[theirs.origin()]), |config| config.routes = vec![to_hub("/")]);
    let mut wire = door.clear().await;
    for target in [
        "/a//b/echo",
        "/a%2Fb%41/echo?x=%3D&y=%2f",
        "/v2/a%3Ab/echo?x=%3D&y=%2f//;%41",
        "/v2/echo?_state=Zm9v%3D%3D&a=/../b",
        "/a;b=c,d/echo?",
        "/v2/~!$&'()*+,=:@/echo?a?b",
        "/v2/echo?q[]={x}|^`",
    ] {
        wire.send(door.request(&format!("GET {target}"), "")).await;
        let reply = wire.reply().await;
        assert!(reply.text().starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{target}: {}", reply.text());
    }
    wire.send(format!("GET http://localhost:{}/v2/echo?a HTTP/1.1\r\nHost: localhost:{0}\r\n\r\n", door.clear.port()))
        .await;
    assert!(wire.reply().await.text().starts_with("GET /v2/echo?a HTTP/1.1\r\n"), "absolute-form becomes origin-form");
}

#[tokio::test]
async fn a_peer_is_told_who_asks_and_only_by_us() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    let lies = "Forwarded: host=evil\r\nX-Forwarded-Host: evil\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
                Connection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nUpgrade: websocket\r\n\
                Authorization: Bearer x\r\nRange: bytes=0-1\r\nAccept: a\r\nAccept: b\r\n";
    wire.send(door.request("GET /v2/echo", lies)).await;
    let text = wire.reply().await.text().to_owned();
    assert!(!text.contains("evil") && !text.contains("6.6.6.6") && !text.contains("Forwarded: "), "{text}");
    for gone in ["connection", "x-hop", "\r\nte:", "keep-alive", "upgrade"] {
        assert!(!text.to_lowercase().contains(gone), "{gone} in {text}");
    }
    let origin = format!("localhost:{}", door.clear.port());
    for told in [
        format!("Host: {origin}\r\n"),
        "X-Forwarded-Proto: http\r\n".to_owned(),
        "X-Forwarded-For: 127.0.0.1\r\n".to_owned(),
        format!("X-Forwarded-Host: {origin}\r\n"),
        "X-Request-Id: ".to_owned(),
        "Authorization: Bearer x\r\n".to_owned(),
        "Range: bytes=0-1\r\n".to_owned(),
        "Accept: a\r\nAccept: b\r\n".to_owned(),
    ] {
        assert!(text.contains(&told), "{told} in {text}");
    }
}

#[tokio::test]
async fn a_body_is_framed_as_it_came() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    wire.send(door.request("PUT /v2/x", "Content-Length: 5\r\n") + "hello").await;
    assert_eq!(wire.reply().await.text(), "5");
    wire.send(
        door.request("PATCH /v2/x", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n1;ext=1\r\n!\r\n0\r\n\r\n",
    )
    .await;
    assert_eq!(wire.reply().await.text(), "6");
    wire.send(door.request("POST /v2/x", "Content-Length: 0\r\n")).await;
    assert_eq!(wire.reply().await.text(), "0");
    wire.send(door.request("POST /v2/x", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n").await;
    assert_eq!(wire.reply().await.text(), "0");
    wire.send(door.request("GET /v2/echo", "")).await;
    assert_eq!(wire.reply().await.status, 200);
    assert_eq!(theirs.seen().len(), 1, "each was read to its end and no further");
}

/// Pingora would end it twice (cloudflare/pingora#935), and the second end would be another request's beginning.
#[tokio::test]
async fn a_body_of_http2_without_length_ends_once() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    for pieces in [vec!["one", "two"], vec!["one", ""], vec![], vec![""]] {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let body = Body::wrap_stream(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)));
        let reply = door.http2().put(door.url("/v2/x")).body(body).send().await.unwrap();
        assert_eq!(reply.text().await.unwrap(), length.to_string());
    }
    let reply = door.http2().get(door.url("/v2/echo")).send().await.unwrap();
    assert_eq!(reply.status().as_u16(), 200);
    let seen = theirs.all();
    assert_eq!(theirs.seen().len(), 1, "{seen}");
    assert!(!seen.contains("0\r\n\r\n0\r\n\r\n"), "{seen}");
}

#[tokio::test]
async fn an_empty_post_of_http2_says_that_it_is_empty() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let reply = door.http2().post(door.url("/v2/echo")).send().await.unwrap();
    let text = reply.text().await.unwrap();
    assert!(text.contains("Content-Length: 0\r\n") && text.contains(&format!("Host: localhost:{}", door.tls.port())));
    let text = door.http2().get(door.url("/v2/echo")).send().await.unwrap().text().await.unwrap();
    assert!(!text.to_lowercase().contains("content-length"), "{text}");
}

#[tokio::test]
async fn permission_to_send_a_body_is_the_peers_to_give() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    let expects = "Content-Length: 5\r\nExpect: 100-continue\r\n";
    for _ in 0..2 {
        wire.send(door.request("PUT /v2/continue", expects)).await;
        theirs.state.gate.add_permits(1);
        assert_eq!(wire.head().await.status, 100);
        wire.send("hello").await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.text(), reply.header("connection")), (201, "5", Some("keep-alive")));
    }
    wire.send(door.request("PUT /v2/early", expects)).await;
    assert_eq!(wire.head().await.status, 401, "refused before the body was sent");
}

#[tokio::test]
async fn an_answer_before_the_body_reaches_the_client() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    wire.send(door.request("PATCH /v2/early", "Content-Length: 1000000000\r\n")).await;
    wire.send(vec![0; 100_000]).await;
    assert_eq!(wire.head().await.status, 401);
}

#[tokio::test]
async fn a_request_that_came_with_the_one_before_is_answered_after_it() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    wire.send(door.request("GET /v2/hang", "") + &door.request("GET /v2/echo", "")).await;
    eventually(|| theirs.all().contains("/v2/hang")).await;
    wire.send(&door.request("GET /v2/206", "")).await;
    theirs.state.gate.add_permits(1);
    assert_eq!(wire.reply().await.status, 201);
    assert_eq!(wire.reply().await.status, 200);
    assert_eq!(wire.reply().await.status, 206);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_at_the_peer() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    wire.send(door.request("GET /v2/gen?n=1000000000", "")).await;
    assert_eq!(wire.head().await.status, 200);
    drop(wire);
    eventually(|| theirs.state.ended.load(Ordering::Relaxed) == 1).await;
    assert_eq!(door.lines(1).await[0]["status"], 499);
    let mut wire = door.clear().await;
    wire.send(door.request("PATCH /v2/x", "Content-Length: 100\r\n") + "half").await;
    eventually(|| theirs.all().contains("half")).await;
    drop(wire);
    eventually(|| theirs.state.ended.load(Ordering::Relaxed) == 2).await;
    assert_eq!(door.lines(2).await[1]["status"], 499);
    assert!(!theirs.all().contains("half\r\n0\r\n"), "the peer must not take it for whole");
}

#[tokio::test]
async fn a_slow_peer_stops_a_fast_client() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let pulled = Arc::new(AtomicU64::new(0));
    let (count, piece) = (pulled.clone(), Bytes::from(vec![0; 64 << 10]));
    let total: u64 = 1024;
    let pieces = stream::iter(0..total).map(move |_| {
        count.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok::<_, std::io::Error>(piece.clone())
    });
    use futures_util::StreamExt as _;
    let pieces = pieces.boxed();
    let upload = door.http2().put(door.url("/v2/a/blobs/uploads/blocked")).body(Body::wrap_stream(pieces));
    let upload = tokio::spawn(upload.send());
    let stopped = settled(&pulled).await;
    assert!(stopped < 24 << 20, "windows and sockets, not {stopped}");
    theirs.state.gate.add_permits(1);
    let reply = within(upload).await.unwrap().unwrap();
    assert_eq!(reply.text().await.unwrap(), (total * (64 << 10)).to_string());
}

#[tokio::test]
async fn nobody_is_shown_what_a_peer_gets() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    wire.send(door.request("TRACE /v2/echo", "")).await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.header("allow").is_some()), (405, true));
    assert_eq!(theirs.all(), "");
}

#[tokio::test]
async fn an_upload_stays_with_its_peer_however_its_id_is_written() {
    let peers = [Theirs::open().await, Theirs::open().await, Theirs::open().await];
    let mut upstream = upstream(&peers.each_ref().map(Theirs::origin));
    upstream.balance = Balance::Upload;
    let door = before_upstream(upstream, |_| {});
    let mut wire = door.clear().await;
    for _ in 0..12 {
        let counts = || peers.each_ref().map(|peer| peer.state.begun.load(Ordering::Relaxed));
        let before = counts();
        wire.send(door.request("POST /v2/a/blobs/uploads/", "Content-Length: 0\r\n")).await;
        let reply = wire.reply().await;
        let location = reply.header("location").unwrap();
        let path = &location[location.find("/v2/").unwrap()..];
        let began = counts().iter().zip(before).position(|(now, before)| *now > before).unwrap();
        let patches = || peers[began].all().matches("PATCH").count();
        let patched = patches();
        wire.send(door.request(&format!("PATCH {path}"), "Content-Length: 0\r\n")).await;
        assert_eq!(wire.reply().await.status, 201);
        assert_eq!(patches(), patched + 1, "{path}");
    }
}
