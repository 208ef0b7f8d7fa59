//! Which clients may come by which name, and what did one prove?
//!
//! A [`Demand`] is what a name asks of clients in the handshake: a certificate that its authorities signed, which must be
//! shown or may. Which one holds depends on the name that the client asks TLS for, so [`Demands`] is asked twice: in the
//! handshake for that name, and for each request for the name that it is about. Whoever serves lets nobody have by the
//! one what is demanded for the other, and goes by what holds at the time of the request: a [`Proof`] is good for as long
//! as the certificate would still be let in.
//!
//! **Invariants**
//! - A certificate that is shown is verified, also where none must be: with a bad one the handshake fails, and nobody is
//!   taken for anonymous who showed one. Later, on the connection that is kept, one that is good no more is as none.
//! - Nobody resumes a session here: a ticket would be good for hours after a certificate has run out or was withdrawn, for
//!   it is not verified again. A full handshake costs a client that has a certificate little beside a push.
//! - Where there are lists of what was withdrawn, each certificate of the way up to the authority must be in the reach of
//!   one that has not run out (as NGINX has it with `ssl_crl`): what cannot be known is not let in.
//!
//! Absent on purpose: OCSP and lists fetched from the addresses in certificates (a client could make us ask anybody).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::config::{Clients, NamedClients};
use super::facts::is_wildcard_for;
use super::policy::provider;
use super::stamp::{Stamp, stamp};
use super::{Certificates, Error, Policy, files, patience, subject};
pub use proof::{Asking, Proof};

/// How often we look whether lists of withdrawn certificates have changed.
const LOOK: Duration = Duration::from_secs(1);

/// What was read of a rule: it may need rights that are given up later.
#[derive(Debug)]
pub struct Rule {
    names: Vec<String>,
    header: String,
    verifier: Option<Arc<Verifier>>,
}

impl Rule {
    /// Reads the authorities, and the lists of what they withdrew.
    ///
    /// # Errors
    /// A file that cannot be read or used.
    pub fn read(clients: &NamedClients) -> Result<Self, Error> {
        let verifier = Verifier::read(clients)?.map(Arc::new);
        Ok(Self { names: clients.names.clone(), header: clients.header.clone(), verifier })
    }
}

/// What names ask of clients.
#[derive(Debug, Default)]
pub struct Demands {
    /// The names, none for every name, and what holds for them. The first that fits counts.
    rules: Vec<(Vec<String>, Option<Arc<Demand>>)>,
    headers: Vec<String>,
}

impl Demands {
    /// What holds by these rules. `certificates` are shown to clients that are asked for theirs.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(rules: Vec<Rule>, certificates: &Arc<Certificates>, policy: Policy) -> Result<Self, Error> {
        let mut demands = Self::default();
        for Rule { names, header, verifier } in rules {
            let demand = verifier.map(|verifier| Demand::new(verifier, &header, certificates, policy)).transpose()?;
            demands.rules.push((names, demand.map(Arc::new)));
            if !demands.headers.contains(&header) {
                demands.headers.push(header);
            }
        }
        Ok(demands)
    }

    /// What is demanded of a client that asks for this name, if anything.
    pub fn of(&self, name: Option<&str>) -> Option<&Arc<Demand>> {
        let name = name.map(|name| name.strip_suffix('.').unwrap_or(name));
        let is = |own: &String, name: &str| own.eq_ignore_ascii_case(name) || is_wildcard_for(own, name);
        let fits =
            |names: &[String]| names.is_empty() || name.is_some_and(|name| names.iter().any(|own| is(own, name)));
        self.rules.iter().find(|(names, _)| fits(names))?.1.as_ref()
    }

    /// Whether only we may write this header of a request. Programs that know headers as `HTTP_X_Y` take several
    /// spellings for the same (CVE-2024-45614).
    pub fn is_ours(&self, header: &str) -> bool {
        self.headers.iter().any(|ours| spelled_the_same(ours, header))
    }

    /// The lists that must be looked after.
    pub fn revocations(&self) -> Revocations {
        let verifiers = self.rules.iter().filter_map(|(_, demand)| Some(Arc::clone(&demand.as_ref()?.verifier)));
        Revocations(verifiers.filter(|verifier| !verifier.terms.revoked.is_empty()).collect())
    }
}

fn spelled_the_same(one: &str, other: &str) -> bool {
    let letter = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'_' };
    one.len() == other.len() && one.bytes().map(letter).eq(other.bytes().map(letter))
}

/// What is asked of a client.
#[derive(Debug)]
pub struct Demand {
    /// What TLS is negotiated by.
    config: Arc<ServerConfig>,
    verifier: Arc<Verifier>,
    header: String,
}

impl Demand {
    fn new(
        verifier: Arc<Verifier>,
        header: &str,
        certificates: &Arc<Certificates>,
        policy: Policy,
    ) -> Result<Self, Error> {
        let clients: Arc<dyn ClientCertVerifier> = verifier.clone();
        let config = super::config_of(Arc::clone(certificates), policy.versions(), clients, true, None)?;
        Ok(Self { config: Arc::new(config), verifier, header: header.to_owned() })
    }

    /// What TLS is negotiated by.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Whether nobody may come without a certificate.
    pub fn is_required(&self) -> bool {
        self.verifier.must
    }

    /// Whether the other demands the same of clients.
    pub fn is_as(&self, other: &Self) -> bool {
        let (own, other) = (&self.verifier, &other.verifier);
        Arc::ptr_eq(own, other)
            || (own.must == other.must && own.terms == other.terms && own.roots.roots == other.roots.roots)
    }

