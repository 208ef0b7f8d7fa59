//! How is a request for a token answered?
//!
//! With GitLab's answers (its clients and its users know them): a service that is not ours is 404 without a body, wrong
//! credentials are 401, nobody in particular who is granted nothing is 403, somebody who is granted nothing gets a token
//! that allows nothing. Less than was asked for is never an error. Unlike GitLab we also send `access_token`, `expires_in`
//! and `issued_at`, without which clients assume a minute.

use std::time::{Duration, Instant};

use http::{StatusCode, header};
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde_json::json;

use super::accounts::{Login, Refusal};
use super::challenge::quoted;
use super::credential::{Credential, Identity, Malformed};
use super::request::{self, TokenRequest};
use super::{Authority, Error};
use crate::exchange::{Answer, Exchange, Limit, WireError};
use crate::oci::scope::parse_all;

/// The most scopes in one request. A client asks for one, or two when it mounts.
const SCOPES: usize = 100;
/// As `issued_at` is written: RFC 3339, in UTC.
const WHOLE_SECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(0));

/// When a request came: by the clock on the wall for what we write down, by the steady one for limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) wall: Timestamp,
    pub(super) steady: Instant,
}

/// Why there is no token.
enum Refused {
    Request(Box<Answer>),
    Service,
    TooManyScopes,
    Login(Refusal),
    Anonymous(Duration),
    NothingForNobody,
    Failed(Error),
}

/// Answers the request; why there is no token goes into its notes.
pub(super) async fn answer<E: Exchange>(authority: &Authority, exchange: &mut E, now: Moment) -> Answer {
    let answer = match token(authority, exchange, now).await {
        Ok(answer) => answer,
        Err(refused) => {
            let notes = exchange.notes();
            notes.failure = failure(&refused);
            notes.limit = match refused {
                Refused::Login(Refusal::Limited(_)) => Some(Limit::FailedLogins),
                Refused::Anonymous(_) => Some(Limit::Anonymous),
                _ => None,
            };
            refusal(authority, refused)
        }
    };
    answer.header(header::CACHE_CONTROL, "no-store")
}

async fn token<E: Exchange>(authority: &Authority, exchange: &mut E, now: Moment) -> Result<Answer, Refused> {
    let TokenRequest { service, scopes, credential } = request::read(exchange).await.map_err(Refused::Request)?;
    if service.as_deref() != Some(authority.config.service.as_str()) {
        return Err(Refused::Service);
    }
    if scopes.iter().flat_map(|value| value.split_ascii_whitespace()).nth(SCOPES).is_some() {
        return Err(Refused::TooManyScopes);
    }
    let network = exchange.caller().network;
    let (identity, state) = match credential {
        Ok(Credential::None) => {
            authority.anonymous.ask(network, now.steady).map_err(Refused::Anonymous)?;
            (Identity::Anonymous, None)
        }
        Ok(Credential::Password { name, password }) => {
            let login = authority.accounts.login(&name, &password, network, now.steady).await;
            let Login { account, state } = login.map_err(Refused::Login)?;
            (Identity::Account(account), state)
        }
        Err(Malformed) => return Err(Refused::Login(Refusal::Wrong)),
    };
    exchange.notes().subject = identity.name().map(ToString::to_string);
    let wanted = parse_all(scopes.iter().map(String::as_str));
    let granted = authority.permissions.grant(&identity, &wanted, now.wall, state).await;
    let granted = granted.map_err(|error| Refused::Failed(error.into()))?;
    if granted.iter().all(|access| access.actions.is_empty()) && matches!(identity, Identity::Anonymous) {
        return Err(Refused::NothingForNobody);
    }
    let token = authority.issuer.issue(&authority.key, &identity, &granted, now.wall).map_err(Refused::Failed)?;
    let text = given(&token, authority.issuer.lifetime(), now.wall);
    Ok(Answer::new(StatusCode::OK).header(header::CONTENT_TYPE, "application/json; charset=utf-8").body(text))
}

