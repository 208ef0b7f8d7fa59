//! Processes that run until they are stopped: with their own log files, and never longer than the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::wait_for;

/// A running process whose output goes to files. Dropping it kills it; a failing test shows what it said.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with its output in `directory/NAME.{stdout,stderr}`, appended when it is started again.
    pub(crate) fn start(name: &str, directory: &Path, command: &mut Command) -> Self {
        Self::start_with(name, directory, command, Stdio::null())
    }

    /// The same with something as standard input.
    pub(crate) fn start_with(name: &str, directory: &Path, command: &mut Command, stdin: Stdio) -> Self {
        let stdout = directory.join(format!("{name}.stdout"));
        let stderr = directory.join(format!("{name}.stderr"));
        let open =
            |path: &Path| File::options().create(true).append(true).open(path).expect("a log file can be opened");
        command.stdin(stdin).stdout(open(&stdout)).stderr(open(&stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { name: name.to_owned(), child, stdout, stderr, ended: None }
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended
    }

    /// Waits until `probe` holds, for as long as the process lives.
    pub(crate) fn wait_until(&mut self, what: &str, seconds: u64, mut probe: impl FnMut(&Self) -> bool) {
        wait_for(&format!("{} to {what}", self.name), seconds, || {
            if let Some(status) = self.ended() {
                panic!("{} ended ({status}) before it could {what}", self.name);
            }
            probe(self).then_some(())
        });
    }

    /// Asks it to end, as a supervisor does.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.id().to_string()]).status().expect("kill can be run");
        assert!(sent.success(), "{} cannot be signalled", self.name);
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self, seconds: u64) -> ExitStatus {
        let what = format!("{} to end", self.name);
        wait_for(&what, seconds, || self.ended())
    }

    /// Ends it as a power failure would end it.
    pub(crate) fn kill(&mut self) {
        if self.ended().is_none() {
            self.child.kill().expect("our own child can be killed");
            self.ended = Some(self.child.wait().expect("a child can be waited for"));
        }
    }

    /// The largest resident memory that the process ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.memory_line("VmHWM:")
    }

    /// The resident memory that it has, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory_line("VmRSS:")
    }

    /// How many bytes it has had written to disks.
    pub(crate) fn written(&self) -> u64 {
        let counts = std::fs::read_to_string(format!("/proc/{}/io", self.id())).expect("the process runs and is ours");
        let line = counts.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("Linux counts them");
        line.parse().expect("a number")
    }

    fn memory_line(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux reports memory");
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number of kB");
        kibibytes * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let (name, status) = (&self.name, self.ended);
            eprintln!(
                "=== {name} ended with {status:?}; its last words:\n{}{}",
                tail(&self.stdout()),
                tail(&self.stderr())
            );
        }
    }
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    const LINES: usize = 40;
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| format!("    {line}\n")).collect()
}
