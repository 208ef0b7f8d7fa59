//! Promise: with the files of `conf/` for AWS a push through the balancer works, whichever balancer it is and whoever ends
//! TLS; clients are known by their own addresses; and health checks need neither a name nor a header.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use reqwest::blocking::Client as Http;

use crate::support::balancers::{Door, application_balancer_to, haproxy};
use crate::support::certificates::Certificates;
use crate::support::clients::{Client, Skopeo};
use crate::support::content::Content;
use crate::support::distribution::Distribution;
use crate::support::image::{Image, Layout};
use crate::support::machine::{self, on_a_fresh_machine};
use crate::support::pierhead::PIERHEAD;
use crate::support::process::Process;
use crate::support::registry::Registry;
use crate::support::wait_for;
use crate::support::wire::balancer_at;

/// Where clients come in, and from where, as everything is on one machine.
const PUBLIC: &str = "192.0.2.1";
/// What the network load balancer says whose connection it is.
const CLIENT: [u8; 4] = [203, 0, 113, 9];
/// As in the files.
const LISTENING: u16 = 5678;
const REGISTRY: u16 = 5000;

/// A file of `conf/` in use, before a registry on its port.
struct Deployment {
    server: Process,
    authority: String,
    _registry: Distribution,
}

impl Deployment {
    /// Starts it with the name and the network of this machine in the file, and what `change` makes of it.
    fn of(file: &str, machine: &Path, change: impl FnOnce(String) -> String) -> Self {
        let folder = machine.join("site");
        fs::create_dir_all(folder.join("tree")).expect("the machine is ours");
        let certificates = Certificates::new();
        certificates.write_server(&folder, machine::NAME);
        let trusted = Path::new("/etc/docker/certs.d").join(machine::NAME);
        fs::create_dir_all(&trusted).expect("the machine is ours");
        fs::write(trusted.join("ca.crt"), certificates.pem()).expect("the machine is ours");
        let registry = Distribution::at(REGISTRY, &folder, &folder.join("tree"));

        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(file)).expect("the file");
        let text = text.replace("registry.example.com.", "server.").replace("registry.example.com", machine::NAME);
        let text = change(text.replace("10.0.0.0/16", "127.0.0.0/8"));
        fs::write(folder.join("pierhead.yml"), text + "log: { format: json }\n").expect("the machine is ours");
        let mut command = Command::new(PIERHEAD);
        let mut server =
            Process::start("pierhead", &folder, command.args(["serve", "-c", "pierhead.yml"]).current_dir(&folder));
        server.wait_until("serve", 30, |server| server.stderr().contains(" serves https://"));
        Self { server, authority: certificates.pem(), _registry: registry }
    }

    fn folder(machine: &Path) -> std::path::PathBuf {
        machine.join("site")
    }

    /// A push and a pull with a real client and, where every `Location` is looked at, by hand; then the client's address.
    fn works(&self, machine: &Path, client: &str) {
        let mut skopeo = Skopeo::new(machine);
        let image = Image::small(91);
        let layout = Layout::of_image(&machine.join("image"), &image);
        let name = format!("{}/team/app:latest", machine::NAME);
        skopeo.push(&image, &layout, &name).ok();
        let pulled = skopeo.pull(&name).unwrap_or_else(|output| panic!("{output}"));
        assert_eq!(pulled.id, image.id());

        let origin = format!("https://{}", machine::NAME);
        let registry = Registry::guarded(&origin, "", &self.authority, None).unguarded();
        let repository = registry.repository("team/raw", "");
        let upload = repository.begin().expect("begun");
        assert!(upload.starts_with(&format!("{origin}/v2/team/raw/blobs/uploads/")), "{upload}");
        repository.push("latest", &[Content::new(92, 2_000_000)]).expect("pushed");
        let ours = |log: &str| -> Vec<serde_json::Value> {
            let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            lines.filter(|line| line["path"].as_str().is_some_and(|path| path.starts_with("/v2/team/"))).collect()
        };
        let lines = ours(&self.server.stdout());
        assert!(lines.len() > 6 && lines.iter().all(|line| line["client"] == client), "{lines:#?}");
        let failed = lines.iter().filter(|line| line["status"].as_u64().is_none_or(|status| status >= 500));
        assert_eq!(failed.count(), 0, "{lines:#?}");
    }
}

