//! What holds for the internal listener, and what every answer carries.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use tempfile::NamedTempFile;
use tokio::net::UnixStream;

use super::*;
use crate::front::Prefix;
use crate::tls::{Clients, Files, Port, Version};

async fn ask(wire: &mut Wire, line: &str, headers: &str) -> Reply {
    wire.send(format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await;
    wire.reply().await
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_it_does_not_say_itself() {
    let door = Door::built(|config, _| {
        let header = |name: &'static str, value: &'static str| {
            (header::HeaderName::from_static(name), header::HeaderValue::from_static(value))
        };
        config.headers = vec![
            header("x-content-type-options", "nosniff"),
            header("x-two", "one"),
            header("x-two", "two"),
            header("content-type", "text/html"),
        ];
    });
    let mut wire = door.clear().await;
    wire.send(door.request("GET /origin", "")).await;
    let reply = wire.reply().await;
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.headers.get_all("x-two").iter().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    wire.send("GET / HTTP/1.1\r\nHost: stranger\r\n\r\n").await;
    let refused = wire.reply().await;
    assert_eq!((refused.status, refused.header("x-content-type-options")), (421, Some("nosniff")));
}

#[tokio::test]
async fn the_internal_port_is_called_what_the_operator_wrote_whatever_proxies_say() {
    let door = Door::built(|config, _| config.internal.host = Some("https://hub.test".parse().unwrap()));
    let mut wire = Wire::new(TcpStream::connect(door.internal).await.unwrap());
    let forged = "X-Forwarded-Host: evil.test\r\nForwarded: host=evil.test;proto=http\r\n";
    assert_eq!(ask(&mut wire, "GET /origin", forged).await.text(), "https://hub.test");
    let mut public = door.clear().await;
    public.send(door.request("GET /origin", forged)).await;
    assert_eq!(public.reply().await.text(), format!("http://localhost:{}", door.clear.port()));
}

#[tokio::test]
async fn the_api_lies_below_the_prefix_on_the_internal_port_alone() {
    let door = Door::built(|config, _| config.internal.prefix = Prefix::new("/registry/").unwrap());
    let mut wire = Wire::new(TcpStream::connect(door.internal).await.unwrap());
    let reply = ask(&mut wire, "GET /registry/v2/where?a=b", "").await;
    assert_eq!((reply.status, reply.text()), (202, "/v2/where?a=b"));
    let expected = format!("https://localhost:{}/registry/v2/x?n=1", door.tls.port());
    assert_eq!(reply.header("location"), Some(expected.as_str()));
    assert_eq!(reply.header("link"), Some("</registry/v2/y>; rel=\"next\""));
    let bare = ask(&mut wire, "GET /v2/where", "").await;
    assert_eq!((bare.status, bare.message().as_str()), (404, "the registry's API is at /registry/v2/"));
    assert_eq!(ask(&mut wire, "GET /origin", "").await.status, 200);

    let mut public = door.clear().await;
    public.send(door.request("GET /v2/where", "")).await;
    let reply = public.reply().await;
    assert_eq!((reply.status, reply.text()), (202, "/v2/where"));
    assert_eq!(door.lines(4).await[0]["path"], "/registry/v2/where?a=b", "the log has what the client wrote");
}

#[tokio::test]
async fn a_socket_in_the_file_system_serves_like_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.sock");
    let door = Door::built(|_, sockets| {
        let socket = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        *sockets.last_mut().unwrap() = (Socket::Unix(socket), Listener::new(Address::Unix(path.clone()), false, true));
    });
    let mut wire = Wire::new(UnixStream::connect(&path).await.unwrap());
    for _ in 0..3 {
        wire.send("POST /echo HTTP/1.1\r\nHost: anything\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!(wire.reply().await.text(), "hello");
    }
    assert_eq!(door.lines(3).await[0]["client"], "127.0.0.1");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "who may connect was decided before");
    drop(wire);
    assert_eq!(door.running.drain().await.left, 0);
}

/// An authority, a server's pair in files, and a client's chain and key.
struct Pki {
    ca: NamedTempFile,
    server: NamedTempFile,
    server_key: NamedTempFile,
    authority: CertificateDer<'static>,
    client: (Vec<CertificateDer<'static>>, Vec<u8>),
}

impl Pki {
    fn new() -> Self {
        let file = |pem: String| {
            let mut file = NamedTempFile::new().unwrap();
            file.write_all(pem.as_bytes()).unwrap();
            file
        };
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::from_params(&params, &key);
        let signed = |name: &str, purpose| {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &issuer).unwrap(), key)
        };
        let (server, server_key) = signed("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let (client, client_key) = signed("client", ExtendedKeyUsagePurpose::ClientAuth);
        let client = (vec![client.der().clone()], client_key.serialize_der());
        Self {
            ca: file(authority.pem()),
            server: file(server.pem()),
            server_key: file(server_key.serialize_pem()),
            authority: authority.der().clone(),
            client,
        }
    }

    fn authorities(&self) -> Vec<PathBuf> {
        vec![self.ca.path().to_owned()]
    }

    fn port(&self) -> Port {
        let (certificate, key) = (self.server.path().to_owned(), self.server_key.path().to_owned());
        Port::new(Files::new(certificate, key))
    }

    fn door(&self, port: Port) -> Door {
        Door::built(|config, sockets| {
            config.internal.tls = Some(port);
            sockets.last_mut().unwrap().1.tls = true;
        })
    }

    /// The protocol that was agreed on and the answer's status, as a client with or without its certificate sees it.
    async fn visit(
        &self,
        door: &Door,
        prove: bool,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> std::io::Result<(Option<Vec<u8>>, Vec<u8>)> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let builder = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
        let mut config = if prove {
            let (chain, key) = self.client.clone();
            builder.with_client_auth_cert(chain, PrivateKeyDer::try_from(key).unwrap()).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TcpStream::connect(door.internal).await?;
        let mut stream = within(connector.connect(name, stream)).await?;
        let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        // With TLS 1.3 only reading shows that the client was turned away.
        let asked = b"GET /origin HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        if agreed.as_deref() == Some(b"h2") {
            return Ok((agreed, Vec::new()));
        }
        within(stream.write_all(asked)).await?;
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await?;
        Ok((agreed, answer))
    }
}

const ALL: &[&rustls::SupportedProtocolVersion] = rustls::ALL_VERSIONS;

#[tokio::test]
async fn the_internal_port_shows_its_own_certificate_and_offers_what_it_should() {
    let pki = Pki::new();
    let usual = pki.door(pki.port());
    assert_eq!(pki.visit(&usual, false, ALL).await.unwrap().0.as_deref(), Some(&b"h2"[..]));

    let strict = pki.door(Port { minimum: Version::Tls13, http2: false, ..pki.port() });
    let (agreed, answer) = pki.visit(&strict, false, ALL).await.unwrap();
    assert_eq!(agreed.as_deref(), Some(&b"http/1.1"[..]));
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert!(pki.visit(&strict, false, &[&rustls::version::TLS12]).await.is_err());
}

#[tokio::test]
async fn clients_prove_who_they_are_where_they_must() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let of = |clients| Port { clients, http2: false, ..pki.port() };
    let door = pki.door(of(Clients::MustProve(pki.authorities())));
    assert!(pki.visit(&door, true, ALL).await.unwrap().1.starts_with(b"HTTP/1.1 200"));
    assert!(pki.visit(&door, false, ALL).await.is_err(), "without a certificate");
    let foreign = Pki { authority: pki.authority.clone(), ..stranger };
    assert!(foreign.visit(&door, true, ALL).await.is_err(), "of another authority");

    let door = pki.door(of(Clients::MayProve(pki.authorities())));
    assert!(pki.visit(&door, false, ALL).await.unwrap().1.starts_with(b"HTTP/1.1 200"));
    assert!(foreign.visit(&door, true, ALL).await.is_err(), "of another authority");
}

#[test]
fn authorities_that_cannot_be_read_or_are_none_are_refused() {
    let pki = Pki::new();
    let refused = |paths: Vec<PathBuf>| {
        crate::tls::port_config(&Port { clients: Clients::MustProve(paths), ..pki.port() }).unwrap_err().to_string()
    };
    assert!(refused(Vec::new()).contains("clients cannot be verified"));
    assert!(refused(vec![Path::new("/gone").to_owned()]).contains("cannot read /gone"));
    assert!(refused(vec![pki.server_key.path().to_owned()]).contains("holds no certificate"));
}
