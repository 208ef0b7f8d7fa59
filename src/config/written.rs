//! What did the operator write?
//!
//! The schema: every key, its type and its bounds, in the order of `conf/pierhead.yml`. Nothing here knows a default, and
//! nothing is compared with anything else: that is `meant.rs`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use super::distribution::{self, Registry};
use super::problem::Place;
use super::reader::{Item, Said, Section, Setting};
use super::scalar;
use super::tls::Tls;
use super::upstreams::{self, Route, Upstream};
use crate::auth::Algorithm;
use crate::exchange::Origin;
use crate::front::{Address, Network, ProxyProtocol};
use crate::telemetry::{Destination, Format};

/// The configuration as written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) external_url: Setting<Origin>,
    pub(super) aliases: Setting<Vec<Setting<Origin>>>,
    pub(super) state: Setting<PathBuf>,
    pub(super) user: Setting<String>,
    pub(super) listeners: Setting<Vec<Listener>>,
    pub(super) internal: Doorway,
    pub(super) trusted_proxies: Setting<Vec<Setting<Network>>>,
    pub(super) tls: Tls,
    pub(super) registry_said: Said,
    pub(super) registry: Registry,
    pub(super) token_said: Said,
    pub(super) token: Token,
    pub(super) upstreams: Setting<Vec<Upstream>>,
    pub(super) routes: Setting<Vec<Route>>,
    pub(super) members_may_create_projects: Setting<bool>,
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
    pub(super) log: Log,
    pub(super) metrics: Setting<Monitoring>,
}

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) place: Place,
    pub(super) address: Setting<Address>,
    pub(super) tls: Setting<bool>,
    pub(super) redirect: Setting<()>,
    pub(super) doorway: Doorway,
}

/// Who comes in by a listener, and how.
#[derive(Debug)]
pub(super) struct Doorway {
    pub(super) proxy_protocol: Setting<ProxyProtocol>,
    pub(super) allow: Directions,
    pub(super) deny: Directions,
}

#[derive(Debug)]
pub(super) struct Directions {
    pub(super) pull: Setting<Vec<Setting<Network>>>,
    pub(super) push: Setting<Vec<Setting<Network>>>,
}

/// The internal port.
#[derive(Debug, Clone)]
pub(super) enum Internal {
    Off,
    /// A socket in the file system.
    Unix(PathBuf),
    At(SocketAddr),
}

/// Where monitoring looks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Monitoring {
    Off,
    At(SocketAddr),
}

#[derive(Debug)]
pub(super) struct Token {
    pub(super) upstream: Setting<String>,
    pub(super) path: Setting<String>,
    pub(super) service: Setting<String>,
    pub(super) issuer: Setting<String>,
    pub(super) duration: Setting<Duration>,
    pub(super) finish_uploads: Setting<Duration>,
    pub(super) algorithm: Setting<Algorithm>,
    pub(super) key: Setting<PathBuf>,
    pub(super) certificate: Setting<PathBuf>,
}

#[derive(Debug)]
pub(super) struct Limits {
    pub(super) connections: Setting<u64>,
    pub(super) connections_per_client: Setting<u64>,
    pub(super) streams: Setting<u64>,
    pub(super) header: Setting<u64>,
    pub(super) fields: Setting<u64>,
    pub(super) target: Setting<u64>,
    pub(super) manifest: Setting<u64>,
    pub(super) blob: Setting<u64>,
    pub(super) uploads: Setting<u64>,
    pub(super) failed_logins: Setting<NonZeroU32>,
    pub(super) anonymous: Setting<NonZeroU32>,
}

#[derive(Debug)]
pub(super) struct Timeouts {
    pub(super) handshake: Setting<Duration>,
    pub(super) header: Setting<Duration>,
    pub(super) idle: Setting<Duration>,
    pub(super) stall: Setting<Duration>,
    pub(super) minimum_rate: Setting<u64>,
    pub(super) drain: Setting<Duration>,
}

