//! The door on real sockets, with a scripted service behind it.

use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header, request};
use parking_lot::Mutex;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::{
    Address, Config, Credentials, Internal, Limits, Listener, Networks, Running, Service, Socket, Timeouts, Tls,
};
use crate::exchange::{self, Answer, BodyError, Exchange, Kind, Passage, Permit};
use crate::telemetry::{Format, Log, Reports};

mod acme;
mod alone;
mod change;
mod ending;
mod forward;
mod headers;
mod http1;
mod http2;
mod internal;
mod limits;
mod patience;
mod peers;
#[cfg(feature = "opentelemetry")]
mod traces;

/// Longer than anything here takes on a loaded machine.
const FOREVER: Duration = Duration::from_secs(60);

/// What the client asks for by its path; see `answer`.
pub(super) struct Script {
    /// Holds the service up where a path says so, until a permit is added.
    gate: Semaphore,
    read: AtomicU64,
    written: AtomicU64,
    /// Whether nothing may change any more of what is forwarded.
    withdrawn: Arc<AtomicBool>,
    registry: AtomicBool,
}

impl Service for Script {
    fn pass(&self, head: &request::Parts) -> Result<Passage, Box<Answer>> {
        let path = head.uri.path();
        if path.contains("/paused/") {
            return Err(Box::new(Answer::text(StatusCode::METHOD_NOT_ALLOWED, "paused")));
        }
        let word = |word: &str| path.contains(word);
        Ok(Passage {
            kind: if word("/uploads/") { Kind::Upload } else { Kind::Manifest },
            repository: Some("a/b".to_owned()),
            reference: Some("latest".to_owned()),
            upload: path.split_once("/uploads/").map(|(_, upload)| upload.replace("%3D", "=")),
            body: word("/small/").then_some(1000),
            permit: word("/permitted/").then(|| Box::new(Permitted(self.withdrawn.clone())) as Box<dyn Permit>),
        })
    }

    fn has_registry(&self) -> bool {
        self.registry.load(Ordering::Relaxed)
    }

