//! Claims about what an NGINX configuration comes to: above all, that what was closed stays closed.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::{Format, Imported, Mode, Site, nginx_block, recognise};

fn nothing_exists(_: &Path) -> bool {
    false
}

fn imported(text: &str) -> Imported {
    nginx_block(text, &Site { file: "source", mode: Mode::Front, exists: &nothing_exists })
}

/// A server with TLS and a name, and this in it.
fn server(inside: &str) -> Imported {
    imported(&format!("server {{ listen 443 ssl; server_name a.test;\n{inside}\n}}"))
}

fn page(imported: &Imported) -> &str {
    imported.configuration.as_deref().unwrap_or_else(|| panic!("a configuration:\n{}", imported.report))
}

/// Paths and targets of the routes, in their order: `/v2/ gitlab`, `/x 403`.
fn routes(imported: &Imported) -> Vec<String> {
    let (_, routes) = page(imported).split_once("\nroutes:\n").unwrap_or_default();
    let lines = routes.lines().take_while(|line| line.starts_with(' ')).map(str::trim);
    let mut found: Vec<String> = Vec::new();
    for line in lines {
        match line.split_once(": ") {
            Some(("- path", path)) => found.push(path.to_owned()),
            Some(("upstream" | "answer" | "redirect", to)) => {
                let last = found.last_mut().expect("a path first");
                last.push_str(&format!(" {to}"));
            }
            _ => {}
        }
    }
    found
}

fn lost(imported: &Imported) -> usize {
    imported.report.matches("PROTECTION LOST: ").count()
}

const REGISTRY: &str = "location /v2/ { proxy_pass http://127.0.0.1:5000; }";

#[test]
fn what_a_narrower_location_closes_stays_closed() {
    let imported = server(&format!(
        "{REGISTRY}\nlocation /v2/_catalog {{ return 403; }}\nlocation /v2/private/ {{ deny all; proxy_pass http://127.0.0.1:5000; }}\n\
         location /metrics/ {{ allow 10.9.9.9; deny all; proxy_pass http://127.0.0.1:9090; }}\n\
         location = /v2/one/tags/list {{ deny all; }}\nlocation /basic/ {{ auth_basic x; proxy_pass http://127.0.0.1:1; }}\n\
         location /posts/ {{ if ($request_method = POST) {{ return 403; }} proxy_pass http://127.0.0.1:1; }}\n\
         location /up/ {{ proxy_pass $up; }}\nlocation = /v2/filter {{ proxy_pass http://127.0.0.1:2; }}\nlocation /outer/ {{ deny all; location /outer/in/ {{ proxy_pass http://127.0.0.1:1; }} }}"
    ));
    let expected = [
        "/v2/one/tags/list 403",
        "/v2/_catalog 403",
        "/v2/private/ 403",
        "/v2/filter 403",
        "/outer/in/ 403",
        "/metrics/ 403",
        "/basic/ 403",
        "/posts/ 403",
        "/outer/ 403",
        "/up/ 403",
        "/v2/ gitlab",
    ];
    let mut found = routes(&imported);
    assert_eq!(found.last().map(String::as_str), Some("/v2/ gitlab"), "{found:?}");
    let lengths: Vec<usize> =
        found.iter().map(|route| route.split(' ').next().unwrap_or("").trim_end_matches('/').len()).collect();
    assert!(lengths.is_sorted_by(|one, other| one >= other), "{found:?}");
    found.sort();
    let mut expected = expected.map(str::to_owned);
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(lost(&imported), 0, "{}", imported.report);
    assert!(imported.report.contains("location /metrics/: closed to everybody now"), "{}", imported.report);
    assert!(imported.report.contains("location /v2/private/ -> routes: answered 403"), "{}", imported.report);
}

#[test]
fn who_was_kept_out_and_is_no_more_is_said() {
    let cases = [
        ("location ~ ^/v2/(a|b)/ { allow 10.0.0.0/8; deny all; proxy_pass http://127.0.0.1:5000; }", 2),
        ("location ~ /\\. { return 403; }", 1),
        ("if ($bad) { return 403; }", 1),
        ("location /v2/priv { deny all; }", 1),
        ("location = /v2/ { deny all; }", 2),
        ("location /a//b { deny all; }", 2),
        ("limit_req zone=a;", 1),
        ("location /x { limit_conn a 1; proxy_pass http://127.0.0.1:1; }", 1),
        ("ssl_verify_client on;", 1),
        ("allow 10.0.0.0/8\ndeny all;", 1),
        ("location /.well-known/x { deny all; }", 1),
        ("location /jwt/ { proxy_pass http://127.0.0.1:8080; } location /jwt/auth { deny all; }", 1),
        ("auth_basic off;", 0),
        ("if ($a) { set $b 1; }", 0),
        ("location = /ok { return 200; }", 0),
        ("location /static { root /x; }", 0),
    ];
    for (text, expected) in cases {
        let imported = server(&format!("{text}\n{REGISTRY}"));
        assert_eq!(lost(&imported), expected, "{text}\n{}", imported.report);
    }
    let around =
        imported(&format!("http {{ deny 6.6.6.6; server {{ listen 443 ssl; server_name a.test; {REGISTRY} }} }}"));
    assert!(page(&around).contains("    deny:\n      pull:\n        - 6.6.6.6\n"), "{}", page(&around));
}

