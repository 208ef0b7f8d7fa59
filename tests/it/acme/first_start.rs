//! From an empty state directory to a push over an ordered certificate, by every kind of challenge.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::{Named, Scene, files, hook, secrets_are_kept, status};
use crate::support::balancers::serve_folder;
use crate::support::clients::{Client, Docker, Skopeo};
use crate::support::free_port;
use crate::support::image::{Image, Layout};
use crate::support::machine::{NAME, on_a_fresh_machine};
use crate::support::pebble::Manners;
use crate::support::pierhead::{ADMIN_PASSWORD, Pierhead};

/// A client that trusts only the authority pushes an image and pulls it again.
fn pushes(machine: &Path, scene: &Scene, client: &mut impl Client) {
    for engine in ["docker", "containers"] {
        let folder = format!("/etc/{engine}/certs.d/{}", scene.site.authority());
        fs::create_dir_all(&folder).expect("the machine is ours");
        fs::write(format!("{folder}/ca.crt"), &scene.pebble.root).expect("the machine is ours");
    }
    let image = Image::small(7);
    let layout = Layout::of_image(&machine.join("small"), &image);
    let name = format!("{}/first/app:1", scene.site.authority());
    client.login(&scene.site.authority(), "admin", ADMIN_PASSWORD).ok();
    client.push(&image, &layout, &name).ok();
    assert_eq!(client.pull(&name).unwrap_or_else(|refusal| panic!("{refusal}")).id, image.id());
}

/// One order was enough, secrets are kept, and a restart orders nothing.
fn ordered_once(scene: &Scene, server: Pierhead) {
    assert_eq!((scene.pebble.orders(), scene.pebble.issued()), (1, 1), "{}", scene.pebble.log());
    secrets_are_kept(&scene.site, &server);
    let left: Vec<_> = files(&scene.site.directory().join("state/acme"));
    assert!(
        !left.iter().any(|file| file.to_string_lossy().contains("/challenges/")),
        "answers are taken away: {left:?}"
    );
    let before = scene.shown().expect("it is shown");
    assert_eq!(server.stop().code(), Some(0));
    let server = scene.site.start();
    assert_eq!(scene.shown().expect("it is shown from the start"), before);
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(scene.pebble.orders(), 1, "a restart orders nothing");
}

#[test]
fn by_tls_alpn_01_and_docker_pushes() {
    on_a_fresh_machine(|machine| {
        let scene = Scene::new(machine, Manners { rejects: 5, ..Manners::default() });
        scene.configure("challenges: [tls-alpn-01], contact: [ops@registry.test]");
        let before = files(scene.site.directory());
        scene.site.run(&["check"]).ok();
        assert_eq!(files(scene.site.directory()), before, "check creates nothing");
        let server = scene.site.start();
        scene.ordered(90);
        pushes(machine, &scene, &mut Docker::start(machine));
        let status = status(&scene.site);
        assert!(status[0]["issuer"].as_str().is_some_and(|issuer| issuer.contains("Pebble")), "{status}");
        ordered_once(&scene, server);
    });
}

