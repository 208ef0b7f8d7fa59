//! `pierhead cert`: what is shown, what is wrong with it, and an authority of one's own.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use clap::Subcommand;
use serde_json::Value;

use super::renew::{self, Renew};
use super::serve::absolute;
use super::terminal::{Output, list, remark, say};
use super::{Failure, control};
use crate::config::Settings;
use crate::server::control::Command;
use crate::tls::{self, Certificates, Files, Local, Remark, Shown, Status, acme, local};

/// The exit code when there is no server to ask.
const NOT_RUNNING: u8 = 69;

/// Certificates.
#[derive(Debug, Subcommand)]
pub enum Cert {
    /// Show the certificates: those of the running server, or of the files where none runs
    Status {
        /// How to show it
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Have the running server order certificates now, and wait until they are there
    #[command(
        after_help = "Exit code 1 when an order failed, 69 when no server runs, 75 when one more would lead to the \
        authority's limits, as within an hour of the last; the message says why, and when to try again."
    )]
    Renew(Renew),
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
        Cert::Renew(order) => renew::run(order, state),
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
    match asked(state) {
        Ok(found) => shown(output, &found),
        Err(failure) if failure.code == NOT_RUNNING => {
            remark("no server runs here; this is what its files hold");
            let settings = settings()?;
            let Examined { shown: files, problems, missing } = examine(&settings);
            problems.iter().for_each(|problem| remark(problem));
            let mut found: Vec<Status> = files.iter().flat_map(|shown| Status::of(shown, now)).collect();
            let orders = settings.tls.acme.as_ref().map(|acme| acme::kept(acme, now)).unwrap_or_default();
            for (pem, orders) in orders {
                if missing.iter().any(|place| place.pem == pem) {
                    remark(&not_there(&orders));
                }
                let file = pem.display().to_string();
                found.iter_mut().filter(|one| one.file == file).for_each(|one| one.acme = Some(orders.clone()));
            }
            shown(output, &found)
        }
        Err(failure) => Err(failure),
    }
}

/// What the running server says.
pub(super) fn asked(state: &Path) -> Result<Vec<Status>, Failure> {
    let said = control::ask(state, &Command::CertStatus {})?;
    serde_json::from_str(&said).map_err(Failure::failed)
}

/// Shows certificates.
pub(super) fn shown(output: Output, found: &[Status]) -> Result<(), Failure> {
    if output == Output::Json {
        return say(&(serde_json::to_string_pretty(found).map_err(Failure::failed)? + "\n"));
    }
    let rows: Vec<Vec<Value>> = found.iter().map(row).collect();
    list(Output::Table, &["Names", "Issuer", "Days left", "Next order", "Last error", "Chain", "File"], &rows)?;
    found.iter().flat_map(notes).try_for_each(|note| say(&format!("\n{note}\n")))
}

fn not_there(orders: &acme::Status) -> String {
    let error = orders.error.as_ref();
    let error = error.map(|error| format!("; the last order failed at {:.0}: {}", error.at, error.reason));
    let (names, directory) = (orders.names.join(", "), &orders.directory);
    format!("there is no certificate for {names} from {directory} yet{}", error.unwrap_or_default())
}

fn row(status: &Status) -> Vec<Value> {
    let Status { names, issuer, days_left, chain, file, acme, .. } = status;
    let orders = |text: &dyn Fn(&acme::Status) -> Option<String>| acme.as_ref().and_then(text);
    let next =
        orders(&|orders| Some(if orders.since.is_some() { "now".to_owned() } else { format!("{:.0}", orders.next?) }));
    let error = orders(&|orders| Some(format!("{:.0}", orders.error.as_ref()?.at)));
    vec![
        names.join(", ").into(),
        issuer.as_str().into(),
        (*days_left).into(),
        next.unwrap_or_else(|| "-".to_owned()).into(),
        error.unwrap_or_else(|| "-".to_owned()).into(),
        chain.join(" < ").into(),
        file.as_str().into(),
    ]
}

/// What does not fit into a row.
fn notes(status: &Status) -> Vec<String> {
    let file = &status.file;
    let refused = status.refused.as_ref();
    let refused =
        refused.map(|refused| format!("{file}: a change was refused at {:.0}: {}", refused.at, refused.reason));
    let orders = status.acme.as_ref();
    let stands_in = orders.filter(|_| status.stands_in).map(|orders| {
        let (names, directory) = (orders.names.join(", "), &orders.directory);
        format!("{file}: not there yet; what is shown stands in for a certificate for {names} from {directory}")
    });
    let failed = orders.and_then(|orders| {
        let acme::LastError { at, reason } = orders.error.as_ref()?;
        Some(format!(
            "{file}: the last order failed at {at:.0} (failures since the last success: {}): {reason}",
            orders.failures
        ))
    });
    [refused, stands_in, failed].into_iter().flatten().collect()
}

