//! TLS with peers: verified, always, and for each upstream by its own rules.

use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::{HttpPeer, Peer as _};

use super::peers::{Answering, Authority};
use super::*;

/// An upstream of one peer with TLS, and what it is called.
fn secure(host: &str, port: u16, tls: UpstreamTls) -> Upstream {
    Upstream { tls, ..upstream(&[&format!("https://{host}:{port}")]) }
}

fn trusting(authority: &Authority) -> UpstreamTls {
    UpstreamTls { ca: Some(authority.certificate()), ..UpstreamTls::default() }
}

fn peer(upstream: &Upstream) -> HttpPeer {
    pool(upstream).choose(None, &[], Instant::now()).unwrap().http_peer()
}

async fn connect(peer: &HttpPeer) -> pingora::Result<(HttpSession, bool)> {
    crate::tls::install_provider();
    Connector::new(None).get_http_session(peer).await
}

async fn refusal(peer: &HttpPeer) -> String {
    match connect(peer).await {
        Ok(_) => panic!("connected"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_peer_with_a_certificate_for_another_or_of_a_stranger_is_refused() {
    crate::tls::install_provider();
    let (ours, strange) = (Authority::new(), Authority::new());
    let named = Answering::default().serve(Some(ours.server("registry.test", None))).await;
    let as_named = |name: &str, authority| UpstreamTls { name: Some(name.to_owned()), ..trusting(authority) };
    let asked = |name: &str, authority| peer(&secure("127.0.0.1", named, as_named(name, authority)));
    assert!(connect(&asked("registry.test", &ours)).await.is_ok());
    assert!(refusal(&asked("other.test", &ours)).await.contains("not valid for name"), "another's");
    assert!(refusal(&asked("registry.test", &strange)).await.contains("invalid peer certificate"), "a stranger's");
    let machine = UpstreamTls { name: Some("registry.test".to_owned()), ..UpstreamTls::default() };
    let unknown = peer(&secure("127.0.0.1", named, machine));
    assert!(refusal(&unknown).await.contains("invalid peer certificate"), "whom this machine does not trust");
}

#[tokio::test]
async fn a_peer_that_is_written_as_an_address_must_have_a_certificate_for_it() {
    crate::tls::install_provider();
    let authority = Authority::new();
    let by_address = Answering::default().serve(Some(authority.server("127.0.0.1", None))).await;
    let by_name = Answering::default().serve(Some(authority.server("localhost", None))).await;
    let good = peer(&secure("127.0.0.1", by_address, trusting(&authority)));
    assert_eq!(good.sni(), "127.0.0.1", "without a name nothing would be verified");
    assert!(connect(&good).await.is_ok());
    let bad = peer(&secure("127.0.0.1", by_name, trusting(&authority)));
    assert!(refusal(&bad).await.contains("not valid for name"));
    let six = peer(&secure("[::1]", 5000, trusting(&authority)));
    assert_eq!(six.sni(), "::1");
}

#[tokio::test]
async fn a_peer_that_asks_who_we_are_is_shown_our_certificate() {
    crate::tls::install_provider();
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", Some(&authority.certificate()));
    let peers = Answering::default();
    let port = peers.serve(Some(server)).await;
    let shown = UpstreamTls { certificate: Some(authority.sign("pierhead.test")), ..trusting(&authority) };
    let status = |tls: UpstreamTls| async move {
        let mut session = connect(&peer(&secure("127.0.0.1", port, tls))).await.ok()?.0;
        ask(&mut session).await.ok()
    };
    assert_eq!(status(shown).await, Some(StatusCode::UNAUTHORIZED));
    assert_eq!(status(trusting(&authority)).await, None);
}

async fn ask(session: &mut HttpSession) -> pingora::Result<StatusCode> {
    let mut head = RequestHeader::build("GET", b"/v2/", None)?;
    head.insert_header("Host", "registry.test")?;
    session.write_request_header(Box::new(head)).await?;
    session.finish_request_body().await?;
    session.read_response_header().await?;
    while session.read_response_body().await?.is_some() {}
    Ok(session.response_header().unwrap().status)
}

#[tokio::test]
async fn connections_are_used_again_and_never_by_another_upstream_or_after_a_change() {
    crate::tls::install_provider();
    let (ours, strange) = (Authority::new(), Authority::new());
    let port = Answering::default().serve(Some(ours.server("127.0.0.1", None))).await;
    let connector = Connector::new(None);
    let definition = secure("127.0.0.1", port, trusting(&ours));
    let good = pool(&definition);
    let first = good.choose(None, &[], Instant::now()).unwrap().http_peer();
    let (mut session, reused) = connector.get_http_session(&first).await.unwrap();
    assert!(!reused);
    ask(&mut session).await.unwrap();
    connector.release_http_session(session, &first, None).await;
    // In one process, with one pool of connections: those who trust others, and the same words after a reload.
    let bad = peer(&secure("127.0.0.1", port, trusting(&strange)));
    assert!(connector.get_http_session(&bad).await.is_err(), "it must not profit from what another verified");
    assert!(!connector.get_http_session(&peer(&definition)).await.unwrap().1);
    let again = good.choose(None, &[], Instant::now()).unwrap().http_peer();
    assert!(connector.get_http_session(&again).await.unwrap().1, "but the same upstream does");
}

#[tokio::test]
async fn http2_is_spoken_where_both_want_it_and_many_requests_share_a_connection() {
    crate::tls::install_provider();
    let authority = Authority::new();
    let port = Answering::default().serve(Some(authority.server("127.0.0.1", None))).await;
    for (http2, version) in [(true, "h2"), (false, "h1")] {
        let definition = Upstream { http2, ..secure("127.0.0.1", port, trusting(&authority)) };
        let peer = peer(&definition);
        let (session, _) = connect(&peer).await.unwrap();
        assert_eq!(if session.as_http2().is_some() { "h2" } else { "h1" }, version);
        assert_eq!(peer.options.max_h2_streams, if http2 { 16 } else { 1 });
        let window = peer.options.h2_stream_window_size;
        assert!(window.is_some() == http2 && window <= Some(512 << 10), "a client that reads slowly costs no more");
    }
    let clear = Upstream { http2: true, ..upstream(&THREE) };
    assert_eq!(peer(&clear).options.alpn.get_max_http_version(), 1, "it is agreed on in the handshake");
}

#[test]
fn every_timeout_reaches_the_peer() {
    let timeouts = UpstreamTimeouts { connect: SECOND, read: 2 * SECOND, write: 3 * SECOND, idle: 4 * SECOND };
    let options = peer(&Upstream { timeouts, ..upstream(&THREE) }).options;
    let set = [options.total_connection_timeout, options.read_timeout, options.write_timeout, options.idle_timeout];
    assert_eq!(set, [1, 2, 3, 4].map(|seconds| Some(seconds * SECOND)));
}

#[test]
fn files_and_names_that_cannot_serve_are_refused_with_what_to_do() {
    let authority = Authority::new();
    let load = |host: &str, tls| Credentials::load(&[secure(host, 5000, tls)]).unwrap_err().to_string();
    let gone = UpstreamTls { ca: Some(authority.path("gone.crt")), ..UpstreamTls::default() };
    let message = load("a.test", gone);
    assert!(message.starts_with("upstreams.registry.tls: cannot read ") && message.contains("gone.crt"), "{message}");
    let (one, other) = (authority.sign("one.test"), authority.sign("other.test"));
    let mixed = crate::tls::Files::new(one.certificate, other.key);
    let message = load("a.test", UpstreamTls { certificate: Some(mixed), ..UpstreamTls::default() });
    assert!(message.contains("does not belong to the certificate"), "{message}");
    // Pingora would ask for my-registry.example.test.
    let message = load("my_registry.example.test", UpstreamTls::default());
    assert!(message.contains("underscore") && message.contains("tls.name"), "{message}");
    let named = UpstreamTls { name: Some("registry.example.test".to_owned()), ..UpstreamTls::default() };
    assert!(Credentials::load(&[secure("my_registry.example.test", 5000, named)]).is_ok());
    let message = load("a.test", UpstreamTls { name: Some("no name".to_owned()), ..UpstreamTls::default() });
    assert!(message.contains("neither a DNS name nor an address"), "{message}");
}

#[test]
fn a_certificate_authority_that_was_replaced_makes_another_upstream() {
    let authority = Authority::new();
    let definition = secure("127.0.0.1", 5000, trusting(&authority));
    let before = upstreams(&definition, None);
    let kept = upstreams(&definition, Some(&before));
    assert!(Arc::ptr_eq(before.get("registry").unwrap(), kept.get("registry").unwrap()));
    std::fs::copy(Authority::new().certificate(), authority.certificate()).unwrap();
    let changed = upstreams(&definition, Some(&before));
    assert!(!Arc::ptr_eq(before.get("registry").unwrap(), changed.get("registry").unwrap()));
}
