//! Promise: each name has its clients show certificates as the operator wants it, and whose it was is told to upstreams
//! in a header that nobody can forge.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

use crate::support::certificates::Certificates;
use crate::support::clients::{Client, Skopeo};
use crate::support::command::{Output, command};
use crate::support::image::{Image, Layout};
use crate::support::machine::{self, on_a_fresh_machine};
use crate::support::pierhead::{ADMIN_PASSWORD, Pierhead, Site};
use crate::support::wait_for;

const NAMES: [&str; 4] = ["must.test", "a.wild.test", "may.test", "open.test"];

/// A server with a rule for each name, and the authorities of its clients.
struct Gatehouse {
    site: Site,
    clients: Certificates,
    /// The lines of each request that the upstream of `/recorded/` got.
    recorded: Receiver<Vec<String>>,
    server: Pierhead,
}

impl Gatehouse {
    fn open() -> Self {
        let site = Site::new();
        let clients = Certificates::new();
        let between = clients.intermediate();
        let put = |name: &str, text: &str| fs::write(site.directory().join(name), text).expect("ours");
        put("clients.crt", &clients.pem());
        let deep = between.intermediate().issue("deep.test", ClientAuth);
        for (name, (certificate, key)) in [
            ("good", clients.issue("good.test", ClientAuth)),
            ("withdrawn", clients.issue("withdrawn.test", ClientAuth)),
            ("stranger", Certificates::new().issue("good.test", ClientAuth)),
            ("server", clients.issue("good.test", ServerAuth)),
            ("deep", (format!("{}{}", deep.0, between.pem()), deep.1)),
        ] {
            put(&format!("{name}.crt"), &certificate);
            put(&format!("{name}.key"), &key);
        }
        put("withdrawn.pem", &clients.withdrawn(&[]));
        let (peer, recorded) = recorder();
        let port = site.port();
        let aliases: Vec<String> = NAMES.map(|name| format!("\"https://{name}:{port}\"")).into();
        let rule = |mode: &str, names: &str| {
            format!("{{ mode: {mode}, ca: clients.crt, crl: [withdrawn.pem], names: {names} }}")
        };
        let rules = [rule("required", "[must.test, '*.wild.test']"), rule("optional", "[may.test]")];
        site.configure(&[
            &format!("aliases: [{}]", aliases.join(", ")),
            &format!("tls: {{ local: certs, client_auth: [{}] }}", rules.join(", ")),
            &format!("upstreams: {{ recorder: {{ peers: [\"{peer}\"] }} }}"),
            "routes: [{ path: /recorded/, to: { upstream: recorder } }]",
        ]);
        let server = site.start();
        Self { site, clients, recorded, server }
    }

    /// What curl gets for a URL of a name: the status, or why there is none. `shown` is whose certificate it shows.
    fn curl(&self, name: &str, path: &str, shown: Option<&str>, more: &[&str]) -> Result<u16, String> {
        let port = self.site.port();
        let mut curl = command("curl");
        curl.args(["-sS", "-o", "answer", "-w", "%{http_code}", "--max-time", "60", "--noproxy", "*"]);
        curl.args(["--cacert", "certs/ca.crt", "--resolve", &format!("{name}:{port}:127.0.0.1")]);
        if let Some(shown) = shown {
            curl.args(["--cert", &format!("{shown}.crt"), "--key", &format!("{shown}.key")]);
        }
        curl.args(more).arg(format!("https://{name}:{port}{path}"));
        let output = Output::of(curl.current_dir(self.site.directory()));
        match output.is_ok() {
            true => Ok(output.stdout.parse().expect("a status")),
            false => Err(output.stderr),
        }
    }

    /// A request's head, as the upstream got it.
    fn head(&self) -> Vec<String> {
        self.recorded.recv_timeout(Duration::from_secs(60)).expect("the upstream was asked")
    }
}

/// An upstream that keeps the head of each request.
fn recorder() -> (String, Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    let (heads, recorded) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let head: Vec<String> = lines.collect();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            if stream.write_all(answer).is_err() || heads.send(head).is_err() {
                return;
            }
        }
    });
    (origin, recorded)
}

#[test]
fn each_name_is_for_those_who_show_what_it_wants() {
    let house = Gatehouse::open();
    for version in [["--tls-max", "1.2"], ["--tlsv1.3", "--http1.1"], ["--http2", "--tlsv1.3"]] {
        for (name, none, good, bad) in [
            ("must.test", false, true, false),
            ("a.wild.test", false, true, false),
            ("may.test", true, true, false),
            ("open.test", true, true, true),
            ("localhost", true, true, true),
        ] {
            let came = |shown| match house.curl(name, "/v2/", shown, &version) {
                Ok(status) => {
                    assert_eq!(status, 401, "the registry asks for a token");
                    true
                }
                Err(_) => false,
            };
            assert_eq!(came(None), none, "{name} {version:?} without a certificate");
            assert_eq!(came(Some("good")), good, "{name} {version:?}");
            for shown in ["stranger", "server", "deep"] {
                assert_eq!(came(Some(shown)), bad, "{name} {version:?} with {shown}'s certificate");
            }
        }
    }
    let log = house.server.process.stderr();
    assert!(log.contains("a client's certificate is not accepted"), "{log}");
    assert_eq!(house.server.stop().code(), Some(0));
}

