//! Claims about what a manifest must fulfil, and about what clients of another age get.

use super::*;
use crate::oci::media_type::{DOCKER_LIST, DOCKER_MANIFEST, DOCKER_SCHEMA1};

fn patterns(patterns: &[&str]) -> Vec<Pattern> {
    patterns.iter().map(|pattern| Pattern(regex::Regex::new(pattern).unwrap())).collect()
}

fn validated(validation: Validation) -> Fixture {
    Fixture::configured(|config| config.validation = validation)
}

#[tokio::test]
async fn without_validation_what_a_manifest_names_need_not_be_there() {
    let deny_urls = patterns(&["."]);
    let fixture = validated(Validation { disabled: true, deny_urls, ..Validation::default() });
    let missing = sha256(b"missing");
    let mut document = image(&missing, &[&missing]);
    document["layers"][0]["urls"] = json!(["https://anywhere.example/"]);
    fixture.push_manifest("a", "v1", &document).await.expect(201);
    fixture.push_manifest("a", "multi", &index(&[&missing])).await.expect(201);
    fixture.push_manifest("a", "v1", &json!({ "layers": 1 })).await.expect_error(400, "MANIFEST_INVALID");
}

#[tokio::test]
async fn a_layer_comes_only_from_where_the_operator_wants() {
    let images = || Some(patterns(&["^https?://images\\.example/", "^https://other\\.example/"]));
    for (allow_urls, deny, url, taken) in [
        (None, vec![], "https://anywhere.example/x", true),
        (Some(vec![]), vec![], "https://anywhere.example/x", false),
        (images(), vec![], "http://images.example/x", true),
        (images(), vec![], "https://other.example/x", true),
        (images(), vec![], "https://anywhere.example/x", false),
        (images(), vec!["/secret"], "https://images.example/secret", false),
        (None, vec!["^https://bad\\.example/"], "https://bad.example/x", false),
        (None, vec!["^https://bad\\.example/"], "https://good.example/x", true),
    ] {
        let fixture = validated(Validation { allow_urls, deny_urls: patterns(&deny), ..Validation::default() });
        let config = fixture.push_blob("a", "config").await;
        let layer = fixture.push_blob("a", "layer").await;
        let mut document = image(&config, &[&layer, &sha256(b"elsewhere")]);
        document["layers"][1]["mediaType"] = json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
        document["layers"][1]["urls"] = json!([url]);
        let pushed = fixture.push_manifest("a", "v1", &document).await;
        if taken {
            pushed.expect(201);
        } else {
            let refused = pushed.expect_error(400, "MANIFEST_INVALID");
            let message = refused.json()["errors"][0]["message"].as_str().unwrap().to_owned();
            assert!(message.contains(url), "{message}");
        }
        fixture.push_manifest("a", "plain", &image(&config, &[&layer])).await.expect(201);
    }
    let mut document = image(&sha256(b"c"), &[&sha256(b"l")]);
    document["layers"][0]["urls"] = json!([format!("https://long.example/{}", "\u{f6}".repeat(10_000))]);
    let fixture = validated(Validation { allow_urls: Some(vec![]), ..Validation::default() });
    let refused = fixture.push_manifest("a", "v1", &document).await.expect_error(400, "MANIFEST_INVALID");
    assert!(refused.body.len() < 1000, "it is not repeated in full");
}

#[tokio::test]
async fn the_children_that_must_be_there_are_those_the_operator_names() {
    let platform = |os: &str, architecture: &str| json!({ "os": os, "architecture": architecture });
    let wanted = platform("linux", "amd64");
    let others = [platform("linux", "arm64"), platform("windows", "amd64"), json!({}), Value::Null];
    let only = Platforms::Only(vec![("linux".into(), "amd64".into()), ("linux".into(), "s390x".into())]);
    for (platforms, needs_wanted, needs_others) in
        [(Platforms::All, true, true), (Platforms::None, false, false), (only, true, false)]
    {
        let fixture = validated(Validation { platforms, ..Validation::default() });
        for (platform, needed) in
            std::iter::once((&wanted, needs_wanted)).chain(others.iter().map(|other| (other, needs_others)))
        {
            let mut document = index(&[&sha256(b"missing")]);
            document["manifests"][0]["platform"] = platform.clone();
            let pushed = fixture.push_manifest("a", "multi", &document).await;
            assert_eq!(pushed.status == StatusCode::BAD_REQUEST, needed, "{platform} {pushed:?}");
        }
        let document = image(&sha256(b"missing"), &[]);
        fixture.push_manifest("a", "v1", &document).await.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    }
}

