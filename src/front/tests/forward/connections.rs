//! Connections that a peer gave up, and whose fault it is that a request came to nothing.

use super::*;
use crate::front::Ejection;
use crate::telemetry::Exposition;

async fn ask(door: &Door, line: &str, headers: &str) -> Reply {
    let mut wire = door.clear().await;
    wire.send(door.request(line, headers)).await;
    wire.reply().await
}

/// An upstream whose peers are ejected at their first failure.
fn strict(peers: &[String]) -> Upstream {
    let ejection = Ejection { failures: NonZeroU32::MIN, time: Duration::from_secs(60) };
    Upstream { ejection: Some(ejection), attempts: NonZeroU32::MIN, ..upstream(peers) }
}

fn count(door: &Door, name: &str) -> u64 {
    let page = door.reports.metrics.page(Exposition::Prometheus);
    let values = page.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_connection_that_was_reset_while_idle_costs_a_read_nothing_and_a_peer_no_failure() {
    let (one, other) = (Theirs::open().await, Theirs::open().await);
    let door = before_upstream(strict(&[one.origin(), other.origin()]), |_| {});
    for word in ["reset", "stale"] {
        for _ in 0..2 {
            assert_eq!(ask(&door, "GET /v2/206", "").await.status, 206);
        }
        for _ in 0..2 {
            assert_eq!(ask(&door, &format!("GET /v2/{word}"), "").await.status, 201, "{word}");
        }
        for _ in 0..2 {
            assert_eq!(ask(&door, &format!("PUT /v2/{word}"), "Content-Length: 0\r\n").await.status, 502, "{word}");
        }
        let sent = (one.all() + &other.all()).matches(&format!("PUT /v2/{word}")).count();
        assert_eq!(sent, 2, "a write is sent once");
    }
    assert_eq!(count(&door, "pierhead_upstream_ejections_total"), 0);
    for _ in 0..2 {
        assert_eq!(ask(&door, "GET /v2/close", "").await.status, 502);
    }
    assert_eq!(count(&door, "pierhead_upstream_ejections_total"), 1, "the last one stays");
}

#[tokio::test]
async fn a_client_that_owes_its_body_is_no_failure_of_the_peer() {
    let (one, other) = (Theirs::open().await, Theirs::open().await);
    let mut upstream = strict(&[one.origin(), other.origin()]);
    upstream.timeouts.read = Duration::from_millis(200);
    let door = before_upstream(upstream, |config| config.timeouts.stall = Duration::from_millis(200));
    for _ in 0..2 {
        let mut wire = door.clear().await;
        wire.send(door.request("PATCH /v2/x", "Content-Length: 100\r\n") + "half").await;
        assert_eq!(wire.reply().await.status, 408);
    }
    assert_eq!(count(&door, "pierhead_upstream_ejections_total"), 0);
    let reply = ask(&door, "PUT /v2/continue", "Content-Length: 5\r\nExpect: 100-continue\r\n").await;
    assert_eq!(reply.status, 504, "who does not say whether it wants the body");
}

#[tokio::test]
async fn the_cause_of_a_failed_connection_is_told() {
    let theirs = Door::open(); // its certificate is nobody's
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); // its handshake never comes
    let asked = |origin: String| async move {
        let mut upstream = upstream(&[origin]);
        upstream.timeouts.connect = Duration::from_millis(300);
        let door = before_upstream(upstream, |_| {});
        let status = ask(&door, "GET /v2/x", "").await.status;
        let line = door.lines(1).await.remove(0);
        (status, line["failure"].as_str().unwrap().to_owned())
    };
    let (status, failure) = asked(nobody()).await;
    assert!(status == 503 && failure.contains("refused"), "{status} {failure}");
    let (status, failure) = asked(format!("https://localhost:{}", theirs.tls.port())).await;
    assert!(status == 502 && failure.to_lowercase().contains("certificate"), "{status} {failure}");
    let (status, failure) = asked(format!("https://{}", silent.local_addr().unwrap())).await;
    assert!(status == 504 && failure.to_lowercase().contains("timedout"), "{status} {failure}");
}
