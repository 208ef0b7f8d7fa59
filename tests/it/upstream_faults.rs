//! Promise: behind a registry of several nodes on one storage, of which one dies, one hangs and one is slow, reads never
//! fail; a push fails only with the node that it was on, and says so; and all nodes come back.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::Method;
use serde_json::Value;

use crate::support::content::{Content, digest};
use crate::support::distribution::Distribution;
use crate::support::image::OCI_MANIFEST;
use crate::support::pierhead::{Pierhead, Site};
use crate::support::registry::{Failed, Repository, manifest};
use crate::support::{free_port, soak, wait_for};

const KIBIBYTE: u64 = 1 << 10;
/// How much later everything reaches the slow node, and comes from it.
const DELAY: Duration = Duration::from_millis(40);

/// Three nodes on one tree, and who stands before them.
struct Cluster {
    dying: Distribution,
    dying_directory: PathBuf,
    hanging: Distribution,
    slow: Distribution,
    /// Where the slow one is reached.
    slow_origin: String,
    server: Pierhead,
    site: Site,
}

impl Cluster {
    fn open() -> Self {
        let site = Site::new();
        let start = |name: &str| {
            let directory = site.directory().join(name);
            fs::create_dir_all(&directory).expect("the site can be written");
            Distribution::open(&directory, &site.tree())
        };
        let (dying, hanging, slow) = (start("dying"), start("hanging"), start("slow"));
        let slow_origin = delayed(&slow.origin());
        let peers = [dying.origin(), hanging.origin(), slow_origin.clone()].map(|origin| format!("\"{origin}\""));
        site.configure(&[
            "registry: false",
            &format!(
                "upstreams: {{ nodes: {{ peers: [{}], balance: upload, \
                 health: {{ interval: 500ms, timeout: 400ms }}, ejection: {{ failures: 2, time: 1s }}, \
                 timeouts: {{ connect: 1s, read: 2s, write: 2s }} }} }}",
                peers.join(", ")
            ),
        ]);
        let server = site.start();
        let dying_directory = site.directory().join("dying");
        Self { dying, dying_directory, hanging, slow, slow_origin, server, site }
    }

    fn repository(&self, name: &str) -> Repository {
        self.site.registry(None).unguarded().repository(name, "pull,push")
    }

    /// How many requests of clients each node has answered.
    fn answered(&self) -> [usize; 3] {
        [&self.dying, &self.hanging, &self.slow].map(|node| node.requests("faults").len())
    }
}

/// Passes connections on to a node, everything [`DELAY`] later, and gives its address. It runs until the tests end.
fn delayed(origin: &str) -> String {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let node = origin.strip_prefix("http://").expect("nodes speak clear text").to_owned();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&node) else { continue };
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                thread::spawn(move || late(from, to));
            }
        }
    });
    format!("http://127.0.0.1:{port}")
}

fn late(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 256 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        thread::sleep(DELAY); // the fault that is injected here
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write); // the other side may have left
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    /// Tags and digests of what was acknowledged.
    images: Mutex<Vec<(String, String)>>,
    failed_pushes: Mutex<Vec<Failed>>,
    reads: AtomicUsize,
    /// Answers that broke off in their middle, when their node died, and were gone on with elsewhere.
    broken_off: AtomicUsize,
    over: AtomicBool,
}

/// Pushes an image. The layers go whole and not as streams: those the blocking client gives up without a look at what it
/// was answered.
fn push(repository: &Repository, tag: &str, layers: &[Content]) -> Result<String, Failed> {
    let config = Content::new(layers[0].seed ^ 1 << 63, 700);
    for blob in layers.iter().chain([&config]) {
        let upload = repository.begin()?;
        let mut bytes = Vec::new();
        blob.reader().read_to_end(&mut bytes).expect("contents can be read");
        let request = repository.request(Method::PATCH, &upload).header("Content-Type", "application/octet-stream");
        let answer = request.body(bytes).send();
        let answer = answer.map_err(|error| Failed { status: None, body: format!("{error:?}") })?;
        let status = answer.status().as_u16();
        let location = answer.headers().get("Location").and_then(|location| location.to_str().ok()).map(str::to_owned);
        let Some(upload) = location.filter(|_| status == 202) else {
            return Err(Failed { status: Some(status), body: answer.text().unwrap_or_default() });
        };
        repository.finish(&upload, &blob.digest())?;
    }
    repository.push_manifest(tag, &manifest(config, layers))
}

/// Pushes images until it is over: one that fails is pushed anew, as a person would.
fn keep_pushing(repository: &Repository, seeds: &AtomicU64, seen: &Seen) {
    while !seen.over.load(Ordering::Relaxed) {
        let seed = seeds.fetch_add(10, Ordering::Relaxed);
        let layers = [Content::new(seed, 300 * KIBIBYTE), Content::new(seed + 1, 20 * KIBIBYTE)];
        let tag = format!("image-{seed}");
        match push(repository, &tag, &layers) {
            Ok(digest) => seen.images.lock().push((tag, digest)),
            Err(failed) => seen.failed_pushes.lock().push(failed),
        }
    }
}

/// Pulls images until it is over. Nothing but what is right is accepted.
fn keep_pulling(repository: &Repository, seen: &Seen) {
    let mut turn = 0;
    while !seen.over.load(Ordering::Relaxed) {
        let image = {
            let images = seen.images.lock();
            images.get(turn % images.len()).cloned().expect("there is one from the beginning")
        };
        turn += 1;
        pull(repository, &image, seen);
    }
}

