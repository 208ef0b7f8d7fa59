//! Whose turn is it?
//!
//! In turns it goes smoothly: of weights 3 and 1 the order is a, a, b, a and not a, a, a, b. Consistently it goes by
//! rendezvous: every candidate draws a number for the key, always the same, and the highest has it. Hence a candidate that
//! goes away loses its own keys and changes nobody else's, and every front door with the same peers decides alike, before
//! and after a restart.

use std::cmp::Ordering;
use std::net::SocketAddr;

use sha2::{Digest, Sha256};

/// One that may have the request.
#[derive(Debug)]
pub(super) struct Candidate<'m> {
    pub(super) address: SocketAddr,
    /// Its part in proportion to the others', more than nothing.
    pub(super) weight: f64,
    /// What it has at the moment.
    pub(super) running: usize,
    /// How much it is owed; kept from turn to turn.
    pub(super) owed: &'m mut f64,
}

/// The position of the one whose turn it is, in proportion to the weights.
pub(super) fn in_turns(candidates: &mut [Candidate<'_>]) -> Option<usize> {
    let mut total = 0.0;
    for candidate in &mut *candidates {
        *candidate.owed += candidate.weight;
        total += candidate.weight;
    }
    let chosen = first_best(candidates, |candidate| *candidate.owed)?;
    *candidates[chosen].owed -= total;
    Some(chosen)
}

/// The position of the one with the fewest requests for its weight; equals take turns.
pub(super) fn least_loaded(candidates: &mut [Candidate<'_>]) -> Option<usize> {
    let load = |candidate: &Candidate<'_>| (candidate.running + 1) as f64 / candidate.weight;
    let least = candidates.iter().map(load).min_by(f64::total_cmp)?;
    let (positions, mut equals): (Vec<usize>, Vec<Candidate<'_>>) = candidates
        .iter_mut()
        .enumerate()
        .filter(|(_, candidate)| load(candidate).total_cmp(&least).is_eq())
        .map(|(position, Candidate { address, weight, running, owed })| {
            (position, Candidate { address: *address, weight: *weight, running: *running, owed })
        })
        .unzip();
    in_turns(&mut equals).map(|chosen| positions[chosen])
}

/// The position of the one that always gets this key.
pub(super) fn consistent(candidates: &[Candidate<'_>], key: &str) -> Option<usize> {
    first_best(candidates, |candidate| draw(candidate, key))
}

/// The weighted draw of <https://datatracker.ietf.org/doc/draft-ietf-bess-weighted-hrw/>: a candidate of twice the weight
/// wins twice as many keys.
fn draw(candidate: &Candidate<'_>, key: &str) -> f64 {
    let digest =
        Sha256::new().chain_update(candidate.address.to_string()).chain_update([0]).chain_update(key).finalize();
    let bits = digest.iter().take(8).fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte));
    // Between 0 and 1, and neither of them: 53 bits are all that the type holds.
    let number = ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    candidate.weight / -number.ln()
}

fn first_best(candidates: &[Candidate<'_>], value: impl Fn(&Candidate<'_>) -> f64) -> Option<usize> {
    let values = candidates.iter().map(value).enumerate();
    values
        .reduce(|best, next| if next.1.total_cmp(&best.1) == Ordering::Greater { next } else { best })
        .map(|best| best.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A peer's number, weight, what it has to do and what it is owed.
    type State = (u8, f64, usize, f64);

    fn peers(weights: &[u32]) -> Vec<State> {
        (1..).zip(weights).map(|(number, weight)| (number, f64::from(*weight), 0, 0.0)).collect()
    }

    fn candidates(peers: &mut [State]) -> Vec<Candidate<'_>> {
        let mut candidates = Vec::new();
        for (number, weight, running, owed) in peers {
            let address = SocketAddr::from(([10, 0, 0, *number], 5000));
            candidates.push(Candidate { address, weight: *weight, running: *running, owed });
        }
        candidates
    }

    /// The number of the peer that has the key.
    fn owner(peers: &mut [State], key: &str) -> u8 {
        let chosen = consistent(&candidates(peers), key).unwrap();
        peers[chosen].0
    }

    #[test]
    fn turns_are_spread_and_go_by_weight() {
        let mut peers = peers(&[3, 1]);
        let turns: Vec<_> = (0..8).map(|_| in_turns(&mut candidates(&mut peers)).unwrap()).collect();
        assert_eq!(turns, [0, 0, 1, 0, 0, 0, 1, 0]);
        assert_eq!(in_turns(&mut []), None);
    }

    #[test]
    fn the_least_loaded_is_so_for_its_weight_and_equals_take_turns() {
        let mut peers = peers(&[1, 1, 2]);
        let next = |peers: &mut [State]| {
            let chosen = least_loaded(&mut candidates(peers)).unwrap();
            peers[chosen].2 += 1;
            chosen
        };
        let mut first: Vec<_> = (0..4).map(|_| next(&mut peers)).collect();
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2, 2]);
        peers[0].2 = 9;
        assert!((0..3).all(|_| next(&mut peers) != 0));
    }

    #[test]
    fn every_door_decides_alike_today_and_tomorrow() {
        let mut peers = peers(&[1, 1, 1]);
        let owners = ["a/b", "library/alpine", "x", "", "group/project/image", "c"].map(|key| owner(&mut peers, key));
        assert_eq!(owners, [1, 1, 1, 2, 2, 1], "uploads and caches move when these do");
    }

    proptest! {
        #[test]
        fn only_the_keys_of_a_peer_that_goes_away_move(
            weights in prop::collection::vec(1_u32..9, 2..9),
            gone in any::<prop::sample::Index>(),
            keys in prop::collection::vec("[a-z0-9/-]{1,40}", 1..50),
        ) {
            let mut before = peers(&weights);
            let mut after = before.clone();
            let gone = after.remove(gone.index(weights.len())).0;
            for key in keys {
                let (was, is) = (owner(&mut before, &key), owner(&mut after, &key));
                prop_assert!(was == is || was == gone, "{key} went from {was} to {is}");
            }
        }
    }

    #[test]
    fn keys_are_spread_by_weight() {
        let mut peers = peers(&[1, 2, 1]);
        let mut counts = [0_u32; 4];
        (0..4000).for_each(|n| counts[usize::from(owner(&mut peers, &format!("repository-{n}")))] += 1);
        assert!(counts[1].abs_diff(1000) < 150 && counts[2].abs_diff(2000) < 150, "{counts:?}");
    }
}
