//! Do upstreams and routes fit each other, our names and our ports?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::checks::Checks;
use super::super::meant::{INTERNAL, TOKEN_PATH, default_external_url};
use super::super::problem::{Place, nearest};
use super::super::reader::{Setting, Switch};
use super::super::written::{Internal, Written};
use super::super::{Services, Tokens};
use super::meant::{candidates, hides_registry, services};
use super::routes::{Route, To};
use super::written::{Peer, Tls, Upstream};
use crate::auth::Guard;
use crate::exchange::Origin;
use crate::front::{self, Host, Redirect, Target};

/// Compares upstreams and routes with each other and with everything else.
pub(in super::super) fn check(checks: &mut Checks<'_>, written: &Written) {
    let services = services(written);
    let ports = checks.ports(written);
    for upstream in written.upstreams.items() {
        check_upstream(checks, written, upstream, &ports);
    }
    check_services(checks, written, &services);
    check_tokens(checks, written, &services);
    let names = names(checks, written);
    for (number, route) in written.routes.items().iter().enumerate() {
        check_route(checks, written, &services, &format!("routes[{number}]"), route, &names);
    }
    find_hidden(checks, written);
    find_hidden_registry(checks, written, &services, names.as_deref());
    find_empty(checks, written, &services);
    find_unused(checks, written, &services);
    find_idle_keys(checks, written, &services);
}

fn check_upstream(checks: &mut Checks<'_>, written: &Written, upstream: &Upstream, ports: &[(String, SocketAddr)]) {
    let key = format!("upstreams.{}", upstream.key);
    if upstream.peers.is_unset() || upstream.peers.written().is_some_and(|(peers, _)| peers.is_empty()) {
        let message = "missing; write who answers, such as [\"http://127.0.0.1:5000\"]";
        checks.report(&upstream.place, format!("{key}.peers"), message);
    }
    let peers = upstream.peers.items();
    for (number, peer) in peers.iter().enumerate() {
        let key = format!("{key}.peers[{number}]");
        let Some((origin, place)) = peer.url.written() else {
            if peer.url.is_unset() {
                checks.report(
                    &peer.place,
                    format!("{key}.url"),
                    "missing; write http:// or https://, a host and a port",
                );
            }
            continue;
        };
        let same = |other: &Peer| other.url.written().is_some_and(|(other, _)| other == origin);
        if let Some(first) = peers[..number].iter().position(same) {
            checks.report(place, &key, format!("is peers[{first}] already; write a weight there instead"));
        }
        if let Some(message) = circle(checks, written, origin, ports) {
            checks.report(place, &key, message);
        }
    }
    check_tls(checks, &key, upstream);
    check_health(checks, &key, upstream);
    check_realms(checks, &key, upstream);
}

/// Why requests to this peer would come back to us, if they would.
fn circle(checks: &Checks<'_>, written: &Written, peer: &Origin, ports: &[(String, SocketAddr)]) -> Option<String> {
    let origins = our_origins(written);
    if let Some((key, _)) = origins.iter().find(|(_, origin)| origin.authority() == peer.authority()) {
        return Some(format!("is {key}: requests would come back to Pierhead for ever; name the registry behind it"));
    }
    let addresses = addresses_of(checks, peer.host());
    let ours = |bound: SocketAddr| {
        let on_this_machine = |address: &IpAddr| address.is_loopback() || checks.machine.addresses.contains(address);
        let here = |address: &IpAddr| match bound.ip() {
            IpAddr::V4(any) if any.is_unspecified() => address.is_ipv4() && on_this_machine(address),
            IpAddr::V6(any) if any.is_unspecified() => on_this_machine(address),
            only => only == *address,
        };
        bound.port() == peer.port() && addresses.iter().any(here)
    };
    let (key, bound) = ports.iter().find(|(_, bound)| ours(*bound))?;
    Some(format!("is Pierhead's own {key} ({bound}); name the registry's address, or give one of them another port"))
}

