//! Promise: who the client is comes from load balancers that the operator trusts, and from nobody else; and a listener is
//! wherever, and for whomever, the operator says.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use base64::Engine as _;
use reqwest::Method;

use crate::support::content::Content;
use crate::support::free_port;
use crate::support::machine::on_a_fresh_machine;
use crate::support::pierhead::{Pierhead, Site};
use crate::support::wire::{Reply, ask, balancer, connect};

/// The header of a network load balancer: version 2 of the PROXY protocol, with an extension that names its endpoint.
fn network_balancer(client: [u8; 4], command: u8) -> Vec<u8> {
    let endpoint = b"\xea\x00\x05\x01vpce";
    let length = u8::try_from(12 + endpoint.len()).expect("short");
    let block = [&client[..], &Ipv4Addr::LOCALHOST.octets(), &[0x12, 0x34, 0x01, 0xbb], endpoint].concat();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x20 | command, 0x11, 0, length], &block].concat()
}

/// The client on the access line of a request.
fn logged_client(server: &Pierhead, reply: &Reply) -> String {
    let id = reply.header("x-request-id").expect("every answer names its request");
    server.wait_for_access("the line", |log| {
        let line = log.iter().find(|line| line["request_id"] == id)?;
        Some(line["client"].as_str().expect("a client").to_owned())
    })
}

/// A listener in the clear, with these further settings, beside the usual one.
fn with_listener(site: &Site, port: u16, settings: &str, others: &[&str]) {
    let listeners = format!(
        "listeners: [{{ address: \"127.0.0.1:{}\" }}, {{ address: \"127.0.0.1:{port}\", tls: false, {settings} }}]",
        site.port()
    );
    site.configure(&[&[listeners.as_str()], others].concat());
}

const LOOPBACK: &str = "trusted_proxies: [127.0.0.0/8]";

#[test]
fn a_network_load_balancer_in_front_names_the_client_of_pushes_and_pulls() {
    let site = Site::new();
    let port = free_port();
    let listener = format!("listeners: [{{ address: \"127.0.0.1:{port}\", proxy_protocol: required }}]");
    site.configure(&[&listener, LOOPBACK]);
    balancer(site.port(), port, network_balancer([203, 0, 113, 9], 1));
    let server = site.start();
    let repository = site.admin().repository("peers/nlb", "pull,push");
    let digest = repository.push("latest", &[Content::new(1, 3_000_000)]).expect("a push through it");
    assert_eq!(repository.get("manifests/latest").headers()["docker-content-digest"], digest.as_str());
    server.wait_for_access("the lines", |log| {
        let lines = log.iter().filter(|line| line["repository"] == "peers/nlb").collect::<Vec<_>>();
        let all = lines.iter().all(|line| line["client"] == "203.0.113.9");
        (all && lines.iter().any(|line| line["method"] == "GET")).then_some(())
    });
}

#[test]
fn each_form_of_the_proxy_protocol_is_understood_and_garbage_is_closed() {
    let site = Site::new();
    let port = free_port();
    with_listener(&site, port, "proxy_protocol: required", &[LOOPBACK]);
    let server = site.start();
    let host = format!("Host: {}", site.authority());
    for (header, client) in [
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 56324 443\r\n".to_vec(), "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 2001:db8::1 56324 443\r\n".to_vec(), "2001:db8::9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (network_balancer([203, 0, 113, 7], 1), "203.0.113.7"),
        (network_balancer([203, 0, 113, 7], 0), "127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\0".to_vec(), "127.0.0.1"), // LOCAL: whatever follows is ignored
    ] {
        // A balancer that speaks this protocol writes no headers: they are the client's own.
        let spoofed = "X-Forwarded-For: 198.51.100.1";
        let named = client != "127.0.0.1";
        let headers = if named { vec![&*host] } else { vec![&*host, spoofed] };
        let reply = ask(connect(port), &header, "GET /v2/", &headers).expect("an answer");
        assert_eq!((reply.status, logged_client(&server, &reply).as_str()), (401, client));
    }
    for garbage in [b"".as_slice(), b"PROXY TCP4 1.2.3.4\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c", b"\x16\x03\x01"] {
        assert!(ask(connect(port), garbage, "GET /v2/", &[&host]).is_none(), "{garbage:?}");
    }
    assert_eq!(site.registry(None).request(Method::GET, "/-/ready").send().expect("an answer").status(), 200);
}

