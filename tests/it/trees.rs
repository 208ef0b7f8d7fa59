//! Promise: a tree goes from Distribution (2.8.2, and 3 where it could be built) to us and back, with nothing to run in
//! between: lists, pulls, deletes and Distribution's own garbage collection go on with what the other one wrote.

use std::fs;

use reqwest::Method;
use serde_json::Value;

use crate::support::content::{Content, digest, hex};
use crate::support::distribution::{Distribution, Peer};
use crate::support::pierhead::Site;
use crate::support::registry::{Registry, Repository, manifest};
use crate::support::tree;

const LAYERS: [Content; 2] = [Content { seed: 61, size: 300_000 }, Content { seed: 62, size: 1_234 }];
const OTHERS: [Content; 1] = [Content { seed: 63, size: 200_000 }];
const THIRD: [Content; 1] = [Content { seed: 64, size: 100_000 }];

#[test]
fn what_any_distribution_wrote_is_listed_and_served_at_once() {
    for peer in Peer::installed() {
        let site = Site::new();
        fs::create_dir(site.tree()).expect("the site can be written");
        let theirs = Distribution::of(peer, site.directory(), &site.tree());
        let registry = Registry::open(&theirs.origin());
        let (app, nested) = (registry.repository("team/app", "push"), registry.repository("team/app/nested", "push"));
        let first = app.push("b", &LAYERS).expect("pushed to Distribution");
        app.push("a", &LAYERS).expect("pushed to Distribution");
        nested.push("x", &OTHERS).expect("pushed to Distribution");
        drop(theirs);

        let _server = site.start();
        let admin = site.admin();
        let ours = admin.repository("team/app", "pull,delete");
        assert_eq!(tags(&ours), ["a", "b"], "{peer:?}: the first list is right");
        assert_eq!(admin.catalog(), ["team/app", "team/app/nested"], "{peer:?}");
        assert_eq!(ours.pull("a").expect("pulled by tag"), first);
        assert_eq!(ours.pull(&first).expect("pulled by digest"), first);
        assert_eq!(delete(&ours, &first), 202);
        assert_eq!(ours.get("manifests/a").status(), 404);
        assert_eq!(ours.get("manifests/b").status(), 404, "{peer:?}: its tags go with a manifest");
        assert_eq!(tags(&admin.repository("team/app/nested", "pull")), ["x"], "{peer:?}: the neighbour stays");
    }
}

#[test]
fn what_a_client_listed_under_a_fallback_tag_on_any_distribution_is_a_referrer_at_once() {
    for peer in Peer::installed() {
        let site = Site::new();
        fs::create_dir(site.tree()).expect("the site can be written");
        let theirs = Distribution::of(peer, site.directory(), &site.tree());
        let app = Registry::open(&theirs.origin()).repository("team/app", "push");
        let subject = app.push("signed", &LAYERS).expect("pushed to Distribution");
        let config = Content::new(66, 700);
        app.push_blob(config).expect("pushed");
        let mut signature: Value = serde_json::from_slice(&manifest(config, &[])).expect("manifests are JSON");
        signature["subject"] = serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject, "size": 1,
        });
        let signature = signature.to_string().into_bytes();
        // Where nobody answers for referrers, a client lists them itself, under a tag made of the subject's digest.
        let listed = app.push_manifest(&digest(&signature), &signature).expect("pushed");
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": listed, "size": signature.len(),
            }],
        });
        let index = app
            .request(Method::PUT, &format!("manifests/{}", subject.replace(':', "-")))
            .header("Content-Type", "application/vnd.oci.image.index.v1+json")
            .body(index.to_string());
        assert_eq!(index.send().expect("an answer").status(), 201);
        drop(theirs);

        let _server = site.start();
        let ours = site.admin().repository("team/app", "pull");
        let answer: Value = ours.get(&format!("referrers/{subject}")).json().expect("an index");
        let found: Vec<&Value> =
            answer["manifests"].as_array().expect("a list").iter().map(|one| &one["digest"]).collect();
        assert_eq!(found, [listed.as_str()], "{peer:?}: once, and without any command");
    }
}

