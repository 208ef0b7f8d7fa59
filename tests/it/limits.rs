//! Promise: one client cannot take everything. Whoever comes above a limit hears which, and when to come again; whoever
//! keeps to them never notices; and the 401 that every login begins with counts against nobody.

use std::fs;
use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::blocking::{Body, Response};
use serde_json::Value;

use crate::original::Original;
use crate::support::content::Content;
use crate::support::pierhead::{ADMIN_PASSWORD, Pierhead, Site};
use crate::support::registry::{Registry, Repository};
use crate::support::wait_for;

/// A site whose `limits` are these, and its server.
fn limited(limits: &str) -> (Site, Pierhead) {
    let site = Site::new();
    // Connections that only wait must do so for as long as a test takes.
    site.configure(&[&format!("limits: {{ {limits} }}"), "timeouts: { handshake: 10m, header: 10m }"]);
    let server = site.start();
    (site, server)
}

/// The answer says that there was too much, in the words of OCI, and when to come again.
fn assert_too_many(answer: Response) {
    assert_eq!(answer.status(), 429);
    let seconds = answer.headers()["retry-after"].to_str().expect("digits").parse::<u64>().expect("whole seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_code(answer, "TOOMANYREQUESTS");
}

fn assert_code(answer: Response, code: &str) {
    let body: Value = answer.json().expect("OCI JSON");
    assert_eq!(body["errors"][0]["code"], code, "{body}");
    assert!(!body["errors"][0]["message"].as_str().expect("a message").is_empty());
}

fn health(registry: &Registry) -> Response {
    registry.request(Method::GET, "/-/healthy").send().expect("an answer")
}

/// A new client of the internal port.
fn inside(site: &Site) -> Registry {
    Registry::open(&format!("http://127.0.0.1:{}", site.internal_port()))
}

/// Waits until a new client of the site is served.
fn wait_until_served(site: &Site) {
    wait_for("room for one more", 10, || (health(&site.registry(None)).status() == 200).then_some(()));
}

/// Opens connections to a port until a client hears that there are too many.
fn fill(port: u16, client: impl Fn() -> Registry) -> Vec<TcpStream> {
    let mut held = Vec::new();
    let refused = wait_for("no room to be left", 10, || {
        held.push(TcpStream::connect(("127.0.0.1", port)).expect("the server accepts"));
        Some(health(&client())).filter(|answer| answer.status() == 429)
    });
    assert_too_many(refused);
    held
}

#[test]
fn connections_per_client() {
    let (site, server) = limited("connections_per_client: 3");
    wait_until_served(&site);
    let held = fill(site.port(), || site.registry(None));
    let proxy: Vec<Registry> = (0..10).map(|_| inside(&site)).collect();
    assert!(proxy.iter().all(|client| health(client).status() == 200), "a proxy on this machine speaks for many");
    drop(held);
    wait_until_served(&site);
    assert!(server.stop().success());
}

#[test]
fn connections_in_all() {
    let (site, server) = limited("connections: 10");
    wait_until_served(&site);
    let held = [fill(site.internal_port(), || site.registry(None)), fill(site.internal_port(), || inside(&site))];
    drop(held);
    wait_until_served(&site);
    assert!(server.stop().success(), "a drain does not wait for those who were turned away");
}

#[test]
fn header_fields_and_target() {
    let (site, _server) = limited("header: 8KiB, fields: 20, target: 1KiB");
    let registry = site.registry(None);
    let get = |path: &str| registry.request(Method::GET, path);
    let large = get("/v2/").header("X-Large", "x".repeat(9 << 10)).send().expect("an answer");
    let many = (0..20).fold(get("/v2/"), |request, number| request.header(format!("X-{number}"), "x"));
    let many = many.send().expect("an answer");
    let long = get(&format!("/v2/?{}", "x".repeat(1 << 10))).send().expect("an answer");
    for (answer, status) in [(large, 431), (many, 431), (long, 414)] {
        assert_eq!(answer.status(), status);
        assert_code(answer, "UNSUPPORTED");
    }
    assert_eq!(get("/v2/").send().expect("an answer").status(), 401);
}

#[test]
fn the_largest_manifest() {
    let (site, _server) = limited("manifest: 64KiB");
    site.add_project("team/app", "private");
    let repository = site.admin().repository("team/app", "pull,push");
    let put = repository.request(Method::PUT, "manifests/large").body(vec![b' '; (64 << 10) + 1]);
    let answer = put.send().expect("an answer");
    assert_eq!(answer.status(), 413);
    assert_code(answer, "MANIFEST_INVALID");
}

#[test]
fn the_largest_blob() {
    let (site, _server) = limited("blob: 1MiB");
    site.add_project("team/app", "private");
    let repository = site.admin().repository("team/app", "pull,push");
    repository.push_blob(Content::new(1, 1 << 20)).expect("as large as a blob may be");

    let announced = repository.begin().expect("begun");
    let answer = repository.request(Method::PATCH, &announced).body(vec![0; (1 << 20) + 1]).send().expect("an answer");
    assert_eq!(answer.status(), 413);
    assert_code(answer, "SIZE_INVALID");

    let grown = repository.begin().expect("begun");
    let grown = repository.send(&grown, Content::new(2, 1 << 20).reader()).expect("as large as a blob may be");
    let more = repository.request(Method::PATCH, &grown).body("x").send().expect("an answer");
    assert_eq!(more.status(), 413, "in two requests");

    let streamed = repository.begin().expect("begun");
    // No longer than that: this client does not listen while it has more to send.
    let failed = repository.send(&streamed, Content::new(3, (1 << 20) + 1).reader()).expect_err("too large");
    assert_eq!(failed.status, Some(413), "of unknown length: {}", failed.body);
    assert_eq!(repository.get(&streamed).status(), 404, "what can be no blob is not kept");
}

/// A body that begins and does not go on until it is let go.
struct Held {
    begun: Option<Sender<()>>,
    until: Receiver<()>,
}

impl Read for Held {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.begun.take() {
            Some(begun) => {
                begun.send(()).map_err(io::Error::other)?;
                bytes[0] = b'x';
                Ok(1)
            }
            None => {
                let _ = self.until.recv(); // also when the test has failed
                Ok(0)
            }
        }
    }
}

