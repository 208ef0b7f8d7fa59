//! What lies in the storage folder?
//!
//! ```text
//! account-HASH.key          the account with the directory whose URL has this hash (PEM, PKCS #8)
//! certificates/NAME.pem     from where and when it was ordered, its key, the certificate, its chain
//! attempts/NAME.json        what was tried
//! leases/NAME.N             who orders (see lease)
//! challenges/               answers (see challenge)
//! ```
//!
//! NAME is the certificate's first name, `_` for `*`; a second certificate with the same first name has a hash of all its
//! names behind it.
//!
//! **Invariants**
//! - All folders are 0700 and all files 0600.
//! - A certificate and its key are one file that is replaced by a rename, so nobody can see half a pair.
//! - An account key is made by whoever is first, and never replaced: the account is lost with it.
//!
//! Everything here blocks, but for [`blocking`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use super::history::{History, Purpose};
use super::lease::Lease;
use super::order::{Failure, Issued, Kind};
use super::place::{Place, digest};
use super::renewal::{self, Held};
use crate::storage::durable;
use crate::tls::facts::{Facts, trusted_by_this_machine};
use crate::tls::files;
use crate::tls::remark::time;

/// How the line begins that says where a certificate comes from. Whoever reads PEM passes it over (RFC 7468 5.2).
const ORIGIN: &str = "# Ordered by Pierhead: ";

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    folder: PathBuf,
}

/// What is there of a certificate.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    pub(super) certificate: Option<Certificate>,
    pub(super) history: History,
}

/// A certificate that was ordered.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    pub(super) der: CertificateDer<'static>,
    pub(super) facts: Facts,
    /// The last on the way up.
    last: Facts,
    pub(super) origin: Option<Origin>,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) directory: String,
    /// When it was ordered, in seconds since 1970.
    pub(super) at: i64,
}

impl Storage {
    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// What is there of a certificate. One that cannot be read as such counts as none, for it cannot be shown either.
    pub(super) fn look(&self, place: &Place) -> Result<Found, Failure> {
        let certificate = read(&place.pem)?.and_then(|text| match Certificate::of(&text, &place.pem) {
            Ok(certificate) => Some(certificate),
            Err(error) => {
                tracing::error!("the certificate that was ordered cannot be used, another is needed: {error}");
                None
            }
        });
        let file = self.attempts(place);
        let history: History = match read(&file)?.map(|text| serde_json::from_str(&text)) {
            None => History::default(),
            Some(Ok(history)) => history,
            Some(Err(error)) => {
                tracing::error!("{} is damaged, and what was tried is forgotten: {error}", file.display());
                History::default()
            }
        };
        let of = Purpose { directory: place.directory.clone(), names: place.names.clone() };
        Ok(Found { certificate, history: history.for_purpose(&of) })
    }

    /// Writes down what was tried.
    pub(super) fn remember(&self, place: &Place, history: &History) -> Result<(), Failure> {
        let file = self.attempts(place);
        let text = serde_json::to_string_pretty(history).map_err(|error| ours(&file, "write", &error))?;
        write(&file, &text)
    }

    /// Puts a certificate where all nodes see it.
    pub(super) fn publish(&self, place: &Place, text: &str) -> Result<(), Failure> {
        write(&place.pem, text)
    }

    /// The key of the account with a directory (DER, PKCS #8): that of whoever was first.
    pub(super) fn account_key(&self, directory: &str) -> Result<Vec<u8>, Failure> {
        let file = self.folder.join(format!("account-{}.key", digest(directory)));
        if let Some(key) = read(&file)? {
            return der(&key, &file);
        }
        let failed = |error: &dyn std::fmt::Display| ours(&file, "make", error);
        let key = KeyPair::generate().map_err(|error| failed(&error))?.serialize_pem();
        durable::make_private_dirs(&self.folder).map_err(|error| failed(&error))?;
        match durable::create(&file, key.as_bytes(), durable::SECRET) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(&error)),
            Ok(()) | Err(_) => der(&read(&file)?.unwrap_or_default(), &file),
        }
    }

    /// Removes files that were never finished and are older than that: what crashes leave.
    pub(super) fn clean(&self, before: SystemTime) {
        let stale = |file: &fs::DirEntry| {
            let modified = file.metadata().and_then(|data| data.modified());
            modified.is_ok_and(|at| at < before)
        };
        let unfinished = |file: &fs::DirEntry| file.file_name().to_str().is_some_and(durable::is_temporary);
        let folder = |name: &str| fs::read_dir(self.folder.join(name)).into_iter().flatten().flatten();
        let folders = [".", "certificates", "attempts", "leases", "challenges/http-01", "challenges/tls-alpn-01"];
        for file in folders.into_iter().flat_map(folder).filter(unfinished).filter(stale) {
            if let Err(error) = fs::remove_file(file.path()) {
                tracing::debug!(%error, "{} stays", file.path().display());
            }
        }
    }

    /// The lease of a certificate.
    pub(super) fn lease(&self, place: &Place) -> Lease {
        Lease::of(&self.folder, &place.id)
    }

    fn attempts(&self, place: &Place) -> PathBuf {
        self.folder.join("attempts").join(format!("{}.json", place.id))
    }
}

impl Certificate {
    fn of(text: &str, path: &Path) -> Result<Self, crate::tls::Error> {
        let pair = files::parse(text, path)?;
        let origin = text.lines().next().and_then(|line| serde_json::from_str(line.strip_prefix(ORIGIN)?).ok());
        let (facts, last) = (pair.leaf().clone(), pair.last_link().clone());
        Ok(Self { der: pair.certified.cert[0].clone(), facts, last, origin })
    }

