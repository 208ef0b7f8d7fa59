//! What a crash or a failing disk may do at any point: leave garbage, and nothing else.

use std::collections::BTreeMap;

use super::*;
use crate::storage::ErrorKind;
use crate::storage::fault::{Failure, FaultDriver};
use crate::storage::memory::Memory;

/// What clients were told is stored, in the order of the requests.
#[derive(Default)]
struct Acknowledged {
    blobs: Vec<(String, Bytes)>,
    /// Tag or digest, and what it must name. A later push of a tag replaces an earlier one.
    manifests: BTreeMap<(String, String), Digest>,
    deleted: Vec<(String, String)>,
}

impl Fixture {
    /// A push as clients make it, each request on its own; the answers decide what was acknowledged.
    async fn try_push(&self, name: &str, tag: &str, word: &str, said: &mut Acknowledged) {
        let [config, layer, second] = ["config", "layer", "second layer"].map(|kind| format!("{kind} of {word}"));
        for content in [&config, &layer, &second] {
            let digest = sha256(content.as_bytes());
            let started = self.ask(&format!("POST /v2/{name}/blobs/uploads/")).await;
            if started.status != StatusCode::ACCEPTED {
                return;
            }
            let location = started.header("location").to_owned();
            let (first, rest) = content.split_at(5);
            self.send(&format!("PATCH {location}"), &[], first.to_owned()).await;
            let put = format!("PUT {location}?digest={digest}");
            let committed = self.send(&put, &[], rest.to_owned()).await;
            if committed.status == StatusCode::CREATED {
                said.blobs.push((name.to_owned(), content.clone().into()));
            }
        }
        self.try_manifest(name, tag, &image_of(word), said).await;
    }

    async fn try_manifest(&self, name: &str, reference: &str, document: &Value, said: &mut Acknowledged) {
        let digest = sha256(document.to_string().as_bytes());
        if self.push_manifest(name, reference, document).await.status == StatusCode::CREATED {
            for reference in [digest.to_string(), reference.to_owned()] {
                said.deleted.retain(|(of, gone)| of != name || *gone != reference);
                said.manifests.insert((name.to_owned(), reference), digest.clone());
            }
        } else {
            // It may have come as far as the tag.
            said.manifests.remove(&(name.to_owned(), reference.to_owned()));
            said.deleted.retain(|(of, gone)| of != name || (gone != reference && *gone != digest.to_string()));
        }
    }

    async fn try_delete_blob(&self, name: &str, content: &str, said: &mut Acknowledged) {
        said.blobs.retain(|(of, kept)| of != name || *kept != content);
        self.ask(&format!("DELETE /v2/{name}/blobs/{}", sha256(content.as_bytes()))).await;
    }

    /// Takes away everything that the interface can take away; what stays is not in anybody's way.
    async fn clear(&self, at: &str) {
        for name in ["a", "a/b"] {
            let below = |folder: &str| self.path(&format!("repositories/{name}/{folder}"));
            for (folder, kind) in [("_manifests/revisions/sha256", "manifests"), ("_layers/sha256", "blobs")] {
                for hex in names_in(&below(folder)) {
                    let answer = self.ask(&format!("DELETE /v2/{name}/{kind}/sha256:{hex}")).await;
                    assert!(matches!(answer.status.as_u16(), 202 | 404), "{at}: {kind} {hex} {}", answer.status);
                }
            }
            for id in names_in(&below("_uploads")) {
                let answer = self.ask(&format!("DELETE /v2/{name}/blobs/uploads/{id}")).await;
                assert_eq!(answer.status, StatusCode::NO_CONTENT, "{at}: upload {id}");
                assert!(!below("_uploads").join(&id).exists(), "{at}: upload {id}");
            }
            for folder in ["_manifests/revisions/sha256", "_layers/sha256"] {
                let left = names_in(&below(folder));
                assert!(left.iter().all(|hex| !below(folder).join(hex).join("link").exists()), "{at}: {left:?}");
            }
            let tags = names_in(&below("_manifests/tags"));
            assert!(tags.iter().all(|tag| !below("_manifests/tags").join(tag).join("current/link").exists()), "{at}");
        }
    }

    async fn try_delete(&self, name: &str, reference: &str, said: &mut Acknowledged) {
        let before = said.manifests.remove(&(name.to_owned(), reference.to_owned()));
        if self.ask(&format!("DELETE /v2/{name}/manifests/{reference}")).await.status == StatusCode::ACCEPTED {
            said.deleted.push((name.to_owned(), reference.to_owned()));
            if let Some(digest) = before.filter(|digest| digest.to_string() == reference) {
                said.manifests.retain(|(of, _), named| of != name || *named != digest);
            }
        } else {
            // Refused or interrupted: it may be there or not, and both are right.
            said.manifests.retain(|(of, _), named| of != name || Some(&*named) != before.as_ref());
        }
    }

