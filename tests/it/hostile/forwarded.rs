//! The same clients where somebody else's registry answers: nothing but whole, clean requests reaches it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::frames::Http2;
use super::wire::{statuses, text};
use super::{Fort, http1, http2};

/// A registry that believes what it reads, byte for byte, and keeps it.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<Heard>>>);

/// What one connection brought.
#[derive(Debug, Default)]
struct Heard {
    /// The first lines of requests that came whole.
    whole: Vec<String>,
    /// The header of one that did not.
    broken_off: Option<String>,
    /// What no proxy may send.
    dirt: Vec<String>,
}

impl Sink {
    /// Its address.
    fn open(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let sink = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sink = sink.clone();
                thread::spawn(move || {
                    let mut heard = Heard::default();
                    Talk { stream, buffer: Vec::new() }.listen(&mut heard);
                    if let Ok(mut all) = sink.0.lock() {
                        all.push(heard); // else the test has failed
                    }
                });
            }
        });
        format!("http://{address}")
    }
}

struct Talk {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Talk {
    fn listen(&mut self, heard: &mut Heard) {
        while let Some(head) = self.until(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&head).into_owned();
            let line = head.lines().next().unwrap_or_default().to_owned();
            heard.dirt.extend(dirt(&head).map(|dirt| format!("{dirt} in {head:?}")));
            let Some(()) = self.body(&head) else {
                heard.broken_off = Some(head);
                return;
            };
            heard.whole.push(line);
            let answer =
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n";
            if self.stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
        if !self.buffer.is_empty() {
            heard.dirt.push(format!("half a header: {:?}", text(&self.buffer)));
        }
    }

    fn more(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        let read = self.stream.read(&mut piece).unwrap_or(0);
        self.buffer.extend_from_slice(&piece[..read]);
        read > 0
    }

    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|bytes| bytes == end) {
                return Some(self.buffer.drain(..at + end.len()).collect());
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        while self.buffer.len() < bytes {
            if !self.more() {
                return None;
            }
        }
        self.buffer.drain(..bytes);
        Some(())
    }

    fn body(&mut self, head: &str) -> Option<()> {
        let lower = head.to_lowercase();
        if let Some((_, length)) = lower.split_once("content-length: ") {
            return self.skip(length.split("\r\n").next()?.parse().ok()?);
        }
        if !lower.contains("transfer-encoding: chunked") {
            return Some(());
        }
        loop {
            let size = self.until(b"\r\n")?;
            let size = usize::from_str_radix(text(&size).trim_end(), 16).ok()?;
            self.skip(size + 2)?;
            if size == 0 {
                return Some(());
            }
        }
    }
}

/// What is wrong with a header.
fn dirt(head: &str) -> Option<&'static str> {
    let lower = head.to_lowercase();
    let fields = |name: &str| lower.matches(&format!("\r\n{name}:")).count();
    let lines = head.trim_end().split("\r\n");
    if lines.clone().any(|line| line.contains(['\r', '\n', '\0'])) {
        return Some("a line in a line");
    }
    if lines.skip(1).any(|line| line.starts_with([' ', '\t']) || !line.contains(": ")) {
        return Some("a field that is none");
    }
    if fields("content-length") + fields("transfer-encoding") > 1 {
        return Some("two ways to end");
    }
    if fields("host") != 1 || !lower.contains("\r\nhost: localhost:") {
        return Some("a host that is not ours");
    }
    ["connection", "upgrade", "te", "keep-alive", "proxy-connection"]
        .iter()
        .any(|name| fields(name) > 0)
        .then_some("a field for us alone")
}

/// Every path of these clients' that is served at all goes to the sink.
fn fort(sink: &Sink) -> Fort {
    let upstreams = format!("upstreams: {{ sink: {{ peers: [\"{}\"], health: off, ejection: off }} }}", sink.open());
    Fort::new(&["registry: false", "token: { upstream: sink }", &upstreams])
}

/// All that came was clean, and the requests of honest clients came whole. What was broken off ended its connection, as the
/// sink goes no further then.
fn only_clean(fort: Fort, sink: &Sink, honest: usize) {
    drop(fort); // with it its connections to the sink end
    crate::support::wait_for("the sink to have heard all", 20, || {
        let heard = sink.0.lock().expect("nobody panics");
        let whole = heard.iter().flat_map(|heard| &heard.whole).filter(|line| *line == "GET /v2/ HTTP/1.1").count();
        (whole >= honest).then_some(())
    });
    let heard = sink.0.lock().expect("nobody panics");
    let dirt: Vec<&String> = heard.iter().flat_map(|heard| &heard.dirt).collect();
    assert!(dirt.is_empty(), "{dirt:?}");
}

#[test]
fn nothing_of_what_can_be_read_in_two_ways_reaches_a_registry() {
    let sink = Sink::default();
    let fort = fort(&sink);
    let cases = http1::cases();
    let host = format!("Host: {}\r\n", fort.door.authority);
    fort.withstands(
        &cases,
        |case| case.0,
        |http1::Case(name, bytes, expected)| {
            let mut wire = fort.door.tls("http/1.1");
            wire.send(bytes.replace("HOST", &host));
            let said = wire.rest();
            assert_eq!(statuses(&said), *expected, "{name}: {}", text(&said));
        },
    );
    only_clean(fort, &sink, cases.len());
    let heard = sink.0.lock().expect("nobody panics");
    let whole: Vec<&String> = heard.iter().flat_map(|heard| &heard.whole).collect();
    assert!(whole.iter().all(|line| *line == "GET /v2/ HTTP/1.1"), "{whole:?}");
    assert_eq!(whole.len(), cases.len(), "one for each honest client");
    let broken = heard.iter().filter_map(|heard| heard.broken_off.as_ref());
    let others: Vec<&String> = broken.filter(|head| !head.starts_with("POST /jwt/auth HTTP/1.1")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn frames_that_no_honest_client_sends_reach_a_registry_as_clean_requests_or_not_at_all() {
    let sink = Sink::default();
    let fort = fort(&sink);
    fort.withstands(http2::CASES, |case| case.0, |(_, attack)| attack(&mut Http2::connect(&fort.door)));
    only_clean(fort, &sink, http2::CASES.len());
}
