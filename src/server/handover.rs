//! How does a new binary take over without a moment in which nobody listens?
//!
//! The old process starts the program at the path that it was itself started from, with its own arguments and
//! environment, and hands it the listening sockets over a socket pair. A listening socket is one object in the kernel,
//! with one queue of connections, however many processes hold it:
//!
//! ```text
//! old  accepts ─────────────────────────────────────┬─ closes its copies, drains, ends
//! new       starts ── takes sockets ── opens ── accepts, says Ready ───────────────────
//!                     fails at any point ── says Failed, ends        (old goes on)
//! ```
//!
//! - **Who listens when:** up to `Ready` the old process does, whatever the new one is doing; between `Ready` and the
//!   closing of the old copies both do; then the new one alone. What waits in the queue stays there: it belongs to the
//!   socket, not to who closes a copy of it.
//! - **What if the new one fails:** it says why, or it just ends, or [`PATIENCE`] is over and it is killed. The old
//!   process has given nothing away that it needs, and goes on as if nothing had been.
//! - **Connections** are not handed over. The old process brings them to their end: requests that run finish, HTTP/2
//!   clients are told to go elsewhere, a client between two requests may have one more, whose answer closes.
//! - **What both use for a while** is made for it: the tree (uploads go on in another process as after a restart), the
//!   database (its migrations only add), keys and the state directory. What lies in memory begins anew in the new process:
//!   counts of failed logins, and the turns and gates that order requests of one process. A delete in one process and a
//!   push of the same content in the other, within the same moments, are as on two nodes.
//! - **Rights:** the new process starts as whoever the old one became. It cannot read what only root can; then it fails,
//!   and the old one goes on.
//!
//! Descriptors travel as messages (`SCM_RIGHTS`, unix(7)), so no descriptor is ever inherited by accident or named by
//! number. The pair is the new process's standard input; [`MARK`] says so.
//!
//! Absent on purpose: the end of the new process after its `Ready` (the supervisor's business), and connections of
//! process 1, whose end is the end of its container: there an upgrade is refused.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use serde::{Deserialize, Serialize};

use crate::front::{Address, Socket};

/// Tells a process that its standard input is the end of such a pair.
const MARK: &str = "PIERHEAD_TAKES_OVER";
/// There where systemd is process 1 (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";
/// How long the new process may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the new process waits for what it is handed: it was all sent before it started.
const HANDED_WITHIN: Duration = Duration::from_secs(10);
/// How long a process may take to end that closed its end of the pair: so many moments.
const ENDS_WITHIN: usize = 100;
const MOMENT: Duration = Duration::from_millis(10);
/// The longest message.
const LONGEST: usize = 64 << 10;
/// The most sockets.
const MOST: usize = 1024;

/// Why no other process took over. Ours goes on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Our end would take it down.
    #[error("the container, or whoever watches over this process in it, ends with it: start another container instead")]
    First,
    /// The same, with systemd.
    #[error("systemd takes our end for the end of the service: set NotifyAccess=main in its unit, then it can follow")]
    Unnoticed,
    /// It could not be started, or not talked to.
    #[error("{} could not be started: {source}", program.display())]
    Start {
        /// Which program.
        program: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// It said why.
    #[error("the new process ended: {0}")]
    Failed(String),
    /// It did not.
    #[error("the new process ended ({0}) before it was ready; what it said is in the log")]
    Ended(String),
    /// It took too long.
    #[error("the new process was not ready within {} seconds and was ended", PATIENCE.as_secs())]
    Slow,
}

/// One message of the pair.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// With the descriptor of a listening socket: its address, as configured.
    Listener(String),
    /// With the descriptor of the control socket: its path.
    Control(PathBuf),
    /// That was all.
    End,
    /// The new process accepts.
    Ready,
    /// It cannot, and ends.
    Failed(String),
}

/// What is started when another process is to take over: looked up when we start, since a replaced file is found under
/// its path only.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    /// Whether process 1, and nobody in between, started us. A successor's parent says nothing.
    by_first: bool,
}

impl Program {
    pub(super) fn ours() -> io::Result<Self> {
        let by_first = std::env::var_os(MARK).is_none() && std::os::unix::process::parent_id() == 1;
        Ok(Self { path: started_path()?, arguments: std::env::args_os().collect(), by_first })
    }

