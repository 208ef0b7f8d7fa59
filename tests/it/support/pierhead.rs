//! The server under test: a site, which outlives a process, and the process.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde_json::Value;
use tempfile::TempDir;

use super::command::{Output, command};
use super::machine::scratch;
use super::process::Process;
use super::registry::Registry;
use super::trace::traced;
use super::{free_port, wait_for};

/// The first admin's password, as long as a generated one: whoever knows it comes in, whatever is guessed beside them.
pub(crate) const ADMIN_PASSWORD: &str = "correct-horse-battery-staple-of-32";

/// The binary under test.
pub(crate) const PIERHEAD: &str = env!("CARGO_BIN_EXE_pierhead");

/// `pierhead`, for a command that ends by itself.
pub(crate) fn pierhead() -> Command {
    without_settings(command(PIERHEAD))
}

/// Takes away what the environment of the tests may say to the binary.
fn without_settings(mut command: Command) -> Command {
    let ours = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("PIERHEAD_");
    for name in std::env::vars_os().map(|(name, _)| name).filter(ours) {
        command.env_remove(name);
    }
    command
}

/// A configuration file and the directories that it names. Processes come and go on it.
pub(crate) struct Site {
    directory: TempDir,
    host: String,
    port: u16,
    internal_port: u16,
    also_trusted: String,
}

impl Site {
    /// A site on localhost with a local authority, on free ports.
    pub(crate) fn new() -> Self {
        Self::named("localhost")
    }

    /// The same under another name.
    pub(crate) fn named(host: &str) -> Self {
        let directory =
            tempfile::Builder::new().prefix("site-").tempdir_in(scratch()).expect("a directory can be made");
        let site = Self {
            directory,
            host: host.to_owned(),
            port: free_port(),
            internal_port: free_port(),
            also_trusted: String::new(),
        };
        site.configure(&[]);
        site
    }

    /// Where nothing was configured: `make run` on a fresh machine.
    pub(crate) fn unconfigured() -> Self {
        let site = Self { port: 5050, internal_port: 5000, ..Self::new() };
        fs::remove_file(site.config()).expect("the site can be written");
        site
    }

    /// Writes the configuration anew. Each of the `settings` is one top-level key, in place of the site's own.
    pub(crate) fn configure(&self, settings: &[&str]) {
        let Self { host, port, internal_port, .. } = self;
        let own = [
            format!("external_url: https://{host}:{port}"),
            "state: state".to_owned(),
            format!(
                "registry: {{ storage: {{ filesystem: {{ rootdirectory: tree }} }}, http: {{ addr: \"127.0.0.1:{internal_port}\" }} }}"
            ),
            "tls: { local: certs }".to_owned(),
            "log: { format: json, access: stdout }".to_owned(),
            "metrics: { address: off }".to_owned(),
        ];
        let key = |setting: &str| setting.split_once(':').map(|(key, _)| key.to_owned());
        let replaced = |line: &&String| settings.iter().any(|setting| key(setting) == key(line));
        let mut lines: Vec<&str> = own.iter().filter(|line| !replaced(line)).map(String::as_str).collect();
        lines.extend(settings);
        fs::write(self.config(), lines.join("\n") + "\n").expect("the site can be written");
    }

