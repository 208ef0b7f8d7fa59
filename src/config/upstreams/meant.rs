//! Who answers what where nothing was written, and the front's own types.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::super::reader::{Setting, Switch};
use super::super::written::Written;
use super::super::{Services, Tokens};
use super::written::{self, Edits};
use crate::exchange::Origin;
use crate::front::{self, HeaderEdits, Host, PathPrefix, Route, Target, UpstreamTimeouts};
use crate::tls;

/// What belongs to the registry.
const REGISTRY: &str = "/v2/";
/// What is asked for to see whether a registry is well.
const HEALTH: &str = "/v2/";
/// A registry that wants to know who asks is as well as one that does not.
const HEALTHY: [StatusCode; 2] = [StatusCode::OK, StatusCode::UNAUTHORIZED];
const ATTEMPTS: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);
const UNHEALTHY: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
const FAILURES: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);

/// Which services are ours. Whoever names upstreams and no registry has one already.
pub(in super::super) fn services(written: &Written) -> Services {
    let registry = match written.registry_said.switch {
        Setting::Is(switch, _) => switch,
        Setting::Unset | Setting::Wrong => written.registry_said.any || !are_there(&written.upstreams),
    };
    let token = &written.token_said;
    let tokens = match (&token.switch, &written.token.upstream) {
        (Setting::Is(false, _), _) => Tokens::Off,
        (_, Setting::Is(name, _)) => Tokens::Upstream(name.as_str().into()),
        (Setting::Is(true, _), _) => Tokens::Ours,
        _ if token.any || registry => Tokens::Ours,
        _ => Tokens::Off,
    };
    Services { registry, tokens }
}

/// Whether there are upstreams, or may be once they are mended.
fn are_there(upstreams: &Setting<Vec<written::Upstream>>) -> bool {
    upstreams.is_wrong() || !upstreams.items().is_empty()
}

/// The upstreams that could take the registry's requests where no route says which: those that are not named for tokens, if
/// there is another.
pub(super) fn candidates<'w>(written: &'w Written, services: &Services) -> Vec<&'w written::Upstream> {
    let all = || written.upstreams.items().iter();
    let others = all().filter(|upstream| match &services.tokens {
        Tokens::Upstream(name) => upstream.name.as_ref() != Some(name),
        Tokens::Ours | Tokens::Off => true,
    });
    let others: Vec<_> = others.collect();
    if others.is_empty() { all().collect() } else { others }
}

/// Where requests go: what belongs to the token endpoint first, as `token` says, then the routes as they are written.
pub(in super::super) fn routes(written: &Written, services: &Services, token_path: &str) -> Vec<Route> {
    let mut routes: Vec<Route> = match &written.routes {
        Setting::Is(routes, _) => routes.iter().filter_map(super::Route::meant).collect(),
        Setting::Unset | Setting::Wrong if services.registry => Vec::new(),
        Setting::Unset | Setting::Wrong => {
            let only = candidates(written, services).first().and_then(|upstream| upstream.name.clone());
            only.and_then(|name| all_below(REGISTRY, Target::Upstream(name))).into_iter().collect()
        }
    };
    let tokens = match &services.tokens {
        Tokens::Upstream(name) => all_below(token_path, Target::Upstream(Arc::clone(name))),
        Tokens::Ours if !routes.is_empty() => all_below(token_path, Target::Embedded),
        Tokens::Ours | Tokens::Off => None,
    };
    if let Some(tokens) = tokens.filter(|tokens| !routes.contains(tokens)) {
        routes.insert(0, tokens);
    }
    routes
}

fn all_below(path: &str, to: Target) -> Option<Route> {
    Some(Route { host: None, path: PathPrefix::new(path).ok()?, methods: Vec::new(), to })
}

/// Which route takes all of `/v2/` from the embedded registry, for clients that call us by this name.
pub(super) fn hides_registry(routes: &[Route], host: &str, authority: &str) -> Option<usize> {
    let path = |route: &Route| route.path.as_str().trim_end_matches('/').to_owned();
    let named = |route: &&Route| match &route.host {
        None => true,
        Some(Host::Name(name)) => name == host,
        Some(Host::Authority(own)) => own == authority,
    };
    for (number, route) in routes.iter().enumerate().filter(|(_, route)| named(route)) {
        let (path, embedded) = (path(route), route.to == Target::Embedded);
        let all = path.is_empty() || path == "/v2";
        if embedded && (all || path.starts_with("/v2/")) {
            return None;
        }
        if all && route.methods.is_empty() {
            return Some(number);
        }
    }
    None
}

