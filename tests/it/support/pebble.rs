//! An authority to order certificates from: Pebble, with an authority of its own for its front door, and the challenge
//! server that comes with it, as its DNS. Both on free ports of this machine; nothing is ever asked of anybody else.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
use reqwest::blocking::Client;
use serde_json::json;

use super::certificates::Certificates;
use super::free_port;
use super::process::Process;

/// What an authority is like.
#[derive(Clone)]
pub(crate) struct Manners {
    /// Where it looks for HTTP-01.
    pub(crate) http: u16,
    /// Where it looks for TLS-ALPN-01.
    pub(crate) tls: u16,
    /// The DNS server that it asks.
    pub(crate) dns: u16,
    /// How long a certificate is good for, in seconds.
    pub(crate) validity: u32,
    /// How many of a hundred good nonces it rejects.
    pub(crate) rejects: u32,
    /// The longest that it waits before it looks, in seconds.
    pub(crate) sleeps: u32,
    /// Whom it takes for a customer: an id and a key in base64url; everybody without one.
    pub(crate) customer: Option<(&'static str, &'static str)>,
}

impl Default for Manners {
    fn default() -> Self {
        let nobody = free_port();
        Self { http: nobody, tls: nobody, dns: nobody, validity: 3600, rejects: 0, sleeps: 0, customer: None }
    }
}

/// A running authority.
pub(crate) struct Pebble {
    process: Process,
    directory: PathBuf,
    port: u16,
    management: u16,
    manners: Manners,
    /// The certificate that clients of what it signed must trust, in PEM. It makes another at each start.
    pub(crate) root: String,
}

impl Pebble {
    /// Starts one with its files in a folder below `directory`.
    pub(crate) fn start(directory: &Path, manners: Manners) -> Self {
        let directory = directory.join("pebble");
        fs::create_dir_all(&directory).expect("a folder can be made");
        let authority = Certificates::new();
        let (certificate, key) = authority.issue("localhost", ServerAuth);
        for (file, text) in [("ca.crt", authority.pem()), ("server.crt", certificate), ("server.key", key)] {
            fs::write(directory.join(file), text).expect("a file can be written");
        }
        let (port, management) = (free_port(), free_port());
        let process = run(&directory, port, management, &manners);
        let mut pebble = Self { process, directory, port, management, manners, root: String::new() };
        pebble.answers();
        pebble
    }

    /// The URL of its directory, as `port` passes it on.
    pub(crate) fn directory_at(port: u16) -> String {
        format!("https://localhost:{port}/dir")
    }

    /// The URL of its directory.
    pub(crate) fn directory(&self) -> String {
        Self::directory_at(self.port)
    }

    /// The port of its front door.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whom to trust for its front door.
    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// Certificate and key of its front door.
    pub(crate) fn pair(&self) -> (PathBuf, PathBuf) {
        (self.directory.join("server.crt"), self.directory.join("server.key"))
    }

    /// What it says that it did, in all its lives.
    pub(crate) fn log(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    /// How many orders were placed.
    pub(crate) fn orders(&self) -> usize {
        self.log().matches(" orders in the db").count()
    }

    /// How many certificates it issued.
    pub(crate) fn issued(&self) -> usize {
        self.log().matches("Issued certificate serial").count()
    }

    /// It neither answers nor hangs up any more.
    pub(crate) fn hang(&self) {
        self.process.signal("STOP");
    }

    /// It answers again, also what it was asked meanwhile.
    pub(crate) fn go_on(&self) {
        self.process.signal("CONT");
    }

    /// It is gone at once.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on its ports, as somebody who has forgotten everything, its own root among it.
    pub(crate) fn start_again(&mut self) {
        self.kill();
        self.process = run(&self.directory, self.port, self.management, &self.manners);
        self.answers();
    }

    fn answers(&mut self) {
        let url = format!("https://localhost:{}/roots/0", self.management);
        let ca = fs::read(self.ca()).expect("it was written");
        let certificates = reqwest::Certificate::from_pem_bundle(&ca).expect("PEM");
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(10)).tls_certs_only(certificates);
        let client = client.build().expect("a client");
        let mut root = String::new();
        let front = format!("127.0.0.1:{}", self.port);
        self.process.wait_until("answer", 20, |_| {
            root = client.get(&url).send().and_then(reqwest::blocking::Response::text).unwrap_or_default();
            !root.is_empty() && std::net::TcpStream::connect(&front).is_ok()
        });
        self.root = root;
    }
}

fn run(directory: &Path, port: u16, management: u16, manners: &Manners) -> Process {
    let mut settings = json!({
        "listenAddress": format!("127.0.0.1:{port}"),
        "managementListenAddress": format!("127.0.0.1:{management}"),
        "certificate": "server.crt",
        "privateKey": "server.key",
        "httpPort": manners.http,
        "tlsPort": manners.tls,
        "certificateValidityPeriod": manners.validity,
    });
    if let Some((id, key)) = manners.customer {
        settings["externalAccountBindingRequired"] = json!(true);
        settings["externalAccountMACKeys"] = json!({ id: key });
    }
    let file = directory.join("pebble.json");
    fs::write(&file, json!({ "pebble": settings }).to_string()).expect("the folder can be written");
    let mut pebble = Command::new("pebble");
    pebble.arg("-config").arg(file).args(["-dnsserver", &format!("127.0.0.1:{}", manners.dns)]);
    pebble.env("PEBBLE_WFE_NONCEREJECT", manners.rejects.to_string());
    // The least there is: of a hundred names that an account has proven before it still believes one without a look.
    pebble.env("PEBBLE_AUTHZREUSE", "0");
    match manners.sleeps {
        0 => pebble.env("PEBBLE_VA_NOSLEEP", "1"),
        seconds => pebble.env("PEBBLE_VA_SLEEPTIME", seconds.to_string()),
    };
    Process::start("pebble", directory, pebble.current_dir(directory))
}

/// The DNS of the authority: every name is at 127.0.0.1, unless it was told otherwise.
pub(crate) struct Names {
    _process: Process,
    port: u16,
    management: u16,
}

impl Names {
    /// Starts it.
    pub(crate) fn start(directory: &Path) -> Self {
        let (port, management) = (free_port(), free_port());
        let mut server = Command::new("pebble-challtestsrv");
        server.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]);
        server.args(["-dns01", &format!("127.0.0.1:{port}"), "-management", &format!("127.0.0.1:{management}")]);
        let mut process = Process::start("names", directory, &mut server);
        process.wait_until("listen", 20, |_| std::net::TcpStream::connect(("127.0.0.1", management)).is_ok());
        process.wait_until("answer", 20, |_| knows_a_name(port));
        Self { _process: process, port, management }
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it is told what to say: `POST /set-txt` and `/clear-txt`.
    pub(crate) fn management(&self) -> String {
        format!("http://127.0.0.1:{}", self.management)
    }
}

/// Whether a DNS server answers at a port. It may listen there later than where it is told what to say.
fn knows_a_name(port: u16) -> bool {
    // RFC 1035 4.1: one question, for the address of `a.`.
    const QUESTION: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
    let ask = || {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        socket.connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.send(QUESTION)?;
        socket.recv(&mut [0; 512])
    };
    ask().is_ok()
}
