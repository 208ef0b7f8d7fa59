//! Which certificate is shown, and where does it come from?
//!
//! Certificates come from files, or, when the operator names none, from a local authority ([`local`]) that Pierhead makes
//! on first start. [`Certificates`] answers each ClientHello: the certificate that carries the asked name and whose key
//! the client can verify, else the first of the list.
//!
//! **Invariant:** a [`Certificates`] that exists can serve: every key belongs to its certificate.
//!
//! A port may have TLS of its own ([`Port`]): one certificate, and clients that prove who they are.
//!
//! Absent for now: watching the files, ACME.

mod config;
mod files;
pub mod local;
mod policy;

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

pub use config::{Clients, Config, Files, Local, Port, Version};
pub use files::Error;
pub use policy::Policy;
use policy::provider;

/// How many TLS 1.3 tickets a client gets after a handshake. One is enough for clients that resume one connection at a
/// time, two let a client open a second one before the first has brought new tickets.
const TICKETS: usize = 2;

/// Makes aws-lc-rs the process-wide provider. Call it before anything else touches TLS: Pingora would install another,
/// and with two compiled in rustls refuses to choose.
pub fn install_provider() {
    // An error means that a provider is installed already, which is what we want.
    let _ = aws_lc_rs::default_provider().install_default(); // second call in one process: nothing to do
}

/// The certificates that we can show, in the operator's order.
#[derive(Debug)]
pub struct Certificates {
    entries: Vec<Entry>,
}

/// A certificate, its key and the DNS names that it is valid for.
#[derive(Debug)]
struct Entry {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl Certificates {
    /// Reads certificates and keys from files.
    ///
    /// # Errors
    /// A file that cannot be read or holds no certificate or key, or a key that belongs to another certificate.
    pub fn load(files: &[Files]) -> Result<Self, Error> {
        let entries =
            files.iter().map(|pair| files::read(pair).map(|(names, key)| Entry { names, key: Arc::new(key) }));
        Ok(Self { entries: entries.collect::<Result<_, _>>()? })
    }

    /// Whether whoever asks for the one name is shown the same certificate as for the other.
    pub fn same_for(&self, one: &str, other: &str) -> bool {
        let shown = |name| self.choose(Some(name), |_| true);
        match (shown(one), shown(other)) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one, &other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// The certificate for a server name that the client can verify: an exact name wins over a wildcard, earlier wins
    /// over later; when nothing fits, the first that the client can verify, else the first.
    fn choose(&self, name: Option<&str>, verifiable: impl Fn(&CertifiedKey) -> bool) -> Option<Arc<CertifiedKey>> {
        let usable = || self.entries.iter().filter(|entry| verifiable(&entry.key));
        let exact =
            |wanted: &str| usable().find(|entry| entry.names.iter().any(|name| name.eq_ignore_ascii_case(wanted)));
        let wildcard = |wanted: &str| {
            let (_, parent) = wanted.split_once('.')?;
            usable().find(|entry| {
                entry
                    .names
                    .iter()
                    .any(|name| name.strip_prefix("*.").is_some_and(|rest| rest.eq_ignore_ascii_case(parent)))
            })
        };
        let named = name.and_then(|wanted| exact(wanted).or_else(|| wildcard(wanted)));
        named.or_else(|| usable().next()).or(self.entries.first()).map(|entry| entry.key.clone())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), |key| key.key.choose_scheme(hello.signature_schemes()).is_some())
    }
}

/// Until when the first certificates of these files are valid: the file, and seconds since 1970.
///
/// # Errors
/// A file that cannot be read or holds no certificate.
pub fn expiries<'f>(pairs: impl IntoIterator<Item = &'f Files>) -> Result<Vec<(String, i64)>, Error> {
    let expiry = |pair: &Files| Ok((pair.certificate.display().to_string(), files::leaf(&pair.certificate)?.not_after));
    pairs.into_iter().map(expiry).collect()
}

/// What a TLS connection is negotiated by: the versions of the policy, HTTP/2 preferred, stateless tickets whose keys
/// rotate.
///
/// # Errors
/// The provider cannot make ticket keys (no randomness).
pub fn server_config(certificates: Arc<Certificates>, policy: Policy) -> Result<Arc<ServerConfig>, rustls::Error> {
    config_of(certificates, policy.versions(), Arc::new(NoClientAuth), true)
}

