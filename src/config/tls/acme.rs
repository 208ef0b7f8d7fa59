//! Does what was written about orders fit together, and can an authority reach us?

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::super::Settings;
use super::super::checks::{Checks, speaks_tls};
use super::super::meant::EXTERNAL_PORT;
use super::super::problem::{Place, Problem};
use super::super::reader::Setting;
use super::super::written::Written;
use super::meant::{HTTP, HTTPS, MOST_NAMES, is_lets_encrypt, usual_names, written_origins};
use super::names::{can_be_public, covers, is_public};
use super::written::{Acme, Dns, Enabled};
use crate::exchange::Origin;
use crate::front::{Address, Listener};
use crate::tls::acme::{Challenge, Config, LETS_ENCRYPT};

/// Each is renewed for itself.
const MOST_CERTIFICATES: usize = 50;
/// Addresses for one account.
const MOST_CONTACTS: usize = 10;

const KEY: &str = "tls.acme";

/// Compares the keys of `tls.acme` with each other, with our names and with this machine.
pub(super) fn check(checks: &mut Checks<'_>, written: &Written) {
    let acme = &written.tls.acme;
    check_files(checks, acme);
    check_contact(checks, &acme.contact);
    check_account(checks, acme);
    check_challenges(checks, acme);
    check_dns(checks, acme);
    check_certificates(checks, acme);
    if let Some((Enabled::Yes, place)) = acme.enabled.written() {
        check_enabled(checks, written, place);
    }
}

fn check_files(checks: &mut Checks<'_>, acme: &Acme) {
    checks.folder("tls.acme.storage", &acme.storage);
    for (key, file) in [("ca", &acme.ca), ("eab.key", &acme.eab.key), ("dns.key", &acme.dns.key)] {
        if let Some((path, place)) = file.written()
            && let Err(message) = checks.readable(path)
        {
            checks.report(place, format!("{KEY}.{key}"), message);
        }
    }
    if let Some((folder, place)) = acme.webroot.written()
        && checks.machine.serves
        && !folder.is_dir()
    {
        let message = format!("{} is not a folder; name the one that the server on port 80 serves", folder.display());
        checks.report(place, "tls.acme.webroot", message);
    }
}

fn check_contact(checks: &mut Checks<'_>, contact: &Setting<Vec<Setting<String>>>) {
    let Some((contacts, place)) = contact.written() else { return };
    if contacts.len() > MOST_CONTACTS {
        checks.report(place, "tls.acme.contact", format!("{} of them; {MOST_CONTACTS} at most", contacts.len()));
    }
    find_twice(checks, "tls.acme.contact", contacts, |contact| contact.to_ascii_lowercase());
}

/// Reports what is in a list for the second time.
pub(super) fn find_twice<T, U: PartialEq>(
    checks: &mut Checks<'_>,
    key: &str,
    items: &[Setting<T>],
    same: impl Fn(&T) -> U,
) {
    let of = |item: &Setting<T>| item.written().map(|(value, _)| same(value));
    for (number, item) in items.iter().enumerate() {
        let Some((value, place)) = item.written() else { continue };
        let value = Some(same(value));
        if let Some(first) = items[..number].iter().position(|other| of(other) == value) {
            checks.report(place, format!("{key}[{number}]"), format!("is {key}[{first}] already; remove it"));
        }
    }
}

fn check_account(checks: &mut Checks<'_>, acme: &Acme) {
    match (&acme.eab.id, &acme.eab.key) {
        (Setting::Is(_, place), Setting::Unset) => {
            let message =
                "needs tls.acme.eab.key, the file of the key that the authority gave with it; write both or none";
            checks.report(place, "tls.acme.eab.id", message);
        }
        (Setting::Unset, Setting::Is(_, place)) => {
            let message = "needs tls.acme.eab.id, what the authority calls the account; write both or none";
            checks.report(place, "tls.acme.eab.key", message);
        }
        _ => {}
    }
}

