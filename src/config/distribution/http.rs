//! What did the operator write about the port, and about health?

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode};

use super::{Dialect, HOME, Setting, values};
use crate::config::problem::{Place, quoted};
use crate::config::scalar;
use crate::config::yaml::{Node, Value, join};
use crate::exchange::Origin;
use crate::front::{self, Internal, Prefix};
use crate::registry::health::{self, File, Http, INTERVAL, Pace, TIMEOUT, Tcp};
use crate::tls::{Clients, Files, Port, Version};

/// The port and what is beside it, as written.
#[derive(Debug)]
pub(in crate::config) struct Door {
    pub(in crate::config) headers: Vec<(HeaderName, HeaderValue)>,
    pub(in crate::config) internal: Internal,
    pub(in crate::config) debug: DebugAddress,
    pub(in crate::config) health: health::Config,
}

/// The debug address, as written.
#[derive(Debug)]
pub(in crate::config) struct DebugAddress {
    pub(in crate::config) address: Setting<SocketAddr>,
    pub(in crate::config) metrics: Setting<bool>,
    pub(in crate::config) path: Setting<String>,
}

/// Files that must be readable: key, path, place.
pub(super) type NamedFiles = Vec<(String, PathBuf, Place)>;

impl Dialect<'_> {
    pub(super) fn door(&mut self, any: std::net::IpAddr, files: &mut NamedFiles) -> Door {
        let prefix = self.scalar("http.prefix", |text| Prefix::new(text).map_err(|error| error.to_string()));
        Door {
            headers: self.headers("http.headers"),
            internal: Internal {
                any_host: false,
                tls: self.tls(files),
                host: self.scalar("http.host", scalar::origin).into_value(),
                prefix: prefix.into_value().flatten(),
            },
            debug: DebugAddress {
                address: self.scalar("http.debug.addr", |text| scalar::address(text, any)),
                metrics: self.flag("http.debug.prometheus.enabled"),
                path: self.scalar("http.debug.prometheus.path", metrics_path),
            },
            health: self.health(),
        }
    }

    /// Names, each with a list of values.
    fn headers(&mut self, path: &str) -> Vec<(HeaderName, HeaderValue)> {
        let Some(node) = self.node(path) else { return Vec::new() };
        self.reader.written.insert(join(HOME, path), node.place.clone());
        if let Value::Mapping(entries) = &node.value {
            for (name, node) in entries {
                if HeaderName::try_from(name.as_str()).is_ok_and(|name| front::is_our_own(&name)) {
                    self.report(&node.place, &join(path, name), "cannot be set: every answer has its own; remove it");
                }
            }
        }
        self.header_values(&node, path)
    }

    fn header_values(&mut self, node: &Node, path: &str) -> Vec<(HeaderName, HeaderValue)> {
        let Value::Mapping(entries) = &node.value else {
            self.report(&node.place, path, "must be names of headers, each with a list of values");
            return Vec::new();
        };
        let mut headers = Vec::new();
        for (name, node) in entries {
            let path = join(path, name);
            let values = match &node.value {
                Value::List(items) => items.as_slice(),
                Value::Nothing => &[],
                Value::Text(_) | Value::Mapping(_) | Value::Refused => {
                    self.report(&node.place, &path, "must be a list of values: [...]");
                    continue;
                }
            };
            for item in values {
                let value = match &item.value {
                    Value::Text(text) => HeaderValue::from_str(text).ok(),
                    _ => None,
                };
                match HeaderName::try_from(name.as_str()).ok().zip(value) {
                    Some(header) => headers.push(header),
                    None => self.report(&item.place, &path, "must be a header with values of printable characters"),
                }
            }
        }
        headers
    }

    fn tls(&mut self, files: &mut NamedFiles) -> Option<Port> {
        let certificate = self.file("http.tls.certificate", files);
        let key = self.file("http.tls.key", files);
        let authorities = self.authorities(files);
        let clients = self.scalar("http.tls.clientauth", client_auth);
        let minimum = self.scalar("http.tls.minimumtls", minimum);
        let http2 = !self.flag("http.http2.disabled").or(false);
        if let Some((_, place)) = clients.written()
            && authorities.is_unset()
        {
            let message = "needs clientcas: without authorities nobody is asked for a certificate";
            self.report(place, "http.tls.clientauth", message);
        }
        if certificate.is_unset() && key.is_unset() {
            let written = [
                ("clientcas", authorities.written().map(|(_, place)| place)),
                ("clientauth", clients.written().map(|(_, place)| place)),
                ("minimumtls", minimum.written().map(|(_, place)| place)),
            ];
            for (name, place) in written {
                if let Some(place) = place {
                    self.report(place, &join("http.tls", name), "needs certificate and key: no TLS is spoken without");
                }
            }
            return None;
        }
        if let (Setting::Is(_, place), Setting::Unset) | (Setting::Unset, Setting::Is(_, place)) = (&certificate, &key)
        {
            self.report(place, "http.tls", "needs certificate and key");
        }
        let clients = match (authorities, clients.or(true)) {
            (Setting::Is(authorities, _), true) => Clients::MustProve(authorities),
            (Setting::Is(authorities, _), false) => Clients::MayProve(authorities),
            (Setting::Unset | Setting::Wrong, _) => Clients::Anyone,
        };
        let pair = Files::new(certificate.into_value()?, key.into_value()?);
        Some(Port { clients, minimum: minimum.or(Version::Tls12), http2, ..Port::new(pair) })
    }

    /// Who signs the certificates of clients. Whoever writes the key wants clients to be asked: none is a mistake.
    fn authorities(&mut self, files: &mut NamedFiles) -> Setting<Vec<PathBuf>> {
        const KEY: &str = "http.tls.clientcas";
        let Some(place) = self.place(KEY) else { return Setting::Unset };
        let found = self.list(KEY, scalar::file_path);
        if found.is_wrong() {
            return Setting::Wrong;
        }
        let paths: Vec<PathBuf> =
            found.or(Vec::new()).into_iter().map(|file| self.folder.join(file).components().collect()).collect();
        if paths.is_empty() {
            self.report(&place, KEY, "names no file: nobody would be asked for a certificate; name one, or remove it");
            return Setting::Wrong;
        }
        files.extend(paths.iter().map(|file| (self.shown(KEY), file.clone(), place.clone())));
        Setting::Is(paths, place)
    }

    fn health(&mut self) -> health::Config {
        let storage = self.flag("health.storagedriver.enabled").or(false);
        let interval = self.scalar("health.storagedriver.interval", positive).or(INTERVAL);
        let threshold = self.scalar("health.storagedriver.threshold", threshold).or(1);
        health::Config {
            storage: storage.then_some(Pace { interval, threshold }),
            files: self.checks("health.file", &["file"], |dialect, item, path, pace| {
                let file = dialect.field(item, path, "file", scalar::file_path)?;
                Some(File { path: dialect.folder.join(file).components().collect(), pace })
            }),
            http: self.checks(
                "health.http",
                &["uri", "headers", "statuscode", "timeout"],
                |dialect, item, path, pace| {
                    let (origin, target) = dialect.field(item, path, "uri", target)?;
                    let headers =
                        child(item, "headers").map(|node| dialect.header_values(node, &join(path, "headers")));
                    let status = dialect.optional(item, path, "statuscode", status).or(StatusCode::OK);
                    let timeout = dialect.optional(item, path, "timeout", positive).or(TIMEOUT);
                    Some(Http { origin, path: target, headers: headers.unwrap_or_default(), status, timeout, pace })
                },
            ),
            tcp: self.checks("health.tcp", &["addr", "timeout"], |dialect, item, path, pace| {
                let address = dialect.field(item, path, "addr", host_and_port)?;
                let timeout = dialect.optional(item, path, "timeout", positive).or(TIMEOUT);
                Some(Tcp { address, timeout, pace })
            }),
        }
    }

    /// The checks of a list. `keys` are those that an item takes besides its pace.
    fn checks<T>(
        &mut self,
        path: &str,
        keys: &[&str],
        read: impl Fn(&mut Self, &Node, &str, Pace) -> Option<T>,
    ) -> Vec<T> {
        let items = self.items(path).or(Vec::new());
        let mut checks = Vec::new();
        for (number, item) in items.iter().enumerate() {
            let path = format!("{path}[{number}]");
            let Value::Mapping(entries) = &item.value else {
                self.report(&item.place, &path, "must be keys with values");
                continue;
            };
            for (name, node) in entries {
                if !keys.contains(&name.as_str()) && name != "interval" && name != "threshold" {
                    self.report(&node.place, &join(&path, name), "unknown key");
                }
            }
            let interval = self.optional(item, &path, "interval", positive).or(INTERVAL);
            let threshold = self.optional(item, &path, "threshold", threshold).or(1);
            checks.extend(read(self, item, &path, Pace { interval, threshold }));
        }
        checks
    }

    fn optional<T>(
        &mut self,
        item: &Node,
        path: &str,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Setting<T> {
        match child(item, key) {
            Some(Node { value: Value::Nothing, .. }) | None => Setting::Unset,
            Some(node) => self.text(node, &join(path, key), parse),
        }
    }

    fn field<T>(
        &mut self,
        item: &Node,
        path: &str,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.optional(item, path, key, parse);
        self.required(&join(path, key), value, &item.place)
    }
}

