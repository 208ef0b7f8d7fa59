//! For the tests of this room: Pebble as the authority, with the challenge server that comes with it as its DNS, and a
//! server that answers challenges. All of it on free ports of this machine.

mod fake;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio_rustls::LazyConfigAcceptor;

use super::super::testing::put;
use super::order::{Failure, Kind, Proof, Proofs};
use super::{Answers, Challenge, Config, is_asked_for};

pub(super) use fake::{Fake, Says};

/// Who has no way to prove anything.
struct Never;

/// No way to prove anything.
pub(super) fn never() -> Arc<dyn Proofs> {
    Arc::new(Never)
}

#[async_trait]
impl Proofs for Never {
    async fn present(&self, _: &Proof) -> Result<(), Failure> {
        Err(Failure::new(Kind::Ours, "nothing can be proven here".to_owned()))
    }

    async fn withdraw(&self, _: &Proof) {}
}

/// A program that ends with the test.
pub(super) struct Running(Child);

impl Running {
    /// Starts it with its words in `folder/NAME.log`.
    pub(super) fn start(name: &str, folder: &Path, command: &mut Command) -> Self {
        let log = std::fs::File::create(folder.join(format!("{name}.log"))).unwrap();
        let other = log.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(log).stderr(other).spawn();
        Self(child.unwrap_or_else(|error| panic!("{name} does not start: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended by itself
        let _ = self.0.wait(); // the same
    }
}

/// Waits for something that takes no more than seconds.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether somebody listens there.
pub(super) fn answers_at(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// A port that is free, below those that the system gives to connections.
pub(super) fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 5_000) as u16;
    let candidate = || 14_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 5_000;
    std::iter::repeat_with(candidate).take(5_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// What an authority is like.
#[derive(Default)]
pub(super) struct Manners {
    /// How many of a hundred good nonces it rejects.
    pub(super) rejects: u32,
    /// Whom it takes for a customer: an id and a key in base64url; everybody without one.
    pub(super) customer: Option<(&'static str, &'static str)>,
    /// How many of a hundred authorizations it believes without looking again.
    pub(super) reuses: u32,
}

/// A running authority, its DNS, and where it looks for proofs.
pub(super) struct Pebble {
    pub(super) folder: tempfile::TempDir,
    pub(super) directory: String,
    pub(super) ca: PathBuf,
    /// Where its DNS is told what to say.
    pub(super) management: u16,
    _running: [Running; 2],
}

impl Pebble {
    /// Starts one, and a server that answers its challenges from `folder/storage`.
    pub(super) async fn start(manners: Manners) -> Self {
        Self::with_dns(manners, None).await
    }

    /// The same with its names asked of another server.
    pub(super) async fn with_dns(manners: Manners, other: Option<u16>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = front_door(folder.path());
        let [port, side, dns, management] = [(); 4].map(|()| free_port());
        let (tls, http) = (serve_tls(folder.path()).await, serve_http(folder.path()).await);
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.args(["-dns01", &format!("127.0.0.1:{dns}"), "-management", &format!("127.0.0.1:{management}")]);
        let names = Running::start("names", folder.path(), &mut names);
        let mut settings = serde_json::json!({
            "listenAddress": format!("127.0.0.1:{port}"), "managementListenAddress": format!("127.0.0.1:{side}"),
            "certificate": "server.crt", "privateKey": "server.key",
            "httpPort": http, "tlsPort": tls, "certificateValidityPeriod": 300,
        });
        if let Some((id, key)) = manners.customer {
            settings["externalAccountBindingRequired"] = true.into();
            settings["externalAccountMACKeys"] = serde_json::json!({ id: key });
        }
        put(&folder.path().join("pebble.json"), &serde_json::json!({ "pebble": settings }).to_string());
        let mut pebble = Command::new("pebble");
        pebble.args(["-config", "pebble.json", "-dnsserver", &format!("127.0.0.1:{}", other.unwrap_or(dns))]);
        pebble.current_dir(folder.path()).env("PEBBLE_VA_NOSLEEP", "1");
        pebble.env("PEBBLE_WFE_NONCEREJECT", manners.rejects.to_string());
        pebble.env("PEBBLE_AUTHZREUSE", manners.reuses.to_string());
        let running = [names, Running::start("pebble", folder.path(), &mut pebble)];
        until("the authority and its DNS listen", || answers_at(port) && answers_at(management));
        let directory = format!("https://localhost:{port}/dir");
        Self { folder, directory, ca, management, _running: running }
    }

    /// What to order from it.
    pub(super) fn config(&self, challenges: &[Challenge]) -> Config {
        Config { ca: Some(self.ca.clone()), ..config(&self.directory, self.folder.path(), challenges) }
    }
}

/// A configuration with its storage in this folder.
pub(super) fn config(directory: &str, folder: &Path, challenges: &[Challenge]) -> Config {
    Config {
        directory: directory.to_owned(),
        ca: None,
        contact: vec!["ops@pierhead.test".to_owned()],
        challenges: challenges.to_vec(),
        certificates: Vec::new(),
        account: None,
        profile: None,
        webroot: None,
        dns: None,
        storage: folder.join("storage"),
    }
}

/// A way to prove names that is the only one.
pub(super) fn only(way: Challenge) -> &'static [Challenge] {
    match way {
        Challenge::TlsAlpn01 => &[Challenge::TlsAlpn01],
        Challenge::Http01 => &[Challenge::Http01],
        Challenge::Dns01 => &[Challenge::Dns01],
    }
}

/// A key for an account (PKCS #8).
pub(super) fn account_key() -> Vec<u8> {
    KeyPair::generate().unwrap().serialize_der()
}

/// A certificate of PEM.
pub(super) fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// The names in a chain's first certificate, and how many certificates it has.
pub(super) fn names(chain: &str) -> (Vec<String>, usize) {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    let name = |name: &x509_parser::extensions::GeneralName<'_>| match name {
        x509_parser::extensions::GeneralName::DNSName(name) => (*name).to_owned(),
        other => other.to_string(),
    };
    (names.value.general_names.iter().map(name).collect(), chain.len())
}

/// Certificate and key of a front door at `localhost`; the file of whom to trust for it.
pub(super) fn front_door(folder: &Path) -> PathBuf {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let door = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &root).unwrap();
    put(&folder.join("server.crt"), &door.pem());
    put(&folder.join("server.key"), &key.serialize_pem());
    put(&folder.join("ca.crt"), &root.pem());
    folder.join("ca.crt")
}

/// A server that answers TLS-ALPN-01 as ours does; its port.
async fn serve_tls(folder: &Path) -> u16 {
    let answers = Answers::of(&folder.join("storage"));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answers = answers.clone();
            tokio::spawn(async move {
                let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await.ok()?;
                let hello = start.client_hello();
                let name = is_asked_for(&hello).then(|| hello.server_name().map(str::to_owned))??;
                start.into_stream(answers.tls(&name).await?).await.ok()?.shutdown().await.ok()
            });
        }
    });
    port
}

