//! Claims about what is remembered of the tree: how little a request costs, and that what changes is seen all the same,
//! whoever changes it.

use std::time::{Duration, Instant};

use super::*;
use crate::exchange::Body;
use crate::registry::remembered::{LAG, LARGEST};
use crate::storage::durable;
use crate::storage::fault::{FaultDriver, clock_steps};

/// A registry that takes every mark for settled, and one on the same tree that remembers nothing yet: another program.
struct Both {
    ours: Fixture,
    other: Fixture,
    driver: Arc<FaultDriver>,
}

impl Both {
    fn new() -> Self {
        let other = Fixture::large();
        let disk = Arc::new(Filesystem::new(other.dir.path()));
        let driver = Arc::new(FaultDriver::ageing(disk, Duration::from_secs(60)));
        let ours = Fixture::on(other.dir.clone(), |_| driver.clone(), true);
        Self { ours, other, driver }
    }

    /// How many calls of the driver a request makes of us.
    async fn cost(&self, request: &str) -> usize {
        let before = self.driver.calls();
        self.ours.ask(request).await.expect(200);
        self.driver.calls() - before
    }

    /// What it costs when it was asked for just before. A slow machine may take longer than the lag now and then.
    async fn least_cost(&self, request: &str) -> usize {
        let mut least = usize::MAX;
        for _ in 0..5 {
            least = least.min(self.cost(request).await);
        }
        least
    }

    /// The tags that we list, each change of them stamped with a time of its own.
    async fn tags(&self) -> Vec<String> {
        clock_steps(self.other.dir.path());
        let listed = tags(&self.ours.ask("GET /v2/a/tags/list").await);
        clock_steps(self.other.dir.path());
        listed
    }
}

