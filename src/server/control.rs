//! How do commands reach the running server?
//!
//! Through `control.sock` in the state directory: one line of JSON with a [`Command`], one line of JSON with an
//! [`Answer`], end. The server side ([`Socket`]) reads lines and hands them, one at a time, to whoever serves.
//!
//! **Invariants**
//! - Only root and the user that we run as are heard: the folder is 0700, the socket 0600, and the kernel says who is at
//!   the other end.
//! - A command says what to do, never where: no path, no program and no configuration comes in this way.
//! - Whoever connects can hold up nothing: so many at once, so long a line, so much time.
//!
//! Absent on purpose: HTTP, and any way in over the network.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::listen;
use crate::registry::Mode;

/// The socket's name in the state directory.
const NAME: &str = "control.sock";
/// The server's user alone; root needs no permission.
const MODE: u32 = 0o600;
/// The longest path of a socket, without the zero at its end (`sun_path`, unix(7)).
const LONGEST_PATH: usize = 107;
/// The longest command, in bytes.
const LONGEST_COMMAND: u64 = 4 << 10;
/// The longest answer, in bytes: every problem of a configuration.
const LONGEST_ANSWER: u64 = 1 << 20;
/// How long whoever connected may take to say a line, or to take one.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a command waits for its answer: longer than the longest, which is an upgrade.
const WAIT: Duration = Duration::from_secs(150);
/// How many may be connected at once; more wait.
const AT_ONCE: usize = 8;
/// How long we wait when connections cannot be accepted.
const PAUSE: Duration = Duration::from_secs(1);

/// What the running server can be told. A member that this version does not know is refused (serde looks for them only
/// between braces).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Read the configuration again and go by it.
    Reload {},
    /// Hand over to the program that lies where we were started from.
    Upgrade {},
    /// Forget failed logins and too many requests.
    Unban {
        /// An address, or the name of an account.
        whom: String,
    },
    /// Let nothing change from now on.
    MaintenanceOn {
        /// How writes are refused.
        mode: Mode,
        /// How long what was begun may take to its end, in milliseconds; by default as long as a drain.
        grace: Option<u64>,
    },
    /// Let things change again.
    MaintenanceOff {},
    /// Say what holds: the answer is a [`Status`](super::maintenance::Status) in JSON.
    MaintenanceStatus {},
    /// Say which certificates are shown: the answer is a list of [`Status`](crate::tls::Status) in JSON.
    CertStatus {},
    /// Order certificates now: the answer, before any of them is there, is a list of [`Status`](crate::tls::Status) in
    /// JSON, of those that are ordered.
    CertRenew {
        /// A name of each; none: all that are ordered.
        names: Vec<String>,
    },
}

/// What the server says to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it was done.
    pub outcome: Outcome,
    /// For a person; may have several lines.
    pub message: String,
}

impl Answer {
    pub(super) fn new(outcome: Outcome, message: impl ToString) -> Self {
        Self { outcome, message: message.to_string() }
    }
}

/// Whether a command was done. If not, nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was.
    Done,
    /// It could not be.
    Failed,
    /// The server, or who asked it, has not the right.
    Denied,
    /// The configuration cannot be used.
    Configuration,
    /// It may be done later; when is in the message.
    Later,
}

/// Why the server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Nobody listens.
    #[error(
        "no server answers at {}: start it, or name the configuration that it was started with (-c FILE)", .0.display()
    )]
    NotRunning(PathBuf),
    /// We may not connect.
    #[error("may not speak to the server at {}: run this as root or as the server's user", .0.display())]
    Denied(PathBuf),
    /// It listens, and we did not understand each other.
    #[error("the server at {} did not answer: {source}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// Tells the server that keeps this state directory to do something, and waits for what it says.
///
/// # Errors
/// There is none, or it could not be asked.
pub fn ask(state: &Path, command: &Command) -> Result<Answer, Unanswered> {
    let path = state.join(NAME);
    talk(state, command).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Unanswered::NotRunning(path),
        io::ErrorKind::PermissionDenied => Unanswered::Denied(path),
        _ => Unanswered::Broken { path, source },
    })
}

fn talk(state: &Path, command: &Command) -> io::Result<Answer> {
    let place = Place::in_folder(state)?;
    let mut stream = UnixStream::connect(&place.path)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(WAIT))?;
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).take(LONGEST_ANSWER).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

/// The socket under a name that is short enough for the system.
struct Place {
    path: PathBuf,
    /// What the path goes through, when it does.
    _folder: Option<File>,
}

impl Place {
    fn in_folder(state: &Path) -> io::Result<Self> {
        let path = state.join(NAME);
        if path.as_os_str().len() <= LONGEST_PATH {
            return Ok(Self { path, _folder: None });
        }
        let folder = File::open(state)?;
        Ok(Self { path: format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd()).into(), _folder: Some(folder) })
    }
}

/// A command that somebody waits for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    reply: oneshot::Sender<Answer>,
}

impl Request {
    pub(super) fn answer(self, answer: Answer) {
        let _ = self.reply.send(answer); // whoever asked may have left: it is done all the same
    }
}

