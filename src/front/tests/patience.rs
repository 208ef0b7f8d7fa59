//! How long a client may keep us waiting, and that nobody is cut who does not.

use std::time::Instant;

use super::*;

const HEADER: Duration = Duration::from_millis(400);
const IDLE: Duration = Duration::from_millis(700);
const STALL: Duration = Duration::from_millis(600);
/// A pause of a client that is slow but steady.
const PAUSE: Duration = Duration::from_millis(50);

fn impatient() -> Door {
    at_least(5)
}

/// The same, and asks for so many bytes a second.
fn at_least(minimum_rate: u64) -> Door {
    Door::with(Timeouts { header: HEADER, idle: IDLE, stall: STALL, minimum_rate, ..Timeouts::default() })
}

/// Waits for the server to close; how long that took.
async fn closed(wire: &mut Wire) -> Duration {
    let begun = Instant::now();
    wire.rest().await;
    begun.elapsed()
}

#[tokio::test]
async fn silence_after_the_handshake_is_cut_at_the_header_deadline() {
    let door = impatient();
    let begun = Instant::now();
    for mut wire in [door.clear().await, door.tls("http/1.1").await, door.tls("h2").await] {
        assert_eq!(wire.rest().await.iter().filter(|byte| **byte == b'{').count(), 0, "there is nobody to answer");
        assert!(begun.elapsed() >= HEADER / 2);
    }
}

#[tokio::test]
async fn a_silent_handshake_is_cut_at_its_own_deadline() {
    let door = Door::with(Timeouts { handshake: HEADER, ..Timeouts::default() });
    let mut wire = Wire::new(TcpStream::connect(door.tls).await.unwrap());
    assert!(closed(&mut wire).await >= HEADER / 2);
    let mut wire = Wire::new(TcpStream::connect(door.tls).await.unwrap());
    wire.send([22, 3, 1]).await;
    assert!(closed(&mut wire).await >= HEADER / 2);
}

#[tokio::test]
async fn a_header_that_drips_is_cut_on_the_first_request_and_on_later_ones() {
    let door = impatient();
    let mut wire = door.clear().await;
    for round in 0..2 {
        if round == 1 {
            wire = door.clear().await;
            wire.send(door.request("GET /origin", "")).await;
            assert_eq!(wire.reply().await.status, 200);
        }
        let begun = Instant::now();
        let (mut reader, mut writer) = tokio::io::split(wire.stream);
        let drip = tokio::spawn(async move {
            while writer.write_all(b"G").await.is_ok() {
                tokio::time::sleep(PAUSE).await;
            }
        });
        let mut said = Vec::new();
        let _ = within(reader.read_to_end(&mut said)).await;
        assert!(begun.elapsed() >= HEADER / 2);
        assert!(String::from_utf8(said).unwrap().starts_with("HTTP/1.1 408 "));
        drip.abort();
        wire = door.clear().await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_the_idle_limit_and_not_before() {
    let door = impatient();
    let mut wire = door.tls("http/1.1").await;
    for _ in 0..3 {
        wire.send("GET /origin HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
        assert_eq!(wire.reply().await.status, 200);
        tokio::time::sleep(IDLE / 2).await; // longer than a header may take
    }
    assert!(closed(&mut wire).await >= IDLE / 4);
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed() {
    let door = impatient();
    let reply = door.http2().get(door.url("/origin")).send().await.unwrap();
    assert_eq!(reply.status().as_u16(), 200);
    eventually(|| door.running.connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() {
    let door = impatient();
    let mut clear = door.clear().await;
    clear.send(door.request("GET /gen?n=10000000000", "")).await;
    let mut tls = door.tls("http/1.1").await;
    tls.send("GET /gen?n=10000000000 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
    let lines = door.lines(2).await;
    assert!(lines.iter().all(|line| line["status"] == 499));
    eventually(|| door.running.connections() == 0).await;
}

#[tokio::test]
async fn an_http2_client_that_takes_nothing_is_cut() {
    let door = impatient();
    let reply = door.http2().get(door.url("/gen?n=10000000000")).send().await.unwrap();
    assert_eq!(door.lines(1).await[0]["status"], 499);
    assert!(reply.bytes().await.is_err());
}

#[tokio::test]
async fn an_upload_that_stands_still_is_told_and_cut() {
    let door = impatient();
    let mut wire = door.clear().await;
    wire.send(door.request("PUT /sink", "Content-Length: 10\r\n") + "12345").await;
    let begun = Instant::now();
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.text()), (408, "stalled"));
    assert!(begun.elapsed() >= STALL / 2);
    assert_eq!(wire.rest().await, b"");

    let (pieces, body) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = futures_util::stream::unfold(body, |mut body| async { Some((body.recv().await?, body)) });
    pieces.send(Ok(Bytes::from_static(b"12345"))).await.unwrap();
    let upload = door.http2().put(door.url("/sink")).body(reqwest::Body::wrap_stream(body)).send();
    assert_eq!(within(upload).await.unwrap().status().as_u16(), 408);
}

#[tokio::test]
async fn an_upload_that_drips_is_told_and_cut() {
    let door = at_least(10_000);
    let mut wire = door.tls("http/1.1").await;
    wire.send("PUT /sink HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10000\r\n\r\n").await;
    let (mut reader, mut writer) = tokio::io::split(wire.stream);
    let drip = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() && writer.flush().await.is_ok() {
            tokio::time::sleep(PAUSE).await;
        }
    });
    let mut said = vec![0; 12];
    within(reader.read_exact(&mut said)).await.unwrap();
    assert_eq!(said, b"HTTP/1.1 408");
    drip.abort();

    let drips = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(PAUSE).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
    });
    let upload = door.http2().put(door.url("/sink")).body(reqwest::Body::wrap_stream(drips)).send();
    assert_eq!(within(upload).await.unwrap().status().as_u16(), 408);
}

#[tokio::test]
async fn a_download_that_is_taken_in_drips_is_cut() {
    let door = at_least(1_000_000);
    let mut wire = door.tls("http/1.1").await;
    wire.send("GET /gen?n=10000000000 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
    let drip = tokio::spawn(async move {
        let mut piece = vec![0; 4 << 10];
        while wire.stream.read(&mut piece).await.is_ok_and(|read| read > 0) {
            tokio::time::sleep(PAUSE).await;
        }
    });
    assert_eq!(door.lines(1).await[0]["status"], 499);
    drip.abort();
}

#[tokio::test]
async fn a_slow_but_steady_upload_is_never_cut() {
    let door = impatient();
    let mut wire = door.clear().await;
    let pieces = 3 * (STALL.as_millis() / PAUSE.as_millis());
    wire.send(door.request("PUT /sink", &format!("Content-Length: {pieces}\r\n"))).await;
    for _ in 0..pieces {
        tokio::time::sleep(PAUSE).await;
        wire.send("x").await;
    }
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.text()), (201, pieces.to_string().as_str()));
}

