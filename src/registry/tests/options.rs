//! Claims about what an operator may say: read-only, relative URLs, pages, the shared secret.

use aws_lc_rs::hmac;
use data_encoding::BASE64URL;

use super::*;

#[tokio::test]
async fn nothing_changes_in_a_registry_that_is_read_only_and_everything_can_be_pulled() {
    let fixture = Fixture::new();
    let digest = fixture.push_image("a", "v1", "x").await;
    let upload = fixture.start("a").await;
    let frozen = fixture.reconfigured(|config| config.read_only = true);
    let blob = sha256(b"config of x");
    for request in [
        "PUT /v2/a/manifests/v1".to_owned(),
        "DELETE /v2/a/manifests/v1".into(),
        "DELETE /v2/a/tags/reference/v1".into(),
        format!("DELETE /v2/a/manifests/{digest}"),
        format!("DELETE /v2/a/blobs/{blob}"),
        "POST /v2/a/blobs/uploads/".into(),
        format!("POST /v2/b/blobs/uploads/?mount={blob}&from=a"),
        format!("PATCH {upload}"),
        format!("PUT {upload}?digest={blob}"),
        format!("DELETE {upload}"),
        "POST /v2/a/manifests/v1".into(),
        "BREW /v2/".into(),
    ] {
        let refused = frozen.ask(&request).await.expect(405);
        assert_eq!(
            (&refused.body[..], refused.header("allow")),
            (&b"Method not allowed\n"[..], "GET, HEAD"),
            "{request}"
        );
        assert_eq!(refused.header("content-type"), "text/plain; charset=utf-8");
    }
    assert_eq!(frozen.ask("OPTIONS /v2/a/manifests/tag").await.expect(200).header("allow"), "GET, HEAD");
    frozen.ask("GET /v2/a/manifests/v1").await.expect(200);
    frozen.ask(&format!("GET /v2/a/blobs/{blob}")).await.expect(200);
    frozen.ask("GET /v2/a/tags/list").await.expect(200);
    frozen.ask("GET /v2/_catalog").await.expect(200);
    frozen.ask(&format!("GET {upload}")).await.expect(204);
    assert_eq!(frozen.ask("GET /v2/").await.expect(200).header("gitlab-container-registry-features"), "");
    fixture.ask(&format!("GET {upload}")).await.expect(204);
}

#[tokio::test]
async fn gitlab_learns_what_it_can_ask_for() {
    let fixture = Fixture::new();
    let answer = fixture.ask("GET /v2/").await.expect(200);
    let said = |answer: &Response, header| answer.header(&format!("gitlab-container-registry-{header}")).to_owned();
    assert!(said(&answer, "version").starts_with("4.") && said(&answer, "version").ends_with("-gitlab"));
    assert_eq!((said(&answer, "features"), said(&answer, "database-enabled")), ("tag_delete".into(), "false".into()));
    let answer = fixture.reconfigured(|config| config.delete = false).ask("GET /v2/").await.expect(200);
    assert_eq!((said(&answer, "features"), said(&answer, "database-enabled")), (String::new(), "false".into()));
}

#[tokio::test]
async fn a_relative_location_is_a_path() {
    let fixture = Fixture::configured(|config| config.relative_urls = true);
    let started = fixture.ask("POST /v2/a/blobs/uploads/").await.expect(202);
    let upload = format!("/v2/a/blobs/uploads/{}", started.header("docker-upload-uuid"));
    assert_eq!(started.header("location"), upload);
    assert_eq!(fixture.send(&format!("PATCH {upload}"), &[], "x").await.expect(202).header("location"), upload);
    assert_eq!(fixture.ask(&format!("GET {upload}")).await.expect(204).header("location"), upload);
    let blob = sha256(b"x");
    let put = format!("PUT {upload}?digest={blob}");
    let early = fixture.send(&put, &[("content-range", "5-5")], "y").await.expect(416);
    assert_eq!(early.header("location"), upload);
    assert_eq!(fixture.ask(&put).await.expect(201).header("location"), format!("/v2/a/blobs/{blob}"));
    let document = image(&blob, &[]);
    let pushed = fixture.push_manifest("a", "v1", &document).await.expect(201);
    let digest = sha256(document.to_string().as_bytes());
    assert_eq!(pushed.header("location"), format!("/v2/a/manifests/{digest}"));
}

