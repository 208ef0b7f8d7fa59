//! Do the keys of `tls` fit each other, our names and our ports?

use super::super::Settings;
use super::super::checks::{Checks, speaks_tls};
use super::super::problem::{Place, Problem};
use super::super::reader::Setting;
use super::super::written::Written;
use super::acme;
use super::names::covers;
use super::written::{Certificate, ClientAuth, Enabled, Mode};
use crate::tls;

/// What goes into a derivation of ticket keys.
const TICKET_KEY: u64 = 32;
/// Keys of tickets are changed one at a time, and the old one kept for as long as its tickets are good.
const MOST_TICKET_KEYS: usize = 16;

/// Compares the keys of `tls` with each other and with everything else.
pub(in super::super) fn check(checks: &mut Checks<'_>, written: &Written) {
    certificates(checks, written);
    checks.folder("tls.local", &written.tls.local);
    acme::check(checks, written);
    client_auth(checks, written);
    ticket_keys(checks, &written.tls.ticket_keys);
}

/// What `tls.acme.enabled` says.
pub(in super::super) fn enabled(written: &Written) -> Option<Enabled> {
    written.tls.acme.enabled.written().map(|(enabled, _)| *enabled)
}

/// What shows itself once it is known what everything means.
pub(in super::super) fn warnings(settings: &Settings, enabled: Option<Enabled>) -> Vec<Problem> {
    acme::warnings(settings, enabled)
}

/// What of files that name authorities cannot be used: their contents, which [`check`] does not look at.
pub(in super::super) fn unusable(settings: &Settings) -> Vec<Problem> {
    let acme = settings.tls.acme.as_ref().and_then(|acme| acme.ca.as_deref());
    let directory = acme.and_then(|file| Some(settings.problem("tls.acme.ca", tls::trusted(file).err()?)));
    let clients = settings.tls.clients.iter().enumerate().filter_map(|(number, clients)| {
        let error = tls::Rule::read(clients).err()?;
        let of_list = format!("tls.client_auth[{number}]");
        let one = || "tls.client_auth".to_owned();
        let key = if settings.written.contains_key(&format!("{of_list}.mode")) { of_list } else { one() };
        Some(Problem { key: key.clone(), ..settings.problem(&format!("{key}.mode"), error) })
    });
    directory.into_iter().chain(clients).collect()
}

/// Certificates are whole, readable, and shown to somebody.
fn certificates(checks: &mut Checks<'_>, written: &Written) {
    let Some((certificates, place)) = written.tls.certificates.written() else { return };
    for (number, files) in certificates.iter().enumerate() {
        certificate(checks, &format!("tls.certificates[{number}]"), files);
    }
    if !certificates.is_empty() && !speaks_tls(written) {
        let message = "never shown: nobody listens with TLS; write external_url with https://, or tls: true in one of \
                       listeners, or remove the certificates";
        checks.report(place, "tls.certificates", message);
    }
}

fn certificate(checks: &mut Checks<'_>, key: &str, files: &Certificate) {
    if let Some((path, place)) = files.password.written()
        && let Err(message) = checks.readable(path)
    {
        checks.report(place, format!("{key}.password"), message);
    }
    for (name, path) in [("certificate", &files.certificate), ("key", &files.key)] {
        let key = format!("{key}.{name}");
        match path {
            Setting::Unset => {
                checks.report(&files.place, key, format!("missing; write the path of the {name} (PEM)"));
            }
            Setting::Wrong => {}
            Setting::Is(path, place) => {
                if let Err(message) = checks.readable(path) {
                    checks.report(place, key, message);
                }
            }
        }
    }
}

/// Clients can be asked for certificates, each name is spoken of once, and nothing is said that would not be asked.
fn client_auth(checks: &mut Checks<'_>, written: &Written) {
    let Some((entries, place)) = written.tls.client_auth.written() else { return };
    for entry in entries {
        client_auth_entry(checks, entry);
    }
    names_spoken_of_twice(checks, entries);
    let asks = |entry: &ClientAuth| matches!(entry.mode, Setting::Is(Mode::Optional | Mode::Required, _));
    if !entries.iter().any(asks) {
        return;
    }
    if !speaks_tls(written) {
        let message = "nobody listens with TLS, so nobody can be asked for a certificate; have the load balancer that ends \
                       TLS ask, or let TLS through to a listener of ours";
        checks.report(place, "tls.client_auth", message);
        return;
    }
    ways_to_nothing(checks, written, entries);
    names_of_nobody(checks, written, entries);
}

fn client_auth_entry(checks: &mut Checks<'_>, entry: &ClientAuth) {
    let key = |name: &str| format!("{}.{name}", entry.key);
    let files = std::iter::once((key("ca"), &entry.ca));
    let lists =
        entry.crl.items().iter().enumerate().map(|(number, file)| (format!("{}.crl[{number}]", entry.key), file));
    for (key, file) in files.chain(lists) {
        if let Some((path, place)) = file.written()
            && let Err(message) = checks.readable(path)
        {
            checks.report(place, key, message);
        }
    }
    match &entry.mode {
        Setting::Is(Mode::Optional | Mode::Required, place) if entry.ca.is_unset() => {
            checks.report(place, key("mode"), "needs ca, the file with the authorities whose certificates count (PEM)");
        }
        Setting::Is(Mode::Off, _) | Setting::Unset => {
            for (name, place) in idle(entry) {
                let message = "without effect while mode is off (the default); write mode: required or optional";
                checks.report(place, key(name), message);
            }
        }
        Setting::Is(Mode::Optional | Mode::Required, _) | Setting::Wrong => {}
    }
    acme::find_twice(checks, &key("names"), entry.names.items(), Clone::clone);
    acme::find_twice(checks, &key("crl"), entry.crl.items(), Clone::clone);
}

