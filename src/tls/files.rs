//! Certificates and keys from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::config::Files;
use super::facts::Facts;
use super::stamp::{Stamp, stamps};
use super::{Error, acme, key, remark};

/// A certificate with its chain and its key: what can be shown.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    /// Where it comes from.
    pub(super) files: Files,
    /// How the files were just before they were read.
    pub(super) stamps: Vec<Stamp>,
    /// The server's own certificate, whoever signed it, and so on; behind them what else is in the file.
    pub(super) chain: Vec<Facts>,
    /// How many of these each sign the one before, with the server's own.
    pub(super) linked: usize,
    /// Whether the file had them in another order.
    pub(super) sorted: bool,
    /// Whether it stands in for one that was ordered and is not there yet: it lies in other files than these.
    pub(super) stands_in: bool,
    /// The same for TLS.
    pub(super) certified: Arc<CertifiedKey>,
}

impl Pair {
    /// The server's own certificate.
    pub(super) fn leaf(&self) -> &Facts {
        &self.chain[0] // `read` makes none without
    }

    /// The highest that the file has of the way up.
    pub(super) fn last_link(&self) -> &Facts {
        &self.chain[self.linked - 1] // at least the server's own
    }

    /// Whether the same would be shown.
    pub(super) fn shows_the_same(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
    }
}

/// Reads one pair.
pub(super) fn read(files: &Files) -> Result<Pair, Error> {
    let stamps = stamps(files);
    let (chain, key) = pair(files)?;
    assemble(files, stamps, chain, key)
}

/// What was ordered for a place, if it is there and can be used and is no worse than what has been shown; else what has
/// been shown; where that is nothing, what stands in.
pub(super) fn read_ordered(
    place: &acme::Place,
    before: Option<&Pair>,
    stand_in: &Files,
    now: i64,
) -> Result<Pair, Error> {
    let files = Files::new(place.pem.clone(), place.pem.clone());
    let stamps = stamps(&files);
    let why = match (read(&files), before) {
        (Ok(pair), None) => return Ok(pair),
        (Ok(pair), Some(before)) => match worse(&pair, before, place, now) {
            None => return Ok(pair),
            Some(why) => why,
        },
        (Err(error), _) if before.is_none() && error.is_absence() => String::new(),
        (Err(error), _) => error.to_string(),
    };
    if let Some(before) = before {
        tracing::error!("a certificate that was ordered cannot be shown, the one before stays: {why}");
        // Of other times than the file's, so that whoever watches decides about that.
        let stamps = if before.files == files { before.stamps.clone() } else { Vec::new() };
        return Ok(Pair { files, stamps, ..before.clone() });
    }
    if !why.is_empty() {
        tracing::error!("the certificate that was ordered cannot be shown: {why}");
    }
    Ok(Pair { files, stamps, stands_in: true, ..read(stand_in)? })
}

/// Why clients are better off with the one before.
fn worse(pair: &Pair, before: &Pair, place: &acme::Place, now: i64) -> Option<String> {
    if pair.shows_the_same(before) {
        return None;
    }
    let lost = || place.names.iter().find(|name| before.leaf().covers(name) && !pair.leaf().covers(name));
    let lost = || lost().map(|name| format!("{} carries no longer the name {name}", place.pem.display()));
    remark::validity(pair, now).map(|remark| remark.to_string()).or_else(lost)
}

/// The pair of a text that is to become a file, key and certificates.
pub(super) fn parse(text: &str, path: &Path) -> Result<Pair, Error> {
    let files = Files::new(path.to_owned(), path.to_owned());
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_| Error::Empty { path: path.to_owned(), wanted: "private key" })?;
    assemble(&files, Vec::new(), certificates(text.as_bytes(), path)?, key)
}

fn assemble(
    files: &Files,
    stamps: Vec<Stamp>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Pair, Error> {
    let facts: Vec<Facts> = chain.iter().map(|one| Facts::of(one, &files.certificate)).collect::<Result<_, Error>>()?;
    let certified = certify(chain, key, files)?;
    let (order, linked) = in_order(&facts);
    let sorted = order.iter().enumerate().any(|(place, from)| place != *from);
    let chain = order.iter().map(|from| certified.cert[*from].clone()).collect();
    let facts = order.iter().map(|from| facts[*from].clone()).collect();
    let certified = Arc::new(CertifiedKey::new(chain, certified.key));
    Ok(Pair { files: files.clone(), stamps, chain: facts, linked, sorted, stands_in: false, certified })
}

/// The certificates by their place in the file: from the first one up to the last that can be found, then the others as
/// they were, for they may be another way up; and how many make the way.
fn in_order(facts: &[Facts]) -> (Vec<usize>, usize) {
    let mut order = vec![0];
    let mut others: Vec<usize> = (1..facts.len()).collect();
    let mut last = 0;
    while !facts[last].is_its_own_issuer()
        && let Some(found) = others.iter().position(|other| facts[*other].may_have_issued(&facts[last]))
    {
        last = others.remove(found);
        order.push(last);
    }
    let linked = order.len();
    order.extend(others);
    (order, linked)
}

/// The first certificate is the key's.
fn certify(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    files: &Files,
) -> Result<CertifiedKey, Error> {
    let provider = super::provider();
    let unusable = |reason| Error::Unusable { key: files.key.clone(), reason };
    let signer = provider.key_provider.load_private_key(key).map_err(unusable)?;
    let fits = |chain: Vec<_>| {
        let certified = CertifiedKey::new(chain, Arc::clone(&signer));
        certified.keys_match().map(|()| certified)
    };
    fits(chain.clone()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let Files { certificate, key, .. } = files.clone();
            match chain.iter().position(|one| fits(vec![one.clone()]).is_ok()) {
                Some(place) => Error::Order { certificate, key, number: place + 1 },
                None => Error::Mismatch { certificate, key },
            }
        }
        reason => unusable(reason),
    })
}

