//! What goes wrong on the way to a certificate, and what is done about it.

use std::fs;

use serde_json::Value;

use super::{Scene, hook, status};
use crate::support::machine::{NAME, on_a_fresh_machine};
use crate::support::pebble::Manners;
use crate::support::pierhead::Site;
use crate::support::relay::connect_proxy;
use crate::support::{free_port, soak, wait_for};

#[test]
fn with_two_of_five_nonces_rejected_a_certificate_is_issued_all_the_same() {
    on_a_fresh_machine(|machine| {
        // The last is spoken by another library than the others.
        let kinds: &[&str] = if soak() { &["tls-alpn-01", "http-01", "dns-01"] } else { &["tls-alpn-01"] };
        for kind in kinds {
            let scene = Scene::new(machine, Manners { rejects: 40, ..Manners::default() });
            let dns = format!(", {}", hook(machine, &scene.names, &machine.join("told")));
            scene.configure(&format!("challenges: [{kind}]{}", if *kind == "dns-01" { &dns } else { "" }));
            let server = scene.site.start();
            scene.ordered(300);
            assert_eq!(server.stop().code(), Some(0));
        }
    });
}

/// What `cert status` says of the ordering of the first certificate.
fn ordering(site: &Site) -> Value {
    status(site)[0]["acme"].clone()
}

#[test]
fn a_name_that_cannot_be_proven_is_said_with_its_port_and_tried_again_later_and_the_fallback_is_served() {
    on_a_fresh_machine(|machine| {
        let nobody = free_port();
        let scene =
            Scene::looking(machine, Manners::default(), |manners| (manners.http, manners.tls) = (nobody, nobody));
        scene.configure("challenges: [http-01]");
        let server = scene.site.start();
        let failed =
            wait_for("the refusal", 60, || Some(ordering(&scene.site)).filter(|of| of["error"]["reason"].is_string()));
        let reason = failed["error"]["reason"].as_str().expect("text").to_owned();
        for word in [NAME, &nobody.to_string()] {
            assert!(reason.contains(word), "{word}: {failed}");
        }
        let words = "connection refused";
        assert!(reason.contains(words) && server.process.stderr().contains(words), "{}", server.process.stderr());
        let seconds = |of: &Value, from: &str| -> i64 {
            let at = |value: &Value| value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            let from = if from == "now" { Some(jiff::Timestamp::now()) } else { at(&of["error"]["at"]) };
            at(&of["next"]).expect("a time").as_second() - from.expect("a time").as_second()
        };
        assert!((14 * 60..=17 * 60).contains(&seconds(&failed, "error")), "{failed}");
        scene.shows_the_local_authority();
        let orders = scene.pebble.orders();
        assert_eq!(server.stop().code(), Some(0));
        // A restart forgets nothing of it.
        let server = scene.site.start();
        let again =
            wait_for("what was", 20, || Some(ordering(&scene.site)).filter(|of| of["failures"] == failed["failures"]));
        assert_eq!((&again["next"], &again["error"]), (&failed["next"], &failed["error"]));
        assert_eq!(scene.pebble.orders(), orders, "{}", scene.pebble.log());
        assert_eq!(server.stop().code(), Some(0));
    });
}

#[test]
fn an_account_is_bound_to_one_that_the_authority_knows() {
    on_a_fresh_machine(|machine| {
        const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
        let manners = Manners { customer: Some(("kid-1", KEY)), rejects: 5, ..Manners::default() };
        let scene = Scene::new(machine, manners);
        // Somebody whom it does not know is refused, and is told so.
        scene.configure("challenges: [tls-alpn-01]");
        let server = scene.site.start();
        let refused =
            wait_for("the refusal", 30, || Some(ordering(&scene.site)).filter(|of| of["error"]["reason"].is_string()));
        assert!(
            refused["error"]["reason"].as_str().is_some_and(|reason| reason.to_lowercase().contains("external")),
            "{refused}"
        );
        scene.shows_the_local_authority();
        fs::write(scene.site.directory().join("eab.key"), format!("{KEY}\n")).expect("ours");
        scene.configure("challenges: [tls-alpn-01], eab: { id: kid-1, key: eab.key }");
        scene.site.run(&["reload"]).ok();
        // What was refused would be asked again after an hour.
        scene.site.run(&["cert", "renew"]).ok();
        scene.ordered(90);
        assert!(!server.process.stderr().contains(KEY), "the key is not in the log");
        assert_eq!(server.stop().code(), Some(0));
    });
}

