//! Upstreams and routes as YAML.

use http::{HeaderName, HeaderValue};

use super::super::Settings;
use super::super::scalar::AsDuration;
use super::super::show::{Item, Page, networks, quoted, scalar};
use super::meant::hides_registry;
use super::written::{BALANCES, HOSTS, LOCATIONS};
use crate::exchange::Origin;
use crate::front::{self, HeaderEdits, Host, Route, Target, Upstream};

impl Page<'_> {
    pub(in super::super) fn upstreams(&mut self, upstreams: &[Upstream]) {
        if upstreams.is_empty() {
            return self.line("upstreams", "{}");
        }
        self.section("upstreams", |page| {
            for upstream in upstreams {
                page.section(&upstream.name, |page| page.upstream(upstream));
            }
        });
    }

    fn upstream(&mut self, upstream: &Upstream) {
        let peer = |peer: &front::Peer| vec![("url", scalar(&peer.origin)), ("weight", peer.weight.to_string())];
        self.list("peers", upstream.peers.iter().map(peer));
        self.choice("balance", &BALANCES, upstream.balance);
        self.tls_of_peers(&upstream.tls);
        self.line("http2", &upstream.http2.to_string());
        match &upstream.health {
            None => self.scalar("health", "off"),
            Some(health) => self.section("health", |page| page.health_of_peers(health)),
        }
        match upstream.ejection {
            None => self.scalar("ejection", "off"),
            Some(ejection) => self.section("ejection", |page| {
                page.line("failures", &ejection.failures.to_string());
                page.scalar("time", AsDuration(ejection.time));
            }),
        }
        self.scalar("slow_start", AsDuration(upstream.slow_start));
        self.line("attempts", &upstream.attempts.to_string());
        let timeouts = upstream.timeouts;
        self.section("timeouts", |page| {
            page.scalar("connect", AsDuration(timeouts.connect));
            page.scalar("read", AsDuration(timeouts.read));
            page.scalar("write", AsDuration(timeouts.write));
            page.scalar("idle", AsDuration(timeouts.idle));
        });
        self.choice("host", &HOSTS, upstream.host);
        self.list("known_as", upstream.known_as.iter().map(|origin| vec![("", scalar(origin))]));
        self.choice("location", &LOCATIONS, upstream.location);
        let realm = |realm: &front::Realm| vec![("url", scalar(&realm.url)), ("clients", networks(&realm.clients))];
        self.list("realms", upstream.realms.iter().map(realm));
        self.line("strict", &upstream.strict.to_string());
        self.section("request_headers", |page| page.edits(&upstream.request_headers, Values::MayBeSecret));
        self.section("response_headers", |page| page.edits(&upstream.response_headers, Values::Open));
    }

    fn tls_of_peers(&mut self, tls: &front::UpstreamTls) {
        self.section("tls", |page| {
            let files = tls.certificate.as_ref();
            let ca = tls.ca.as_ref().map(|path| scalar(path.display()));
            let certificate = files.map(|files| scalar(files.certificate.display()));
            let key = files.map(|files| scalar(files.key.display()));
            for (name, value) in
                [("ca", ca), ("certificate", certificate), ("key", key), ("name", tls.name.as_ref().map(scalar))]
            {
                page.line(name, value.as_deref().unwrap_or("null"));
            }
        });
    }

    fn health_of_peers(&mut self, health: &front::Health) {
        self.scalar("path", health.path.as_str());
        self.scalar("interval", AsDuration(health.interval));
        self.scalar("timeout", AsDuration(health.timeout));
        self.line("unhealthy", &health.unhealthy.to_string());
        self.line("healthy", &health.healthy.to_string());
        let status: Vec<&str> = health.status.iter().map(http::StatusCode::as_str).collect();
        self.line("status", &format!("[{}]", status.join(", ")));
    }

    fn edits(&mut self, edits: &HeaderEdits, values: Values) {
        let names: Vec<String> = edits.remove.iter().map(|name| quoted(name.as_str())).collect();
        self.line("remove", &format!("[{}]", names.join(", ")));
        if values == Values::MayBeSecret && !(edits.set.is_empty() && edits.add.is_empty()) {
            return self.remark("set and add are written; they are not shown, and this page is not complete without");
        }
        self.line("set", &pairs(&edits.set));
        self.line("add", &pairs(&edits.add));
    }

    pub(in super::super) fn routes(&mut self, settings: &Settings) {
        for way in ways(settings) {
            self.remark(&way);
        }
        self.list("routes", settings.front.routes.iter().map(route));
    }
}

