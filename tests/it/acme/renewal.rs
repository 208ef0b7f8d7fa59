//! Renewals under load, also with an authority that misbehaves for half a lifetime; and what is left when it is gone for
//! good.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustls::pki_types::CertificateDer;

use super::{Scene, status};
use crate::support::content::Content;
use crate::support::handshake::{presented, shown};
use crate::support::machine::{NAME, on_a_fresh_machine};
use crate::support::pebble::Manners;
use crate::support::pierhead::{ADMIN_PASSWORD, Site};
use crate::support::registry::Registry;
use crate::support::relay::{Relay, Way, one_answer};
use crate::support::{free_port, soak, wait_for};

/// How long certificates are good for here, in seconds. In the short form a renewal in the last quarter, which takes a
/// second or two and as much until it is shown, still leaves some.
fn validity() -> u32 {
    if soak() { 90 } else { 30 }
}

/// Clients that trust the authority and nobody else, and come over new connections again and again.
struct Load<'a> {
    site: &'a Site,
    root: String,
    ended: AtomicBool,
    done: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl<'a> Load<'a> {
    fn new(scene: &'a Scene) -> Self {
        let (ended, done) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { site: &scene.site, root: scene.pebble.root.clone(), ended, done, failures: Mutex::default() }
    }

    /// Runs `body` under load: what was asked for, and what of it failed.
    fn during(&self, body: impl FnOnce(&Self)) -> (usize, Vec<String>) {
        std::thread::scope(|threads| {
            for name in ["one", "two"] {
                threads.spawn(move || self.push_and_pull(name));
            }
            let finish = End(&self.ended);
            body(self);
            drop(finish);
        });
        (self.done.load(Ordering::Relaxed), self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Somebody on a connection of their own.
    fn client(&self) -> Registry {
        let realm = format!("{}/jwt/auth", self.site.origin());
        Registry::guarded(&self.site.origin(), &realm, &self.root, Some(("admin", ADMIN_PASSWORD)))
    }

    fn push_and_pull(&self, name: &str) {
        for seed in 0.. {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            let tag = format!("v{seed}");
            let repository = self.client().repository(&format!("load/{name}"), "pull,push");
            let authorization = repository.authorization().expect("a token").to_owned();
            for number in 0..10 {
                let again = || self.client().repository_with(&format!("load/{name}"), authorization.clone());
                let pushed = again().push(&tag, &[Content::new(seed << 8 | number, 50_000)]);
                let pulled = again().pull(&tag);
                self.count(&format!("{pushed:?}, {pulled:?}"), pushed.is_ok() && pulled.is_ok());
            }
        }
    }

    /// A handshake of somebody new: what was shown.
    fn shake(&self) -> Option<CertificateDer<'static>> {
        let shown = shown(&self.root, NAME, self.site.port());
        self.count(&format!("{shown:?}"), shown.is_ok());
        shown.ok().map(|mut chain| chain.remove(0))
    }

    /// Handshakes until then.
    fn shake_until(&self, then: Instant) {
        wait_for("a time", u64::from(validity()), || {
            self.shake();
            (Instant::now() >= then).then_some(())
        });
    }

    /// Handshakes until another certificate is shown.
    fn renewed(&self, before: &CertificateDer<'static>) -> CertificateDer<'static> {
        wait_for("a renewal", u64::from(validity()), || self.shake().filter(|shown| shown != before))
    }

    fn count(&self, what: &str, well: bool) {
        self.done.fetch_add(1, Ordering::Relaxed);
        if !well {
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_owned());
        }
    }
}

/// Ends the load, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn three_renewals_under_load_fail_no_handshake_and_no_request() {
    on_a_fresh_machine(|machine| {
        let scene = Scene::new(machine, Manners { validity: validity(), rejects: 5, ..Manners::default() });
        scene.configure("challenges: [tls-alpn-01]");
        let server = scene.site.start();
        let mut current = scene.ordered(90);
        let (done, failed) = Load::new(&scene).during(|load| {
            for _ in 0..3 {
                current = load.renewed(&current);
            }
        });
        eprintln!("3 renewals, {done} handshakes, pushes and pulls, {} failed", failed.len());
        assert!(failed.is_empty() && done > 100, "{done}: {failed:?}");
        assert_eq!(scene.pebble.issued(), 4, "{}", scene.pebble.log());
        assert_eq!(server.stop().code(), Some(0));
    });
}

