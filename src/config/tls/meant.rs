//! Which certificate is shown where nothing was written, and is one ordered?

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::machine::Machine;
use super::super::reader::Setting;
use super::names;
use super::written::{Acme, Certificate, ClientAuth, Dns, Enabled, Hsts, Mode, Tls};
use crate::exchange::Origin;
use crate::front::{self, Address};
use crate::tls::acme::{self, Challenge, ExternalAccount, LETS_ENCRYPT, LETS_ENCRYPT_STAGING};
use crate::tls::{Clients, Config, Files, Local, NamedClients, Policy};

/// Two years, as the list that browsers come with asks for.
const HSTS: Duration = Duration::from_secs(730 * 24 * 3600);
/// A client's certificate, and one between it and the authority's.
const DEPTH: u64 = 1;
/// The header that NGINX's documentation passes the subject in.
const HEADER: &str = "X-SSL-Client-S-DN";
/// Let's Encrypt takes no more, and hardly anybody does.
pub(super) const MOST_NAMES: usize = 100;
/// Where authorities look (RFC 8737 3, RFC 8555 8.3).
pub(super) const HTTPS: u16 = 443;
pub(super) const HTTP: u16 = 80;

/// Fills in the defaults. `origins` are those that the operator wrote.
pub(in super::super) fn config(
    written: Tls,
    origins: &[Origin],
    front: &front::Config,
    machine: &Machine,
    state: &Path,
) -> Config {
    // Written and empty is none.
    let found = if written.certificates.is_unset() { gitlab_certificate(front, machine) } else { None };
    let certificates = found.map_or_else(|| certificates(written.certificates), |found| vec![found]);
    let automatic = certificates.is_empty() && front.needs_certificates() && is_reached_by_all(&front.external_url);
    let acme = match written.acme.enabled.written() {
        Some((Enabled::No, _)) => None,
        Some((Enabled::Yes, _)) => Some(written.acme),
        Some((Enabled::Auto, _)) | None => automatic.then_some(written.acme),
    };
    Config {
        certificates,
        policy: written.policy.or(Policy::default()),
        local: Local {
            directory: written.local.or_else(|| state.join("tls")),
            names: certificate_names(front, machine),
        },
        acme: acme.map(|written| ordered(written, origins, front, machine, state)),
        clients: written.client_auth.into_value().unwrap_or_default().into_iter().filter_map(clients).collect(),
        ticket_keys: values(written.ticket_keys),
    }
}

/// How long browsers are to come with TLS only.
pub(in super::super) fn hsts(written: Setting<Hsts>) -> Option<Duration> {
    match written.or(Hsts::For(HSTS)) {
        Hsts::Off => None,
        Hsts::For(time) => Some(time),
    }
}

/// The origins that the operator wrote, `external_url` first. Nothing is ordered for names that only this machine has.
pub(in super::super) fn written_origins(
    external_url: &Setting<Origin>,
    aliases: &Setting<Vec<Setting<Origin>>>,
) -> Vec<Origin> {
    let origins = std::iter::once(external_url).chain(aliases.items());
    origins.filter_map(|origin| origin.written().map(|(origin, _)| origin.clone())).collect()
}

/// Whether it is a name by which everybody in the world comes.
fn is_reached_by_all(external_url: &Origin) -> bool {
    external_url.is_secure() && names::is_public(external_url.host())
}

/// Whether a directory is that of Let's Encrypt, which makes certificates for public names alone.
pub(super) fn is_lets_encrypt(directory: &str) -> bool {
    [LETS_ENCRYPT, LETS_ENCRYPT_STAGING].contains(&directory)
}

/// The names that a certificate is ordered for where none are written.
pub(super) fn usual_names(directory: &str, origins: &[Origin]) -> Vec<String> {
    let public = is_lets_encrypt(directory);
    let fits = |name: &str| match public {
        true => names::is_public(name),
        false => names::is_dns(name) && !names::is_loopback(name),
    };
    let mut found: Vec<String> = Vec::new();
    for origin in origins.iter().filter(|origin| origin.is_secure() && fits(origin.host())) {
        if !found.iter().any(|name| name == origin.host()) {
            found.push(origin.host().to_owned());
        }
    }
    found
}

