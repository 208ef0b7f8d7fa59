//! What would the file be that says everything?
//!
//! `pierhead check` prints it: every key with its value, and beside each that was written where. The text is a
//! configuration itself, and loading it gives the same settings, but for what may be a secret: `http.secret` and the
//! headers of `health.http`, which it says are missing.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use http::{HeaderName, HeaderValue};

use super::meant::METRICS;
use super::problem::{Place, Source};
use super::scalar::{AsDuration, AsSize};
use super::written::{ALGORITHMS, FORMATS, LEVELS, PROXY_PROTOCOLS};
use super::{Settings, Tokens};
use crate::auth::{Guard, Realm, Trust};
use crate::front::{self, ProxyProtocol};
use crate::registry::health::{self, Pace};
use crate::registry::{self, Platforms};
use crate::telemetry::Destination;
use crate::tls::{Clients, Port, Version};

/// An item of a list: its keys and values.
pub(super) type Item = Vec<(&'static str, String)>;

/// The settings as a configuration file.
pub fn show(settings: &Settings) -> String {
    let mut page = Page { text: String::new(), written: &settings.written, path: Vec::new() };
    match &settings.source {
        Some(file) => page.remark(&format!("from {}", file.display())),
        None => page.remark("from built-in defaults: there is no configuration file"),
    }
    let variables = settings.written.values().filter(|place| matches!(place.source, Source::Variable(_))).count();
    if variables > 0 {
        page.remark(&format!("and from the environment, which set {variables} of the keys below"));
    }
    page.remark("Keys without a remark have their defaults.");
    page.front(settings);
    page.tls(settings);
    if settings.services.registry {
        page.registry(settings);
    } else {
        page.line("registry", "false");
    }
    page.tokens(settings);
    page.upstreams(&settings.front.upstreams);
    page.routes(settings);
    page.limits(settings);
    page.log(settings);
    page.monitoring(settings);
    page.text
}

pub(super) struct Page<'s> {
    text: String,
    written: &'s BTreeMap<String, Place>,
    path: Vec<String>,
}

