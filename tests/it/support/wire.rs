//! HTTP/1.1 as it is written: for what no client would say, and on connections that no client opens.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    body: String,
}

impl Reply {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let pair = |line: &str| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|_| ());
        let line = self.head.lines().find(|line| pair(line).is_some())?;
        line.split_once(": ").map(|(_, value)| value)
    }

    /// The code and the message of an OCI error.
    pub(crate) fn error(&self) -> (String, String) {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let word = |key| body["errors"][0][key].as_str().expect("an error has a code and a message").to_owned();
        (word("code"), word("message"))
    }
}

/// Sends one request and reads its answer. `headers` are lines without their ends; the connection is closed after it.
/// `None`: there was no answer.
pub(crate) fn ask<S: Read + Write>(mut stream: S, before: &[u8], line: &str, headers: &[&str]) -> Option<Reply> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(&[before, request.as_bytes()].concat()).ok()?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer); // a reset after the answer is an end as well
    let answer = String::from_utf8(answer).expect("answers here are text");
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    Some(Reply { status, head: head.to_owned(), body: body.to_owned() })
}

/// A connection to a port of this machine that does not wait for ever.
pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit can be set");
    stream
}

/// A load balancer that passes connections on as they are, from one port to another, and says `header` first. It runs
/// until the tests end.
pub(crate) fn balancer(from: u16, to: u16, header: Vec<u8>) {
    balancer_at("127.0.0.1", from, to, header);
}

/// The same on another address of this machine.
pub(crate) fn balancer_at(address: &str, from: u16, to: u16, header: Vec<u8>) {
    let listener = TcpListener::bind((address, from)).expect("the port is free");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
            if server.write_all(&header).is_err() {
                continue;
            }
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { continue };
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to); // either side may leave
                    let _ = to.shutdown(Shutdown::Write); // and the other is told so
                });
            }
        }
    });
}
