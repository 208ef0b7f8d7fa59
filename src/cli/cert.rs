//! `pierhead cert`: what is shown, what is wrong with it, and an authority of one's own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use clap::Subcommand;
use serde_json::Value;

use super::Failure;
use super::serve::absolute;
use super::terminal::{Output, list, remark, say};
use crate::config::Settings;
use crate::server::control::{Command, Outcome, Unanswered, ask};
use crate::tls::{Certificates, Files, Local, Shown, Status, local};

/// Certificates.
#[derive(Debug, Subcommand)]
pub enum Cert {
    /// Show the certificates: those of the running server, or of the files where none runs
    Status {
        /// How to show it
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Look for everything that is wrong with the certificates of the configuration
    #[command(after_help = "Exit code 1 when something is.")]
    Check,
    /// Make a private authority and a server certificate, and show how clients are told to trust it
    #[command(
        after_help = "Where there is an authority already it stays, and the server certificate is made anew when it \
        lacks a name or grows old."
    )]
    MakeCa {
        /// The folder to make it in
        directory: PathBuf,
        /// A DNS name or address for the server certificate; may be repeated [default: those of the configuration]
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Does what was typed. The running server is asked whatever has become of its configuration.
pub(super) fn run(
    command: &Cert,
    state: &Path,
    settings: impl FnOnce() -> Result<Settings, Failure>,
) -> Result<(), Failure> {
    let now = SystemTime::now();
    match command {
        Cert::Status { output } => status(*output, state, settings, now),
        Cert::Check => check(&settings()?, now),
        Cert::MakeCa { directory, names } => make_authority(directory.clone(), names, &settings()?, now),
    }
}

fn status(
    output: Output,
    state: &Path,
    settings: impl FnOnce() -> Result<Settings, Failure>,
    now: SystemTime,
) -> Result<(), Failure> {
    let found: Vec<Status> = match ask(state, &Command::CertStatus {}) {
        Ok(answer) if answer.outcome == Outcome::Done => {
            serde_json::from_str(&answer.message).map_err(Failure::failed)?
        }
        Err(Unanswered::NotRunning(_)) => {
            remark("no server runs here; this is what its files hold");
            let Examined { shown, problems } = examine(&settings()?);
            problems.iter().for_each(|problem| remark(problem));
            shown.iter().flat_map(|shown| Status::of(shown, now)).collect()
        }
        Ok(answer) => return Err(Failure::failed(answer.message)),
        Err(error) => return Err(error.into()),
    };
    match output {
        Output::Json => say(&(serde_json::to_string_pretty(&found).map_err(Failure::failed)? + "\n")),
        Output::Table => {
            let rows: Vec<Vec<Value>> = found.iter().map(row).collect();
            list(Output::Table, &["Names", "Issuer", "Days left", "Chain", "File"], &rows)?;
            for (file, refused) in found.iter().filter_map(|status| Some((&status.file, status.refused.as_ref()?))) {
                say(&format!("\n{file}: a change was refused at {:.0}: {}\n", refused.at, refused.reason))?;
            }
            Ok(())
        }
    }
}

fn row(status: &Status) -> Vec<Value> {
    let Status { names, issuer, days_left, chain, file, .. } = status;
    vec![
        names.join(", ").into(),
        issuer.as_str().into(),
        (*days_left).into(),
        chain.join(" < ").into(),
        file.as_str().into(),
    ]
}

fn check(settings: &Settings, now: SystemTime) -> Result<(), Failure> {
    let Examined { shown, mut problems } = examine(settings);
    problems.extend(shown.iter().flat_map(|shown| shown.remarks(now)).map(|remark| remark.to_string()));
    if problems.is_empty() {
        let files = shown.iter().map(|shown| Status::of(shown, now).len()).sum::<usize>();
        return say(&format!("nothing is wrong with the certificates (looked at: {files})\n"));
    }
    Err(Failure::failed(problems.join("\n")))
}

/// What the files hold.
pub(super) struct Examined {
    /// What can be shown.
    pub(super) shown: Vec<Shown>,
    /// What cannot, and why.
    problems: Vec<String>,
}

/// Reads the certificates of the configuration.
pub(super) fn examine(settings: &Settings) -> Examined {
    let mut examined = Examined { shown: Vec::new(), problems: Vec::new() };
    let named = &settings.tls.certificates;
    if !named.is_empty() {
        examined.add(named, settings.public_names(), None);
    } else if settings.front.needs_certificates() {
        let made = local::server(&settings.tls.local);
        // It is made on the first start.
        if made.certificate.exists() {
            examined.add(&[made], settings.public_names(), Some(settings.tls.local.clone()));
        }
    }
    if let Some(port) = &settings.front.internal.tls {
        examined.add(std::slice::from_ref(&port.files), Vec::new(), None);
    }
    examined
}

impl Examined {
    fn add(&mut self, files: &[Files], names: Vec<String>, local: Option<Local>) {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for pair in files {
            match Certificates::load(std::slice::from_ref(pair)) {
                Ok(_) => good.push(pair.clone()),
                Err(error) => bad.push(error.to_string()),
            }
        }
        self.problems.extend(bad);
        match Certificates::load(&good) {
            Ok(certificates) => self.shown.push(Shown { certificates: Arc::new(certificates), names, local }),
            Err(error) => self.problems.push(error.to_string()), // it changed just now
        }
    }
}

fn make_authority(directory: PathBuf, names: &[String], settings: &Settings, now: SystemTime) -> Result<(), Failure> {
    let url = &settings.front.external_url;
    let registry = match names.first() {
        Some(name) if !names.iter().any(|name| name == url.host()) => format!("{name}:{}", url.port()),
        _ => url.authority().to_string(),
    };
    let names = if names.is_empty() { settings.tls.local.names.clone() } else { names.to_vec() };
    let made = local::ensure(&Local { directory, names }, now).map_err(Failure::failed)?;
    say(&instructions(&made, &registry))
}

/// What is to be done with an authority, for the clients of a registry.
fn instructions(made: &local::Authority, registry: &str) -> String {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let (ca, certificate, key) =
        (absolute(&made.certificate), absolute(&made.server.certificate), absolute(&made.server.key));
    let first = if made.made_now { "A new authority" } else { "The authority that was there" };
    let mut text = format!(
        "{first}: {ca}\nIts key, {}, must stay secret.\n\nIn pierhead.yml:\n\n",
        absolute(&made.certificate.with_file_name("ca.key"))
    );
    // Writing to a String cannot fail.
    let _ = write!(text, "tls:\n  certificates:\n    - certificate: {certificate}\n      key: {key}\n\n");
    let _ = write!(
        text,
        "Every client must be told once to trust the authority (copy {ca} to its machine first):\n\n\
         # docker\nsudo install -D -m 0644 {ca} /etc/docker/certs.d/{registry}/ca.crt\n\n\
         # podman, buildah, skopeo, CRI-O\nsudo install -D -m 0644 {ca} /etc/containers/certs.d/{registry}/ca.crt\n\n\
         # containerd, nerdctl (with config_path = \"/etc/containerd/certs.d\" in the registry section of containerd's \
         config.toml)\n\
         sudo install -D -m 0644 {ca} /etc/containerd/certs.d/{registry}/ca.crt\n\
         printf 'server = \"https://{registry}\"\\n\\n[host.\"https://{registry}\"]\\n  ca = \
         \"/etc/containerd/certs.d/{registry}/ca.crt\"\\n' | sudo tee /etc/containerd/certs.d/{registry}/hosts.toml\n\n\
         # GitLab Runner: the lines of its container engine above, for the images of jobs; for the runner itself\n\
         sudo install -D -m 0644 {ca} /etc/gitlab-runner/certs/{host}.crt\n\
         # and for Docker in Docker in a job, in config.toml below [runners.docker]\n\
         #   volumes = [\"/cache\", \"/etc/docker/certs.d:/etc/docker/certs.d:ro\"]\n"
    );
    text
}
