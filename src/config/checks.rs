//! Does what was written fit together, and does it fit this machine?
//!
//! Every check relies only on values that are good: one mistake is reported once. The file system is only read.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::unistd::User;

use super::machine::Machine;
use super::meant::{EXTERNAL_PORT, INTERNAL, MONITORING, REDIRECT_PORT, default_external_url};
use super::problem::{Place, Problem};
use super::reader::Setting;
use super::written::{Doorway, Internal, Listener, Monitoring, Token, Written};
use super::{tls, upstreams};
use crate::exchange::Origin;
use crate::front::{Address, ProxyProtocol};
use crate::telemetry::Destination;

/// `sockaddr_un` has room for this many bytes and a zero.
const LONGEST_SOCKET: usize = 107;

/// Compares one key with another, and with the machine.
pub(super) fn check(written: &Written, machine: &Machine, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    let mut checks = Checks { machine, problems, warnings };
    checks.origins(written);
    checks.listeners(written);
    checks.trusted_proxies(written);
    checks.monitoring(written);
    checks.token(&written.token);
    checks.folder("state", &written.state);
    tls::checks::check(&mut checks, written);
    checks.registry(written);
    upstreams::checks::check(&mut checks, written);
    checks.log("log.access", &written.log.access);
    checks.log("log.audit", &written.log.audit);
    checks.traces(&written.log.traces_endpoint);
    checks.user(&written.user);
}

/// What concerns the registry alone.
pub(super) fn check_registry(written: &Written, machine: &Machine, problems: &mut Vec<Problem>) {
    Checks { machine, problems, warnings: &mut Vec::new() }.registry(written);
}

/// A port that is taken: by which key, and where that was written, if it was.
type Bound<'w> = (String, SocketAddr, Option<&'w Place>);

pub(super) struct Checks<'a> {
    pub(super) machine: &'a Machine,
    problems: &'a mut Vec<Problem>,
    warnings: &'a mut Vec<Problem>,
}