    /// No tag without manifest, no manifest without its blobs, nothing acknowledged lost.
    async fn check(&self, said: &Acknowledged, at: &str) {
        for (name, content) in &said.blobs {
            let answer = self.ask(&format!("GET /v2/{name}/blobs/{}", sha256(content))).await;
            assert!(answer.status == StatusCode::OK && answer.body == *content, "{at}: an acknowledged blob is lost");
        }
        for ((name, reference), digest) in &said.manifests {
            let answer = self.ask(&format!("GET /v2/{name}/manifests/{reference}")).await;
            assert_eq!(answer.header("docker-content-digest"), digest.to_string(), "{at}: {reference} is lost");
        }
        for (name, reference) in &said.deleted {
            let answer = self.ask(&format!("GET /v2/{name}/manifests/{reference}")).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{at}: a deleted manifest is back");
        }
        for name in self.registry.repositories(None, 100).await.unwrap() {
            let listed = self.ask(&format!("GET /v2/{name}/tags/list")).await.expect(200).json();
            for tag in listed["tags"].as_array().unwrap() {
                let manifest = self.ask(&format!("GET /v2/{name}/manifests/{}", tag.as_str().unwrap())).await;
                assert_eq!(manifest.status, StatusCode::OK, "{at}: {tag} names nothing");
                self.check_manifest(name.as_str(), &manifest, at).await;
            }
            let revisions = self.path(&format!("repositories/{name}/_manifests/revisions/sha256"));
            for revision in revisions.read_dir().into_iter().flatten() {
                let hex = revision.unwrap().file_name().into_string().unwrap();
                let manifest = self.ask(&format!("GET /v2/{name}/manifests/sha256:{hex}")).await;
                if manifest.status == StatusCode::OK {
                    self.check_manifest(name.as_str(), &manifest, at).await;
                }
            }
        }
    }

    async fn check_manifest(&self, name: &str, manifest: &Response, at: &str) {
        let document = manifest.json();
        for child in document["manifests"].as_array().into_iter().flatten() {
            let child = self.ask(&format!("GET /v2/{name}/manifests/{}", child["digest"].as_str().unwrap())).await;
            assert_eq!(child.status, StatusCode::OK, "{at}: an index lacks its child");
        }
        let layers = document["layers"].as_array().into_iter().flatten();
        for digest in layers.chain([&document["config"]]).filter_map(|descriptor| descriptor["digest"].as_str()) {
            let blob = self.ask(&format!("GET /v2/{name}/blobs/{digest}")).await;
            assert_eq!(blob.status, StatusCode::OK, "{at}: a manifest lacks {digest}");
            assert_eq!(sha256(&blob.body).to_string(), digest, "{at}: a blob is damaged");
        }
    }
}

/// An image of a configuration and two layers.
fn image_of(word: &str) -> Value {
    let [config, layer, second] =
        ["config", "layer", "second layer"].map(|kind| sha256(format!("{kind} of {word}").as_bytes()));
    image(&config, &[&layer, &second])
}

