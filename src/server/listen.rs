//! Sockets: bound by us, so that what goes wrong is said in one line, and handed to the front.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{Backlog, listen};

use super::Error;
use super::handover::Handed;
use crate::front::{Address, Listener, Socket};

/// Connections that may wait to be accepted; the system cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Who may connect to a socket in the file system: our user and our group.
const SOCKET_MODE: u32 = 0o660;

/// Binds those listeners that are ports, which may need rights, unless we were handed them.
pub(super) fn bind_ports(listeners: &[Listener], handed: &mut Handed) -> Result<Vec<(Socket, Listener)>, Error> {
    bind(listeners, |address| match address {
        Address::Tcp(inet) => Some(handed.take(address).map_or_else(|| bind_tcp(*inet).map(Socket::Tcp), Ok)),
        Address::Unix(_) | Address::Systemd(_) => None,
    })
}

/// Binds those listeners that are paths, unless we were handed them. When one cannot be bound, those before it are
/// taken away again.
pub(super) fn bind_paths(listeners: &[Listener], handed: &mut Handed) -> Result<Vec<(Socket, Listener)>, Error> {
    let mut made = SocketFiles::default();
    let bound = bind(listeners, |address| match address {
        Address::Tcp(_) | Address::Systemd(_) => None,
        Address::Unix(path) => Some(match handed.take(address) {
            Some(socket) => Ok(socket),
            None => bind_unix(path).map(Socket::Unix).inspect(|_| made.add(path.clone())),
        }),
    })?;
    made.leave();
    Ok(bound)
}

fn bind(
    listeners: &[Listener],
    mut socket: impl FnMut(&Address) -> Option<io::Result<Socket>>,
) -> Result<Vec<(Socket, Listener)>, Error> {
    let bound = listeners.iter().filter_map(|listener| {
        let socket = socket(&listener.address)?;
        let explained = socket.map_err(|source| explain(listener.address.clone(), source));
        Some(explained.map(|socket| (socket, listener.clone())))
    });
    bound.collect()
}

/// `[::]` takes IPv4 as well, and becomes 0.0.0.0 on a machine without IPv6.
fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match TcpListener::bind(address) {
        Err(error) if address.ip().is_unspecified() && no_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
        }
        bound => bound,
    };
    prepare(socket?)
}

/// Binds a socket in the file system, in place of one that nobody listens on any more. Our user and our group may
/// connect.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let socket = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    Ok(socket)
}

/// Takes a socket away that was left behind.
pub(super) fn remove_stale(path: &Path) -> io::Result<()> {
    if is_stale(path)? { fs::remove_file(path) } else { Ok(()) }
}

/// Whether a socket was left behind. Whatever else there is stays, and binding then says that the address is in use.
fn is_stale(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            Ok(UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
        }
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
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

fn explain(address: Address, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortTaken(address),
        io::ErrorKind::PermissionDenied => Error::PortForbidden(address),
        _ => Error::Listen { address, source },
    }
}

/// The paths of our sockets, which are taken away in the end.
#[derive(Default)]
pub(super) struct SocketFiles {
    files: Vec<(PathBuf, u64)>,
    /// Whether another process listens there and goes on if we fail: then they are not ours to take away.
    anothers: bool,
}

impl SocketFiles {
    pub(super) fn of(sockets: &[(Socket, Listener)]) -> Self {
        let paths = sockets.iter().filter_map(|(_, listener)| match &listener.address {
            Address::Unix(path) => Some((path.clone(), inode(path)?)),
            Address::Tcp(_) | Address::Systemd(_) => None, // systemd's are systemd's
        });
        Self { files: paths.collect(), anothers: false }
    }

    /// Whether they are another process's for now.
    pub(super) fn are_anothers(&mut self, anothers: bool) {
        self.anothers = anothers;
    }

    pub(super) fn add(&mut self, path: PathBuf) {
        self.files.extend(inode(&path).map(|inode| (path, inode)));
    }

    pub(super) fn join(&mut self, mut other: Self) {
        self.files.append(&mut other.files);
    }

    /// They belong to another process now.
    pub(super) fn leave(&mut self) {
        self.files.clear();
    }

    /// Takes away those that are not in use any more.
    pub(super) fn keep(&mut self, in_use: impl Fn(&Path) -> bool) {
        let (kept, gone) = std::mem::take(&mut self.files).into_iter().partition(|(path, _)| in_use(path));
        self.files = kept;
        drop(Self { files: gone, anothers: self.anothers });
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for (path, ours) in self.files.iter().filter(|_| !self.anothers) {
            // Somebody may have put another in its place, and that one is theirs.
            if inode(path) == Some(*ours)
                && let Err(error) = fs::remove_file(path)
            {
                tracing::warn!(path = %path.display(), %error, "our socket could not be removed");
            }
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|found| found.ino())
}

/// The listeners with the addresses they really have (a port 0 becomes the one that the system chose).
pub(super) fn actual_addresses(sockets: &[(Socket, Listener)]) -> Vec<Listener> {
    let actual = |socket: &Socket| match socket {
        Socket::Tcp(socket) => socket.local_addr().ok().map(Address::Tcp),
        Socket::Unix(_) => None,
    };
    sockets
        .iter()
        .map(|(socket, listener)| match actual(socket) {
            Some(address) => Listener { address, ..listener.clone() },
            None => listener.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str) -> Listener {
        Listener::new(address.parse::<SocketAddr>().unwrap(), false, false)
    }

    #[test]
    fn a_taken_port_is_said_in_one_line_with_what_to_do() {
        let bound = bind_ports(&[listener("127.0.0.1:0")], &mut Handed::default()).unwrap();
        let taken = actual_addresses(&bound).remove(0).address;
        let message = bind_ports(&[listener(&taken.to_string())], &mut Handed::default()).unwrap_err().to_string();
        assert!(message.contains(&taken.to_string()) && message.contains("another program has this port"), "{message}");
        assert_eq!(message.lines().count(), 1);
    }

    #[test]
    fn a_foreign_address_is_named() {
        let message = bind_ports(&[listener("192.0.2.1:0")], &mut Handed::default()).unwrap_err().to_string();
        assert!(message.contains("192.0.2.1") && message.contains("one of this machine's"), "{message}");
    }

    fn at(path: &Path) -> Vec<Listener> {
        vec![Listener::new(Address::Unix(path.to_owned()), false, true)]
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_ours_is_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.sock");
        drop(UnixListener::bind(&path).unwrap());
        let left_behind = inode(&path);
        let bound = bind_paths(&at(&path), &mut Handed::default()).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        let files = SocketFiles::of(&bound);
        drop(files);
        assert!(!path.exists() && left_behind.is_some());
    }

    #[test]
    fn a_socket_that_somebody_listens_on_and_a_file_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (path, file) = (folder.path().join("used.sock"), folder.path().join("file"));
        let _used = UnixListener::bind(&path).unwrap();
        crate::storage::durable::write(&file, b"precious", 0o644).unwrap();
        for path in [path, file] {
            let message = bind_paths(&at(&path), &mut Handed::default()).map(drop).unwrap_err().to_string();
            assert!(message.contains("another program has this port"), "{message}");
            assert!(path.exists());
        }
    }

    #[test]
    fn a_socket_that_took_our_place_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.sock");
        let bound = bind_paths(&at(&path), &mut Handed::default()).unwrap();
        let files = SocketFiles::of(&bound);
        fs::hard_link(&path, folder.path().join("ours.sock")).unwrap(); // so that its number is not given anew
        fs::remove_file(&path).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        drop(files);
        assert!(path.exists());
    }
}
