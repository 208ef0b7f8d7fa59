//! Promise: the server changes its mind without losing anybody, and a bad new configuration changes nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::content::Content;
use crate::support::machine::on_a_fresh_machine;
use crate::support::pierhead::{PIERHEAD, Site};
use crate::support::process::Process;
use crate::support::registry::Registry;
use crate::support::{free_port, wait_for};

/// The exit code for a configuration that cannot be used.
const BAD_CONFIGURATION: Option<i32> = Some(78);
/// The exit code when there is no server to ask.
const NO_SERVER: Option<i32> = Some(69);

/// The status of `GET path` in the clear, on a connection of its own.
fn get(port: u16, path: &str) -> u16 {
    let client = reqwest::blocking::Client::builder().no_proxy().build().expect("a client");
    client.get(format!("http://127.0.0.1:{port}{path}")).send().expect("an answer").status().as_u16()
}

/// `listeners` with the site's own port and these.
fn listeners(site: &Site, more: &[u16]) -> String {
    let own = format!("{{ address: \"127.0.0.1:{}\" }}", site.port());
    let more = more.iter().map(|port| format!("{{ address: \"127.0.0.1:{port}\", tls: false }}"));
    format!("listeners: [{}]", std::iter::once(own).chain(more).collect::<Vec<_>>().join(", "))
}

/// Makes a certificate for localhost that is its own authority, and returns it.
fn certify(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(folder.join("own.key"), made.signing_key.serialize_pem()).expect("written");
    fs::write(folder.join("own.crt"), made.cert.pem()).expect("written");
    made.cert.pem()
}

/// The key that names what [`certify`] made.
const OWN: &str = "tls: { local: certs, certificates: [{ certificate: own.crt, key: own.key }] }";

fn hang_up(server: &Process) {
    let sent = Command::new("kill").args(["-HUP", &server.id().to_string()]).status();
    assert!(sent.expect("kill can be run").success());
}