#[derive(Debug)]
pub(super) struct Log {
    pub(super) level: Setting<Level>,
    pub(super) format: Setting<Format>,
    pub(super) access: Setting<Destination>,
    pub(super) audit: Setting<Destination>,
    /// Of a collector of spans; `None`: off.
    pub(super) traces_endpoint: Setting<Option<String>>,
    pub(super) traces_sample: Setting<f64>,
}

/// Shorter, and docker logs in again during a push; longer, and a right that was taken away lasts.
const TOKEN_DURATION: RangeInclusive<Duration> = seconds(60, 86_400);
/// As short as not at all; what was begun longer ago is not on its way any more.
const FINISH_UPLOADS: RangeInclusive<Duration> = seconds(0, 7 * 86_400);
/// Shorter, and a slow link is cut off; longer, and the limit protects nothing.
const TIMEOUT: RangeInclusive<Duration> = seconds(1, 3_600);
/// Bytes a second: none at all, or at most what every link in use carries.
const MINIMUM_RATE: RangeInclusive<u64> = 0..=(64 << 10);
/// A drain may be as short as nothing.
const DRAIN: RangeInclusive<Duration> = seconds(0, 86_400);
/// Fewer than a few, and the health checks of a load balancer take them all; more than there are descriptors help nobody.
const CONNECTIONS: RangeInclusive<u64> = 10..=1_000_000;
/// One docker opens a handful.
const CONNECTIONS_PER_CLIENT: RangeInclusive<u64> = 1..=1_000_000;
/// Each may make us hold the whole window of its connection.
const STREAMS: RangeInclusive<u64> = 1..=1_000;
/// A token that lists many repositories has several KiB; what reads HTTP/1.1 ends at a mebibyte.
const HEADER: RangeInclusive<u64> = (8 << 10)..=(512 << 10);
/// What reads HTTP/1.1 ends at 256.
const FIELDS: RangeInclusive<u64> = 20..=200;
/// A name has 255 letters, a digest 71, and `_state` of an upload some hundred.
const TARGET: RangeInclusive<u64> = (1 << 10)..=(64 << 10);
/// A manifest is held in memory as a whole, several at a time.
pub(super) const MANIFEST: RangeInclusive<u64> = (64 << 10)..=(64 << 20);

/// Smaller, and hardly an image fits.
const BLOB: RangeInclusive<u64> = (1 << 20)..=(1 << 50);
/// One docker has five; all together may have ten thousand.
const UPLOADS: RangeInclusive<u64> = 5..=10_000;

/// The words of `proxy_protocol`.
pub(super) const PROXY_PROTOCOLS: [(&str, ProxyProtocol); 3] =
    [("off", ProxyProtocol::Off), ("optional", ProxyProtocol::Optional), ("required", ProxyProtocol::Required)];
/// The word of `redirect`.
pub(super) const REDIRECTS: [(&str, ()); 1] = [("https", ())];
/// The words of `token.algorithm`.
pub(super) const ALGORITHMS: [(&str, Algorithm); 2] = [("ES256", Algorithm::Es256), ("RS256", Algorithm::Rs256)];
/// The words of `log.level`.
pub(super) const LEVELS: [(&str, Level); 5] = [
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];
/// The words of `log.format`.
pub(super) const FORMATS: [(&str, Format); 3] =
    [("auto", Format::Auto), ("text", Format::Text), ("json", Format::Json)];

const fn seconds(least: u64, most: u64) -> RangeInclusive<Duration> {
    Duration::from_secs(least)..=Duration::from_secs(most)
}

