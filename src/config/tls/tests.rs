//! What `tls` means and refuses.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::tests::{Desk, meaning};
use super::super::{Settings, show};
use crate::tls::acme::{self, Challenge, Dns, ExternalAccount, LETS_ENCRYPT, LETS_ENCRYPT_STAGING};
use crate::tls::{Clients, NamedClients};

/// A name that the world can reach. Nothing here speaks to anybody.
const PUBLIC: &str = "external_url: https://registry.pierhead.dev\n";

fn warnings(settings: &Settings) -> Vec<String> {
    settings.warnings.iter().map(ToString::to_string).collect()
}

fn names(settings: &Settings) -> Vec<Vec<String>> {
    settings.tls.acme.as_ref().map(|acme| acme.certificates.clone()).unwrap_or_default()
}

/// A desk with the files that the texts below name.
fn desk() -> Desk {
    let desk = Desk::new();
    for file in ["ca.pem", "other.pem", "crl.pem", "eab.key", "tsig.key", "a.crt", "a.key"] {
        desk.put(file, "");
    }
    desk.put("hook", "#!/bin/sh\n").put("www/index.html", "");
    std::fs::set_permissions(desk.path().join("hook"), Permissions::from_mode(0o755)).unwrap();
    for key in ["one.key", "two.key"] {
        desk.put(key, [7; 48]);
    }
    desk
}

#[test]
fn a_public_name_without_a_certificate_gets_one_and_nobody_else_does() {
    let desk = desk();
    let settings = desk.good(PUBLIC, "");
    let expected = acme::Config {
        directory: LETS_ENCRYPT.to_owned(),
        ca: None,
        contact: Vec::new(),
        challenges: vec![Challenge::TlsAlpn01, Challenge::Http01],
        certificates: vec![vec!["registry.pierhead.dev".to_owned()]],
        account: None,
        profile: None,
        webroot: None,
        dns: None,
        storage: desk.path().join("data/acme"),
    };
    assert_eq!(settings.tls.acme, Some(expected));
    assert_eq!(warnings(&settings), [""; 0], "ports 443 and 80 are open by default");
    let aliases = "aliases: [https://registry.pierhead.dev:8443, https://b.pierhead.dev, https://10.0.0.1, https://a.internal, http://clear.pierhead.dev]\n";
    assert_eq!(names(&desk.good(&format!("{PUBLIC}{aliases}"), "")), [["registry.pierhead.dev", "b.pierhead.dev"]]);
    for other in [
        "",
        "external_url: https://registry.example.com",
        "external_url: https://registry.internal",
        "external_url: https://203.0.113.7",
        "external_url: http://registry.pierhead.dev",
        "aliases: [https://registry.pierhead.dev:5050]",
        "external_url: https://registry.pierhead.dev\ntls: { acme: { enabled: false } }",
        "external_url: https://registry.pierhead.dev\ntls: { certificates: [{ certificate: a.crt, key: a.key }] }",
        "external_url: https://registry.pierhead.dev\nlisteners: [{ address: ':8080', tls: false }]",
    ] {
        let settings = desk.good(other, "");
        assert_eq!(settings.tls.acme, None, "{other}");
        assert_eq!(warnings(&settings), [""; 0], "{other}");
        assert!(show(&settings).contains("\n  acme:\n    enabled: false"), "{other}");
        assert_eq!(meaning(desk.good(&show(&settings), "")), meaning(settings), "{other}");
    }
    let none = desk.good("external_url: https://registry.pierhead.dev\ntls: { certificates: [] }", "");
    assert!(none.tls.acme.is_some(), "no certificate is written, in so many words");
    desk.put("etc/gitlab/ssl/registry.pierhead.dev.crt", "").put("etc/gitlab/ssl/registry.pierhead.dev.key", "");
    assert_eq!(desk.good(PUBLIC, "").tls.acme, None, "GitLab's own is there");
}

#[test]
fn the_registry_of_a_config_yml_orders_nothing() {
    let desk = desk();
    desk.put("config.yml", "version: 0.1\nstorage: { filesystem: { rootdirectory: r } }\nhttp: { addr: ':5000', host: 'https://registry.pierhead.dev' }\n");
    let settings = super::super::load_registry(Path::new("config.yml"), [], &super::super::tests::machine(desk.path()));
    assert_eq!(settings.unwrap().tls.acme, None);
}

