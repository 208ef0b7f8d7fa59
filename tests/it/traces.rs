//! Promise: with the cargo feature `opentelemetry`, every request has a span at the collector, and only a trusted proxy
//! says which trace it belongs to.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustls::pki_types::PrivateKeyDer;

use crate::support::content::Content;
use crate::support::pierhead::Site;
use crate::support::wait_for;

/// A collector on this machine: keeps what it is sent and says that all is well.
struct Collector {
    origin: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

/// A span as its bytes say (opentelemetry/proto/trace/v1/trace.proto).
#[derive(Debug, Clone, Default)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    attributes: HashMap<String, String>,
    failed: bool,
    service: String,
}

impl Collector {
    fn open() -> Self {
        Self::speaking("http", request)
    }

    /// With TLS, and what trusts it.
    fn with_tls() -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_no_client_auth();
        let config = Arc::new(config.with_single_cert(vec![made.cert.der().clone()], key).expect("a pair"));
        let collector = Self::speaking("https", move |stream| {
            let tls = rustls::ServerConnection::new(Arc::clone(&config)).expect("a connection");
            request(rustls::StreamOwned::new(tls, stream))
        });
        (collector, made.cert.pem())
    }

    fn speaking(scheme: &str, request: impl Fn(TcpStream) -> (String, Vec<u8>) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let origin = format!("{scheme}://localhost:{}", listener.local_addr().expect("it is bound").port());
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&spans);
        // It ends with the tests' process: nobody connects any more.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (path, body) = request(stream);
                assert_eq!(path, "POST /v1/traces HTTP/1.1");
                kept.lock().expect("nobody panicked").extend(spans_of(&body));
            }
        });
        Self { origin, spans }
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().expect("nobody panicked").clone()
    }

    /// The span of a request, once it is there.
    fn span(&self, request_id: &str) -> Span {
        wait_for("the span", 20, || {
            self.spans().into_iter().find(|span| span.attributes["pierhead.request_id"] == request_id)
        })
    }
}

/// Reads one request and answers it.
fn request(mut stream: impl Read + Write) -> (String, Vec<u8>) {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        let count = stream.read(&mut piece).expect("a request");
        assert!(count > 0, "the request ended in its header");
        bytes.extend_from_slice(&piece[..count]);
    };
    let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = bytes.split_off(end);
    let begun = body.len();
    body.resize(length.expect("a length"), 0);
    stream.read_exact(&mut body[begun..]).expect("the body");
    assert!(head.to_lowercase().contains("content-type: application/x-protobuf"), "{head}");
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").and_then(|()| stream.flush()).expect("answered");
    (head.lines().next().expect("a line").to_owned(), body)
}

/// The fields of a message: number, and number or bytes (protobuf.dev/programming-guides/encoding).
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (byte, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let length = match tag & 7 {
            0 => {
                found.push((tag >> 3, varint(&mut bytes).to_string().into_bytes()));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("no such wire type: {other}"),
        };
        let (value, rest) = bytes.split_at(length);
        found.push((tag >> 3, value.to_vec()));
        bytes = rest;
    }
    found
}

fn spans_of(body: &[u8]) -> Vec<Span> {
    let all = |message: &[u8], number| {
        fields(message).into_iter().filter(move |(found, _)| *found == number).map(|(_, value)| value)
    };
    let mut spans = Vec::new();
    for resource_spans in all(body, 1) {
        let resource: HashMap<String, String> =
            all(&resource_spans, 1).flat_map(|resource| all(&resource, 1)).map(|pair| attribute(&pair)).collect();
        for span in all(&resource_spans, 2).flat_map(|scope| all(&scope, 2)) {
            let mut told = Span { service: resource["service.name"].clone(), ..Span::default() };
            for (number, value) in fields(&span) {
                let hex = || value.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                match number {
                    1 => told.trace = hex(),
                    2 => told.id = hex(),
                    4 => told.parent = hex(),
                    5 => told.name = String::from_utf8(value).expect("text"),
                    9 => told.attributes.extend([attribute(&value)]),
                    15 => told.failed = fields(&value).contains(&(3, b"2".to_vec())),
                    _ => {}
                }
            }
            spans.push(told);
        }
    }
    spans
}

