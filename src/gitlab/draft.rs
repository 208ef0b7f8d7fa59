//! What does the configuration come to, however it was written before?
//!
//! Both kinds of files say the same few things in several places: where clients come to, where we listen, with which
//! certificate, who is believed. They are gathered here and written once, at the end.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::addresses;
use super::handover;
use super::ledger::{Fate, Ledger};
use super::page::{Node, Page};
use super::{Format, Imported, Mode, Site};
use crate::exchange::Origin;

/// Where the registry listens, unless it was told otherwise.
pub(super) const REGISTRY: &str = "127.0.0.1:5000";
/// Where we tell monitoring to look when the registry has our usual port for that.
const OTHER_MONITORING: &str = "127.0.0.1:5002";

/// The configuration as it comes together.
pub(super) struct Draft<'s> {
    pub(super) site: &'s Site<'s>,
    pub(super) page: Page,
    pub(super) ledger: Ledger,
    /// The origin that clients use.
    pub(super) external: Option<Origin>,
    /// GitLab's own.
    pub(super) gitlab: Option<Origin>,
    pub(super) listeners: Vec<Listening>,
    pub(super) proxy_protocol: bool,
    pub(super) trusted: Vec<String>,
    /// Certificate and key.
    pub(super) certificate: (Option<String>, Option<String>),
    /// Who may come in, where not everybody may.
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
    /// Whether GitLab's NGINX does not serve the registry, so that somebody else's place is taken.
    pub(super) elsewhere: bool,
    /// Whether the registry behind is asked over TLS.
    pub(super) tls_peers: bool,
    /// Why nothing is written.
    pub(super) hopeless: Option<String>,
}

/// One port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listening {
    /// `:5050`, `10.0.0.1:5050`, `unix:/path`.
    pub(super) address: String,
    pub(super) tls: bool,
    pub(super) redirect: bool,
    /// Whether a PROXY header begins every connection to this one; [`Draft::proxy_protocol`] is for all.
    pub(super) proxy_protocol: bool,
}

impl<'s> Draft<'s> {
    pub(super) fn new(site: &'s Site<'s>) -> Self {
        Self {
            site,
            page: Page::default(),
            ledger: Ledger::default(),
            external: None,
            gitlab: None,
            listeners: Vec::new(),
            proxy_protocol: false,
            trusted: Vec::new(),
            certificate: (None, None),
            allow: Vec::new(),
            deny: Vec::new(),
            elsewhere: false,
            tls_peers: false,
            hopeless: None,
        }
    }

    pub(super) fn is_front(&self) -> bool {
        self.site.mode == Mode::Front
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        (self.site.exists)(Path::new(path))
    }

    /// Adds what was said of trusted proxies, but for what is no network and what is everybody's.
    pub(super) fn trust(&mut self, words: &[String]) -> Fate {
        let (good, bad): (Vec<_>, Vec<_>) = words.iter().map(|word| network(word).ok_or(word)).partition(Result::is_ok);
        let (wide, good): (Vec<_>, Vec<_>) = good.into_iter().flatten().partition(|network| is_wide(network));
        self.trusted.extend(good);
        if !wide.is_empty() {
            return Fate::Yours(
                "one of them is so wide that clients could write their own address; write the proxies' networks to \
                 trusted_proxies"
                    .to_owned(),
            );
        }
        if bad.is_empty() {
            return Fate::Translated("trusted_proxies".to_owned());
        }
        Fate::Yours(
            "trusted_proxies takes networks and addresses; write those that are names or sockets yourself".to_owned(),
        )
    }

    /// A listener on each address; `*` and `[::]` are both families.
    pub(super) fn listen(&mut self, address: &str, port: u16, tls: bool, redirect: bool) {
        let address = address.trim();
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        let host = match (address, bare.parse::<IpAddr>()) {
            ("*" | "[::]" | "::" | "", _) => String::new(),
            ("localhost", _) => "127.0.0.1".to_owned(),
            (_, Ok(IpAddr::V6(address))) => format!("[{address}]"),
            (_, Ok(address)) => address.to_string(),
            (_, Err(_)) => {
                let note = "one of them is a name or a socket: write its listener yourself";
                self.ledger.add(0, "listeners", Fate::Yours(note.to_owned()));
                return;
            }
        };
        let listening = Listening { address: format!("{host}:{port}"), tls, redirect, proxy_protocol: false };
        if !self.listeners.iter().any(|other| other.address == listening.address) {
            self.listeners.push(listening);
        }
    }