#[test]
fn rules_that_hold_for_one_location_alone_close_the_others() {
    let ui = "location / { proxy_pass http://127.0.0.1:8080; }";
    let alone = "location / { allow 10.0.0.0/8; deny all; proxy_pass http://127.0.0.1:8080; }";
    let own = "location /v2/ { allow 10.0.0.0/8; deny all; proxy_pass http://127.0.0.1:5000; }";
    let cases = [
        (format!("deny 1.2.3.4; {ui} {REGISTRY}"), "/ route1", "    deny:\n"),
        (format!("deny 1.2.3.4; {alone} {REGISTRY}"), "/ 403", "    deny:\n"),
        (format!("{alone} {own}"), "/ route1", "    allow:\n"),
        (format!("deny 1.2.3.4; {ui} {own}"), "/ 403", "    allow:\n"),
        (format!("auth_basic x; {ui} {REGISTRY}"), "/ 403", ""),
    ];
    for (text, route, lists) in cases {
        let imported = server(&text);
        assert!(routes(&imported).contains(&route.to_owned()), "{text}\n{}", page(&imported));
        assert!(page(&imported).contains(lists), "{text}\n{}", page(&imported));
    }
}

#[test]
fn the_registrys_location_is_v2_wherever_it_stands() {
    let ui = "location / { proxy_pass http://127.0.0.1:8080; }";
    for text in [format!("{ui} {REGISTRY}"), format!("{REGISTRY} {ui}")] {
        let imported = server(&text);
        assert_eq!(routes(&imported), ["/v2/ gitlab", "/ route1"], "{text}");
        assert!(
            page(&imported).contains("  gitlab:\n    peers:\n      - http://127.0.0.1:5000\n"),
            "{}",
            page(&imported)
        );
    }
    for unreadable in ["http://127.0.0.1:5000/registry/v2/", "$up"] {
        let imported = server(&format!("location /v2/ {{ proxy_pass {unreadable}; }} {ui}"));
        assert!(
            !page(&imported).contains("  gitlab:\n    peers:\n      - http://127.0.0.1:8080\n"),
            "{}",
            page(&imported)
        );
        assert!(imported.report.contains("location /v2/: where requests are handed on to is"), "{}", imported.report);
    }
    assert!(server(&format!("location /v2/ {{ return 403; }} {ui}")).configuration.is_none());
    assert!(server(&format!("return 403; {REGISTRY}")).configuration.is_none());
}

#[test]
fn the_registrys_server_is_the_one_with_v2() {
    let one =
        |port: u16, name: &str, inside: &str| format!("server {{ listen {port} ssl; server_name {name}; {inside} }}\n");
    let others = one(1, "gitlab.test", "location / { proxy_pass http://127.0.0.1:8080; }");
    let imported = imported(&format!("{others}{}", one(2, "registry.test", REGISTRY)));
    assert!(page(&imported).contains("external_url: https://registry.test:2\n"), "{}", page(&imported));
    assert!(!page(&imported).contains("8080"), "{}", page(&imported));
}

#[test]
fn nothing_is_written_that_would_be_open_to_more_than_before() {
    let text = |listen: &str, name: &str, more: &str| {
        format!(
            "server {{ listen {listen}; server_name {name}; {more} location / {{ proxy_pass http://127.0.0.1:5000; }} }}"
        )
    };
    let rules = "allow 10.9.9.9; deny all;";
    for (listen, name, more, written) in [
        ("443 ssl", "_", rules, false),
        ("127.0.0.1:443 ssl", "_", "", false),
        ("443 ssl", "_", "limit_req zone=a;", false),
        ("443 ssl", "_", "", true),
        ("unix:/run/x", "a.test", "", false),
        ("443 quic", "a.test", "", false),
        ("443 ssl", "a.test", rules, true),
    ] {
        let imported = imported(&text(listen, name, more));
        assert_eq!(imported.configuration.is_some(), written, "{listen} {name} {more}\n{}", imported.report);
    }
}

#[test]
fn http3_takes_no_tls_away() {
    let imported =
        imported(&format!("server {{ listen 443 quic reuseport;\nlisten 443 ssl;\nserver_name a.test; {REGISTRY} }}"));
    assert!(page(&imported).contains("  - address: \":443\"\n    tls: true\n"), "{}", page(&imported));
    assert!(imported.report.contains("source:1: listen: HTTP/3 is not spoken"), "{}", imported.report);
}

#[test]
fn clients_come_to_the_port_with_tls() {
    for listens in ["listen 80; listen 443 ssl;", "listen 443 ssl; listen 80;"] {
        let imported = imported(&format!("server {{ {listens} server_name a.test; {REGISTRY} }}"));
        assert!(page(&imported).contains("external_url: https://a.test\n"), "{}", page(&imported));
    }
}