#[test]
fn a_reload_opens_and_closes_listeners_and_changes_limits_and_the_log_level() {
    let site = Site::new();
    site.configure(&[&listeners(&site, &[])]);
    let server = site.start();
    let repository = site.admin().repository("change/app", "pull,push");
    let port = free_port();
    site.configure(&[
        &listeners(&site, &[port]),
        "limits: { manifest: 64KiB }",
        "log: { format: json, access: stdout, level: debug }",
    ]);
    let answer = site.run(&["reload"]).ok();
    assert!(answer.stdout.contains("listeners opened: 1, closed: 0"), "{answer}");

    assert_eq!(get(port, "/-/healthy"), 200);
    let large = format!("{{\"schemaVersion\":2,\"x\":\"{}\"}}", "x".repeat(65 << 10));
    let refused = repository.push_manifest("large", large.as_bytes()).expect_err("larger than the new limit");
    assert_eq!(refused.status, Some(413));
    repository.push_blob(Content::new(1, 100_000)).expect("what went goes on");
    assert!(server.process.stderr().contains("DEBUG"), "the log tells more than before");

    site.configure(&[&listeners(&site, &[])]);
    hang_up(&server.process);
    wait_for("the port to close", 10, || TcpStream::connect(("127.0.0.1", port)).is_err().then_some(()));
    repository.push_blob(Content::new(2, 100_000)).expect("what went goes on");
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_reload_shows_new_certificates_to_new_connections() {
    let site = Site::new();
    let server = site.start();
    let old = site.admin();
    let repository = old.repository("change/app", "pull,push");
    let realm = format!("{}/jwt/auth", site.origin());
    for _ in 0..2 {
        let authority = certify(site.directory());
        site.configure(&[OWN]);
        site.run(&["reload"]).ok();
        let new = Registry::guarded(&site.origin(), &realm, &authority, None);
        assert_eq!(new.request(reqwest::Method::GET, "/v2/").send().expect("trusted").status(), 401);
    }
    repository.push_blob(Content::new(1, 100_000)).expect("who was connected stays connected");
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_bad_configuration_changes_nothing_and_says_why() {
    let site = Site::new();
    let mut server = site.start();
    let port = free_port();
    let own = format!("127.0.0.1:{port}");
    certify(site.directory());
    fs::write(site.directory().join("own.key"), "no key").expect("written");
    let taken = std::net::TcpListener::bind(&own).expect("a free port");
    let add = format!("listeners: [{{ address: \"[::]:{}\" }}, {{ address: \"{own}\", tls: false }}]", site.port());
    for (settings, code, words) in [
        (vec!["log: { level: shout }"], BAD_CONFIGURATION, "pierhead.yml:6: log.level"),
        (vec![OWN], BAD_CONFIGURATION, "own.key holds no private key"),
        (vec!["token: { service: another }"], BAD_CONFIGURATION, "token.service"),
        (
            vec!["user: root", "registry: { storage: { filesystem: { rootdirectory: other } } }"],
            BAD_CONFIGURATION,
            "user, registry.storage.filesystem.rootdirectory",
        ),
        (vec![&add, "aliases: [\"https://new.test\"]"], Some(1), "another program has this port"),
    ] {
        site.configure(&settings);
        let said = site.run(&["reload"]);
        assert!(said.code() == code && said.stderr.contains(words), "{settings:?}: {words}: {said}");
    }
    let before = server.process.stderr();
    site.configure(&["log: { level: shout }"]);
    hang_up(&server.process);
    server
        .process
        .wait_until("say why in its log", 10, |process| process.stderr()[before.len()..].contains("log.level"));
    drop(taken);
    let misdirected = site.registry(None).request(reqwest::Method::GET, "/v2/").header("Host", "new.test");
    assert_eq!(misdirected.send().expect("an answer").status(), 421, "the new name is not known");
    site.admin().repository("change/app", "pull,push").push_blob(Content::new(1, 1000)).expect("as before");
    site.configure(&[]);
    site.run(&["reload"]).ok();
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_server_whose_file_was_broken_since_is_still_told_what_to_do() {
    let site = Site::new();
    let server = site.start();
    fs::write(site.config(), "listeners: [\nstate: state\nlog: }").expect("written");
    let reload = site.run(&["reload"]);
    assert!(reload.code() == BAD_CONFIGURATION && reload.stderr.contains("pierhead.yml:"), "the server says: {reload}");
    site.run(&["maintenance", "on"]).ok();
    assert!(site.run(&["maintenance", "status"]).ok().stdout.contains("maintenance is on"));
    site.run(&["maintenance", "off"]).ok();
    site.run(&["unban", "192.0.2.1"]).ok();
    site.run(&["upgrade"]).refused(&["nothing changed"]);
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn only_the_servers_user_may_tell_it_what_to_do_and_without_a_server_there_is_nobody_to_tell() {
    let site = Site::new();
    let none = site.run(&["reload"]);
    assert!(none.code() == NO_SERVER && none.stderr.contains("no server answers"), "{none}");
    let server = site.start();
    let socket = site.directory().join("state/control.sock");
    assert_eq!(fs::metadata(&socket).expect("the socket is there").permissions().mode() & 0o777, 0o600);
    assert_eq!(server.stop().code(), Some(0));
    assert!(!socket.exists(), "it goes with the server");
    assert_eq!(site.run(&["reload"]).code(), NO_SERVER);
    site.start().kill();
    assert_eq!(site.run(&["reload"]).code(), NO_SERVER, "a socket that was left behind is nobody's");
    site.start();
}

#[test]
fn two_servers_do_not_share_a_state_directory() {
    let site = Site::new();
    let _server = site.start();
    let port = free_port();
    site.configure(&[
        &format!("listeners: [{{ address: \"127.0.0.1:{port}\" }}]"),
        "registry: { storage: { filesystem: { rootdirectory: tree } }, http: { addr: off } }",
    ]);
    site.run(&["serve"]).refused(&["another server runs on the state directory"]);
}

#[test]
fn a_server_that_drains_is_not_ready() {
    let site = Site::new();
    let mut server = site.start();
    // A client that has just connected is served, and a running download holds the end up.
    let mut probe = TcpStream::connect(("127.0.0.1", site.internal_port())).expect("the internal port is open");
    let mut slow = TcpStream::connect(("127.0.0.1", site.internal_port())).expect("the internal port is open");
    let head = format!("Host: 127.0.0.1:{}\r\n", site.internal_port());
    write!(slow, "POST /v2/x/blobs/uploads/ HTTP/1.1\r\n{head}Content-Length: 5\r\n\r\n").expect("sent");
    server.process.terminate();
    server.process.wait_until("begin to stop", 10, |process| process.stderr().contains("stopping"));
    write!(probe, "GET /-/ready HTTP/1.1\r\n{head}\r\n").expect("sent");
    probe.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let mut answer = String::new();
    probe.read_to_string(&mut answer).expect("answered, then closed");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("stopping"), "{answer}");
    drop(slow);
    assert_eq!(server.process.wait(20).code(), Some(0));
}

#[test]
fn a_server_that_gave_up_the_rights_of_root_says_what_it_cannot_read_any_more() {
    on_a_fresh_machine(|_| {
        let site = Site::new();
        fs::set_permissions(site.directory(), fs::Permissions::from_mode(0o755)).expect("ours");
        site.configure(&["user: nobody", &listeners(&site, &[])]);
        let _server = site.start();
        certify(site.directory());
        fs::set_permissions(site.directory().join("own.key"), fs::Permissions::from_mode(0o600)).expect("ours");
        site.configure(&["user: nobody", OWN, &listeners(&site, &[])]);
        let said = site.run(&["reload"]);
        assert_eq!(said.code(), BAD_CONFIGURATION, "{said}");
        assert!(said.stderr.contains("as user nobody reads it") && said.stderr.contains("own.key"), "{said}");
        site.configure(&["user: nobody", &listeners(&site, &[81])]);
        let said = site.run(&["reload"]);
        assert!(said.code() == Some(77) && said.stderr.contains("takes a restart"), "{said}");
    });
}

/// A PATCH in its middle, on a connection of its own: so much was announced, and so much sent.
pub(crate) fn begin_patch(site: &Site, upload: &str, authorization: &str, announced: usize, sent: &[u8]) -> TcpStream {
    let mut wire = TcpStream::connect(("127.0.0.1", site.internal_port())).expect("the internal port is open");
    wire.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let path = &upload[upload.find("/v2/").expect("an upload")..];
    let port = site.internal_port();
    write!(
        wire,
        "PATCH {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: {authorization}\r\nConnection: close\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {announced}\r\n\r\n"
    )
    .and_then(|()| wire.write_all(sent))
    .expect("sent");
    wire
}

/// What the server says until it closes.
pub(crate) fn answer(mut wire: TcpStream) -> String {
    let mut text = String::new();
    wire.read_to_string(&mut text).expect("an answer");
    text
}

#[test]
fn maintenance_in_the_middle_of_a_push_lets_it_end_and_no_other_begin() {
    let site = Site::new();
    let server = site.start();
    let repository = site.admin().repository("change/app", "pull,push");
    let pulled = repository.push("before", &[Content::new(1, 1000)]).expect("pushed");
    let upload = repository.begin().expect("an upload");
    let digest = crate::support::content::digest(b"12345678");
    let wire = begin_patch(&site, &upload, repository.authorization().expect("a token"), 8, b"1234");
    site.run(&["maintenance", "on"]).ok();

    let refused = repository.begin().expect_err("no push begins");
    assert_eq!(refused.status, Some(405));
    assert!(refused.body.contains("UNSUPPORTED") && refused.body.contains("maintenance"), "{}", refused.body);
    let inside = Registry::open(&format!("http://127.0.0.1:{}", site.internal_port()));
    let inside = inside.repository_with("change/app", repository.authorization().expect("a token").to_owned());
    assert_eq!(inside.begin().expect_err("nor on the internal port").status, Some(405));
    (&wire).write_all(b"5678").expect("sent");
    let patched = answer(wire);
    assert!(patched.starts_with("HTTP/1.1 202"), "{patched}");
    repository.finish(&upload, &digest).expect("what was begun ends");
    assert_eq!(repository.pull("before").expect("everything can be pulled"), pulled);
    let status = site.run(&["maintenance", "status"]).ok();
    assert!(
        status.stdout.contains("maintenance is on: read-only") && status.stdout.contains("write now: 0"),
        "{status}"
    );

    assert_eq!(server.stop().code(), Some(0));
    let _server = site.start();
    assert_eq!(repository.begin().expect_err("a restart forgets nothing").status, Some(405));
    site.run(&["maintenance", "on", "--mode", "unavailable", "--grace", "0s"]).ok();
    let refused = repository.request(reqwest::Method::POST, "blobs/uploads/").send().expect("an answer");
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"].to_str().expect("text")), (503, &"60"));
    site.run(&["maintenance", "off"]).ok();
    repository.push("after", &[Content::new(2, 1000)]).expect("everything goes again");
    let status = site.run(&["maintenance", "status", "--output", "json"]).ok();
    assert!(status.stdout.contains("\"ordered\":null"), "{status}");
}

#[test]
fn at_the_end_of_the_grace_what_still_writes_is_refused_in_its_middle() {
    let site = Site::new();
    let _server = site.start();
    let repository = site.admin().repository("change/app", "pull,push");
    let upload = repository.begin().expect("an upload");
    let wire = begin_patch(&site, &upload, repository.authorization().expect("a token"), 8, b"1234");
    let writes = |count: u32| {
        let status = site.run(&["maintenance", "status"]).ok().stdout;
        status.contains(&format!("write now: {count}")).then_some(())
    };
    wait_for("the upload to be seen", 10, || writes(1));
    site.run(&["maintenance", "on", "--grace", "300ms"]).ok();
    let refused = answer(wire);
    assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("maintenance"), "{refused}");
    wait_for("nothing to be written", 10, || writes(0));
    let refused = repository.finish(&upload, &crate::support::content::digest(b"1234"));
    assert_eq!(refused.expect_err("the grace is over").status, Some(405));
    site.run(&["maintenance", "off"]).ok();
    assert_eq!(repository.get(&upload).status(), 204, "the upload waits for its client");
    repository.push("after", &[Content::new(2, 1000)]).expect("everything goes again");
}

#[test]
fn a_registry_that_becomes_read_only_by_its_configuration_lets_pushes_end() {
    let site = Site::new();
    let _server = site.start();
    let repository = site.admin().repository("change/app", "pull,push");
    let upload = repository.begin().expect("an upload");
    let upload = repository.send(&upload, &b"1234"[..]).expect("sent");
    let port = site.internal_port();
    site.configure(&[&format!(
        "registry: {{ storage: {{ filesystem: {{ rootdirectory: tree }}, maintenance: {{ readonly: {{ enabled: true }} }} }}, \
         http: {{ addr: \"127.0.0.1:{port}\" }} }}"
    )]);
    site.run(&["reload"]).ok();
    assert_eq!(repository.begin().expect_err("no push begins").status, Some(405));
    repository.finish(&upload, &crate::support::content::digest(b"1234")).expect("what was begun ends");
    site.configure(&[]);
    site.run(&["reload"]).ok();
    repository.push("after", &[Content::new(2, 1000)]).expect("everything goes again");
}

#[test]
fn a_registry_alone_reads_its_file_again_on_sighup() {
    let folder = tempfile::tempdir().expect("a directory");
    let port = free_port();
    let file = folder.path().join("config.yml");
    let configure = |more: &str| {
        let root = folder.path().join("tree");
        let text = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp:\n  addr: 127.0.0.1:{port}\n{more}",
            root.display()
        );
        fs::write(&file, text).expect("written");
    };
    configure("");
    let mut command = Command::new(PIERHEAD);
    command.args(["registry", "serve"]).arg(&file);
    let mut server = Process::start("registry", folder.path(), &mut command);
    server.wait_until("listen", 30, |_| TcpStream::connect(("127.0.0.1", port)).is_ok());
    server.wait_until("say how it is used", 30, |server| server.stderr().contains("serves the registry"));
    configure("  headers: { X-Plan: [new] }\n");
    hang_up(&server);
    server.wait_until("reload", 10, |server| server.stderr().contains("reloaded"));
    let client = reqwest::blocking::Client::builder().no_proxy().build().expect("a client");
    let answer = client.get(format!("http://127.0.0.1:{port}/v2/")).send().expect("an answer");
    assert_eq!(answer.headers()["x-plan"], "new");
    server.terminate();
    assert_eq!(server.wait(20).code(), Some(0));
}

#[test]
fn who_failed_too_often_may_try_again_once_forgiven() {
    let site = Site::new();
    let _server = site.start();
    let ask = |password: &str| {
        let somebody = site.registry(Some(("admin", password)));
        somebody.ask_token("repository:change/app:pull").status().as_u16()
    };
    wait_for("the guesser to be held up", 30, || (ask("wrong") == 429).then_some(()));
    let said = site.run(&["unban", "admin"]).ok();
    assert!(said.stdout.contains("may try again"), "{said}");
    let said = site.run(&["unban", "127.0.0.1"]).ok();
    assert!(said.stdout.contains("may try again"), "{said}");
    assert_eq!(ask("wrong"), 401);
    let said = site.run(&["unban", "192.0.2.77"]).ok();
    assert!(said.stdout.contains("nothing counted"), "{said}");
}
