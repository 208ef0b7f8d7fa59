//! Clients that show certificates, and those that would like to come without: by which name they may come, and what an
//! upstream learns of it.

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use super::*;
use crate::tls::client_testing::{Client, ClientAuthority};
use crate::tls::{Certificates, Clients, Demands, Files, NamedClients, Policy, Rule, server_config};

mod kept;

const HEADER: &str = "X-SSL-Client-S-DN";

/// A door before one upstream. `must.test` and all below `w.test` require certificates of one authority, `other.test` of
/// another, `may.test` knows those of the first, `open.test` wants none, and neither does `localhost`.
struct Gatehouse {
    door: Door,
    theirs: Theirs,
    ours: ClientAuthority,
    stranger: ClientAuthority,
    certificates: Arc<Certificates>,
    folder: tempfile::TempDir,
}

const NAMES: [&str; 6] = ["must.test", "a.w.test", "other.test", "may.test", "open.test", "localhost"];

impl Gatehouse {
    async fn open(change: impl FnOnce(&mut Config)) -> Self {
        let theirs = Theirs::open().await;
        let mut door = before_upstream(upstream(&[theirs.origin()]), |config| {
            let (tls, clear) = (config.listeners[0].address.clone(), config.listeners[1].address.clone());
            for (secure, address) in [(true, tls), (false, clear)] {
                let port = tcp(&address).unwrap().port();
                let scheme = if secure { "https" } else { "http" };
                config.aliases.extend(NAMES.map(|name| format!("{scheme}://{name}:{port}").parse().unwrap()));
            }
            change(config);
        });
        let folder = tempfile::tempdir().unwrap();
        let (ours, stranger) = (ClientAuthority::new("ours", 0), ClientAuthority::new("stranger", 0));
        let ca = ours.file(folder.path(), "ca.crt");
        let rules = [
            rule(&["must.test", "*.w.test"], Clients::MustProve(vec![ca.clone()])),
            rule(&["other.test"], Clients::MustProve(vec![stranger.file(folder.path(), "other.crt")])),
            rule(&["may.test"], Clients::MayProve(vec![ca])),
            rule(&["open.test"], Clients::Anyone),
        ];
        let (files, roots) = own_certificate(folder.path());
        let certificates = Arc::new(Certificates::load(&[files]).unwrap());
        door.roots = roots;
        let mut house = Self { door, theirs, ours, stranger, certificates, folder };
        house.demand(&rules);
        house
    }

    /// A reload after which these rules hold.
    fn demand(&mut self, rules: &[NamedClients]) {
        let rules = rules.iter().map(|rule| Rule::read(rule).unwrap()).collect();
        let (door, certificates) = (&mut self.door, &self.certificates);
        let tls = Tls {
            usual: Some(server_config(certificates.clone(), Policy::Intermediate, None).unwrap()),
            demands: Arc::new(Demands::new(rules, certificates, Policy::Intermediate).unwrap()),
            certificates: Some(certificates.clone()),
            ..door.certificates.clone()
        };
        door.running.change(door.config.clone(), door.script.clone(), &tls, Vec::new()).unwrap();
    }