/// A health check that says nothing of whom it is for is content as soon as the registry behind us has answered once.
fn becomes_ready(scheme: &str) {
    wait_for("a peer that is well", 10, || probed(scheme, "/-/ready").filter(|status| *status == 200));
}

/// The status of a health check: straight to the port, by address.
fn probed(scheme: &str, path: &str) -> Option<u16> {
    let client = Http::builder().no_proxy().danger_accept_invalid_certs(true).build().expect("a client");
    client.get(format!("{scheme}://127.0.0.1:{LISTENING}{path}")).send().ok().map(|answer| answer.status().as_u16())
}

/// The listener that the file has as another way, in place of the one that is written.
fn instead(text: &str, other: &str) -> String {
    let other_way = format!("#- {other}");
    assert!(text.contains(&other_way), "{other}");
    let written = text.lines().find(|line| line.starts_with("  - { address:")).expect("a listener");
    text.replace(written, "").replace(&other_way, &format!("- {other}"))
}

const DOOR: Door<'static> = Door { addresses: &[PUBLIC], port: 443 };

#[test]
fn pushes_come_through_an_application_load_balancer() {
    on_a_fresh_machine(|machine| {
        let deployment = Deployment::of("aws-alb.yml", machine, |text| text);
        let to = format!("http://127.0.0.1:{LISTENING}");
        let _balancer = application_balancer_to(&Deployment::folder(machine), &DOOR, &to);
        becomes_ready("http");
        deployment.works(machine, PUBLIC);
    });
}

#[test]
fn pushes_come_through_an_application_load_balancer_that_speaks_tls_with_us() {
    on_a_fresh_machine(|machine| {
        let listener = "{ address: \":5678\", tls: true }";
        let deployment = Deployment::of("aws-alb.yml", machine, |text| instead(&text, listener));
        let to = format!("https://127.0.0.1:{LISTENING}");
        let _balancer = application_balancer_to(&Deployment::folder(machine), &DOOR, &to);
        becomes_ready("https");
        deployment.works(machine, PUBLIC);
    });
}

/// The header of a network load balancer for [`CLIENT`].
fn header() -> Vec<u8> {
    let block = [&CLIENT[..], &[192, 0, 2, 1], &[0x12, 0x34, 0x01, 0xbb]].concat();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &block].concat()
}

#[test]
fn pushes_come_through_a_network_load_balancer_that_names_clients() {
    on_a_fresh_machine(|machine| {
        let deployment = Deployment::of("aws-nlb.yml", machine, |text| text);
        balancer_at(PUBLIC, 443, LISTENING, header());
        becomes_ready("https");
        assert_ne!(probed("https", "/v2/"), Some(200), "a health check gets nothing else");
        deployment.works(machine, "203.0.113.9");
    });
}

#[test]
fn pushes_come_through_a_network_load_balancer_that_ends_tls() {
    on_a_fresh_machine(|machine| {
        let listener = "{ address: \":5678\", tls: false, proxy_protocol: optional }";
        let without_certificates = |text: String| {
            let text = instead(&text, listener);
            text[..text.find("tls:\n").expect("tls")].to_owned() + &text[text.find("upstreams:").expect("upstreams")..]
        };
        let deployment = Deployment::of("aws-nlb.yml", machine, without_certificates);
        let _balancer = haproxy(&Deployment::folder(machine), &DOOR, LISTENING);
        deployment.works(machine, PUBLIC);
    });
}

#[test]
fn pushes_come_through_a_network_load_balancer_that_hands_connections_on_as_they_are() {
    on_a_fresh_machine(|machine| {
        let as_it_is =
            |text: String| instead(&text, "{ address: \":5678\" }").replace("trusted_proxies: [127.0.0.0/8]", "");
        let deployment = Deployment::of("aws-nlb.yml", machine, as_it_is);
        balancer_at(PUBLIC, 443, LISTENING, Vec::new());
        // The real one keeps the client's address; this relay is the client for us.
        deployment.works(machine, "127.0.0.1");
        assert!(TcpStream::connect((PUBLIC, LISTENING)).is_ok());
    });
}