/// An upload that stays on its way, and the end of it.
fn hold(repository: &Repository) -> (Sender<()>, thread::JoinHandle<u16>) {
    let upload = repository.begin().expect("begun");
    let (begun, has_begun) = mpsc::channel();
    let (release, until) = mpsc::channel();
    let request = repository.request(Method::PATCH, &upload).body(Body::new(Held { begun: Some(begun), until }));
    let thread = thread::spawn(move || request.send().expect("an answer").status().as_u16());
    has_begun.recv().expect("the body is asked for");
    (release, thread)
}

#[test]
fn uploads_of_one_account_at_once() {
    let (site, server) = limited("uploads: 5");
    site.add_project("team/app", "private");
    site.add_user("alice", "a-password-of-alice");
    site.add_member("team/app", "alice", "developer");
    let repository = site.admin().repository("team/app", "pull,push");
    let held: Vec<_> = (0..5).map(|_| hold(&repository)).collect();
    let refused = wait_for("all five to be on their way", 10, || {
        let answer = repository.request(Method::POST, "blobs/uploads/").send().expect("an answer");
        (answer.status() == 429).then_some(answer)
    });
    assert_too_many(refused);
    let alice = site.registry(Some(("alice", "a-password-of-alice"))).repository("team/app", "pull,push");
    alice.push_blob(Content::new(4, 100)).expect("hers are her own");
    for (release, thread) in held {
        drop(release);
        assert_eq!(thread.join().expect("it does not panic"), 202, "those within the limit are served to the end");
    }
    repository.push_blob(Content::new(5, 100)).expect("there is room again");
    assert!(server.stop().success());
}

