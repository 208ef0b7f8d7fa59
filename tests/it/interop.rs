//! Promise: Distribution and we are at home in each other's tree, and Distribution takes our tokens. Nobody is locked in.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use reqwest::Method;

use crate::support::content::Content;
use crate::support::distribution::Distribution;
use crate::support::machine::on_a_fresh_machine;
use crate::support::pierhead::{ADMIN_PASSWORD, Site};
use crate::support::registry::Registry;
use crate::support::tree;

const LAYERS: [Content; 2] = [Content { seed: 21, size: 3 << 20 }, Content { seed: 22, size: 12_345 }];
const OTHER_LAYERS: [Content; 2] = [Content { seed: 23, size: 2 << 20 }, Content { seed: 22, size: 12_345 }];

#[test]
fn what_we_stored_distribution_serves() {
    let site = Site::new();
    let server = site.start();
    let ours = site.admin().repository("team/app", "pull,push");
    let digest = ours.push("latest", &LAYERS).expect("pushed to us");
    assert!(server.stop().success());

    let peer = Distribution::open(site.directory(), &site.tree());
    let theirs = Registry::open(&peer.origin()).repository("team/app", "pull");
    assert_eq!(theirs.pull("latest").expect("pulled from Distribution"), digest);
    assert_eq!(theirs.get("tags/list").json::<serde_json::Value>().expect("JSON")["tags"][0], "latest");
    assert_eq!(tree::damage(&site.tree()), Vec::<String>::new());
}

#[test]
fn what_distribution_stored_we_serve() {
    let site = Site::new();
    fs::create_dir(site.tree()).expect("the site can be written");
    let peer = Distribution::open(site.directory(), &site.tree());
    let theirs = Registry::open(&peer.origin()).repository("team/app", "pull,push");
    let digest = theirs.push("latest", &LAYERS).expect("pushed to Distribution");
    drop(peer);

    let _server = site.start();
    let unclaimed = site.run(&["project", "list", "--unclaimed"]).ok();
    assert!(unclaimed.stdout.contains("team/app"), "{unclaimed}");
    let ours = site.admin().repository("team/app", "pull");
    assert_eq!(ours.pull("latest").expect("pulled from us"), digest);
    let anybody = site.registry(None).ask_token("repository:team/app:pull");
    assert_eq!(anybody.status(), 403, "what no project claims is the admins' alone");
}

#[test]
fn both_serve_one_tree_at_once_and_each_sees_what_the_other_changed() {
    let site = Site::new();
    let _server = site.start();
    let peer = Distribution::open(site.directory(), &site.tree());
    let theirs = Registry::open(&peer.origin()).repository("team/app", "pull,push");
    let ours = site.admin().repository("team/app", "pull,push,delete");

    let first = theirs.push("latest", &LAYERS).expect("pushed to Distribution");
    assert_eq!(ours.pull("latest").expect("pulled from us"), first);
    let second = ours.push("latest", &OTHER_LAYERS).expect("pushed to us");
    assert_ne!(first, second);
    assert_eq!(theirs.pull("latest").expect("pulled from Distribution"), second);
    assert_eq!(theirs.pull(&first).expect("by digest"), first);

    let deleted = ours.request(Method::DELETE, &format!("manifests/{second}")).send().expect("an answer");
    assert_eq!(deleted.status(), 202);
    assert_eq!(theirs.get(&format!("manifests/{second}")).status(), 404, "what we deleted is gone there too");
    assert_eq!(tree::damage(&site.tree()), Vec::<String>::new());
}

/// The other way round, Distribution 2.8 wants its own signed `_state` in the address, which we do not hand out yet.
#[test]
fn an_upload_that_was_begun_on_distribution_is_finished_on_us() {
    let site = Site::new();
    let _server = site.start();
    let peer = Distribution::open(site.directory(), &site.tree());
    let theirs = Registry::open(&peer.origin()).repository("team/app", "pull,push");
    let ours = site.admin().repository("team/app", "pull,push");

    let blob = Content::new(24, 3_000_000);
    let sent = 1_000_001; // in the middle of a block of the hash
    let upload = theirs.begin().expect("begun on Distribution");
    theirs.send(&upload, blob.reader().take(sent)).expect("sent to Distribution");
    let id = upload.split('?').next().and_then(|path| path.rsplit('/').next()).expect("an upload has a name");
    let upload = ours.send(&format!("blobs/uploads/{id}"), blob.reader_from(sent)).expect("gone on with on us");
    ours.finish(&upload, &blob.digest()).expect("finished on us");
    assert_eq!(ours.pull_blob(&blob.digest()).expect("it is there"), blob.digest());
    assert_eq!(theirs.pull_blob(&blob.digest()).expect("there as well"), blob.digest());
    assert_eq!(tree::damage(&site.tree()), Vec::<String>::new());
}

