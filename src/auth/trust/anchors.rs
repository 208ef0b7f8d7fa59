//! Which keys may sign tokens?
//!
//! Those in the operator's files: certificates in PEM (`rootcertbundle`) and a JSON Web Key Set (`jwks`). Each key is known
//! under every id that token services name it by: libtrust's (Distribution 2, GitLab), the RFC 7638 thumbprint
//! (Distribution 3), and the `kid` of the key set. Certificates are also roots, for keys that come with a chain (`x5c`).
//!
//! A certificate that is shown as it stands in the bundle needs no issuer; its dates count. A chain is checked by webpki:
//! signatures, dates, basic constraints and path length. What a certificate says about extended key usage does not matter,
//! as in Distribution: none is meant for tokens.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use serde::Deserialize;
use serde_json::Value;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, anchor_from_trusted_cert};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::super::{Error, Trust};
use super::key::{Jwk, Key, libtrust_id};

/// The most keys in both files.
const MAX_KEYS: usize = 256;
/// The largest file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The longest chain in a token.
const MAX_CHAIN: usize = 5;

/// No second at all.
const NEVER: RangeInclusive<i64> = RangeInclusive::new(i64::MAX, i64::MIN);

/// The keys that are trusted.
#[derive(Debug)]
pub(super) struct Anchors {
    keys: Vec<Known>,
    /// The certificates as they stand in the bundle.
    certificates: Vec<CertificateDer<'static>>,
    roots: Vec<Root>,
}

/// A certificate that may issue others. webpki looks at neither the dates nor the path length of a root, so we do.
#[derive(Debug)]
struct Root {
    anchor: TrustAnchor<'static>,
    valid: RangeInclusive<i64>,
    path_length: Option<u32>,
}

#[derive(Debug)]
struct Known {
    key: Key,
    thumbprint: String,
    ids: Vec<String>,
}

impl Anchors {
    /// Reads the files. It blocks.
    pub(super) fn read(trust: &Trust) -> Result<Self, Error> {
        let mut anchors = Self { keys: Vec::new(), certificates: Vec::new(), roots: Vec::new() };
        let files = [(&trust.bundle, Self::add_bundle as Adder), (&trust.key_set, Self::add_key_set as Adder)];
        for (path, add) in files.into_iter().filter_map(|(path, add)| Some((path.as_deref()?, add))) {
            let bytes = read(path)?;
            let before = anchors.keys.len();
            let added = match add(&mut anchors, &bytes) {
                Ok(()) if anchors.keys.len() == before => Err("holds no key that may sign tokens".to_owned()),
                Ok(()) if anchors.keys.len() > MAX_KEYS => Err(format!("makes more than {MAX_KEYS} trusted keys")),
                other => other,
            };
            added.map_err(|problem| Error::Key { path: path.to_owned(), problem })?;
        }
        if anchors.keys.is_empty() {
            return Err(Error::NoTrust);
        }
        Ok(anchors)
    }

