//! A connection that says exactly what it is told, when it is told.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::pierhead::Site;

/// One look at whether something has come.
const GLANCE: Duration = Duration::from_millis(50);

/// How to reach a server.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    /// What the server is called, with its port.
    pub(super) authority: String,
    roots: Arc<RootCertStore>,
}

impl Door {
    pub(super) fn of(site: &Site) -> Self {
        let mut roots = RootCertStore::empty();
        let pem = site.certificate_authority();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.expect("a certificate")).expect("a certificate that can be trusted");
        }
        let authority = site.authority();
        let port: u16 = authority.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        Self { address: ([127, 0, 0, 1], port).into(), authority, roots: Arc::new(roots) }
    }

    /// Bare TCP.
    pub(super) fn tcp(&self) -> Wire<TcpStream> {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(GLANCE)).expect("a socket has a timeout");
        stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a socket has a timeout");
        stream.set_nodelay(true).expect("a socket can do without delay");
        Wire { stream, closed: false }
    }

    /// TLS, with its handshake done.
    pub(super) fn tls(&self, protocol: &str) -> Wire<Tls> {
        self.tls_named("localhost", protocol)
    }

    pub(super) fn tls_named(&self, name: &str, protocol: &str) -> Wire<Tls> {
        let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("usual versions")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let client = ClientConnection::new(config.into(), name).expect("a client");
        let mut stream = StreamOwned::new(client, self.tcp().stream);
        let deadline = Instant::now() + Duration::from_secs(20);
        while stream.conn.is_handshaking() {
            match stream.conn.complete_io(&mut stream.sock) {
                Ok(_) => {}
                Err(error) if is_early(&error) && Instant::now() < deadline => {}
                Err(error) => panic!("no handshake: {error}"),
            }
        }
        Wire { stream, closed: false }
    }
}

pub(super) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A connection.
pub(super) struct Wire<S> {
    pub(super) stream: S,
    closed: bool,
}

impl<S: Read + Write> Wire<S> {
    /// Sends. False: the server has had enough.
    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = self.stream.write_all(bytes.as_ref()).and_then(|()| self.stream.flush());
        self.closed |= sent.is_err();
        sent.is_ok()
    }

    /// What has come, after a short wait for it.
    pub(super) fn glance(&mut self) -> Vec<u8> {
        let mut piece = vec![0; 64 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => self.closed = true,
            Ok(read) => {
                piece.truncate(read);
                return piece;
            }
            Err(error) if is_early(&error) => {}
            Err(_) => self.closed = true,
        }
        Vec::new()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Everything until the server closes, which must be soon.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.closed {
            assert!(Instant::now() < deadline, "the server neither closes nor goes on after {:?}", text(&all));
            all.extend(self.glance());
        }
        all
    }

    /// Sends `piece` again and again, a glance apart, until the server closes; what it said.
    pub(super) fn drip(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.closed {
            assert!(Instant::now() < deadline, "the server lets it drip");
            self.send(piece);
            all.extend(self.glance());
        }
        // What came before the end may be behind a write that failed.
        self.closed = false;
        all.extend(self.rest());
        all
    }
}

impl Wire<TcpStream> {
    pub(super) fn end(&self) {
        let _ = self.stream.shutdown(Shutdown::Write); // the server may have been faster
    }
}

fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned()
}

/// The statuses of the answers in what an HTTP/1.1 server said. Every refusal must be one that registry clients can
/// print.
pub(super) fn statuses(mut said: &[u8]) -> Vec<u16> {
    let mut found = Vec::new();
    while !said.is_empty() {
        let end = said.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a whole header");
        let head = std::str::from_utf8(&said[..end]).expect("a header is text").to_ascii_lowercase();
        let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        assert!(head.contains("\r\nx-request-id: ") && !head.contains("\r\nserver:"), "{head}");
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().expect("a length"));
        let body = &said[end + 4..end + 4 + length];
        if status >= 400 && head.contains("application/json") {
            let value: serde_json::Value = serde_json::from_slice(body).expect("JSON");
            // The token service speaks OAuth.
            assert!(value["errors"][0]["code"].is_string() || value["error"].is_string(), "{value}");
        }
        found.push(status);
        said = &said[end + 4 + length..];
    }
    found
}
