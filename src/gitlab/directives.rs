//! What does one directive of NGINX mean, wherever it stands?
//!
//! [`block`](super::block) knows where a directive stands; what it says is settled here.

use super::draft::{Draft, is_host, network};
use super::ledger::Fate;
use super::nginx::Directive;
use super::words;

/// What `timeouts` takes, in seconds.
const PATIENCE: std::ops::RangeInclusive<u64> = 1..=3_600;
/// And `connect` of an upstream.
const CONNECT: std::ops::RangeInclusive<u64> = 1..=300;
/// The least that `limits.blob` takes.
const SMALLEST_BLOB: u64 = 1 << 20;

/// Directives of which the innermost alone counts, with all of its name that stand beside it.
const INNERMOST: [&str; 26] = [
    "access_log",
    "add_header",
    "client_body_timeout",
    "client_header_timeout",
    "client_max_body_size",
    "error_log",
    "keepalive_timeout",
    "proxy_connect_timeout",
    "proxy_hide_header",
    "proxy_read_timeout",
    "proxy_send_timeout",
    "proxy_set_header",
    "proxy_ssl_certificate",
    "proxy_ssl_certificate_key",
    "proxy_ssl_name",
    "proxy_ssl_trusted_certificate",
    "proxy_ssl_verify",
    "real_ip_header",
    "real_ip_recursive",
    "send_timeout",
    "set_real_ip_from",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_ciphers",
    "ssl_protocols",
    "ssl_verify_client",
];

/// What overrules a directive of an outer block: one of the same kind further in.
pub(super) fn kind(name: &str) -> Option<&'static str> {
    match name {
        "allow" | "deny" => Some("allow"),
        _ => INNERMOST.into_iter().find(|other| *other == name),
    }
}

/// What a directive has in its block.
pub(super) fn inside(directive: &Directive) -> &[Directive] {
    directive.block.as_deref().unwrap_or_default()
}

/// Whether somebody is kept out by it, or slowed down.
pub(super) fn keeps_out(directive: &Directive) -> bool {
    match directive.name.as_str() {
        "allow" | "deny" | "limit_except" | "limit_req" | "limit_conn" | "satisfy" | "internal" | "secure_link"
        | "valid_referers" => true,
        "auth_basic" | "auth_request" | "auth_jwt" | "ssl_verify_client" => directive.first() != "off",
        "auth_basic_user_file" => true,
        "if" => inside(directive).iter().any(|inner| refuses(inner) || keeps_out(inner)),
        _ => false,
    }
}

/// `return 403;`
pub(super) fn refuses(directive: &Directive) -> bool {
    directive.name == "return" && directive.first().parse::<u16>().is_ok_and(|status| status >= 400)
}

/// A directive of an `upstream` block.
pub(super) fn of_upstream(directive: &Directive) -> Fate {
    match directive.name.as_str() {
        "server" if directive.first().starts_with("unix:") => {
            Fate::Yours("a peer is an http:// or https:// URL".to_owned())
        }
        "server" if has(directive, "backup") => {
            Fate::Yours("left out: it got requests only when no other peer did, and there are no spare ones".to_owned())
        }
        "server" if has(directive, "down") => Fate::NotNeeded("it is down".to_owned()),
        "server" if directive.text().contains("_fails=") || directive.text().contains("fail_timeout=") => {
            Fate::Translated("upstreams.gitlab.peers (when a peer is left out for a while: see ejection)".to_owned())
        }
        "server" => Fate::Translated("upstreams.gitlab.peers".to_owned()),
        "least_conn" => Fate::Translated("upstreams.gitlab.balance: least_loaded".to_owned()),
        "ip_hash" | "hash" | "random" => {
            Fate::Yours("see balance: repository, upload and least_loaded are what there is".to_owned())
        }
        "keepalive" | "keepalive_timeout" | "keepalive_requests" | "keepalive_time" | "zone" => {
            Fate::NotNeeded("connections to peers are kept and used again".to_owned())
        }
        _ => Fate::Yours("a directive that is not known here".to_owned()),
    }
}

/// Whether a word is among its arguments, after the first.
pub(super) fn has(directive: &Directive, word: &str) -> bool {
    directive.arguments.iter().skip(1).any(|argument| argument == word)
}

