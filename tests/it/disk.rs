//! Promise: a full disk is said in words, loses nothing, and is over when there is room again.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use pierhead::storage::{Driver, Durability, ErrorKind, Filesystem, Key, PIECE};

use crate::support::clients::{Client, Skopeo};
use crate::support::command::Output;
use crate::support::content::Content;
use crate::support::image::{Image, Layout};
use crate::support::machine::{self, on_a_fresh_machine};
use crate::support::pierhead::{ADMIN_PASSWORD, Site};
use crate::support::tree;

const MEBIBYTE: u64 = 1 << 20;

/// Mounts a file system of this many mebibytes.
fn mount_small_disk(at: &Path, mebibytes: u32) {
    mount(at, &format!("size={mebibytes}m,mode=0755"));
}

fn mount(at: &Path, size: &str) {
    fs::create_dir_all(at).expect("the machine is ours");
    Output::of(Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(at)).ok();
}

/// Takes all the room that is left, and returns the file that has it.
fn fill(disk: &Path) -> std::path::PathBuf {
    let path = disk.join("ballast");
    let mut file = File::create(&path).expect("there is room for a name");
    let piece = vec![0; 4096];
    while file.write_all(&piece).is_ok() {}
    path
}

#[test]
fn a_full_storage_disk_is_said_and_loses_nothing() {
    on_a_fresh_machine(|machine| {
        let site = Site::named(machine::NAME);
        mount_small_disk(&site.tree(), 48);
        let server = site.start();
        site.trust_on_this_machine();
        let repository = site.admin().repository("disk/app", "pull,push");
        let kept = repository.push("kept", &[Content::new(1, 8 * MEBIBYTE)]).expect("there is room");

        let image = Image::new(2, &[64 * MEBIBYTE]);
        let layout = Layout::of_image(&machine.join("image"), &image);
        let skopeo = Skopeo::new(machine);
        skopeo.login(&site.authority(), "admin", ADMIN_PASSWORD).ok();
        let refused = skopeo.push(&image, &layout, &format!("{}/disk/app:big", site.authority()));
        refused.refused(&["insufficient storage", "disk is full"]);
        assert_eq!(repository.pull("kept").expect("pulls go on"), kept);
        assert_eq!(tree::damage(&site.tree()), Vec::<String>::new());

        let ballast = fill(&site.tree());
        let refused = repository.push("small", &[Content::new(3, 1000)]).expect_err("there is not a byte");
        assert!(matches!(refused.status, Some(503 | 507)), "{refused:?}");
        assert_eq!(repository.pull("kept").expect("pulls go on"), kept);

        fs::remove_file(ballast).expect("the ballast is ours");
        for upload in tree::files(&site.tree()).iter().filter(|file| file.to_string_lossy().contains("/_uploads/")) {
            let _ = fs::remove_file(upload);
        }
        let later = repository.push("later", &[Content::new(3, 1000)]).expect("there is room again, without a restart");
        assert_eq!(repository.pull("later").expect("it is whole"), later);
        assert!(server.stop().success());
        assert_eq!(tree::damage(&site.tree()), Vec::<String>::new());
    });
}

#[test]
fn a_full_state_disk_is_said_and_the_registry_goes_on() {
    on_a_fresh_machine(|_| {
        let site = Site::new();
        let state = site.directory().join("state");
        mount_small_disk(&state, 8);
        let _server = site.start();
        let repository = site.admin().repository("disk/app", "pull,push");
        let kept = repository.push("kept", &[Content::new(1, MEBIBYTE)]).expect("pushed");

        let ballast = fill(&state);
        let refused = site.run(&["project", "add", "disk/other", "--visibility", "public"]);
        refused.refused(&["full", "space"]);
        assert_eq!(site.admin().repository("disk/app", "pull").pull("kept").expect("logins and pulls go on"), kept);

        fs::remove_file(ballast).expect("the ballast is ours");
        site.add_project("disk/other", "public");
    });
}

/// What lies in a folder, what is hidden included.
fn names(folder: &Path) -> Vec<String> {
    let listed = fs::read_dir(folder).expect("it is a folder").flatten();
    let mut names: Vec<String> = listed.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Runs what is asked of a driver.
fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(work)
}

/// The contract of `storage::Driver` where only a real disk can break it.
#[test]
fn an_object_that_finds_no_room_leaves_what_was_there_and_nothing_of_itself() {
    on_a_fresh_machine(|machine| {
        let disk = machine.join("disk");
        mount_small_disk(&disk, 4);
        let driver = Filesystem::new(&disk);
        let (old, new, grown) = (Key::new("a/old"), Key::new("a/new"), Key::new("a/grown"));
        let too_much = bytes::Bytes::from(vec![7; 8 * PIECE]);
        run(async {
            driver.put(&old, "old".into(), Durability::Durable).await.expect("there is room");
            for (key, durability) in
                [&old, &new].into_iter().flat_map(|key| [(key, Durability::Durable), (key, Durability::Light)])
            {
                let error = driver.put(key, too_much.clone(), durability).await.expect_err("there is no room");
                assert_eq!((error.kind, &*error.key), (ErrorKind::Full, key.as_str()));
                assert_eq!(names(&disk.join("a")), ["old"], "not even a temporary file");
                assert_eq!(driver.get(&old, 10).await.expect("untouched"), "old");
            }

            let mut appender = driver.append(&grown, 0).await.expect("there is room for a name");
            let error = loop {
                if let Err(error) = appender.write(too_much.slice(..PIECE)).await {
                    break error;
                }
            };
            assert_eq!((error.kind, &*error.key), (ErrorKind::Full, "a/grown"));
            let error = driver.put(&new, too_much.slice(..PIECE), Durability::Durable).await.expect_err("it is full");
            assert_eq!(error.kind, ErrorKind::Full);
            assert!(driver.stat(&new).await.expect_err("it was not written").is_not_found());
            assert_eq!(driver.get(&old, 10).await.expect("reading needs no room"), "old");

            appender.cut_back().await.expect("cutting it needs no room");
            assert_eq!(driver.stat(&grown).await.expect("its name stays").size, 0);
            driver.put(&new, too_much.slice(..PIECE), Durability::Durable).await.expect("there is room again");
            driver.rename(&new, &old, PIECE as u64).await.expect("a move needs no room");
            assert_eq!(driver.get(&old, PIECE).await.expect("moved"), too_much[..PIECE]);
        });
    });
}

#[test]
fn a_disk_without_names_left_is_full() {
    on_a_fresh_machine(|machine| {
        let disk = machine.join("disk");
        mount(&disk, "size=4m,nr_inodes=16,mode=0755");
        let driver = Filesystem::new(&disk);
        run(async {
            let put = async |number: u32| {
                let key = Key::new(format!("{number}/link"));
                driver.put(&key, "x".into(), Durability::Durable).await.map_err(|error| error.kind)
            };
            let mut written = 0;
            let refused = loop {
                match put(written).await {
                    Ok(()) => written += 1,
                    Err(kind) => break kind,
                }
            };
            assert_eq!(refused, ErrorKind::Full);
            assert!(written > 0, "there were some");
            for number in 0..written {
                let key = Key::new(format!("{number}/link"));
                assert_eq!(driver.get(&key, 10).await.expect("kept"), "x");
            }
            driver.delete(&Key::new("0"), Durability::Durable).await.expect("deleting needs no room");
            assert_eq!(put(written).await, Ok(()), "there is room again");
        });
    });
}