/// Whether dns-01 is one of the challenges; when they are wrong nobody knows.
fn by_dns(acme: &Acme) -> Option<bool> {
    let Setting::Is(challenges, _) = &acme.challenges else { return acme.challenges.is_unset().then_some(false) };
    if challenges.iter().any(Setting::is_wrong) {
        return None;
    }
    Some(has(challenges, Challenge::Dns01))
}

fn has(challenges: &[Setting<Challenge>], wanted: Challenge) -> bool {
    challenges.iter().any(|challenge| challenge.written().is_some_and(|(challenge, _)| *challenge == wanted))
}

fn check_challenges(checks: &mut Checks<'_>, acme: &Acme) {
    let Some((challenges, place)) = acme.challenges.written() else { return };
    let key = "tls.acme.challenges";
    if challenges.is_empty() {
        let message = "must hold at least one of tls-alpn-01, http-01 and dns-01; remove the key for the first two";
        checks.report(place, key, message);
    }
    find_twice(checks, key, challenges, |challenge| *challenge);
    let whole = !challenges.iter().any(Setting::is_wrong);
    if let Some((_, place)) = acme.webroot.written()
        && whole
        && !has(challenges, Challenge::Http01)
    {
        checks.report(
            place,
            "tls.acme.webroot",
            "is for http-01, which is not one of tls.acme.challenges; add it there",
        );
    }
}

fn check_dns(checks: &mut Checks<'_>, acme: &Acme) {
    let Dns { server, zone, key, hook } = &acme.dns;
    let nothing = server.is_unset() && hook.is_unset();
    for (name, place) in [("zone", place_of(zone)), ("key", place_of(key))] {
        let Some(place) = place else { continue };
        if nothing || hook.written().is_some() {
            checks.report(
                place,
                format!("tls.acme.dns.{name}"),
                "is for updates of tls.acme.dns.server; remove it or name the server",
            );
        }
    }
    if let (Setting::Is(..), Setting::Is(program, place)) | (Setting::Unset, Setting::Is(program, place)) =
        (server, hook)
    {
        if server.written().is_some() {
            checks.report(place, "tls.acme.dns.hook", "cannot be together with tls.acme.dns.server; keep one");
        }
        if let Err(message) = executable(checks, program) {
            checks.report(place, "tls.acme.dns.hook", message);
        }
    }
    let wanted = by_dns(acme);
    for (name, place) in [("server", place_of(server)), ("hook", place_of(hook))] {
        if let (Some(place), Some(false)) = (place, wanted) {
            let message = "is for dns-01, which is not one of tls.acme.challenges; add it: [dns-01]";
            checks.report(place, format!("tls.acme.dns.{name}"), message);
        }
    }
    if let (Some((_, place)), Some(true), true) = (acme.challenges.written(), wanted, nothing) {
        let message = "dns-01 needs tls.acme.dns: a server that takes updates, or a hook";
        checks.report(place, "tls.acme.challenges", message);
    }
}

fn place_of<T>(setting: &Setting<T>) -> Option<&Place> {
    setting.written().map(|(_, place)| place)
}

/// Whether somebody may run it, as far as can be told without running it.
fn executable(checks: &Checks<'_>, program: &PathBuf) -> Result<(), String> {
    if !checks.machine.serves {
        return Ok(());
    }
    let shown = program.display();
    match std::fs::metadata(program) {
        Ok(found) if !found.is_file() => Err(format!("{shown} is not a file")),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => Err(format!("{shown} is not executable; chmod +x it")),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{shown} cannot be run: {error}")),
    }
}

fn check_certificates(checks: &mut Checks<'_>, acme: &Acme) {
    let Some((certificates, place)) = acme.certificates.written() else { return };
    let key = "tls.acme.certificates";
    if certificates.is_empty() {
        checks.report(
            place,
            key,
            "must hold at least one, such as [[registry.example.com]]; enabled: false orders none",
        );
    }
    if certificates.len() > MOST_CERTIFICATES {
        checks.report(place, key, format!("{} of them; {MOST_CERTIFICATES} at most", certificates.len()));
    }
    for (number, certificate) in certificates.iter().enumerate() {
        if let Some((names, place)) = certificate.written() {
            check_names(checks, acme, &format!("{key}[{number}]"), names, place);
        }
    }
    find_same_place(checks, certificates);
}

