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
