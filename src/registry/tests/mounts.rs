//! Blobs that another repository holds already.

use super::uploads::assert_blob;
use super::*;
use crate::storage::fault::FaultDriver;

impl Fixture {
    /// The same registry where nobody guards.
    fn as_anybody(&self) -> Self {
        Self { dir: self.dir.clone(), registry: self.registry.clone(), grant: Grant::everything(None) }
    }

    /// Many repositories without the content that is looked for, laid down as another program would.
    fn lay_repositories(&self, namespace: &str, count: usize) {
        for number in 0..count {
            std::fs::create_dir_all(self.path(&format!("repositories/{namespace}/{number:06}/_layers"))).unwrap();
        }
    }
}

#[tokio::test]
async fn a_mount_needs_the_right_to_read_where_it_comes_from() {
    let fixture = Fixture::new();
    let digest = fixture.push_blob("source/secret", "content").await;
    let mount = format!("POST /v2/target/blobs/uploads/?mount={digest}&from=source/secret");
    fixture.as_reader_of(&["target", "source/other"]).ask(&mount).await.expect(202);
    fixture.ask(&format!("HEAD /v2/target/blobs/{digest}")).await.expect(404);

    let mounted = fixture.as_reader_of(&["source/secret"]).ask(&mount).await.expect(201);
    assert_eq!(mounted.header("location"), format!("https://localhost:5050/v2/target/blobs/{digest}"));
    assert_eq!(mounted.header("docker-content-digest"), digest.to_string());
    assert_blob(&fixture, "target", b"content").await;
    fixture.ask(&mount).await.expect(201);
}

#[tokio::test]
async fn a_mount_from_anywhere_searches_only_what_the_caller_may_read() {
    let fixture = Fixture::new();
    let digest = fixture.push_blob("hidden", "content").await;
    let mount = format!("POST /v2/target/blobs/uploads/?mount={digest}");
    fixture.as_reader_of(&["target", "visible"]).ask(&mount).await.expect(202);
    fixture.push_blob("visible", "content").await;
    fixture.as_reader_of(&["target", "visible"]).ask(&mount).await.expect(201);
    assert_blob(&fixture, "target", b"content").await;
}

#[tokio::test]
async fn a_mount_that_cannot_be_made_begins_an_upload() {
    let fixture = Fixture::new().as_reader_of(&["source", "target"]);
    let unknown = sha256(b"nowhere");
    for query in [format!("mount={unknown}&from=source"), format!("mount={unknown}"), "mount=&from=source".into()] {
        let started = fixture.ask(&format!("POST /v2/target/blobs/uploads/?{query}")).await.expect(202);
        assert!(started.header("location").contains("/v2/target/blobs/uploads/"));
    }
}

#[tokio::test]
async fn where_everybody_may_read_everything_a_mount_from_anywhere_finds_the_blob() {
    for (source, target) in [
        ("team/b/image", "team/b/copy"),
        ("team/z", "team/b/copy"),
        ("team", "team/b/copy"),
        ("team/b", "team/b/copy"),
        ("a", "team/b/copy"),
        ("z/y/x", "team/b/copy"),
        ("b", "a"),
        ("a", "b"),
        ("a/b", "a"),
    ] {
        let fixture = Fixture::new().as_anybody();
        let digest = fixture.push_blob(source, "content").await;
        fixture.push_blob("team/b/other", "other content").await;
        let mounted = fixture.ask(&format!("POST /v2/{target}/blobs/uploads/?mount={digest}")).await.expect(201);
        assert_eq!(mounted.header("docker-content-digest"), digest.to_string());
        assert_blob(&fixture, target, b"content").await;
    }
}

#[tokio::test]
async fn content_without_a_link_is_not_mounted() {
    let fixture = Fixture::new().as_anybody();
    let digest = fixture.push_blob("a", "content").await;
    fixture.ask(&format!("DELETE /v2/a/blobs/{digest}")).await.expect(202);
    assert!(fixture.path(layout::blob(&digest).as_str().strip_prefix("docker/registry/v2/").unwrap()).exists());
    fixture.ask(&format!("POST /v2/b/blobs/uploads/?mount={digest}")).await.expect(202);
    fixture.ask(&format!("HEAD /v2/b/blobs/{digest}")).await.expect(404);
}

#[tokio::test]
async fn a_mount_from_anywhere_costs_no_more_among_many_repositories() {
    let (dir, mut counting) = (folder_in_memory(), None);
    let count = |disk| {
        let driver = Arc::new(FaultDriver::counting(disk));
        counting = Some(driver.clone());
        driver as Arc<dyn Driver>
    };
    let fixture = Fixture::on(dir, count, true).as_anybody();
    let driver = counting.unwrap();
    let held = fixture.push_blob("zoo/animal", "content").await;
    fixture.lay_repositories("middle", 2000);
    fixture.lay_repositories("zoo", 2000);
    let calls = async |target: &str, digest: &Digest, status: u16| {
        let before = driver.calls();
        fixture.ask(&format!("POST /v2/{target}/blobs/uploads/?mount={digest}")).await.expect(status);
        driver.calls() - before
    };
    assert!(calls("a", &sha256(b"nowhere"), 202).await < 20, "one look tells that it is nowhere");
    let given_up = calls("a", &held, 202).await;
    assert!((500..600).contains(&given_up), "256 listings and as many looks, not {given_up}");
    assert!(calls("zoo/a", &held, 202).await < 600, "what lies behind too many neighbours is not found");
    fixture.push_blob("zoo/000000", "content").await;
    assert!(calls("zoo/a", &held, 201).await < 30, "the neighbours come first");
}
