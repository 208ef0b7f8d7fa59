//! What the operator may say about health, checked.

use std::path::PathBuf;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::exchange::Origin;

/// How often a check runs where nothing else was written.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// How long a check over the network may take where nothing else was written.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// What must hold for requests to be answered. Nothing by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The storage must answer (`health.storagedriver`).
    pub storage: Option<Pace>,
    /// These files must not be there (`health.file`): whoever makes one takes this server out of service.
    pub files: Vec<File>,
    /// These servers must answer a `HEAD` (`health.http`).
    pub http: Vec<Http>,
    /// These must accept connections (`health.tcp`).
    pub tcp: Vec<Tcp>,
}

/// How often something is looked at, and how long it may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From the end of one check to the beginning of the next; not zero.
    pub interval: Duration,
    /// How many checks must fail in a row before requests are refused; 0 means the same as 1.
    pub threshold: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { interval: INTERVAL, threshold: 1 }
    }
}

/// A file that must not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path.
    pub path: PathBuf,
    /// How often we look.
    pub pace: Pace,
}

/// A server that must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Where it is.
    pub origin: Origin,
    /// What is asked for.
    pub path: PathAndQuery,
    /// What the request carries besides.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The only good answer.
    pub status: StatusCode,
    /// How long it may take, from the connection to the answer's header.
    pub timeout: Duration,
    /// How often it is asked.
    pub pace: Pace,
}

impl Http {
    /// A server that must answer 200.
    pub fn new(origin: Origin, path: PathAndQuery) -> Self {
        Self { origin, path, headers: Vec::new(), status: StatusCode::OK, timeout: TIMEOUT, pace: Pace::default() }
    }
}

/// A port that must be open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// `HOST:PORT`.
    pub address: String,
    /// How long connecting may take.
    pub timeout: Duration,
    /// How often it is tried.
    pub pace: Pace,
}