#[test]
fn who_says_so_gets_one_beside_files_and_from_another_directory_for_names_of_its_own() {
    let desk = desk();
    let beside = "tls: { certificates: [{ certificate: a.crt, key: a.key }], acme: { enabled: true, directory: letsencrypt-staging } }";
    let settings = desk.good(&format!("{PUBLIC}{beside}"), "");
    assert_eq!((settings.tls.certificates.len(), names(&settings).len()), (1, 1));
    assert_eq!(settings.tls.acme.unwrap().directory, LETS_ENCRYPT_STAGING);
    let own = "external_url: https://registry.test:5050\naliases: [https://localhost:5050, https://registry.internal]\n\
               tls: { acme: { enabled: true, directory: 'https://127.0.0.1:14000/dir', ca: ca.pem, challenges: [http-01], webroot: www } }";
    assert_eq!(names(&desk.good(own, "")), [["registry.test", "registry.internal"]]);
    for (text, why) in [
        ("external_url: https://registry.test", "neither external_url nor an alias is https:// with a public DNS name"),
        ("external_url: https://registry.example.com", "neither external_url nor an alias is https:// with a public"),
        ("{}", "neither external_url nor an alias"),
        ("external_url: http://registry.pierhead.dev", "nobody listens with TLS"),
    ] {
        let problems = desk.bad(&format!("{}\ntls: {{ acme: {{ enabled: true }} }}", text.replace("{}", "")), "");
        assert!(problems.contains("tls.acme.enabled: ") && problems.contains(why), "{problems}");
    }
    let many: Vec<String> = (0..150).map(|number| format!("https://a{number}.pierhead.dev")).collect();
    let settings = desk.good(&format!("{PUBLIC}aliases: [{}]", many.join(", ")), "");
    assert_eq!(names(&settings).iter().map(Vec::len).collect::<Vec<_>>(), [100, 51], "as many as authorities take");
}

#[test]
fn the_way_that_leads_to_us_is_the_first_where_nothing_is_written() {
    let desk = desk();
    let first = |text: &str| desk.good(text, "").tls.acme.unwrap().challenges[0];
    let shared = "external_url: https://gitlab.pierhead.dev:5050\n";
    assert_eq!(first(shared), Challenge::TlsAlpn01);
    let with_80 = format!("{shared}listeners: [{{ address: ':5050' }}, {{ address: ':80', redirect: https }}]");
    assert_eq!(first(&with_80), Challenge::Http01);
    assert_eq!(first(&format!("{shared}tls: {{ acme: {{ webroot: www }} }}")), Challenge::Http01);
    assert_eq!(
        first(&format!("{shared}listeners: [{{ address: ':443' }}, {{ address: ':80', redirect: https }}]")),
        Challenge::TlsAlpn01
    );
    assert_eq!(first(PUBLIC), Challenge::TlsAlpn01);
    desk.put("var/opt/gitlab/nginx/www/index.html", "");
    let settings = desk.good(shared, "");
    let acme = settings.tls.acme.as_ref().unwrap();
    assert_eq!(acme.webroot, Some(desk.path().join("var/opt/gitlab/nginx/www")));
    assert_eq!((acme.challenges[0], warnings(&settings)), (Challenge::Http01, Vec::new()));
    let by_tls = desk.good(&format!("{PUBLIC}tls: {{ acme: {{ challenges: [tls-alpn-01] }} }}"), "");
    assert_eq!(by_tls.tls.acme.unwrap().webroot, None, "nothing is put there");
}