/// One pair as bytes, in the order of the file.
pub(super) fn pair(files: &Files) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    Ok((chain(&files.certificate)?, key::read(&files.key, files.password.as_deref())?))
}

/// Every authority of these files.
pub(super) fn authorities(paths: &[PathBuf]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for path in paths {
        for certificate in chain(path)? {
            roots.add(certificate).map_err(|_| Error::Damaged { path: path.clone() })?;
        }
    }
    Ok(roots)
}

/// Every authority of a file, as bytes.
pub(super) fn trusted(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = chain(path)?;
    for certificate in &certificates {
        Facts::of(certificate, path)?;
        RootCertStore::empty().add(certificate.clone()).map_err(|_| Error::Damaged { path: path.to_owned() })?;
    }
    Ok(certificates)
}

/// The first certificate of a file.
pub(super) fn leaf(path: &Path) -> Result<Facts, Error> {
    let chain = chain(path)?;
    Facts::of(&chain[0], path)
}

/// All certificates of a file, at least one.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    certificates(&read_file(path)?, path)
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(Error::Empty { path: path.to_owned(), wanted: "certificate" }),
    }
}

pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })
}

#[cfg(test)]
impl Pair {
    /// With these names, its own authority.
    pub(super) fn of_tests(names: &[&str]) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let files = Files::new("of-tests.crt".into(), "of-tests.key".into());
        let facts = Facts::of(certificate.der(), &files.certificate).unwrap();
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let certified = Arc::new(certify(vec![certificate.der().clone()], der, &files).unwrap());
        Self { stamps: Vec::new(), files, chain: vec![facts], linked: 1, sorted: false, stands_in: false, certified }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Authority};
    use super::*;

    fn pair(folder: &Path, name: &str) -> Files {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned(), "10.0.0.1".to_owned()]).unwrap();
        let files = Files::new(folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        crate::storage::durable::write(
            &files.certificate,
            certificate.self_signed(&key).unwrap().pem().as_bytes(),
            0o644,
        )
        .unwrap();
        crate::storage::durable::write(&files.key, key.serialize_pem().as_bytes(), 0o600).unwrap();
        files
    }

    #[test]
    fn a_pair_is_read_with_its_names_and_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let files = pair(folder.path(), "a.test");
        assert_eq!(read(&files).unwrap().leaf().names, ["a.test"]);
        assert_eq!(leaf(&files.certificate).unwrap().addresses, ["10.0.0.1"]);
    }

    #[test]
    fn each_bad_file_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (pair(folder.path(), "a.test"), pair(folder.path(), "b.test"));
        let message = |certificate: &Path, key: &Path| {
            read(&Files::new(certificate.to_owned(), key.to_owned())).unwrap_err().to_string()
        };
        assert!(message(&one.certificate, &other.key).contains("b.test.key does not belong to the certificate"));
        assert!(message(&one.key, &one.key).contains("holds no certificate"));
        assert!(message(&one.certificate, &one.certificate).contains("holds no private key"));
        assert!(message(&folder.path().join("gone.crt"), &one.key).contains("cannot read"));
    }
    #[test]
    fn a_chain_is_sent_in_order_whatever_the_order_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (leaf, key) = authority.issue(&["a.test"], 90);
        let (intermediate, root) = (authority.intermediate.pem(), authority.root.pem());
        let stranger = Authority::new().root.pem();
        let read = |certificates: &[&str]| read(&testing::write(folder.path(), &(certificates.concat(), key.clone())));
        let right = read(&[&leaf, &intermediate, &root]).unwrap();
        assert!(!right.sorted && right.linked == 3);
        for (mixed, others) in [
            (vec![leaf.as_str(), &root, &intermediate], 0),
            (vec![&leaf, &stranger, &root, &intermediate], 1),
            (vec![&leaf, &root, &stranger, &intermediate], 1),
        ] {
            let sorted = read(&mixed).unwrap();
            assert!(sorted.sorted && sorted.linked == 3 && sorted.chain.len() == 3 + others);
            assert_eq!(sorted.certified.cert[..3], right.certified.cert);
        }
        let said = read(&[&intermediate, &leaf, &root]).unwrap_err().to_string();
        assert!(said.contains("out of order") && said.contains("its certificate number 2"), "{said}");
    }
}