/// What a directive becomes that needs no more than itself.
pub(super) fn settle(directive: &Directive, key: String, draft: &mut Draft<'_>) {
    let value = directive.text();
    if let Some((fate, guarded)) = words::settle(&directive.name, &value, draft) {
        return if guarded {
            draft.ledger.add_guarded(directive.line, key, fate)
        } else {
            draft.ledger.add(directive.line, key, fate)
        };
    }
    if let Some(fate) = guard(directive) {
        return draft.ledger.add_guarded(directive.line, key, fate);
    }
    let fate = match (
        directive.flaw,
        translated(directive, &value, draft).unwrap_or_else(|| left_out(directive, &value, draft)),
    ) {
        (Some(flaw), Fate::Translated(to)) => Fate::Translated(format!("{to} ({flaw})")),
        (_, fate) => fate,
    };
    draft.ledger.add(directive.line, key, fate);
}

/// What becomes of what keeps clients out, which must not be lost on the way.
fn guard(directive: &Directive) -> Option<Fate> {
    Some(match directive.name.as_str() {
        "if" if keeps_out(directive) => Fate::Yours(
            "a condition is known only to the NGINX that runs, and nothing is refused by it here".to_owned(),
        ),
        "return" if refuses(directive) => {
            Fate::Yours("what refuses everything is not known to be meant for the registry".to_owned())
        }
        "auth_basic" | "auth_request" | "auth_jwt" if !keeps_out(directive) => return None,
        "auth_basic"
        | "auth_basic_user_file"
        | "auth_request"
        | "limit_except"
        | "limit_req"
        | "limit_conn"
        | "satisfy"
        | "internal"
        | "secure_link"
        | "valid_referers"
        | "auth_jwt" => Fate::NotSupported(
            "who may come in is for GitLab's tokens, listeners.allow and deny, and limits to say".to_owned(),
        ),
        _ => return None,
    })
}

/// What becomes of what there is something for here.
fn translated(directive: &Directive, value: &str, draft: &mut Draft<'_>) -> Option<Fate> {
    let second = || directive.arguments.get(1).map(String::as_str);
    Some(match directive.name.as_str() {
        "client_max_body_size" => body(value, draft),
        "proxy_read_timeout" => patience(value, &["upstreams", "gitlab", "timeouts", "read"], draft),
        "proxy_connect_timeout" => patience(value, &["upstreams", "gitlab", "timeouts", "connect"], draft),
        "proxy_send_timeout" => patience(value, &["upstreams", "gitlab", "timeouts", "write"], draft),
        "keepalive_timeout" => patience(directive.first(), &["timeouts", "idle"], draft),
        "client_header_timeout" => patience(value, &["timeouts", "header"], draft),
        "client_body_timeout" | "send_timeout" => patience(value, &["timeouts", "stall"], draft),
        "set_real_ip_from" => draft.trust(&directive.arguments),
        "proxy_set_header" => words::request_header(directive.first(), second(), draft),
        "add_header" => words::response_header(directive.first(), second().unwrap_or_default(), draft),
        "proxy_hide_header" if draft.is_front() && words::may_hide(directive.first()) => {
            draft.page.push(&["upstreams", "gitlab", "response_headers", "remove"], directive.first());
            Fate::Translated("upstreams.gitlab.response_headers.remove".to_owned())
        }
        "proxy_ssl_trusted_certificate" if draft.is_front() && draft.tls_peers => {
            put(draft, &["upstreams", "gitlab", "tls", "ca"], value)
        }
        "proxy_ssl_certificate" if draft.is_front() && draft.tls_peers => {
            put(draft, &["upstreams", "gitlab", "tls", "certificate"], value)
        }
        "proxy_ssl_certificate_key" if draft.is_front() && draft.tls_peers => {
            put(draft, &["upstreams", "gitlab", "tls", "key"], value)
        }
        "proxy_ssl_name" if draft.is_front() && draft.tls_peers && is_host(value) => {
            put(draft, &["upstreams", "gitlab", "tls", "name"], value)
        }
        "access_log" | "error_log" => {
            draft.page.put(&["log", "access"], "off");
            Fate::Translated("log.access".to_owned())
        }
        _ => return None,
    })
}

