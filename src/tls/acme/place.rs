//! Where is an ordered certificate, and what is it for?

use std::collections::HashSet;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::{Challenge, Config};

/// File systems take 255 bytes, and what is written has a longer name before it is finished.
const LONGEST: usize = 150;

/// A certificate that is ordered, and where it lies once it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file: PEM, the key and then the certificate with its chain.
    pub pem: PathBuf,
    /// Its names.
    pub names: Vec<String>,
    /// Where it is ordered from.
    pub directory: String,
    /// What its files are called.
    pub(super) id: String,
    /// The ways to prove these names, the preferred first.
    pub(super) ways: Vec<Challenge>,
}

impl Config {
    /// The certificates that are ordered, in the operator's order.
    pub fn places(&self) -> Vec<Place> {
        let mut taken = HashSet::new();
        let named = self.certificates.iter().filter_map(|names| Some((names.first()?, names)));
        let place = |(first, names): (&String, &Vec<String>)| {
            let mut id = first.replace('*', "_");
            if id.len() > LONGEST {
                id = format!("{}~{}", id.get(..LONGEST).unwrap_or_default(), digest(first));
            }
            // The first of those with this name has it for itself; the others are told apart by all their names.
            if !taken.insert(first.clone()) {
                id = format!("{id}~{}", digest(&names.join(" ")));
            }
            let pem = self.storage.join("certificates").join(format!("{id}.pem"));
            let ways = self.ways(names);
            Place { pem, names: names.clone(), directory: self.directory.clone(), id, ways }
        };
        named.map(place).collect()
    }

    /// RFC 8555 8.4: a wildcard can be proven in the DNS only.
    fn ways(&self, names: &[String]) -> Vec<Challenge> {
        let wildcard = names.iter().any(|name| name.starts_with("*."));
        self.challenges.iter().copied().filter(|way| !wildcard || *way == Challenge::Dns01).collect()
    }
}

impl Place {
    /// Whether it carries a name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// A number that stays the same on every node and in every version.
    pub(super) fn seed(&self) -> u64 {
        Sha256::digest(self.id.as_bytes()).iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }
}

/// Short, and the same on every node and in every version.
pub(super) fn digest(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text.as_bytes())[..8])
}
