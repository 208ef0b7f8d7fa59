//! Rules Q1 to Q5. Q6, what is tried again, is the forwarding's.

use http::uri::Uri;

use super::*;

/// What the upstream gets of a request, its lines sorted.
fn gets(request: RequestHeader, upstream: &Upstream) -> (RequestHeader, Vec<String>) {
    gets_by(EXTERNAL, request, upstream)
}

fn gets_by(by: &str, mut header: RequestHeader, upstream: &Upstream) -> (RequestHeader, Vec<String>) {
    let (by, peer) = (origin(by), origin("http://127.0.0.1:5000"));
    let client = "::ffff:192.0.2.1".parse().unwrap();
    let demands = crate::tls::Demands::default();
    let arrived = Arrived {
        origin: &by,
        client,
        request_id: "ours",
        peer: &peer,
        trusted: false,
        demands: &demands,
        subject: None,
    };
    request(&mut header, &arrived, upstream).unwrap();
    let mut wire = Vec::new();
    header.header_to_h1_wire(&mut wire);
    let mut lines: Vec<String> = String::from_utf8(wire).unwrap().lines().map(str::to_owned).collect();
    lines.sort_unstable();
    (header, lines)
}

fn get(target: &str, headers: &[(&'static str, &'static str)]) -> RequestHeader {
    let mut header = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
    for (name, value) in headers {
        header.append_header(*name, *value).unwrap();
    }
    header
}

const TRUTH: [&str; 8] = [
    "Host: gitlab.example.com:5050",
    "X-Forwarded-For: 192.0.2.1",
    "X-Forwarded-Host: gitlab.example.com:5050",
    "X-Forwarded-Port: 5050",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Ssl: on",
    "X-Real-IP: 192.0.2.1",
    "X-Request-Id: ours",
];

