//! The schema of `tls`: every key, its type and its bounds.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use super::super::problem::{Place, nearest, quoted};
use super::super::reader::{Item, Section, Setting, within};
use super::super::scalar;
use super::super::upstreams;
use super::names;
use crate::tls::Policy;
use crate::tls::acme::{Challenge, LETS_ENCRYPT, LETS_ENCRYPT_STAGING};

/// `tls` as written.
#[derive(Debug)]
pub(in super::super) struct Tls {
    pub(in super::super) policy: Setting<Policy>,
    pub(in super::super) hsts: Setting<Hsts>,
    pub(in super::super) certificates: Setting<Vec<Certificate>>,
    pub(in super::super) local: Setting<PathBuf>,
    pub(super) acme: Acme,
    pub(super) client_auth: Setting<Vec<ClientAuth>>,
    pub(super) ticket_keys: Setting<Vec<Setting<PathBuf>>>,
}

/// How long browsers are to come with TLS only.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Hsts {
    Off,
    For(Duration),
}

#[derive(Debug)]
pub(in super::super) struct Certificate {
    pub(super) place: Place,
    pub(super) certificate: Setting<PathBuf>,
    pub(super) key: Setting<PathBuf>,
    pub(super) password: Setting<PathBuf>,
}

/// Certificates that are ordered.
#[derive(Debug)]
pub(super) struct Acme {
    pub(super) enabled: Setting<Enabled>,
    pub(super) directory: Setting<String>,
    pub(super) ca: Setting<PathBuf>,
    pub(super) contact: Setting<Vec<Setting<String>>>,
    pub(super) challenges: Setting<Vec<Setting<Challenge>>>,
    pub(super) certificates: Setting<Vec<Setting<Vec<Setting<String>>>>>,
    pub(super) eab: Eab,
    pub(super) profile: Setting<String>,
    pub(super) webroot: Setting<PathBuf>,
    pub(super) dns: Dns,
    pub(super) storage: Setting<PathBuf>,
}

/// Whether certificates are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Enabled {
    /// Where the world can reach us and there is no other.
    Auto,
    Yes,
    No,
}

#[derive(Debug)]
pub(super) struct Eab {
    pub(super) id: Setting<String>,
    pub(super) key: Setting<PathBuf>,
}

#[derive(Debug)]
pub(super) struct Dns {
    pub(super) server: Setting<String>,
    pub(super) zone: Setting<String>,
    pub(super) key: Setting<PathBuf>,
    pub(super) hook: Setting<PathBuf>,
}

/// Which clients may come by some names.
#[derive(Debug)]
pub(super) struct ClientAuth {
    pub(super) place: Place,
    /// Its path: an index only if it is one of a list.
    pub(super) key: String,
    pub(super) mode: Setting<Mode>,
    pub(super) ca: Setting<PathBuf>,
    pub(super) names: Setting<Vec<Setting<String>>>,
    pub(super) depth: Setting<u64>,
    pub(super) crl: Setting<Vec<Setting<PathBuf>>>,
    pub(super) header: Setting<String>,
}

/// Whether a client shows a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Off,
    Optional,
    Required,
}

/// The words of `policy`.
pub(super) const POLICIES: [(&str, Policy); 2] = [("intermediate", Policy::Intermediate), ("modern", Policy::Modern)];
/// The words of `acme.enabled`.
pub(super) const ENABLED: [(&str, Enabled); 3] =
    [("auto", Enabled::Auto), ("true", Enabled::Yes), ("false", Enabled::No)];
/// The words of `acme.directory`.
pub(super) const DIRECTORIES: [(&str, &str); 2] =
    [("letsencrypt", LETS_ENCRYPT), ("letsencrypt-staging", LETS_ENCRYPT_STAGING)];
/// The words of `acme.challenges`.
pub(super) const CHALLENGES: [(&str, Challenge); 3] =
    [("tls-alpn-01", Challenge::TlsAlpn01), ("http-01", Challenge::Http01), ("dns-01", Challenge::Dns01)];
/// The words of `client_auth.mode`.
pub(super) const MODES: [(&str, Mode); 3] =
    [("off", Mode::Off), ("optional", Mode::Optional), ("required", Mode::Required)];

/// Nothing takes back what browsers were told before; longer than ten years is a mistake.
const HSTS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_650 * 86_400);
/// How many certificates may lie between a client's and the authority's. Nobody has more.
const DEPTH: RangeInclusive<u64> = 0..=10;
/// The longest e-mail address (RFC 5321 4.5.3.1.3, without the angle brackets).
const LONGEST_CONTACT: usize = 254;
/// The port of the DNS.
const DNS_PORT: u16 = 53;
/// What a client says of its request, or a proxy of its client: none of it is ours to take away.
const TAKEN: [&str; 21] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "baggage",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "docker-content-digest",
    "docker-upload-uuid",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "range",
    "referer",
    "traceparent",
    "tracestate",
    "user-agent",
];