/// The addresses of a host that is this machine, as far as can be told without asking anybody.
fn addresses_of(checks: &Checks<'_>, host: &str) -> Vec<IpAddr> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return vec![address.to_canonical()];
    }
    let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    if host == "localhost" || host.ends_with(".localhost") {
        return loopback.to_vec();
    }
    if checks.machine.host_name.as_deref() == Some(host) {
        return loopback.into_iter().chain(checks.machine.addresses.iter().copied()).collect();
    }
    Vec::new()
}

/// What clients call us, by key.
fn our_origins(written: &Written) -> Vec<(String, Origin)> {
    let external = match &written.external_url {
        Setting::Is(origin, _) => Some(origin.clone()),
        Setting::Unset => Some(default_external_url()),
        Setting::Wrong => None,
    };
    let external = external.map(|origin| ("external_url".to_owned(), origin));
    let aliases = written.aliases.items().iter().enumerate().filter_map(|(number, alias)| {
        alias.written().map(|(origin, _)| (format!("aliases[{number}]"), origin.clone()))
    });
    external.into_iter().chain(aliases).collect()
}

/// TLS with peers is whole, readable, and spoken with somebody.
fn check_tls(checks: &mut Checks<'_>, key: &str, upstream: &Upstream) {
    let Tls { ca, certificate, key: private, name } = &upstream.tls;
    for (word, path) in [("ca", ca), ("certificate", certificate), ("key", private)] {
        if let Some((path, place)) = path.written()
            && let Err(message) = checks.readable(path)
        {
            checks.report(place, format!("{key}.tls.{word}"), message);
        }
    }
    for (word, one, other_word, other) in
        [("certificate", certificate, "key", private), ("key", private, "certificate", certificate)]
    {
        if let (Setting::Is(_, place), Setting::Unset) = (one, other) {
            checks.report(place, format!("{key}.tls.{word}"), format!("needs tls.{other_word}; write both or none"));
        }
    }
    let spoken = upstream.peers.items().iter().any(|peer| peer.url.written().is_none_or(|(url, _)| url.is_secure()));
    if spoken || upstream.peers.is_wrong() {
        return;
    }
    let places = [place_of(ca), place_of(certificate), place_of(private), place_of(name)];
    for (word, place) in ["ca", "certificate", "key", "name"].into_iter().zip(places) {
        if let Some(place) = place {
            let message = "has no effect: no peer is https://; write a peer as https://, or remove it";
            checks.report(place, format!("{key}.tls.{word}"), message);
        }
    }
    if let Some((true, place)) = upstream.http2.written() {
        let message = "has no effect: HTTP/2 is spoken with peers that are https:// only";
        checks.report(place, format!("{key}.http2"), message);
    }
}

fn place_of<T>(setting: &Setting<T>) -> Option<&Place> {
    setting.written().map(|(_, place)| place)
}

fn check_health(checks: &mut Checks<'_>, key: &str, upstream: &Upstream) {
    if let Switch::On(health) = &upstream.health
        && let Some((timeout, place)) = health.timeout.written()
    {
        let interval = health.interval.written().map_or(std::time::Duration::from_secs(5), |(interval, _)| *interval);
        if *timeout > interval && !health.interval.is_wrong() {
            let message =
                "is longer than health.interval: the next question would be asked before this one is given up";
            checks.report(place, format!("{key}.health.timeout"), message);
        }
    }
    if let (Switch::Off, Switch::Off, Setting::Is(time, place)) =
        (&upstream.health, &upstream.ejection, &upstream.slow_start)
        && !time.is_zero()
    {
        let message = "has no effect: with health and ejection off no peer ever comes back";
        checks.report(place, format!("{key}.slow_start"), message);
    }
}

