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

/// The longest first message that is waited for: what fits into one record (RFC 8446 5.1), which rustls would buffer in
/// any case. Nobody has proven anything by then, and no client says more than a few KiB.
const LONGEST: usize = 5 + (16 << 10);

/// What whoever says more is told: a record with a fatal `decode_error` (RFC 8446 6.2).
const TOO_LONG: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

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
    let mut taking = Taking::default();
    loop {
        let first = poll_fn(|cx| {
            // On the stack only while it is polled: moving it costs more than reading into it.
            let mut space = [MaybeUninit::uninit(); HELLO];
            let mut buf = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
            let came = buf.filled();
            match came.first() {
                None => return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof))),
                // A method's first letter, where TLS has 22: the likeliest mistake with a registry on a port of its own.
                Some(letter) if taking.length == 0 && letter.is_ascii_uppercase() => {
                    return Poll::Ready(Ok(Ok(Some(First::Clear(BytesMut::from(came))))));
                }
                Some(_) => {}
            }
            Poll::Ready(Ok(taking.take(came).map(|hello| hello.map(First::Hello))))
        });
        match first.await? {
            Ok(Some(first)) => return Ok(first),
            Ok(None) => {}
            Err(Refused { error, alert }) => {
                let _ = stream.write_all(&alert).await; // whoever is gone needs no reason
                return Err(error);
            }
        }
    }
}

/// A client's first message while it comes.
#[derive(Default)]
struct Taking {
    acceptor: Acceptor,
    /// In bytes.
    length: usize,
}

impl Taking {
    /// The message, if these were the rest of it. rustls holds one record until it knows that the message goes on in the
    /// next one, so it is asked each time that it was given something.
    fn take(&mut self, mut came: &[u8]) -> Result<Option<Accepted>, Refused> {
        self.length += came.len();
        if self.length > LONGEST {
            return Err(Refused::too_long());
        }
        loop {
            if self.acceptor.read_tls(&mut came)? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            match self.acceptor.accept()? {
                None if !came.is_empty() => {}
                // So much more nobody has to say before he is answered.
                Some(_) if !came.is_empty() => return Err(Refused::too_long()),
                taken => return Ok(taken),
            }
        }
    }
}

/// Why a first message is none that is answered, and the alert that says so.
#[derive(Debug)]
struct Refused {
    error: io::Error,
    alert: Vec<u8>,
}

impl Refused {
    fn too_long() -> Self {
        let error = format!("a first message of more than {LONGEST} bytes, or more than a first message");
        Self { error: io::Error::new(io::ErrorKind::InvalidData, error), alert: TOO_LONG.to_vec() }
    }
}

impl From<(rustls::Error, AcceptedAlert)> for Refused {
    fn from((error, mut says): (rustls::Error, AcceptedAlert)) -> Self {
        let mut alert = Vec::new();
        let _ = says.write_all(&mut alert); // memory takes it
        Self { error: io::Error::new(io::ErrorKind::InvalidData, error), alert }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self { error, alert: Vec::new() }
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
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // another test may have been before
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

    /// With which of the pieces it was whole.
    fn taken(hello: &[u8], piece: usize) -> Result<Option<usize>, Refused> {
        let mut taking = Taking::default();
        for (number, piece) in hello.chunks(piece).enumerate() {
            if taking.take(piece)?.is_some() {
                return Ok(Some(number + 1));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_first_message_is_taken_in_pieces_of_any_size() {
        for (protocols, least) in [(1, 200), (40, 10_000), (55, 14_000)] {
            let hello = hello(protocols);
            assert!(hello.len() > least);
            for piece in [1, 1000, HELLO] {
                assert_eq!(taken(&hello, piece).unwrap(), Some(hello.len().div_ceil(piece)), "{protocols} {piece}");
            }
        }
    }

    #[test]
    fn a_first_message_in_several_records_is_taken() {
        let hello = hello(40);
        // RFC 8446 5.1: a message may be in several records.
        let records = hello[5..].chunks(1000).flat_map(|part| {
            let length = u16::try_from(part.len()).unwrap().to_be_bytes();
            [&[22, 3, 1], &length[..], part].concat()
        });
        assert!(taken(&records.collect::<Vec<u8>>(), 300).unwrap().is_some());
    }

    #[test]
    fn nobody_makes_us_hold_a_longer_first_message_and_each_is_told() {
        let long = hello(120);
        assert!(long.len() > LONGEST);
        let mut garbage = hello(1);
        garbage[43] = 200; // the length of the session id, which is 32 at most
        let rustls = [21, 3, 3, 0, 2, 2];
        for (said, alert) in [(&long, &TOO_LONG[..]), (&garbage, &rustls)] {
            let refused = taken(said, HELLO).unwrap_err();
            assert!(refused.alert.starts_with(alert), "{refused:?}");
            assert_eq!(refused.alert.len(), TOO_LONG.len(), "{refused:?}");
            assert_eq!(refused.error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
