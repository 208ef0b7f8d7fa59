//! Promise: a server that is killed loses nothing that it acknowledged and shows nothing that it did not finish.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

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

/// What clients were told is done.
#[derive(Default)]
struct Acknowledged {
    /// Tags and the manifests that they name.
    images: Vec<(String, String)>,
    /// Manifests, each with one that is about it.
    referrers: Vec<(String, String)>,
    accounts: Vec<String>,
}

impl Acknowledged {
    fn add(&mut self, more: Self) {
        self.images.extend(more.images);
        self.referrers.extend(more.referrers);
        self.accounts.extend(more.accounts);
    }

    /// Asks for the last `count` of each kind.
    fn check(&self, site: &Site, count: usize) {
        let repository = site.admin().repository("crash/random", "pull");
        for (tag, digest) in self.images.iter().rev().take(count) {
            assert_eq!(&repository.pull(tag).expect("what was acknowledged is there"), digest, "{tag}");
        }
        for (subject, referrer) in self.referrers.iter().rev().take(count) {
            assert!(repository.referrers(subject).contains(referrer), "{referrer} about {subject} is listed");
        }
        for name in self.accounts.iter().rev().take(count) {
            let status = site.registry(Some((name, PASSWORD))).ask_token("repository:crash/random:pull").status();
            assert!(status != 401, "{name} has an account: {status}");
        }
    }
}

const PASSWORD: &str = "one-password-for-all-of-them";

#[test]
fn kills_at_random_moments_lose_nothing_acknowledged_and_leave_no_damage() {
    let rounds = if soak() { 200 } else { 5 };
    let mut random = Random::new();
    let site = Site::new();
    let mut acknowledged = Acknowledged::default();
    for round in 0..rounds {
        let server = site.start();
        acknowledged.check(&site, 5);
        acknowledged.add(work_until_killed(&site, server, round, moment(&mut random)));
        assert_eq!(tree::damage(&site.tree()), Vec::<String>::new(), "after round {round}");
    }
    let _server = site.start();
    acknowledged.check(&site, usize::MAX);
    let Acknowledged { images, referrers, accounts } = acknowledged;
    eprintln!("{} images, {} referrers, {} accounts", images.len(), referrers.len(), accounts.len());
    assert!(images.len().min(referrers.len()).min(accounts.len()) > 0, "some of each were fast enough");
    cancel_uploads(&site);
}

/// How long a server lives from now on.
fn moment(random: &mut Random) -> Duration {
    Duration::from_micros(50_000 + random.below(700_000))
}

/// Pushes image after image, each with something about it, and makes accounts beside it, while the server is killed
/// after some time: the time is the fault, not a wait.
fn work_until_killed(site: &Site, server: Pierhead, round: u64, fault: Duration) -> Acknowledged {
    let repository = &site.admin().repository("crash/random", "pull,push");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let pushing = scope.spawn(|| push_until_refused(repository, round));
        let adding = scope.spawn(|| add_users_until(site, round, &over));
        let due = Instant::now() + fault;
        wait_for("the moment of the fault", 10, || (Instant::now() >= due || pushing.is_finished()).then_some(()));
        assert!(!pushing.is_finished(), "nothing fails before the fault");
        server.kill();
        over.store(true, Ordering::Relaxed);
        let (mut acknowledged, failed) = pushing.join().expect("no panic");
        assert_eq!(failed.status, None, "a dead server does not answer: {failed:?}");
        acknowledged.accounts = adding.join().expect("no panic");
        acknowledged
    })
}

fn push_until_refused(at: &Repository, round: u64) -> (Acknowledged, Failed) {
    let mut acknowledged = Acknowledged::default();
    let mut number = 0;
    loop {
        let (tag, seed) = (format!("r{round}-{number}"), round << 32 | number << 8);
        let layers = [Content::new(seed | 1, MEBIBYTE + seed % 7_777), Content::new(seed | 2, 9_000)];
        let image = match at.push(&tag, &layers) {
            Ok(digest) => digest,
            Err(failed) => return (acknowledged, failed),
        };
        acknowledged.images.push((tag, image.clone()));
        match at.push_referrer(&image, seed | 3) {
            Ok(digest) => acknowledged.referrers.push((image, digest)),
            Err(failed) => return (acknowledged, failed),
        }
        number += 1;
    }
}