#[test]
fn where_the_header_is_optional_whoever_sends_none_gets_probes_and_nothing_else() {
    let site = Site::new();
    let port = free_port();
    with_listener(&site, port, "proxy_protocol: optional", &[LOOPBACK]);
    let _server = site.start();
    for (path, status) in [("/-/healthy", 200), ("/-/ready", 200), ("/v2/", 403), ("/jwt/auth", 403), ("/", 403)] {
        let reply = ask(connect(port), b"", &format!("GET {path}"), &["Host: 10.0.0.1"]).expect("an answer");
        assert_eq!(reply.status, status, "{path}");
        if status == 403 {
            assert_eq!(reply.error().0, "DENIED");
        }
    }
    let host = format!("Host: {}", site.authority());
    let proxied = ask(connect(port), &network_balancer([203, 0, 113, 9], 1), "GET /v2/", &[&host]);
    assert_eq!(proxied.expect("an answer").status, 401);
}

#[test]
fn the_audit_log_names_the_client_that_a_balancer_names() {
    let site = Site::new();
    let port = free_port();
    let listener = format!("listeners: [{{ address: \"127.0.0.1:{port}\", proxy_protocol: required }}]");
    site.configure(&[&listener, LOOPBACK, "log: { audit: ./audit.log }"]);
    balancer(site.port(), port, network_balancer([203, 0, 113, 9], 1));
    let server = site.start();
    site.admin().repository("peers/audit", "pull,push").push_blob(Content::new(6, 10_000)).expect("a push through it");
    assert!(server.stop().success());
    let log = std::fs::read_to_string(site.directory().join("audit.log")).expect("it is there");
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let operations: Vec<_> = lines.map(|line| (line["audit"].clone(), line["client"].clone())).collect();
    for operation in ["login", "push"] {
        assert!(operations.contains(&(operation.into(), "203.0.113.9".into())), "{operation}: {operations:?}");
    }
}

/// Fails to log in once, for a client that a proxy names.
fn failed_login(port: u16, host: &str, client: &str, account: usize) -> u16 {
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("nobody-{account}:wrong"));
    let headers = [host, &format!("X-Forwarded-For: {client}"), &format!("Authorization: Basic {basic}")];
    ask(connect(port), b"", "GET /jwt/auth?service=container_registry", &headers).expect("an answer").status
}

#[test]
fn limits_count_the_client_that_a_trusted_proxy_names() {
    let site = Site::new();
    let port = free_port();
    with_listener(&site, port, "allow: {}", &[LOOPBACK, "limits: { failed_logins: 3/m }"]);
    let _server = site.start();
    let host = format!("Host: {}", site.authority());
    let statuses: Vec<u16> = (0..5).map(|n| failed_login(port, &host, "1.1.1.1, 203.0.113.1", n)).collect();
    assert_eq!((statuses[0], statuses[4]), (401, 429), "{statuses:?}");
    assert_eq!(failed_login(port, &host, "203.0.113.2", 6), 401, "somebody else has failures of their own");
    assert_eq!(
        failed_login(port, &host, "203.0.113.2, 203.0.113.1", 7),
        429,
        "what a client says of itself is not heard"
    );
}

#[test]
fn limits_count_the_client_that_a_load_balancer_names_on_a_socket_in_the_file_system() {
    let site = Site::new();
    let listeners = format!(
        "listeners: [{{ address: \"127.0.0.1:{}\" }}, {{ address: \"unix:front.sock\", tls: false, proxy_protocol: required }}]",
        site.port()
    );
    site.configure(&[&listeners, LOOPBACK, "limits: { failed_logins: 3/m }"]);
    let _server = site.start();
    let host = format!("Host: {}", site.authority());
    let failed = |client: u8, account: usize| {
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("nobody-{account}:wrong"));
        let stream = UnixStream::connect(site.directory().join("front.sock")).expect("it listens");
        let headers = [&*host, &format!("Authorization: Basic {basic}")];
        let header = network_balancer([203, 0, 113, client], 1);
        ask(stream, &header, "GET /jwt/auth?service=container_registry", &headers).expect("an answer").status
    };
    let statuses: Vec<u16> = (0..5).map(|account| failed(1, account)).collect();
    assert_eq!((statuses[0], statuses[4]), (401, 429), "{statuses:?}");
    assert_eq!(failed(2, 6), 401, "somebody else has failures of their own");
}

