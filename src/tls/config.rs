//! What the operator may say about certificates, checked.

use std::path::PathBuf;

use super::{Policy, acme};

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Certificates from files, chosen by the names they carry. The first is shown to clients that name nobody we know.
    pub certificates: Vec<Files>,
    /// What is agreed to on every listener, but for an internal port with TLS of its own.
    pub policy: Policy,
    /// When there are no files: a local authority and a certificate of our own. Also until there is an ordered one.
    pub local: Local,
    /// Certificates that are ordered from an authority, shown behind those of files.
    pub acme: Option<acme::Config>,
    /// Which clients may come by which name. The first that has the name counts.
    pub clients: Vec<NamedClients>,
    /// Secrets that ticket keys are derived from, each the content of a file (32 bytes or more), so that several nodes
    /// accept each other's tickets: the first is used for new ones. None: each process has keys of its own.
    pub ticket_keys: Vec<PathBuf>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// PEM: the certificate, then its chain.
    pub certificate: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
    /// The key's password, in the first line, if it has one.
    pub password: Option<PathBuf>,
}

impl Files {
    /// A key without a password.
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key, password: None }
    }
}

/// Which clients may come by some names, by the certificates that they show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedClients {
    /// The names, in lower case, `*.` for a wildcard; none: every name.
    pub names: Vec<String>,
    /// Whose certificates count.
    pub clients: Clients,
    /// How many certificates may lie between a client's and the authority's.
    pub depth: usize,
    /// Lists of certificates that are withdrawn (PEM).
    pub revoked: Vec<PathBuf>,
    /// The request header that says whose certificate it was; it is taken away from every client's request.
    pub header: String,
}

/// The local authority: a folder and the names its certificate must carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    /// Where `ca.crt`, `ca.key`, `server.crt` and `server.key` are kept.
    pub directory: PathBuf,
    /// DNS names and IP addresses, as text.
    pub names: Vec<String>,
}

/// TLS of one port that has a certificate of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// What is shown, whatever name the client asks for.
    pub files: Files,
    /// Which clients may come.
    pub clients: Clients,
    /// The oldest version of the protocol.
    pub minimum: Version,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
}

impl Port {
    /// Any client, TLS 1.2 and HTTP/2.
    pub fn new(files: Files) -> Self {
        Self { files, clients: Clients::Anyone, minimum: Version::Tls12, http2: true }
    }
}

/// Which clients may come, by the certificates that they show. A certificate that nobody verifies would prove nothing,
/// so there is no way to ask for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clients {
    /// Nobody is asked for a certificate.
    Anyone,
    /// Those without a certificate, and those with one that these authorities (PEM) signed.
    MayProve(Vec<PathBuf>),
    /// Only those with a certificate that these authorities (PEM) signed.
    MustProve(Vec<PathBuf>),
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}
