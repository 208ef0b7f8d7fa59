//! How is a half-computed SHA-256 written down, so that another program can go on with it?
//!
//! As Go's `crypto/sha256` marshals it, because that is what Distribution keeps in `hashstates/`:
//!
//! ```text
//! "sha\x03" | 8 words of state, big endian | 64 bytes: the unfinished block, padded with zeros | length, 8 bytes, big endian
//! ```
//!
//! The `sha2` crate's own form holds the same in another order (words and block count little endian, then one byte that
//! says how much of the unfinished block there is, then 63 bytes of it). It may change with the crate's version; the
//! vectors in the tests below, made with Go, would notice.

use sha2::Sha256;
use sha2::digest::common::hazmat::{SerializableState as _, SerializedState};

/// The length of a written state in bytes.
pub(super) const LENGTH: usize = 108;

/// SHA-256 counts bits in 64 bits, so no content is longer than this many bytes; the crate would overflow.
const LONGEST: u64 = u64::MAX / 8;

const MAGIC: &[u8; 4] = b"sha\x03";
const BLOCK: usize = 64;
/// Where the parts begin in Go's form.
const WORDS: usize = 4;
const REST: usize = WORDS + 32;
const TOTAL: usize = REST + BLOCK;

/// The state in Go's form.
pub(super) fn encode(hash: &Sha256) -> [u8; LENGTH] {
    let ours = hash.serialize();
    let mut state = [0; LENGTH];
    state[..WORDS].copy_from_slice(MAGIC);
    swap_words(&ours[..32], &mut state[WORDS..REST]);
    let mut blocks = [0; 8];
    blocks.copy_from_slice(&ours[32..40]);
    let unfinished = usize::from(ours[40]);
    state[REST..REST + unfinished].copy_from_slice(&ours[41..41 + unfinished]);
    let length = u64::from_le_bytes(blocks).wrapping_mul(BLOCK as u64).wrapping_add(unfinished as u64);
    state[TOTAL..].copy_from_slice(&length.to_be_bytes());
    state
}

/// The hash that goes on after `offset` bytes, if that is what is written here.
pub(super) fn decode(state: &[u8], offset: u64) -> Option<Sha256> {
    let state: &[u8; LENGTH] = state.try_into().ok()?;
    if &state[..WORDS] != MAGIC || state[TOTAL..] != offset.to_be_bytes() || offset > LONGEST {
        return None;
    }
    let unfinished = (offset % BLOCK as u64) as usize;
    let mut ours = SerializedState::<Sha256>::default();
    swap_words(&state[WORDS..REST], &mut ours[..32]);
    ours[32..40].copy_from_slice(&(offset / BLOCK as u64).to_le_bytes());
    ours[40] = unfinished as u8;
    ours[41..41 + unfinished].copy_from_slice(&state[REST..REST + unfinished]);
    Sha256::deserialize(&ours).ok()
}

/// Copies 32-bit words, turning the bytes of each around.
fn swap_words(from: &[u8], to: &mut [u8]) {
    for (from, to) in from.chunks_exact(4).zip(to.chunks_exact_mut(4)) {
        to.copy_from_slice(from);
        to.reverse();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::Digest as _;

    use super::*;

    /// The first so many bytes of "abcdefghij" again and again, and what Go 1.26 marshals after them.
    const VECTORS: &[(usize, &str)] = &[
        (
            0,
            "736861036a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd1900000000000000000000000000000000000000\
             0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
        ),
        (
            3,
            "736861036a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd1961626300000000000000000000000000000000\
             0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000003",
        ),
        (
            64,
            "736861033d02ebc444c218c188cf53e54c5ffa8233e159002f57ef518768d780e37695b600000000000000000000000000000000000000\
             0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000040",
        ),
        (
            100,
            "736861033d02ebc444c218c188cf53e54c5ffa8233e159002f57ef518768d780e37695b665666768696a6162636465666768696a616263\
             6465666768696a6162636465666768696a000000000000000000000000000000000000000000000000000000000000000000000064",
        ),
        (
            1000,
            "736861030205fb7ebf9fbbf638f6a7172cf5794c4072c16569db301fcac4240d4bf991b66162636465666768696a616263646566676869\
             6a6162636465666768696a6162636465666768696a00000000000000000000000000000000000000000000000000000000000003e8",
        ),
    ];

    fn content(length: usize) -> Vec<u8> {
        b"abcdefghij".iter().copied().cycle().take(length).collect()
    }

    #[test]
    fn states_are_byte_for_byte_those_that_go_writes() {
        for (length, expected) in VECTORS {
            let expected = data_encoding::HEXLOWER.decode(expected.as_bytes()).unwrap();
            let hash = Sha256::new_with_prefix(content(*length));
            assert_eq!(encode(&hash)[..], expected, "{length}");
            let mut continued = decode(&expected, *length as u64).unwrap();
            continued.update(b"more");
            assert_eq!(continued.finalize(), hash.chain_update(b"more").finalize(), "{length}");
        }
    }

    #[test]
    fn what_is_no_state_for_this_offset_is_not_used() {
        let state = encode(&Sha256::new_with_prefix(b"abc"));
        assert!(decode(&state, 3).is_some());
        assert!(decode(&state, 4).is_none(), "another offset");
        assert!(decode(&state[..107], 3).is_none(), "cut short");
        assert!(decode(&[0; LENGTH], 0).is_none(), "a file that a power cut emptied");
        assert!(decode(b"", 0).is_none());
    }

    proptest! {
        #[test]
        fn a_hash_goes_on_where_it_was_interrupted(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
            let cut = cut.min(bytes.len());
            let state = encode(&Sha256::new_with_prefix(&bytes[..cut]));
            let continued = decode(&state, cut as u64).unwrap().chain_update(&bytes[cut..]);
            prop_assert_eq!(continued.finalize(), Sha256::digest(&bytes));
        }

        #[test]
        fn decoding_never_panics(state in proptest::collection::vec(any::<u8>(), 100..116), offset: u64) {
            let _ = decode(&state, offset);
            let mut forged = state;
            forged.resize(LENGTH, 0);
            forged[..4].copy_from_slice(MAGIC);
            forged[TOTAL..].copy_from_slice(&offset.to_be_bytes());
            if let Some(hash) = decode(&forged, offset) {
                let _ = hash.chain_update([0; 200]).finalize();
            }
        }
    }
}