    /// A name of the place's that it lacks. A wildcard is another name than those it stands for.
    pub(super) fn lacks<'p>(&self, place: &'p Place) -> Option<&'p String> {
        let has = |name: &str| self.facts.names.iter().any(|own| own.eq_ignore_ascii_case(name));
        place.names.iter().find(|name| !has(name) && (name.starts_with("*.") || !self.facts.covers(name)))
    }

    /// How it does for a place. It is valid for us from when it was ordered.
    pub(super) fn held(&self, place: &Place) -> Held {
        let (from, until) = (self.facts.not_before, self.facts.not_after);
        let ordered = self.ordered().filter(|at| (from..until).contains(at));
        let fits = self.lacks(place).is_none() && self.is_from(&place.directory);
        Held { from: ordered.unwrap_or(from), until, fits }
    }

    /// Whether the way up ends where everybody is trusted who trusts anybody.
    fn is_whole(&self, machine: &[Vec<u8>]) -> bool {
        self.last.is_its_own_issuer() || self.last.issuer_is_trusted_here(machine)
    }

    /// When it was ordered, in seconds since 1970, as far as it says.
    pub(super) fn ordered(&self) -> Option<i64> {
        self.origin.as_ref().map(|origin| origin.at)
    }

    /// Whether it comes from this directory, as far as it says.
    pub(super) fn is_from(&self, directory: &str) -> bool {
        self.origin.as_ref().is_none_or(|origin| origin.directory == directory)
    }
}

/// The text of a certificate's file, if what was issued is what was ordered and can be shown, and is no worse than what
/// was there `before`.
pub(super) fn checked(
    issued: &Issued,
    place: &Place,
    before: Option<&Certificate>,
    now: i64,
) -> Result<String, String> {
    let origin = Origin { directory: place.directory.clone(), at: now };
    let origin = serde_json::to_string(&origin).map_err(|error| error.to_string())?;
    let text = format!("{ORIGIN}{origin}\n{}\n{}\n", issued.key.trim_end(), issued.chain.trim_end());
    let certificate = Certificate::of(&text, &place.pem).map_err(|error| error.to_string())?;
    if let Some(name) = certificate.lacks(place) {
        return Err(format!("it does not carry the name {name}"));
    }
    if certificate.facts.not_after <= now {
        return Err(format!("it expired at {}; is this machine's clock right?", time(certificate.facts.not_after)));
    }
    // While there is time to get a better one.
    let good = |before: &&Certificate| {
        before.held(place).fits && now < renewal::overdue(before.facts.not_before, before.facts.not_after)
    };
    if let Some(before) = before.filter(good) {
        let machine = trusted_by_this_machine();
        if before.is_whole(&machine) && !certificate.is_whole(&machine) {
            let (last, issuer) = (&certificate.last.subject, &certificate.last.issuer);
            return Err(format!(
                "its chain ends at {last:?}, signed by {issuer:?}, which this machine does not trust; the chain of the one that is shown is whole"
            ));
        }
    }
    Ok(text)
}

/// Whether what was issued and could not be written yet should take the place of what is there by now.
pub(super) fn is_better(text: &str, place: &Place, found: &Found, now: i64) -> bool {
    let Ok(own) = Certificate::of(text, &place.pem) else { return false };
    let held = own.held(place);
    let newer = |other: &Certificate| !other.held(place).fits || own.ordered() > other.ordered();
    held.fits && now < renewal::usual(held.from, held.until) && found.certificate.as_ref().is_none_or(newer)
}

/// A file's text; none where there is no file.
fn read(file: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ours(file, "read", &error)),
    }
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let written =
        durable::make_private_dirs(folder).and_then(|()| durable::write(file, text.as_bytes(), durable::SECRET));
    written.map_err(|error| ours(file, "write", &error))
}

fn der(pem: &str, file: &Path) -> Result<Vec<u8>, Failure> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes());
    let key = key
        .map_err(|error| ours(file, "use", &format!("{error:?}; without it a new account must be made: remove it")))?;
    Ok(key.secret_pkcs8_der().to_vec())
}

pub(super) fn ours(file: &Path, what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Kind::Ours, format!("cannot {what} {} (tls.acme.storage): {error}", file.display()))
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Kind::Ours, error.to_string())
    }
}

/// Does elsewhere what blocks.
pub(super) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{self, Authority};

    #[test]
    fn a_chain_that_is_cut_off_does_not_replace_a_whole_one_that_is_good_for_long() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let place = Place::of_tests(folder.path(), &["a.test"]);
        let issued = |(chain, key): (String, String)| Issued { chain, key };
        let (whole, cut) = (issued(authority.whole(&["a.test"], 90)), issued(Authority::new().issue(&["a.test"], 90)));
        let now = crate::tls::local::seconds(testing::now());
        let before = |issued: &Issued| {
            let text = checked(issued, &place, None, now).unwrap();
            Certificate::of(&text, &place.pem).unwrap()
        };
        let (held_whole, held_cut) = (before(&whole), before(&cut));
        let checked = |issued, before, days: i64| checked(issued, &place, before, now + days * 24 * 60 * 60).map(drop);
        let refused = checked(&cut, Some(&held_whole), 0).unwrap_err();
        assert!(refused.contains("intermediate of the tests"), "{refused}");
        for (issued, before, days) in
            [(&cut, Some(&held_whole), 70), (&cut, None, 0), (&cut, Some(&held_cut), 0), (&whole, Some(&held_whole), 0)]
        {
            assert_eq!(checked(issued, before, days), Ok(()), "{days}");
        }
    }
}
