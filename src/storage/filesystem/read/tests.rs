use std::fs::OpenOptions;
use std::os::unix::fs::symlink;
use std::sync::mpsc;

use futures_util::TryStreamExt as _;
use rustix::fs::{Advice, fadvise};

use super::super::Filesystem;
use super::*;
use crate::storage::{Driver as _, Durability, ErrorKind, Key};

/// The same root twice: read where we are as soon as that is known to work, and read on the pool.
async fn both(root: &Path) -> [(&'static str, Filesystem); 2] {
    let (here, primed) = (Filesystem::new(root), Key::new("primed"));
    here.put(&primed, "x".into(), Durability::Light).await.unwrap();
    for _ in 0..2 {
        here.get(&primed, 1).await.unwrap(); // first it learns of the file system, then of the kernel
    }
    here.tree.here.spread(Branch::of(&primed));
    [("here", here), ("pool", Filesystem::on_the_pool(root))]
}

async fn all(driver: &Filesystem, key: &Key, offset: u64, length: Option<u64>) -> Vec<u8> {
    let reader = driver.open(key, offset, length).await.unwrap();
    reader.pieces.try_collect::<Vec<Bytes>>().await.unwrap().concat()
}

fn numbers(size: usize) -> Bytes {
    (0..size).map(|at| (at % 251) as u8).collect::<Vec<u8>>().into()
}

/// Asks the kernel to forget what it has read of a file, which it may decline.
fn make_cold(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
}

#[tokio::test]
async fn hot_or_cold_whole_or_in_pieces_a_file_is_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let (key, path) = (Key::new("a/file"), dir.path().join("a/file"));
    for (way, driver) in both(dir.path()).await {
        for size in [0, 1, 4095, 4096, 4097, 8192, 65_535, 65_536, 65_537, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 7] {
            let written = numbers(size);
            driver.put(&key, written.clone(), Durability::Light).await.unwrap();
            for temperature in ["hot", "cold"] {
                let case = format!("{size} {temperature} {way}");
                let freeze = || {
                    if temperature == "cold" {
                        make_cold(&path)
                    }
                };
                freeze();
                assert!(driver.get(&key, size).await.unwrap() == written, "{case}");
                freeze();
                assert!(all(&driver, &key, 0, None).await == written, "{case}");
                freeze();
                let (from, to) = (size / 3, size / 3 + size / 2);
                assert!(all(&driver, &key, from as u64, Some((to - from) as u64)).await == written[from..to], "{case}");
                if size > 0 {
                    freeze();
                    assert_eq!(driver.get(&key, size - 1).await.unwrap_err().kind, ErrorKind::TooLarge, "{case}");
                }
                assert_eq!(driver.stat(&key).await.unwrap().size, size as u64, "{case}");
            }
        }
    }
}

/// Every other page of it can be read without waiting.
#[tokio::test]
async fn a_file_of_which_a_part_is_hot_is_read_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (key, path, written) = (Key::new("patched"), dir.path().join("patched"), numbers(48 << 10));
    for (way, driver) in both(dir.path()).await {
        driver.put(&key, written.clone(), Durability::Durable).await.unwrap();
        for first_hot in [0, 1] {
            make_cold(&path);
            let file = File::open(&path).unwrap();
            fadvise(&file, 0, None, Advice::Random).unwrap();
            for page in (first_hot..12).step_by(2) {
                file.read_exact_at(&mut [0; 4096], page * 4096).unwrap();
            }
            assert!(driver.get(&key, 1 << 20).await.unwrap() == written, "{way} {first_hot}");
            assert!(all(&driver, &key, 0, None).await == written, "{way} {first_hot}");
        }
    }
}

/// The only thread of the pool is taken.
#[test]
fn what_is_hot_is_read_without_the_pool() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let [(_, driver), _] = both(dir.path()).await;
        if !driver.tree.here.is_supported(Branch::of(&Key::new("primed"))) {
            return; // this machine's temporary files are where nothing can be had without waiting
        }
        let (small, large, content) = (Key::new("small"), Key::new("large"), numbers(3 * PIECE));
        driver.put(&small, "content".into(), Durability::Light).await.unwrap();
        driver.put(&large, content.clone(), Durability::Light).await.unwrap();
        driver.get(&Key::new("missing/for/long"), 1).await.unwrap_err();
        let (release, released) = mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || released.recv().unwrap_err());
        assert_eq!(driver.get(&small, 100).await.unwrap(), "content");
        assert_eq!(driver.stat(&small).await.unwrap().size, 7);
        assert!(driver.mark(&Key::new("small")).await.unwrap_err().is_not_found());
        assert!(all(&driver, &large, 0, None).await == content);
        drop(release);
        busy.await.unwrap();
    });
}

