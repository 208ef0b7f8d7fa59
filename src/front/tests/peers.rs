//! Who is the client, and may it come in: forwarding headers, the PROXY protocol, networks; and what is said to those who
//! come in the clear.

use super::super::{Directions, Gate, Networks, ProxyProtocol};
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

/// A door whose listeners, the internal one too, want the PROXY protocol from this machine.
fn behind_a_balancer(protocol: ProxyProtocol) -> Door {
    Door::built(|config, sockets| {
        config.trusted_proxies = "127.0.0.0/8".parse().into_iter().collect();
        sockets.iter_mut().for_each(|(_, listener)| listener.proxy_protocol = protocol);
    })
}

/// Version 2, as a network load balancer writes it: with an extension (TLV) that names its endpoint.
fn version_2(command: u8, source: &str) -> Vec<u8> {
    let source: SocketAddr = source.parse().unwrap();
    let mut block = match source.ip() {
        std::net::IpAddr::V4(ip) => [ip.octets(), [10, 0, 0, 1]].concat(),
        std::net::IpAddr::V6(ip) => [ip.octets(), [0; 16]].concat(),
    };
    block.extend(source.port().to_be_bytes());
    block.extend(443u16.to_be_bytes());
    block.extend(b"\xea\x00\x05\x01vpce");
    let kind = if source.is_ipv4() { 0x11 } else { 0x21 };
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x20 | command, kind], &length, &block].concat()
}

const VERSION_1: &str = "PROXY TCP4 203.0.113.9 10.0.0.1 56324 443\r\n";

#[tokio::test]
async fn a_header_of_either_version_names_the_client() {
    let door = behind_a_balancer(ProxyProtocol::Required);
    let cases: [(Vec<u8>, &str); 6] = [
        (VERSION_1.into(), "203.0.113.9"),
        ("PROXY TCP6 2001:db8::9 2001:db8::1 56324 443\r\n".into(), "2001:db8::9"),
        ("PROXY UNKNOWN\r\n".into(), "127.0.0.1"),
        (version_2(1, "203.0.113.9:4711"), "203.0.113.9"),
        (version_2(1, "[2001:db8::9]:4711"), "2001:db8::9"),
        (version_2(0, "203.0.113.9:4711"), "127.0.0.1"),
    ];
    for (header, address) in &cases {
        let mut wire = door.clear().await;
        wire.send([header, door.request("GET /who", "").as_bytes()].concat()).await;
        let reply = wire.reply().await;
        assert!(reply.text().starts_with(&format!("{address} ")), "{}", reply.text());
    }
    let lines = door.lines(cases.len()).await;
    let clients: Vec<&str> = lines.iter().map(|line| line["client"].as_str().unwrap()).collect();
    assert_eq!(clients, cases.each_ref().map(|(_, address)| *address));
}