impl Page<'_> {
    fn front(&mut self, settings: &Settings) {
        let front = &settings.front;
        self.scalar("external_url", &front.external_url);
        self.list("aliases", front.aliases.iter().map(|alias| vec![("", scalar(alias))]));
        self.scalar("state", settings.state.display());
        match &settings.user {
            Some(user) => self.scalar("user", user),
            None => self.line("user", "null"),
        }
        self.list("trusted_proxies", front.trusted_proxies.iter().map(|network| vec![("", scalar(network))]));
        let public = front.listeners.iter().filter(|listener| !listener.internal);
        self.list("listeners", public.map(listener));
        if !settings.services.registry {
            return;
        }
        let internal = front.listeners.iter().find(|listener| listener.internal);
        let (protocol, gate) = internal.map_or_else(Default::default, |port| (port.proxy_protocol, port.gate.clone()));
        self.section("internal", |page| {
            page.choice("proxy_protocol", &PROXY_PROTOCOLS, protocol);
            for (key, directions) in [("allow", &gate.allow), ("deny", &gate.deny)] {
                page.section(key, |page| {
                    page.line("pull", &networks(&directions.pull));
                    page.line("push", &networks(&directions.push));
                });
            }
        });
    }

    fn registry(&mut self, settings: &Settings) {
        let registry = &settings.registry;
        let internal = settings.front.listeners.iter().find(|listener| listener.internal);
        self.section("registry", |page| {
            page.section("storage", |page| {
                page.section("filesystem", |page| page.scalar("rootdirectory", registry.root.display()));
                page.section("delete", |page| page.line("enabled", &registry.delete.to_string()));
                page.maintenance(registry);
            });
            page.guard(&settings.auth.guard);
            page.section("http", |page| page.http(&settings.front, internal, registry.relative_urls));
            page.health(&registry.health);
            page.wire(registry);
        });
    }

    fn http(&mut self, front: &front::Config, port: Option<&front::Listener>, relative_urls: bool) {
        match port.map(|port| &port.address) {
            Some(front::Address::Unix(path)) => {
                self.line("net", "unix");
                self.scalar("addr", path.display());
            }
            Some(front::Address::Tcp(address)) => self.scalar("addr", address),
            Some(front::Address::Systemd(_)) | None => self.scalar("addr", "off"), // no key says systemd
        }
        if let Some(prefix) = &front.internal.prefix {
            self.scalar("prefix", prefix.as_str());
        }
        if let Some(host) = &front.internal.host {
            self.scalar("host", host);
        }
        if relative_urls {
            self.line("relativeurls", "true");
        }
        if let Some(tls) = &front.internal.tls {
            self.section("tls", |page| page.port(tls));
            if !tls.http2 {
                self.section("http2", |page| page.line("disabled", "true"));
            }
        }
        if let Some(debug) = &front.debug {
            self.debug(debug);
        }
        self.headers(&front.headers);
    }

    /// What `metrics` does not say.
    fn debug(&mut self, debug: &front::Debug) {
        let here = self.is_of_distribution();
        let path = debug.metrics.as_ref().filter(|path| *path != METRICS);
        if !here && path.is_none() {
            return;
        }
        self.section("debug", |page| {
            if here {
                page.scalar("addr", debug.address);
            }
            page.section("prometheus", |page| {
                if here {
                    page.line("enabled", &debug.metrics.is_some().to_string());
                }
                if let Some(path) = path {
                    page.scalar("path", path);
                }
            });
        });
    }

    /// Whether the debug address was written as Distribution has it.
    fn is_of_distribution(&self) -> bool {
        self.written.contains_key("registry.http.debug.addr") && !self.written.contains_key("metrics.address")
    }

    fn monitoring(&mut self, settings: &Settings) {
        if settings.registry_only || self.is_of_distribution() {
            return;
        }
        self.section("metrics", |page| match &settings.front.debug {
            Some(debug) => page.scalar("address", debug.address),
            None => page.scalar("address", "off"),
        });
    }

    fn headers(&mut self, headers: &[(HeaderName, HeaderValue)]) {
        if headers.is_empty() {
            return;
        }
        let mut values: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            // They were written as text.
            values.entry(name.as_str()).or_default().push(quoted(&String::from_utf8_lossy(value.as_bytes())));
        }
        self.line("headers", "");
        let indent = "  ".repeat(self.path.len() + 1);
        for (name, values) in values {
            self.put(format_args!("{indent}{}: [{}]", scalar(name), values.join(", ")));
        }
    }

    fn port(&mut self, tls: &Port) {
        self.scalar("certificate", tls.files.certificate.display());
        self.scalar("key", tls.files.key.display());
        let (authorities, word) = match &tls.clients {
            Clients::Anyone => (&[][..], ""),
            Clients::MayProve(files) => (&files[..], "verify-client-cert-if-given"),
            Clients::MustProve(files) => (&files[..], "require-and-verify-client-cert"),
        };
        if !authorities.is_empty() {
            self.list("clientcas", authorities.iter().map(|file| vec![("", scalar(file.display()))]));
            self.line("clientauth", word);
        }
        self.line("minimumtls", if tls.minimum == Version::Tls13 { "tls1.3" } else { "tls1.2" });
    }

    fn health(&mut self, health: &health::Config) {
        if *health == health::Config::default() {
            return;
        }
        self.section("health", |page| {
            if let Some(Pace { interval, threshold }) = health.storage {
                page.section("storagedriver", |page| {
                    page.line("enabled", "true");
                    page.line("interval", &as_go_writes(interval));
                    page.line("threshold", &threshold.to_string());
                });
            }
            let paced = |mut item: Item, pace: Pace| {
                item.extend([("interval", as_go_writes(pace.interval)), ("threshold", pace.threshold.to_string())]);
                item
            };
            let file = |file: &health::File| paced(vec![("file", scalar(file.path.display()))], file.pace);
            page.list("file", health.files.iter().map(file));
            let http = |http: &health::Http| {
                let uri = scalar(format_args!("{}{}", http.origin, http.path));
                let (status, timeout) = (http.status.as_u16().to_string(), as_go_writes(http.timeout));
                paced(vec![("uri", uri), ("statuscode", status), ("timeout", timeout)], http.pace)
            };
            page.list("http", health.http.iter().map(http));
            if health.http.iter().any(|check| !check.headers.is_empty()) {
                page.remark(
                    "headers of health.http are set; they are not shown, and this page is not complete without",
                );
            }
            let tcp = |tcp: &health::Tcp| {
                paced(vec![("addr", scalar(&tcp.address)), ("timeout", as_go_writes(tcp.timeout))], tcp.pace)
            };
            page.list("tcp", health.tcp.iter().map(tcp));
        });
    }

    /// What follows is shown where it is not as everywhere: most of it nobody ever writes.
    fn maintenance(&mut self, registry: &registry::Config) {
        let purge = registry.purge;
        if !registry.read_only && purge == Some(registry::Purge::default()) {
            return;
        }
        self.section("maintenance", |page| {
            page.section("readonly", |page| page.line("enabled", &registry.read_only.to_string()));
            page.section("uploadpurging", |page| match purge {
                None => page.line("enabled", "false"),
                Some(purge) => {
                    page.line("enabled", "true");
                    page.line("age", &as_go_writes(purge.age));
                    page.line("interval", &as_go_writes(purge.interval));
                    page.line("dryrun", &purge.dry_run.to_string());
                }
            });
        });
    }

    fn guard(&mut self, guard: &Guard) {
        match guard {
            Guard::Own => {}
            Guard::Nobody => self.section("auth", |page| page.line("none", "{}")),
            Guard::Htpasswd { realm, path } => self.section("auth", |page| {
                page.section("htpasswd", |page| {
                    page.scalar("realm", realm);
                    page.scalar("path", path.display());
                });
            }),
            Guard::Token(trust) => self.section("auth", |page| page.section("token", |page| page.trust(trust))),
        }
    }

    fn trust(&mut self, trust: &Trust) {
        match &trust.realm {
            Realm::Url(url) => self.scalar("realm", url),
            Realm::Path(path) => {
                self.line("autoredirect", "true");
                self.scalar("autoredirectpath", path);
            }
        }
        self.scalar("service", &trust.service);
        self.scalar("issuer", &trust.issuer);
        if let Some(bundle) = &trust.bundle {
            self.scalar("rootcertbundle", bundle.display());
        }
        if let Some(key_set) = &trust.key_set {
            self.scalar("jwks", key_set.display());
        }
        self.list("signingalgorithms", trust.algorithms.iter().map(|name| vec![("", scalar(name))]));
    }

    fn wire(&mut self, registry: &registry::Config) {
        let usual = registry::Config::new(registry.root.clone());
        if registry.secret.is_some() {
            self.remark("http.secret is set; it is not shown, and this page is not complete without it");
        }
        if registry.catalog_page != usual.catalog_page {
            self.section("catalog", |page| page.line("maxentries", &registry.catalog_page.to_string()));
        }
        if registry.tags_page != usual.tags_page {
            self.section("tags", |page| page.line("maxtags", &registry.tags_page.to_string()));
        }
        if registry.validation != usual.validation {
            self.section("validation", |page| page.validation(&registry.validation));
        }
    }

    fn validation(&mut self, validation: &registry::Validation) {
        let patterns = |patterns: &[registry::Pattern]| {
            patterns.iter().map(|pattern| vec![("", scalar(pattern.0.as_str()))]).collect::<Vec<_>>().into_iter()
        };
        self.line("disabled", &validation.disabled.to_string());
        self.section("manifests", |page| {
            page.section("urls", |page| {
                // Nothing is allowed: an empty list would mean that everything is.
                match validation.allow_urls.as_deref() {
                    Some([]) => page.list("allow", std::iter::once(vec![("", "^$".to_owned())])),
                    allow => page.list("allow", patterns(allow.unwrap_or_default())),
                }
                page.list("deny", patterns(&validation.deny_urls));
            });
            page.section("indexes", |page| match &validation.platforms {
                Platforms::All => page.line("platforms", "all"),
                Platforms::None => page.line("platforms", "none"),
                Platforms::Only(pairs) => {
                    page.line("platforms", "list");
                    let pair = |(os, architecture): &(String, String)| {
                        vec![("os", scalar(os)), ("architecture", scalar(architecture))]
                    };
                    page.list("platformlist", pairs.iter().map(pair));
                }
            });
        });
    }

    fn tokens(&mut self, settings: &Settings) {
        match &settings.services.tokens {
            Tokens::Ours => self.auth(settings),
            Tokens::Off => self.line("token", "false"),
            Tokens::Upstream(name) => self.section("token", |page| {
                page.scalar("upstream", name);
                page.scalar("path", &settings.auth.path);
            }),
        }
    }

    fn auth(&mut self, settings: &Settings) {
        let auth = &settings.auth;
        self.section("token", |page| {
            page.scalar("path", &auth.path);
            page.scalar("service", &auth.service);
            page.scalar("issuer", &auth.issuer);
            page.scalar("duration", AsDuration(auth.duration));
            page.scalar("finish_uploads", AsDuration(auth.finish_uploads));
            page.choice("algorithm", &ALGORITHMS, auth.algorithm);
            page.scalar("key", auth.key.display());
            page.scalar("certificate", auth.certificate.display());
        });
        let may = auth.members_may_create_projects.to_string();
        self.section("accounts", |page| page.line("members_may_create_projects", &may));
    }

    fn limits(&mut self, settings: &Settings) {
        let timeouts = &settings.front.timeouts;
        let front = &settings.front.limits;
        self.section("limits", |page| {
            page.line("connections", &front.connections.to_string());
            page.line("connections_per_client", &front.connections_per_client.to_string());
            page.line("streams", &front.streams.to_string());
            page.scalar("header", AsSize(front.header as u64));
            page.line("fields", &front.fields.to_string());
            page.scalar("target", AsSize(front.target as u64));
            let push = &settings.registry.limits;
            page.scalar("manifest", AsSize(push.manifest as u64));
            match push.blob {
                Some(blob) => page.scalar("blob", AsSize(blob)),
                None => page.line("blob", "null"),
            }
            if settings.services.registry {
                page.line("uploads", &push.uploads.to_string());
            }
            if !settings.services.ask_who_it_is() {
                return;
            }
            page.scalar("failed_logins", format_args!("{}/m", settings.auth.limits.failed_logins));
            match settings.auth.limits.anonymous {
                Some(anonymous) => page.scalar("anonymous", format_args!("{anonymous}/m")),
                None => page.line("anonymous", "null"),
            }
        });
        self.section("timeouts", |page| {
            page.scalar("handshake", AsDuration(timeouts.handshake));
            page.scalar("header", AsDuration(timeouts.header));
            page.scalar("idle", AsDuration(timeouts.idle));
            page.scalar("stall", AsDuration(timeouts.stall));
            page.scalar("minimum_rate", AsSize(timeouts.minimum_rate));
            page.scalar("drain", AsDuration(timeouts.drain));
        });
    }

    fn log(&mut self, settings: &Settings) {
        let log = &settings.telemetry;
        self.section("log", |page| {
            page.choice("level", &LEVELS, log.level);
            page.choice("format", &FORMATS, log.format);
            page.destination("access", &log.access);
            page.destination("audit", &log.audit);
            page.section("traces", |page| {
                page.scalar("endpoint", log.traces.endpoint.as_deref().unwrap_or("off"));
                page.scalar("sample", log.traces.sample);
            });
        });
    }

    fn destination(&mut self, key: &str, destination: &Destination) {
        match destination {
            Destination::Off => self.scalar(key, "off"),
            Destination::Stdout => self.scalar(key, "stdout"),
            Destination::File(path) => self.scalar(key, path.display()),
        }
    }

    pub(super) fn remark(&mut self, text: &str) {
        self.put(format_args!("# {text}"));
    }

    pub(super) fn section(&mut self, key: &str, write: impl FnOnce(&mut Self)) {
        self.line(key, "");
        self.path.push(key.to_owned());
        write(self);
        self.path.pop();
    }

    pub(super) fn scalar(&mut self, key: &str, value: impl Display) {
        self.line(key, &scalar(value));
    }

    pub(super) fn choice<T: PartialEq>(&mut self, key: &str, choices: &[(&str, T)], value: T) {
        self.scalar(key, word(choices, value));
    }

    /// A list of scalars (one entry without key) or of mappings.
    pub(super) fn list(&mut self, key: &str, items: impl Iterator<Item = Item>) {
        let mut items = items.peekable();
        self.line(key, if items.peek().is_none() { "[]" } else { "" });
        let indent = "  ".repeat(self.path.len());
        for item in items {
            for (number, (key, value)) in item.into_iter().enumerate() {
                let dash = if number == 0 { "- " } else { "  " };
                let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
                self.put(format_args!("{indent}{dash}{key}{value}"));
            }
        }
    }

    /// `key: value`, with the place where it was written.
    pub(super) fn line(&mut self, key: &str, value: &str) {
        let indent = "  ".repeat(self.path.len());
        self.path.push(key.to_owned());
        let place = self.written.get(&self.path.join("."));
        self.path.pop();
        let space = if value.is_empty() { "" } else { " " };
        let remark = place.map_or_else(String::new, |place| match &place.source {
            Source::File(_) => format!("  # line {}", place.line),
            Source::Variable(name) => format!("  # {name}"),
        });
        self.put(format_args!("{indent}{}:{space}{value}{remark}", scalar(key)));
    }

    fn put(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// A listener with what is not as everywhere.
fn listener(listener: &front::Listener) -> Item {
    let mut item = vec![("address", scalar(&listener.address)), ("tls", listener.tls.to_string())];
    if listener.redirect {
        item.push(("redirect", "https".to_owned()));
    }
    if listener.proxy_protocol != ProxyProtocol::Off {
        item.push(("proxy_protocol", word(&PROXY_PROTOCOLS, listener.proxy_protocol).to_owned()));
    }
    for (key, directions) in [("allow", &listener.gate.allow), ("deny", &listener.gate.deny)] {
        if *directions != front::Directions::default() {
            let (pull, push) = (networks(&directions.pull), networks(&directions.push));
            item.push((key, format!("{{ pull: {pull}, push: {push} }}")));
        }
    }
    item
}

/// Networks as a list on one line.
pub(super) fn networks(networks: &front::Networks) -> String {
    let texts: Vec<String> = networks.iter().map(|network| quoted(&network.to_string())).collect();
    format!("[{}]", texts.join(", "))
}

/// The word of a choice.
pub(super) fn word<'a, T: PartialEq>(choices: &[(&'a str, T)], value: T) -> &'a str {
    choices.iter().find(|(_, choice)| *choice == value).map_or("null", |(word, _)| word)
}

/// A duration in Distribution's words, which know no days.
fn as_go_writes(duration: std::time::Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let units = [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000)];
    let (unit, scale) = units.into_iter().find(|(_, scale)| nanoseconds.is_multiple_of(*scale)).unwrap_or(("ns", 1));
    match nanoseconds {
        0 => "0s".to_owned(),
        _ => format!("{}{unit}", nanoseconds / scale),
    }
}

/// A scalar as YAML in quotes, for a list on one line.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A scalar as YAML, quoted where it must be.
#[expect(clippy::expect_used, reason = "a string can always be written as YAML, and nowhere but into memory")]
pub(super) fn scalar(value: impl Display) -> String {
    let text = serde_yaml::to_string(&value.to_string()).expect("a string is YAML");
    text.trim_end_matches('\n').to_owned()
}