fn child<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Mapping(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, node)| node),
        _ => None,
    }
}

/// Whether clients must show a certificate.
fn client_auth(text: &str) -> Result<bool, String> {
    match text {
        "require-and-verify-client-cert" => Ok(true),
        "verify-client-cert-if-given" => Ok(false),
        "request-client-cert" | "require-any-client-cert" => {
            Err("proves nothing: a certificate that nobody verifies; write require-and-verify-client-cert".to_owned())
        }
        _ => {
            Err(format!("must be require-and-verify-client-cert or verify-client-cert-if-given, not {}", quoted(text)))
        }
    }
}

/// Older versions are not spoken, whoever asks for them.
fn minimum(text: &str) -> Result<Version, String> {
    match text {
        "tls1.0" | "tls1.1" | "tls1.2" => Ok(Version::Tls12),
        "tls1.3" => Ok(Version::Tls13),
        _ => Err(format!("must be tls1.2 or tls1.3, not {}", quoted(text))),
    }
}

/// A time that is not nothing.
fn positive(text: &str) -> Result<Duration, String> {
    values::duration(text)
        .and_then(|value| if value.is_zero() { Err("must be longer than 0".to_owned()) } else { Ok(value) })
}

fn threshold(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("must be a whole number, not {}", quoted(text)))
}

