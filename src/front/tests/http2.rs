//! HTTP/2: what differs from HTTP/1.1.

use futures_util::StreamExt;
use reqwest::Body;

use super::*;

fn endless(pulled: Arc<AtomicU64>, pieces: u64) -> Body {
    let piece = Bytes::from(vec![0; 64 << 10]);
    Body::wrap_stream(futures_util::stream::iter(0..pieces).map(move |_| {
        pulled.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok::<_, std::io::Error>(piece.clone())
    }))
}

#[tokio::test]
async fn http2_is_spoken_and_many_requests_share_a_connection() {
    let door = Door::open();
    let client = door.http2();
    let requests = (0..40).map(|n| client.post(door.url("/echo")).body(vec![b'a'; n * 5000]).send());
    for (n, reply) in futures_util::future::join_all(requests).await.into_iter().enumerate() {
        let reply = reply.unwrap();
        assert_eq!((reply.version(), reply.status().as_u16()), (http::Version::HTTP_2, 200));
        assert!(reply.headers().contains_key("x-request-id") && !reply.headers().contains_key("server"));
        assert_eq!(reply.bytes().await.unwrap().len(), n * 5000);
    }
    assert_eq!(door.running.connections(), 1);
    assert!(door.lines(40).await.iter().all(|line| line["protocol"] == "HTTP/2.0"));
}

#[tokio::test]
async fn a_head_request_gets_the_length_and_no_body() {
    let door = Door::open();
    let client = door.http2();
    for _ in 0..3 {
        let reply = client.head(door.url("/gen?n=1000")).send().await.unwrap();
        assert_eq!((reply.status().as_u16(), reply.headers()["content-length"].to_str().unwrap()), (200, "1000"));
        assert_eq!(reply.bytes().await.unwrap().len(), 0);
    }
    assert_eq!(door.running.connections(), 1, "no stream error made the client reconnect");
}

#[tokio::test]
async fn an_answer_of_any_size_arrives_whole_without_another_request() {
    let door = Door::open();
    let client = door.http2();
    // Around what the codec copies, what one frame holds, and what leaves at once.
    for size in
        [0, 1, 255, 256, 257, 1023, 1024, 16_374, 16_375, 16_376, 16_384, 32_750, 49_125, 49_126, 65_536, 300_000]
    {
        let reply = within(client.get(door.url(&format!("/gen?n={size}"))).send()).await.unwrap();
        assert_eq!(within(reply.bytes()).await.unwrap().len(), size);
    }
    assert_eq!(door.running.connections(), 1);
}

#[tokio::test]
async fn the_authority_names_the_origin() {
    let door = Door::open();
    let reply = door.http2().get(door.url("/origin")).send().await.unwrap();
    assert_eq!(reply.text().await.unwrap(), format!("https://localhost:{}", door.tls.port()));
    let stranger = door.http2().get(door.url("/origin").replace("localhost", "127.0.0.1"));
    // The certificate is for localhost only: that a stranger's name is refused is shown on HTTP/1.1.
    assert!(stranger.send().await.is_err());
}

#[tokio::test]
async fn an_answer_before_the_body_reaches_the_client() {
    let door = Door::open();
    let client = door.http2();
    for _ in 0..5 {
        let reply = client.post(door.url("/refuse")).body(vec![0; 5 << 20]).send().await.unwrap();
        assert_eq!((reply.status().as_u16(), reply.text().await.unwrap().as_str()), (401, "no"));
    }
    assert_eq!(door.running.connections(), 1);
    // This client bears a reset after the answer, others take it for a failure: so the body is read and there is none.
    assert!(door.lines(5).await.iter().all(|line| line["bytes_in"] == 5 << 20));
}