impl Written {
    /// Reads the document; `any` is what an address without a host means on this machine.
    pub(super) fn read(root: &mut Section<'_>, any: IpAddr) -> Self {
        let (registry_said, registry) = root.tree("registry", |reader, node| distribution::embedded(reader, node, any));
        let (token_said, token) = root.section_or_flag("token", Token::read);
        Self {
            external_url: root.origin("external_url"),
            aliases: root.list("aliases", |item| item.scalar(scalar::origin)),
            state: root.path("state"),
            user: root.word("user"),
            listeners: root.list("listeners", |item| Listener::read(item, any)),
            internal: root.section("internal", Doorway::read),
            trusted_proxies: root.list("trusted_proxies", |item| item.scalar(scalar::network)),
            tls: root.section("tls", Tls::read),
            registry_said,
            registry,
            token_said,
            token,
            members_may_create_projects: root
                .section("accounts", |section| section.flag("members_may_create_projects")),
            upstreams: root.map("upstreams", Upstream::read),
            routes: root.list("routes", Route::read),
            limits: root.section("limits", Limits::read),
            timeouts: root.section("timeouts", Timeouts::read),
            log: root.section("log", Log::read),
            metrics: root.section("metrics", |section| section.scalar("address", Monitoring::parse)),
        }
    }
}

impl Monitoring {
    /// Whoever reaches it may read it: without a host it is this machine only.
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => scalar::address(text, IpAddr::V4(Ipv4Addr::LOCALHOST))
                .map(Self::At)
                .map_err(|message| format!("{message}; off means none")),
        }
    }
}

impl Listener {
    fn read(item: Item<'_>, any: IpAddr) -> Self {
        let place = item.place();
        item.section(|section| Self {
            place,
            address: section.listening("address", any),
            tls: section.flag("tls"),
            redirect: section.choice("redirect", &REDIRECTS),
            doorway: Doorway::read(section),
        })
    }
}

impl Doorway {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            proxy_protocol: section.choice("proxy_protocol", &PROXY_PROTOCOLS),
            allow: section.section("allow", Directions::read),
            deny: section.section("deny", Directions::read),
        }
    }
}

impl Directions {
    fn read(section: &mut Section<'_>) -> Self {
        let mut networks = |key| section.list(key, |item| item.scalar(scalar::network));
        Self { pull: networks("pull"), push: networks("push") }
    }

    pub(super) fn is_unset(&self) -> bool {
        self.pull.is_unset() && self.push.is_unset()
    }
}

impl Token {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            upstream: section.scalar("upstream", upstreams::name),
            path: section.scalar("path", scalar::own_path),
            service: section.word("service"),
            issuer: section.word("issuer"),
            duration: section.duration("duration", TOKEN_DURATION),
            finish_uploads: section.duration("finish_uploads", FINISH_UPLOADS),
            algorithm: section.choice("algorithm", &ALGORITHMS),
            key: section.path("key"),
            certificate: section.path("certificate"),
        }
    }
}

impl Limits {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            connections: section.number("connections", CONNECTIONS),
            connections_per_client: section.number("connections_per_client", CONNECTIONS_PER_CLIENT),
            streams: section.number("streams", STREAMS),
            header: section.size("header", HEADER),
            fields: section.number("fields", FIELDS),
            target: section.size("target", TARGET),
            manifest: section.size("manifest", MANIFEST),
            blob: section.size("blob", BLOB),
            uploads: section.number("uploads", UPLOADS),
            failed_logins: section.scalar("failed_logins", scalar::per_minute),
            anonymous: section.scalar("anonymous", scalar::per_minute),
        }
    }
}

impl Timeouts {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            handshake: section.duration("handshake", TIMEOUT),
            header: section.duration("header", TIMEOUT),
            idle: section.duration("idle", TIMEOUT),
            stall: section.duration("stall", TIMEOUT),
            minimum_rate: section.size("minimum_rate", MINIMUM_RATE),
            drain: section.duration("drain", DRAIN),
        }
    }
}

impl Log {
    fn read(section: &mut Section<'_>) -> Self {
        let (traces_endpoint, traces_sample) = section.section("traces", |section| {
            (section.scalar("endpoint", scalar::collector), section.scalar("sample", scalar::part))
        });
        Self {
            level: section.choice("level", &LEVELS),
            format: section.choice("format", &FORMATS),
            access: section.destination("access"),
            audit: section.destination("audit"),
            traces_endpoint,
            traces_sample,
        }
    }
}