fn ordered(written: Acme, origins: &[Origin], front: &front::Config, machine: &Machine, state: &Path) -> acme::Config {
    let directory = written.directory.or_else(|| LETS_ENCRYPT.to_owned());
    let certificates = match written.certificates {
        Setting::Is(certificates, _) => certificates.into_iter().map(values).collect(),
        Setting::Unset | Setting::Wrong => {
            usual_names(&directory, origins).chunks(MOST_NAMES).map(<[String]>::to_vec).collect()
        }
    };
    let gitlab = || Some(machine.gitlab_webroot.clone()).filter(|folder| folder.is_dir());
    let webroot = written.webroot.into_value().or_else(gitlab);
    let challenges = match written.challenges {
        Setting::Is(challenges, _) => challenges.into_iter().filter_map(Setting::into_value).collect(),
        Setting::Unset | Setting::Wrong => usual_challenges(front, webroot.is_some()),
    };
    let http = challenges.contains(&Challenge::Http01);
    acme::Config {
        directory,
        ca: written.ca.into_value(),
        contact: values(written.contact),
        challenges,
        certificates,
        account: account(written.eab.id, written.eab.key),
        profile: written.profile.into_value(),
        webroot: webroot.filter(|_| http),
        dns: dns(written.dns),
        storage: written.storage.or_else(|| state.join("acme")),
    }
}

/// In the handshake first, which needs no other port; but with a file where it is that way alone that leads to us.
fn usual_challenges(front: &front::Config, webroot: bool) -> Vec<Challenge> {
    let has = |wanted: u16, tls: bool| {
        let public = front.listeners.iter().filter(|listener| !listener.internal && listener.tls == tls);
        public.map(|listener| &listener.address).any(|address| match address {
            Address::Tcp(address) => address.port() == wanted,
            Address::Unix(_) | Address::Systemd(_) => false,
        })
    };
    let by_file = webroot || has(HTTP, false);
    if by_file && !has(HTTPS, true) && front.external_url.port() != HTTPS {
        vec![Challenge::Http01, Challenge::TlsAlpn01]
    } else {
        vec![Challenge::TlsAlpn01, Challenge::Http01]
    }
}

fn account(id: Setting<String>, key: Setting<PathBuf>) -> Option<ExternalAccount> {
    Some(ExternalAccount { id: id.into_value()?, key: key.into_value()? })
}

fn dns(written: Dns) -> Option<acme::Dns> {
    let Dns { server, zone, key, hook } = written;
    match (server, hook) {
        (Setting::Is(server, _), _) => {
            Some(acme::Dns::Update { server, zone: zone.into_value(), key: key.into_value() })
        }
        (_, Setting::Is(program, _)) => Some(acme::Dns::Hook { program }),
        _ => None,
    }
}

fn clients(written: ClientAuth) -> Option<NamedClients> {
    let ca: Vec<PathBuf> = written.ca.into_value().into_iter().collect();
    let clients = match written.mode.or(Mode::Off) {
        Mode::Off => Clients::Anyone,
        Mode::Optional => Clients::MayProve(ca),
        Mode::Required => Clients::MustProve(ca),
    };
    Some(NamedClients {
        names: values(written.names),
        clients,
        depth: usize::try_from(written.depth.or(DEPTH)).ok()?,
        revoked: values(written.crl),
        header: written.header.or_else(|| HEADER.to_owned()),
    })
}

fn values<T>(written: Setting<Vec<Setting<T>>>) -> Vec<T> {
    written.into_value().unwrap_or_default().into_iter().filter_map(Setting::into_value).collect()
}

fn certificates(written: Setting<Vec<Certificate>>) -> Vec<Files> {
    let meant = |files: Certificate| {
        let (certificate, key) = (files.certificate.into_value()?, files.key.into_value()?);
        Some(Files { certificate, key, password: files.password.into_value() })
    };
    written.into_value().unwrap_or_default().into_iter().filter_map(meant).collect()
}

/// The certificate that GitLab would show for this host, if both of its files are there.
fn gitlab_certificate(front: &front::Config, machine: &Machine) -> Option<Files> {
    let host = front.external_url.host();
    let file = |end: &str| machine.gitlab_certificates.join(format!("{host}.{end}"));
    let found = Files::new(file("crt"), file("key"));
    (front.needs_certificates() && found.certificate.is_file() && found.key.is_file()).then_some(found)
}

/// Every name by which clients may come: those that the operator wrote, then those of the machine.
fn certificate_names(front: &front::Config, machine: &Machine) -> Vec<String> {
    let written = std::iter::once(&front.external_url).chain(&front.aliases);
    let hosts = written.map(|origin| origin.host().trim_matches(['[', ']']).to_owned());
    let mut names: Vec<String> = Vec::new();
    for name in hosts.chain(machine.names()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
