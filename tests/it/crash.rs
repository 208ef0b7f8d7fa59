//! Promise: a server that is killed loses nothing that it acknowledged and shows nothing that it did not finish.

use std::fs;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::Method;

use crate::support::content::{Content, digest};
use crate::support::pierhead::{Pierhead, Site};
use crate::support::random::Random;
use crate::support::registry::{Failed, Repository, manifest};
use crate::support::{soak, tree, wait_for};

const MEBIBYTE: u64 = 1 << 20;

/// Yields the beginning of a content, then nothing more until it is let go: a client in mid-push.
struct Held {
    content: io::Take<Box<dyn Read + Send>>,
    let_go: Arc<AtomicBool>,
}

impl Held {
    fn after(content: Content, bytes: u64, let_go: &Arc<AtomicBool>) -> Self {
        let reader: Box<dyn Read + Send> = Box::new(content.reader());
        Self { content: reader.take(bytes), let_go: Arc::clone(let_go) }
    }
}

impl Read for Held {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        if count == 0 {
            wait_for("the push to be let go", 60, || self.let_go.load(Ordering::Relaxed).then_some(()));
            return Err(io::Error::other("the client gives up"));
        }
        Ok(count)
    }
}

#[test]
fn an_interrupted_layer_resumes_or_restarts_after_kill_9() {
    let site = Site::new();
    let server = site.start();
    let kept = [Content::new(1, 2 * MEBIBYTE)];
    let repository = site.admin().repository("crash/app", "pull,push");
    let before = repository.push("before", &kept).expect("a first image");

    let layer = Content::new(2, 24 * MEBIBYTE);
    let sent = 16 * MEBIBYTE;
    let upload = repository.begin().expect("an upload");
    kill_in_mid_push(&site, server, &repository, &upload, layer, sent);
    assert_eq!(tree::damage(&site.tree()), Vec::<String>::new());

    let _server = site.start();
    let repository = site.admin().repository("crash/app", "pull,push");
    assert_eq!(repository.pull("before").expect("what was acknowledged is there"), before);
    let half = repository.request(Method::HEAD, &format!("blobs/{}", layer.digest())).send().expect("an answer");
    assert_eq!(half.status(), 404, "nothing half-written can be pulled");

    resume_or_restart(&repository, &upload, layer);
    assert_eq!(repository.pull_blob(&layer.digest()).expect("the layer"), layer.digest());
    assert_eq!(tree::damage(&site.tree()), Vec::<String>::new());
}

/// Sends `sent` bytes of a layer, and kills the server when they are on disk (as far as they are not in a buffer).
fn kill_in_mid_push(site: &Site, server: Pierhead, at: &Repository, upload: &str, layer: Content, sent: u64) {
    let let_go = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let push = scope.spawn(|| at.send(upload, Held::after(layer, sent, &let_go)));
        wait_for("bytes of the upload on disk", 30, || (uploaded(site) > sent - 4 * MEBIBYTE).then_some(()));
        server.kill();
        let_go.store(true, Ordering::Relaxed);
        push.join().expect("no panic").expect_err("nobody acknowledges a half layer");
    });
}

/// How many bytes all unfinished uploads have on disk.
fn uploaded(site: &Site) -> u64 {
    let files = tree::files(&site.tree()).into_iter().filter(|file| file.to_string_lossy().contains("/_uploads/"));
    files.filter_map(|file| file.metadata().ok()).map(|of| of.len()).sum()
}

/// Goes on where the server says that it stands, or begins anew when it does not know the upload any more.
fn resume_or_restart(repository: &Repository, upload: &str, layer: Content) {
    let status = repository.request(Method::GET, upload).send().expect("an answer");
    if status.status() == 404 {
        repository.push_blob(layer).expect("a clean restart");
        return;
    }
    assert_eq!(status.status(), 204, "an upload is there or not");
    let range = status.headers()["range"].to_str().expect("ranges are text").to_owned();
    let location = status.headers()["location"].to_str().expect("locations are text").to_owned();
    let last: u64 = range.rsplit('-').next().and_then(|last| last.parse().ok()).expect("0-LAST");
    // `0-0` is what an upload without a byte says, and (OCI end-13) what one with a single byte says.
    let have = if last == 0 { 0 } else { last + 1 };
    let upload = repository.send(&location, layer.reader_from(have)).expect("the rest is taken");
    repository.finish(&upload, &layer.digest()).expect("the layer is whole");
}

