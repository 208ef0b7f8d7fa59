//! What is shown to a client: one handshake on a connection of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::command::{Output, command};

/// What a client that trusts these authorities (PEM) and nobody else is shown at a port of this machine, over a new
/// connection, if it can be verified and a request is answered.
pub(crate) fn shown(authorities: &str, name: &str, port: u16) -> std::io::Result<Vec<CertificateDer<'static>>> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(root.expect("PEM")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let to = ServerName::try_from(name.to_owned()).expect("a name");
    let connection = ClientConnection::new(Arc::new(config), to).map_err(std::io::Error::other)?;
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut stream = StreamOwned::new(connection, socket);
    write!(stream, "GET /-/healthy HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 ") {
        return Err(std::io::Error::other(format!("an answer that is none: {answer:?}")));
    }
    Ok(stream.conn.peer_certificates().expect("servers show one").to_vec())
}

/// What is presented at a port of this machine, whoever signed it and however old it is.
pub(crate) fn presented(name: &str, port: u16) -> Vec<CertificateDer<'static>> {
    let mut openssl = command("openssl");
    openssl.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", name, "-showcerts"]);
    let said = Output::of(&mut openssl).stdout;
    let certificates = CertificateDer::pem_slice_iter(said.as_bytes()).collect::<Result<_, _>>();
    certificates.unwrap_or_else(|error| panic!("{error}: {said}"))
}
