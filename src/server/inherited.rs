//! Which sockets did systemd open for us?
//!
//! Socket activation, `sd_listen_fds(3)`: descriptors from [`FIRST`] on, as many as `LISTEN_FDS` says, if `LISTEN_PID` is us;
//! `LISTEN_FDNAMES` names them. Each listener at `systemd` (or `systemd:NAME`) takes the next of them.
//!
//! **Invariants:** a listener without a socket, and a socket without a listener, is an error: on both clients would wait in
//! vain. The descriptors are taken once, before anything else is opened.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt};
use nix::unistd::geteuid;

use super::Error;
use super::handover::Handed;
use super::privileges::current_user;
use crate::front::{Address, Listener, Socket};

/// `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;
/// More than anybody listens on.
const MOST: RawFd = 256;
/// What systemd calls a socket that has no name.
const UNNAMED: &str = "unknown";

/// Gives those listeners their sockets that systemd opens, or those that the process had of it which we take over from.
pub(super) fn take(listeners: &[Listener], handed: &mut Handed) -> Result<Vec<(Socket, Listener)>, Error> {
    let mut left = match listeners.iter().any(|listener| matches!(listener.address, Address::Systemd(_))) {
        true => given()?,
        false => return Ok(Vec::new()),
    };
    let mut taken = Vec::new();
    for listener in listeners {
        let Address::Systemd(wanted) = &listener.address else { continue };
        if let Some(socket) = handed.take(&listener.address) {
            taken.push((socket, listener.clone()));
            continue;
        }
        let fits = |(name, _): &(String, Socket)| wanted.as_ref().is_none_or(|wanted| wanted == name);
        let Some(found) = left.iter().position(fits) else {
            return Err(Error::NotInherited(listener.address.clone()));
        };
        taken.push((left.remove(found).1, listener.clone()));
    }
    match left.first() {
        None => Ok(taken),
        Some((name, _)) => Err(Error::InheritedInVain(name.clone())),
    }
}

/// Looks whether the files of systemd's sockets are ours, once we are whoever we stay: Pingora sets their mode, which only
/// their owner may.
pub(super) fn are_ours(sockets: &[(Socket, Listener)]) -> Result<(), Error> {
    let we = geteuid();
    for (socket, listener) in sockets {
        let (Socket::Unix(socket), Address::Systemd(_)) = (socket, &listener.address) else { continue };
        let address = socket.local_addr().map_err(Error::Inherited)?;
        let owner = address.as_pathname().and_then(|path| path.metadata().ok()).map(|file| file.uid());
        if !we.is_root() && owner.is_some_and(|owner| owner != we.as_raw()) {
            let message = format!("its file is another user's; set SocketUser={} in its unit", current_user());
            return Err(Error::Inherited(io::Error::other(message)));
        }
    }
    Ok(())
}

/// What systemd opened for this process, with the names; nothing the second time.
fn given() -> Result<Vec<(String, Socket)>, Error> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name| std::env::var(name).ok();
    let number = |name| variable(name).and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").and_then(|count| RawFd::try_from(count).ok()).unwrap_or(0).min(MOST);
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').filter(|name| !name.is_empty()).chain(std::iter::repeat(UNNAMED));
    (FIRST..FIRST + count)
        .zip(names)
        .map(|(number, name)| Ok((name.to_owned(), adopt(number).map_err(Error::Inherited)?)))
        .collect()
}

/// Makes a descriptor ours.
fn adopt(number: RawFd) -> io::Result<Socket> {
    let family = getsockname::<SockaddrStorage>(number)?.family(); // of an open socket, or it fails
    #[expect(unsafe_code, reason = "nothing safe takes a descriptor by its number, which is all that systemd tells")]
    // SAFETY: it is open (we have its address). LISTEN_PID says that it was opened for this process, and it is taken once:
    // nobody else here owns it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    if !getsockopt(&descriptor, sockopt::AcceptConn)? {
        return Err(io::Error::other("it does not accept connections (ListenStream=, Accept=no)"));
    }
    match family {
        Some(AddressFamily::Inet | AddressFamily::Inet6) => Ok(Socket::Tcp(descriptor.into())),
        Some(AddressFamily::Unix) => Ok(Socket::Unix(descriptor.into())),
        _ => Err(io::Error::other("it is of a family that we do not serve")),
    }
}