/// What an authority says whose web server is being mended.
const GARBAGE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nReplay-Nonce: \r\nContent-Length: 21\r\nConnection: close\r\n\r\n<html>Be back soon...";

#[test]
fn an_authority_that_hangs_or_talks_garbage_or_dies_for_half_a_lifetime_fails_nobody() {
    on_a_fresh_machine(|machine| {
        let scene = Scene::new(machine, Manners { validity: validity(), ..Manners::default() });
        let (authority, garbage) = (scene.pebble.port(), one_answer(&scene.pebble.pair(), GARBAGE));
        let relay = Relay::start(Way::To(vec![authority]));
        let directory = crate::support::pebble::Pebble::directory_at(relay.port());
        // In memory: how long a busy disk takes is not what is tried here.
        let tls = scene.tls(&directory, "challenges: [http-01], storage: /run/acme");
        scene.site.configure(&[&scene.listeners(), &tls]);
        let server = scene.site.start();
        let mut current = scene.ordered(90);
        let quarter = Duration::from_secs(u64::from(validity())) / 4;
        let load = Load::new(&scene);
        let (done, failed) = load.during(|load| {
            let mut misbehave = |bad: &mut dyn FnMut(), good: &mut dyn FnMut()| {
                let issued = Instant::now();
                load.shake_until(issued + quarter);
                bad();
                load.shake_until(issued + 3 * quarter);
                assert_eq!(load.shake().as_ref(), Some(&current), "the one before is shown");
                good();
                current = load.renewed(&current);
            };
            misbehave(&mut || scene.pebble.hang(), &mut || scene.pebble.go_on());
            misbehave(&mut || relay.set(Way::To(vec![garbage])), &mut || relay.set(Way::To(vec![authority])));
            misbehave(&mut || relay.set(Way::Nowhere), &mut || relay.set(Way::To(vec![authority])));
        });
        eprintln!("3 faults, {done} handshakes, pushes and pulls, {} failed", failed.len());
        assert!(failed.is_empty() && done > 100, "{done}: {failed:?}");
        assert_eq!(server.stop().code(), Some(0));
    });
}

#[test]
fn when_the_authority_is_gone_for_good_the_certificate_is_shown_to_its_end_and_beyond_and_loudly() {
    on_a_fresh_machine(|machine| {
        let mut scene = Scene::new(machine, Manners { validity: 12, ..Manners::default() });
        let metrics = free_port();
        let tls = scene.tls(&scene.pebble.directory(), "challenges: [http-01]");
        scene.site.configure(&[&scene.listeners(), &tls, &format!("metrics: {{ address: \"127.0.0.1:{metrics}\" }}")]);
        let server = scene.site.start();
        let last = scene.ordered(90);
        scene.pebble.kill();
        wait_for("the end of the certificate", 20, || match scene.shown() {
            Ok(shown) => (shown != last).then(|| panic!("there is no other")),
            Err(_) => Some(()),
        });
        assert_eq!(presented(NAME, scene.site.port())[0], last, "what is over is still shown");
        let expired = status(&scene.site);
        assert!(expired[0]["days_left"].as_i64().is_some_and(|days| days < 0), "{expired}");
        assert!(expired[0]["acme"]["failures"].as_u64().is_some_and(|failures| failures > 0), "{expired}");
        let registry = Registry::open(&format!("http://127.0.0.1:{metrics}"));
        let metrics = registry.request(Method::GET, "/metrics").send().and_then(reqwest::blocking::Response::text);
        let metrics = metrics.expect("metrics");
        let failures = metrics.lines().find(|line| line.starts_with("pierhead_acme_failures{"));
        assert!(failures.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
        wait_for("loud words", 20, || server.process.stderr().contains("EXPIRED at").then_some(()));
        // When it comes back it knows nobody, neither our account nor its own root, and is asked at once.
        scene.pebble.start_again();
        wait_for("a certificate of the new authority", 30, || scene.shown().ok());
        assert_eq!(server.stop().code(), Some(0));
    });
}
