//! How do we prove that a name is ours?
//!
//! The authority asks at the name, and whoever is there must know the answer. Answers are files in the storage folder, so
//! that any of several nodes can give them: `challenges/http-01/TOKEN` holds the key authorization (RFC 8555 8.1),
//! `challenges/tls-alpn-01/NAME` too, and whoever is asked makes the certificate of RFC 8737 from it.
//!
//! **Invariants**
//! - Nothing of what a client sends becomes a path but a token of base64url or a DNS name.
//! - Anybody may ask, as often as he likes, also when the folder is on a server that is away: at most [`LOOKS`] threads
//!   look at a time, and nobody waits for longer than [`PATIENCE`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ClientHello;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::super::policy::provider;
use crate::storage::durable;

/// The protocol that an authority asks by (RFC 8737 6.2).
const PROTOCOL: &[u8] = b"acme-tls/1";
/// The longest token. Let's Encrypt's have 43 characters.
const LONGEST_TOKEN: usize = 256;
/// The longest DNS name as text (RFC 1035 2.3.4).
const LONGEST_NAME: usize = 253;
/// The longest key authorization: a token, a dot and a digest.
const LONGEST_ANSWER: u64 = 512;
/// How many look into the folder at a time.
const LOOKS: usize = 8;
/// How long it may take to look, with the wait for a turn. Authorities wait for some ten seconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// A way to prove that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Challenge {
    /// In a TLS handshake on port 443 (RFC 8737).
    TlsAlpn01,
    /// With a file on port 80 (RFC 8555 8.3).
    Http01,
    /// With a record in the DNS (RFC 8555 8.4).
    Dns01,
}

impl Challenge {
    /// As RFC 8555 spells it, and the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
            Self::Dns01 => "dns-01",
        }
    }
}

/// Whether it is an authority that asks, and no client: it offers the one protocol of RFC 8737 and nothing else.
pub fn is_asked_for(hello: &ClientHello<'_>) -> bool {
    rustls_acme::is_tls_alpn_challenge(hello)
}

/// Answers to challenges.
#[derive(Debug, Clone)]
pub struct Answers {
    folder: PathBuf,
    turns: Arc<Semaphore>,
}

impl Answers {
    /// Those of a storage folder.
    pub fn of(storage: &Path) -> Self {
        Self { folder: storage.join("challenges"), turns: Arc::new(Semaphore::new(LOOKS)) }
    }

    /// The key authorization for a token of HTTP-01, if there is one.
    pub async fn http(&self, token: &str) -> Option<String> {
        let file = self.file(Challenge::Http01, token)?;
        self.look(move || read(&file).ok()).await
    }

    /// What to do the handshake with that proves a name, if one is to be proven. The handshake is all of that connection.
    pub async fn tls(&self, name: &str) -> Option<Arc<ServerConfig>> {
        let name = name.to_ascii_lowercase();
        let file = self.file(Challenge::TlsAlpn01, &name)?;
        match self.look(move || Some(proof(&name, &read(&file).ok()?))).await? {
            Ok(config) => Some(config),
            Err(error) => {
                tracing::error!(%error, "the proof that a name is ours cannot be made");
                None
            }
        }
    }

    /// What there is to see, if it is seen in time. A thread that hangs keeps its turn: it cannot be ended.
    async fn look<T: Send + 'static>(&self, see: impl FnOnce() -> Option<T> + Send + 'static) -> Option<T> {
        let seen = async {
            let turn = Arc::clone(&self.turns).acquire_owned().await.ok()?; // never closed
            let looking = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                see()
            });
            looking.await.ok()?
        };
        timeout(PATIENCE, seen).await.ok()?
    }

    /// Has every node answer. `subject` is the token of HTTP-01, or the name of TLS-ALPN-01.
    pub(super) fn put(&self, kind: Challenge, subject: &str, key_authorization: &str) -> io::Result<()> {
        let file = self.file(kind, subject).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        durable::make_dirs(file.parent().unwrap_or(&self.folder))?;
        durable::write(&file, key_authorization.as_bytes(), durable::SECRET)
    }

    /// Has no node answer so any more. Another answer stays: a later order for the same name has put it there.
    pub(super) fn take(&self, kind: Challenge, subject: &str, key_authorization: &str) -> io::Result<()> {
        let Some(file) = self.file(kind, subject) else { return Ok(()) };
        // What is put between the look and the removal is lost, and that order tries again: only a lock could help.
        let taken = match read(&file) {
            Ok(held) if held != key_authorization => Ok(()),
            Ok(_) => std::fs::remove_file(file),
            Err(error) => Err(error),
        };
        match taken {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What was put before then and is still there: by what, its subject and the key authorization. What cannot be read
    /// is left out, for [`take`](Self::take) could not know it. Blocks.
    pub(super) fn older(&self, than: SystemTime) -> Vec<(Challenge, String, String)> {
        let is_older = |file: &std::fs::DirEntry| {
            let modified = file.metadata().and_then(|data| data.modified());
            modified.is_ok_and(|at| at < than)
        };
        let mut found = Vec::new();
        for kind in [Challenge::Http01, Challenge::TlsAlpn01] {
            let files = std::fs::read_dir(self.folder.join(kind.name())).into_iter().flatten().flatten();
            for subject in files.filter(is_older).filter_map(|file| file.file_name().into_string().ok()) {
                let Some(Ok(held)) = self.file(kind, &subject).map(|file| read(&file)) else { continue };
                found.push((kind, subject, held));
            }
        }
        found
    }

    fn file(&self, kind: Challenge, subject: &str) -> Option<PathBuf> {
        let fits = match kind {
            Challenge::Http01 => is_token(subject),
            Challenge::TlsAlpn01 => is_name(subject),
            Challenge::Dns01 => false,
        };
        fits.then(|| self.folder.join(kind.name()).join(subject))
    }
}

/// RFC 8555 8.1: base64url.
pub(super) fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=LONGEST_TOKEN).contains(&text.len()) && text.bytes().all(fits)
}

fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| !label.is_empty() && label.bytes().all(fits);
    text.len() <= LONGEST_NAME && text.split('.').all(label)
}

fn read(file: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(file)?.take(LONGEST_ANSWER).read_to_string(&mut text)?;
    Ok(text)
}

/// RFC 8737 3: a certificate of the name that carries the digest of the key authorization.
fn proof(name: &str, key_authorization: &str) -> Result<Arc<ServerConfig>, Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&Sha256::digest(key_authorization))];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = provider();
    // Not compared with each other: the library knows nothing of the extension, which is critical.
    let pair = CertifiedKey::new(vec![certificate], provider.key_provider.load_private_key(key)?);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_is_there_for_as_long_as_it_is_wanted_and_on_every_node() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Answers::of(folder.path()), Answers::of(folder.path()));
        one.put(Challenge::Http01, "to-Ken_1", "to-Ken_1.thumb").unwrap();
        one.put(Challenge::TlsAlpn01, "a.test", "token.thumb").unwrap();
        assert_eq!(other.http("to-Ken_1").await.as_deref(), Some("to-Ken_1.thumb"));
        let config = other.tls("A.test").await.unwrap();
        assert_eq!(config.alpn_protocols, [PROTOCOL]);
        other.take(Challenge::Http01, "to-Ken_1", "to-Ken_1.thumb").unwrap();
        one.take(Challenge::Http01, "to-Ken_1", "to-Ken_1.thumb").unwrap();
        assert!(one.http("to-Ken_1").await.is_none() && one.tls("b.test").await.is_none());
    }

    #[tokio::test]
    async fn an_answer_of_a_later_order_stays_when_that_of_an_earlier_one_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let answers = Answers::of(folder.path());
        answers.put(Challenge::TlsAlpn01, "a.test", "earlier.thumb").unwrap();
        let listed = answers.older(SystemTime::now() + Duration::from_secs(60));
        assert_eq!(listed, [(Challenge::TlsAlpn01, "a.test".to_owned(), "earlier.thumb".to_owned())]);
        answers.put(Challenge::TlsAlpn01, "a.test", "later.thumb").unwrap();
        for (kind, subject, held) in &listed {
            answers.take(*kind, subject, held).unwrap();
        }
        assert!(answers.tls("a.test").await.is_some());
        answers.take(Challenge::TlsAlpn01, "a.test", "later.thumb").unwrap();
        assert!(answers.tls("a.test").await.is_none());
    }

    #[test]
    fn what_cannot_be_read_is_no_old_answer() {
        let folder = tempfile::tempdir().unwrap();
        let answers = Answers::of(folder.path());
        answers.put(Challenge::Http01, "token", "token.thumb").unwrap();
        std::fs::create_dir(folder.path().join("challenges/http-01/folder")).unwrap();
        durable::write(&folder.path().join("challenges/http-01/bytes"), &[0xff], durable::SECRET).unwrap();
        let listed = answers.older(SystemTime::now() + Duration::from_secs(60));
        assert_eq!(listed, [(Challenge::Http01, "token".to_owned(), "token.thumb".to_owned())]);
    }

    #[test]
    fn whoever_asks_for_answers_in_a_folder_that_hangs_takes_few_threads_and_waits_briefly() {
        let threads = LOOKS + 1;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(threads).build();
        let folder = tempfile::tempdir().unwrap();
        let answers = Answers::of(folder.path());
        answers.put(Challenge::Http01, "known", "answer").unwrap();
        // Whoever opens it waits for somebody who writes.
        let hanging = folder.path().join("challenges/http-01/hanging");
        assert!(std::process::Command::new("mkfifo").arg(&hanging).status().unwrap().success());
        runtime.unwrap().block_on(async {
            let asked = Answers::clone(&answers);
            let all = futures_util::future::join_all((0..threads * 2).map(|_| asked.http("hanging")));
            let others = async {
                tokio::task::yield_now().await;
                tokio::task::spawn_blocking(|| "there is a thread for others").await.unwrap()
            };
            let (seen, others) = timeout(PATIENCE * 5, async { tokio::join!(all, others) }).await.unwrap();
            assert!(seen.iter().all(Option::is_none) && !others.is_empty());
            assert!(answers.http("known").await.is_none(), "nobody can look");
            drop(std::fs::OpenOptions::new().write(true).open(&hanging).unwrap());
            let again = async { while answers.http("known").await.is_none() {} };
            timeout(PATIENCE * 5, again).await.unwrap();
        });
    }

    #[tokio::test]
    async fn what_clients_send_names_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let answers = Answers::of(folder.path());
        answers.put(Challenge::Http01, "token", "answer").unwrap();
        durable::write(&folder.path().join("secret"), b"secret", durable::SECRET).unwrap();
        for sent in ["../../secret", "", ".", "..", "a/../../../secret", "/etc/hostname", "a\0", "%2e%2e", "é"] {
            assert!(answers.http(sent).await.is_none() && answers.tls(sent).await.is_none(), "{sent}");
            assert!(answers.put(Challenge::Http01, sent, "x").is_err(), "{sent}");
        }
    }
}
