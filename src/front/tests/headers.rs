//! What every answer carries, whoever gave it.

use super::*;

const HSTS: Option<&str> = Some("max-age=63072000");
const VERSION: Option<&str> = Some("registry/2.0");

fn with_hsts() -> Door {
    Door::built(|config, _| config.hsts = Some(Duration::from_secs(63_072_000)))
}

/// What an answer carries: HSTS, nosniff, the version of the API.
fn carried(reply: &Reply) -> (Option<&str>, bool, Option<&str>) {
    assert_eq!(reply.header("server"), None, "nobody is told what we are");
    (
        reply.header("strict-transport-security"),
        reply.header("x-content-type-options") == Some("nosniff"),
        reply.header("docker-distribution-api-version"),
    )
}

#[tokio::test]
async fn over_tls_every_answer_asks_for_tls_the_refusals_too() {
    let door = with_hsts();
    let host = format!("Host: localhost:{}", door.tls.port());
    let known = [("GET /origin", 200, None), ("GET /elsewhere", 404, None), ("GET /v2/elsewhere", 404, VERSION)];
    for (line, status, version) in known {
        let mut wire = door.tls("http/1.1").await;
        wire.send(format!("{line} HTTP/1.1\r\n{host}\r\n\r\n")).await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, carried(&reply)), (status, (HSTS, true, version)), "{line}");
    }
    for (request, status) in [
        ("GET /v2/ HTTP/1.1\r\nHost: stranger\r\n\r\n".to_owned(), 421),
        (format!("GET /v2/{} HTTP/1.1\r\n{host}\r\n\r\n", "x".repeat(9_000)), 414),
        // No phase of Pingora's sees this: the answer is written by hand.
        (format!("GET /v2/ HTTP/9.9\r\n{host}\r\n\r\n"), 400),
    ] {
        let mut wire = door.tls("http/1.1").await;
        wire.send(&request).await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, carried(&reply)), (status, (HSTS, true, VERSION)), "{}", &request[..20]);
    }
    let answer = door.http2().get(door.url("/v2/elsewhere")).send().await.unwrap();
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=63072000");
    assert_eq!(answer.headers()["docker-distribution-api-version"], "registry/2.0");
}

#[tokio::test]
async fn in_the_clear_and_where_it_is_off_nobody_is_asked_for_tls() {
    let door = with_hsts();
    let mut clear = door.clear().await;
    clear.send(door.request("GET /v2/elsewhere", "")).await;
    assert_eq!(carried(&clear.reply().await), (None, true, VERSION));
    let mut internal = Wire::new(TcpStream::connect(door.internal).await.unwrap());
    internal.send("GET /v2/elsewhere HTTP/1.1\r\nHost: any\r\n\r\n").await;
    assert_eq!(carried(&internal.reply().await), (None, true, VERSION));
    let mut lost = Wire::new(TcpStream::connect(door.tls).await.unwrap());
    lost.send("GET /v2/ HTTP/1.1\r\nHost: any\r\n\r\n").await;
    assert_eq!(carried(&lost.reply().await), (None, true, VERSION), "this answer came in the clear");

    let off = Door::built(|config, _| config.hsts = None);
    let mut wire = off.tls("http/1.1").await;
    wire.send(format!("GET /origin HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", off.tls.port())).await;
    assert_eq!(carried(&wire.reply().await), (None, true, None));
}

#[tokio::test]
async fn behind_who_ends_tls_for_us_the_client_came_over_tls_all_the_same() {
    let door = Door::built(|config, _| {
        config.hsts = Some(Duration::from_secs(1));
        config.aliases = vec!["https://hub.test".parse().unwrap()];
    });
    let mut wire = door.clear().await;
    wire.send("GET /origin HTTP/1.1\r\nHost: hub.test\r\n\r\n").await;
    let reply = wire.reply().await;
    assert_eq!((reply.text(), carried(&reply).0), ("https://hub.test", Some("max-age=1")));
}