fn status(text: &str) -> Result<StatusCode, String> {
    StatusCode::from_bytes(text.as_bytes()).map_err(|_| format!("must be a status such as 200, not {}", quoted(text)))
}

/// `http://HOST:PORT/PATH`.
fn target(text: &str) -> Result<(Origin, PathAndQuery), String> {
    let after = text.find("://").map_or(0, |at| at + 3);
    let at = text[after..].find(['/', '?']).map_or(text.len(), |at| after + at);
    let (origin, path) = text.split_at(at);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    match scalar::origin(origin).ok().zip(PathAndQuery::try_from(path).ok()) {
        Some(found) => Ok(found),
        None => Err("must be a URL such as http://db.example.com:8080/health".to_owned()),
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    let good = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| scalar::is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0));
    if good { Ok(text.to_owned()) } else { Err("must be HOST:PORT, such as db.example.com:5432".to_owned()) }
}

/// Where the page of what is counted is.
fn metrics_path(text: &str) -> Result<String, String> {
    let plain = text.starts_with('/') && PathAndQuery::try_from(text).is_ok_and(|path| path.query().is_none());
    if !plain || text.starts_with("/debug/") || text.starts_with("/-/") {
        return Err(format!("must be a path such as /metrics, not below /debug/ or /-/, not {}", quoted(text)));
    }
    Ok(text.to_owned())
}
