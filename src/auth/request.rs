//! What is asked of the token endpoint?
//!
//! GET with a query and Basic credentials (Distribution's token specification), or POST with a form (its OAuth2
//! specification). `account`, `client_id`, `access_type` and `offline_token` are taken and not used, as in GitLab: they
//! decide nothing, and we give out no refresh tokens.

use std::borrow::Cow;

use http::{Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::credential::{Credential, Malformed};
use crate::exchange::{Answer, CollectError, Exchange, collect};

/// The largest form, in bytes.
const FORM_LIMIT: usize = 64 * 1024;

/// One request for a token.
pub(super) struct TokenRequest {
    /// Whose tokens are wanted.
    pub(super) service: Option<String>,
    /// The values of every `scope`, each of which may hold several.
    pub(super) scopes: Vec<String>,
    /// Who asks.
    pub(super) credential: Result<Credential, Malformed>,
}

/// Reads the request; otherwise the answer that says what is wrong with it.
pub(super) async fn read<E: Exchange>(exchange: &mut E) -> Result<TokenRequest, Box<Answer>> {
    match exchange.head().method {
        Method::GET => {
            let head = exchange.head();
            let (service, scopes) = wanted(head.uri.query().unwrap_or_default());
            Ok(TokenRequest { service, scopes, credential: Credential::basic(&head.headers) })
        }
        Method::POST => read_form(exchange).await.map_err(Box::new),
        _ => Err(Box::new(Answer::new(StatusCode::METHOD_NOT_ALLOWED).header(header::ALLOW, "GET, POST"))),
    }
}

async fn read_form<E: Exchange>(exchange: &mut E) -> Result<TokenRequest, Answer> {
    let content_type = exchange.head().headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")) {
        return Err(oauth_error("invalid_request", "the body must be application/x-www-form-urlencoded"));
    }
    let form = collect(exchange, FORM_LIMIT).await.map_err(|error| match error {
        CollectError::TooLarge { .. } => too_large(),
        CollectError::Body(error) => oauth_error("invalid_request", &error.to_string()),
    })?;
    let form = std::str::from_utf8(&form).map_err(|_| oauth_error("invalid_request", "the form is not UTF-8"))?;
    let field = |name| pairs(form).find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    match field("grant_type").as_deref() {
        Some("password") => {}
        Some(_) => return Err(oauth_error("unsupported_grant_type", "only grant_type=password is known here")),
        None => return Err(oauth_error("invalid_request", "grant_type is missing")),
    }
    let (Some(name), Some(password)) = (field("username"), field("password")) else {
        return Err(oauth_error("invalid_request", "grant_type=password needs username and password"));
    };
    let (service, scopes) = wanted(form);
    let credential = Ok(Credential::Password { name, password: password.into_bytes() });
    Ok(TokenRequest { service, scopes, credential })
}

/// `service` and every `scope` of a query or form.
fn wanted(text: &str) -> (Option<String>, Vec<String>) {
    let mut service = None;
    let mut scopes = Vec::new();
    for (key, value) in pairs(text) {
        match key.as_ref() {
            "service" => service = Some(value.into_owned()),
            "scope" => scopes.push(value.into_owned()),
            _ => {}
        }
    }
    (service, scopes)
}

/// The pairs of a query or form (URL Standard, "application/x-www-form-urlencoded parsing").
fn pairs(text: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key), decoded(value))
    })
}

fn decoded(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// An error of the OAuth2 kind (RFC 6749 5.2).
fn oauth_error(error: &str, description: &str) -> Answer {
    Answer::json(StatusCode::BAD_REQUEST, &json!({ "error": error, "error_description": description }))
}

fn too_large() -> Answer {
    let mut answer = oauth_error("invalid_request", "the form is larger than 64 KiB");
    answer.status = StatusCode::PAYLOAD_TOO_LARGE;
    answer
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scopes_are_kept_in_every_spelling_and_the_last_service_wins() {
        let (service, scopes) =
            wanted("service=a&scope=repository%3Ax%3Apull&scope=b+c%20d&&service=container_registry&odd&=x");
        assert_eq!(service.as_deref(), Some("container_registry"));
        assert_eq!(scopes, ["repository:x:pull", "b c d"]);
        assert_eq!(wanted(""), (None, Vec::new()));
    }

    proptest! {
        #[test]
        fn what_a_client_encoded_comes_back(name in "\\PC{1,12}", value in "\\PC{0,12}") {
            let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string().replace("%20", "+");
            let text = format!("a=b&{}={}&c", encode(&name), encode(&value));
            prop_assert_eq!(pairs(&text).nth(1), Some((Cow::Owned(name), Cow::Owned(value))));
        }

        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,60}") {
            let _ = wanted(&text); // only that it returns is claimed
        }
    }
}
