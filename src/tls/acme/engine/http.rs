//! What do we need of the web to speak with an authority?
//!
//! Whom to trust (`tls.acme.ca`, else the machine), the proxies of the environment, patience with an end ([`CALL`]) and an
//! appetite with one ([`LIMIT`]).
//!
//! **Invariant:** nothing is asked but over HTTPS, and no redirection is followed: what is signed for one URL is not good
//! at another (RFC 8555 6.4).

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{LOCATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use super::super::super::{client_config, policy::provider, trusted};
use super::problem::{Problem, Trouble};
use super::{Config, Failure, Kind};

/// How long one call may take, from the connection to the last byte of the answer.
pub(super) const CALL: Duration = Duration::from_secs(30);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest answer. A chain of certificates has a few thousand bytes.
const LIMIT: usize = 1024 * 1024;
/// Who asks (RFC 8555 6.1).
const NAME: HeaderValue = HeaderValue::from_static(concat!("pierhead/", env!("CARGO_PKG_VERSION")));

/// Whom to trust for the authority's directory.
pub(super) fn trust(config: &Config) -> Result<Arc<ClientConfig>, Failure> {
    let made = match &config.ca {
        None => client_config(),
        Some(path) => trusted(path).and_then(|authorities| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(authorities);
            let builder =
                ClientConfig::builder_with_provider(provider()).with_protocol_versions(rustls::ALL_VERSIONS)?;
            Ok(builder.with_root_certificates(roots).with_no_client_auth())
        }),
    };
    made.map(Arc::new).map_err(|error| {
        let key = if config.ca.is_some() { " (`tls.acme.ca`)" } else { "" };
        let reason = format!("whom to trust for {} is not known{key}: {error}", config.directory);
        Failure::new(Kind::Ours, reason)
    })
}

/// Whether the environment names a proxy for HTTPS. Which hosts go without it (`NO_PROXY`) is the client's to know.
pub(super) fn proxied() -> bool {
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    names.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// Where an authority wants to be asked (RFC 8555 7.1.1).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Directory {
    /// For a nonce.
    pub(super) new_nonce: String,
    /// For an account.
    pub(super) new_account: String,
    /// For an order.
    pub(super) new_order: String,
}

/// A client of the web. Clones share what was said last: they are for calls that follow each other.
#[derive(Clone)]
pub(super) struct Web {
    client: reqwest::Client,
    /// What the last answer said about when to come again.
    after: Arc<Mutex<Option<Duration>>>,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Web {
    /// With the proxies of the environment.
    pub(super) fn new(trust: &ClientConfig) -> Result<Self, Failure> {
        let builder = reqwest::Client::builder().tls_backend_preconfigured(trust.clone()).https_only(true);
        let builder = builder.redirect(reqwest::redirect::Policy::none()).retry(reqwest::retry::never());
        let made = builder.connect_timeout(CONNECT).timeout(CALL).build();
        let client = made.map_err(|error| {
            let reason = format!("the web cannot be asked (is a proxy of the environment no URL?): {}", chain(&error));
            Failure::new(Kind::Ours, reason)
        })?;
        Ok(Self { client, after: Arc::default() })
    }

    /// The same for calls that go on beside others, as those of another order.
    pub(super) fn apart(&self) -> Self {
        Self { client: self.client.clone(), after: Arc::default() }
    }

    /// What the last answer said about when to come again.
    pub(super) fn after(&self) -> Option<Duration> {
        *self.after.lock()
    }

    /// Reads a directory.
    pub(super) async fn directory(&self, url: &str) -> Result<Directory, Trouble> {
        let answer = self.send(Method::GET, url, HeaderMap::new(), reqwest::Body::default()).await?.checked()?;
        let read = serde_json::from_slice(&answer.body);
        let directory: Directory =
            read.map_err(|error| Trouble::Broken(format!("that is no ACME directory: {error}")))?;
        for url in [&directory.new_nonce, &directory.new_account, &directory.new_order] {
            secure(url)?;
        }
        Ok(directory)
    }

    /// Sends a request and takes the answer whole, whatever its status.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: reqwest::Body,
    ) -> Result<Answer, Trouble> {
        *self.after.lock() = None;
        let mut headers = headers;
        headers.insert(USER_AGENT, NAME);
        let broken = |error: reqwest::Error| Trouble::Broken(chain(&error));
        let mut got = self.client.request(method, url).headers(headers).body(body).send().await.map_err(broken)?;
        let (status, headers) = (got.status(), std::mem::take(got.headers_mut()));
        let mut body = Vec::new();
        while let Some(chunk) = got.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > LIMIT {
                return Err(Trouble::Broken(format!("the answer of {url} is longer than {LIMIT} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let answer = Answer { status, headers, body: body.into() };
        *self.after.lock() = answer.after();
        Ok(answer)
    }
}

impl Answer {
    /// Only if it is what was asked for.
    pub(super) fn checked(self) -> Result<Self, Trouble> {
        if self.status.is_success() {
            return Ok(self);
        }
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) => Err(Trouble::Problem(Problem { after: self.after(), ..problem })),
            Err(_) => Err(Trouble::Broken(self.no_answer())),
        }
    }

    /// When to come again.
    fn after(&self) -> Option<Duration> {
        self.headers.get(RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now()))
    }

    /// What it is when it is nothing of ACME's.
    fn no_answer(&self) -> String {
        match self.headers.get(LOCATION).and_then(|to| to.to_str().ok()) {
            Some(to) if self.status.is_redirection() => format!("it sends us to {to}, and nobody is followed"),
            _ => format!("status {}: {}", self.status.as_u16(), String::from_utf8_lossy(&self.body)),
        }
    }
}

impl HttpClient for Web {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let web = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = reqwest::Body::wrap(body);
            let sent = web.send(parts.method, &parts.uri.to_string(), parts.headers, body).await;
            let answer = sent.map_err(|trouble| instant_acme::Error::Other(trouble.to_string().into()))?;
            // The library takes a redirection for success, and any other page for a problem document.
            let is_json = || serde_json::from_slice::<Problem>(&answer.body).is_ok();
            if !answer.status.is_success() && (answer.status.is_redirection() || !is_json()) {
                return Err(instant_acme::Error::Other(answer.no_answer().into()));
            }
            let mut response = http::Response::new(());
            (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
            Ok(BytesResponse { parts: response.into_parts().0, body: Box::new(answer.body) })
        })
    }
}

/// RFC 8555 6.1: nothing but HTTPS.
pub(super) fn secure(url: &str) -> Result<&str, Trouble> {
    if url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
        return Ok(url);
    }
    Err(Trouble::Broken(format!("the authority wants to be asked at {url}, which is no https URL")))
}

/// RFC 9110 10.2.3: seconds, or a time.
fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    SystemTime::from(then).duration_since(now).ok()
}

/// An error with what is behind it.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_come_again_is_a_number_of_seconds_or_a_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let of = |text: &'static str| retry_after(&HeaderValue::from_static(text), now);
        assert_eq!(of("120"), Some(Duration::from_secs(120)));
        assert_eq!(of("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(of("Sun, 06 Nov 1994 08:40:37 GMT"), None);
        assert_eq!(of("soon"), None);
    }

    #[test]
    fn only_https_is_asked() {
        assert!(secure("https://a.test/x").is_ok() && secure("HTTPS://a.test").is_ok());
        for url in ["http://a.test/x", "", "ftp://a", "httpsé://"] {
            assert!(secure(url).is_err(), "{url}");
        }
    }
}
