//! Sockets: bound by us, so that what goes wrong is said in one line, and handed to the front.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{Backlog, listen};

use super::Error;
use crate::front::Listener;

/// Connections that may wait to be accepted; the system cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Binds one listener. `[::]` takes IPv4 as well, and becomes 0.0.0.0 on a machine without IPv6.
pub(super) fn bind(listener: &Listener) -> Result<(TcpListener, Listener), Error> {
    let socket = match TcpListener::bind(listener.address) {
        Err(error) if listener.address.ip().is_unspecified() && no_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, listener.address.port()))
        }
        bound => bound,
    };
    let socket = socket.and_then(prepare).map_err(|source| explain(listener.address, source))?;
    Ok((socket, *listener))
}

fn prepare(socket: TcpListener) -> io::Result<TcpListener> {
    listen(&socket, Backlog::new(BACKLOG)?)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn no_ipv6(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|code| [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL].contains(&Errno::from_raw(code)))
}

fn explain(address: SocketAddr, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortTaken(address),
        io::ErrorKind::PermissionDenied => Error::PortForbidden(address),
        _ => Error::Listen { address, source },
    }
}

/// The listeners with the addresses they really have (a port 0 becomes the one that the system chose).
pub(super) fn actual_addresses(sockets: &[(TcpListener, Listener)]) -> Vec<Listener> {
    sockets
        .iter()
        .map(|(socket, listener)| Listener { address: socket.local_addr().unwrap_or(listener.address), ..*listener })
        .collect()
}

/// Takes as many file descriptors as the machine allows: each connection and each transfer needs one.
pub(super) fn raise_file_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!("cannot raise the limit of open files from {soft} to {hard}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str) -> Listener {
        Listener { address: address.parse().unwrap(), tls: false, internal: false }
    }

    #[test]
    fn a_taken_port_is_said_in_one_line_with_what_to_do() {
        let (first, _) = bind(&listener("127.0.0.1:0")).unwrap();
        let taken = first.local_addr().unwrap();
        let message = bind(&listener(&taken.to_string())).unwrap_err().to_string();
        assert!(message.contains(&taken.to_string()) && message.contains("another program has this port"), "{message}");
        assert_eq!(message.lines().count(), 1);
    }

    #[test]
    fn a_foreign_address_is_named() {
        let message = bind(&listener("192.0.2.1:0")).unwrap_err().to_string();
        assert!(message.contains("192.0.2.1") && message.contains("one of this machine's"), "{message}");
    }
}
