//! Promise: TLS as strict as Mozilla recommends, and browsers are told to stay with it, in every answer.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
use reqwest::blocking::Client;
use reqwest::header::HOST;
use reqwest::{Method, Url};
use serde_json::Value;

use crate::support::certificates::Certificates;
use crate::support::command::Output;
use crate::support::machine::on_a_fresh_machine;
use crate::support::pierhead::{PIERHEAD, Site};
use crate::support::process::Process;
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

/// The port that balancers connect to; clients know another.
const BEHIND_A_BALANCER: &str = ":5678";

/// The files of `conf/`, where they listen, and whether browsers are told to come to that host by TLS alone: not to one that
/// is another service's, on all ports of which it would hold.
const FILES: [(&str, &str, bool); 7] = [
    ("aws-alb.yml", "http://registry.example.com:5678", true),
    ("aws-nlb.yml", "https://registry.example.com:5678", true),
    ("gitlab-front.yml", "https://registry.example.com", true),
    ("gitlab-shared-domain.yml", "https://gitlab.example.com:5050", false),
    ("own-domain-443.yml", "https://registry.example.com", true),
    ("pierhead.yml", "https://localhost:5050", true),
    ("shared-domain-5050.yml", "https://gitlab.example.com:5050", false),
];

#[test]
fn the_files_of_conf_bind_browsers_to_tls_but_on_the_name_of_another_service() {
    on_a_fresh_machine(|machine| {
        let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
        let names = fs::read_dir(&conf).expect("the folder").map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| name.into_string().expect("text")).filter(|name| name.ends_with(".yml"));
        let listed = FILES.iter().map(|(file, ..)| (*file).to_owned());
        assert_eq!(names.collect::<BTreeSet<_>>(), listed.collect(), "each file has to say what it means");
        for (file, url, bound) in FILES {
            let text = fs::read_to_string(conf.join(file)).expect("the file");
            let said = strict_transport_security(&machine.join(file), &text, &url.parse().expect("a URL"));
            assert_eq!(said.as_deref(), bound.then_some("max-age=63072000"), "{file}");
        }
    });
}

/// What a server with this file says of it, in an answer over TLS to it or to the balancer before it.
fn strict_transport_security(folder: &Path, text: &str, url: &Url) -> Option<String> {
    let host = url.host_str().expect("a host");
    fs::create_dir(folder).expect("the machine is ours");
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("the machine is ours");
    let (certificate, key) = Certificates::new().issue(host, ServerAuth);
    write(&format!("{host}.crt"), &certificate);
    write(&format!("{host}.key"), &key);
    write("pierhead.yml", &text.replace("10.0.0.0/16", "127.0.0.0/8")); // the balancer is us
    let mut command = Command::new(PIERHEAD);
    let mut server =
        Process::start("pierhead", folder, command.args(["serve", "-c", "pierhead.yml"]).current_dir(folder));
    server.wait_until("serve", 30, |server| server.stderr().contains(" serves https://"));
    let port = url.port_or_known_default().expect("a port");
    // On HTTP/2 a name of its own in Host would contradict the one of the URL.
    let client = Client::builder().no_proxy().http1_only();
    let client = client.danger_accept_invalid_certs(true).resolve(host, ([127, 0, 0, 1], port).into());
    let client = client.build().expect("a client");
    let url = url.join("/v2/").expect("a URL");
    let name = url.authority().trim_end_matches(BEHIND_A_BALANCER).to_owned();
    let request = client.get(url).header(HOST, name).header("X-Forwarded-Proto", "https");
    let answer = request.send().expect("an answer");
    answer.headers().get("strict-transport-security").map(|said| said.to_str().expect("text").to_owned())
}
