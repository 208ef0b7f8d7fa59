//! What does it mean where nothing was written?
//!
//! The defaults, and the shape in which the rooms take their settings.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::Level;

use super::distribution::DebugAddress;
use super::machine::Machine;
use super::problem::{Place, Source};
use super::reader::Setting;
use super::written::{self, Internal, Monitoring, Written};
use super::{Services, Settings, Tokens, upstreams};
use crate::auth::Algorithm;
use crate::exchange::Origin;
use crate::telemetry::Destination;
use crate::{auth, front, registry, telemetry};

/// The port of `external_url` when it is not written.
pub(super) const EXTERNAL_PORT: u16 = 5050;
/// Where clients that know no https come to, if we have its port.
pub(super) const REDIRECT_PORT: u16 = 80;
/// The internal port.
pub(super) const INTERNAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);
/// Where monitoring looks.
pub(super) const MONITORING: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5001);
/// What it asks for there.
pub(super) const METRICS: &str = "/metrics";
/// Where state is kept when the configuration is the system's.
const SYSTEM_STATE: &str = "/var/lib/pierhead";
/// Where state is kept beside any other configuration.
const STATE: &str = "data";
/// How long an upload may be finished with a token that expired on the way.
const FINISH_UPLOADS: Duration = Duration::from_secs(24 * 3600);
/// Where GitLab has it as well.
pub(super) const TOKEN_PATH: &str = "/jwt/auth";
const TOKEN_DURATION: Duration = Duration::from_secs(300);
const FAILED_LOGINS: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
/// Repositories and tags on a page, as Distribution has it.
const PAGE: usize = 1000;

/// Fills in the defaults. `file` is the absolute path of the file that was read.
pub(super) fn settings(written: Written, machine: &Machine, file: Option<&Path>) -> Settings {
    let services = upstreams::meant::services(&written);
    let token_path = written.token.path.clone().or_else(|| TOKEN_PATH.to_owned());
    let routes = upstreams::meant::routes(&written, &services, &token_path);
    let state = written.state.or_else(|| default_state(machine, file));
    let origins = super::tls::meant::written_origins(&written.external_url, &written.aliases);
    let mut timeouts = written.timeouts;
    timeouts.drain = written_first(timeouts.drain, written.registry.drain);
    let mut front = front(
        written.external_url,
        written.aliases,
        written.listeners,
        written.registry.internal,
        written.internal,
        timeouts,
        machine,
    );
    front.listeners.retain(|listener| services.registry || !listener.internal);
    front.routes = routes;
    front.upstreams = upstreams::meant::upstreams(written.upstreams, &front.routes);
    front.token = (services.tokens != Tokens::Off).then(|| token_path.clone());
    front.trusted_proxies = networks(written.trusted_proxies);
    let door = written.registry.door;
    for listener in front.listeners.iter_mut().filter(|listener| listener.internal) {
        listener.tls = door.internal.tls.is_some();
    }
    front.limits = limits_meant(&written.limits);
    front.headers = door.headers;
    front.hsts = super::tls::meant::hsts(written.tls.hsts.clone());
    front.internal = door.internal;
    front.debug = monitoring(written.metrics, door.debug);
    let manifest = written_first(written.limits.manifest, written.registry.manifest);
    let tls = super::tls::meant::config(written.tls, &origins, &front, machine, &state);
    Settings {
        source: file.map(Path::to_owned),
        written: BTreeMap::new(),
        warnings: Vec::new(),
        registry_only: false,
        services,
        user: written.user.into_value(),
        front,
        tls,
        auth: auth_meant(
            token_path,
            written.token,
            &state,
            auth::Limits {
                failed_logins: written.limits.failed_logins.or(FAILED_LOGINS),
                anonymous: written.limits.anonymous.into_value(),
            },
            written.members_may_create_projects.or(false),
            written.registry.guard.or(auth::Guard::Own),
        ),
        registry: registry::Config {
            root: written.registry.root.or_else(|| state.join("registry")),
            delete: written.registry.delete.or(true),
            read_only: written.registry.read_only.or(false),
            purge: written.registry.purge,
            limits: push_limits(manifest, written.limits.blob, written.limits.uploads),
            secret: written.registry.secret.into_value(),
            relative_urls: written.registry.relative_urls.or(false),
            catalog_page: written.registry.catalog_page.or(PAGE),
            tags_page: written.registry.tags_page.or(PAGE),
            validation: written.registry.validation,
            health: door.health,
        },
        telemetry: telemetry_meant(
            written.log,
            written.registry.level,
            written.registry.format,
            written.registry.access,
        ),
        state,
    }
}

fn auth_meant(
    path: String,
    token: written::Token,
    state: &Path,
    limits: auth::Limits,
    members_may_create_projects: bool,
    guard: auth::Guard,
) -> auth::Config {
    auth::Config {
        path,
        service: token.service.or_else(|| "container_registry".to_owned()),
        issuer: token.issuer.or_else(|| "pierhead".to_owned()),
        duration: token.duration.or(TOKEN_DURATION),
        algorithm: token.algorithm.or(Algorithm::Es256),
        key: token.key.or_else(|| state.join("token.key")),
        certificate: token.certificate.or_else(|| state.join("token.crt")),
        limits,
        members_may_create_projects,
        guard,
        finish_uploads: token.finish_uploads.or(FINISH_UPLOADS),
    }
}

