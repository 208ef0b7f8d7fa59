//! Claims about uploads.

use std::time::Duration;

use tokio::sync::Notify;

use super::*;
use crate::exchange::{Caller, Gone};
use crate::storage::PIECE;

fn content(length: usize) -> Bytes {
    (0..length).map(|index| (index % 251) as u8).collect()
}

/// Pieces as a front door hands them over.
fn pieces(content: &Bytes, size: usize) -> Vec<Result<Bytes, BodyError>> {
    content.chunks(size).map(|piece| Ok(content.slice_ref(piece))).collect()
}

pub(super) async fn assert_blob(fixture: &Fixture, name: &str, content: &[u8]) {
    let digest = sha256(content);
    let answer = fixture.ask(&format!("GET /v2/{name}/blobs/{digest}")).await.expect(200);
    assert!(answer.body == content);
}

#[tokio::test]
async fn an_upload_starts_where_the_client_can_find_it() {
    let fixture = Fixture::new();
    let started = fixture.ask("POST /v2/g/p/blobs/uploads/").await.expect(202);
    let id = started.header("docker-upload-uuid");
    assert_eq!(started.header("location"), format!("https://localhost:5050/v2/g/p/blobs/uploads/{id}"));
    assert_eq!((started.header("range"), started.header("content-length")), ("0-0", "0"));
    let folder = fixture.path(&format!("repositories/g/p/_uploads/{id}"));
    let began = std::fs::read_to_string(folder.join("startedat")).unwrap();
    assert!(began.parse::<jiff::Timestamp>().is_ok() && began.len() == 20 && began.ends_with('Z'), "{began}");
    assert_eq!(folder.join("data").metadata().unwrap().len(), 0);
}

#[tokio::test]
async fn a_streamed_upload_of_several_pieces_becomes_a_blob_and_leaves_no_upload() {
    let fixture = Fixture::new();
    let content = content(3 * PIECE + 12_345);
    let digest = sha256(&content);
    let location = fixture.start("g/p").await;
    let patched = fixture.send_pieces(&format!("PATCH {location}"), &[], pieces(&content, 40_000)).await.expect(202);
    assert_eq!(patched.header("range"), format!("0-{}", content.len() - 1));
    let committed = fixture.ask(&format!("PUT {}?digest={digest}", patched.header("location"))).await.expect(201);
    assert_eq!(committed.header("location"), format!("https://localhost:5050/v2/g/p/blobs/{digest}"));
    assert_eq!(committed.header("docker-content-digest"), digest.to_string());
    assert_blob(&fixture, "g/p", &content).await;
    assert_eq!(fixture.count_uploads("g/p").await, 0);
    let link = fixture.path(&format!("repositories/g/p/_layers/sha256/{}/link", digest.hex()));
    assert_eq!(std::fs::read_to_string(link).unwrap(), digest.to_string());
}

#[tokio::test]
async fn the_whole_blob_may_come_with_the_put() {
    let fixture = Fixture::new();
    for content in [content(0), content(1), content(PIECE), content(PIECE + 1)] {
        let location = fixture.start("a").await;
        let request = format!("PUT {location}?digest={}", sha256(&content));
        fixture.send_pieces(&request, &[], pieces(&content, 65_536)).await.expect(201);
        assert_blob(&fixture, "a", &content).await;
    }
}

#[tokio::test]
async fn the_whole_blob_may_come_with_the_post() {
    let fixture = Fixture::new();
    for content in [content(0), content(PIECE + 1)] {
        let request = format!("POST /v2/a/blobs/uploads/?digest={}", sha256(&content));
        let created = fixture.send(&request, &[], content.clone()).await.expect(201);
        assert!(created.header("location").ends_with(&format!("/v2/a/blobs/{}", sha256(&content))));
        assert_blob(&fixture, "a", &content).await;
    }
    let wrong = format!("POST /v2/a/blobs/uploads/?digest={}", sha256(b"other"));
    fixture.send(&wrong, &[], "this").await.expect_error(400, "DIGEST_INVALID");
    assert_eq!(fixture.count_uploads("a").await, 0, "nobody knows the upload's name, so it does not stay");
    fixture.ask(&wrong).await.expect(202);
}

