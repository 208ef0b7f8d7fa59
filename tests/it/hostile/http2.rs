//! Frames that no honest client sends, or not so many of them.

use std::thread;
use std::time::Duration;

use super::Fort;
use super::frames::*;

pub(super) type Attack = fn(&mut Http2);

/// More than any of them should get away with.
const MOST: usize = 1 << 20;

pub(super) const CASES: &[(&str, Attack)] = &[
    ("H2.CL: less than announced", |http2| {
        http2.request(1, "POST", "/jwt/auth", &[("content-length", "10")], false);
        http2.send(DATA, END_STREAM, 1, b"12345");
        assert_eq!(http2.outcome(), Outcome::Reset);
    }),
    ("H2.CL: more than announced", |http2| {
        http2.request(1, "POST", "/jwt/auth", &[("content-length", "1")], false);
        http2.send(DATA, END_STREAM, 1, b"12345");
        assert_eq!(http2.outcome(), Outcome::Reset);
    }),
    ("H2.CL: two lengths", |http2| {
        refused(http2, &[("content-length", "0"), ("content-length", "5")]);
    }),
    ("H2.CL: no number", |http2| refused(http2, &[("content-length", "+0")])),
    ("H2.TE", |http2| refused(http2, &[("transfer-encoding", "chunked")])),
    ("H2.TE in te", |http2| refused(http2, &[("te", "chunked")])),
    ("a connection header", |http2| refused(http2, &[("connection", "close")])),
    ("an upgrade", |http2| refused(http2, &[("upgrade", "h2c")])),
    ("CR and LF in a value", |http2| {
        refused_with(http2, &[("x", "a\r\nTransfer-Encoding: chunked")], &[Outcome::Ended])
    }),
    ("NUL in a value", |http2| refused_with(http2, &[("x", "a\0b")], &[Outcome::Ended])),
    ("a colon in a name", |http2| refused_with(http2, &[("x: y\r\nz", "a")], &[Outcome::Ended])),
    ("a name in capitals", |http2| refused_with(http2, &[("X", "a")], &[Outcome::Ended])),
    ("another host", |http2| refused(http2, &[("host", "evil.example")])),
    ("a pseudo-header behind others", |http2| refused(http2, &[("x", "y"), (":path", "/v2/_catalog")])),
    ("an unknown pseudo-header", |http2| refused_with(http2, &[(":x", "y")], &[Outcome::Ended])),
    ("no path", |http2| {
        let authority = http2.authority.clone();
        let block = fields(&[(":method", "GET"), (":scheme", "https"), (":authority", &authority)]);
        http2.send(HEADERS, END_HEADERS | END_STREAM, 1, &block);
        assert_ne!(http2.outcome(), Outcome::Status(200));
    }),
    ("two paths", |http2| {
        let block = [http2.block("GET", "/v2/", &[]), fields(&[(":path", "/-/ready")])].concat();
        http2.send(HEADERS, END_HEADERS | END_STREAM, 1, &block);
        assert_ne!(http2.outcome(), Outcome::Status(200));
    }),
    ("a path with a line break", |http2| {
        http2.request(1, "GET", "/v2/ HTTP/1.1\r\nHost: a\r\n\r\n", &[], true);
        assert_ne!(http2.outcome(), Outcome::Status(401));
    }),
    ("a path of another scheme", |http2| {
        http2.request(1, "GET", "http://evil.example/v2/", &[], true);
        assert_ne!(http2.outcome(), Outcome::Status(401));
    }),
    ("CONNECT", |http2| {
        let block = fields(&[(":method", "CONNECT"), (":authority", "localhost:22")]);
        http2.send(HEADERS, END_HEADERS, 1, &block);
        assert_eq!(http2.outcome(), Outcome::Status(405));
    }),
    ("more fields than anybody needs", |http2| {
        refused_with(http2, &vec![("x", "y"); 200], &[Outcome::Status(431)]);
    }),
    ("a header bomb", |http2| {
        let value = "y".repeat(15 << 10);
        let block = http2.block("GET", "/v2/", &[("x", &value)]);
        http2.send(HEADERS, END_STREAM, 1, &block);
        for last in [false, false, false, false, false, true] {
            http2.send(CONTINUATION, if last { END_HEADERS } else { 0 }, 1, &fields(&[("x", &value)]));
        }
        assert!([Outcome::Status(431), Outcome::Reset, Outcome::Ended].contains(&http2.outcome()));
    }),
    ("an HPACK bomb", |http2| {
        // One field of 4,000 bytes into the table (RFC 7541 6.2.1), then named by its index in one byte each.
        let mut block = http2.block("GET", "/v2/", &[]);
        let field = fields(&[("x", &"y".repeat(3900))]);
        block.push(0x40);
        block.extend(&field[1..]);
        block.extend([0x80 | 62; 10_000]);
        http2.send(HEADERS, END_HEADERS | END_STREAM, 1, &block);
        assert!([Outcome::Status(431), Outcome::Reset, Outcome::Ended].contains(&http2.outcome()));
    }),
    ("a CONTINUATION flood", |http2| {
        let block = http2.block("GET", "/v2/", &[]);
        http2.send(HEADERS, 0, 1, &block);
        ends(http2, |_| frame(CONTINUATION, 0, 1, &fields(&[("x", "y")])));
    }),
    ("a flood of empty CONTINUATION", |http2| {
        let block = http2.block("GET", "/v2/", &[]);
        http2.send(HEADERS, 0, 1, &block);
        ends(http2, |_| frame(CONTINUATION, 0, 1, &[]));
    }),
    ("a SETTINGS flood", |http2| ends(http2, |_| frame(SETTINGS, 0, 0, &[]))),
    ("a PING flood", |http2| ends(http2, |_| frame(PING, 0, 0, &[0; 8]))),
    ("a PRIORITY flood", |http2| ends(http2, |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]))),
    ("a WINDOW_UPDATE flood", |http2| ends(http2, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
    ("a flood of unknown frames", |http2| ends(http2, |_| frame(99, 0, 0, &[0; 8]))),
    ("a flood of empty DATA", |http2| {
        http2.request(1, "POST", "/jwt/auth", &[], false);
        ends(http2, |_| frame(DATA, 0, 1, &[]));
    }),
    ("rapid reset", |http2| {
        let block = http2.block("GET", "/v2/", &[]);
        ends(http2, |sent| {
            let stream = 2 * sent as u32 + 1;
            let header = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
            [header, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        });
    }),
    ("rapid reset of uploads", |http2| {
        let block = http2.block("POST", "/jwt/auth", &[]);
        ends(http2, |sent| {
            let stream = 2 * sent as u32 + 1;
            [frame(HEADERS, END_HEADERS, stream, &block), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        });
    }),
    ("uploads given up one after the other", |http2| {
        http2.request(1, "POST", "/jwt/auth", &[], false);
        let block = http2.block("POST", "/jwt/auth", &[]);
        ends(http2, |sent| {
            // Time is the subject: one after the other, and not all at once as above.
            thread::sleep(Duration::from_millis(5));
            let stream = 2 * sent as u32 + 3;
            [frame(HEADERS, END_HEADERS, stream, &block), frame(RST_STREAM, 0, stream - 2, &[0, 0, 0, 8])].concat()
        });
    }),
    ("requests that make us reset", |http2| {
        let block = http2.block("GET", "/v2/", &[("transfer-encoding", "chunked")]);
        ends(http2, |sent| frame(HEADERS, END_HEADERS | END_STREAM, 2 * sent as u32 + 1, &block));
    }),
    ("resets by a window that overflows", |http2| {
        let block = http2.block("POST", "/jwt/auth", &[]);
        ends(http2, |sent| {
            let stream = 2 * sent as u32 + 1;
            let header = frame(HEADERS, END_HEADERS, stream, &block);
            [header, frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff])].concat()
        });
    }),
    ("more requests at once than were allowed", |http2| {
        let block = http2.block("POST", "/jwt/auth", &[]);
        for sent in 0..150 {
            http2.send(HEADERS, END_HEADERS, 2 * sent + 1, &block);
        }
        assert_eq!(http2.outcome_of(2 * 149 + 1), Outcome::Reset);
    }),
    ("a frame larger than was allowed", |http2| {
        http2.request(1, "POST", "/jwt/auth", &[], false);
        http2.send(DATA, 0, 1, &vec![0; 200 << 10]);
        assert_eq!(http2.outcome_of(CONNECTION), Outcome::Ended);
    }),
    ("an even stream", |http2| {
        http2.request(2, "GET", "/v2/", &[], true);
        assert_eq!(http2.outcome(), Outcome::Ended);
    }),
    ("a push from a client", |http2| {
        http2.send(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]);
        assert_eq!(http2.outcome(), Outcome::Ended);
    }),
    ("DATA before any request", |http2| {
        http2.send(DATA, 0, 1, b"x");
        assert_eq!(http2.outcome(), Outcome::Ended);
    }),
    ("a window that overflows", |http2| {
        http2.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
        assert_eq!(http2.outcome(), Outcome::Ended);
    }),
    ("HPACK that is none", |http2| {
        http2.send(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 40]);
        assert_eq!(http2.outcome(), Outcome::Ended);
    }),
    ("padding longer than its frame", |http2| {
        http2.request(1, "POST", "/jwt/auth", &[], false);
        http2.send(DATA, 8, 1, &[200, 0, 0]);
        assert_eq!(http2.outcome_of(CONNECTION), Outcome::Ended);
    }),
];

/// No request's stream: the end of the connection is waited for. What is asked first has a header that may be answered
/// before the frame behind it arrives.
const CONNECTION: u32 = 0;

/// It is reset, or answered with 400.
fn refused(http2: &mut Http2, more: &[(&str, &str)]) {
    refused_with(http2, more, &[Outcome::Reset, Outcome::Status(400)]);
}

fn refused_with(http2: &mut Http2, more: &[(&str, &str)], outcomes: &[Outcome]) {
    http2.request(1, "GET", "/v2/", more, true);
    let outcome = http2.outcome();
    assert!(outcomes.contains(&outcome), "{outcome:?}");
}

fn ends(http2: &mut Http2, frames: impl FnMut(usize) -> Vec<u8>) {
    let sent = http2.flood(MOST, frames);
    assert!(sent < MOST, "all {sent} were taken");
}

#[test]
fn frames_that_no_honest_client_sends_end_the_stream_or_the_connection() {
    let fort = Fort::new(&[]);
    fort.withstands(CASES, |case| case.0, |(_, attack)| attack(&mut Http2::connect(&fort.door)));
}
