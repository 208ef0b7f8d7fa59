//! Where do the requests of the registry's server go?
//!
//! One location is the registry's; each other becomes a route, the longest path first, as NGINX chooses them.
//!
//! **Invariant:** what does not get to the registry there does not get to it here. A location that cannot be said as a route
//! is one that is answered 403, for everybody; where that cannot be said either, it is among what is lost.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::Mode;
use super::block::{Block, named};
use super::directives::{has, inside, keeps_out, kind, refuses};
use super::draft::{REGISTRY, reachable};
use super::ledger::Fate;
use super::locations::{self, Deed, Location, Way, bare, routable};
use super::nginx::Directive;
use super::page::Node;
use crate::exchange::Origin;

/// What `weight` takes.
const HEAVIEST: u32 = 100;
/// Where GitLab gives out tokens.
const TOKENS: &str = "/jwt/auth";
/// What becomes of that where the registry is inside.
const OWN_TOKENS: &str = "without registry.auth.token tokens are Pierhead's own here, from the same path";

/// URLs, and their weights.
pub(super) type Peers = Vec<(String, u32)>;

/// One route.
pub(super) struct Road {
    path: String,
    to: Node,
    line: usize,
    /// Whether it answers 403 where NGINX did something else.
    closed: bool,
    /// Whether NGINX closes more than this path and what is below.
    partly: bool,
}

/// What a location comes to.
enum Kept {
    /// A route to somebody, or an answer.
    Open(Fate),
    /// A route that answers 403 or 404.
    Closed(Fate),
    /// Nothing, and nothing is missed.
    Gone(Fate),
    /// Nothing, and who was kept out may come in.
    Lost(Fate),
}

