//! Promise: a certificate is ordered, renewed, and never worse than the one before, whatever the authority does.
//!
//! Every test has an authority of its own (Pebble) with a DNS of its own, on a fresh machine: nothing can be asked of
//! anybody else.

mod faults;
mod first_start;
mod nodes;
mod renewal;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use serde_json::Value;

use crate::support::handshake::shown;
use crate::support::machine::NAME;
use crate::support::named::Named;
use crate::support::pebble::{Manners, Names, Pebble};
use crate::support::pierhead::{Pierhead, Site};
use crate::support::{free_port, wait_or_say};

/// A site, the authority that it orders from, and the DNS that the authority asks.
struct Scene {
    site: Site,
    /// The port of the site without TLS.
    http: u16,
    pebble: Pebble,
    names: Names,
}

impl Scene {
    /// The authority looks where the site is.
    fn new(machine: &Path, manners: Manners) -> Self {
        Self::looking(machine, manners, |_| ())
    }

    /// The same, but for what is `changed` about the authority.
    fn looking(machine: &Path, manners: Manners, changed: impl FnOnce(&mut Manners)) -> Self {
        let mut site = Site::named(NAME);
        let http = free_port();
        let names = Names::start(machine);
        let mut manners = Manners { http, tls: site.port(), dns: names.port(), ..manners };
        changed(&mut manners);
        let pebble = Pebble::start(machine, manners);
        site.also_trust(&pebble.root);
        Self { site, http, pebble, names }
    }

    /// The site orders from the authority, with these settings for it.
    fn configure(&self, acme: &str) {
        self.configure_to(&self.pebble.directory(), acme);
    }

    /// The same from an authority whose directory is elsewhere.
    fn configure_to(&self, directory: &str, acme: &str) {
        self.site.configure(&[&self.listeners(), &self.tls(directory, acme)]);
    }

    /// The listeners of the site: with TLS and without.
    fn listeners(&self) -> String {
        let (https, http) = (self.site.port(), self.http);
        format!("listeners: [{{ address: \":{https}\" }}, {{ address: \":{http}\", tls: false, redirect: https }}]")
    }

    /// `tls:` of a site that orders.
    fn tls(&self, directory: &str, acme: &str) -> String {
        let ca = self.pebble.ca();
        let ca = ca.display();
        format!("tls: {{ local: certs, acme: {{ enabled: true, directory: \"{directory}\", ca: \"{ca}\", {acme} }} }}")
    }

    /// What clients that trust only the authority are shown.
    fn shown(&self) -> std::io::Result<CertificateDer<'static>> {
        self.shown_as(NAME)
    }

    fn shown_as(&self, name: &str) -> std::io::Result<CertificateDer<'static>> {
        Ok(shown(&self.pebble.root, name, self.site.port())?.remove(0))
    }

    /// Clients that trust only the authority are shown one of somebody else, and for that reason alone turn away.
    fn shows_the_local_authority(&self) {
        let error = self.shown().expect_err("the local authority's is shown");
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert_eq!(cause, Some(&unknown), "{error}");
    }

    /// Waits until an ordered certificate is shown.
    fn ordered(&self, seconds: u64) -> CertificateDer<'static> {
        self.wait_for("an ordered certificate", seconds, || self.shown().ok())
    }

    /// Waits until `probe` yields something, and says where the order stands when it does not.
    fn wait_for<T>(&self, what: &str, seconds: u64, probe: impl FnMut() -> Option<T>) -> T {
        wait_or_say(what, seconds, probe, || {
            let (orders, issued) = (self.pebble.orders(), self.pebble.issued());
            let status = self.site.run(&["cert", "status", "--output", "json"]);
            format!(": {orders} orders, {issued} issued; shown: {:?}; {status}", self.shown().map(|_| "an ordered one"))
        })
    }
}

/// `tls.acme.dns` of a program that tells these names, and writes a line to `told` for all that it was asked.
fn hook(machine: &Path, names: &Names, told: &Path) -> String {
    let program = machine.join("hook");
    let text = format!(
        "#!/bin/sh\nset -eu\necho \"$1 $2\" >> {told}\n\
         case $1 in present) act=set-txt ;; cleanup) act=clear-txt ;; *) exit 2 ;; esac\n\
         exec curl -sSf --noproxy '*' -d \"{{\\\"host\\\":\\\"$2\\\",\\\"value\\\":\\\"$3\\\"}}\" {names}/$act\n",
        told = told.display(),
        names = names.management()
    );
    fs::write(&program, text).expect("ours");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
    format!("dns: {{ hook: \"{}\" }}", program.display())
}

/// What `cert status` says of the certificates.
fn status(site: &Site) -> Value {
    let said = site.run(&["cert", "status", "--output", "json"]).ok();
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The files below a folder. What goes while we look is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        entries => entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).flatten(),
    };
    entries.flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] }).collect()
}

/// Every file that holds a secret is its owner's alone, and nothing of it is in the log.
fn secrets_are_kept(site: &Site, server: &Pierhead) {
    let log = server.process.stderr() + &server.process.stdout();
    let kept = files(&site.directory().join("state/acme"));
    let holds_key = |text: &str| text.contains("PRIVATE KEY");
    let secrets: Vec<(&PathBuf, String)> = kept
        .iter()
        .map(|file| (file, fs::read_to_string(file).unwrap_or_default()))
        .filter(|(_, text)| holds_key(text))
        .collect();
    assert!(secrets.len() >= 2, "the account's key and the certificate's: {kept:?}");
    for (file, text) in &secrets {
        let mode = fs::metadata(file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        let line = text.lines().skip_while(|line| !line.contains("PRIVATE KEY")).nth(1).expect("a key has lines");
        assert!(!log.contains(line), "a key is in the log");
    }
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}
