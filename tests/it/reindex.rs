//! Promise: the index of manifests can be read anew from the tree, beside a running server and without one, and what is
//! found does not depend on it.

use serde_json::{Value, json};

use crate::support::content::{Content, digest};
use crate::support::image::OCI_MANIFEST;
use crate::support::pierhead::Site;
use crate::support::registry::{Repository, manifest};

/// Pushes an image and a manifest about it; returns the digests of both.
fn push_image_and_referrer(repository: &Repository) -> (String, String) {
    let image = repository.push("latest", &[Content::new(1, 1000)]).expect("the image is pushed");
    let config = Content::new(2, 100);
    repository.push_blob(config).expect("the configuration is pushed");
    let mut about: Value = serde_json::from_slice(&manifest(config, &[])).expect("manifests are JSON");
    about["subject"] = json!({ "mediaType": OCI_MANIFEST, "digest": image, "size": 1 });
    let about = about.to_string().into_bytes();
    let referrer = digest(&about);
    repository.push_manifest(&referrer, &about).expect("the referrer is pushed");
    (image, referrer)
}

fn referrers(repository: &Repository, subject: &str) -> Vec<String> {
    let index: Value = repository.get(&format!("referrers/{subject}")).json().expect("referrers are JSON");
    let listed = index["manifests"].as_array().expect("an index lists manifests");
    listed.iter().filter_map(|entry| entry["digest"].as_str().map(str::to_owned)).collect()
}

#[test]
fn referrers_are_found_before_during_and_after_a_reindex() {
    let site = Site::new();
    let server = site.start();
    site.add_project("g/p", "private");
    let repository = site.admin().repository("g/p", "pull,push");
    let (image, referrer) = push_image_and_referrer(&repository);
    assert_eq!(referrers(&repository, &image), [referrer.as_str()]);

    let running = site.run(&["reindex"]);
    assert!(running.is_ok(), "{running}");
    assert_eq!((running.stdout.as_str(), running.stderr.as_str()), ("repositories: 1, manifests: 2\n", ""));
    assert_eq!(referrers(&repository, &image), [referrer.as_str()]);
    server.stop();

    // What another program left: a revision whose content is gone.
    let lost = site.tree().join("docker/registry/v2/repositories/g/p/_manifests/revisions/sha256").join("0".repeat(64));
    std::fs::create_dir(&lost).expect("the tree is ours");
    let stopped = site.run(&["reindex"]);
    assert!(stopped.is_ok(), "{stopped}");
    assert_eq!(stopped.stdout, "repositories: 1, manifests: 2, revisions without a readable manifest: 1\n");

    let _server = site.start();
    let repository = site.admin().repository("g/p", "pull,push");
    assert_eq!(referrers(&repository, &image), [referrer.as_str()]);
}

#[test]
fn where_there_is_no_registry_a_reindex_says_so_and_makes_none() {
    let site = Site::new();
    let output = site.run(&["reindex"]);
    assert_eq!(output.code(), Some(1), "{output}");
    assert!(output.stderr.contains("there is no registry here") && output.stdout.is_empty(), "{output}");
    assert!(!site.directory().join("state").exists(), "a question makes nothing");
}
