//! Bytes out of nothing: the same seed and size are the same bytes everywhere, so nothing has to be stored.
//!
//! They do not compress (deflate looks back 32 KiB, and nothing repeats within a mebibyte), so what a client sends is as
//! large as what it was given.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

/// How long a stretch is before its noise repeats, apart from the stamp at its beginning.
const STRETCH: usize = 1 << 20;

/// `size` bytes that only `seed` decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    /// Two contents with different seeds differ in every mebibyte.
    pub(crate) seed: u64,
    /// How many bytes.
    pub(crate) size: u64,
}

impl Content {
    pub(crate) fn new(seed: u64, size: u64) -> Self {
        Self { seed, size }
    }

    /// Reads the bytes from the first one.
    pub(crate) fn reader(self) -> Reader {
        self.reader_from(0)
    }

    /// Reads the bytes from `offset`.
    pub(crate) fn reader_from(self, offset: u64) -> Reader {
        Reader { content: self, offset }
    }

    /// The digest, as registries write it.
    pub(crate) fn digest(self) -> String {
        let mut digester = Digester::new(io::sink());
        io::copy(&mut self.reader(), &mut digester).expect("memory does not fail");
        digester.digest()
    }
}

/// The digest of bytes in memory.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

/// The bytes of a [`Content`], one after the other.
pub(crate) struct Reader {
    content: Content,
    offset: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stretch = self.offset / STRETCH as u64;
        let within = (self.offset % STRETCH as u64) as usize;
        let mut stamp = [0; 16];
        stamp[..8].copy_from_slice(&self.content.seed.to_le_bytes());
        stamp[8..].copy_from_slice(&stretch.to_le_bytes());
        let source = if within < stamp.len() { &stamp[within..] } else { &noise()[within..] };
        let left = usize::try_from(self.content.size - self.offset).unwrap_or(usize::MAX);
        let count = buffer.len().min(source.len()).min(left);
        buffer[..count].copy_from_slice(&source[..count]);
        self.offset += count as u64;
        Ok(count)
    }
}

/// One stretch of pseudo-random bytes (splitmix64).
fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut state = 0x7069_6572_6865_6164_u64;
        let next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)).to_le_bytes()
        };
        std::iter::repeat_with(next).take(STRETCH / 8).flatten().collect()
    })
}

/// Passes bytes on and knows their digest and number.
pub(crate) struct Digester<W> {
    to: W,
    hash: Sha256,
    written: u64,
}

impl<W: Write> Digester<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, hash: Sha256::new(), written: 0 }
    }

    /// How many bytes passed.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// The digest of the bytes that passed so far.
    pub(crate) fn digest(&self) -> String {
        format!("sha256:{}", hex(&self.hash.clone().finalize()))
    }

    /// Gives the writer back.
    pub(crate) fn into_inner(self) -> W {
        self.to
    }
}

impl<W: Write> Write for Digester<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