#[test]
fn the_authority_is_reached_by_the_proxy_of_the_environment() {
    on_a_fresh_machine(|machine| {
        let scene = Scene::new(machine, Manners::default());
        scene.configure("challenges: [http-01]");
        let (proxy, asked) = connect_proxy();
        let server = scene.site.start_with("HTTPS_PROXY", format!("http://127.0.0.1:{proxy}").as_ref());
        scene.ordered(90);
        let asked = asked.lock().expect("nobody panicked").clone();
        let authority = format!("localhost:{}", scene.pebble.port());
        assert!(!asked.is_empty() && asked.iter().all(|target| *target == authority), "{asked:?}");
        assert_eq!(server.stop().code(), Some(0));
    });
}

#[test]
fn a_name_more_is_ordered_at_a_reload_while_the_old_certificate_is_shown_and_not_again_within_the_hour() {
    on_a_fresh_machine(|machine| {
        let scene = Scene::new(machine, Manners::default());
        let certificates = |names: &str| format!("challenges: [tls-alpn-01], certificates: [[{names}]]");
        scene.configure(&certificates("registry.test"));
        let server = scene.site.start();
        let first = scene.ordered(90);
        scene.configure(&certificates("registry.test, more.registry.test"));
        scene.pebble.hang();
        scene.site.run(&["reload"]).ok();
        assert_eq!(scene.shown().expect("the old one"), first);
        scene.pebble.go_on();
        let second = wait_for("the name more", 30, || scene.shown_as("more.registry.test").ok());
        assert_eq!(scene.shown().expect("the new one"), second);
        let renewed = scene.site.run(&["cert", "renew"]);
        assert!(renewed.code() == Some(75) && renewed.stderr.contains("issued within the last hour"), "{renewed}");
        assert_eq!(scene.pebble.issued(), 2, "{}", scene.pebble.log());
        assert_eq!(server.stop().code(), Some(0));
    });
}

#[test]
fn a_storage_folder_that_hangs_during_a_reload_does_not_keep_the_server_from_ending() {
    on_a_fresh_machine(|machine| {
        let scene = Scene::new(machine, Manners::default());
        scene.configure("challenges: [tls-alpn-01]");
        let mut server = scene.site.start();
        scene.ordered(90);
        let pem = scene.site.directory().join("state/acme/certificates").join(format!("{NAME}.pem"));
        fs::remove_file(&pem).expect("it is there");
        assert!(std::process::Command::new("mkfifo").arg(&pem).status().is_ok_and(|made| made.success()));
        // Whoever reads waits for what never comes.
        let hanging = fs::OpenOptions::new().read(true).write(true).open(&pem).expect("ours");
        let descriptors = format!("/proc/{}/fd", server.process.id());
        let readers = || {
            let open = fs::read_dir(&descriptors).expect("it runs").flatten();
            open.filter(|file| fs::read_link(file.path()).is_ok_and(|path| path == pem)).count()
        };
        std::thread::scope(|scope| {
            wait_for("whoever watches it", 30, || (readers() == 1).then_some(()));
            let reload = scope.spawn(|| scene.site.run(&["reload"]));
            wait_for("the reload", 30, || (readers() == 2).then_some(()));
            server.process.terminate();
            assert_eq!(server.process.wait(30).code(), Some(0));
            let said = reload.join().expect("no panic");
            assert!(said.code() != Some(0) && said.stderr.contains("the server is stopping"), "{said}");
        });
        drop(hanging);
    });
}