#[test]
fn by_http_01_and_skopeo_pushes() {
    on_a_fresh_machine(|machine| {
        let scene = Scene::new(machine, Manners { rejects: 5, ..Manners::default() });
        // As somebody who is not root, as it runs on servers.
        for folder in [machine, scene.site.directory()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        let tls = scene.tls(&scene.pebble.directory(), "challenges: [http-01]");
        scene.site.configure(&["user: nobody", &scene.listeners(), &tls]);
        let server = scene.site.start();
        scene.ordered(90);
        pushes(machine, &scene, &mut Skopeo::new(machine));
        ordered_once(&scene, server);
    });
}

#[test]
fn by_http_01_with_the_webroot_of_another_server_where_links_are_not_followed() {
    on_a_fresh_machine(|machine| {
        let (webroot, port) = (machine.join("webroot"), free_port());
        let folder = webroot.join(".well-known/acme-challenge");
        fs::create_dir_all(&folder).expect("ours");
        for at in [machine, &webroot, &webroot.join(".well-known"), &folder] {
            fs::set_permissions(at, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        let _nginx = serve_folder(machine, port, &webroot);
        let scene = Scene::looking(machine, Manners::default(), |manners| manners.http = port);
        scene.configure(&format!("challenges: [http-01], webroot: \"{}\"", webroot.display()));
        let server = scene.site.start();
        scene.ordered(90);
        assert!(files(&webroot).is_empty(), "tokens are taken away: {:?}", files(&webroot));
        pushes(machine, &scene, &mut Skopeo::new(machine));
        ordered_once(&scene, server);
        // Somebody who may write there puts a link where the folder was.
        let elsewhere = machine.join("elsewhere");
        fs::create_dir(&elsewhere).expect("ours");
        fs::remove_dir(&folder).expect("ours");
        symlink(&elsewhere, &folder).expect("ours");
        // With our account, too: the authority believes now and then what an account has proven before.
        fs::remove_dir_all(scene.site.directory().join("state/acme")).expect("ours");
        let server = scene.site.start();
        let said = |server: &Pierhead| server.process.stderr();
        scene.wait_for("the refusal", 90, || said(&server).contains("acme-challenge").then_some(()));
        assert!(files(&elsewhere).is_empty(), "nothing is written behind a link");
        scene.shows_the_local_authority();
        assert_eq!(server.stop().code(), Some(0));
    });
}

const WILDCARD: &str = "certificates: [[registry.test, \"*.registry.test\"]], challenges: [dns-01]";

/// Both names of [`WILDCARD`] are carried.
fn wildcard_is_shown(scene: &Scene) {
    let shown = scene.ordered(90);
    assert_eq!(scene.shown_as("any.registry.test").expect("the wildcard"), shown);
}

#[test]
fn by_dns_01_a_wildcard_with_signed_updates_of_a_zone() {
    on_a_fresh_machine(|machine| {
        let named = Named::start(machine, NAME);
        let scene =
            Scene::looking(machine, Manners { rejects: 5, ..Manners::default() }, |manners| manners.dns = named.port());
        let (server, key) = (named.port(), named.key());
        scene.configure(&format!("{WILDCARD}, dns: {{ server: \"127.0.0.1:{server}\", key: \"{}\" }}", key.display()));
        let server = scene.site.start();
        wildcard_is_shown(&scene);
        pushes(machine, &scene, &mut Skopeo::new(machine));
        let log = named.log();
        assert!(log.contains("signer \"pierhead\" approved"), "{log}");
        assert!(
            log.matches("deleting an RR").count() + log.matches("deleting rrset").count() >= 1,
            "records are taken away: {log}"
        );
        let secret = fs::read_to_string(named.key()).expect("ours");
        let secret = secret.split('"').nth(3).expect("a secret in quotes");
        assert!(!server.process.stderr().contains(secret), "the key is not in the log");
        ordered_once(&scene, server);
    });
}

#[test]
fn by_dns_01_a_wildcard_with_a_program_of_the_operator() {
    on_a_fresh_machine(|machine| {
        let scene = Scene::new(machine, Manners { rejects: 5, ..Manners::default() });
        let told = machine.join("told");
        scene.configure(&format!("{WILDCARD}, {}", hook(machine, &scene.names, &told)));
        let server = scene.site.start();
        wildcard_is_shown(&scene);
        pushes(machine, &scene, &mut Skopeo::new(machine));
        let told = fs::read_to_string(told).expect("it was run");
        let count =
            |word: &str| told.lines().filter(|line| *line == format!("{word} _acme-challenge.registry.test.")).count();
        assert_eq!((count("present"), count("cleanup")), (2, 2), "{told}");
        ordered_once(&scene, server);
    });
}