/// `level`, `format` and `access` are Distribution's keys, which count where ours are not written.
fn telemetry_meant(
    log: written::Log,
    level: Setting<Level>,
    format: Setting<telemetry::Format>,
    access: Setting<Destination>,
) -> telemetry::Config {
    telemetry::Config {
        level: written_first(log.level, level).or(Level::INFO),
        format: written_first(log.format, format).or(telemetry::Format::Auto),
        access: written_first(log.access, access).or(Destination::Stdout),
        audit: log.audit.or(Destination::Off),
        traces: telemetry::traces::Config { endpoint: log.traces_endpoint.or(None), sample: log.traces_sample.or(1.0) },
    }
}

/// What the file of `pierhead registry serve` means: Distribution's defaults, nothing else served, nothing kept.
pub(super) fn registry_alone(mut written: Written, machine: &Machine, file: &Path) -> Settings {
    let delete = std::mem::replace(&mut written.registry.delete, Setting::Unset).or(false);
    let guard = std::mem::replace(&mut written.registry.guard, Setting::Unset).or(auth::Guard::Nobody);
    let drain = std::mem::replace(&mut written.registry.drain, Setting::Unset).or(Duration::ZERO);
    let format = std::mem::replace(&mut written.registry.format, Setting::Unset).or(telemetry::Format::Text);
    let relative_urls = std::mem::replace(&mut written.registry.relative_urls, Setting::Unset);
    if written.registry.door.debug.address.is_unset() {
        let place = Place { source: Source::File(file.into()), line: 0 };
        written.metrics = Setting::Is(Monitoring::Off, place);
    }
    let mut settings = settings(written, machine, Some(file));
    settings.registry_only = true;
    settings.tls.certificates.clear(); // those of a front door
    settings.tls.acme = None; // likewise
    settings.services = Services { registry: true, tokens: Tokens::Off };
    settings.registry.delete = delete;
    settings.auth.guard = guard;
    settings.telemetry.format = format;
    let front = &mut settings.front;
    front.listeners.retain(|listener| listener.internal);
    front.aliases.clear();
    front.timeouts.drain = drain;
    let port = match front.listeners.first().map(|listener| &listener.address) {
        Some(front::Address::Tcp(address)) => address.port(),
        Some(front::Address::Unix(_) | front::Address::Systemd(_)) | None => INTERNAL.port(),
    };
    if let Some(own) = origin(front.internal.tls.is_some(), "localhost", port) {
        front.external_url = own;
    }
    front.internal.any_host = true;
    front.token = None;
    front.hsts = None; // it holds for a whole host, and the file has no key against it
    // As a rule a proxy stands before it, and Distribution's file has no key to say so: its address is nobody's, and a
    // few wrong passwords through it must not keep everybody out. Nor has the file a key for uploads at once.
    front.limits.by_address = false;
    settings.registry.limits.uploads = usize::MAX;
    // Without a name of its own, and with forwarding headers not believed, whether clients speak TLS to a proxy is not
    // known: a path is right for all of them, where a wrong scheme would send their pushes in circles.
    settings.registry.relative_urls = relative_urls.or(front.internal.host.is_none());
    settings
}

/// Where operators and their monitoring look: what our own key says, else what Distribution's do.
fn monitoring(own: Setting<Monitoring>, debug: DebugAddress) -> Option<front::Debug> {
    let DebugAddress { address, metrics, path } = debug;
    let path = path.or_else(|| METRICS.to_owned());
    match (own, address) {
        (Setting::Is(Monitoring::Off, _), _) => None,
        (Setting::Is(Monitoring::At(address), _), _) => Some(front::Debug { address, metrics: Some(path) }),
        (_, Setting::Is(address, _)) => Some(front::Debug { address, metrics: metrics.or(false).then_some(path) }),
        _ => Some(front::Debug { address: MONITORING, metrics: Some(path) }),
    }
}

/// What our own key says, else what Distribution's does.
fn written_first<T>(own: Setting<T>, other: Setting<T>) -> Setting<T> {
    if own.is_unset() { other } else { own }
}

/// Under `/etc` we are installed; anywhere else, and without a file, we are tried out by hand.
pub(super) fn default_state(machine: &Machine, file: Option<&Path>) -> PathBuf {
    match file {
        Some(file) if file == machine.system_file || file.starts_with("/etc") => PathBuf::from(SYSTEM_STATE),
        Some(file) => file.parent().unwrap_or(&machine.folder).join(STATE),
        None => machine.folder.join(STATE),
    }
}