#[test]
fn q1_q3_q4_whatever_a_client_says_of_itself_the_upstream_is_told_the_truth_once() {
    let lies = [
        ("Host", "evil.test"),
        ("Forwarded", "for=1.2.3.4"),
        ("forwarded", "proto=http;host=evil.test"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("x-forwarded-for", "7.7.7.7"),
        ("X-Forwarded-Host", "evil.test"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Proto", "https, http"),
        ("X-Forwarded-Port", "1"),
        ("X-Forwarded-Ssl", "off"),
        ("X-Forwarded-Server", "evil.test"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Forwarded-Client-Cert", "By=evil"),
        ("X-Forwarded", "for=1.2.3.4"),
        ("X_Forwarded_Proto", "http"),
        ("X-Forwarded_Host", "evil.test"),
        ("X-Real-IP", "6.6.6.6"),
        ("X-Real-Port", "6"),
        ("X-Original-URL", "/v2/_catalog"),
        ("X-Original-Host", "evil.test"),
        ("X-Rewrite-URL", "/v2/_catalog"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Client-IP", "6.6.6.6"),
        ("True-Client-IP", "6.6.6.6"),
        ("Proxy", "http://evil.test"),
        ("X-Request-Id", "theirs"),
        ("X_Request_Id", "theirs"),
        ("X-Scheme", "http"),
        ("X-Remote-User", "root"),
        ("X_Remote_Addr", "6.6.6.6"),
        ("X-Envoy-External-Address", "6.6.6.6"),
    ];
    let (_, lines) = gets(get("/v2/", &lies), &upstream());
    assert_eq!(lines, TRUTH);
    // Alone as well, and where nothing is said.
    for lie in lies {
        assert_eq!(gets(get("/v2/", &[lie]), &upstream()).1, TRUTH, "{lie:?}");
    }
    assert_eq!(gets(get("/v2/", &[]), &upstream()).1, TRUTH);
}

#[test]
fn q2_the_upstream_hears_the_name_that_the_client_used_without_a_port_that_says_nothing() {
    let (_, lines) = gets_by(ALIAS, get("/v2/", &[("Host", "registry.example.com:443")]), &upstream());
    assert!(lines.contains(&"Host: registry.example.com".to_owned()));
    assert!(lines.contains(&"X-Forwarded-Port: 443".to_owned()));
    let (_, lines) = gets_by("http://registry.example.com", get("/v2/", &[]), &upstream());
    assert!(lines.contains(&"X-Forwarded-Proto: http".to_owned()));
    assert!(!lines.iter().any(|line| line.starts_with("X-Forwarded-Ssl")));
    let (_, lines) = gets(get("/v2/", &[]), &Upstream { host: HostSent::Peer, ..upstream() });
    assert!(lines.contains(&"Host: 127.0.0.1:5000".to_owned()));
    assert!(lines.contains(&"X-Forwarded-Host: gitlab.example.com:5050".to_owned()));
}

#[test]
fn q5_path_and_query_and_all_other_headers_keep_their_bytes() {
    let target = "/v2/a%2Fb//./..;x/blobs/uploads/1F?_state=q%3D%3D&&a+b=%zz?/#no".trim_end_matches("#no");
    let kept = [
        ("ACCEPT", "application/json"),
        ("Accept", "*/*;q=0.1"),
        ("Accept-Encoding", "identity"),
        ("Authorization", "Bearer a.b.c"),
        ("Content-Range", "0-1023"),
        ("Range", "bytes=5-"),
        ("User-Agent", "docker/20"),
        ("X-Forward", "kept"),
        ("X-Meta-forwarded", "kept"),
    ];
    let (header, lines) = gets(get(target, &kept), &upstream());
    assert_eq!(header.raw_path(), target.as_bytes());
    let mut expected: Vec<String> = kept.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    expected.extend(TRUTH.iter().map(|line| (*line).to_owned()));
    expected.sort_unstable();
    assert_eq!(lines, expected);
    // And nothing is asked for that the client did not ask for.
    assert!(!gets(get("/v2/", &[]), &upstream()).1.iter().any(|line| line.to_lowercase().starts_with("accept")));
}

#[test]
fn cookies_that_came_in_pieces_are_one_field() {
    let (_, lines) = gets(get("/v2/", &[("cookie", "a=1"), ("cookie", "b=2; c=3"), ("cookie", "d")]), &upstream());
    let cookies: Vec<_> = lines.iter().filter(|line| line.to_lowercase().starts_with("cookie")).collect();
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    assert!(cookies[0].ends_with(": a=1; b=2; c=3; d"), "{cookies:?}");
}

#[test]
fn a_target_that_names_us_becomes_one_that_does_not() {
    let (header, lines) = gets(get("http://evil.test/v2/a%2Fb?x=%3D", &[("Host", "evil.test")]), &upstream());
    assert_eq!(header.raw_path(), b"/v2/a%2Fb?x=%3D");
    assert!(header.uri.authority().is_none());
    assert_eq!(lines, TRUTH);
    let mut http2 = get("/", &[]);
    http2.set_uri(Uri::from_static("https://gitlab.example.com:5050/v2/?n=1"));
    let (header, lines) = gets(http2, &upstream());
    assert_eq!((header.raw_path(), lines), (b"/v2/?n=1".as_slice(), TRUTH.map(str::to_owned).to_vec()));
    assert_eq!(gets(get("*", &[]), &upstream()).0.raw_path(), b"*");
}

#[test]
fn the_operator_removes_sets_and_adds_after_us() {
    let edits = HeaderEdits {
        remove: vec!["x-real-ip".parse().unwrap(), "cookie".parse().unwrap()],
        set: vec![("x-forwarded-proto".parse().unwrap(), HeaderValue::from_static("http"))],
        add: vec![("x-c".parse().unwrap(), HeaderValue::from_static("too"))],
    };
    let upstream = Upstream { request_headers: edits, ..upstream() };
    let (_, lines) = gets(get("/v2/", &[("Cookie", "a"), ("X-C", "1")]), &upstream);
    for line in ["x-forwarded-proto: http", "X-C: 1", "x-c: too"] {
        assert!(lines.contains(&line.to_owned()), "{line} in {lines:?}");
    }
    assert!(!lines.iter().any(|line| line.starts_with("X-Real-IP") || line.starts_with("Cookie")));
}
