//! The short form of `make fuzz`: the requests of `fuzz/corpus`, as they are and then changed at random, go through every
//! parser that such bytes meet. Always the same changes; `PIERHEAD_FUZZ_SEED` takes others.

#![allow(clippy::expect_used, reason = "a test that cannot go on says why and fails")]

#[path = "../fuzz/src/request.rs"]
mod request;
#[path = "../fuzz/src/wire.rs"]
mod wire;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

/// How many changed requests.
const RUNS: usize = 300_000;

#[test]
fn no_request_panics_and_what_is_accepted_is_what_it_seems() {
    let corpus = corpus();
    for entry in &corpus {
        run(entry);
    }
    let seed = std::env::var("PIERHEAD_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut chance = Chance(seed.unwrap_or(0x9e37_79b9_7f4a_7c15));
    for _ in 0..RUNS {
        run(&changed(&corpus, &mut chance));
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("the corpus").map(|file| file.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() >= 20, "the corpus has a request for each endpoint");
    files.iter().map(|file| fs::read(file).expect("it can be read")).collect()
}

fn run(data: &[u8]) {
    if panic::catch_unwind(AssertUnwindSafe(|| {
        request::check(data);
        wire::check(data);
    }))
    .is_err()
    {
        panic!("this request: {:?}", String::from_utf8_lossy(data));
    }
}

/// A request of the corpus after a few changes: bytes, parts of other requests, repetitions, cuts.
fn changed(corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut data = corpus[chance.below(corpus.len())].clone();
    for _ in 0..=chance.below(6) {
        let (from, to) = chance.span(data.len());
        match chance.below(6) {
            0 if from < data.len() => data[from] = chance.byte(),
            1 => data.insert(from, chance.byte()),
            2 => drop(data.drain(from..to)),
            3 => {
                let other = &corpus[chance.below(corpus.len())];
                let (first, last) = chance.span(other.len());
                data.splice(from..from, other[first..last].iter().copied());
            }
            4 => {
                let part = data[from..to.min(from + 64)].to_vec();
                data.splice(from..from, part.repeat(chance.below(9)));
            }
            _ => data.truncate(to),
        }
    }
    data
}

/// xorshift64*: the same numbers on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or_default() % limit.max(1)
    }

    /// Bytes with a meaning in requests more often than others.
    fn byte(&mut self) -> u8 {
        const WORDS: &[u8] = b"/:%?&=.-_+ \n\0\"{}[],0a9Z\xff";
        if self.below(2) == 0 { WORDS[self.below(WORDS.len())] } else { self.next().to_le_bytes()[7] }
    }

    fn span(&mut self, length: usize) -> (usize, usize) {
        let (one, other) = (self.below(length + 1), self.below(length + 1));
        (one.min(other), one.max(other))
    }
}
