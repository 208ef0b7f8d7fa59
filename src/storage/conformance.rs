//! The driver's contract as tests. A driver's own tests call [`suite`] on an empty instance.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;

use super::{Driver, Durability, ErrorKind, Key, PIECE, Swept};

/// Everything that the text in `storage/mod.rs` promises and that can be seen without cutting the power.
pub(crate) async fn suite(driver: &dyn Driver) {
    whole_objects_are_replaced(driver).await;
    missing_is_an_answer(driver).await;
    objects_larger_than_the_limit_are_refused(driver).await;
    readers_never_see_a_part(driver).await;
    any_part_of_an_object_can_be_streamed(driver).await;
    listings_are_sorted_and_come_in_pages(driver).await;
    listings_show_whole_objects_only(driver).await;
    sweeping_takes_nothing_that_is_an_object(driver).await;
    a_folders_mark_is_another_once_a_child_was_added_or_taken_away(driver).await;
    deleting_takes_an_object_or_everything_below(driver).await;
    renaming_replaces_the_target(driver).await;
    settling_changes_nothing_that_can_be_seen(driver).await;
    readers_keep_what_they_opened(driver).await;
    writing_changes_the_time_and_reading_does_not(driver).await;
    appending_grows_an_object_at_an_exact_offset(driver).await;
}

fn key(text: &str) -> Key {
    Key::new(text)
}

async fn put(driver: &dyn Driver, name: &str, bytes: impl Into<Bytes>) {
    driver.put(&key(name), bytes.into(), Durability::Durable).await.unwrap();
}

async fn read(driver: &dyn Driver, name: &str, offset: u64, length: Option<u64>) -> Bytes {
    let reader = driver.open(&key(name), offset, length).await.unwrap();
    let pieces: Vec<Bytes> = reader.pieces.try_collect().await.unwrap();
    assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= PIECE));
    pieces
        .iter()
        .fold(BytesMut::new(), |mut all, piece| {
            all.extend_from_slice(piece);
            all
        })
        .freeze()
}

async fn whole_objects_are_replaced(driver: &dyn Driver) {
    for durability in [Durability::Durable, Durability::Light] {
        for content in ["first and long", "second", ""] {
            driver.put(&key("whole/deep/down"), content.into(), durability).await.unwrap();
            assert_eq!(driver.get(&key("whole/deep/down"), 100).await.unwrap(), content);
            assert_eq!(driver.stat(&key("whole/deep/down")).await.unwrap().size, content.len() as u64);
        }
    }
    assert_eq!(read(driver, "whole/deep/down", 0, None).await, "", "an empty object has no pieces");
}

async fn missing_is_an_answer(driver: &dyn Driver) {
    put(driver, "present/object", "x").await;
    for missing in ["absent", "absent/below", "present", "present/other", "present/object/below"] {
        let missing = key(missing);
        assert!(driver.get(&missing, 10).await.unwrap_err().is_not_found(), "get {missing}");
        assert!(driver.stat(&missing).await.unwrap_err().is_not_found(), "stat {missing}");
        assert!(driver.settle(&missing).await.unwrap_err().is_not_found(), "settle {missing}");
        assert!(driver.open(&missing, 0, None).await.err().unwrap().is_not_found(), "open {missing}");
        assert!(driver.append(&missing, 1).await.is_err(), "append {missing}");
    }
    for missing in ["absent", "present/other"] {
        let missing = key(missing);
        assert!(driver.delete(&missing, Durability::Durable).await.unwrap_err().is_not_found(), "delete {missing}");
        assert!(driver.rename(&missing, &key("target"), 1).await.unwrap_err().is_not_found(), "rename {missing}");
        assert!(
            driver.list(&missing, None, 10).await.is_ok_and(|found| found.is_empty()) || {
                driver.list(&missing, None, 10).await.unwrap_err().is_not_found()
            }
        );
    }
}

async fn objects_larger_than_the_limit_are_refused(driver: &dyn Driver) {
    put(driver, "limited", "12345").await;
    assert_eq!(driver.get(&key("limited"), 5).await.unwrap(), "12345");
    assert_eq!(driver.get(&key("limited"), 4).await.unwrap_err().kind, ErrorKind::TooLarge);
}

async fn readers_never_see_a_part(driver: &dyn Driver) {
    let contents: Arc<[Bytes]> = ["a", "b"].map(|letter| Bytes::from(letter.repeat(20_000))).into();
    put(driver, "contended", contents[0].clone()).await;
    let contended = key("contended");
    let write = async {
        for round in 0..40 {
            driver.put(&contended, contents[round % 2].clone(), Durability::Light).await.unwrap();
        }
    };
    let look = async {
        for _ in 0..80 {
            let seen = driver.get(&contended, 1 << 20).await.unwrap();
            assert!(contents.contains(&seen), "a reader saw {} bytes of 20000", seen.len());
        }
    };
    futures_util::join!(write, look);
}

