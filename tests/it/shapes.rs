//! Promise: whatever shape clients give to images and to their errands arrives: lists of tags, copies of whole
//! repositories, deletes, layers in zstd, very many layers, lists that engines build, signatures and artifacts beside
//! images.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;
use serde_json::Value;

use crate::support::clients::{Client, Containers, Docker, Skopeo};
use crate::support::command::{Output, command};
use crate::support::content::{Content, digest};
use crate::support::image::{Image, Layout};
use crate::support::machine::{self, on_a_fresh_machine};
use crate::support::pierhead::{ADMIN_PASSWORD, Pierhead, Site};
use crate::support::process::Process;

/// A site that every client on the machine trusts and knows the admin's password of.
fn trusted_site(machine: &Path) -> (Site, Pierhead) {
    let site = Site::named(machine::NAME);
    let server = site.start();
    site.trust_on_this_machine();
    Skopeo::new(machine).login(&site.authority(), "admin", ADMIN_PASSWORD).ok();
    (site, server)
}

fn skopeo(arguments: &[&str]) -> Output {
    Output::of(command("skopeo").args(arguments))
}

fn crane_program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/crane")
}

fn crane(site: &Site, arguments: &[&str]) -> Output {
    let mut command: Command = command(crane_program());
    Output::of(command.args(arguments).env("SSL_CERT_FILE", site.directory().join("certs/ca.crt")))
}

fn is_a_copy(repository: &str) -> bool {
    repository.starts_with("copy-")
}

fn push(machine: &Path, image: &Image, name: &str) -> Layout {
    let layout = Layout::of_image(&machine.join(name.replace(['/', ':'], "-")), image);
    skopeo(&["copy", &layout.transport(), &format!("docker://{name}")]).ok();
    layout
}

fn tags(site: &Site, repository: &str) -> Vec<String> {
    let answer: Value = site.admin().repository(repository, "pull").get("tags/list").json().expect("lists are JSON");
    serde_json::from_value(answer["tags"].clone()).expect("a list of tags")
}

#[test]
fn skopeo_lists_syncs_and_deletes() {
    on_a_fresh_machine(|machine| {
        let (site, _server) = trusted_site(machine);
        let registry = site.authority();
        for tag in ["v1", "v2"] {
            push(machine, &Image::small(41), &format!("{registry}/team/app:{tag}"));
        }
        push(machine, &Image::small(42), &format!("{registry}/team/app:other"));
        let name = format!("docker://{registry}/team/app");
        let listed: Value = serde_json::from_str(&skopeo(&["list-tags", &name]).ok().stdout).expect("JSON");
        assert_eq!(listed["Tags"], serde_json::json!(["other", "v1", "v2"]));

        let copies = format!("{registry}/copies");
        let sync = ["sync", "--src", "docker", "--dest", "docker", &format!("{registry}/team/app"), &copies];
        skopeo(&sync).ok();
        assert_eq!(tags(&site, "copies/app"), ["other", "v1", "v2"]);

        // skopeo deletes the manifest that the tag names, and the other tags of it with it.
        skopeo(&["delete", &format!("{name}:v1")]).ok();
        assert_eq!(tags(&site, "team/app"), ["other"]);
    });
}

#[test]
fn crane_copies_all_tags_ten_times_by_mounting_and_lists_and_deletes() {
    if !crane_program().exists() {
        eprintln!("NOT TESTED: crane, which is not here (tests/install-clients builds it where Go is at hand)");
        return;
    }
    on_a_fresh_machine(|machine| {
        let (site, server) = trusted_site(machine);
        let registry = site.authority();
        let crane = |arguments: &[&str]| crane(&site, arguments).ok();
        crane(&["auth", "login", &registry, "-u", "admin", "-p", ADMIN_PASSWORD]);
        for (seed, tag) in [(43, "a"), (44, "b"), (45, "c")] {
            push(machine, &Image::small(seed), &format!("{registry}/team/app:{tag}"));
        }
        let source = format!("{registry}/team/app");
        for round in 0..10 {
            let copy = format!("{registry}/copy-{round}/app");
            crane(&["copy", "--all-tags", &source, &copy]);
            assert_eq!(tags(&site, &format!("copy-{round}/app")), ["a", "b", "c"]);
        }
        let mounted = |line: &&Value| {
            line["method"] == "POST" && line["status"] == 201 && line["repository"].as_str().is_some_and(is_a_copy)
        };
        server
            .wait_for_access("ten copies by mounting", |log| (log.iter().filter(mounted).count() >= 30).then_some(()));
        assert_eq!(crane(&["ls", &source]).stdout, "a\nb\nc\n");
        let digest = crane(&["digest", &format!("{source}:a")]).stdout.trim().to_owned();
        crane(&["delete", &format!("{source}@{digest}")]);
        assert_eq!(tags(&site, "team/app"), ["b", "c"]);
    });
}

