//! What does the access line say about a request?

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::lines::Line;
use crate::exchange::{Kind, Limit};

/// One request, as its access line tells it.
#[derive(Debug, Serialize)]
pub struct Access<'a> {
    /// When the request began.
    #[serde(serialize_with = "milliseconds")]
    pub time: Timestamp,
    /// As in the `X-Request-Id` response header.
    pub request_id: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The authenticated account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<&'a str>,
    /// The method; `-` when the request could not be read.
    pub method: &'a str,
    /// Path and query, redacted; `-` when the request could not be read.
    pub path: &'a str,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: &'static str,
    /// The status code; 499 when the client left before the end.
    pub status: u16,
    /// Bytes of the request body that were read.
    pub bytes_in: u64,
    /// Bytes of the response body that were sent.
    pub bytes_out: u64,
    /// From the end of the request's header to the end of the answer.
    #[serde(rename = "duration_ms", serialize_with = "as_milliseconds")]
    pub duration: Duration,
    /// The repository that the request is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<&'a str>,
    /// Tag or digest as the client wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<&'a str>,
    /// The digest that was served or stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<&'a str>,
    /// The `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<&'a str>,
    /// Why it failed, when the answer does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<&'a str>,
    /// Who answered, where it was somebody else's registry.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream<'a>>,
    /// What kind of thing the request is about.
    #[serde(skip)]
    pub kind: Kind,
    /// The limit that it was refused for.
    #[serde(skip)]
    pub limit: Option<Limit>,
    /// Whether the client showed who it is, or tried to.
    #[serde(skip)]
    pub credentials: bool,
    /// The size of the content that the request completed, when its own body was not all of it.
    #[serde(skip)]
    pub size: Option<u64>,
    /// Whether it was a login with what the client showed.
    #[serde(skip)]
    pub login: bool,
}

/// Who answered a request that was passed on.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Upstream<'a> {
    /// The upstream's name.
    #[serde(rename = "upstream")]
    pub name: &'a str,
    /// The last of its peers that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    /// From the end of the request's header to the first byte of that peer's answer.
    #[serde(
        rename = "first_byte_ms",
        serialize_with = "as_some_milliseconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub first_byte: Option<Duration>,
}

pub(super) fn milliseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    match digits(*time).as_ref().map(|digits| std::str::from_utf8(digits)) {
        Some(Ok(text)) => serializer.serialize_str(text),
        _ => serializer.collect_str(&format_args!("{time:.3}")),
    }
}

/// `2026-11-21T10:00:00.123Z`
type Digits = [u8; 24];

/// What `{time:.3}` is. A thread writes many lines in a second and works out its date once. `None` before 1970.
fn digits(time: Timestamp) -> Option<Digits> {
    thread_local! {
        static LAST: Cell<(i64, Digits)> = const { Cell::new((-1, [0; 24])) };
    }
    if time < Timestamp::UNIX_EPOCH {
        return None;
    }
    let second = time.as_second();
    let (last, mut digits) = LAST.get();
    if second != last {
        digits = format!("{:.3}", Timestamp::from_second(second).ok()?).as_bytes().try_into().ok()?;
        LAST.set((second, digits));
    }
    let mut rest = u32::try_from(time.subsec_millisecond()).ok()?;
    for digit in digits[20..23].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    Some(digits)
}

fn as_some_milliseconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    as_milliseconds(&duration.unwrap_or_default(), serializer)
}

fn as_milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_micros() as f64 / 1000.0)
}

impl Line for Access<'_> {
    /// For people: the usual order, then what only registries have. Quoting escapes what could break the line.
    fn text(&self) -> String {
        let Self { time, client, method, path, protocol, status, bytes_in, bytes_out, request_id, .. } = self;
        let subject = self.subject.map_or_else(|| "-".to_owned(), |subject| format!("{subject:?}"));
        let milliseconds = self.duration.as_micros() as f64 / 1000.0;
        let request = format!("{method} {path} {protocol}");
        let mut line = format!(
            "{time:.3} {client} {subject} {request:?} {status} in={bytes_in} out={bytes_out} \
             {milliseconds:.1}ms id={request_id}"
        );
        let more = [
            ("repository", self.repository),
            ("reference", self.reference),
            ("digest", self.digest),
            ("agent", self.user_agent),
            ("failure", self.failure),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                let _ = write!(line, " {name}={value:?}"); // writing to a String does not fail
            }
        }
        if let Some(Upstream { name, peer, first_byte }) = self.upstream {
            let _ = write!(line, " upstream={name:?}"); // writing to a String does not fail
            if let Some(peer) = peer {
                let _ = write!(line, " peer={peer}"); // as above
            }
            if let Some(first_byte) = first_byte {
                let _ = write!(line, " first_byte={:.1}ms", first_byte.as_micros() as f64 / 1000.0); // as above
            }
        }
        line
    }
}