#[test]
fn what_a_peer_says_that_nobody_trusts_changes_neither_limits_nor_log_nor_urls() {
    let site = Site::new();
    let port = free_port();
    with_listener(&site, port, "allow: {}", &["limits: { failed_logins: 3/m }"]);
    let server = site.start();
    let host = format!("Host: {}", site.authority());
    let failed_login = |n: u16| {
        let request = site.registry(None).request(Method::GET, "/jwt/auth?service=container_registry");
        let request = request.basic_auth(format!("nobody-{n}"), Some("wrong"));
        let answer = request.header("X-Forwarded-For", format!("203.0.113.{n}")).send().expect("an answer");
        answer.status().as_u16()
    };
    let statuses: Vec<u16> = (0..5).map(failed_login).collect();
    assert_eq!((statuses[0], statuses[4]), (401, 429), "a new address each time is of no use: {statuses:?}");
    let lies = [
        &*host,
        "X-Forwarded-For: 203.0.113.9",
        "X-Real-IP: 203.0.113.9",
        "Forwarded: for=203.0.113.9;host=evil.example;proto=http",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Proto: http",
        "X-Request-Id: chosen",
    ];
    let reply = ask(connect(port), b"", "GET /v2/", &lies).expect("an answer");
    assert_eq!(logged_client(&server, &reply), "127.0.0.1");
    let realm = format!("realm=\"{}/jwt/auth\"", site.origin());
    assert!(reply.header("www-authenticate").is_some_and(|challenge| challenge.contains(&realm)), "{reply:?}");
}

#[test]
fn behind_an_offloading_load_balancer_urls_are_those_that_the_client_used() {
    let site = Site::new();
    let port = free_port();
    // The balancer listens on 443 for the first name and on 8443 for the second; here is another port, and no TLS.
    let names = ["external_url: https://registry.example.com", "aliases: [\"https://other.example.com:8443\"]"];
    let listener = format!(
        "listeners: [{{ address: \"127.0.0.1:{port}\", tls: false }}, {{ address: \"127.0.0.1:{}\" }}]",
        site.port()
    );
    site.configure(&[names[0], names[1], &listener, LOOPBACK]);
    let server = site.start();
    for (host, forwarded, origin) in [
        (
            "registry.example.com",
            vec!["X-Forwarded-Proto: https", "X-Forwarded-Port: 443"],
            "https://registry.example.com",
        ),
        ("registry.example.com", vec![], "https://registry.example.com"),
        (
            "other.example.com",
            vec!["X-Forwarded-Proto: https", "X-Forwarded-Port: 8443"],
            "https://other.example.com:8443",
        ),
        ("backend:80", vec!["X-Forwarded-Host: other.example.com:8443"], "https://other.example.com:8443"),
        ("registry.example.com", vec!["X-Forwarded-Host: evil.example"], "https://registry.example.com"),
    ] {
        let host = format!("Host: {host}");
        let headers =
            [vec![host.as_str(), "X-Forwarded-For: 203.0.113.9", "X-Request-Id: from-the-balancer"], forwarded]
                .concat();
        let reply = ask(connect(port), b"", "GET /v2/", &headers).expect("an answer");
        let realm = format!("realm=\"{origin}/jwt/auth\"");
        assert!(
            reply.header("www-authenticate").is_some_and(|challenge| challenge.contains(&realm)),
            "{headers:?}: {reply:?}"
        );
        assert_eq!(reply.header("x-request-id"), Some("from-the-balancer"));
        assert_eq!(logged_client(&server, &reply), "203.0.113.9");
    }
}

#[test]
fn a_reload_changes_whom_we_trust() {
    let site = Site::new();
    let port = free_port();
    with_listener(&site, port, "allow: {}", &[LOOPBACK]);
    let server = site.start();
    let host = format!("Host: {}", site.authority());
    let ask = || ask(connect(port), b"", "GET /v2/", &[&host, "X-Forwarded-For: 203.0.113.9"]).expect("an answer");
    assert_eq!(logged_client(&server, &ask()), "203.0.113.9");
    with_listener(&site, port, "allow: {}", &["trusted_proxies: [192.0.2.0/24]"]);
    site.run(&["reload"]).ok();
    assert_eq!(logged_client(&server, &ask()), "127.0.0.1");
}

