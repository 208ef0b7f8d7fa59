//! Commands that end by themselves, within a limit, and what they said.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::process::{Command, ExitStatus, Stdio};

/// No command of a client may take longer than this, in seconds, even with a layer over 1 GiB on a busy machine.
const PATIENCE: &str = "240";

/// A command that is ended with signal 15, then 9, when it takes too long.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", PATIENCE]).arg(program).stdin(Stdio::null());
    command
}

/// How a command ended and what it said.
pub(crate) struct Output {
    command: String,
    status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::with_input(command, |_| Ok(()))
    }

    /// Runs a command to its end while `input` writes to its standard input.
    pub(crate) fn with_input(command: &mut Command, input: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Self {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stdin = child.stdin.take().expect("it was asked for");
        let reader = std::thread::spawn(move || child.wait_with_output());
        // A command that fails early closes its input: its own message says more than our broken pipe.
        let written = input(&mut stdin);
        drop(stdin);
        let output = reader.join().expect("the reader does not panic").expect("a child can be waited for");
        if let Err(error) = written {
            assert!(error.kind() == io::ErrorKind::BrokenPipe, "{command:?}: {error}");
        }
        Self {
            command: format!("{command:?}"),
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The exit code, if the command was not ended by a signal.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Whether the exit code was 0.
    pub(crate) fn is_ok(&self) -> bool {
        self.status.success()
    }

    /// Panics unless the exit code was 0.
    pub(crate) fn ok(self) -> Self {
        assert!(self.is_ok(), "{self}");
        self
    }

    /// Panics unless the command failed and said one of `words` (in any case) to its user.
    pub(crate) fn refused(self, words: &[&str]) -> Self {
        assert!(!self.is_ok(), "this should have been refused: {self}");
        let said = format!("{}{}", self.stdout, self.stderr).to_lowercase();
        assert!(words.iter().any(|word| said.contains(&word.to_lowercase())), "none of {words:?} is said: {self}");
        self
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        write!(f, "{command}\n{status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}
