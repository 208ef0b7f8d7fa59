//! Who is the client: forwarding headers.

use super::*;

/// A door that believes proxies on this machine.
fn trusting() -> Door {
    Door::built(|config, _| config.trusted_proxies = "127.0.0.0/8".parse().into_iter().collect())
}

const SPOOFED: &str = "X-Forwarded-For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n\
                       X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\nX-Request-Id: chosen\r\n";

#[tokio::test]
async fn what_an_untrusted_peer_says_of_the_client_is_ignored() {
    let door = Door::open();
    let mut wire = door.clear().await;
    wire.send(door.request("GET /who", SPOOFED)).await;
    let reply = wire.reply().await;
    assert_eq!(reply.text(), format!("127.0.0.1 http://localhost:{}", door.clear.port()));
    let id = reply.header("x-request-id").unwrap().to_owned();
    assert_ne!(id, "chosen");
    let line = &door.lines(1).await[0];
    assert_eq!((&line["client"], &line["request_id"]), (&"127.0.0.1".into(), &id.as_str().into()));
}

#[tokio::test]
async fn what_a_trusted_peer_says_names_the_client_its_request_and_one_of_our_names() {
    let door = trusting();
    let mut wire = door.clear().await;
    let named = format!("X-Forwarded-Port: {}\r\n", door.tls.port());
    wire.send(format!("GET /who HTTP/1.1\r\nHost: localhost\r\n{SPOOFED}{named}\r\n")).await;
    let reply = wire.reply().await;
    assert_eq!(reply.text(), format!("203.0.113.9 https://localhost:{}", door.tls.port()), "and never evil.example");
    assert_eq!(reply.header("x-request-id"), Some("chosen"));
    let line = &door.lines(1).await[0];
    assert_eq!((&line["client"], &line["request_id"]), (&"203.0.113.9".into(), &"chosen".into()));
}

#[tokio::test]
async fn over_http2_too_the_address_is_that_of_the_request_and_not_of_the_connection() {
    let door = trusting();
    let client = door.http2();
    for address in ["203.0.113.1", "203.0.113.2"] {
        let reply = client.get(door.url("/who")).header("X-Forwarded-For", format!("1.1.1.1, {address}"));
        let text = reply.send().await.unwrap().text().await.unwrap();
        assert!(text.starts_with(&format!("{address} ")), "{text}");
    }
    let lines = door.lines(2).await;
    assert_eq!((&lines[0]["client"], &lines[1]["client"]), (&"203.0.113.1".into(), &"203.0.113.2".into()));
}
