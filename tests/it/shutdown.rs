//! Promise: SIGTERM lets what runs finish, takes nothing new, and ends with 0.

use std::fs;
use std::io::{self, Read, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{self, Sender};
use std::time::Instant;

use crate::change::{answer, begin_patch};
use crate::support::content::{Content, Digester};
use crate::support::pierhead::Site;
use crate::support::wait_for;

const MEBIBYTE: u64 = 1 << 20;

#[test]
fn a_running_download_completes_after_sigterm() {
    let site = Site::new();
    let mut server = site.start();
    let repository = site.admin().repository("drain/app", "pull,push");
    // More than the buffers of two sockets and a TLS stream hold.
    let blob = Content::new(1, 64 * MEBIBYTE);
    let digest = repository.push_blob(blob).expect("a blob");

    let mut answer = repository.get(&format!("blobs/{digest}"));
    let mut digester = Digester::new(io::sink());
    io::copy(&mut (&mut answer).take(MEBIBYTE), &mut digester).expect("the beginning");
    server.process.terminate();
    let authority = site.authority();
    wait_for("the port to close", 10, || TcpStream::connect(&authority).is_err().then_some(()));
    assert_eq!(server.process.ended(), None, "it waits for the download");
    io::copy(&mut answer, &mut digester).expect("the rest");
    assert_eq!(digester.digest(), digest);
    assert_eq!(server.process.wait(20).code(), Some(0));
}

#[test]
fn a_running_upload_completes_after_sigterm() {
    let site = Site::new();
    let mut server = site.start();
    let repository = site.admin().repository("drain/app", "pull,push");
    let blob = Content::new(2, 48 * MEBIBYTE);
    let upload = repository.begin().expect("an upload");
    let process = &server.process;
    std::thread::scope(|scope| {
        let (sender, middle) = mpsc::channel();
        let body = Telling { reader: blob.reader(), left: 24 * MEBIBYTE, sender: Some(sender) };
        let sending = scope.spawn(|| repository.send(&upload, body));
        middle.recv().expect("the upload comes to its middle");
        process.terminate();
        sending.join().expect("no panic").expect("the upload is taken to its end");
    });
    assert_eq!(server.process.wait(20).code(), Some(0));

    let _server = site.start();
    let repository = site.admin().repository("drain/app", "pull,push");
    repository.finish(&upload, &blob.digest()).expect("what was sent is there after the restart");
}

#[test]
fn idle_connections_do_not_delay_the_end() {
    let site = Site::new();
    let mut server = site.start();
    let client = site.admin();
    client.ask_token("repository:drain/app:pull");
    let start = Instant::now();
    server.process.terminate();
    assert_eq!(server.process.wait(20).code(), Some(0));
    assert!(start.elapsed().as_secs() < 5, "an idle connection is closed at once");
    drop(client);
}

/// A body that tells when so many bytes of it were read.
struct Telling<R> {
    reader: R,
    left: u64,
    sender: Option<Sender<()>>,
}

impl<R: Read> Read for Telling<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.left = self.left.saturating_sub(count as u64);
        if let Some(sender) = self.sender.take_if(|_| self.left == 0) {
            let _ = sender.send(());
        }
        Ok(count)
    }
}

#[test]
fn a_drain_goes_on_when_it_is_told_to_reload_and_opens_the_logs_anew_when_it_is_told_to() {
    let site = Site::new();
    site.configure(&["log: { format: json, access: ./access.log }"]);
    let mut server = site.start();
    let repository = site.admin().repository("drain/app", "pull,push");
    let upload = repository.begin().expect("an upload");
    let wire = begin_patch(&site, &upload, repository.authorization().expect("a token"), 8, b"1234");
    wait_for("the upload to be seen", 10, || {
        site.run(&["maintenance", "status"]).ok().stdout.contains("write now: 1").then_some(())
    });
    server.process.terminate();
    let authority = site.authority();
    wait_for("the port to close", 10, || TcpStream::connect(&authority).is_err().then_some(()));
    let log = site.directory().join("access.log");
    fs::rename(&log, site.directory().join("access.log.1")).expect("logrotate may");
    server.process.signal("HUP");
    server.process.signal("USR1");
    wait_for("the new file", 10, || log.exists().then_some(()));
    assert_eq!(server.process.ended(), None, "it waits for the upload");
    (&wire).write_all(b"5678").expect("sent");
    let patched = answer(wire);
    assert!(patched.starts_with("HTTP/1.1 202"), "{patched}");
    assert_eq!(server.process.wait(20).code(), Some(0));
    assert!(fs::read_to_string(&log).expect("it is there").contains("\"method\":\"PATCH\""), "the last line is in it");
}
