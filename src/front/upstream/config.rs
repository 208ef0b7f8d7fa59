//! What the operator may say about a registry that somebody else runs, checked.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::super::{Networks, PathPrefix};
use crate::exchange::Origin;
use crate::tls;

/// A registry (or another service) that somebody else runs, on one or several peers.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// What routes call it.
    pub name: Arc<str>,
    /// Who answers for it, at least one.
    pub peers: Vec<Peer>,
    /// Which of them gets the next request.
    pub balance: Balance,
    /// What is shown to peers that speak TLS, and asked of them.
    pub tls: UpstreamTls,
    /// Whether HTTP/2 is spoken with peers that offer it (by ALPN, hence only with TLS).
    pub http2: bool,
    /// How we find out who is well; `None`: only by the requests that fail.
    pub health: Option<Health>,
    /// When a peer whose requests fail gets no more for a while; `None`: never.
    pub ejection: Option<Ejection>,
    /// How long a peer that comes back gets fewer requests than its weight, growing. Zero: not at all. Repositories and
    /// uploads that are its own come back at once.
    pub slow_start: Duration,
    /// How many peers are tried for one request, at most, while none has got a byte of it.
    pub attempts: NonZeroU32,
    /// How long a peer may keep us waiting.
    pub timeouts: UpstreamTimeouts,
    /// What `Host` says to it.
    pub host: HostSent,
    /// By what further names it calls itself in URLs (`registry:5000`): to be replaced by ours.
    pub known_as: Vec<Origin>,
    /// How `Location` reaches the client.
    pub location: LocationForm,
    /// Where its challenges may send clients. Empty: wherever it says.
    pub realms: Vec<Realm>,
    /// Whether an answer that would send clients, or their content, to a stranger is refused: 502.
    pub strict: bool,
    /// Changes to the headers of requests, after our own.
    pub request_headers: HeaderEdits,
    /// Changes to the headers of answers, after our own.
    pub response_headers: HeaderEdits,
}

/// One that answers for an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Scheme, name or address, and port. A name may stand for several addresses, and for others tomorrow.
    pub origin: Origin,
    /// Its part of the requests, in proportion to the others; each address of a name has it.
    pub weight: NonZeroU32,
}

/// Which peer gets the next request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Balance {
    /// In turns.
    #[default]
    RoundRobin,
    /// The one with the fewest requests, in proportion to its weight.
    LeastLoaded,
    /// Always the same for a repository, whichever front door decides. What is about none goes in turns.
    Repository,
    /// Always the same for an upload, whose beginning goes in turns: peers share their storage and not what they know of
    /// uploads. Who began it is remembered by this process alone, for a day after the last request. Where that is not
    /// known (another front door began it, or this one before a restart), its id decides, the same way everywhere.
    Upload,
}

/// TLS with peers. Their certificates are always verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Whom to trust instead of those that this machine trusts: certificates as PEM.
    pub ca: Option<PathBuf>,
    /// What we show when asked who we are.
    pub certificate: Option<tls::Files>,
    /// The name that is asked for and verified; by default the peer's own.
    pub name: Option<String>,
}

/// How we find out who is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked for, by GET.
    pub path: PathPrefix,
    /// How often, a quarter more or less.
    pub interval: Duration,
    /// How long the whole answer may take.
    pub timeout: Duration,
    /// After how many bad answers a peer is not well.
    pub unhealthy: NonZeroU32,
    /// After how many good ones it is again.
    pub healthy: NonZeroU32,
    /// Which answers are good.
    pub status: Vec<StatusCode>,
}

/// When a peer whose requests fail gets no more for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// After how many failures in a row: no connection, no answer in time, or 502, 503 and 504.
    pub failures: NonZeroU32,
    /// For how long. Twice as long each time that it fails again without one good answer, up to five minutes.
    pub time: Duration,
}

/// How long a peer may keep us waiting. All but `connect` are for silences: nothing limits how long a body takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// For TCP and TLS together.
    pub connect: Duration,
    /// For the next bytes of its answer; where a request has a body, no less than the client has for the next of that.
    pub read: Duration,
    /// For taking the next bytes of a request.
    pub write: Duration,
    /// How long an idle connection is kept for the next request.
    pub idle: Duration,
}

/// What `Host` says to a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostSent {
    /// The name by which the client called us.
    #[default]
    Client,
    /// The peer's own.
    Peer,
}

/// How `Location` reaches the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LocationForm {
    /// As a whole URL that begins with the origin that the client used.
    #[default]
    Absolute,
    /// As a path.
    Relative,
    /// A path stays a path, a whole URL of ours stays one with its origin put right.
    Preserve,
}

/// Where clients get tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    /// The URL of a token endpoint.
    pub url: String,
    /// For which clients; empty: for all.
    pub clients: Networks,
}

/// Changes to headers: what is removed, then what is set in place of whatever there was, then what is added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Names.
    pub remove: Vec<HeaderName>,
    /// Names and their one value.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Names and a further value.
    pub add: Vec<(HeaderName, HeaderValue)>,
}