fn tags(answer: &Response) -> Vec<String> {
    answer.json()["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

fn tag_folder(fixture: &Fixture, tag: &str) -> PathBuf {
    fixture.path(&format!("repositories/a/_manifests/tags/{tag}"))
}

fn blob_of(fixture: &Fixture, digest: &Digest) -> PathBuf {
    fixture.path(&format!("blobs/sha256/{}/{}/data", &digest.hex()[..2], digest.hex()))
}

fn revision_of(fixture: &Fixture, digest: &Digest) -> PathBuf {
    fixture.path(&format!("repositories/a/_manifests/revisions/sha256/{}/link", digest.hex()))
}

/// Asks until the status is this one, which must be within a few times the lag.
async fn becomes(fixture: &Fixture, request: &str, status: u16) {
    let started = Instant::now();
    while fixture.ask(request).await.status.as_u16() != status {
        assert!(started.elapsed() < 20 * LAG, "{request} never becomes {status}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_costs_so_many_calls_and_no_more() {
    let both = Both::new();
    let digest = both.ours.push_image("a", "v1", "x").await;
    both.ours.push_image("a", "v2", "y").await;
    clock_steps(both.ours.dir.path());
    let (by_digest, layer) = (format!("/v2/a/manifests/{digest}"), format!("/v2/a/blobs/{}", sha256(b"layer of x")));
    // What the first costs that nothing is remembered for, and what it costs again.
    for (request, first, again) in [
        ("GET /v2/", Some(0), 0),
        // The mark of the tags; before, the list and the two links.
        ("GET /v2/a/tags/list", Some(4), 1),
        ("GET /v2/a/tags/list?n=1", Some(4), 1),
        // The tag's link and the revision's; before, the content.
        ("GET /v2/a/manifests/v1", Some(3), 2),
        ("HEAD /v2/a/manifests/v1", None, 2),
        ("HEAD /v2/a/manifests/v2", Some(3), 2),
        // The revision's link.
        (&format!("GET {by_digest}"), None, 1),
        (&format!("HEAD {by_digest}"), None, 1),
        // The link and the content.
        (&format!("GET {layer}"), Some(2), 2),
        (&format!("HEAD {layer}"), Some(2), 2),
    ] {
        if let Some(first) = first {
            assert_eq!(both.cost(request).await, first, "{request}");
        }
        assert_eq!(both.least_cost(request).await, again, "{request}");
    }
}

#[tokio::test]
async fn a_page_is_the_same_from_memory_and_from_the_tree() {
    let both = Both::new();
    for tag in ["a", "b", "c"] {
        both.ours.push_image("a", tag, "x").await;
    }
    clock_steps(both.ours.dir.path());
    for query in ["", "?n=2", "?n=2&last=a", "?n=1&last=a", "?last=c", "?n=0", "?n=2"] {
        let request = format!("GET /v2/a/tags/list{query}");
        let read = both.other.ask(&request).await.expect(200);
        for _ in 0..2 {
            let ours = both.ours.ask(&request).await.expect(200);
            assert_eq!((&ours.body, &ours.headers), (&read.body, &read.headers), "{query}");
        }
        assert_eq!(both.least_cost(&request).await, 1);
    }
    let narrow = Config { tags_page: 1, ..Config::new(both.ours.dir.path().to_owned()) };
    let narrow = Fixture { registry: Arc::new(both.ours.registry.reconfigured(narrow)), ..both.ours };
    let page = narrow.ask("GET /v2/a/tags/list").await;
    assert_eq!(
        (tags(&page), page.header("link")),
        (vec!["a".to_owned()], "</v2/a/tags/list?last=a&n=1>; rel=\"next\"")
    );
}

#[tokio::test]
async fn tags_that_come_and_go_are_seen_at_once_whoever_made_them() {
    let both = Both::new();
    both.ours.push_image("a", "v0", "x").await;
    assert_eq!(both.tags().await, ["v0"]);
    let mut expected = vec!["v0".to_owned()];
    for (number, writer) in [&both.ours, &both.other, &both.ours, &both.other].into_iter().enumerate() {
        let tag = format!("v{}", number + 1);
        writer.push_image("a", &tag, "x").await;
        expected.push(tag);
        assert_eq!(both.tags().await, expected);
        writer.push_image("a", "v0", &format!("y{number}")).await;
        assert_eq!(both.tags().await, expected, "a tag that moves");
    }
    for deleter in [&both.ours, &both.other] {
        let gone = expected.remove(1);
        deleter.ask(&format!("DELETE /v2/a/manifests/{gone}")).await.expect(202);
        assert_eq!(both.tags().await, expected);
    }
    both.ours.ask(&format!("DELETE /v2/a/manifests/{}", image_of("x"))).await.expect(202);
    assert_eq!(both.tags().await, ["v0"]);
    std::fs::remove_dir_all(tag_folder(&both.other, "v0")).unwrap();
    assert!(both.tags().await.is_empty());
}

fn image_of(word: &str) -> Digest {
    let (config, layer) =
        (sha256(format!("config of {word}").as_bytes()), sha256(format!("layer of {word}").as_bytes()));
    sha256(image(&config, &[&layer]).to_string().as_bytes())
}

#[tokio::test]
async fn a_folder_that_is_not_a_tag_yet_becomes_one_as_soon_as_its_link_is_there() {
    let both = Both::new();
    let digest = both.ours.push_image("a", "v1", "x").await;
    let folder = tag_folder(&both.other, "v2").join("current");
    durable::make_dirs(&folder).unwrap();
    let request = "GET /v2/a/tags/list";
    assert_eq!((both.tags().await, both.cost(request).await), (vec!["v1".to_owned()], 4));
    lay(&folder.join("link"), "");
    assert_eq!((both.tags().await, both.cost(request).await), (vec!["v1".to_owned()], 4));
    lay(&folder.join("link"), digest.to_string());
    assert_eq!(both.tags().await, ["v1", "v2"]);
    assert_eq!(both.least_cost(request).await, 1);
}

#[tokio::test]
async fn a_repository_that_goes_and_one_that_is_put_in_its_place_are_seen_at_once() {
    let both = Both::new();
    both.ours.push_image("a", "v1", "x").await;
    both.ours.push_image("b", "v2", "x").await;
    assert_eq!(both.tags().await, ["v1"]);
    let (a, b) = (both.ours.path("repositories/a"), both.ours.path("repositories/b"));
    durable::rename(&a, &both.ours.path("repositories/c")).unwrap();
    for gone in ["tags/list", "manifests/v1"] {
        both.ours.ask(&format!("GET /v2/a/{gone}")).await.expect(404);
    }
    durable::rename(&b, &a).unwrap();
    assert_eq!(both.tags().await, ["v2"]);
}

#[tokio::test]
async fn a_page_that_was_read_right_after_a_change_is_not_remembered() {
    let fixture = Fixture::large();
    let driver = Arc::new(FaultDriver::counting(Arc::new(Filesystem::new(fixture.dir.path()))));
    let fresh = Fixture::on(fixture.dir.clone(), |_| driver.clone(), true);
    fresh.push_image("a", "v1", "x").await;
    let before = driver.calls();
    fresh.ask("GET /v2/a/tags/list").await.expect(200);
    fresh.ask("GET /v2/a/tags/list").await.expect(200);
    assert_eq!(driver.calls() - before, 2 * 3);
}

/// What no mark tells: another program that died in the middle of a delete, or a hand.
#[tokio::test]
async fn a_tag_whose_folder_stays_without_its_link_is_listed_no_longer_than_the_lag() {
    let both = Both::new();
    both.ours.push_image("a", "v1", "x").await;
    both.ours.push_image("a", "v2", "x").await;
    assert_eq!(both.tags().await, ["v1", "v2"]);
    std::fs::remove_file(tag_folder(&both.other, "v1").join("current/link")).unwrap();
    both.ours.ask("GET /v2/a/manifests/v1").await.expect_error(404, "MANIFEST_UNKNOWN");
    let started = Instant::now();
    while both.tags().await != ["v2"] {
        assert!(started.elapsed() < 20 * LAG, "listed for ever");
    }
}

#[tokio::test]
async fn a_remembered_manifest_goes_and_its_tag_moves_at_once_whoever_does_it() {
    let both = Both::new();
    let old = both.ours.push_image("a", "v1", "old").await;
    for (writer, word) in [(&both.ours, "one"), (&both.other, "two")] {
        let new = writer.push_image("a", "v1", word).await;
        let served = both.ours.ask("GET /v2/a/manifests/v1").await.expect(200);
        assert_eq!(served.header("docker-content-digest"), new.to_string());
    }
    let by_digest = format!("GET /v2/a/manifests/{old}");
    for deleter in [&both.ours, &both.other] {
        both.ours.push_image("a", "v2", "old").await;
        for request in [&*by_digest, "GET /v2/a/manifests/v2"] {
            both.ours.ask(request).await.expect(200);
        }
        deleter.ask(&format!("DELETE /v2/a/manifests/{old}")).await.expect(202);
        for request in [&*by_digest, "HEAD /v2/a/manifests/v2"] {
            both.ours.ask(request).await.expect(404);
        }
    }
    // Straight in the files: the link goes, is torn, and names something else.
    both.ours.push_image("a", "v1", "old").await;
    let two = both.ours.push_image("a", "v2", "two").await;
    let link = revision_of(&both.other, &old);
    both.ours.ask(&by_digest).await.expect(200);
    for (content, status) in [("", 404), (&*two.to_string(), 200), (&*old.to_string(), 200)] {
        lay(&link, content);
        let answer = both.ours.ask(&by_digest).await.expect(status);
        assert_eq!(answer.body, both.other.ask(&by_digest).await.body);
    }
    std::fs::remove_file(&link).unwrap();
    both.ours.ask(&by_digest).await.expect_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn what_is_remembered_of_one_repository_shows_in_no_other() {
    let both = Both::new();
    let digest = both.ours.push_image("a", "v1", "x").await;
    both.ours.push_image("b", "v1", "y").await;
    both.ours.ask(&format!("GET /v2/a/manifests/{digest}")).await.expect(200);
    both.ours.ask(&format!("GET /v2/b/manifests/{digest}")).await.expect_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn content_that_is_gone_or_damaged_is_served_as_it_was_pushed_and_no_longer_than_the_lag() {
    for damage in [None, Some("{\"half\":")] {
        let both = Both::new();
        let digest = both.ours.push_image("a", "v1", "x").await;
        let whole = both.ours.ask("GET /v2/a/manifests/v1").await.expect(200).body;
        let blob = blob_of(&both.other, &digest);
        match damage {
            None => std::fs::remove_file(&blob).unwrap(),
            Some(half) => lay(&blob, half),
        }
        // A slow machine may take longer than the lag to come here.
        let served = both.ours.ask("GET /v2/a/manifests/v1").await;
        assert!(served.status == StatusCode::NOT_FOUND || served.body == whole);
        if damage.is_none() {
            let refused = both.ours.push_manifest("a", "list", &index(&[&digest])).await;
            refused.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
        }
        becomes(&both.ours, "GET /v2/a/manifests/v1", 404).await;
        both.ours.push_image("a", "v1", "x").await;
        assert_eq!(both.ours.ask("GET /v2/a/manifests/v1").await.expect(200).body, whole);
    }
}

#[tokio::test]
async fn a_large_manifest_is_read_each_time() {
    let both = Both::new();
    let config = both.ours.push_blob("a", "config").await;
    let mut document = image(&config, &[]);
    document["annotations"] = json!({ "padding": "x".repeat(LARGEST) });
    both.ours.push_manifest("a", "large", &document).await.expect(201);
    // The two links; the content, which is too large to be read at once, to look at it and to answer.
    for _ in 0..2 {
        assert_eq!(both.cost("GET /v2/a/manifests/large").await, 2 + 3);
    }
}

/// Whoever asks and does not read holds a file and not the manifest.
#[tokio::test]
async fn a_large_manifest_is_not_in_memory_while_its_client_takes_it() {
    let fixture = Fixture::large();
    let config = fixture.push_blob("a", "config").await;
    let mut document = image(&config, &[]);
    document["annotations"] = json!({ "padding": "x".repeat(3 << 20) });
    fixture.push_manifest("a", "large", &document).await.expect(201);
    let path = "/v2/a/manifests/large";
    let mut unread = Vec::new();
    for _ in 0..100 {
        let request = Request::builder().uri(path).body(()).unwrap();
        let endpoint = Endpoint::parse(request.method(), path, None).unwrap();
        let mut exchange = Recorded::with_pieces(request, Vec::new());
        let answer = fixture.registry.answer(endpoint, &fixture.grant, &mut exchange).await;
        assert!(matches!(answer.body, Body::Stream { .. }), "it comes from its file");
        unread.push((exchange, answer));
    }
    let whole = document.to_string();
    assert_eq!(fixture.ask(&format!("GET {path}")).await.expect(200).body, whole, "the others are not in the way");
    let head = fixture.ask(&format!("HEAD {path}")).await.expect(200);
    assert_eq!(head.header("content-length"), whole.len().to_string());
    let (mut exchange, answer) = unread.swap_remove(0);
    send(&mut exchange, answer).await.unwrap();
    assert_eq!(exchange.written(), whole.as_bytes());
    lay(&blob_of(&fixture, &sha256(whole.as_bytes())), "x".repeat(whole.len()));
    fixture.ask(&format!("GET {path}")).await.expect_error(404, "MANIFEST_UNKNOWN");
}