fn check(settings: &Settings, now: SystemTime) -> Result<(), Failure> {
    let Examined { shown, mut problems, missing } = examine(settings);
    let remarks = shown.iter().flat_map(|shown| shown.remarks(now));
    let (notes, wrong): (Vec<Remark>, Vec<Remark>) = remarks.partition(Remark::is_note);
    problems.extend(wrong.iter().map(Remark::to_string));
    notes.iter().for_each(|note| remark(&format!("note: {note}")));
    // Until then the local authority's stands in for it, which clients refuse.
    problems.extend(missing.iter().map(|place| {
        let (names, directory) = (place.names.join(", "), &place.directory);
        format!("no certificate for {names} was ordered yet from {directory}; clients are shown a stand-in, which they do not trust")
    }));
    // Whether an authority can reach us is about where clients are sent, too.
    let ours = |key: &str| ["tls", "external_url", "aliases"].iter().any(|section| key.starts_with(section));
    for warning in settings.warnings.iter().filter(|warning| ours(&warning.key)) {
        remark(&format!("warning: {warning}"));
    }
    if problems.is_empty() {
        let files = shown.iter().map(|shown| Status::of(shown, now).len()).sum::<usize>();
        return say(&format!("nothing is wrong with the certificates (looked at: {files})\n"));
    }
    Err(Failure::failed(problems.join("\n")))
}

/// What the files hold.
#[derive(Default)]
pub(super) struct Examined {
    /// What can be shown.
    pub(super) shown: Vec<Shown>,
    /// What cannot, and why.
    problems: Vec<String>,
    /// What is ordered, and not there yet.
    missing: Vec<acme::Place>,
}

/// Reads the certificates of the configuration.
pub(super) fn examine(settings: &Settings) -> Examined {
    let mut examined = Examined::default();
    let named = &settings.tls.certificates;
    if let Some(acme) = &settings.tls.acme {
        examined.add_ordered(acme, settings);
    } else if !named.is_empty() {
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
        let good = self.readable(files);
        self.keep(Certificates::load(&good), names, local);
    }

    /// Certificates that are ordered, behind those of files. Nothing stands in for what is not there yet: that is made
    /// by who shows it.
    fn add_ordered(&mut self, acme: &acme::Config, settings: &Settings) {
        let good = self.readable(&settings.tls.certificates);
        let (there, missing): (Vec<_>, Vec<_>) = acme.places().into_iter().partition(|place| place.pem.exists());
        let pair = |place: &acme::Place| Files::new(place.pem.clone(), place.pem.clone());
        let there: Vec<_> = there.into_iter().filter(|place| self.readable(&[pair(place)]).len() == 1).collect();
        let mut names = settings.public_names();
        names.retain(|name| !missing.iter().any(|place| carries(&place.names, name)));
        self.missing = missing;
        let own = local::server(&settings.tls.local);
        self.keep(
            Certificates::load(&good).and_then(|files| files.with_ordered(there, &[], &own, SystemTime::now())),
            names,
            None,
        );
        self.problems.extend(keys(acme).into_iter().filter(|key| is_open(key)).map(|key| {
            format!("{key} is a key that others than its owner may read: chmod 600 {key}", key = key.display())
        }));
    }

    /// Those that can be shown; why the others cannot is kept.
    fn readable(&mut self, files: &[Files]) -> Vec<Files> {
        let mut good = Vec::new();
        for pair in files {
            match Certificates::load(std::slice::from_ref(pair)) {
                Ok(_) => good.push(pair.clone()),
                Err(error) => self.problems.push(error.to_string()),
            }
        }
        good
    }

    fn keep(&mut self, certificates: Result<Certificates, tls::Error>, names: Vec<String>, local: Option<Local>) {
        match certificates {
            Ok(certificates) => self.shown.push(Shown { certificates: Arc::new(certificates), names, local }),
            Err(error) => self.problems.push(error.to_string()), // it changed just now
        }
    }
}

/// Whether one of these names stands for a name.
fn carries(names: &[String], name: &str) -> bool {
    let above = name.split_once('.').map(|(_, above)| above);
    names.iter().any(|carried| carried == name || carried.strip_prefix("*.").is_some_and(|all| above == Some(all)))
}

/// What of the storage folder is secret: keys of accounts, and of certificates.
fn keys(acme: &acme::Config) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&acme.storage).into_iter().flatten().flatten();
    let accounts = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "key"));
    accounts.chain(acme.places().into_iter().map(|place| place.pem)).collect()
}

fn is_open(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|found| found.permissions().mode() & 0o077 != 0)
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