fn check_names(checks: &mut Checks<'_>, acme: &Acme, key: &str, names: &[Setting<String>], place: &Place) {
    if names.is_empty() {
        checks.report(place, key, "must hold at least one name, such as [registry.example.com]");
    }
    if names.len() > MOST_NAMES {
        checks.report(place, key, format!("{} names; authorities take {MOST_NAMES} at most", names.len()));
    }
    find_twice(checks, key, names, Clone::clone);
    let public = match &acme.directory {
        Setting::Is(directory, _) => is_lets_encrypt(directory),
        Setting::Unset => is_lets_encrypt(LETS_ENCRYPT),
        Setting::Wrong => false,
    };
    let wildcard = |host: &str| {
        let written = names.iter().filter_map(|name| name.written().map(|(name, _)| name));
        written.filter(|name| name.starts_with("*.")).find(|name| covers(name, host))
    };
    for (number, name) in names.iter().enumerate() {
        let Some((name, place)) = name.written() else { continue };
        let key = format!("{key}[{number}]");
        if let Some(wildcard) = wildcard(name).filter(|wildcard| public && *wildcard != name) {
            let message =
                format!("{wildcard} covers {name}, and Let's Encrypt refuses both in one certificate; remove one");
            checks.report(place, &key, message);
        }
        if name.starts_with("*.") && by_dns(acme) == Some(false) {
            let message =
                format!("{name} can only be proven by dns-01; write tls.acme.challenges: [dns-01] and tls.acme.dns");
            checks.report(place, &key, message);
        }
        if public && !can_be_public(name) {
            let message = format!(
                "Let's Encrypt makes certificates for public names alone, and {name} is none; name the directory of \
                 another authority in tls.acme.directory"
            );
            checks.report(place, &key, message);
        }
    }
}

/// A certificate is kept by its first name.
fn find_same_place(checks: &mut Checks<'_>, certificates: &[Setting<Vec<Setting<String>>>]) {
    let first = |certificate: &Setting<Vec<Setting<String>>>| {
        let (name, place) = certificate.items().first()?.written()?;
        Some((name.clone(), place.clone()))
    };
    for (number, certificate) in certificates.iter().enumerate() {
        let Some((name, place)) = first(certificate) else { continue };
        let same = |other: &Setting<_>| first(other).is_some_and(|(other, _)| other == name);
        if let Some(earlier) = certificates[..number].iter().position(same) {
            let message = format!(
                "begins with {name}, as tls.acme.certificates[{earlier}] does; begin with another name, or make one of both"
            );
            checks.report(&place, format!("tls.acme.certificates[{number}]"), message);
        }
    }
}

/// What is asked for can be done: there is a name, and somebody to show the certificate.
fn check_enabled(checks: &mut Checks<'_>, written: &Written, place: &Place) {
    let key = "tls.acme.enabled";
    if !speaks_tls(written) {
        let message = "nobody listens with TLS, so no certificate would be shown; write external_url with https://, or tls: \
                       true in one of listeners";
        checks.report(place, key, message);
        return;
    }
    let acme = &written.tls.acme;
    let wrong = written.external_url.is_wrong() || written.aliases.is_wrong() || acme.directory.is_wrong();
    if wrong || !acme.certificates.is_unset() || written.aliases.items().iter().any(Setting::is_wrong) {
        return;
    }
    let directory = acme.directory.written().map_or(LETS_ENCRYPT, |(directory, _)| directory.as_str());
    if usual_names(directory, &written_origins(&written.external_url, &written.aliases)).is_empty() {
        let message = "neither external_url nor an alias is https:// with a public DNS name; correct them, write the names in \
                       tls.acme.certificates, or name the directory of your own authority in tls.acme.directory";
        checks.report(place, key, message);
    }
}

