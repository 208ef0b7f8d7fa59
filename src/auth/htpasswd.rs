//! Is the name in the file, and is that its password?
//!
//! Distribution's `htpasswd`: lines of `name:bcrypt`, as `htpasswd -Bbn NAME PASSWORD` prints them. Whoever is in the file
//! may do everything.
//!
//! Clients send the password with every request, so a login that was verified is remembered for [`VERIFIED_FOR`]: not the
//! password, but a digest of it and its hash in the file with a key that is made by chance in each process. A changed line
//! has another hash, so what is remembered of it is not found again.
//!
//! A hash of cost 10 takes some 60 ms, so work is bounded as it is for accounts: [`Lanes`] bounds how much is hashed at once,
//! [`Attempts`] how often may be guessed. The order of the checks is that of [`super::accounts`], which argues for it. What
//! fails takes as long as with the dearest line, whether the name is in the file and whatever its own line costs: that a
//! cheap one is sooner done would tell that it is there.
//!
//! What fails is counted by a digest of the name that was sent ([`NameDigest`]): names may be as long as a header, and as
//! many are remembered as it pleases whoever guesses. All names alike, in the file or not, long or short: whatever held for
//! some alone would tell which names exist.
//!
//! Absent on purpose: other hashes than bcrypt (Distribution knows no others; MD5, SHA-1 and crypt are guessed too fast), and
//! making a user up when the file is missing, as Distribution does.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use bcrypt::HashParts;
use http::request::Parts;
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::accounts::{self, Refusal, UNGUESSABLE};
use super::attempts::{Attempt, Attempts};
use super::credential::{Credential, Malformed};
use super::hashing::Lanes;
use super::watched::{self, Watched};
use super::{Demand, Error, Grant, challenge, endpoint};
use crate::exchange::{Answer, Caller};

/// The largest file, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// The highest cost of a hash (some 4 s of one core; each step doubles it). Dearer ones would stop everybody's logins.
const MAX_COST: u32 = 16;
/// The lowest that bcrypt has.
const MIN_COST: u32 = 4;
/// How many verified logins are remembered.
const VERIFIED: u64 = 10_000;
/// For how long, whether used or not.
const VERIFIED_FOR: Duration = Duration::from_secs(5 * 60);

/// What a name is counted by: its SHA-256.
type NameDigest = [u8; 32];

/// Names and passwords in a file.
pub(super) struct Htpasswd {
    realm: String,
    users: Watched<Users>,
    pub(super) attempts: Attempts<NameDigest>,
    lanes: Lanes,
    verified: Cache<[u8; 32], ()>,
    key: hmac::Key,
}

/// The lines of the file.
#[derive(Debug)]
struct Users {
    hashes: HashMap<Box<str>, Arc<str>>,
    /// What unknown names are compared with.
    dearest: Arc<str>,
    /// The cost of that.
    most: u32,
}

/// One login on its way.
struct Login<'a> {
    attempt: Attempt<'a, NameDigest>,
    /// Of the password and the name's hash, if the name is in the file.
    digest: Option<[u8; 32]>,
    hash: Arc<str>,
    password: Vec<u8>,
    /// The dearest line's.
    most: u32,
}