    fn add_bundle(&mut self, bytes: &[u8]) -> Result<(), String> {
        for (index, certificate) in CertificateDer::pem_slice_iter(bytes).enumerate() {
            let wrong = |problem: &str| format!("certificate {}: {problem}", index + 1);
            let certificate = certificate.map_err(|error| wrong(&format!("is not PEM: {error}")))?;
            let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| wrong("is not X.509"))?;
            let info = parsed.public_key();
            match Key::of_certificate(info) {
                Some(key) => self.add(key, vec![libtrust_id(info.raw)]),
                // It may still be the root of a chain.
                None => tracing::warn!("{}", wrong("has a key that cannot sign tokens (RSA below 2048 bits?)")),
            }
            self.roots.extend(Root::of(&parsed, &certificate));
            self.certificates.push(certificate);
        }
        Ok(())
    }

    fn add_key_set(&mut self, bytes: &[u8]) -> Result<(), String> {
        let set: Value = serde_json::from_slice(bytes).map_err(|error| format!("is not JSON: {error}"))?;
        let keys =
            set.get("keys").and_then(Value::as_array).ok_or("is not a JSON Web Key Set: it has no list `keys`")?;
        for jwk in keys {
            // RFC 7517 5: keys that an implementation does not understand are to be ignored.
            let Ok(jwk) = Jwk::deserialize(jwk) else { continue };
            let signs = jwk.usage.as_deref().is_none_or(|usage| usage == "sig");
            if let Some(key) = Key::of_jwk(&jwk).filter(|_| signs) {
                self.add(key, jwk.kid.into_iter().collect());
            }
        }
        Ok(())
    }

    fn add(&mut self, key: Key, ids: Vec<String>) {
        match self.keys.iter_mut().find(|known| known.key == key) {
            Some(known) => known.ids.extend(ids),
            None => self.keys.push(Known { thumbprint: key.thumbprint(), key, ids }),
        }
    }

    /// The keys that this id names: one, unless the operator's files give one name to several.
    pub(super) fn named<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Key> {
        let named =
            self.keys.iter().filter(move |known| known.thumbprint == id || known.ids.iter().any(|own| own == id));
        named.map(|known| &known.key)
    }

    /// Whether this very key is one of ours.
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.keys.iter().any(|known| known.key == *key)
    }

    /// All keys.
    pub(super) fn all(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().map(|known| &known.key)
    }

    /// One name of each key, the way that its file would have it.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|known| known.ids.first().unwrap_or(&known.thumbprint).as_str())
    }

    /// The key of the first certificate of a chain (DER, leaf first), if the chain leads to one of ours at this moment,
    /// and the seconds around it in which the same is true.
    pub(super) fn leaf(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Option<(Key, RangeInclusive<i64>)> {
        let (leaf, intermediates) = chain.split_first().filter(|_| chain.len() <= MAX_CHAIN)?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let ours = self.certificates.iter().any(|certificate| certificate.as_ref() == leaf.as_ref());
        let mut holds = valid(&parsed);
        let trusted = if ours {
            holds.contains(&now.as_second())
        } else {
            let seconds = u64::try_from(now.as_second()).ok()?;
            let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let leaf = EndEntityCert::try_from(leaf).ok()?;
            let roots = || self.roots.iter().filter(|root| root.may_issue(intermediates.len(), now));
            // Which of them the path goes through does not matter: too short a time only means to look again.
            for certificate in intermediates {
                let parsed = X509Certificate::from_der(certificate);
                holds = both(&holds, &parsed.map_or(NEVER, |(_, parsed)| valid(&parsed)));
            }
            holds = roots().fold(holds, |holds, root| both(&holds, &root.valid));
            let roots: Vec<_> = roots().map(|root| root.anchor.clone()).collect();
            let algorithms = webpki::ALL_VERIFICATION_ALGS;
            leaf.verify_for_usage(algorithms, &roots, intermediates, time, AnyUsage, None, None).is_ok()
        };
        let key = trusted.then(|| Key::of_certificate(parsed.public_key())).flatten();
        key.map(|key| (key, holds))
    }
}

impl Root {
    fn of(parsed: &X509Certificate<'_>, certificate: &CertificateDer<'_>) -> Option<Self> {
        let constraints = parsed.basic_constraints().ok()??.value;
        let anchor = anchor_from_trusted_cert(certificate).ok()?.to_owned();
        constraints.ca.then(|| Self { anchor, valid: valid(parsed), path_length: constraints.path_len_constraint })
    }

    fn may_issue(&self, intermediates: usize, now: Timestamp) -> bool {
        let deep_enough = |length| usize::try_from(length).is_ok_and(|length| intermediates <= length);
        self.valid.contains(&now.as_second()) && self.path_length.is_none_or(deep_enough)
    }
}

fn valid(certificate: &X509Certificate<'_>) -> RangeInclusive<i64> {
    let validity = certificate.validity();
    validity.not_before.timestamp()..=validity.not_after.timestamp()
}

fn both(one: &RangeInclusive<i64>, other: &RangeInclusive<i64>) -> RangeInclusive<i64> {
    *one.start().max(other.start())..=*one.end().min(other.end())
}

type Adder = fn(&mut Anchors, &[u8]) -> Result<(), String>;

/// Whatever a certificate says it is for.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    super::super::watched::read(path, MAX_FILE)
}
