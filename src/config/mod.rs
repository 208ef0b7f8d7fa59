//! What did the operator write, and what does it mean?

use std::path::PathBuf;

use crate::{auth, front, registry, telemetry, tls};

/// Everything the server needs to know, checked: if it exists, every part of it can be honoured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file that was read; `None` for built-in defaults.
    pub source: Option<PathBuf>,
    /// Keys, certificates and the metadata database live here.
    pub state: PathBuf,
    /// Whom to become when started as root; `None`: the owner of the storage root.
    pub user: Option<String>,
    /// The front door.
    pub front: front::Config,
    /// Certificates.
    pub tls: tls::Config,
    /// Tokens and accounts.
    pub auth: auth::Config,
    /// The embedded registry.
    pub registry: registry::Config,
    /// Logs.
    pub telemetry: telemetry::Config,
}
