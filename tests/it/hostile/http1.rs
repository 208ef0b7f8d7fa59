//! Requests that are none, or that two programs would read differently.

use super::Fort;
use super::wire::{statuses, text};

/// What is sent on one connection, and the statuses of all answers until the server closes it. `HOST` stands for the
/// line with the right host, `GO` for a request that must not be answered where it hides.
pub(super) struct Case(pub(super) &'static str, pub(super) String, pub(super) &'static [u16]);

const GO: &str = "GET /v2/ HTTP/1.1\r\nHOST\r\n";

fn case(name: &'static str, bytes: impl Into<String>, statuses: &'static [u16]) -> Case {
    Case(name, bytes.into(), statuses)
}

/// A request with these header lines and what comes after them.
fn put(name: &'static str, lines: &str, body: &str, statuses: &'static [u16]) -> Case {
    Case(name, format!("POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHOST{lines}\r\n{body}"), statuses)
}

/// A chunked body for the token service, which reads the bodies that it is sent.
fn chunked(name: &'static str, body: &str, statuses: &'static [u16]) -> Case {
    let head = "POST /jwt/auth HTTP/1.1\r\nHOSTContent-Type: application/x-www-form-urlencoded\r\n";
    Case(name, format!("{head}Transfer-Encoding: chunked\r\n\r\n{body}"), statuses)
}

fn smuggling() -> Vec<Case> {
    let (te, cl) = ("Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\n");
    let end = format!("0\r\n\r\n{GO}");
    vec![
        put("CL.TE", &format!("{cl}{te}"), &end, &[400]),
        put("TE.CL", &format!("{te}{cl}"), &end, &[400]),
        put("TE.TE with an unknown coding", &format!("{te}Transfer-Encoding: x\r\n"), &end, &[400]),
        put("TE twice", &format!("{te}{te}"), &end, &[400]),
        put("TE in a list", "Transfer-Encoding: identity, chunked\r\n", &end, &[400]),
        put("TE with a blank before the colon", "Transfer-Encoding : chunked\r\n", &end, &[400]),
        put("TE behind a vertical tab", "Transfer-Encoding: \x0bchunked\r\n", &end, &[400]),
        put("TE folded", "Transfer-Encoding:\r\n chunked\r\n", &end, &[400]),
        put("TE on a folded line", "X: y\r\n Transfer-Encoding: chunked\r\n", &end, &[400]),
        put("TE behind a bare LF", "X: y\nTransfer-Encoding: chunked\r\n", &end, &[400]),
        put("TE behind a bare CR", "X: y\rTransfer-Encoding: chunked\r\n", &end, &[400]),
        put("TE in quotes", "Transfer-Encoding: \"chunked\"\r\n", &end, &[400]),
        put("TE with NUL", "Transfer-Encoding: chunked\0\r\n", &end, &[400]),
        case("TE on HTTP/1.0", format!("POST /v2/ HTTP/1.0\r\nHOST{te}\r\n{end}"), &[400]),
        put("CL twice, different", "Content-Length: 0\r\nContent-Length: 5\r\n", GO, &[400]),
        put("CL twice, the same", &format!("{cl}{cl}"), GO, &[400]),
        put("CL in a list", "Content-Length: 5, 5\r\n", GO, &[400]),
        put("CL with a sign", "Content-Length: +5\r\n", GO, &[400]),
        put("CL below zero", "Content-Length: -1\r\n", GO, &[400]),
        put("CL in hexadecimal", "Content-Length: 0x5\r\n", GO, &[400]),
        put("CL with an underscore", "Content-Length: 1_0\r\n", GO, &[400]),
        put("CL empty", "Content-Length: \r\n", GO, &[400]),
        put("CL beyond 64 bits", "Content-Length: 18446744073709551621\r\n", GO, &[400]),
        put("CL with a blank before the colon", "Content-Length : 5\r\n", GO, &[400]),
        chunked("a bare LF in a chunk extension", &format!("2;\nxx\r\n{end}"), &[400]),
        chunked("a bare LF after a chunk's size", &format!("2\nab\r\n{end}"), &[400]),
        chunked("a bare LF after a chunk", &format!("2\r\nab\n{end}"), &[400]),
        chunked("NUL in a chunk extension", &format!("2;\0\r\nab\r\n{end}"), &[400]),
        chunked("a chunk without its end", &format!("2\r\nabc\r\n{end}"), &[400]),
        chunked("a chunk size with a sign", &format!("+2\r\nab\r\n{end}"), &[400]),
        chunked("a chunk size with 0x", &format!("0x2\r\nab\r\n{end}"), &[400]),
        chunked("a chunk size that overflows", &format!("10000000000000002\r\nab\r\n{end}"), &[400]),
        chunked("a chunk without a size", &format!("\r\nab\r\n{end}"), &[400]),
        chunked("a request for a trailer", &format!("0\r\n{GO}"), &[400]),
        chunked("a bare LF in a trailer", &format!("0\r\nX: y\n\r\n{GO}"), &[400]),
        chunked("extensions without end", &format!("1;{}", "x".repeat(20 << 10)), &[400]),
        chunked("trailers without end", &format!("0\r\n{}", "X: y\r\n".repeat(5 << 10)), &[400]),
    ]
}

