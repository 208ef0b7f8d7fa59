//! What upstreams and routes come to where little is written, and that the page of them means the same.

use super::super::tests::{Desk, meaning};
use super::super::{Services, Settings, Tokens, show, ways};
use crate::front::{Balance, Host, HostSent, LocationForm, Route, Target};

const GITLAB: &str = "upstreams: { gitlab: { peers: ['http://127.0.0.1:5000'] } }\n";

/// Where each route leads, shortly.
fn led(settings: &Settings) -> Vec<String> {
    let shown = |route: &Route| {
        let to = match &route.to {
            Target::Embedded => "embedded".to_owned(),
            Target::Upstream(name) => name.to_string(),
            Target::Redirect(redirect) => format!("{} {}", redirect.status.as_u16(), redirect.to),
            Target::Answer(answer) => answer.status.as_u16().to_string(),
        };
        format!("{} {to}", route.path.as_str())
    };
    settings.front.routes.iter().map(shown).collect()
}

/// Loads the page of these settings again.
fn again(desk: &Desk, settings: &Settings) -> Settings {
    desk.good(&show(settings), "")
}

#[test]
fn one_upstream_is_the_registry_and_nothing_is_embedded() {
    let desk = Desk::new();
    let settings = desk.good(GITLAB, "");
    assert_eq!(settings.services, Services { registry: false, tokens: Tokens::Off });
    assert_eq!(led(&settings), ["/v2/ gitlab"]);
    assert!(settings.front.listeners.iter().all(|listener| !listener.internal), "5000 is GitLab's");
    assert_eq!(meaning(again(&desk, &settings)), meaning(settings));
}

#[test]
fn an_upstream_has_the_defaults_that_a_registry_needs() {
    let settings = Desk::new().good(GITLAB, "");
    let gitlab = &settings.front.upstreams[0];
    assert_eq!(gitlab.peers[0].origin.to_string(), "http://127.0.0.1:5000");
    assert_eq!((gitlab.peers[0].weight.get(), gitlab.attempts.get()), (1, 3));
    assert_eq!(gitlab.balance, Balance::RoundRobin);
    let health = gitlab.health.as_ref().unwrap();
    assert_eq!((health.path.as_str(), health.unhealthy.get(), health.healthy.get()), ("/v2/", 2, 2));
    assert_eq!((health.interval.as_secs(), health.timeout.as_secs()), (5, 2));
    assert_eq!(health.status, [200, 401]);
    let ejection = gitlab.ejection.unwrap();
    assert_eq!((ejection.failures.get(), ejection.time.as_secs()), (5, 10));
    let timeouts = gitlab.timeouts;
    assert_eq!((timeouts.connect.as_secs(), timeouts.read.as_secs()), (5, 900));
    assert_eq!((timeouts.write.as_secs(), timeouts.idle.as_secs()), (60, 60));
    assert_eq!((gitlab.host, gitlab.location), (HostSent::Client, LocationForm::Absolute));
    assert!(gitlab.slow_start.is_zero() && !gitlab.http2 && !gitlab.strict);
    assert!(gitlab.realms.is_empty() && gitlab.known_as.is_empty());
}

