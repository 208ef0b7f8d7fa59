//! The peers: Debian's docker-registry 2.8.2 and, where it was built, Distribution 3, on a tree, in the clear, with or
//! without our tokens.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{Output, command};
use super::process::Process;
use super::{free_port, pierhead::Site};

/// What the peers sign the state of uploads with.
pub(crate) const SECRET: &str = "not-a-secret";

/// Which Distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// 2.8.2, as Debian packages it.
    Two,
    /// 3.1.1: `PIERHEAD_DISTRIBUTION3`, or what `tests/install-clients` built.
    Three,
}

impl Peer {
    /// Those that are here. Says so when the second is not.
    pub(crate) fn installed() -> Vec<Self> {
        if Self::Three.program().exists() {
            return vec![Self::Two, Self::Three];
        }
        eprintln!("NOT TESTED: Distribution 3, which is not here (PIERHEAD_DISTRIBUTION3, tests/install-clients)");
        vec![Self::Two]
    }

    fn program(self) -> PathBuf {
        match self {
            Self::Two => PathBuf::from("docker-registry"),
            Self::Three => std::env::var_os("PIERHEAD_DISTRIBUTION3")
                .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/registry"), PathBuf::from),
        }
    }
}

/// A running Distribution.
pub(crate) struct Distribution {
    /// Dropped first, so that nobody listens on `port` any more.
    process: Process,
    port: u16,
}

impl Distribution {
    /// Serves the tree under `root` to everybody.
    pub(crate) fn open(directory: &Path, root: &Path) -> Self {
        Self::of(Peer::Two, directory, root)
    }

    /// The same with one of the peers.
    pub(crate) fn of(peer: Peer, directory: &Path, root: &Path) -> Self {
        Self::start(peer, directory, root, "", "")
    }

    /// The same on this port.
    pub(crate) fn at(port: u16, directory: &Path, root: &Path) -> Self {
        Self::start_at(port, Peer::Two, directory, root, ("", ""))
    }

    /// Serves a tree of its own to everybody, with these further settings of its `http`.
    pub(crate) fn with_http(directory: &Path, http: &str) -> Self {
        Self::start(Peer::Two, directory, &directory.join("tree"), http, "")
    }

    /// `garbage-collect` on a tree that nobody serves meanwhile.
    pub(crate) fn collect_garbage(peer: Peer, directory: &Path, root: &Path, options: &[&str]) -> Output {
        let config = configure(directory, root, free_port(), "", "");
        Output::of(command(peer.program()).arg("garbage-collect").args(options).arg(config))
    }

    /// Serves the tree under `root` to whoever has a token of ours. `service` is the name that the tokens are for.
    pub(crate) fn guarded_by(site: &Site, directory: &Path, root: &Path, service: &str) -> Self {
        let bundle = directory.join("token.crt");
        fs::write(&bundle, site.run(&["token", "certificate"]).ok().stdout).expect("the directory can be written");
        let realm = format!("{}/jwt/auth", site.origin());
        let auth = format!(
            "auth:\n  token: {{ realm: \"{realm}\", service: {service}, issuer: pierhead, rootcertbundle: {} }}\n",
            bundle.display()
        );
        Self::start(Peer::Two, directory, root, "", &auth)
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everything that it wrote: access lines on one side, what it thinks of requests on the other.
    pub(crate) fn log(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    /// Method and status of every request below a repository so far, by its own access lines.
    pub(crate) fn requests(&self, repository: &str) -> Vec<(String, u16)> {
        let below = format!("/v2/{repository}/");
        let request = |line: &str| {
            let (method, rest) = line.split('"').nth(1)?.split_once(' ')?;
            let status = line.split('"').nth(2)?.split_whitespace().next()?.parse().ok()?;
            rest.starts_with(&below).then(|| (method.to_owned(), status))
        };
        self.process.stdout().lines().filter_map(request).collect()
    }

    /// Stops it where it is, as if its machine hung, until [`resume`](Self::resume).
    pub(crate) fn hang(&self) {
        self.process.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.process.signal("CONT");
    }

    /// Ends it as a power failure does, for [`again`](Self::again).
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it as it was, on the same port.
    pub(crate) fn again(&mut self, directory: &Path) {
        *self = Self::start_on(self.port, Peer::Two, directory, &directory.join("docker-registry.yml"));
    }

    fn start(peer: Peer, directory: &Path, root: &Path, http: &str, auth: &str) -> Self {
        Self::start_at(free_port(), peer, directory, root, (http, auth))
    }

    fn start_at(port: u16, peer: Peer, directory: &Path, root: &Path, (http, auth): (&str, &str)) -> Self {
        let config = configure(directory, root, port, http, auth);
        Self::start_on(port, peer, directory, &config)
    }

    fn start_on(port: u16, peer: Peer, directory: &Path, config: &Path) -> Self {
        let mut command = Command::new(peer.program());
        // 3 would send traces to a collector that is not there.
        command.env("OTEL_TRACES_EXPORTER", "none").arg("serve").arg(config);
        let mut process = Process::start("docker-registry", directory, &mut command);
        process.wait_until("listen", 20, |_| TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { process, port }
    }
}

/// Writes the configuration file that all versions read.
fn configure(directory: &Path, root: &Path, port: u16, http: &str, auth: &str) -> PathBuf {
    let config = directory.join("docker-registry.yml");
    let settings = format!(
        "version: 0.1\n\
         log: {{ level: info }}\n\
         storage: {{ filesystem: {{ rootdirectory: {} }}, delete: {{ enabled: true }} }}\n\
         http: {{ addr: \"127.0.0.1:{port}\", secret: {SECRET}, {http} }}\n\
         {auth}",
        root.display()
    );
    fs::write(&config, settings).expect("the directory can be written");
    config
}