#[tokio::test]
async fn before_tls_as_well_and_byte_by_byte() {
    let door = behind_a_balancer(ProxyProtocol::Optional);
    for header in [VERSION_1.into(), version_2(1, "203.0.113.9:4711")] {
        let mut stream = TcpStream::connect(door.tls).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in header {
            within(stream.write_all(&[byte])).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut wire = Wire::new(door.tls_over(stream, "http/1.1").await);
        wire.send("GET /who HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
        assert!(wire.reply().await.text().starts_with("203.0.113.9 "));
    }
}

#[tokio::test]
async fn garbage_closes_and_so_does_half_a_header() {
    let door = Door::built(|config, sockets| {
        config.trusted_proxies = "127.0.0.0/8".parse().into_iter().collect();
        config.timeouts.handshake = Duration::from_millis(300);
        sockets.iter_mut().for_each(|(_, listener)| listener.proxy_protocol = ProxyProtocol::Required);
    });
    let mut long = version_2(1, "203.0.113.9:4711");
    long[14] = 0xff;
    let request = door.request("GET /who", "").into_bytes();
    for garbage in
        [request.clone(), b"PROXY TCP4 x y 1 2\r\n".to_vec(), long, vec![0x16; 100], b"PROXY TCP4 203".to_vec()]
    {
        let mut wire = door.clear().await;
        wire.send([garbage.clone(), request.clone()].concat().get(..garbage.len()).unwrap()).await;
        assert_eq!(wire.rest().await, b"", "{garbage:?}");
    }
    assert_eq!(door.lines.lock().len(), 0, "nothing of it was a request");
}

#[tokio::test]
async fn a_header_of_an_untrusted_peer_is_never_believed() {
    for protocol in [ProxyProtocol::Off, ProxyProtocol::Optional, ProxyProtocol::Required] {
        let door = Door::built(|config, sockets| {
            config.trusted_proxies = "192.0.2.0/24".parse().into_iter().collect();
            sockets.iter_mut().for_each(|(_, listener)| listener.proxy_protocol = protocol);
        });
        let mut wire = door.clear().await;
        wire.send(format!("{VERSION_1}{}", door.request("GET /who", ""))).await;
        let rest = String::from_utf8(wire.rest().await).unwrap();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 400 "), "{protocol:?}: {rest}");
        assert!(!rest.contains("203.0.113.9"));
    }
}

#[tokio::test]
async fn without_a_header_where_it_is_optional_probes_are_answered_and_nothing_else() {
    for trusted in ["127.0.0.0/8", "192.0.2.0/24"] {
        let door = Door::built(|config, sockets| {
            config.trusted_proxies = trusted.parse().into_iter().collect();
            sockets.iter_mut().for_each(|(_, listener)| listener.proxy_protocol = ProxyProtocol::Optional);
        });
        for mut wire in [door.clear().await, door.tls("http/1.1").await] {
            for (method, path, status) in
                [("GET", "/-/healthy", 404), ("GET", "/-/ready", 404), ("GET", "/v2/", 403), ("PUT", "/v2/a", 403)]
            {
                wire.send(format!("{method} {path} HTTP/1.1\r\nHost: balancer\r\n\r\n")).await;
                let reply = wire.reply().await;
                // The script behind this door has no probes: what matters is who answers.
                assert_eq!(reply.status, status, "{path}");
                assert!(status == 404 || reply.message().contains("PROXY protocol"));
            }
        }
    }
}

fn networks(network: &str) -> Networks {
    network.parse().into_iter().collect()
}

#[tokio::test]
async fn a_listener_is_for_its_networks_and_the_internal_port_for_its_own() {
    let push = Directions { push: networks("10.0.0.0/8"), ..Directions::default() };
    let pull = Directions { pull: networks("203.0.113.0/24"), ..Directions::default() };
    let gate = Gate { allow: push, deny: pull };
    let door = Door::built(|config, sockets| {
        config.trusted_proxies = networks("127.0.0.1");
        sockets.iter_mut().for_each(|(_, listener)| listener.gate = gate.clone());
    });
    for address in [door.clear, door.internal] {
        let mut wire = Wire::new(TcpStream::connect(address).await.unwrap());
        for (client, line, status) in [
            ("10.1.1.1", "PUT /v2/a", 404),
            ("10.1.1.1", "GET /v2/a", 404),
            ("192.0.2.1", "GET /v2/a", 404),
            ("192.0.2.1", "DELETE /v2/a", 403),
            ("192.0.2.1", "POST /jwt/auth", 404),
            ("203.0.113.9", "GET /v2/a", 403),
            ("203.0.113.9", "POST /jwt/auth", 403),
            ("203.0.113.9", "GET /-/healthy", 404),
        ] {
            wire.send(door.request(line, &format!("X-Forwarded-For: {client}\r\n"))).await;
            let reply = wire.reply().await;
            assert_eq!(reply.status, status, "{client} {line}");
            assert!(status == 404 || reply.message().contains(client), "the operator reads who it was");
        }
    }
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_sent_to_https_or_told_to_upgrade() {
    let door = Door::open();
    let ours = format!("localhost:{}", door.tls.port());
    let here = format!("127.0.0.1:{}", door.tls.port());
    let cases = [
        ("GET /v2/a?b=%2F", ours.as_str(), "", Some("/v2/a?b=%2F")),
        ("HEAD /", "LOCALHOST", "", Some("/")),
        ("GET /v2/", &here, "", Some("/v2/")),
        ("GET /v2/", "evil.example", "", None),
        ("PUT /v2/a", &ours, "Content-Length: 4\r\n", None),
        ("GET /v2/", &ours, "Authorization: Basic YTpi\r\n", None),
    ];
    for (line, host, headers, target) in &cases {
        let mut wire = Wire::new(TcpStream::connect(door.tls).await.unwrap());
        wire.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")).await;
        let reply = if line.starts_with("HEAD") { wire.head().await } else { wire.reply().await };
        match target {
            Some(target) => {
                assert_eq!((reply.status, reply.header("location")), (308, Some(&*door.url(target))), "{line} {host}");
            }
            None => {
                assert_eq!(reply.status, 426, "{line} {host}");
                assert!(reply.header("upgrade").is_some_and(|protocols| protocols.starts_with("TLS/")));
                assert!(reply.message().contains("https://"));
            }
        }
        assert!(reply.header("x-request-id").is_some());
    }
    assert_eq!(door.lines(cases.len()).await.len(), cases.len());
}

#[tokio::test]
async fn a_listener_that_redirects_does_nothing_else() {
    let door = Door::built(|_, sockets| sockets[1].1.redirect = true);
    let mut wire = door.clear().await;
    for (line, host, status, target) in [
        ("GET /v2/a/tags/list?n=1", "localhost", 308, "/v2/a/tags/list?n=1"),
        ("POST /v2/a/blobs/uploads/", "localhost", 308, "/v2/a/blobs/uploads/"),
        ("GET //evil.example/", "evil.example", 308, "//evil.example/"),
        ("OPTIONS *", "10.0.0.1", 308, "/"),
        ("GET /-/healthy", "10.0.0.1", 404, ""),
    ] {
        wire.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status, status, "{line}");
        assert_eq!(reply.header("location"), (status == 308).then(|| door.url(target)).as_deref(), "{line}");
    }
    wire.send("GET /v2/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic YTpi\r\n\r\n").await;
    assert_eq!(wire.reply().await.status, 426, "what everybody could read must not go unnoticed");
}

#[tokio::test]
async fn connections_count_for_the_client_that_the_header_names_and_not_for_the_balancer() {
    let door = Door::built(|config, sockets| {
        config.trusted_proxies = networks("127.0.0.0/8");
        config.limits.connections_per_client = 2;
        sockets[0].1.proxy_protocol = ProxyProtocol::Required;
    });
    let mut held = Vec::new();
    let client = |address: &str| format!("TCP4 {address} 10.0.0.1 56324 443");
    let proxys = || "UNKNOWN".to_owned(); // its own connections, over which it may ask for everybody
    for (client, status) in [
        (client("203.0.113.1"), 404),
        (client("203.0.113.1"), 404),
        (client("203.0.113.1"), 429),
        (client("203.0.113.2"), 404),
        (proxys(), 404),
        (proxys(), 404),
        (proxys(), 404),
    ] {
        let mut stream = TcpStream::connect(door.tls).await.unwrap();
        let header = format!("PROXY {client}\r\n");
        within(stream.write_all(header.as_bytes())).await.unwrap();
        let mut wire = Wire::new(door.tls_over(stream, "http/1.1").await);
        wire.send("GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
        assert_eq!(wire.reply().await.status, status, "{client}");
        held.push(wire);
    }
}

/// A pair of files for one name, and what trusts it.
fn files_for(name: &str, folder: &std::path::Path, roots: &mut RootCertStore) -> crate::tls::Files {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    roots.add(made.cert.der().clone()).unwrap();
    let put = |kind: &str, text: String| {
        let path = folder.join(format!("{name}.{kind}"));
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    };
    crate::tls::Files::new(put("crt", made.cert.pem()), put("key", made.signing_key.serialize_pem()))
}

#[tokio::test]
async fn who_asks_tls_for_one_name_and_http_for_another_is_misdirected_but_not_a_trusted_proxy() {
    for (trusts, status) in [(false, 421), (true, 200)] {
        let mut door = if trusts { trusting() } else { Door::open() };
        let folder = tempfile::tempdir().unwrap();
        let mut roots = RootCertStore::empty();
        let files = ["localhost", "proxy.test"].map(|name| files_for(name, folder.path(), &mut roots));
        let certificates = Arc::new(crate::tls::Certificates::load(&files).unwrap());
        let usual = crate::tls::server_config(certificates.clone(), crate::tls::Policy::Intermediate, None).unwrap();
        let tls = Tls { usual: Some(usual), certificates: Some(certificates), ..Tls::default() };
        door.running.change(door.config.clone(), door.script.clone(), &tls, Vec::new()).unwrap();
        door.roots = roots;
        for (asked, status) in [("localhost", 200), ("proxy.test", status)] {
            let connector = tokio_rustls::TlsConnector::from(Arc::new(door.client_config(&["http/1.1"])));
            let stream = TcpStream::connect(door.tls).await.unwrap();
            let stream = within(connector.connect(ServerName::try_from(asked).unwrap(), stream)).await.unwrap();
            let mut wire = Wire::new(stream);
            wire.send(format!("GET /origin HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", door.tls.port())).await;
            let reply = wire.reply().await;
            assert_eq!(reply.status, status, "asked TLS for {asked}, trusted: {trusts}: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_a_request_and_no_handshake() {
    let reports = Reports::off();
    let door = Door::telling(reports.clone(), |_, _| {});
    let counted = |line: &str| reports.metrics.page(crate::telemetry::Exposition::Prometheus).contains(line);
    let mut wire = Wire::new(TcpStream::connect(door.tls).await.unwrap());
    wire.send("GET /v2/ HTTP/1.1\r\nHost: any\r\n\r\n").await;
    assert_eq!(wire.reply().await.status, 426);
    drop(wire);
    eventually(|| counted("pierhead_http_requests_total{method=\"GET\",endpoint=\"other\",status=\"426\"} 1")).await;
    assert!(!counted("pierhead_tls_handshakes_total{"), "neither one that was done nor one that failed");
    door.tls("http/1.1").await;
    eventually(|| counted("pierhead_tls_handshakes_total{outcome=\"done\"} 1")).await;
}
