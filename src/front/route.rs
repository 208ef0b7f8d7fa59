//! Which way does a request go?
//!
//! The first [`Route`] that fits decides; what fits none is the embedded services'.

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode};

/// Some requests, and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// By which of our names the client called us; `None`: by any.
    pub host: Option<Host>,
    /// What the path begins with.
    pub path: PathPrefix,
    /// With which methods; none: with any.
    pub methods: Vec<Method>,
    /// Where to.
    pub to: Target,
}

/// One of our names, with or without its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// On whatever port: the host alone, lower-case.
    Name(String),
    /// This very origin's authority, as [`Origin::authority`](crate::exchange::Origin::authority) has it.
    Authority(String),
}

/// `/v2/`: that path, everything below it, and the path without its last slash. `/jwt/auth`: that path, and everything
/// below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPrefix(String);

/// The text is not a path that routes could begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a path that begins with a slash, without query, empty components, . or ..")]
pub struct PathPrefixError;

impl PathPrefix {
    /// Takes a path with or without a slash at its end.
    ///
    /// # Errors
    /// No slash at the beginning; an empty component, `.` or `..`; a letter that a URI would have to encode.
    pub fn new(path: &str) -> Result<Self, PathPrefixError> {
        let components = path.strip_prefix('/').ok_or(PathPrefixError)?;
        let letter = |letter: u8| letter.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@".contains(&letter);
        let good = |component: &str| !["", ".", ".."].contains(&component) && component.bytes().all(letter);
        let bare = components.strip_suffix('/').unwrap_or(components);
        if path == "/" || bare.split('/').all(good) { Ok(Self(path.to_owned())) } else { Err(PathPrefixError) }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To the embedded services.
    Embedded,
    /// To the [`Upstream`](super::Upstream) of this name.
    Upstream(Arc<str>),
    /// Elsewhere: the client is told where.
    Redirect(Redirect),
    /// No further.
    Answer(Fixed),
}

/// Where a client is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// A whole URL. Where it ends in a slash, path and query of the request follow it.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// An answer that is always the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// 200 to 599.
    pub status: StatusCode,
    /// What it says; `None`: OCI JSON that fits the status.
    pub body: Option<String>,
    /// What that is.
    pub content_type: HeaderValue,
}
