//! Authorities of clients for tests: a root and the authorities below it, each signed by the one before.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::super::testing::put;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) struct ClientAuthority {
    pub(crate) line: Vec<CertifiedIssuer<'static, KeyPair>>,
}

/// What a client shows.
pub(crate) struct Client {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl ClientAuthority {
    /// With so many authorities between the root and the clients.
    pub(crate) fn new(name: &str, between: usize) -> Self {
        let params = |place: usize| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, format!("{name} {place}"));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params
        };
        let mut line = vec![CertifiedIssuer::self_signed(params(0), KeyPair::generate().unwrap()).unwrap()];
        for place in 1..=between {
            let next =
                CertifiedIssuer::signed_by(params(place), KeyPair::generate().unwrap(), &line[place - 1]).unwrap();
            line.push(next);
        }
        Self { line }
    }

    /// Writes the root for whoever verifies.
    pub(crate) fn file(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        put(&path, &self.line[0].pem());
        path
    }

    /// A client's certificate from the last of the line, with the chain below the root.
    pub(crate) fn client(&self, name: &str, serial: u64) -> Client {
        self.client_for(name, serial, ExtendedKeyUsagePurpose::ClientAuth, 2 * DAY)
    }

    /// The same for something, valid from a day ago for so long.
    pub(crate) fn client_for(&self, name: &str, serial: u64, usage: ExtendedKeyUsagePurpose, good: Duration) -> Client {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![usage];
        let from = SystemTime::now() - DAY;
        (params.not_before, params.not_after) = (from.into(), (from + good).into());
        let key = KeyPair::generate().unwrap();
        let own = params.signed_by(&key, self.line.last().unwrap()).unwrap().der().clone();
        let between = self.line[1..].iter().rev().map(|authority| authority.der().clone());
        let chain = std::iter::once(own).chain(between).collect();
        Client { chain, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }

    /// What one of the line withdrew, good for so long from a day ago.
    pub(crate) fn withdrawn(&self, place: usize, serials: &[u64], good: Duration) -> String {
        let from = SystemTime::now() - DAY;
        let one = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: from.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: from.into(),
            next_update: (from + good).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(one).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.line[place]).unwrap().pem().unwrap()
    }
}