fn malformed() -> Vec<Case> {
    let long = "y".repeat(70 << 10);
    let many = "X: y\r\n".repeat(1000);
    vec![
        case("bare LF only", "GET /v2/ HTTP/1.1\nHost: localhost\n\n", &[400]),
        case("no version", "GET /v2/\r\n\r\n", &[400]),
        case("HTTP/0.9 by name", "GET /v2/ HTTP/0.9\r\nHOST\r\n", &[400]),
        case("HTTP/2 without HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400]),
        case("TLS inside TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03", &[400]),
        case("SSH", "SSH-2.0-OpenSSH_9.6\r\n", &[400]),
        case("NULs", "\0".repeat(1000), &[400]),
        case("a blank in the path", "GET /v2/ x HTTP/1.1\r\nHOST\r\n", &[400]),
        case("two blanks", "GET  /v2/ HTTP/1.1\r\nHOST\r\n", &[400]),
        case("a tab for a blank", "GET\t/v2/\tHTTP/1.1\r\nHOST\r\n", &[400]),
        case("a path without a slash", "GET v2/ HTTP/1.1\r\nHOST\r\n", &[400]),
        case("a fragment", "GET /v2/#x HTTP/1.1\r\nHOST\r\n", &[400]),
        case("a path that is not ASCII", "GET /v2/\u{e4} HTTP/1.1\r\nHOST\r\n", &[400]),
        case("another scheme", "GET gopher://localhost/ HTTP/1.1\r\nHOST\r\n", &[400]),
        case("another host in the target", "GET http://evil.example/v2/ HTTP/1.1\r\nHOST\r\n", &[400]),
        case("no host", "GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n", &[400]),
        case("two hosts", "GET /v2/ HTTP/1.1\r\nHOSTHOST\r\n", &[400]),
        case("a foreign host", "GET /v2/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", &[421]),
        case("a host with a path", "GET /v2/ HTTP/1.1\r\nHost: localhost/x\r\nConnection: close\r\n\r\n", &[400]),
        case("a host with a user", "GET /v2/ HTTP/1.1\r\nHost: a@localhost\r\nConnection: close\r\n\r\n", &[400]),
        case("CONNECT", "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\nConnection: close\r\n\r\n", &[405]),
        case("a method of odd letters", "G\u{e4}T /v2/ HTTP/1.1\r\nHOST\r\n", &[400]),
        case("a field without a colon", "GET /v2/ HTTP/1.1\r\nHOSTX\r\n\r\n", &[400]),
        case("a field without a name", "GET /v2/ HTTP/1.1\r\nHOST: x\r\n\r\n", &[400]),
        case("a field with a NUL", "GET /v2/ HTTP/1.1\r\nHOSTX: \0\r\n\r\n", &[400]),
        case("a header bomb in one field", format!("GET /v2/ HTTP/1.1\r\nHOSTX: {long}\r\n\r\n"), &[431]),
        case("a header bomb without a line's end", "y".repeat(1 << 20), &[431]),
        case("a header bomb of fields", format!("GET /v2/ HTTP/1.1\r\nHOST{many}\r\n"), &[431]),
        case("a long path", format!("GET /{} HTTP/1.1\r\nHOSTConnection: close\r\n\r\n", &long[..9 << 10]), &[414]),
        case("a header bomb of empty lines", "\r\n".repeat(100 << 10), &[431]),
    ]
}

/// All of them.
pub(super) fn cases() -> Vec<Case> {
    let cases: Vec<Case> = smuggling().into_iter().chain(malformed()).collect();
    assert!(cases.len() > 60);
    cases
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_answered() {
    let fort = Fort::new(&[]);
    let cases = cases();
    let host = format!("Host: {}\r\n", fort.door.authority);
    fort.withstands(
        &cases,
        |case| case.0,
        |Case(name, bytes, expected)| {
            let mut wire = fort.door.tls("http/1.1");
            wire.send(bytes.replace("HOST", &host));
            let said = wire.rest();
            assert_eq!(statuses(&said), *expected, "{name}: {}", text(&said));
        },
    );
}
