//! Who is the client, and how did it call us, when a proxy asks for it?
//!
//! A proxy in front of us writes down what it knows: `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`, `X-Real-IP`, or
//! `Forwarded` (RFC 7239). Anybody can send these, so they are read on connections of `trusted_proxies` and on no other.
//!
//! **Invariants**
//! - The client is the rightmost address that is not a trusted proxy's: everything to the left of it is what the client
//!   says itself.
//! - What is said of scheme, host and port only chooses among the names that the operator wrote
//!   ([`host`](super::host)).
//!
//! `X-Forwarded-*` beats the rest: proxies write it themselves, while most hand on a client's `Forwarded` as it came. A
//! proxy that writes only another of them must take the client's `X-Forwarded-For` away.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName};

use super::networks::Networks;

static FORWARDED: HeaderName = http::header::FORWARDED;
static FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
static PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// The client of a request that came over a connection of `peer`.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let peer = peer.to_canonical();
    if !trusted.contains(peer) {
        return peer;
    }
    let hops: Vec<&str> = if headers.contains_key(&FOR) {
        listed(headers, &FOR).collect()
    } else if headers.contains_key(&REAL_IP) {
        listed(headers, &REAL_IP).collect()
    } else {
        listed(headers, &FORWARDED).map(|element| parameter(element, "for").unwrap_or_default()).collect()
    };
    let mut client = peer;
    for hop in hops.into_iter().rev() {
        // A hop without an address (`unknown`, a made-up name) hides what is to the left of it.
        let Some(address) = address(hop) else { return client };
        client = address;
        if !trusted.contains(address) {
            break;
        }
    }
    client
}

/// What the proxies say of the URL that the client used: no more than that.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told<'a> {
    /// Whether its scheme was `https`.
    pub(super) secure: Option<bool>,
    /// Its host, perhaps with a port.
    pub(super) host: Option<&'a str>,
    /// Its port.
    pub(super) port: Option<u16>,
}

impl<'a> Told<'a> {
    /// What the headers say. Of several proxies the first counts: the one that the client spoke to.
    pub(super) fn by(headers: &'a HeaderMap) -> Self {
        let standard = |name| listed(headers, &FORWARDED).next().and_then(|element| parameter(element, name));
        let first = |header, name| listed(headers, header).next().or_else(|| standard(name));
        let secure = first(&PROTO, "proto").and_then(|scheme| match scheme.to_ascii_lowercase().as_str() {
            "https" => Some(true),
            "http" => Some(false),
            _ => None,
        });
        let port = listed(headers, &PORT).next().and_then(|port| port.parse().ok());
        Self { secure, host: first(&HOST, "host"), port }
    }
}

