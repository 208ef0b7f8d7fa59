//! What TLS with peers needs from files, read while we still may.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::{Upstream, UpstreamTls};
use crate::tls;

/// Why an upstream cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of its `tls`.
    #[error("upstreams.{upstream}.tls: {source}")]
    Files {
        /// Which.
        upstream: Arc<str>,
        /// What is wrong, with the file.
        source: tls::Error,
    },
    /// No certificate could be verified for this name.
    #[error(
        "upstreams.{upstream}: no certificate can be verified for {name:?}, {because}; set `tls.name` to the name that \
         the peers' certificates carry"
    )]
    Name {
        /// Which.
        upstream: Arc<str>,
        /// The name.
        name: String,
        /// Why not.
        because: &'static str,
    },
    /// Its files were read for other settings, or not at all.
    #[error("upstreams.{0}: the files of `tls` were not read")]
    Unread(Arc<str>),
    /// Health checks would verify nothing.
    #[error("the certificates that this machine trusts cannot be read; see SSL_CERT_FILE and SSL_CERT_DIR")]
    TrustStore,
}

/// What all upstreams need from files. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Credentials(BTreeMap<Arc<str>, Arc<Loaded>>);

/// What one needs.
#[derive(PartialEq, Eq)]
pub(super) struct Loaded {
    /// The settings that it was read for.
    tls: UpstreamTls,
    /// Whom to trust; `None`: whom this machine trusts.
    pub(super) authorities: Option<Vec<CertificateDer<'static>>>,
    /// What we show.
    pub(super) pair: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl fmt::Debug for Loaded {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the files of all upstreams.
    ///
    /// # Errors
    /// A file that is not there or not what it should be; a name that no certificate can be verified for.
    pub fn load(upstreams: &[Upstream]) -> Result<Self, Error> {
        let one = |upstream: &Upstream| {
            let failed = |source| Error::Files { upstream: Arc::clone(&upstream.name), source };
            for peer in upstream.peers.iter().filter(|peer| peer.origin.is_secure()) {
                verifiable(upstream, asked_name(upstream, &peer.origin))?;
            }
            let tls = &upstream.tls;
            let authorities = tls.ca.as_deref().map(tls::trusted).transpose().map_err(failed)?;
            let pair = tls.certificate.as_ref().map(tls::pair).transpose().map_err(failed)?;
            let loaded = Loaded { tls: tls.clone(), authorities, pair };
            Ok((Arc::clone(&upstream.name), Arc::new(loaded)))
        };
        Ok(Self(upstreams.iter().map(one).collect::<Result<_, _>>()?))
    }

    /// What was read for this one.
    pub(super) fn of(&self, upstream: &Upstream) -> Result<Arc<Loaded>, Error> {
        let loaded = self.0.get(&upstream.name).filter(|loaded| loaded.tls == upstream.tls);
        loaded.cloned().ok_or_else(|| Error::Unread(Arc::clone(&upstream.name)))
    }
}

/// The name, or the address, that a peer's certificate must carry. Never empty: an origin has a host.
pub(super) fn asked_name<'u>(upstream: &'u Upstream, origin: &'u crate::exchange::Origin) -> &'u str {
    let host = origin.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    upstream.tls.name.as_deref().unwrap_or(bare)
}

/// Whether the name can be asked for and verified as it is.
fn verifiable(upstream: &Upstream, name: &str) -> Result<(), Error> {
    let refused = |because| Err(Error::Name { upstream: Arc::clone(&upstream.name), name: name.to_owned(), because });
    if ServerName::try_from(name).is_err() {
        return refused("which is neither a DNS name nor an address");
    }
    // Pingora would verify another name, with hyphens in their place.
    if name.split_once('.').is_some_and(|(first, rest)| first.contains('_') && rest.contains('.')) {
        return refused("whose first label has an underscore");
    }
    Ok(())
}
