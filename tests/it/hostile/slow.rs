//! Clients that hold on.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, Outcome, PING, PREFACE, WINDOW_UPDATE,
};
use super::wire::{statuses, text};
use super::{Fort, IMPATIENT};
use crate::support::content::Content;

type Attack = fn(&Fort);

const CASES: &[(&str, Attack)] = &[
    ("silence instead of a handshake", |fort| assert_eq!(fort.door.tcp().rest(), b"")),
    ("a drip instead of a handshake", |fort| {
        // The first letter of a handshake, then a length that it never reaches.
        let mut wire = fort.door.tcp();
        wire.send([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]);
        wire.drip(b"x");
    }),
    ("half a handshake", |fort| {
        let wire = fort.door.tcp();
        wire.end();
    }),
    ("silence after the handshake", |fort| assert_eq!(fort.door.tls("http/1.1").rest(), b"")),
    ("silence after the handshake on HTTP/2", |fort| {
        fort.door.tls("h2").rest();
    }),
    ("slowloris on the first header", |fort| {
        let said = fort.door.tls("http/1.1").drip(b"X");
        assert_eq!(statuses(&said), [408], "{}", text(&said));
    }),
    ("slowloris with fields", |fort| {
        let mut wire = fort.door.tls("http/1.1");
        wire.send(format!("GET /v2/ HTTP/1.1\r\nHost: {}\r\n", fort.door.authority));
        let said = wire.drip(b"X: y\r\n");
        // A hundred fields may be there before the time is over.
        assert!([vec![408], vec![431]].contains(&statuses(&said)), "{}", text(&said));
    }),
    ("slowloris on a later header", |fort| {
        let mut wire = fort.door.tls("http/1.1");
        wire.send(format!("GET /v2/ HTTP/1.1\r\nHost: {}\r\n\r\nG", fort.door.authority));
        let said = wire.drip(b"E");
        assert_eq!(statuses(&said), [401, 408], "{}", text(&said));
    }),
    ("slowloris with empty lines", |fort| {
        let said = fort.door.tls("http/1.1").drip(b"\r\n");
        assert_eq!(statuses(&said), [408], "{}", text(&said));
    }),
    ("an idle connection", |fort| {
        let mut wire = fort.door.tls("http/1.1");
        wire.send(format!("GET /v2/ HTTP/1.1\r\nHost: {}\r\n\r\n", fort.door.authority));
        assert_eq!(statuses(&wire.rest()), [401]);
    }),
    ("an upload that stands still", |fort| {
        let mut wire = begin(fort, "Content-Length: 100\r\n");
        wire.send("x");
        let said = wire.rest();
        assert_eq!(statuses(&said), [408], "{}", text(&said));
    }),
    ("an upload that drips", |fort| {
        let said = begin(fort, "Content-Length: 100000\r\n").drip(b"x");
        assert_eq!(statuses(&said), [408], "{}", text(&said));
    }),
    ("an upload that drips chunks", |fort| {
        let said = begin(fort, "Transfer-Encoding: chunked\r\n").drip(b"1\r\nx\r\n");
        assert_eq!(statuses(&said), [408], "{}", text(&said));
    }),
    ("an upload that drips one chunk extension", |fort| {
        let mut wire = begin(fort, "Transfer-Encoding: chunked\r\n");
        wire.send("1;");
        let said = wire.drip(b"x");
        assert_eq!(statuses(&said), [408], "{}", text(&said));
    }),
    ("a body after a refusal that never comes", |fort| {
        let mut wire = fort.door.tls("http/1.1");
        let host = &fort.door.authority;
        wire.send(format!("PUT /v2/a/manifests/b HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n\r\n"));
        assert_eq!(statuses(&wire.rest()), [401]);
    }),
    ("a download that nobody takes", |fort| {
        let mut wire = fort.door.tls("http/1.1");
        wire.send(download(fort, "?unread"));
        fort.server.wait_for_access("the download to be given up", |lines| given_up(lines, "?unread"));
        drop(wire);
    }),
    ("an HTTP/2 preface that drips", |fort| {
        let mut wire = fort.door.tls("h2");
        for byte in PREFACE {
            wire.send([*byte]);
            wire.glance();
            dawdle(100);
        }
        wire.rest();
    }),
    ("an HTTP/2 header that never ends", |fort| {
        let mut http2 = Http2::connect(&fort.door);
        let block = http2.block("GET", "/v2/", &[]);
        http2.send(HEADERS, END_STREAM, 1, &block);
        assert_eq!(http2.outcome(), Outcome::Ended);
    }),
    ("an HTTP/2 header that drips", |fort| {
        let mut http2 = Http2::connect(&fort.door);
        let block = http2.block("GET", "/v2/", &[]);
        http2.send(HEADERS, END_STREAM, 1, &block);
        let frame = super::frames::frame(CONTINUATION, 0, 1, &super::frames::fields(&[("x", "y")]));
        http2.wire.drip(&frame);
    }),
    ("an idle HTTP/2 connection that pings", |fort| {
        let mut http2 = Http2::connect(&fort.door);
        http2.request(1, "GET", "/v2/", &[], true);
        assert_eq!(http2.outcome(), Outcome::Status(401));
        http2.wire.drip(&super::frames::frame(PING, 0, 0, &[0; 8]));
    }),
    ("an HTTP/2 upload that stands still", |fort| {
        let mut http2 = begin_http2(fort);
        http2.send(DATA, 0, 1, b"x");
        assert_eq!(http2.outcome(), Outcome::Status(408));
    }),
    ("an HTTP/2 upload that drips", |fort| {
        let mut http2 = begin_http2(fort);
        let drip = thread::scope(|_| {
            for _ in 0..100 {
                http2.send(DATA, 0, 1, b"x");
                dawdle(50);
            }
            http2.outcome()
        });
        assert_eq!(drip, Outcome::Status(408));
    }),
    ("an HTTP/2 upload of empty frames", |fort| {
        let mut http2 = begin_http2(fort);
        for _ in 0..100 {
            http2.send(DATA, 0, 1, b"");
            dawdle(50);
        }
        assert_eq!(http2.outcome(), Outcome::Status(408));
    }),
    ("an HTTP/2 download that nobody takes", |fort| {
        // The largest windows, and nobody who reads.
        let mut http2 = Http2::with_settings(&fort.door, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        http2.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]);
        let authorization = authorization(fort, "pull");
        http2.request(1, "GET", &blob("?http2"), &[("authorization", &authorization)], true);
        fort.server.wait_for_access("the download to be given up", |lines| given_up(lines, "?http2"));
        // What our kernel holds already may come; the end of the connection does as well.
        http2.wire.rest();
    }),
    ("an HTTP/2 download without a window", |fort| {
        // SETTINGS_INITIAL_WINDOW_SIZE (4) of nothing.
        let mut http2 = Http2::with_settings(&fort.door, &[0, 4, 0, 0, 0, 0]);
        let authorization = authorization(fort, "pull");
        http2.request(1, "GET", &blob("?window"), &[("authorization", &authorization)], true);
        assert_eq!(http2.outcome(), Outcome::Status(200));
        for _ in 0..20 {
            http2.send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
            dawdle(100);
        }
        fort.server.wait_for_access("the download to be given up", |lines| given_up(lines, "?window"));
    }),
];

