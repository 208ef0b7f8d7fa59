//! Promise: a new binary takes over and nobody notices: not who pushes, not who pulls, not who reloads meanwhile.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::change::{answer, begin_patch};
use crate::support::content::Content;
use crate::support::pierhead::{PIERHEAD, Site};
use crate::support::registry::{Registry, Repository};
use crate::support::{free_port, soak, wait_for};

/// A process that took over, which is no child of ours. It ends with this.
pub(crate) struct Successor(u32);

impl Successor {
    /// The one that the answer of `pierhead upgrade` names.
    fn of(said: &str) -> Self {
        let id = said.split(' ').nth(1).and_then(|id| id.parse().ok());
        Self(id.unwrap_or_else(|| panic!("a process id in {said}")))
    }

    fn signal(&self, name: &str) -> bool {
        let mut kill = Command::new("kill");
        kill.args([name, &self.0.to_string()]).stderr(std::process::Stdio::null());
        kill.status().is_ok_and(|status| status.success())
    }

    fn ended(&self) -> bool {
        // One that has ended and that nobody has asked about yet is still there by its number.
        let state = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    }

    pub(crate) fn stop(&self) {
        assert!(self.signal("-TERM"), "process {} is there", self.0);
        wait_for("the new process to end", 30, || self.ended().then_some(()));
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if !self.ended() {
            self.signal("-KILL");
        }
    }
}

/// Hands over to another process.
pub(crate) fn upgrade(site: &Site) -> Successor {
    Successor::of(&site.run(&["upgrade"]).ok().stdout)
}

#[test]
fn what_runs_ends_where_it_began_and_what_comes_next_is_served_by_the_new_process() {
    let site = Site::new();
    let mut server = site.start();
    let repository = site.admin().repository("upgrade/app", "pull,push");
    let blob = Content::new(1, 64 << 20);
    let digest = repository.push_blob(blob).expect("pushed");
    let upload = repository.begin().expect("an upload");
    let upload = repository.send(&upload, &b"1234"[..]).expect("sent");
    let mut download = repository.get(&format!("blobs/{digest}"));

    let successor = upgrade(&site);
    assert_eq!(server.process.ended(), None, "it waits for the download");
    repository.finish(&upload, &crate::support::content::digest(b"1234")).expect("the new process goes on with it");
    site.run(&["reload"]).ok();
    let mut digester = crate::support::content::Digester::new(std::io::sink());
    std::io::copy(&mut download, &mut digester).expect("the download comes to its end");
    assert_eq!(digester.digest(), digest);
    drop((download, repository));
    assert_eq!(server.process.wait(20).code(), Some(0));

    let socket = site.directory().join("state/control.sock");
    assert!(socket.exists(), "it belongs to the new process");
    let second = upgrade(&site);
    wait_for("the first successor to end", 20, || successor.ended().then_some(()));
    site.admin().repository("upgrade/app", "pull,push").push("latest", &[Content::new(2, 1000)]).expect("pushed");
    second.stop();
    assert!(!socket.exists(), "and goes with it");
}

#[test]
fn maintenance_that_is_ordered_after_an_upgrade_holds_for_what_still_runs_before_it() {
    let site = Site::new();
    let mut server = site.start();
    let repository = site.admin().repository("upgrade/app", "pull,push");
    let upload = repository.begin().expect("an upload");
    let wire = begin_patch(&site, &upload, repository.authorization().expect("a token"), 8, b"1234");
    wait_for("the upload to be seen", 10, || {
        site.run(&["maintenance", "status"]).ok().stdout.contains("write now: 1").then_some(())
    });
    let successor = upgrade(&site);
    site.run(&["maintenance", "on", "--grace", "0s"]).ok();
    let refused = answer(wire);
    assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("maintenance"), "{refused}");
    drop(repository);
    assert_eq!(server.process.wait(20).code(), Some(0));
    successor.stop();
}

