//! Claims about abandoned uploads, and about who began them.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use jiff::{Timestamp, ToSpan as _};

use super::*;
use crate::oci::UploadId;
use crate::storage::fault::{Failure, FaultDriver};
use crate::storage::{ErrorKind, Swept};

/// Begins an upload and says which it is.
async fn start(fixture: &Fixture, name: &str) -> UploadId {
    fixture.start(name).await.rsplit('/').next().unwrap().parse().unwrap()
}

fn folder(fixture: &Fixture, name: &str, id: UploadId) -> PathBuf {
    fixture.path(&format!("repositories/{name}/_uploads/{id}"))
}

/// Makes every file of an upload as if it had been written so long ago.
fn age(folder: &std::path::Path, by: Duration) {
    for entry in folder.read_dir().unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            age(&entry.path(), by);
        } else {
            let file = std::fs::File::options().write(true).open(entry.path()).unwrap();
            file.set_modified(SystemTime::now() - by).unwrap();
        }
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

fn purged(removed: u64, kept: u64) -> Purged {
    Purged { removed, kept, failed: 0 }
}

#[tokio::test]
async fn uploads_go_by_age_wherever_they_are() {
    let fixture = Fixture::new();
    // Also where no manifest ever was, and below another repository.
    let names = ["a", "a/b", "a/b/c", "z"];
    for name in names {
        start(&fixture, name).await;
    }
    fixture.push_image("a/b", "v1", "x").await;
    let now = Timestamp::now();
    assert_eq!(fixture.registry.purge(now).await.unwrap(), purged(0, 4));
    assert_eq!(fixture.registry.purge(now + 167.hours()).await.unwrap(), purged(0, 4));
    assert_eq!(fixture.registry.purge(now + 169.hours()).await.unwrap(), purged(4, 0));
    for name in names {
        assert_eq!(fixture.count_uploads(name).await, 0, "{name}");
    }
    fixture.ask("GET /v2/a/b/manifests/v1").await.expect(200);
    assert_eq!(fixture.registry.purge(now + 169.hours()).await.unwrap(), purged(0, 0));
}

#[tokio::test]
async fn an_upload_that_a_request_writes_to_stays_and_the_request_is_not_disturbed() {
    let fixture = Fixture::new();
    let id = start(&fixture, "a").await;
    let (turn, attendance) = fixture.registry.turns.take(id).await.unwrap();
    let later = Timestamp::now() + 1000.hours();
    assert_eq!(fixture.registry.purge(later).await.unwrap(), purged(0, 1));
    assert!(futures_util::FutureExt::now_or_never(attendance.displaced()).is_none());
    drop((turn, attendance));
    assert_eq!(fixture.registry.purge(later).await.unwrap(), purged(1, 0));
}

#[tokio::test]
async fn where_the_start_cannot_be_told_what_was_written_last_counts() {
    let fixture = Fixture::new();
    let damages: [fn(&std::path::Path); 6] = [
        |folder| std::fs::remove_file(folder.join("startedat")).unwrap(),
        |folder| lay(&folder.join("startedat"), "yesterday"),
        |folder| lay(&folder.join("startedat"), [0xff; 100_000]),
        |folder| lay(&folder.join("startedat"), "9000-01-01T00:00:00Z"),
        |folder| std::fs::remove_file(folder.join("data")).unwrap(),
        |folder| {
            std::fs::remove_file(folder.join("startedat")).unwrap();
            std::fs::remove_file(folder.join("data")).unwrap();
        },
    ];
    for (round, damage) in damages.iter().enumerate() {
        let location = fixture.start("a").await;
        fixture.send(&format!("PATCH {location}"), &[], "content").await.expect(202);
        let folder = folder(&fixture, "a", location.rsplit('/').next().unwrap().parse().unwrap());
        damage(&folder);
        assert_eq!(fixture.registry.purge(Timestamp::now()).await.unwrap(), purged(0, 1), "{round}");
        age(&folder, 8 * DAY);
        let now = if round == 4 { Timestamp::now() + 169.hours() } else { Timestamp::now() };
        assert_eq!(fixture.registry.purge(now).await.unwrap(), purged(1, 0), "{round}");
        assert!(!folder.exists(), "{round}");
    }
}