    /// The header that says whose certificate it was.
    pub fn header(&self) -> &str {
        &self.header
    }
}

/// What of a rule decides whether a client may come, beside the authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Terms {
    depth: usize,
    revoked: Vec<std::path::PathBuf>,
}

/// Who decides whether a client may come. What was withdrawn may change meanwhile.
#[derive(Debug)]
pub(super) struct Verifier {
    terms: Terms,
    must: bool,
    roots: Arc<RootCertStore>,
    hints: Vec<DistinguishedName>,
    now: ArcSwap<Arc<dyn ClientCertVerifier>>,
    /// How the lists were just before they were read.
    seen: Mutex<Vec<Stamp>>,
}

impl Verifier {
    /// `None`: nobody is asked.
    fn read(clients: &NamedClients) -> Result<Option<Self>, Error> {
        let NamedClients { clients, depth, revoked, names: _, header: _ } = clients;
        let (authorities, must) = match clients {
            Clients::Anyone => return Ok(None),
            Clients::MayProve(authorities) => (authorities, false),
            Clients::MustProve(authorities) => (authorities, true),
        };
        let terms = Terms { depth: *depth, revoked: revoked.clone() };
        let roots = Arc::new(files::authorities(authorities)?);
        let seen = terms.stamps();
        let now = verifier(&roots, must, terms.lists()?)?;
        let (hints, now) = (roots.subjects(), ArcSwap::from_pointee(now));
        Ok(Some(Self { terms, must, roots, hints, now, seen: Mutex::new(seen) }))
    }

    /// Reads the lists anew if they have changed. What cannot be used changes nothing.
    fn look(&self) {
        let stamps = self.terms.stamps();
        if *self.seen.lock() == stamps {
            return;
        }
        *self.seen.lock() = stamps;
        let lists = || self.terms.revoked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        match self.terms.lists().and_then(|read| verifier(&self.roots, self.must, read)) {
            Ok(verifier) => {
                self.now.store(Arc::new(verifier));
                tracing::info!(lists = lists(), "clients are verified by changed lists of withdrawn certificates");
            }
            Err(error) => tracing::error!(
                lists = lists(),
                "changed lists of withdrawn certificates cannot be used, those before stay: {error}"
            ),
        }
    }
}

impl Terms {
    fn stamps(&self) -> Vec<Stamp> {
        self.revoked.iter().map(|path| stamp(path)).collect()
    }

    /// All lists of the files.
    fn lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
        let mut all = Vec::new();
        for path in &self.revoked {
            let pem = files::read_file(path)?;
            let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
            match lists {
                Ok(lists) if !lists.is_empty() => all.extend(lists),
                _ => {
                    return Err(Error::Empty {
                        path: path.clone(),
                        wanted: "list of withdrawn certificates (X509 CRL)",
                    });
                }
            }
        }
        Ok(all)
    }
}

/// Who verifies clients by the authorities and by what these withdrew.
pub(super) fn verifier(
    roots: &Arc<RootCertStore>,
    must: bool,
    lists: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider());
    let builder = builder.with_crls(lists).enforce_revocation_expiration();
    let builder = if must { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(Error::Clients)
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.must
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if subject::of(own).is_none() {
            return Err(CertificateError::BadEncoding.into()); // nobody could be told whose it is
        }
        self.now.load().verify_client_cert(own, &within_reach(self.terms.depth, own, others), now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.now.load().verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.now.load().verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.now.load().supported_verify_schemes()
    }
}

/// Those of the others that are at most so many steps above the client's own, by the names of who signed whom. Authorities
/// of one name are one step, however many there are: one that signs itself anew by its own name could have signed the
/// client's certificate as well.
fn within_reach<'c>(depth: usize, own: &CertificateDer<'_>, others: &[CertificateDer<'c>]) -> Vec<CertificateDer<'c>> {
    let names = |der: &[u8]| {
        let (_, read) = X509Certificate::from_der(der).ok()?;
        Some((read.subject().as_raw().to_vec(), read.issuer().as_raw().to_vec()))
    };
    let mut wanted: Vec<Vec<u8>> = names(own).into_iter().map(|(_, issuer)| issuer).collect();
    let mut left: Vec<_> = others.iter().filter_map(|other| Some((other, names(other)?))).collect();
    let mut found = Vec::new();
    for _ in 0..depth {
        let (next, rest): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, (subject, _))| wanted.contains(subject));
        left = rest;
        wanted = next.iter().map(|(_, (_, issuer))| issuer.clone()).collect();
        found.extend(next.into_iter().map(|(certificate, _)| certificate.clone()));
    }
    found
}

/// Lists of withdrawn certificates, which change more often than anything else does.
#[derive(Debug)]
pub struct Revocations(Vec<Arc<Verifier>>);

impl Revocations {
    /// Puts what changes in force, for ever.
    pub async fn keep(self) {
        let Self(verifiers) = self;
        if verifiers.is_empty() {
            return;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            let verifiers = verifiers.clone();
            let look = move || verifiers.iter().for_each(|verifier| verifier.look());
            let looked = patience::look("lists of withdrawn certificates", tokio::task::spawn_blocking(look));
            if let Err(error) = looked.await {
                return tracing::error!(%error, "lists of withdrawn certificates are no longer watched");
            }
        }
    }
}

mod proof;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