async fn any_part_of_an_object_can_be_streamed(driver: &dyn Driver) {
    let content: Bytes = (0..3 * PIECE + 17).map(|index| (index % 251) as u8).collect();
    let size = content.len() as u64;
    put(driver, "streamed", content.clone()).await;
    assert_eq!(driver.open(&key("streamed"), 5, Some(1)).await.unwrap().size, size, "the size is that of the whole");
    let piece = PIECE as u64;
    for (offset, length) in [
        (0, None),
        (0, Some(0)),
        (1, Some(1)),
        (piece - 1, Some(2)),
        (piece, Some(piece)),
        (17, Some(2 * piece)),
        (size - 1, None),
        (size - 5, Some(100)),
        (size, None),
        (size + 1, Some(1)),
    ] {
        let from = offset.min(size) as usize;
        let to = length.map_or(size, |length| (offset + length).min(size)).max(from as u64) as usize;
        assert!(read(driver, "streamed", offset, length).await == content.slice(from..to), "{offset} {length:?}");
    }
}

async fn listings_are_sorted_and_come_in_pages(driver: &dyn Driver) {
    let names = ["0", "B", "a", "a-b", "a.b", "b", "folder", "z"];
    for name in names {
        let name = if name == "folder" { "listed/folder/deep/object".to_owned() } else { format!("listed/{name}") };
        put(driver, &name, "x").await;
    }
    let page = async |after: Option<&str>, limit| {
        let entries = driver.list(&key("listed"), after, limit).await.unwrap();
        assert!(entries.iter().all(|entry| entry.is_folder == (entry.name == "folder")));
        entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 100).await, names);
    assert_eq!(page(None, 3).await, names[..3]);
    assert_eq!(page(None, 0).await, names[..0]);
    assert_eq!(page(Some("a"), 3).await, names[3..6], "exclusive, and not confused by names that begin alike");
    assert_eq!(page(Some("aa"), 100).await, names[5..], "the marker need not exist");
    assert_eq!(page(Some("z"), 100).await, names[8..]);
}

/// What is being written has a name of its own, which is nobody else's business.
async fn listings_show_whole_objects_only(driver: &dyn Driver) {
    let content: Bytes = vec![7; 100_000].into();
    put(driver, "written/name", content.clone()).await;
    let written = key("written/name");
    let write = async {
        for round in 0..40 {
            let durability = if round % 2 == 0 { Durability::Light } else { Durability::Durable };
            driver.put(&written, content.clone(), durability).await.unwrap();
        }
    };
    let look = async {
        for _ in 0..200 {
            let listed = driver.list(&key("written"), None, 10).await.unwrap();
            assert!(listed.len() == 1 && listed[0].name == "name", "{listed:?}");
        }
    };
    futures_util::join!(write, look);
}

async fn sweeping_takes_nothing_that_is_an_object(driver: &dyn Driver) {
    let names = ["swept/link", "swept/below/data", "swept/v1.tmp"];
    for name in names {
        put(driver, name, "x").await;
    }
    let later = SystemTime::now() + Duration::from_secs(3600);
    assert_eq!(driver.sweep(&key("swept"), later).await.unwrap(), Swept::default());
    assert_eq!(driver.sweep(&key("nothing/here"), later).await.unwrap(), Swept::default());
    for name in names {
        assert_eq!(driver.get(&key(name), 10).await.unwrap(), "x", "{name}");
    }
}

async fn a_folders_mark_is_another_once_a_child_was_added_or_taken_away(driver: &dyn Driver) {
    let folder = key("marked");
    assert!(driver.mark(&folder).await.unwrap_err().is_not_found());
    put(driver, "marked/a/link", "x").await;
    assert!(driver.mark(&key("marked/a/link")).await.unwrap_err().is_not_found(), "an object has no children");
    let first = driver.mark(&folder).await.unwrap();
    assert_eq!(driver.mark(&folder).await.unwrap(), first, "looking changes nothing");
    // The clock that stamps folders goes in steps: whatever happens within one of them may go unseen.
    let changes_until_seen = async |name: &str| {
        let before = driver.mark(&folder).await.unwrap();
        let started = std::time::Instant::now();
        loop {
            put(driver, &format!("marked/{name}/link"), "x").await;
            driver.delete(&key(&format!("marked/{name}")), Durability::Light).await.unwrap();
            let now = driver.mark(&folder).await.unwrap();
            if now != before {
                assert!(now.changed > before.changed && now.folder == before.folder);
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(2), "a change is seen after two seconds");
        }
    };
    changes_until_seen("b").await;
    changes_until_seen("c").await;
}

