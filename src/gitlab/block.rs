//! What does NGINX's server block for a registry mean here?
//!
//! The registry's server is the one that hands `/v2/` on, else the first that hands anything on; a server that only sends
//! clients to https is a listener that redirects. Of what is said around a server, in it and in the registry's location the
//! innermost counts, as it does for NGINX. `include`, `if` and variables are named and left: what they do is known only to
//! the NGINX that runs.
//!
//! **Invariant:** where nothing can be listened on, or nobody can be kept out as before, nothing is written.

use std::collections::{HashMap, HashSet};

use super::directives::{admit, inside, keeps_out, kind, lists, of_upstream, refuses, settle};
use super::draft::{Draft, is_host};
use super::ledger::Fate;
use super::listens::{self, Heard, Listen};
use super::locations::{self, Deed, Location};
use super::nginx::{self, Directive};
use super::page::Node;
use super::routing::{Peers, Road};
use super::{Format, Imported, Site};
use crate::exchange::Origin;

/// `http { server { ... } }` and what else stands around a server.
const WRAPPERS: [&str; 2] = ["http", "events"];
/// The header that NGINX believes where none is named.
const BELIEVED: &str = "X-Real-IP";

/// Reads an NGINX configuration.
pub(super) fn import(text: &str, site: &Site<'_>) -> Imported {
    let mut all = Vec::new();
    unwrap(nginx::read(text, 1), &mut all);
    let (servers, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|directive| directive.name == "server");
    let (upstreams, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|directive| directive.name == "upstream");
    let main = registrys(&servers);
    let mut block = Block::new(Draft::new(site), upstreams);
    let redirect =
        servers.iter().enumerate().find_map(|(number, server)| if number == main { None } else { sends_to(server) });
    if let Some(server) = servers.get(main) {
        block.origin(server, redirect.as_deref());
        block.survey(&others, server);
    }
    for directive in &others {
        block.say(directive, "", 0);
    }
    for (number, server) in servers.iter().enumerate() {
        if number == main {
            block.server(server);
        } else if hands_on(server) || sends_to(server).is_none() {
            block.another(server);
        } else {
            block.redirecting(server);
        }
    }
    block.close();
    block.draft.finish(Format::Nginx)
}

/// The server that is most like a registry's; the first of several.
fn registrys(servers: &[Directive]) -> usize {
    let likeness = |server| locations::likeness(server).max(u8::from(hands_on(server)));
    let best = servers.iter().map(likeness).max().unwrap_or(0);
    servers.iter().position(|server| likeness(server) == best).unwrap_or(0)
}

/// The directives of Omnibus' `custom_gitlab_server_config`.
pub(super) fn custom(directives: &[Directive], draft: &mut Draft<'_>) {
    let mut rules = Vec::new();
    for directive in directives {
        let key = format!("custom_gitlab_server_config: {}", named(directive));
        match directive.name.as_str() {
            "location" if directive.text().contains("/.well-known") => {
                let why =
                    "certificates are not fetched by Pierhead; whoever fetches them is answered on GitLab's own name";
                draft.ledger.add(directive.line, key, Fate::NotServedYet(why.to_owned()));
            }
            "location" | "if" => {
                draft.ledger.add(directive.line, key, Fate::Yours("what it does is for `routes` to say".to_owned()));
            }
            "allow" | "deny" => rules.push(directive.clone()),
            _ => settle(directive, key, draft),
        }
    }
    admit(&rules, "custom_gitlab_server_config: ", draft);
}

/// The servers of `http { ... }`, and what stands beside them.
fn unwrap(directives: Vec<Directive>, all: &mut Vec<Directive>) {
    for mut directive in directives {
        match directive.block.take_if(|_| WRAPPERS.contains(&directive.name.as_str())) {
            Some(inside) => unwrap(inside, all),
            None => all.push(directive),
        }
    }
}