/// Where requests go, a line each, when not all of them are for the embedded services: for people.
pub fn ways(settings: &Settings) -> Vec<String> {
    let front = &settings.front;
    if front.routes.is_empty() {
        return Vec::new();
    }
    let way = |route: &Route| {
        let host = match &route.host {
            None => front.external_url.authority(),
            Some(Host::Name(text) | Host::Authority(text)) => text,
        };
        let methods: Vec<&str> = route.methods.iter().map(http::Method::as_str).collect();
        let methods = if methods.is_empty() { String::new() } else { format!("{} ", methods.join(", ")) };
        format!("{methods}{host}{} -> {}", route.path.as_str(), shortly(settings, &route.to))
    };
    let registry = door_of_the_registry(settings)
        .map(|door| format!("{door}/v2/ -> the registry of this server ({})", settings.registry.root.display()));
    front.routes.iter().map(way).chain(registry).collect()
}

/// Where the embedded registry answers: by the first of our names that the routes leave to it, else by the internal port.
fn door_of_the_registry(settings: &Settings) -> Option<String> {
    let front = &settings.front;
    let left = |origin: &&Origin| hides_registry(&front.routes, origin.host(), origin.authority()).is_none();
    let public = std::iter::once(&front.external_url).chain(&front.aliases).find(left);
    let internal = || front.listeners.iter().find(|listener| listener.internal);
    let door = public.map(|origin| origin.authority().to_owned());
    door.or_else(|| internal().map(|listener| listener.address.to_string())).filter(|_| settings.services.registry)
}

fn shortly(settings: &Settings, target: &Target) -> String {
    match target {
        Target::Embedded => "this server".to_owned(),
        Target::Upstream(name) => {
            let peers = settings.front.upstreams.iter().find(|upstream| upstream.name == *name).map(|of| &of.peers[..]);
            let peers: Vec<String> = peers.unwrap_or_default().iter().map(|peer| peer.origin.to_string()).collect();
            format!("{name} ({})", peers.join(", "))
        }
        Target::Redirect(redirect) => format!("{} {}", redirect.status.as_u16(), redirect.to),
        Target::Answer(answer) => answer.status.as_u16().to_string(),
    }
}

/// Whether what headers say may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    MayBeSecret,
    Open,
}

fn pairs(headers: &[(HeaderName, HeaderValue)]) -> String {
    // They were written as text.
    let value = |value: &HeaderValue| quoted(&String::from_utf8_lossy(value.as_bytes()));
    let pairs: Vec<String> =
        headers.iter().map(|(name, text)| format!("{}: {}", quoted(name.as_str()), value(text))).collect();
    if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
}

fn route(route: &Route) -> Item {
    let mut item = Vec::new();
    match &route.host {
        None => {}
        Some(Host::Name(name)) => item.push(("host", scalar(name))),
        Some(Host::Authority(authority)) => item.push(("host", scalar(with_port(authority)))),
    }
    item.push(("path", scalar(route.path.as_str())));
    if !route.methods.is_empty() {
        let methods: Vec<&str> = route.methods.iter().map(http::Method::as_str).collect();
        item.push(("methods", format!("[{}]", methods.join(", "))));
    }
    item.push(("to", target(&route.to)));
    item
}

/// The authority, which leaves the port of `https` out, with it: without it the name alone would be meant.
fn with_port(authority: &str) -> String {
    let has_port = Origin::new(true, authority).is_ok_and(|origin| origin.host() != authority);
    if has_port { authority.to_owned() } else { format!("{authority}:443") }
}

fn target(target: &Target) -> String {
    match target {
        Target::Embedded => "embedded".to_owned(),
        Target::Upstream(name) => format!("{{ upstream: {} }}", quoted(name)),
        Target::Redirect(redirect) => {
            format!("{{ redirect: {}, status: {} }}", quoted(&redirect.to), redirect.status.as_u16())
        }
        Target::Answer(answer) => {
            let text = String::from_utf8_lossy(answer.content_type.as_bytes());
            let body = answer.body.as_ref().map(|body| format!(", body: {}, type: {}", quoted(body), quoted(&text)));
            format!("{{ answer: {}{} }}", answer.status.as_u16(), body.unwrap_or_default())
        }
    }
}
