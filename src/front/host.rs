//! By which of our names did the client call us?
//!
//! Every absolute URL that we send (realm, `Location`, `Link`) starts with the answer, so a client can only choose
//! among the names that the operator wrote: a forged `Host` leads nobody elsewhere. What a proxy says of scheme, host and
//! port is looked at only where it is trusted, and chooses among the same names.

use std::net::{IpAddr, SocketAddr};

use http::header::HOST;
use http::{Version, request};

use super::peer::Told;
use super::refusal::Refusal;
use crate::exchange::Origin;
use crate::tls::Certificates;

/// The names we answer to.
#[derive(Debug, Clone)]
pub(super) struct Origins {
    /// `external_url` first, then the aliases; never empty.
    known: Vec<Origin>,
    /// What the internal port is called, whatever the client calls it.
    internal: Option<Origin>,
    /// Whether the internal port has whatever name the client calls it by.
    any: bool,
}

/// What a request's connection says about where it arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'a> {
    /// Whether TLS is spoken on this connection.
    pub(super) tls: bool,
    /// Whether it came in by the internal port.
    pub(super) internal: bool,
    /// Our end of the connection.
    pub(super) local: Option<SocketAddr>,
    /// What TLS has shown, if the client asked for a name.
    pub(super) shown: Option<Shown<'a>>,
}

/// What TLS has shown to a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    /// The name that it asked for.
    pub(super) to: &'a str,
    pub(super) of: &'a Certificates,
}

impl Shown<'_> {
    /// Whether it would have been shown the same for this name. If so, a client may use the connection for both
    /// (RFC 9113 9.1.1), and one that asks for whatever its proxy is called does no harm.
    fn fits(self, host: &str) -> bool {
        self.to.eq_ignore_ascii_case(host) || self.of.same_for(self.to, host)
    }
}

/// Whether we can serve.
pub(super) const READY: &str = "/-/ready";

/// Whether this is one of the pages that load balancers and monitoring look at, by address or whatever name they have.
pub(super) fn is_probe(path: &str) -> bool {
    ["/-/healthy", READY].contains(&path)
}

impl Origins {
    pub(super) fn new(external: Origin, aliases: Vec<Origin>, internal: Option<Origin>, any: bool) -> Self {
        let mut known = vec![external];
        known.extend(aliases);
        Self { known, internal, any }
    }

    /// The `https` origin that a request in the clear means: of our names that with its host, on whatever port. An address
    /// means `external_url`.
    pub(super) fn secure(&self, head: &request::Parts) -> Option<&Origin> {
        let host = authority(head).ok()??;
        let named = Origin::new(true, host).ok()?;
        let secure = || self.known.iter().filter(|known| known.is_secure());
        let same = secure().find(|known| **known == named);
        let same_host = || secure().find(|known| known.host() == named.host());
        let external = || address(&named).and(secure().find(|known| *known == self.external()));
        same.or_else(same_host).or_else(external)
    }

    pub(super) fn external(&self) -> &Origin {
        &self.known[0]
    }

    /// `external_url` first, then the aliases.
    pub(super) fn all(&self) -> &[Origin] {
        &self.known
    }

    /// The origin that the request names, or why it names none of ours.
    pub(super) fn of(&self, head: &request::Parts, arrival: Arrival<'_>) -> Result<Origin, Refusal> {
        let Some(host) = authority(head)? else { return Ok(self.external().clone()) };
        let named = match self.spelled(host, arrival.tls) {
            Some(known) => known.clone(),
            None => Origin::new(arrival.tls, host).map_err(|_| Refusal::HostMalformed)?,
        };
        if let (true, Some(written)) = (arrival.internal, &self.internal) {
            return Ok(written.clone());
        }
        if arrival.internal && self.any {
            return Ok(named);
        }
        if let Some(known) = self.find(host, arrival.tls) {
            let anyhow = || address(&named).is_some() || is_probe(head.uri.path());
            return match arrival.shown.filter(|shown| !shown.fits(named.host()) && !anyhow()) {
                None => Ok(known.clone()),
                Some(shown) => Err(Refusal::OtherCertificate { host: host.to_owned(), asked_for: shown.to.to_owned() }),
            };
        }
        if arrival.internal {
            let ours = is_own_address(&named, arrival.local);
            return Ok(if ours { named } else { self.external().clone() });
        }
        if address(&named).is_some() || is_probe(head.uri.path()) {
            return Ok(self.external().clone());
        }
        Err(Refusal::Misdirected { host: host.to_owned(), external: self.external().clone() })
    }

