//! A fresh machine for one test, made of namespaces: mounts, network, processes and host name of its own.
//!
//! `on_a_fresh_machine` runs the test once more, alone, as process 1 of such a machine, and reports how that went. So
//! the body of the test is plain code that sees nothing but the machine: it may listen on port 5050, write /etc/docker,
//! mount file systems and start daemons, and when it ends, in whatever way, the kernel ends all of it.
//!
//! The machine is called `registry.test`, with an address (192.0.2.1) that is not a loopback address: docker verifies
//! certificates only there. `machine.sh` is the set-up.

use std::any::type_name;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set inside of a machine: its scratch directory.
const SCRATCH: &str = "TEST_MACHINE";

/// No test may take longer than this, in seconds.
const PATIENCE: &str = "540";

/// The name of every machine.
pub(crate) const NAME: &str = "registry.test";

/// Runs a test on a fresh machine. `body` is given the machine's scratch directory, which is also the current one.
///
/// The test function must hand over a closure of its own: the closure's name says which test to run inside.
pub(crate) fn on_a_fresh_machine<F: FnOnce(&Path)>(body: F) {
    match std::env::var_os(SCRATCH) {
        Some(scratch) => {
            end_with_the_outer_test();
            body(&PathBuf::from(scratch));
        }
        None => run_inside(test_of::<F>()),
    }
}

/// The same for tests that move gigabytes: one of them at a time.
pub(crate) fn alone_on_a_fresh_machine<F: FnOnce(&Path)>(body: F) {
    let lock =
        File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("alone.lock")).expect("a lock file can be made");
    let outside = std::env::var_os(SCRATCH).is_none();
    if outside {
        lock.lock().expect("the lock file can be locked");
    }
    on_a_fresh_machine(body);
}

/// Where a test may keep files on disk: the machine's scratch directory, or cargo's.
pub(crate) fn scratch() -> PathBuf {
    std::env::var_os(SCRATCH).map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
}

/// `module::test` from the type of a closure in it: `it::module::test::{{closure}}`.
fn test_of<F>() -> &'static str {
    let name = type_name::<F>();
    let name = name.strip_suffix("::{{closure}}").unwrap_or(name);
    name.split_once("::").map_or(name, |(_, test)| test)
}

fn run_inside(test: &str) {
    let root = fs::metadata("/proc/self").is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0);
    assert!(root, "{test} needs root, for namespaces and mounts of its own: run the tests as root (sudo make test)");
    let scratch = tempfile::Builder::new().prefix("machine-").tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    let scratch = scratch.expect("the scratch directory can be made");
    let setup = scratch.path().join("machine.sh");
    fs::write(&setup, include_str!("machine.sh")).expect("the scratch directory can be written");

    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", PATIENCE, "unshare", "--mount", "--net", "--pid", "--uts", "--ipc"]);
    command.args(["--fork", "--kill-child", "--mount-proc", "sh"]).arg(setup).arg(scratch.path());
    command.arg(std::env::current_exe().expect("a program knows its path"));
    command.args([test, "--exact", "--nocapture"]).env(SCRATCH, scratch.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error} (is util-linux installed?)"));
    let lifeline = child.stdin.take();
    let output = child.wait_with_output().expect("a child can be waited for");
    drop(lifeline);

    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{said}{complained}");
    assert!(output.status.success(), "the test failed on its machine ({}); see above", output.status);
    assert!(said.contains("1 passed"), "{test} did not run on its machine; see above");
}

/// The outer test holds the other end of our standard input. When it is gone, so are we: we are process 1, and with us
/// goes everything that we started.
fn end_with_the_outer_test() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
}
