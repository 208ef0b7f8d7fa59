//! Peers to connect to, with TLS and without.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::tls;

/// An authority and what it has signed, in a folder.
pub(super) struct Authority {
    folder: tempfile::TempDir,
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let made = Self { folder: tempfile::tempdir().unwrap(), params, key: KeyPair::generate().unwrap() };
        let certificate = made.params.self_signed(&made.key).unwrap();
        made.write("ca.crt", &certificate.pem());
        made
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.path("ca.crt")
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::File::create(self.path(name)).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// A certificate for one name or address.
    pub(super) fn sign(&self, name: &str) -> tls::Files {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signed = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        let files = (format!("{name}.crt"), format!("{name}.key"));
        self.write(&files.0, &signed.pem());
        self.write(&files.1, &key.serialize_pem());
        tls::Files::new(self.path(&files.0), self.path(&files.1))
    }

    /// What a server shows that has this certificate, and asks for if clients must have one of this authority's.
    pub(super) fn server(&self, name: &str, asks: Option<&Path>) -> Arc<ServerConfig> {
        let mut port = tls::Port::new(self.sign(name));
        if let Some(authority) = asks {
            port.clients = tls::Clients::MustProve(vec![authority.to_owned()]);
        }
        tls::port_config(&port).unwrap().0
    }
}

/// A peer that gives the same answer to whatever it is asked.
#[derive(Clone, Default)]
pub(super) struct Answering {
    pub(super) status: Arc<AtomicU16>,
    /// Takes requests and does not answer.
    pub(super) hung: Arc<AtomicBool>,
    pub(super) connections: Arc<AtomicUsize>,
    pub(super) requests: Arc<AtomicUsize>,
    /// What the last one said.
    pub(super) head: Arc<Mutex<String>>,
}

impl Answering {
    /// Serves until the test's runtime ends; gives the port.
    pub(super) async fn serve(&self, tls: Option<Arc<ServerConfig>>) -> u16 {
        self.status.store(401, Ordering::Relaxed);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (peer, tls) = (peer.clone(), tls.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else { return peer.answer(stream).await };
                    // Where there is no connection, the client did not like us.
                    if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                        peer.answer(stream).await;
                    }
                });
            }
        });
        port
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let mut head = Vec::new();
        while let Ok(byte) = stream.read_u8().await {
            head.push(byte);
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            *self.head.lock() = String::from_utf8_lossy(&head).into_owned();
            head.clear();
            self.requests.fetch_add(1, Ordering::Relaxed);
            if self.hung.load(Ordering::Relaxed) {
                continue;
            }
            let status = self.status.load(Ordering::Relaxed);
            let answer = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 2\r\n\r\nok");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
