//! Promise: over a long and fast link HTTP/2 moves as much as HTTP/1.1, with a window that fits in memory.
//!
//! The link is a relay that lets 400 Mbit/s through and holds every byte up for 40 ms, each way. What is compared was
//! measured one after the other on it, so only a machine that cannot move that much at all makes it fail; and the long
//! form alone looks at a clock.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::blocking::{Body, Client};

use crate::support::content::Digester;
use crate::support::pierhead::Site;
use crate::support::registry::{Registry, Repository};
use crate::support::soak;

/// Bytes a second.
const RATE: f64 = 400e6 / 8.0;
/// Each way.
const DELAY: Duration = Duration::from_millis(40);
/// What the relay holds for each direction of a connection: all that is on its way, and a queue.
const PIECE: usize = 32 << 10;
const PIECES: usize = (8 << 20) / PIECE;
/// What the client grants the server for a download.
const WINDOW: u32 = 16 << 20;
const RATIO: f64 = 0.9;
/// Whatever else runs on the machine, in one of so many tries it leaves us alone.
const TRIES: usize = 4;

/// Relays connections to `target`.
fn long_link(listener: TcpListener, target: SocketAddr) {
    for client in listener.incoming() {
        let Ok(client) = client else { return };
        let Ok(server) = TcpStream::connect(target) else { return };
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
            to.set_nodelay(true).expect("a socket");
            let (pieces, late) = mpsc::sync_channel::<(Instant, Vec<u8>)>(PIECES);
            thread::spawn(move || take(from, &pieces));
            thread::spawn(move || give(to, &late));
        }
    }
}

fn take(mut from: TcpStream, pieces: &mpsc::SyncSender<(Instant, Vec<u8>)>) {
    let mut free = Instant::now();
    let mut piece = vec![0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        free = free.max(Instant::now()) + Duration::from_secs_f64(length as f64 / RATE);
        if pieces.send((free + DELAY, piece[..length].to_vec())).is_err() {
            return;
        }
    }
}

fn give(mut to: TcpStream, pieces: &mpsc::Receiver<(Instant, Vec<u8>)>) {
    for (due, piece) in pieces {
        thread::sleep(due.saturating_duration_since(Instant::now())); // the link, not a wait for a condition
        if to.write_all(&piece).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write); // whoever is gone needs no end
}

struct Far {
    site: Site,
    origin: String,
    authorization: String,
}

impl Far {
    fn client(&self, http2: bool) -> Repository {
        let authority = reqwest::Certificate::from_pem(self.site.certificate_authority().as_bytes()).expect("PEM");
        let builder = Client::builder().tls_certs_only([authority]).no_proxy().timeout(Duration::from_secs(120));
        let builder = builder.http2_initial_stream_window_size(WINDOW).http2_initial_connection_window_size(WINDOW);
        let builder = if http2 { builder } else { builder.http1_only() };
        let registry = Registry::through(builder.build().expect("a client"), &self.origin);
        registry.repository_with("far/away", self.authorization.clone())
    }

    /// How long it takes to send so many bytes, from the first of them to the answer.
    fn push(&self, http2: bool, size: u64) -> Duration {
        let repository = self.client(http2);
        let upload = repository.begin().expect("an upload");
        let begun = Instant::now();
        let request = repository.request(Method::PATCH, &upload).header("Content-Type", "application/octet-stream");
        let answer = request.body(Body::sized(io::repeat(7).take(size), size)).send().expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.version() == http::Version::HTTP_2), (202, http2));
        begun.elapsed()
    }

    fn pull(&self, http2: bool, digest: &str, size: u64) -> Duration {
        let repository = self.client(http2);
        repository.get("blobs/uploads/"); // the connection is there when the clock starts
        let begun = Instant::now();
        let mut answer = repository.get(&format!("blobs/{digest}"));
        assert_eq!(io::copy(&mut answer, &mut io::sink()).expect("a blob"), size);
        begun.elapsed()
    }
}

#[test]
fn over_a_long_link_http2_moves_as_much_as_http1() {
    let size: u64 = if soak() { 256 << 20 } else { 8 << 20 };
    let site = Site::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let origin = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
    site.configure(&[&format!("aliases: [\"{origin}\"]")]);
    let _server = site.start();
    let port = site.authority().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    thread::spawn(move || long_link(listener, SocketAddr::from(([127, 0, 0, 1], port))));

    let admin = site.admin();
    let mut digester = Digester::new(io::sink());
    io::copy(&mut io::repeat(7).take(size), &mut digester).expect("no disk");
    let digest = digester.digest();
    let near = admin.repository("far/away", "pull,push");
    let upload = near.begin().expect("an upload");
    let upload = near.send(&upload, io::repeat(7).take(size)).expect("bytes");
    near.finish(&upload, &digest).expect("a blob");
    let token: serde_json::Value = admin.ask_token("repository:far/away:pull,push").json().expect("JSON");
    let authorization = format!("Bearer {}", token["token"].as_str().expect("a token"));
    let far = Far { site, origin, authorization };

    for (what, run) in [
        ("push", &(|http2| far.push(http2, size)) as &dyn Fn(bool) -> Duration),
        ("pull", &|http2| far.pull(http2, &digest, size)),
    ] {
        let ratio = |_| {
            let (old, new) = (run(false), run(true));
            let rate = |time: Duration| size as f64 / time.as_secs_f64() / 1e6;
            eprintln!("{what}: HTTP/1.1 {:.1} MB/s, HTTP/2 {:.1} MB/s", rate(old), rate(new));
            old.as_secs_f64() / new.as_secs_f64()
        };
        let good = (0..if soak() { TRIES } else { 1 }).map(ratio).any(|ratio| ratio >= RATIO);
        assert!(good || !soak(), "{what}: HTTP/2 moves less than {RATIO} of what HTTP/1.1 moves");
    }
}
