//! The peer: Debian's docker-registry 2.8.2 (Distribution), on a tree, in the clear, with or without our tokens.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use super::process::Process;
use super::{free_port, pierhead::Site};

/// A running docker-registry.
pub(crate) struct Distribution {
    /// Dropped first, so that nobody listens on `port` any more.
    _process: Process,
    port: u16,
}

impl Distribution {
    /// Serves the tree under `root` to everybody.
    pub(crate) fn open(directory: &Path, root: &Path) -> Self {
        Self::start(directory, root, "")
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
        Self::start(directory, root, &auth)
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn start(directory: &Path, root: &Path, auth: &str) -> Self {
        let port = free_port();
        let config = directory.join("docker-registry.yml");
        let settings = format!(
            "version: 0.1\n\
             log: {{ level: info }}\n\
             storage: {{ filesystem: {{ rootdirectory: {} }}, delete: {{ enabled: true }} }}\n\
             http: {{ addr: \"127.0.0.1:{port}\", secret: not-a-secret }}\n\
             {auth}",
            root.display()
        );
        fs::write(&config, settings).expect("the directory can be written");
        let mut command = Command::new("docker-registry");
        let mut process = Process::start("docker-registry", directory, command.arg("serve").arg(config));
        process.wait_until("listen", 20, |_| TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { _process: process, port }
    }
}
