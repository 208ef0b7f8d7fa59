//! What can change while the server runs, and what cannot?
//!
//! **Invariant:** a key that would not take effect is refused by its name. The comparison takes the settings apart field
//! by field without `..`, so that a new one does not compile until somebody has decided.

use super::Error;
use super::control::Outcome;
use super::privileges::current_user;
use crate::config::{Services, Settings, Tokens};
use crate::{auth, front, registry, telemetry, tls};

/// Why a new configuration did not come into force. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// Read by the user that we are now, it is not good.
    #[error("the configuration, as user {user} reads it, cannot be used:\n{problems}")]
    Configuration {
        /// Who we are.
        user: String,
        /// Every problem.
        problems: String,
    },
    /// It says something else about what cannot change.
    #[error("these keys can only be changed by a restart: {}", .0.join(", "))]
    Fixed(Vec<&'static str>),
    /// It was found at the start, and seems to be gone.
    #[error(
        "the certificate {} was found at the start, and as user {user} we do not find it now: if it is gone for good, write \
         `certificates: []` below `tls`; if root alone may look there, name it there or restart the server", file.display()
    )]
    OutOfSight {
        /// The certificate's file.
        file: std::path::PathBuf,
        /// Who we are.
        user: String,
    },
    /// The machine does not allow it.
    #[error("{0}{advice}", advice = advice(.0))]
    Server(#[from] Error),
}

/// What was possible when we started may be so no longer.
fn advice(error: &Error) -> String {
    match error {
        Error::PortForbidden(_)
        | Error::Order { .. }
        | Error::Tls(tls::Error::Unreadable { .. })
        | Error::Upstream(front::UpstreamError::Files { source: tls::Error::Unreadable { .. }, .. }) => {
            format!("\nThe server runs as user {} by now: what only root may do takes a restart.", current_user())
        }
        Error::PortTaken(_) => "\nA port that the server has itself under another address takes two reloads: one \
                                without it, one with it again."
            .to_owned(),
        _ => String::new(),
    }
}

impl Refused {
    pub(super) fn configuration(problems: String) -> Self {
        Self::Configuration { user: current_user(), problems }
    }

    /// A certificate that nobody named must not give way to the local authority's because it cannot be seen.
    pub(super) fn unless_certificate_is_out_of_sight(old: &Settings, new: &Settings) -> Result<(), Self> {
        let found = old.certificate_was_found() && old.front.external_url == new.front.external_url;
        let named = new.written.keys().any(|path| path.starts_with("tls.certificates"));
        match old.tls.certificates.first() {
            Some(files) if found && !named && new.tls.certificates.is_empty() && new.front.needs_certificates() => {
                Err(Self::OutOfSight { file: files.certificate.clone(), user: current_user() })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Configuration { .. } | Self::Fixed(_) | Self::OutOfSight { .. } => Outcome::Configuration,
            Self::Server(Error::PortForbidden(_) | Error::Folder { .. } | Error::Order { .. }) => Outcome::Denied,
            Self::Server(Error::Tls(tls::Error::Unwritable { .. })) => Outcome::Failed,
            Self::Server(Error::Tls(_) | Error::Upstream(_)) => Outcome::Configuration,
            Self::Server(_) => Outcome::Failed,
        }
    }
}

/// The keys that differ and must not.
pub(super) fn fixed(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let Settings {
        source: _,
        written: _,
        warnings: _,
        registry_only,
        services,
        state,
        user,
        front,
        tls,
        auth,
        registry,
        telemetry,
    } = new;
    let mut keys = Vec::new();
    keys.extend((*registry_only != old.registry_only).then_some("registry"));
    keys.extend((services.registry != old.services.registry).then_some("registry"));
    keys.extend((tokens_are_ours(services) != tokens_are_ours(&old.services)).then_some("token"));
    keys.extend((*state != old.state).then_some("state"));
    keys.extend((*user != old.user).then_some("user"));
    keys.extend(fixed_of_front(&old.front, front));
    keys.extend(fixed_of_tls(&old.tls, tls));
    let path_is_fixed = tokens_are_ours(services); // elsewhere it is a route
    keys.extend(fixed_of_auth(&old.auth, auth).into_iter().filter(|key| path_is_fixed || *key != "token.path"));
    keys.extend(fixed_of_registry(&old.registry, registry));
    keys.extend(fixed_of_telemetry(&old.telemetry, telemetry));
    keys
}

/// To whom else they are handed on is the routes' affair.
fn tokens_are_ours(services: &Services) -> bool {
    services.tokens == Tokens::Ours
}

fn fixed_of_front(old: &front::Config, new: &front::Config) -> Vec<&'static str> {
    let front::Config {
        listeners: _,
        external_url: _,
        aliases: _,
        routes: _,
        upstreams: _,
        token: _,
        trusted_proxies: _,
        timeouts: _,
        limits: _,
        headers: _,
        hsts: _,
        internal: _,
        debug,
    } = new;
    if *debug == old.debug { Vec::new() } else { vec!["metrics.address", "registry.http.debug"] }
}

fn fixed_of_tls(old: &tls::Config, new: &tls::Config) -> Vec<&'static str> {
    let tls::Config {
        certificates: _,
        policy: _,
        local: tls::Local { directory, names: _ },
        acme: _,
        clients: _,
        ticket_keys: _,
    } = new;
    if *directory == old.local.directory { Vec::new() } else { vec!["tls.local"] }
}

fn fixed_of_auth(old: &auth::Config, new: &auth::Config) -> Vec<&'static str> {
    let auth::Config {
        path,
        service,
        issuer,
        duration,
        algorithm,
        key,
        certificate,
        limits: _,
        members_may_create_projects,
        guard,
        finish_uploads,
    } = new;
    let differ = [
        ("token.path", *path != old.path),
        ("token.service", *service != old.service),
        ("token.issuer", *issuer != old.issuer),
        ("token.duration", *duration != old.duration),
        ("token.algorithm", *algorithm != old.algorithm),
        ("token.key", *key != old.key),
        ("token.certificate", *certificate != old.certificate),
        ("accounts.members_may_create_projects", *members_may_create_projects != old.members_may_create_projects),
        ("registry.auth", *guard != old.guard),
        ("token.finish_uploads", *finish_uploads != old.finish_uploads),
    ];
    named(&differ)
}

fn fixed_of_registry(old: &registry::Config, new: &registry::Config) -> Vec<&'static str> {
    let registry::Config {
        root,
        delete: _,
        read_only: _,
        purge: _,
        limits: _,
        secret: _,
        relative_urls: _,
        catalog_page: _,
        tags_page: _,
        validation: _,
        health,
    } = new;
    let differ =
        [("registry.storage.filesystem.rootdirectory", *root != old.root), ("registry.health", *health != old.health)];
    named(&differ)
}

fn fixed_of_telemetry(old: &telemetry::Config, new: &telemetry::Config) -> Vec<&'static str> {
    let telemetry::Config { level: _, format, access, audit, traces } = new;
    named(&[
        ("log.format", *format != old.format),
        ("log.access", *access != old.access),
        ("log.audit", *audit != old.audit),
        ("log.traces", *traces != old.traces),
    ])
}

fn named(differ: &[(&'static str, bool)]) -> Vec<&'static str> {
    differ.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
}
