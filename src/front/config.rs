//! What the operator may say about the front door, checked.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{Gate, Limits, Networks, Route, Upstream};
use crate::exchange::{FRAMING, Origin};
use crate::tls;

/// The front door, as meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where we listen, at least one.
    pub listeners: Vec<Listener>,
    /// The origin that clients use; realm, `Location` and `Link` start with it.
    pub external_url: Origin,
    /// Further origins that clients may use.
    pub aliases: Vec<Origin>,
    /// Where requests go, the first that fits; what fits none goes to the embedded services. Those of the internal port
    /// all do.
    pub routes: Vec<Route>,
    /// The registries of others that routes name, each name once.
    pub upstreams: Vec<Upstream>,
    /// The path of the token endpoint that clients reach by us, whoever answers there.
    pub token: Option<String>,
    /// Whose forwarding headers are believed; by default nobody's.
    pub trusted_proxies: Networks,
    /// How long anybody may keep us waiting.
    pub timeouts: Timeouts,
    /// How much anybody may have at once.
    pub limits: Limits,
    /// What every answer carries, on every listener, unless the answer itself says otherwise (`http.headers`). A name
    /// may come more than once; none may be [our own](is_our_own).
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long browsers that came with TLS are told to come in no other way; `None`: they are told nothing. Not on the
    /// internal listener.
    pub hsts: Option<Duration>,
    /// What holds for the internal listener alone.
    pub internal: Internal,
    /// Where operators and their monitoring look (`metrics`, `http.debug`).
    pub debug: Option<Debug>,
}

impl Config {
    /// Whether some listener shows the certificates that are everybody's.
    pub fn needs_certificates(&self) -> bool {
        self.listeners.iter().any(|listener| listener.tls && !(listener.internal && self.internal.tls.is_some()))
    }

    /// The door to the debug pages: like the internal port, in the clear.
    #[must_use]
    pub fn for_debug(&self, debug: &Debug) -> Self {
        Self {
            listeners: vec![Listener::new(debug.address, false, true)],
            external_url: self.external_url.clone(),
            aliases: Vec::new(),
            routes: Vec::new(),
            upstreams: Vec::new(),
            token: None,
            trusted_proxies: Networks::default(),
            timeouts: self.timeouts,
            limits: self.limits,
            headers: Vec::new(),
            hsts: None,
            internal: Internal::default(),
            debug: None,
        }
    }
}

/// Whether a header says where an answer ends or which it is, so that nobody but us may say it.
pub fn is_our_own(name: &HeaderName) -> bool {
    FRAMING.contains(&name.as_str())
}

/// What holds for the internal listener alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Internal {
    /// What TLS shows and asks there, if its `tls` says that it is spoken (`http.tls`). `None`: the same as elsewhere.
    pub tls: Option<tls::Port>,
    /// The origin of every URL sent from there, whatever the client called us (`http.host`).
    pub host: Option<Origin>,
    /// Whether every well-formed `Host` is the origin of the URLs in its answer: the registry stands alone and nobody wrote
    /// down its names (`pierhead registry serve`). A forged one leads nobody but its forger elsewhere.
    pub any_host: bool,
    /// The path that the registry's API lies below (`http.prefix`).
    pub prefix: Option<Prefix>,
}

/// A path like `/registry`: the API is then at `/registry/v2/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

/// The text is not a path to put before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a path that begins with a slash, of letters, digits and -._~ between slashes")]
pub struct PrefixError;

impl Prefix {
    /// Takes a path with or without a slash at its end; `None` for the root, which is no prefix.
    ///
    /// # Errors
    /// No slash at the beginning, an empty component, `.` or `..`, or a letter that a URL would have to encode.
    pub fn new(path: &str) -> Result<Option<Self>, PrefixError> {
        let bare = path.strip_suffix('/').unwrap_or(path);
        if bare.is_empty() {
            return if path.is_empty() { Err(PrefixError) } else { Ok(None) };
        }
        let components = bare.strip_prefix('/').ok_or(PrefixError)?;
        let plain = |letter: u8| letter.is_ascii_alphanumeric() || b"-._~".contains(&letter);
        let good = |component: &str| !["", ".", ".."].contains(&component) && component.bytes().all(plain);
        if components.split('/').all(good) { Ok(Some(Self(bare.to_owned()))) } else { Err(PrefixError) }
    }

    /// The path, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where operators and their monitoring look. Whoever reaches it may read it: it belongs on an address that clients
/// cannot reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debug {
    /// Address and port.
    pub address: SocketAddr,
    /// The path of what is counted; `None`: nobody is told.
    pub metrics: Option<String>,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Address and port. `[::]` takes IPv4 as well.
    Tcp(SocketAddr),
    /// A socket in the file system. One that a process left behind is replaced.
    Unix(PathBuf),
    /// The next of those that systemd listens on for us, of this name if there is one (`FileDescriptorName=`).
    Systemd(Option<String>),
}

impl Address {
    /// Whether this is the socket at `path`.
    pub fn is_path(&self, path: &Path) -> bool {
        matches!(self, Self::Unix(own) if own == path)
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(None) => f.write_str("systemd"),
            Self::Systemd(Some(name)) => write!(f, "systemd:{name}"),
        }
    }
}

/// One listening address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: Address,
    /// Whether TLS is spoken here.
    pub tls: bool,
    /// The internal port: any `Host` is answered, under the origin that it names if that is ours.
    pub internal: bool,
    /// Whether a load balancer says there whose connection it is.
    pub proxy_protocol: ProxyProtocol,
    /// Who may come in.
    pub gate: Gate,
    /// Whether every request is sent to our `https` origin.
    pub redirect: bool,
}

impl Listener {
    /// One for everybody, without a load balancer.
    pub fn new(address: impl Into<Address>, tls: bool, internal: bool) -> Self {
        let (address, proxy_protocol, gate) = (address.into(), ProxyProtocol::Off, Gate::default());
        Self { address, tls, internal, proxy_protocol, gate, redirect: false }
    }
}

/// Whether connections begin with a header of the PROXY protocol, which is read from trusted proxies only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They do not.
    #[default]
    Off,
    /// Those without one get nothing but the answers to probes.
    Optional,
    /// Those without one are closed.
    Required,
}

/// How long anybody may keep us waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the TCP connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// For a whole request header, from its first byte (or from the handshake).
    pub header: Duration,
    /// For the next request on an idle connection.
    pub idle: Duration,
    /// Without a byte in either direction in the middle of a request.
    pub stall: Duration,
    /// Bytes a second in the middle of a request, averaged over `stall`: a drip is a stall.
    pub minimum_rate: u64,
    /// For running requests after SIGTERM.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            handshake: seconds(10),
            header: seconds(10),
            idle: seconds(75),
            stall: seconds(60),
            minimum_rate: 512,
            drain: seconds(300),
        }
    }
}