    /// The registry that is there, as upstream.
    pub(super) fn peer(&mut self, peer: &str) {
        // What cannot be read is asked for at the end.
        if let Some((origin, "")) = url(peer) {
            self.page.push(&["upstreams", "gitlab", "peers"], origin.to_string());
        }
    }

    /// The internal port, where it is an address that can be listened on; else the usual one.
    pub(super) fn internal(&mut self, address: &str) {
        let bare = address.trim().trim_start_matches("http://").trim_end_matches('/');
        let good = bindable(bare);
        if !good {
            let note = format!("{REGISTRY}, since what is written is no address of this machine");
            self.ledger.add(0, "registry.http.addr", Fate::Yours(note));
        }
        self.page.put(&["registry", "http", "addr"], if good { bare } else { REGISTRY });
    }

    /// Writes what was gathered.
    pub(super) fn finish(mut self, format: Format) -> Imported {
        self.origin();
        addresses::fold(&mut self.listeners, &mut self.ledger);
        self.doors();
        addresses::separate(&mut self);
        if self.is_front() && self.page.get(&["upstreams", "gitlab", "peers"]).is_none() {
            self.peer(&format!("http://{REGISTRY}"));
            let note = format!("nothing says where the registry listens: {REGISTRY} is what is usual");
            self.ledger.add(0, "upstreams.gitlab.peers", Fate::Yours(note));
        }
        let file = Path::new(self.site.file).file_name().map_or(self.site.file.into(), |name| name.to_string_lossy());
        let mut remarks =
            vec![format!("Made by `pierhead import` from {file}. `pierhead check -c FILE` says what it comes to.")];
        let open: Vec<String> = self.ledger.open_ends().collect();
        if !open.is_empty() {
            remarks.push("TODO, left to you:".to_owned());
            remarks.extend(open.into_iter().map(|line| format!("  {line}")));
        }
        self.page.remarks = remarks;
        let mut report = self.ledger.print(self.site.file);
        report.push('\n');
        match &self.hopeless {
            Some(why) => report.push_str(&format!("Nothing is written: {why}\n")),
            None => report.push_str(&handover::commands(&self, format)),
        }
        let configuration = self.hopeless.is_none().then(|| self.page.print());
        Imported { configuration, report, ledger: self.ledger }
    }

    fn origin(&mut self) {
        if let Some(external) = &self.external {
            self.page.put(&["external_url"], external.to_string());
        } else {
            let note = "nothing that could be read says what clients call this registry: write external_url, listeners and \
                        tls.certificates";
            self.ledger.add(0, "external_url", Fate::Yours(note.to_owned()));
            self.listeners.clear();
        }
    }

