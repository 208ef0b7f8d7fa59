//! Where nobody else's registry is known, and where one is: requests take different ways, and no client notices.

use std::collections::BTreeSet;

use super::forward::{Theirs, nobody, to_hub, upstream};
use super::*;

/// A door that knows nobody else's registry, and one that does.
pub(super) fn doors() -> [Door; 2] {
    let known = Door::built(|config, _| {
        config.routes = vec![to_hub("/theirs/")];
        config.upstreams = vec![upstream(&[nobody()])];
    });
    [Door::open(), known]
}

#[tokio::test]
async fn nobody_is_connected_anywhere_and_what_comes_after_that_on_http1_is_taken_for_no_request() {
    for door in doors() {
        let authority = format!("localhost:{}", door.tls.port());
        let get = [(":method", "GET"), (":scheme", "https"), (":authority", authority.as_str()), (":path", "/origin")];
        let connect = [(":method", "CONNECT"), (":authority", authority.as_str())];
        let mut wire = door.tls("h2").await;
        wire.send([HTTP2_BEGINS, &http2_request(1, &connect), &http2_request(3, &get)].concat()).await;
        let mut over: Vec<_> = door.lines(2).await.into_iter().map(told).collect();
        over.sort_unstable();
        assert_eq!(over, [("CONNECT".to_owned(), 405), ("GET".to_owned(), 200)]);

        let mut wire = door.clear().await;
        let at = format!("localhost:{}", door.clear.port());
        let get = door.request("GET /origin", "");
        wire.send(format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n\r\n{get}")).await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (405, Some("close")));
        assert_eq!(wire.rest().await, b"");
        let lines = door.lines(3).await;
        assert_eq!((lines.len(), told(lines[2].clone())), (3, ("CONNECT".to_owned(), 405)));
    }
}

/// Method and status of an access line.
fn told(line: serde_json::Value) -> (String, u64) {
    (line["method"].as_str().unwrap().to_owned(), line["status"].as_u64().unwrap())
}

#[tokio::test]
async fn downloads_of_a_connection_run_in_its_task_where_no_answer_of_others_may_come_and_in_their_own_where_one_may() {
    for (door, tasks) in doors().into_iter().zip([1, 3]) {
        let client = door.http2();
        within(client.get(door.url("/origin")).send()).await.unwrap(); // it has a connection
        let running = futures_util::future::join_all((0..3).map(|_| client.get(door.url("/task")).send()));
        let all_wait = async {
            eventually(|| door.script.read.load(Ordering::Relaxed) == 3).await;
            door.script.gate.add_permits(3);
        };
        let (replies, ()) = within(futures_util::future::join(running, all_wait)).await;
        let mut ids = BTreeSet::new();
        for reply in replies {
            ids.insert(reply.unwrap().text().await.unwrap());
        }
        assert_eq!((ids.len(), door.running.connections()), (tasks, 1), "{ids:?}");
        // Whatever brings a body has a task of its own.
        let (first, second) = (client.post(door.url("/task")).send(), client.post(door.url("/task")).send());
        let all_wait = async {
            eventually(|| door.script.read.load(Ordering::Relaxed) == 5).await;
            door.script.gate.add_permits(2);
        };
        let (first, second, ()) = within(futures_util::future::join3(first, second, all_wait)).await;
        let ids = BTreeSet::from([first.unwrap().text().await.unwrap(), second.unwrap().text().await.unwrap()]);
        assert_eq!(ids.len(), 2, "{ids:?}");
    }
}

#[tokio::test]
async fn a_service_that_panics_before_in_or_while_it_waits_with_its_answer_fails_that_request_alone_and_is_told_of() {
    for door in doors() {
        let client = door.http2();
        within(client.get(door.url("/origin")).send()).await.unwrap(); // it has a connection
        for method in [http::Method::GET, http::Method::POST] {
            let before = door.lines(1).await.len();
            let ask = |path: &str| client.request(method.clone(), door.url(path)).send();
            let waits = tokio::spawn(ask("/late"));
            eventually(|| door.script.read.load(Ordering::Relaxed) > 0).await;
            let goes_on = tokio::spawn(ask("/commit"));
            assert_eq!(within(ask("/panic")).await.unwrap().status(), 500);
            assert!(within(within(ask("/midway")).await.unwrap().bytes()).await.is_err(), "it does not look whole");
            door.script.gate.add_permits(1);
            assert_eq!(within(waits).await.unwrap().unwrap().status(), 500);
            assert_eq!(within(ask("/gen?n=300000")).await.unwrap().bytes().await.unwrap().len(), 300_000);
            door.script.gate.add_permits(1);
            assert_eq!(within(goes_on).await.unwrap().unwrap().status(), 201);
            let lines = door.lines(before + 5).await.split_off(before);
            assert_eq!(lines.len(), 5);
            let failed = lines.iter().filter(|line| line["failure"] == "the service panicked").count();
            assert_eq!(failed, 3, "{lines:#?}");
            door.script.read.store(0, Ordering::Relaxed);
        }
        assert_eq!(door.running.connections(), 1);
    }
}

#[tokio::test]
async fn over_http1_too_a_service_that_panics_is_answered_for_or_broken_off_and_told_of() {
    for door in doors() {
        for (number, line) in ["GET /panic", "GET /late", "POST /panic", "POST /late"].into_iter().enumerate() {
            let mut wire = door.clear().await;
            door.script.gate.add_permits(usize::from(line.ends_with("late")));
            wire.send(door.request(line, "Content-Length: 0\r\n")).await;
            assert_eq!(wire.reply().await.status, 500, "{line}");
            assert_eq!(door.lines(number + 1).await[number]["failure"], "the service panicked");
        }
        let mut wire = door.clear().await;
        wire.send(door.request("GET /midway", "")).await;
        let rest = wire.rest().await;
        assert!(rest.starts_with(b"HTTP/1.1 200 ") && rest.len() < 200_000, "{}", rest.len());
        let lines = door.lines(5).await;
        assert_eq!((lines.len(), &lines[4]["failure"]), (5, &"the service panicked".into()));
    }
}

/// A client of either protocol.
enum Client {
    Wire(Wire),
    Http2(reqwest::Client),
}

impl Client {
    /// Status, and the plan that it went by.
    async fn get(&mut self, door: &Door, path: &str) -> (u16, String) {
        let plan = |value: Option<&str>| value.unwrap_or("first").to_owned();
        match self {
            Self::Wire(wire) => {
                wire.send(door.request(&format!("GET {path}"), "")).await;
                let reply = wire.reply().await;
                (reply.status, plan(reply.header("x-plan")))
            }
            Self::Http2(client) => {
                let reply = within(client.get(door.url(path)).send()).await.unwrap();
                let plan = plan(reply.headers().get("x-plan").map(|value| value.to_str().unwrap()));
                (reply.status().as_u16(), plan)
            }
        }
    }
}

#[tokio::test]
async fn connections_go_on_while_somebody_elses_registry_comes_and_goes_and_what_runs_ends_by_the_plan_it_began_with() {
    let (mut door, theirs) = (Door::open(), Theirs::open().await);
    let http2 = door.http2();
    let mut clients = [Client::Wire(door.clear().await), Client::Http2(http2.clone())];
    let mut running = Vec::new();
    let plans = [("first", false), ("theirs", true), ("ours", false), ("again", true)];
    for (number, (plan, knows_them)) in plans.into_iter().enumerate() {
        if number > 0 {
            let mut config = door.config.clone();
            config.headers = vec![("x-plan".parse().unwrap(), plan.parse().unwrap())];
            if knows_them {
                config.routes = vec![to_hub("/v2/")];
                config.upstreams = vec![upstream(&[theirs.origin()])];
            }
            let upstreams = Credentials::load(&config.upstreams).unwrap();
            let tls = Tls { usual: door.certificates.usual.clone(), upstreams, ..Tls::default() };
            door.running.change(config, door.script.clone(), &tls, Vec::new()).unwrap();
        }
        for client in &mut clients {
            assert_eq!(client.get(&door, "/origin").await, (200, plan.to_owned()));
            let status = if knows_them { 206 } else { 404 };
            assert_eq!(client.get(&door, "/v2/206").await, (status, plan.to_owned()), "by whom it is answered");
        }
        let mut wire = door.clear().await;
        wire.send(door.request("GET /task", "")).await;
        let (download, upload) = (http2.get(door.url("/task")).send(), http2.post(door.url("/task")).send());
        running.push((plan, wire, tokio::spawn(download), tokio::spawn(upload)));
        eventually(|| door.script.read.load(Ordering::Relaxed) == 3 * (number as u64 + 1)).await;
    }
    door.script.gate.add_permits(3 * plans.len());
    for (plan, mut wire, download, upload) in running {
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.header("x-plan").unwrap_or("first")), (200, plan));
        for reply in [within(download).await, within(upload).await] {
            let reply = reply.unwrap().unwrap();
            let by = reply.headers().get("x-plan").map_or("first", |value| value.to_str().unwrap());
            assert_eq!((reply.status().as_u16(), by), (200, plan));
        }
    }
}
