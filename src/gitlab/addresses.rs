//! Which addresses can be listened on side by side?
//!
//! NGINX takes `0.0.0.0:443` beside `[::]:443` and `127.0.0.1:443`, and gives a connection to the narrowest. Here one
//! address is bound once, and a wildcard takes them all.

use super::draft::{Draft, Listening, REGISTRY};
use super::ledger::{Fate, Ledger};
use super::page::Node;

/// Where monitoring looks when nothing is written.
const MONITORING: &str = "127.0.0.1:5001";
/// The port of `external_url` when nothing is written.
const EXTERNAL_PORT: u16 = 5050;
/// Ports that are tried in place of one that is taken.
const SPARE: std::ops::Range<u16> = 5_002..5_099;

/// Host and port of `:5050`, `0.0.0.0:5050`, `localhost:5050`.
fn parts(address: &str) -> Option<(&str, &str)> {
    let (host, port) = address.rsplit_once(':').filter(|_| !address.starts_with("unix:"))?;
    let host = match host {
        "[::]" => "",
        "localhost" => "127.0.0.1",
        other => other,
    };
    Some((host, port))
}

fn takes(wide: &str, narrow: &str) -> bool {
    let (Some((wide, port)), Some((narrow, other))) = (parts(wide), parts(narrow)) else { return false };
    port == other && (wide.is_empty() || (wide == "0.0.0.0" && !narrow.is_empty() && !narrow.starts_with('[')))
}

fn overlap(one: &str, other: &str) -> bool {
    parts(one).is_some_and(|one| parts(other) == Some(one)) || one == other || takes(one, other) || takes(other, one)
}

/// Drops the listeners whose connections another one takes.
pub(super) fn fold(listeners: &mut Vec<Listening>, ledger: &mut Ledger) {
    let all = listeners.clone();
    listeners.retain(|listening| {
        let wider =
            |other: &&Listening| other.address != listening.address && takes(&other.address, &listening.address);
        let Some(other) = all.iter().find(wider) else { return true };
        let manner = |listening: &Listening| (listening.tls, listening.redirect, listening.proxy_protocol);
        if manner(other) != manner(listening) {
            let why = format!(
                "{} is left out, since {} takes its connections, and not in the same way; write one of them",
                listening.address, other.address
            );
            ledger.add(0, "listeners", Fate::Yours(why));
        }
        false
    });
}

/// Gives the registry's own port and that of monitoring to nobody else.
pub(super) fn separate(draft: &mut Draft<'_>) {
    let mut taken: Vec<String> = draft.listeners.iter().map(|listening| listening.address.clone()).collect();
    if taken.is_empty() {
        let port = draft.external.as_ref().map_or(EXTERNAL_PORT, |external| external.port());
        taken.extend([format!(":{port}"), ":80".to_owned()]);
    }
    if let Some(address) = text(draft, &["registry", "http", "addr"]) {
        if taken.iter().any(|other| overlap(other, &address)) {
            let spare = spare(&taken, REGISTRY);
            let why = format!("{spare}, since a listener has the port that is written; tell GitLab (registry_api_url)");
            draft.ledger.add(0, "registry.http.addr", Fate::Yours(why));
            draft.page.put(&["registry", "http", "addr"], spare);
        }
        taken.extend(text(draft, &["registry", "http", "addr"]));
    }
    if let Some(address) = text(draft, &["registry", "http", "debug", "addr"]) {
        if !taken.iter().any(|other| overlap(other, &address)) {
            return;
        }
        draft.page.remove(&["registry", "http", "debug"]);
        let why = "the port of debug_addr is that of a listener or of the registry; see metrics.address".to_owned();
        draft.ledger.add(0, "registry.http.debug", Fate::Yours(why));
    }
    let monitoring = text(draft, &["metrics", "address"]).unwrap_or_else(|| MONITORING.to_owned());
    if taken.iter().any(|other| overlap(other, &monitoring)) {
        draft.page.put(&["metrics", "address"], spare(&taken, MONITORING));
    }
}

fn text(draft: &Draft<'_>, path: &[&str]) -> Option<String> {
    match draft.page.get(path) {
        Some(Node::Text(text)) => Some(text.clone()),
        _ => None,
    }
}

/// The usual address, or the first that nobody has.
fn spare(taken: &[String], usual: &str) -> String {
    let spare = SPARE.map(|port| format!("127.0.0.1:{port}"));
    let free = |address: &String| !taken.iter().any(|other| overlap(other, address));
    std::iter::once(usual.to_owned()).chain(spare).find(free).unwrap_or_else(|| usual.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{Mode, Site};
    use super::*;

    #[test]
    fn of_addresses_that_take_each_others_connections_one_is_left() {
        let site = Site { file: "", mode: Mode::Front, exists: &|_| false };
        let folded = |addresses: &[(&str, u16)]| {
            let mut draft = Draft::new(&site);
            for (host, port) in addresses {
                draft.listen(host, *port, true, false);
            }
            fold(&mut draft.listeners, &mut draft.ledger);
            assert!(draft.ledger.lines().is_empty());
            draft.listeners.into_iter().map(|listening| listening.address).collect::<Vec<_>>()
        };
        assert_eq!(folded(&[("0.0.0.0", 1), ("[::]", 1)]), [":1"]);
        assert_eq!(folded(&[("*", 1), ("127.0.0.1", 1), ("::1", 1), ("*", 2)]), [":1", ":2"]);
        assert_eq!(folded(&[("0.0.0.0", 1), ("127.0.0.1", 1), ("::1", 1)]), ["0.0.0.0:1", "[::1]:1"]);
        assert_eq!(folded(&[("10.0.0.1", 1), ("127.0.0.1", 1)]), ["10.0.0.1:1", "127.0.0.1:1"]);
        let mut draft = Draft::new(&site);
        draft.listen("*", 1, true, false);
        draft.listen("127.0.0.1", 1, false, false);
        fold(&mut draft.listeners, &mut draft.ledger);
        assert!(matches!(draft.ledger.lines()[0].fate, Fate::Yours(_)));
    }
}