impl Tls {
    pub(in super::super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            policy: section.choice("policy", &POLICIES),
            hsts: section.scalar("hsts", Hsts::parse),
            certificates: section.list("certificates", Certificate::read),
            local: section.path("local"),
            acme: section.section("acme", Acme::read),
            client_auth: section.list_or_one("client_auth", ClientAuth::read),
            ticket_keys: section.list("ticket_keys", |item| item.file()),
        }
    }
}

impl Hsts {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let time = scalar::duration(text).map_err(|message| format!("{message}; off means not at all"))?;
        within(time, &HSTS, text, |value| scalar::AsDuration(value).to_string()).map(Self::For)
    }
}

impl Certificate {
    fn read(item: Item<'_>) -> Self {
        let place = item.place();
        item.section(|section| Self {
            place,
            certificate: section.path("certificate"),
            key: section.path("key"),
            password: section.path("password"),
        })
    }
}

impl Acme {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            enabled: section.choice("enabled", &ENABLED),
            directory: section.scalar("directory", directory),
            ca: section.path("ca"),
            contact: section.list("contact", |item| item.scalar(contact)),
            challenges: section.list("challenges", |item| item.scalar(|text| scalar::choice(text, &CHALLENGES))),
            certificates: section.list("certificates", |item| {
                item.list("the names of one certificate", |item| item.scalar(names::of_certificate))
            }),
            eab: section.section("eab", |section| Eab { id: section.word("id"), key: section.path("key") }),
            profile: section.word("profile"),
            webroot: section.path("webroot"),
            dns: section.section("dns", |section| Dns {
                server: section.scalar("server", server),
                zone: section.scalar("zone", names::plain),
                key: section.path("key"),
                hook: section.path("hook"),
            }),
            storage: section.path("storage"),
        }
    }
}

impl ClientAuth {
    fn read(item: Item<'_>) -> Self {
        let (place, key) = (item.place(), item.path());
        item.section(|section| Self {
            place,
            key,
            mode: section.choice("mode", &MODES),
            ca: section.path("ca"),
            names: section.list("names", |item| item.scalar(names::of_certificate)),
            depth: section.number("depth", DEPTH),
            crl: section.list("crl", |item| item.file()),
            header: section.scalar("header", header),
        })
    }
}

/// A word, or where else the directory is. Over `http://` anybody on the way could have a certificate made for himself.
fn directory(text: &str) -> Result<String, String> {
    if let Some((_, url)) = DIRECTORIES.iter().find(|(word, _)| *word == text) {
        return Ok((*url).to_owned());
    }
    if let Some(url) =
        Some(text).filter(|text| text.starts_with("https://")).and_then(|text| upstreams::whole_url(text).ok())
    {
        return Ok(url);
    }
    let meant = nearest(text, DIRECTORIES.map(|(word, _)| word)).map(|word| format!("; did you mean {word}?"));
    Err(format!(
        "must be letsencrypt, letsencrypt-staging or https:// and the path of a directory, not {}{}",
        quoted(text),
        meant.unwrap_or_default()
    ))
}

/// An e-mail address as authorities take them, without `mailto:`.
fn contact(text: &str) -> Result<String, String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&byte);
    let person = |person: &str| !person.is_empty() && person.len() <= 64 && person.bytes().all(letter);
    let fits = |(name, domain): (&str, &str)| person(name) && domain.contains('.') && names::is_dns(domain);
    if text.len() <= LONGEST_CONTACT && text.rsplit_once('@').is_some_and(fits) {
        return Ok(text.to_owned());
    }
    let meant = text.strip_prefix("mailto:").map(|rest| format!("; did you mean {rest}?")).unwrap_or_default();
    Err(format!("must be an e-mail address such as ops@example.com, not {}{meant}", quoted(text)))
}

/// `HOST:PORT`, or `HOST` for the DNS's own port.
fn server(text: &str) -> Result<String, String> {
    let refused = || format!("must be HOST:PORT such as ns1.example.com:53, not {}", quoted(text));
    if scalar::is_host(text) {
        return Ok(format!("{text}:{DNS_PORT}"));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(refused)?;
    if scalar::is_host(host) { Ok(format!("{host}:{port}")) } else { Err(refused()) }
}

/// The name of a header that nobody else needs.
fn header(text: &str) -> Result<String, String> {
    let refused = |_| format!("must be the name of a header such as X-SSL-Client-S-DN, not {}", quoted(text));
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(refused)?;
    // Programs that know headers as `HTTP_X_Y` take several spellings for the same, and so do we when we take ours away.
    let plain = text.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    let plain = HeaderName::from_bytes(plain.as_bytes()).map_err(refused)?;
    if upstreams::is_ours_in_requests(&plain) || TAKEN.contains(&plain.as_str()) {
        return Err(format!("{name} says something else already; choose another, such as X-SSL-Client-S-DN"));
    }
    Ok(text.to_owned())
}
