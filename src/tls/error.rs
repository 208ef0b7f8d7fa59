//! What can be wrong with certificates and keys, said so that whoever reads it knows what to do.

use std::io;
use std::path::PathBuf;

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
        /// `certificate` or `private key`.
        wanted: &'static str,
    },
    /// The key is behind a password, and no file with it is named.
    #[error("{} is encrypted: name the file that holds its password (`password` in `tls.certificates`), or take the password away: openssl pkey -in {} -out NEW.key", key.display(), key.display())]
    Encrypted {
        /// The key's file.
        key: PathBuf,
    },
    /// The key is encrypted in a way that is not ours.
    #[error("{} is encrypted in a way that is out of use ({how}); this converts it, and asks for its password and for a new one: openssl pkcs8 -topk8 -v2 aes-256-cbc -in {} -out NEW.key", key.display(), key.display())]
    Outdated {
        /// The key's file.
        key: PathBuf,
        /// The way.
        how: &'static str,
    },
    /// The password is for another key.
    #[error("the first line of {} is not the password of the key {}", password.display(), key.display())]
    Password {
        /// The key's file.
        key: PathBuf,
        /// The password's file.
        password: PathBuf,
    },
    /// The server's own certificate comes later.
    #[error("the chain in {} is out of order: the key {} belongs to its certificate number {number}, and the server's own must come first, then whoever signed it, and so on", certificate.display(), key.display())]
    Order {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Which of the file's, from 1.
        number: usize,
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
    /// A secret that could be guessed.
    #[error("{} is too short to be a secret for tickets: {least} bytes or more, say of `openssl rand -out {} 48`, the same on every node", path.display(), path.display())]
    ShortSecret {
        /// The file.
        path: PathBuf,
        /// How many bytes it must have.
        least: usize,
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

impl Error {
    /// Whether it is that a file is not there.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