    /// A connection made for a name, or for an address and so for none; by these protocols.
    async fn connect(
        &self,
        asked: &str,
        shown: Option<Client>,
        version: &'static SupportedProtocolVersion,
        protocol: &str,
    ) -> Option<Wire> {
        let builder = ClientConfig::builder_with_protocol_versions(&[version]);
        let builder = builder.with_root_certificates(self.door.roots.clone());
        let mut config = match shown {
            Some(Client { chain, key }) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from(asked.to_owned()).unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(self.door.tls).await.unwrap();
        within(connector.connect(name, stream)).await.ok().map(Wire::new)
    }

    /// The status of a request about a host on a connection that was made for a name, if it comes so far.
    async fn ask(&self, asked: &str, shown: Option<Client>, host: &str) -> Option<u16> {
        let mut statuses = Vec::new();
        for version in [&TLS12, &TLS13] {
            let shown =
                shown.as_ref().map(|client| Client { chain: client.chain.clone(), key: client.key.clone_key() });
            let wire = self.connect(asked, shown, version, "http/1.1").await;
            statuses.push(match wire {
                Some(mut wire) => status(&mut wire, &format!("GET /v2/206 HTTP/1.1\r\nHost: {host}\r\n"), "").await,
                None => None,
            });
        }
        assert_eq!(statuses[0], statuses[1], "{asked} {host}");
        statuses[0]
    }

    fn at(&self, name: &str) -> String {
        format!("{name}:{}", self.door.tls.port())
    }

    fn runner(&self) -> Option<Client> {
        Some(self.ours.client("runner", 7))
    }

    fn strange(&self) -> Option<Client> {
        Some(self.stranger.client("stranger", 7))
    }
}

fn rule(names: &[&str], clients: Clients) -> NamedClients {
    NamedClients {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        clients,
        depth: 1,
        revoked: Vec::new(),
        header: HEADER.to_owned(),
    }
}

/// One certificate for all names, so that nobody is sent away for another reason.
fn own_certificate(folder: &std::path::Path) -> (Files, RootCertStore) {
    let mut names: Vec<String> = NAMES.map(str::to_owned).into();
    names.push("127.0.0.1".to_owned());
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let files = Files::new(folder.join("own.crt"), folder.join("own.key"));
    let put = |path: &std::path::Path, text: String| {
        std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    put(&files.certificate, made.cert.pem());
    put(&files.key, made.signing_key.serialize_pem());
    (files, roots)
}

/// Sends a request and reads all that comes. With TLS 1.3 a client learns only now that it should have shown something.
async fn status(wire: &mut Wire, head: &str, more: &str) -> Option<u16> {
    let request = format!("{head}{more}Connection: close\r\n\r\n");
    within(wire.stream.write_all(request.as_bytes())).await.ok()?;
    let _ = within(wire.stream.flush()).await; // what came of it is read
    let rest = wire.rest().await;
    std::str::from_utf8(&rest).unwrap().split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn each_name_has_clients_prove_what_it_demands() {
    let house = Gatehouse::open(|_| {}).await;
    for (name, with, without, with_another) in [
        ("must.test", Some(206), None, None),
        ("a.w.test", Some(206), None, None),
        ("other.test", None, None, Some(206)),
        ("may.test", Some(206), Some(206), None),
        ("open.test", Some(206), Some(206), Some(206)),
        ("localhost", Some(206), Some(206), Some(206)),
    ] {
        let host = house.at(name);
        assert_eq!(house.ask(name, house.runner(), &host).await, with, "{name} with");
        assert_eq!(house.ask(name, None, &host).await, without, "{name} without");
        assert_eq!(house.ask(name, house.strange(), &host).await, with_another, "{name} with another's");
    }
}

#[tokio::test]
async fn who_asks_tls_for_one_name_gets_nothing_of_another_that_demands_something_else() {
    let house = Gatehouse::open(|_| {}).await;
    for (asked, shown, host, status) in [
        ("open.test", None, "must.test", 421),
        ("open.test", None, "MUST.test", 421),
        ("open.test", None, "a.w.test", 421),
        ("open.test", None, "may.test", 421),
        ("open.test", None, "localhost", 206),
        ("may.test", None, "must.test", 421),
        ("may.test", house.runner(), "must.test", 421),
        ("may.test", house.runner(), "open.test", 421),
        ("must.test", house.runner(), "a.w.test", 206),
        ("A.W.test", house.runner(), "must.test", 206),
        ("must.test", house.runner(), "other.test", 421),
        ("other.test", house.strange(), "must.test", 421),
        ("must.test", house.runner(), "open.test", 421),
        ("must.test", house.runner(), "localhost", 421),
        ("127.0.0.1", None, "must.test", 421),
        ("127.0.0.1", None, "may.test", 421),
        ("127.0.0.1", None, "localhost", 206),
    ] {
        assert_eq!(house.ask(asked, shown, &house.at(host)).await, Some(status), "TLS for {asked}, HTTP for {host}");
    }
    for host in ["must.test.", "must.test:1", "x.must.test"] {
        assert_eq!(house.ask("open.test", None, host).await, Some(421), "no name of ours: {host}");
    }
    for host in ["must.test", "may.test"] {
        let mut wire = house.connect("127.0.0.1", None, &TLS13, "http/1.1").await.unwrap();
        let head = format!("GET http://{}/v2/206 HTTP/1.1\r\nHost: {0}\r\n", house.at(host));
        assert_eq!(status(&mut wire, &head, "").await, Some(421), "in the target");
    }
    let all = house.theirs.all();
    let came = |name: &str| all.matches(&format!("\nHost: {name}:")).count();
    assert_eq!((came("must.test"), came("may.test")), (2, 0), "those with a certificate, by each version");
}

#[tokio::test]
async fn an_address_and_no_name_at_all_mean_external_url_with_what_that_demands() {
    let house = Gatehouse::open(|config| {
        let must =
            config.aliases.iter().find(|alias| alias.is_secure() && alias.host() == "must.test").unwrap().clone();
        config.aliases.push(std::mem::replace(&mut config.external_url, must));
    })
    .await;
    for asked in ["open.test", "127.0.0.1", "may.test"] {
        for head in [
            format!("GET /v2/206 HTTP/1.1\r\nHost: {}\r\n", house.at("127.0.0.1")),
            "GET /v2/206 HTTP/1.0\r\n".to_owned(),
        ] {
            let mut wire = house.connect(asked, None, &TLS13, "http/1.1").await.unwrap();
            assert_eq!(status(&mut wire, &head, "").await, Some(421), "{asked}: {head}");
        }
    }
    let mut wire = house.connect("must.test", house.runner(), &TLS13, "http/1.1").await.unwrap();
    assert_eq!(status(&mut wire, "GET /v2/206 HTTP/1.0\r\n", "").await, Some(206));
    let mut wire = house.connect("open.test", None, &TLS13, "http/1.1").await.unwrap();
    let probe = "GET /-/healthy HTTP/1.1\r\nHost: must.test\r\n";
    assert_ne!(status(&mut wire, probe, "").await, Some(421), "who looks whether we live shows nothing");
    assert_eq!(house.theirs.all().matches("GET /v2/206").count(), 1);
}

#[tokio::test]
async fn a_proxy_whose_word_counts_and_who_comes_in_the_clear_reach_no_name_that_requires_a_certificate() {
    let house = Gatehouse::open(|config| config.trusted_proxies = "127.0.0.0/8".parse().into_iter().collect()).await;
    let forwarded = |name: &str| format!("X-Forwarded-Proto: https\r\nX-Forwarded-Host: {}\r\n", house.at(name));
    for (asked, told, status_of_it) in [
        ("open.test", "must.test", 421),
        ("127.0.0.1", "must.test", 421),
        ("may.test", "must.test", 421),
        ("open.test", "may.test", 206),
        ("may.test", "open.test", 206),
    ] {
        for host in [house.at("open.test"), house.at(told)] {
            let mut wire = house.connect(asked, None, &TLS13, "http/1.1").await.unwrap();
            let head = format!("GET /v2/206 HTTP/1.1\r\nHost: {host}\r\n");
            let status = status(&mut wire, &head, &forwarded(told)).await;
            assert_eq!(status, Some(status_of_it), "TLS for {asked}, told {told}, Host {host}");
        }
    }
    let port = house.door.clear.port();
    for (host, told, status_of_it) in [
        ("must.test", None, 421),
        ("open.test", Some("must.test"), 421),
        ("a.w.test", Some("a.w.test"), 421),
        ("may.test", None, 206),
        ("open.test", Some("may.test"), 206),
    ] {
        let mut wire = house.door.clear().await;
        let head = format!("GET /v2/206 HTTP/1.1\r\nHost: {host}:{port}\r\n");
        let status = status(&mut wire, &head, &told.map(forwarded).unwrap_or_default()).await;
        assert_eq!(status, Some(status_of_it), "in the clear: {host}, told {told:?}");
    }
    // A proxy that has a certificate of its own answers for its clients.
    let mut wire = house.connect("must.test", house.runner(), &TLS13, "http/1.1").await.unwrap();
    let head = format!("GET /v2/206 HTTP/1.1\r\nHost: {}\r\n", house.at("open.test"));
    assert_eq!(status(&mut wire, &head, &forwarded("must.test")).await, Some(206));
    // Whose certificate does not count for the name is told nobody.
    let mut wire = house.connect("must.test", house.runner(), &TLS13, "http/1.1").await.unwrap();
    let head = format!("GET /v2/206/unproven HTTP/1.1\r\nHost: {}\r\n", house.at("may.test"));
    status(&mut wire, &head, "").await;
    let all = house.theirs.all();
    let unproven = all.split("\r\n\r\n").find(|head| head.contains("/unproven")).unwrap();
    assert!(!unproven.to_lowercase().contains("ssl-client"), "{unproven}");
}

#[tokio::test]
async fn the_subject_is_told_and_nobody_can_forge_it() {
    for trusts in [false, true] {
        let house = Gatehouse::open(|config| {
            if trusts {
                config.trusted_proxies = "127.0.0.0/8".parse().into_iter().collect();
            }
        })
        .await;
        let forged = "X-SSL-Client-S-DN: CN=admin\r\nx-ssl-client-s-dn: CN=admin\r\nX_SSL_CLIENT_S_DN: CN=admin\r\n\
                      X-SSL-Client_S-DN: CN=admin\r\nX.SSL.Client.S.DN: CN=admin\r\n";
        let evil = Some(house.ours.client("runner\r\nX-Admin: yes, CN=admin", 7));
        for (path, name, shown) in [
            ("must", "must.test", house.runner()),
            ("evil", "must.test", evil),
            ("with", "may.test", house.runner()),
            ("without", "may.test", None),
            ("open", "open.test", house.runner()),
        ] {
            let mut wire = house.connect(name, shown, &TLS13, "http/1.1").await.unwrap();
            let head = format!("GET /v2/206/{path} HTTP/1.1\r\nHost: {}\r\n", house.at(name));
            assert!(status(&mut wire, &head, forged).await.is_some_and(|status| status < 400));
        }
        let mut wire = house.door.clear().await;
        wire.send(house.door.request("GET /v2/206/clear", forged)).await;
        assert!(wire.reply().await.status < 400);
        let all = house.theirs.all();
        for (path, told) in [
            ("must", Some("CN=runner")),
            ("evil", Some("CN=runner\\0D\\0AX-Admin: yes\\, CN=admin")),
            ("with", Some("CN=runner")),
            ("without", None),
            ("open", None),
            ("clear", None),
        ] {
            let head = all.split("\r\n\r\n").find(|head| head.contains(&format!("/v2/206/{path} "))).unwrap();
            let spelled = |line: &&str| line.to_lowercase().replace(['_', '.'], "-").starts_with("x-ssl-client-s-dn");
            let lines: Vec<&str> = head.lines().filter(spelled).collect();
            let wanted: Vec<String> = told.map(|told| format!("{HEADER}: {told}")).into_iter().collect();
            let same = lines.len() == wanted.len()
                && lines.iter().zip(&wanted).all(|(line, told)| line.eq_ignore_ascii_case(told));
            assert!(same, "{path}, trusts {trusts}: {lines:?}, not {wanted:?}");
            assert!(!head.contains("CN=admin\r\n") && !head.contains("\nX-Admin"), "{head}");
        }
    }
}

/// A request on HTTP/2, which no client of ours would send on a connection of another name.
fn http2_get(authority: &str, path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", path)];
    [HTTP2_BEGINS, &http2_request(1, &fields)].concat()
}

#[tokio::test]
async fn on_http2_it_is_the_same() {
    let house = Gatehouse::open(|_| {}).await;
    let asked = [
        ("open.test", None, "must.test", 421),
        ("127.0.0.1", None, "must.test", 421),
        ("may.test", house.runner(), "must.test", 421),
        ("must.test", house.runner(), "open.test", 421),
        ("must.test", house.runner(), "a.w.test", 206),
        ("open.test", None, "localhost", 206),
    ];
    for (number, (asked, shown, host, status)) in asked.into_iter().enumerate() {
        let mut wire = house.connect(asked, shown, &TLS13, "h2").await.unwrap();
        wire.send(http2_get(&house.at(host), "/v2/206")).await;
        let lines = house.door.lines(number + 1).await;
        let line = lines.last().unwrap();
        assert_eq!((&line["status"], &line["protocol"]), (&status.into(), &"HTTP/2.0".into()), "{asked} {host}");
    }
}

#[tokio::test]
async fn nobody_resumes_where_certificates_are_asked_for() {
    let house = Gatehouse::open(|_| {}).await;
    for (name, shown) in [("must.test", house.runner()), ("may.test", None), ("open.test", None)] {
        for version in [&TLS12, &TLS13] {
            let builder = ClientConfig::builder_with_protocol_versions(&[version]);
            let builder = builder.with_root_certificates(house.door.roots.clone());
            let config = Arc::new(match &shown {
                Some(Client { chain, key }) => builder.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap(),
                None => builder.with_no_client_auth(),
            });
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let connector = tokio_rustls::TlsConnector::from(config.clone());
                let stream = TcpStream::connect(house.door.tls).await.unwrap();
                let server = ServerName::try_from(name).unwrap();
                let mut stream = within(connector.connect(server, stream)).await.unwrap();
                let request = format!("GET /v2/206 HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", house.at(name));
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut all = Vec::new();
                within(stream.read_to_end(&mut all)).await.unwrap(); // the tickets, if any, are among it
                kinds.push(stream.get_ref().1.handshake_kind().unwrap());
            }
            let resumed = kinds[1] == rustls::HandshakeKind::Resumed;
            assert_eq!(resumed, name == "open.test", "{name} {version:?}");
        }
    }
}
