//! What the operator may say about the front door, checked.

use std::net::SocketAddr;
use std::time::Duration;

use crate::exchange::Origin;

/// The front door, as meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where we listen, at least one.
    pub listeners: Vec<Listener>,
    /// The origin that clients use; realm, `Location` and `Link` start with it.
    pub external_url: Origin,
    /// Further origins that clients may use.
    pub aliases: Vec<Origin>,
    /// How long anybody may keep us waiting.
    pub timeouts: Timeouts,
}

/// One listening address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Address and port. `[::]` takes IPv4 as well.
    pub address: SocketAddr,
    /// Whether TLS is spoken here.
    pub tls: bool,
    /// The internal port: any `Host` is answered, under the origin that it names if that is ours.
    pub internal: bool,
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
    /// For running requests after SIGTERM.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { handshake: seconds(10), header: seconds(10), idle: seconds(75), stall: seconds(60), drain: seconds(300) }
    }
}
