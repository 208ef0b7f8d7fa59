//! What does NGINX's server block for a registry mean here?
//!
//! The first server that hands requests on is the registry's; a server that only sends clients to https is a listener
//! that redirects. `location /` and `/v2/` are the registry, other locations become routes. `include`, `if` and variables
//! are named and left: what they do is known only to the NGINX that runs.

use super::directives::{admit, of_upstream, settle};
use super::draft::{Draft, REGISTRY};
use super::ledger::Fate;
use super::nginx::{self, Directive};
use super::page::Node;
use super::{Format, Imported, Mode, Site};
use crate::exchange::Origin;

/// `http { server { ... } }` and what else stands around a server.
const WRAPPERS: [&str; 2] = ["http", "events"];

/// Reads an NGINX configuration.
pub(super) fn import(text: &str, site: &Site<'_>) -> Imported {
    let mut all = Vec::new();
    unwrap(nginx::read(text, 1), &mut all);
    let (servers, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|directive| directive.name == "server");
    let (upstreams, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|directive| directive.name == "upstream");
    let main = servers.iter().position(hands_on).unwrap_or(0);
    let mut block =
        Block { draft: Draft::new(site), upstreams, routes: Vec::new(), used: Vec::new(), rules: Vec::new() };
    let redirect =
        servers.iter().enumerate().find_map(|(number, server)| if number == main { None } else { sends_to(server) });
    if let Some(server) = servers.get(main) {
        block.origin(server, redirect.as_deref());
    }
    for directive in &others {
        block.word(directive, "");
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

fn inside(directive: &Directive) -> &[Directive] {
    directive.block.as_deref().unwrap_or_default()
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
fn named(directive: &Directive) -> String {
    match directive.name.as_str() {
        "location" | "if" | "include" => format!("{} {}", directive.name, directive.text()),
        "proxy_set_header" | "add_header" | "proxy_hide_header" | "set" => {
            format!("{} {}", directive.name, directive.first())
        }
        _ => directive.name.clone(),
    }
}

/// URLs, and their weights.
type Peers = Vec<(String, u32)>;

struct Block<'s> {
    draft: Draft<'s>,
    /// `upstream NAME { ... }`
    upstreams: Vec<Directive>,
    /// Path and target, besides the registry's.
    routes: Vec<(String, Node)>,
    /// The `upstream` blocks that somebody is handed on to.
    used: Vec<String>,
    /// `allow` and `deny` of the registry.
    rules: Vec<Directive>,
}

impl Block<'_> {
    fn add(&mut self, directive: &Directive, within: &str, fate: Fate) {
        let key = format!("{within}{}", named(directive));
        self.draft.ledger.add(directive.line, key, fate);
    }

    /// The origin that clients use: the server's name, with the port that it is reached at.
    fn origin(&mut self, server: &Directive, redirect: Option<&str>) {
        let names = inside(server).iter().filter(|directive| directive.name == "server_name");
        let mut names = names.flat_map(|directive| &directive.arguments).filter(|name| plain(name));
        let Some(host) = names.next() else { return };
        let listens: Vec<Listen> = inside(server).iter().filter_map(Listen::of).collect();
        let tls = listens.iter().any(|listen| listen.tls) || speaks_tls(server);
        let secure = tls || forwards_https(server);
        let told = redirect.and_then(port_of);
        let port = told.or_else(|| listens.first().filter(|_| tls || !secure).map(|listen| listen.port));
        let authority = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        self.draft.external = Origin::new(secure, &authority).ok();
        let aliases: Vec<String> = names
            .filter_map(|name| {
                Origin::new(secure, &port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"))).ok()
            })
            .filter(|alias| Some(alias) != self.draft.external.as_ref())
            .map(|alias| alias.to_string())
            .collect();
        if !aliases.is_empty() {
            self.draft.page.put(&["aliases"], aliases);
        }
    }

    /// The registry's server.
    fn server(&mut self, server: &Directive) {
        self.add(server, "", Fate::Translated("the whole".to_owned()));
        let tls = speaks_tls(server);
        for directive in inside(server) {
            match directive.name.as_str() {
                "listen" => self.listen(directive, tls),
                "server_name" => self.names(directive),
                "location" => self.location(directive),
                "ssl" => self.add(directive, "", Fate::Translated("listeners.tls".to_owned())),
                "ssl_certificate" | "ssl_certificate_key" => self.certificate(directive),
                "allow" | "deny" => self.rules.push(directive.clone()),
                _ => self.word(directive, ""),
            }
        }
    }

    fn listen(&mut self, directive: &Directive, tls: bool) {
        match Listen::of(directive) {
            Some(listen) => {
                self.draft.proxy_protocol |= listen.proxy_protocol;
                self.draft.listen(&listen.host, listen.port, listen.tls || tls, false);
                self.add(directive, "", Fate::Translated("listeners".to_owned()));
            }
            None => self.add(directive, "", Fate::Yours("write listeners: a socket is unix:PATH".to_owned())),
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

    fn location(&mut self, location: &Directive) {
        let within = format!("{}: ", named(location));
        let (path, exact) = match location.arguments.as_slice() {
            [path] => (path.as_str(), false),
            [mark, path] if mark == "^~" => (path.as_str(), false),
            [mark, path] if mark == "=" => (path.as_str(), true),
            _ => ("", false),
        };
        let registry = matches!(path, "/" | "/v2" | "/v2/");
        if path.contains("/.well-known") {
            let why = "certificates are not fetched by Pierhead yet; whoever fetches them needs another way";
            self.add(location, "", Fate::NotServedYet(why.to_owned()));
            return self.rest(location, &within, "as the location");
        }
        if path.is_empty() {
            self.add(location, "", Fate::Yours("a pattern: routes take the beginning of a path".to_owned()));
            return self.rest(location, &within, "as the location");
        }
        let kept = match inside(location)
            .iter()
            .find(|directive| matches!(directive.name.as_str(), "proxy_pass" | "return"))
        {
            Some(directive) if directive.name == "proxy_pass" => self.proxied(path, registry, directive),
            Some(directive) => self.answered(path, registry, directive),
            None => Fate::Yours("it serves files, or nothing that is known here".to_owned()),
        };
        let fate = match &kept {
            Fate::Translated(key) if exact => Fate::Translated(format!("{key} (and what is below that path)")),
            fate => fate.clone(),
        };
        let ours = registry && matches!(fate, Fate::Translated(_));
        self.add(location, "", fate);
        for directive in inside(location) {
            match directive.name.as_str() {
                "proxy_pass" | "return" => self.add(directive, &within, kept.clone()),
                "allow" | "deny" if ours => self.rules.push(directive.clone()),
                _ if ours => self.word(directive, &within),
                "proxy_set_header" | "proxy_read_timeout" | "proxy_connect_timeout" | "proxy_send_timeout" => {
                    let why = "what is set for the registry is not set for this route: see upstreams";
                    self.add(directive, &within, Fate::Yours(why.to_owned()));
                }
                _ => self.word(directive, &within),
            }
        }
    }

    /// Requests that are handed on: to the registry's upstream, or to one of their own.
    fn proxied(&mut self, path: &str, registry: bool, directive: &Directive) -> Fate {
        let Some((peers, settings)) = self.peers(directive.first()) else {
            return Fate::Yours("where requests are handed on to is a variable, a socket, or another path".to_owned());
        };
        let known = self.draft.page.get(&["upstreams", "gitlab", "peers"]).is_some();
        if registry && (!known || path != "/") {
            if self.draft.site.mode == Mode::Embedded {
                let address = peers.first().map_or(REGISTRY.to_owned(), |(url, _)| super::draft::reachable(url));
                if address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_loopback()) {
                    self.draft.page.put(&["registry", "http", "addr"], address);
                }
                return Fate::Translated("the registry inside".to_owned());
            }
            self.upstream("gitlab", &peers, &settings);
            return Fate::Translated("upstreams.gitlab.peers".to_owned());
        }
        if registry {
            return Fate::NotNeeded(
                "nothing but /v2/ is the registry's, and that has a location of its own".to_owned(),
            );
        }
        let name = format!("route{}", self.routes.len() + 1);
        self.upstream(&name, &peers, &settings);
        self.routes.push((path.to_owned(), Node::map([("upstream", name.as_str().into())])));
        Fate::Translated(format!("routes, upstreams.{name}"))
    }

    fn answered(&mut self, path: &str, registry: bool, directive: &Directive) -> Fate {
        let (status, text) = match directive.arguments.as_slice() {
            [status, text @ ..] if status.parse::<u16>().is_ok() => (status.as_str(), text.join(" ")),
            _ => ("302", directive.text()),
        };
        if registry && path == "/" && !text.starts_with("http") {
            return Fate::NotNeeded("what is no path of the registry is answered 404".to_owned());
        }
        let target = if text.starts_with("http") {
            let url = text.replace("$request_uri", "/");
            if url.contains('$') || !matches!(status, "301" | "302" | "303" | "307" | "308") {
                return Fate::Yours("where it sends clients is a variable of NGINX".to_owned());
            }
            Node::map([("redirect", url.into()), ("status", status.into())])
        } else if status.parse::<u16>().is_ok_and(|status| (200..600).contains(&status)) && !text.contains('$') {
            Node::map([("answer", status.into())])
        } else {
            return Fate::Yours("its answer is none that routes can give".to_owned());
        };
        self.routes.push((path.to_owned(), target));
        Fate::Translated("routes".to_owned())
    }

    /// The peers behind `proxy_pass`, with their weights, and what else their `upstream` block says.
    fn peers(&mut self, target: &str) -> Option<(Peers, Vec<Directive>)> {
        let (scheme, rest) = target.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if target.contains('$') || !matches!(path, "" | "/" | "/v2/") {
            return None;
        }
        let Some(upstream) = self.upstreams.iter().find(|upstream| upstream.first() == authority).cloned() else {
            let origin = Origin::new(scheme == "https", authority).ok()?;
            return Some((vec![(origin.to_string(), 1)], Vec::new()));
        };
        self.used.push(authority.to_owned());
        let servers = inside(&upstream)
            .iter()
            .filter(|directive| directive.name == "server" && !directive.text().contains(" down"));
        let peers = servers.filter_map(|server| {
            let weight =
                server.arguments.iter().find_map(|word| word.strip_prefix("weight=")?.parse().ok()).unwrap_or(1);
            let address =
                if server.first().contains(':') { server.first().to_owned() } else { format!("{}:80", server.first()) };
            Some((Origin::new(scheme == "https", &address).ok()?.to_string(), weight))
        });
        let peers: Peers = peers.collect();
        if peers.is_empty() { None } else { Some((peers, inside(&upstream).to_vec())) }
    }

    fn upstream(&mut self, name: &str, peers: &[(String, u32)], settings: &[Directive]) {
        let nodes: Vec<Node> = peers
            .iter()
            .map(|(url, weight)| match weight {
                1 => url.as_str().into(),
                weight => Node::map([("url", url.as_str().into()), ("weight", weight.to_string().into())]),
            })
            .collect();
        self.draft.page.put(&["upstreams", name, "peers"], Node::List(nodes));
        if settings.iter().any(|directive| directive.name == "least_conn") {
            self.draft.page.put(&["upstreams", name, "balance"], "least_loaded");
        }
    }

    /// A server that sends everybody to https.
    fn redirecting(&mut self, server: &Directive) {
        self.add(server, "", Fate::Translated("listeners.redirect".to_owned()));
        for directive in inside(server) {
            match directive.name.as_str() {
                "listen" => match Listen::of(directive) {
                    Some(listen) => {
                        self.draft.listen(&listen.host, listen.port, false, true);
                        self.add(directive, "", Fate::Translated("listeners.redirect".to_owned()));
                    }
                    None => self.add(directive, "", Fate::Yours("write listeners: a socket is unix:PATH".to_owned())),
                },
                "server_name" => {
                    self.add(directive, "", Fate::NotNeeded("every client is sent to external_url".to_owned()))
                }
                "return" | "rewrite" => self.add(directive, "", Fate::Translated("listeners.redirect".to_owned())),
                "location" if directive.text().contains("/.well-known") => self.location(directive),
                "location" => {
                    self.add(directive, "", Fate::Translated("listeners.redirect".to_owned()));
                    self.rest(directive, &format!("{}: ", named(directive)), "as the location");
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
        self.rest(server, "another server: ", "as the server");
    }

    /// Everything below, which shares the fate of what it is in.
    fn rest(&mut self, outer: &Directive, within: &str, why: &str) {
        for directive in inside(outer) {
            self.add(directive, within, Fate::NotNeeded(why.to_owned()));
            self.rest(directive, within, why);
        }
    }

    fn word(&mut self, directive: &Directive, within: &str) {
        settle(directive, format!("{within}{}", named(directive)), &mut self.draft);
        if directive.block.is_some() && !matches!(directive.name.as_str(), "types" | "map" | "geo") {
            self.rest(directive, &format!("{within}{}: ", named(directive)), "as what it is in");
        }
    }

    fn close(&mut self) {
        admit(&std::mem::take(&mut self.rules), "", &mut self.draft);
        for upstream in std::mem::take(&mut self.upstreams) {
            let used = self.used.iter().any(|name| name == upstream.first());
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
        if !self.routes.is_empty() {
            let registry =
                if self.draft.is_front() { Node::map([("upstream", "gitlab".into())]) } else { "embedded".into() };
            let routes = std::mem::take(&mut self.routes);
            let all = std::iter::once(("/v2/".to_owned(), registry)).chain(routes);
            let nodes: Vec<Node> = all.map(|(path, to)| Node::map([("path", path.into()), ("to", to)])).collect();
            self.draft.page.put(&["routes"], Node::List(nodes));
        }
        let left = |key: &str, why: &str, draft: &mut Draft<'_>| draft.ledger.add(0, key, Fate::Yours(why.to_owned()));
        if self.draft.is_front() {
            let why = "NGINX does not say where GitLab gives out tokens; write https://GITLAB/jwt/auth, and no other service is believed";
            left("upstreams.gitlab.realms", why, &mut self.draft);
        } else {
            let why = "NGINX does not say where the images are: without it they are in Pierhead's own folder";
            left("registry.storage.filesystem.rootdirectory", why, &mut self.draft);
            let why =
                "NGINX does not say who gives out tokens: without it they are Pierhead's own, and so are the accounts";
            left("registry.auth.token", why, &mut self.draft);
        }
    }
}

/// One `listen`.
struct Listen {
    host: String,
    port: u16,
    tls: bool,
    proxy_protocol: bool,
}

impl Listen {
    fn of(directive: &Directive) -> Option<Self> {
        if directive.name != "listen" || directive.first().starts_with("unix:") {
            return None;
        }
        let flag = |name: &str| directive.arguments.iter().skip(1).any(|word| word == name);
        let address = directive.first();
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => match address.parse() {
                Ok(port) => ("*", port),
                Err(_) => (address, 80),
            },
        };
        Some(Self { host: host.to_owned(), port, tls: flag("ssl"), proxy_protocol: flag("proxy_protocol") })
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

/// A name, and no pattern or anything.
fn plain(name: &str) -> bool {
    !name.is_empty()
        && name != "_"
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        && !name.starts_with('.')
}

/// The port in `https://name:5050$request_uri`.
fn port_of(target: &str) -> Option<u16> {
    let rest = target.strip_prefix("https://")?.trim_start_matches("$host").trim_start_matches("$server_name");
    let colon = rest.find(':')?;
    let digits: String = rest[colon + 1..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
