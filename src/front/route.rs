//! Which way does a request go?
//!
//! The first [`Route`] that fits decides; what fits none is the embedded services'.
//!
//! **Invariant:** who answers behind us reads the path as we did. Routes, the gate, maintenance and limits go by the path's
//! bytes, while other programs decode and tidy a path before they look at it: they unescape it, join `//`, take `;x` off.
//! So one that would go another way once it is [read](reading) like that, or that is the API's in one reading only, goes to
//! none of them; nor does one of the API in any spelling but the plain one ([`plain`]). What remains reaches them byte for
//! byte: `/api/v4/projects/group%2Fname` is right for who means that, and no route tells it from another.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, StatusCode, request};
use percent_encoding::percent_decode_str;

use super::mount::{API, is_api};
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
pub struct PathPrefix {
    written: String,
    /// What others could [read](reading) there.
    read: String,
}

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
        let good = path == "/" || bare.split('/').all(good);
        let read = reading(path).filter(|_| good).ok_or(PathPrefixError)?;
        Ok(Self { written: path.to_owned(), read })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    fn fits(&self, path: &str) -> bool {
        is_below(&self.written, path)
    }

    /// Whether it fits what others could read in a path.
    fn fits_read(&self, read: &str) -> bool {
        is_below(&self.read, read)
    }

    /// Whether requests for the API, or a part of it, can have it.
    fn meets_api(&self) -> bool {
        self.fits(API) || is_api(&self.written)
    }
}

fn is_below(prefix: &str, path: &str) -> bool {
    let bare = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(bare).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
    fn fits(&self, method: &Method, origin: &Origin) -> bool {
        let Self { host, path: _, methods, to: _ } = self;
        (methods.is_empty() || methods.contains(method)) && host.as_ref().is_none_or(|host| host.fits(origin))
    }

    /// Whether nothing of the API is left for those after it.
    fn takes_api(&self) -> bool {
        self.path.fits(API) && self.methods.is_empty() && self.host.is_none()
    }
}

/// Where a request goes for which the client called us `origin`.
///
/// # Errors
/// It would go to an upstream that could take it for another.
pub(super) fn choose<'a>(routes: &'a [Route], head: &request::Parts, origin: &Origin) -> Result<&'a Target, Refusal> {
    let path = head.uri.path();
    let mut fitting = routes.iter().filter(|route| route.fits(&head.method, origin));
    let written = fitting.clone().find(|route| route.path.fits(path));
    let Some(Route { to: to @ Target::Upstream(_), .. }) = written else {
        return Ok(written.map_or(&Target::Embedded, |route| &route.to));
    };
    let read = plain(path)?;
    if fitting.find(|route| route.path.fits_read(&read)).map(|route| &route.to) != Some(to) {
        return Err(Refusal::Ambiguous);
    }
    Ok(to)
}

/// Who answers for the API.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Registries {
    /// Upstreams, each once.
    pub(super) upstreams: Vec<Arc<str>>,
    /// Whether something is left for the embedded services.
    pub(super) embedded: bool,
}

impl Registries {
    pub(super) fn of(routes: &[Route]) -> Self {
        let mut found = Self::default();
        for route in routes.iter().filter(|route| route.path.meets_api()) {
            match &route.to {
                Target::Upstream(name) if !found.upstreams.contains(name) => found.upstreams.push(name.clone()),
                Target::Embedded => found.embedded = true,
                Target::Upstream(_) | Target::Redirect(_) | Target::Answer(_) => {}
            }
            if route.takes_api() {
                return found;
            }
        }
        found.embedded = true;
        found
    }
}

/// The upstreams to which these routes lead requests for the API, or for a part of it.
pub fn registries(routes: &[Route]) -> Vec<Arc<str>> {
    Registries::of(routes).upstreams
}

/// The most that others could make of a path: unescaped, without parameters (`;x`) and empty components. `None`: nobody
/// agrees what it is, because of `.` and `..`, backslashes, or a zero.
fn reading(path: &str) -> Option<String> {
    let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
    if decoded.iter().any(|letter| matches!(letter, b'\\' | 0)) {
        return None;
    }
    let decoded = String::from_utf8_lossy(&decoded);
    let mut read = String::with_capacity(decoded.len() + 1);
    for component in decoded.split('/') {
        let bare = component.split(';').next().unwrap_or_default();
        if matches!(bare, "." | "..") {
            return None;
        }
        if !bare.is_empty() {
            read.push('/');
            read.push_str(bare);
        }
    }
    if decoded.ends_with('/') || read.is_empty() {
        read.push('/');
    }
    Some(read)
}

/// Lets a path pass that could mean the same to everybody. Gives what others could read.
fn plain(path: &str) -> Result<Cow<'_, str>, Refusal> {
    // Most paths: nothing in them that anybody could change.
    let odd = path.contains("//") || path.contains("/.") || path.contains(['%', ';', '\\', '\0']);
    if path.starts_with('/') && !odd {
        return Ok(Cow::Borrowed(path));
    }
    let read = reading(path).filter(|_| path.starts_with('/')).ok_or(Refusal::Ambiguous)?;
    // `/%762/`, `//v2/`, `/v2;x/`: the API to those who tidy first, and not to our gate.
    if is_api(&read) != is_api(path) || (is_api(path) && !is_plain_api(path)) {
        return Err(Refusal::Ambiguous);
    }
    Ok(Cow::Owned(read))
}