#[test]
fn whom_a_reload_shuts_out_is_shut_out_on_open_connections_too() {
    let site = Site::new();
    let server = site.start();
    let repository = site.admin().repository("peers/gate", "pull,push");
    repository.push("latest", &[Content::new(4, 10_000)]).expect("a push");
    let listeners =
        format!("listeners: [{{ address: \"[::]:{}\", deny: {{ push: [127.0.0.0/8, \"::1\"] }} }}]", site.port());
    site.configure(&[&listeners]);
    site.run(&["reload"]).ok();
    // The same client, whose connections are kept.
    let refused = repository.push("again", &[Content::new(5, 10_000)]).expect_err("denied by now");
    assert_eq!(refused.status, Some(403));
    assert_eq!(repository.get("manifests/latest").status(), 200);
    assert!(server.stop().success());
}

#[test]
fn networks_say_who_may_pull_and_who_may_push_on_the_internal_port_too() {
    let site = Site::new();
    let port = free_port();
    let gate = "allow: { push: [203.0.113.0/24] }, deny: { pull: [203.0.113.66] }";
    with_listener(&site, port, gate, &[LOOPBACK, &format!("internal: {{ {gate} }}")]);
    let _server = site.start();
    let host = format!("Host: {}", site.authority());
    for port in [port, site.internal_port()] {
        for (client, line, status) in [
            ("203.0.113.9", "POST /v2/a/blobs/uploads/", 401),
            ("192.0.2.1", "GET /v2/", 401),
            ("192.0.2.1", "POST /v2/a/blobs/uploads/", 403),
            ("192.0.2.1", "DELETE /v2/a/manifests/latest", 403),
            ("203.0.113.66", "GET /v2/", 403),
            ("203.0.113.66", "GET /jwt/auth", 403),
            ("203.0.113.66", "GET /-/ready", 200),
        ] {
            let headers = [&*host, &format!("X-Forwarded-For: {client}"), "Content-Length: 0"];
            let reply = ask(connect(port), b"", line, &headers).expect("an answer");
            assert_eq!(reply.status, status, "{client} {line} on {port}");
            if status == 403 {
                let (code, message) = reply.error();
                assert!(code == "DENIED" && message.contains(client), "{message}");
            }
        }
    }
}

#[test]
fn plain_http_on_the_tls_port_and_on_a_redirecting_port_leads_to_https() {
    let site = Site::new();
    let port = free_port();
    let listeners = format!(
        "listeners: [{{ address: \"127.0.0.1:{}\" }}, {{ address: \"127.0.0.1:{port}\", redirect: https }}]",
        site.port()
    );
    site.configure(&[&listeners]);
    let server = site.start();
    assert!(server.process.stderr().contains(&format!("127.0.0.1:{port} (redirects to https)")));
    let host = format!("Host: {}", site.authority());
    let target = format!("{}/v2/a/tags/list?n=1", site.origin());
    for port in [site.port(), port] {
        let reply = ask(connect(port), b"", "GET /v2/a/tags/list?n=1", &[&host]).expect("an answer");
        assert_eq!((reply.status, reply.header("location")), (308, Some(&*target)));
        let reply = ask(connect(port), b"", "GET /v2/", &[&host, "Authorization: Basic YTpi"]).expect("an answer");
        assert_eq!((reply.status, reply.error().0.as_str()), (426, "UNSUPPORTED"));
    }
    let upload = ask(connect(site.port()), b"", "PUT /v2/a/manifests/b", &[&host, "Content-Length: 0"]);
    assert_eq!(upload.expect("an answer").status, 426);
    for port in [site.port(), port] {
        let probe = ask(connect(port), b"", "GET /-/ready", &["Host: 10.0.0.1"]).expect("an answer");
        assert_eq!(probe.status, 200, "probes are answered everywhere: a redirect would be health to some balancers");
    }
}

#[test]
fn a_socket_in_the_file_system_serves_our_user_and_group_and_goes_with_the_server() {
    let site = Site::new();
    let listeners = format!(
        "listeners: [{{ address: \"127.0.0.1:{}\" }}, {{ address: \"unix:front.sock\", tls: false }}]",
        site.port()
    );
    site.configure(&[&listeners]);
    let path = site.directory().join("front.sock");
    let server = site.start();
    assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o660);
    let stream = UnixStream::connect(&path).expect("it listens");
    let reply = ask(stream, b"", "GET /v2/", &[&format!("Host: {}", site.authority())]).expect("an answer");
    assert_eq!((reply.status, logged_client(&server, &reply).as_str()), (401, "127.0.0.1"));
    assert!(server.stop().success());
    assert!(!path.exists());
}