/// The server's end, bound.
#[derive(Debug)]
pub(super) struct Socket(UnixListener);

impl Socket {
    /// Binds the socket of a state directory, in place of one that a process left behind.
    pub(super) fn bind(state: &Path) -> io::Result<Self> {
        let place = Place::in_folder(state)?;
        listen::remove_stale(&place.path)?;
        let socket = UnixListener::bind(&place.path)?;
        fs::set_permissions(&place.path, Permissions::from_mode(MODE))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// The socket that another process listened on.
    pub(super) fn handed(socket: OwnedFd) -> io::Result<Self> {
        let socket = UnixListener::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// For another process.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.try_clone().map(OwnedFd::from)
    }

    /// Where it is.
    pub(super) fn path(state: &Path) -> PathBuf {
        state.join(NAME)
    }

    /// Hears commands for ever. Each waits until it has been answered.
    pub(super) async fn hear(self, commands: mpsc::Sender<Request>) -> io::Result<()> {
        let socket = tokio::net::UnixListener::from_std(self.0)?;
        let places = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
            match socket.accept().await {
                Ok((stream, _)) => {
                    let commands = commands.clone();
                    tokio::spawn(async move {
                        let _place = place;
                        if let Err(error) = serve(stream, commands).await {
                            tracing::debug!(%error, "a command was not heard to its end");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a command could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// One line, one answer.
async fn serve(mut stream: tokio::net::UnixStream, commands: mpsc::Sender<Request>) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let answer = if uid == 0 || uid == geteuid().as_raw() {
        let mut line = String::new();
        let reading = tokio::io::BufReader::new(&mut stream).take(LONGEST_COMMAND);
        tokio::time::timeout(PATIENCE, { reading }.read_line(&mut line)).await??;
        obey(&line, commands).await
    } else {
        tracing::warn!(uid, "a command of a user who may not give any was refused");
        Answer::new(Outcome::Denied, "only root and the server's own user may tell it what to do")
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    tokio::time::timeout(PATIENCE, stream.write_all(&line)).await?
}

async fn obey(line: &str, commands: mpsc::Sender<Request>) -> Answer {
    let command = match serde_json::from_str(line) {
        Ok(command) => command,
        Err(error) => return Answer::new(Outcome::Failed, format_args!("not a command of this version: {error}")),
    };
    let (reply, answer) = oneshot::channel();
    let stopping = || Answer::new(Outcome::Failed, "the server is stopping");
    if commands.send(Request { command, reply }).await.is_err() {
        return stopping();
    }
    answer.await.unwrap_or_else(|_| stopping())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// A server that says to every command what it was.
    fn echo(state: &Path) -> tokio::task::JoinHandle<()> {
        let socket = Socket::bind(state).unwrap();
        tokio::spawn(async move {
            let (sender, mut commands) = mpsc::channel::<Request>(1);
            tokio::spawn(socket.hear(sender));
            while let Some(request) = commands.recv().await {
                let said = format!("{:?}", request.command);
                request.answer(Answer::new(Outcome::Done, said));
            }
        })
    }

    /// What the server says to a line.
    fn say(state: &Path, line: &[u8]) -> String {
        let mut stream = UnixStream::connect(Socket::path(state)).unwrap();
        let _ = stream.write_all(line); // the server may have heard enough
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer); // what came of it before the end is looked at
        answer
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_command_is_answered_also_below_a_long_path_and_the_socket_is_ours_alone() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a".repeat(120));
        fs::create_dir(&deep).unwrap();
        for state in [folder.path(), &deep] {
            let server = echo(state);
            let answer = tokio::task::block_in_place(|| ask(state, &Command::Reload {})).unwrap();
            assert_eq!(answer, Answer::new(Outcome::Done, "Reload"));
            assert_eq!(fs::metadata(Socket::path(state)).unwrap().mode() & 0o777, MODE);
            server.abort();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_no_command_is_refused_and_the_next_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let _server = echo(state);
        tokio::task::block_in_place(|| {
            for line in [
                &b"\n"[..],
                b"{\"command\":\"dance\"}\n",
                b"{\"command\":\"reload\",\"file\":\"/tmp/mine.yml\"}\n",
                &[b'x'; 1 << 20],
                b"\xff\xfe\n",
            ] {
                let answer = say(state, line);
                assert!(answer.is_empty() || answer.contains("not a command"), "{answer}");
            }
            assert!(say(state, b"{\"command\":\"reload\"}\n").contains("done"));
        });
    }

    #[test]
    fn where_nobody_listens_the_command_says_so() {
        let folder = tempfile::tempdir().unwrap();
        for state in [folder.path().to_owned(), folder.path().join("not/there")] {
            let error = ask(&state, &Command::Reload {}).unwrap_err();
            assert!(matches!(error, Unanswered::NotRunning(_)), "{error}");
        }
        drop(UnixListener::bind(Socket::path(folder.path())).unwrap());
        assert!(matches!(ask(folder.path(), &Command::Reload {}), Err(Unanswered::NotRunning(_))));
        Socket::bind(folder.path()).unwrap();
    }
}
