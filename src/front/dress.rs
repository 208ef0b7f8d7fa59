//! What does every answer carry, whoever gave it?
//!
//! - What the operator wants (`http.headers`), under names that the answer does not use itself.
//! - `X-Content-Type-Options: nosniff`: no browser may take a blob for a page.
//! - `Strict-Transport-Security` (RFC 6797) on what came over TLS, the refusals too: the first answer that a client gets
//!   is a 401. Not on the internal port, whose names are this machine's.
//! - `Docker-Distribution-Api-Version` below `/v2/`, without which old clients do not believe that this is a registry.
//!
//! Absent on purpose: `Server`, which tells whoever looks for a weak version.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const REGISTRY: HeaderValue = HeaderValue::from_static("registry/2.0");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// The headers of every answer.
#[derive(Debug)]
pub(super) struct Dress {
    operators: Vec<(HeaderName, HeaderValue)>,
    /// Ours, but for those that the operator has other values for.
    ours: Vec<(On, HeaderName, HeaderValue)>,
}

/// Which answers a header is for.
#[derive(Debug, Clone, Copy)]
enum On {
    All,
    /// The client asked for something below `/v2/`.
    Api,
    /// It came over TLS.
    Secure,
}

impl Dress {
    pub(super) fn new(operators: Vec<(HeaderName, HeaderValue)>, hsts: Option<Duration>) -> Self {
        let hsts = hsts.and_then(|time| HeaderValue::try_from(format!("max-age={}", time.as_secs())).ok());
        let mut ours = vec![(On::All, X_CONTENT_TYPE_OPTIONS, NOSNIFF), (On::Api, API_VERSION, REGISTRY)];
        ours.extend(hsts.map(|hsts| (On::Secure, STRICT_TRANSPORT_SECURITY, hsts)));
        ours.retain(|(_, name, _)| !operators.iter().any(|(other, _)| other == name));
        Self { operators, ours }
    }

    /// Adds what is missing. `secure`: the client came over TLS; `api`: it asked for something below `/v2/`.
    pub(super) fn put_on(&self, answer: &mut HeaderMap, secure: bool, api: bool) {
        // Looked at before any is added: the operator may have several values under one name.
        let operators: Vec<_> = self.operators.iter().filter(|(name, _)| !answer.contains_key(name)).collect();
        for (name, value) in operators {
            answer.append(name, value.clone());
        }
        for (name, value) in self.ours(secure, api) {
            answer.entry(name).or_insert_with(|| value.clone());
        }
    }

    /// What is missing.
    pub(super) fn missing(&self, answer: &HeaderMap, secure: bool, api: bool) -> Vec<(HeaderName, HeaderValue)> {
        let operators = self.operators.iter().map(|(name, value)| (name, value));
        let missing = operators.chain(self.ours(secure, api)).filter(|(name, _)| !answer.contains_key(*name));
        missing.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn ours(&self, secure: bool, api: bool) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let fits = move |on: On| match on {
            On::All => true,
            On::Api => api,
            On::Secure => secure,
        };
        self.ours.iter().filter(move |(on, ..)| fits(*on)).map(|(_, name, value)| (name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dressed(dress: &Dress, secure: bool, api: bool) -> Vec<String> {
        let mut answer = HeaderMap::new();
        answer.insert("x-own", HeaderValue::from_static("answer"));
        dress.put_on(&mut answer, secure, api);
        let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        answer.iter().map(line).collect()
    }

    #[test]
    fn each_header_is_where_it_belongs() {
        let dress = Dress::new(Vec::new(), Some(Duration::from_secs(60)));
        let nosniff = "x-content-type-options: nosniff";
        assert_eq!(dressed(&dress, false, false), ["x-own: answer", nosniff]);
        let hsts = "strict-transport-security: max-age=60";
        assert_eq!(dressed(&dress, true, false), ["x-own: answer", nosniff, hsts]);
        let version = "docker-distribution-api-version: registry/2.0";
        assert_eq!(dressed(&dress, false, true), ["x-own: answer", nosniff, version]);
        assert_eq!(dressed(&Dress::new(Vec::new(), None), true, false), ["x-own: answer", nosniff]);
    }

    #[test]
    fn the_operator_is_believed_before_us_and_the_answer_before_the_operator() {
        let header = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let operators = vec![
            header("x-own", "operator"),
            header("x-content-type-options", "other"),
            header("strict-transport-security", "max-age=1; preload"),
        ];
        let dress = Dress::new(operators, Some(Duration::from_secs(60)));
        let expected =
            ["x-own: answer", "x-content-type-options: other", "strict-transport-security: max-age=1; preload"];
        assert_eq!(dressed(&dress, true, false), expected);
    }
}
