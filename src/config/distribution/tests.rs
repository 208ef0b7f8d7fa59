//! Every row of the table, and what the files of other registries come to.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::keys::{KEYS, Key, Treatment};
use crate::auth::{Guard, Realm};
use crate::config::problem::Place;
use crate::config::tests::{Desk, ROOT, machine, variables};
use crate::config::yaml::{Node, Value};
use crate::config::{Settings, load_registry};
use crate::registry::{Platforms, Purge, Secret};
use crate::telemetry::{Destination, Format};

mod beside;

/// What a file of its own needs.
const LEAST: &str =
    "version: 0.1\nstorage: { filesystem: { rootdirectory: /srv/registry } }\nhttp: { addr: ':5000' }\n";

/// Loads `text` as `pierhead registry serve` does.
fn alone(text: &str, environment: &str) -> Result<Settings, String> {
    let desk = Desk::new();
    desk.put("config.yml", text).put("htpasswd", "").put("token.crt", "").put("jwks.json", "");
    load_registry(Path::new("config.yml"), variables(environment), &machine(desk.path()))
        .map_err(|problems| problems.to_string())
}

fn good(text: &str, environment: &str) -> Settings {
    alone(text, environment).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

fn warnings(settings: &Settings) -> Vec<String> {
    settings.warnings.iter().map(ToString::to_string).collect()
}

/// Our file with one key of the table.
fn with_key(key: &Key) -> String {
    let (mut text, mut indent) = ("registry:\n".to_owned(), 1);
    for level in key.path.split('.') {
        let _ = writeln!(text, "{}{level}:", "  ".repeat(indent));
        indent += 1;
    }
    format!("{} {}\n", text.trim_end(), key.sample)
}

/// What our file says with all honoured keys of a section.
fn with_all(section: &str) -> String {
    let rows = KEYS.iter().filter(|key| key.treatment == Treatment::Honoured && key.path.starts_with(section));
    let mut text = String::from("registry:\n");
    let mut open: Vec<&str> = Vec::new();
    for key in rows {
        let levels: Vec<&str> = key.path.split('.').collect();
        let shared = open.iter().zip(&levels).take_while(|(a, b)| a == b).count();
        for (depth, level) in levels.iter().enumerate().skip(shared) {
            let value = if depth + 1 == levels.len() { key.sample } else { "" };
            let _ = writeln!(text, "{}{level}: {value}", "  ".repeat(depth + 1));
        }
        open = levels;
    }
    text
}

// The table

#[test]
fn rows_are_written_once_and_name_known_dialects() {
    let paths: BTreeSet<&str> = KEYS.iter().map(|key| key.path).collect();
    assert_eq!(paths.len(), KEYS.len());
    for key in KEYS {
        assert!(key.dialects.split(' ').all(|dialect| ["2", "3", "G"].contains(&dialect)), "{key:?}");
        assert!(!key.sample.is_empty() && !key.says.is_empty() && !key.says.ends_with('.'), "{key:?}");
    }
}

#[test]
fn every_row_that_is_not_honoured_is_treated_as_it_says() {
    for key in KEYS.iter().filter(|key| key.treatment != Treatment::Honoured) {
        let desk = Desk::new();
        desk.put("a.yml", with_key(key));
        let loaded = desk.load("a.yml", "");
        let said = format!("registry.{}: ", key.path);
        match key.treatment {
            Treatment::Honoured => {}
            Treatment::Accepted => assert_eq!(warnings(&loaded.unwrap()), [""; 0], "{key:?}"),
            Treatment::Warned => {
                let found = warnings(&loaded.unwrap());
                let right = found.len() == 1 && found[0].contains(&said) && found[0].ends_with(key.says);
                assert!(right, "{key:?}: {found:?}");
            }
            Treatment::Refused | Treatment::RefusedWhenOn | Treatment::Forbidden => {
                let problems = loaded.unwrap_err().to_string();
                assert!(problems.contains(&said) && problems.contains(key.says), "{key:?}: {problems}");
            }
        }
    }
}

#[test]
fn what_is_off_is_no_reason_to_refuse() {
    for key in KEYS.iter().filter(|key| matches!(key.treatment, Treatment::Refused | Treatment::RefusedWhenOn)) {
        for off in ["", "[]", "{}", "''", "off", "[{ disabled: true, name: a }]"] {
            let desk = Desk::new();
            desk.put("a.yml", with_key(&Key { sample: off, ..*key }));
            assert_eq!(warnings(&desk.load("a.yml", "").unwrap_or_else(|error| panic!("{error}"))), [""; 0], "{off}");
        }
    }
}

#[test]
fn every_row_that_is_honoured_is_read() {
    let desk = Desk::new();
    let sections: BTreeSet<&str> = KEYS.iter().map(|key| key.path.split('.').next().unwrap()).collect();
    let mut written = BTreeSet::new();
    let sections = sections.into_iter().filter(|section| *section != "auth");
    for section in sections.chain(["auth.none", "auth.htpasswd", "auth.token"]) {
        let text = with_all(section).replace("/etc/registry/", "");
        desk.put("htpasswd", "").put("token.crt", "").put("jwks.json", "");
        desk.put("a.crt", "").put("a.key", "").put("ca.crt", "");
        let settings = desk.good(if text.lines().count() > 1 { &text } else { "" }, "");
        assert_eq!(warnings(&settings), [""; 0], "{text}");
        written.extend(settings.written.into_keys());
    }
    for key in KEYS.iter().filter(|key| key.treatment == Treatment::Honoured) {
        assert!(written.contains(&format!("registry.{}", key.path)), "{key:?} is not read");
    }
}

/// The table as a page.
fn page() -> String {
    let mut page = String::from(
        "# Keys of Distribution's config.yml\n\n\
         What Pierhead does with each key of the file that `pierhead registry serve` reads and that the `registry:` part of\n\
         `pierhead.yml` holds or names. 2 is Distribution 2.8, 3 is Distribution 3, G is GitLab's registry 4.\n\n\
         - **honoured**: it does what it says\n\
         - **accepted**: nothing depends on it here\n\
         - **warning**: it has no effect, and a warning in the log and of `pierhead check` says so; not when it is off or empty\n\
         - **refused**: the server does not start, since ignoring it would take protection away, lose a delivery or serve other\n  \
           data; accepted when it is off or empty (\"when on\": anything but true is accepted; \"always\": however empty)\n\n\
         | key | dialects | what happens | |\n|---|---|---|---|\n",
    );
    for key in KEYS {
        let treatment = match key.treatment {
            Treatment::Honoured => "honoured",
            Treatment::Accepted => "accepted",
            Treatment::Warned => "warning",
            Treatment::Refused => "refused",
            Treatment::RefusedWhenOn => "refused when on",
            Treatment::Forbidden => "refused always",
        };
        let _ = writeln!(page, "| `{}` | {} | {treatment} | {} |", key.path, key.dialects, key.says);
    }
    page
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a page of the documentation, written by hand and kept by git")]
fn the_page_of_keys_is_the_table() {
    let file = Path::new(ROOT).join("conf/distribution-keys.md");
    if std::env::var_os("PIERHEAD_WRITE_PAGES").is_some() {
        fs::write(&file, page()).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == page(), "conf/distribution-keys.md is not the table; PIERHEAD_WRITE_PAGES=1 writes it");
}

// What they come to

#[test]
fn the_least_file_has_the_defaults_of_distribution() {
    let settings = good(LEAST, "");
    assert!(settings.registry_only && !settings.registry.delete && !settings.registry.read_only);
    assert!(!settings.front.limits.by_address && settings.registry.limits.uploads == usize::MAX, "it has no such keys");
    assert_eq!(settings.registry.purge, Some(Purge::default()));
    assert_eq!(settings.auth.guard, Guard::Nobody);
    assert_eq!(settings.registry.validation.allow_urls, Some(Vec::new()));
    assert_eq!(settings.front.listeners.len(), 1);
    assert_eq!(settings.front.listeners[0].address.to_string(), "[::]:5000");
    assert_eq!(settings.front.timeouts.drain, Duration::ZERO);
    assert_eq!((settings.telemetry.format, settings.telemetry.access), (Format::Text, Destination::Stdout));
    let root = |text: &str| good(&format!("version: 0.1\nhttp: {{ addr: ':5000' }}\n{text}"), "").registry.root;
    assert_eq!(root("storage: filesystem"), Path::new("/var/lib/registry"));
    assert_eq!(root("storage: { filesystem: }"), Path::new("/var/lib/registry"));
}

#[test]
fn values_are_read_as_distribution_reads_them() {
    let text = "version: '0.1'\nlog: { level: debug, formatter: json, accesslog: { disabled: on } }\n\
         storage: { filesystem: { rootdirectory: /srv }, delete: { enabled: yes }, maintenance: { uploadpurging: \
         { enabled: true, age: 1h30m, interval: 60m, dryrun: on }, readonly: { enabled: off } } }\n\
         http: { addr: 'localhost:5000', secret: s, relativeurls: Yes, draintimeout: 60s }\n\
         validation: { manifests: { urls: { allow: ['^https://a/'], deny: ['b$'] }, indexes: { platforms: list, \
         platformlist: [{ architecture: amd64, os: linux }] }, payloadsizelimit: 100000 } }\n\
         catalog: { maxentries: 10 }\ntags: { maxtags: 20 }\n\
         auth: { token: { realm: 'https://a/jwt', service: s, issuer: i, rootcertbundle: token.crt, signingalgorithms: [RS256] } }";
    let settings = good(text, "");
    assert_eq!(warnings(&settings), [""; 0]);
    let registry = &settings.registry;
    let hour = Duration::from_secs(3600);
    assert_eq!(registry.purge, Some(Purge { age: hour + hour / 2, interval: hour, dry_run: true }));
    assert!(registry.delete && registry.relative_urls && !registry.read_only);
    assert_eq!(registry.secret, Some(Secret(b"s".to_vec())));
    assert_eq!((registry.catalog_page, registry.tags_page, registry.limits.manifest), (10, 20, 100_000));
    assert_eq!(registry.validation.allow_urls.as_ref().map(Vec::len), Some(1));
    assert_eq!(registry.validation.platforms, Platforms::Only(vec![("linux".to_owned(), "amd64".to_owned())]));
    assert_eq!(settings.front.timeouts.drain, Duration::from_secs(60));
    assert_eq!((settings.telemetry.format, settings.telemetry.access), (Format::Json, Destination::Off));
    assert_eq!(settings.telemetry.level, tracing::Level::DEBUG);
    let Guard::Token(trust) = settings.auth.guard else { panic!("{:?}", settings.auth.guard) };
    assert_eq!(trust.realm, Realm::Url("https://a/jwt".to_owned()));
    assert!(trust.bundle.is_some_and(|bundle| bundle.is_absolute()));
}

#[test]
fn the_port_and_health_are_read() {
    let text = "version: 0.1\nstorage: filesystem\nhttp: { net: unix, addr: r.sock, prefix: /a/, host: 'https://b.example', \
         headers: { X-A: [b, c] }, debug: { addr: ':5001', prometheus: { enabled: true, path: /counts } }, http2: { disabled: true }, tls: { certificate: token.crt, key: \
         token.crt, clientcas: [token.crt], minimumtls: tls1.3 } }\nhealth: { storagedriver: { enabled: true, threshold: 3 }, \
         file: [{ file: down }], http: [{ uri: 'http://a:1/b', headers: { X: [y] } }], tcp: [{ addr: 'a:1' }] }";
    let settings = good(text, "");
    let front = &settings.front;
    assert!(front.listeners[0].address.to_string().ends_with("/r.sock") && front.listeners[0].tls);
    let port = front.internal.tls.as_ref().unwrap();
    assert!(!port.http2 && port.minimum == crate::tls::Version::Tls13);
    assert!(matches!(&port.clients, crate::tls::Clients::MustProve(files) if files.len() == 1));
    assert_eq!(front.internal.host.as_ref().map(ToString::to_string).as_deref(), Some("https://b.example"));
    assert_eq!(front.internal.prefix.as_ref().map(crate::front::Prefix::as_str), Some("/a"));
    assert_eq!(
        (front.headers.len(), front.debug.as_ref().map(|debug| (debug.address.port(), debug.metrics.as_deref()))),
        (2, Some((5001, Some("/counts"))))
    );
    let health = &settings.registry.health;
    assert_eq!((health.storage.map(|pace| pace.threshold), health.files.len(), health.tcp.len()), (Some(3), 1, 1));
    assert_eq!((health.http[0].path.as_str(), health.http[0].headers.len()), ("/b", 1));
    let problems = alone(&format!("{LEAST}health: {{ tcp: [{{ moon: 1 }}] }}"), "").unwrap_err();
    assert!(
        problems.contains("health.tcp[0].moon: unknown key") && problems.contains("tcp[0].addr: missing"),
        "{problems}"
    );
}

#[test]
fn read_only_is_not_cleaned_up() {
    let text = LEAST.replace("storage: { ", "storage: { maintenance: { readonly: true }, ");
    let registry = good(&text, "").registry;
    assert!(registry.read_only && registry.purge.is_none());
}

#[test]
fn clients_may_be_sent_to_the_host_that_they_came_to() {
    let auth = "auth: { token: { autoredirect: true, service: s, issuer: i, jwks: jwks.json } }";
    let Guard::Token(trust) = good(&format!("{LEAST}{auth}"), "").auth.guard else { panic!() };
    assert_eq!(trust.realm, Realm::Path("/auth/token".to_owned()));
}

#[test]
fn that_a_proxy_may_speak_tls_with_them_is_warned_about() {
    let with = |http: &str| {
        let http = LEAST.replace("http: { ", &format!("http: {{ {http}"));
        let auth = "auth: { token: { autoredirect: true, service: s, issuer: i, jwks: jwks.json } }";
        warnings(&good(&format!("{http}{auth}"), ""))
    };
    let found = with("");
    assert!(found.len() == 1 && found[0].starts_with("config.yml:4: auth.token.autoredirect: "), "{found:?}");
    assert!(found[0].contains("http:// of the name that they came to: write http.host"), "{found:?}");
    for settled in ["host: 'https://a.example', ", "tls: { certificate: token.crt, key: token.crt }, "] {
        assert_eq!(with(settled), Vec::<String>::new(), "{settled}");
    }
}

#[test]
fn mistakes_are_said_all_at_once_with_file_line_and_key() {
    let text = "version: 0.2\nstorage:\n  filesystem: { rootdirectory: /srv }\n  inmemory:\n  cloud: {}\n\
         http: { addr: here, draintimeout: soon }\nauth: { token: { realm: /a }, none: {} }\nlog: { level: loud }\n\
         validation: { manifests: { urls: { allow: ['(a'] } } }\nproxy: { remoteurl: 'https://u:hunter2@a.example' }\n";
    let problems = alone(text, "").unwrap_err();
    for start in [
        "config.yml:1: version: must be 0.1",
        "config.yml:4: storage.inmemory: cannot be honoured: ",
        "config.yml:5: storage.cloud: unknown storage; there are filesystem",
        "config.yml:6: http.addr: must be an address",
        "config.yml:6: http.draintimeout: must be a duration",
        "config.yml:7: auth: token and none at once; keep one",
        "config.yml:8: log.level: must be ",
        "config.yml:9: validation.manifests.urls.allow[0]: must be a regular expression",
        "config.yml:10: proxy.remoteurl: cannot be honoured: ",
    ] {
        assert!(problems.lines().any(|line| line.starts_with(start)), "{start}\n{problems}");
    }
    assert!(!problems.contains("hunter2"), "{problems}");
}

#[test]
fn what_must_be_there_is_asked_for() {
    let problems = alone("log: { level: info }", "").unwrap_err();
    for key in ["version", "storage", "http.addr"] {
        assert!(problems.contains(&format!("{key}: missing; write ")), "{problems}");
    }
    let problems = alone(&format!("{LEAST}auth: {{ token: {{ realm: 'https://a' }} }}"), "").unwrap_err();
    for key in ["service", "issuer", "rootcertbundle"] {
        assert!(problems.contains(&format!("config.yml:4: auth.token.{key}: missing")), "{problems}");
    }
    let problems = alone(&format!("{LEAST}auth: {{ htpasswd: {{ realm: a, path: none }} }}"), "").unwrap_err();
    assert!(
        problems.starts_with("config.yml:4: auth.htpasswd.path: ") && problems.contains("does not exist"),
        "{problems}"
    );
}

#[test]
fn unknown_keys_and_keys_written_twice_are_warned_about() {
    let settings = good(&format!("{LEAST}moon: 1\nhttp: {{ addr: ':5001', moon: 2 }}\n"), "");
    let found = warnings(&settings);
    assert!(found[0].starts_with("config.yml:5: http: written twice, first on line 3; this one counts"), "{found:?}");
    assert!(found.contains(&"config.yml:4: moon: unknown key, has no effect".to_owned()), "{found:?}");
    assert!(found.contains(&"config.yml:5: http.moon: unknown key, has no effect".to_owned()), "{found:?}");
    assert!(settings.front.listeners[0].address.to_string().ends_with(":5001"));
}

/// Every text is refused with the message, and nothing else is said.
fn refused(cases: &[(&str, &str)]) {
    for (text, message) in cases {
        let problems = alone(&format!("{LEAST}{text}"), "").expect_err(text);
        assert!(problems.contains(message), "{text}: {problems}");
    }
}

#[test]
fn uploads_on_their_way_are_not_purged_by_a_number_without_a_unit() {
    for (key, value, message) in [
        ("age", "168", "must be a duration with its unit"),
        ("age", "604800000000000", "must be a duration with its unit"),
        ("age", "59s", "must be at least 1m"),
        ("age", "+168", "must be a duration with its unit"),
        ("age", "'168'", "must be a duration with its unit"),
        ("interval", "24", "must be a duration with its unit"),
        ("interval", "10ms", "must be at least 1s"),
    ] {
        let purging = format!("storage: {{ maintenance: {{ uploadpurging: {{ {key}: {value} }} }}, ");
        let problems = alone(&LEAST.replace("storage: { ", &purging), "").unwrap_err();
        let start = format!("config.yml:2: storage.maintenance.uploadpurging.{key}: {message}");
        assert!(problems.starts_with(&start), "{problems}");
    }
}

#[test]
fn empty_items_do_not_open_what_a_list_closes() {
    let http =
        |tls: &str| format!("{}http: {{ addr: ':5000', tls: {{ {tls} }} }}", LEAST.split("http").next().unwrap());
    let pair = "certificate: token.crt, key: token.crt";
    for (items, message) in [
        ("['']", "[0]: is empty"),
        ("[token.crt, ]", ""),
        ("[token.crt, ~]", "[1]: is empty"),
        ("[]", ": names no file"),
        ("", ": names no file"),
    ] {
        let found = alone(&http(&format!("{pair}, clientcas: {items}")), "");
        match message {
            "" => assert!(found.is_ok(), "{found:?}"),
            _ => assert!(found.unwrap_err().contains(&format!("http.tls.clientcas{message}")), "{items}"),
        }
    }
    let token = "auth: { token: { realm: 'https://a', service: s, issuer: i, jwks: jwks.json, signingalgorithms: ['']";
    refused(&[(&format!("{token} }} }}"), "config.yml:4: auth.token.signingalgorithms[0]: is empty")]);
    let desk = Desk::new();
    desk.put("jwks.json", "");
    let problems = desk.bad(&format!("registry: {{ {token} }} }} }}"), "");
    assert!(problems.contains("registry.auth.token.signingalgorithms[0]: is empty"), "{problems}");
}

#[test]
fn what_tls_protects_is_not_dropped_with_what_is_missing() {
    let least = LEAST.split("http").next().unwrap();
    for (tls, message) in [
        (
            "certificate: token.crt, key: token.crt, clientauth: verify-client-cert-if-given",
            "clientauth: needs clientcas",
        ),
        ("clientauth: require-and-verify-client-cert, clientcas: [token.crt]", "clientauth: needs certificate and key"),
        ("clientcas: [token.crt]", "clientcas: needs certificate and key"),
        ("minimumtls: tls1.3", "minimumtls: needs certificate and key"),
        ("key: token.crt", "tls: needs certificate and key"),
    ] {
        let problems = alone(&format!("{least}http: {{ addr: ':5000', tls: {{ {tls} }} }}"), "").unwrap_err();
        assert!(problems.contains(message), "{tls}: {problems}");
    }
}

#[test]
fn headers_that_frame_an_answer_are_not_the_operators_to_set() {
    let least = LEAST.split("http").next().unwrap();
    for name in ["Content-Length", "transfer-encoding", "X-Request-Id"] {
        let text = format!("{least}http: {{ addr: ':5000', headers: {{ {name}: ['7'] }} }}");
        let problems = alone(&text, "").unwrap_err();
        assert!(problems.starts_with(&format!("config.yml:3: http.headers.{name}: cannot be set")), "{problems}");
    }
    good(&format!("{LEAST}health: {{ http: [{{ uri: 'http://a:1/', headers: {{ X-Request-Id: [a] }} }}] }}"), "");
}

#[test]
fn the_largest_manifest_has_the_bounds_of_our_own_limit() {
    let text = |limit: &str| format!("{LEAST}validation: {{ manifests: {{ payloadsizelimit: {limit} }} }}");
    for bad in ["1", "65535", "67108865", "18446744073709551615"] {
        let problems = alone(&text(bad), "").unwrap_err();
        let start = "config.yml:4: validation.manifests.payloadsizelimit: must be between 64KiB and 64MiB";
        assert!(problems.starts_with(start), "{problems}");
    }
    assert_eq!(good(&text("65536"), "").registry.limits.manifest, 65_536);
    assert_eq!(good(&text("0"), "").registry.limits.manifest, 4 << 20);
}

#[test]
fn a_section_in_another_case_neither_counts_nor_swallows_variables() {
    refused(&[
        ("Auth: {}", "config.yml:4: Auth: unknown key; write auth, in lower case"),
        ("HTTP: { tls: {} }", "config.yml:4: HTTP: unknown key; write http, in lower case"),
    ]);
    let environment = "REGISTRY_STORAGE_DELETE_ENABLED=true\nREGISTRY_HTTP_HEADERS_XA=[b]";
    let least = LEAST.replace("storage: { ", "storage: { delete: { Enabled: false }, ");
    let settings = good(&least.replace("http: { ", "http: { headers: { XA: [a] }, "), environment);
    assert!(settings.registry.delete, "the variable counts");
    assert_eq!(settings.front.headers.len(), 1, "names of headers are the same in any case");
    let place = Place::variable("A");
    let section = |value| Node { place: place.clone(), value };
    let mut root = section(Value::Mapping(vec![("Auth".to_owned(), section(Value::Nothing))]));
    let variables = [("REGISTRY_AUTH_HTPASSWD_PATH".to_owned(), "a".to_owned())];
    super::variables::overlay(&mut root, &variables, &mut Vec::new(), &mut Vec::new());
    let Value::Mapping(entries) = &root.value else { panic!("{root:?}") };
    let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Auth", "auth"]);
}

// The variables

#[test]
fn variables_walk_the_fields_in_the_order_of_their_names() {
    let settings = good(
        "version: 0.1\nstorage: { s3: { bucket: a } }\n",
        "REGISTRY_STORAGE=filesystem\n\
         REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/srv/tree\n\
         REGISTRY_STORAGE_DELETE_ENABLED=true\n\
         REGISTRY_HTTP_ADDR=127.0.0.1:5001\n\
         REGISTRY_AUTH=htpasswd\n\
         REGISTRY_AUTH_HTPASSWD_REALM=basic-realm\n\
         REGISTRY_AUTH_HTPASSWD_PATH=htpasswd\n\
         REGISTRY_HEALTH_FILECHECKERS=[]\n\
         REGISTRY_NOTIFICATIONS_EVENTCONFIG_INCLUDEREFERENCES=true\n\
         REGISTRY_COMPATIBILITY_SCHEMA1_TRUSTKEY=a\n\
         REGISTRY_VALIDATION_MANIFESTS_URLS_ALLOW=[a, b]\n\
         REGISTRY_VALIDATION_MANIFESTS_URLS_ALLOW_2=c\n\
         REGISTRY_FF_BBM=true\n\
         REGISTRY_CONFIGURATION_PATH=x\n\
         REGISTRY_PORT=tcp://10.0.0.1:5000\n",
    );
    assert_eq!(warnings(&settings), [""; 0]);
    assert_eq!(settings.registry.root, Path::new("/srv/tree"));
    assert!(settings.registry.delete);
    assert_eq!(settings.front.listeners[0].address.to_string(), "127.0.0.1:5001");
    assert!(matches!(settings.auth.guard, Guard::Htpasswd { .. }));
    assert_eq!(settings.registry.validation.allow_urls.map(|allow| allow.len()), Some(3));
}

#[test]
fn variables_that_lead_nowhere_are_warned_about_and_never_shown() {
    let environment = "REGISTRY_HTTP_ADR=hunter2\nREGISTRY_HTTP__ADDR=hunter2\nREGISTRY_MOON=hunter2\nREGISTRY_VALIDATION_MANIFESTS_URLS_ALLOW_7=hunter2";
    let found =
        warnings(&good(&format!("{LEAST}validation: {{ manifests: {{ urls: {{ allow: [a] }} }} }}"), environment));
    assert_eq!(found.len(), 4 + 1, "four variables, and that nobody guards: {found:?}");
    assert!(found.contains(&"environment: REGISTRY_MOON: ignoring unrecognized environment variable".to_owned()));
    assert!(!found.join("\n").contains("hunter2"), "{found:?}");
}

#[test]
fn a_wrong_variable_is_a_problem_by_its_name_and_key() {
    let problems =
        alone(LEAST, "REGISTRY_HTTP_ADDR=here\nREGISTRY_STORAGE_S3_BUCKET=b\nREGISTRY_HTTP_SECRET=[hunter2]")
            .unwrap_err();
    assert!(problems.contains("environment: REGISTRY_HTTP_ADDR: http.addr: must be an address"), "{problems}");
    assert!(problems.contains("environment: REGISTRY_STORAGE_S3_BUCKET: storage.s3: cannot be honoured"), "{problems}");
    assert!(problems.contains("http.secret: must be a single value") && !problems.contains("hunter2"), "{problems}");
}

// The files that are out there

#[test]
fn the_files_of_packages_start_as_they_are() {
    for (name, least) in [("omnibus.yml", 2), ("debian.yml", 2)] {
        let text = fs::read_to_string(Path::new(ROOT).join("tests/data/registry-configs").join(name)).unwrap();
        let text = text.replace("{root}", "/srv/registry").replace("{address}", "127.0.0.1:5000");
        let text = text.replace("{realm}", "https://gitlab.example.com/jwt/auth").replace("{bundle}", "token.crt");
        let settings = good(&text.replace("{issuer}", "omnibus-gitlab-issuer"), "");
        assert!(settings.registry.delete, "{name}");
        assert!(warnings(&settings).len() >= least, "{:?}", warnings(&settings));
    }
}

#[test]
fn a_registry_alone_asks_no_browser_for_tls_even_where_it_speaks_it() {
    let desk = Desk::new();
    for name in ["a.crt", "a.key"] {
        desk.put(name, "");
    }
    let tls = "version: 0.1\nstorage: { filesystem: { rootdirectory: tree } }\n\
               http: { addr: ':5000', tls: { certificate: a.crt, key: a.key } }\n";
    desk.put("config.yml", tls);
    let settings = load_registry(Path::new("config.yml"), [], &machine(desk.path())).unwrap();
    assert!(settings.front.internal.tls.is_some());
    assert_eq!(settings.front.hsts, None, "it would hold for a whole host, and the file has no key against it");
}
