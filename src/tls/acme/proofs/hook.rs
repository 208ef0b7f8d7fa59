//! How does a program of the operator's put a record into the DNS?
//!
//! `PROGRAM present RECORD. VALUE`, and later `PROGRAM cleanup RECORD. VALUE`: what hooks of other ACME clients understand.
//! Status 0 means that the record is there, at all name servers of the zone: the authority looks at once.
//!
//! It is run without a shell, as the user that the server runs as, in a process group of its own, with nothing to read and
//! with the server's environment (which is where credentials of a DNS provider may come from) less what is for the server
//! alone ([`is_private`]): its own secrets, and what the service manager tells it. After [`LIMIT`] it is killed, with all of its group.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How often we look whether it is done.
const LOOK: Duration = Duration::from_millis(20);
/// How much of what it says on stderr is kept: the end.
const WORDS: usize = 2048;
/// How long we wait for the end of what it says when it is gone. A daemon that it left behind may hold the pipe.
const PATIENCE: Duration = Duration::from_secs(1);
/// How variables begin that are for the server alone: the first admin's password and settings (which may be secrets), and
/// what the service manager tells whom it started.
const PRIVATE: [&str; 5] = ["PIERHEAD_", "REGISTRY_", "NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_"];

/// Runs the program, and waits for its end. Blocks.
pub(super) fn run(program: &Path, action: &str, record: &str, value: &str) -> Result<(), String> {
    run_for(program, &[action, record, value], LIMIT)
}

fn is_private(variable: &OsStr) -> bool {
    PRIVATE.iter().any(|beginning| variable.as_encoded_bytes().starts_with(beginning.as_bytes()))
}

fn run_for(program: &Path, words: &[&str], limit: Duration) -> Result<(), String> {
    let what = format!("{} {} (`tls.acme.dns.hook`)", program.display(), words.join(" "));
    if !program.is_absolute() {
        return Err(format!("{what}: name the program by its whole path"));
    }
    let mut command = Command::new(program);
    command.args(words).process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_private(name)) {
        command.env_remove(name);
    }
    let mut child = command.spawn().map_err(|error| format!("{what} cannot be run: {error}"))?;
    let said = listen(&mut child);
    let ended = wait(&mut child, limit);
    // Also what it left behind, so that nothing of it outlives its answer; nothing may be left, which is as well.
    let _ = group(&child).map(|group| kill_process_group(group, Signal::KILL));
    let outcome = match ended {
        Ok(Some(status)) if status.success() => return Ok(()),
        Ok(Some(status)) => match status.signal() {
            Some(signal) => format!("was ended by signal {signal}"),
            None => format!("ended with status {}", status.code().unwrap_or_default()),
        },
        Ok(None) => {
            let _ = child.wait(); // it was killed: nothing to learn but that it is gone
            format!("was not done within {} s and was killed", limit.as_secs())
        }
        Err(error) => format!("cannot be waited for: {error}"),
    };
    let said = said.recv_timeout(PATIENCE).unwrap_or_default();
    let words = if said.is_empty() { "it said nothing on stderr".to_owned() } else { format!("it said: {said}") };
    Err(format!("{what} {outcome}; {words}"))
}

/// `None` when the time is over.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let until = Instant::now() + limit;
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if Instant::now() >= until => return Ok(None),
            None => std::thread::sleep(LOOK),
        }
    }
}

fn group(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

/// Reads what it says to the end, and keeps the end of it, in one line.
fn listen(child: &mut Child) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::sync_channel(1);
    let Some(mut stderr) = child.stderr.take() else { return told };
    std::thread::spawn(move || {
        let (mut last, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = stderr.read(&mut buffer) {
            last.extend_from_slice(&buffer[..count]);
            last.drain(..last.len().saturating_sub(WORDS));
        }
        let text = String::from_utf8_lossy(&last).split_whitespace().collect::<Vec<_>>().join(" ");
        // Nobody waits any more when the program left somebody behind.
        let _ = tell.send(text.chars().filter(|letter| !letter.is_control()).collect());
    });
    told
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn program(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("hook");
        // By another process: a file that ours writes may be open in a child of another test, and is no program then.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 700 \"$0\"";
        assert!(Command::new("sh").args(["-c", write]).arg(&path).arg(text).status().unwrap().success());
        path
    }

    #[test]
    fn a_program_is_told_what_to_do_with_which_record_and_no_shell_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let hook = program(folder.path(), &format!("printf '%s|' \"$@\" > {}/told", folder.path().display()));
        run(&hook, "present", "_acme-challenge.a.test.", "$(id);`id`").unwrap();
        let told = std::fs::read_to_string(folder.path().join("told")).unwrap();
        assert_eq!(told, "present|_acme-challenge.a.test.|$(id);`id`|");
    }

    #[test]
    fn a_program_has_the_environment_but_not_what_is_the_servers_alone() {
        for name in ["PIERHEAD_ADMIN_PASSWORD", "REGISTRY_HTTP_SECRET", "NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC"]
        {
            assert!(is_private(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "HOME", "DNS_API_TOKEN", "CREDENTIALS_DIRECTORY", "https_proxy", "MY_REGISTRY_"] {
            assert!(!is_private(OsStr::new(name)), "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        let hook = program(folder.path(), &format!("env > {}/told", folder.path().display()));
        run(&hook, "present", "r.", "v").unwrap();
        let told = std::fs::read_to_string(folder.path().join("told")).unwrap();
        assert!(told.lines().any(|line| line.starts_with("PATH=")));
    }

    #[test]
    fn a_program_that_fails_is_quoted_and_one_that_cannot_be_run_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let hook =
            program(folder.path(), "head -c 100000 /dev/zero | tr '\\0' x >&2; echo; echo no such zone >&2; exit 3");
        let said = run(&hook, "present", "r.", "v").unwrap_err();
        assert!(said.contains("ended with status 3") && said.ends_with("no such zone"), "{said}");
        assert!(said.len() < 3000, "{}", said.len());
        let said = run(Path::new("/nowhere/hook"), "present", "r.", "v").unwrap_err();
        assert!(said.contains("/nowhere/hook") && said.contains("tls.acme.dns.hook"), "{said}");
        assert!(run(Path::new("hook"), "present", "r.", "v").unwrap_err().contains("whole path"));
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let hook = program(folder.path(), &format!("sleep 1000 & echo $! > {}/child; wait", folder.path().display()));
        let said = run_for(&hook, &["present", "r.", "v"], Duration::from_secs(1)).unwrap_err();
        assert!(said.contains("not done within 1 s and was killed"), "{said}");
        let child = std::fs::read_to_string(folder.path().join("child")).unwrap();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        super::super::super::testing::until("the child is gone", gone);
    }
}