/// What is taken, and yet will not lead to a certificate. `enabled` is what was written.
pub(super) fn warnings(settings: &Settings, enabled: Option<Enabled>) -> Vec<Problem> {
    match &settings.tls.acme {
        Some(acme) => unreachable(settings, acme).into_iter().collect(),
        None if enabled == Some(Enabled::No) => Vec::new(),
        None => without_effect(settings).into_iter().collect(),
    }
}

/// Keys say how to order, and nothing is ordered.
fn without_effect(settings: &Settings) -> Option<Problem> {
    let how = |key: &&String| key.starts_with("tls.acme.") && *key != "tls.acme.enabled";
    let key = settings.written.keys().find(how)?;
    let why = if !settings.tls.certificates.is_empty() {
        "there is a certificate in files: write enabled: true to have one ordered beside it".to_owned()
    } else if is_public(settings.front.external_url.host()) {
        "nobody listens with TLS".to_owned()
    } else {
        format!(
            "external_url ({}) is not https:// with a public DNS name: write enabled: true to have one ordered all the same",
            settings.front.external_url
        )
    };
    Some(settings.problem(key, format!("without effect, as no certificate is ordered by itself here: {why}")))
}

/// No authority will find us, as far as can be told from here.
fn unreachable(settings: &Settings, acme: &Config) -> Option<Problem> {
    let public = || settings.front.listeners.iter().filter(|listener| !listener.internal);
    let at = |port: u16, tls: bool| {
        let here = |listener: &Listener| match &listener.address {
            Address::Tcp(address) => address.port() == port && listener.tls == tls,
            Address::Unix(_) | Address::Systemd(_) => true, // nobody knows which port leads there
        };
        public().any(here)
    };
    let reached = |challenge: &Challenge| match challenge {
        Challenge::TlsAlpn01 => at(HTTPS, true),
        Challenge::Http01 => acme.webroot.is_some() || at(HTTP, false),
        Challenge::Dns01 => true,
    };
    let external = &settings.front.external_url;
    // Where clients come by 443 and nobody listens there, something hands on what comes.
    if external.port() == HTTPS || acme.challenges.iter().any(reached) {
        return None;
    }
    let message = what_to_do(external, &acme.challenges);
    let key = if settings.written.contains_key("tls.acme.enabled") { "tls.acme.enabled" } else { "external_url" };
    Some(settings.problem(key, message))
}

/// What stands between an authority and us, and the ways around it.
fn what_to_do(external: &Origin, challenges: &[Challenge]) -> String {
    let host = external.host();
    let port = |challenge: &Challenge| match challenge {
        Challenge::TlsAlpn01 => "443 (tls-alpn-01)",
        Challenge::Http01 | Challenge::Dns01 => "80 (http-01)",
    };
    let ports: Vec<&str> = challenges.iter().map(port).collect();
    let http = if challenges.contains(&Challenge::Http01) { "" } else { "add http-01 to tls.acme.challenges and " };
    let listener = "{ address: \":80\", redirect: https } to listeners";
    let way = if external.port() == EXTERNAL_PORT {
        format!(
            "Where GitLab has these ports, {http}let Pierhead's user write below /var/opt/gitlab/nginx/www, or whatever \
             folder tls.acme.webroot names, from which GitLab's NGINX answers, or show GitLab's own certificate \
             (/etc/gitlab/ssl/{host}.crt and .key); where they are free, {http}add {listener}"
        )
    } else {
        format!(
            "If port 80 is free, {http}add {listener}; if another server has it, {http}name the folder that it answers \
             from in tls.acme.webroot"
        )
    };
    format!(
        "the authority will connect to port {} of {host}, whatever port this registry has, and nobody listens there. {way}; \
         or use dns-01. Where one of these ports is handed on to this server nothing is to do; tls.acme.enabled: false \
         orders nothing",
        ports.join(" or ")
    )
}