#[tokio::test]
async fn a_page_is_at_most_as_long_as_the_operator_says() {
    let fixture = Fixture::configured(|config| (config.catalog_page, config.tags_page) = (2, 3));
    for (name, tag) in [("a", "1"), ("a", "2"), ("a", "3"), ("a", "4"), ("b", "1"), ("c", "1")] {
        fixture.push_image(name, tag, "x").await;
    }
    for asked in ["", "?n=4", "?n=100000"] {
        let page = fixture.ask(&format!("GET /v2/a/tags/list{asked}")).await.expect(200);
        assert_eq!(page.json()["tags"], json!(["1", "2", "3"]));
        assert_eq!(page.header("link"), "</v2/a/tags/list?last=3&n=3>; rel=\"next\"");
        let page = fixture.ask(&format!("GET /v2/_catalog{asked}")).await.expect(200);
        assert_eq!(page.json()["repositories"], json!(["a", "b"]));
        assert_eq!(page.header("link"), "</v2/_catalog?last=b&n=2>; rel=\"next\"");
    }
}

/// What Distribution would read out of a `Location`, with this secret.
fn state(location: &str, secret: &[u8]) -> String {
    let (_, state) = location.split_once("?_state=").unwrap();
    let state = BASE64URL.decode(state.replace("%3D", "=").as_bytes()).unwrap();
    let (mac, state) = state.split_at(32);
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), state, mac).unwrap();
    String::from_utf8(state.to_vec()).unwrap()
}

#[tokio::test]
async fn with_a_secret_distribution_can_go_on_with_our_uploads_and_we_need_none() {
    let secret = b"fake-secret-of-a-test";
    let fixture = Fixture::configured(|config| config.secret = Some(Secret(secret.to_vec())));
    let started = fixture.ask("POST /v2/g/p/blobs/uploads/").await.expect(202);
    let id = started.header("docker-upload-uuid").to_owned();
    let began = fixture.path(&format!("repositories/g/p/_uploads/{id}/startedat"));
    let began = std::fs::read_to_string(began).unwrap();
    let expected = |offset: u64| format!(r#"{{"Name":"g/p","UUID":"{id}","Offset":{offset},"StartedAt":"{began}"}}"#);
    let location = started.header("location");
    assert_eq!(state(location, secret), expected(0));
    let patched = fixture.send(&format!("PATCH {location}"), &[], "12345").await.expect(202);
    assert_eq!(state(patched.header("location"), secret), expected(5));
    let stale = format!("PATCH {location}");
    let patched = fixture.send(&stale, &[("content-range", "5-6")], "67").await.expect(202);
    assert_eq!(state(patched.header("location"), secret), expected(7));
    let early = fixture.send(&stale, &[("content-range", "5-6")], "67").await.expect(416);
    assert_eq!(state(early.header("location"), secret), expected(7));
    assert_eq!(
        state(fixture.ask(&format!("GET {location}")).await.expect(204).header("location"), secret),
        expected(7)
    );
    // Another node without the secret, another program's state, or none: the tree knows better.
    let other = fixture.restarted();
    let plain = format!("/v2/g/p/blobs/uploads/{id}");
    other.send(&format!("PATCH {plain}?_state=nonsense"), &[], "8").await.expect(202);
    fixture.ask(&format!("PUT {plain}?digest={}", sha256(b"12345678"))).await.expect(201);
}

#[tokio::test]
async fn the_algorithm_of_an_upload_may_be_said_early() {
    let fixture = Fixture::new();
    for algorithm in ["sha256", "sha512"] {
        fixture.ask(&format!("POST /v2/a/blobs/uploads/?digest-algorithm={algorithm}")).await.expect(202);
    }
    let unknown = fixture.ask("POST /v2/a/blobs/uploads/?digest-algorithm=md5").await;
    unknown.expect_error(400, "DIGEST_INVALID");
}