/// What TLS is negotiated by on a port with a certificate of its own. Reads the files.
///
/// # Errors
/// A file that cannot be read or used, or no authority to verify clients by.
pub fn port_config(port: &Port) -> Result<Arc<ServerConfig>, Error> {
    let certificates = Certificates::load(std::slice::from_ref(&port.files))?;
    let policy = match port.minimum {
        Version::Tls12 => Policy::Intermediate,
        Version::Tls13 => Policy::Modern,
    };
    let clients = verifier(&port.clients)?;
    Ok(config_of(Arc::new(certificates), policy.versions(), clients, port.http2)?)
}

fn config_of(
    certificates: Arc<Certificates>,
    versions: &[&'static SupportedProtocolVersion],
    clients: Arc<dyn ClientCertVerifier>,
    http2: bool,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificates);
    config.alpn_protocols = if http2 { vec![b"h2".to_vec()] } else { Vec::new() };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    config.ignore_client_order = true;
    // Keys of its own: a ticket of a port that asks for no certificate is worth nothing on one that does. A new key every
    // six hours, and the one before is good for as long again. The default, a list of 256 sessions, would be full at once.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = TICKETS;
    Ok(Arc::new(config))
}

/// Who decides whether a client may come.
fn verifier(clients: &Clients) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let (authorities, must) = match clients {
        Clients::Anyone => return Ok(Arc::new(NoClientAuth)),
        Clients::MayProve(authorities) => (authorities, false),
        Clients::MustProve(authorities) => (authorities, true),
    };
    let roots = Arc::new(files::authorities(authorities)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let builder = if must { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(Error::Clients)
}

/// The authorities of a file, to trust them when we are the client.
///
/// # Errors
/// The file cannot be read, or holds no certificate, or one that nobody can trust by.
pub fn trusted(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    files::trusted(path)
}

/// A certificate with its chain, and its key, to show them when we are the client.
///
/// # Errors
/// A file that cannot be read or used, or a key that belongs to another certificate.
pub fn pair(files: &Files) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    files::pair(files)
}

/// What we trust when we are the client: whom this machine trusts.
///
/// # Errors
/// The machine's certificates cannot be read.
pub fn client_config() -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    // Machines carry some that are older than today's rules; the others do.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().map_err(Error::Machine)?);
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(rustls::ALL_VERSIONS)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(names: &[&str]) -> Entry {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = rcgen::CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap();
        let der = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = CertifiedKey::from_der(vec![certificate.der().clone()], der, &aws_lc_rs::default_provider()).unwrap();
        Entry { names, key: Arc::new(key) }
    }

    #[test]
    fn exact_names_win_over_wildcards_and_strangers_get_the_first() {
        let list = Certificates {
            entries: vec![entry(&["first.test"]), entry(&["*.example.test"]), entry(&["registry.example.test"])],
        };
        let chosen = |name: Option<&str>| {
            let key = list.choose(name, |_| true).unwrap();
            list.entries.iter().position(|entry| Arc::ptr_eq(&entry.key, &key)).unwrap()
        };
        assert_eq!(chosen(Some("Registry.Example.Test")), 2);
        assert_eq!(chosen(Some("other.example.test")), 1);
        assert_eq!(chosen(Some("deep.other.example.test")), 0, "a wildcard stands for one label");
        assert_eq!(chosen(None), 0);
        assert_eq!(chosen(Some("stranger.test")), 0);
        assert!(list.same_for("a.example.test", "B.example.test") && list.same_for("first.test", "stranger.test"));
        assert!(!list.same_for("a.example.test", "registry.example.test"));
    }

    #[test]
    fn a_certificate_that_the_client_cannot_verify_is_passed_over() {
        let list = Certificates { entries: vec![entry(&["a.test"]), entry(&["a.test"])] };
        let first = list.entries[0].key.clone();
        let chosen = list.choose(Some("a.test"), |key| !std::ptr::eq(key, &raw const *first)).unwrap();
        assert!(Arc::ptr_eq(&chosen, &list.entries[1].key));
    }
}