#[test]
fn the_token_endpoint_goes_where_token_says() {
    let desk = Desk::new();
    let rails =
        "upstreams: { gitlab: { peers: ['http://127.0.0.1:5000'] }, rails: { peers: ['http://127.0.0.1:8080'] } }\n";
    let cases = [
        (format!("{GITLAB}token: {{ service: a }}"), Tokens::Ours, vec!["/jwt/auth embedded", "/v2/ gitlab"]),
        (format!("{GITLAB}token: true"), Tokens::Ours, vec!["/jwt/auth embedded", "/v2/ gitlab"]),
        (format!("{GITLAB}token: false"), Tokens::Off, vec!["/v2/ gitlab"]),
        (
            format!("{rails}token: {{ upstream: rails, path: /auth }}"),
            Tokens::Upstream("rails".into()),
            vec!["/auth rails", "/v2/ gitlab"],
        ),
        (
            format!("{GITLAB}token: {{ upstream: gitlab }}"),
            Tokens::Upstream("gitlab".into()),
            vec!["/jwt/auth gitlab", "/v2/ gitlab"],
        ),
        (
            format!("{rails}routes: [{{ path: /v2/, to: {{ upstream: gitlab }} }}, {{ to: {{ upstream: rails }} }}]"),
            Tokens::Off,
            vec!["/v2/ gitlab", "/ rails"],
        ),
        (
            format!(
                "{rails}token: true\nroutes: [{{ path: /v2/, to: {{ upstream: gitlab }} }}, {{ to: {{ upstream: rails }} }}]"
            ),
            Tokens::Ours,
            vec!["/jwt/auth embedded", "/v2/ gitlab", "/ rails"],
        ),
    ];
    for (text, tokens, routes) in cases {
        let settings = desk.good(&text, "");
        assert_eq!(
            (&settings.services.tokens, led(&settings)),
            (&tokens, routes.iter().map(ToString::to_string).collect()),
            "{text}"
        );
        let path = settings.front.token.as_deref();
        assert_eq!(path, (tokens != Tokens::Off).then_some(settings.auth.path.as_str()), "{text}");
        assert_eq!(meaning(again(&desk, &settings)), meaning(settings), "{text}");
    }
}

#[test]
fn only_who_answers_for_the_api_is_asked_for_it() {
    let desk = Desk::new();
    let checked = |text: &str| -> Vec<(String, bool)> {
        let settings = desk.good(text, "");
        assert_eq!(meaning(again(&desk, &settings)), meaning(desk.good(text, "")));
        let upstreams = settings.front.upstreams.iter();
        upstreams.map(|upstream| (upstream.name.to_string(), upstream.health.is_some())).collect()
    };
    let rails = |health: &str| {
        format!(
            "upstreams: {{ gitlab: {{ peers: ['http://127.0.0.1:5000'] }}, \
         rails: {{ peers: ['http://127.0.0.1:8080']{health} }} }}\n"
        )
    };
    let (on, off) = (|name: &str| (name.to_owned(), true), |name: &str| (name.to_owned(), false));
    let token = "token: { upstream: rails }";
    assert_eq!(checked(&format!("{}{token}", rails(""))), [on("gitlab"), off("rails")]);
    let asked = rails(", health: { path: /-/liveness, status: [200] }");
    assert_eq!(checked(&format!("{asked}{token}")), [on("gitlab"), on("rails")]);
    let routes = "routes: [{ path: /v2/, to: { upstream: gitlab } }, { to: { upstream: rails } }]";
    assert_eq!(checked(&format!("{}{routes}", rails(""))), [on("gitlab"), off("rails")]);
    assert_eq!(checked(&format!("{GITLAB}token: {{ upstream: gitlab }}")), [on("gitlab")]);
}

#[test]
fn a_registry_that_is_written_stays_beside_upstreams() {
    let desk = Desk::new();
    let routes = "routes: [{ path: /v2/theirs/, to: { upstream: gitlab } }]\n";
    let port = "http: { addr: 127.0.0.1:5002 }";
    for text in [
        format!("{GITLAB}{routes}registry: {{ {port} }}"),
        format!("upstreams: {{ gitlab: {{ peers: ['http://10.0.0.1:5000'] }} }}\n{routes}registry: true"),
    ] {
        let settings = desk.good(&text, "");
        assert_eq!(settings.services, Services { registry: true, tokens: Tokens::Ours });
        assert_eq!(led(&settings), ["/jwt/auth embedded", "/v2/theirs/ gitlab"]);
        assert_eq!(meaning(again(&desk, &settings)), meaning(settings));
    }
    let settings = desk.good(&format!("{GITLAB}registry:\n  storage:\n    filesystem:\ntoken:\n"), "");
    assert!(!settings.services.registry, "headings without keys say nothing");
    let settings = desk.good(&format!("{GITLAB}{routes}"), "PIERHEAD_REGISTRY_HTTP_ADDR=127.0.0.1:5002");
    assert!(settings.services.registry, "a variable is as good as a line");
}

