//! A client that asks TLS for one of our names and then calls us by another.

use std::fs;

use super::wire::{Door, statuses};
use crate::support::pierhead::Site;

/// The name that TLS is asked for (an address: none), what the client calls us then, for what, and the answer's status.
/// `registry.test` and `alias.test` have one certificate, `other.test` another, and whoever asks for none gets a third.
const ROWS: &[(&str, &str, &str, u16)] = &[
    ("registry.test", "registry.test", "/v2/", 401),
    ("registry.test", "REGISTRY.test", "/v2/", 401),
    ("registry.test", "alias.test", "/v2/", 401),
    ("alias.test", "registry.test", "/v2/", 401),
    ("other.test", "other.test", "/v2/", 401),
    ("registry.test", "other.test", "/v2/", 421),
    ("other.test", "registry.test", "/v2/", 421),
    ("other.test", "alias.test", "/v2/", 421),
    ("registry.test", "stranger.test", "/v2/", 421),
    ("127.0.0.1", "registry.test", "/v2/", 401),
    ("127.0.0.1", "other.test", "/v2/", 401),
    ("127.0.0.1", "127.0.0.1", "/v2/", 401),
    ("other.test", "127.0.0.1", "/v2/", 401),
    ("other.test", "[::1]", "/v2/", 401),
    ("other.test", "registry.test", "/-/ready", 200),
    ("registry.test", "stranger.test", "/-/ready", 200),
];

#[test]
fn a_connection_serves_all_names_that_share_its_certificate_and_no_others() {
    let site = Site::new();
    let certificates = [["registry.test", "alias.test"].as_slice(), &["other.test"]].map(|names| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names.clone()).expect("a certificate");
        for (end, text) in [("crt", made.cert.pem()), ("key", made.signing_key.serialize_pem())] {
            fs::write(site.directory().join(format!("{}.{end}", names[0])), text).expect("the site can be written");
        }
        made.cert.der().clone()
    });
    // The local authority is made at the first start, which the probes of a site go by.
    site.start().stop();
    let port = Door::of(&site).address.port();
    site.configure(&[
        &format!("aliases: [\"https://registry.test:{port}\", \"https://alias.test:{port}\", \"https://other.test:{port}\"]"),
        "tls: { certificates: [{ certificate: certs/server.crt, key: certs/server.key }, { certificate: registry.test.crt, \
         key: registry.test.key }, { certificate: other.test.crt, key: other.test.key }] }",
    ]);
    let _server = site.start();
    for (asked, host, path, status) in ROWS {
        let door = Door::of(&site);
        let door = match *asked {
            "127.0.0.1" => door,
            "other.test" => door.trusting(certificates[1].clone()),
            _ => door.trusting(certificates[0].clone()),
        };
        let mut wire = door.tls_named(asked, "http/1.1");
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"));
        assert_eq!(statuses(&wire.rest()), [*status], "{asked} then {host}");
    }
}