#[test]
fn layers_in_zstd_come_back() {
    on_a_fresh_machine(|machine| {
        let (site, _server) = trusted_site(machine);
        let registry = site.authority();
        let image = Image::small(46);
        let layout = Layout::of_image(&machine.join("image"), &image);
        let by_skopeo = format!("{registry}/team/zstd:skopeo");
        let to = format!("docker://{by_skopeo}");
        skopeo(&["copy", "--dest-compress-format", "zstd", &layout.transport(), &to]).ok();
        skopeo(&["copy", &layout.transport(), "containers-storage:localhost/image:latest"]).ok();
        let by_podman = format!("{registry}/team/zstd:podman");
        let pushed = ["push", "--compression-format", "zstd", "localhost/image", &by_podman];
        Output::of(command("podman").args(pushed)).ok();

        for (tag, name) in [("skopeo", &by_skopeo), ("podman", &by_podman)] {
            let manifest: Value =
                site.admin().repository("team/zstd", "pull").get(&format!("manifests/{tag}")).json().expect("JSON");
            let kind = manifest["layers"][0]["mediaType"].as_str().expect("layers have a type");
            assert!(kind.ends_with("+zstd"), "{tag}: {manifest}");
            let pulled = Containers::podman().pull(name).unwrap_or_else(|refusal| panic!("{refusal}"));
            assert_eq!(pulled.id, image.id(), "{tag}");
        }
    });
}

#[test]
fn an_image_of_120_layers_comes_back() {
    on_a_fresh_machine(|machine| {
        let (site, _server) = trusted_site(machine);
        let image = Image::new(47, &[2_000; 120]);
        let layout = Layout::of_image(&machine.join("image"), &image);
        let name = format!("{}/team/many:latest", site.authority());
        let mut skopeo = Skopeo::new(machine);
        skopeo.push(&image, &layout, &name).ok();
        let pulled = skopeo.pull(&name).unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!((pulled.id, pulled.manifest), (image.id(), layout.digest));
        let pulled = Containers::podman().pull(&name).unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(pulled.id, image.id());
    });
}

#[test]
fn a_signature_lies_beside_its_image_and_goes_with_a_sync() {
    on_a_fresh_machine(|machine| {
        let (site, _server) = trusted_site(machine);
        let registry = site.authority();
        let layout = push(machine, &Image::small(48), &format!("{registry}/team/app:1"));
        let signature = format!("{}.sig", layout.digest.replace(':', "-"));
        let repository = site.admin().repository("team/app", "pull,push");
        repository.push(&signature, &[Content::new(49, 300)]).expect("pushed as a signer does");

        let listed: Value =
            serde_json::from_str(&skopeo(&["list-tags", &format!("docker://{registry}/team/app")]).ok().stdout)
                .expect("JSON");
        assert_eq!(listed["Tags"], serde_json::json!(["1", signature]));
        let sync = ["sync", "--src", "docker", "--dest", "docker"];
        let places = [format!("{registry}/team/app"), format!("{registry}/copies")];
        skopeo(&[&sync[..], &[&places[0], &places[1]]].concat()).ok();
        assert_eq!(tags(&site, "copies/app"), ["1", signature.as_str()]);
        let found =
            site.admin().repository("copies/app", "pull").request(Method::HEAD, &format!("manifests/{signature}"));
        assert_eq!(found.send().expect("an answer").status(), 200);
    });
}

#[test]
fn a_list_that_podman_builds_comes_back() {
    on_a_fresh_machine(|machine| a_built_list_comes_back(machine, "podman"));
}

#[test]
fn a_list_that_buildah_builds_comes_back() {
    on_a_fresh_machine(|machine| a_built_list_comes_back(machine, "buildah"));
}

