//! How does a connection become one of TLS?
//!
//! The client's first message says for which name it comes: what TLS shows and asks depends on that. Two kinds of clients
//! are not here to talk TLS with us: authorities that look for a proof, and those that speak HTTP in the clear.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::BytesMut;
use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use rustls::{AlertDescription, CertificateError, ServerConfig};
use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::ahead::Ahead;
use super::connection::Connection;
use super::cork::Corked;
use super::io::FrontIo;
use super::plan::Doorway;
use super::watch::Watched;
use crate::tls::{Asking, acme};

/// How much of a client's first message is read at once: nearly always all of it.
const HELLO: usize = 4 << 10;

/// Clients that speak no TLS are served as well: they are told where to go. `None`: it was an authority, which has
/// what it came for.
pub(super) async fn accept(
    mut stream: Watched,
    doorway: &Doorway,
    usual: &Arc<ServerConfig>,
    connection: Arc<Connection>,
) -> io::Result<Option<FrontIo>> {
    let hello = match first_message(&mut stream).await? {
        First::Hello(hello) => hello,
        First::Clear(ahead) => return FrontIo::plain_on_tls(stream, ahead, connection).map(Some),
    };
    let stream = Corked::new(Ahead::new(stream));
    if acme::is_asked_for(&hello.client_hello()) {
        prove(hello, stream, doorway, usual, &connection).await;
        return Ok(None);
    }
    let asking = doorway.demands.of(hello.client_hello().server_name()).cloned().map(Asking::by);
    let tls = offered(asking.as_ref().map_or(usual, |asking| asking.demand().config()), &connection);
    FrontIo::tls(finish(hello, stream, tls).await?, asking, connection).map(Some)
}

/// What a client begins with.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once, and the large one is the usual one")]
enum First {
    Hello(Accepted),
    /// Something else, of which this much has come.
    Clear(BytesMut),
}