#[test]
fn a_new_process_that_cannot_serve_changes_nothing_and_says_why() {
    let site = Site::new();
    let program = site.directory().join("pierhead");
    replace(&program, &fs::read(PIERHEAD).expect("the binary is there"));
    let mut server = site.start_from(&program);
    let works = || site.admin().repository("upgrade/app", "pull,push").push_blob(Content::new(1, 1000));

    replace(&program, b"#!/bin/sh\nexit 3\n");
    site.run(&["upgrade"]).refused(&["ended (exit status: 3) before it was ready"]);
    works().expect("the old process goes on");
    replace(&program, b"no program");
    site.run(&["upgrade"]).refused(&["could not be started"]);
    works().expect("the old process goes on");
    replace(&program, &fs::read(PIERHEAD).expect("the binary is there"));
    // It comes far, and then cannot: what it was handed is still ours, in the file system too.
    let certificate = site.directory().join("state/token.crt");
    let good = fs::read(&certificate).expect("made at the start");
    fs::write(&certificate, "no certificate").expect("written");
    site.run(&["upgrade"]).refused(&["token.crt"]);
    fs::write(&certificate, good).expect("written");
    site.run(&["maintenance", "status"]).ok();
    works().expect("the old process goes on");
    let holds = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = holds.local_addr().expect("an address");
    let (own, clash) = (format!("{{ address: \"[::]:{}\" }}", site.port()), format!("{{ address: \"{taken}\" }}"));
    site.configure(&[&format!("listeners: [{own}, {clash}]")]);
    site.run(&["upgrade"]).refused(&["another program has this port"]);
    works().expect("the old process goes on");
    assert_eq!(server.process.ended(), None);

    site.configure(&[]);
    let successor = upgrade(&site);
    works().expect("the new process serves");
    assert_eq!(server.process.wait(30).code(), Some(0));
    successor.stop();
}

#[test]
fn monitoring_and_commands_find_the_new_process_once_the_old_one_is_gone() {
    let site = Site::new();
    let port = free_port();
    site.configure(&[&format!("metrics: {{ address: \":{port}\" }}")]);
    let mut server = site.start();
    let client = reqwest::blocking::Client::builder().no_proxy().build().expect("a client");
    // What a process has counted lies in its memory.
    let has_seen_a_request = || {
        let page = client.get(format!("http://127.0.0.1:{port}/metrics")).send().expect("monitoring is answered");
        page.text().expect("text").contains("endpoint=\"base\",status=\"401\"")
    };
    let nobody = site.registry(None).request(reqwest::Method::GET, "/v2/").send();
    assert_eq!(nobody.map(|answer| answer.status().as_u16()).ok(), Some(401));
    wait_for("the count", 10, || has_seen_a_request().then_some(()));
    let successor = upgrade(&site);
    assert_eq!(server.process.wait(20).code(), Some(0));
    for _ in 0..5 {
        assert!(!has_seen_a_request(), "it is the new process that answers");
    }
    site.run(&["maintenance", "on"]).ok();
    assert!(site.run(&["maintenance", "status"]).ok().stdout.contains("maintenance is on"));
    site.run(&["reload"]).ok();
    successor.stop();
}

#[test]
fn a_program_that_is_a_link_is_what_the_link_leads_to_at_the_upgrade() {
    let site = Site::new();
    let folder = site.directory();
    let link = folder.join("pierhead");
    let lead_to = |version: &str| {
        let new = folder.join("new");
        std::os::unix::fs::symlink(version, &new).expect("a link");
        fs::rename(&new, &link).expect("replaced");
    };
    for version in ["pierhead-1", "pierhead-2"] {
        replace(&folder.join(version), &fs::read(PIERHEAD).expect("the binary is there"));
    }
    lead_to("pierhead-1");
    let mut server = site.start_from(&link);
    lead_to("pierhead-2");
    let successor = upgrade(&site);
    let runs = fs::read_link(format!("/proc/{}/exe", successor.0)).expect("it is there");
    assert_eq!(runs.file_name().and_then(|name| name.to_str()), Some("pierhead-2"));
    assert_eq!(server.process.wait(20).code(), Some(0));
    successor.stop();
}

/// Puts a program in the place of another, as installing it does.
fn replace(program: &Path, content: &[u8]) {
    let new = program.with_extension("new");
    fs::write(&new, content).expect("written");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("ours");
    fs::rename(&new, program).expect("replaced");
}

/// How many clients push and pull all the time, half of them by HTTP/2.
const CLIENTS: u64 = 16;

#[derive(Default)]
struct Steady {
    enough: AtomicBool,
    done: AtomicU64,
    failed: Mutex<Vec<String>>,
}

impl Steady {
    /// Pushes and pulls until it is enough.
    fn go_on(&self, client: u64, repository: &Repository) {
        for round in 0.. {
            if self.enough.load(Ordering::Relaxed) {
                return;
            }
            let layers =
                [Content::new(client << 32 | round, 200_000), Content::new(client << 32 | round | 1 << 31, 500)];
            let moved = repository.push("latest", &layers).and_then(|pushed| Ok((pushed, repository.pull("latest")?)));
            match moved {
                Ok((pushed, pulled)) if pushed == pulled => drop(self.done.fetch_add(1, Ordering::Relaxed)),
                other => self.failed.lock().push(format!("client {client}, round {round}: {other:?}")),
            }
        }
    }
}