fn check_realms(checks: &mut Checks<'_>, key: &str, upstream: &Upstream) {
    for (number, realm) in upstream.realms.items().iter().enumerate() {
        let key = format!("{key}.realms[{number}]");
        match &realm.url {
            Setting::Unset => {
                checks.report(&realm.place, format!("{key}.url"), "missing; write where clients get tokens")
            }
            Setting::Is(url, place) if url.starts_with("http://") => {
                checks.warn(
                    place,
                    key,
                    "clients will send their passwords there in the clear; write https:// if it is spoken there",
                );
            }
            Setting::Is(..) | Setting::Wrong => {}
        }
    }
    if let (Some((true, place)), true) = (upstream.strict.written(), upstream.realms.items().is_empty())
        && !upstream.realms.is_wrong()
    {
        let message = "true, and without realms clients would still be sent for tokens to wherever the registry says; write \
                       in realms where they get them";
        checks.report(place, format!("{key}.strict"), message);
    }
}

/// Somebody answers `/v2/`, and it can be told who.
fn check_services(checks: &mut Checks<'_>, written: &Written, services: &Services) {
    let said = &written.registry_said;
    if let (Setting::Is(false, place), true) = (&said.switch, said.any) {
        checks.report(place, "registry", "false, but variables (PIERHEAD_REGISTRY_...) set keys of it; keep one");
    }
    let upstreams = written.upstreams.items();
    let unrouted = written.routes.is_unset();
    match (&written.upstreams, services.registry) {
        (Setting::Is(_, place), true) if unrouted && candidates_beside_registry(written, services) => {
            let message = "beside the embedded registry, and no `routes` says which requests go where; write them, or \
                           registry: false";
            checks.report(place, "upstreams", message);
        }
        (Setting::Is(_, place), false) if unrouted && candidates(written, services).len() > 1 => {
            let message = "several, and no `routes` says which requests go where; write them, such as [{ path: /v2/, to: { \
                           upstream: NAME } }]";
            checks.report(place, "upstreams", message);
        }
        (Setting::Unset | Setting::Is(..), false)
            if upstreams.is_empty() && unrouted && services.tokens != Tokens::Ours =>
        {
            if let Setting::Is(_, place) = &said.switch {
                checks.report(
                    place,
                    "registry",
                    "false, and there are no upstreams and no routes: nothing would be served",
                );
            }
        }
        _ => {}
    }
}

/// Whether an upstream is there that nothing but a route could send to.
fn candidates_beside_registry(written: &Written, services: &Services) -> bool {
    written.upstreams.items().iter().any(|upstream| match &services.tokens {
        Tokens::Upstream(name) => upstream.name.as_ref().is_some_and(|own| own != name),
        Tokens::Ours | Tokens::Off => true,
    })
}

/// The token endpoint is one of ours, theirs, or nobody's, and what is written fits that.
fn check_tokens(checks: &mut Checks<'_>, written: &Written, services: &Services) {
    let (said, token) = (&written.token_said, &written.token);
    if let (Setting::Is(false, place), true) = (&said.switch, said.any) {
        checks.report(place, "token", "false, but variables (PIERHEAD_TOKEN_...) set keys of it; keep one");
    }
    if let Some((name, place)) = token.upstream.written() {
        known(checks, written, place, "token.upstream", name);
        let keys = [
            ("service", place_of(&token.service)),
            ("issuer", place_of(&token.issuer)),
            ("duration", place_of(&token.duration)),
            ("finish_uploads", place_of(&token.finish_uploads)),
            ("algorithm", place_of(&token.algorithm)),
            ("key", place_of(&token.key)),
            ("certificate", place_of(&token.certificate)),
        ];
        for (key, place) in keys.into_iter().filter_map(|(key, place)| Some((key, place?))) {
            let message = format!("has no effect: {name} makes the tokens (token.upstream); remove one");
            checks.report(place, format!("token.{key}"), message);
        }
    }
    let guarded_by_us = matches!(written.registry.guard, Setting::Unset | Setting::Is(Guard::Own, _));
    let (word, place) = match (&said.switch, &token.upstream) {
        (Setting::Is(false, place), _) => ("token", place),
        (_, Setting::Is(_, place)) => ("token.upstream", place),
        _ => return,
    };
    if services.registry && guarded_by_us {
        let message = "our own tokens guard the embedded registry, and nobody would make them; write registry.auth, or \
                       registry: false";
        checks.report(place, word, message);
    }
}

