//! Claims about manifests and tags.

use super::*;
use crate::oci::media_type::{DOCKER_LIST, DOCKER_MANIFEST};
use crate::storage::durable;

#[tokio::test]
async fn a_manifest_comes_back_byte_for_byte_by_tag_and_by_digest() {
    let fixture = Fixture::new();
    let (config, layer) = (fixture.push_blob("g/p", "config").await, fixture.push_blob("g/p", "layer").await);
    for media_type in [OCI_MANIFEST, DOCKER_MANIFEST] {
        let mut document = image(&config, &[&layer]);
        document["mediaType"] = json!(media_type);
        let text = format!("\n  {} \t\n", serde_json::to_string_pretty(&document).unwrap());
        let digest = sha256(text.as_bytes());
        let headers = [("content-type", &*format!("{media_type}; charset=utf-8"))];
        let pushed = fixture.send("PUT /v2/g/p/manifests/v1", &headers, text.clone()).await.expect(201);
        assert_eq!(pushed.header("location"), format!("https://localhost:5050/v2/g/p/manifests/{digest}"));
        assert_eq!(pushed.header("docker-content-digest"), digest.to_string());
        for reference in ["v1", &digest.to_string()] {
            for method in ["GET", "HEAD"] {
                let request = format!("{method} /v2/g/p/manifests/{reference}");
                let answer = fixture.send(&request, &[("accept", "text/html")], "").await.expect(200);
                assert_eq!(answer.header("content-type"), media_type);
                assert_eq!(answer.header("content-length"), text.len().to_string());
                assert_eq!(answer.header("docker-content-digest"), digest.to_string());
                assert_eq!(answer.header("etag"), format!("\"{digest}\""));
                assert!(answer.body == if method == "GET" { text.as_str() } else { "" });
                let etag = format!("\"{digest}\"");
                fixture.send(&request, &[("if-none-match", &etag)], "").await.expect(304);
            }
        }
    }
}

#[tokio::test]
async fn the_tree_after_a_push_is_distributions() {
    let fixture = Fixture::new();
    let digest = fixture.push_image("g/p", "v1", "x").await;
    let hex = digest.hex();
    for link in [
        format!("_manifests/revisions/sha256/{hex}/link"),
        "_manifests/tags/v1/current/link".to_owned(),
        format!("_manifests/tags/v1/index/sha256/{hex}/link"),
    ] {
        let text = std::fs::read_to_string(fixture.path(&format!("repositories/g/p/{link}"))).unwrap();
        assert_eq!(text, digest.to_string(), "{link}");
    }
    assert!(fixture.path(&format!("blobs/sha256/{}/{hex}/data", &hex[..2])).is_file());
    assert!(!fixture.path(&format!("repositories/g/p/_layers/sha256/{hex}")).exists(), "a manifest is no layer");
}