/// A list of two architectures, made and pushed by an engine; skopeo pulls all of it and docker its own image of it.
fn a_built_list_comes_back(machine: &Path, engine: &str) {
    let (site, _server) = trusted_site(machine);
    let engine = |arguments: &[&str]| Output::of(command(engine).args(arguments)).ok();
    let base = Image::small(51);
    let images = [base.variant("amd64", Content::new(52, 70_000)), base.variant("arm64", Content::new(53, 80_000))];
    let name = format!("{}/team/list:latest", site.authority());
    engine(&["manifest", "create", "localhost/list"]);
    for (image, architecture) in images.iter().zip(["amd64", "arm64"]) {
        let layout = Layout::of_image(&machine.join(architecture), image);
        let stored = format!("containers-storage:localhost/{architecture}:latest");
        skopeo(&["copy", &layout.transport(), &stored]).ok();
        engine(&["manifest", "add", "localhost/list", &stored]);
    }
    engine(&["manifest", "push", "--all", "localhost/list", &format!("docker://{name}")]);

    let raw = skopeo(&["inspect", "--raw", &format!("docker://{name}")]).ok();
    let list: Value = serde_json::from_str(&raw.stdout).expect("lists are JSON");
    let listed = list["manifests"].as_array().expect("a list").iter();
    let listed: Vec<&str> = listed.filter_map(|one| one["platform"]["architecture"].as_str()).collect();
    assert_eq!(listed, ["amd64", "arm64"]);

    let pulled = machine.join("pulled");
    Skopeo::new(machine).copy(&format!("docker://{name}"), &format!("oci:{}:latest", pulled.display())).ok();
    for image in &images {
        assert!(pulled.join("blobs").join(image.id().replace(':', "/")).exists(), "every image came: {image:?}");
    }
    let native = if cfg!(target_arch = "aarch64") { &images[1] } else { &images[0] };
    let mut docker = Docker::start(machine);
    docker.login(&site.authority(), "admin", ADMIN_PASSWORD).ok();
    let pulled = docker.pull(&name).unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(pulled.id, native.id(), "docker takes the image of its own architecture");
    assert_eq!(pulled.manifest, digest(raw.stdout.as_bytes()), "and names the list");
}

/// None of the clients here pushes a manifest with a `subject`, so the test's own client does; theirs read it.
#[test]
fn an_artifact_of_an_image_is_listed_and_read_by_other_clients() {
    on_a_fresh_machine(|machine| {
        let (site, _server) = trusted_site(machine);
        let registry = site.authority();
        let layout = push(machine, &Image::small(54), &format!("{registry}/team/app:1"));
        let repository = site.admin().repository("team/app", "pull,push");
        let artifact = repository.push_referrer(&layout.digest, 55).expect("an artifact is taken");
        assert_eq!(repository.referrers(&layout.digest), [artifact.as_str()]);

        let name = format!("{registry}/team/app@{artifact}");
        let mut read = vec![skopeo(&["inspect", "--raw", &format!("docker://{name}")]).ok().stdout];
        if crane_program().exists() {
            crane(&site, &["auth", "login", &registry, "-u", "admin", "-p", ADMIN_PASSWORD]).ok();
            read.push(crane(&site, &["manifest", &name]).ok().stdout);
        }
        for manifest in read {
            assert_eq!(digest(manifest.as_bytes()), artifact, "to the byte");
            let manifest: Value = serde_json::from_str(&manifest).expect("manifests are JSON");
            assert_eq!(manifest["subject"]["digest"], layout.digest.as_str());
        }
    });
}

#[test]
fn ctr_pulls_and_pushes() {
    on_a_fresh_machine(|machine| {
        let (site, _server) = trusted_site(machine);
        let socket = machine.join("containerd.sock");
        let mut containerd = Command::new("containerd");
        containerd.arg("--address").arg(&socket).arg("--root").arg(machine.join("root"));
        containerd.arg("--state").arg(machine.join("state"));
        let mut daemon = Process::start("containerd", machine, &mut containerd);
        let ctr =
            |arguments: &[&str]| Output::of(command("ctr").arg("--address").arg(&socket).arg("images").args(arguments));
        daemon.wait_until("answer", 60, |_| ctr(&["ls"]).is_ok());

        let (from, to) = (format!("{}/team/app:1", site.authority()), format!("{}/team/copy:1", site.authority()));
        let layout = push(machine, &Image::small(50), &from);
        let authority = site.directory().join("certs/ca.crt").display().to_string();
        let user = format!("admin:{ADMIN_PASSWORD}");
        let access = ["--user", &user, "--tlscacert", &authority];
        ctr(&[&["pull", "--snapshotter", "native"], &access[..], &[&from]].concat()).ok();
        ctr(&["tag", &from, &to]).ok();
        ctr(&[&["push"], &access[..], &[&to]].concat()).ok();
        let copy = site.admin().repository("team/copy", "pull");
        assert_eq!(copy.pull("1").expect("what ctr pushed is whole"), layout.digest);
    });
}