#[tokio::test]
async fn chunks_must_follow_each_other() {
    let fixture = Fixture::new();
    let location = fixture.start("a").await;
    let patch = format!("PATCH {location}");
    let status = format!("GET {location}");
    fixture.send(&patch, &[("content-range", "0-4"), ("content-length", "5")], "01234").await.expect(202);

    let early = fixture.send(&patch, &[("content-range", "7-9")], "789").await.expect_error(416, "RANGE_INVALID");
    assert_eq!((early.header("range"), early.header("location")), ("0-4", location.as_str()));
    assert_eq!(fixture.ask(&status).await.expect(204).header("range"), "0-4");
    fixture.send(&patch, &[("content-range", "0-4")], "01234").await.expect_error(416, "RANGE_INVALID");
    fixture.send(&patch, &[("content-range", "nonsense")], "56").await.expect_error(416, "RANGE_INVALID");

    fixture.send(&patch, &[("content-range", "bytes 5-6/*")], "56").await.expect(202);
    let put = format!("PUT {location}?digest={}", sha256(b"0123456789"));
    let early = fixture.send(&put, &[("content-range", "8-9")], "89").await.expect_error(416, "RANGE_INVALID");
    assert_eq!(early.header("range"), "0-6");
    fixture.send(&put, &[("content-range", "7-9")], "789").await.expect(201);
    assert_blob(&fixture, "a", b"0123456789").await;
}

#[tokio::test]
async fn a_chunk_is_as_long_as_it_says() {
    let fixture = Fixture::new();
    let location = fixture.start("a").await;
    let patch = format!("PATCH {location}");
    let announced = [("content-range", "0-4"), ("content-length", "3")];
    fixture.send(&patch, &announced, "012").await.expect_error(400, "SIZE_INVALID");
    assert_eq!(fixture.ask(&format!("GET {location}")).await.header("range"), "0-0");
    let long = fixture.send(&patch, &[("content-range", "0-2")], "01234").await;
    long.expect_error(400, "SIZE_INVALID");
    assert_eq!(fixture.ask(&format!("GET {location}")).await.header("range"), "0-2", "the surplus is dropped");
    fixture.send(&patch, &[("content-range", "3-9")], "345").await.expect_error(400, "SIZE_INVALID");
    assert_eq!(fixture.ask(&format!("GET {location}")).await.header("range"), "0-5", "what came is kept");
}

#[tokio::test]
async fn an_empty_patch_changes_nothing() {
    let fixture = Fixture::new();
    let location = fixture.start("a").await;
    let patched = fixture.ask(&format!("PATCH {location}")).await.expect(202);
    assert_eq!(patched.header("range"), "0-0");
    fixture.send(&format!("PATCH {location}"), &[], "x").await.expect(202);
    fixture.ask(&format!("PUT {location}?digest={}", sha256(b"x"))).await.expect(201);
}

#[tokio::test]
async fn a_wrong_digest_keeps_the_upload_for_the_right_one() {
    let fixture = Fixture::new();
    let location = fixture.start("a").await;
    fixture.send(&format!("PATCH {location}"), &[], "content").await.expect(202);
    let wrong = format!("PUT {location}?digest={}", sha256(b"other"));
    fixture.ask(&wrong).await.expect_error(400, "DIGEST_INVALID");
    fixture.ask(&wrong).await.expect_error(400, "DIGEST_INVALID");
    fixture.ask(&format!("GET /v2/a/blobs/{}", sha256(b"other"))).await.expect_error(404, "BLOB_UNKNOWN");
    fixture.ask(&format!("PUT {location}?digest={}", sha256(b"content"))).await.expect(201);
    assert_blob(&fixture, "a", b"content").await;
}