#[tokio::test]
async fn what_a_manifest_names_must_be_there_first() {
    let fixture = Fixture::new();
    let (config, layer, missing) =
        (fixture.push_blob("a", "config").await, fixture.push_blob("a", "layer").await, sha256(b"missing"));
    let elsewhere = fixture.push_blob("b", "only in b").await;
    let refused = fixture.push_manifest("a", "v1", &image(&missing, &[&layer, &elsewhere])).await;
    let refused = refused.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    let details: Vec<Value> =
        refused.json()["errors"].as_array().unwrap().iter().map(|error| error["detail"].clone()).collect();
    assert_eq!(details, [json!(missing.to_string()), json!(elsewhere.to_string())], "one for each, none twice");
    fixture.ask("GET /v2/a/manifests/v1").await.expect_error(404, "MANIFEST_UNKNOWN");
    fixture.push_manifest("a", "v1", &image(&config, &[&layer, &layer])).await.expect(201);

    // A link is not enough when the garbage collection of another program took the blob.
    let hex = layer.hex();
    std::fs::remove_file(fixture.path(&format!("blobs/sha256/{}/{hex}/data", &hex[..2]))).unwrap();
    let refused = fixture.push_manifest("a", "v2", &image(&config, &[&layer])).await;
    refused.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn layers_that_live_elsewhere_need_not_be_there() {
    let fixture = Fixture::new();
    let config = fixture.push_blob("a", "config").await;
    let mut document = image(&config, &[&sha256(b"one"), &sha256(b"two")]);
    document["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    document["layers"][1]["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    document["layers"][1]["urls"] = json!(["https://example.com/two"]);
    fixture.push_manifest("a", "v1", &document).await.expect(201);

    // Clients ask the registry first for a layer of any other type, wherever else it can be had.
    document["layers"][1]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip");
    fixture.push_manifest("a", "v2", &document).await.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn an_index_needs_its_children() {
    let fixture = Fixture::new();
    let child = fixture.push_image("a", "child", "x").await;
    let missing = sha256(b"missing");
    for media_type in [OCI_INDEX, DOCKER_LIST] {
        let mut document = index(&[&child, &missing]);
        document["mediaType"] = json!(media_type);
        fixture.push_manifest("a", "multi", &document).await.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
        document["manifests"].as_array_mut().unwrap().pop();
        fixture.push_manifest("a", "multi", &document).await.expect(201);
        let answer = fixture.ask("GET /v2/a/manifests/multi").await.expect(200);
        assert_eq!(answer.header("content-type"), media_type);
        let nested = index(&[&sha256(document.to_string().as_bytes())]);
        fixture.push_manifest("a", "nested", &nested).await.expect(201);
    }
    fixture.push_manifest("a", "empty", &index(&[])).await.expect(201);
    // A layer is not a manifest, but BuildKit's caches list layers, and say so.
    let layer = fixture.push_blob("a", "layer of cache").await;
    fixture.push_manifest("a", "cache", &index(&[&layer])).await.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    let mut cache = index(&[&layer]);
    cache["manifests"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip");
    fixture.push_manifest("a", "cache", &cache).await.expect(201);
}

#[tokio::test]
async fn a_manifest_by_digest_must_have_it_and_may_be_given_tags() {
    let fixture = Fixture::new();
    let config = fixture.push_blob("a", "config").await;
    let document = image(&config, &[]);
    let digest = sha256(document.to_string().as_bytes());
    let wrong = sha256(b"other").to_string();
    fixture.push_manifest("a", &wrong, &document).await.expect_error(400, "DIGEST_INVALID");
    let pushed = fixture.push_manifest("a", &digest.to_string(), &document).await.expect(201);
    assert_eq!(pushed.header("oci-tag"), "");
    assert_eq!(fixture.ask("GET /v2/a/tags/list").await.json()["tags"], json!([]));

    let pushed = fixture.push_manifest("a", &format!("{digest}?tag=one&tag=two"), &document).await.expect(201);
    let tags: Vec<&str> = pushed.headers.get_all("oci-tag").iter().map(|tag| tag.to_str().unwrap()).collect();
    assert_eq!(tags, ["one", "two"]);
    assert_eq!(fixture.ask("GET /v2/a/tags/list").await.json()["tags"], json!(["one", "two"]));

    let digest = Digest::of(Algorithm::Sha512, document.to_string().as_bytes());
    fixture.push_manifest("a", &digest.to_string(), &document).await.expect(201);
    let answer = fixture.ask(&format!("GET /v2/a/manifests/{digest}")).await.expect(200);
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
}

#[tokio::test]
async fn manifests_up_to_the_limit_are_taken() {
    let fixture = Fixture::new();
    let config = fixture.push_blob("a", "config").await;
    let mut document = image(&config, &[]);
    document["annotations"] = json!({ "padding": "" });
    let padding = LIMIT - document.to_string().len();
    document["annotations"]["padding"] = json!("x".repeat(padding));
    assert_eq!(document.to_string().len(), LIMIT);
    fixture.push_manifest("a", "large", &document).await.expect(201);
    assert_eq!(fixture.ask("GET /v2/a/manifests/large").await.expect(200).body.len(), LIMIT);
    document["annotations"]["padding"] = json!("x".repeat(padding + 1));
    fixture.push_manifest("a", "larger", &document).await.expect_error(413, "MANIFEST_INVALID");
}

#[tokio::test]
async fn unknown_kinds_of_manifests_are_kept_as_they_are() {
    let fixture = Fixture::new();
    let blob = fixture.push_blob("a", "blob").await;
    let document = json!({ "mediaType": "application/vnd.example.thing+json", "blobs": [descriptor("a/b", &blob)] });
    fixture.push_manifest("a", "thing", &document).await.expect(201);
    let answer = fixture.ask("GET /v2/a/manifests/thing").await.expect(200);
    assert_eq!(answer.header("content-type"), "application/vnd.example.thing+json");
    assert_eq!(answer.json(), document);
}

#[tokio::test]
async fn pushing_a_tag_again_moves_it_and_keeps_its_history() {
    let fixture = Fixture::new();
    let (old, new) = (fixture.push_image("a", "v1", "old").await, fixture.push_image("a", "v1", "new").await);
    let answer = fixture.ask("HEAD /v2/a/manifests/v1").await.expect(200);
    assert_eq!(answer.header("docker-content-digest"), new.to_string());
    fixture.ask(&format!("GET /v2/a/manifests/{old}")).await.expect(200);
    let history = fixture.path("repositories/a/_manifests/tags/v1/index/sha256").read_dir().unwrap();
    assert_eq!(history.count(), 2);
}

#[tokio::test]
async fn deleting_a_manifest_takes_every_tag_that_names_it() {
    let fixture = Fixture::new();
    let digest = fixture.push_image("a", "one", "x").await;
    fixture.push_image("a", "two", "x").await;
    let other = fixture.push_image("a", "other", "y").await;
    let delete = format!("DELETE /v2/a/manifests/{digest}");
    fixture.ask(&delete).await.expect(202);
    fixture.ask(&delete).await.expect_error(404, "MANIFEST_UNKNOWN");
    for reference in ["one", "two", &digest.to_string()] {
        let gone = fixture.ask(&format!("GET /v2/a/manifests/{reference}")).await;
        gone.expect_error(404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(fixture.ask("GET /v2/a/tags/list").await.json()["tags"], json!(["other"]));
    fixture.ask(&format!("GET /v2/a/manifests/{other}")).await.expect(200);
    fixture.push_image("a", "one", "x").await;
    fixture.ask("GET /v2/a/manifests/one").await.expect(200);
}

#[tokio::test]
async fn deleting_a_tag_leaves_the_manifest_and_other_tags() {
    let fixture = Fixture::new();
    let digest = fixture.push_image("a", "one", "x").await;
    for delete in ["DELETE /v2/a/manifests/two", "DELETE /v2/a/tags/reference/two"] {
        fixture.push_image("a", "two", "x").await;
        fixture.ask(delete).await.expect(202);
        fixture.ask(delete).await.expect_error(404, "MANIFEST_UNKNOWN");
        assert_eq!(fixture.ask("GET /v2/a/tags/list").await.json()["tags"], json!(["one"]));
    }
    fixture.ask(&format!("GET /v2/a/manifests/{digest}")).await.expect(200);
}

#[tokio::test]
async fn nothing_can_be_deleted_when_deleting_is_off() {
    let fixture = Fixture::new();
    let digest = fixture.push_image("a", "v1", "x").await;
    let off = Fixture::on(fixture.dir.clone(), |disk| disk, false);
    for target in ["manifests/v1".to_owned(), format!("manifests/{digest}"), format!("blobs/{}", sha256(b"layer of x"))]
    {
        off.ask(&format!("DELETE /v2/a/{target}")).await.expect_error(405, "UNSUPPORTED");
    }
    let location = off.start("a").await;
    off.ask(&format!("DELETE {location}")).await.expect(204);
}

#[tokio::test]
async fn a_damaged_manifest_counts_as_missing_and_a_push_repairs_it() {
    let fixture = Fixture::new();
    let digest = fixture.push_image("a", "v1", "x").await;
    let hex = digest.hex();
    let blob = fixture.path(&format!("blobs/sha256/{}/{hex}/data", &hex[..2]));
    for damage in ["", "{\"half\":"] {
        // What is remembered is served for a moment longer.
        let fixture = fixture.restarted();
        durable::write(&blob, damage.as_bytes(), 0o644).unwrap();
        for reference in ["v1", &digest.to_string()] {
            let missing = fixture.ask(&format!("GET /v2/a/manifests/{reference}")).await;
            missing.expect_error(404, "MANIFEST_UNKNOWN");
        }
        fixture.push_image("a", "v1", "x").await;
        fixture.ask("GET /v2/a/manifests/v1").await.expect(200);
    }
    std::fs::remove_file(&blob).unwrap();
    fixture.restarted().ask("GET /v2/a/manifests/v1").await.expect_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_tag_whose_link_says_nothing_is_no_tag() {
    let fixture = Fixture::new();
    fixture.push_image("a", "v1", "x").await;
    let link = fixture.path("repositories/a/_manifests/tags/v1/current/link");
    for damage in ["", "sha256:short", "\u{1f4a9}"] {
        durable::write(&link, damage.as_bytes(), 0o644).unwrap();
        fixture.ask("GET /v2/a/manifests/v1").await.expect_error(404, "MANIFEST_UNKNOWN");
        assert_eq!(fixture.ask("GET /v2/a/tags/list").await.expect(200).json()["tags"], json!([]));
    }
    fixture.ask("DELETE /v2/a/manifests/v1").await.expect(202);
}

#[tokio::test]
async fn referrers_are_found_filtered_and_paged() {
    let fixture = Fixture::new();
    let subject = fixture.push_image("a", "v1", "x").await;
    let path = format!("/v2/a/referrers/{subject}");
    let empty = fixture.ask(&format!("GET {path}")).await.expect(200);
    assert_eq!(empty.header("content-type"), OCI_INDEX);
    assert_eq!(empty.json(), json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }));

    let config = fixture.push_blob("a", "{}").await;
    let mut digests = Vec::new();
    for (number, kind) in ["a/signature", "a/sbom", "a/signature"].iter().enumerate() {
        let mut document = image(&config, &[]);
        document["subject"] = descriptor(OCI_MANIFEST, &subject);
        document["artifactType"] = json!(kind);
        document["annotations"] = json!({ "number": number.to_string() });
        let digest = sha256(document.to_string().as_bytes());
        let pushed = fixture.push_manifest("a", &digest.to_string(), &document).await.expect(201);
        assert_eq!(pushed.header("oci-subject"), subject.to_string());
        digests.push(digest.to_string());
    }
    let digests_of = |answer: &Response| -> Vec<String> {
        let index = answer.json();
        let listed = index["manifests"].as_array().unwrap();
        listed.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
    };
    let all = fixture.ask(&format!("GET {path}")).await.expect(200);
    let first = all.json()["manifests"][0].clone();
    assert!(first["size"].as_u64().unwrap() > 100 && first["annotations"]["number"].is_string());
    assert_eq!(first["mediaType"], OCI_MANIFEST);
    let mut sorted = digests.clone();
    sorted.sort();
    assert_eq!(digests_of(&all), sorted);

    let signatures = fixture.ask(&format!("GET {path}?artifactType=a%2Fsignature")).await.expect(200);
    assert_eq!((signatures.header("oci-filters-applied"), digests_of(&signatures).len()), ("artifactType", 2));

    let (mut seen, mut next) = (Vec::new(), format!("{path}?n=1"));
    loop {
        let page = fixture.ask(&format!("GET {next}")).await.expect(200);
        seen.extend(digests_of(&page));
        let Some(link) = page.header("link").strip_suffix(">; rel=\"next\"") else { break };
        next = link[1..].to_owned();
    }
    assert_eq!(seen, sorted);

    fixture.ask(&format!("DELETE /v2/a/manifests/{}", digests[0])).await.expect(202);
    assert_eq!(digests_of(&fixture.ask(&format!("GET {path}")).await).len(), 2);
    let missing = format!("GET /v2/other/referrers/{subject}");
    assert!(digests_of(&fixture.ask(&missing).await.expect(200)).is_empty());
}

#[tokio::test]
async fn a_subject_need_not_exist() {
    let fixture = Fixture::new();
    let config = fixture.push_blob("a", "{}").await;
    let subject = sha256(b"not there yet");
    let mut document = image(&config, &[]);
    document["subject"] = descriptor(OCI_MANIFEST, &subject);
    let pushed = fixture.push_manifest("a", "signature", &document).await.expect(201);
    assert_eq!(pushed.header("oci-subject"), subject.to_string());
    let listed = fixture.ask(&format!("GET /v2/a/referrers/{subject}")).await.expect(200).json();
    assert_eq!(listed["manifests"][0]["artifactType"], "application/vnd.oci.image.config.v1+json");
}

#[tokio::test]
async fn a_page_of_referrers_ends_before_it_grows_large() {
    let fixture = Fixture::large();
    let config = fixture.push_blob("a", "{}").await;
    let subject = sha256(b"not there");
    let mut digests = Vec::new();
    for word in ["x", "y", "z"] {
        let mut document = image(&config, &[]);
        document["subject"] = descriptor(OCI_MANIFEST, &subject);
        document["annotations"] = json!({ "large": word.repeat(3 << 19) });
        let digest = sha256(document.to_string().as_bytes()).to_string();
        fixture.push_manifest("a", &digest, &document).await.expect(201);
        digests.push(digest);
    }
    digests.sort();
    let first = fixture.ask(&format!("GET /v2/a/referrers/{subject}")).await.expect(200);
    assert_eq!(first.json()["manifests"].as_array().unwrap().len(), 2);
    let link = first.header("link").strip_suffix(">; rel=\"next\"").unwrap();
    let second = fixture.ask(&format!("GET {}", &link[1..])).await.expect(200);
    assert_eq!((second.json()["manifests"][0]["digest"].as_str(), second.header("link")), (Some(&*digests[2]), ""));
}

#[tokio::test]
async fn a_manifest_of_a_million_layers_is_refused() {
    let fixture = Fixture::new();
    let document = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{}},"layers":[{}{{}}]}}"#,
        "{},".repeat(1_000_000)
    );
    let refused = fixture.send("PUT /v2/a/manifests/v1", &[("content-type", OCI_MANIFEST)], document).await;
    let refused = refused.expect_error(400, "MANIFEST_INVALID");
    assert!(refused.json()["errors"][0]["message"].as_str().unwrap().contains("more than 10000 descriptors"));
}
