//! Claims about what is acknowledged because it is there already: the process that wrote it may have been killed before any
//! disk had it, and then a power cut takes it back, unless whoever acknowledges it makes it durable.

use super::uploads::assert_blob;
use super::*;
use crate::oci::Digest;
use crate::storage::Key;
use crate::storage::fault::FaultDriver;

/// The server after one that was killed.
struct After {
    fixture: Fixture,
    driver: Arc<FaultDriver>,
}

impl After {
    fn of(killed: &Fixture) -> Self {
        let driver = Arc::new(FaultDriver::counting(Arc::new(Filesystem::new(killed.dir.path()))));
        let fixture = Fixture::with_index(killed.dir.clone(), driver.clone(), true, Index::none());
        Self { fixture, driver }
    }

    /// The power goes. What the killed one had written last is lost, unless this one made it durable.
    fn lose(&self, last: &Key) -> Fixture {
        if !self.driver.made_durable(last) {
            std::fs::remove_file(self.fixture.dir.path().join(last.as_str())).unwrap();
        }
        self.fixture.restarted()
    }
}

fn link(name: &str, digest: &Digest) -> Key {
    layout::layer(&name.parse().unwrap(), digest)
}

#[tokio::test]
async fn a_repeated_commit_of_a_link_that_was_never_synced_survives_a_power_cut() {
    let killed = Fixture::new();
    let digest = sha256(b"content");
    let put = format!("PUT {}?digest={digest}", killed.start("a").await);
    killed.send(&put, &[], "content").await.expect(201);
    let after = After::of(&killed);
    after.fixture.send(&put, &[], "content").await.expect(201);
    assert_blob(&after.lose(&link("a", &digest)), "a", b"content").await;
}

#[tokio::test]
async fn a_repeated_commit_of_a_blob_whose_name_was_never_synced_survives_a_power_cut() {
    let killed = Fixture::new();
    let digest = sha256(b"content");
    let location = killed.start("a").await;
    killed.send(&format!("PATCH {location}"), &[], "content").await.expect(202);
    // Killed after the rename: the upload's data is the blob, and no repository has a link.
    let (blob, id) = (layout::blob(&digest), location.rsplit('/').next().unwrap());
    let data = layout::upload_data(&"a".parse().unwrap(), id.parse().unwrap());
    Filesystem::new(killed.dir.path()).rename(&data, &blob, 7).await.unwrap();
    let after = After::of(&killed);
    after.fixture.ask(&format!("PUT {location}?digest={digest}")).await.expect(201);
    assert_blob(&after.lose(&blob), "a", b"content").await;
}

#[tokio::test]
async fn a_mount_of_what_is_there_already_survives_a_power_cut() {
    let killed = Fixture::new();
    let digest = killed.push_blob("a", "content").await;
    let after = After::of(&killed);
    after.fixture.ask(&format!("POST /v2/a/blobs/uploads/?mount={digest}&from=b")).await.expect(201);
    assert_blob(&after.lose(&link("a", &digest)), "a", b"content").await;
}

#[tokio::test]
async fn a_manifest_whose_layers_a_client_did_not_send_again_keeps_them_after_a_power_cut() {
    let killed = Fixture::new();
    let (config, layer) = (killed.push_blob("a", "config").await, killed.push_blob("a", "layer").await);
    for (digest, content) in [(&layer, "layer"), (&config, "config")] {
        let after = After::of(&killed);
        after.fixture.push_manifest("a", "v1", &image(&config, &[&layer])).await.expect(201);
        assert_blob(&after.lose(&link("a", digest)), "a", content.as_bytes()).await;
    }
}

#[tokio::test]
async fn an_index_keeps_the_manifests_that_were_there_after_a_power_cut() {
    let killed = Fixture::new();
    let child = killed.push_image("a", "v1", "x").await;
    let after = After::of(&killed);
    after.fixture.push_manifest("a", "all", &index(&[&child])).await.expect(201);
    let restarted = after.lose(&layout::revision(&"a".parse().unwrap(), &child));
    restarted.ask(&format!("GET /v2/a/manifests/{child}")).await.expect(200);
}