#[tokio::test]
async fn a_body_has_the_least_window_until_it_is_read_and_a_large_one_from_then_on() {
    let door = Door::open();
    let pulled = Arc::new(AtomicU64::new(0));
    let total = 512;
    let upload = tokio::spawn(door.http2().put(door.url("/taste")).body(endless(pulled.clone(), total)).send());
    let stopped = settled(&pulled).await;
    assert!((64 << 10..1 << 20).contains(&stopped), "whoever may not upload is lent nothing, and not {stopped}");
    assert_eq!(door.script.read.load(Ordering::Relaxed), 0);
    door.script.gate.add_permits(1);
    let stopped = settled(&pulled).await;
    assert!((8 << 20..24 << 20).contains(&stopped), "a window and a few buffers, not {stopped}");
    door.script.gate.add_permits(1 << 20);
    let reply = within(upload).await.unwrap().unwrap();
    assert_eq!(reply.text().await.unwrap(), (total * (64 << 10)).to_string());
}

#[tokio::test]
async fn a_client_that_takes_nothing_stops_the_service() {
    let door = Door::open();
    let size = 64 << 20;
    let reply = door.http2().get(door.url(&format!("/gen?n={size}"))).send().await.unwrap();
    let written = settled(&door.script.written).await;
    assert!(written < 16 << 20, "the client's window and ours, not {written}");
    assert_eq!(reply.bytes().await.unwrap().len(), size);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_stream_error_and_the_connection_stays() {
    let door = Door::open();
    let client = door.http2();
    let reply = client.get(door.url("/half")).send().await.unwrap();
    assert!(reply.bytes().await.is_err());
    assert_eq!(client.get(door.url("/panic")).send().await.unwrap().status().as_u16(), 500);
    assert_eq!(client.get(door.url("/origin")).send().await.unwrap().status().as_u16(), 200);
    assert_eq!(door.running.connections(), 1);
}

#[tokio::test]
async fn a_client_that_disappears_is_499() {
    let door = Door::open();
    let (pieces, body) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = futures_util::stream::unfold(body, |mut body| async { Some((body.recv().await?, body)) });
    let upload = tokio::spawn(door.http2().put(door.url("/sink")).body(Body::wrap_stream(body)).send());
    pieces.send(Ok(Bytes::from_static(b"half"))).await.unwrap();
    eventually(|| door.script.read.load(Ordering::Relaxed) == 4).await;
    upload.abort();
    assert_eq!(door.lines(1).await[0]["status"], 499);
}

#[tokio::test]
async fn a_download_that_waits_holds_up_nothing_else_on_its_connection() {
    let door = Door::open();
    let client = door.http2();
    let get = |path: &str| client.get(door.url(path)).send();
    let mut waiting = Box::pin(get("/commit"));
    let others = futures_util::future::join_all(["/gen?n=10000000", "/origin", "/panic", "/gen?n=300000"].map(get));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("nobody let it go on"),
        others = within(others) => {
            let statuses: Vec<_> = others.iter().map(|reply| reply.as_ref().unwrap().status().as_u16()).collect();
            assert_eq!(statuses, [200, 200, 500, 200]);
            for (reply, least) in others.into_iter().zip([10_000_000, 1, 1, 300_000]) {
                assert!(within(reply.unwrap().bytes()).await.unwrap().len() >= least);
            }
        }
    }
    assert_eq!(door.running.connections(), 1);
    door.script.gate.add_permits(1);
    assert_eq!(within(waiting).await.unwrap().status(), 201);
    assert_eq!(door.lines(5).await.len(), 5);
}

#[tokio::test]
async fn a_client_that_leaves_a_download_is_499_once() {
    let door = Door::open();
    let client = door.http2();
    for lines in 1..=2 {
        drop(within(client.get(door.url("/gen?n=1000000000")).send()).await.unwrap());
        assert_eq!(door.lines(lines).await[lines - 1]["status"], 499);
    }
    assert_eq!(door.running.connections(), 1, "it left the stream alone");
    let reply = within(door.http2().get(door.url("/gen?n=1000000000")).send()).await.unwrap();
    drop((client, reply));
    assert_eq!(door.lines(3).await[2]["status"], 499);
    eventually(|| door.running.connections() == 0).await;
    assert_eq!(door.lines(3).await.len(), 3);
}
