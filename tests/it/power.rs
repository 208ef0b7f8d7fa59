//! Promise: a power cut at any moment loses nothing that was acknowledged and shows nothing that is not whole.
//!
//! The real binary runs a story under strace. Its system calls are replayed into a model of a disk ([`disk`]); after each
//! of them the power is cut, what was not synced is kept, lost or torn, and what is left must be either what the last
//! answer promised or what the request under way would have made of it. An answer counts from the system call that sends
//! its last byte.

mod disk;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use reqwest::Method;
use serde_json::json;

use crate::support::content::{Content, digest};
use crate::support::image::{OCI_INDEX, OCI_MANIFEST};
use crate::support::pierhead::Site;
use crate::support::random::Random;
use crate::support::registry::{Repository, manifest};
use crate::support::trace::{self, Step, steps};
use crate::support::{soak, tree};
use disk::{Disk, Survivors, Syncs, Unsynced};

const REPOSITORY: &str = "power/app";

/// What a repository shows: `blob DIGEST`, `manifest DIGEST` and `tag NAME`, each with what it names.
type Shown = BTreeMap<String, String>;

/// What was asked of a server, and the system calls that came of it.
struct Recording {
    /// The disk before the server was started.
    before: Disk,
    steps: Vec<Step>,
    /// What the repository must show after each answer, and which of the steps that answer was.
    acknowledged: Vec<(usize, Shown)>,
}

/// One story, recorded once for all tests.
fn recording() -> &'static Recording {
    static RECORDING: OnceLock<Recording> = OnceLock::new();
    RECORDING.get_or_init(|| record(Story::tell))
}

fn record(tell: impl FnOnce(&mut Story)) -> Recording {
    let site = Site::new();
    let file = site.directory().with_extension("trace");
    let before = Disk::of(site.directory());
    let server = site.start_traced(&file);
    let mut story = Story::begin(site.admin().repository(REPOSITORY, "pull,push,delete"));
    tell(&mut story);
    let shown = story.shown;
    server.stop();
    let steps = steps(&trace::of_ended(&file), site.directory());
    let acknowledged = shown.into_iter().enumerate();
    let acknowledged = acknowledged.map(|(number, shown)| (answer_before(&steps, number), shown)).collect();
    Recording { acknowledged, before, steps }
}

/// Where the last answer was sent before the server looked for a mark.
fn answer_before(steps: &[Step], number: usize) -> usize {
    let mark = format!("{}/link", mark(number).replace("sha256:", ""));
    let seen = steps.iter().position(|step| matches!(step, Step::Missed { path } if path.ends_with(&mark)));
    let before = &steps[..seen.unwrap_or_else(|| panic!("mark {number} is in the trace"))];
    before.iter().rposition(|step| *step == Step::Answer).expect("an answer before the mark")
}

/// A digest that nothing has. Asking for it leaves a mark in the trace.
fn mark(number: usize) -> String {
    format!("sha256:{number:064x}")
}

/// Requests, and what the repository must show after each.
struct Story {
    repository: Repository,
    shown: Vec<Shown>,
    now: Shown,
}

impl Story {
    fn begin(repository: Repository) -> Self {
        let mut story = Self { repository, shown: Vec::new(), now: Shown::new() };
        story.acknowledge();
        story
    }

