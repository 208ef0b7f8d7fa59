//! Promise: TLS as strict as Mozilla recommends, and browsers are told to stay with it, in every answer.

use std::fs;
use std::process::Command;

use reqwest::Method;
use serde_json::Value;

use crate::support::command::Output;
use crate::support::pierhead::Site;
use crate::support::{soak, wait_for};

/// It opens hundreds of connections, one after the other, in seconds.
const PATIENCE: &str = "1800";

/// What testssl.sh may complain about with the certificate of a private authority, which publishes nothing.
const OF_A_PRIVATE_AUTHORITY: [&str; 5] =
    ["cert_trust", "cert_chain_of_trust", "cert_revocation", "certificate_transparency", "cert_ocspRevoked"];

#[test]
fn testssl_finds_nothing_above_low_with_the_default_policy() {
    let site = Site::new();
    // It asks for the bare name, whatever the port.
    site.configure(&["aliases: [https://localhost]"]);
    let _server = site.start();
    let (authority, report) = (site.directory().join("certs/ca.crt"), site.directory().join("report.json"));
    // Versions, kinds of ciphers, forward secrecy, the order, certificates, headers; and old holes one by one, which takes
    // minutes, in the long form. Client simulations and lists of ciphers judge nothing.
    let holes: &[&str] = if soak() { &["-U", "-g"] } else { &[] };
    let mut testssl = Command::new("timeout");
    testssl.args(["--kill-after=5", PATIENCE, "testssl", "-p", "-s", "-f", "-P", "-S", "-h"]).args(holes);
    testssl.args(["--quiet", "--color", "0", "--warnings", "batch", "--ip", "127.0.0.1"]);
    testssl.arg("--add-ca").arg(authority).arg("--jsonfile").arg(&report).arg(site.authority());
    let said = Output::of(&mut testssl);
    assert!(said.stdout.contains(" Done "), "it came to its end: {said}");
    let text = fs::read_to_string(&report).unwrap_or_else(|error| panic!("{error}: {said}"));
    let findings: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let field = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let complaints: Vec<String> = findings
        .iter()
        .filter(|finding| ["MEDIUM", "HIGH", "CRITICAL", "FATAL"].contains(&field(finding, "severity").as_str()))
        .filter(|finding| !OF_A_PRIVATE_AUTHORITY.iter().any(|id| field(finding, "id").starts_with(id)))
        .map(ToString::to_string)
        .collect();
    assert!(complaints.is_empty(), "\n{}\n{said}", complaints.join("\n"));
    for good in ["TLS1_2", "TLS1_3", "cipher_order", "PFS", "HSTS_time"] {
        let found = findings.iter().find(|finding| field(finding, "id") == good);
        let severity = found.map(|finding| field(finding, "severity"));
        assert_eq!(severity.as_deref(), Some("OK"), "{good}: {found:?}");
    }
}

#[test]
fn hsts_is_on_the_first_answer_of_all_on_what_is_not_there_and_on_what_is_down() {
    let site = Site::new();
    let down = site.directory().join("down");
    site.configure(&[
        "registry: { storage: { filesystem: { rootdirectory: tree } }, http: { addr: off }, health: { file: [{ file: down, interval: 100ms }] } }",
    ]);
    let _server = site.start();
    let registry = site.registry(None);
    let ask = |path: &str| registry.request(Method::GET, path).send().expect("an answer");
    fs::write(&down, "").expect("the site can be written");
    let out = wait_for("the check to fail", 20, || Some(ask("/v2/")).filter(|answer| answer.status() == 503));
    fs::remove_file(&down).expect("the site can be written");
    let challenge = wait_for("the check to pass", 20, || Some(ask("/v2/")).filter(|answer| answer.status() == 401));
    let nothing = ask("/nothing/here");
    assert_eq!(nothing.status(), 404);
    for answer in [&out, &challenge, &nothing] {
        let headers = answer.headers();
        assert_eq!(headers["strict-transport-security"], "max-age=63072000", "{answer:?}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(!headers.contains_key("server"));
    }
    for answer in [&out, &challenge] {
        assert_eq!(answer.headers()["docker-distribution-api-version"], "registry/2.0");
    }
}
