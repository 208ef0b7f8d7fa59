use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Balance, HostSent, LocationForm, Peer, Realm, Upstream, UpstreamTimeouts, UpstreamTls};
use super::*;

mod challenges;
mod links;
mod locations;
mod properties;
mod requests;

const EXTERNAL: &str = "https://gitlab.example.com:5050";
const ALIAS: &str = "https://registry.example.com";

fn origin(text: &str) -> Origin {
    text.parse().unwrap()
}

/// Distribution on this machine, once known as `registry:5000`.
fn upstream() -> Upstream {
    let second = Duration::from_secs(1);
    Upstream {
        name: Arc::from("gitlab"),
        peers: vec![Peer { origin: origin("http://127.0.0.1:5000"), weight: NonZeroU32::MIN }],
        balance: Balance::default(),
        tls: UpstreamTls::default(),
        http2: false,
        health: None,
        ejection: None,
        slow_start: Duration::ZERO,
        attempts: NonZeroU32::MIN,
        timeouts: UpstreamTimeouts { connect: second, read: second, write: second, idle: second },
        host: HostSent::Client,
        known_as: vec![origin("http://registry:5000")],
        location: LocationForm::Absolute,
        realms: Vec::new(),
        strict: false,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
    }
}

fn realm(url: &str, clients: &[&str]) -> Realm {
    Realm {
        url: url.to_owned(),
        clients: clients.iter().map(|network| network.parse::<super::super::Network>().unwrap()).collect(),
    }
}

/// What a client of ours gets that came by `R`.
struct Client<'a> {
    method: Method,
    origin: Origin,
    address: IpAddr,
    token: Option<&'a str>,
    upstream: Upstream,
}

impl Client<'_> {
    fn of(upstream: Upstream) -> Self {
        Self {
            method: Method::GET,
            origin: origin(EXTERNAL),
            address: "192.0.2.1".parse().unwrap(),
            token: None,
            upstream,
        }
    }

    fn gets(
        &self,
        status: u16,
        headers: &[(&'static str, &str)],
    ) -> Result<(ResponseHeader, Option<Concern>), Refused> {
        let mut answer = ResponseHeader::build(status, None).unwrap();
        for (name, value) in headers {
            answer.append_header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap()).unwrap();
        }
        let ours = [origin(EXTERNAL), origin(ALIAS)];
        let place = Place {
            method: &self.method,
            origin: &self.origin,
            ours: &ours,
            client: self.address,
            upstream: &self.upstream,
            address: Some("10.1.2.3:5000".parse().unwrap()),
            token: self.token,
        };
        let concern = response(&mut answer, &place)?;
        Ok((answer, concern))
    }

    /// One header of an answer: what becomes of it, and whether that is a concern.
    fn gets_line(&self, status: u16, name: &'static str, value: &str) -> (String, bool) {
        let (answer, concern) = self.gets(status, &[(name, value)]).unwrap();
        let lines: Vec<_> = answer.headers.get_all(name).iter().collect();
        assert_eq!(lines.len(), 1, "{name}: {value}");
        (String::from_utf8_lossy(lines[0].as_bytes()).into_owned(), concern.is_some())
    }
}

#[test]
fn an_answer_keeps_all_but_what_belongs_to_the_connection_or_to_us() {
    let kept = [
        ("Docker-Upload-UUID", "1f"),
        ("Range", "0-1023"),
        ("Content-Range", "bytes 0-1/2"),
        ("Docker-Content-Digest", "sha256:ab"),
        ("Docker-Distribution-Api-Version", "registry/2.0"),
        ("OCI-Subject", "sha256:cd"),
        ("OCI-Filters-Applied", "artifactType"),
        ("OCI-Tag", "a"),
        ("OCI-Chunk-Min-Length", "5"),
        ("OCI-Namespace", "docs"),
        ("Warning", "299 - \"old\""),
        ("Warning", "299 - \"older\""),
        ("Retry-After", "7"),
        ("ETag", "\"sha256:ab\""),
        ("Accept-Ranges", "bytes"),
        ("Content-Length", "12"),
        ("X-Content-Type-Options", "nosniff"),
    ];
    let dropped = [
        ("Connection", "keep-alive, X-Hop, Content-Length"),
        ("Keep-Alive", "timeout=5"),
        ("X-Hop", "1"),
        ("X-Request-Id", "theirs"),
        ("Strict-Transport-Security", "max-age=1; includeSubDomains"),
    ];
    let headers: Vec<_> = dropped.iter().chain(&kept).copied().collect();
    let (answer, concern) = Client::of(upstream()).gets(200, &headers).unwrap();
    assert_eq!(concern, None);
    let mut wire = Vec::new();
    answer.header_to_h1_wire(&mut wire);
    let mut lines: Vec<_> = std::str::from_utf8(&wire).unwrap().lines().collect();
    let mut expected: Vec<_> = kept.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn the_operator_removes_sets_and_adds_after_us() {
    let edits = HeaderEdits {
        remove: vec!["x-a".parse().unwrap(), "location".parse().unwrap()],
        set: vec![("x-b".parse().unwrap(), HeaderValue::from_static("ours"))],
        add: vec![("x-c".parse().unwrap(), HeaderValue::from_static("too"))],
    };
    let client = Client::of(Upstream { response_headers: edits, ..upstream() });
    let headers = [("X-A", "1"), ("X-B", "1"), ("X-B", "2"), ("X-C", "1"), ("Location", "/v2/")];
    let (answer, _) = client.gets(201, &headers).unwrap();
    let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let mut lines: Vec<_> = answer.headers.iter().map(line).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["x-b: ours", "x-c: 1", "x-c: too"]);
}
