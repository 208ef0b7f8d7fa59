//! The schema of `upstreams`: every key, its type and its bounds.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::super::problem::{Place, quoted};
use super::super::reader::{Item, Section, Setting, Switch};
use super::super::scalar;
use crate::exchange::{ANSWERS, Origin};
use crate::front::{Balance, HostSent, LocationForm, Network, PathPrefix, is_our_own};

/// An upstream as written.
#[derive(Debug)]
pub(in super::super) struct Upstream {
    /// `None`: reported.
    pub(super) name: Option<Arc<str>>,
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) peers: Setting<Vec<Peer>>,
    pub(super) balance: Setting<Balance>,
    pub(super) tls: Tls,
    pub(super) http2: Setting<bool>,
    pub(super) health: Switch<Health>,
    pub(super) ejection: Switch<Ejection>,
    pub(super) slow_start: Setting<Duration>,
    pub(super) attempts: Setting<NonZeroU32>,
    pub(super) timeouts: Timeouts,
    pub(super) host: Setting<HostSent>,
    pub(super) known_as: Setting<Vec<Setting<Origin>>>,
    pub(super) location: Setting<LocationForm>,
    pub(super) realms: Setting<Vec<Realm>>,
    pub(super) strict: Setting<bool>,
    pub(super) request_headers: Edits,
    pub(super) response_headers: Edits,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) place: Place,
    pub(super) url: Setting<Origin>,
    pub(super) weight: Setting<NonZeroU32>,
}

#[derive(Debug)]
pub(super) struct Tls {
    pub(super) ca: Setting<PathBuf>,
    pub(super) certificate: Setting<PathBuf>,
    pub(super) key: Setting<PathBuf>,
    pub(super) name: Setting<String>,
}

#[derive(Debug)]
pub(super) struct Health {
    pub(super) path: Setting<PathPrefix>,
    pub(super) interval: Setting<Duration>,
    pub(super) timeout: Setting<Duration>,
    pub(super) unhealthy: Setting<NonZeroU32>,
    pub(super) healthy: Setting<NonZeroU32>,
    pub(super) status: Setting<Vec<Setting<StatusCode>>>,
}

impl Health {
    /// Whether nothing is written.
    pub(super) fn is_unset(&self) -> bool {
        let Self { path, interval, timeout, unhealthy, healthy, status } = self;
        let times = interval.is_unset() && timeout.is_unset();
        path.is_unset() && times && unhealthy.is_unset() && healthy.is_unset() && status.is_unset()
    }
}

#[derive(Debug)]
pub(super) struct Ejection {
    pub(super) failures: Setting<NonZeroU32>,
    pub(super) time: Setting<Duration>,
}

#[derive(Debug)]
pub(super) struct Timeouts {
    pub(super) connect: Setting<Duration>,
    pub(super) read: Setting<Duration>,
    pub(super) write: Setting<Duration>,
    pub(super) idle: Setting<Duration>,
}

#[derive(Debug)]
pub(super) struct Realm {
    pub(super) place: Place,
    pub(super) url: Setting<String>,
    pub(super) clients: Setting<Vec<Setting<Network>>>,
}

#[derive(Debug)]
pub(super) struct Edits {
    pub(super) remove: Setting<Vec<Setting<HeaderName>>>,
    pub(super) set: Setting<Vec<Header>>,
    pub(super) add: Setting<Vec<Header>>,
}

/// A name and its value; `None`: reported.
pub(super) type Header = Option<(HeaderName, HeaderValue)>;

/// The words of `balance`.
pub(super) const BALANCES: [(&str, Balance); 4] = [
    ("round_robin", Balance::RoundRobin),
    ("least_loaded", Balance::LeastLoaded),
    ("repository", Balance::Repository),
    ("upload", Balance::Upload),
];
/// The words of `host`.
pub(super) const HOSTS: [(&str, HostSent); 2] = [("client", HostSent::Client), ("peer", HostSent::Peer)];
/// The words of `location`.
pub(super) const LOCATIONS: [(&str, LocationForm); 3] =
    [("absolute", LocationForm::Absolute), ("relative", LocationForm::Relative), ("preserve", LocationForm::Preserve)];