    /// The same for a request of a proxy that we believe: the first of its names that is ours, with the port that it
    /// names apart or without, and else whatever the request itself names.
    pub(super) fn of_forwarded(
        &self,
        head: &request::Parts,
        arrival: Arrival<'_>,
        told: &Told<'_>,
    ) -> Result<Origin, Refusal> {
        let arrival = Arrival { tls: told.secure.unwrap_or(arrival.tls), ..arrival };
        let host = authority(head)?;
        let is_named_otherwise = arrival.internal && (self.internal.is_some() || self.any);
        let find = |name: &str| self.find(name, arrival.tls);
        let find_with_port = |name: &str| {
            let port = told.port.filter(|_| !has_port(name))?;
            find(&format!("{name}:{port}"))
        };
        let by_told = told.host.and_then(|name| find_with_port(name).or_else(|| find(name)));
        match by_told.or_else(|| host.and_then(find_with_port)) {
            Some(known) if !is_named_otherwise => Ok(known.clone()),
            _ => self.of(head, arrival),
        }
    }

    /// The origin that needs no parsing to be recognised: what nearly all requests name.
    fn spelled(&self, host: &str, tls: bool) -> Option<&Origin> {
        self.known.iter().find(|known| known.is_secure() == tls && known.authority().eq_ignore_ascii_case(host))
    }

    /// Behind a balancer that ends TLS the scheme of the connection is not the client's, so it only breaks ties.
    fn find(&self, host: &str, tls: bool) -> Option<&Origin> {
        let matches = |origin: &&Origin| {
            origin.authority().eq_ignore_ascii_case(host)
                || Origin::new(origin.is_secure(), host).is_ok_and(|named| named == **origin)
        };
        if let Some(spelled) = self.spelled(host, tls) {
            return Some(spelled);
        }
        let mut found = self.known.iter().filter(matches);
        let first = found.next()?;
        Some(if first.is_secure() == tls {
            first
        } else {
            found.find(|other| other.is_secure() == tls).unwrap_or(first)
        })
    }
}

/// `:authority`, or `Host`. Only HTTP/1.0 may go without (RFC 9112 3.2). Pingora has seen to it that there is at most
/// one `Host` and that it agrees with an absolute-form target.
fn authority(head: &request::Parts) -> Result<Option<&str>, Refusal> {
    if let Some(authority) = head.uri.authority() {
        return Ok(Some(authority.as_str()));
    }
    match head.headers.get(HOST) {
        Some(host) => host.to_str().map(Some).map_err(|_| Refusal::HostMalformed),
        None if head.version == Version::HTTP_11 => Err(Refusal::HostMissing),
        None => Ok(None),
    }
}

fn has_port(authority: &str) -> bool {
    authority.rfind(':').is_some_and(|colon| !authority[colon..].contains(']'))
}

