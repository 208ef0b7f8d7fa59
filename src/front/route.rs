//! Which way does a request go?
//!
//! The first [`Route`] that fits decides; what fits none is the embedded services'.
//!
//! **Invariant:** who answers behind us reads the path as we did. Routes, the gate and maintenance go by the path's bytes,
//! while other programs decode and tidy a path before they look at it; so one that they could read differently goes to
//! none of them ([`plain`]). What remains reaches them byte for byte.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, StatusCode, request};
use percent_encoding::percent_decode_str;

use super::mount::is_api;
use super::refusal::Refusal;
use crate::exchange::{Answer, Origin, WireError};

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

    fn fits(&self, path: &str) -> bool {
        let bare = self.0.strip_suffix('/').unwrap_or(&self.0);
        path.strip_prefix(bare).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Host {
    fn fits(&self, origin: &Origin) -> bool {
        match self {
            Self::Name(name) => origin.host() == name,
            Self::Authority(authority) => origin.authority() == authority,
        }
    }
}

impl Route {
    fn fits(&self, head: &request::Parts, origin: &Origin) -> bool {
        let Self { host, path, methods, to: _ } = self;
        path.fits(head.uri.path())
            && (methods.is_empty() || methods.contains(&head.method))
            && host.as_ref().is_none_or(|host| host.fits(origin))
    }
}

/// Where a request goes for which the client called us `origin`.
pub(super) fn choose<'a>(routes: &'a [Route], head: &request::Parts, origin: &Origin) -> &'a Target {
    routes.iter().find(|route| route.fits(head, origin)).map_or(&Target::Embedded, |route| &route.to)
}

/// Lets a path pass that means the same to everybody.
pub(super) fn plain(path: &str) -> Result<(), Refusal> {
    let decoded = decoded(path);
    let odd = |letter: u8| letter == b'\\' || letter == 0;
    let dots = || decoded.split(|letter| *letter == b'/').any(|component| matches!(component, b"." | b".."));
    // `/%762/`, `//v2/`: the API to those who decode or tidy first, and not to our gate.
    let hidden = || {
        let tidy = String::from_utf8_lossy(&decoded);
        let tidy = tidy.trim_start_matches('/');
        is_api(&format!("/{tidy}")) != is_api(path)
    };
    if !path.starts_with('/') || decoded.iter().any(|letter| odd(*letter)) || dots() || hidden() {
        return Err(Refusal::Ambiguous);
    }
    Ok(())
}

fn decoded(path: &str) -> Cow<'_, [u8]> {
    percent_decode_str(path).into()
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

impl Redirect {
    /// The answer that sends a request there.
    pub(super) fn answer(&self, head: &request::Parts) -> Answer {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let below = target.strip_prefix('/').filter(|_| self.to.ends_with('/')).unwrap_or_default();
        Answer::new(self.status).header(LOCATION, format!("{}{below}", self.to))
    }
}

impl Fixed {
    pub(super) fn answer(&self) -> Answer {
        match &self.body {
            Some(body) => {
                let mut answer = Answer::new(self.status).body(body.clone());
                answer.headers.insert(CONTENT_TYPE, self.content_type.clone());
                answer
            }
            None if self.status.is_client_error() || self.status.is_server_error() => self.error(),
            None => Answer::new(self.status),
        }
    }

    fn error(&self) -> Answer {
        let code = match self.status {
            StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
            StatusCode::FORBIDDEN => "DENIED",
            StatusCode::NOT_FOUND => "NAME_UNKNOWN",
            StatusCode::TOO_MANY_REQUESTS => "TOOMANYREQUESTS",
            StatusCode::SERVICE_UNAVAILABLE => "UNAVAILABLE",
            status if status.is_server_error() => "UNKNOWN",
            _ => "UNSUPPORTED",
        };
        let reason = self.status.canonical_reason().unwrap_or("refused").to_lowercase();
        Answer::error(self.status, WireError::new(code, format!("{reason}, by the operator's configuration")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &Method, target: &str) -> request::Parts {
        http::Request::builder().method(method).uri(target).body(()).unwrap().into_parts().0
    }

    fn route(host: Option<Host>, path: &str, methods: &[Method], to: &str) -> Route {
        Route { host, path: PathPrefix::new(path).unwrap(), methods: methods.to_vec(), to: Target::Upstream(to.into()) }
    }

    #[test]
    fn the_first_route_that_fits_decides_and_what_fits_none_is_ours() {
        let name = |name: &str| Some(Host::Name(name.to_owned()));
        let port = Some(Host::Authority("hub.test:5050".to_owned()));
        let routes = [
            route(name("mirror.test"), "/v2/", &[Method::GET, Method::HEAD], "mirror"),
            route(port, "/", &[], "port"),
            route(None, "/v2/group/", &[], "group"),
            route(None, "/jwt/auth", &[], "tokens"),
        ];
        for (origin, method, target, to) in [
            ("https://mirror.test", Method::GET, "/v2/a/tags/list", Some("mirror")),
            ("https://mirror.test:8443", Method::HEAD, "/v2", Some("mirror")),
            ("https://mirror.test", Method::PUT, "/v2/a/manifests/x", None),
            ("https://hub.test:5050", Method::PUT, "/anything", Some("port")),
            ("https://hub.test", Method::GET, "/v2/group", Some("group")),
            ("https://hub.test", Method::GET, "/v2/group/x", Some("group")),
            ("https://hub.test", Method::GET, "/v2/groups/x", None),
            ("https://hub.test", Method::GET, "/jwt/auth?service=x", Some("tokens")),
            ("https://hub.test", Method::GET, "/jwt/authority", None),
            ("https://hub.test", Method::GET, "/V2/group/x", None),
        ] {
            let expected = to.map_or(Target::Embedded, |to| Target::Upstream(to.into()));
            let origin: Origin = origin.parse().unwrap();
            assert_eq!(choose(&routes, &head(&method, target), &origin), &expected, "{origin}{target}");
        }
    }

    #[test]
    fn a_path_that_others_could_read_differently_goes_no_further() {
        for good in
            ["/", "/v2/", "/v2", "/v2/a/manifests/sha256%3Aabc", "/v2/a//b", "/x%2Fy", "/a...b", "/.well-known/x", "/ä"]
        {
            assert_eq!(plain(good), Ok(()), "{good}");
        }
        for bad in [
            "*",
            "/v2/../x",
            "/v2/./x",
            "/v2/%2e%2E/x",
            "/v2/.%2e",
            "/a%2f..%2fb",
            "/a/..",
            "/a\\b",
            "/a%5cb",
            "/a%00",
            "/%762/x",
            "//v2/x",
            "/%2Fv2/x",
            "/v2%2Fx",
        ] {
            assert_eq!(plain(bad), Err(Refusal::Ambiguous), "{bad}");
        }
    }

    #[test]
    fn a_redirect_keeps_path_and_query_where_it_ends_in_a_slash() {
        let to = |to: &str| {
            let redirect = Redirect { to: to.to_owned(), status: StatusCode::PERMANENT_REDIRECT };
            redirect.answer(&head(&Method::GET, "/a/%2Fb?c=%3D"))
        };
        assert_eq!(to("https://new.test/").headers[LOCATION], "https://new.test/a/%2Fb?c=%3D");
        assert_eq!(to("https://new.test/page").headers[LOCATION], "https://new.test/page");
    }
}
