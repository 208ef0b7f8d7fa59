//! Changing the plan while the door is open: nobody who is being served notices, everybody who comes next does.

use super::*;
use crate::front::Error;

fn free_socket() -> (Socket, Listener) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (Socket::Tcp(socket), Listener::new(address, false, true))
}

async fn answer(wire: &mut Wire, host: &str) -> (u16, String) {
    wire.send(format!("GET /origin HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let reply = wire.reply().await;
    (reply.status, reply.header("x-plan").unwrap_or("none").to_owned())
}

#[tokio::test]
async fn the_next_request_on_an_open_connection_goes_by_the_new_plan_and_the_running_one_by_the_old() {
    let mut door = Door::open();
    let mut clients = [door.clear().await, door.tls("http/1.1").await];
    for wire in &mut clients {
        assert_eq!(answer(wire, "new.test").await, (421, "none".to_owned()));
    }
    let mut upload = door.clear().await;
    upload.send(door.request("PUT /sink", "Content-Length: 2\r\n") + "1").await;
    eventually(|| door.script.read.load(Ordering::Relaxed) == 1).await;
    let http2 = door.http2();
    http2.get(door.url("/origin")).send().await.unwrap();

    let mut config = door.config.clone();
    config.aliases.push("https://new.test".parse().unwrap());
    config.headers = vec![("x-plan".parse().unwrap(), "new".parse().unwrap())];
    assert!(door.running.not_open(&config.listeners).is_empty());
    door.running.change(config, door.script.clone(), &door.certificates, Vec::new()).unwrap();

    for wire in &mut clients {
        assert_eq!(answer(wire, "new.test").await, (200, "new".to_owned()));
    }
    assert_eq!(http2.get(door.url("/origin")).send().await.unwrap().headers()["x-plan"], "new");
    upload.send("2").await;
    let reply = upload.reply().await;
    assert_eq!((reply.status, reply.text(), reply.header("x-plan")), (201, "2", None));
}

#[tokio::test]
async fn new_connections_see_the_new_certificate_and_old_ones_live_on() {
    let mut door = Door::open();
    let mut old = door.tls("http/1.1").await;
    assert_eq!(answer(&mut old, "127.0.0.1").await.0, 200);
    let (usual, roots, _) = certificate();
    let tls = Tls { usual: Some(usual), ..Tls::default() };
    door.running.change(door.config.clone(), door.script.clone(), &tls, Vec::new()).unwrap();
    assert_eq!(answer(&mut old, "127.0.0.1").await.0, 200);
    door.roots = roots;
    assert_eq!(answer(&mut door.tls("http/1.1").await, "127.0.0.1").await.0, 200);
}

#[tokio::test]
async fn a_listener_comes_another_goes_and_whoever_came_by_it_is_served_to_the_end() {
    let mut door = Door::open();
    let mut upload = door.clear().await;
    upload.send(door.request("PUT /sink", "Content-Length: 2\r\n") + "1").await;
    eventually(|| door.script.read.load(Ordering::Relaxed) == 1).await;
    let added = free_socket();
    let Address::Tcp(at) = added.1.address else { panic!("a port") };
    let mut config = door.config.clone();
    config.listeners.retain(|listener| listener.address != Address::Tcp(door.clear));
    config.listeners.push(added.1.clone());
    assert_eq!(door.running.not_open(&config.listeners), std::slice::from_ref(&added.1));
    door.running.change(config, door.script.clone(), &door.certificates, vec![added]).unwrap();

    within(async { while TcpStream::connect(door.clear).await.is_ok() {} }).await;
    assert_eq!(answer(&mut Wire::new(TcpStream::connect(at).await.unwrap()), "127.0.0.1").await.0, 200);
    assert_eq!(answer(&mut door.tls("http/1.1").await, "127.0.0.1").await.0, 200);
    upload.send("2").await;
    let reply = upload.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (201, Some("close")));
}

#[tokio::test]
async fn a_listener_may_begin_to_speak_tls_where_it_listens() {
    let mut door = Door::open();
    let mut config = door.config.clone();
    for listener in &mut config.listeners {
        listener.tls = true;
    }
    door.running.change(config, door.script.clone(), &door.certificates, Vec::new()).unwrap();
    door.tls = door.clear;
    assert_eq!(answer(&mut door.tls("http/1.1").await, "127.0.0.1").await.0, 200);
}

#[tokio::test]
async fn a_change_that_fails_changes_nothing() {
    let mut door = Door::open();
    let mut config = door.config.clone();
    config.headers = vec![("x-plan".parse().unwrap(), "new".parse().unwrap())];
    config.listeners.truncate(1);
    let failed = door.running.change(config, door.script.clone(), &Tls::default(), Vec::new());
    assert!(matches!(failed, Err(Error::NoCertificate(_))));
    assert_eq!(answer(&mut door.tls("http/1.1").await, "127.0.0.1").await, (200, "none".to_owned()));
    assert_eq!(answer(&mut door.clear().await, "127.0.0.1").await.0, 200);
}