/// The elements of a header that is a list, of all its lines.
fn listed<'a>(headers: &'a HeaderMap, name: &'static HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().map(|line| line.to_str().unwrap_or_default());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// A parameter of an element of `Forwarded`: `for=192.0.2.60;proto=https`, quoted or not. No value that we understand
/// holds a comma, a semicolon or a backslash.
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:4711`.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    let with_port = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    text.parse().ok().or_else(bracketed).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::super::networks::Network;
    use super::*;

    fn trusted() -> Networks {
        ["10.0.0.0/8", "2001:db8::/32"].iter().map(|text| text.parse::<Network>().unwrap()).collect()
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn client_of(peer: &str, lines: &[(&'static str, &str)]) -> String {
        client(peer.parse().unwrap(), &headers(lines), &trusted()).to_string()
    }

    const XFF: &str = "x-forwarded-for";

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        let lies = [(XFF, "203.0.113.9"), ("x-real-ip", "203.0.113.9"), ("forwarded", "for=203.0.113.9")];
        assert_eq!(client_of("192.0.2.1", &lies), "192.0.2.1");
        assert_eq!(client_of("::ffff:192.0.2.1", &lies), "192.0.2.1");
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_a_trusted_proxys() {
        for (line, client) in [
            ("203.0.113.9", "203.0.113.9"),
            ("1.1.1.1, 203.0.113.9", "203.0.113.9"),
            ("1.1.1.1,203.0.113.9 , 10.2.3.4,2001:db8::7", "203.0.113.9"),
            ("10.9.9.9, 203.0.113.9, 10.2.3.4", "203.0.113.9"),
            ("10.9.9.9, 10.2.3.4", "10.9.9.9"),
            ("203.0.113.9:4711", "203.0.113.9"),
            ("[2620:fe::fe]:4711", "2620:fe::fe"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("203.0.113.9, unknown", "10.0.0.1"),
            ("203.0.113.9, unknown, 10.2.3.4", "10.2.3.4"),
            ("203.0.113.9,", "10.0.0.1"),
            ("\"203.0.113.9\"", "10.0.0.1"),
        ] {
            assert_eq!(client_of("10.0.0.1", &[(XFF, line)]), client, "{line}");
        }
        let mut lines = headers(&[(XFF, "1.1.1.1")]);
        lines.append(&FOR, "203.0.113.9".parse().unwrap());
        assert_eq!(client("10.0.0.1".parse().unwrap(), &lines, &trusted()).to_string(), "203.0.113.9", "of two lines");
    }

    #[test]
    fn x_forwarded_for_counts_before_x_real_ip_and_that_before_forwarded() {
        let all = [("forwarded", "for=3.3.3.3"), ("x-real-ip", "2.2.2.2"), (XFF, "1.1.1.1")];
        assert_eq!(client_of("10.0.0.1", &all), "1.1.1.1");
        assert_eq!(client_of("10.0.0.1", &all[..2]), "2.2.2.2");
        assert_eq!(client_of("10.0.0.1", &all[..1]), "3.3.3.3");
        assert_eq!(client_of("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        for (line, client) in [
            ("For=203.0.113.9;proto=https;by=10.0.0.1", "203.0.113.9"),
            ("for=1.1.1.1, for=\"203.0.113.9:4711\";host=a, for=\"[2001:db8::17]:4711\"", "203.0.113.9"),
            ("for=203.0.113.9, for=_hidden", "10.0.0.1"),
            ("for=203.0.113.9, proto=https", "10.0.0.1"),
            ("for=\", for=203.0.113.9", "203.0.113.9"),
        ] {
            assert_eq!(client_of("10.0.0.1", &[("forwarded", line)]), client, "{line}");
        }
    }

    #[test]
    fn the_first_proxy_says_how_the_client_called_us() {
        let told = |lines: &[(&'static str, &str)]| {
            let headers = headers(lines);
            let Told { secure, host, port } = Told::by(&headers);
            (secure, host.map(str::to_owned), port)
        };
        let lines =
            [("x-forwarded-proto", "HTTPS, http"), ("x-forwarded-host", "a.example"), ("x-forwarded-port", "5050")];
        assert_eq!(told(&lines), (Some(true), Some("a.example".to_owned()), Some(5050)));
        let line = "for=1.1.1.1;proto=http;host=\"a.example:5050\", for=2.2.2.2;proto=https";
        assert_eq!(told(&[("forwarded", line)]), (Some(false), Some("a.example:5050".to_owned()), None));
        assert_eq!(told(&[("x-forwarded-proto", "ftp"), ("x-forwarded-port", "-1")]), (None, None, None));
        assert_eq!(told(&[]), (None, None, None));
    }

    proptest::proptest! {
        #[test]
        fn nothing_to_the_left_of_the_client_moves_it(left in "[ -~]{0,40}", right in "(, ?10\\.0\\.0\\.[1-9][0-9]?){0,3}") {
            let line = format!("{left},203.0.113.9{right}");
            proptest::prop_assert_eq!(client_of("10.0.0.1", &[(XFF, &line)]), "203.0.113.9");
        }
    }
}
