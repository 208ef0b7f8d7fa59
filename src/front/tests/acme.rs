//! Proofs for an authority: in a handshake and in a file, wherever it comes from, and nothing for anybody else.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{AlertDescription, DigitallySignedStruct, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio_rustls::client::TlsStream;

use super::super::{Directions, Gate, ProxyProtocol};
use super::*;
use crate::telemetry::Exposition;
use crate::tls::acme::Answers;

const ANSWER: &str = "to-Ken_1.thumb";

/// Has the door prove `localhost`, and know the token `to-Ken_1`.
fn proving(mut door: Door) -> (Door, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (kind, subject) in [("http-01", "to-Ken_1"), ("tls-alpn-01", "localhost"), ("", "secret")] {
        let place = folder.path().join("challenges").join(kind);
        std::fs::create_dir_all(&place).unwrap();
        std::fs::File::create(place.join(subject)).unwrap().write_all(ANSWER.as_bytes()).unwrap();
    }
    let tls = Tls { answers: Some(Answers::of(folder.path())), ..door.certificates.clone() };
    door.running.change(door.config.clone(), door.script.clone(), &tls, Vec::new()).unwrap();
    (door, folder)
}

/// Has all listeners changed, for now and when the configuration is put in force again.
fn each(config: &mut Config, sockets: &mut [(Socket, Listener)], change: impl Fn(&mut Listener)) {
    sockets.iter_mut().for_each(|(_, listener)| change(listener));
    config.listeners = sockets.iter().map(|(_, listener)| listener.clone()).collect();
}