/// Whether a path of the API is spelled as the specification does. The gate, maintenance and the limits of bodies see
/// its words, so nothing may hide one: no letter escaped that needs not be (RFC 3986 2.3: it would be the same URI), no
/// slash escaped, no component empty, no parameters but in what is last, a registry's own names for its uploads.
fn is_plain_api(path: &str) -> bool {
    let hidden = |letter: u8| letter.is_ascii_alphanumeric() || b"-._~/".contains(&letter);
    let mut escapes = path.split('%').skip(1);
    if escapes.any(|rest| rest.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).is_some_and(hidden)) {
        return false;
    }
    let (before, _) = path.rsplit_once('/').unwrap_or_default();
    !path.contains("//") && !before.contains(';') && !before.to_ascii_lowercase().contains("%3b")
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
            assert_eq!(choose(&routes, &head(&method, target), &origin), Ok(&expected), "{origin}{target}");
        }
    }

    /// Whether a path may go to the upstream that has everything but what these routes answer.
    fn passes(answered: &[&str], path: &str) -> bool {
        let answer = |path: &&str| {
            let fixed = Fixed { status: StatusCode::FORBIDDEN, body: None, content_type: HeaderValue::from_static("") };
            Route { to: Target::Answer(fixed), ..route(None, path, &[], "") }
        };
        let mut routes: Vec<Route> = answered.iter().map(answer).collect();
        routes.push(route(None, "/", &[], "hub"));
        let origin = "https://hub.test".parse().unwrap();
        choose(&routes, &head(&Method::GET, path), &origin) == Ok(&Target::Upstream("hub".into()))
    }

    #[test]
    fn a_path_that_others_could_read_differently_goes_no_further() {
        for good in [
            "/",
            "/v2/",
            "/v2",
            "/v2/?a=%2F..%2f//;x%41",
            "/v2/a/manifests/sha256%3Aabc",
            "/v2/a/blobs/sha256+b64u%3AYWJj%3D",
            "/v2/a/blobs/uploads/",
            "/v2/a/blobs/uploads/id;x=%3D%3b?_state=%2F",
            "/x%2Fy",
            "/api/v4/projects/group%2Fname",
            "/api/v4/projects/1/repository/files/lib%2Fclass%2Erb",
            "/v2x;a/b",
            "/a...b",
            "/.well-known/x",
            "//x",
            "/ä",
        ] {
            assert!(passes(&[], good), "{good}");
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
            assert!(!passes(&[], bad), "{bad}");
        }
    }

    #[test]
    fn the_api_has_one_spelling() {
        for bad in [
            "/v2/x/manifest%73/tag",
            "/v2/x/blobs/upload%73/id",
            "/v2/x%2Dy/tags/list",
            "/v2/x%2fmanifests/tag",
            "/v2/x%2Fmanifests%2Ftag",
            "/v2/x//manifests/tag",
            "/v2/x/blobs//uploads/id",
            "/v2/x/blobs/uploads//",
            "/v2//",
            "/v2;a/x/manifests/tag",
            "/v2%3ba/x/manifests/tag",
            "/;a/v2/x/manifests/tag",
            "/v2;/",
            "/v2/x/manifests;a/tag",
            "/v2/x/manifests%3Ba/tag",
            "/v2/..;/echo",
            "/v2/%2e%2e;/echo",
            "/v2/.;a/echo",
            "/x/..;/v2/echo",
        ] {
            assert!(!passes(&[], bad), "{bad}");
        }
    }

    #[test]
    fn what_a_route_answers_reaches_nobody_by_another_spelling() {
        let answered = ["/v2/secret/", "/admin", "/odd%2Fname"];
        for path in [
            "/v2/secret/echo",
            "/v2/s%65cret/echo",
            "/v2//secret/echo",
            "/v2/secret%2fx/echo",
            "/v2/secret;a",
            "/admin",
            "/admin/x",
            "/%61dmin/x",
            "//admin/x",
            "/admin;a/x",
            "/;/admin%2fx",
            "/odd%2Fname",
            "/odd/name",
            "/odd%2fname",
        ] {
            assert!(!passes(&answered, path), "{path}");
        }
        for path in ["/v2/secrets/echo", "/administration", "/x%2Fadmin", "/x/admin", "/v2/open/blobs/sha256%3A0"] {
            assert!(passes(&answered, path), "{path}");
        }
    }

    #[test]
    fn registries_are_those_to_whom_something_of_the_api_goes() {
        let upstream = |path: &str, to: &str| route(None, path, &[], to);
        let at = |host: &str, path: &str, to: &str| route(Some(Host::Name(host.to_owned())), path, &[], to);
        let embedded = Route { to: Target::Embedded, ..upstream("/v2/ours/", "") };
        let pulls = route(None, "/v2/", &[Method::GET], "pulls");
        for (routes, names, ours) in [
            (vec![], vec![], true),
            (vec![upstream("/jwt/auth", "rails"), upstream("/v2/", "a"), upstream("/", "rails")], vec!["a"], false),
            (
                vec![upstream("/v2/mirror/", "mirror"), upstream("/", "a"), upstream("/v2/", "b")],
                vec!["mirror", "a"],
                false,
            ),
            (vec![at("a.test", "/v2/", "a"), at("b.test", "/", "b")], vec!["a", "b"], true),
            (vec![pulls, upstream("/v2", "a")], vec!["pulls", "a"], false),
            (vec![embedded, upstream("/v2/", "a")], vec!["a"], true),
            (vec![upstream("/v2/x/", "a"), upstream("/v2/y/", "a")], vec!["a"], true),
        ] {
            let expected = Registries { upstreams: names.into_iter().map(Arc::from).collect(), embedded: ours };
            assert_eq!(Registries::of(&routes), expected, "{routes:?}");
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
