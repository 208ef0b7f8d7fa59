//! Pierhead before several of Debian's docker-registry, reached in the ways that people reach it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::balancers::{Door, application_balancer, haproxy};
use crate::support::certificates::Certificates;
use crate::support::distribution::Distribution;
use crate::support::free_port;
use crate::support::machine;
use crate::support::pierhead::{Pierhead, Site};
use crate::support::process::Process;
use crate::support::wire::balancer_at;

/// The machine's address that is not loopback: where clients come in.
pub(super) const PUBLIC: &str = "192.0.2.1";

/// Who ends TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// We do.
    Here,
    /// HAProxy does, and says by the PROXY protocol for whom it comes.
    Haproxy,
    /// nginx does, as an application load balancer of AWS.
    Application,
}

/// Whether the port that clients know is the one that we listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Same,
    Other,
}

/// A registry by what it was told of its own name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// What its repositories begin with.
    pub(super) name: &'static str,
    relative: bool,
    host: bool,
}

pub(super) const KINDS: [Kind; 4] = [
    Kind { name: "plain", relative: false, host: false },
    Kind { name: "relative", relative: true, host: false },
    Kind { name: "host", relative: false, host: true },
    Kind { name: "relative-host", relative: true, host: true },
];

impl Kind {
    /// In Distribution's `http`. The host lacks the port, as that of many does.
    fn settings(self) -> String {
        let relative = if self.relative { "relativeurls: true, " } else { "" };
        let host = if self.host { format!("host: \"https://{}\"", machine::NAME) } else { String::new() };
        format!("{relative}{host}")
    }

    /// Starts one, in a directory of its own.
    pub(super) fn start(self, directory: &Path) -> Distribution {
        let directory = directory.join(self.name);
        fs::create_dir_all(&directory).expect("the machine is ours");
        Distribution::with_http(&directory, &self.settings())
    }
}

/// Pierhead, whoever stands before it, and the registries behind it, on a fresh machine.
pub(super) struct Front {
    pub(super) site: Site,
    pub(super) registries: Vec<(Kind, Distribution)>,
    pub(super) server: Pierhead,
    _before: Option<Process>,
}

impl Front {
    /// Opens it, with these further settings.
    pub(super) fn open(machine: &Path, way: Way, port: Port, further: &[&str]) -> Self {
        let site = Site::named(machine::NAME);
        let shown = certified(&site);
        let registries: Vec<_> = KINDS.iter().map(|kind| (*kind, kind.start(machine))).collect();
        let listening = if port == Port::Same { site.port() } else { free_port() };
        let listener = match (way, port) {
            (Way::Here, Port::Same) => format!("address: \":{listening}\""),
            (Way::Here, Port::Other) => format!("address: \"127.0.0.1:{listening}\""),
            (Way::Haproxy, _) => format!("address: \"127.0.0.1:{listening}\", tls: false, proxy_protocol: required"),
            (Way::Application, _) => format!("address: \"127.0.0.1:{listening}\", tls: false"),
        };
        let upstreams: Vec<String> = registries
            .iter()
            .map(|(kind, registry)| format!("{}: {{ peers: [\"{}\"], health: off }}", kind.name, registry.origin()))
            .collect();
        let routes: Vec<String> = KINDS.iter().map(|kind| route(&format!("/v2/{}/", kind.name), kind.name)).collect();
        let settings = [
            "registry: false".to_owned(),
            certificates(way, &shown),
            format!("listeners: [{{ {listener} }}]"),
            format!("upstreams: {{ {} }}", upstreams.join(", ")),
            format!("routes: [{}, {}]", routes.join(", "), route("/v2/", KINDS[0].name)),
        ];
        let trusted = "trusted_proxies: [127.0.0.0/8]";
        let trusted = (way != Way::Here).then_some(trusted);
        site.configure(
            &settings.iter().map(String::as_str).chain(trusted).chain(further.iter().copied()).collect::<Vec<_>>(),
        );
        let addresses: &[&str] = if port == Port::Same { &[PUBLIC] } else { &[PUBLIC, "127.0.0.1"] };
        let door = Door { addresses, port: site.port() };
        let before = match (way, port) {
            (Way::Here, Port::Same) => None,
            (Way::Here, Port::Other) => {
                addresses.iter().for_each(|address| balancer_at(address, site.port(), listening, Vec::new()));
                None
            }
            (Way::Haproxy, _) => Some(haproxy(&shown, &door, listening)),
            (Way::Application, _) => Some(application_balancer(&shown, &door, listening)),
        };
        let server = site.start();
        site.trust_on_this_machine();
        Self { site, registries, server, _before: before }
    }

    /// The registry of a kind.
    pub(super) fn registry(&self, kind: Kind) -> &Distribution {
        let found = self.registries.iter().find(|(other, _)| *other == kind);
        &found.expect("there is one of each kind").1
    }
}

fn route(path: &str, upstream: &str) -> String {
    format!("{{ path: {path}, to: {{ upstream: {upstream} }} }}")
}

/// Without TLS here there is nothing that we could show.
fn certificates(way: Way, shown: &Path) -> String {
    let shown = shown.display();
    match way {
        Way::Here => {
            format!("tls: {{ certificates: [{{ certificate: {shown}/server.crt, key: {shown}/server.key }}] }}")
        }
        Way::Haproxy | Way::Application => "tls: {}".to_owned(),
    }
}

/// Makes the certificate that clients are shown, whoever shows it, and leaves its authority where a site has its own.
pub(super) fn certified(site: &Site) -> PathBuf {
    let authority = Certificates::new();
    let directory = site.directory().join("certs");
    fs::create_dir_all(&directory).expect("the site can be written");
    fs::write(directory.join("ca.crt"), authority.pem()).expect("the site can be written");
    authority.write_server(&directory, machine::NAME)
}
