//! Promise: images for several architectures travel whole, and a blob that we hold is not sent a second time by whoever
//! may read it where it lies; everybody else's push goes on all the same.

use std::path::Path;

use serde_json::Value;

use crate::support::clients::{Client, Containers, Docker, Skopeo};
use crate::support::content::Content;
use crate::support::image::{Image, Layout};
use crate::support::machine::{self, on_a_fresh_machine};
use crate::support::pierhead::{ADMIN_PASSWORD, Pierhead, Site};

/// A site whose certificate every client on the machine trusts, and a client that is logged in.
fn trusted_site(client: &impl Client) -> (Site, Pierhead) {
    let site = Site::named(machine::NAME);
    let server = site.start();
    site.trust_on_this_machine();
    client.login(&site.authority(), "admin", ADMIN_PASSWORD).ok();
    (site, server)
}

#[test]
fn an_index_of_several_architectures_comes_back_whole() {
    on_a_fresh_machine(|machine| {
        let skopeo = Skopeo::new(machine);
        let (site, _server) = trusted_site(&skopeo);
        let base = Image::small(3);
        let images = [base.variant("amd64", Content::new(31, 70_000)), base.variant("arm64", Content::new(32, 80_000))];
        let layout = Layout::of_index(&machine.join("index"), &images);
        let name = format!("docker://{}/team/multi:latest", site.authority());

        skopeo.copy(&layout.transport(), &name).ok();
        let pulled = machine.join("pulled");
        skopeo.copy(&name, &format!("oci:{}:latest", pulled.display())).ok();

        let index = std::fs::read(pulled.join("index.json")).expect("a layout was written");
        let index: Value = serde_json::from_slice(&index).expect("layouts are JSON");
        assert_eq!(index["manifests"][0]["digest"], layout.digest.as_str(), "the index is the same document");
        for image in &images {
            let config = pulled.join("blobs").join(image.id().replace(':', "/"));
            assert!(config.exists(), "every image came with it: {image:?}");
        }
    });
}

#[test]
fn skopeo_mounts_what_another_repository_holds() {
    on_a_fresh_machine(|machine| {
        let skopeo = Skopeo::new(machine);
        let (site, server) = trusted_site(&skopeo);
        let image = Image::small(4);
        let layout = Layout::of_image(&machine.join("small"), &image);
        second_push_sends_no_layer(&skopeo, &site, &server, &image, &layout);
    });
}

#[test]
fn docker_mounts_what_another_repository_holds() {
    on_a_fresh_machine(|machine| {
        let docker = Docker::start(machine);
        let (site, server) = trusted_site(&docker);
        let image = Image::small(5);
        let layout = Layout::of_image(&machine.join("small"), &image);
        second_push_sends_no_layer(&docker, &site, &server, &image, &layout);
    });
}

#[test]
fn podman_mounts_what_another_repository_holds() {
    on_a_fresh_machine(|machine| {
        let podman = Containers::podman();
        let (site, server) = trusted_site(&podman);
        let image = Image::small(6);
        let layout = Layout::of_image(&machine.join("small"), &image);
        second_push_sends_no_layer(&podman, &site, &server, &image, &layout);
    });
}

#[test]
fn skopeo_pushes_what_it_may_not_mount() {
    on_a_fresh_machine(|machine| pushes_what_it_may_not_mount(&mut Skopeo::new(machine), machine, LOOKS_FIRST));
}

#[test]
fn docker_pushes_what_it_may_not_mount() {
    on_a_fresh_machine(|machine| pushes_what_it_may_not_mount(&mut Docker::start(machine), machine, ASKS_FOR_EACH));
}

#[test]
fn podman_pushes_what_it_may_not_mount() {
    on_a_fresh_machine(|machine| pushes_what_it_may_not_mount(&mut Containers::podman(), machine, LOOKS_FIRST));
}

/// How many mounts of the three layers a client asks for that may not read the source: one that looks into the source
/// first sees that it may not.
const LOOKS_FIRST: usize = 0;
const ASKS_FOR_EACH: usize = 3;

/// The client knows that a repository holds the layers, and would have them mounted from there when it pushes to another.
/// In between, its user lost the right to the first.
fn pushes_what_it_may_not_mount(client: &mut impl Client, machine: &Path, mounts: usize) {
    let (user, password) = ("dora", "dora-develops-images");
    let site = Site::named(machine::NAME);
    let server = site.start();
    site.trust_on_this_machine();
    site.add_user(user, password);
    for project in ["one/app", "two/app"] {
        site.add_project(project, "private");
        site.add_member(project, user, "developer");
    }
    client.login(&site.authority(), user, password).ok();
    let image = Image::small(7);
    let layout = Layout::of_image(&machine.join("small"), &image);
    let name = |repository: &str| format!("{}/{repository}:latest", site.authority());
    client.push(&image, &layout, &name("one/app")).ok();
    site.run(&["project", "member", "remove", "one/app", user, "--yes"]).ok();

    client.push(&image, &layout, &name("two/app")).ok();
    let log = server.wait_for_access("the manifest's line", |log| {
        let manifest = |line: &Value| line["path"].as_str().is_some_and(|path| path.contains("/manifests/"));
        let pushed = |line: &Value| line["method"] == "PUT" && line["repository"] == "two/app" && manifest(line);
        log.iter().any(pushed).then(|| log.to_vec())
    });
    let begun: Vec<&Value> =
        log.iter().filter(|line| line["repository"] == "two/app" && line["method"] == "POST").collect();
    assert!(begun.iter().all(|line| line["status"] == 202), "nothing is mounted and nothing refused: {begun:#?}");
    assert_eq!(begun.iter().filter(|line| line["reference"].is_string()).count(), mounts, "{begun:#?}");
    let pulled = client.pull(&name("two/app")).unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(pulled.id, image.id());
}

/// Pushes an image to one repository, then to another, and reads in the access log what the second push sent.
fn second_push_sends_no_layer(client: &impl Client, site: &Site, server: &Pierhead, image: &Image, layout: &Layout) {
    let push = |repository: &str| {
        client.push(image, layout, &format!("{}/{repository}:latest", site.authority())).ok();
        let pushed =
            |line: &&Value| line["method"] == "PUT" && line["status"] == 201 && line["repository"] == repository;
        let manifest = |line: &&Value| line["path"].as_str().is_some_and(|path| path.contains("/manifests/"));
        server.wait_for_access("the manifest's line", |log| {
            log.iter().any(|line| pushed(&line) && manifest(&line)).then(|| log.to_vec())
        })
    };
    let received = |log: &[Value], repository: &str| -> u64 {
        let ours = log.iter().filter(|line| line["repository"] == repository);
        ours.filter_map(|line| line["bytes_in"].as_u64()).sum()
    };
    let first = received(&push("one/app"), "one/app");
    let log = push("two/app");
    let mounts = log.iter().filter(|line| line["repository"] == "two/app" && line["method"] == "POST");
    assert!(mounts.filter(|line| line["status"] == 201).count() >= 3, "three layers are mounted: {log:#?}");
    let second = received(&log, "two/app");
    assert!(first > 340_000, "the first push sends all layers, not {first} bytes");
    assert!(second < 100_000, "the second sends a configuration and a manifest, not {second} bytes");
}
