//! Promise: docker, podman, buildah and skopeo log in, push and pull, with images as large as they come; who may not is
//! told so in words; and nobody talks to us before they trust our certificate.

use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::Value;

use crate::support::clients::{Client, Containers, Docker, Pulled, Skopeo};
use crate::support::command::Output;
use crate::support::image::{Image, Layout};
use crate::support::machine::{self, alone_on_a_fresh_machine, on_a_fresh_machine};
use crate::support::pierhead::{ADMIN_PASSWORD, Pierhead, Site};

const WRITER: (&str, &str) = ("wanda", "wanda-writes-images");
const READER: (&str, &str) = ("rita", "rita-reads-images");
const STRANGER: (&str, &str) = ("sven", "sven-sees-nothing");

/// How the clients say that they do not know who signed our certificate.
const UNTRUSTED: &[&str] = &["certificate signed by unknown authority"];
/// How they say that the password is wrong.
const WRONG_PASSWORD: &[&str] = &["unauthorized: http basic: access denied", "invalid username/password"];
/// How they say that a right is missing. Which words arrive depends on the client, not on us.
const NOT_ALLOWED: &[&str] = &["denied", "unauthorized", "forbidden"];

#[test]
fn docker_pushes_and_pulls_a_layer_over_one_gibibyte() {
    alone_on_a_fresh_machine(|machine| moves_large_images(&mut Docker::start(machine)));
}

#[test]
fn podman_pushes_and_pulls_a_layer_over_one_gibibyte() {
    alone_on_a_fresh_machine(|_| moves_large_images(&mut Containers::podman()));
}

#[test]
fn buildah_pushes_and_pulls_a_layer_over_one_gibibyte() {
    alone_on_a_fresh_machine(|_| moves_large_images(&mut Containers::buildah()));
}

#[test]
fn skopeo_pushes_and_pulls_a_layer_over_one_gibibyte() {
    alone_on_a_fresh_machine(|machine| moves_large_images(&mut Skopeo::new(machine)));
}

#[test]
fn docker_obeys_rights_and_says_why() {
    on_a_fresh_machine(|machine| obeys_rights(machine, &mut Docker::start(machine)));
}

#[test]
fn podman_obeys_rights_and_says_why() {
    on_a_fresh_machine(|machine| obeys_rights(machine, &mut Containers::podman()));
}

#[test]
fn buildah_obeys_rights_and_says_why() {
    on_a_fresh_machine(|machine| obeys_rights(machine, &mut Containers::buildah()));
}

#[test]
fn skopeo_obeys_rights_and_says_why() {
    on_a_fresh_machine(|machine| obeys_rights(machine, &mut Skopeo::new(machine)));
}

/// From distrust to an image that came back whole, through the commands that the start message prints.
fn moves_large_images(client: &mut impl Client) {
    let site = Site::named(machine::NAME);
    let server = site.start();
    let registry = site.authority();

    client.login(&registry, "admin", ADMIN_PASSWORD).refused(UNTRUSTED);
    run_printed_commands(&server);
    client.login(&registry, "admin", "not-the-password").refused(WRONG_PASSWORD);
    client.login(&registry, "admin", ADMIN_PASSWORD).ok();

    let name = format!("{registry}/team/app:latest");
    client.push(&Image::large(), &Layout::large(), &name).ok();
    let pulled = client.pull(&name).unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(pulled, Pulled { id: Image::large().id(), manifest: stored_digest(&site, "team/app", "latest") });
    for direction in ["bytes_in", "bytes_out"] {
        let over = |line: &Value| line[direction].as_u64().is_some_and(|bytes| bytes > 1 << 30);
        server.wait_for_access("one request of over 1 GiB", |log| log.iter().any(over).then_some(()));
    }
}