async fn deleting_takes_an_object_or_everything_below(driver: &dyn Driver) {
    for durability in [Durability::Durable, Durability::Light] {
        for name in ["deleted/one", "deleted/two/a", "deleted/two/b/c", "deleted-not"] {
            put(driver, name, "x").await;
        }
        driver.delete(&key("deleted/one"), durability).await.unwrap();
        assert!(driver.stat(&key("deleted/one")).await.unwrap_err().is_not_found());
        driver.delete(&key("deleted/two"), durability).await.unwrap();
        assert!(driver.stat(&key("deleted/two/b/c")).await.unwrap_err().is_not_found());
        assert!(driver.stat(&key("deleted-not")).await.is_ok());
        put(driver, "deleted/two/b/c", "again").await;
        assert_eq!(driver.get(&key("deleted/two/b/c"), 10).await.unwrap(), "again");
    }
}

async fn renaming_replaces_the_target(driver: &dyn Driver) {
    put(driver, "renamed/from", "new").await;
    put(driver, "renamed/to/here", "old and longer").await;
    let refused = driver.rename(&key("renamed/from"), &key("renamed/to/here"), 2).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Busy, "somebody has written to it");
    assert_eq!(driver.get(&key("renamed/to/here"), 100).await.unwrap(), "old and longer");
    driver.rename(&key("renamed/from"), &key("renamed/to/here"), 3).await.unwrap();
    assert_eq!(driver.get(&key("renamed/to/here"), 100).await.unwrap(), "new");
    assert!(driver.stat(&key("renamed/from")).await.unwrap_err().is_not_found());
    driver.rename(&key("renamed/to/here"), &key("renamed/other/folder/there"), 3).await.unwrap();
    assert_eq!(driver.get(&key("renamed/other/folder/there"), 100).await.unwrap(), "new");
}

async fn settling_changes_nothing_that_can_be_seen(driver: &dyn Driver) {
    for durability in [Durability::Light, Durability::Durable] {
        driver.put(&key("settled/deep/object"), "x".into(), durability).await.unwrap();
        let before = driver.stat(&key("settled/deep/object")).await.unwrap();
        for _ in 0..2 {
            driver.settle(&key("settled/deep/object")).await.unwrap();
            assert_eq!(driver.get(&key("settled/deep/object"), 10).await.unwrap(), "x");
            assert_eq!(driver.stat(&key("settled/deep/object")).await.unwrap(), before);
        }
    }
    driver.delete(&key("settled/deep"), Durability::Durable).await.unwrap();
    assert!(driver.settle(&key("settled/deep/object")).await.unwrap_err().is_not_found(), "it is gone");
}

/// A download goes on with what it began, whatever replaces or removes the object meanwhile.
async fn readers_keep_what_they_opened(driver: &dyn Driver) {
    let old: Bytes = vec![7; 2 * PIECE + 1].into();
    put(driver, "opened/kept", old.clone()).await;
    put(driver, "opened/new", "new").await;
    for change in ["replace", "rename", "delete"] {
        put(driver, "opened/kept", old.clone()).await;
        let reader = driver.open(&key("opened/kept"), 0, None).await.unwrap();
        match change {
            "replace" => put(driver, "opened/kept", "short").await,
            "rename" => driver.rename(&key("opened/new"), &key("opened/kept"), 3).await.unwrap(),
            _ => driver.delete(&key("opened/kept"), Durability::Durable).await.unwrap(),
        }
        let pieces: Vec<Bytes> = reader.pieces.try_collect().await.unwrap();
        assert!(pieces.concat() == old, "{change}");
    }
}

/// Leftovers are found by their age.
async fn writing_changes_the_time_and_reading_does_not(driver: &dyn Driver) {
    let aged = key("aged");
    let modified = async || driver.stat(&aged).await.unwrap().modified;
    put(driver, "aged", "x").await;
    let written = modified().await;
    assert!(written.elapsed().unwrap_or_default().as_secs() < 60, "it is new");
    driver.get(&aged, 10).await.unwrap();
    assert_eq!(modified().await, written);
    while modified().await == written {
        put(driver, "aged", "y").await;
    }
    assert!(modified().await > written);
}

async fn appending_grows_an_object_at_an_exact_offset(driver: &dyn Driver) {
    let grown = key("grown/object");
    let mut appender = driver.append(&grown, 0).await.unwrap();
    appender.write("hello ".into()).await.unwrap();
    assert_eq!(driver.stat(&grown).await.unwrap().size, 6, "visible as it comes");
    appender.write("world".into()).await.unwrap();
    assert_eq!(appender.finish().await.unwrap(), 11);
    drop(appender);

    let mut appender = driver.append(&grown, 11).await.unwrap();
    appender.write("!".into()).await.unwrap();
    drop(appender);
    assert_eq!(driver.get(&grown, 100).await.unwrap(), "hello world!", "a dropped appender keeps what was written");

    let mut appender = driver.append(&grown, 12).await.unwrap();
    appender.write("?".into()).await.unwrap();
    appender.cut_back().await.unwrap();
    drop(appender);
    for offset in [0, 11, 13] {
        let refused = driver.append(&grown, offset).await.err().unwrap();
        assert_eq!(refused.kind, ErrorKind::Busy, "no holes, and nobody's bytes are cut off");
    }
    assert_eq!(driver.get(&grown, 100).await.unwrap(), "hello world!");
}