#[test]
fn a_certificate_that_is_withdrawn_is_good_no_more_and_that_takes_no_reload() {
    let house = Gatehouse::open();
    assert_eq!(house.curl("must.test", "/v2/", Some("withdrawn"), &[]), Ok(401));
    let list = |text: &str| {
        fs::write(house.site.directory().join("new.pem"), text).expect("ours");
        fs::rename(house.site.directory().join("new.pem"), house.site.directory().join("withdrawn.pem")).expect("ours");
    };
    let certificate = fs::read_to_string(house.site.directory().join("withdrawn.crt")).expect("ours");
    list(&house.clients.withdrawn(&[&certificate]));
    let refused = || house.curl("must.test", "/v2/", Some("withdrawn"), &[]).is_err().then_some(());
    wait_for("the certificate to be refused", 30, refused);
    assert!(house.curl("may.test", "/v2/", Some("withdrawn"), &[]).is_err(), "nor is it taken for none");
    list("garbage");
    let said = || house.server.process.stderr().contains("cannot be used, those before stay").then_some(());
    wait_for("what is wrong with the list", 30, said);
    assert!(house.curl("must.test", "/v2/", Some("withdrawn"), &[]).is_err());
    assert_eq!(house.curl("must.test", "/v2/", Some("good"), &[]), Ok(401));
    assert_eq!(house.server.stop().code(), Some(0));
}

#[test]
fn nobody_gets_by_one_name_what_another_demands() {
    let house = Gatehouse::open();
    let port = house.site.port();
    for http in ["--http1.1", "--http2"] {
        for (name, shown, host, wanted) in [
            ("open.test", None, "must.test", 421),
            ("open.test", None, "MUST.test", 421),
            ("open.test", None, "must.test.", 421),
            ("open.test", None, "a.wild.test", 421),
            ("may.test", Some("good"), "must.test", 421),
            ("must.test", Some("good"), "a.wild.test", 401),
            ("must.test", Some("good"), "open.test", 421),
            ("open.test", None, "localhost", 401),
        ] {
            let host = format!("Host: {host}:{port}");
            let got = house.curl(name, "/v2/", shown, &[http, "-H", &host]);
            assert_eq!(got, Ok(wanted), "TLS for {name}, {host}, {http}");
        }
        for path in ["/-/healthy", "/-/ready"] {
            let host = format!("Host: must.test:{port}");
            assert_eq!(house.curl("open.test", path, None, &[http, "-H", &host]), Ok(200), "{path}");
        }
    }
    // Without a name for TLS: the address is ours, and is no way around either.
    let address = format!("127.0.0.1:{port}");
    let mut curl = command("curl");
    curl.args(["-sS", "-o", "answer", "-w", "%{http_code}", "--noproxy", "*", "-k"]);
    curl.args(["-H", &format!("Host: must.test:{port}"), &format!("https://{address}/v2/")]);
    assert_eq!(Output::of(curl.current_dir(house.site.directory())).ok().stdout, "421");
    assert_eq!(house.server.stop().code(), Some(0));
}

#[test]
fn the_upstream_is_told_whose_certificate_it_was_whatever_clients_write() {
    let house = Gatehouse::open();
    let forged = ["X-SSL-Client-S-DN: CN=admin", "x_ssl_client_s_dn: CN=admin", "X-SSL-Client_S-DN: CN=admin"];
    let forged: Vec<&str> = forged.iter().flat_map(|line| ["-H", line]).collect();
    for (name, shown, told) in [
        ("must.test", Some("good"), Some("CN=rcgen self signed cert")),
        ("may.test", Some("good"), Some("CN=rcgen self signed cert")),
        ("may.test", None, None),
        ("open.test", Some("good"), None),
        ("localhost", None, None),
    ] {
        for http in ["--http1.1", "--http2"] {
            let more: Vec<&str> = std::iter::once(http).chain(forged.iter().copied()).collect();
            assert_eq!(house.curl(name, "/recorded/x", shown, &more), Ok(200), "{name}");
            let head = house.head();
            let lines =
                head.iter().filter(|line| line.to_lowercase().replace('_', "-").starts_with("x-ssl-client-s-dn"));
            let values: Vec<&str> = lines.filter_map(|line| line.split_once(": ")).map(|(_, value)| value).collect();
            assert_eq!(values, Vec::from_iter(told), "{name} with {shown:?}, {http}: {head:?}");
        }
    }
    assert_eq!(house.server.stop().code(), Some(0));
}

#[test]
fn skopeo_pushes_and_pulls_with_the_certificate_that_lies_beside_the_authoritys() {
    on_a_fresh_machine(|machine| {
        let site = Site::named(machine::NAME);
        let clients = Certificates::new();
        fs::write(site.directory().join("clients.crt"), clients.pem()).expect("ours");
        site.configure(&["tls: { local: certs, client_auth: { mode: required, ca: clients.crt } }"]);
        let server = site.start_unready(); // whoever asks whether it is ready has no certificate
        site.trust_on_this_machine();
        let mut skopeo = Skopeo::new(machine);
        skopeo.login(&site.authority(), "admin", ADMIN_PASSWORD).refused(&["certificate required", "tls"]);
        let folder = format!("/etc/containers/certs.d/{}", site.authority());
        let (certificate, key) = clients.issue("runner.test", ClientAuth);
        fs::write(format!("{folder}/client.cert"), certificate).expect("the machine is ours");
        fs::write(format!("{folder}/client.key"), key).expect("the machine is ours");
        skopeo.login(&site.authority(), "admin", ADMIN_PASSWORD).ok();
        let image = Image::small(6);
        let layout = Layout::of_image(&machine.join("small"), &image);
        let name = format!("{}/team/proven:latest", site.authority());
        skopeo.push(&image, &layout, &name).ok();
        skopeo.pull(&name).unwrap_or_else(|output| panic!("{output}"));
        assert_eq!(server.stop().code(), Some(0));
    });
}