impl Block<'_> {
    /// A certificate is nothing without its key.
    fn upstream_certificate(&mut self) {
        let [certificate, key] = ["certificate", "key"].map(|key| ["upstreams", "gitlab", "tls", key]);
        let page = &mut self.draft.page;
        if page.get(&certificate).is_some() != page.get(&key).is_some() {
            page.remove(&certificate);
            page.remove(&key);
            let why = "a certificate needs its key, and one of them could not be read".to_owned();
            self.draft.ledger.add(0, "upstreams.gitlab.tls", Fate::Yours(why));
        }
    }

    /// Browsers are told what they were told before, which may be nothing.
    fn silence(&mut self) {
        let secure = self.draft.external.as_ref().is_some_and(Origin::is_secure);
        if secure && self.draft.page.get(&["tls", "hsts"]).is_none() {
            self.draft.page.put(&["tls", "hsts"], "off");
            let why = "it is off, as there is no Strict-Transport-Security in the block".to_owned();
            self.draft.ledger.add(0, "tls.hsts", Fate::NotNeeded(why));
        }
    }
}

/// Whether requests are handed on from there.
fn hands_on(server: &Directive) -> bool {
    inside(server).iter().any(|directive| directive.name == "proxy_pass" || hands_on(directive))
}

/// Where a server sends everybody to.
fn sends_to(server: &Directive) -> Option<String> {
    inside(server).iter().find_map(|directive| match directive.name.as_str() {
        "return" => directive.arguments.iter().find(|word| word.starts_with("https://")).cloned(),
        "rewrite" => directive.arguments.get(1).filter(|word| word.starts_with("https://")).cloned(),
        "location" => sends_to(directive),
        _ => None,
    })
}

/// `location /v2/`, `proxy_set_header X-A`: as much as tells it from others of its name.
pub(super) fn named(directive: &Directive) -> String {
    match directive.name.as_str() {
        "location" | "include" => format!("{} {}", directive.name, directive.text()),
        "proxy_set_header" | "add_header" | "proxy_hide_header" | "set" => {
            format!("{} {}", directive.name, directive.first())
        }
        _ => directive.name.clone(),
    }
}

pub(super) struct Block<'s> {
    pub(super) draft: Draft<'s>,
    /// `upstream NAME { ... }`
    pub(super) upstreams: Vec<Directive>,
    /// Where in `upstreams` a name is.
    pub(super) named: HashMap<String, usize>,
    /// The `upstream` blocks that somebody is handed on to.
    pub(super) used: HashSet<String>,
    /// Where requests go, besides the registry's.
    pub(super) roads: Vec<Road>,
    /// Upstreams besides the registry's, and which of them has these peers.
    pub(super) others: Vec<(String, Node)>,
    pub(super) known: HashMap<(Peers, bool), String>,
    /// `allow` and `deny` of the registry, and whether they can be said here.
    pub(super) rules: Vec<Directive>,
    pub(super) admits: bool,
    /// How deep each kind of directive is said for the registry, and in which line.
    innermost: HashMap<&'static str, (usize, usize)>,
    /// Whether trusted proxies write a header that is read here.
    believed: bool,
    /// Whether somebody may be believed at all.
    trusts: bool,
    /// Whether the registry's own location was found, and hands requests on.
    pub(super) found: bool,
    /// Whether somebody needs a password all over the server.
    pub(super) guarded: bool,
    /// Whether `allow` and `deny` around the locations are not what holds for every path here.
    pub(super) ruled_around: bool,
    /// Whether the registry's peers are asked who they are.
    pub(super) verifies: bool,
}

impl<'s> Block<'s> {
    fn new(draft: Draft<'s>, upstreams: Vec<Directive>) -> Self {
        let mut named = HashMap::new();
        for (number, upstream) in upstreams.iter().enumerate() {
            named.entry(upstream.first().to_owned()).or_insert(number);
        }
        Self {
            draft,
            upstreams,
            named,
            used: HashSet::new(),
            roads: Vec::new(),
            others: Vec::new(),
            known: HashMap::new(),
            rules: Vec::new(),
            admits: true,
            innermost: HashMap::new(),
            believed: false,
            trusts: false,
            found: false,
            guarded: false,
            ruled_around: false,
            verifies: false,
        }
    }

