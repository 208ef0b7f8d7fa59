//! `pierhead serve`: runs, and says once how to use what it serves.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Failure;
use crate::config::{self, Settings, Tokens};
use crate::server::{self, Configuration, Outside, Welcome, privileges};
use crate::tls::{acme, local};
use crate::{auth, telemetry, tls};

/// So many names of a certificate are more than the start message has room for.
const NAMES: usize = 5;

/// Runs the server until it is told to stop. A reload reads the `configuration` again.
///
/// # Errors
/// Whatever keeps it from starting.
pub(super) fn run(settings: Settings, configuration: Configuration) -> Result<(), Failure> {
    // Before the rights are given up: whoever is root may have no sudo.
    let sudo = if nix::unistd::geteuid().is_root() { "" } else { "sudo " };
    let logs = settings.telemetry.clone();
    let mut telemetry = telemetry::init(&settings.telemetry).map_err(Failure::failed)?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let prepared = server::prepare(settings, SystemTime::now())?;
    let outside = Outside { reports: telemetry.open(&logs)?, threshold: telemetry.threshold(), configuration };
    let served = prepared.run(outside, |welcome| show(&message(welcome, sudo)));
    telemetry.close();
    Ok(served?)
}

/// On stderr, for whoever started us. If nobody reads it the server runs all the same.
fn show(message: &str) {
    if let Err(error) = writeln!(std::io::stderr(), "{message}") {
        tracing::warn!(%error, "the start message could not be shown; `pierhead user password NAME` sets a password anew");
    }
}

impl From<server::Error> for Failure {
    fn from(error: server::Error) -> Self {
        let code = match error {
            server::Error::Metadata(error) => return error.into(),
            server::Error::Auth(error) => return unreadable(error),
            server::Error::Tls(tls::Error::Unwritable { .. }) => 1,
            server::Error::Tls(_) | server::Error::Upstream(_) => 78,
            server::Error::PortForbidden(_)
            | server::Error::Folder { .. }
            | server::Error::Order { .. }
            | server::Error::NotRoot { .. }
            | server::Error::Privileges(_) => 77,
            #[cfg(feature = "opentelemetry")]
            server::Error::Traces(_) => 78,
            server::Error::PortTaken(_)
            | server::Error::StateTaken(_)
            | server::Error::Control { .. }
            | server::Error::Maintenance { .. }
            | server::Error::Handed(_)
            | server::Error::Listen { .. }
            | server::Error::NotInherited(_)
            | server::Error::InheritedInVain(_)
            | server::Error::Inherited(_)
            | server::Error::Tree(_)
            | server::Error::Rustls(_)
            | server::Error::Front(_)
            | server::Error::Runtime(_) => 1,
        };
        Self { code, message: error.to_string() }
    }
}

impl From<telemetry::Unwritable> for Failure {
    fn from(error: telemetry::Unwritable) -> Self {
        let code = if error.source.kind() == std::io::ErrorKind::PermissionDenied { 77 } else { 1 };
        Self { code, message: error.to_string() }
    }
}

/// Keys of tokens are read as the user that we became.
fn unreadable(error: auth::Error) -> Failure {
    let message = format!("{error} (as user {}; give that user the right to)", privileges::current_user());
    let failure = Failure::from(error);
    if failure.code == 77 { Failure { message, ..failure } } else { failure }
}

/// URL, login, and what clients must be told, in a few lines. `sudo` is put before what only root may do.
fn message(welcome: &Welcome<'_>, sudo: &str) -> String {
    let registry = welcome.settings.front.external_url.authority();
    let mut text = String::new();
    served(&mut text, welcome);
    if welcome.as_root {
        line(
            &mut text,
            "runs as",
            "root, to whom the data belongs; with `user: NAME` it would be somebody with fewer rights",
        );
    }
    match (welcome.authority, &welcome.settings.tls.acme) {
        (authority, Some(acme)) => orders(&mut text, acme, authority),
        (Some(authority), None) => trust(&mut text, authority, registry, sudo),
        (None, None) => {}
    }
    if !welcome.settings.registry_only {
        login(&mut text, welcome, registry);
    }
    text
}

