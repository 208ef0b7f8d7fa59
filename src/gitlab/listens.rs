//! What does a server of NGINX listen on?
//!
//! Several `listen` of one port become what can be listened on together: NGINX takes a name's most exact address, while
//! here an address that stands for all leaves nothing to others on its port.

use super::directives::has;
use super::nginx::Directive;

/// One `listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listen {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    pub(super) proxy_protocol: bool,
}

/// What a `listen` comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    Tcp(Listen),
    /// HTTP/3.
    Quic,
    /// A socket, or what cannot be read.
    Unknown,
}

impl Listen {
    /// What a server listens on that does not say so.
    pub(super) fn usual(tls: bool) -> Self {
        Self { host: "*".to_owned(), port: 80, tls, proxy_protocol: false }
    }

    /// Whether it is for every address of its family.
    fn is_for_all(&self) -> bool {
        matches!(self.host.as_str(), "*" | "" | "0.0.0.0" | "[::]" | "::")
    }

    fn covers(&self, other: &Self) -> bool {
        self.port == other.port && self.is_for_all() && !other.is_for_all()
    }
}

/// Reads a `listen`; `tls` says whether the server speaks TLS on all its ports.
pub(super) fn read(directive: &Directive, tls: bool) -> Heard {
    if has(directive, "quic") {
        return Heard::Quic;
    }
    let address = directive.first();
    let read = match address.rsplit_once(':') {
        _ if address.starts_with("unix:") => None,
        Some((host, port)) if !port.ends_with(']') => port.parse().ok().map(|port| (host, port)),
        _ => Some(address.parse().map_or((address, 80), |port| ("*", port))),
    };
    match read.filter(|(_, port)| *port > 0) {
        Some((host, port)) => Heard::Tcp(Listen {
            host: host.to_owned(),
            port,
            tls: tls || has(directive, "ssl"),
            proxy_protocol: has(directive, "proxy_protocol"),
        }),
        None => Heard::Unknown,
    }
}

/// The addresses that can be listened on together. Where two are one, TLS and the PROXY header win: what was secured by
/// either stays so.
pub(super) fn together(listens: &[Listen]) -> Vec<Listen> {
    let mut kept: Vec<Listen> = Vec::new();
    for listen in listens.iter().filter(|listen| !listens.iter().any(|other| other.covers(listen))) {
        let same = |other: &&mut Listen| {
            let one = other.host == listen.host || (other.is_for_all() && listen.is_for_all());
            one && other.port == listen.port
        };
        match kept.iter_mut().find(same) {
            Some(other) => {
                if other.host != listen.host {
                    "*".clone_into(&mut other.host);
                }
                other.tls |= listen.tls;
                other.proxy_protocol |= listen.proxy_protocol;
            }
            None => kept.push(listen.clone()),
        }
    }
    kept
}

/// Whether a listener that remains does for this one exactly what it did.
pub(super) fn is_kept(listen: &Listen, kept: &[Listen]) -> bool {
    kept.iter()
        .filter(|other| {
            *other == listen
                || other.covers(listen)
                || (other.port == listen.port && other.is_for_all() && listen.is_for_all())
        })
        .any(|other| other.tls == listen.tls && other.proxy_protocol == listen.proxy_protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listens(words: &[&str]) -> Vec<String> {
        let text: String = words.iter().map(|words| format!("listen {words};")).collect();
        let directives = super::super::nginx::read(&text, 1);
        let listens: Vec<Listen> = directives
            .iter()
            .filter_map(|directive| match read(directive, false) {
                Heard::Tcp(listen) => Some(listen),
                Heard::Quic | Heard::Unknown => None,
            })
            .collect();
        let show = |listen: &Listen| {
            let flags = [(listen.tls, " tls"), (listen.proxy_protocol, " proxy")];
            let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
            format!("{}:{}{flags}", listen.host, listen.port)
        };
        together(&listens).iter().map(show).collect()
    }

    #[test]
    fn addresses_that_overlap_are_listened_on_once() {
        let cases: [(&[&str], &[&str]); 9] = [
            (&["443 quic reuseport", "443 ssl"], &["*:443 tls"]),
            (&["443", "443 ssl"], &["*:443 tls"]),
            (&["127.0.0.1:443 ssl", "443 ssl"], &["*:443 tls"]),
            (&["443 ssl", "127.0.0.1:443 ssl"], &["*:443 tls"]),
            (&["0.0.0.0:443 ssl", "[::]:443 ssl"], &["*:443 tls"]),
            (&["0.0.0.0:443 ssl"], &["0.0.0.0:443 tls"]),
            (&["10.0.0.1:443 ssl", "10.0.0.2:443"], &["10.0.0.1:443 tls", "10.0.0.2:443"]),
            (&["443 ssl proxy_protocol", "8443 ssl"], &["*:443 tls proxy", "*:8443 tls"]),
            (&["unix:/run/x", "0", "80"], &["*:80"]),
        ];
        for (words, expected) in cases {
            assert_eq!(listens(words), expected, "{words:?}");
        }
    }
}