/// How slow a client is: nothing is waited for, time itself is what is tested.
fn dawdle(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// The blob that downloads ask for.
fn content() -> Content {
    Content::new(77, 64 << 20)
}

/// Its path, with a mark for the access log.
fn blob(mark: &str) -> String {
    static DIGEST: OnceLock<String> = OnceLock::new();
    format!("/v2/hostile/app/blobs/{}{mark}", DIGEST.get_or_init(|| content().digest()))
}

fn authorization(fort: &Fort, actions: &str) -> String {
    let answer = fort.site.admin().ask_token(&format!("repository:hostile/app:{actions}"));
    let answer: serde_json::Value = answer.json().expect("JSON");
    format!("Bearer {}", answer["token"].as_str().expect("a token"))
}

fn download(fort: &Fort, mark: &str) -> String {
    let (host, authorization) = (&fort.door.authority, authorization(fort, "pull"));
    format!("GET {} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n\r\n", blob(mark))
}

fn upload(fort: &Fort) -> String {
    let upload = fort.site.admin().repository("hostile/app", "pull,push").begin().expect("an upload");
    let path = upload.strip_prefix(&fort.site.origin()).map(str::to_owned);
    path.unwrap_or(upload)
}

/// An upload on HTTP/1.1 whose body comes next.
fn begin(fort: &Fort, length: &str) -> super::wire::Wire<super::wire::Tls> {
    let (host, upload, authorization) = (&fort.door.authority, upload(fort), authorization(fort, "pull,push"));
    let mut wire = fort.door.tls("http/1.1");
    wire.send(format!(
        "PATCH {upload} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n\
         Content-Type: application/octet-stream\r\n{length}\r\n"
    ));
    wire
}

fn begin_http2(fort: &Fort) -> Http2 {
    let (upload, authorization) = (upload(fort), authorization(fort, "pull,push"));
    let mut http2 = Http2::connect(&fort.door);
    let fields = [("authorization", authorization.as_str()), ("content-type", "application/octet-stream")];
    let block = http2.block("PATCH", &upload, &fields);
    http2.send(HEADERS, END_HEADERS, 1, &block);
    http2
}

fn given_up(lines: &[serde_json::Value], mark: &str) -> Option<()> {
    let it = |line: &&serde_json::Value| line["path"] == blob(mark).as_str();
    let line = lines.iter().find(it)?;
    assert_eq!(line["status"], 499);
    Some(())
}

#[test]
fn clients_that_hold_on_are_let_go() {
    let fort = Fort::new(&[IMPATIENT]);
    let repository = fort.site.admin().repository("hostile/app", "pull,push");
    repository.push_blob(content()).expect("a blob to download");
    fort.withstands(CASES, |case| case.0, |(_, attack)| attack(&fort));
}
