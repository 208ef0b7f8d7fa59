//! Draining: nobody who is being served is cut off, and nobody holds it up.

use super::alone::doors;
use super::*;

#[tokio::test]
async fn running_answers_are_finished_idle_connections_closed_and_new_ones_refused() {
    for door in doors() {
        let mut idle = door.tls("http/1.1").await;
        idle.send("GET /origin HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
        idle.reply().await;
        let idle_http2 = door.http2();
        idle_http2.get(door.url("/origin")).send().await.unwrap();

        let size = 50_000_000;
        let mut download = door.clear().await;
        download.send(door.request(&format!("GET /gen?n={size}"), "")).await;
        assert_eq!(download.head().await.header("connection"), Some("keep-alive"));
        let http2 = door.http2().get(door.url(&format!("/gen?n={size}"))).send().await.unwrap();
        let mut upload = door.clear().await;
        upload.send(door.request("PUT /sink", "Content-Length: 10\r\n") + "12345").await;
        eventually(|| door.script.read.load(Ordering::Relaxed) == 5).await;

        let addresses = [door.tls, door.clear, door.internal];
        let drain = tokio::spawn(door.running.drain());
        assert_eq!(idle.rest().await, b"", "closed");
        for address in addresses {
            within(async { while TcpStream::connect(address).await.is_ok() {} }).await;
        }
        assert_eq!(http2.bytes().await.unwrap().len(), size);
        assert_eq!(download.rest().await.len(), size);
        upload.send("67890").await;
        let reply = upload.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (201, Some("close")));
        assert_eq!(within(drain).await.unwrap().left, 0);
    }
}

#[tokio::test]
async fn a_client_that_connected_just_before_is_served() {
    for door in doors() {
        let mut wires = [door.clear().await, door.tls("http/1.1").await];
        eventually(|| door.running.connections() == 2).await;
        let request = door.request("GET /origin", "");
        let drain = tokio::spawn(door.running.drain());
        tokio::task::yield_now().await;
        for wire in &mut wires {
            wire.send(&request).await;
            let reply = wire.reply().await;
            assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
            assert_eq!(wire.rest().await, b"");
        }
        assert_eq!(within(drain).await.unwrap().left, 0);
    }
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_holds_the_end_up_for_a_moment_only() {
    let door = Door::open();
    let _silent = [door.clear().await, door.tls("http/1.1").await];
    eventually(|| door.running.connections() == 2).await;
    assert_eq!(within(door.running.drain()).await.left, 0);
}

#[tokio::test]
async fn the_drain_ends_at_its_limit_whatever_still_runs() {
    let door = Door::with(Timeouts { drain: Duration::from_millis(300), ..Timeouts::default() });
    let mut wire = door.clear().await;
    wire.send(door.request("PUT /commit", "Content-Length: 0\r\n")).await;
    eventually(|| door.running.connections() == 1).await;
    assert_eq!(within(door.running.drain()).await.left, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_is_lost_while_clients_come_and_go_until_the_end() {
    let door = Door::open();
    let address = door.clear;
    let request = door.request("POST /echo", "Content-Length: 5\r\n") + "hello";
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let request = request.clone();
            tokio::spawn(async move {
                let mut served = 0;
                // A connection that is refused or was never accepted is not ours; one that takes a request is.
                while let Ok(stream) = TcpStream::connect(address).await {
                    let mut wire = Wire::new(stream);
                    if wire.stream.write_all(request.as_bytes()).await.is_err() || !wire.more().await {
                        break;
                    }
                    assert_eq!(wire.reply().await.text(), "hello");
                    served += 1;
                }
                served
            })
        })
        .collect();
    door.lines(100).await;
    let lines = door.lines.clone();
    assert_eq!(within(door.running.drain()).await.left, 0);
    let mut served = 0;
    for client in clients {
        served += within(client).await.unwrap();
    }
    let answered = || lines.lock().iter().filter(|byte| **byte == b'\n').count();
    eventually(|| answered() >= served).await;
    assert_eq!(answered(), served, "every request that was answered has reached its client");
}
