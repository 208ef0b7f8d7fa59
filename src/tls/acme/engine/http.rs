//! What do we need of the web to speak with an authority?
//!
//! Whom to trust (`tls.acme.ca`, else the machine), the proxies of the environment, and patience with an end.

use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};

use super::super::super::{client_config, policy::provider, trusted};
use super::{Config, Failure, Kind};

/// How long one call may take, from the connection to the last byte of the answer.
pub(super) const CALL: Duration = Duration::from_secs(30);

/// Whom to trust for the authority's directory.
pub(super) fn trust(config: &Config) -> Result<Arc<ClientConfig>, Failure> {
    let made = match &config.ca {
        None => client_config(),
        Some(path) => trusted(path).and_then(|authorities| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(authorities);
            let builder =
                ClientConfig::builder_with_provider(provider()).with_protocol_versions(rustls::ALL_VERSIONS)?;
            Ok(builder.with_root_certificates(roots).with_no_client_auth())
        }),
    };
    made.map(Arc::new).map_err(|error| {
        let key = if config.ca.is_some() { " (tls.acme.ca)" } else { "" };
        Failure {
            kind: Kind::Ours,
            reason: format!("whom to trust for {} is not known{key}: {error}", config.directory),
        }
    })
}

/// Whether the environment names a proxy for HTTPS. Which hosts go without it (`NO_PROXY`) is the client's to know.
pub(super) fn proxied() -> bool {
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    names.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}