#[test]
fn failed_logins_and_never_the_401_that_every_login_begins_with() {
    let (site, _server) = limited("failed_logins: 1/m");
    site.add_project("team/app", "private");
    site.add_user("alice", "a-password-of-alice");
    let nobody = site.registry(None);
    for _ in 0..50 {
        assert_eq!(nobody.request(Method::GET, "/v2/").send().expect("an answer").status(), 401);
    }
    let alice = |password| site.registry(Some(("alice", password))).ask_token("repository:team/app:pull");
    assert_eq!(alice("not-the-password").status(), 401);
    assert_too_many(alice("not-the-password"));
    assert_too_many(alice("a-password-of-alice"));
    assert_eq!(nobody.request(Method::GET, "/v2/").send().expect("an answer").status(), 401);
}

#[test]
fn requests_without_a_login() {
    let (site, _server) = limited("anonymous: 6/m");
    site.add_project("team/open", "public");
    let digest = site.admin().repository("team/open", "pull,push").push("latest", &[Content::new(6, 100)]);
    let digest = digest.expect("pushed");
    let nobody = site.registry(None);
    for _ in 0..50 {
        assert_eq!(nobody.request(Method::GET, "/v2/").send().expect("an answer").status(), 401);
    }
    let repository = nobody.repository("team/open", "pull");
    assert_eq!(repository.pull("latest").expect("a token, a manifest, a layer and a configuration"), digest);
    repository.get("manifests/latest").error_for_status().expect("the fifth");
    repository.get("manifests/latest").error_for_status().expect("the sixth");
    assert_too_many(repository.get("manifests/latest"));
    assert_too_many(nobody.ask_token("repository:team/open:pull"));
    assert_eq!(site.admin().repository("team/open", "pull").pull("latest").expect("with a login"), digest);
}

#[test]
fn a_guesser_behind_a_proxy_that_names_nobody_locks_nobody_else_out() {
    let original = Original::empty();
    let hash = |password| bcrypt::hash(password, 4).expect("a hash");
    let lines = format!("alice:{}\nbob:{}\n", hash("short"), hash(ADMIN_PASSWORD));
    fs::write(original.path("htpasswd"), lines).expect("the directory can be written");
    original.write(&format!(
        "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: \"{}\" }} }}\nhttp: {{ addr: \"127.0.0.1:{}\" }}\n\
         auth: {{ htpasswd: {{ realm: images, path: htpasswd }} }}\n",
        original.path("tree").display(),
        original.port
    ));
    let _process = original.start(&[]);
    let registry = Registry::open(&original.origin());
    let ask = |name: &str, password: &str| {
        let basic = format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
        registry.request(Method::GET, "/v2/").header("authorization", basic).send().expect("an answer")
    };
    for guess in 0..30 {
        assert_eq!(ask(&format!("guess{guess}"), "wrong").status(), 401);
    }
    for _ in 0..10 {
        assert_eq!(ask("bob", "wrong").status(), 401);
    }
    assert_too_many(ask("bob", "wrong"));
    assert_eq!(ask("alice", "short").status(), 200, "at her first login since the start");
}

#[test]
fn new_limits_after_a_reload() {
    let (site, server) = limited("failed_logins: 1/m, blob: 1MiB");
    site.add_project("team/app", "private");
    site.add_user("alice", "a-password-of-alice");
    let alice = |password| site.registry(Some(("alice", password))).ask_token("repository:team/app:pull");
    assert_eq!(alice("not-the-password").status(), 401);
    assert_too_many(alice("a-password-of-alice"));
    site.configure(&["limits: { failed_logins: 100/m, blob: 2MiB, target: 1KiB }"]);
    site.run(&["reload"]).ok();
    wait_for("alice's failure to weigh less", 10, || (alice("a-password-of-alice").status() == 200).then_some(()));
    let repository = site.admin().repository("team/app", "pull,push");
    repository.push_blob(Content::new(7, 2 << 20)).expect("as large as a blob may be now");
    let long = site.registry(None).request(Method::GET, &format!("/v2/?{}", "x".repeat(1 << 10)));
    assert_eq!(long.send().expect("an answer").status(), 414);
    assert!(server.stop().success());
}
