//! `tls` as YAML.

use std::path::Path;

use super::super::Settings;
use super::super::scalar::AsDuration;
use super::super::show::{Item, Page, quoted, scalar, word};
use super::names::is_public;
use super::written::{CHALLENGES, DIRECTORIES, POLICIES};
use crate::tls::acme::{self, Dns};
use crate::tls::{Clients, Files, NamedClients};

impl Page<'_> {
    pub(in super::super) fn tls(&mut self, settings: &Settings) {
        let tls = &settings.tls;
        self.section("tls", |page| {
            page.choice("policy", &POLICIES, tls.policy);
            match settings.front.hsts {
                Some(time) => page.scalar("hsts", AsDuration(time)),
                None => page.scalar("hsts", "off"),
            }
            page.list("certificates", tls.certificates.iter().map(pair));
            page.scalar("local", tls.local.directory.display());
            if let Some(why) = why_nothing_is_ordered(settings) {
                page.remark(&format!("no certificate is ordered: {why}"));
            }
            page.section("acme", |page| match &tls.acme {
                Some(acme) => page.acme(acme),
                None => page.line("enabled", "false"),
            });
            page.list("client_auth", tls.clients.iter().map(client_auth));
            page.list("ticket_keys", tls.ticket_keys.iter().map(|file| vec![("", path(file))]));
        });
    }

    fn acme(&mut self, acme: &acme::Config) {
        self.line("enabled", "true");
        let word = DIRECTORIES.iter().find(|(_, url)| *url == acme.directory);
        self.scalar("directory", word.map_or(acme.directory.as_str(), |(word, _)| word));
        self.file("ca", acme.ca.as_deref());
        self.line("contact", &list(acme.contact.iter().map(String::as_str)));
        self.line("challenges", &list(acme.challenges.iter().map(|challenge| self::word(&CHALLENGES, *challenge))));
        let certificates = acme.certificates.iter();
        self.list("certificates", certificates.map(|names| vec![("", list(names.iter().map(String::as_str)))]));
        let account = acme.account.as_ref();
        self.section("eab", |page| {
            page.word("id", account.map(|account| account.id.as_str()));
            page.file("key", account.map(|account| account.key.as_path()));
        });
        self.word("profile", acme.profile.as_deref());
        self.file("webroot", acme.webroot.as_deref());
        let (server, zone, key, hook) = match &acme.dns {
            Some(Dns::Update { server, zone, key }) => (Some(server), zone.as_ref(), key.as_ref(), None),
            Some(Dns::Hook { program }) => (None, None, None, Some(program)),
            None => (None, None, None, None),
        };
        self.section("dns", |page| {
            page.word("server", server.map(String::as_str));
            page.word("zone", zone.map(String::as_str));
            page.file("key", key.map(std::path::PathBuf::as_path));
            page.file("hook", hook.map(std::path::PathBuf::as_path));
        });
        self.scalar("storage", acme.storage.display());
    }

    fn word(&mut self, key: &str, text: Option<&str>) {
        self.line(key, &text.map_or_else(|| "null".to_owned(), scalar));
    }

    fn file(&mut self, key: &str, file: Option<&Path>) {
        self.line(key, &file.map_or_else(|| "null".to_owned(), path));
    }
}

/// Why, unless the operator said so.
fn why_nothing_is_ordered(settings: &Settings) -> Option<String> {
    let external = &settings.front.external_url;
    let said = settings.written.contains_key("tls.acme.enabled");
    if settings.tls.acme.is_some() || settings.registry_only || (said && is_public(external.host())) {
        return None;
    }
    let host = external.host();
    let why = if !settings.front.needs_certificates() {
        "nobody listens with TLS".to_owned()
    } else if !external.is_secure() {
        "external_url is not https://".to_owned()
    } else if !is_public(host) {
        format!("{host} is not a public DNS name")
    } else {
        "there is one in files".to_owned()
    };
    Some(why)
}

fn pair(files: &Files) -> Item {
    let password = files.password.iter().map(|file| ("password", path(file)));
    let pair = [("certificate", path(&files.certificate)), ("key", path(&files.key))];
    pair.into_iter().chain(password).collect()
}

fn client_auth(named: &NamedClients) -> Item {
    let names = ("names", list(named.names.iter().map(String::as_str)));
    let (mode, authorities) = match &named.clients {
        Clients::Anyone => return vec![("mode", "off".to_owned()), names],
        Clients::MayProve(authorities) => ("optional", authorities),
        Clients::MustProve(authorities) => ("required", authorities),
    };
    let ca = authorities.iter().map(|file| ("ca", path(file)));
    let crl: Vec<String> = named.revoked.iter().map(|file| file.display().to_string()).collect();
    let rest = [
        names,
        ("depth", named.depth.to_string()),
        ("crl", list(crl.iter().map(String::as_str))),
        ("header", scalar(&named.header)),
    ];
    std::iter::once(("mode", mode.to_owned())).chain(ca).chain(rest).collect()
}

fn path(file: &Path) -> String {
    scalar(file.display())
}

/// Texts as a list on one line.
fn list<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    let texts: Vec<String> = texts.map(quoted).collect();
    format!("[{}]", texts.join(", "))
}