    pub(super) fn add(&mut self, directive: &Directive, within: &str, fate: Fate) {
        let key = format!("{within}{}", named(directive));
        self.draft.ledger.add(directive.line, key, fate);
    }

    pub(super) fn add_guarded(&mut self, directive: &Directive, within: &str, fate: Fate) {
        let key = format!("{within}{}", named(directive));
        self.draft.ledger.add_guarded(directive.line, key, fate);
    }

    /// Looks at all that is said for the registry, before any of it is settled.
    fn survey(&mut self, around: &[Directive], server: &Directive) {
        let locations = locations::all(server);
        let registry = locations::registrys(&locations).map(|number| &locations[number]);
        let mut scopes: Vec<&[Directive]> = vec![around, inside(server)];
        scopes.extend(registry.iter().flat_map(|location| location.scopes()).map(inside));
        let mut listens = Vec::new();
        for (depth, scope) in scopes.iter().enumerate() {
            for directive in *scope {
                listens.extend(
                    (depth == 1).then(|| listens::read(directive, false)).filter(|_| directive.name == "listen"),
                );
                if let Some(kind) = kind(&directive.name) {
                    self.innermost.insert(kind, (depth, directive.line));
                }
            }
        }
        let said = |name: &str| {
            let depth = kind(name).and_then(|kind| self.innermost.get(kind)).map(|(depth, _)| *depth);
            let scope: &[Directive] = depth.and_then(|depth| scopes.get(depth)).copied().unwrap_or_default();
            scope.iter().filter(|directive| kind(&directive.name) == kind(name)).collect::<Vec<_>>()
        };
        let header =
            said("real_ip_header").first().map_or(BELIEVED, |directive| directive.first()).to_ascii_lowercase();
        let proxy = |heard: &Heard| matches!(heard, Heard::Tcp(listen) if listen.proxy_protocol);
        let believed = header == "x-forwarded-for" || listens.iter().any(proxy);
        let network = |directive: &&Directive| {
            super::draft::network(directive.first()).is_some_and(|network| !super::draft::is_wide(&network))
        };
        let verifies = said("proxy_ssl_verify").iter().any(|directive| directive.first() == "on");
        let trusts = believed && said("set_real_ip_from").iter().any(network);
        let rules: Vec<Directive> = said("allow").into_iter().cloned().collect();
        (self.believed, self.trusts, self.verifies) = (believed, trusts, verifies);
        self.admits = rules.is_empty() || lists(&rules).is_some();
        self.rules = rules;
        let deep = self.innermost.get("allow").is_some_and(|(depth, _)| *depth > 1);
        let around_ruled = around.iter().chain(inside(server)).any(locations::is_rule);
        self.ruled_around = around_ruled && (deep || !self.admits);
        self.found = registry.is_none_or(|location| matches!(location.deed(), Deed::HandsOn(_)));
        let asks = |directive: &Directive| directive.name.starts_with("auth_") && keeps_out(directive);
        self.guarded = around.iter().chain(inside(server)).any(asks);
        let tls = |location: &&Location<'_>| matches!(location.deed(), Deed::HandsOn(to) if to.first().starts_with("https://"));
        self.draft.tls_peers = registry.as_ref().is_some_and(tls);
    }

    /// Settles a directive of the registry's, unless one further in overrules it.
    pub(super) fn say(&mut self, directive: &Directive, within: &str, depth: usize) {
        let inner = kind(&directive.name).and_then(|kind| self.innermost.get(kind)).filter(|(inner, _)| *inner > depth);
        if let Some((_, line)) = inner {
            let why = format!("line {line} is further in, and decides for the registry");
            return self.add(directive, within, Fate::Ignored(why));
        }
        let yours = |why: &str| Fate::Yours(why.to_owned());
        match directive.name.as_str() {
            // They are settled together, at the end.
            "allow" | "deny" => {}
            "ssl_certificate" | "ssl_certificate_key" => self.certificate(directive),
            "set_real_ip_from" | "real_ip_header" if !self.believed => {
                let why = "trusted_proxies are believed in X-Forwarded-For before all else, and another header was read: see that \
                           they write it anew, then write their networks to trusted_proxies";
                self.add(directive, within, yours(why));
            }
            _ => self.word(directive, within),
        }
    }