    async fn answer<E: Exchange>(&self, exchange: &mut E) {
        let uri = exchange.head().uri.clone();
        let size: u64 = uri.query().and_then(|query| query.strip_prefix("n=")?.parse().ok()).unwrap_or(0);
        exchange.notes().subject = Some("alice".to_owned());
        exchange.notes().repository = Some("a/b".to_owned());
        let answer = match uri.path() {
            "/origin" => Answer::text(StatusCode::OK, exchange.caller().origin.to_string()),
            "/who" => {
                let caller = exchange.caller();
                Answer::text(StatusCode::OK, format!("{} {}", caller.address, caller.origin))
            }
            "/trace" => {
                let headers = &exchange.head().headers;
                let said = |name| headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
                Answer::text(StatusCode::OK, format!("{:?} {:?}", said("traceparent"), said("tracestate")))
            }
            "/v2/where" => {
                let origin = exchange.caller().origin.clone();
                let answer = Answer::text(StatusCode::ACCEPTED, exchange.head().uri.to_string());
                answer
                    .header(header::LOCATION, format!("{origin}/v2/x?n=1"))
                    .header(header::LINK, "</v2/y>; rel=\"next\"")
            }
            "/refuse" => Answer::text(StatusCode::UNAUTHORIZED, "no"),
            "/echo" => match exchange::collect(exchange, 64 << 20).await {
                Ok(body) => Answer::new(StatusCode::OK).body(body),
                Err(error) => Answer::text(StatusCode::BAD_REQUEST, error.to_string()),
            },
            "/sink" => self.sink(exchange, false).await,
            "/taste" => self.sink(exchange, true).await,
            "/commit" => {
                let answer = self.sink(exchange, false).await;
                self.gate.acquire().await.unwrap().forget();
                answer
            }
            "/gen" => return self.generate(exchange, size, size).await,
            "/half" => return self.generate(exchange, 200_000, 100_000).await,
            "/panic" => panic!("as the test wants"),
            "/task" => {
                let waiting = self.gate.acquire();
                self.read.fetch_add(1, Ordering::Relaxed);
                waiting.await.unwrap().forget();
                Answer::text(StatusCode::OK, tokio::task::id().to_string())
            }
            "/late" => {
                self.read.fetch_add(1, Ordering::Relaxed);
                self.gate.acquire().await.unwrap().forget();
                panic!("as the test wants")
            }
            "/midway" => {
                self.generate(exchange, 200_000, 100_000).await;
                panic!("as the test wants")
            }
            "/nothing" => return,
            _ => Answer::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        let _ = exchange::send(exchange, answer).await;
    }
}

/// Until it is withdrawn.
#[derive(Debug)]
struct Permitted(Arc<AtomicBool>);

impl Permit for Permitted {
    fn withdrawn(&self) -> Option<Answer> {
        let withdrawn = self.0.load(Ordering::Relaxed);
        withdrawn.then(|| Answer::text(StatusCode::SERVICE_UNAVAILABLE, "no more changes"))
    }
}

impl Script {
    /// Counts the body; `gated`: one piece a permit.
    async fn sink<E: Exchange>(&self, exchange: &mut E, gated: bool) -> Answer {
        let mut total = 0;
        loop {
            if gated {
                exchange.notes().kind = Kind::Upload; // as the registry's origin says, before it asks who may
                self.gate.acquire().await.unwrap().forget();
            }
            match exchange.read().await {
                Ok(Some(bytes)) => {
                    total += bytes.len() as u64;
                    self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
                Ok(None) => return Answer::text(StatusCode::CREATED, total.to_string()),
                Err(BodyError::Stalled) => return Answer::text(StatusCode::REQUEST_TIMEOUT, "stalled"),
                Err(error) => return Answer::text(StatusCode::BAD_REQUEST, error.to_string()),
            }
        }
    }

    async fn generate<E: Exchange>(&self, exchange: &mut E, announced: u64, sent: u64) {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.headers.insert(header::CONTENT_LENGTH, announced.into());
        if exchange.respond(head, announced == 0).await.is_err() {
            return;
        }
        let block = Bytes::from(vec![b'x'; 64 << 10]);
        let mut left = sent;
        while left > 0 {
            let piece = block.slice(..block.len().min(left as usize));
            left -= piece.len() as u64;
            self.written.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if exchange.write(piece, left == 0 && sent == announced).await.is_err() {
                return;
            }
        }
    }
}

fn tcp(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Tcp(address) => Some(*address),
        Address::Unix(_) | Address::Systemd(_) => None,
    }
}

/// An open door.
pub(super) struct Door {
    script: Arc<Script>,
    running: Running<Script>,
    config: Config,
    certificates: Tls,
    tls: SocketAddr,
    clear: SocketAddr,
    internal: SocketAddr,
    roots: RootCertStore,
    /// The certificate that it shows.
    pem: String,
    reports: Reports,
    lines: Arc<Mutex<Vec<u8>>>,
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn certificate() -> (Arc<ServerConfig>, RootCertStore, String) {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (Arc::new(config), roots, made.cert.pem())
}

impl Door {
    fn open() -> Self {
        Self::with(Timeouts::default())
    }

    fn with(timeouts: Timeouts) -> Self {
        Self::built(|config, _| config.timeouts = timeouts)
    }

    /// `change` sees what would be opened: the internal listener is the last.
    fn built(change: impl FnOnce(&mut Config, &mut Vec<(Socket, Listener)>)) -> Self {
        Self::telling(Reports::off(), change)
    }

    /// The same, with somebody who is told of requests.
    fn telling(reports: Reports, change: impl FnOnce(&mut Config, &mut Vec<(Socket, Listener)>)) -> Self {
        let (usual, roots, pem) = certificate();
        let bind = |tls, internal| {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = socket.local_addr().unwrap();
            (Socket::Tcp(socket), Listener::new(address, tls, internal))
        };
        let mut sockets = vec![bind(true, false), bind(false, false), bind(false, true)];
        let addresses: Vec<SocketAddr> = sockets.iter().filter_map(|(_, listener)| tcp(&listener.address)).collect();
        let mut config = Config {
            listeners: sockets.iter().map(|(_, listener)| listener.clone()).collect(),
            external_url: format!("https://localhost:{}", addresses[0].port()).parse().unwrap(),
            aliases: vec![format!("http://localhost:{}", addresses[1].port()).parse().unwrap()],
            routes: Vec::new(),
            upstreams: Vec::new(),
            token: None,
            trusted_proxies: Networks::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            headers: Vec::new(),
            hsts: None,
            internal: Internal::default(),
            debug: None,
        };
        change(&mut config, &mut sockets);
        let internal = config.internal.tls.as_ref().map(|port| crate::tls::port_config(port).unwrap().0);
        let upstreams = Credentials::load(&config.upstreams).unwrap();
        let tls = Tls { usual: Some(usual), internal, upstreams, ..Tls::default() };
        let script = Script {
            gate: Semaphore::new(0),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            withdrawn: Arc::default(),
            registry: AtomicBool::new(false),
        };
        let script = Arc::new(script);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let access = Log::new(Sink(lines.clone()), Format::Json);
        let reports = Reports { access, ..reports };
        let running = super::open(config.clone(), script.clone(), &tls, reports.clone(), sockets).unwrap();
        Self {
            script,
            running,
            config,
            certificates: tls,
            tls: addresses[0],
            clear: addresses[1],
            internal: addresses[2],
            roots,
            pem,
            reports,
            lines,
        }
    }