    /// Starts it and hands everything over; returns at once.
    pub(super) fn start(
        &self,
        sockets: &[(Address, BorrowedFd<'_>)],
        control: Option<(&Path, BorrowedFd<'_>)>,
    ) -> Result<Successor, Error> {
        let variable = std::env::var_os;
        let own_id = std::process::id();
        let named = variable("SYSTEMD_EXEC_PID").is_some_and(|id| id.to_str() == Some(&own_id.to_string()));
        let by_systemd = named || (self.by_first && variable("INVOCATION_ID").is_some());
        if own_id == 1 || (self.by_first && !by_systemd && !Path::new(SYSTEMD).exists()) {
            return Err(Error::First);
        }
        if by_systemd && variable("NOTIFY_SOCKET").is_none() {
            return Err(Error::Unnoticed);
        }
        let failed = |source| Error::Start { program: self.path.clone(), source };
        let (ours, theirs) = pair().map_err(failed)?;
        let child = self.spawn(theirs).map_err(failed)?;
        let successor = Successor { child, channel: Arc::new(ours) };
        match hand(successor.channel.as_fd(), sockets, control) {
            Ok(()) => Ok(successor),
            // It has ended already: who waits until it is ready finds out how.
            Err(gone) if gone.kind() == io::ErrorKind::BrokenPipe => Ok(successor),
            Err(source) => {
                successor.end();
                Err(failed(source))
            }
        }
    }

    fn spawn(&self, channel: OwnedFd) -> io::Result<Child> {
        let mut command = Command::new(&self.path);
        let mut arguments = self.arguments.iter();
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        command.args(arguments).env(MARK, "1").stdin(channel).spawn()
    }
}

/// The path that we were started by, with its links as they are: one that leads elsewhere by then leads to the new program.
fn started_path() -> io::Result<PathBuf> {
    let ours = std::env::current_exe()?;
    let name = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let folders = match name.components().count() {
        1 => std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default(),
        _ => vec![std::env::current_dir()?],
    };
    let mut candidates = folders.into_iter().map(|folder| folder.join(&name));
    Ok(candidates.find(|path| path.canonicalize().is_ok_and(|found| found == ours)).unwrap_or(ours))
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn hand(
    channel: BorrowedFd<'_>,
    sockets: &[(Address, BorrowedFd<'_>)],
    control: Option<(&Path, BorrowedFd<'_>)>,
) -> io::Result<()> {
    sockopt::set_socket_timeout(channel, sockopt::Timeout::Send, Some(HANDED_WITHIN))?;
    for (address, socket) in sockets {
        say(channel, &Word::Listener(address.to_string()), Some(*socket))?;
    }
    if let Some((path, socket)) = control {
        say(channel, &Word::Control(path.to_owned()), Some(socket))?;
    }
    say(channel, &Word::End, None)
}

/// A process that is about to take over.
#[derive(Debug)]
pub(super) struct Successor {
    child: Child,
    channel: Arc<OwnedFd>,
}

/// Ends the wait for a [`Successor`], and the process with it.
#[derive(Debug)]
pub(super) struct Cancel(Arc<OwnedFd>);

impl Cancel {
    pub(super) fn cancel(self) {
        let _ = rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Both); // a pair that is closed is as good
    }
}

impl Successor {
    pub(super) fn cancel(&self) -> Cancel {
        Cancel(self.channel.clone())
    }

    /// Waits until it accepts connections, and returns its process id. It blocks.
    pub(super) fn ready(mut self) -> Result<u32, Error> {
        let heard = sockopt::set_socket_timeout(&self.channel, sockopt::Timeout::Recv, Some(PATIENCE));
        match heard.map_err(io::Error::from).and_then(|()| hear(self.channel.as_fd())) {
            Ok(Some((Word::Ready, _))) => Ok(self.child.id()),
            Ok(Some((Word::Failed(why), _))) => {
                self.end();
                Err(Error::Failed(why))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.end();
                Err(Error::Slow)
            }
            Ok(_) | Err(_) => {
                let how = self.ended().map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(Error::Ended(how))
            }
        }
    }

    /// How it ended. Its end of the pair closes a moment before, and it gets that moment to end by itself.
    fn ended(&mut self) -> io::Result<ExitStatus> {
        for _ in 0..ENDS_WITHIN {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(MOMENT);
        }
        let _ = self.child.kill(); // it may have ended in the meantime
        self.child.wait()
    }

    fn end(mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait(); // nothing is left to do if it cannot be waited for
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

/// Tells systemd, if it listens, which process is the service from now on (sd_notify(3)).
pub(super) fn tell_supervisor(successor: u32) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = notify(&path.to_string_lossy(), &format!("MAINPID={successor}"));
    if let Err(error) = told {
        tracing::error!(%error, "systemd could not be told which process is the service now");
    }
}

fn notify(path: &str, text: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
}

/// What a process was handed by the one that it takes over from; nothing when it was just started.
#[derive(Debug, Default)]
pub(super) struct Handed {
    sockets: Vec<(String, OwnedFd)>,
    control: Option<(PathBuf, OwnedFd)>,
    channel: Option<OwnedFd>,
}

impl Handed {
    /// Takes what lies in standard input, if we are to take over.
    pub(super) fn receive() -> io::Result<Self> {
        let Some(channel) = channel()? else { return Ok(Self::default()) };
        sockopt::set_socket_timeout(&channel, sockopt::Timeout::Recv, Some(HANDED_WITHIN))?;
        let mut handed = Self::default();
        for _ in 0..MOST {
            match hear(channel.as_fd())? {
                Some((Word::Listener(address), Some(socket))) => handed.sockets.push((address, socket)),
                Some((Word::Control(path), Some(socket))) => handed.control = Some((path, socket)),
                Some((Word::End, None)) => {
                    handed.channel = Some(channel);
                    return Ok(handed);
                }
                _ => break,
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// The next socket that listens at an address: several may be systemd's without a name.
    pub(super) fn take(&mut self, address: &Address) -> Option<Socket> {
        let name = address.to_string();
        let found = self.sockets.iter().position(|(handed, _)| *handed == name)?;
        let (_, socket) = self.sockets.remove(found);
        let in_the_file_system = match address {
            Address::Tcp(_) => false,
            Address::Unix(_) => true,
            Address::Systemd(_) => sockopt::socket_domain(&socket).is_ok_and(|family| family == AddressFamily::UNIX),
        };
        Some(if in_the_file_system { Socket::Unix(socket.into()) } else { Socket::Tcp(socket.into()) })
    }

    /// The control socket, if it is the one at `path`.
    pub(super) fn take_control(&mut self, path: &Path) -> Option<OwnedFd> {
        self.control.take_if(|(handed, _)| handed == path).map(|(_, socket)| socket)
    }

    /// Whether another process serves until we are ready.
    pub(super) fn is_taking_over(&self) -> bool {
        self.channel.is_some()
    }

    /// Says that we accept. Sockets that we have no use for are closed, and their paths taken away.
    pub(super) fn ready(self) {
        for path in self.sockets.iter().filter_map(|(address, _)| address.strip_prefix("unix:")) {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(path, %error, "a socket that nobody listens on any more could not be removed");
            }
        }
        if let Some(channel) = self.channel
            && let Err(error) = say(channel.as_fd(), &Word::Ready, None)
        {
            tracing::warn!(%error, "the process that we take over from did not hear that we are ready");
        }
    }
}

/// Says why this process did not come to serve, if another waits for it.
pub fn report_failure(message: &str) {
    if let Ok(Some(channel)) = channel() {
        let message = message.chars().take(LONGEST / 8).collect();
        let _ = say(channel.as_fd(), &Word::Failed(message), None); // it sees our end as well
    }
}

fn channel() -> io::Result<Option<OwnedFd>> {
    match std::env::var_os(MARK) {
        Some(_) => io::stdin().as_fd().try_clone_to_owned().map(Some),
        None => Ok(None),
    }
}

fn say(channel: BorrowedFd<'_>, word: &Word, socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let text = serde_json::to_vec(word)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = socket.as_slice();
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    retry_on_intr(|| sendmsg(channel, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// The next message; `None` when the other end is closed.
fn hear(channel: BorrowedFd<'_>) -> io::Result<Option<(Word, Option<OwnedFd>)>> {
    let mut text = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut receive = || recvmsg(channel, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC);
    let heard = retry_on_intr(&mut receive)?;
    if heard.bytes == 0 {
        return Ok(None);
    }
    let socket = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    Ok(Some((serde_json::from_slice(&text[..heard.bytes])?, socket)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_socket_keeps_its_queue_on_its_way_to_another_owner() {
        let (ours, theirs) = pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waiting = TcpStream::connect(address).unwrap();
        hand(ours.as_fd(), &[(address.into(), listener.as_fd())], None).unwrap();
        drop(listener);
        let Some((Word::Listener(name), Some(socket))) = hear(theirs.as_fd()).unwrap() else { panic!("a listener") };
        assert_eq!(name, address.to_string());
        assert!(matches!(hear(theirs.as_fd()).unwrap(), Some((Word::End, None))));
        TcpListener::from(socket).accept().unwrap();
        drop(ours);
        assert!(hear(theirs.as_fd()).unwrap().is_none(), "the other end is closed");
    }

    #[test]
    fn a_supervisor_that_listens_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let supervisor = UnixDatagram::bind(&path).unwrap();
        notify(path.to_str().unwrap(), "MAINPID=7").unwrap();
        let mut text = [0; 64];
        let length = supervisor.recv(&mut text).unwrap();
        assert_eq!(&text[..length], b"MAINPID=7");
    }
}