/// An authority trusts nobody: it looks at the certificate itself.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Comes as an authority does, perhaps with a header of the PROXY protocol, and offers these protocols.
async fn ask(
    door: &Door,
    header: &str,
    name: &str,
    protocols: &[&str],
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let builder = ClientConfig::builder_with_protocol_versions(&[version]).dangerous();
    let mut config = builder.with_custom_certificate_verifier(Arc::new(Anyone)).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let mut stream = TcpStream::connect(door.tls).await.unwrap();
    stream.write_all(header.as_bytes()).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    within(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// Whether the certificate carries the proof of RFC 8737 3.
fn proves(stream: &TlsStream<TcpStream>) -> bool {
    let certificate = &stream.get_ref().1.peer_certificates().unwrap()[0];
    let digest = Sha256::digest(ANSWER);
    stream.get_ref().1.alpn_protocol() == Some(b"acme-tls/1")
        && certificate.windows(digest.len()).any(|bytes| bytes == digest.as_slice())
}

#[tokio::test]
async fn in_a_handshake_a_name_is_proven_and_the_connection_ends_and_counts_as_no_clients() {
    let reports = Reports::off();
    let (door, _folder) = proving(Door::telling(reports.clone(), |_, _| {}));
    for version in rustls::ALL_VERSIONS {
        let mut stream = ask(&door, "", "LocalHost", &["acme-tls/1"], version).await.unwrap();
        assert!(proves(&stream));
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await; // may be closed by now
        let mut rest = Vec::new();
        let _ = within(stream.read_to_end(&mut rest)).await; // however it ends
        assert!(rest.is_empty(), "nothing is served there");
    }
    for name in ["other.test", "127.0.0.1"] {
        let error = ask(&door, "", name, &["acme-tls/1"], &rustls::version::TLS13).await.unwrap_err();
        assert!(error.to_string().contains(&format!("{:?}", AlertDescription::NoApplicationProtocol)), "{error}");
    }
    let stream = ask(&door, "", "localhost", &["acme-tls/1", "http/1.1"], &rustls::version::TLS13).await.unwrap();
    assert!(!proves(&stream), "who offers more than that is no authority");
    let page = || reports.metrics.page(Exposition::Prometheus);
    eventually(|| page().contains("pierhead_tls_handshakes_total{outcome=\"done\"} 1")).await;
    eventually(|| door.running.connections() == 1).await;
    let page = page();
    assert!(!page.contains("pierhead_tls_handshakes_total{outcome=\"failed\"}"), "{page}");
}

#[tokio::test]
async fn behind_a_balancer_a_name_is_proven_as_well() {
    let (door, _folder) = proving(Door::built(|config, sockets| {
        config.trusted_proxies = "127.0.0.0/8".parse().into_iter().collect();
        each(config, sockets, |listener| listener.proxy_protocol = ProxyProtocol::Required);
    }));
    let header = "PROXY TCP4 203.0.113.9 127.0.0.1 4711 443\r\n";
    assert!(proves(&ask(&door, header, "localhost", &["acme-tls/1"], &rustls::version::TLS13).await.unwrap()));
}

#[tokio::test]
async fn who_proves_nothing_speaks_no_such_protocol() {
    let door = Door::open();
    let error = ask(&door, "", "localhost", &["acme-tls/1"], &rustls::version::TLS13).await.unwrap_err();
    assert!(error.to_string().contains(&format!("{:?}", AlertDescription::NoApplicationProtocol)), "{error}");
}

/// A door that redirects what comes in the clear, and lets nobody in.
fn forbidding() -> Door {
    Door::built(|config, sockets| {
        let nobody = || "192.0.2.1".parse().into_iter().collect();
        each(config, sockets, |listener| {
            listener.redirect = !listener.tls && !listener.internal;
            listener.gate = Gate { allow: Directions { pull: nobody(), push: nobody() }, ..Gate::default() };
        });
    })
}

async fn get(wire: &mut Wire, method: &str, path: &str, host: &str) -> Reply {
    wire.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    if method == "HEAD" { wire.head().await } else { wire.reply().await }
}

const TOKEN: &str = "/.well-known/acme-challenge/to-Ken_1";

#[tokio::test]
async fn a_token_is_answered_on_every_public_listener_whoever_may_come_in() {
    let (door, _folder) = proving(forbidding());
    let plain_on_tls = Wire::new(TcpStream::connect(door.tls).await.unwrap());
    for mut wire in [door.clear().await, door.tls("http/1.1").await, plain_on_tls] {
        for host in ["localhost", "any.other.test:80", "203.0.113.7"] {
            let reply = get(&mut wire, "GET", TOKEN, host).await;
            assert_eq!((reply.status, reply.text()), (200, ANSWER), "{host}");
            assert!(reply.header("content-type").unwrap().starts_with("text/plain"));
            let reply = get(&mut wire, "HEAD", TOKEN, host).await;
            assert_eq!((reply.status, reply.header("content-length")), (200, Some("14")), "{host}");
        }
    }
    let reply = door.http2().get(door.url(TOKEN)).send().await.unwrap();
    assert_eq!((reply.status().as_u16(), reply.text().await.unwrap().as_str()), (200, ANSWER));
    let mut internal = Wire::new(TcpStream::connect(door.internal).await.unwrap());
    assert_ne!(get(&mut internal, "GET", TOKEN, "localhost").await.status, 200);
}

#[tokio::test]
async fn what_is_not_being_proven_goes_on_as_any_request() {
    let (door, _folder) = proving(forbidding());
    let long = format!("/.well-known/acme-challenge/{}", "a".repeat(300));
    let paths = [
        "/.well-known/acme-challenge/other",
        "/.well-known/acme-challenge/",
        "/.well-known/acme-challenge/../secret",
        "/.well-known/acme-challenge/../../../../../../etc/hostname",
        "/.well-known/acme-challenge/%2e%2e/secret",
        "/.well-known/acme-challenge/to%2dKen_1",
        "/.well-known/acme-challenge/to-Ken_1/",
        "/.well-known/acme-challenge//to-Ken_1",
        "//.well-known/acme-challenge/to-Ken_1",
        "/.WELL-KNOWN/acme-challenge/to-Ken_1",
        long.as_str(),
    ];
    let mut wire = door.clear().await;
    for path in paths {
        let reply = get(&mut wire, "GET", path, "localhost").await;
        assert_eq!(reply.status, 308, "{path}: {}", reply.text());
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let reply = get(&mut wire, method, TOKEN, "localhost").await;
        assert_eq!(reply.status, 308, "{method}");
    }
    let mut wire = door.tls("http/1.1").await;
    let host = format!("localhost:{}", door.tls.port());
    for path in paths {
        assert_eq!(get(&mut wire, "GET", path, &host).await.status, 403, "{path}");
    }
}