fn front(
    external_url: Setting<Origin>,
    aliases: Setting<Vec<Setting<Origin>>>,
    listeners: Setting<Vec<written::Listener>>,
    internal: Setting<Internal>,
    own: written::Doorway,
    timeouts: written::Timeouts,
    machine: &Machine,
) -> front::Config {
    let names = if external_url.is_unset() { machine.names() } else { Vec::new() };
    let external_url = external_url.or_else(default_external_url);
    let aliases = match aliases {
        Setting::Is(aliases, _) => aliases.into_iter().filter_map(Setting::into_value).collect(),
        Setting::Unset | Setting::Wrong => {
            let origin = |name: &String| origin(external_url.is_secure(), name, external_url.port());
            names.iter().filter_map(origin).filter(|alias| *alias != external_url).collect()
        }
    };
    let secure = external_url.is_secure();
    let any = |port| SocketAddr::new(machine.any(), port);
    let mut listeners = match listeners {
        Setting::Is(listeners, _) => listeners.into_iter().filter_map(|listener| public(listener, secure)).collect(),
        Setting::Unset | Setting::Wrong => {
            let mut listeners = vec![front::Listener::new(any(external_url.port()), secure, false)];
            if secure && external_url.port() == 443 {
                listeners
                    .push(front::Listener { redirect: true, ..front::Listener::new(any(REDIRECT_PORT), false, false) });
            }
            listeners
        }
    };
    let address = match internal.or(Internal::At(INTERNAL)) {
        Internal::At(address) => Some(front::Address::from(address)),
        Internal::Unix(path) => Some(front::Address::Unix(path)),
        Internal::Off => None,
    };
    listeners.extend(address.map(|address| doorway(front::Listener::new(address, false, true), own)));
    front::Config {
        listeners,
        external_url,
        aliases,
        routes: Vec::new(),
        upstreams: Vec::new(),
        token: None,
        trusted_proxies: front::Networks::default(),
        timeouts: timeouts_meant(timeouts),
        limits: front::Limits::default(),
        headers: Vec::new(),
        hsts: None,
        internal: front::Internal::default(),
        debug: None,
    }
}

fn public(written: written::Listener, secure: bool) -> Option<front::Listener> {
    let redirect = written.redirect.into_value().is_some();
    let tls = written.tls.or(secure && !redirect);
    let listener = front::Listener { redirect, ..front::Listener::new(written.address.into_value()?, tls, false) };
    Some(doorway(listener, written.doorway))
}

fn doorway(listener: front::Listener, written: written::Doorway) -> front::Listener {
    let directions =
        |written: written::Directions| front::Directions { pull: networks(written.pull), push: networks(written.push) };
    let gate = front::Gate { allow: directions(written.allow), deny: directions(written.deny) };
    front::Listener { proxy_protocol: written.proxy_protocol.or_else(Default::default), gate, ..listener }
}

fn networks(written: Setting<Vec<Setting<front::Network>>>) -> front::Networks {
    written.into_value().unwrap_or_default().into_iter().filter_map(Setting::into_value).collect()
}

fn timeouts_meant(written: written::Timeouts) -> front::Timeouts {
    let usual = front::Timeouts::default();
    front::Timeouts {
        handshake: written.handshake.or(usual.handshake),
        header: written.header.or(usual.header),
        idle: written.idle.or(usual.idle),
        stall: written.stall.or(usual.stall),
        minimum_rate: written.minimum_rate.or(usual.minimum_rate),
        drain: written.drain.or(usual.drain),
    }
}

fn limits_meant(written: &written::Limits) -> front::Limits {
    let usual = front::Limits::default();
    // Each has a bound that fits, in `written.rs`.
    let number = |setting: &Setting<u64>, usual| {
        setting.written().and_then(|(value, _)| usize::try_from(*value).ok()).unwrap_or(usual)
    };
    let connections_per_client = number(&written.connections_per_client, usual.connections_per_client);
    let streams = written.streams.written().and_then(|(value, _)| u32::try_from(*value).ok());
    front::Limits {
        connections: number(&written.connections, usual.connections),
        connections_per_client,
        by_address: usual.by_address,
        streams: streams.unwrap_or(usual.streams),
        further_streams: usual.further_streams.max(connections_per_client),
        header: number(&written.header, usual.header),
        fields: number(&written.fields, usual.fields),
        target: number(&written.target, usual.target),
    }
}

fn push_limits(manifest: Setting<u64>, blob: Setting<u64>, uploads: Setting<u64>) -> registry::Limits {
    let usual = registry::Limits::default();
    let number = |setting: Setting<u64>, usual| {
        setting.into_value().and_then(|value| usize::try_from(value).ok()).unwrap_or(usual)
    };
    registry::Limits {
        manifest: number(manifest, usual.manifest),
        blob: blob.into_value(),
        uploads: number(uploads, usual.uploads),
    }
}

/// `https://localhost:5050`.
#[expect(clippy::expect_used, reason = "localhost is a host, and every start without external_url comes by here")]
pub(super) fn default_external_url() -> Origin {
    origin(true, "localhost", EXTERNAL_PORT).expect("a host and a port are an origin")
}

/// An origin of a name or an address.
fn origin(secure: bool, name: &str, port: u16) -> Option<Origin> {
    let host = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    Origin::new(secure, &format!("{host}:{port}")).ok()
}
