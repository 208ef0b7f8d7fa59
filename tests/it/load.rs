//! Promise: memory has a bound. Large images move both ways at once while someone guesses passwords, or one layer is
//! larger than all of it, and the server stays below what the README says.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::content::Content;
use crate::support::distribution::Distribution;
use crate::support::pierhead::Site;
use crate::support::registry::Repository;
use crate::support::{machine::alone_on_a_fresh_machine, soak, wait_for};

/// The bound of the README.
const BOUND_MEBIBYTES: u64 = 150;
/// How many wrong logins arrive each second.
const GUESSES_PER_SECOND: u32 = 200;
/// So many at a time, so that slow answers hardly slow them down.
const GUESSERS: u32 = 32;
const LAYER: u64 = 256 << 20;

/// What became of the guesses.
#[derive(Default)]
struct Guesses {
    answered: AtomicU64,
    refused: AtomicU64,
    enough: AtomicBool,
}

#[test]
fn memory_stays_below_the_bound_under_pushes_pulls_and_wrong_logins() {
    alone_on_a_fresh_machine(|_| {
        let site = Site::new();
        let server = site.start();
        let admin = site.admin();
        let mut pulled = Vec::new();
        for seed in [100, 110, 120, 130] {
            let repository = admin.repository(&format!("load/pull{seed}"), "pull,push");
            repository.push("latest", &image(seed)).expect("images to pull are pushed");
            pulled.push(repository);
        }
        let pushed = ["load/push1", "load/push2"].map(|name| admin.repository(name, "pull,push"));

        let guesses = Guesses::default();
        let seconds = thread::scope(|scope| {
            for guesser in 0..GUESSERS {
                let (site, guesses) = (&site, &guesses);
                scope.spawn(move || guess_passwords(site, guesser, guesses));
            }
            let _at_the_end = Enough(&guesses);
            let seconds = move_images(pulled, pushed, &guesses);
            assert_eq!(admin.ask_token("repository:load/push1:pull").status(), 200, "who is known still comes in");
            seconds
        });

        let (answered, refused) = (guesses.answered.into_inner(), guesses.refused.into_inner());
        let peak = server.process.peak_memory() >> 20;
        eprintln!("six images in {seconds:.1} s, {answered} guesses; the server never had more than {peak} MiB");
        assert_eq!(answered, refused, "no guess is let in, and each is answered");
        assert!(answered as f64 > seconds * f64::from(GUESSES_PER_SECOND) / 2.0, "{answered} guesses are too few");
        assert!(peak < BOUND_MEBIBYTES, "{peak} MiB is more than {BOUND_MEBIBYTES} MiB");
    });
}

#[test]
fn a_layer_larger_than_the_memory_passes_both_ways_below_the_bound() {
    alone_on_a_fresh_machine(|_| {
        let size = if soak() { 5 << 30 } else { 300 << 20 };
        let site = Site::new();
        let server = site.start();
        let repository = site.admin().repository("load/layer", "pull,push");
        let digest = repository.push_blob(Content::new(300, size)).expect("the layer is taken");
        let pushed = server.process.peak_memory() >> 20;
        assert_eq!(repository.pull_blob(&digest).expect("the layer comes back"), digest);
        let pulled = server.process.peak_memory() >> 20;
        eprintln!("{} MiB: the server never had more than {pushed} MiB (push), {pulled} MiB (pull)", size >> 20);
        assert!(pulled < BOUND_MEBIBYTES, "{pulled} MiB is more than {BOUND_MEBIBYTES} MiB");
    });
}

#[test]
fn a_layer_larger_than_the_memory_passes_through_an_upstream_and_leaves_nothing_here() {
    alone_on_a_fresh_machine(|_| {
        let size = if soak() { 5 << 30 } else { 300 << 20 };
        let site = Site::new();
        let theirs = tempfile::tempdir().expect("the machine has room");
        let registry = Distribution::open(theirs.path(), &theirs.path().join("registry"));
        let upstream = format!("upstreams: {{ theirs: {{ peers: [\"{}\"] }} }}", registry.origin());
        site.configure(&["registry: false", &upstream]);
        let server = site.start();
        let repository = site.registry(None).unguarded().repository("load/layer", "pull,push");
        let written = || server.process.written();
        let before = written();
        let digest = repository.push_blob(Content::new(300, size)).expect("the layer is taken");
        assert_eq!(repository.pull_blob(&digest).expect("the layer comes back"), digest);
        let (peak, written) = (server.process.peak_memory() >> 20, written() - before);
        eprintln!("{} MiB both ways: the server never had more than {peak} MiB, and wrote {written} bytes", size >> 20);
        assert!(peak < BOUND_MEBIBYTES, "{peak} MiB is more than {BOUND_MEBIBYTES} MiB");
        assert!(written < 1 << 20, "{written} bytes are more than log lines");
    });
}

fn image(seed: u64) -> [Content; 2] {
    [Content::new(seed, LAYER), Content::new(seed + 1, 3 << 20)]
}

/// Two pushes and four pulls at once, as soon as the guessing has begun. Returns the seconds that they took.
fn move_images(pulled: Vec<Repository>, pushed: [Repository; 2], guesses: &Guesses) -> f64 {
    let begun = || (guesses.answered.load(Ordering::Relaxed) > 50).then_some(());
    wait_for("the guessing to begin", 20, begun);
    let start = Instant::now();
    thread::scope(|scope| {
        let pulls = pulled.into_iter().map(|from| scope.spawn(move || from.pull("latest")));
        let push = |(to, seed): (Repository, u64)| scope.spawn(move || to.push("latest", &image(seed)));
        let moving: Vec<_> = pulls.chain(pushed.into_iter().zip([200, 210]).map(push)).collect();
        for image in moving {
            image.join().expect("no panic").expect("every image moves whole, whoever guesses");
        }
    });
    start.elapsed().as_secs_f64()
}

/// Shows one wrong password after the other at the token service, on a schedule that does not wait for slow answers as
/// long as there are other guessers.
fn guess_passwords(site: &Site, guesser: u32, guesses: &Guesses) {
    let pause = Duration::from_secs(1) * GUESSERS / GUESSES_PER_SECOND;
    let names = ["admin", "nobody", "somebody", "root"];
    let stranger = site.registry(None);
    let mut next = Instant::now();
    for guess in 0_usize.. {
        if guesses.enough.load(Ordering::Relaxed) {
            break;
        }
        let password = format!("guess-{guesser}-{guess}");
        let guess = stranger.by(Some((names[guess % names.len()], &password)));
        let status = guess.ask_token("repository:load/pull100:pull").status();
        guesses.answered.fetch_add(1, Ordering::Relaxed);
        guesses.refused.fetch_add(u64::from(status == 401 || status == 429), Ordering::Relaxed);
        next += pause;
        // Time itself is the subject: so many guesses a second and no more.
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Ends the guessing, also when a push or a pull failed.
struct Enough<'a>(&'a Guesses);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.enough.store(true, Ordering::Relaxed);
    }
}