#[test]
fn distribution_takes_our_tokens() {
    tokens_are_taken(&[]);
}

#[test]
fn distribution_takes_our_tokens_when_they_are_signed_with_rsa() {
    tokens_are_taken(&["token: { algorithm: RS256 }"]);
}

fn tokens_are_taken(settings: &[&str]) {
    let site = Site::new();
    site.configure(settings);
    let _server = site.start();
    site.add_project("team/app", "public");
    site.add_user("rita", "rita-reads-images");
    let root = site.directory().join("their-tree");
    fs::create_dir(&root).expect("the site can be written");
    let peer = Distribution::guarded_by(&site, site.directory(), &root, "container_registry");

    let challenge = Registry::open(&peer.origin()).request(Method::GET, "/v2/").send().expect("an answer");
    assert_eq!(challenge.status(), 401, "the peer is guarded");
    let admin = site.registry(Some(("admin", ADMIN_PASSWORD))).at(&peer.origin());
    let digest = admin.repository("team/app", "pull,push").push("latest", &LAYERS).expect("pushed with our token");

    let reader = site.registry(Some(("rita", "rita-reads-images"))).at(&peer.origin());
    let theirs = reader.repository("team/app", "pull,push");
    assert_eq!(theirs.pull("latest").expect("pulled with our token"), digest);
    let refused = theirs.push("other", &LAYERS).expect_err("a token says no more than we allow");
    assert_eq!(refused.status, Some(401), "{refused:?}");
}

#[test]
fn started_as_root_every_new_file_is_the_trees_owners() {
    on_a_fresh_machine(|machine| {
        const OWNER: u32 = 4321;
        let site = Site::new();
        fs::create_dir(site.tree()).expect("the site can be written");
        for path in [machine, site.directory()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the machine is ours");
        }
        std::os::unix::fs::chown(site.tree(), Some(OWNER), Some(OWNER)).expect("we are root");
        // As a fresh volume is: there, empty and root's. The local authority lies in it, as it does by default.
        fs::create_dir(site.directory().join("state")).expect("the site can be written");
        site.configure(&["tls: { local: state/tls }"]);
        std::os::unix::fs::symlink("state/tls", site.directory().join("certs")).expect("the site can be written");

        let server = site.start();
        let id = server.process.id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).expect("the server runs");
        let ids = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::split_whitespace);
        for name in ["Uid:", "Gid:"] {
            assert!(ids(name).expect("Linux says so").all(|id| id == OWNER.to_string()), "{status}");
        }
        let repository = site.admin().repository("team/app", "pull,push");
        let digest = repository.push("latest", &LAYERS).expect("pushed");
        site.add_user("rita", "rita-reads-images");
        assert!(server.stop().success());

        let foreign = |root: &Path| -> Vec<_> {
            let foreign =
                |path: &std::path::PathBuf| path.metadata().is_ok_and(|of| of.uid() != OWNER || of.gid() != OWNER);
            tree::files(root).into_iter().filter(foreign).collect()
        };
        assert!(tree::files(&site.tree()).len() > 8, "an image is many files");
        assert_eq!(foreign(&site.tree()), Vec::<std::path::PathBuf>::new());
        for link in tree::files(&site.tree()) {
            assert_eq!(link.metadata().expect("it is there").mode() & 0o777, 0o644, "{}", link.display());
        }

        let _server = site.start();
        let repository = site.admin().repository("team/app", "pull,push");
        assert_eq!(repository.pull("latest").expect("still there"), digest);
        repository
            .push("next", &OTHER_LAYERS)
            .expect("a command that root ran left nothing that the server cannot write");
        let rita = site.registry(Some(("rita", "rita-reads-images")));
        assert_eq!(rita.ask_token("repository:team/app:pull").status(), 200, "an account made meanwhile works");
    });
}
