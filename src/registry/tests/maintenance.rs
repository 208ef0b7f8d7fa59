//! Claims about maintenance: nothing new, what was begun ends, and after that nothing at all.

use std::time::Duration;

use super::*;
use crate::registry::{Mode, Pause};

const LONG: Duration = Duration::from_secs(3600);

impl Fixture {
    fn pause(&self, mode: Mode, grace: Duration) {
        self.registry.maintenance().order(Some(Pause::new(mode, Timestamp::now(), grace)));
    }
}

#[tokio::test]
async fn after_the_grace_every_write_is_refused_in_words_that_clients_print_and_everything_can_be_pulled() {
    let fixture = Fixture::new();
    let digest = fixture.push_image("a", "v1", "x").await;
    let upload = fixture.start("a").await;
    let blob = sha256(b"config of x");
    for (mode, status, code) in [(Mode::ReadOnly, 405, "UNSUPPORTED"), (Mode::Unavailable, 503, "UNAVAILABLE")] {
        fixture.pause(mode, Duration::ZERO);
        for request in [
            "PUT /v2/a/manifests/v1".to_owned(),
            format!("DELETE /v2/a/manifests/{digest}"),
            format!("DELETE /v2/a/blobs/{blob}"),
            "POST /v2/a/blobs/uploads/".into(),
            format!("POST /v2/b/blobs/uploads/?mount={blob}&from=a"),
            format!("PATCH {upload}"),
            format!("PUT {upload}?digest={blob}"),
            format!("DELETE {upload}"),
        ] {
            let refused = fixture.ask(&request).await.expect_error(status, code);
            let (allow, again) = if status == 405 { ("GET, HEAD", "") } else { ("", "60") };
            assert_eq!((refused.header("allow"), refused.header("retry-after")), (allow, again), "{request}");
        }
        fixture.ask("GET /v2/a/manifests/v1").await.expect(200);
        fixture.ask(&format!("GET {upload}")).await.expect(204);
    }
    fixture.registry.maintenance().order(None);
    fixture.push_image("a", "v2", "y").await;
}

#[tokio::test]
async fn within_the_grace_a_push_that_was_begun_ends_and_none_begins() {
    let fixture = Fixture::new();
    let digest = fixture.push_image("a", "v1", "x").await;
    let upload = fixture.start("a").await;
    fixture.pause(Mode::ReadOnly, LONG);
    fixture.ask("POST /v2/a/blobs/uploads/").await.expect(405);
    fixture.ask(&format!("DELETE /v2/a/manifests/{digest}")).await.expect(405);
    fixture.ask(&format!("DELETE {upload}")).await.expect(204);
    let document = image(&sha256(b"config of x"), &[&sha256(b"layer of x")]);
    fixture.push_manifest("a", "v2", &document).await.expect(201);
    assert_eq!(fixture.registry.maintenance().writing(), 0);
    fixture.pause(Mode::ReadOnly, Duration::ZERO);
    fixture.ask("PUT /v2/a/manifests/v3").await.expect(405);
}

#[tokio::test]
async fn what_the_configuration_says_holds_whatever_is_ordered() {
    let fixture = Fixture::new();
    let maintenance = fixture.registry.maintenance();
    maintenance.configure(true, Timestamp::now(), Duration::ZERO);
    maintenance.order(Some(Pause::new(Mode::Unavailable, Timestamp::now(), LONG)));
    fixture.ask("PUT /v2/a/manifests/v1").await.expect(503);
    maintenance.order(None);
    fixture.ask("PUT /v2/a/manifests/v1").await.expect(405);
    assert_eq!(fixture.ask("OPTIONS /v2/a/manifests/tag").await.expect(200).header("allow"), "GET, HEAD");
    maintenance.configure(false, Timestamp::now(), Duration::ZERO);
    fixture.push_image("a", "v1", "x").await;
}

#[tokio::test]
async fn a_change_that_is_on_its_way_to_the_disk_is_being_written_although_its_request_was_refused() {
    let fixture = Fixture::new();
    fixture.push_image("a", "v1", "x").await;
    let maintenance = fixture.registry.maintenance();
    let document = image(&sha256(b"config of x"), &[&sha256(b"layer of x")]);
    // Whoever deletes in a repository keeps pushes to it waiting.
    let alone = fixture.registry.gates.delete(&"a".parse().unwrap()).await;
    let refused = async {
        while maintenance.writing() == 0 {
            tokio::task::yield_now().await;
        }
        fixture.pause(Mode::ReadOnly, Duration::ZERO);
    };
    let (refused, ()) = futures_util::join!(fixture.push_manifest("a", "v2", &document), refused);
    refused.expect(405);
    assert_eq!(maintenance.writing(), 1, "it goes on");
    fixture.ask("GET /v2/a/manifests/v2").await.expect(404);
    drop(alone);
    let written = async {
        while maintenance.writing() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written).await.unwrap();
    fixture.ask("GET /v2/a/manifests/v2").await.expect(200);
}
