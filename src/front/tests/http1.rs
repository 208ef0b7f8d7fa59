//! HTTP/1.1: framing, keep-alive, refusals, names.

use super::alone::doors;
use super::*;

#[tokio::test]
async fn one_connection_serves_many_requests_and_every_answer_has_an_id_and_no_server() {
    let door = Door::open();
    for wire in [&mut door.clear().await, &mut door.tls("http/1.1").await] {
        let mut ids = std::collections::HashSet::new();
        for n in 0..50 {
            wire.send(door.request("POST /echo", &format!("Content-Length: {}\r\n", n * 1000)) + &"y".repeat(n * 1000))
                .await;
            let reply = wire.reply().await;
            assert_eq!((reply.status, reply.body.len()), (200, n * 1000));
            assert_eq!(reply.header("connection"), Some("keep-alive"));
            assert_eq!(reply.header("server"), None);
            assert!(ids.insert(reply.header("x-request-id").unwrap().to_owned()));
        }
    }
    assert_eq!(door.lines(100).await.len(), 100);
}

#[tokio::test]
async fn head_and_body_of_a_small_answer_leave_as_one_tls_record() {
    let door = Door::open();
    let read = Arc::new(Mutex::new(Vec::new()));
    let tap = Tap { stream: TcpStream::connect(door.tls).await.unwrap(), read: read.clone() };
    let mut wire = Wire::new(door.tls_over(tap, "http/1.1").await);
    let request = "POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nhello";
    wire.send(request).await;
    wire.reply().await; // the session tickets of the handshake have arrived by now
    read.lock().clear();
    wire.send(request).await;
    assert_eq!(wire.reply().await.text(), "hello");
    let bytes = read.lock().clone();
    assert_eq!(bytes.len(), 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]])), "exactly one record");
}

#[tokio::test]
async fn continue_is_sent_once_when_the_body_is_wanted_and_the_connection_stays() {
    for door in doors() {
        let mut wire = door.clear().await;
        let headers = "Content-Length: 5\r\nExpect: 100-Continue\r\n";
        wire.send(door.request("PUT /refuse", headers)).await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (401, Some("close")), "nobody asked for the body");

        let mut wire = door.clear().await;
        for _ in 0..3 {
            wire.send(door.request("PUT /sink", headers)).await;
            assert_eq!(wire.head().await.status, 100);
            wire.send("12345").await;
            let reply = wire.reply().await;
            assert_eq!((reply.status, reply.text(), reply.header("connection")), (201, "5", Some("keep-alive")));
            assert!(wire.buffer.is_empty());
        }
    }
}

#[tokio::test]
async fn a_head_request_gets_the_length_and_no_body() {
    for door in doors() {
        let mut wire = door.clear().await;
        for _ in 0..2 {
            wire.send(door.request("HEAD /gen?n=1000", "")).await;
            let head = wire.head().await;
            assert_eq!((head.status, head.header("content-length")), (200, Some("1000")));
        }
        wire.send(door.request("GET /origin", "")).await;
        assert_eq!(wire.reply().await.status, 200, "nothing was left on the connection");
    }
}