/// More than this, and the others get next to nothing.
const WEIGHT: RangeInclusive<u64> = 1..=100;
/// A client waits for all of them.
const ATTEMPTS: RangeInclusive<u64> = 1..=10;
/// How often something must happen before it counts.
const TIMES: RangeInclusive<u64> = 1..=100;
/// More often is a load by itself; less often finds out too late.
const INTERVAL: RangeInclusive<Duration> = milliseconds(100, 3_600_000);
/// Nobody connects in less, and no client waits for more.
const CONNECT: RangeInclusive<Duration> = milliseconds(100, 300_000);
/// A registry may take long to put a large layer together.
const SILENCE: RangeInclusive<Duration> = milliseconds(100, 86_400_000);
/// Not at all, or slowly.
const SLOW_START: RangeInclusive<Duration> = milliseconds(0, 3_600_000);

const fn milliseconds(least: u64, most: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(least)..=Duration::from_millis(most)
}

/// The name of an upstream.
pub(in super::super) fn name(text: &str) -> Result<String, String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && text.len() <= 64 && text.bytes().all(letter) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "must be a name of letters, digits and -_. (at most 64, a letter or digit first), not {}",
        quoted(text)
    ))
}

impl Upstream {
    pub(in super::super) fn read(key: &str, mut item: Item<'_>) -> Self {
        let place = item.place();
        let name = match name(key) {
            Ok(name) => Some(name.into()),
            Err(message) => {
                item.refuse(message);
                None
            }
        };
        item.section(|section| Self {
            name,
            key: key.to_owned(),
            place,
            peers: section.list("peers", Peer::read),
            balance: section.choice("balance", &BALANCES),
            tls: section.section("tls", Tls::read),
            http2: section.flag("http2"),
            health: section.section_or_off("health", Health::read),
            ejection: section.section_or_off("ejection", Ejection::read),
            slow_start: section.duration("slow_start", SLOW_START),
            attempts: count(section, "attempts", ATTEMPTS),
            timeouts: section.section("timeouts", Timeouts::read),
            host: section.choice("host", &HOSTS),
            known_as: section.list("known_as", |item| item.scalar(scalar::origin)),
            location: section.choice("location", &LOCATIONS),
            realms: section.list("realms", Realm::read),
            strict: section.flag("strict"),
            request_headers: section.section("request_headers", |section| Edits::read(section, of_requests)),
            response_headers: section.section("response_headers", |section| Edits::read(section, of_answers)),
        })
    }
}

/// A number that is at least one.
fn count(section: &mut Section<'_>, key: &'static str, range: RangeInclusive<u64>) -> Setting<NonZeroU32> {
    let number = section.number(key, range);
    // Every range above is within it.
    number.map(|number, _| u32::try_from(number).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN))
}

impl Peer {
    fn read(item: Item<'_>) -> Self {
        let place = item.place();
        if !item.is_section() {
            return Self { place, url: item.scalar(scalar::origin), weight: Setting::Unset };
        }
        item.section(|section| Self { place, url: section.origin("url"), weight: count(section, "weight", WEIGHT) })
    }
}

impl Tls {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            ca: section.path("ca"),
            certificate: section.path("certificate"),
            key: section.path("key"),
            name: section.scalar("name", |text| {
                let refused = || format!("must be the name in the peer's certificate, not {}", quoted(text));
                if scalar::is_host(text) && !text.starts_with('[') {
                    Ok(text.to_ascii_lowercase())
                } else {
                    Err(refused())
                }
            }),
        }
    }
}

impl Health {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            path: section.scalar("path", path),
            interval: section.duration("interval", INTERVAL),
            timeout: section.duration("timeout", CONNECT),
            unhealthy: count(section, "unhealthy", TIMES),
            healthy: count(section, "healthy", TIMES),
            status: section.list("status", |item| item.scalar(|text| status(text, 100..=599))),
        }
    }
}

/// A path that requests begin with.
pub(super) fn path(text: &str) -> Result<PathPrefix, String> {
    PathPrefix::new(text).map_err(|error| format!("{error}, such as /v2/, not {}", quoted(text)))
}