fn pull(repository: &Repository, (tag, digest_of): &(String, String), seen: &Seen) {
    let manifest = read(repository, &format!("manifests/{tag}"), seen);
    assert_eq!(digest(&manifest), *digest_of);
    let manifest: Value = serde_json::from_slice(&manifest).expect("manifests are JSON");
    let layers = manifest["layers"].as_array().expect("a list").iter();
    for part in layers.chain([&manifest["config"]]) {
        let wanted = part["digest"].as_str().expect("a digest");
        assert_eq!(digest(&read(repository, &format!("blobs/{wanted}"), seen)), wanted);
    }
}

/// Reads something to its end. Where an answer breaks off, because its node died in the middle of it, the rest is asked
/// for, as docker does; but no answer may be an error.
fn read(repository: &Repository, path: &str, seen: &Seen) -> Vec<u8> {
    let mut all = Vec::new();
    seen.reads.fetch_add(1, Ordering::Relaxed);
    loop {
        let mut request = repository.request(Method::GET, path).header("Accept", OCI_MANIFEST);
        if !all.is_empty() {
            request = request.header("Range", format!("bytes={}-", all.len()));
        }
        let mut answer = request.send().expect("an answer");
        let expected = if all.is_empty() { 200 } else { 206 };
        assert_eq!(answer.status(), expected, "{path}: {}", answer.text().unwrap_or_default());
        match answer.read_to_end(&mut all) {
            Ok(_) => return all,
            Err(error) => {
                assert_ne!(error.kind(), io::ErrorKind::TimedOut);
                seen.broken_off.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// One node hangs, then another dies, until only the slow one is left; then both come back.
fn inject(cluster: &mut Cluster, part: Duration) {
    cluster.hanging.hang();
    thread::sleep(part); // clients work meanwhile; so below
    cluster.dying.kill();
    thread::sleep(part);
    cluster.dying.again(&cluster.dying_directory.clone());
    thread::sleep(part / 2);
    cluster.hanging.resume();
    thread::sleep(part / 2);
}

#[test]
fn with_nodes_that_die_hang_or_are_slow_reads_never_fail_and_pushes_only_with_their_node() {
    let mut cluster = Cluster::open();
    let repository = cluster.repository("faults");
    let (seen, seeds) = (Seen::default(), AtomicU64::new(1000));
    let first = repository.push("first", &[Content::new(1, 300 * KIBIBYTE)]).expect("all are well");
    seen.images.lock().push(("first".to_owned(), first));

    let (time, part) = if soak() { (60, 5) } else { (8, 2) };
    let (time, part) = (Duration::from_secs(time), Duration::from_secs(part));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .flat_map(|_| {
                let (repository, seen, seeds) = (&repository, &seen, &seeds);
                [
                    scope.spawn(move || keep_pushing(repository, seeds, seen)),
                    scope.spawn(move || keep_pulling(repository, seen)),
                ]
            })
            .collect();
        let begun = Instant::now();
        while begun.elapsed() < time && !clients.iter().any(thread::ScopedJoinHandle::is_finished) {
            inject(&mut cluster, part);
        }
        seen.over.store(true, Ordering::Relaxed);
    });
    let (images, failed) = (seen.images.lock().clone(), seen.failed_pushes.lock());
    let reads = seen.reads.load(Ordering::Relaxed);
    eprintln!(
        "{} images pushed, {} pushes failed, {reads} reads, {} of them broken off and resumed",
        images.len(),
        failed.len(),
        seen.broken_off.load(Ordering::Relaxed)
    );
    assert!(images.len() > 5 && reads > 50, "{} images, {reads} reads", images.len());
    for Failed { status, body } in failed.iter() {
        assert!(matches!(status, Some(502..=504)), "{status:?} {body}");
        let error: Value = serde_json::from_str(body).expect("errors are JSON");
        assert_eq!(error["errors"][0]["code"], "UNAVAILABLE", "{body}");
    }
    blame(&cluster);
    all_come_back(&cluster, &repository, &seeds);
    for image in &images {
        pull(&repository, image, &seen);
    }
}

/// Every error is of a push, and of a node that died or hung.
fn blame(cluster: &Cluster) {
    let guilty = [cluster.dying.origin(), cluster.hanging.origin()];
    for line in cluster.server.access_log() {
        let status = line["status"].as_u64().expect("a status");
        if status < 500 {
            continue;
        }
        let failure = line["failure"].as_str().unwrap_or_default();
        assert!(guilty.iter().any(|origin| failure.contains(&format!("{origin}:"))), "{line}");
        assert!(!failure.contains(&cluster.slow_origin), "{line}");
        assert!(!["GET", "HEAD"].contains(&line["method"].as_str().expect("a method")), "{line}");
    }
}

/// Nothing fails any more, and all three have requests.
fn all_come_back(cluster: &Cluster, repository: &Repository, seeds: &AtomicU64) {
    let before = cluster.answered();
    let mut missing: BTreeSet<usize> = (0..3).collect();
    wait_for("all nodes to have requests again", 30, || {
        let seed = seeds.fetch_add(10, Ordering::Relaxed);
        let pushed = repository.push(&format!("image-{seed}"), &[Content::new(seed, 1000)]);
        pushed.expect("everybody is there");
        missing.retain(|node| cluster.answered()[*node] == before[*node]);
        missing.is_empty().then_some(())
    });
}
