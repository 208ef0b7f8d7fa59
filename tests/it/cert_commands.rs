//! Promise: whoever looks after certificates that are ordered sees how far they are and why they are not there, and
//! nobody who serves waits for them.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
use serde_json::Value;

use crate::support::certificates::Certificates;
use crate::support::machine::on_a_fresh_machine;
use crate::support::pierhead::Site;
use crate::support::{free_port, wait_for};
use crate::upgrade::upgrade;

/// The name that is ordered.
const NAME: &str = "registry.pierhead.dev";

/// `tls:` of a site that orders from a port of this machine.
fn tls(port: u16, more: &str) -> String {
    format!(
        "tls: {{ local: certs, acme: {{ enabled: true, directory: \"https://localhost:{port}/dir\", certificates: [[{NAME}]]{more} }} }}"
    )
}

/// What `cert status` says of the orders of the one certificate.
fn orders(site: &Site) -> Value {
    let said = site.run(&["cert", "status", "--output", "json"]).ok();
    let status: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let orders: Vec<&Value> = status.as_array().expect("a list").iter().map(|one| &one["acme"]).collect();
    let [orders] = orders[..] else { panic!("one certificate: {said}") };
    assert_eq!(orders["names"][0], NAME);
    orders.clone()
}

/// An authority that takes connections and never says a word.
struct Silent {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Silent {
    fn begin() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming().flatten() {
                open.push(stream);
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { port, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Waits until an attempt is under way other than the one that began then.
fn under_way(site: &Site, not_since: &Value) -> Value {
    wait_for("an attempt", 30, || {
        Some(orders(site)["since"].clone()).filter(|since| !since.is_null() && since != not_since)
    })
}

#[test]
fn a_certificate_that_cannot_be_ordered_keeps_nobody_from_serving_and_the_reason_is_to_be_seen() {
    let site = Site::new();
    site.configure(&[&tls(free_port(), "")]);
    let server = site.start();
    let said = server.process.stderr();
    assert!(said.contains(&format!("a certificate for {NAME} from https://localhost:")), "{said}");
    assert!(said.contains("until it is there") && !said.contains("/etc/docker/certs.d"), "{said}");
    let failed = wait_for("a failure", 30, || Some(orders(&site)).filter(|orders| !orders["error"].is_null()));
    assert!(failed["failures"].as_u64() >= Some(1) && failed["ordered"].is_null(), "{failed}");
    let table = site.run(&["cert", "status"]).ok().stdout;
    assert!(table.contains("stands in for a certificate for") && table.contains("the last order failed at"), "{table}");
    site.run(&["cert", "renew", NAME, "--no-wait"]).ok();
    let renewed = site.run(&["cert", "renew"]);
    let reason = failed["error"]["reason"].as_str().expect("a reason").split(':').next().expect("words").to_owned();
    assert!(renewed.code() == Some(1) && renewed.stderr.contains(&reason), "{reason}: {renewed}");
    assert!(renewed.stderr.contains("the next attempt is at"), "{renewed}");
    let stranger = site.run(&["cert", "renew", "other.pierhead.dev"]);
    assert!(stranger.code() == Some(1) && stranger.stderr.contains(NAME), "{stranger}");
    let storage = site.directory().join("state/acme");
    assert_eq!(fs::metadata(storage).expect("it was made").permissions().mode() & 0o777, 0o700);
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(site.run(&["cert", "renew"]).code(), Some(69));
    let kept = site.run(&["cert", "status"]).ok();
    assert!(
        kept.stderr.contains("no certificate for registry.pierhead.dev from") && kept.stderr.contains(&reason),
        "{kept}"
    );
}

#[test]
fn where_nothing_is_ordered_there_is_nothing_to_renew() {
    let site = Site::new();
    let server = site.start();
    site.run(&["cert", "renew"]).refused(&["no certificates are ordered here"]);
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_reload_leaves_an_order_alone_that_it_does_not_change_and_replaces_one_that_it_does() {
    let (site, authority) = (Site::new(), Silent::begin());
    site.configure(&[&tls(authority.port, "")]);
    let server = site.start();
    let first = under_way(&site, &Value::Null);
    site.configure(&[&tls(authority.port, ""), "log: { format: json, access: stdout, level: debug }"]);
    site.run(&["reload"]).ok();
    assert_eq!(orders(&site)["since"], first);
    assert_eq!(authority.connections(), 1);
    site.configure(&[&tls(authority.port, ", contact: [ops@pierhead.dev]")]);
    site.run(&["reload"]).ok();
    under_way(&site, &first);
    site.configure(&["tls: { local: certs }"]);
    site.run(&["reload"]).ok();
    site.run(&["cert", "renew"]).refused(&["no certificates are ordered here"]);
    assert_eq!(server.stop().code(), Some(0), "an order that is under way holds up no end");
}

#[test]
fn a_reload_never_takes_a_good_ordered_certificate_away() {
    let site = Site::new();
    site.configure(&[&tls(free_port(), "")]);
    let pem = site.directory().join(format!("state/acme/certificates/{NAME}.pem"));
    let server = site.start();
    let issuer = || {
        let said = site.run(&["cert", "status", "--output", "json"]).ok();
        let status: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
        status[0]["issuer"].as_str().expect("an issuer").to_owned()
    };
    fs::create_dir_all(pem.parent().expect("a folder")).expect("ours");
    let (certificate, key) = Certificates::new().issue(NAME, ServerAuth);
    fs::write(&pem, key + &certificate).expect("ours");
    wait_for("it to be shown", 30, || issuer().contains("an authority of the tests").then_some(()));
    fs::write(&pem, "damaged").expect("ours");
    site.run(&["reload"]).ok();
    assert!(issuer().contains("an authority of the tests"), "{}", issuer());
    fs::remove_file(&pem).expect("ours");
    site.run(&["reload"]).ok();
    assert!(issuer().contains("an authority of the tests"), "{}", issuer());
    assert!(server.process.stderr().contains("cannot be shown, the one before stays"));
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn who_hands_over_orders_no_more_and_the_other_does() {
    let (site, authority) = (Site::new(), Silent::begin());
    site.configure(&[&tls(authority.port, "")]);
    let mut server = site.start();
    let first = under_way(&site, &Value::Null);
    let successor = upgrade(&site);
    assert_eq!(server.process.wait(30).code(), Some(0), "it waits for no order");
    // It is not taken for one that another holds: that would take a minute to be sure of.
    under_way(&site, &first);
    successor.stop();
}

#[test]
fn what_root_alone_may_read_of_an_order_is_said_at_the_start() {
    on_a_fresh_machine(|_| {
        let site = Site::new();
        fs::set_permissions(site.directory(), fs::Permissions::from_mode(0o755)).expect("ours");
        let key = site.directory().join("eab.key");
        fs::write(&key, "bm90LWEtcmVhbC1rZXktb2YtYW55Ym9keS1hdC1hbGw\n").expect("ours");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("ours");
        site.configure(&["user: nobody", &tls(free_port(), ", eab: { id: fake, key: eab.key }")]);
        let started = site.run(&["serve"]);
        assert!(started.code() == Some(77) && started.stderr.contains("tls.acme.eab.key"), "{started}");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("ours");
        let server = site.start();
        wait_for("a failure", 30, || (!orders(&site)["error"].is_null()).then_some(()));
        assert_eq!(server.stop().code(), Some(0));
    });
}

#[test]
fn a_check_finds_keys_of_orders_that_others_may_read_and_makes_nothing() {
    let site = Site::new();
    site.configure(&[&tls(free_port(), "")]);
    let checked = site.run(&["cert", "check"]);
    let missing = format!("no certificate for {NAME} was ordered yet");
    assert!(checked.code() == Some(1) && checked.stderr.contains(&missing), "{checked}");
    let storage = site.directory().join("state/acme");
    assert!(!storage.exists() && !site.directory().join("certs").exists());
    fs::create_dir_all(&storage).expect("ours");
    let key = storage.join("account-0123456789abcdef.key");
    fs::write(&key, "a key").expect("ours");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("ours");
    let checked = site.run(&["cert", "check"]);
    assert!(checked.code() == Some(1) && checked.stderr.contains("chmod 600"), "{checked}");
}
