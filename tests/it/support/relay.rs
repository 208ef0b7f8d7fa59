//! Something between a client and a server that passes bytes on, or does not, as the test says.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::free_port;

/// What becomes of connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// They are passed on to ports of this machine, to one after the other.
    To(Vec<u16>),
    /// They are hung up on.
    Nowhere,
    /// They are kept, and nothing is said.
    Silence,
}

/// A port that passes connections on, for as long as the tests run.
#[derive(Clone)]
pub(crate) struct Relay {
    port: u16,
    state: Arc<Mutex<State>>,
}

struct State {
    way: Way,
    accepted: usize,
    open: Vec<TcpStream>,
}

impl Relay {
    pub(crate) fn start(way: Way) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let state = Arc::new(Mutex::new(State { way, accepted: 0, open: Vec::new() }));
        let relay = Self { port, state };
        let listening = relay.clone();
        thread::spawn(move || listener.incoming().flatten().for_each(|client| listening.take(client)));
        relay
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many connections came.
    pub(crate) fn accepted(&self) -> usize {
        self.with(|state| state.accepted)
    }

    /// From now on; connections that are open are cut.
    pub(crate) fn set(&self, way: Way) {
        self.with(|state| {
            state.way = way;
            for stream in state.open.drain(..) {
                let _ = stream.shutdown(Shutdown::Both); // it may have ended
            }
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, client: TcpStream) {
        let to = self.with(|state| {
            state.accepted += 1;
            let to = match &state.way {
                Way::To(ports) => ports[state.accepted % ports.len()],
                Way::Nowhere => return None,
                Way::Silence => 0,
            };
            state.open.push(client.try_clone().ok()?);
            Some(to).filter(|port| *port != 0)
        });
        let Some(server) = to.and_then(|port| TcpStream::connect(("127.0.0.1", port)).ok()) else { return };
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to); // either side may leave
                let _ = to.shutdown(Shutdown::Write); // and the other is told so
            });
        }
    }
}

/// A server behind TLS whose every answer is the same. Its port; it runs until the tests end.
pub(crate) fn one_answer((certificate, key): &(PathBuf, PathBuf), answer: &str) -> u16 {
    let chain = CertificateDer::pem_file_iter(certificate).expect("a file").collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("versions").with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let (config, answer) = (Arc::new(config), answer.to_owned());
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            let (mut stream, answer) = (StreamOwned::new(connection, socket), answer.clone());
            thread::spawn(move || {
                let mut request = [0; 16 << 10];
                // What is asked does not matter, nor whether the answer is awaited.
                let _ = stream.read(&mut request).and_then(|_| stream.write_all(answer.as_bytes()));
                stream.conn.send_close_notify();
                let _ = stream.flush();
            });
        }
    });
    port
}

/// A proxy for `CONNECT`: what it was asked for, and it does it.
pub(crate) fn connect_proxy() -> (u16, Arc<Mutex<Vec<String>>>) {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let Some(target) = head_of(&mut client).and_then(|head| target(&head)) else { continue };
            told.lock().unwrap_or_else(PoisonError::into_inner).push(target.clone());
            let Ok(server) = TcpStream::connect(&target) else { continue };
            if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").is_err() {
                continue;
            }
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { continue };
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to); // either side may leave
                    let _ = to.shutdown(Shutdown::Write); // and the other is told so
                });
            }
        }
    });
    (port, asked)
}

fn head_of(client: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn target(head: &str) -> Option<String> {
    head.strip_prefix("CONNECT ")?.split(' ').next().map(str::to_owned)
}
