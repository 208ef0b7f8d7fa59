//! Which certificate is shown, and where does it come from?
//!
//! Certificates come from files, or, when the operator names none, from a local authority ([`local`]) that Pierhead makes
//! on first start. [`Certificates`] answers each ClientHello: the certificate that carries the asked name and whose key
//! the client can verify, else the first of the list. Whoever has a newer one puts it in its place
//! (`Certificates::replace`), and the next handshake shows it: nothing else of TLS changes, tickets stay good. [`Watch`]
//! is the one who does: it looks at the files.
//!
//! **Invariants**
//! - A [`Certificates`] that exists can serve: every key belongs to its certificate.
//! - What is put in a place is never worse than what was there ([`Remark`] says what can be bad about it).
//!
//! A port may have TLS of its own ([`Port`]): one certificate, and clients that prove who they are.
//!
//! Certificates that are ordered from an authority are [`acme`]'s. Here they have places behind those of files
//! ([`Certificates::with_ordered`]), where the local authority's stands in for each until it is there.

pub mod acme;
mod clients;
mod config;
mod error;
mod facts;
mod files;
mod key;
pub mod local;
mod patience;
mod policy;
mod remark;
mod served;
mod stamp;
mod status;
pub mod subject;
#[cfg(test)]
mod testing;
mod tickets;
mod watch;

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, ProducesTickets};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

#[cfg(test)]
pub(crate) use clients::testing as client_testing;
pub use clients::{Asking, Demand, Demands, Proof, Revocations, Rule};
pub use config::{Clients, Config, Files, Local, NamedClients, Port, Version};
pub use error::Error;
pub use policy::Policy;
use policy::provider;
pub use remark::Remark;
pub use served::{Certificates, Shown};
pub use status::{Refused, Status};
pub use tickets::Tickets;
pub use watch::{Board, Watch};

/// How many TLS 1.3 tickets a client gets after a handshake, as most servers give: each costs as much as a small
/// answer. Every connection, resumed or not, brings a new one.
const TICKETS: usize = 1;

/// Makes aws-lc-rs the process-wide provider. Call it before anything else touches TLS: Pingora would install another,
/// and with two compiled in rustls refuses to choose.
pub fn install_provider() {
    // An error means that a provider is installed already, which is what we want.
    let _ = aws_lc_rs::default_provider().install_default(); // second call in one process: nothing to do
}

/// What a TLS connection is negotiated by: the versions of the policy, HTTP/2 preferred, stateless tickets whose keys
/// rotate, shared ones or our own.
///
/// # Errors
/// The provider cannot make ticket keys (no randomness).
pub fn server_config(
    certificates: Arc<Certificates>,
    policy: Policy,
    tickets: Option<Tickets>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let tickets: Arc<dyn ProducesTickets> = match tickets {
        Some(shared) => Arc::new(shared),
        None => aws_lc_rs::Ticketer::new()?,
    };
    config_of(certificates, policy.versions(), Arc::new(NoClientAuth), true, Some(tickets)).map(Arc::new)
}

/// What TLS is negotiated by on a port with a certificate of its own, and that certificate. Reads the files.
///
/// # Errors
/// A file that cannot be read or used, or no authority to verify clients by.
pub fn port_config(port: &Port) -> Result<(Arc<ServerConfig>, Arc<Certificates>), Error> {
    let certificates = Arc::new(Certificates::load(std::slice::from_ref(&port.files))?);
    let policy = match port.minimum {
        Version::Tls12 => Policy::Intermediate,
        Version::Tls13 => Policy::Modern,
    };
    let clients = verifier(&port.clients)?;
    let tickets = match port.clients {
        Clients::Anyone => Some(aws_lc_rs::Ticketer::new()?),
        Clients::MayProve(_) | Clients::MustProve(_) => None,
    };
    let config = config_of(Arc::clone(&certificates), policy.versions(), clients, port.http2, tickets)?;
    Ok((Arc::new(config), certificates))
}

/// Without `tickets` no session is resumed: what a client showed is not looked at again then, and may have run out.
fn config_of(
    certificates: Arc<Certificates>,
    versions: &[&'static SupportedProtocolVersion],
    clients: Arc<dyn ClientCertVerifier>,
    http2: bool,
    tickets: Option<Arc<dyn ProducesTickets>>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificates);
    config.alpn_protocols = if http2 { vec![b"h2".to_vec()] } else { Vec::new() };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    config.ignore_client_order = true;
    // A list of 256 sessions, the default, would be full at once.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match tickets {
        Some(tickets) => {
            // A new key every six hours, and the one before is good for as long again.
            config.ticketer = tickets;
            config.send_tls13_tickets = TICKETS;
        }
        None => config.send_tls13_tickets = 0,
    }
    Ok(config)
}

/// Who decides whether a client may come.
fn verifier(clients: &Clients) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let (authorities, must) = match clients {
        Clients::Anyone => return Ok(Arc::new(NoClientAuth)),
        Clients::MayProve(authorities) => (authorities, false),
        Clients::MustProve(authorities) => (authorities, true),
    };
    let roots = Arc::new(files::authorities(authorities)?);
    clients::verifier(&roots, must, Vec::new())
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
    files::read(files)?; // whether it can be used, and can be parsed by those who do not expect to fail
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