/// A status.
pub(super) fn status(text: &str, range: RangeInclusive<u16>) -> Result<StatusCode, String> {
    let number = text.parse::<u16>().ok().filter(|number| range.contains(number));
    number
        .and_then(|number| StatusCode::from_u16(number).ok())
        .ok_or_else(|| format!("must be a status between {} and {}, not {}", range.start(), range.end(), quoted(text)))
}

impl Ejection {
    fn read(section: &mut Section<'_>) -> Self {
        Self { failures: count(section, "failures", TIMES), time: section.duration("time", INTERVAL) }
    }
}

impl Timeouts {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            connect: section.duration("connect", CONNECT),
            read: section.duration("read", SILENCE),
            write: section.duration("write", SILENCE),
            idle: section.duration("idle", SILENCE),
        }
    }
}

impl Realm {
    fn read(item: Item<'_>) -> Self {
        let place = item.place();
        if !item.is_section() {
            return Self { place, url: item.scalar(whole_url), clients: Setting::Unset };
        }
        item.section(|section| Self {
            place,
            url: section.scalar("url", whole_url),
            clients: section.list("clients", |item| item.scalar(scalar::network)),
        })
    }
}

/// `https://HOST[:PORT]/PATH`, with or without a query.
pub(in super::super) fn whole_url(text: &str) -> Result<String, String> {
    let refused = |why: String| {
        format!("must be a whole URL such as https://gitlab.example.com/jwt/auth, not {}{why}", quoted(text))
    };
    let end = text.find("://").map_or(0, |at| at + 3);
    let path = text[end..].find(['/', '?', '#']).map_or(text.len(), |at| end + at);
    scalar::origin(&text[..path]).map_err(|_| refused(String::new()))?;
    let letter = |byte: u8| byte.is_ascii_graphic() && !b"#\"\\<>^`{|}".contains(&byte);
    if text[path..].bytes().all(letter) {
        Ok(text.to_owned())
    } else {
        Err(refused(": letters must be encoded".to_owned()))
    }
}

impl Edits {
    fn read(section: &mut Section<'_>, allowed: fn(&HeaderName) -> Result<(), String>) -> Self {
        let name = move |text: &str| {
            let refused = |_| format!("must be the name of a header, not {}", quoted(text));
            let name = HeaderName::from_bytes(text.as_bytes()).map_err(refused)?;
            allowed(&name).map(|()| name)
        };
        let header = move |key: &str, mut item: Item<'_>| match name(key) {
            Ok(name) => item.scalar(value).into_value().map(|value| (name, value)),
            Err(message) => {
                item.refuse(message);
                None
            }
        };
        Self {
            remove: section.list("remove", |item| item.scalar(name)),
            set: section.map("set", header),
            add: section.map("add", header),
        }
    }
}

fn value(text: &str) -> Result<HeaderValue, String> {
    let plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    let value = Some(text).filter(|text| text.bytes().all(plain)).and_then(|text| HeaderValue::from_str(text).ok());
    value.ok_or_else(|| "must be printable ASCII".to_owned())
}

/// What of a request others may change.
fn of_requests(name: &HeaderName) -> Result<(), String> {
    if is_ours_in_requests(name) {
        return Err(format!("{name} is what Pierhead itself says to an upstream; remove it"));
    }
    Ok(())
}

/// What of a request we say ourselves. `Host` and what says for whom we speak would send clients elsewhere, or let them
/// say who they are; with another's `Authorization` everybody would be that account.
pub(in super::super) fn is_ours_in_requests(name: &HeaderName) -> bool {
    let text = name.as_str();
    let ours = ["authorization", "expect", "forwarded", "host", "proxy-connection", "x-real-ip"];
    is_our_own(name) || ours.contains(&text) || text.starts_with("x-forwarded-")
}

/// And of an answer: what a client could not go on without stays the registry's, and what we rewrite stays ours.
fn of_answers(name: &HeaderName) -> Result<(), String> {
    let text = name.as_str();
    if text == "strict-transport-security" {
        return Err(format!("{text} is written as tls.hsts; remove it"));
    }
    if is_our_own(name) || ANSWERS.contains(&text) {
        return Err(format!("{text} is the registry's, or Pierhead's, to say; remove it"));
    }
    Ok(())
}
