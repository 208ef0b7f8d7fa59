//! Certificates of an authority that is the test's own.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// Certificates of one authority.
pub(crate) struct Certificates(CertifiedIssuer<'static, KeyPair>);

impl Certificates {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of the tests");
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Another below this one.
    pub(crate) fn intermediate(&self) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an intermediate of the tests");
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::signed_by(params, key, &self.0).expect("an authority"))
    }

    /// The authority's own, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key, in PEM.
    pub(crate) fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.0).expect("a certificate").pem(), key.serialize_pem())
    }

    /// Writes what a server of this name shows: `server.crt`, `server.key`, and both as `server.pem`.
    pub(crate) fn write_server(&self, directory: &Path, name: &str) -> PathBuf {
        let (certificate, key) = self.issue(name, ExtendedKeyUsagePurpose::ServerAuth);
        let write = |file: &str, text: &str| fs::write(directory.join(file), text).expect("a file can be written");
        write("server.crt", &certificate);
        write("server.key", &key);
        write("server.pem", &format!("{certificate}{key}"));
        directory.to_owned()
    }
}