    /// Where everything is.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory().join("pierhead.yml")
    }

    /// The storage root: the folder that holds `docker/registry/v2`.
    pub(crate) fn tree(&self) -> PathBuf {
        self.directory().join("tree")
    }

    /// `https://HOST:PORT`.
    pub(crate) fn origin(&self) -> String {
        format!("https://{}", self.authority())
    }

    /// `HOST:PORT`: the first word of an image's name.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The port of the front door.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of the local authority, in PEM.
    pub(crate) fn certificate_authority(&self) -> String {
        fs::read_to_string(self.authority_file()).expect("the local authority was made") + &self.also_trusted
    }

    /// From now on its clients trust these authorities too (PEM).
    pub(crate) fn also_trust(&mut self, authorities: &str) {
        self.also_trusted.push_str(authorities);
    }

    /// Makes every client of a fresh machine trust what ours trust, without looking at the start message.
    pub(crate) fn trust_on_this_machine(&self) {
        for engine in ["docker", "containers"] {
            let folder = format!("/etc/{engine}/certs.d/{}", self.authority());
            fs::create_dir_all(&folder).expect("the machine is ours");
            fs::write(format!("{folder}/ca.crt"), self.certificate_authority()).expect("the machine is ours");
        }
    }

    fn authority_file(&self) -> PathBuf {
        self.directory().join("certs/ca.crt")
    }

    /// `pierhead -c pierhead.yml ARGUMENTS`, without a terminal.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Output::of(self.command().args(arguments))
    }

    fn command(&self) -> Command {
        let mut command = pierhead();
        command.arg("-c").arg(self.config()).current_dir(self.directory());
        command
    }

    /// Starts the server and waits until it is ready.
    pub(crate) fn start(&self) -> Pierhead {
        self.start_as(self.serve())
    }

    /// The same with this in its environment.
    pub(crate) fn start_with(&self, name: &str, value: &std::ffi::OsStr) -> Pierhead {
        let mut command = self.serve();
        command.env(name, value);
        self.start_as(command)
    }

    /// The same from a copy of the binary.
    pub(crate) fn start_from(&self, program: &Path) -> Pierhead {
        let mut command = without_settings(Command::new(program));
        command.args(self.serve().get_args()).current_dir(self.directory());
        command.env("PIERHEAD_ADMIN_PASSWORD", ADMIN_PASSWORD);
        self.start_as(command)
    }

    /// The same with its system calls written to a file.
    pub(crate) fn start_traced(&self, trace: &Path) -> Pierhead {
        self.start_as(traced(&self.serve(), trace))
    }

    /// Starts the server and waits until it serves, ready or not.
    pub(crate) fn start_unready(&self) -> Pierhead {
        Pierhead::serving(Process::start("pierhead", self.directory(), &mut self.serve()), self)
    }

    fn serve(&self) -> Command {
        let mut command = without_settings(Command::new(PIERHEAD));
        command.args(["serve", "-c"]).arg(self.config()).current_dir(self.directory());
        command.env("PIERHEAD_ADMIN_PASSWORD", ADMIN_PASSWORD);
        command
    }

    fn start_as(&self, mut command: Command) -> Pierhead {
        let process = Process::start("pierhead", self.directory(), &mut command);
        Pierhead::ready(process, self)
    }

    /// Starts the server as systemd does that listens for it (`sd_listen_fds(3)`), on a socket of this name.
    pub(crate) fn start_activated(&self, socket: OwnedFd, name: &str) -> Pierhead {
        Pierhead::ready(self.activate(socket, name), self)
    }

    /// The same, whatever comes of it.
    pub(crate) fn activate(&self, socket: OwnedFd, name: &str) -> Process {
        const ACTIVATE: &str = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"";
        let serve = self.serve();
        let mut command = without_settings(Command::new("sh"));
        command.args(["-c", ACTIVATE, PIERHEAD]).args(serve.get_args()).current_dir(self.directory());
        command.env("LISTEN_FDNAMES", name).env("PIERHEAD_ADMIN_PASSWORD", ADMIN_PASSWORD);
        Process::start_with("pierhead", self.directory(), &mut command, socket.into())
    }

    /// The internal port.
    pub(crate) fn internal_port(&self) -> u16 {
        self.internal_port
    }

    /// Starts the server as `make run` does: no file, no password, certificates in `certs`.
    pub(crate) fn start_as_a_new_user(&self) -> Pierhead {
        let mut command = without_settings(Command::new(PIERHEAD));
        command.arg("serve").current_dir(self.directory()).env("PIERHEAD_TLS_LOCAL", "certs");
        let process = Process::start("pierhead", self.directory(), &mut command);
        Pierhead::ready(process, self)
    }

    /// Makes an account.
    pub(crate) fn add_user(&self, name: &str, password: &str) {
        let mut command = self.command();
        command.args(["user", "add", name, "--password-stdin"]);
        Output::with_input(&mut command, |stdin| writeln!(stdin, "{password}")).ok();
    }

    /// The same with the system calls of it written to a file.
    pub(crate) fn add_user_traced(&self, name: &str, password: &str, trace: &Path) {
        let mut command = self.command();
        command.args(["user", "add", name, "--password-stdin"]);
        let mut command = traced(&command, trace);
        Output::with_input(&mut command, |stdin| writeln!(stdin, "{password}")).ok();
    }

    /// Makes a project; `visibility` is `public` or `private`.
    pub(crate) fn add_project(&self, path: &str, visibility: &str) {
        self.run(&["project", "add", path, "--visibility", visibility]).ok();
    }

    /// Gives someone a role on a project or a group.
    pub(crate) fn add_member(&self, path: &str, user: &str, role: &str) {
        self.run(&["project", "member", "add", path, user, role]).ok();
    }

    /// Someone at this registry, through the front door.
    pub(crate) fn registry(&self, login: Option<(&str, &str)>) -> Registry {
        let realm = format!("{}/jwt/auth", self.origin());
        Registry::guarded(&self.origin(), &realm, &self.certificate_authority(), login)
    }

    /// The first admin, through the front door.
    pub(crate) fn admin(&self) -> Registry {
        self.registry(Some(("admin", ADMIN_PASSWORD)))
    }
}

/// A running server.
pub(crate) struct Pierhead {
    pub(crate) process: Process,
}

impl Pierhead {
    /// Waits until a process that was just started answers `/-/ready` through the front door.
    fn ready(process: Process, site: &Site) -> Self {
        let mut server = Self::serving(process, site);
        let probe = Registry::guarded(&site.origin(), "", &site.certificate_authority(), None);
        server.process.wait_until("be ready", 30, |_| {
            let answer = probe.request(reqwest::Method::GET, "/-/ready").send();
            answer.is_ok_and(|answer| answer.status() == 200)
        });
        server
    }

    /// Waits until it says that it serves.
    fn serving(mut process: Process, site: &Site) -> Self {
        // The port is open before everything behind it is there, the local authority on the first start among it.
        process.wait_until("listen", 30, |_| {
            let made = site.authority_file().exists();
            made && std::net::TcpStream::connect(("127.0.0.1", site.port)).is_ok()
        });
        process.wait_until("say how it is used", 30, |process| process.stderr().contains(" serves http"));
        Self { process }
    }

    /// Ends it as a supervisor does, and waits.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.process.terminate();
        self.process.wait(30)
    }

    /// Ends it as a power failure does.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    /// The access lines so far. Every whole line on standard output must be one.
    pub(crate) fn access_log(&self) -> Vec<Value> {
        let log = self.process.stdout();
        let whole = log.rfind('\n').map_or("", |end| &log[..=end]);
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        whole.lines().map(parse).collect()
    }

    /// Waits until the access lines satisfy `probe`: a line is written after its answer.
    pub(crate) fn wait_for_access<T>(&self, what: &str, probe: impl Fn(&[Value]) -> Option<T>) -> T {
        wait_for(what, 10, || probe(&self.access_log()))
    }
}