/// A key and its value, a text or a number.
fn attribute(pair: &[u8]) -> (String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let mut pair = fields(pair).into_iter();
    let (_, key) = pair.next().expect("a key");
    let (_, value) = pair.next().expect("a value");
    let (_, value) = fields(&value).into_iter().next().unwrap_or_default();
    (text(key), text(value))
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn site(collector: &Collector, more: &[&str]) -> Site {
    let site = Site::new();
    let log = format!("log: {{ format: json, traces: {{ endpoint: \"{}\" }} }}", collector.origin);
    site.configure(&[&[log.as_str()], more].concat());
    site
}

#[test]
fn every_request_has_a_span_that_says_what_it_was_and_the_last_ones_go_when_the_server_stops() {
    let collector = Collector::open();
    let site = site(&collector, &[]);
    let server = site.start();
    let repository = site.admin().repository("traced/app", "pull,push");
    repository.push("latest", &[Content::new(1, 1000)]).expect("pushed");
    let ask = |path: &str| {
        let request = repository.request(Method::GET, path).header("Accept", "*/*").header("traceparent", PARENT);
        let answer = request.send().expect("an answer");
        (answer.headers()["x-request-id"].to_str().expect("text").to_owned(), answer.status().as_u16())
    };
    let (id, status) = ask("manifests/latest");
    let span = collector.span(&id);
    assert_eq!(span.name, "GET manifest");
    assert_eq!(span.service, "pierhead");
    assert_eq!((span.trace.len(), span.id.len(), span.parent.as_str()), (32, 16, ""));
    assert!(!PARENT.contains(&span.trace), "nobody told us to trust who sent this");
    let expected = [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("url.path", "/v2/traced/app/manifests/latest"),
        ("client.address", "127.0.0.1"),
        ("network.peer.address", "127.0.0.1"),
        ("pierhead.kind", "manifest"),
        ("pierhead.repository", "traced/app"),
        ("pierhead.reference", "latest"),
    ];
    for (name, value) in expected {
        assert_eq!(span.attributes[name], value, "{name}");
    }
    assert_eq!((status, span.failed), (200, false));

    let (last, status) = ask("manifests/missing");
    assert_eq!(status, 404);
    assert!(server.stop().success());
    let spans = collector.spans();
    let last = spans.iter().find(|span| span.attributes["pierhead.request_id"] == last);
    assert_eq!(last.expect("it went before the end").attributes["http.response.status_code"], "404");
    let token = spans.iter().find(|span| span.name == "GET token").expect("logins are requests");
    assert!(token.attributes["url.query"].contains("scope="), "{token:?}");
}

#[test]
fn a_trusted_proxys_trace_goes_on_here_and_what_it_does_not_sample_is_not_sent() {
    let collector = Collector::open();
    let site = site(&collector, &["trusted_proxies: [127.0.0.1]"]);
    let server = site.start();
    let admin = site.admin();
    let ask = |id: &str, parent: &str| {
        let request = admin.request(Method::GET, "/v2/").header("X-Request-Id", id).header("traceparent", parent);
        assert_eq!(request.send().expect("an answer").status(), 401);
    };
    ask("not-sampled", &PARENT.replace("-01", "-00"));
    ask("sampled", PARENT);
    ask("broken", "00-xyz-01");
    let span = collector.span("sampled");
    assert_eq!((span.trace.as_str(), span.parent.as_str()), ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"));
    assert_ne!(span.id, span.parent);
    assert_eq!(collector.span("broken").parent, "", "what cannot be read is no trace");
    assert!(server.stop().success());
    assert!(!collector.spans().iter().any(|span| span.attributes["pierhead.request_id"] == "not-sampled"));
}

#[test]
fn a_collector_may_speak_tls_and_must_be_trusted_by_this_machine() {
    let (collector, authority) = Collector::with_tls();
    let site = site(&collector, &["metrics: { address: off }"]);
    let file = site.directory().join("collector.crt");
    fs::write(&file, authority).expect("written");
    let server = site.start_with("SSL_CERT_FILE", file.as_os_str());
    let answer = site.registry(None).request(Method::GET, "/v2/").send().expect("an answer");
    collector.span(answer.headers()["x-request-id"].to_str().expect("text"));
    assert!(server.stop().success());
}

#[test]
fn nobody_waits_for_a_collector_that_never_answers_nor_does_the_end_for_long() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let collector = Collector { origin: format!("http://{address}"), spans: Arc::default() };
    let site = site(&collector, &[]);
    let server = site.start();
    let registry = site.registry(None);
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(registry.request(Method::GET, "/v2/").send().expect("an answer").status(), 401);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "100 requests took {:?}", start.elapsed());
    drop(registry);
    let start = Instant::now();
    assert!(server.stop().success());
    assert!(start.elapsed() < Duration::from_secs(15), "the end took {:?}", start.elapsed());
}
