//! Connections that are kept while what is demanded changes, or what was shown is good no more.

use super::*;

/// A request on a connection that goes on: whether it is served, whether the answer ends the connection, and what it says
/// if it is sent away.
async fn next(wire: &mut Wire, host: &str, path: &str) -> (bool, bool, String) {
    wire.send(format!("GET /v2/206{path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let reply = wire.reply().await;
    assert!(reply.status < 300 || reply.status == 421, "{}", reply.status);
    let message = if reply.status == 421 { reply.message() } else { String::new() };
    (reply.status < 300, reply.header("connection") == Some("close"), message)
}

impl Gatehouse {
    fn file(&self, authority: &ClientAuthority, name: &str) -> std::path::PathBuf {
        authority.file(self.folder.path(), name)
    }

    async fn kept(&self, name: &'static str, shown: Option<Client>) -> (&'static str, Wire) {
        let mut wire = self.connect(name, shown, &TLS13, "http/1.1").await.unwrap();
        assert!(next(&mut wire, &self.at(name), "").await.0, "{name}");
        (name, wire)
    }

    /// Whose certificate the upstream was told for the request of this path.
    fn told(&self, path: &str) -> Option<String> {
        let all = self.theirs.all();
        let head = all.split("\r\n\r\n").find(|head| head.contains(&format!("/v2/206{path} "))).unwrap();
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("x-ssl-client-s-dn: ").map(str::to_owned))
    }
}

#[tokio::test]
async fn a_reload_disturbs_nobody_who_may_still_come_and_sends_the_others_away_once() {
    let mut house = Gatehouse::open(|_| {}).await;
    let mut kept = [
        house.kept("must.test", house.runner()).await,
        house.kept("may.test", house.runner()).await,
        house.kept("open.test", None).await,
        house.kept("localhost", None).await,
    ];
    let same = house.file(&house.ours, "same.crt");
    house.demand(&[
        rule(&["must.test", "*.w.test"], Clients::MustProve(vec![same.clone()])),
        rule(&["may.test"], Clients::MayProve(vec![same.clone()])),
    ]);
    for (name, wire) in &mut kept {
        assert_eq!(next(wire, &house.at(name), &format!("/same/{name}")).await, (true, false, String::new()), "{name}");
    }
    let told = Some("cn=runner".to_owned());
    assert_eq!((house.told("/same/must.test"), house.told("/same/may.test")), (told.clone(), told.clone()));

    let deeper = NamedClients { depth: 3, ..rule(&["must.test"], Clients::MustProve(vec![same.clone()])) };
    house.demand(&[deeper, rule(&["open.test"], Clients::MayProve(vec![same.clone()]))]);
    for (name, wire) in &mut kept {
        assert_eq!(
            next(wire, &house.at(name), &format!("/other/{name}")).await,
            (true, false, String::new()),
            "{name}"
        );
    }
    assert_eq!((house.told("/other/must.test"), house.told("/other/may.test")), (told, None));

    let another = house.file(&house.stranger, "same.crt");
    house.demand(&[
        rule(&["must.test", "open.test"], Clients::MustProve(vec![another.clone()])),
        rule(&["may.test"], Clients::MayProve(vec![another])),
    ]);
    for (name, wire) in &mut kept {
        let (served, closes, message) = next(wire, &house.at(name), &format!("/last/{name}")).await;
        let away = ["must.test", "open.test"].contains(name);
        assert_eq!((served, closes), (!away, away), "{name}");
        assert_eq!(message.contains(&format!("open a new one to https://{},", house.at(name))), away, "{message}");
    }
    assert_eq!(house.told("/last/may.test"), None, "another authority's");
    assert_eq!(house.ask("must.test", house.strange(), &house.at("must.test")).await, Some(206));
}

#[tokio::test]
async fn what_is_withdrawn_counts_no_more_on_connections_that_are_kept() {
    let mut house = Gatehouse::open(|_| {}).await;
    let (_, mut must) = house.kept("must.test", house.runner()).await;
    let (_, mut may) = house.kept("may.test", house.runner()).await;
    let (_, mut other) = house.kept("must.test", Some(house.ours.client("other", 8))).await;
    let ca = house.file(&house.ours, "ca.crt");
    let list = house.folder.path().join("list.pem");
    let withdrawn = house.ours.withdrawn(0, &[7], 30 * crate::tls::client_testing::DAY);
    std::fs::File::create(&list).unwrap().write_all(withdrawn.as_bytes()).unwrap();
    let rule = |names: &[&str], clients| NamedClients { revoked: vec![list.clone()], ..rule(names, clients) };
    house.demand(&[
        rule(&["must.test"], Clients::MustProve(vec![ca.clone()])),
        rule(&["may.test"], Clients::MayProve(vec![ca])),
    ]);
    assert!(!next(&mut must, &house.at("must.test"), "").await.0);
    assert!(!must.more().await, "it is over");
    assert!(next(&mut may, &house.at("may.test"), "/anonymous").await.0);
    assert_eq!(house.told("/anonymous"), None);
    assert_eq!(next(&mut other, &house.at("must.test"), "/known").await, (true, false, String::new()));
    assert_eq!(house.told("/known"), Some("cn=other".to_owned()));
}

#[tokio::test]
async fn who_is_sent_away_on_http2_is_told_to_come_anew() {
    const GOAWAY: u8 = 7;
    let house = Gatehouse::open(|_| {}).await;
    for (host, goes) in [("must.test", true), ("open.test", false)] {
        let mut wire = house.connect("open.test", None, &TLS13, "h2").await.unwrap();
        wire.send(http2_get(&house.at(host), "/v2/206")).await;
        let mut kinds = Vec::new();
        // The answer, and what comes with it.
        while !(kinds.contains(&0) && kinds.contains(&GOAWAY) == goes) {
            assert!(wire.more().await, "{host}: {kinds:?}");
            while let Some(&[a, b, c, kind, ..]) = Some(&wire.buffer[..]) {
                let length = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
                if wire.buffer.len() < length {
                    break;
                }
                wire.buffer.drain(..length);
                kinds.push(kind);
            }
        }
        assert_eq!(kinds.contains(&GOAWAY), goes, "{host}");
    }
}

#[tokio::test]
async fn only_a_proxy_whose_word_counts_tells_upstreams_of_certificates() {
    let lines = "Client-Cert: :AA==:\r\nClient-Cert-Chain: :AA==:\r\nX-Client-Cert: forged\r\nX-Client-Verify: SUCCESS\r\n\
                 X-ARR-ClientCert: forged\r\nX-SSL-Client-Verify: SUCCESS\r\nx_ssl_client_cert: forged\r\n\
                 SSL-Client-S-DN: CN=admin\r\nX-Amzn-Mtls-Clientcert: forged\r\nX-SSL-Client-S-DN: CN=admin\r\n";
    for (trusts, demands) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut house = Gatehouse::open(|config| {
            if trusts {
                config.trusted_proxies = "127.0.0.0/8".parse().into_iter().collect();
            }
        })
        .await;
        if !demands {
            house.demand(&[]);
        }
        let mut wire = house.door.clear().await;
        wire.send(house.door.request("GET /v2/206/told", lines)).await;
        assert!(wire.reply().await.status < 400);
        let all = house.theirs.all().to_lowercase().replace('_', "-");
        let head = all.split("\r\n\r\n").find(|head| head.contains("/v2/206/told ")).unwrap();
        let theirs = |line: &&str| line.contains("client-") || line.contains("clientcert");
        let came = head.lines().filter(theirs).count();
        let sent = lines.lines().count();
        assert_eq!(came, if trusts { sent - usize::from(demands) } else { 0 }, "{trusts} {demands}: {head}");
    }
}