#[tokio::test]
async fn the_remains_of_a_removed_upload_go_and_what_is_no_upload_stays() {
    let fixture = Fixture::new();
    let uploads = fixture.path("repositories/a/_uploads");
    let remains = UploadId::random().to_string();
    let long = "x".repeat(255);
    for name in [&remains, "not-an-upload", &long, "0B3BBD51-7F1E-4F3C-9F8A-3F2F0F6F8A10"] {
        std::fs::create_dir_all(uploads.join(name)).unwrap();
    }
    // Deeper and longer than any name may be.
    let deep = format!("repositories/{}/_uploads/{remains}", vec!["y".repeat(200); 3].join("/"));
    std::fs::create_dir_all(fixture.path(&deep)).unwrap();
    assert_eq!(fixture.registry.purge(Timestamp::now()).await.unwrap(), purged(1, 0));
    assert!(!uploads.join(&remains).exists() && uploads.join(&long).exists() && fixture.path(&deep).exists());
}

#[tokio::test]
async fn trying_it_out_removes_nothing_and_neither_does_a_registry_that_should_not() {
    let fixture = Fixture::new();
    start(&fixture, "a").await;
    let later = Timestamp::now() + 1000.hours();
    let purge = Purge { dry_run: true, ..Purge::default() };
    let trying = fixture.reconfigured(|config| config.purge = Some(purge));
    assert_eq!(trying.registry.purge(later).await.unwrap(), purged(1, 0));
    let never = fixture.reconfigured(|config| config.purge = None);
    assert_eq!(never.registry.purge(later).await.unwrap(), purged(0, 0));
    let frozen = fixture.reconfigured(|config| config.read_only = true);
    assert_eq!(frozen.registry.purge(later).await.unwrap(), purged(0, 0));
    assert_eq!(fixture.count_uploads("a").await, 1);
}

/// Lays down what a kill leaves while a link, a blob and an upload are written.
fn leave_unfinished(fixture: &Fixture) -> [PathBuf; 3] {
    let hex = "a".repeat(64);
    [format!("repositories/a/_layers/sha256/{hex}/link"), format!("blobs/sha256/aa/{hex}/data"), {
        format!("repositories/a/_uploads/{}/startedat", UploadId::random())
    }]
    .map(|name| {
        let file = fixture.path(&format!("{name}.{}.tmp", UploadId::random()));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        lay(&file, "half");
        file
    })
}

#[tokio::test]
async fn what_was_never_finished_goes_by_age_and_no_image_does() {
    let week = Purge::default();
    let minute = Purge { age: Duration::from_secs(60), ..week };
    for (purge, hours) in [(Some(week), 168), (None, 168), (Some(minute), 1)] {
        let fixture = Fixture::configured(|config| config.purge = purge);
        let digest = fixture.push_image("a", "v1", "x").await;
        let left = leave_unfinished(&fixture);
        let now = Timestamp::now();
        let (young, old) = (now + hours.hours() - 1.minute(), now + hours.hours() + 1.minute());
        assert_eq!(fixture.registry.sweep(young).await.unwrap(), Swept::default());
        assert!(left.iter().all(|file| file.exists()));
        assert_eq!(fixture.registry.sweep(old).await.unwrap(), Swept { removed: 3, failed: 0 });
        assert!(!left.iter().any(|file| file.exists()));
        let answer = fixture.ask("GET /v2/a/manifests/v1").await.expect(200);
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        for layer in ["config of x", "layer of x"] {
            fixture.ask(&format!("GET /v2/a/blobs/{}", sha256(layer.as_bytes()))).await.expect(200);
        }
    }
}

#[tokio::test]
async fn what_was_never_finished_stays_where_nothing_may_be_removed() {
    let changes: [fn(&mut Config); 2] =
        [|config| config.read_only = true, |config| config.purge = Some(Purge { dry_run: true, ..Purge::default() })];
    for change in changes {
        let fixture = Fixture::configured(change);
        let left = leave_unfinished(&fixture);
        let swept = fixture.registry.sweep(Timestamp::now() + 1000.hours()).await.unwrap();
        assert!(swept == Swept::default() && left.iter().all(|file| file.exists()));
    }
    let empty = Fixture::new();
    assert_eq!(empty.registry.sweep(Timestamp::now()).await.unwrap(), Swept::default());
}

#[tokio::test]
async fn more_uploads_than_are_held_at_once() {
    let fixture = Fixture::large();
    let uploads = fixture.path("repositories/a/_uploads");
    for _ in 0..2100 {
        let folder = uploads.join(UploadId::random().to_string());
        std::fs::create_dir_all(&folder).unwrap();
        lay(&folder.join("startedat"), "2020-01-01T00:00:00Z");
    }
    assert_eq!(fixture.registry.purge(Timestamp::now()).await.unwrap(), purged(2100, 0));
    assert_eq!(fixture.count_uploads("a").await, 0);
}