/// The upstreams, in the order in which they were written.
pub(in super::super) fn upstreams(written: Setting<Vec<written::Upstream>>, routes: &[Route]) -> Vec<front::Upstream> {
    let registries = front::registries(routes);
    let is_registry =
        |upstream: &written::Upstream| upstream.name.as_ref().is_some_and(|name| registries.contains(name));
    let written = written.into_value().unwrap_or_default().into_iter();
    written.filter_map(|written| upstream(is_registry(&written), written)).collect()
}

/// Only who answers for the API is asked for it, where nothing says how somebody shows that it is well.
fn upstream(is_registry: bool, written: written::Upstream) -> Option<front::Upstream> {
    let seconds = Duration::from_secs;
    let timeouts = written.timeouts;
    let peers = written.peers.into_value().unwrap_or_default();
    Some(front::Upstream {
        name: written.name?,
        peers: peers.into_iter().filter_map(peer).collect(),
        balance: written.balance.or_else(Default::default),
        tls: tls_meant(written.tls),
        http2: written.http2.or(false),
        health: match written.health {
            Switch::Off => None,
            Switch::On(health) if health.is_unset() && !is_registry => None,
            Switch::On(health) => Some(health_meant(health)?),
        },
        ejection: match written.ejection {
            Switch::Off => None,
            Switch::On(ejection) => {
                Some(front::Ejection { failures: ejection.failures.or(FAILURES), time: ejection.time.or(seconds(10)) })
            }
        },
        slow_start: written.slow_start.or(Duration::ZERO),
        attempts: written.attempts.or(ATTEMPTS),
        timeouts: UpstreamTimeouts {
            connect: timeouts.connect.or(seconds(5)),
            read: timeouts.read.or(seconds(15 * 60)),
            write: timeouts.write.or(seconds(60)),
            idle: timeouts.idle.or(seconds(60)),
        },
        host: written.host.or_else(Default::default),
        known_as: origins(written.known_as),
        location: written.location.or_else(Default::default),
        realms: written.realms.into_value().unwrap_or_default().into_iter().filter_map(realm).collect(),
        strict: written.strict.or(false),
        request_headers: edits(written.request_headers),
        response_headers: edits(written.response_headers),
    })
}

fn peer(written: written::Peer) -> Option<front::Peer> {
    Some(front::Peer { origin: written.url.into_value()?, weight: written.weight.or(NonZeroU32::MIN) })
}

fn tls_meant(written: written::Tls) -> front::UpstreamTls {
    let pair = written.certificate.into_value().zip(written.key.into_value());
    front::UpstreamTls {
        ca: written.ca.into_value(),
        certificate: pair.map(|(certificate, key)| tls::Files::new(certificate, key)),
        name: written.name.into_value(),
    }
}

fn health_meant(written: written::Health) -> Option<front::Health> {
    let path = written.path.into_value().or_else(|| PathPrefix::new(HEALTH).ok())?;
    let status = written.status.into_value().unwrap_or_default().into_iter().filter_map(Setting::into_value);
    let status: Vec<StatusCode> = status.collect();
    Some(front::Health {
        path,
        interval: written.interval.or(Duration::from_secs(5)),
        timeout: written.timeout.or(Duration::from_secs(2)),
        unhealthy: written.unhealthy.or(UNHEALTHY),
        healthy: written.healthy.or(UNHEALTHY),
        status: if status.is_empty() { HEALTHY.to_vec() } else { status },
    })
}

fn realm(written: written::Realm) -> Option<front::Realm> {
    let clients = written.clients.into_value().unwrap_or_default().into_iter().filter_map(Setting::into_value);
    Some(front::Realm { url: written.url.into_value()?, clients: clients.collect() })
}

fn origins(written: Setting<Vec<Setting<Origin>>>) -> Vec<Origin> {
    written.into_value().unwrap_or_default().into_iter().filter_map(Setting::into_value).collect()
}

fn edits(written: Edits) -> HeaderEdits {
    let headers = |written: Setting<Vec<written::Header>>| {
        written.into_value().unwrap_or_default().into_iter().flatten().collect()
    };
    let names = written.remove.into_value().unwrap_or_default();
    HeaderEdits {
        remove: names.into_iter().filter_map(Setting::into_value).collect(),
        set: headers(written.set),
        add: headers(written.add),
    }
}