/// A server that answers HTTP-01 as ours does, and else from `folder/webroot`; its port.
async fn serve_http(folder: &Path) -> u16 {
    let (answers, webroot) = (Answers::of(&folder.join("storage")), folder.join("webroot"));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut line = String::new();
            let _ = BufReader::new(&mut stream).read_line(&mut line).await; // an empty line is answered too
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let token = path.strip_prefix("/.well-known/acme-challenge/").unwrap_or_default();
            let answer = match answers.http(token).await {
                Some(answer) => Some(answer),
                None => std::fs::read_to_string(webroot.join(path.trim_start_matches('/'))).ok(),
            };
            let (status, body) = answer.map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes()).await; // the authority may have gone
        }
    });
    port
}

/// BIND as the primary of `pierhead.test`, whose names are all here, with a key that may change all of it.
pub(super) struct Named {
    pub(super) folder: tempfile::TempDir,
    pub(super) port: u16,
    _running: Running,
}

impl Named {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        for (file, name) in [("update.key", "pierhead"), ("other.key", "other"), ("wrong.key", "pierhead")] {
            let made = Command::new("/usr/sbin/tsig-keygen").args(["-a", "hmac-sha512", name]).output().unwrap();
            put(&folder.path().join(file), &String::from_utf8(made.stdout).unwrap());
        }
        let zone = "$TTL 1\n@ SOA ns ops 1 60 60 60 1\n@ NS ns\n@ A 127.0.0.1\n* A 127.0.0.1\n\
                    _acme-challenge.led CNAME led.proofs\n";
        put(&folder.path().join("zone"), zone);
        let settings = format!(
            "include \"update.key\";\ncontrols {{}};\noptions {{ directory \"{}\"; listen-on port {port} {{ 127.0.0.1; }}; \
             listen-on-v6 {{ none; }}; pid-file none; session-keyfile none; recursion no; dnssec-validation no; notify no; }};\n\
             zone \"pierhead.test\" {{ type primary; file \"zone\"; allow-update {{ key pierhead; }}; }};\n",
            folder.path().display()
        );
        put(&folder.path().join("named.conf"), &settings);
        // A copy: where AppArmor is at work, the installed program may not leave its folders.
        let program = folder.path().join("program");
        std::fs::copy("/usr/sbin/named", &program).unwrap();
        let mut named = Command::new(program);
        named.args(["-4", "-g", "-n", "1", "-c", "named.conf"]).current_dir(folder.path());
        let running = Running::start("named", folder.path(), &mut named);
        until("the DNS server answers", || answers_at(port));
        Self { folder, port, _running: running }
    }

    /// A file of a key.
    pub(super) fn key(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}
