//! Promise: Distribution and we are at home in each other's tree, and Distribution takes our tokens. Nobody is locked in.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use reqwest::Method;

use crate::support::content::Content;
use crate::support::distribution::{Distribution, Peer, SECRET};
use crate::support::machine::on_a_fresh_machine;
use crate::support::pierhead::{ADMIN_PASSWORD, Site};
use crate::support::registry::{Registry, Repository};
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

#[test]
fn an_upload_that_was_begun_on_any_distribution_is_finished_on_us() {
    for peer in Peer::installed() {
        let site = Site::new();
        let _server = site.start();
        let theirs = Distribution::of(peer, site.directory(), &site.tree());
        let there = Registry::open(&theirs.origin()).repository("team/app", "pull,push");
        let here = site.admin().repository("team/app", "pull,push");
        go_over(&there, &here);
        assert_eq!(tree::damage(&site.tree()), Vec::<String>::new(), "{peer:?}");
    }
}

/// With the secret that both know: Distribution wants to be told again what it signed (`_state`).
#[test]
fn with_the_same_secret_an_upload_moves_between_us_and_any_distribution() {
    for peer in Peer::installed() {
        let site = Site::new();
        site.configure(&[&format!(
            "registry: {{ storage: {{ filesystem: {{ rootdirectory: tree }} }}, http: {{ addr: off, secret: {SECRET} }} }}"
        )]);
        let _server = site.start();
        let theirs = Distribution::of(peer, site.directory(), &site.tree());
        let there = Registry::open(&theirs.origin()).repository("team/app", "pull,push");
        let here = site.admin().repository("team/app", "pull,push");
        go_over(&here, &there);
        come_back(&here, &there);
        come_back(&there, &here);
        assert_eq!(tree::damage(&site.tree()), Vec::<String>::new(), "{peer:?}");
    }
}

/// In the middle of a block of the hash.
const PART: u64 = 1_000_001;

/// Begins uploads at `first` and ends them at `second`: one of which nothing has come yet, and one that has come in part.
fn go_over(first: &Repository, second: &Repository) {
    let (empty, begun) = (Content::new(24, 300_000), Content::new(25, 3_000_000));
    let upload = first.begin().expect("begun");
    let upload = second.send(path(&upload), empty.reader()).expect("sent to the other");
    second.finish(&upload, &empty.digest()).expect("finished on the other");

    let upload = first.begin().expect("begun");
    let upload = first.send(&upload, begun.reader().take(PART)).expect("sent");
    let upload = second.send(path(&upload), begun.reader_from(PART)).expect("gone on with on the other");
    second.finish(&upload, &begun.digest()).expect("finished on the other");
    are_there(&[empty, begun], [first, second]);
}

/// Begins an upload at `first`, goes on with it at `second`, and ends it at `first`.
fn come_back(first: &Repository, second: &Repository) {
    let blob = Content::new(26, 2_000_000);
    let upload = first.begin().expect("begun");
    let upload = first.send(&upload, blob.reader().take(PART)).expect("sent");
    let upload = second.send(path(&upload), blob.reader_from(PART).take(PART / 2)).expect("gone on with on the other");
    let sent = PART + PART / 2;
    let status = first.request(Method::GET, path(&upload)).send().expect("an answer");
    assert_eq!(status.status(), 204, "the first one finds it as the other left it");
    assert_eq!(status.headers()["range"], format!("0-{}", sent - 1));
    let upload = status.headers()["location"].to_str().expect("locations are text");
    let upload = first.send(upload, blob.reader_from(sent)).expect("gone on with once more");
    first.finish(&upload, &blob.digest()).expect("finished where it began");
    are_there(&[blob], [first, second]);
}

fn are_there(blobs: &[Content], places: [&Repository; 2]) {
    for (blob, place) in blobs.iter().flat_map(|blob| places.map(|place| (blob, place))) {
        assert_eq!(place.pull_blob(&blob.digest()).expect("it is there"), blob.digest());
    }
}

/// A `Location` without its origin: a load balancer sends the next request to another node.
fn path(location: &str) -> &str {
    location.find("/v2/").map_or(location, |start| &location[start..])
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
        // The folder above the tree is root's, to go through and not to look into, as GitLab's is.
        for (path, mode) in [(machine, 0o755), (site.directory(), 0o711)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the machine is ours");
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