#[tokio::test]
async fn symbolic_links_are_followed_each_time_the_roots_own_and_those_inside() {
    let dir = tempfile::tempdir().unwrap();
    let (root, key) = (dir.path().join("root"), Key::new("inside/file"));
    for (name, content) in [("one", "first"), ("two", "second")] {
        let driver = Filesystem::new(dir.path().join(name));
        driver.put(&Key::new("elsewhere/file"), content.into(), Durability::Light).await.unwrap();
        symlink(dir.path().join(name).join("elsewhere"), dir.path().join(name).join("inside")).unwrap();
    }
    symlink("one", &root).unwrap();
    for (way, driver) in both(&root).await {
        for (target, content) in [("one", "first"), ("two", "second"), ("one", "first")] {
            std::fs::remove_file(&root).unwrap();
            symlink(target, &root).unwrap();
            for _ in 0..2 {
                assert_eq!(driver.get(&key, 100).await.unwrap(), content, "{way}");
                assert_eq!(driver.stat(&key).await.unwrap().size, content.len() as u64, "{way}");
                assert_eq!(all(&driver, &key, 0, None).await, content.as_bytes(), "{way}");
                driver.mark(&Key::new("inside")).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn what_appears_or_goes_is_seen_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (key, path) = (Key::new("a/b"), dir.path().join("a/b"));
    std::fs::create_dir(dir.path().join("a")).unwrap();
    for (way, driver) in both(dir.path()).await {
        for _ in 0..3 {
            assert!(driver.get(&key, 1).await.unwrap_err().is_not_found(), "{way}");
            assert!(driver.stat(&key).await.unwrap_err().is_not_found(), "{way}");
            File::create(&path).unwrap();
            assert_eq!(driver.get(&key, 1).await.unwrap(), "", "{way}");
            std::fs::remove_file(&path).unwrap();
        }
        assert!(driver.get(&Key::new("primed/below"), 1).await.unwrap_err().is_not_found(), "{way}: below a file");
    }
}

#[tokio::test]
async fn what_is_not_a_file_is_no_object() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    for (way, driver) in both(dir.path()).await {
        let folder = Key::new("folder");
        assert!(driver.get(&folder, 10).await.unwrap_err().is_not_found(), "{way}");
        assert!(driver.stat(&folder).await.unwrap_err().is_not_found(), "{way}");
        assert!(driver.open(&folder, 0, None).await.err().unwrap().is_not_found(), "{way}");
    }
}

/// A tebibyte that nobody can have read, nor held, by the time of the answer.
#[tokio::test]
async fn a_huge_object_is_refused_unread_and_streamed_only_as_far_as_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (key, size) = (Key::new("huge"), 1 << 40);
    for (way, driver) in both(dir.path()).await {
        OpenOptions::new().create(true).append(true).open(dir.path().join("huge")).unwrap().set_len(size).unwrap();
        assert_eq!(driver.get(&key, 4 << 20).await.unwrap_err().kind, ErrorKind::TooLarge, "{way}");
        let reader = driver.open(&key, 0, None).await.unwrap();
        assert_eq!(reader.size, size);
        let pieces: Vec<io::Result<Bytes>> = reader.pieces.take(3).collect().await;
        assert!(pieces.iter().all(|piece| (1..=PIECE).contains(&piece.as_ref().unwrap().len())), "{way}");
        assert_eq!(all(&driver, &key, size - 1, None).await, [0], "{way}");
    }
}

#[tokio::test]
async fn what_fits_into_one_piece_comes_whole_and_what_does_not_in_many() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("file");
    for (way, driver) in both(dir.path()).await {
        driver.put(&key, numbers(PIECE + 1), Durability::Light).await.unwrap();
        for (offset, length, is_whole) in [(0, None, false), (0, Some(PIECE as u64), true), (1, None, true)] {
            let Reader { size, pieces } = driver.open(&key, offset, length).await.unwrap();
            assert_eq!(
                (size, matches!(pieces, Pieces::Whole(_))),
                (PIECE as u64 + 1, is_whole),
                "{way} {offset} {length:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_read_fails_visibly() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("shrinks");
    for (way, driver) in both(dir.path()).await {
        driver.put(&key, vec![7; 3 * PIECE].into(), Durability::Durable).await.unwrap();
        let reader = driver.open(&key, 0, None).await.unwrap();
        OpenOptions::new().write(true).open(dir.path().join("shrinks")).unwrap().set_len(1).unwrap();
        let pieces: Vec<io::Result<Bytes>> = reader.pieces.collect().await;
        assert!(pieces.last().unwrap().is_err(), "{way}");
    }
}

#[tokio::test]
async fn a_piece_that_was_dropped_makes_room_for_the_next_and_one_that_is_held_does_not_change() {
    let dir = tempfile::tempdir().unwrap();
    let (key, written) = (Key::new("large"), numbers(6 * PIECE));
    for (way, driver) in both(dir.path()).await {
        driver.put(&key, written.clone(), Durability::Light).await.unwrap();
        let mut pieces = driver.open(&key, 0, None).await.unwrap().pieces;
        let mut next = async || pieces.try_next().await.unwrap().unwrap();
        let first = next().await.as_ptr();
        let second = next().await;
        assert_eq!(second.as_ptr(), first, "{way}");
        let third = next().await;
        assert_ne!(third.as_ptr(), second.as_ptr(), "{way}");
        let both = second.len() + third.len();
        assert!([second, third].concat() == written[PIECE..PIECE + both], "{way}");
    }
}