impl Htpasswd {
    /// Reads the file. It blocks.
    pub(super) fn open(realm: &str, path: &Path, failures_per_minute: NonZeroU32) -> Result<Self, Error> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| Error::Internal("the random number generator"))?;
        let file = path.to_owned();
        Ok(Self {
            realm: realm.to_owned(),
            users: Watched::open(vec![file.clone()], move || Users::read(&file))?,
            attempts: Attempts::new(failures_per_minute),
            lanes: Lanes::new(),
            verified: Cache::builder().max_capacity(VERIFIED).time_to_live(VERIFIED_FOR).build(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
        })
    }

    /// Everything, for whoever is in the file; otherwise the answer that says how to come again.
    #[allow(clippy::result_large_err, reason = "the answer is sent at once; a box would only move the bytes twice")]
    pub(super) async fn authorize(
        &self,
        head: &Parts,
        caller: &Caller,
        demand: &Demand,
        now: Instant,
    ) -> Result<Grant, Answer> {
        let challenge = || challenge::basic(&self.realm, demand);
        let (name, password) = match Credential::basic(&head.headers) {
            Ok(Credential::Password { name, password }) => (name, password),
            Ok(Credential::None) | Err(Malformed) => return Err(challenge()),
        };
        let users = self.users.content(now).await;
        let known = users.hashes.get(name.as_str());
        let login = Login {
            attempt: self.attempts.attempt(Some(&counted_by(&name)), caller.network),
            digest: known.map(|hash| self.digest(hash, &password)),
            hash: known.unwrap_or(&users.dearest).clone(),
            password,
            most: users.most,
        };
        match self.login(login, now).await {
            Ok(()) => Ok(Grant::everything(Some(name))),
            Err(Refusal::Wrong) => Err(challenge()),
            Err(Refusal::Failed(error)) => {
                tracing::error!("{error}");
                Err(endpoint::unavailable())
            }
            Err(Refusal::Limited(wait)) => Err(endpoint::limited(wait)),
            Err(Refusal::Busy) => Err(endpoint::busy()),
        }
    }

    /// Gives a name its tries back, wherever it is tried from; says how many limits that concerned.
    pub(super) fn forgive_name(&self, name: &str) -> usize {
        self.attempts.forgive_account(&counted_by(name))
    }

    async fn login(&self, login: Login<'_>, now: Instant) -> Result<(), Refusal> {
        if !self.is_verified(&login, now)? {
            let seat = self.lanes.seat(login.attempt.is_regular()).await?;
            if !self.is_verified(&login, now)? {
                let Login { attempt, digest, hash, password, most } = login;
                let work = tokio::task::spawn_blocking(move || (matches(&password, &hash, most), seat));
                let failed = |_| Refusal::Failed(Error::Internal("the password hashing thread"));
                let (matches, _seat) = work.await.map_err(failed)?;
                let Some(digest) = digest.filter(|_| matches) else {
                    attempt.failed(now);
                    return Err(Refusal::Wrong);
                };
                self.verified.insert(digest, ());
                attempt.succeeded(now);
                return Ok(());
            }
        }
        login.attempt.succeeded(now);
        Ok(())
    }

    /// `false` when the password must be hashed to know.
    fn is_verified(&self, login: &Login<'_>, now: Instant) -> Result<bool, Refusal> {
        let remembered = login.digest.is_some_and(|digest| self.verified.get(&digest).is_some());
        if remembered && login.password.len() >= UNGUESSABLE {
            return Ok(true);
        }
        login.attempt.check_source(now).map_err(Refusal::Limited)?;
        if !remembered {
            login.attempt.check_account(now).map_err(Refusal::Limited)?;
        }
        Ok(remembered)
    }

    fn digest(&self, hash: &str, password: &[u8]) -> [u8; 32] {
        accounts::fingerprint(&self.key, hash, password)
    }
}

fn counted_by(name: &str) -> NameDigest {
    Sha256::digest(name.as_bytes()).into()
}

impl Users {
    fn read(path: &Path) -> Result<Self, Error> {
        let bytes = watched::read(path, MAX_FILE).map_err(|error| match error {
            Error::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Error::NoHtpasswd(path.to_owned())
            }
            other => other,
        })?;
        Self::parse(&bytes).map_err(|problem| Error::Key { path: PathBuf::from(path), problem })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
        let mut hashes: HashMap<Box<str>, Arc<str>> = HashMap::new();
        let mut dearest: Option<(u32, Arc<str>)> = None;
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |problem: &str| format!("line {}: {problem}", index + 1); // the line itself stays unsaid
            let (name, hash) = line.split_once(':').ok_or_else(|| wrong("must be `name:bcrypt hash`"))?;
            let cost = cost(hash).map_err(|problem| wrong(&problem))?;
            let hash: Arc<str> = hash.into();
            if dearest.as_ref().is_none_or(|(most, _)| cost > *most) {
                dearest = Some((cost, hash.clone()));
            }
            hashes.insert(name.into(), hash); // the last line of a name counts, as in Distribution
        }
        let (most, dearest) = dearest.ok_or("has no line `name:bcrypt hash`, so nobody could log in")?;
        Ok(Self { hashes, dearest, most })
    }
}

/// Whether that is the password of the hash. If not, to say so takes as long as a hash of the cost `most`, and no longer.
fn matches(password: &[u8], hash: &str, most: u32) -> bool {
    let matches = bcrypt::verify(password, hash).unwrap_or(false);
    if !matches {
        // Each takes as long as all before it together, the one above included.
        for cost in cost(hash).unwrap_or(most)..most {
            let _ = std::hint::black_box(bcrypt::hash_with_salt(password, cost, [0; 16])); // only its time is wanted
        }
    }
    matches
}

/// The cost of a bcrypt hash; otherwise what is wrong with it.
fn cost(hash: &str) -> Result<u32, String> {
    if !["$2a$", "$2b$", "$2y$"].iter().any(|version| hash.starts_with(version)) {
        return Err("is not a bcrypt hash ($2a$, $2b$ or $2y$); `htpasswd -B FILE NAME` makes one".to_owned());
    }
    let cost = hash.parse::<HashParts>().map_err(|_| "is not a whole bcrypt hash".to_owned())?.get_cost();
    if !(MIN_COST..=MAX_COST).contains(&cost) {
        return Err(format!("has the cost {cost}; {MIN_COST} to {MAX_COST} are possible"));
    }
    Ok(cost)
}

#[cfg(test)]
mod tests;