/// Says so when there is no upstream of this name.
fn known(checks: &mut Checks<'_>, written: &Written, place: &Place, key: &str, name: &str) {
    let names: Vec<&str> = written.upstreams.items().iter().map(|upstream| upstream.key.as_str()).collect();
    if names.contains(&name) || written.upstreams.is_wrong() {
        return;
    }
    let meant = nearest(name, names.iter().copied()).map(|meant| format!("; did you mean {meant}?"));
    let message = match (meant, names.is_empty()) {
        (Some(meant), _) => format!("there is no upstream {name}{meant}"),
        (None, true) => format!("there is no upstream {name}: `upstreams` is empty"),
        (None, false) => format!("there is no upstream {name}; there are {}", names.join(", ")),
    };
    checks.report(place, key, message);
}

/// Every host that a request can name, with its authority; `None` where the machine's names count too.
fn names(checks: &Checks<'_>, written: &Written) -> Option<Vec<(String, String)>> {
    if written.external_url.is_wrong()
        || written.aliases.is_wrong()
        || written.aliases.items().iter().any(Setting::is_wrong)
    {
        return None;
    }
    let named = |origin: &Origin| (origin.host().to_owned(), origin.authority().to_owned());
    let mut names: Vec<_> = our_origins(written).iter().map(|(_, origin)| named(origin)).collect();
    if written.external_url.is_unset() && written.aliases.is_unset() {
        let of_machine = |name: String| {
            let host = if name.contains(':') { format!("[{name}]") } else { name };
            let authority = format!("{host}:{}", default_external_url().port());
            (host, authority)
        };
        names.extend(checks.machine.names().into_iter().map(of_machine));
    }
    Some(names)
}

fn check_route(
    checks: &mut Checks<'_>,
    written: &Written,
    services: &Services,
    key: &str,
    route: &Route,
    names: &Option<Vec<(String, String)>>,
) {
    if let (Some((host, place)), Some(names)) = (route.host.written(), names) {
        let (shown, ours) = match host {
            Host::Name(name) => (name, names.iter().any(|(own, _)| own == name)),
            Host::Authority(authority) => (authority, names.iter().any(|(_, own)| own == authority)),
        };
        if !ours {
            let message =
                format!("{shown} is neither of external_url nor of aliases, so no request can name it; add an alias");
            checks.report(place, format!("{key}.host"), message);
        }
    }
    if let Some((path, place)) = route.path.written() {
        let bare = path.as_str().trim_end_matches('/');
        if bare == "/-" || bare.starts_with("/-/") {
            checks.report(place, format!("{key}.path"), "is kept for the server's own pages below /-/");
        }
    }
    if let Some((methods, place)) = route.methods.written()
        && methods.is_empty()
    {
        let message = "no method at all: no request would come here; write some, or remove the key where all are meant";
        checks.report(place, format!("{key}.methods"), message);
    }
    check_target(checks, written, services, key, route);
}

