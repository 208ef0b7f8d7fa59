//! Requests that somebody else's registry answers: on real sockets, with peers that keep every byte that arrives.

use std::num::NonZeroU32;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::front::{
    Balance, Directions, Fixed, Gate, HeaderEdits, HostSent, LocationForm, PathPrefix, Peer, Redirect, Route, Target,
    Upstream, UpstreamTimeouts, UpstreamTls,
};

mod answers;
mod clients;
mod connections;
mod failures;
mod http2;
mod limits;
mod requests;
mod routes;
mod time;

/// A server of somebody else's registry.
pub(super) struct Theirs {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    /// Every byte that arrived, by connection.
    seen: Mutex<Vec<Vec<u8>>>,
    /// Bytes of bodies that were read, or sent.
    moved: AtomicU64,
    /// Connections that ended.
    ended: AtomicU64,
    /// Uploads that were begun.
    begun: AtomicU64,
    /// Holds a peer up where a path says so, until a permit is added.
    gate: Semaphore,
}

impl Theirs {
    pub(super) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            seen: Mutex::default(),
            moved: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            gate: Semaphore::new(0),
        };
        let state = Arc::new(state);
        let mut tasks = JoinSet::new();
        let shared = state.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = {
                    let mut seen = shared.seen.lock();
                    seen.push(Vec::new());
                    seen.len() - 1
                };
                let state = shared.clone();
                connections.spawn(async move {
                    Talk { stream, state: state.clone(), number, buffer: Vec::new(), requests: 0 }.run().await;
                    state.ended.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        Self { address, state, _tasks: tasks }
    }

    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What arrived, by connection.
    fn seen(&self) -> Vec<String> {
        self.state.seen.lock().iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// What arrived in all.
    fn all(&self) -> String {
        self.seen().concat()
    }
}

/// One connection of a peer.
struct Talk {
    stream: TcpStream,
    state: Arc<State>,
    number: usize,
    buffer: Vec<u8>,
    requests: usize,
}

impl Talk {
    async fn more(&mut self) -> bool {
        let mut piece = vec![0; 64 << 10];
        let read = self.stream.read(&mut piece).await.unwrap_or(0);
        self.state.seen.lock()[self.number].extend_from_slice(&piece[..read.min(4 << 10)]); // enough of a long body
        self.buffer.extend_from_slice(&piece[..read]);
        read > 0
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|bytes| bytes == end) {
                return Some(self.buffer.drain(..at + end.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn skip(&mut self, mut bytes: usize) -> Option<()> {
        while bytes > 0 {
            if self.buffer.is_empty() && !self.more().await {
                return None;
            }
            let taken = self.buffer.len().min(bytes);
            self.buffer.drain(..taken);
            self.state.moved.fetch_add(taken as u64, Ordering::Relaxed);
            bytes -= taken;
        }
        Some(())
    }

    /// Reads a body as its header says; how long it was.
    async fn body(&mut self, head: &str) -> Option<usize> {
        let lower = head.to_lowercase();
        if let Some((_, rest)) = lower.split_once("content-length: ") {
            let length = rest.split("\r\n").next()?.parse().ok()?;
            self.skip(length).await?;
            return Some(length);
        }
        if !lower.contains("transfer-encoding: chunked") {
            return Some(0);
        }
        let mut total = 0;
        loop {
            let line = self.until(b"\r\n").await?;
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            self.skip(size).await?;
            assert_eq!(self.until(b"\r\n").await?, b"\r\n", "a chunk ends where it says");
            total += size;
            if size == 0 {
                return Some(total);
            }
        }
    }

    async fn say(&mut self, bytes: impl AsRef<[u8]>) -> Option<()> {
        self.stream.write_all(bytes.as_ref()).await.ok()
    }

    async fn answer(&mut self, status: &str, headers: &str, body: &str) -> Option<()> {
        let length = body.len();
        self.say(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}")).await
    }

    async fn run(&mut self) {
        while self.one().await.is_some() {}
    }

    /// What the path says.
    async fn one(&mut self) -> Option<()> {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await?).unwrap();
        self.requests += 1;
        let mut words = head.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let word = path.rsplit('/').next()?;
        if let Some((text, goes_on)) = fixed(word) {
            self.say(text).await?;
            return goes_on.then_some(());
        }
        match word {
            "echo" => {
                self.body(&head).await?;
                return self.answer("200 OK", "Content-Type: text/plain\r\n", &head).await;
            }
            "continue" => {
                self.state.gate.acquire().await.ok()?.forget();
                self.say("HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
            "close" => return None,
            // As a peer does whose patience with an idle connection ends just then.
            "stale" if self.requests > 1 => return None,
            "reset" if self.requests > 1 => {
                self.stream.set_zero_linger().unwrap();
                return None;
            }
            "switch" => {
                self.say("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await?;
                return self.stream.read(&mut [0; 1]).await.ok().map(|_| ());
            }
            "slow" => {
                self.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234").await?;
                self.state.gate.acquire().await.ok()?.forget();
                return self.say("56789").await;
            }
            "hints" => {
                self.say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n").await?;
                return self.answer("200 OK", "", "done").await;
            }
            "" if method == "POST" => {
                let upload = format!("{}%3D", self.state.begun.fetch_add(1, Ordering::Relaxed));
                return self.answer("202 Accepted", &format!("Location: /v2/a/blobs/uploads/{upload}\r\n"), "").await;
            }
            "hang" => {
                let length = self.body(&head).await?;
                self.state.gate.acquire().await.ok()?.forget();
                return self.answer("201 Created", "", &length.to_string()).await;
            }
            "blocked" => {
                self.state.gate.acquire().await.ok()?.forget(); // the body is not read before
            }
            "half" => {
                self.say("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n").await?;
                self.say(vec![b'x'; 100_000]).await?;
                return None;
            }
            "gen" => {
                return self.generate(query.strip_prefix("n=").and_then(|size| size.parse().ok()).unwrap_or(0)).await;
            }
            "where" => {
                self.body(&head).await?;
                let host = head.split("Host: ").nth(1)?.split("\r\n").next()?;
                let location = format!("Location: http://{host}/v2/a/blobs/uploads/x?_state=a%2Fb%3D\r\n");
                return self.answer("202 Accepted", &location, "").await;
            }
            _ => {}
        }
        if method == "HEAD" {
            return self.say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
        }
        let length = self.body(&head).await?;
        self.answer("201 Created", "", &length.to_string()).await
    }

    /// A body of so many bytes.
    async fn generate(&mut self, size: usize) -> Option<()> {
        self.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")).await?;
        let piece = vec![b'x'; 64 << 10];
        let mut left = size;
        while left > 0 {
            let part = left.min(piece.len());
            self.say(&piece[..part]).await?;
            self.state.moved.fetch_add(part as u64, Ordering::Relaxed);
            left -= part;
        }
        Some(())
    }
}

/// What is said to some words whatever the request is, and whether the connection goes on.
fn fixed(word: &str) -> Option<(&'static str, bool)> {
    Some(match word {
        "early" => {
            ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\r\nno", true)
        }
        "short" => ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234", false),
        "garbage" => ("GARBAGE\r\n\r\n", false),
        "halfchunked" => ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false),
        "chunked" => ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true),
        "204" => ("HTTP/1.1 204 No Content\r\nRange: 0-9\r\n\r\n", true),
        "304" => ("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", true),
        "204long" => ("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\nConnection: close\r\n\r\n", true),
        "206" => (
            "HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\nContent-Range: bytes 2-4/10\r\n\
             Accept-Ranges: bytes\r\nServer: nginx/1.2.3\r\n\r\ncde",
            true,
        ),
        "busy" => ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nRetry-After: 7\r\n\r\nbusy", true),
        _ => return None,
    })
}

/// The upstream `hub` with these peers.
pub(super) fn upstream(peers: &[String]) -> Upstream {
    let peer = |origin: &String| Peer { origin: origin.parse().unwrap(), weight: NonZeroU32::MIN };
    let seconds = Duration::from_secs;
    Upstream {
        name: "hub".into(),
        peers: peers.iter().map(peer).collect(),
        balance: Balance::RoundRobin,
        tls: UpstreamTls::default(),
        http2: false,
        health: None,
        ejection: None,
        slow_start: Duration::ZERO,
        attempts: NonZeroU32::new(3).unwrap(),
        timeouts: UpstreamTimeouts { connect: seconds(5), read: seconds(60), write: seconds(60), idle: seconds(60) },
        host: HostSent::Client,
        known_as: Vec::new(),
        location: LocationForm::Absolute,
        realms: Vec::new(),
        strict: false,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
    }
}

pub(super) fn route(path: &str, to: Target) -> Route {
    Route { host: None, path: PathPrefix::new(path).unwrap(), methods: Vec::new(), to }
}

pub(super) fn to_hub(path: &str) -> Route {
    route(path, Target::Upstream("hub".into()))
}

/// A door before these peers, with everything below `/v2/` theirs.
pub(super) fn before(peers: &[&Theirs]) -> Door {
    let origins: Vec<String> = peers.iter().map(|peer| peer.origin()).collect();
    before_upstream(upstream(&origins), |_| {})
}

pub(super) fn before_upstream(upstream: Upstream, change: impl FnOnce(&mut Config)) -> Door {
    Door::built(|config, _| {
        config.routes = vec![to_hub("/v2/")];
        config.upstreams = vec![upstream];
        change(config);
    })
}

/// An address where nobody listens.
pub(super) fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
