//! Promise: a full disk is said in words, loses nothing, and is over when there is room again.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

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
    fs::create_dir_all(at).expect("the machine is ours");
    let size = format!("size={mebibytes}m,mode=0755");
    Output::of(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at)).ok();
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