/// Parts of query names whose values nobody may read in a log.
const SECRETS: [&str; 7] = ["token", "password", "secret", "signature", "credential", "assertion", "code"];

/// Path and query with the value of every secret replaced.
pub fn redact(path_and_query: &str) -> Cow<'_, str> {
    let Some((path, query)) = path_and_query.split_once('?') else { return Cow::Borrowed(path_and_query) };
    if !query.split('&').any(|pair| is_secret(pair).is_some()) {
        return Cow::Borrowed(path_and_query);
    }
    let pairs = query.split('&').map(|pair| match is_secret(pair) {
        Some(name) => Cow::Owned(format!("{name}=<redacted>")),
        None => Cow::Borrowed(pair),
    });
    Cow::Owned(format!("{path}?{}", pairs.collect::<Vec<_>>().join("&")))
}

/// The name of a pair whose value is secret. Names may be percent-encoded: what we cannot read plainly is secret too.
fn is_secret(pair: &str) -> Option<&str> {
    let (name, _) = pair.split_once('=')?;
    let lower = name.to_ascii_lowercase();
    (lower.contains('%') || SECRETS.iter().any(|secret| lower.contains(secret))).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn example() -> Access<'static> {
        Access {
            time: "2026-11-21T10:00:00.1234567Z".parse().unwrap(),
            request_id: "r-1",
            client: Ipv4Addr::LOCALHOST.into(),
            subject: Some("alice"),
            method: "GET",
            path: "/v2/a/manifests/latest",
            protocol: "HTTP/2.0",
            status: 200,
            bytes_in: 0,
            bytes_out: 527,
            duration: Duration::from_micros(1234),
            repository: Some("a"),
            reference: Some("latest"),
            digest: None,
            user_agent: Some("evil\"\n200 OK"),
            failure: None,
            upstream: None,
            kind: Kind::Other,
            limit: None,
            credentials: false,
            size: None,
            login: false,
        }
    }

    #[test]
    fn a_json_line_is_one_object_with_the_time_in_milliseconds() {
        let text = serde_json::to_string(&example()).unwrap();
        assert!(!text.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["time"], "2026-11-21T10:00:00.123Z");
        assert_eq!(value["duration_ms"], 1.234);
        assert_eq!(value["subject"], "alice");
        assert!(value.get("digest").is_none(), "what is not known is not there");
    }

    #[test]
    fn a_text_line_cannot_be_broken_by_what_the_client_sends() {
        let line = example().text();
        assert!(!line.contains('\n'));
        assert_eq!(
            line,
            "2026-11-21T10:00:00.123Z 127.0.0.1 \"alice\" \"GET /v2/a/manifests/latest HTTP/2.0\" 200 in=0 out=527 1.2ms \
             id=r-1 repository=\"a\" reference=\"latest\" agent=\"evil\\\"\\n200 OK\""
        );
    }

    #[test]
    fn secrets_in_a_query_are_redacted_and_the_rest_is_kept() {
        assert_eq!(redact("/v2/"), "/v2/");
        assert_eq!(
            redact("/jwt/auth?service=x&scope=repository:a:pull"),
            "/jwt/auth?service=x&scope=repository:a:pull"
        );
        assert_eq!(redact("/t?a=1&refresh_token=abc&b=2"), "/t?a=1&refresh_token=<redacted>&b=2");
        assert_eq!(redact("/t?Password=p=q"), "/t?Password=<redacted>");
        assert_eq!(redact("/t?pass%77ord=p"), "/t?pass%77ord=<redacted>");
        assert_eq!(redact("/t?token"), "/t?token", "a name without a value holds no secret");
    }

    #[test]
    fn times_are_written_as_before_whatever_was_written_last() {
        for nanoseconds in [0, 1, 999_999, 1_000_000, 123_456_789, 999_999_999] {
            for second in [0, 1, 951_782_399, 951_782_400, 1_763_769_600, 253_402_207_199, -1, -951_782_400] {
                let time = Timestamp::new(second, nanoseconds).unwrap();
                let written = milliseconds(&time, serde_json::value::Serializer).unwrap();
                assert_eq!(written, format!("{time:.3}"));
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_secret_never_shows(before in "[a-z=&?%/]{0,20}", name in "[a-z_]{0,5}(token|password)", after in "[a-z=&?]{0,20}") {
            let target = format!("/{before}?{before}&{name}=S3CRET&{after}");
            proptest::prop_assert!(!redact(&target).contains("S3CRET"));
        }
    }
}
