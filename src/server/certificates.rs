//! What does TLS show, and who keeps it fresh?
//!
//! Read in two steps, because what only root may read must be read before the rights are given up, and the local authority
//! belongs to whoever we are then.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::{AbortHandle, JoinSet};

use super::Error;
use super::privileges::current_user;
use crate::config::Settings;
use crate::front;
use crate::telemetry::Metrics;
use crate::tls::{self, Board, Certificates, Remark, Shown, Watch, local};

/// What was read from the files that the operator named.
pub(super) struct FromFiles {
    usual: Option<Certificates>,
    internal: Option<(Arc<rustls::ServerConfig>, Arc<Certificates>)>,
    upstreams: front::Credentials,
}

/// Everything that TLS needs.
pub(super) struct Loaded {
    /// For the front door.
    pub(super) tls: front::Tls,
    /// To be watched.
    pub(super) shown: Vec<Shown>,
    /// The local authority, when there are no certificates of the operator's.
    pub(super) authority: Option<local::Authority>,
}

impl Loaded {
    /// What is wrong with what is shown.
    pub(super) fn remarks(&self, now: SystemTime) -> Vec<Remark> {
        self.shown.iter().flat_map(|shown| shown.remarks(now)).collect()
    }
}

impl FromFiles {
    pub(super) fn read(settings: &Settings) -> Result<Self, Error> {
        let named = &settings.tls.certificates;
        let usual = if named.is_empty() { None } else { Some(Certificates::load(named)?) };
        let internal = settings.front.internal.tls.as_ref().map(tls::port_config).transpose()?;
        Ok(Self { usual, internal, upstreams: front::Credentials::load(&settings.front.upstreams)? })
    }

    /// Adds the local authority's certificate where one is needed and none was named.
    pub(super) fn complete(self, settings: &Settings, now: SystemTime) -> Result<Loaded, Error> {
        let Self { usual, internal, upstreams } = self;
        let mut authority = None;
        let usual = match usual {
            None if settings.front.needs_certificates() => {
                let made = local::ensure(&settings.tls.local, now)?;
                let certificates = Certificates::load(std::slice::from_ref(&made.server))?;
                authority = Some(made);
                Some(certificates)
            }
            usual => usual,
        };
        let certificates = usual.map(Arc::new);
        let policy = settings.tls.policy;
        let usual = certificates.clone().map(|certificates| tls::server_config(certificates, policy)).transpose()?;
        let mut shown = Vec::new();
        if let Some(certificates) = certificates.clone() {
            let local = authority.is_some().then(|| settings.tls.local.clone());
            shown.push(Shown { certificates, names: settings.public_names(), local });
        }
        let (internal, own) = internal.unzip();
        shown.extend(own.map(|certificates| Shown { certificates, names: Vec::new(), local: None }));
        Ok(Loaded {
            tls: front::Tls { usual, certificates, internal, upstreams, ..front::Tls::default() },
            shown,
            authority,
        })
    }
}

/// What keeps certificates fresh, until it is told otherwise, and what can be seen of it.
pub(super) fn watch(loops: &mut JoinSet<()>, shown: Vec<Shown>, metrics: &Metrics) -> Watching {
    let watch = Watch::new(shown, metrics.clone(), &current_user(), SystemTime::now());
    let board = watch.board();
    Watching { board, task: loops.spawn(watch.keep()) }
}

/// Somebody who watches files.
pub(super) struct Watching {
    /// What can be seen of it.
    pub(super) board: Arc<Board>,
    task: AbortHandle,
}

impl Watching {
    /// Stops watching: another process does, for whoever comes now.
    pub(super) fn end(&self) {
        self.task.abort();
    }

    /// Lets another watch from now on.
    pub(super) fn replace(&mut self, other: Self) {
        std::mem::replace(self, other).end();
    }
}