impl Checks<'_> {
    pub(super) fn report(&mut self, place: &Place, key: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(place, key, message));
    }

    /// What is no reason not to start.
    pub(super) fn warn(&mut self, place: &Place, key: impl Into<String>, message: impl Into<String>) {
        self.warnings.push(Problem::new(place, key, message));
    }

    /// Its root is a folder, and the files that it names are there.
    fn registry(&mut self, written: &Written) {
        self.folder("registry.storage.filesystem.rootdirectory", &written.registry.root);
        for (key, path, place) in &written.registry.files {
            if let Err(message) = self.readable(path) {
                self.report(place, key, message);
            }
        }
    }

    /// Every origin is written once.
    fn origins(&mut self, written: &Written) {
        let default = default_external_url();
        let external = match &written.external_url {
            Setting::Is(origin, _) => Some(origin),
            Setting::Unset => Some(&default),
            Setting::Wrong => None,
        };
        let mut seen: Vec<(String, &Origin)> =
            external.map(|origin| ("external_url".to_owned(), origin)).into_iter().collect();
        for (number, alias) in written.aliases.items().iter().enumerate() {
            let Some((origin, place)) = alias.written() else { continue };
            let key = format!("aliases[{number}]");
            match seen.iter().find(|(_, other)| *other == origin) {
                Some((other, _)) => {
                    let message = format!("{origin} is {other} already; remove it");
                    self.report(place, &key, message);
                }
                None => seen.push((key, origin)),
            }
        }
    }

    /// Every address is bound once, and whoever connects there can be answered.
    fn listeners(&mut self, written: &Written) {
        self.internal_doorway(written);
        let Some((listeners, place)) = written.listeners.written() else {
            return self.internal_port(written, &[]);
        };
        if listeners.is_empty() {
            let message = "must hold at least one listener, such as [{address: \":5050\"}]; remove the key to listen on the port of external_url";
            self.report(place, "listeners", message);
        }
        let mut bound: Vec<(String, SocketAddr, &Place)> = Vec::new();
        let mut paths: Vec<(String, &Path)> = Vec::new();
        for (number, listener) in listeners.iter().enumerate() {
            let key = format!("listeners[{number}].address");
            match &listener.address {
                Setting::Unset => {
                    self.report(&listener.place, key, "missing; write where to listen, such as \":5050\"")
                }
                Setting::Wrong | Setting::Is(Address::Systemd(_), _) => {}
                Setting::Is(Address::Unix(path), place) => {
                    if path.as_os_str().len() > LONGEST_SOCKET {
                        let message =
                            format!("the path is longer than {LONGEST_SOCKET} bytes, which no socket's may be");
                        self.report(place, &key, message);
                    }
                    if let Some((other, _)) = paths.iter().find(|(_, taken)| *taken == path) {
                        self.report(place, &key, format!("is the path of {other} already; remove one"));
                    }
                    paths.push((key, path));
                }
                Setting::Is(Address::Tcp(address), place) => {
                    if let Some((other, taken, _)) = bound.iter().find(|(_, taken, _)| overlap(*taken, *address)) {
                        let message =
                            format!("{address} is taken by {other} ({taken}); keep one or choose another port");
                        self.report(place, &key, message);
                    }
                    bound.push((key, *address, place));
                }
            }
        }
        for (number, listener) in listeners.iter().enumerate() {
            let key = format!("listeners[{number}]");
            self.doorway(&key, &listener.doorway, written);
            self.redirect(&key, listener, written);
        }
        if !listeners.is_empty() && listeners.iter().all(|listener| listener.redirect.written().is_some()) {
            self.report(place, "listeners", "all of them redirect, and nobody serves; add one without redirect");
        }
        self.tls_without_https(written);
        self.port_of_external_url(written, &bound);
        self.internal_port(written, &bound);
    }

    /// A header of the PROXY protocol comes from somebody who is believed.
    fn doorway(&mut self, key: &str, doorway: &Doorway, written: &Written) {
        let nobody = match &written.trusted_proxies {
            Setting::Unset => true,
            Setting::Wrong => false,
            Setting::Is(networks, _) => networks.is_empty(),
        };
        if let Some((ProxyProtocol::Optional | ProxyProtocol::Required, place)) = doorway.proxy_protocol.written()
            && nobody
        {
            let message = "trusted_proxies is empty, so nobody's header would be believed and nobody served; name the load \
                           balancer's network there";
            self.report(place, format!("{key}.proxy_protocol"), message);
        }
    }

    /// Whoever trusts everybody asks each client who it is, and believes the answer.
    fn trusted_proxies(&mut self, written: &Written) {
        for (number, network) in written.trusted_proxies.items().iter().enumerate() {
            let Some((network, place)) = network.written() else { continue };
            if network.to_string().ends_with("/0") {
                let message = format!(
                    "{network} is everybody: any client may then write who it is and by which of our names it came \
                     (X-Forwarded-For, -Host, -Proto, PROXY headers), so it passes allow, deny and limits, and logs name \
                     whom it likes; name the networks of your proxies alone"
                );
                self.warn(place, format!("trusted_proxies[{number}]"), message);
            }
        }
    }

    /// What holds for the internal port means nothing without one.
    fn internal_doorway(&mut self, written: &Written) {
        let doorway = &written.internal;
        if !upstreams::meant::services(written).registry {
            return; // said once for all of them
        }
        if !matches!(written.registry.internal, Setting::Is(Internal::Off, _)) {
            return self.doorway("internal", doorway, written);
        }
        let protocol = doorway.proxy_protocol.written();
        let protocol = protocol.filter(|(protocol, _)| **protocol != ProxyProtocol::Off).map(|(_, place)| place);
        let (allow, deny) = (&doorway.allow, &doorway.deny);
        let lists = [
            ("allow.pull", &allow.pull),
            ("allow.push", &allow.push),
            ("deny.pull", &deny.pull),
            ("deny.push", &deny.push),
        ];
        let lists = lists
            .map(|(key, list)| (key, list.written().filter(|(items, _)| !items.is_empty()).map(|(_, place)| place)));
        for (key, place) in std::iter::once(("proxy_protocol", protocol)).chain(lists) {
            if let Some(place) = place {
                self.report(
                    place,
                    format!("internal.{key}"),
                    "there is no internal port: registry.http.addr is off; remove it",
                );
            }
        }
    }

    /// Where everything is redirected nothing else is of use.
    fn redirect(&mut self, key: &str, listener: &Listener, written: &Written) {
        let Some((_, place)) = listener.redirect.written() else { return };
        let key = format!("{key}.redirect");
        if let Some((true, _)) = listener.tls.written() {
            self.report(place, &key, "cannot be together with tls: true: who is there has come by https already");
        }
        let Doorway { allow, deny, .. } = &listener.doorway;
        if !allow.is_unset() || !deny.is_unset() {
            self.report(place, &key, "cannot be together with allow or deny: nobody pulls or pushes there");
        }
        if !may_be_secure(written) {
            let message =
                "neither external_url nor an alias is https://, so there is nothing to send clients to; remove it";
            self.report(place, &key, message);
        }
    }

    /// A TLS listener needs an origin that clients can name there.
    fn tls_without_https(&mut self, written: &Written) {
        let Some((external, _)) = written.external_url.written() else { return };
        if may_be_secure(written) {
            return;
        }
        for (number, listener) in written.listeners.items().iter().enumerate() {
            if let Some((true, place)) = listener.tls.written() {
                let message = format!(
                    "true, but external_url ({external}) and aliases have no https:// origin, so nobody could be answered \
                     there; write external_url with https:// or set tls: false"
                );
                self.report(place, format!("listeners[{number}].tls"), message);
            }
        }
    }

    /// Without `external_url` clients are told port 5050; then somebody must listen there.
    fn port_of_external_url(&mut self, written: &Written, bound: &[(String, SocketAddr, &Place)]) {
        let all_known = written.listeners.written().is_some_and(|(listeners, _)| listeners.len() == bound.len());
        let reached = bound.iter().any(|(_, address, _)| address.port() == EXTERNAL_PORT);
        let Some((key, address, place)) = bound.first() else { return };
        if written.external_url.is_unset() && all_known && !reached {
            let message = format!(
                "{address}, but external_url is not set and by default {}, where nobody listens; set external_url to what \
                 clients use, such as https://registry.example.com:{}",
                default_external_url(),
                address.port()
            );
            self.report(place, key, message);
        }
    }

    /// The internal port is another than the public ones.
    fn internal_port(&mut self, written: &Written, bound: &[(String, SocketAddr, &Place)]) {
        let key = "registry.http.addr";
        let Some((address, place)) = internal_address(written) else { return };
        let bound = bound.iter().map(|(key, address, place)| (key.clone(), *address, Some(*place)));
        self.own_port((key, address, place), bound.chain(self.default_ports(written)));
    }

    /// The ports of the listeners that nobody wrote.
    fn default_ports<'w>(&self, written: &'w Written) -> Vec<Bound<'w>> {
        let any = |port| SocketAddr::new(self.machine.any(), port);
        match (&written.listeners, &written.external_url) {
            (Setting::Unset, Setting::Is(origin, place)) => {
                let redirect = (origin.is_secure() && origin.port() == 443).then_some(REDIRECT_PORT);
                let ports = std::iter::once(origin.port()).chain(redirect);
                ports.map(|port| ("external_url".to_owned(), any(port), Some(place))).collect()
            }
            (Setting::Unset, Setting::Unset) => vec![("external_url".to_owned(), any(EXTERNAL_PORT), None)],
            _ => Vec::new(),
        }
    }

    /// A port is none of the others. Without a place it is the default.
    fn own_port<'w>(
        &mut self,
        (key, address, place): (&str, SocketAddr, Option<&Place>),
        others: impl Iterator<Item = Bound<'w>>,
    ) {
        for (other, taken, other_place) in others {
            match (overlap(taken, address), place, other_place) {
                (false, ..) | (true, None, None) => {}
                (true, Some(place), _) => {
                    let message = format!("{address} is taken by {other} ({taken}); choose another port, or off");
                    self.report(place, key, message);
                }
                (true, None, Some(place)) => {
                    let message = format!(
                        "{taken} is taken by {key} ({address}, its default); choose another port, or set {key} to off"
                    );
                    self.report(place, other, message);
                }
            }
        }
    }

    /// Monitoring has a port of its own.
    fn monitoring(&mut self, written: &Written) {
        let Some(port) = Self::monitoring_port(written) else { return };
        self.own_port(port, self.open_ports(written).into_iter());
    }

    /// The ports of all listeners, the internal one's too.
    fn open_ports<'w>(&self, written: &'w Written) -> Vec<Bound<'w>> {
        let internal =
            internal_address(written).map(|(address, place)| ("registry.http.addr".to_owned(), address, place));
        let public = written.listeners.items().iter().enumerate().filter_map(|(number, listener)| {
            let (Address::Tcp(address), place) = listener.address.written()? else { return None };
            Some((format!("listeners[{number}].address"), *address, Some(place)))
        });
        public.chain(internal).chain(self.default_ports(written)).collect()
    }

    /// Where monitoring looks, and which key says so.
    fn monitoring_port(written: &Written) -> Option<(&'static str, SocketAddr, Option<&Place>)> {
        match (&written.metrics, &written.registry.door.debug.address) {
            (Setting::Is(Monitoring::At(address), place), _) => Some(("metrics.address", *address, Some(place))),
            (Setting::Is(Monitoring::Off, _) | Setting::Wrong, _) | (_, Setting::Wrong) => None,
            (Setting::Unset, Setting::Is(address, place)) => Some(("registry.http.debug.addr", *address, Some(place))),
            (Setting::Unset, Setting::Unset) => Some(("metrics.address", MONITORING, None)),
        }
    }

    /// Every port that is ours, with the key that says so.
    pub(super) fn ports(&self, written: &Written) -> Vec<(String, SocketAddr)> {
        let monitoring = Self::monitoring_port(written).map(|(key, address, _)| (key.to_owned(), address));
        let open = self.open_ports(written).into_iter().map(|(key, address, _)| (key, address));
        open.chain(monitoring).collect()
    }

    /// The key of tokens and its certificate are named together, and made together when they are missing.
    fn token(&mut self, token: &Token) {
        match (&token.key, &token.certificate) {
            (Setting::Is(_, place), Setting::Unset) => {
                self.report(
                    place,
                    "token.key",
                    "needs token.certificate, the certificate of this key; write both or none",
                );
            }
            (Setting::Unset, Setting::Is(_, place)) => {
                self.report(
                    place,
                    "token.certificate",
                    "needs token.key, the key of this certificate; write both or none",
                );
            }
            (Setting::Is(key, _), Setting::Is(certificate, place)) if key == certificate => {
                self.report(place, "token.certificate", "is the file of token.key; each needs a file of its own");
            }
            _ => {}
        }
        for (key, file) in [("token.key", &token.key), ("token.certificate", &token.certificate)] {
            // What is not there is made on first start.
            if let Some((path, place)) = file.written()
                && path.symlink_metadata().is_ok()
                && let Err(message) = self.readable(path)
            {
                self.report(place, key, message);
            }
        }
    }

    /// The path is a folder, or can become one.
    pub(super) fn folder(&mut self, key: &str, folder: &Setting<PathBuf>) {
        let Some((path, place)) = folder.written() else { return };
        let shown = path.display();
        let message = match fs::metadata(path) {
            Ok(found) if found.is_dir() => return,
            Ok(_) => format!("{shown} is a file; name a folder"),
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                format!("{shown} cannot be made: a part of the path is a file; name a folder")
            }
            Err(error) => format!("{shown} cannot be reached by {}: {error}", self.machine.user),
        };
        self.report(place, key, message);
    }

    /// A log is a file, or can become one.
    fn log(&mut self, key: &str, destination: &Setting<Destination>) {
        let Some((Destination::File(path), place)) = destination.written() else { return };
        let (shown, folder) = (path.display(), path.parent().unwrap_or(Path::new("/")));
        if path.is_dir() {
            self.report(place, key, format!("{shown} is a folder; name a file"));
        } else if self.machine.serves && !folder.is_dir() {
            let message = format!(
                "the folder {} does not exist; make it, writable for the user that we become",
                folder.display()
            );
            self.report(place, key, message);
        }
    }

    /// Spans are sent by those programs alone that were built for it.
    fn traces(&mut self, endpoint: &Setting<Option<String>>) {
        if cfg!(not(feature = "opentelemetry"))
            && let Some((Some(_), place)) = endpoint.written()
        {
            let message = "this program was built without traces; build it with `cargo build --release --features \
                           opentelemetry`, or take the key away";
            self.report(place, "log.traces.endpoint", message);
        }
    }

    fn user(&mut self, user: &Setting<String>) {
        if let Some((name, place)) = user.written()
            && let Ok(None) = User::from_name(name)
        {
            let message =
                format!("there is no user {name} on this machine; make it (useradd --system {name}) or remove the key");
            self.report(place, "user", message);
        }
    }

    pub(super) fn readable(&self, path: &Path) -> Result<(), String> {
        if !self.machine.serves {
            return Ok(());
        }
        let shown = path.display();
        let file = File::open(path).and_then(|file| file.metadata());
        match file {
            Ok(file) if file.is_file() => Ok(()),
            Ok(_) => Err(format!("{shown} is not a file")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(format!("{shown} does not exist; put the file there or correct the path"))
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                Err(format!("{shown} cannot be read by {}; give this user the right to", self.machine.user))
            }
            Err(error) => Err(format!("{shown} cannot be read: {error}")),
        }
    }
}