fn obeys_rights(machine: &Path, client: &mut impl Client) {
    let site = Site::named(machine::NAME);
    let server = site.start();
    let registry = site.authority();
    site.add_project("team/app", "private");
    site.add_project("team/open", "public");
    for ((name, password), role) in [(WRITER, Some("developer")), (READER, Some("reporter")), (STRANGER, None)] {
        site.add_user(name, password);
        if let Some(role) = role {
            site.add_member("team", name, role);
        }
    }
    let image = Image::small(1);
    let layout = Layout::of_image(&machine.join("small"), &image);
    let closed = format!("{registry}/team/app/web:1");
    let open = format!("{registry}/team/open:1");
    let log_in = |client: &mut _, (name, password): (&str, &str)| Client::login(client, &registry, name, password).ok();
    run_printed_commands(&server);

    log_in(client, WRITER);
    client.push(&image, &layout, &closed).ok();
    client.push(&image, &layout, &open).ok();

    log_in(client, READER);
    let pulled = client.pull(&closed).unwrap_or_else(|refusal| panic!("a reporter may pull: {refusal}"));
    assert_eq!(pulled.id, image.id());
    client.push(&image, &layout, &closed).refused(NOT_ALLOWED);

    log_in(client, STRANGER);
    let refusal = client.pull(&closed).expect_err("a stranger may not pull");
    refusal.refused(NOT_ALLOWED);
    client.push(&image, &layout, &open).refused(NOT_ALLOWED);

    client.logout(&registry).ok();
    let pulled = client.pull(&open).unwrap_or_else(|refusal| panic!("everybody may pull: {refusal}"));
    assert_eq!(pulled.id, image.id());
    client.pull(&closed).expect_err("nobody pulls without a name").refused(NOT_ALLOWED);
}

#[test]
fn the_first_start_tells_a_new_user_all_that_is_needed() {
    on_a_fresh_machine(|machine| {
        let site = Site::unconfigured();
        let server = site.start_as_a_new_user();
        let said = server.process.stderr();
        assert!(said.contains("https://localhost:5050"), "where it is: {said}");
        assert!(said.contains("certs/ca.crt"), "whom to trust: {said}");
        let password = generated_password(&said);
        let client = Skopeo::new(machine);
        client.login("localhost:5050", "admin", &password).refused(UNTRUSTED);
        run_printed_commands(&server);
        client.login("localhost:5050", "admin", &password).ok();

        let image = Image::small(2);
        let layout = Layout::of_image(&machine.join("small"), &image);
        client.push(&image, &layout, "localhost:5050/first/image:latest").ok();

        assert!(server.stop().success());
        let again = site.start_as_a_new_user();
        let said = again.process.stderr().split_off(said.len());
        assert!(!said.contains(&password), "a password is shown once: {said}");
        client.login("localhost:5050", "admin", &password).ok();
    });
}

/// The commands of the start message that make clients trust us, run as they are printed.
fn run_printed_commands(server: &Pierhead) {
    let said = server.process.stderr();
    let after_label =
        |line: &str| line.find("sudo install").or_else(|| line.find("install")).map(|at| line[at..].to_owned());
    let commands: Vec<String> =
        said.lines().filter(|line| line.contains("install -D")).filter_map(after_label).collect();
    assert!(commands.len() >= 2, "one for docker, one for podman and its kin: {said}");
    for command in commands {
        Output::of(Command::new("sh").args(["-c", &command])).ok();
    }
}

/// The password in the start message.
fn generated_password(said: &str) -> String {
    let password = said.lines().find_map(|line| line.trim().strip_prefix("password"));
    let password = password.and_then(|rest| rest.split_whitespace().next());
    password.unwrap_or_else(|| panic!("no password: {said}")).to_owned()
}

/// The digest of a tag, as the registry says it.
fn stored_digest(site: &Site, repository: &str, tag: &str) -> String {
    let answer = site.admin().repository(repository, "pull").request(Method::HEAD, &format!("manifests/{tag}"));
    let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
    let answer = answer.header("Accept", accept).send().expect("the registry answers");
    let digest = answer.headers().get("docker-content-digest").unwrap_or_else(|| panic!("{answer:?}"));
    digest.to_str().expect("digests are text").to_owned()
}
