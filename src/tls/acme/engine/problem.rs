//! What does it mean when an authority says no, and what can be done about it?
//!
//! An authority says it in a problem document (RFC 8555 6.7): a type, and its own words. The type decides what it means
//! for the next attempt; the words go to the operator as they are, with what usually helps.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
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

    /// How long to leave it alone: as `Retry-After` said, else as its words say (Let's Encrypt: "retry after 2026-01-31
    /// 12:34:56 UTC").
    fn wait(&self, now: SystemTime) -> Option<Duration> {
        self.after.or_else(|| {
            let (_, time) = self.detail.as_deref()?.split_once("retry after ")?;
            let then: Timestamp = format!("{}Z", time.get(..19)?.replace(' ', "T")).parse().ok()?;
            SystemTime::from(then).duration_since(now).ok()
        })
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
                let reason = format!("{doing}: {}{}", one_line(&reason), hint(&reason));
                Failure::new(Kind::Unreachable, reason)
            }
            Self::Problem(problem) => {
                let (kind, help) = meaning(&problem);
                Failure::new(kind, format!("{doing}: the authority says: {}{help}", problem.words()))
            }
        }
    }
}

/// What a problem with an account or an order means. One with the proof of a name is [`unproven`].
fn meaning(problem: &Problem) -> (Kind, &'static str) {
    match problem.name() {
        "rateLimited" => (Kind::RateLimited(problem.wait(SystemTime::now())), ""),
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

/// What usually helps when an authority cannot be spoken to.
fn hint(reason: &str) -> &'static str {
    match reason {
        // As rustls says it.
        _ if reason.contains("certificate expired") || reason.contains("not valid yet") => {
            ". Is the clock of this machine right?"
        }
        _ if reason.contains("not valid for name") => "",
        _ if reason.contains("invalid peer certificate") => ". Name whom to trust for it in `tls.acme.ca`",
        _ => "",
    }
}

/// A name that was not proven to be ours.
pub(super) fn unproven(name: &str, by: Challenge, problem: Option<&Problem>) -> Failure {
    let words = problem.map_or_else(|| "it does not say why".to_owned(), Problem::words);
    // A limit of validations is one that waiting helps with, not another look.
    let kind = match problem.map(Problem::name) {
        Some("rateLimited") => Kind::RateLimited(problem.and_then(|problem| problem.wait(SystemTime::now()))),
        Some("serverInternal") => Kind::Unreachable,
        _ => Kind::Validation,
    };
    let reason =
        format!("the authority could not see by {} that {name} is ours: {words}. {}", by.name(), advice(name, by));
    Failure::new(kind, reason)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(name: &str, detail: &str) -> Problem {
        Problem { kind: Some(format!("{URN}{name}")), detail: Some(detail.to_owned()), ..Problem::default() }
    }

    #[test]
    fn the_type_of_a_problem_decides_what_it_means() {
        let table = [
            ("rateLimited", Kind::RateLimited(None)),
            ("serverInternal", Kind::Unreachable),
            ("badNonce", Kind::Unreachable),
            ("caa", Kind::Validation),
            ("connection", Kind::Validation),
            ("malformed", Kind::Refused),
            ("rejectedIdentifier", Kind::Refused),
            ("externalAccountRequired", Kind::Refused),
            ("badCSR", Kind::Refused),
            ("unheardOf", Kind::Refused),
        ];
        for (name, kind) in table {
            let failure = Trouble::Problem(problem(name, "because.")).failure("ordering");
            assert_eq!(failure.kind, kind, "{name}");
            assert!(failure.reason.starts_with("ordering: the authority says: because. ("), "{failure}");
        }
        let gateway: Problem = serde_json::from_str(r#"{"title":"bad gateway"}"#).unwrap();
        assert_eq!(Trouble::Problem(gateway).failure("ordering").kind, Kind::Unreachable);
    }

    #[test]
    fn a_problem_with_a_proof_is_a_validation_but_for_limits_and_an_authority_that_is_not_well() {
        for name in ["dns", "connection", "unauthorized", "caa", "incorrectResponse", "tls", "malformed"] {
            let failure = unproven("a.test", Challenge::TlsAlpn01, Some(&problem(name, "no")));
            assert_eq!(failure.kind, Kind::Validation, "{name}");
            assert!(failure.reason.contains("a.test is ours: no") && failure.reason.contains("port 443"), "{failure}");
        }
        assert_eq!(unproven("a.test", Challenge::Dns01, Some(&problem("serverInternal", ""))).kind, Kind::Unreachable);
        assert_eq!(unproven("a.test", Challenge::Http01, None).kind, Kind::Validation);
    }

    #[test]
    fn a_certificate_that_cannot_be_trusted_comes_with_what_usually_helps() {
        let of = |text: &str| Trouble::Broken(format!("invalid peer certificate: {text}")).failure("asking").reason;
        assert!(of("UnknownIssuer").ends_with("`tls.acme.ca`") && of("BadSignature").ends_with("`tls.acme.ca`"));
        assert!(of("certificate expired: verification time 9 (UNIX)").ends_with("Is the clock of this machine right?"));
        assert!(of("certificate not valid yet: verification time 1").ends_with("Is the clock of this machine right?"));
        assert!(of("certificate not valid for name \"a\"").ends_with("for name \"a\""));
    }

    #[test]
    fn words_are_one_short_line_with_all_subproblems() {
        let text = r#"{"type":"urn:ietf:params:acme:error:compound","detail":"two\nthings","subproblems":[
            {"type":"urn:ietf:params:acme:error:dns","detail":"no address"},{"detail":"\u001b[31mred"}]}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(problem.words(), "two things (compound); no address (dns); [31mred");
        assert!(one_line(&"x ".repeat(10_000)).len() <= WORDS);
    }
}
