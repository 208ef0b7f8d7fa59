//! What may change while the front door is open?
//!
//! Two things that a reload replaces whole: the [`Plan`], which every request looks at when it begins, and for each
//! listening address its [`Doorway`], which every connection looks at when it begins.
//!
//! **Invariant:** what was begun under one plan ends under it. No request sees half of one and half of another.
//!
//! Absent on purpose: counters and whatever else must outlive a change; they stay with the open door.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, request};
use rustls::ServerConfig;

use super::connection::Connection;
use super::dress::Dress;
use super::forward::Way;
use super::host::Origins;
use super::route::Registries;
use super::session::Terms;
use super::upstream::Upstreams;
use super::watch::Steadiness;
use super::{Config, Internal, Limits, Listener, Networks, Prefix, Route, Service, Timeouts};
use crate::exchange::{Kind, Passage, content_length};
use crate::telemetry::{Forwarded, Metrics};
use crate::tls::acme::Answers;
use crate::tls::{Certificates, Demands};

/// What holds for the next request, whatever connection it comes on.
pub(super) struct Plan<S> {
    pub(super) origins: Arc<Origins>,
    /// What clients must or may have proven, by the name that a request is about.
    pub(super) demands: Arc<Demands>,
    /// Which way requests go that come in by a public listener.
    pub(super) routes: Vec<Route>,
    /// Who answers what goes elsewhere.
    pub(super) upstreams: Upstreams,
    /// Those of them that there must be one of for any request for the API to succeed.
    needed: Vec<Arc<str>>,
    metrics: Metrics,
    /// What is counted of them.
    counts: BTreeMap<Arc<str>, Arc<Forwarded>>,
    /// The path of the token endpoint that clients reach by us.
    pub(super) token: Option<Arc<str>>,
    /// Whose forwarding headers are believed.
    pub(super) trusted: Networks,
    /// What the API lies below on the internal port.
    pub(super) prefix: Option<Prefix>,
    pub(super) terms: Terms,
    /// For connections: theirs are taken when they begin.
    pub(super) timeouts: Timeouts,
    /// What requests and new connections must keep to.
    pub(super) limits: Limits,
    pub(super) service: Arc<S>,
}

impl<S: Service> Plan<S> {
    /// `upstreams` are the configuration's.
    pub(super) fn new(
        config: Config,
        upstreams: Upstreams,
        demands: Arc<Demands>,
        service: Arc<S>,
        metrics: &Metrics,
    ) -> Self {
        let Config {
            external_url,
            aliases,
            routes,
            upstreams: configured,
            token,
            trusted_proxies,
            timeouts,
            limits,
            headers,
            hsts,
            internal,
            listeners: _,
            debug: _,
        } = config;
        let Registries { upstreams: registries, embedded } = Registries::of(&routes);
        let ours = embedded && service.has_registry();
        let Internal { host, any_host, prefix, tls: _ } = internal;
        Self {
            origins: Arc::new(Origins::new(external_url, aliases, host, any_host)),
            demands,
            routes,
            upstreams,
            needed: if ours { Vec::new() } else { registries },
            metrics: metrics.clone(),
            counts: configured
                .iter()
                .map(|upstream| (upstream.name.clone(), metrics.forwarded(&upstream.name)))
                .collect(),
            token: token.map(Arc::from),
            trusted: trusted_proxies,
            prefix,
            terms: Terms { steadiness: Steadiness::of(&timeouts), dress: Arc::new(Dress::new(headers, hsts)) },
            timeouts,
            limits,
            service,
        }
    }

    /// Why no request for the API can succeed now, if so.
    pub(super) fn unready(&self) -> Option<String> {
        self.upstreams.unready(&self.needed)
    }

    /// What a request is forwarded by to the upstream of this name.
    pub(super) fn forward(
        &self,
        upstream: &str,
        head: &request::Parts,
        passage: Passage,
        connection: &Connection,
    ) -> Option<Way> {
        let pool = self.upstreams.get(upstream)?.clone();
        let counts = self.counts.get(upstream)?.clone();
        let brings = passage.kind == Kind::Upload && [Method::POST, Method::PATCH, Method::PUT].contains(&head.method);
        let brings = brings && content_length(&head.headers) != Some(0);
        let upload = brings.then(|| self.metrics.upload());
        let (origins, demands, token) = (self.origins.clone(), self.demands.clone(), self.token.clone());
        let trusted = connection.is_trusted(&self.trusted);
        Some(Way { _upload: upload, pool, passage, counts, origins, trusted, demands, token })
    }
}

/// What holds for the next connection to one listening address.
#[derive(Debug)]
pub(super) struct Doorway {
    pub(super) listener: Arc<Listener>,
    /// `None`: clear text.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// By which names something else is negotiated by, as clients must or may prove who they are.
    pub(super) demands: Arc<Demands>,
    /// What is shown there by name, where that differs from name to name.
    pub(super) certificates: Option<Arc<Certificates>>,
    /// What proves to an authority that our names are ours, where one may come.
    pub(super) answers: Option<Answers>,
}