impl Block<'_> {
    pub(super) fn locations(&mut self, server: &Directive) {
        let locations = locations::all(server);
        let registry = locations::registrys(&locations);
        let peers = registry.and_then(|number| self.registry(&locations[number]));
        let mut whole: HashSet<&str> = HashSet::from(["/v2"]);
        whole.extend(locations.iter().filter_map(|location| match location.way() {
            Way::Below(path) => Some(bare(path)),
            Way::Exactly(_) | Way::Pattern => None,
        }));
        for (number, location) in locations.iter().enumerate() {
            if Some(number) != registry {
                self.location(location, &whole, peers.as_ref());
            }
        }
    }

    /// The registry's location, and its peers.
    fn registry(&mut self, location: &Location<'_>) -> Option<Peers> {
        let (directive, depth) = (location.directive, 2 + location.outer.len());
        let within = format!("{}: ", named(directive));
        let path = directive.arguments.last().map_or("", String::as_str);
        let passed = match location.deed() {
            Deed::HandsOn(to) => self.peers(to.first(), path),
            Deed::Returns(_) | Deed::Else => None,
        };
        let fate = match &passed {
            None => Fate::Yours("where requests are handed on to is a variable, a socket, or another path".to_owned()),
            Some((peers, _)) if self.draft.site.mode == Mode::Embedded => {
                let address = peers.first().map_or(REGISTRY.to_owned(), |(url, _)| reachable(url));
                if address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_loopback()) {
                    self.draft.page.put(&["registry", "http", "addr"], address);
                }
                Fate::Translated("the registry inside".to_owned())
            }
            Some((peers, settings)) => {
                self.draft.page.put(&["upstreams", "gitlab", "peers"], nodes(peers));
                if settings.iter().any(|directive| directive.name == "least_conn") {
                    self.draft.page.put(&["upstreams", "gitlab", "balance"], "least_loaded");
                }
                self.verified(directive.line, "gitlab", peers);
                Fate::Translated("upstreams.gitlab.peers".to_owned())
            }
        };
        self.add(directive, "", fate.clone());
        for inner in inside(directive) {
            match inner.name.as_str() {
                "location" => {}
                "proxy_pass" => self.add(inner, &within, fate.clone()),
                _ => self.say(inner, &within, depth),
            }
        }
        passed.map(|(peers, _)| peers)
    }

    /// NGINX asks for no proof who a peer is, unless it is told to.
    fn verified(&mut self, line: usize, name: &str, peers: &Peers) {
        if peers.iter().any(|(url, _)| url.starts_with("https://")) && !(name == "gitlab" && self.verifies) {
            let why = "NGINX did not verify the peers' certificates (proxy_ssl_verify), and they are verified now: name their \
                       authority in tls.ca, if it is a private one";
            self.draft.ledger.add(line, format!("upstreams.{name}.tls"), Fate::Yours(why.to_owned()));
        }
    }

    /// A location that is not the registry's. `whole` are the paths below which another location has everything.
    fn location(&mut self, location: &Location<'_>, whole: &HashSet<&str>, registry: Option<&Peers>) {
        let directive = location.directive;
        let within = format!("{}: ", named(directive));
        if directive.text().contains("/.well-known") {
            return self.challenge(directive, true);
        }
        let (path, exact) = match location.way() {
            Way::Below(path) => (path, false),
            Way::Exactly(path) => (path, true),
            Way::Pattern => {
                let why = "a pattern: routes take the beginning of a path";
                self.add(directive, "", Fate::Yours(why.to_owned()));
                return self.rest(directive, &within, why, true);
            }
        };
        if bare(path) == TOKENS && !self.draft.is_front() {
            self.add(directive, "", Fate::Yours(OWN_TOKENS.to_owned()));
            return self.rest(directive, &within, "as the location", false);
        }
        let shadows = bare(path) == "/v2" || (exact && whole.contains(bare(path)));
        let kept = if !routable(path) || shadows {
            let why = "not a path that a route could be for alone".to_owned();
            let refuses = matches!(location.deed(), Deed::Returns(answer) if refuses(answer));
            if refuses || self.is_closed(location) {
                Kept::Lost(Fate::Yours(why))
            } else {
                Kept::Gone(Fate::Yours(why))
            }
        } else {
            match location.deed() {
                Deed::Returns(answer) => self.answered(path, exact, answer),
                Deed::HandsOn(_) | Deed::Else if self.is_closed(location) => self.refused(location, path, exact),
                Deed::HandsOn(to) => self.proxied(path, exact, to, registry),
                Deed::Else => {
                    let why = "no files are served: answered 404";
                    self.bar(directive, path, exact, "404", Fate::NotSupported(why.to_owned()))
                }
            }
        };
        self.report(location, &within, &kept, exact);
    }

    fn report(&mut self, location: &Location<'_>, within: &str, kept: &Kept, exact: bool) {
        let directive = location.directive;
        match kept {
            Kept::Lost(fate) => {
                self.add_guarded(directive, "", fate.clone());
                self.rest(directive, within, "as the location", true);
            }
            Kept::Gone(fate) => {
                self.add(directive, "", fate.clone());
                self.rest(directive, within, "as the location", false);
            }
            Kept::Closed(fate) => {
                self.add(directive, "", fate.clone());
                for inner in inside(directive).iter().filter(|inner| inner.name != "location") {
                    let said =
                        if keeps_out(inner) { fate.clone() } else { Fate::NotNeeded("nobody gets there".to_owned()) };
                    self.add(inner, within, said);
                    self.rest(inner, within, "as what it is in", false);
                }
            }
            Kept::Open(fate) => {
                let beside = match fate {
                    Fate::Translated(key) if exact => Fate::Translated(format!("{key} (and what is below that path)")),
                    fate => fate.clone(),
                };
                self.add(directive, "", beside);
                let returns = matches!(location.deed(), Deed::Returns(_));
                for inner in inside(directive).iter().filter(|inner| inner.name != "location") {
                    self.open(inner, within, fate, returns);
                }
            }
        }
    }

    /// A directive of a location that is a route now.
    fn open(&mut self, inner: &Directive, within: &str, fate: &Fate, returns: bool) {
        match inner.name.as_str() {
            "proxy_pass" | "return" => self.add(inner, within, fate.clone()),
            "allow" | "deny" if returns => {
                self.add(inner, within, Fate::NotNeeded("`return` answers before it is looked at".to_owned()));
            }
            "allow" | "deny" => {
                let why = "listeners.allow and listeners.deny, which are for every path";
                self.add(inner, within, Fate::Translated(why.to_owned()));
            }
            name if kind(name).is_some() => {
                let why = "what is set for the registry is not set for this route: see upstreams";
                self.add(inner, within, Fate::Yours(why.to_owned()));
            }
            _ => self.word(inner, within),
        }
    }

    /// Whether somebody may not get there who gets to the registry, or needs more than there.
    fn is_closed(&self, location: &Location<'_>) -> bool {
        let own = location.rules();
        let as_registry = || {
            let same =
                |(one, other): (&&Directive, &Directive)| one.name == other.name && one.arguments == other.arguments;
            self.admits && own.len() == self.rules.len() && own.iter().zip(&self.rules).all(same)
        };
        let ruled = match own.as_slice() {
            [] => self.ruled_around,
            [rule] if rule.name == "allow" && rule.first() == "all" => false,
            _ => !as_registry(),
        };
        let off = |directive: &Directive| directive.name.starts_with("auth_") && directive.first() == "off";
        let freed = location.scopes().flat_map(inside).any(off);
        ruled || location.is_guarded() || (self.guarded && !freed)
    }

    /// A location that not everybody may come to: nobody may.
    fn refused(&mut self, location: &Location<'_>, path: &str, exact: bool) -> Kept {
        let nobody = location.rules().iter().all(|rule| rule.name == "deny" && rule.first() == "all");
        let fate = if nobody && !location.rules().is_empty() {
            Fate::Translated("routes: answered 403".to_owned())
        } else {
            let why = "closed to everybody now (routes: answered 403), since a route does not say who may come";
            Fate::Yours(why.to_owned())
        };
        self.bar(location.directive, path, exact, "403", fate)
    }

    /// A route that refuses.
    fn bar(&mut self, directive: &Directive, path: &str, exact: bool, status: &str, fate: Fate) -> Kept {
        self.roads.push(Road {
            path: path.to_owned(),
            to: Node::map([("answer", status.into())]),
            line: directive.line,
            closed: true,
            // Files were for everybody.
            partly: !exact && locations::ends_within_a_name(path) && !matches!(fate, Fate::NotSupported(_)),
        });
        Kept::Closed(fate)
    }

    fn road(&mut self, path: &str, line: usize, to: Node) {
        self.roads.push(Road { path: path.to_owned(), to, line, closed: false, partly: false });
    }

    /// Requests that are handed on to an upstream of their own.
    fn proxied(&mut self, path: &str, exact: bool, to: &Directive, registry: Option<&Peers>) -> Kept {
        let tokens = matches!(bare(path), "/jwt" | TOKENS);
        let Some((peers, settings)) = self.peers(to.first(), path).filter(|_| !exact || tokens) else {
            let why = "answered 403: where requests are handed on to is a variable, a socket, or another path, or is for one path \
                       alone";
            return self.bar(to, path, exact, "403", Fate::Yours(why.to_owned()));
        };
        if path == "/" && Some(&peers) == registry {
            let why = "nothing but /v2/ is the registry's, and that has a location of its own";
            return Kept::Gone(Fate::NotNeeded(why.to_owned()));
        }
        if tokens {
            return self.tokens(&peers, &settings);
        }
        let least = settings.iter().any(|directive| directive.name == "least_conn");
        let key = (peers, least);
        let name = match self.known.get(&key) {
            Some(name) => name.clone(),
            None => {
                let name = format!("route{}", self.known.len() + 1);
                self.upstream(&name, &key.0, least);
                self.verified(to.line, &name, &key.0);
                self.known.insert(key, name.clone());
                name
            }
        };
        self.road(path, to.line, Node::map([("upstream", name.as_str().into())]));
        Kept::Open(Fate::Translated(format!("routes, upstreams.{name}")))
    }

    /// GitLab's token endpoint, on the same name.
    fn tokens(&mut self, peers: &Peers, settings: &[Directive]) -> Kept {
        if !self.draft.is_front() {
            return Kept::Gone(Fate::Yours(OWN_TOKENS.to_owned()));
        }
        // Both /jwt and /jwt/auth may be written; there is one token endpoint.
        if self.draft.page.get(&["token", "upstream"]).is_none() {
            self.upstream("tokens", peers, settings.iter().any(|directive| directive.name == "least_conn"));
            self.draft.page.put(&["token", "upstream"], "tokens");
        }
        Kept::Open(Fate::Translated("token.upstream, upstreams.tokens".to_owned()))
    }

    fn answered(&mut self, path: &str, exact: bool, directive: &Directive) -> Kept {
        let (status, text) = match directive.arguments.as_slice() {
            [status, text @ ..] if status.parse::<u16>().is_ok() => (status.as_str(), text.join(" ")),
            _ => ("302", directive.text()),
        };
        if path == "/" && !text.starts_with("http") {
            return Kept::Gone(Fate::NotNeeded("what is no path of the registry is answered 404".to_owned()));
        }
        let url = text.replace("$request_uri", "/");
        let redirects = text.starts_with("http");
        if redirects && !url.contains('$') && matches!(status, "301" | "302" | "303" | "307" | "308") {
            self.road(path, directive.line, Node::map([("redirect", url.into()), ("status", status.into())]));
            return Kept::Open(Fate::Translated("routes".to_owned()));
        }
        let answers = status.parse::<u16>().is_ok_and(|status| (200..600).contains(&status)) && !text.contains('$');
        if redirects || !answers || matches!(status, "301" | "302" | "303" | "307" | "308") {
            let why = "answered 403: where it sends clients, or what it answers, is nothing that routes can say";
            return self.bar(directive, path, exact, "403", Fate::Yours(why.to_owned()));
        }
        if refuses(directive) {
            return self.bar(directive, path, exact, status, Fate::Translated("routes".to_owned()));
        }
        self.road(path, directive.line, Node::map([("answer", status.into())]));
        Kept::Open(Fate::Translated("routes".to_owned()))
    }

    /// The peers behind `proxy_pass`, with their weights, and what else their `upstream` block says. What is put in the
    /// place of the location's path would have to be put there here as well.
    fn peers(&mut self, target: &str, location: &str) -> Option<(Peers, Vec<Directive>)> {
        let (scheme, rest) = target.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if target.contains('$') || !(path.is_empty() || path == location) {
            return None;
        }
        let Some(upstream) = self.named.get(authority).map(|number| &self.upstreams[*number]) else {
            let origin = Origin::new(scheme == "https", authority).ok()?;
            return Some((vec![(origin.to_string(), 1)], Vec::new()));
        };
        self.used.insert(authority.to_owned());
        let servers = inside(upstream)
            .iter()
            .filter(|directive| directive.name == "server" && !has(directive, "down") && !has(directive, "backup"));
        let peers = servers.filter_map(|server| {
            let weight = server.arguments.iter().find_map(|word| word.strip_prefix("weight=")?.parse().ok());
            let weight = weight.unwrap_or(1u32).clamp(1, HEAVIEST);
            let address =
                if server.first().contains(':') { server.first().to_owned() } else { format!("{}:80", server.first()) };
            Some((Origin::new(scheme == "https", &address).ok()?.to_string(), weight))
        });
        let peers: Peers = peers.collect();
        if peers.is_empty() { None } else { Some((peers, inside(upstream).to_vec())) }
    }

    fn upstream(&mut self, name: &str, peers: &Peers, least: bool) {
        let mut node = vec![("peers".to_owned(), nodes(peers))];
        if least {
            node.push(("balance".to_owned(), "least_loaded".into()));
        }
        self.others.push((name.to_owned(), Node::Map(node)));
    }

    /// Writes routes and the upstreams that they lead to.
    pub(super) fn routes(&mut self) {
        if !self.others.is_empty() {
            let mut all = match self.draft.page.get(&["upstreams"]) {
                Some(Node::Map(all)) => all.clone(),
                _ => Vec::new(),
            };
            all.append(&mut self.others);
            self.draft.page.put(&["upstreams"], Node::Map(all));
        }
        if self.roads.is_empty() {
            return;
        }
        // Beside upstreams the registry inside is there only where it is written.
        if !self.draft.is_front() && self.draft.page.get(&["registry"]).is_none() {
            self.draft.page.put(&["registry", "http", "addr"], REGISTRY);
        }
        self.gaps();
        let tokens = self.draft.page.get(&["token", "upstream"]).is_some();
        self.roads.retain(|road| !tokens || bare(&road.path) != TOKENS);
        let to = if self.draft.is_front() { Node::map([("upstream", "gitlab".into())]) } else { "embedded".into() };
        self.road("/v2/", 0, to);
        // What is closed comes before what has the same path with or without a slash.
        self.roads.sort_by_key(|road| (Reverse(bare(&road.path).len()), !road.closed));
        let mut seen = HashSet::new();
        let roads = std::mem::take(&mut self.roads);
        let first = roads.into_iter().filter(|road| seen.insert(bare(&road.path).to_owned()));
        let nodes: Vec<Node> = first.map(|road| Node::map([("path", road.path.into()), ("to", road.to)])).collect();
        self.draft.page.put(&["routes"], Node::List(nodes));
    }

    /// Says what is closed no more, since a route ends with a component and the token endpoint comes before all routes.
    fn gaps(&mut self) {
        let open: HashSet<&str> =
            self.roads.iter().filter(|road| !road.closed).map(|road| bare(&road.path)).chain(["/v2"]).collect();
        let tokens = self.draft.page.get(&["token", "upstream"]).is_some();
        let reached = |path: &str| path.match_indices('/').any(|(end, _)| open.contains(&path[..end]));
        let mut gaps = Vec::new();
        for road in self.roads.iter().filter(|road| road.closed) {
            if road.partly && reached(&road.path) {
                gaps.push((
                    road.line,
                    road.path.clone(),
                    "a route ends with a component: paths that go on behind it without a slash are open",
                ));
            }
            if tokens && (bare(&road.path) == TOKENS || road.path.starts_with("/jwt/auth/")) {
                gaps.push((road.line, road.path.clone(), "what is below the token endpoint is open with it"));
            }
        }
        for (line, path, why) in gaps {
            self.draft.ledger.add_guarded(line, format!("location {path}"), Fate::Yours(why.to_owned()));
        }
    }
}

fn nodes(peers: &Peers) -> Node {
    let node = |(url, weight): &(String, u32)| match weight {
        1 => url.as_str().into(),
        weight => Node::map([("url", url.as_str().into()), ("weight", weight.to_string().into())]),
    };
    Node::List(peers.iter().map(node).collect())
}