async fn first_message(stream: &mut Watched) -> io::Result<First> {
    let (mut acceptor, mut begun) = (Acceptor::default(), false);
    loop {
        let first = poll_fn(|cx| {
            // On the stack only while it is polled: moving it costs more than reading into it.
            let mut space = [MaybeUninit::uninit(); HELLO];
            let mut buf = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
            let came = buf.filled();
            match came.first() {
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                // A method's first letter, where TLS has 22: the likeliest mistake with a registry on a port of its own.
                Some(letter) if !begun && letter.is_ascii_uppercase() => {
                    return Poll::Ready(Ok(Ok(Some(First::Clear(BytesMut::from(came))))));
                }
                Some(_) => begun = true,
            }
            Poll::Ready(take(&mut acceptor, came).map(|taken| taken.map(|hello| hello.map(First::Hello))))
        });
        match first.await? {
            Ok(Some(first)) => return Ok(first),
            Ok(None) => {}
            Err((error, alert)) => {
                say(alert, stream).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}

/// The client's message, if these were the rest of it. rustls holds one record until it knows that the message goes on in
/// the next one, so it is asked each time that it was given something.
fn take(
    acceptor: &mut Acceptor,
    mut came: &[u8],
) -> io::Result<Result<Option<Accepted>, (rustls::Error, AcceptedAlert)>> {
    loop {
        if acceptor.read_tls(&mut came)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match acceptor.accept() {
            Ok(None) if !came.is_empty() => {}
            // So much more nobody has to say before he is answered.
            Ok(Some(_)) if !came.is_empty() => return Err(io::ErrorKind::InvalidData.into()),
            taken => return Ok(taken),
        }
    }
}

async fn say(mut alert: AcceptedAlert, stream: &mut Watched) {
    let mut bytes = Vec::new();
    if alert.write_all(&mut bytes).is_ok() {
        let _ = stream.write_all(&bytes).await; // whoever is gone needs no reason
    }
}

/// Brings a handshake to its end, with the alert if it fails.
async fn finish(
    hello: Accepted,
    stream: Corked<Ahead<Watched>>,
    config: Arc<ServerConfig>,
) -> io::Result<TlsStream<Corked<Ahead<Watched>>>> {
    let handshake = StartHandshake::from_parts(hello, stream).into_stream(config);
    match handshake.into_fallible().await {
        Ok(mut stream) => {
            stream.get_mut().0.uncork();
            Ok(stream)
        }
        Err((error, mut stream)) => {
            stream.uncork();
            let _ = stream.flush().await; // whoever is gone needs no reason
            Err(error)
        }
    }
}

/// Proves to an authority that the name which it asks for is ours (RFC 8737). The handshake is all of the connection,
/// and no client's, so that it counts as none. About any other name `usual` tells it that nobody here speaks its protocol.
async fn prove(
    hello: Accepted,
    stream: Corked<Ahead<Watched>>,
    doorway: &Doorway,
    usual: &Arc<ServerConfig>,
    connection: &Connection,
) {
    let name = hello.client_hello().server_name().map(str::to_owned);
    let proof = match (&name, &doorway.answers) {
        (Some(name), Some(answers)) => answers.tls(name).await,
        _ => None,
    };
    let (peer, name, known) = (connection.peer, name.unwrap_or_default(), proof.is_some());
    match finish(hello, stream, proof.unwrap_or_else(|| usual.clone())).await {
        Ok(mut stream) => {
            tracing::info!(%peer, name, "an authority was shown that the name is ours");
            let _ = stream.shutdown().await; // it has what it came for
        }
        Err(error) if known => {
            tracing::info!(%peer, name, %error, "an authority asked whether the name is ours, and left")
        }
        Err(error) => {
            tracing::debug!(%peer, name, %error, "somebody asked for the proof of a name that is not being proven")
        }
    }
}

/// Whoever is turned away is offered HTTP/1.1 alone, where one answer ends the connection.
fn offered(tls: &Arc<ServerConfig>, connection: &Connection) -> Arc<ServerConfig> {
    if connection.turned_away.is_none() {
        return tls.clone();
    }
    let mut plain = ServerConfig::clone(tls);
    plain.alpn_protocols.retain(|protocol| protocol == b"http/1.1");
    Arc::new(plain)
}

/// Scanners and clients that change their mind are no news. A client that does not trust us is: its user sees only a
/// TLS error, and the operator can help.
pub(super) fn report(peer: SocketAddr, error: &io::Error) {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown),
        )) => tracing::info!(client = %peer.ip(), ?alert, "a client does not trust our certificate"),
        Some(rustls::Error::InvalidCertificate(reason @ CertificateError::ExpiredRevocationListContext { .. })) => {
            tracing::warn!(client = %peer.ip(), %reason, "a client's certificate is not accepted: `crl` of `tls.client_auth` is out of date");
        }
        Some(rustls::Error::InvalidCertificate(reason)) => {
            tracing::info!(client = %peer.ip(), %reason, "a client's certificate is not accepted");
        }
        _ => tracing::debug!(%peer, %error, "TLS handshake failed"),
    }
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn hello(protocols: usize) -> Vec<u8> {
        let builder = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = (0..protocols).map(|_| vec![b'x'; 250]).collect();
        let mut client = ClientConnection::new(config.into(), "localhost".try_into().unwrap()).unwrap();
        let mut said = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut said).unwrap();
        }
        said
    }

    #[test]
    fn a_first_message_of_any_size_is_taken_in_pieces_of_any_size() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // another test may have been before
        for (protocols, least) in [(1, 200), (40, 10_000), (120, 30_000), (200, 50_000)] {
            let hello = hello(protocols);
            assert!(hello.len() > least);
            for piece in [1, 1000, HELLO] {
                let mut acceptor = Acceptor::default();
                let mut pieces = hello.chunks(piece).map(|piece| take(&mut acceptor, piece).unwrap().unwrap());
                let taken = pieces.by_ref().position(|accepted| accepted.is_some());
                assert_eq!(taken, Some(hello.len().div_ceil(piece) - 1), "{protocols} {piece}");
            }
        }
    }
}