    /// The origin that clients use: the server's name, with the port that it is reached at.
    fn origin(&mut self, server: &Directive, redirect: Option<&str>) {
        let names = inside(server).iter().filter(|directive| directive.name == "server_name");
        let mut names = names.flat_map(|directive| &directive.arguments).filter(|name| plain(name));
        let Some(host) = names.next() else { return };
        let listens = heard(server);
        let tls = listens.iter().any(|listen| listen.tls);
        let secure = tls || forwards_https(server);
        let told = redirect.and_then(port_of);
        let first = listens.iter().find(|listen| listen.tls == tls);
        let port = told.or_else(|| first.filter(|_| tls || !secure).map(|listen| listen.port));
        let authority = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        self.draft.external = Origin::new(secure, &authority).ok();
        let aliases: Vec<String> = names
            .filter_map(|name| {
                Origin::new(secure, &port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"))).ok()
            })
            .filter(|alias| Some(alias) != self.draft.external.as_ref())
            .map(|alias| alias.to_string())
            .collect();
        for alias in aliases {
            self.draft.page.push(&["aliases"], alias);
        }
    }

    /// The registry's server.
    fn server(&mut self, server: &Directive) {
        self.add(server, "", Fate::Translated("the whole".to_owned()));
        self.listens(server);
        for directive in inside(server) {
            match directive.name.as_str() {
                "listen" | "location" => {}
                "server_name" => self.names(directive),
                "ssl" => self.add(directive, "", Fate::Translated("listeners.tls".to_owned())),
                _ => self.say(directive, "", 1),
            }
        }
        if inside(server).iter().any(refuses) || !self.found {
            self.hopeless("the registry's requests are refused there, or sent elsewhere");
        }
        self.locations(server);
    }

    pub(super) fn hopeless(&mut self, why: &str) {
        self.draft.hopeless.get_or_insert(why.to_owned());
    }

    fn listens(&mut self, server: &Directive) {
        let tls = speaks_tls(server);
        let kept = listens::together(&heard(server));
        for directive in inside(server).iter().filter(|directive| directive.name == "listen") {
            self.listen(directive, &listens::read(directive, tls), &kept);
        }
        for listen in &kept {
            let before = self.draft.listeners.len();
            self.draft.listen(&listen.host, listen.port, listen.tls, false);
            if let Some(listening) = self.draft.listeners.get_mut(before..).and_then(<[_]>::first_mut) {
                listening.proxy_protocol = listen.proxy_protocol;
            }
        }
        if !self.draft.listeners.iter().any(|listening| !listening.redirect) {
            self.hopeless("nothing that it listens on could be read, and the usual would be open to everybody");
        }
    }

    fn listen(&mut self, directive: &Directive, heard: &Heard, kept: &[Listen]) {
        match heard {
            Heard::Tcp(listen) if listen.proxy_protocol && !self.trusts => {
                let why = "nothing says whose PROXY header is to be believed, so none is expected: write the load balancer's \
                           network to trusted_proxies, and proxy_protocol: required";
                self.add_guarded(directive, "", Fate::Yours(why.to_owned()));
            }
            Heard::Tcp(listen) if listens::is_kept(listen, kept) => {
                self.add(directive, "", Fate::Translated("listeners".to_owned()));
            }
            Heard::Tcp(_) => {
                let why = "another listen has this port, with or without TLS and the PROXY header: see listeners";
                self.add(directive, "", Fate::Yours(why.to_owned()));
            }
            Heard::Quic => {
                self.add(directive, "", Fate::NotServedYet("HTTP/3 is not spoken: clients come over TCP".to_owned()));
            }
            Heard::Unknown => self.add(directive, "", Fate::Yours("write listeners: a socket is unix:PATH".to_owned())),
        }
    }

    fn names(&mut self, directive: &Directive) {
        let fate = match directive.arguments.iter().filter(|name| plain(name)).count() {
            0 => Fate::Yours("external_url needs one name; this stands for any".to_owned()),
            count if count < directive.arguments.len() => Fate::Yours(
                "the plain names are in external_url and aliases; patterns need their names in aliases".to_owned(),
            ),
            1 => Fate::Translated("external_url".to_owned()),
            _ => Fate::Translated("external_url, aliases".to_owned()),
        };
        self.add(directive, "", fate);
    }

    fn certificate(&mut self, directive: &Directive) {
        let path = directive.first().to_owned();
        let beside = directive.flaw.map(|flaw| format!(" ({flaw})")).unwrap_or_default();
        let (slot, key) = match directive.name.as_str() {
            "ssl_certificate" => (&mut self.draft.certificate.0, "certificate"),
            _ => (&mut self.draft.certificate.1, "key"),
        };
        let fate = if path.contains('$') || path.is_empty() {
            Fate::Yours("the path is a variable of NGINX".to_owned())
        } else if slot.is_some() {
            Fate::Yours("a second pair: add it to tls.certificates".to_owned())
        } else {
            *slot = Some(path);
            Fate::Translated(format!("tls.certificates.{key}{beside}"))
        };
        self.add(directive, "", fate);
    }

    /// A server that sends everybody to https.
    fn redirecting(&mut self, server: &Directive) {
        self.add(server, "", Fate::Translated("listeners.redirect".to_owned()));
        for directive in inside(server) {
            match directive.name.as_str() {
                "listen" => match listens::read(directive, false) {
                    Heard::Tcp(listen) => {
                        self.draft.listen(&listen.host, listen.port, false, true);
                        self.add(directive, "", Fate::Translated("listeners.redirect".to_owned()));
                    }
                    Heard::Quic | Heard::Unknown => {
                        self.add(directive, "", Fate::Yours("write listeners: a socket is unix:PATH".to_owned()));
                    }
                },
                "server_name" => {
                    self.add(directive, "", Fate::NotNeeded("every client is sent to external_url".to_owned()))
                }
                "return" | "rewrite" => self.add(directive, "", Fate::Translated("listeners.redirect".to_owned())),
                "location" if directive.text().contains("/.well-known") => self.challenge(directive, false),
                "location" => {
                    self.add(directive, "", Fate::Translated("listeners.redirect".to_owned()));
                    self.rest(directive, &format!("{}: ", named(directive)), "as the location", false);
                }
                _ => self.add(directive, "", Fate::NotNeeded("this listener only redirects".to_owned())),
            }
        }
    }

    /// A server that is not the registry's.
    fn another(&mut self, server: &Directive) {
        self.add(
            server,
            "",
            Fate::Yours("another server: import a file with it alone if it is a registry's".to_owned()),
        );
        self.rest(server, "another server: ", "as the server", false);
    }

    /// Everything below, which shares the fate of what it is in; `lost` where that was the registry's.
    pub(super) fn rest(&mut self, outer: &Directive, within: &str, why: &str, lost: bool) {
        for directive in inside(outer) {
            match lost && (keeps_out(directive) || refuses(directive)) {
                true => self.add_guarded(directive, within, Fate::Yours(why.to_owned())),
                false => self.add(directive, within, Fate::NotNeeded(why.to_owned())),
            }
            self.rest(directive, within, why, lost);
        }
    }

    pub(super) fn word(&mut self, directive: &Directive, within: &str) {
        settle(directive, format!("{within}{}", named(directive)), &mut self.draft);
        if directive.block.is_some() && !matches!(directive.name.as_str(), "types" | "map" | "geo") {
            self.rest(directive, &format!("{within}{}: ", named(directive)), "as what it is in", false);
        }
    }

    /// Where whoever gives out certificates looks.
    pub(super) fn challenge(&mut self, location: &Directive, lost: bool) {
        let why = "certificates are not fetched by Pierhead yet; whoever fetches them needs another way";
        self.add(location, "", Fate::NotServedYet(why.to_owned()));
        self.rest(location, &format!("{}: ", named(location)), "as the location", lost);
    }

    fn close(&mut self) {
        admit(&self.rules, "", &mut self.draft);
        for upstream in std::mem::take(&mut self.upstreams) {
            let used = self.used.contains(upstream.first());
            let front = self.draft.is_front();
            let fate = match (used, front) {
                (true, true) => Fate::Translated("upstreams".to_owned()),
                (true, false) => Fate::NotNeeded("the registry is inside".to_owned()),
                (false, _) => Fate::Elsewhere,
            };
            self.add(&upstream, "", fate);
            for directive in inside(&upstream) {
                let fate =
                    if used && front { of_upstream(directive) } else { Fate::NotNeeded("as the upstream".to_owned()) };
                self.add(directive, "upstream: ", fate);
            }
        }
        self.routes();
        self.shut();
        self.upstream_certificate();
        self.silence();
        let left = |key: &str, why: &str, draft: &mut Draft<'_>| draft.ledger.add(0, key, Fate::Yours(why.to_owned()));
        if self.draft.is_front() {
            let why = "NGINX does not say where GitLab gives out tokens; write https://GITLAB/jwt/auth, and with `strict` clients are sent to no other";
            left("upstreams.gitlab.realms", why, &mut self.draft);
        } else {
            let why = "NGINX does not say where the images are: without it they are in Pierhead's own folder";
            left("registry.storage.filesystem.rootdirectory", why, &mut self.draft);
            let why =
                "NGINX does not say who gives out tokens: without it they are Pierhead's own, and so are the accounts";
            left("registry.auth.token", why, &mut self.draft);
        }
    }
    /// Without a name there are no listeners, and those that are there without them are open to everybody.
    fn shut(&mut self) {
        let narrow = self.draft.listeners.iter().any(|listening| !listening.address.starts_with(':'));
        let kept_out = !self.rules.is_empty() || self.draft.ledger.lines().iter().any(|line| line.guarded);
        if self.draft.external.is_none() && (narrow || kept_out) {
            self.hopeless(
                "no server_name is a name, so nothing could listen as it does there, and not everybody may come in: write one, \
                 and import again",
            );
        }
    }
}

/// `ssl on;`
fn speaks_tls(server: &Directive) -> bool {
    inside(server).iter().any(|directive| directive.name == "ssl" && directive.first() == "on")
}

/// Whether the registry is told that clients came by https.
fn forwards_https(server: &Directive) -> bool {
    inside(server).iter().any(|directive| {
        let told = directive.name == "proxy_set_header" && directive.first().eq_ignore_ascii_case("x-forwarded-proto");
        (told && directive.arguments.get(1).is_some_and(|value| value == "https")) || forwards_https(directive)
    })
}

/// All that a server listens on and could be read; what NGINX listens on where nothing is said.
fn heard(server: &Directive) -> Vec<Listen> {
    let tls = speaks_tls(server);
    let listens: Vec<&Directive> = inside(server).iter().filter(|directive| directive.name == "listen").collect();
    if listens.is_empty() {
        return vec![Listen::usual(tls)];
    }
    let read = listens.into_iter().filter_map(|directive| match listens::read(directive, tls) {
        Heard::Tcp(listen) => Some(listen),
        Heard::Quic | Heard::Unknown => None,
    });
    read.collect()
}

/// A name, and no pattern or anything.
fn plain(name: &str) -> bool {
    name != "_" && !name.starts_with('.') && is_host(name)
}

/// The port in `https://name:5050$request_uri`.
fn port_of(target: &str) -> Option<u16> {
    let rest = target.strip_prefix("https://")?.trim_start_matches("$host").trim_start_matches("$server_name");
    let colon = rest.find(':')?;
    let digits: String = rest[colon + 1..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests;