/// Makes at least one account. The command works on the database of the server, which may die meanwhile.
fn add_users_until(site: &Site, round: u64, over: &AtomicBool) -> Vec<String> {
    let mut added = Vec::new();
    while added.is_empty() || !over.load(Ordering::Relaxed) {
        let name = format!("r{round}-{}", added.len());
        site.add_user(&name, PASSWORD);
        added.push(name);
    }
    added
}

/// What kills leave behind is gone once it is cancelled, whether its bytes have already become a blob or not.
fn cancel_uploads(site: &Site) {
    let uploads = site.tree().join("docker/registry/v2/repositories/crash/random/_uploads");
    let repository = site.admin().repository("crash/random", "pull,push");
    for upload in fs::read_dir(&uploads).into_iter().flatten().flatten() {
        let id = upload.file_name().into_string().expect("uploads are named by us");
        let location = format!("blobs/uploads/{id}");
        let cancelled = repository.request(Method::DELETE, &location).send().expect("an answer");
        assert_eq!(cancelled.status(), 204, "{id}");
        let gone = repository.request(Method::GET, &location).send().expect("an answer");
        assert_eq!(gone.status(), 404, "{id} is gone");
        assert!(!upload.path().exists(), "{id} is gone from the disk");
    }
    assert_eq!(tree::files(&uploads), Vec::<PathBuf>::new(), "nothing is left of an upload");
    let finished = |file: &PathBuf| file.ends_with("data") || file.ends_with("link");
    let outside = tree::files(&site.tree()).into_iter().filter(|file| !file.starts_with(&uploads));
    let strange: Vec<PathBuf> = outside.filter(|file| !finished(file) && !is_temporary(file)).collect();
    assert_eq!(strange, Vec::<PathBuf>::new(), "nothing else is left");
}

/// Named as Distribution 3 and we name what is not finished, so that neither takes it for anything:
/// `NAME.UUID.tmp`.
fn is_temporary(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let uuid = name.strip_suffix(".tmp").and_then(|stem| stem.rsplit_once('.')).map(|(_, uuid)| uuid);
    uuid.is_some_and(|uuid| uuid.len() == 36 && uuid.chars().all(|c| c == '-' || c.is_ascii_hexdigit()))
}

#[test]
fn one_image_pushed_under_two_tags_at_once_survives_kills_whole() {
    let rounds = if soak() { 200 } else { 5 };
    let mut random = Random::new();
    let site = Site::new();
    for round in 0..rounds {
        let server = site.start();
        every_listed_tag_is_whole(&site);
        let repository = site.admin().repository("crash/twins", "pull,push");
        push_twins_until_killed(server, &repository, round, moment(&mut random));
        assert_eq!(tree::damage(&site.tree()), Vec::<String>::new(), "after round {round}");
    }
    let _server = site.start();
    let listed = every_listed_tag_is_whole(&site);
    eprintln!("{listed} tags");
    assert!(listed > 0, "some pushes were fast enough");
}

/// Four clients, two for each tag, push the same images in the same order.
fn push_twins_until_killed(server: Pierhead, at: &Repository, round: u64, fault: Duration) {
    let push = |tag: &str| -> Failed {
        let push = |number: u64| {
            let seed = 1 << 62 | round << 32 | number << 8;
            at.push(&format!("r{round}-{number}-{tag}"), &[Content::new(seed, MEBIBYTE), Content::new(seed | 1, 9_000)])
        };
        (0..).find_map(|number| push(number).err()).expect("there is no last number")
    };
    thread::scope(|scope| {
        let push = &push;
        let pushing = ["a", "a", "b", "b"].map(|tag| scope.spawn(move || push(tag)));
        let due = Instant::now() + fault;
        let early = || pushing.iter().any(|one| one.is_finished());
        wait_for("the moment of the fault", 10, || (Instant::now() >= due || early()).then_some(()));
        server.kill();
        for failed in pushing.map(|one| one.join().expect("no panic")) {
            assert_eq!(failed.status, None, "nobody is refused, only cut off: {failed:?}");
        }
    });
}

/// Pulls every tag that is listed, and returns how many there are.
fn every_listed_tag_is_whole(site: &Site) -> usize {
    let repository = site.admin().repository("crash/twins", "pull");
    let answer = repository.get("tags/list");
    if answer.status() == 404 {
        return 0; // before the first push
    }
    let list: Value = answer.json().expect("lists are JSON");
    let tags = list["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    for tag in tags.iter().filter_map(Value::as_str) {
        repository.pull(tag).unwrap_or_else(|failed| panic!("{tag} is listed: {failed:?}"));
    }
    tags.len()
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