/// Why nothing is made of the others.
fn left_out(directive: &Directive, value: &str, draft: &Draft<'_>) -> Fate {
    let yours = |why: &str| Fate::Yours(why.to_owned());
    match directive.name.as_str() {
        "proxy_ssl_verify" if value == "off" && draft.is_front() => {
            yours("peers' certificates are always verified: name their authority in upstreams.gitlab.tls.ca")
        }
        "include" => yours("not followed: import what it names too, if it is about the registry"),
        "auth_basic" | "auth_request" | "auth_jwt" => Fate::NotNeeded("no password is asked for".to_owned()),
        "if" | "rewrite" | "set" | "map" | "geo" | "try_files" => {
            yours("what it does is known only to the NGINX that runs")
        }
        "root" | "index" | "alias" => Fate::NotSupported("no files are served".to_owned()),
        name if name.starts_with("proxy_") || name.starts_with("gzip") || name.starts_with("client_") => {
            Fate::NotNeeded(
                "everything streams, and nothing is rewritten but what the registry's clients need".to_owned(),
            )
        }
        "worker_processes"
        | "worker_connections"
        | "sendfile"
        | "tcp_nopush"
        | "tcp_nodelay"
        | "log_format"
        | "types"
        | "default_type"
        | "server_names_hash_bucket_size"
        | "large_client_header_buffers"
        | "proxy_pass"
        | "user"
        | "pid" => Fate::NotNeeded("it is about NGINX's own process".to_owned()),
        _ => yours("a directive that is not known here"),
    }
}

fn put(draft: &mut Draft<'_>, path: &[&str], value: &str) -> Fate {
    if value.is_empty() || value.chars().any(char::is_control) {
        return Fate::Yours("not a value on one line".to_owned());
    }
    draft.page.put(path, value);
    Fate::Translated(path.join("."))
}

fn patience(text: &str, path: &[&str], draft: &mut Draft<'_>) -> Fate {
    if path[0] == "upstreams" && !draft.is_front() {
        return Fate::NotNeeded("there is no registry behind Pierhead".to_owned());
    }
    let range = if path.ends_with(&["connect"]) { CONNECT } else { PATIENCE };
    match words::seconds(text).filter(|seconds| range.contains(seconds)) {
        Some(seconds) => put(draft, path, &format!("{seconds}s")),
        None => Fate::Yours(format!("{} takes between {}s and {}s", path.join("."), range.start(), range.end())),
    }
}

fn body(text: &str, draft: &mut Draft<'_>) -> Fate {
    match words::bytes(text) {
        Some(0) => Fate::NotNeeded("there is no limit unless limits.blob says one".to_owned()),
        Some(bytes) if bytes >= SMALLEST_BLOB => put(draft, &["limits", "blob"], &bytes.to_string()),
        _ => Fate::Yours("limits.blob is at least 1MiB".to_owned()),
    }
}

/// `allow` and `deny`: the first that fits decides, where a list here is for all. Those orders that mean the same are
/// translated: `deny A; allow all;`, `allow B; deny all;`, `deny A; allow B; deny all;`.
pub(super) fn lists<'r>(rules: impl IntoIterator<Item = &'r Directive>) -> Option<(Vec<String>, Vec<String>)> {
    let mut stage = 0; // denies, allows, the last word
    let (mut allow, mut deny, mut closed) = (Vec::new(), Vec::new(), false);
    for rule in rules {
        // More than one word is a forgotten semicolon.
        let [word] = rule.arguments.as_slice() else { return None };
        match (rule.name.as_str(), stage) {
            (_, 2) => return None,
            (name, _) if word == "all" => {
                closed = name == "deny";
                stage = 2;
            }
            ("deny", 0) => deny.push(network(word)?),
            ("allow", _) => {
                stage = 1;
                allow.push(network(word)?);
            }
            _ => return None,
        }
    }
    if !closed {
        allow.clear();
    }
    // A list of nobody is for everybody here.
    (!closed || !allow.is_empty()).then_some((allow, deny))
}

/// Puts `allow` and `deny` before everything that listens.
pub(super) fn admit(rules: &[Directive], within: &str, draft: &mut Draft<'_>) {
    let read = lists(rules);
    for rule in rules {
        let key = format!("{within}{}", rule.name);
        match &read {
            Some(_) => draft.ledger.add(rule.line, key, Fate::Translated("listeners.allow, listeners.deny".to_owned())),
            None => {
                let why =
                    "in this order it is more than listeners.allow and deny can say; write them yourself".to_owned();
                draft.ledger.add_guarded(rule.line, key, Fate::Yours(why));
            }
        }
    }
    if let Some((allow, deny)) = read {
        draft.allow.extend(allow);
        draft.deny.extend(deny);
    }
}
