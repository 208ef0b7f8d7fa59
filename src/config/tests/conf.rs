//! The files in `conf/`: each is taken, and means what it says.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::super::*;
use super::{Desk, ROOT, keys, machine, meaning};

/// Puts a file of `conf/` where the system's file would be, with the certificates that it names.
fn installed(desk: &Desk, name: &str, change: impl FnOnce(String) -> String) -> Settings {
    let text = change(fs::read_to_string(Path::new(ROOT).join("conf").join(name)).unwrap());
    let is_file = |word: &&str| [".crt", ".key", ".password", ".pem"].iter().any(|end| word.ends_with(end));
    for word in text.split_whitespace().filter(is_file) {
        if !word.contains('/') {
            desk.put(&format!("etc/{word}"), [b'a'; 48]);
        }
    }
    desk.put("etc/pierhead.yml", text);
    load(None, [], &machine(desk.path())).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Takes the `#` away before the keys: `#key: value` is a key, `# Words` are words.
fn uncommented(text: String) -> String {
    let line = |line: &str| {
        let words = line.trim_start();
        let is_key = words
            .strip_prefix('#')
            .is_some_and(|rest| !rest.is_empty() && (!rest.starts_with(' ') || rest.starts_with("  ")));
        let is_prose = words.starts_with("#   pierhead check");
        if is_key && !is_prose { line.replacen('#', "", 1) } else { line.to_owned() }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_annotated_file_changes_nothing() {
    let desk = Desk::new();
    let empty = installed(&desk, "pierhead.yml", |_| String::new());
    let settings = installed(&desk, "pierhead.yml", |text| text);
    assert_eq!(settings.written, BTreeMap::new());
    assert_eq!(meaning(settings), meaning(empty));
}

#[test]
fn the_annotated_file_names_every_key_and_tells_its_default() {
    let desk = Desk::new();
    let defaults = installed(&desk, "pierhead.yml", |_| String::new());
    let on_any_machine = |text| {
        let text = uncommented(text).replace("user: pierhead", "user: root");
        let text = text.replace("webroot: /var/opt/gitlab/nginx/www", "webroot: .");
        // `dns` is an example, and of use with dns-01 alone.
        text.replace("challenges: [tls-alpn-01, http-01]", "challenges: [tls-alpn-01, http-01, dns-01]")
    };
    let mut settings = installed(&desk, "pierhead.yml", on_any_machine);
    let written: Vec<&String> = settings.written.keys().collect();
    for key in keys() {
        assert!(written.contains(&&key), "conf/pierhead.yml does not name {key}: {written:?}");
    }
    // These have no default that could be written, so an example stands there.
    assert_eq!(settings.front.external_url.to_string(), "https://registry.example.com:5050");
    assert_eq!(settings.front.aliases.len(), 1);
    assert_eq!(settings.front.trusted_proxies.iter().count(), 1);
    assert_eq!(settings.user.as_deref(), Some("root"));
    assert_eq!(settings.tls.certificates.len(), 1);
    assert_eq!(settings.registry.limits.blob.take(), Some(20 << 30));
    assert_eq!(settings.auth.limits.anonymous.take().map(u32::from), Some(1200));
    assert_eq!((settings.tls.acme.take(), settings.tls.clients.len(), settings.tls.ticket_keys.len()), (None, 1, 1));
    let [gitlab] = &settings.front.upstreams[..] else { panic!("one example") };
    let least = "upstreams: { gitlab: { peers: ['http://127.0.0.1:5010', { url: 'https://registry-b.example.com:5000', \
                 weight: 2 }] } }";
    assert_eq!(*gitlab, desk.good(least, "").front.upstreams[0]);
    assert_eq!(settings.front.routes.len(), 3);
    // The rest is the default.
    assert_eq!(settings.services, defaults.services);
    assert_eq!(settings.state, defaults.state);
    assert_eq!(settings.front.listeners, defaults.front.listeners);
    assert_eq!(settings.front.timeouts, defaults.front.timeouts);
    assert_eq!(settings.front.limits, defaults.front.limits);
    assert_eq!((settings.front.debug, settings.front.hsts), (defaults.front.debug, defaults.front.hsts));
    assert_eq!(settings.tls.policy, defaults.tls.policy);
    assert_eq!(settings.tls.local.directory, defaults.tls.local.directory);
    assert_eq!(settings.registry, defaults.registry);
    assert_eq!(settings.auth, defaults.auth);
    assert_eq!(settings.telemetry, defaults.telemetry);
}

#[test]
fn the_annotated_file_tells_what_is_ordered_where_nothing_is_written() {
    let desk = Desk::new();
    let ordered = |name: &str| {
        let text = fs::read_to_string(Path::new(ROOT).join("conf").join("pierhead.yml")).unwrap();
        let text = uncommented(text);
        let acme: Vec<&str> = text.lines().skip_while(|line| *line != "  acme:").collect();
        let line = |key: &str| *acme.iter().find(|line| line.trim_start().starts_with(&format!("{key}:"))).unwrap();
        let lines = ["enabled", "directory", "challenges", "storage"].map(line);
        let written = format!("external_url: https://{name}\ntls:\n  acme:\n{}\n", lines.join("\n"));
        let least = installed(&desk, "pierhead.yml", |_| format!("external_url: https://{name}\n"));
        (installed(&desk, "pierhead.yml", |_| written).tls.acme, least.tls.acme)
    };
    let (written, least) = ordered("registry.pierhead.dev");
    assert!(least.is_some());
    assert_eq!(written, least);
    assert_eq!(ordered("registry.example.com"), (None, None));
}

#[test]
fn a_domain_of_its_own_listens_on_443() {
    let desk = Desk::new();
    let settings = installed(&desk, "own-domain-443.yml", |text| text);
    assert_eq!(settings.front.external_url.to_string(), "https://registry.example.com");
    assert_eq!(settings.front.listeners[0].address.to_string(), "[::]:443");
    assert_eq!(settings.tls.certificates[0].key, desk.path().join("etc/registry.example.com.key"));
    assert_eq!(settings.state, Path::new("/var/lib/pierhead"));
}

#[test]
fn a_shared_domain_listens_on_5050() {
    let settings = installed(&Desk::new(), "shared-domain-5050.yml", |text| text);
    assert_eq!(settings.front.external_url.to_string(), "https://gitlab.example.com:5050");
    assert_eq!(settings.front.listeners[0].address.to_string(), "[::]:5050");
    assert!(settings.front.listeners[0].tls && settings.front.listeners[1].internal);
}

/// `/v2/` and the other routes, and that nothing is ours.
fn leads(settings: &Settings, expected: &[&str]) {
    assert_eq!(settings.services, Services { registry: false, tokens: Tokens::Off });
    assert_eq!(ways(settings), expected);
    assert_eq!(settings.warnings, []);
    assert!(settings.front.listeners.iter().all(|listener| !listener.internal), "port 5000 is the registry's");
}

#[test]
fn gitlabs_registry_stays_behind_a_name_of_its_own() {
    let settings = installed(&Desk::new(), "gitlab-front.yml", |text| text);
    leads(&settings, &["registry.example.com/v2/ -> gitlab (http://127.0.0.1:5000)"]);
    assert_eq!(settings.front.listeners[0].address.to_string(), "[::]:443");
    assert_eq!(settings.front.upstreams[0].realms[0].url, "https://gitlab.example.com/jwt/auth");
}

#[test]
fn gitlabs_registry_stays_behind_gitlabs_name_and_nothing_else_is_served_there() {
    let settings = installed(&Desk::new(), "gitlab-shared-domain.yml", |text| text);
    let ways = ["gitlab.example.com:5050/v2/ -> gitlab (http://127.0.0.1:5000)", "gitlab.example.com:5050/ -> 404"];
    leads(&settings, &ways);
    assert_eq!(settings.front.listeners[0].address.to_string(), "[::]:5050");
    assert_eq!(settings.front.hsts, None);
}

/// The listener in place of the one that is written.
fn instead(text: &str, other: &str) -> String {
    let other_way = format!("  #- {other}");
    assert!(text.contains(&other_way), "{other}");
    let written = text.lines().find(|line| line.starts_with("  - { address:")).unwrap();
    text.replace(written, "").replace(&other_way, &format!("  - {other}"))
}

#[test]
fn behind_an_application_load_balancer_the_port_is_another_and_tls_its() {
    let settings = installed(&Desk::new(), "aws-alb.yml", |text| text);
    leads(&settings, &["registry.example.com/v2/ -> registry (http://127.0.0.1:5000)"]);
    let [listener] = &settings.front.listeners[..] else { panic!("one listener") };
    assert_eq!((listener.address.to_string().as_str(), listener.tls), ("[::]:5678", false));
    assert!(settings.front.trusted_proxies.contains(IpAddr::from([10, 0, 3, 4])));
    let secure = installed(&Desk::new(), "aws-alb.yml", |text| instead(&text, "{ address: \":5678\", tls: true }"));
    assert!(secure.front.listeners[0].tls);
}

#[test]
fn behind_a_network_load_balancer_tls_is_ours_and_the_client_is_named() {
    let settings = installed(&Desk::new(), "aws-nlb.yml", |text| text);
    leads(&settings, &["registry.example.com/v2/ -> registry (http://127.0.0.1:5000)"]);
    let listener = &settings.front.listeners[0];
    assert_eq!((listener.tls, listener.proxy_protocol), (true, front::ProxyProtocol::Optional));
    let through = |text: String| instead(&text, "{ address: \":5678\" }").replace("trusted_proxies: [10.0.0.0/16]", "");
    let settings = installed(&Desk::new(), "aws-nlb.yml", through);
    assert_eq!((settings.front.listeners[0].tls, settings.front.trusted_proxies.is_empty()), (true, true));
    let ended = |text: String| {
        let text = instead(&text, "{ address: \":5678\", tls: false, proxy_protocol: optional }");
        text[..text.find("tls:\n").unwrap()].to_owned() + &text[text.find("upstreams:").unwrap()..]
    };
    assert!(!installed(&Desk::new(), "aws-nlb.yml", ended).front.listeners[0].tls);
}
