//! What does the operator see of a running server?
//!
//! Logs: text on a terminal, JSON otherwise, and one access line per request. Never a secret.

/// Logging, as meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: tracing::Level,
    /// How lines are written.
    pub format: Format,
    /// Whether each request gets a line on stdout.
    pub access: bool,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text when stderr is a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