#[test]
fn whoever_cannot_be_reached_learns_why_and_what_to_do() {
    let desk = desk();
    let shared = "external_url: https://gitlab.pierhead.dev:5050\n";
    let [warning] = &warnings(&desk.good(shared, ""))[..] else { panic!("one warning") };
    assert!(warning.starts_with("a.yml:1: external_url: the authority will connect to port 443 (tls-alpn-01) or 80 (http-01) of gitlab.pierhead.dev"), "{warning}");
    for word in
        ["redirect: https", "tls.acme.webroot", "/etc/gitlab/ssl/gitlab.pierhead.dev.crt", "dns-01", "enabled: false"]
    {
        assert!(warning.contains(word), "{word}: {warning}");
    }
    let other = shared.replace("5050", "8443") + "tls: { acme: { challenges: [tls-alpn-01] } }";
    let [warning] = &warnings(&desk.good(&other, ""))[..] else { panic!("one warning") };
    assert!(warning.contains("port 443 (tls-alpn-01) of") && warning.contains("add http-01 to"), "{warning}");
    assert!(!warning.contains("GitLab"), "{warning}");
    for quiet in [
        "listeners: [{ address: ':5050' }, { address: ':443' }]",
        "listeners: [{ address: ':5050' }, { address: ':80', redirect: https }]",
        "listeners: [{ address: systemd }]",
        "tls: { acme: { webroot: www } }",
        "tls: { acme: { challenges: [dns-01], dns: { hook: ./hook } } }",
        "tls: { acme: { enabled: false } }",
    ] {
        assert_eq!(warnings(&desk.good(&format!("{shared}{quiet}"), "")), [""; 0], "{quiet}");
    }
    let forwarded = format!("{PUBLIC}listeners: [{{ address: ':5678' }}]");
    assert_eq!(warnings(&desk.good(&forwarded, "")), [""; 0], "clients come by 443, so something forwards");
    let only_80 = format!(
        "{shared}listeners: [{{ address: ':5050' }}, {{ address: ':443' }}]\ntls: {{ acme: {{ enabled: auto, challenges: [http-01] }} }}"
    );
    let [warning] = &warnings(&desk.good(&only_80, ""))[..] else { panic!("one warning") };
    assert!(
        warning.starts_with("a.yml:3: tls.acme.enabled: the authority will connect to port 80 (http-01) of"),
        "{warning}"
    );
}

#[test]
fn keys_that_say_how_where_nothing_is_ordered_are_warned_of() {
    let desk = desk();
    let how = "tls: { acme: { contact: [ops@example.com] } }\n";
    let [warning] = &warnings(&desk.good(&format!("external_url: https://registry.test\n{how}"), ""))[..] else {
        panic!("one")
    };
    assert!(warning.starts_with("a.yml:2: tls.acme.contact: without effect"), "{warning}");
    assert!(
        warning.contains("https://registry.test) is not https:// with a public DNS name: write enabled: true"),
        "{warning}"
    );
    let files = "tls: { certificates: [{ certificate: a.crt, key: a.key }], acme: { contact: [ops@example.com] } }\n";
    assert!(warnings(&desk.good(&format!("{PUBLIC}{files}"), ""))[0].contains("there is a certificate in files"));
    let off = how.replace("contact", "enabled: false, contact");
    assert_eq!(warnings(&desk.good(&off, "")), [""; 0], "it was switched off");
}