/// The address that an origin's host is, if it is one.
fn address(origin: &Origin) -> Option<IpAddr> {
    let host = origin.host();
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// `localhost` or the very address, with the port, that the connection arrived at.
fn is_own_address(named: &Origin, local: Option<SocketAddr>) -> bool {
    let Some(local) = local else { return false };
    let host_is_ours = match address(named) {
        Some(address) => address.to_canonical() == local.ip().to_canonical(),
        None => named.host() == "localhost",
    };
    host_is_ours && named.port() == local.port()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn origins() -> Origins {
        let aliases = ["https://old.example.com", "http://10.0.0.7:8080", "http://registry.example.com:5050"];
        let aliases = aliases.iter().map(|alias| alias.parse().unwrap()).collect();
        Origins::new("https://registry.example.com:5050".parse().unwrap(), aliases, None, false)
    }

    fn ask(host: Option<&str>, arrival: Arrival<'_>) -> Result<String, StatusCode> {
        let mut request = http::Request::get("/v2/");
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        origins().of(&head, arrival).map(|origin| origin.to_string()).map_err(|refusal| refusal.status())
    }

    #[test]
    fn a_registry_alone_is_called_what_the_client_calls_it() {
        let origins = Origins::new("http://localhost:5000".parse().unwrap(), Vec::new(), None, true);
        for (tls, host, origin) in [
            (false, "registry.lan:5000", "http://registry.lan:5000"),
            (false, "192.168.1.5:5000", "http://192.168.1.5:5000"),
            (true, "localhost:5000", "https://localhost:5000"),
        ] {
            let (head, ()) = http::Request::get("/v2/").header(HOST, host).body(()).unwrap().into_parts();
            let named = origins.of(&head, Arrival { tls, internal: true, local: None, shown: None });
            assert_eq!(named.ok().map(|named| named.to_string()).as_deref(), Some(origin));
        }
    }

    const PUBLIC: Arrival<'_> = Arrival { tls: true, internal: false, local: None, shown: None };
    const EXTERNAL: &str = "https://registry.example.com:5050";

    #[test]
    fn a_public_listener_answers_to_the_names_the_operator_wrote_and_to_addresses() {
        for (host, origin) in [
            ("registry.example.com:5050", EXTERNAL),
            ("REGISTRY.Example.com:5050", EXTERNAL),
            ("old.example.com", "https://old.example.com"),
            ("old.example.com:443", "https://old.example.com"),
            ("10.0.0.7:8080", "http://10.0.0.7:8080"),
            ("192.0.2.1", EXTERNAL),
            ("192.0.2.1:5050", EXTERNAL),
            ("[2001:db8::1]:5050", EXTERNAL),
        ] {
            assert_eq!(ask(Some(host), PUBLIC).as_deref(), Ok(origin), "{host}");
        }
    }

    #[test]
    fn any_other_name_is_misdirected_and_no_name_is_bad() {
        for host in ["evil.example", "registry.example.com", "registry.example.com:443", "localhost:5050"] {
            assert_eq!(ask(Some(host), PUBLIC), Err(StatusCode::MISDIRECTED_REQUEST), "{host}");
        }
        for host in ["", "a b", "a:b:c", "registry.example.com:", "http://registry.example.com:5050/", "x/y", "ü"] {
            assert_eq!(ask(Some(host), PUBLIC), Err(StatusCode::BAD_REQUEST), "{host}");
        }
        assert_eq!(ask(None, PUBLIC), Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn a_clear_connection_prefers_the_clear_origin_of_two_with_one_authority() {
        let clear = Arrival { tls: false, ..PUBLIC };
        assert_eq!(ask(Some("registry.example.com:5050"), clear).as_deref(), Ok("http://registry.example.com:5050"));
        assert_eq!(ask(Some("old.example.com"), clear).as_deref(), Ok("https://old.example.com"));
    }

    #[test]
    fn the_internal_port_answers_any_name_and_knows_its_own() {
        let local = Some("127.0.0.1:5000".parse().unwrap());
        let internal = Arrival { tls: false, internal: true, local, shown: None };
        for (host, origin) in [
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("localhost:5000", "http://localhost:5000"),
            ("LocalHost:5000", "http://localhost:5000"),
            ("localhost", EXTERNAL),
            ("127.0.0.2:5000", EXTERNAL),
            ("old.example.com", "https://old.example.com"),
            ("registry:5000", EXTERNAL),
        ] {
            assert_eq!(ask(Some(host), internal).as_deref(), Ok(origin), "{host}");
        }
        let mapped = Arrival { local: Some("[::ffff:127.0.0.1]:5000".parse().unwrap()), ..internal };
        assert_eq!(ask(Some("127.0.0.1:5000"), mapped).as_deref(), Ok("http://127.0.0.1:5000"));
        assert_eq!(ask(None, internal), Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn a_written_host_is_what_the_internal_port_is_called_and_no_other() {
        let written: Origin = "https://hub.example.com".parse().unwrap();
        let origins = Origins { internal: Some(written.clone()), ..origins() };
        let head = |host: &str| http::Request::get("/v2/").header(HOST, host).body(()).unwrap().into_parts().0;
        let internal =
            Arrival { tls: false, internal: true, local: Some("127.0.0.1:5000".parse().unwrap()), shown: None };
        for host in ["127.0.0.1:5000", "old.example.com", "anything"] {
            assert_eq!(origins.of(&head(host), internal), Ok(written.clone()), "{host}");
        }
        assert_eq!(origins.of(&head("old.example.com"), PUBLIC), Ok("https://old.example.com".parse().unwrap()));
        assert!(origins.of(&head("hub.example.com"), PUBLIC).is_err());
    }

    #[test]
    fn probes_are_answered_whatever_the_host_and_http_1_0_needs_none() {
        let (mut head, ()) = http::Request::get("/-/ready").header(HOST, "10-0-0-1.pod").body(()).unwrap().into_parts();
        assert!(origins().of(&head, PUBLIC).is_ok());
        head.headers.clear();
        head.version = Version::HTTP_10;
        assert!(origins().of(&head, PUBLIC).is_ok());
    }

    #[test]
    fn a_trusted_proxy_chooses_among_our_names_and_only_among_those() {
        let clear = Arrival { tls: false, ..PUBLIC };
        let ask = |host: &str, told: Told<'_>| {
            let head = http::Request::get("/v2/").header(HOST, host).body(()).unwrap().into_parts().0;
            origins().of_forwarded(&head, clear, &told).map(|origin| origin.to_string()).map_err(|error| error.status())
        };
        let none = Told::default;
        for (host, told, origin) in [
            ("registry.example.com:5050", none(), "http://registry.example.com:5050"),
            ("registry.example.com:5050", Told { secure: Some(true), ..none() }, EXTERNAL),
            ("registry.example.com", Told { secure: Some(true), port: Some(5050), ..none() }, EXTERNAL),
            ("old.example.com", Told { secure: Some(true), port: Some(8443), ..none() }, "https://old.example.com"),
            ("backend:80", Told { host: Some("old.example.com"), ..none() }, "https://old.example.com"),
            ("old.example.com", Told { host: Some("evil.example"), ..none() }, "https://old.example.com"),
            ("127.0.0.1", Told { host: Some("evil.example"), ..none() }, EXTERNAL),
        ] {
            assert_eq!(ask(host, told).as_deref(), Ok(origin), "{host}");
        }
        let evil = Told { secure: Some(true), host: Some("evil.example"), port: Some(443) };
        assert_eq!(ask("backend", evil), Err(StatusCode::MISDIRECTED_REQUEST));
    }

    #[test]
    fn http2_names_us_in_the_uri() {
        let (head, ()) = http::Request::get("https://old.example.com/v2/").body(()).unwrap().into_parts();
        assert_eq!(
            origins().of(&head, PUBLIC).map(|origin| origin.to_string()).ok().as_deref(),
            Some("https://old.example.com")
        );
    }

    proptest::proptest! {
        #[test]
        fn no_host_leads_elsewhere(host in "[ -~]{0,24}|(localhost|127\\.0\\.0\\.1|\\[::1\\])(:[0-9]{0,5})?", internal: bool) {
            let local = Some("127.0.0.1:5000".parse().unwrap());
            if let Ok(origin) = ask(Some(&host), Arrival { tls: false, internal, local, shown: None }) {
                let own = ["http://127.0.0.1:5000", "http://localhost:5000"];
                let ours = origins().known.iter().any(|known| known.to_string() == origin);
                proptest::prop_assert!(ours || (internal && own.contains(&origin.as_str())), "{} for {}", origin, host);
            }
        }
    }
}
