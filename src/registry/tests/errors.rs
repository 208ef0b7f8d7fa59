//! The table of what a client is told, row by row, and what a failing storage becomes.

use super::*;
use crate::oci::media_type::DOCKER_SCHEMA1_SIGNED;
use crate::storage::fault::{Failure, FaultDriver};
use crate::storage::{ErrorKind, PIECE};

#[tokio::test]
async fn mistakes_of_clients_are_named() {
    let fixture = Fixture::new();
    let config = fixture.push_blob("a", "config").await;
    let digest = sha256(b"nowhere");
    let upload = "/v2/a/blobs/uploads/0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10";
    for (request, status, code) in [
        (format!("GET /v2/a/blobs/{digest}"), 404, "BLOB_UNKNOWN"),
        (format!("DELETE /v2/a/blobs/{digest}"), 404, "BLOB_UNKNOWN"),
        ("GET /v2/a/blobs/sha256:baddigeststring".into(), 400, "DIGEST_INVALID"),
        (format!("GET /v2/a/blobs/{}", digest.to_string().to_uppercase()), 400, "DIGEST_INVALID"),
        ("GET /v2/a/manifests/none".into(), 404, "MANIFEST_UNKNOWN"),
        (format!("GET /v2/a/manifests/{digest}"), 404, "MANIFEST_UNKNOWN"),
        ("GET /v2/a/manifests/sha256:baddigeststring".into(), 400, "DIGEST_INVALID"),
        ("PUT /v2/a/manifests/sha256:baddigeststring".into(), 400, "DIGEST_INVALID"),
        ("DELETE /v2/a/manifests/none".into(), 404, "MANIFEST_UNKNOWN"),
        (format!("DELETE /v2/a/manifests/{digest}"), 404, "MANIFEST_UNKNOWN"),
        ("GET /v2/a/manifests/-bad".into(), 400, "TAG_INVALID"),
        ("PUT /v2/a/manifests/v1".into(), 400, "MANIFEST_INVALID"),
        ("GET /v2/A/tags/list".into(), 400, "NAME_INVALID"),
        (format!("GET /v2/{}/tags/list", "a".repeat(256)), 400, "NAME_INVALID"),
        ("GET /v2/none/tags/list".into(), 404, "NAME_UNKNOWN"),
        ("GET /v2/a/tags/list?n=-1".into(), 400, "PAGINATION_NUMBER_INVALID"),
        ("GET /v2/_catalog?n=many".into(), 400, "PAGINATION_NUMBER_INVALID"),
        ("GET /v2/a/referrers/nonsense".into(), 400, "DIGEST_INVALID"),
        ("POST /v2/a/blobs/uploads/?digest=nonsense".into(), 400, "DIGEST_INVALID"),
        (format!("GET {upload}"), 404, "BLOB_UPLOAD_UNKNOWN"),
        (format!("PATCH {upload}"), 404, "BLOB_UPLOAD_UNKNOWN"),
        (format!("DELETE {upload}"), 404, "BLOB_UPLOAD_UNKNOWN"),
        (format!("PUT {upload}?digest={digest}"), 404, "BLOB_UPLOAD_UNKNOWN"),
        (format!("PUT {upload}"), 400, "DIGEST_INVALID"),
        (format!("PUT {upload}?digest=sha256:x"), 400, "DIGEST_INVALID"),
        ("GET /v2/a/blobs/uploads/nonsense".into(), 404, "BLOB_UPLOAD_UNKNOWN"),
    ] {
        fixture.ask(&request).await.expect_error(status, code);
    }
    let schema1 = json!({ "schemaVersion": 1, "fsLayers": [], "signatures": [] }).to_string();
    for (content_type, body) in [
        (OCI_MANIFEST, "not json"),
        (OCI_MANIFEST, "{}"),
        ("nonsense", "{}"),
        (OCI_INDEX, &image(&config, &[]).to_string()),
        (DOCKER_SCHEMA1_SIGNED, &schema1),
    ] {
        let answer = fixture.send("PUT /v2/a/manifests/v1", &[("content-type", content_type)], body.to_owned()).await;
        answer.expect_error(400, "MANIFEST_INVALID");
    }
    let upload = fixture.start("a").await;
    for (broken, status) in [(BodyError::Gone, 400), (BodyError::Malformed, 400), (BodyError::Stalled, 408)] {
        let pieces = || vec![Ok(Bytes::from_static(b"{")), Err(broken.clone())];
        let manifest = fixture.send_pieces("PUT /v2/a/manifests/v1", &[("content-type", OCI_MANIFEST)], pieces()).await;
        manifest.expect_error(status, "MANIFEST_INVALID");
        let patched = fixture.send_pieces(&format!("PATCH {upload}"), &[], pieces()).await;
        patched.expect_error(status, "BLOB_UPLOAD_INVALID");
    }
}

#[tokio::test]
async fn a_failing_storage_is_told_apart_and_tells_nobody_its_paths() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    for (kind, status, code) in [
        (ErrorKind::Full, 507, "UNAVAILABLE"),
        (ErrorKind::Denied, 503, "UNAVAILABLE"),
        (ErrorKind::ReadOnly, 503, "UNAVAILABLE"),
        (ErrorKind::Other, 500, "UNKNOWN"),
    ] {
        let wrap = |disk| Arc::new(FaultDriver::failing(disk, 0, Failure::Before, kind)) as Arc<dyn Driver>;
        let fixture = Fixture::on(dir.clone(), wrap, true);
        let digest = sha256(b"x");
        for request in [
            "POST /v2/secret/place/blobs/uploads/".to_owned(),
            format!("GET /v2/secret/place/blobs/{digest}"),
            "GET /v2/secret/place/tags/list".into(),
            "GET /v2/_catalog".into(),
        ] {
            let answer = fixture.ask(&request).await.expect_error(status, code);
            let text = String::from_utf8_lossy(&answer.body);
            assert!(!text.contains("repositories/") && !text.contains("docker/registry"), "{text}");
            assert!(answer.notes.failure.unwrap().contains("docker/registry/v2"), "the log says where");
        }
    }
}

