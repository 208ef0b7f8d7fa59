//! BIND as the primary server of a zone that takes dynamic updates (RFC 2136) from whoever has the key.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{Output, command};
use super::free_port;
use super::process::Process;

/// A running primary.
pub(crate) struct Named {
    process: Process,
    directory: PathBuf,
    port: u16,
}

impl Named {
    /// Starts one for a zone whose names are all at 127.0.0.1.
    pub(crate) fn start(directory: &Path, zone: &str) -> Self {
        let directory = directory.join("named");
        fs::create_dir_all(&directory).expect("a folder can be made");
        let port = free_port();
        let write = |file: &str, text: &str| fs::write(directory.join(file), text).expect("a file can be written");
        let key = Output::of(command("tsig-keygen").args(["-a", "hmac-sha256", "pierhead"])).ok().stdout;
        write("update.key", &key);
        write(
            "zone",
            &format!(
                "$TTL 1\n@ SOA ns.{zone}. ops.{zone}. 1 60 60 60 1\n@ NS ns.{zone}.\n@ A 127.0.0.1\n* A 127.0.0.1\n"
            ),
        );
        let mut settings = String::from("include \"update.key\";\ncontrols {};\n");
        let _ = write!(
            settings,
            "options {{ directory \"{}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file none; \
             session-keyfile none; recursion no; dnssec-validation no; notify no; }};\n\
             zone \"{zone}\" {{ type primary; file \"zone\"; allow-update {{ key pierhead; }}; }};\n",
            directory.display()
        ); // to a String
        write("named.conf", &settings);
        // A copy: where AppArmor is at work, the installed program may not leave its folders.
        let program = directory.join("program");
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
        let installed = path.split(':').map(|folder| Path::new(folder).join("named")).find(|file| file.is_file());
        fs::copy(installed.expect("named is installed"), &program).expect("a program can be copied");
        let mut named = Command::new(program);
        named.args(["-4", "-g", "-n", "1", "-c", "named.conf"]).current_dir(&directory);
        let mut process = Process::start("named", &directory, &mut named);
        process.wait_until("serve its zone", 20, |process| process.stderr().contains("running"));
        Self { process, directory, port }
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The key that updates are signed with, as `tsig-keygen` wrote it.
    pub(crate) fn key(&self) -> PathBuf {
        self.directory.join("update.key")
    }

    /// What it says that it did.
    pub(crate) fn log(&self) -> String {
        self.process.stderr()
    }
}
