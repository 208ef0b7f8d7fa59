//! Claims about reading and deleting blobs.

use super::*;

#[tokio::test]
async fn a_blob_comes_with_everything_that_clients_look_at() {
    let fixture = Fixture::new();
    let digest = fixture.push_blob("g/p", "content").await;
    for method in ["GET", "HEAD"] {
        let answer = fixture.ask(&format!("{method} /v2/g/p/blobs/{digest}")).await.expect(200);
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        assert_eq!(answer.header("content-length"), "7");
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert_eq!(answer.header("etag"), format!("\"{digest}\""));
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert_eq!(answer.header("cache-control"), "max-age=31536000");
        assert_eq!(&answer.body[..], if method == "GET" { &b"content"[..] } else { b"" });
    }
}

#[tokio::test]
async fn a_part_of_a_blob() {
    let fixture = Fixture::new();
    let content: Bytes = (0..2048u32).map(|index| index as u8).collect();
    let digest = fixture.push_blob("a", content.clone()).await;
    let request = format!("GET /v2/a/blobs/{digest}");
    for (range, first, last) in [
        ("bytes=500-1499", 500, 1499),
        ("bytes=500-", 500, 2047),
        ("bytes=-500", 1548, 2047),
        ("bytes=2000-5000", 2000, 2047),
        ("bytes=0-0", 0, 0),
        ("bytes=-5000", 0, 2047),
    ] {
        let answer = fixture.send(&request, &[("range", range)], "").await.expect(206);
        assert_eq!(answer.header("content-range"), format!("bytes {first}-{last}/2048"), "{range}");
        assert_eq!(answer.header("content-length"), (last - first + 1).to_string());
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert!(answer.body == content.slice(first..=last), "{range}");
    }
    for range in ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0", "bytes=x"] {
        let answer = fixture.send(&request, &[("range", range)], "").await.expect_error(416, "RANGE_INVALID");
        assert_eq!(answer.header("content-range"), "bytes */2048", "{range}");
    }
    for range in ["bytes=0-1,3-4", "lines=1-2", "nonsense"] {
        assert!(fixture.send(&request, &[("range", range)], "").await.expect(200).body == content, "{range}");
    }
    let head = fixture.send(&format!("HEAD /v2/a/blobs/{digest}"), &[("range", "bytes=0-1")], "").await.expect(200);
    assert_eq!(head.header("content-length"), "2048", "a range is for GET");
}

#[tokio::test]
async fn a_range_is_forgotten_when_the_client_means_other_content() {
    let fixture = Fixture::new();
    let digest = fixture.push_blob("a", "content").await;
    let request = format!("GET /v2/a/blobs/{digest}");
    let same = format!("\"{digest}\"");
    fixture.send(&request, &[("range", "bytes=1-2"), ("if-range", &same)], "").await.expect(206);
    fixture.send(&request, &[("range", "bytes=1-2"), ("if-range", "\"other\"")], "").await.expect(200);
}

#[tokio::test]
async fn an_empty_blob_has_no_parts() {
    let fixture = Fixture::new();
    let digest = fixture.push_blob("a", "").await;
    let answer = fixture.send(&format!("GET /v2/a/blobs/{digest}"), &[("range", "bytes=0-")], "").await.expect(200);
    assert_eq!((answer.body.len(), answer.header("content-length")), (0, "0"));
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let fixture = Fixture::new();
    let digest = fixture.push_blob("a", "content").await;
    let other = sha256(b"other");
    for (condition, status) in [
        (format!("\"{digest}\""), 304),
        (digest.to_string(), 304),
        (format!("W/\"{digest}\""), 304),
        (format!("\"{other}\", \"{digest}\""), 304),
        ("*".into(), 304),
        (format!("\"{other}\""), 200),
    ] {
        let request = format!("GET /v2/a/blobs/{digest}");
        let answer = fixture.send(&request, &[("if-none-match", &condition)], "").await.expect(status);
        assert_eq!((answer.body.is_empty(), answer.header("etag")), (status == 304, &*format!("\"{digest}\"")));
    }
}

#[tokio::test]
async fn a_repository_shows_only_its_own_blobs() {
    let fixture = Fixture::new();
    let digest = fixture.push_blob("a", "content").await;
    fixture.ask(&format!("GET /v2/a/b/blobs/{digest}")).await.expect_error(404, "BLOB_UNKNOWN");
    fixture.ask(&format!("HEAD /v2/b/blobs/{digest}")).await.expect(404);
}

#[tokio::test]
async fn a_deleted_blob_is_gone_from_its_repository_only() {
    let fixture = Fixture::new();
    let digest = fixture.push_blob("a", "content").await;
    fixture.push_blob("b", "content").await;
    let delete = format!("DELETE /v2/a/blobs/{digest}");
    fixture.ask(&delete).await.expect(202);
    fixture.ask(&delete).await.expect_error(404, "BLOB_UNKNOWN");
    fixture.ask(&format!("GET /v2/a/blobs/{digest}")).await.expect_error(404, "BLOB_UNKNOWN");
    fixture.ask(&format!("GET /v2/b/blobs/{digest}")).await.expect(200);
    fixture.push_blob("a", "content").await;
    fixture.ask(&format!("GET /v2/a/blobs/{digest}")).await.expect(200);
}

#[tokio::test]
async fn a_link_that_says_nothing_or_points_nowhere_is_a_missing_blob() {
    let fixture = Fixture::new();
    let digest = fixture.push_blob("a", "content").await;
    let link = fixture.path(&format!("repositories/a/_layers/sha256/{}/link", digest.hex()));
    let nowhere = sha256(b"nowhere").to_string();
    for damage in ["", "sha256:", "nonsense", "\u{0}", &nowhere, &"x".repeat(100_000)] {
        crate::storage::durable::write(&link, damage.as_bytes(), 0o644).unwrap();
        for request in ["GET", "HEAD"] {
            let answer = fixture.ask(&format!("{request} /v2/a/blobs/{digest}")).await;
            assert_eq!(answer.status, 404, "{request} {damage:.10}");
        }
    }
    crate::storage::durable::write(&link, format!("{digest}\n").as_bytes(), 0o644).unwrap();
    fixture.ask(&format!("GET /v2/a/blobs/{digest}")).await.expect(200);
}

#[tokio::test]
async fn sha512_content_that_distribution_filed_under_sha256_is_found() {
    let fixture = Fixture::new();
    fixture.push_blob("a", "content").await;
    let digest = Digest::of(Algorithm::Sha512, b"content");
    let folder = fixture.path(&format!("repositories/a/_layers/sha512/{}", digest.hex()));
    std::fs::create_dir_all(&folder).unwrap();
    crate::storage::durable::write(&folder.join("link"), sha256(b"content").to_string().as_bytes(), 0o644).unwrap();
    let answer = fixture.ask(&format!("GET /v2/a/blobs/{digest}")).await.expect(200);
    assert_eq!((&answer.body[..], answer.header("docker-content-digest")), (&b"content"[..], &*digest.to_string()));
}
