//! What the operator may say about certificates, checked.

use std::path::PathBuf;

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Certificates from files, chosen by the names they carry. The first is shown to clients that name nobody we know.
    pub certificates: Vec<Files>,
    /// When there are no files: a local authority and a certificate of our own.
    pub local: Local,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// PEM: the certificate, then its chain.
    pub certificate: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
}

/// The local authority: a folder and the names its certificate must carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    /// Where `ca.crt`, `ca.key`, `server.crt` and `server.key` are kept.
    pub directory: PathBuf,
    /// DNS names and IP addresses, as text.
    pub names: Vec<String>,
}
