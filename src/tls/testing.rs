//! Certificates for the tests of this room, below an authority and an intermediate of their own.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::config::Files;

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// When the tests take place.
pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(super) struct Authority {
    pub(super) root: CertifiedIssuer<'static, KeyPair>,
    pub(super) intermediate: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let params = |name: &str| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            params.use_authority_key_identifier_extension = true;
            params
        };
        let key = || KeyPair::generate().unwrap();
        let root = CertifiedIssuer::self_signed(params("root of the tests"), key()).unwrap();
        let intermediate = CertifiedIssuer::signed_by(params("intermediate of the tests"), key(), &root).unwrap();
        Self { root, intermediate }
    }

    /// A certificate for these names, valid from ten days ago for so many days, and its key.
    pub(super) fn issue(&self, names: &[&str], days: u32) -> (String, String) {
        self.issue_from(names, now() - 10 * DAY, days)
    }

    pub(super) fn issue_from(&self, names: &[&str], from: SystemTime, days: u32) -> (String, String) {
        self.issue_for(names, from, days * DAY)
    }

    pub(super) fn issue_for(&self, names: &[&str], from: SystemTime, life: Duration) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (from.into(), (from + life).into());
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.intermediate).unwrap().pem(), key.serialize_pem())
    }

    /// The same with its chain up to the root.
    pub(super) fn whole(&self, names: &[&str], days: u32) -> (String, String) {
        let (certificate, key) = self.issue(names, days);
        (format!("{certificate}{}{}", self.intermediate.pem(), self.root.pem()), key)
    }
}

/// Writes a pair: `a.crt` and `a.key`.
pub(super) fn write(folder: &Path, pair: &(String, String)) -> Files {
    let files = Files::new(folder.join("a.crt"), folder.join("a.key"));
    put(&files.certificate, &pair.0);
    put(&files.key, &pair.1);
    files
}

pub(super) fn put(path: &Path, text: &str) {
    crate::storage::durable::write(path, text.as_bytes(), 0o600).unwrap();
}
