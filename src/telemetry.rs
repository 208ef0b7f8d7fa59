//! What does the operator see of a running server?
//!
//! Logs on stderr and one access line per request on stdout: text where a person looks at a terminal, JSON elsewhere.
//! Counts, for a monitoring system ([`Metrics`]).
//!
//! **Invariants:** a stream that nobody drains never holds up a request (`lines`). What had to be thrown away is
//! counted and said. Nothing secret is written: a token or password in a query is redacted ([`redact`]).
//!
//! Access and audit lines may go to files, which SIGUSR1 opens anew (`file`). Spans of requests may go to a collector
//! ([`traces`]).
//!
//! Absent on purpose: rotation itself (logrotate's job), a file for the log proper (the service manager's).

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use http::HeaderValue;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::exchange::RequestId;

mod access;
mod audit;
mod file;
mod lines;
mod metrics;
pub mod traces;

pub use access::{Access, Upstream, redact};
use audit::Operation;
use file::LogFile;
use lines::Lines;
pub use lines::Log;
pub use metrics::{Exposition, Forwarded, Handshake, Held, Metrics, PeerState, StorageCall};
use traces::Traces;

/// Logging, as meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: tracing::Level,
    /// How lines are written.
    pub format: Format,
    /// Where each request gets a line.
    pub access: Destination,
    /// Where each operation gets a line.
    pub audit: Destination,
    /// Where each request gets a span.
    pub traces: traces::Config,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
    /// To the end of a file, which is made if it is not there.
    File(PathBuf),
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text when the stream is a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    fn resolve(self, stream: &impl IsTerminal) -> Style {
        match self {
            Self::Text => Style::Text,
            Self::Json => Style::Json,
            Self::Auto if stream.is_terminal() => Style::Text,
            Self::Auto => Style::Json,
        }
    }
}

/// [`Format`], once we know where the lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Text,
    Json,
}

/// The log streams of this process. [`close`](Telemetry::close) it last, or the newest lines may be lost.
pub struct Telemetry {
    logs: Lines,
    reports: Reports,
    threshold: Threshold,
}

/// What is important enough to be logged. Cheap to clone.
#[derive(Clone)]
pub struct Threshold(reload::Handle<Targets, tracing_subscriber::Registry>);

impl Threshold {
    /// Logs this level and what is more important from now on.
    pub fn set(&self, level: tracing::Level) {
        // It fails when nothing is logged any more, and then there is nothing to set.
        let _ = self.0.reload(targets(level));
    }
}

/// Somebody else in this process set up logging already.
#[derive(Debug, thiserror::Error)]
#[error("logging is set up already")]
pub struct AlreadySet;

/// Sets up logging for the whole process. Libraries that log through `log` are heard too.
pub fn init(config: &Config) -> Result<Telemetry, AlreadySet> {
    let style = config.format.resolve(&std::io::stderr());
    let logs = Lines::new(std::io::stderr(), style);
    let writer = logs.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
    let (filter, handle) = reload::Layer::new(targets(config.level));
    let registry = tracing_subscriber::registry().with(filter);
    match style {
        Style::Text => registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init(),
        Style::Json => registry.with(layer.json().flatten_event(true).with_ansi(false)).try_init(),
    }
    .map_err(|_| AlreadySet)?;
    Ok(Telemetry { logs, reports: Reports::off(), threshold: Threshold(handle) })
}

/// A log that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot write {}: {source}; the folder must be there, and be writable for the user that we run as", path.display())]
pub struct Unwritable {
    /// The key that names it.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The system's word.
    pub source: io::Error,
}

/// Opens the log of a key.
fn log(key: &'static str, destination: &Destination, format: Format) -> Result<Log, Unwritable> {
    match destination {
        Destination::Off => Ok(Log::off()),
        Destination::Stdout => Ok(Log::to_stdout(format.resolve(&io::stdout()))),
        Destination::File(path) => {
            let file = LogFile::open(path).map_err(|source| Unwritable { key, path: path.clone(), source })?;
            Ok(Log::to(file, if format == Format::Text { Style::Text } else { Style::Json }))
        }
    }
}

