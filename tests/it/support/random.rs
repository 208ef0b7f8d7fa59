//! Random numbers that a seed repeats.

/// xorshift64: which cases are tried is the only thing that it decides.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// From `PIERHEAD_SEED`, or another seed in every run; it is shown, so that a failure can be repeated.
    pub(crate) fn new() -> Self {
        let seed = std::env::var("PIERHEAD_SEED").ok().and_then(|seed| seed.parse().ok());
        let random = Self(seed.unwrap_or_else(|| u64::from(std::process::id())));
        eprintln!("PIERHEAD_SEED={} repeats this", random.0);
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 |= 1;
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number less than `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
}
