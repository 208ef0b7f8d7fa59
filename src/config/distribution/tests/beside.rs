//! What Distribution's keys mean beside our own.

use super::*;

#[test]
fn our_file_may_name_theirs_whose_lines_are_named_and_whose_paths_start_beside_it() {
    let desk = Desk::new();
    desk.put(
        "etc/config.yml",
        "version: 0.1\nstorage: { filesystem: { rootdirectory: tree } }\nhttp: { addr: ':5003' }\nmoon: 1\n",
    );
    let settings = desk.good(
        "registry: etc/config.yml\n",
        "REGISTRY_STORAGE_DELETE_ENABLED=false\nPIERHEAD_REGISTRY_CATALOG_MAXENTRIES=7",
    );
    assert_eq!(settings.registry.root, desk.path().join("etc/tree"));
    assert!(!settings.registry.delete && !settings.registry_only && settings.front.limits.by_address);
    assert_eq!((settings.registry.catalog_page, &settings.auth.guard), (7, &Guard::Own));
    assert!(
        settings
            .front
            .listeners
            .iter()
            .any(|listener| listener.internal && listener.address.to_string().ends_with(":5003"))
    );
    assert_eq!(warnings(&settings), ["etc/config.yml:4: moon: unknown key, has no effect"]);
    desk.put("etc/config.yml", "version: 0.1\nstorage: { s3: {} }\n");
    let problems = desk.bad("registry: etc/config.yml", "");
    assert!(problems.starts_with("etc/config.yml:2: storage.s3: cannot be honoured"), "{problems}");
    assert_eq!(desk.bad("registry: none.yml", ""), "none.yml: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn their_variables_count_for_their_file_only_and_others_are_told_how_they_would() {
    let variables =
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/srv/tree\nREGISTRY_USER=me\nREGISTRY_PORT=tcp://10.0.0.1:5000";
    for text in ["", "registry: { catalog: { maxentries: 7 } }"] {
        let settings = Desk::new().good(text, variables);
        assert_ne!(settings.registry.root, Path::new("/srv/tree"));
        let name = "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY";
        let wanted = format!(
            "environment: {name}: not read here: write PIERHEAD_{name}, or let `registry` name Distribution's own file"
        );
        assert_eq!(warnings(&settings), [wanted], "{text}");
    }
    let settings = Desk::new().good("", &format!("PIERHEAD_{}", variables.lines().next().unwrap()));
    assert_eq!((settings.registry.root.as_path(), warnings(&settings).len()), (Path::new("/srv/tree"), 0));
}

#[test]
fn monitoring_looks_where_the_operator_says_in_either_dialect() {
    let desk = Desk::new();
    let debug = |text: &str| {
        let debug = desk.good(text, "").front.debug;
        debug.map(|debug| (debug.address.to_string(), debug.metrics.unwrap_or_default()))
    };
    let at = |address: &str, path: &str| Some((address.to_owned(), path.to_owned()));
    assert_eq!(debug(""), at("127.0.0.1:5001", "/metrics"));
    assert_eq!(debug("metrics: { address: ':5009' }"), at("127.0.0.1:5009", "/metrics"));
    assert_eq!(debug("metrics: { address: '[::]:5009' }"), at("[::]:5009", "/metrics"));
    assert_eq!(debug("metrics: { address: off }"), None);
    let original = "registry: { http: { debug: { addr: '127.0.0.1:5008' } } }";
    assert_eq!(debug(original), at("127.0.0.1:5008", ""), "the original tells what it counts only when told to");
    let enabled = original.replace("5008'", "5008', prometheus: { enabled: true }");
    assert_eq!(debug(&enabled), at("127.0.0.1:5008", "/metrics"));
    let both = format!("{enabled}\nmetrics: {{ address: '127.0.0.1:5009' }}");
    assert_eq!(debug(&both), at("127.0.0.1:5009", "/metrics"));
    let alone = |debug: &str| {
        let text = format!("version: 0.1\nstorage: filesystem\nhttp: {{ addr: ':5000'{debug} }}");
        good(&text, "").front.debug.map(|debug| debug.metrics)
    };
    assert_eq!(alone(""), None);
    assert_eq!(alone(", debug: { addr: ':5001', prometheus: { path: /m } }"), Some(None));
    assert_eq!(
        alone(", debug: { addr: ':5001', prometheus: { enabled: true, path: /m } }"),
        Some(Some("/m".to_owned()))
    );
}

#[test]
fn our_own_keys_beat_those_of_distribution() {
    let desk = Desk::new();
    let registry = "registry: { log: { level: debug }, http: { draintimeout: 5s } }\n";
    let settings = desk.good(registry, "REGISTRY_HTTP_DRAINTIMEOUT=9s");
    assert_eq!(
        (settings.telemetry.level, settings.front.timeouts.drain),
        (tracing::Level::DEBUG, Duration::from_secs(5))
    );
    let settings = desk.good(&format!("{registry}log: {{ level: error }}\ntimeouts: {{ drain: 7s }}\n"), "");
    assert_eq!(
        (settings.telemetry.level, settings.front.timeouts.drain),
        (tracing::Level::ERROR, Duration::from_secs(7))
    );
}

#[test]
fn the_page_of_a_registry_that_says_everything_means_the_same_and_hides_the_secret() {
    let desk = Desk::new();
    desk.put("token.crt", "").put("htpasswd", "");
    for auth in [
        "none",
        "{ htpasswd: { realm: 'a b', path: htpasswd } }",
        "{ token: { realm: 'https://a', service: s, issuer: i, rootcertbundle: token.crt, signingalgorithms: [RS256] } }",
        "{ token: { autoredirect: true, service: s, issuer: i, jwks: token.crt } }",
    ] {
        let text = format!(
            "registry: {{ auth: {auth}, storage: {{ maintenance: {{ uploadpurging: {{ age: 90500ms, dryrun: true }} }} }}, http: {{ \
             secret: hunter2, relativeurls: true }}, validation: {{ disabled: yes, manifests: {{ urls: {{ allow: ['a\\b'], deny: \
             [c] }}, indexes: {{ platforms: list, platformlist: [{{ os: linux, architecture: arm64 }}] }} }} }}, catalog: {{ \
             maxentries: 3 }}, tags: {{ maxtags: 4 }} }}"
        );
        let settings = desk.good(&text, "");
        let page = crate::config::show(&settings);
        assert!(!page.contains("hunter2") && page.contains("age: 90500ms") && page.contains("interval: 24h"), "{page}");
        let mut shown = desk.good(&page, "");
        shown.registry.secret.clone_from(&settings.registry.secret);
        assert_eq!(crate::config::tests::meaning(shown), crate::config::tests::meaning(settings));
    }
}

#[test]
fn the_page_of_a_port_of_its_own_and_of_health_means_the_same_and_hides_what_checks_say() {
    let desk = Desk::new();
    desk.put("a.crt", "").put("a.key", "");
    let tls = "tls: { certificate: a.crt, key: a.key, clientcas: [a.crt], clientauth: verify-client-cert-if-given, minimumtls: \
         tls1.3 }, http2: { disabled: true }";
    let health = "health: { storagedriver: { enabled: true, threshold: 3 }, file: [{ file: down, interval: 3s }], http: [{ uri: \
         'https://a:1/b?c', statuscode: 204, headers: { X: [hunter2] } }], tcp: [{ addr: 'a:1', timeout: 2s }] }";
    for http in [
        format!("net: unix, addr: r.sock, {tls}"),
        format!("addr: '127.0.0.1:5009', {tls}, prefix: /a/, host: 'https://b.example'"),
        "debug: { addr: '127.0.0.1:5007', prometheus: { enabled: true, path: /counts } }".to_owned(),
        "debug: { addr: '127.0.0.1:5008' }, headers: { X-Two: ['a, \"b\"', 'c: d #'], Via: [e] }".to_owned(),
    ] {
        let settings = desk.good(&format!("registry: {{ http: {{ {http} }}, {health} }}"), "");
        let page = crate::config::show(&settings);
        assert!(!page.contains("hunter2") && page.contains("headers of health.http are set"), "{page}");
        let (mut shown, mut settings) = (desk.good(&page, ""), settings);
        for front in [&mut shown.front, &mut settings.front] {
            front.headers.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        }
        shown.registry.health.http[0].headers.clone_from(&settings.registry.health.http[0].headers);
        assert_eq!(crate::config::tests::meaning(shown), crate::config::tests::meaning(settings));
    }
}
