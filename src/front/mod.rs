//! How do bytes on a socket become requests, and answers bytes again?
//!
//! In the order of a connection's life:
//! - [`running`]: opens the door on bound sockets, changes its plan while it is open, drains it at the end;
//! - [`plan`]: what such a change replaces;
//! - [`peer`]: who the client is when a proxy asks for it; [`networks`]: which addresses are meant;
//! - [`proxy_protocol`]: which client a load balancer connects for; [`gate`]: who may come in by a listener;
//!   [`redirect`]: where a request belongs that came in the clear;
//! - [`listener`]: what happens to a connection: TLS, HTTP/1.1 or HTTP/2, the keep-alive loop; [`handshake`]: how it becomes
//!   one of TLS; [`cork`]: when what that says leaves; [`ahead`]: how a large body is read;
//! - [`watch`]: how long the client may keep us waiting; [`strict`]: what is HTTP/1.1 and what is not; [`io`]: the
//!   stream as Pingora sees it; [`connection`]: what is known about it;
//! - [`forward`]: requests that somebody else's registry answers; [`route`]: which those are; [`stream`]: how long the
//!   client of one may owe its body on HTTP/2;
//! - [`http2`]: its loop and its bounds; [`frames`]: frames that carry nothing;
//! - [`limits`]: how many connections there may be, and how much a request's header may hold;
//! - [`dress`]: what every answer carries;
//! - [`proxy`]: Pingora's phases; [`admit`]: what of them needs only a request's head; [`host`]: by which of our names the
//!   client called us; [`mount`]: the path that the API
//!   lies below on the internal port; [`refusal`]: what is said to
//!   requests that go no further;
//! - [`rewrite`]: what changes in the headers between a client and an upstream;
//! - [`session`]: the Pingora session as an [`Exchange`] for the service that answers;
//! - [`raw`]: [`strict`] and [`proxy_protocol`] for who tries them from outside.
//!
//! **Invariants**
//! - Bodies stream both ways; nothing here holds more than a few pieces of one.
//! - A client can make us wait only for the times in [`Timeouts`], and hold only the memory that the constants name.
//! - Every answer is the service's or an upstream's, or OCI JSON from [`refusal`] and [`forward`], and carries
//!   `X-Request-Id`.
//!
//! Absent on purpose: which of our services a path belongs to and who may ask ([`origin`](crate::origin)), certificates
//! ([`tls`](crate::tls)).

use std::future::Future;

use http::request;

use crate::exchange::{Answer, Exchange, Passage};
use crate::origin::{Debug as DebugPages, Embedded};

mod admit;
mod ahead;
mod config;
mod connection;
mod cork;
mod dress;
mod fault;
mod forward;
mod frames;
mod gate;
mod handshake;
mod host;
mod http2;
mod io;
mod limits;
mod listener;
mod mount;
mod networks;
mod peer;
mod plan;
mod proxy;
mod proxy_protocol;
#[doc(hidden)]
pub mod raw;
mod redirect;
mod refusal;
mod rewrite;
mod route;
mod running;
mod session;
mod stream;
mod strict;
mod upstream;
mod watch;

#[cfg(test)]
mod tests;

pub use config::{
    Address, Config, Debug, Internal, Listener, Prefix, PrefixError, ProxyProtocol, Timeouts, is_our_own,
};
pub use gate::{Directions, Gate};
pub use limits::Limits;
pub use networks::{Network, NetworkError, Networks};
pub use route::{Fixed, Host, PathPrefix, PathPrefixError, Redirect, Route, Target, registries};
pub use running::{Drained, Error, Running, Socket, Tls, open};
pub use upstream::{
    Balance, Credentials, Ejection, Error as UpstreamError, HeaderEdits, Health, HostSent, LocationForm, Peer, Realm,
    Upstream, UpstreamTimeouts, UpstreamTls,
};

/// Who answers the requests that come in by the door: in the product the embedded [`origin`](crate::origin).
pub trait Service: Send + Sync + 'static {
    /// Answers one request. It must not fail: what goes wrong is told to the client through the exchange.
    fn answer<E: Exchange>(&self, exchange: &mut E) -> impl Future<Output = ()> + Send;

    /// What a request is about that is to go to an upstream, or why it must not: writes during maintenance, say.
    ///
    /// # Errors
    /// The answer that it gets instead.
    fn pass(&self, head: &request::Parts) -> Result<Passage, Box<Answer>>;

    /// Whether the API is among what it answers, so that there is something to serve whoever else is lost.
    fn has_registry(&self) -> bool;
}

impl Service for Embedded {
    async fn answer<E: Exchange>(&self, exchange: &mut E) {
        Self::answer(self, exchange).await;
    }

    fn pass(&self, head: &request::Parts) -> Result<Passage, Box<Answer>> {
        Self::pass(self, head)
    }

    fn has_registry(&self) -> bool {
        Self::has_registry(self)
    }
}

impl Service for DebugPages {
    async fn answer<E: Exchange>(&self, exchange: &mut E) {
        Self::answer(self, exchange).await;
    }

    /// Nothing goes elsewhere from there.
    fn pass(&self, _: &request::Parts) -> Result<Passage, Box<Answer>> {
        Ok(Passage::default())
    }

    fn has_registry(&self) -> bool {
        false
    }
}