/// Every key of `tls` at once.
const EVERY_KEY: &str = "external_url: https://registry.pierhead.dev
aliases: [https://deploy.pierhead.dev]
tls:
  acme:
    enabled: true
    directory: https://acme.pierhead.dev/v2/DIR
    ca: ca.pem
    contact: [ops@example.com, \"o'ops@example.com\"]
    challenges: [dns-01, http-01]
    certificates: [[Registry.pierhead.dev, b.internal], ['*.pierhead.dev']]
    eab: { id: kid-1, key: eab.key }
    profile: shortlived
    webroot: www
    dns: { server: '[2001:db8::1]:5353', zone: Pierhead.dev., key: tsig.key }
    storage: shared/acme
  client_auth:
    - { mode: required, ca: ca.pem, names: [deploy.pierhead.dev], depth: 3, crl: [crl.pem], header: X-Client }
    - { mode: off, names: ['*.pierhead.dev'] }
    - { mode: optional, ca: other.pem }
  ticket_keys: [one.key, two.key]
";

#[test]
fn every_key_means_what_it_says_and_is_shown() {
    let desk = desk();
    let text = EVERY_KEY;
    let settings = desk.good(text, "");
    let file = |name: &str| desk.path().join(name);
    let acme = settings.tls.acme.clone().unwrap();
    let dns = Dns::Update {
        server: "[2001:db8::1]:5353".to_owned(),
        zone: Some("pierhead.dev".to_owned()),
        key: Some(file("tsig.key")),
    };
    let expected = acme::Config {
        directory: "https://acme.pierhead.dev/v2/DIR".to_owned(),
        ca: Some(file("ca.pem")),
        contact: vec!["ops@example.com".to_owned(), "o'ops@example.com".to_owned()],
        challenges: vec![Challenge::Dns01, Challenge::Http01],
        certificates: vec![
            vec!["registry.pierhead.dev".to_owned(), "b.internal".to_owned()],
            vec!["*.pierhead.dev".to_owned()],
        ],
        account: Some(ExternalAccount { id: "kid-1".to_owned(), key: file("eab.key") }),
        profile: Some("shortlived".to_owned()),
        webroot: Some(file("www")),
        dns: Some(dns),
        storage: file("shared/acme"),
    };
    assert_eq!(acme, expected);
    let anyone = |names: &[&str], clients| NamedClients {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        clients,
        depth: 1,
        revoked: Vec::new(),
        header: "X-SSL-Client-S-DN".to_owned(),
    };
    let required = NamedClients {
        depth: 3,
        revoked: vec![file("crl.pem")],
        header: "X-Client".to_owned(),
        ..anyone(&["deploy.pierhead.dev"], Clients::MustProve(vec![file("ca.pem")]))
    };
    let others =
        [anyone(&["*.pierhead.dev"], Clients::Anyone), anyone(&[], Clients::MayProve(vec![file("other.pem")]))];
    assert_eq!(settings.tls.clients, [vec![required], others.to_vec()].concat());
    assert_eq!(settings.tls.ticket_keys, [file("one.key"), file("two.key")]);
    assert_eq!(warnings(&settings), [""; 0]);
    let page = show(&settings);
    assert_eq!(meaning(desk.good(&page, "")), meaning(settings), "{page}");
    let hook = text.replace("{ server: '[2001:db8::1]:5353', zone: Pierhead.dev., key: tsig.key }", "{ hook: ./hook }");
    let settings = desk.good(&hook, "");
    assert_eq!(settings.tls.acme.as_ref().unwrap().dns, Some(Dns::Hook { program: file("hook") }));
    assert_eq!(meaning(desk.good(&show(&settings), "")), meaning(settings));
}

#[test]
fn one_mapping_is_a_list_of_one_and_variables_say_all_of_it() {
    let desk = desk();
    let one = desk.good(&format!("{PUBLIC}tls: {{ client_auth: {{ mode: required, ca: ca.pem }} }}"), "");
    let variable = desk.good(PUBLIC, "PIERHEAD_TLS_CLIENT_AUTH={ mode: required, ca: ca.pem }");
    let list = desk.good(PUBLIC, "PIERHEAD_TLS_CLIENT_AUTH=[{ mode: required, ca: ca.pem }]");
    assert_eq!((one.tls.clients.len(), &one.tls), (1, &variable.tls));
    assert_eq!(one.tls, list.tls);
    let environment = "PIERHEAD_TLS_ACME_ENABLED=true\nPIERHEAD_TLS_ACME_DIRECTORY=letsencrypt-staging\n\
                       PIERHEAD_TLS_ACME_CONTACT=[a@example.com, b@example.com]\nPIERHEAD_TLS_ACME_EAB_ID=k\n\
                       PIERHEAD_TLS_ACME_EAB_KEY=eab.key\nPIERHEAD_TLS_ACME_CERTIFICATES=[[a.pierhead.dev]]\n\
                       PIERHEAD_TLS_ACME_CHALLENGES=[dns-01]\nPIERHEAD_TLS_ACME_DNS_SERVER=ns1.pierhead.dev\n\
                       PIERHEAD_TLS_TICKET_KEYS=[one.key]\nPIERHEAD_TLS_ACME_STORAGE=/srv/acme";
    let settings = desk.good(PUBLIC, environment);
    let acme = settings.tls.acme.unwrap();
    assert_eq!((acme.contact.len(), acme.directory.as_str()), (2, LETS_ENCRYPT_STAGING));
    assert_eq!(acme.dns, Some(Dns::Update { server: "ns1.pierhead.dev:53".to_owned(), zone: None, key: None }));
    assert_eq!((acme.storage.as_path(), settings.tls.ticket_keys.len()), (Path::new("/srv/acme"), 1));
}

#[test]
fn where_nobody_can_come_because_none_can_show_what_is_required_is_said() {
    let desk = desk();
    let text = |listeners: &str| {
        format!(
            "{PUBLIC}aliases: [http://clear.internal]\nlisteners: [{listeners}]\ntls: {{ client_auth: {{ mode: required, ca: ca.pem }} }}"
        )
    };
    let found = warnings(&desk.good(&text("{ address: ':443' }, { address: ':8080', tls: false }"), ""));
    let [warning] = &found[..] else { panic!("{found:?}") };
    assert!(
        warning.starts_with(
            "a.yml:4: tls.client_auth: without TLS nobody can show a certificate: by listeners[1] nobody reaches a name"
        ),
        "{warning}"
    );
    let redirects = text("{ address: ':443' }, { address: ':80', redirect: https }");
    assert_eq!(warnings(&desk.good(&redirects, "")), [""; 0]);
    let optional = text("{ address: ':443' }, { address: ':8080', tls: false }").replace("required", "optional");
    assert_eq!(warnings(&desk.good(&optional, "")), [""; 0]);
}

#[test]
fn a_header_that_says_something_else_by_any_spelling_cannot_tell_the_subject() {
    let desk = desk();
    let text =
        |header: &str| format!("{PUBLIC}tls: {{ client_auth: {{ mode: required, ca: ca.pem, header: '{header}' }} }}");
    for header in [
        "Content-Type",
        "content_type",
        "Content.Type",
        "Docker_Content_Digest",
        "If_Match",
        "X_Forwarded_For",
        "x_request_id",
    ] {
        assert!(desk.bad(&text(header), "").contains("says something else already"), "{header}");
    }
    desk.good(&text("X_SSL_Client_S_DN"), "");
}

#[test]
fn a_name_that_no_client_comes_by_is_warned_of() {
    let desk = desk();
    let text = |names: &str| {
        format!(
            "{PUBLIC}aliases: [https://b.pierhead.dev:8443]\ntls: {{ client_auth: {{ mode: required, ca: ca.pem, names: [{names}] }} }}"
        )
    };
    assert_eq!(warnings(&desk.good(&text("B.pierhead.dev, '*.pierhead.dev'"), "")), [""; 0]);
    let found = warnings(&desk.good(&text("b.pierhead.dev, c.pierhead.dev, '*.example.com'"), ""));
    let [one, other] = &found[..] else { panic!("{found:?}") };
    assert!(one.starts_with("a.yml:3: tls.client_auth.names[1]: no client comes by c.pierhead.dev: "), "{one}");
    assert!(other.contains("names[2]: no client comes by *.example.com"), "{other}");
    let here = "tls: { client_auth: { mode: required, ca: ca.pem, names: [harbour, localhost] } }";
    assert_eq!(warnings(&desk.good(here, "")), [""; 0], "the machine's own names");
}

#[test]
fn a_file_without_authorities_is_named_with_its_key() {
    let desk = desk();
    let entry = "{ mode: optional, ca: other.pem, names: [registry.pierhead.dev] }";
    let unusable = |tls: &str| -> Vec<String> {
        let found = desk.good(&format!("{PUBLIC}tls: {{ {tls} }}"), "").unusable_authorities();
        found.iter().map(ToString::to_string).collect()
    };
    let file = |name: &str| format!("{} holds no", desk.path().join(name).display());
    let of_acme = unusable("acme: { ca: ca.pem }");
    assert!(of_acme[0].starts_with(&format!("a.yml:2: tls.acme.ca: {}", file("ca.pem"))), "{of_acme:?}");
    let one = unusable(&format!("client_auth: {entry}"));
    assert!(one[0].starts_with(&format!("a.yml:2: tls.client_auth: {}", file("other.pem"))), "{one:?}");
    let list = unusable(&format!("client_auth: [{{ mode: off, names: [a.test] }}, {entry}]"));
    assert!(list[0].starts_with(&format!("a.yml:2: tls.client_auth[1]: {}", file("other.pem"))), "{list:?}");
    assert_eq!(unusable("ticket_keys: [one.key]"), [""; 0]);
}

#[test]
fn a_command_that_does_not_serve_needs_no_file_to_be_there() {
    let desk = Desk::new();
    let text = format!(
        "{PUBLIC}tls: {{ acme: {{ ca: a, webroot: b, eab: {{ id: k, key: c }}, challenges: [http-01, dns-01], dns: {{ hook: d }} }}, \
         client_auth: {{ mode: required, ca: e, crl: [f] }}, ticket_keys: [g] }}"
    );
    desk.put("a.yml", &text);
    let machine = super::super::Machine { serves: false, ..super::super::tests::machine(desk.path()) };
    super::super::load(Some(Path::new("a.yml")), [], &machine).unwrap();
    for key in ["ca", "webroot", "eab.key", "dns.hook"] {
        assert!(desk.bad(&text, "").contains(&format!("tls.acme.{key}: ")), "{key}");
    }
}
