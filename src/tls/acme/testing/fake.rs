//! For the tests of this room: an authority that does what Pebble does not. Orders are ready at once, and signed at the
//! third look.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rcgen::{CertificateSigningRequestParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::super::super::policy::provider;
use super::front_door;

/// What it says to a request.
pub(in super::super) enum Says {
    /// This, as JSON.
    Json(u16, Value),
    /// This.
    Text(u16, String),
    /// Nothing, ever.
    Hang,
    /// A directory without renewalInfo.
    Unaware,
}

/// What it says instead of what it always says; `/orders?replaces` is an order that names what it replaces.
type Instead = dyn Fn(&str) -> Option<Says> + Send + Sync;

/// A running authority.
pub(in super::super) struct Fake {
    pub(in super::super) folder: tempfile::TempDir,
    pub(in super::super) directory: String,
    pub(in super::super) ca: PathBuf,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    asked: Vec<(String, Value)>,
    placed: Value,
    looks: u32,
    signed: String,
}

impl Fake {
    pub(in super::super) async fn start(instead: impl Fn(&str) -> Option<Says> + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = front_door(folder.path());
        let chain = vec![CertificateDer::from_pem_file(folder.path().join("server.crt")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(folder.path().join("server.key")).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let memory = Arc::new(Mutex::new(Memory::default()));
        let (directory, shared, instead) = (format!("{base}/dir"), Arc::clone(&memory), Arc::new(instead));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, base) = (acceptor.clone(), base.clone());
                let (memory, instead) = (Arc::clone(&shared), Arc::clone(&instead));
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.ok()?;
                    let (path, said) = read(&mut stream).await?;
                    let answer = answer(&base, &path, said, &memory, &*instead);
                    let (status, body) = match answer {
                        Some(answer) => answer,
                        None => {
                            tokio::time::sleep(Duration::from_secs(600)).await; // until the test ends
                            return None;
                        }
                    };
                    let head = format!(
                        "HTTP/1.1 {status} x\r\nReplay-Nonce: bm9uY2U\r\nLocation: {base}/order/1\r\nRetry-After: 3600\r\n\
                         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                        body.len()
                    );
                    stream.write_all(head.as_bytes()).await.ok()?;
                    if path != "/nonce" {
                        stream.write_all(body.as_bytes()).await.ok()?;
                    }
                    stream.shutdown().await.ok()
                });
            }
        });
        Self { folder, directory, ca, memory }
    }

    /// What it was asked: paths and payloads.
    pub(in super::super) fn asked(&self) -> Vec<(String, Value)> {
        self.memory.lock().asked.clone()
    }
}

/// The path of a request, and the payload of its JWS.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, Value)> {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    let body = loop {
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        text.push_str(std::str::from_utf8(&buffer[..count]).ok()?);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break body;
        }
    };
    let path = text.split(' ').nth(1)?.to_owned();
    let jws: Value = serde_json::from_str(body).unwrap_or_default();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(jws["payload"].as_str().unwrap_or_default()).ok()?;
    Some((path, serde_json::from_slice(&payload).unwrap_or_default()))
}

/// Status and body; `None` for none ever.
fn answer(base: &str, path: &str, said: Value, memory: &Mutex<Memory>, instead: &Instead) -> Option<(u16, String)> {
    let mut memory = memory.lock();
    memory.asked.push((path.to_owned(), said.clone()));
    let replaces = said["replaces"].is_string().then(|| instead(&format!("{path}?replaces"))).flatten();
    match replaces.or_else(|| instead(path)) {
        Some(Says::Json(status, body)) => return Some((status, body.to_string())),
        Some(Says::Text(status, body)) => return Some((status, body)),
        Some(Says::Hang) => return None,
        Some(Says::Unaware) => {
            let mut directory = directory(base);
            directory.as_object_mut().unwrap().remove("renewalInfo");
            return Some((200, directory.to_string()));
        }
        None => {}
    }
    Some(match path {
        "/dir" => (200, directory(base).to_string()),
        "/nonce" => (200, String::new()),
        "/account" => (201, json!({ "status": "valid" }).to_string()),
        "/orders" => {
            *memory = Memory { asked: std::mem::take(&mut memory.asked), placed: said, ..Memory::default() };
            (201, order(base, &memory, "ready"))
        }
        "/finalize" => {
            memory.signed = sign(said["csr"].as_str().unwrap());
            (200, order(base, &memory, "processing"))
        }
        "/certificate" => (200, memory.signed.clone()),
        // Also where the account is.
        _ if memory.signed.is_empty() => {
            (200, order(base, &memory, if memory.placed.is_null() { "valid" } else { "ready" }))
        }
        _ => {
            memory.looks += 1;
            (200, order(base, &memory, if memory.looks < 3 { "processing" } else { "valid" }))
        }
    })
}

fn directory(base: &str) -> Value {
    json!({
        "newNonce": format!("{base}/nonce"), "newAccount": format!("{base}/account"), "newOrder": format!("{base}/orders"),
        "renewalInfo": format!("{base}/renewal"), "meta": { "profiles": { "classic": "", "shortlived": "" } },
    })
}

fn order(base: &str, memory: &Memory, status: &str) -> String {
    let mut order = json!({
        "status": status, "authorizations": [], "finalize": format!("{base}/finalize"),
        "certificate": format!("{base}/certificate"),
    });
    for key in ["replaces", "profile"] {
        if let Some(said) = memory.placed[key].as_str() {
            order[key] = said.into();
        }
    }
    order.to_string()
}

fn sign(request: &str) -> String {
    let request = BASE64_URL_SAFE_NO_PAD.decode(request).unwrap();
    let request = CertificateSigningRequestParams::from_der(&request.into()).unwrap();
    let issuer =
        CertifiedIssuer::self_signed(rcgen::CertificateParams::default(), KeyPair::generate().unwrap()).unwrap();
    request.signed_by(&issuer).unwrap().pem()
}
