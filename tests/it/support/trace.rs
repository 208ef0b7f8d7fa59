//! What a process asked of the kernel, in order, read from `strace -f -xx -yy`.
//!
//! A call counts when it ends. A sync covers what ended before it began, so its beginning is an operation too.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::wait_for;

/// The calls that change files, say which file a descriptor is, or talk to a client.
const CALLS: &str = "trace=openat,open,creat,close,dup,dup2,dup3,lseek,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,\
    sync_file_range,syncfs,sync,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,\
    truncate,ftruncate,fallocate,copy_file_range,sendfile,splice,sendto,sendmsg";

/// One step of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A file or directory was opened; `truncate` and `append` as the flags say, `create` also when it was there.
    Open {
        path: PathBuf,
        descriptor: u32,
        create: bool,
        truncate: bool,
        append: bool,
    },
    /// Looked for and not found.
    Missed {
        path: PathBuf,
    },
    Close {
        descriptor: u32,
    },
    Seek {
        descriptor: u32,
        to: u64,
    },
    /// At the descriptor's position when `at` is missing.
    Write {
        descriptor: u32,
        at: Option<u64>,
        bytes: Vec<u8>,
    },
    Truncate {
        descriptor: u32,
        size: u64,
    },
    /// A sync begins. The thread says which end belongs to it.
    SyncBegins {
        thread: u32,
        descriptor: u32,
    },
    SyncEnds {
        thread: u32,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    MakeDirectory {
        path: PathBuf,
    },
    /// Bytes for a client.
    Answer,
}

/// Puts `strace` before a command: it stays the command's process, and `trace` gets one line for each call.
pub(crate) fn traced(command: &Command, trace: &Path) -> Command {
    let mut traced = Command::new("strace");
    // -D: the tracer is the grandchild, so that signals reach the process itself.
    traced.args(["-D", "-f", "-q", "-xx", "-yy", "-s", "10000000", "-e", CALLS, "-e", "signal=none", "-o"]).arg(trace);
    traced.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        traced.current_dir(directory);
    }
    traced
}

/// Takes the trace of a process that has ended, once it is written to its end.
pub(crate) fn of_ended(file: &Path) -> String {
    let trace = wait_for("the end of the trace", 30, || {
        let trace = fs::read_to_string(file).ok()?;
        // The first line is the process's own: its id is that of its first thread.
        let (process, _) = trace.split_once(' ')?;
        let end = trace.lines().rev().any(|line| {
            line.split_once(' ').is_some_and(|(thread, said)| thread == process && said.trim_start().starts_with("+++"))
        });
        end.then_some(trace)
    });
    fs::remove_file(file).expect("the trace is ours");
    trace
}

/// The steps of a trace that concern `root` or a client.
pub(crate) fn steps(trace: &str, root: &Path) -> Vec<Step> {
    let mut reader = Reader { root, unfinished: HashMap::new(), steps: Vec::new() };
    for line in trace.lines() {
        reader.line(line);
    }
    reader.steps
}

struct Reader<'a> {
    root: &'a Path,
    /// What a thread has begun and not ended.
    unfinished: HashMap<u32, String>,
    steps: Vec<Step>,
}

impl Reader<'_> {
    fn line(&mut self, line: &str) {
        let Some((thread, call)) = line.split_once(' ') else { return };
        let (thread, call) = (thread.parse().expect("a thread id"), call.trim_start());
        if call.starts_with("+++") || call.starts_with("---") {
            return;
        }
        if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            self.sync_begins(thread, begun);
            self.unfinished.insert(thread, begun.to_owned());
        } else if let Some(resumed) = call.strip_prefix("<... ") {
            let Some(begun) = self.unfinished.remove(&thread) else { return };
            let (_, rest) = resumed.split_once(" resumed>").expect("a resumed call");
            self.ended(thread, &format!("{begun}{rest}"));
        } else {
            self.sync_begins(thread, call);
            self.ended(thread, call);
        }
    }

    fn sync_begins(&mut self, thread: u32, call: &str) {
        if call.starts_with("fsync(") || call.starts_with("fdatasync(") {
            let call = Call::parse(call);
            if self.is_ours(&call.path_of(0)) {
                self.steps.push(Step::SyncBegins { thread, descriptor: call.descriptor(0) });
            }
        }
    }

    fn ended(&mut self, thread: u32, text: &str) {
        let call = Call::parse(text);
        match call.result {
            Some(result) if result >= 0 => self.succeeded(thread, &call, result as u64),
            _ if call.name == "openat" && self.is_ours(&call.path_at(0, 1)) => {
                self.steps.push(Step::Missed { path: call.path_at(0, 1) });
            }
            // A failed sync makes nothing durable, and an interrupted call may be nothing.
            _ => {}
        }
    }

    fn succeeded(&mut self, thread: u32, call: &Call, result: u64) {
        let step = match call.name.as_str() {
            "openat" => {
                let flags = &call.arguments[2];
                let has = |flag: &str| flags.split('|').any(|set| set == flag);
                let (create, truncate, append) = (has("O_CREAT"), has("O_TRUNC"), has("O_APPEND"));
                Step::Open { path: call.path_at(0, 1), descriptor: result as u32, create, truncate, append }
            }
            // Whatever it was: a number is used again.
            "close" => return self.steps.push(Step::Close { descriptor: call.descriptor(0) }),
            "sendto" | "sendmsg" | "write" | "writev" if call.is_socket() => return self.steps.push(Step::Answer),
            "mkdir" => Step::MakeDirectory { path: call.path(0) },
            "mkdirat" => Step::MakeDirectory { path: call.path_at(0, 1) },
            "unlink" | "rmdir" => Step::Remove { path: call.path(0) },
            "unlinkat" => Step::Remove { path: call.path_at(0, 1) },
            "rename" => Step::Rename { from: call.path(0), to: call.path(1) },
            "renameat" | "renameat2" => Step::Rename { from: call.path_at(0, 1), to: call.path_at(2, 3) },
            _ => return self.on_a_descriptor(thread, call, result),
        };
        let ours = match &step {
            Step::Open { path, .. } | Step::MakeDirectory { path } | Step::Remove { path } => self.is_ours(path),
            Step::Rename { from, to } => self.is_ours(from) || self.is_ours(to),
            _ => true,
        };
        if ours {
            self.steps.push(step);
        }
    }

    fn on_a_descriptor(&mut self, thread: u32, call: &Call, result: u64) {
        let standard = |descriptor: u32| descriptor <= 2;
        if !self.is_ours(&call.path_of(0)) || standard(call.descriptor(0)) {
            return;
        }
        let descriptor = call.descriptor(0);
        let written = || {
            let mut bytes = call.bytes(1);
            bytes.truncate(result as usize);
            bytes
        };
        self.steps.push(match call.name.as_str() {
            "fsync" | "fdatasync" => Step::SyncEnds { thread },
            "lseek" => Step::Seek { descriptor, to: result },
            "write" => Step::Write { descriptor, at: None, bytes: written() },
            "pwrite64" => Step::Write { descriptor, at: Some(call.number(3)), bytes: written() },
            "pwritev" | "pwritev2" => {
                let (mut bytes, next) = call.vector(1);
                bytes.truncate(result as usize);
                Step::Write { descriptor, at: Some(call.number(next + 1)), bytes }
            }
            "ftruncate" => Step::Truncate { descriptor, size: call.number(1) },
            other => panic!("the model of the disk does not know {other} on {}", call.path_of(0).display()),
        });
    }

    fn is_ours(&self, path: &Path) -> bool {
        path.starts_with(self.root)
    }
}