/// The answer that has a token. Nothing in it needs to be escaped: a token is letters, digits, `-`, `_` and `.` (RFC 7515
/// 7.1), and two kilobytes that need not be looked through twice.
fn given(token: &str, lifetime: i64, issued_at: Timestamp) -> String {
    let frame = r#"{"token":"","access_token":"","expires_in":,"issued_at":""}"#.len() + 48; // and numbers
    let mut text = String::with_capacity(2 * token.len() + frame);
    for part in [r#"{"token":""#, token, r#"","access_token":""#, token, r#"","expires_in":"#] {
        text.push_str(part);
    }
    text.push_str(&lifetime.to_string());
    text.push_str(r#","issued_at":""#);
    let _ = WHOLE_SECONDS.print_timestamp(&issued_at, &mut text); // a string takes all that is written to it
    text.push_str("\"}\n");
    text
}

/// What the log says of it. The name that was tried is not said: sometimes it is a password in the wrong field.
fn failure(refused: &Refused) -> Option<String> {
    match refused {
        Refused::Failed(error) | Refused::Login(Refusal::Failed(error)) => Some(error.to_string()),
        Refused::Login(Refusal::Wrong) => Some("wrong user name or password".to_owned()),
        Refused::Login(Refusal::Limited(_)) => Some("too many failed logins".to_owned()),
        Refused::Login(Refusal::Busy) => Some("too many logins at once".to_owned()),
        Refused::Anonymous(_) => Some("too many requests without a login".to_owned()),
        Refused::Request(_) | Refused::Service | Refused::TooManyScopes | Refused::NothingForNobody => None,
    }
}

/// Every way of not getting a token, and what the client hears.
fn refusal(authority: &Authority, refused: Refused) -> Answer {
    match refused {
        Refused::Request(answer) => *answer,
        Refused::Service => Answer::new(StatusCode::NOT_FOUND),
        Refused::TooManyScopes => Answer::error(
            StatusCode::BAD_REQUEST,
            WireError::new("UNSUPPORTED", "a token can be asked for at most 100 scopes at once"),
        ),
        Refused::Login(Refusal::Wrong) => Answer::error(
            StatusCode::UNAUTHORIZED,
            WireError::new("UNAUTHORIZED", "HTTP Basic: Access denied. The user name or the password is wrong."),
        )
        .header(header::WWW_AUTHENTICATE, format!("Basic realm={}", quoted(&authority.config.service))),
        Refused::Login(Refusal::Limited(wait)) => limited(wait),
        Refused::Login(Refusal::Busy) => busy(),
        Refused::Anonymous(wait) => anonymous(wait),
        Refused::NothingForNobody => Answer::json(
            StatusCode::FORBIDDEN,
            &json!({ "errors": [{ "code": "DENIED", "message": "access forbidden" }], "http_status": 403 }),
        ),
        Refused::Failed(_) | Refused::Login(Refusal::Failed(_)) => unavailable(),
    }
}

/// A login that is not heard, because too many failed.
pub(super) fn limited(wait: Duration) -> Answer {
    too_many("too many failed logins for this user or from this address; try again later", wait)
}

/// Nobody in particular has asked too often.
pub(super) fn anonymous(wait: Duration) -> Answer {
    too_many("too many requests without a login from this address; log in, or try again later", wait)
}

/// A login that is not heard, because too many wait.
pub(super) fn busy() -> Answer {
    too_many("too many logins at once; try again", Duration::from_secs(1))
}

/// A login that could not be decided, not by the caller's doing.
pub(super) fn unavailable() -> Answer {
    let error = WireError::new("UNAVAILABLE", "the token service cannot answer now; try again later");
    Answer::error(StatusCode::SERVICE_UNAVAILABLE, error).header(header::RETRY_AFTER, "5")
}

/// 429 with the whole seconds after which trying again makes sense.
fn too_many(message: &'static str, wait: Duration) -> Answer {
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    Answer::error(StatusCode::TOO_MANY_REQUESTS, WireError::new("TOOMANYREQUESTS", message))
        .header(header::RETRY_AFTER, seconds.to_string())
}