/// The keys that say how somebody is asked.
fn idle(entry: &ClientAuth) -> Vec<(&'static str, &Place)> {
    let ClientAuth { place: _, key: _, mode: _, ca, names: _, depth, crl, header } = entry;
    let places = [
        ("ca", ca.written().map(|(_, place)| place)),
        ("depth", depth.written().map(|(_, place)| place)),
        ("crl", crl.written().map(|(_, place)| place)),
        ("header", header.written().map(|(_, place)| place)),
    ];
    places.into_iter().filter_map(|(name, place)| Some((name, place?))).collect()
}

/// The first that has a name counts: one later with the same name never would, and after one for every name none does.
fn names_spoken_of_twice(checks: &mut Checks<'_>, entries: &[ClientAuth]) {
    let is_for_all =
        |entry: &ClientAuth| entry.names.is_unset() || entry.names.written().is_some_and(|(names, _)| names.is_empty());
    for (number, entry) in entries.iter().enumerate() {
        let before = &entries[..number];
        if let Some(all) = before.iter().find(|other| is_for_all(other)) {
            let message = format!("never counts: {} is for every name and comes first; write it last", all.key);
            checks.report(&entry.place, &entry.key, message);
            continue;
        }
        for (place_in_list, name) in entry.names.items().iter().enumerate() {
            let Some((name, place)) = name.written() else { continue };
            let has = |other: &&ClientAuth| {
                let covered = |other: &str| other == name || covers(other, name);
                other.names.items().iter().any(|other| other.written().is_some_and(|(other, _)| covered(other)))
            };
            if let Some(other) = before.iter().find(has) {
                let message = format!(
                    "never counts: {}.names has {name} already, and the first counts; remove it, or write it first",
                    other.key
                );
                checks.report(place, format!("{}.names[{place_in_list}]", entry.key), message);
            }
        }
    }
}

/// Who comes without TLS shows no certificate, and so reaches no name that requires one.
fn ways_to_nothing(checks: &mut Checks<'_>, written: &Written, entries: &[ClientAuth]) {
    let required = |entry: &&ClientAuth| matches!(entry.mode, Setting::Is(Mode::Required, _));
    let Some(entry) = entries.iter().find(required) else { return };
    let secure = written.external_url.written().is_none_or(|(origin, _)| origin.is_secure());
    for (number, listener) in written.listeners.items().iter().enumerate() {
        let clear = match &listener.tls {
            Setting::Is(tls, _) => !tls,
            Setting::Unset => !secure,
            Setting::Wrong => false,
        };
        if clear && listener.redirect.is_unset() {
            let message = format!(
                "without TLS nobody can show a certificate: by listeners[{number}] nobody reaches a name for which mode is \
                 required (421), nor does a proxy that asks its clients itself; write tls: true there, or leave the names that \
                 come by it out of `names`"
            );
            checks.warn(&entry.place, &entry.key, message);
        }
    }
}

/// A name of none of our origins is a mistake of spelling, as a rule.
fn names_of_nobody(checks: &mut Checks<'_>, written: &Written, entries: &[ClientAuth]) {
    let origins = super::meant::written_origins(&written.external_url, &written.aliases);
    let mut hosts: Vec<String> = origins.iter().map(|origin| origin.host().to_owned()).collect();
    if written.external_url.is_unset() {
        hosts.extend(checks.machine.names());
    }
    if written.external_url.is_wrong() || written.aliases.is_wrong() {
        return;
    }
    for entry in entries {
        for (number, name) in entry.names.items().iter().enumerate() {
            let Some((name, place)) = name.written() else { continue };
            if !hosts.iter().any(|host| covers(name, host)) {
                let message = format!("no client comes by {name}: it is neither external_url nor an alias");
                checks.warn(place, format!("{}.names[{number}]", entry.key), message);
            }
        }
    }
}

/// Each is long enough to be a secret.
fn ticket_keys(checks: &mut Checks<'_>, keys: &Setting<Vec<Setting<std::path::PathBuf>>>) {
    let Some((files, place)) = keys.written() else { return };
    if files.len() > MOST_TICKET_KEYS {
        checks.report(place, "tls.ticket_keys", format!("{} of them; {MOST_TICKET_KEYS} at most", files.len()));
    }
    acme::find_twice(checks, "tls.ticket_keys", files, Clone::clone);
    for (number, file) in files.iter().enumerate() {
        let Some((path, place)) = file.written() else { continue };
        let key = format!("tls.ticket_keys[{number}]");
        if let Err(message) = checks.readable(path) {
            checks.report(place, key, message);
        } else if checks.machine.serves && path.metadata().is_ok_and(|file| file.len() < TICKET_KEY) {
            let shown = path.display();
            let message = format!(
                "{shown} is shorter than {TICKET_KEY} bytes; make it anew: openssl rand -out {shown} {}",
                TICKET_KEY + 16
            );
            checks.report(place, key, message);
        }
    }
}
