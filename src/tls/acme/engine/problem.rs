//! What does it mean when an authority says no, and what can be done about it?
//!
//! An authority says it in a problem document (RFC 8555 6.7): a type, and its own words. The type decides what it means
//! for the next attempt; the words go to the operator as they are, with what usually helps.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;

use super::{Challenge, Failure, Kind};

/// What the types of RFC 8555 6.7 begin with.
const URN: &str = "urn:ietf:params:acme:error:";
/// The most of an authority's words that is kept.
const WORDS: usize = 1000;

/// Why a call had no result.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Trouble {
    /// The authority says why.
    #[error("{}", .0.words())]
    Problem(Problem),
    /// There is no answer, or one that makes no sense.
    #[error("{0}")]
    Broken(String),
}

/// RFC 7807, as RFC 8555 6.7 uses it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Problem {
    /// A URN of RFC 8555, or anything else.
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
    /// The authority's words.
    #[serde(default)]
    pub(super) detail: Option<String>,
    /// The same for each of several names.
    #[serde(default)]
    pub(super) subproblems: Vec<Part>,
    /// How long it wants to be left alone.
    #[serde(skip)]
    pub(super) after: Option<Duration>,
}

/// A problem with one name (RFC 8555 6.7.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Part {
    /// A URN of RFC 8555, or anything else.
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
    /// The authority's words.
    #[serde(default)]
    pub(super) detail: Option<String>,
}

impl Problem {
    /// The type without what all types begin with.
    pub(super) fn name(&self) -> &str {
        short(self.kind.as_deref())
    }

    /// What the authority said, in one line.
    pub(super) fn words(&self) -> String {
        let mut words = said(self.kind.as_deref(), self.detail.as_deref());
        for part in &self.subproblems {
            let _ = write!(words, "; {}", said(part.kind.as_deref(), part.detail.as_deref())); // a String takes all
        }
        one_line(&words)
    }
}

impl Trouble {
    /// What was there in the answer before is not there in this one.
    pub(super) fn gone() -> Self {
        Self::Broken("the authority's answers do not fit each other".to_owned())
    }

    /// Whether it is nothing but a nonce that the authority did not like (RFC 8555 6.5).
    pub(super) fn is_nonce(&self) -> bool {
        matches!(self, Self::Problem(problem) if problem.name() == "badNonce")
    }

    /// What it means; `doing` says what we were at.
    pub(super) fn failure(self, doing: &str) -> Failure {
        match self {
            Self::Broken(reason) => {
                Failure { kind: Kind::Unreachable, reason: format!("{doing}: {}", one_line(&reason)) }
            }
            Self::Problem(problem) => {
                let (kind, help) = meaning(&problem);
                Failure { kind, reason: format!("{doing}: the authority says: {}{help}", problem.words()) }
            }
        }
    }
}

/// What a problem with an account or an order means. One with the proof of a name is [`unproven`].
fn meaning(problem: &Problem) -> (Kind, &'static str) {
    match problem.name() {
        "rateLimited" => (Kind::RateLimited(problem.after), ""),
        "badNonce" => (Kind::Unreachable, ""),
        "serverInternal" => (Kind::Unreachable, ""),
        "dns" | "connection" | "caa" | "incorrectResponse" | "tls" => (Kind::Validation, ""),
        "externalAccountRequired" => (
            Kind::Refused,
            ". Ask it for a key ID and a MAC key (external account binding) and name them in `tls.acme.eab`",
        ),
        "userActionRequired" => (Kind::Refused, ". It wants the operator to do something first, as it says"),
        "rejectedIdentifier" | "unsupportedIdentifier" => {
            (Kind::Refused, ". It gives no certificates for such a name: take the name out of `tls.acme.certificates`")
        }
        "invalidContact" | "unsupportedContact" => (Kind::Refused, ". See `tls.acme.contact`"),
        "invalidProfile" => (Kind::Refused, ". See `tls.acme.profile`"),
        "unauthorized" | "accountDoesNotExist" => (
            Kind::Refused,
            ". If the account was deactivated, remove account-*.key from `tls.acme.storage`: a new one is then made",
        ),
        // Without a type, or one that is not of RFC 8555: by a gateway, or by a server that is not well.
        "" => (Kind::Unreachable, ""),
        _ => (Kind::Refused, ""),
    }
}

/// A name that was not proven to be ours.
pub(super) fn unproven(name: &str, by: Challenge, problem: Option<&Problem>) -> Failure {
    let words = problem.map_or_else(|| "it does not say why".to_owned(), Problem::words);
    // A limit of validations is one that waiting helps with, not another look.
    let kind = match problem.map(Problem::name) {
        Some("rateLimited") => Kind::RateLimited(problem.and_then(|problem| problem.after)),
        Some("serverInternal") => Kind::Unreachable,
        _ => Kind::Validation,
    };
    let reason =
        format!("the authority could not see by {} that {name} is ours: {words}. {}", by.name(), advice(name, by));
    Failure { kind, reason }
}

/// What must be so for a proof to be seen.
fn advice(name: &str, by: Challenge) -> String {
    match by {
        Challenge::TlsAlpn01 => format!(
            "It connects to port 443 of {name}, whatever port the registry has (GitLab's 5050 cannot be asked): that port \
             must reach this server from the internet, by every address of the name in the DNS, and nothing before it may \
             end TLS. If it cannot, prove it by http-01 on port 80 (`tls.acme.webroot` where another server has that port) \
             or by dns-01 (`tls.acme.challenges`), or take a certificate from files (`tls.certificates`)"
        ),
        Challenge::Http01 => format!(
            "It asks http://{name}/.well-known/acme-challenge/ on port 80, whatever port the registry has (GitLab's 5050 \
             cannot be asked): that port must reach this server from the internet, by every address of the name in the DNS, \
             or a server that serves the folder of `tls.acme.webroot`. If it cannot, prove it by tls-alpn-01 on port 443 or \
             by dns-01 (`tls.acme.challenges`), or take a certificate from files (`tls.certificates`)"
        ),
        Challenge::Dns01 => format!(
            "It looks for a TXT record at _acme-challenge.{name}: all name servers of the zone must have it at once, and a \
             CNAME there is followed (`tls.acme.dns`)"
        ),
    }
}

fn said(kind: Option<&str>, detail: Option<&str>) -> String {
    match (short(kind), detail.unwrap_or_default()) {
        ("", "") => "nothing".to_owned(),
        ("", detail) => detail.to_owned(),
        (kind, "") => kind.to_owned(),
        (kind, detail) => format!("{detail} ({kind})"),
    }
}

fn short(kind: Option<&str>) -> &str {
    // "about:blank" is RFC 7807's word for none.
    kind.map_or("", |kind| kind.strip_prefix(URN).unwrap_or(kind)).trim_start_matches("about:blank")
}

/// What others say, fit for a line of a log: it may be a page of HTML.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let clean = words.chars().filter(|letter| !letter.is_control());
    let short: String = clean.take(WORDS).collect();
    short.trim_end_matches('.').to_owned()
}