    fn tell(&mut self) {
        let blobs = [1, 2, 3, 4].map(|seed| Content::new(seed, 500 + seed));
        for blob in blobs {
            self.blob(blob);
        }
        let [config, first, second, other] = blobs;
        let one = self.manifest(Some("v1"), OCI_MANIFEST, &manifest(config, &[first, second]));
        self.manifest(Some("v1"), OCI_MANIFEST, &manifest(config, &[first, other]));
        self.manifest(Some("also"), OCI_MANIFEST, &manifest(config, &[first, second]));
        let children = json!([{ "mediaType": OCI_MANIFEST, "digest": one, "size": 1 }]);
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children });
        self.manifest(Some("index"), OCI_INDEX, index.to_string().as_bytes());
        let mut referrer: serde_json::Value = serde_json::from_slice(&manifest(config, &[second])).expect("JSON");
        referrer["subject"] = json!({ "mediaType": OCI_MANIFEST, "digest": one, "size": 1 });
        let referrer = self.manifest(None, OCI_MANIFEST, referrer.to_string().as_bytes());
        self.delete("tag index", "manifests/index");
        self.delete(&format!("manifest {referrer}"), &format!("manifests/{referrer}"));
        self.delete(&format!("manifest {one}"), &format!("manifests/{one}"));
        self.delete(&format!("blob {}", second.digest()), &format!("blobs/{}", second.digest()));
        self.blob(second);
        self.manifest(Some("again"), OCI_MANIFEST, &manifest(config, &[first, second]));
    }

    fn blob(&mut self, blob: Content) {
        let digest = self.repository.push_blob(blob).expect("pushed");
        self.now.insert(format!("blob {digest}"), digest);
        self.acknowledge();
    }

    fn manifest(&mut self, tag: Option<&str>, kind: &str, document: &[u8]) -> String {
        let digest = digest(document);
        let path = format!("manifests/{}", tag.unwrap_or(&digest));
        let request = self.repository.request(Method::PUT, &path).header("Content-Type", kind);
        assert_eq!(request.body(document.to_vec()).send().expect("an answer").status(), 201);
        self.now.insert(format!("manifest {digest}"), digest.clone());
        self.now.extend(tag.map(|tag| (format!("tag {tag}"), digest.clone())));
        self.acknowledge();
        digest
    }

    fn delete(&mut self, what: &str, path: &str) {
        assert_eq!(self.repository.request(Method::DELETE, path).send().expect("an answer").status(), 202, "{path}");
        let named = self.now.remove(what);
        if what.starts_with("manifest ") {
            self.now.retain(|what, names| !what.starts_with("tag ") || Some(&*names) != named.as_ref());
        }
        self.acknowledge();
    }

    fn acknowledge(&mut self) {
        let mark = format!("blobs/{}", mark(self.shown.len()));
        assert_eq!(self.repository.request(Method::HEAD, &mark).send().expect("an answer").status(), 404);
        self.shown.push(self.now.clone());
    }
}

/// What a tree shows to those who read it.
fn shown(root: &Path) -> Shown {
    let repository = root.join("docker/registry/v2/repositories").join(REPOSITORY);
    let links = tree::files(&repository).into_iter().filter(|file| file.ends_with("link"));
    let name = |link: &Path| {
        let below: Vec<_> = link.strip_prefix(&repository).ok()?.iter().map(|part| part.to_string_lossy()).collect();
        match below.iter().map(AsRef::as_ref).collect::<Vec<&str>>()[..] {
            ["_layers", algorithm, hex, _] => Some(format!("blob {algorithm}:{hex}")),
            ["_manifests", "revisions", algorithm, hex, _] => Some(format!("manifest {algorithm}:{hex}")),
            ["_manifests", "tags", tag, "current", _] => Some(format!("tag {tag}")),
            _ => None,
        }
    };
    links.filter_map(|link| Some((name(&link)?, fs::read_to_string(&link).expect("a link is text")))).collect()
}

/// Cuts the power after every step; tells what was wrong, and how many different disks were looked at.
fn violations(recording: &Recording, syncs: Syncs, random: &mut Random, subsets: usize) -> (Vec<String>, usize) {
    let mut disk = recording.before.clone().with(syncs);
    let (mut wrong, mut seen, mut changes) = (Vec::new(), HashSet::new(), None);
    for (number, step) in recording.steps.iter().enumerate() {
        disk.step(step);
        let until = recording.acknowledged.iter().take_while(|(answer, _)| *answer <= number).count();
        // What neither changes nor acknowledges anything leaves what the step before left.
        let now = (disk.changes(), disk.syncs(), until);
        if changes.replace(now) == Some(now) {
            continue;
        }
        for choice in 0..subsets + 2 {
            let mut unsynced = match choice {
                0 => Unsynced::Kept,
                1 => Unsynced::Lost,
                _ => Unsynced::Random(random),
            };
            let survivors = disk.after_a_cut("tree", &mut unsynced);
            if seen.insert((until, survivors.clone())) {
                let found = judge(&survivors, &recording.acknowledged, until);
                let choice = ["all kept", "all lost"].get(choice).unwrap_or(&"some kept");
                wrong.extend(found.into_iter().map(|fault| format!("step {number}, {choice}: {fault}")));
            }
        }
    }
    (wrong, seen.len())
}

