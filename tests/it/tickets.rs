//! Promise: whoever was at one node is known at the others, and after a restart, where they share a secret.

use std::fs;

use rcgen::ExtendedKeyUsagePurpose::ServerAuth;

use crate::support::certificates::Certificates;
use crate::support::command::{Output, command};
use crate::support::pierhead::{Pierhead, Site};

const TLS: &str =
    "tls: { local: certs, certificates: [{ certificate: own.crt, key: own.key }], ticket_keys: [ticket.key] }";

/// A node with this certificate and this secret.
fn node(authority: &Certificates, pair: &(String, String), secret: &[u8]) -> (Site, Pierhead) {
    let site = Site::new();
    let put = |name: &str, bytes: &[u8]| fs::write(site.directory().join(name), bytes).expect("ours");
    fs::create_dir_all(site.directory().join("certs")).expect("ours");
    put("certs/ca.crt", authority.pem().as_bytes());
    put("own.crt", pair.0.as_bytes());
    put("own.key", pair.1.as_bytes());
    put("ticket.key", secret);
    site.configure(&[TLS]);
    let server = site.start();
    (site, server)
}

/// Speaks to a node as `openssl s_client` does; `more` says where the session comes from or goes to.
fn s_client(site: &Site, version: &str, more: &[&str]) -> String {
    let mut openssl = command("openssl");
    let address = format!("127.0.0.1:{}", site.port());
    openssl.args(["s_client", "-connect", &address, "-servername", "localhost", "-CAfile", "certs/ca.crt", "-ign_eof"]);
    openssl.arg(version).args(more).current_dir(site.directory());
    let request = "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let said = Output::with_input(&mut openssl, |stdin| stdin.write_all(request.as_bytes())).ok().stdout;
    assert!(said.contains("HTTP/1.1 200"), "{said}");
    said
}

#[test]
fn a_session_is_resumed_at_another_node_and_after_a_restart_with_the_same_secret_alone() {
    let authority = Certificates::new();
    let pair = authority.issue("localhost", ServerAuth);
    let (ours, server) = node(&authority, &pair, &[7; 48]);
    let (same, _same) = node(&authority, &pair, &[7; 48]);
    let (other, _other) = node(&authority, &pair, &[8; 48]);
    let session = ours.directory().join("session.pem").display().to_string();
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client(&ours, version, &["-sess_out", &session]);
        assert!(said.contains("New, TLSv1"), "{said}");
        assert!(s_client(&ours, version, &["-sess_in", &session]).contains("Reused, TLSv1"), "{version}");
        let said = s_client(&same, version, &["-sess_in", &session]);
        assert!(said.contains("Reused, TLSv1"), "{version} at another node: {said}");
        let said = s_client(&other, version, &["-sess_in", &session]);
        assert!(said.contains("New, TLSv1"), "{version} at a node with another secret: {said}");
    }
    s_client(&ours, "-tls1_3", &["-sess_out", &session]);
    assert_eq!(server.stop().code(), Some(0));
    let server = ours.start();
    assert!(s_client(&ours, "-tls1_3", &["-sess_in", &session]).contains("Reused, TLSv1"), "after a restart");
    // A new secret in front, and the old one is still good behind it.
    fs::write(ours.directory().join("new.key"), [9; 48]).expect("ours");
    ours.configure(&[&TLS.replace("[ticket.key]", "[new.key, ticket.key]")]);
    ours.run(&["reload"]).ok();
    assert!(s_client(&ours, "-tls1_3", &["-sess_in", &session]).contains("Reused, TLSv1"), "after a reload");
    ours.configure(&[&TLS.replace("ticket.key", "new.key")]);
    ours.run(&["reload"]).ok();
    assert!(s_client(&ours, "-tls1_3", &["-sess_in", &session]).contains("New, TLSv1"), "the old one is gone");
    fs::write(ours.directory().join("new.key"), "too short").expect("ours");
    let refused = ours.run(&["reload"]);
    assert!(!refused.is_ok() && refused.to_string().contains("new.key is shorter than 32 bytes"), "{refused}");
    assert_eq!(server.stop().code(), Some(0));
}