fn check_target(checks: &mut Checks<'_>, written: &Written, services: &Services, key: &str, route: &Route) {
    let To { embedded, upstream, redirect, answer, status, body, content_type, wrong } = &route.to;
    let key = format!("{key}.to");
    let set = [place_of(embedded), place_of(upstream), place_of(redirect), place_of(answer)];
    match set.iter().flatten().count() {
        0 if !wrong && !embedded.is_wrong() => {
            let message =
                "missing; write embedded, or one of { upstream: NAME }, { redirect: URL }, { answer: STATUS }";
            checks.report(&route.place, key.clone(), message);
        }
        0 | 1 => {}
        _ => checks.report(
            &route.place,
            key.clone(),
            "a request goes to one place: keep one of upstream, redirect and answer",
        ),
    }
    for (word, place, of, there) in [
        ("status", place_of(status), "redirect", !redirect.is_unset()),
        ("body", place_of(body), "answer", !answer.is_unset()),
        ("type", place_of(content_type), "answer", !answer.is_unset()),
    ] {
        if let (Some(place), false) = (place, there) {
            checks.report(place, format!("{key}.{word}"), format!("belongs to {of}, which is not written"));
        }
    }
    if let (Some(place), Some(_), Setting::Unset) = (place_of(content_type), place_of(answer), body) {
        checks.report(place, format!("{key}.type"), "has no effect without body");
    }
    if let Some((name, place)) = upstream.written() {
        known(checks, written, place, &format!("{key}.upstream"), name);
    }
    let Some(meant) = route.meant() else { return };
    let to_redirect = redirect.written();
    if let (Target::Redirect(redirect), Some((_, place))) = (&meant.to, to_redirect)
        && comes_back(written, redirect, &meant)
    {
        let message = "sends clients to where this route sends them again";
        checks.report(place, format!("{key}.redirect"), message);
    }
    let path = meant.path.as_str().trim_end_matches('/');
    if let (Target::Embedded, Some((_, place))) = (&meant.to, embedded.written()) {
        if path == "/v2" || path.starts_with("/v2/") {
            if !services.registry {
                checks.report(place, key.clone(), "the embedded registry is off; write `registry`, or an upstream");
            }
        } else if !services.ask_who_it_is() {
            checks.report(place, key.clone(), "nothing is embedded: registry and token are off; write another target");
        }
    }
    let tokens = written.token.path.clone().or_else(|| TOKEN_PATH.to_owned());
    let said = match &services.tokens {
        Tokens::Ours => Target::Embedded,
        Tokens::Upstream(name) => Target::Upstream(name.clone()),
        Tokens::Off => return,
    };
    if path == tokens && meant.to != said {
        let message = format!(
            "{tokens} is the token endpoint's, and goes where `token` says; write token: false, or token: {{ upstream: NAME }}"
        );
        checks.report(&route.place, key, message);
    }
}

/// Whether a redirect leads to one of our names and to a path that this very route takes.
fn comes_back(written: &Written, redirect: &Redirect, route: &front::Route) -> bool {
    let Some((scheme, rest)) = redirect.to.split_once("://") else { return false };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let Ok(origin) = Origin::new(scheme == "https", authority) else { return false };
    let host = match &route.host {
        None => true,
        Some(Host::Name(name)) => origin.host() == name,
        Some(Host::Authority(authority)) => origin.authority() == authority,
    };
    let bare = route.path.as_str().trim_end_matches('/');
    let taken = path.strip_prefix(bare).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    host && taken && our_origins(written).iter().any(|(_, own)| *own == origin)
}

/// Routes that no request reaches, because one above them takes it.
fn find_hidden(checks: &mut Checks<'_>, written: &Written) {
    let routes: Vec<_> = written.routes.items().iter().map(|route| (route, route.meant())).collect();
    for (number, (route, meant)) in routes.iter().enumerate() {
        let Some(meant) = meant else { continue };
        let takes =
            |other: &&(&Route, Option<front::Route>)| other.1.as_ref().is_some_and(|other| takes_all_of(other, meant));
        if let Some(first) = routes[..number].iter().position(|other| takes(&other)) {
            let message = format!("no request comes here: routes[{first}] takes them all; write this one above it");
            checks.warn(&route.place, format!("routes[{number}]"), message);
        }
    }
}

/// An embedded registry that the routes leave nothing to.
fn find_hidden_registry(
    checks: &mut Checks<'_>,
    written: &Written,
    services: &Services,
    names: Option<&[(String, String)]>,
) {
    let Some(names) = names.filter(|_| services.registry) else { return };
    let routes: Option<Vec<front::Route>> = written.routes.items().iter().map(Route::meant).collect();
    let Some(routes) = routes else { return };
    let takers = names.iter().map(|(host, authority)| hides_registry(&routes, host, authority));
    let Some(takers) = takers.collect::<Option<Vec<usize>>>() else { return };
    let Some(number) = takers.first() else { return };
    let left = match internal_port(written) {
        Some(internal) => format!("it is reached by the internal port alone ({internal})"),
        None => "and there is no internal port (registry.http.addr: off), so nobody reaches it".to_owned(),
    };
    let message = format!(
        "takes all of /v2/, and the embedded registry, which is on, gets none of it: {left}; write registry: false, or a \
         route to embedded above this one"
    );
    checks.warn(&written.routes.items()[*number].place, format!("routes[{number}]"), message);
}