#[test]
fn kills_at_random_moments_lose_nothing_acknowledged_and_leave_no_damage() {
    let rounds = if soak() { 200 } else { 6 };
    let mut random = Random::new();
    let site = Site::new();
    let mut acknowledged: Vec<(String, String)> = Vec::new();
    for round in 0..rounds {
        let server = site.start();
        let repository = site.admin().repository("crash/random", "pull,push");
        for (tag, digest) in acknowledged.iter().rev().take(5) {
            assert_eq!(&repository.pull(tag).expect("what was acknowledged is there"), digest, "{tag}");
        }
        push_until_killed(server, &repository, round, random.next(), &mut acknowledged);
        assert_eq!(tree::damage(&site.tree()), Vec::<String>::new(), "after round {round}");
    }
    let _server = site.start();
    let repository = site.admin().repository("crash/random", "pull,push");
    for (tag, digest) in &acknowledged {
        assert_eq!(&repository.pull(tag).expect("what was acknowledged is there"), digest, "{tag}");
    }
    assert!(!acknowledged.is_empty(), "some pushes were fast enough");
}

/// Pushes image after image while the server is killed after a random time: the time is the fault, not a wait.
fn push_until_killed(server: Pierhead, at: &Repository, round: u64, random: u64, log: &mut Vec<(String, String)>) {
    let number = AtomicU64::new(0);
    let fault = Duration::from_micros(50_000 + random % 700_000);
    thread::scope(|scope| {
        let pushing = scope.spawn(|| -> Failed {
            loop {
                let number = number.fetch_add(1, Ordering::Relaxed);
                let tag = format!("r{round}-{number}");
                let seed = round << 32 | number << 8;
                let layers = [Content::new(seed | 1, MEBIBYTE + seed % 7_777), Content::new(seed | 2, 9_000)];
                match at.push(&tag, &layers) {
                    Ok(digest) => log.push((tag, digest)),
                    Err(failed) => return failed,
                }
            }
        });
        let due = Instant::now() + fault;
        wait_for("the moment of the fault", 10, || (Instant::now() >= due || pushing.is_finished()).then_some(()));
        assert!(!pushing.is_finished(), "nothing fails before the fault");
        server.kill();
        let failed = pushing.join().expect("no panic");
        assert_eq!(failed.status, None, "a dead server does not answer: {failed:?}");
    });
}

/// The judge of the tests above is judged: each harm to a good tree is seen.
#[test]
fn damage_to_a_tree_is_seen() {
    let site = Site::new();
    let _server = site.start();
    let layer = Content::new(9, 50_000);
    let pushed = site.admin().repository("crash/judge", "pull,push").push("latest", &[layer]).expect("pushed");
    assert_eq!(tree::damage(&site.tree()), Vec::<String>::new());
    let (layer, manifest) = (layer.digest().replace("sha256:", ""), pushed.replace("sha256:", ""));
    let repository = "repositories/crash/judge";
    let harmed = [
        format!("blobs/sha256/{}/{layer}/data", &layer[..2]),
        format!("{repository}/_layers/sha256/{layer}/link"),
        format!("{repository}/_manifests/revisions/sha256/{manifest}/link"),
        format!("{repository}/_manifests/tags/latest/current/link"),
    ];
    for file in harmed {
        let path = site.tree().join("docker/registry/v2").join(&file);
        let good = fs::read(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        fs::write(&path, &good[..good.len() - 1]).expect("the tree is ours");
        assert_ne!(tree::damage(&site.tree()), Vec::<String>::new(), "a byte less: {file}");
        fs::write(&path, good).expect("the tree is ours");
    }
    let link = site.tree().join("docker/registry/v2").join(repository).join(format!("_layers/sha256/{layer}/link"));
    fs::remove_file(link).expect("the tree is ours");
    assert_ne!(tree::damage(&site.tree()), Vec::<String>::new(), "a layer that the repository lacks");
}

#[test]
fn a_manifest_is_refused_until_its_layers_are_there() {
    let site = Site::new();
    let _server = site.start();
    let repository = site.admin().repository("crash/order", "pull,push");
    let (config, layer) = (Content::new(7, 700), Content::new(8, MEBIBYTE));
    let document = manifest(config, &[layer]);
    repository.push_blob(config).expect("the configuration");
    let refused = repository.push_manifest("early", &document).expect_err("a layer is missing");
    assert!(matches!(refused.status, Some(400 | 404)), "{refused:?}");
    assert!(refused.body.contains(&layer.digest()), "the message names what is missing: {refused:?}");
    repository.push_blob(layer).expect("the layer");
    assert_eq!(repository.push_manifest("late", &document).expect("now it is complete"), digest(&document));
}