struct Enough<'a>(&'a Steady);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.enough.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_request_fails_while_everything_changes() {
    let (seconds, reloads) = if soak() { (60, 20) } else { (8, 6) };
    let site = Site::new();
    // A drain is over when its time is, whoever keeps an idle connection open.
    site.configure(&["timeouts: { drain: 20s }"]);
    let mut server = site.start();
    let mut trusted = site.certificate_authority();
    for name in ["a", "b"] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        fs::write(site.directory().join(format!("{name}.key")), made.signing_key.serialize_pem()).expect("written");
        fs::write(site.directory().join(format!("{name}.crt")), made.cert.pem()).expect("written");
        trusted += &made.cert.pem();
    }
    let realm = format!("{}/jwt/auth", site.origin());
    let login = Some(("admin", crate::support::pierhead::ADMIN_PASSWORD));
    let http2 = http2(&trusted);
    let probe = http2.get(format!("{}/-/healthy", site.origin())).send().expect("an answer");
    assert_eq!(probe.version(), reqwest::Version::HTTP_2);
    let client = |number: u64| {
        let name = format!("steady/{number}");
        let known = Registry::guarded(&site.origin(), &realm, &trusted, login).repository(&name, "pull,push");
        if number.is_multiple_of(2) {
            return known;
        }
        let authorization = known.authorization().expect("a token").to_owned();
        Registry::through(http2.clone(), &site.origin()).repository_with(&name, authorization)
    };
    let clients: Vec<Repository> = (0..CLIENTS).map(client).collect();
    let steady = Steady::default();
    let mut successors: Vec<Successor> = Vec::new();
    thread::scope(|scope| {
        let _at_the_end = Enough(&steady);
        for (client, repository) in (0..).zip(&clients) {
            let steady = &steady;
            scope.spawn(move || steady.go_on(client, repository));
        }
        let start = Instant::now();
        for change in 0..reloads {
            let due = Duration::from_secs(seconds) * change / reloads;
            // Time is the subject: so many changes in so many seconds.
            thread::sleep(due.saturating_sub(start.elapsed()));
            site.configure(&[&certificates(change), &listeners(&site, change), "timeouts: { drain: 20s }"]);
            site.run(&["reload"]).ok();
            if change == reloads / 3 || change == 2 * reloads / 3 {
                successors.push(upgrade(&site));
            }
        }
        // And time for the pushes and pulls after the last of them.
        thread::sleep(Duration::from_secs(seconds).saturating_sub(start.elapsed()));
    });
    let (done, failed) = (steady.done.into_inner(), steady.failed.into_inner());
    eprintln!("{done} images were pushed and pulled during {reloads} reloads and {} upgrades", successors.len());
    assert!(failed.is_empty(), "{} of {done} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(done > 2 * CLIENTS, "{done} are too few to tell");
    drop(clients);
    assert_eq!(server.process.wait(40).code(), Some(0));
    let last = successors.pop().expect("two upgrades");
    wait_for("the others to end", 40, || successors.iter().all(Successor::ended).then_some(()));
    last.stop();
}

/// One connection for all who use it, by HTTP/2.
fn http2(trusted: &str) -> reqwest::blocking::Client {
    let trusted = reqwest::Certificate::from_pem_bundle(trusted.as_bytes()).expect("certificates");
    let builder = reqwest::blocking::Client::builder().no_proxy().timeout(Duration::from_secs(240));
    builder.tls_certs_only(trusted).build().expect("a client")
}

/// One of three: the local authority's, `a`, `b`.
fn certificates(change: u32) -> String {
    let name = match change % 3 {
        0 => "a",
        1 => "b",
        _ => return "tls: { local: certs }".to_owned(),
    };
    format!("tls: {{ local: certs, certificates: [{{ certificate: {name}.crt, key: {name}.key }}] }}")
}

/// The usual one; with every other change one more.
fn listeners(site: &Site, change: u32) -> String {
    let own = format!("{{ address: \"[::]:{}\" }}", site.port());
    if change.is_multiple_of(2) {
        return format!("listeners: [{own}]");
    }
    format!("listeners: [{own}, {{ address: \"127.0.0.1:{}\", tls: false }}]", free_port())
}