#[test]
fn the_innermost_directive_counts() {
    let text = "http { client_max_body_size 10m;\nproxy_read_timeout 5s; proxy_set_header X-A outer;\nserver { listen 443 ssl; server_name a.test;\n\
                location / { client_max_body_size 0; proxy_read_timeout 900; proxy_set_header X-B b; proxy_pass http://127.0.0.1:5000; }\n\
                location /x { client_max_body_size 3m; proxy_pass http://127.0.0.1:1; }\nclient_max_body_size 2m; proxy_read_timeout 7s; } }";
    let imported = imported(text);
    assert!(!page(&imported).contains("blob") && !page(&imported).contains("X-A"), "{}", page(&imported));
    assert!(page(&imported).contains("      read: 900s\n"), "{}", page(&imported));
    for line in [1, 6] {
        let said = format!("source:{line}: client_max_body_size: line 4 is further in, and decides for the registry");
        assert!(imported.report.contains(&said), "{}", imported.report);
    }
}

#[test]
fn a_proxy_header_is_for_the_port_that_has_it() {
    let listens = "listen 443 ssl proxy_protocol;\nlisten 8443 ssl; server_name a.test;";
    let trusted = imported(&format!("server {{ {listens} set_real_ip_from 10.0.0.0/8; {REGISTRY} }}"));
    let text =
        "  - address: \":443\"\n    tls: true\n    proxy_protocol: required\n  - address: \":8443\"\n    tls: true\n";
    assert!(page(&trusted).contains(text), "{}", page(&trusted));
    assert_eq!(page(&trusted).matches("proxy_protocol: required\n").count(), 1);
    let nobody = imported(&format!("server {{ {listens} {REGISTRY} }}"));
    assert!(!page(&nobody).contains("    proxy_protocol: required\n"), "{}", page(&nobody));
    assert!(!nobody.report.contains("source:1: listen -> ") && lost(&nobody) == 1, "{}", nobody.report);
}

#[test]
fn only_proxies_whose_header_is_read_are_trusted() {
    let cases = [
        ("set_real_ip_from 10.0.0.0/8; real_ip_header X-Forwarded-For;", true),
        ("set_real_ip_from 10.0.0.0/8; real_ip_header X-Real-IP;", false),
        ("set_real_ip_from 10.0.0.0/8;", false),
        ("set_real_ip_from 10.0.0.0/8; real_ip_header CF-Connecting-IP;", false),
        ("set_real_ip_from 0.0.0.0/0; real_ip_header X-Forwarded-For;", false),
        ("set_real_ip_from ::/0; real_ip_header X-Forwarded-For;", false),
    ];
    for (text, trusted) in cases {
        let imported = server(&format!("{text} {REGISTRY}"));
        assert_eq!(page(&imported).contains("\ntrusted_proxies:\n"), trusted, "{text}\n{}", page(&imported));
        let left = imported.ledger.open_ends().any(|line| line.contains("set_real_ip_from"));
        assert_eq!(left, !trusted, "{text}\n{}", imported.report);
    }
}

#[test]
fn a_condition_is_not_shown() {
    let imported = server(&format!("if ($http_x_secret != \"hush\") {{ return 403; }} {REGISTRY}"));
    assert!(!imported.report.contains("hush") && !page(&imported).contains("hush"), "{}", imported.report);
}

#[test]
fn spare_peers_are_left_out() {
    let text = "upstream r { server 10.0.0.1:5000; server 10.0.0.2:5000 backup; server 10.0.0.3:5000 down; }\n\
                server { listen 443 ssl; server_name a.test; location / { proxy_pass http://r; } }";
    let imported = imported(text);
    assert!(page(&imported).contains("    peers:\n      - http://10.0.0.1:5000\n"), "{}", page(&imported));
    assert!(!page(&imported).contains("10.0.0.2") && !page(&imported).contains("10.0.0.3"), "{}", page(&imported));
}

#[test]
fn peers_that_are_verified_now_are_named() {
    let location = "location / { proxy_pass https://10.0.0.5:5000; }";
    assert!(server(location).report.contains("upstreams.gitlab.tls: NGINX did not verify"));
    let told = server(&format!("proxy_ssl_verify on; {location}"));
    assert!(!told.report.contains("did not verify"), "{}", told.report);
}

#[test]
fn a_name_that_is_written_twice_is_one_alias() {
    let imported = server(&format!("server_name b.test; server_name b.test; {REGISTRY}"));
    assert!(page(&imported).contains("aliases:\n  - https://b.test\n\n"), "{}", page(&imported));
}

#[test]
fn a_server_on_one_line_is_recognised() {
    assert_eq!(recognise("server { listen 80; location / { proxy_pass http://a; } }"), Some(Format::Nginx));
    assert_eq!(recognise("http { server { listen 80; }"), Some(Format::Nginx));
}

#[test]
fn thousands_of_locations_take_no_time() {
    let many: String = (0..8_000)
        .map(|number| {
            format!("location /p{number}/ {{ proxy_pass http://10.0.{}.{}:80; }}\n", number / 250, number % 250)
        })
        .collect();
    let begun = Instant::now();
    let imported = server(&format!("{many}{REGISTRY}"));
    assert_eq!(routes(&imported).len(), 8_001);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