#[test]
fn the_token_service_alone_serves_registries_elsewhere() {
    let desk = Desk::new();
    let settings = desk.good("registry: false\ntoken: { issuer: harbour }", "");
    assert_eq!(settings.services, Services { registry: false, tokens: Tokens::Ours });
    assert_eq!(settings.front.routes, []);
    assert_eq!(meaning(again(&desk, &settings)), meaning(settings));
}

#[test]
fn everything_that_can_be_written_is_shown_as_it_was_meant() {
    let desk = Desk::new();
    for file in ["ca.pem", "a.crt", "a.key"] {
        desk.put(file, "");
    }
    let text = "external_url: https://registry.example.com\naliases: ['https://gitlab.example.com:5050']\n\
         upstreams:\n  \
           full.name-1:\n    \
             peers: ['https://10.0.0.1:5000', { url: 'https://[2001:db8::1]', weight: 3 }]\n    \
             balance: upload\n    tls: { ca: ca.pem, certificate: a.crt, key: a.key, name: Registry.internal }\n    \
             http2: true\n    health: { path: /, interval: 1s, timeout: 500ms, unhealthy: 3, healthy: 1, status: [204] }\n    \
             ejection: { failures: 1, time: 1m }\n    slow_start: 30s\n    attempts: 1\n    \
             timeouts: { connect: 1s, read: 1h, write: 2s, idle: 3s }\n    host: peer\n    \
             known_as: ['http://registry:5000']\n    location: relative\n    \
             realms: [https://gitlab.example.com/jwt/auth, { url: 'https://a.example/t?x=1', clients: [10.0.0.0/8, '::1'] }]\n    \
             strict: true\n    request_headers: { remove: [X-A] }\n    \
             response_headers: { remove: [Server, X-B], set: { X-C: 'a: \"b\" # c' }, add: { X-D: '1', X-E: '2' } }\n  \
           'null': { peers: ['http://10.0.0.3'], health: off, ejection: off }\n\
         routes:\n\
         - { host: registry.example.com, path: /v2, methods: [GET, DELETE], to: { upstream: full.name-1 } }\n\
         - { host: 'registry.example.com:443', to: { answer: 403, body: 'a: \"b\"' } }\n\
         - { host: 'gitlab.example.com:5050', to: { upstream: 'null' } }\n\
         - { path: /ui/, to: { redirect: 'https://gitlab.example.com/', status: 302 } }\n\
         - { path: /gone, to: { answer: 410, body: x, type: text/html } }\n\
         - { path: /, to: { answer: 404 } }\n";
    let settings = desk.good(text, "");
    assert_eq!(settings.warnings, []);
    assert_eq!(settings.front.routes[1].host, Some(Host::Authority("registry.example.com".to_owned())));
    let page = show(&settings);
    let shown = desk.good(&page, "");
    assert_eq!(meaning(shown), meaning(settings), "{page}");
}

#[test]
fn headers_for_upstreams_may_be_secrets_and_are_not_shown() {
    let desk = Desk::new();
    let text = "upstreams: { a: { peers: ['http://10.0.0.1'], request_headers: { set: { X-Api-Key: hunter2 } } } }";
    let page = show(&desk.good(text, ""));
    assert!(!page.contains("hunter2") && page.contains("not complete"), "{page}");
    let refused = desk.bad(&text.replace("X-Api-Key", "Authorization"), "");
    assert!(!refused.contains("hunter2"), "{refused}");
}