#[tokio::test]
async fn a_full_disk_keeps_what_was_there_and_an_upload_goes_on_when_there_is_room() {
    let healthy = Fixture::new();
    let before = healthy.push_image("a", "v1", "x").await;
    let location = healthy.start("a").await;
    healthy.send(&format!("PATCH {location}"), &[], "first ").await.expect(202);
    let full = |disk| Arc::new(FaultDriver::failing(disk, 3, Failure::Before, ErrorKind::Full)) as Arc<dyn Driver>;
    let full = Fixture::on(healthy.dir.clone(), full, true);
    let refused = full.send(&format!("PATCH {location}"), &[], "second").await.expect_error(507, "UNAVAILABLE");
    assert!(refused.json()["errors"][0]["message"].as_str().unwrap().contains("no space left"));
    let status = healthy.ask(&format!("GET {location}")).await.expect(204);
    assert_eq!(status.header("range"), "0-5");
    healthy.send(&format!("PATCH {location}"), &[], "second").await.expect(202);
    healthy.ask(&format!("PUT {location}?digest={}", sha256(b"first second"))).await.expect(201);
    let answer = healthy.ask("GET /v2/a/manifests/v1").await.expect(200);
    assert_eq!(answer.header("docker-content-digest"), before.to_string());
}

#[tokio::test]
async fn a_request_that_fills_the_disk_gives_back_what_it_took() {
    let healthy = Fixture::new();
    let location = healthy.start("a").await;
    healthy.send(&format!("PATCH {location}"), &[], "first ").await.expect(202);
    // stat, state, open, the first piece, and the second finds no room.
    let full = |disk| Arc::new(FaultDriver::failing(disk, 4, Failure::Once, ErrorKind::Full)) as Arc<dyn Driver>;
    let full = Fixture::on(healthy.dir.clone(), full, true);
    let large = vec![7; 2 * PIECE + 1];
    full.send(&format!("PATCH {location}"), &[], large).await.expect_error(507, "UNAVAILABLE");
    let id = location.rsplit('/').next().unwrap();
    let data = healthy.path(&format!("repositories/a/_uploads/{id}/data"));
    assert_eq!(data.metadata().unwrap().len(), 6);
    healthy.send(&format!("PATCH {location}"), &[("content-range", "6-11")], "second").await.expect(202);
    healthy.ask(&format!("PUT {location}?digest={}", sha256(b"first second"))).await.expect(201);
}

#[tokio::test]
async fn what_a_failed_sync_left_in_doubt_is_cut_off() {
    let healthy = Fixture::new();
    let location = healthy.start("a").await;
    healthy.send(&format!("PATCH {location}"), &[], "first ").await.expect(202);
    // stat, state, open, the piece, and then the disk cannot promise to have it.
    let failing = |disk| Arc::new(FaultDriver::failing(disk, 4, Failure::Once, ErrorKind::Other)) as Arc<dyn Driver>;
    let failing = Fixture::on(healthy.dir.clone(), failing, true);
    failing.send(&format!("PATCH {location}"), &[], "second").await.expect_error(500, "UNKNOWN");
    assert_eq!(failing.ask(&format!("GET {location}")).await.expect(204).header("range"), "0-5");
    failing.send(&format!("PATCH {location}"), &[("content-range", "6-11")], "second").await.expect(202);
    failing.ask(&format!("PUT {location}?digest={}", sha256(b"first second"))).await.expect(201);
}

#[tokio::test]
async fn a_commit_that_found_no_room_for_its_link_can_be_repeated() {
    let healthy = Fixture::new();
    let other = healthy.push_blob("b", "other").await;
    let location = healthy.start("a").await;
    healthy.send(&format!("PATCH {location}"), &[], "content").await.expect(202);
    // stat, state, rename, and then the link.
    let full = |disk| Arc::new(FaultDriver::failing(disk, 3, Failure::Once, ErrorKind::Full)) as Arc<dyn Driver>;
    let full = Fixture::on(healthy.dir.clone(), full, true);
    let put = format!("PUT {location}?digest={}", sha256(b"content"));
    full.ask(&put).await.expect_error(507, "UNAVAILABLE");
    full.ask(&format!("GET /v2/a/blobs/{}", sha256(b"content"))).await.expect_error(404, "BLOB_UNKNOWN");
    let stolen = format!("PUT {location}?digest={other}");
    full.ask(&stolen).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    full.ask(&put).await.expect(201);
    full.ask(&format!("GET /v2/a/blobs/{}", sha256(b"content"))).await.expect(200);
    assert_eq!(full.count_uploads("a").await, 0);
}

#[tokio::test]
async fn readiness_is_that_the_storage_answers_and_tells_nobody_its_paths() {
    let fixture = Fixture::new();
    assert_eq!(fixture.registry.ready().await, Ok(()), "an empty tree");
    let failing = |disk| Arc::new(FaultDriver::failing(disk, 0, Failure::Once, ErrorKind::Denied)) as Arc<dyn Driver>;
    let failing = Fixture::on(fixture.dir.clone(), failing, true);
    assert_eq!(failing.registry.ready().await, Err("the registry's storage does not answer".to_owned()));
    assert_eq!(failing.registry.ready().await, Ok(()));
}