#[test]
fn what_we_wrote_any_distribution_lists_serves_and_deletes() {
    for peer in Peer::installed() {
        let site = Site::new();
        let server = site.start();
        let ours = site.admin().repository("team/app", "pull,push,delete");
        let first = ours.push("b", &LAYERS).expect("pushed to us");
        ours.push("a", &LAYERS).expect("pushed to us");
        let other = ours.push("other", &OTHERS).expect("pushed to us");
        let gone = ours.push("gone", &THIRD).expect("pushed to us");
        assert_eq!(delete(&ours, &gone), 202);
        assert!(server.stop().success());

        let theirs = Distribution::of(peer, site.directory(), &site.tree());
        let app = Registry::open(&theirs.origin()).repository("team/app", "all");
        assert_eq!(tags(&app), ["a", "b", "other"], "{peer:?}");
        assert_eq!(app.pull("a").expect("pulled by tag"), first);
        assert_eq!(app.pull(&other).expect("pulled by digest"), other);
        assert_eq!(delete(&app, &first), 202, "{peer:?}");
        assert_eq!(app.get("manifests/a").status(), 404, "{peer:?}");
        drop(theirs);

        // And back once more: we see what was deleted there.
        let _server = site.start();
        let ours = site.admin().repository("team/app", "pull");
        assert_eq!(tags(&ours), ["other"], "{peer:?}");
        assert_eq!(ours.pull("other").expect("pulled from us"), other);
        assert_eq!(tree::damage(&site.tree()), Vec::<String>::new());
    }
}

#[test]
fn garbage_collection_of_any_distribution_removes_what_is_deleted_and_keeps_what_is_ours() {
    for peer in Peer::installed() {
        let site = Site::new();
        let server = site.start();
        let ours = site.admin().repository("team/app", "pull,push,delete");
        let kept = ours.push("kept", &LAYERS).expect("pushed to us");
        let gone = ours.push("gone", &THIRD).expect("pushed to us");
        assert_eq!(delete(&ours, &gone), 202);
        let (blob, strong) = push_with_sha512(&ours);
        assert!(server.stop().success());

        let said = Distribution::collect_garbage(peer, site.directory(), &site.tree(), &["-d"]).ok();
        let said = format!("{}{}", said.stdout, said.stderr);
        for digest in [&blob, &strong] {
            let named = said.lines().filter(|line| line.contains(digest.split(':').next_back().expect("hex")));
            let eligible: Vec<&str> = named.filter(|line| line.contains("eligible")).collect();
            assert!(eligible.is_empty(), "{peer:?} would delete what we keep under sha512: {eligible:?}");
        }
        assert!(said.contains(THIRD[0].digest().as_str()), "{peer:?} finds what nothing refers to:\n{said}");

        Distribution::collect_garbage(peer, site.directory(), &site.tree(), &[]).ok();
        let _server = site.start();
        let ours = site.admin().repository("team/app", "pull");
        assert_eq!(ours.pull("kept").expect("still there"), kept);
        assert_eq!(ours.get(&format!("manifests/{strong}")).status(), 200, "{peer:?}");
        assert_eq!(ours.get(&format!("blobs/{blob}")).status(), 200, "{peer:?}");
        assert_eq!(ours.get(&format!("blobs/{}", THIRD[0].digest())).status(), 404, "{peer:?}");
    }
}

/// An image whose layer and manifest are known by their sha512. Returns both digests.
fn push_with_sha512(repository: &Repository) -> (String, String) {
    let layer = b"a layer that is known by its sha512".as_slice();
    let blob = sha512(layer);
    let upload = repository.begin().expect("begun");
    let upload = repository.send(&upload, layer).expect("sent");
    repository.finish(&upload, &blob).expect("finished");
    let config = Content::new(65, 700);
    repository.push_blob(config).expect("pushed");
    let mut image: Value = serde_json::from_slice(&manifest(config, &[])).expect("manifests are JSON");
    image["layers"] = serde_json::json!([{
        "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": blob, "size": layer.len(),
    }]);
    let image = image.to_string().into_bytes();
    let strong = sha512(&image);
    assert_ne!(strong, digest(&image));
    repository.push_manifest(&strong, &image).expect("pushed by sha512");
    (blob, strong)
}

fn sha512(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    format!("sha512:{}", hex(&sha2::Sha512::digest(bytes)))
}

fn tags(repository: &Repository) -> Vec<String> {
    let answer: Value = repository.get("tags/list").json().expect("lists are JSON");
    let mut tags: Vec<String> = serde_json::from_value(answer["tags"].clone()).expect("a list of tags");
    tags.sort_unstable(); // 2.8 lists them as the disk has them
    tags
}

fn delete(repository: &Repository, digest: &str) -> u16 {
    let answer = repository.request(Method::DELETE, &format!("manifests/{digest}")).send();
    answer.expect("an answer").status().as_u16()
}