#[tokio::test]
async fn a_tls_record_may_take_longer_than_the_stall_limit_while_its_bytes_arrive() {
    let door = impatient();
    // A relay that lets a kilobyte through at a time: no whole record arrives within the limit.
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, target) = (relay.local_addr().unwrap(), door.tls);
    tokio::spawn(async move {
        let (client, _) = relay.accept().await.unwrap();
        let (mut client_read, mut client_write) = client.into_split();
        let (mut read, mut write) = TcpStream::connect(target).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut read, &mut client_write).await });
        let mut piece = [0; 1024];
        while let Ok(length @ 1..) = client_read.read(&mut piece).await {
            write.write_all(&piece[..length]).await.unwrap();
            tokio::time::sleep(PAUSE).await;
        }
    });
    let mut wire = Wire::new(door.tls_over(TcpStream::connect(address).await.unwrap(), "http/1.1").await);
    wire.send("PUT /sink HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 40000\r\n\r\n").await;
    wire.send([b'x'; 40_000]).await;
    assert_eq!(wire.reply().await.text(), "40000");
}

#[tokio::test]
async fn a_slow_but_steady_download_is_never_cut() {
    let door = impatient();
    let size = 48 << 20;
    let mut wire = door.tls("http/1.1").await;
    wire.send(format!("GET /gen?n={size} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")).await;
    wire.head().await;
    let (begun, mut taken) = (Instant::now(), wire.buffer.len());
    let mut piece = vec![0; 16 << 10];
    while taken < size {
        // So slowly that the server's kernel, with megabytes in hand, takes nothing from the server all this while.
        if begun.elapsed() < 5 * STALL {
            tokio::time::sleep(PAUSE).await;
        }
        let read = within(wire.stream.read(&mut piece)).await.unwrap_or(0);
        assert!(read > 0, "cut after {taken} and {:?}", begun.elapsed());
        taken += read;
    }
}

#[tokio::test]
async fn a_long_commit_of_ours_is_not_the_clients_stall() {
    let door = impatient();
    let mut wire = door.tls("http/1.1").await;
    wire.send("PUT /commit HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n").await;
    tokio::time::sleep(PAUSE).await; // the server has waited for the body before it works
    wire.send("hello").await;
    let http2 = tokio::spawn(door.http2().put(door.url("/commit")).body("hello").send());
    eventually(|| door.script.read.load(Ordering::Relaxed) == 10).await;
    tokio::time::sleep(3 * STALL).await;
    door.script.gate.add_permits(2);
    assert_eq!(wire.reply().await.status, 201);
    assert_eq!(within(http2).await.unwrap().unwrap().status().as_u16(), 201);
}