/// Pingora calls every client that goes away an error, and at `trace` it and the HTTP/2 library write down whole request
/// headers, tokens and passwords among them. So libraries are heard only where they complain about something of ours.
fn targets(level: tracing::Level) -> Targets {
    Targets::new()
        .with_default(level)
        .with_target("pingora", LevelFilter::OFF)
        .with_target("pingora_core::services::listening", LevelFilter::ERROR)
        .with_target("h2", LevelFilter::WARN)
        .with_target("rustls", LevelFilter::WARN)
        .with_target("sqlx", LevelFilter::WARN)
}

impl Telemetry {
    /// Opens the logs of requests and operations: whom to tell what happens. As whoever we are from now on, so that we
    /// may do it again.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn open(&mut self, config: &Config) -> Result<Reports, Unwritable> {
        let access = log("log.access", &config.access, config.format)?;
        let audit = if config.audit == config.access {
            access.clone() // one stream, in one order
        } else {
            log("log.audit", &config.audit, config.format)?
        };
        self.reports = Reports { access, audit, metrics: Metrics::default(), traces: Traces::off() };
        Ok(self.reports.clone())
    }

    /// What a change of the level goes through.
    pub fn threshold(&self) -> Threshold {
        self.threshold.clone()
    }

    /// Writes what is still queued, for at most a few seconds, and says on stderr what could not be written.
    pub fn close(self) {
        for (key, log) in [("log.access", &self.reports.access), ("log.audit", &self.reports.audit)] {
            if let Some(left) = log.close() {
                tracing::warn!(bytes = left, "lines of {key} were lost: nobody takes them");
            }
        }
        // When standard error itself is stuck there is nobody left to tell.
        let _ = self.logs.close();
    }
}

/// Whom the front door tells what happens. Cheap to clone.
#[derive(Clone)]
pub struct Reports {
    /// One line for each request.
    pub access: Log,
    /// One line for each operation.
    pub audit: Log,
    /// Counts.
    pub metrics: Metrics,
    /// One span for each request.
    pub traces: Traces,
}

impl Reports {
    /// To nobody.
    pub fn off() -> Self {
        Self { access: Log::off(), audit: Log::off(), metrics: Metrics::default(), traces: Traces::off() }
    }

    /// A request came to its end.
    pub fn request(&self, access: &Access<'_>) {
        self.access.write(access);
        self.metrics.request(access);
        if self.audit.is_on()
            && let Some(operation) = Operation::of(access)
        {
            self.audit.write(&operation);
        }
    }

    /// Opens files anew: somebody has moved them away.
    pub fn reopen(&self) {
        self.access.reopen();
        self.audit.reopen();
    }
}

/// Names a request: what the client offers in `X-Request-Id` if that is short and harmless, else a new one.
pub fn request_id(offered: Option<&HeaderValue>) -> RequestId {
    offered.and_then(|value| value.to_str().ok()).and_then(RequestId::offered).unwrap_or_else(RequestId::random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harmless_request_id_is_kept_and_any_other_replaced() {
        let named = |offered: &[u8]| request_id(HeaderValue::from_bytes(offered).ok().as_ref()).to_string();
        assert_eq!(named(b"ci-1234_x.y"), "ci-1234_x.y");
        for bad in ["", "a b", "ünïcode"] {
            assert_eq!(named(bad.as_bytes()).len(), 32, "{bad}");
        }
        assert_ne!(request_id(None), request_id(None));
    }

    #[test]
    fn libraries_neither_complain_about_clients_nor_write_down_headers_at_any_level() {
        let heard = |level, target: &str| targets(level).would_enable(target, &tracing::Level::ERROR);
        for level in [tracing::Level::ERROR, tracing::Level::INFO, tracing::Level::TRACE] {
            assert!(!heard(level, "pingora_proxy") && !heard(level, "pingora_core::apps"));
            assert!(heard(level, "pingora_core::services::listening"), "out of descriptors is heard");
        }
        assert!(!targets(tracing::Level::TRACE).would_enable("h2::codec", &tracing::Level::TRACE));
        assert!(heard(tracing::Level::INFO, "pierhead::front"));
    }
}