    /// A clear connection to the public listener.
    async fn clear(&self) -> Wire {
        Wire::new(TcpStream::connect(self.clear).await.unwrap())
    }

    async fn tls(&self, protocol: &str) -> Wire {
        Wire::new(self.tls_over(TcpStream::connect(self.tls).await.unwrap(), protocol).await)
    }

    async fn tls_over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        protocol: &str,
    ) -> tokio_rustls::client::TlsStream<S> {
        let name = ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(self.client_config(&[protocol])));
        within(connector.connect(name, stream)).await.unwrap()
    }

    fn client_config(&self, protocols: &[&str]) -> ClientConfig {
        let mut config = ClientConfig::builder().with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }

    /// An HTTP/2 client.
    fn http2(&self) -> reqwest::Client {
        let tls = self.client_config(&["h2"]);
        reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(FOREVER).build().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.tls.port())
    }

    /// `METHOD PATH HTTP/1.1` with the right Host for the clear listener and these further header lines.
    fn request(&self, line: &str, headers: &str) -> String {
        format!("{line} HTTP/1.1\r\nHost: localhost:{}\r\n{headers}\r\n", self.clear.port())
    }

    /// The access lines, once there are this many.
    async fn lines(&self, count: usize) -> Vec<serde_json::Value> {
        let text = || String::from_utf8(self.lines.lock().clone()).unwrap();
        eventually(|| text().lines().count() >= count).await;
        text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

/// An HTTP/1.1 client that says exactly what it is told.
struct Wire {
    stream: Box<dyn Both>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The message of the only error in an OCI error body.
    fn message(&self) -> String {
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        let [error] = value["errors"].as_array().unwrap().as_slice() else { panic!("{value}") };
        assert!(error["code"].as_str().unwrap().bytes().all(|byte| byte.is_ascii_uppercase()));
        error["message"].as_str().unwrap().to_owned()
    }
}

impl Wire {
    fn new(stream: impl Both + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
        within(self.stream.flush()).await.unwrap();
    }

    /// More bytes into the buffer; false at the end, however the server brought it about.
    async fn more(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        let read = within(self.stream.read(&mut piece)).await.unwrap_or(0);
        self.buffer.extend_from_slice(&piece[..read]);
        read > 0
    }

    /// The next response head.
    async fn head(&mut self) -> Reply {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            assert!(self.more().await, "closed after {:?}", String::from_utf8_lossy(&self.buffer));
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(header::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        Reply { status, headers, body: Vec::new() }
    }

    /// The next response, whole.
    async fn reply(&mut self) -> Reply {
        let mut reply = self.head().await;
        let length: usize = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.buffer.len() < length {
            assert!(self.more().await, "closed in the middle of a body");
        }
        reply.body = self.buffer.drain(..length).collect();
        reply
    }

    /// Everything until the server closes.
    async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }
}

/// A stream that keeps what it reads.
struct Tap {
    stream: TcpStream,
    read: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.read.lock().extend_from_slice(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What an HTTP/2 client begins with: no settings of its own.
const HTTP2_BEGINS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A request without a body on an HTTP/2 stream: what no client of ours would send.
fn http2_request(stream: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0); // a literal that is not indexed (RFC 7541 6.2.2)
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    const HEADERS: u8 = 1;
    const END_STREAM_AND_HEADERS: u8 = 5;
    [&[0, 0, block.len() as u8, HEADERS, END_STREAM_AND_HEADERS, 0, 0, 0, stream], block.as_slice()].concat()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(FOREVER, future).await.expect("longer than anything here takes")
}

/// Waits until it is true.
async fn eventually(mut condition: impl FnMut() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The value, once it has not changed for a while.
async fn settled(value: &AtomicU64) -> u64 {
    let mut last = value.load(Ordering::Relaxed);
    let mut same = 0;
    while same < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = value.load(Ordering::Relaxed);
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}
