//! Does a server answer a `HEAD` as it should?
//!
//! One request on a connection of its own, and of the answer nothing but the status line: a whole HTTP client would be
//! more than this needs.

use std::fmt::Write as _;
use std::sync::Arc;

use http::header::{HOST, USER_AGENT};
use http::{HeaderName, StatusCode};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Http;
use crate::tls;

/// The longest status line.
const STATUS_LINE: usize = 1024;

/// Whether the server answers with the status that it should.
pub(super) async fn check(server: &Http) -> Result<(), String> {
    match timeout(server.timeout, ask(server)).await {
        Ok(Ok(status)) if status == server.status => Ok(()),
        Ok(Ok(status)) => Err(format!("answered {} where {} is expected", status.as_u16(), server.status.as_u16())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn ask(server: &Http) -> Result<StatusCode, Failure> {
    let host = server.origin.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, server.origin.port())).await?;
    if !server.origin.is_secure() {
        return exchange(stream, server).await;
    }
    // Read anew each time: an authority that the machine learns to trust is trusted here as well.
    let config = tokio::task::spawn_blocking(tls::client_config).await??;
    let name = ServerName::try_from(host.to_owned())?;
    exchange(TlsConnector::from(Arc::new(config)).connect(name, stream).await?, server).await
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, server: &Http) -> Result<StatusCode, Failure> {
    stream.write_all(&request(server)).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < STATUS_LINE {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    status(&answer).ok_or_else(|| "the answer is not HTTP/1".into())
}

/// Neither a path nor a header's value can hold a line break: their types see to that.
fn request(server: &Http) -> Vec<u8> {
    let mut text = format!("HEAD {} HTTP/1.1\r\nConnection: close\r\n", server.path);
    let mut usual = |name: HeaderName, value: &str| {
        if server.headers.iter().all(|(written, _)| *written != name) {
            let _ = write!(text, "{name}: {value}\r\n"); // writing to a String does not fail
        }
    };
    usual(HOST, server.origin.authority());
    usual(USER_AGENT, "pierhead");
    let mut bytes = text.into_bytes();
    for (name, value) in &server.headers {
        bytes.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The status of an answer that begins like this (RFC 9112 4).
fn status(answer: &[u8]) -> Option<StatusCode> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    match rest {
        [b'0' | b'1', b' ', code @ ..] => match code.get(3) {
            Some(b' ' | b'\r' | b'\n') => StatusCode::from_bytes(&code[..3]).ok(),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_http_1_status_line_has_a_status() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n"), Some(StatusCode::NO_CONTENT));
        assert_eq!(status(b"HTTP/1.0 200\r\n"), Some(StatusCode::OK));
        for other in
            [&b""[..], b"HTTP/2 200\r\n", b"HTTP/1.1 2000\r\n", b"HTTP/1.1 20", b"HTTP/1.1200 ", b"SSH-2.0-x\r\n"]
        {
            assert_eq!(status(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn written_headers_are_sent_and_take_the_place_of_the_usual_ones() {
        let mut server = Http::new("http://[::1]:8080".parse().unwrap(), "/up?x=1".parse().unwrap());
        server.headers = vec![(USER_AGENT, "me".parse().unwrap()), (USER_AGENT, "too".parse().unwrap())];
        let text = String::from_utf8(request(&server)).unwrap();
        let expected = "HEAD /up?x=1 HTTP/1.1\r\nConnection: close\r\nhost: [::1]:8080\r\nuser-agent: me\r\nuser-agent: too\r\n\r\n";
        assert_eq!(text, expected);
    }
}