    /// Listeners, certificates and who is believed.
    fn doors(&mut self) {
        let required = self.proxy_protocol && !self.trusted.is_empty();
        if self.proxy_protocol && !required {
            let note = "it is not on: nothing says whose PROXY header is to be believed; write the load balancer's network to \
                        trusted_proxies, and proxy_protocol: required to listeners";
            self.ledger.add(0, "listeners.proxy_protocol", Fate::Yours(note.to_owned()));
        }
        let lists = [("allow", self.allow.clone()), ("deny", self.deny.clone())];
        let nodes: Vec<Node> = self
            .listeners
            .iter()
            .map(|listening| {
                let mut node = vec![("address".to_owned(), Node::from(listening.address.as_str()))];
                match listening.redirect {
                    true => node.push(("redirect".to_owned(), "https".into())),
                    false => node.push(("tls".to_owned(), listening.tls.into())),
                }
                if required || (listening.proxy_protocol && !self.trusted.is_empty()) {
                    node.push(("proxy_protocol".to_owned(), "required".into()));
                }
                for (key, networks) in lists.iter().filter(|(_, networks)| !networks.is_empty() && !listening.redirect)
                {
                    let both = Node::map([("pull", networks.clone().into()), ("push", networks.clone().into())]);
                    node.push(((*key).to_owned(), both));
                }
                Node::Map(node)
            })
            .collect();
        if !nodes.is_empty() {
            self.page.put(&["listeners"], Node::List(nodes));
        }
        self.trusted.dedup();
        if !self.trusted.is_empty() {
            self.page.put(&["trusted_proxies"], self.trusted.clone());
        }
        // A certificate that nobody is shown is a mistake to `pierhead check`.
        let shown = self.listeners.iter().any(|listening| listening.tls) || self.listeners.is_empty();
        if let ((Some(certificate), Some(key)), true) = (&self.certificate, shown) {
            let pair = Node::map([("certificate", certificate.as_str().into()), ("key", key.as_str().into())]);
            self.page.put(&["tls", "certificates"], Node::List(vec![pair]));
        }
    }

    /// The registry has a debugging port: it must not be ours for monitoring.
    pub(super) fn avoid(&mut self, address: &str) {
        if address.ends_with(":5001") {
            self.page.put(&["metrics", "address"], OTHER_MONITORING);
        }
    }
}

/// A network, with the bits of the host taken away.
pub(super) fn network(text: &str) -> Option<String> {
    match text.parse::<IpNet>() {
        Ok(network) => Some(network.trunc().to_string()),
        Err(_) => text.parse::<IpAddr>().ok().map(|address| address.to_string()),
    }
}

/// Whether a network holds more than any private one: its addresses are anybody's.
pub(super) fn is_wide(network: &str) -> bool {
    match network.parse::<IpNet>() {
        Ok(IpNet::V4(network)) => network.prefix_len() < 8,
        Ok(IpNet::V6(network)) => network.prefix_len() < 7,
        Err(_) => false,
    }
}

/// Origin and path of a URL: `https://gitlab.example.com/gitlab` is the first with `/gitlab`.
pub(super) fn url(text: &str) -> Option<(Origin, &str)> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let secure = match scheme {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let origin = Origin::new(secure, authority).ok()?;
    is_host(origin.host()).then(|| (origin, path.trim_end_matches('/')))
}

/// A DNS name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn is_host(text: &str) -> bool {
    if text.starts_with('[') {
        return text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    }
    let letters = |label: &str| label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    let label = |label: &str| (1..=63).contains(&label.len()) && letters(label) && !label.starts_with('-');
    let number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && (!number || text.parse::<IpAddr>().is_ok())
}

/// `:5000`, `127.0.0.1:5000`, `[::1]:5000` or `localhost:5000`.
pub(super) fn bindable(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let host = matches!(host, "" | "localhost") || address.parse::<std::net::SocketAddr>().is_ok();
    host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A duration as Go writes it (`1h30m`), in whole seconds.
pub(super) fn go_seconds(text: &str) -> Option<u64> {
    let (mut rest, mut seconds) = (text, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[digits..digits + letters] {
            "ms" | "us" | "ns" => 0,
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return None,
        };
        seconds += u64::from(rest[..digits].parse::<u32>().ok()?) * unit;
        rest = &rest[digits + letters..];
    }
    (!text.is_empty()).then_some(seconds)
}

/// A word that goes into a token.
pub(super) fn is_word(text: &str) -> bool {
    text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

/// The origin of a name and, if it is written, its port.
pub(super) fn https(host: &str, port: Option<&str>) -> Option<Origin> {
    let authority = match port {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    Origin::new(true, &authority).ok().filter(|origin| is_host(origin.host()))
}

/// An address as clients on this machine reach it: `:5000` and `0.0.0.0:5000` are `127.0.0.1:5000`.
pub(super) fn reachable(address: &str) -> String {
    let bare = address.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
    match bare.rsplit_once(':') {
        Some(("" | "0.0.0.0" | "[::]" | "*", port)) => format!("127.0.0.1:{port}"),
        _ => bare.to_owned(),
    }
}