/// The internal port, if there is one, and where it was written.
fn internal_address(written: &Written) -> Option<(SocketAddr, Option<&Place>)> {
    if !upstreams::meant::services(written).registry {
        return None;
    }
    match &written.registry.internal {
        Setting::Is(Internal::At(address), place) => Some((*address, Some(place))),
        Setting::Unset => Some((INTERNAL, None)),
        Setting::Is(Internal::Off | Internal::Unix(_), _) | Setting::Wrong => None,
    }
}

/// Whether one of our names is `https`, or may be once a wrong value is mended.
fn may_be_secure(written: &Written) -> bool {
    let secure =
        |origin: &Setting<Origin>| origin.is_wrong() || origin.written().is_some_and(|(origin, _)| origin.is_secure());
    let external = written.external_url.is_unset() || secure(&written.external_url);
    external || written.aliases.is_wrong() || written.aliases.items().iter().any(secure)
}

/// Whether a listener has TLS, or may have once a wrong value is mended.
pub(super) fn speaks_tls(written: &Written) -> bool {
    let by_default = written.external_url.written().is_none_or(|(origin, _)| origin.is_secure());
    match &written.listeners {
        Setting::Unset => by_default,
        Setting::Wrong => true,
        Setting::Is(listeners, _) => listeners.iter().any(|listener| match listener.tls {
            Setting::Unset => by_default && listener.redirect.is_unset(),
            Setting::Wrong => true,
            Setting::Is(tls, _) => tls,
        }),
    }
}

/// Whether two sockets cannot both listen: the same port on the same address, or on every address. `[::]` takes IPv4 too.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let takes = |a: SocketAddr, b: SocketAddr| a.ip().is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.port() == b.port() && (a.ip() == b.ip() || takes(a, b) || takes(b, a))
}

#[cfg(test)]
mod tests {
    #[test]
    fn sockets_overlap_when_the_second_bind_would_fail() {
        let overlap = |a: &str, b: &str| {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(super::overlap(a, b), super::overlap(b, a));
            super::overlap(a, b)
        };
        assert!(overlap("[::]:5050", "127.0.0.1:5050"));
        assert!(overlap("[::]:5050", "[::1]:5050"));
        assert!(overlap("[::]:5050", "0.0.0.0:5050"));
        assert!(overlap("0.0.0.0:5050", "10.0.0.1:5050"));
        assert!(!overlap("0.0.0.0:5050", "[::1]:5050"));
        assert!(!overlap("127.0.0.1:5050", "[::1]:5050"));
        assert!(!overlap("127.0.0.1:5050", "127.0.0.2:5050"));
        assert!(!overlap("[::]:5050", "[::]:5051"));
    }
}