/// A Docker manifest list of images for two machines under the tag `multi`, and the digests of list and images.
async fn push_list(fixture: &Fixture) -> (Digest, [Digest; 2]) {
    let mut children = Vec::new();
    for word in ["arm", "amd"] {
        let config = fixture.push_blob("a", format!("config of {word}")).await;
        let mut document = image(&config, &[]);
        document["mediaType"] = json!(DOCKER_MANIFEST);
        fixture.push_manifest("a", word, &document).await.expect(201);
        children.push(sha256(document.to_string().as_bytes()));
    }
    let mut list = index(&[&children[0], &children[1]]);
    list["mediaType"] = json!(DOCKER_LIST);
    for (child, architecture) in [(0, "arm64"), (1, "amd64")] {
        list["manifests"][child]["mediaType"] = json!(DOCKER_MANIFEST);
        list["manifests"][child]["platform"] = json!({ "os": "linux", "architecture": architecture });
    }
    fixture.push_manifest("a", "multi", &list).await.expect(201);
    (sha256(list.to_string().as_bytes()), children.try_into().unwrap())
}

#[tokio::test]
async fn who_knows_images_and_no_lists_gets_the_image_for_the_usual_machine() {
    let fixture = Fixture::new();
    let (list, [_, amd]) = push_list(&fixture).await;
    let old: &[(&str, &str)] = &[("accept", DOCKER_MANIFEST), ("accept", DOCKER_SCHEMA1)];
    for method in ["GET", "HEAD"] {
        let answer = fixture.send(&format!("{method} /v2/a/manifests/multi"), old, "").await.expect(200);
        assert_eq!(answer.header("docker-content-digest"), amd.to_string());
        assert_eq!(answer.header("etag"), format!("\"{amd}\""));
        assert_eq!((answer.header("content-type"), answer.header("vary")), (DOCKER_MANIFEST, "accept"));
        assert!(method == "HEAD" || sha256(&answer.body) == amd);
    }
    let known = [old[0], ("if-none-match", &*format!("\"{amd}\""))];
    assert_eq!(fixture.send("GET /v2/a/manifests/multi", &known, "").await.expect(304).header("vary"), "accept");
    // By digest everybody gets what it names, and who takes lists gets the list.
    let by_digest = fixture.send(&format!("GET /v2/a/manifests/{list}"), old, "").await.expect(200);
    assert_eq!((sha256(&by_digest.body), by_digest.header("vary")), (list.clone(), ""));
    for accept in [vec![], vec![("accept", "*/*")], vec![("accept", OCI_INDEX)], vec![old[0], ("accept", DOCKER_LIST)]]
    {
        let answer = fixture.send("GET /v2/a/manifests/multi", &accept, "").await.expect(200);
        assert_eq!((sha256(&answer.body), answer.header("vary")), (list.clone(), "accept"));
        assert_eq!(answer.header("content-type"), DOCKER_LIST);
    }
    // Without that image the list is better than nothing.
    fixture.ask(&format!("DELETE /v2/a/manifests/{amd}")).await.expect(202);
    let answer = fixture.send("GET /v2/a/manifests/multi", old, "").await.expect(200);
    assert_eq!(answer.header("docker-content-digest"), list.to_string());
}

#[tokio::test]
async fn what_is_stored_is_served_whatever_a_client_accepts() {
    let fixture = Fixture::new();
    let digest = fixture.push_image("a", "v1", "x").await;
    for accept in ["", "*/*", "text/plain", DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST] {
        let answer = fixture.send("GET /v2/a/manifests/v1", &[("accept", accept)], "").await.expect(200);
        assert_eq!((sha256(&answer.body), answer.header("vary")), (digest.clone(), ""), "{accept}");
    }
}

#[tokio::test]
async fn an_image_of_schema_1_is_not_taken_but_one_that_is_there_can_be_rescued() {
    let fixture = Fixture::new();
    fixture.push_image("a", "v1", "x").await;
    let document = json!({ "schemaVersion": 1, "name": "a", "tag": "old", "architecture": "amd64", "fsLayers": [],
        "history": [] })
    .to_string();
    let push = fixture.send("PUT /v2/a/manifests/old", &[("content-type", DOCKER_SCHEMA1)], document.clone()).await;
    let refused = push.expect_error(400, "MANIFEST_INVALID");
    let message = refused.json()["errors"][0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("schema 1") && message.contains("current client"), "{message}");
    // As Distribution 2.8 leaves it.
    let digest = sha256(document.as_bytes());
    let write = |path: String, content: &str| {
        let path = fixture.path(&path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        lay(&path, content);
    };
    write(format!("blobs/sha256/{}/{}/data", &digest.hex()[..2], digest.hex()), &document);
    write(format!("repositories/a/_manifests/revisions/sha256/{}/link", digest.hex()), &digest.to_string());
    write("repositories/a/_manifests/tags/old/current/link".into(), &digest.to_string());
    let answer = fixture.ask("GET /v2/a/manifests/old").await.expect(200);
    assert_eq!((&answer.body[..], answer.header("content-type")), (document.as_bytes(), DOCKER_SCHEMA1));
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
}