#[tokio::test]
async fn sha512_is_a_digest_like_the_other() {
    let fixture = Fixture::new();
    let digest = Digest::of(Algorithm::Sha512, b"content");
    let location = fixture.start("a").await;
    fixture.send(&format!("PATCH {location}"), &[], "content").await.expect(202);
    let created = fixture.ask(&format!("PUT {location}?digest={digest}")).await.expect(201);
    assert_eq!(created.header("docker-content-digest"), digest.to_string());
    let answer = fixture.ask(&format!("GET /v2/a/blobs/{digest}")).await.expect(200);
    assert_eq!((&answer.body[..], answer.header("docker-content-digest")), (&b"content"[..], &*digest.to_string()));
    let other = Digest::of(Algorithm::Sha512, b"other");
    let request = format!("POST /v2/a/blobs/uploads/?digest={other}");
    fixture.send(&request, &[], "content").await.expect_error(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn a_cancelled_upload_is_gone() {
    let fixture = Fixture::new();
    let location = fixture.start("a").await;
    fixture.send(&format!("PATCH {location}"), &[], "content").await.expect(202);
    fixture.ask(&format!("DELETE {location}")).await.expect(204);
    assert_eq!(fixture.count_uploads("a").await, 0);
    for request in ["GET", "PATCH", "DELETE"] {
        fixture.ask(&format!("{request} {location}")).await.status.is_client_error().then_some(()).unwrap();
    }
    let put = format!("PUT {location}?digest={}", sha256(b"content"));
    fixture.ask(&put).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn an_upload_belongs_to_its_repository() {
    let fixture = Fixture::new();
    let location = fixture.start("a/b").await;
    let elsewhere = location.replace("/a/b/", "/a/c/");
    fixture.send(&format!("PATCH {elsewhere}"), &[], "x").await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    fixture.ask(&format!("DELETE {elsewhere}")).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    fixture.ask(&format!("GET {location}")).await.expect(204);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_kept_and_never_committed() {
    let fixture = Fixture::new();
    let (first, rest) = (content(PIECE + 1000), content(777));
    let whole: Bytes = [&first[..], &rest[..]].concat().into();
    for method in ["PATCH", "PUT"] {
        for error in [BodyError::Gone, BodyError::Stalled, BodyError::Malformed] {
            let location = fixture.start("a").await;
            let digest = sha256(&whole);
            // Even when what arrived happens to be all that the digest is of.
            let claimed = sha256(&first);
            let request = match method {
                "PUT" => format!("PUT {location}?digest={claimed}"),
                _ => format!("PATCH {location}"),
            };
            let mut broken = pieces(&first, 50_000);
            broken.push(Err(error.clone()));
            let failed = fixture.send_pieces(&request, &[], broken).await;
            assert!(failed.status.is_client_error(), "{failed:?}");
            fixture.ask(&format!("GET /v2/a/blobs/{claimed}")).await.expect_error(404, "BLOB_UNKNOWN");
            let status = fixture.ask(&format!("GET {location}")).await.expect(204);
            assert_eq!(status.header("range"), format!("0-{}", first.len() - 1), "{method} {error:?}");
            let request = format!("PUT {location}?digest={digest}");
            let range = format!("{}-{}", first.len(), whole.len() - 1);
            fixture.send(&request, &[("content-range", &range)], rest.clone()).await.expect(201);
            assert_blob(&fixture, "a", &whole).await;
            fixture.ask(&format!("DELETE /v2/a/blobs/{digest}")).await.expect(202);
        }
    }
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart_whatever_is_left_of_its_hash() {
    let fixture = Fixture::new();
    let parts = [content(100_001), content(PIECE), content(33)];
    let whole = parts.concat();
    // What happens to the hash states between the requests, and what a reader of them must make of it.
    let damages: [fn(&std::path::Path); 5] = [
        |_| {},
        |states| std::fs::remove_dir_all(states).unwrap(),
        |states| {
            for state in states.read_dir().unwrap() {
                std::fs::File::create(state.unwrap().path()).unwrap();
            }
        },
        |states| {
            // The latest state is lost, an earlier one is there.
            std::fs::remove_file(states.join((100_001 + PIECE).to_string())).ok();
            std::fs::File::create(states.join("not a number")).unwrap();
        },
        |states| {
            std::fs::File::create(states.join("99999999")).unwrap();
        },
    ];
    for (round, damage) in damages.iter().enumerate() {
        let location = fixture.start("a").await;
        let id = location.rsplit('/').next().unwrap();
        for part in &parts[..2] {
            fixture.restarted().send(&format!("PATCH {location}"), &[], part.clone()).await.expect(202);
            damage(&fixture.path(&format!("repositories/a/_uploads/{id}/hashstates/sha256")));
        }
        let request = format!("PUT {location}?digest={}", sha256(&whole));
        fixture.restarted().send(&request, &[], parts[2].clone()).await.expect(201);
        assert_blob(&fixture, "a", &whole).await;
        fixture.ask(&format!("DELETE /v2/a/blobs/{}", sha256(&whole))).await.expect(202);
        assert_eq!(fixture.count_uploads("a").await, 0, "{round}");
    }
}

#[tokio::test]
async fn a_hash_state_is_the_one_that_go_writes() {
    let fixture = Fixture::new();
    let location = fixture.start("a").await;
    fixture.send(&format!("PATCH {location}"), &[], "abc").await.expect(202);
    let id = location.rsplit('/').next().unwrap();
    let state = std::fs::read(fixture.path(&format!("repositories/a/_uploads/{id}/hashstates/sha256/3"))).unwrap();
    assert!(state.starts_with(b"sha\x03\x6a\x09\xe6\x67") && state.ends_with(&[0, 0, 0, 0, 0, 0, 0, 3]));
    assert_eq!((state.len(), &state[36..40]), (108, &b"abc\0"[..]));
}

#[tokio::test]
async fn a_torn_blob_of_another_program_is_replaced() {
    let fixture = Fixture::new();
    let digest = sha256(b"content");
    let torn = fixture.path(&format!("blobs/sha256/{}/{}/data", &digest.hex()[..2], digest.hex()));
    std::fs::create_dir_all(torn.parent().unwrap()).unwrap();
    for leftover in ["", "cont", "longer than the content"] {
        std::fs::File::create(&torn).unwrap();
        crate::storage::durable::write(&torn, leftover.as_bytes(), 0o644).unwrap();
        fixture.push_blob("a", "content").await;
        assert_blob(&fixture, "a", b"content").await;
    }
}

/// A client that sends some pieces, says that it is waited for, and goes on when it is told to: perhaps never.
pub(super) struct Held {
    inner: Recorded,
    /// How many pieces come by themselves.
    free: usize,
    begun: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Held {
    /// One that sends this piece and then neither more nor an end, and may be made to vanish.
    pub(super) fn after(request: Request<()>, first: &'static str) -> Self {
        let inner = Recorded::with_pieces(request, vec![Ok(first.into())]);
        Self { inner, free: 1, begun: Arc::default(), go_on: Arc::default() }
    }
}

impl Exchange for Held {
    fn head(&self) -> &Parts {
        self.inner.head()
    }

    fn caller(&self) -> &Caller {
        self.inner.caller()
    }

    fn notes(&mut self) -> &mut Notes {
        self.inner.notes()
    }

    async fn read(&mut self) -> Result<Option<Bytes>, BodyError> {
        if self.free == 0 {
            self.begun.notify_one();
            self.go_on.notified().await;
            self.free = usize::MAX;
        }
        self.free -= 1;
        self.inner.read().await
    }

    async fn respond(&mut self, head: http::response::Parts, end: bool) -> Result<(), Gone> {
        self.inner.respond(head, end).await
    }

    async fn write(&mut self, piece: Bytes, end: bool) -> Result<(), Gone> {
        self.inner.write(piece, end).await
    }
}

#[tokio::test]
async fn a_client_that_comes_back_goes_on_although_its_old_request_still_hangs() {
    let fixture = Fixture::new();
    for vanishes in [false, true] {
        let location = fixture.start("a").await;
        let id = location.rsplit('/').next().unwrap();
        let path = location.strip_prefix("https://localhost:5050").unwrap();
        let request = Request::builder().method("PATCH").uri(path).body(()).unwrap();
        let endpoint = Endpoint::parse(request.method(), path, None).unwrap();
        let mut exchange = Held::after(request, "first ");
        let mut hanging = Box::pin(fixture.registry.answer(endpoint, &fixture.grant, &mut exchange));
        // Until it has the turn.
        while !fixture.registry.turns.is_taken(id.parse().unwrap()) {
            assert!(tokio::time::timeout(Duration::from_millis(1), &mut hanging).await.is_err());
        }
        let patch = format!("PATCH {location}");
        let patched = if vanishes {
            drop(hanging);
            fixture.send(&patch, &[], "second").await.expect(202)
        } else {
            let (displaced, patched) = futures_util::join!(hanging, fixture.send(&patch, &[], "second"));
            assert_eq!(displaced.status, StatusCode::CONFLICT);
            patched.expect(202)
        };
        let content: &[u8] = if patched.header("range") == "0-11" { b"first second" } else { b"second" };
        fixture.ask(&format!("PUT {location}?digest={}", sha256(content))).await.expect(201);
        assert_blob(&fixture, "a", content).await;
    }
}

/// A client whose connection to one server is lost goes on at another, and the first learns of it much later.
#[tokio::test]
async fn two_servers_on_one_tree_never_mix_what_they_receive_of_an_upload() {
    let first = Fixture::new();
    let second = first.restarted();
    let location = first.start("a").await;
    let path = location.strip_prefix("https://localhost:5050").unwrap();
    let request = Request::builder().method("PATCH").uri(path).body(()).unwrap();
    let endpoint = Endpoint::parse(request.method(), path, None).unwrap();
    let inner = Recorded::with_pieces(request, vec![Ok("stale".into()), Err(BodyError::Stalled)]);
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut held = Held { inner, free: 0, begun: begun.clone(), go_on: go_on.clone() };
    let stale = first.registry.answer(endpoint, &first.grant, &mut held);
    let (layer, rest) = (Bytes::from(vec![7; 2 * PIECE]), Bytes::from_static(b"the end"));
    let content = [&layer[..], &rest[..]].concat();
    let fresh = async {
        begun.notified().await;
        second.send(&format!("PATCH {location}"), &[], layer).await.expect(202);
        go_on.notify_one();
    };
    let (stale, ()) = futures_util::join!(stale, fresh);
    assert_eq!(stale.status, StatusCode::CONFLICT, "somebody else has gone on");
    let put = format!("PUT {location}?digest={}", sha256(&content));
    second.send(&put, &[], rest).await.expect(201);
    assert_blob(&second, "a", &content).await;
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_can_be_repeated() {
    let fixture = Fixture::new();
    let location = fixture.start("a").await;
    let put = format!("PUT {location}?digest={}", sha256(b"content"));
    let first = fixture.send(&put, &[], "content").await.expect(201);
    let second = fixture.send(&put, &[], "content").await.expect(201);
    assert_eq!(first.headers, second.headers);
    let elsewhere = put.replace("/v2/a/", "/v2/b/");
    fixture.send(&elsewhere, &[], "content").await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

/// What a process leaves that dies when its upload has become a blob: the folder without the data.
async fn committed_but_for_the_end(fixture: &Fixture, content: &'static str) -> (String, PathBuf) {
    let location = fixture.start("a").await;
    let folder = fixture.path(&format!("repositories/a/_uploads/{}", location.rsplit('/').next().unwrap()));
    fixture.send(&format!("PATCH {location}"), &[], content).await.expect(202);
    let other = fixture.push_blob("a", content).await;
    assert_eq!(other, sha256(content.as_bytes()));
    std::fs::remove_file(folder.join("data")).unwrap();
    (location, folder)
}

#[tokio::test]
async fn what_a_crash_left_of_a_committed_upload_goes_with_the_repeated_commit_or_a_delete() {
    let fixture = Fixture::new();
    let (location, folder) = committed_but_for_the_end(&fixture, "content").await;
    assert!(folder.join("startedat").exists() && folder.join("hashstates").exists());
    fixture.ask(&format!("GET {location}")).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    fixture.ask(&format!("PUT {location}?digest={}", sha256(b"content"))).await.expect(201);
    assert!(!folder.exists());
    assert_blob(&fixture, "a", b"content").await;

    let (location, folder) = committed_but_for_the_end(&fixture, "another").await;
    fixture.ask(&format!("DELETE {location}")).await.expect(204);
    assert!(!folder.exists());
    fixture.ask(&format!("DELETE {location}")).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    assert_blob(&fixture, "a", b"another").await;
}

#[tokio::test]
async fn a_whole_blob_whose_client_vanishes_leaves_no_upload() {
    let fixture = Fixture::new();
    let (path, query) = ("/v2/a/blobs/uploads/", format!("digest={}", sha256(b"first and more")));
    let request = Request::builder().method("POST").uri(format!("{path}?{query}")).body(()).unwrap();
    let endpoint = Endpoint::parse(request.method(), path, Some(&query)).unwrap();
    let mut exchange = Held::after(request, "first");
    let mut hanging = Box::pin(fixture.registry.answer(endpoint, &fixture.grant, &mut exchange));
    while fixture.count_uploads("a").await == 0 {
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut hanging).await.is_err());
    }
    drop(hanging);
    let removed = async {
        while fixture.count_uploads("a").await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), removed).await.unwrap();
}