/// `name(argument, ...) = result`, as strace writes it.
struct Call {
    name: String,
    arguments: Vec<String>,
    result: Option<i64>,
}

impl Call {
    fn parse(text: &str) -> Self {
        let (name, rest) = text.split_once('(').unwrap_or_else(|| panic!("no call: {text}"));
        // Strings and paths are hexadecimal, so no bracket or comma can be inside of them.
        let (arguments, result) = rest.rsplit_once(" = ").unwrap_or((rest, "?"));
        let arguments = arguments.trim_end().trim_end_matches(')').split(", ").map(str::to_owned).collect();
        let number: String = result.chars().take_while(|letter| letter.is_ascii_digit() || *letter == '-').collect();
        Self { name: name.to_owned(), arguments, result: number.parse().ok() }
    }

    fn number(&self, index: usize) -> u64 {
        self.arguments[index].parse().expect("a number")
    }

    fn descriptor(&self, index: usize) -> u32 {
        let digits: String = self.arguments[index].chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a descriptor")
    }

    /// What strace says that a descriptor is: `3<path>`.
    fn path_of(&self, index: usize) -> PathBuf {
        let argument = self.arguments.get(index).map_or("", String::as_str);
        let inside = argument.split_once('<').map_or("", |(_, path)| path.split('>').next().unwrap_or_default());
        PathBuf::from(String::from_utf8_lossy(&unescaped(inside)).into_owned())
    }

    fn is_socket(&self) -> bool {
        let name = self.path_of(0).to_string_lossy().into_owned();
        name.starts_with("TCP") || name.starts_with("socket:")
    }

    fn path(&self, index: usize) -> PathBuf {
        let path = String::from_utf8(self.bytes(index)).expect("paths of ours are text");
        assert!(path.starts_with('/'), "{} of a relative path", self.name);
        PathBuf::from(path)
    }

    /// A path relative to a directory's descriptor or to the working directory, whose path strace gives.
    fn path_at(&self, directory: usize, index: usize) -> PathBuf {
        let path = String::from_utf8_lossy(&self.bytes(index)).into_owned();
        self.path_of(directory).join(path)
    }

    /// All of `[{iov_base="...", iov_len=N}, {iov_base="...", iov_len=M}], 2`, where each part is two arguments, and the
    /// index of their number.
    fn vector(&self, index: usize) -> (Vec<u8>, usize) {
        let part = |argument: &String| argument.trim_start_matches('[').strip_prefix("{iov_base=").map(str::to_owned);
        let parts: Vec<String> = self.arguments[index..].iter().step_by(2).map_while(part).collect();
        let number = index + 2 * parts.len();
        assert_eq!(self.number(number), parts.len() as u64, "{} was cut short", self.name);
        (parts.iter().flat_map(|text| self.quoted(Some(text))).collect(), number)
    }

    fn bytes(&self, index: usize) -> Vec<u8> {
        self.quoted(Some(&self.arguments[index]))
    }

    fn quoted(&self, text: Option<&str>) -> Vec<u8> {
        let quoted = text.and_then(|text| text.strip_prefix('"')?.strip_suffix('"'));
        unescaped(quoted.unwrap_or_else(|| panic!("{} was cut short", self.name)))
    }
}

/// `\x61\x62` as `ab`; anything else as it is.
fn unescaped(text: &str) -> Vec<u8> {
    if !text.starts_with("\\x") {
        return text.as_bytes().to_vec();
    }
    let byte = |hex: &str| u8::from_str_radix(hex, 16).expect("two hexadecimal digits");
    text.split("\\x").skip(1).map(byte).collect()
}