#[test]
fn variables_hold_all_upstreams_and_all_routes() {
    let environment = "PIERHEAD_UPSTREAMS={a: {peers: ['http://10.0.0.1:5000']}}\n\
         PIERHEAD_ROUTES=[{path: /v2/, to: {upstream: a}}]\nPIERHEAD_TOKEN_UPSTREAM=a";
    let settings = Desk::new().good("", environment);
    assert_eq!(led(&settings), ["/jwt/auth a", "/v2/ a"]);
}

#[test]
fn routes_that_are_never_reached_and_upstreams_that_nobody_names_are_warned_of() {
    let desk = Desk::new();
    let text = "external_url: https://registry.example.com\n\
         upstreams:\n  a: { peers: ['http://10.0.0.1'], realms: ['http://10.0.0.1/token'] }\n  b: { peers: ['http://10.0.0.2'] }\n\
         routes:\n\
         - { path: /v2/a/, methods: [GET, HEAD], to: { upstream: a } }\n\
         - { path: /v2/a, methods: [GET], to: { upstream: a } }\n\
         - { path: /v2/ab, to: { upstream: a } }\n\
         - { host: registry.example.com, path: /v2/, to: { upstream: a } }\n\
         - { host: 'registry.example.com:443', path: /v2/b, to: { upstream: a } }\n\
         - { path: /v2/b, to: { upstream: a } }\n\
         - { path: /, to: { answer: 404 } }\n\
         - { path: /x, to: { answer: 404 } }\n";
    let warnings: Vec<String> = desk.good(text, "").warnings.iter().map(ToString::to_string).collect();
    let expected = [
        "a.yml:3: upstreams.a.realms[0]: clients will send their passwords there in the clear",
        "a.yml:7: routes[1]: no request comes here: routes[0] takes them all",
        "a.yml:10: routes[4]: no request comes here: routes[3] takes them all",
        "a.yml:13: routes[7]: no request comes here: routes[6] takes them all",
        "a.yml:4: upstreams.b: no route names it",
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for expected in expected {
        assert!(warnings.iter().any(|warning| warning.starts_with(expected)), "{expected}: {warnings:#?}");
    }
}

#[test]
fn a_peer_elsewhere_is_no_circle() {
    let desk = Desk::new();
    let text = "external_url: https://gitlab.example.com:5050\nmetrics: { address: 127.0.0.1:5002 }\nupstreams:\n  a:\n    peers:\n";
    for peer in [
        "http://127.0.0.1:5001",
        "https://gitlab.example.com",
        "http://10.0.0.1:5050",
        "http://gitlab.example.com:5000",
    ] {
        desk.good(&format!("{text}    - {peer}\n"), "");
    }
    for peer in [
        "http://127.0.0.1:5050",
        "http://gitlab.example.com:5050",
        "http://localhost:5002",
        "http://192.0.2.7:5050",
        "http://harbour:5050",
    ] {
        assert!(desk.bad(&format!("{text}    - {peer}\n"), "").contains("Pierhead"), "{peer}");
    }
}

#[test]
fn a_redirect_that_comes_back_to_its_route_is_refused() {
    let desk = Desk::new();
    let text = |route: &str| format!("external_url: https://a.example\nregistry: false\nroutes: [{route}]");
    for route in [
        "{ path: /, to: { redirect: 'https://a.example/' } }",
        "{ path: /ui, to: { redirect: 'https://A.example:443/ui/x' } }",
        "{ host: a.example, to: { redirect: 'https://a.example' } }",
    ] {
        assert!(desk.bad(&text(route), "").contains("sends them again"), "{route}");
    }
    for route in [
        "{ path: /ui/, to: { redirect: 'https://a.example/other' } }",
        "{ path: /, to: { redirect: 'https://a.example:8443/' } }",
        "{ path: /, to: { redirect: 'http://a.example/' } }",
    ] {
        desk.good(&text(route), "");
    }
}

fn warnings(settings: &Settings) -> Vec<String> {
    settings.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_registry_that_the_routes_leave_nothing_to_is_warned_of_and_shown_at_its_internal_port() {
    let desk = Desk::new();
    let all = "- { path: /v2/, to: { upstream: a } }\n";
    let text = |registry: &str, routes: &str| {
        format!(
            "external_url: https://a.example\naliases: ['https://b.example']\nregistry: {registry}\n\
             upstreams: {{ a: {{ peers: ['http://10.0.0.1:5000'] }} }}\nroutes:\n{routes}"
        )
    };
    let by_name = "- { host: a.example, to: { upstream: a } }\n- { host: b.example, path: /v2, to: { upstream: a } }\n";
    for (registry, routes, taker, left) in [
        ("{ http: { addr: '127.0.0.1:5002' } }", all, "a.yml:6: routes[0]", "the internal port alone (127.0.0.1:5002)"),
        ("true", all, "a.yml:6: routes[0]", "the internal port alone (127.0.0.1:5000)"),
        ("true", by_name, "a.yml:6: routes[0]", "the internal port alone"),
        ("{ http: { addr: off } }", all, "a.yml:6: routes[0]", "so nobody reaches it"),
    ] {
        let settings = desk.good(&text(registry, routes), "");
        let warnings = warnings(&settings);
        let [warning] = &warnings[..] else { panic!("{warnings:?}\n{routes}") };
        assert!(warning.starts_with(taker) && warning.contains(left), "{warning}");
        let ways = ways(&settings);
        let own: Vec<_> = ways.iter().filter(|way| way.contains("the registry of this server")).collect();
        match settings.front.listeners.iter().find(|listener| listener.internal) {
            Some(internal) => {
                assert!(own[0].starts_with(&format!("{}/v2/ -> ", internal.address)), "{ways:?}");
            }
            None => assert!(own.is_empty(), "{ways:?}"),
        }
    }
}

#[test]
fn a_registry_that_the_routes_leave_something_to_is_shown_by_the_name_that_reaches_it() {
    let desk = Desk::new();
    let text = |routes: &str| {
        format!(
            "external_url: https://a.example\naliases: ['https://b.example:8443']\nregistry: true\n\
             upstreams: {{ a: {{ peers: ['http://10.0.0.1:5000'] }} }}\nroutes:\n{routes}"
        )
    };
    for (routes, door) in [
        ("- { path: /v2/theirs/, to: { upstream: a } }\n", "a.example"),
        ("- { path: /v2/, methods: [GET], to: { upstream: a } }\n", "a.example"),
        ("- { host: a.example, path: /v2/, to: { upstream: a } }\n", "b.example:8443"),
        ("- { host: 'b.example:8443', path: /v2/, to: { upstream: a } }\n", "a.example"),
        ("- { path: /v2/own/, to: embedded }\n- { path: /v2/, to: { upstream: a } }\n", "a.example"),
    ] {
        let settings = desk.good(&text(routes), "");
        assert_eq!(warnings(&settings), [""; 0], "{routes}");
        let last = ways(&settings).pop().unwrap();
        assert!(last.starts_with(&format!("{door}/v2/ -> the registry of this server")), "{routes}{last}");
    }
}

#[test]
fn upstreams_that_name_nobody_are_warned_of_where_a_registry_is_served_instead() {
    let desk = Desk::new();
    for (text, environment) in [("upstreams: {}", ""), ("upstreams:\n#  gitlab:\n", ""), ("", "PIERHEAD_UPSTREAMS={}")]
    {
        let settings = desk.good(text, environment);
        assert!(settings.services.registry, "{text}");
        let warnings = warnings(&settings);
        let [warning] = &warnings[..] else { panic!("{text}{environment}: {warnings:?}") };
        assert!(warning.contains("names none, so a registry of this server's own is served"), "{warning}");
        assert_eq!(again(&desk, &settings).warnings, [], "the page says which registry is meant");
    }
    for text in ["upstreams: {}\nregistry: true", "upstreams:\nregistry: { http: { addr: off } }", GITLAB, ""] {
        assert_eq!(warnings(&desk.good(text, "")), [""; 0], "{text}");
    }
}