#[test]
fn a_reload_that_is_refused_leaves_sockets_in_the_file_system_as_they_were() {
    let site = Site::new();
    let own = format!("{{ address: \"127.0.0.1:{}\" }}, {{ address: \"unix:old.sock\", tls: false }}", site.port());
    site.configure(&[&format!("listeners: [{own}]")]);
    let server = site.start();
    let path = |name: &str| site.directory().join(name);
    let serves = || {
        let stream = UnixStream::connect(path("old.sock")).expect("it listens");
        ask(stream, b"", "GET /-/healthy", &["Host: any"]).expect("an answer").status
    };
    std::fs::write(path("taken"), "not a socket").expect("written");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("it is bound");
    for refused in ["{ address: \"unix:taken\", tls: false }".to_owned(), format!("{{ address: \"{taken}\" }}")] {
        let new = "{ address: \"unix:new.sock\", tls: false }";
        site.configure(&[&format!("listeners: [{own}, {new}, {refused}]")]);
        let said = site.run(&["reload"]);
        assert!(!said.is_ok() && said.stderr.contains("nothing changed"), "{refused}: {said}");
        assert!(!path("new.sock").exists(), "{refused}: what was made for nothing is gone");
        assert_eq!(serves(), 200, "{refused}");
    }
    assert_eq!(std::fs::read_to_string(path("taken")).expect("it is there"), "not a socket");
    assert!(server.stop().success());
    assert!(!path("old.sock").exists());
}

#[test]
fn systemd_may_listen_for_us() {
    let site = Site::new();
    site.configure(&["listeners: [{ address: \"systemd:front\" }]"]);
    let socket = TcpListener::bind(("127.0.0.1", site.port())).expect("the port is free");
    let server = site.start_activated(socket.into(), "front");
    assert!(server.process.stderr().contains(&format!("127.0.0.1:{} (TLS)", site.port())));
    let repository = site.admin().repository("peers/systemd", "pull,push");
    repository.push("latest", &[Content::new(2, 10_000)]).expect("a push");
    // A reload keeps what only systemd can give.
    site.run(&["reload"]).ok();
    repository.push("again", &[Content::new(3, 10_000)]).expect("a push");
    assert!(server.stop().success());
}

#[test]
fn a_socket_that_systemd_did_not_open_is_named() {
    let site = Site::new();
    site.configure(&["listeners: [{ address: systemd }]"]);
    let output = site.run(&["serve"]);
    assert!(!output.is_ok() && output.stderr.contains("systemd handed over no such socket"), "{output}");
}

#[test]
fn a_path_that_systemd_listens_on_stays_systemds() {
    let site = Site::new();
    let path = site.directory().join("systemd.sock");
    let listeners =
        format!("listeners: [{{ address: \"127.0.0.1:{}\" }}, {{ address: systemd, tls: false }}]", site.port());
    site.configure(&[&listeners]);
    let socket = UnixListener::bind(&path).expect("a path of our own");
    let server = site.start_activated(socket.into(), "any");
    let stream = UnixStream::connect(&path).expect("it listens");
    let reply = ask(stream, b"", "GET /v2/", &[&format!("Host: {}", site.authority())]).expect("an answer");
    assert_eq!((reply.status, logged_client(&server, &reply).as_str()), (401, "127.0.0.1"));
    assert!(server.stop().success());
    assert!(path.exists(), "it is not ours to take away");
}

#[test]
fn a_path_of_systemds_that_is_another_users_is_refused_with_what_to_write() {
    on_a_fresh_machine(|_| {
        let site = Site::new();
        let listeners =
            format!("listeners: [{{ address: \"127.0.0.1:{}\" }}, {{ address: systemd, tls: false }}]", site.port());
        site.configure(&[&listeners, "user: nobody"]);
        let socket = UnixListener::bind(site.directory().join("systemd.sock")).expect("a path of root's");
        let mut process = site.activate(socket.into(), "any");
        assert_eq!(process.wait(30).code(), Some(1));
        assert!(process.stderr().contains("SocketUser=nobody"), "{}", process.stderr());
    });
}