fn names_in(folder: &std::path::Path) -> Vec<String> {
    let entries = folder.read_dir().into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What happens before the fault, with it, and after it.
async fn story(fixture: &Fixture, said: &mut Acknowledged) {
    fixture.try_push("a", "v1", "one", said).await;
    fixture.try_push("a", "v1", "two", said).await;
    fixture.try_push("a/b", "latest", "one", said).await;
    let one = sha256(image_of("one").to_string().as_bytes());
    fixture.try_manifest("a/b", "index", &index(&[&one]), said).await;
    let mut referrer = image_of("one");
    referrer["subject"] = descriptor(OCI_MANIFEST, &one);
    let reference = sha256(referrer.to_string().as_bytes()).to_string();
    fixture.try_manifest("a/b", &reference, &referrer, said).await;
    fixture.try_delete("a", "v1", said).await;
    fixture.try_push("a", "v2", "one", said).await;
    fixture.try_delete("a", &one.to_string(), said).await;
    // Who deletes a blob that a manifest still names gets what they asked for.
    if said.deleted.contains(&("a".to_owned(), one.to_string())) {
        fixture.try_delete_blob("a", "second layer of one", said).await;
    }
}

#[tokio::test]
async fn whichever_call_to_the_storage_fails_nothing_acknowledged_is_lost() {
    let kinds = [ErrorKind::Full, ErrorKind::Other, ErrorKind::ReadOnly, ErrorKind::Denied];
    let all = std::env::var_os("PIERHEAD_SOAK").is_some_and(|value| value == "1");
    let mut calls = 1;
    let mut number = 0;
    while number < calls {
        // Every call fails; in the long form in every way.
        let failures = [Failure::Before, Failure::After, Failure::Once].into_iter().enumerate();
        for (turn, failure) in failures.filter(|(turn, _)| all || *turn == number % 3) {
            let dir = folder_in_memory();
            let mut made = None;
            // Every kind meets every way to fail somewhere; the kind decides about the answer and not about the order.
            let kind = kinds[(number / 3 + turn) % kinds.len()];
            let wrap = |disk| {
                let driver = Arc::new(FaultDriver::failing(disk, number, failure, kind));
                made = Some(driver.clone());
                driver as Arc<dyn Driver>
            };
            let failing = Fixture::on(dir, wrap, true);
            let mut said = Acknowledged::default();
            story(&failing, &mut said).await;
            let at = format!("call {number} failing {failure:?} as {kind:?}");
            let after = failing.restarted();
            after.check(&said, &at).await;
            // And everything can be done again, and taken away.
            let mut again = Acknowledged::default();
            story(&after, &mut again).await;
            assert_eq!((again.blobs.len(), again.manifests.len(), again.deleted.len()), DONE, "{at}, repeated");
            after.check(&again, &format!("{at}, repeated")).await;
            after.clear(&at).await;
            calls = calls.max(made.unwrap().calls());
        }
        number += 1;
    }
    assert!(number > 150, "the story has {number} calls");
}

/// The blobs, manifests with their tags, and deleted references of a story in which nothing fails.
const DONE: (usize, usize, usize) = (10, 6, 2);

/// The same without a file: the registry needs nothing of its storage but the driver's contract.
#[tokio::test]
async fn a_registry_in_memory_tells_the_same_story() {
    let wrap = |_| Arc::new(Memory::default()) as Arc<dyn Driver>;
    let fixture = Fixture::on(Arc::new(tempfile::tempdir().unwrap()), wrap, true);
    let mut said = Acknowledged::default();
    story(&fixture, &mut said).await;
    assert_eq!((said.blobs.len(), said.manifests.len(), said.deleted.len()), DONE);
    fixture.check(&said, "in memory").await;
    assert!(names_in(fixture.dir.path()).is_empty(), "nothing was written to files");
}

#[tokio::test]
async fn reading_costs_a_fixed_number_of_calls() {
    let fixture = Fixture::large();
    let digest = fixture.push_image("a", "v1", "x").await;
    let layer = sha256(b"layer of x");
    for (request, cost) in [
        (format!("GET /v2/a/manifests/{digest}"), 2),
        (format!("HEAD /v2/a/manifests/{digest}"), 2),
        ("GET /v2/a/manifests/v1".to_owned(), 3),
        ("GET /v2/a/manifests/none".to_owned(), 1),
        (format!("GET /v2/a/blobs/{layer}"), 2),
        (format!("HEAD /v2/a/blobs/{layer}"), 2),
        ("POST /v2/a/blobs/uploads/".to_owned(), 2),
        ("GET /v2/".to_owned(), 0),
    ] {
        let mut made = None;
        let wrap = |disk| {
            let driver = Arc::new(FaultDriver::counting(disk));
            made = Some(driver.clone());
            driver as Arc<dyn Driver>
        };
        Fixture::on(fixture.dir.clone(), wrap, true).ask(&request).await;
        assert_eq!(made.unwrap().calls(), cost, "{request}");
    }
}

#[tokio::test]
async fn pushing_and_deleting_at_once_never_leaves_a_tag_without_its_manifest() {
    let fixture = Fixture::large();
    let digest = fixture.push_image("a", "v0", "x").await;
    let document = image(&sha256(b"config of x"), &[&sha256(b"layer of x")]);
    for round in 0..20 {
        let push = async {
            for tag in 0..4 {
                fixture.push_manifest("a", &format!("v{tag}"), &document).await.expect(201);
            }
        };
        let delete = async {
            for _ in 0..3 {
                fixture.ask(&format!("DELETE /v2/a/manifests/{digest}")).await;
            }
        };
        futures_util::join!(push, delete);
        fixture.check(&Acknowledged::default(), &format!("round {round}")).await;
    }
}

#[tokio::test]
async fn one_blob_can_be_pushed_by_many_at_once() {
    let fixture = Fixture::large();
    for round in 0..10 {
        let content = format!("the same for all in round {round}");
        let pushes = (0..6).map(|number| {
            let (fixture, content) = (&fixture, content.clone());
            async move { fixture.push_blob(if number % 2 == 0 { "a" } else { "b" }, content).await }
        });
        futures_util::future::join_all(pushes).await;
        let said = Acknowledged {
            blobs: vec![("a".to_owned(), content.clone().into()), ("b".to_owned(), content.into())],
            ..Acknowledged::default()
        };
        fixture.check(&said, "afterwards").await;
    }
}

#[tokio::test]
async fn two_tags_of_one_image_can_be_pushed_at_once() {
    let fixture = Fixture::large();
    fixture.push_image("a", "v0", "x").await;
    let document = image(&sha256(b"config of x"), &[&sha256(b"layer of x")]);
    for _ in 0..20 {
        let pushes = (0..4).map(|tag| {
            let (fixture, document, tag) = (&fixture, &document, format!("v{tag}"));
            async move { fixture.push_manifest("a", &tag, document).await.expect(201) }
        });
        futures_util::future::join_all(pushes).await;
    }
    fixture.check(&Acknowledged::default(), "afterwards").await;
}