/// What is wrong with what a cut left after so many answers.
fn judge(survivors: &Survivors, acknowledged: &[(usize, Shown)], until: usize) -> Vec<String> {
    let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory can be made");
    survivors.lay_down(root.path());
    let mut wrong = tree::damage(root.path());
    let (nothing, found) = (Shown::new(), shown(root.path()));
    let promised = until.checked_sub(1).map_or(&nothing, |last| &acknowledged[last].1);
    let under_way = acknowledged.get(until).map_or(promised, |(_, shown)| shown);
    let names: BTreeSet<&String> = found.keys().chain(promised.keys()).chain(under_way.keys()).collect();
    for name in names {
        let is = found.get(name);
        if is != promised.get(name) && is != under_way.get(name) {
            wrong.push(format!("{name} is {is:?} and not {:?}", promised.get(name)));
        }
    }
    wrong
}

#[test]
fn a_power_cut_after_any_system_call_loses_nothing_acknowledged_and_leaves_no_damage() {
    let recording = recording();
    let (wrong, seen) = violations(recording, Syncs::Honest, &mut Random::new(), if soak() { 60 } else { 6 });
    eprintln!("{} steps, {} answers, {seen} disks", recording.steps.len(), recording.acknowledged.len());
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen > 500, "only {seen} disks were looked at");
}

/// Of a layer so large that most of it is written past the page cache.
#[test]
fn a_power_cut_while_a_large_layer_comes_loses_nothing_acknowledged_and_leaves_no_damage() {
    let recording = record(|story| story.blob(Content::new(7, (5 << 20) + 17)));
    let wrote_late = |step: &Step| matches!(step, Step::Write { at: Some(at), .. } if *at >= 4 << 20);
    assert!(recording.steps.iter().any(wrote_late), "the end of the layer is in the trace");
    let (wrong, seen) = violations(&recording, Syncs::Honest, &mut Random::new(), if soak() { 20 } else { 2 });
    assert!(wrong.is_empty(), "of {seen} disks {} faults:\n{}", wrong.len(), wrong.join("\n"));
    let (wrong, _) = violations(&recording, Syncs::OfDirectories, &mut Random::new(), 0);
    assert!(!wrong.is_empty(), "a disk that loses what was synced is seen to");
}

/// The judge is judged: on a disk that breaks one of its promises, the same story is full of holes.
#[test]
fn a_disk_that_says_synced_and_is_not_is_seen_to_lose_and_to_damage() {
    for (syncs, sign) in [
        (Syncs::Ignored, "is None and not Some"),
        (Syncs::OfFiles, "is None and not Some"),
        (Syncs::OfDirectories, "is not what its name says"),
        (Syncs::OfDirectories, "points to nothing"),
    ] {
        let (wrong, _) = violations(recording(), syncs, &mut Random::new(), 1);
        assert!(wrong.iter().any(|fault| fault.contains(sign)), "{syncs:?}: nothing {sign}");
    }
}

#[test]
fn an_account_that_was_acknowledged_survives_a_power_cut() {
    let site = Site::new();
    site.start().stop();
    let before = Disk::of(site.directory());
    let file = site.directory().with_extension("trace");
    site.add_user_traced("alice", "a-password-of-some-length", &file);
    let steps = steps(&trace::of_ended(&file), site.directory());
    let mut disk = before;
    let (mut random, mut seen) = (Random::new(), HashSet::new());
    let mut outcomes = BTreeSet::new();
    for number in 0..=steps.len() {
        let done = number == steps.len();
        if let Some(step) = steps.get(number) {
            disk.step(step);
        }
        for choice in 0..if soak() { 12 } else { 3 } {
            let mut unsynced = match choice {
                0 => Unsynced::Kept,
                1 => Unsynced::Lost,
                _ => Unsynced::Random(&mut random),
            };
            let survivors = disk.after_a_cut("state", &mut unsynced);
            if !seen.insert((done, survivors.clone())) {
                continue;
            }
            let after = Site::new();
            survivors.lay_down(&after.directory().join("state"));
            let users = after.run(&["user", "list"]).ok().stdout;
            assert!(users.contains("admin"), "step {number}, choice {choice}: the admin is lost\n{users}");
            assert!(!done || users.contains("alice"), "choice {choice}: an acknowledged account is lost\n{users}");
            outcomes.insert(users.contains("alice"));
        }
    }
    assert_eq!(outcomes.len(), 2, "cuts before and after the commit were seen");
}