fn internal_port(written: &Written) -> Option<String> {
    match written.registry.internal.clone().or(Internal::At(INTERNAL)) {
        Internal::At(address) => Some(address.to_string()),
        Internal::Unix(path) => Some(front::Address::Unix(path).to_string()),
        Internal::Off => None,
    }
}

/// Whoever writes `upstreams` means to stand before a registry, and not to serve one.
fn find_empty(checks: &mut Checks<'_>, written: &Written, services: &Services) {
    let said = &written.registry_said;
    if let (Setting::Is(upstreams, place), true) = (&written.upstreams, services.registry)
        && upstreams.is_empty()
        && said.switch.is_unset()
        && !said.any
    {
        let message = "names none, so a registry of this server's own is served, with its own accounts; write an upstream, \
                       or registry: true where that is meant";
        checks.warn(place, "upstreams", message);
    }
}

fn takes_all_of(first: &front::Route, second: &front::Route) -> bool {
    let host = match (&first.host, &second.host) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(Host::Name(name)), Some(Host::Authority(authority))) => {
            Origin::new(true, authority).is_ok_and(|origin| origin.host() == name)
        }
        (Some(first), Some(second)) => first == second,
    };
    let methods = first.methods.is_empty()
        || (!second.methods.is_empty() && second.methods.iter().all(|method| first.methods.contains(method)));
    let bare = |route: &front::Route| route.path.as_str().trim_end_matches('/').to_owned();
    let below = bare(second).strip_prefix(&bare(first)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    host && methods && below
}

fn find_unused(checks: &mut Checks<'_>, written: &Written, services: &Services) {
    if written.routes.is_wrong() || written.routes.is_unset() && !services.registry {
        return;
    }
    let routed: Vec<&str> = written
        .routes
        .items()
        .iter()
        .filter_map(|route| route.to.upstream.written().map(|(name, _)| name.as_str()))
        .chain(written.token.upstream.written().map(|(name, _)| name.as_str()))
        .collect();
    if written.routes.is_unset() {
        return; // reported: nobody says what they are for
    }
    for upstream in written.upstreams.items().iter().filter(|upstream| !routed.contains(&upstream.key.as_str())) {
        let message = "no route names it, so nothing is sent there";
        checks.warn(&upstream.place, format!("upstreams.{}", upstream.key), message);
    }
}

/// Keys of what is off would not be honoured.
fn find_idle_keys(checks: &mut Checks<'_>, written: &Written, services: &Services) {
    let mut idle: Vec<(&str, Option<&Place>, &str)> = Vec::new();
    if !services.registry {
        idle.push(("limits.uploads", place_of(&written.limits.uploads), "the embedded registry is off"));
        let doorway = &written.internal;
        let (allow, deny) = (&doorway.allow, &doorway.deny);
        let none = "there is no internal port: the embedded registry is off";
        idle.extend([
            ("internal.proxy_protocol", place_of(&doorway.proxy_protocol), none),
            ("internal.allow.pull", place_of(&allow.pull), none),
            ("internal.allow.push", place_of(&allow.push), none),
            ("internal.deny.pull", place_of(&deny.pull), none),
            ("internal.deny.push", place_of(&deny.push), none),
        ]);
    }
    if !services.ask_who_it_is() {
        let nobody = "nobody logs in here: registry and token are off";
        idle.push(("limits.failed_logins", place_of(&written.limits.failed_logins), nobody));
        idle.push(("limits.anonymous", place_of(&written.limits.anonymous), nobody));
    }
    if services.tokens != Tokens::Ours {
        let place = place_of(&written.members_may_create_projects);
        idle.push(("accounts.members_may_create_projects", place, "there are no accounts here: token is not ours"));
    }
    for (key, place, why) in idle {
        if let Some(place) = place {
            checks.report(place, key, format!("has no effect: {why}; remove it"));
        }
    }
}