#[tokio::test]
async fn an_answer_reaches_a_client_that_reads_only_after_it_has_sent_everything() {
    let door = Door::open();
    for wire in [&mut door.clear().await, &mut door.tls("http/1.1").await] {
        let body = vec![b'z'; 5 << 20];
        wire.send(door.request("POST /refuse", &format!("Content-Length: {}\r\n", body.len()))).await;
        wire.send(&body).await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.text()), (401, "no"));
        assert_eq!(wire.rest().await, b"");
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_and_chunked_requests_are_read() {
    for door in doors() {
        let mut wire = door.tls("http/1.1").await;
        wire.send(door.request("POST /echo", "Content-Length: 10000000\r\n")).await;
        wire.send(vec![b'a'; 10_000_000]).await;
        assert_eq!(wire.reply().await.body.len(), 10_000_000);
        wire.send(door.request("POST /echo", "Transfer-Encoding: chunked\r\n")).await;
        wire.send("3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\n\r\n").await;
        assert_eq!(wire.reply().await.text(), "abcdefg");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_service_and_one_that_is_not_read_stops() {
    let door = Door::open();
    let mut wire = door.clear().await;
    wire.send(door.request("GET /gen?n=1000000000", "")).await;
    let written = settled(&door.script.written).await;
    assert!(written < 32 << 20, "kernel buffers and a piece or two, not {written}");
    drop(wire);

    let mut wire = door.clear().await;
    wire.send(door.request("PUT /taste", "Content-Length: 1000000000\r\n")).await;
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let sender = tokio::spawn(async move {
        let piece = [0; 64 << 10];
        while wire.stream.write_all(&piece).await.is_ok() {
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    });
    let stopped = settled(&sent).await;
    assert!(stopped < 32 << 20, "kernel buffers, not {stopped}");
    assert_eq!(door.script.read.load(Ordering::Relaxed), 0);
    sender.abort();
}

#[tokio::test]
async fn what_is_not_http_is_refused_in_our_words() {
    let door = Door::open();
    let host = format!("Host: localhost:{}\r\n", door.clear.port());
    let cases = [
        format!("GET / HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        format!("GET / HTTP/1.1\r\n{host}Content-Length: +5\r\n\r\nhello"),
        format!("GET / HTTP/1.1\r\n{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("GET / HTTP/1.1\n{host}\n"),
        format!("GET / HTTP/1.1\r\n{host}X: a\nY: b\r\n\r\n"),
        format!("GET /a b HTTP/1.1\r\n{host}\r\n"),
        format!("GET / HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}{host}\r\n"),
        format!("GET / HTTP/1.1\r\n{host}Foo : bar\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}Foo: bar\r\n baz\r\n\r\n"),
        format!("GET http://other/ HTTP/1.1\r\n{host}\r\n"),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: \r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03 no handshake here\r\n\r\n".to_owned(),
    ];
    let mut ids = Vec::new();
    for case in &cases {
        let mut wire = door.clear().await;
        wire.send(case).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status, 400, "{case:?}");
        assert!(!reply.message().is_empty());
        assert!(reply.header("date").is_some(), "{case:?}");
        ids.push(reply.header("x-request-id").unwrap().to_owned());
        assert_eq!(reply.header("server"), None, "{case:?}");
        assert_eq!(reply.header("content-type"), Some("application/json; charset=utf-8"));
    }
    let lines = door.lines(cases.len()).await;
    assert_eq!(lines.len(), cases.len());
    assert!(lines.iter().all(|line| line["status"] == 400 && line["client"] == "127.0.0.1"));
    assert!(ids.iter().all(|id| lines.iter().any(|line| line["request_id"] == **id)), "the client's id finds the line");
}

#[tokio::test]
async fn a_second_request_that_is_not_http_is_refused_like_the_first() {
    let door = Door::open();
    let mut wire = door.clear().await;
    wire.send(door.request("GET /origin", "")).await;
    assert_eq!(wire.reply().await.status, 200);
    wire.send("nonsense\r\n\r\n").await;
    assert_eq!(wire.reply().await.status, 400);
    assert_eq!(wire.rest().await, b"");
}

#[tokio::test]
async fn after_a_body_of_which_nobody_knows_the_end_nothing_is_taken_for_a_request() {
    for door in doors() {
        let mut wire = door.clear().await;
        wire.send(door.request("PATCH /echo", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\nZZ\r\n").await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (400, Some("close")));
        let _ = wire.stream.write_all(door.request("GET /origin", "").as_bytes()).await; // it may be closed by now
        assert_eq!(wire.rest().await, b"");
    }
}

#[tokio::test]
async fn chunks_that_programs_read_differently_are_no_body_and_end_the_connection() {
    for door in doors() {
        for body in [
            "2;a\nxx\r\n0\r\n\r\n",
            "2\r\nabGET /origin HTTP/1.1\r\n\r\n",
            "2\nab\n0\n\n",
            "2;\0\r\nab\r\n0\r\n\r\n",
            "2\r\nab\r\n0\r\nGET /origin HTTP/1.1\r\n\r\n",
            "0x2\r\nab\r\n0\r\n\r\n",
        ] {
            let mut wire = door.clear().await;
            let hidden = door.request("GET /origin", "");
            wire.send(door.request("POST /echo", "Transfer-Encoding: chunked\r\n") + body + &hidden).await;
            let reply = wire.reply().await;
            assert_eq!((reply.status, reply.header("connection")), (400, Some("close")), "{body:?}");
            assert_eq!(wire.rest().await, b"", "{body:?}");
        }
    }
}

#[tokio::test]
async fn requests_that_come_together_are_answered_in_their_order() {
    for door in doors() {
        let mut wire = door.tls("http/1.1").await;
        let host = "HTTP/1.1\r\nHost: 127.0.0.1\r\n";
        let requests = [
            format!("POST /echo {host}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"),
            format!("\r\nPOST /echo {host}Content-Length: 4\r\n\r\ndefg"),
            format!("HEAD /gen?n=5 {host}\r\n"),
            format!("POST /echo {host}Content-Length: 20000\r\n\r\n{}", "h".repeat(20_000)),
            format!("GET /refuse {host}\r\n"),
        ];
        wire.send(requests.concat()).await;
        assert_eq!(wire.reply().await.text(), "abc");
        assert_eq!(wire.reply().await.text(), "defg");
        assert_eq!(wire.head().await.header("content-length"), Some("5"));
        assert_eq!(wire.reply().await.text(), "h".repeat(20_000));
        assert_eq!(wire.reply().await.status, 401);
    }
}

#[tokio::test]
async fn headers_targets_and_methods_beyond_the_limits_are_refused() {
    let door = Door::open();
    let fields: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
    let cases = [
        (door.request("GET /origin", &format!("X: {}\r\n", "y".repeat(70 << 10))), 431),
        (door.request("GET /origin", &format!("X: {}\r\n", "y".repeat(2 << 20))), 431),
        (door.request("GET /origin", &fields), 431),
        (door.request(&format!("GET /{}", "y".repeat(8 << 10)), ""), 414),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(), 405),
        (door.request("GET /origin", &format!("X: {}\r\n", "y".repeat(50 << 10))), 200),
        (door.request(&format!("GET /origin?{}", "y".repeat((8 << 10) - 10)), ""), 200),
    ];
    for (request, status) in &cases {
        let mut wire = door.clear().await;
        // The server may have had enough before everything is sent.
        let _ = wire.stream.write_all(request.as_bytes()).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status, *status, "{:.60}", request);
        assert!(*status == 200 || !reply.message().is_empty());
    }
}

#[tokio::test]
async fn the_origin_is_the_one_the_client_named_and_a_stranger_is_told_what_to_do() {
    let door = Door::open();
    let ask = async |address: SocketAddr, host: String| {
        let mut wire = Wire::new(TcpStream::connect(address).await.unwrap());
        wire.send(format!("GET /origin HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        wire.reply().await
    };
    let (external, clear) = (format!("https://localhost:{}", door.tls.port()), door.clear.port());
    assert_eq!(ask(door.clear, format!("LOCALHOST:{clear}")).await.text(), format!("http://localhost:{clear}"));
    assert_eq!(ask(door.clear, format!("localhost:{}", door.tls.port())).await.text(), external);
    assert_eq!(ask(door.clear, "127.0.0.1".to_owned()).await.text(), external);
    let stranger = ask(door.clear, "registry.example.com".to_owned()).await;
    assert_eq!(stranger.status, 421);
    let message = stranger.message();
    assert!(message.contains("registry.example.com") && message.contains(&external) && message.contains("`aliases`"));
    let internal = door.internal.to_string();
    assert_eq!(ask(door.internal, internal.clone()).await.text(), format!("http://{internal}"));
    assert_eq!(ask(door.internal, "registry.example.com".to_owned()).await.text(), external);
}

#[tokio::test]
async fn a_service_that_panics_or_says_nothing_is_answered_for() {
    let door = Door::open();
    let mut wire = door.clear().await;
    for path in ["/panic", "/nothing"] {
        wire.send(door.request(&format!("GET {path}"), "X-Request-Id: mine\r\n")).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status, 500);
        assert!(reply.header("x-request-id").is_some_and(|id| id != "mine"), "nobody chooses the name of a request");
        assert!(!reply.message().is_empty());
    }
    assert_eq!(door.lines(2).await[0]["failure"], "the service panicked");
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    for door in doors() {
        let mut wire = door.clear().await;
        wire.send(door.request("GET /half", "")).await;
        assert_eq!(wire.head().await.header("content-length"), Some("200000"));
        assert!(wire.rest().await.len() < 200_000);
        assert_eq!(door.lines(1).await[0]["failure"], "the answer was broken off");
    }
}

#[tokio::test]
async fn the_access_line_tells_who_did_what() {
    let door = Door::built(|config, _| config.trusted_proxies = "127.0.0.1".parse().into_iter().collect());
    let mut wire = door.tls("http/1.1").await;
    let target = "POST /echo?token=s3cret&n=1";
    let line = format!("{target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: probe/1\r\nX-Request-Id: r1\r\n");
    wire.send(line + "Content-Length: 5\r\n\r\nhello").await;
    wire.reply().await;
    let line = &door.lines(1).await[0];
    for (key, value) in [
        ("client", "127.0.0.1"),
        ("subject", "alice"),
        ("repository", "a/b"),
        ("method", "POST"),
        ("path", "/echo?token=<redacted>&n=1"),
        ("protocol", "HTTP/1.1"),
        ("user_agent", "probe/1"),
        ("request_id", "r1"),
    ] {
        assert_eq!(line[key], value);
    }
    assert_eq!((&line["status"], &line["bytes_in"], &line["bytes_out"]), (&200.into(), &5.into(), &5.into()));
    assert!(!door.lines.lock().windows(6).any(|bytes| bytes == b"s3cret"));
}

/// Keeps what is logged at error level on this thread, where the door of a single-threaded test runs as well.
pub(super) fn errors() -> (tracing::subscriber::DefaultGuard, Arc<Mutex<Vec<u8>>>) {
    crate::heard::heard(tracing::Level::ERROR)
}

#[tokio::test]
async fn a_client_that_disappears_is_499_and_no_error() {
    let (_guard, errors) = errors();
    let door = Door::open();
    let mut wire = door.clear().await;
    wire.send(door.request("PUT /sink", "Content-Length: 1000\r\n") + "half of it").await;
    eventually(|| door.script.read.load(Ordering::Relaxed) == 10).await;
    drop(wire);
    assert_eq!(door.lines(1).await[0]["status"], 499);

    let mut wire = door.tls("http/1.1").await;
    wire.send("GET /gen?n=1000000000 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
    wire.head().await;
    drop(wire);
    let line = &door.lines(2).await[1];
    assert_eq!((&line["status"], &line["path"]), (&499.into(), &"/gen?n=1000000000".into()));
    assert!(line["bytes_out"].as_u64().unwrap() < 1_000_000_000);
    assert_eq!(String::from_utf8_lossy(&errors.lock()), "");
}
