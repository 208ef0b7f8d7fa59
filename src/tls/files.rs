//! Certificates and keys from PEM files.

use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::config::Files;

/// Why a certificate cannot be served, with the file and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing or not ours to read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Not PEM, or nothing of the kind that is needed in it.
    #[error("{} holds no {wanted} in PEM form (-----BEGIN ...-----)", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// `certificate` or `unencrypted private key`.
        wanted: &'static str,
    },
    /// The certificate's inside cannot be read.
    #[error("{} holds a certificate that cannot be parsed; is it damaged?", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The key is for another certificate.
    #[error(
        "the key {} does not belong to the certificate {}: name the pair that was made together (the first certificate of the file must be the server's own)",
        key.display(), certificate.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A kind of key that TLS servers do not use.
    #[error("the key {} cannot be used: {reason}; RSA (2048 bits or more), ECDSA P-256 and P-384, and Ed25519 keys can", key.display())]
    Unusable {
        /// The key's file.
        key: PathBuf,
        /// The provider's word.
        reason: rustls::Error,
    },
    /// The local authority's key is needed and gone.
    #[error(
        "{} is missing, and without it no new certificate can be signed: put it back, or remove {} as well to make a new authority (clients must then trust the new one)",
        key.display(), certificate.display()
    )]
    AuthorityKey {
        /// Where the key should be.
        key: PathBuf,
        /// The authority's certificate.
        certificate: PathBuf,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate for {names}: {source}")]
    Making {
        /// The names it was to carry.
        names: String,
        /// The library's word.
        source: rcgen::Error,
    },
    /// Clients are to prove who they are, and there is nothing to verify them by.
    #[error("clients cannot be verified: {0}")]
    Clients(#[source] rustls::server::VerifierBuilderError),
    /// Whom this machine trusts is not known.
    #[error("the certificates that this machine trusts cannot be read: {0}; see SSL_CERT_FILE and SSL_CERT_DIR")]
    Machine(#[source] io::Error),
    /// TLS itself.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
    /// A file that we make could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// Reads one pair: the DNS names of the certificate, and the chain with its key.
pub(super) fn read(pair: &Files) -> Result<(Vec<String>, CertifiedKey), Error> {
    let chain = chain(&pair.certificate)?;
    let key = key(&pair.key)?;
    let names = match chain.first() {
        Some(leaf) => parse(leaf, &pair.certificate)?.names,
        None => Vec::new(),
    };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            Error::Mismatch { certificate: pair.certificate.clone(), key: pair.key.clone() }
        }
        reason => Error::Unusable { key: pair.key.clone(), reason },
    })?;
    Ok((names, certified))
}

/// The same as bytes.
pub(super) fn pair(files: &Files) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    read(files)?; // whether it can be used
    let chain = chain(&files.certificate)?;
    // Whoever parses these later does not expect to fail.
    chain.iter().try_for_each(|certificate| parse(certificate, &files.certificate).map(drop))?;
    Ok((chain, key(&files.key)?))
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let pem = read_file(path)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| Error::Empty { path: path.to_owned(), wanted: "unencrypted private key" })
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
        parse(certificate, path)?;
        RootCertStore::empty().add(certificate.clone()).map_err(|_| Error::Damaged { path: path.to_owned() })?;
    }
    Ok(certificates)
}

/// What we need to know of a certificate.
pub(super) struct Leaf {
    /// The DNS names it is valid for.
    pub(super) names: Vec<String>,
    /// The IP addresses it is valid for, as text.
    pub(super) addresses: Vec<String>,
    /// Seconds since 1970 until which it is valid.
    pub(super) not_after: i64,
}

/// The first certificate of a file.
pub(super) fn leaf(path: &Path) -> Result<Leaf, Error> {
    let chain = chain(path)?;
    parse(&chain[0], path)
}

/// All certificates of a file, at least one.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read_file(path)?;
    let certificates: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(Error::Empty { path: path.to_owned(), wanted: "certificate" }),
    }
}

fn parse(der: &CertificateDer<'_>, path: &Path) -> Result<Leaf, Error> {
    let damaged = || Error::Damaged { path: path.to_owned() };
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| damaged())?;
    let not_after = certificate.validity().not_after.timestamp();
    let mut leaf = Leaf { names: Vec::new(), addresses: Vec::new(), not_after };
    let alternatives = certificate.subject_alternative_name().map_err(|_| damaged())?;
    for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => leaf.names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => leaf.addresses.extend(address(bytes)),
            _ => {}
        }
    }
    Ok(leaf)
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| std::net::Ipv6Addr::from(sixteen).to_string())
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(folder: &Path, name: &str) -> Files {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned(), "10.0.0.1".to_owned()]).unwrap();
        let files = Files { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) };
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
        assert_eq!(read(&files).unwrap().0, ["a.test"]);
        assert_eq!(leaf(&files.certificate).unwrap().addresses, ["10.0.0.1"]);
    }

    #[test]
    fn each_bad_file_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (pair(folder.path(), "a.test"), pair(folder.path(), "b.test"));
        let message = |certificate: &Path, key: &Path| {
            read(&Files { certificate: certificate.to_owned(), key: key.to_owned() }).unwrap_err().to_string()
        };
        assert!(message(&one.certificate, &other.key).contains("b.test.key does not belong to the certificate"));
        assert!(message(&one.key, &one.key).contains("holds no certificate"));
        assert!(message(&one.certificate, &one.certificate).contains("holds no unencrypted private key"));
        assert!(message(&folder.path().join("gone.crt"), &one.key).contains("cannot read"));
    }
}