#[tokio::test]
async fn a_failing_storage_is_told_or_counted_and_nothing_young_goes() {
    for call in 0..12 {
        let fixture = Fixture::new();
        let old = folder(&fixture, "a", start(&fixture, "a").await);
        lay(&old.join("startedat"), "2020-01-01T00:00:00Z");
        let young = folder(&fixture, "b", start(&fixture, "b").await);
        let failing = Fixture::on(
            fixture.dir.clone(),
            |disk| Arc::new(FaultDriver::failing(disk, call, Failure::Once, ErrorKind::Other)),
            true,
        );
        match failing.registry.purge(Timestamp::now()).await {
            Err(_) => {}
            Ok(purged) => assert_eq!(purged.removed + purged.kept + purged.failed, 2, "{call}"),
        }
        assert!(young.join("data").exists(), "{call}");
        assert!(fixture.registry.purge(Timestamp::now()).await.unwrap().removed <= 1);
        assert!(!old.exists(), "{call}");
    }
}

#[tokio::test]
async fn who_began_an_upload_is_known_after_a_restart() {
    let mut fixture = Fixture::new();
    let name: RepositoryName = "g/p".parse().unwrap();
    let (issuer, subject) = ("https://gitlab.example/\"jwt\"".to_owned(), "J\u{f6}rg \\ 1".to_owned());
    fixture.grant = Grant { subject: Some(subject.clone()), issuer: Some(issuer.clone()), ..fixture.grant };
    let before = Timestamp::now().as_second();
    let id = start(&fixture, "g/p").await;
    let begun = fixture.restarted().registry.upload_begun(&name, id).await.unwrap().unwrap();
    assert_eq!((&begun.issuer, &begun.subject), (&issuer, &subject));
    assert!((before..=Timestamp::now().as_second()).contains(&begun.at.as_second()));

    let registry = &fixture.registry;
    assert_eq!(registry.upload_begun(&name, UploadId::random()).await.unwrap(), None);
    assert_eq!(registry.upload_begun(&"g/q".parse().unwrap(), id).await.unwrap(), None);
    for damage in
        ["", "{}", "[1]", r#"{"issuer":"","subject":"x"}"#, r#"{"issuer":"x","subject":""}"#, r#"{"subject":"x"}"#]
    {
        lay(&folder(&fixture, "g/p", id).join("owner"), damage);
        assert_eq!(registry.upload_begun(&name, id).await.unwrap(), None, "{damage}");
    }
    let id = start(&fixture, "g/p").await;
    lay(&folder(&fixture, "g/p", id).join("startedat"), "long ago");
    assert_eq!(registry.upload_begun(&name, id).await.unwrap(), None, "a time that cannot be told does not count");
    fixture.ask(&format!("DELETE /v2/g/p/blobs/uploads/{id}")).await.expect(204);
    assert_eq!(fixture.registry.upload_begun(&name, id).await.unwrap(), None);
}

#[tokio::test]
async fn who_nobody_vouches_for_owns_nothing() {
    let mut fixture = Fixture::new();
    let name: RepositoryName = "a".parse().unwrap();
    for (subject, issuer) in
        [(None, None), (Some("x"), None), (None, Some("x")), (Some(""), Some("x")), (Some("x"), Some(""))]
    {
        fixture.grant =
            Grant { subject: subject.map(str::to_owned), issuer: issuer.map(str::to_owned), ..Grant::default() };
        let id = start(&fixture, "a").await;
        assert_eq!(fixture.registry.upload_begun(&name, id).await.unwrap(), None);
        assert!(!folder(&fixture, "a", id).join("owner").exists());
    }
}

#[tokio::test]
async fn purging_goes_on_by_itself() {
    let fixture = Fixture::new();
    let id = start(&fixture, "a").await;
    let upload = folder(&fixture, "a", id);
    lay(&upload.join("startedat"), "2020-01-01T00:00:00Z");
    let registry = fixture.registry.clone();
    let purging = tokio::spawn(async move { registry.keep_purging_after(Duration::ZERO).await });
    let gone = async {
        while upload.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
    assert!(!purging.is_finished(), "it looks again");
    purging.abort();
}