/// What is served, where, and from what.
fn served(text: &mut String, welcome: &Welcome<'_>) {
    let version = env!("CARGO_PKG_VERSION");
    *text += &match &welcome.settings.source {
        Some(file) if welcome.settings.registry_only => {
            format!("Pierhead {version} serves the registry of {}\n", file.display())
        }
        _ => format!("Pierhead {version} serves {}\n", welcome.settings.front.external_url),
    };
    let listening: Vec<String> = welcome
        .listening
        .iter()
        .map(|listener| {
            let how = match (listener.redirect, listener.tls) {
                (true, _) => "redirects to https",
                (false, true) => "TLS",
                (false, false) => "in the clear",
            };
            format!("{} ({how})", listener.address)
        })
        .collect();
    line(text, "listens", &listening.join(", "));
    for (number, way) in config::ways(welcome.settings).iter().enumerate() {
        line(text, if number == 0 { "sends" } else { "" }, way);
    }
    line(text, "data", &welcome.settings.data().display().to_string());
    if welcome.settings.certificate_was_found() {
        let found = welcome.settings.tls.certificates.iter();
        let found: Vec<String> = found.map(|files| files.certificate.display().to_string()).collect();
        line(text, "shows", &format!("the certificate {}, found in GitLab's place", found.join(", ")));
    }
}

/// How to log in, and at the first start as whom.
fn login(text: &mut String, welcome: &Welcome<'_>, registry: &str) {
    if welcome.settings.services.tokens != Tokens::Ours {
        // Whose accounts they are we do not know.
        line(text, "log in", &format!("docker login {registry}     (podman, buildah and skopeo likewise)"));
        return;
    }
    let user = welcome.first_admin.as_ref().map_or("NAME", |admin| admin.name.as_str());
    line(text, "log in", &format!("docker login -u {user} {registry}     (podman, buildah and skopeo likewise)"));
    let Some(admin) = &welcome.first_admin else { return };
    match &admin.generated {
        Some(password) => {
            let password = password.reveal();
            line(
                text,
                "password",
                &format!("{password}     (shown this once; another: {} user password {user})", ourselves(welcome)),
            );
        }
        None => line(text, "password", "as set by PIERHEAD_ADMIN_PASSWORD"),
    }
    line(text, "push", &format!("docker tag IMAGE {registry}/GROUP/PROJECT && docker push {registry}/GROUP/PROJECT"));
}

/// What clients must be told where the certificate is of our own authority.
fn trust(text: &mut String, authority: &local::Authority, registry: &str, sudo: &str) {
    let ca = absolute(&authority.certificate);
    line(text, "trust", &format!("{ca} is this server's own authority; clients must be told to trust it once:"));
    line(text, "", &format!("docker:  {sudo}install -D -m 0644 {ca} /etc/docker/certs.d/{registry}/ca.crt"));
    line(text, "", &format!("podman:  {sudo}install -D -m 0644 {ca} /etc/containers/certs.d/{registry}/ca.crt"));
    line(text, "", "         (buildah and skopeo read the same folder)");
}

/// From whom certificates are ordered, and what is shown until they are there.
fn orders(text: &mut String, acme: &acme::Config, stands_in: Option<&local::Authority>) {
    let named = |names: &Vec<String>| match names.as_slice() {
        [first, others @ ..] if others.len() >= NAMES => format!("{first} and {} other names", others.len()),
        names => names.join(", "),
    };
    let certificates: Vec<String> = acme.certificates.iter().map(named).collect();
    let authority = match acme.directory.as_str() {
        acme::LETS_ENCRYPT => "Let's Encrypt",
        acme::LETS_ENCRYPT_STAGING => "Let's Encrypt's staging directory, which no client trusts",
        url => url,
    };
    line(text, "orders", &format!("a certificate for {} from {authority}", certificates.join("; one for ")));
    if stands_in.is_some() {
        line(
            text,
            "",
            "until it is there clients see one of this server's own authority; `pierhead cert status` says how far it is",
        );
    }
}

/// How to call this very program for this very configuration, from here.
fn ourselves(welcome: &Welcome<'_>) -> String {
    let program = std::env::args_os().next().map_or_else(|| PathBuf::from("pierhead"), PathBuf::from);
    match &welcome.settings.source {
        Some(file) => format!("{} -c {}", quoted(&program), quoted(file)),
        None => quoted(&program),
    }
}

fn line(text: &mut String, label: &str, content: &str) {
    let _ = writeln!(text, "  {label:<9} {content}"); // writing to a String cannot fail
}

/// The path as a command anywhere on this machine needs it.
pub(super) fn absolute(path: &Path) -> String {
    quoted(&std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()))
}

/// Quoted for a shell when it must be.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |letter: char| letter.is_alphanumeric() || "/._-+:@%".contains(letter);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}
