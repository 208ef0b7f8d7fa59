//! Promise: a configuration that cannot be honoured is refused with every problem in it, by file, line and key; what the
//! machine refuses (a port, a folder, a pair of files) is said in one line with what to do.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::command::Output;
use crate::support::machine::on_a_fresh_machine;
use crate::support::pierhead::{Site, pierhead};

/// The exit code for a configuration that cannot be used (EX_CONFIG of sysexits.h).
const BAD_CONFIGURATION: Option<i32> = Some(78);

#[test]
fn every_problem_of_a_bad_configuration_is_named() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bad-configs");
    let entries = fs::read_dir(&folder).expect("the bad configurations are there").flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|of| of == "yml")).collect();
    files.sort();
    assert!(files.len() >= 25, "only {} bad configurations", files.len());
    let wrong: Vec<String> = files.iter().filter_map(|file| unexpected(file)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What `check` or `serve` did differently from what the file beside a bad configuration expects.
fn unexpected(file: &Path) -> Option<String> {
    let folder = file.parent().expect("files are in folders");
    let expected =
        fs::read_to_string(file.with_extension("expected")).expect("every bad configuration has an .expected");
    let expected = expected.replace("{folder}", &folder.display().to_string());
    let environment = fs::read_to_string(file.with_extension("environment")).unwrap_or_default();
    for verb in ["check", "serve"] {
        let mut command = pierhead();
        command.args([verb, "-c"]).arg(file.file_name().expect("files have names")).current_dir(folder);
        command.envs(environment.lines().filter_map(|line| line.split_once('=')));
        let output = Output::of(&mut command);
        let missing = expected.lines().any(|line| !output.stderr.contains(line));
        if output.code() != BAD_CONFIGURATION || missing || !output.stdout.is_empty() {
            return Some(format!("{}: {verb} should say\n{expected}\nand did\n{output}", file.display()));
        }
    }
    None
}

/// Starts the server, which must fail at once with one line that has these words. Returns the line.
fn fails_with_one_line(site: &Site, words: &[&str]) -> String {
    let output = site.run(&["serve"]);
    assert!(!output.is_ok(), "it should not start: {output}");
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "one line: {output}");
    for word in words {
        assert!(lines[0].contains(word), "{word:?} is missing: {output}");
    }
    lines[0].to_owned()
}

#[test]
fn a_taken_port_is_said_in_one_line() {
    let site = Site::new();
    let port = site.authority().rsplit(':').next().expect("a port").parse::<u16>().expect("a number");
    let _taken = TcpListener::bind(("::", port)).expect("the port was free");
    fails_with_one_line(&site, &[&port.to_string(), "another program has this port"]);
}

#[test]
fn a_directory_that_cannot_be_written_is_said_in_one_line() {
    on_a_fresh_machine(|_| {
        for folder in ["tree", "state"] {
            let site = Site::new();
            let path = site.directory().join(folder);
            fs::create_dir(&path).expect("the site can be written");
            // Root writes everywhere, except where nobody can.
            Output::of(Command::new("mount").args(["-t", "tmpfs", "-o", "ro,mode=0755", "tmpfs"]).arg(&path)).ok();
            fails_with_one_line(&site, &[&path.display().to_string()]);
        }
    });
}

#[test]
fn a_certificate_and_a_key_that_do_not_match_are_said_in_one_line() {
    let site = Site::new();
    for name in ["one", "two"] {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate can be made");
        fs::write(site.directory().join(format!("{name}.crt")), pair.cert.pem()).expect("the site can be written");
        fs::write(site.directory().join(format!("{name}.key")), pair.signing_key.serialize_pem()).expect("likewise");
    }
    site.configure(&["tls: { certificates: [{ certificate: one.crt, key: two.key }] }"]);
    fails_with_one_line(&site, &["one.crt", "two.key"]);
}

#[test]
fn a_file_that_is_not_there_or_may_not_be_read_is_said_in_one_line() {
    let site = Site::new();
    fs::remove_file(site.config()).expect("the site can be written");
    fails_with_one_line(&site, &["pierhead.yml"]);
}

#[test]
fn check_shows_the_resolved_configuration_and_secrets_are_private() {
    let site = Site::new();
    let shown = site.run(&["check"]).ok();
    assert!(shown.stdout.contains(&site.origin()), "{shown}");
    let server = site.start();
    for (folder, keys) in [("certs", "key"), ("state", "key")] {
        for entry in fs::read_dir(site.directory().join(folder)).expect("the first start made it").flatten() {
            if entry.path().extension().is_some_and(|of| of == keys) {
                let mode = entry.metadata().expect("it is there").permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{}", entry.path().display());
            }
        }
    }
    let shown = site.run(&["check"]).ok();
    assert!(!shown.stdout.contains("PRIVATE KEY"), "{shown}");
    drop(server);
}

#[test]
fn check_and_serve_warn_of_a_trusted_network_that_is_everybody() {
    let site = Site::new();
    site.configure(&["trusted_proxies: [0.0.0.0/0]"]);
    let shown = site.run(&["check"]).ok();
    let warned = |text: &str| text.contains("trusted_proxies[0]: 0.0.0.0/0 is everybody");
    assert!(shown.stderr.starts_with("warning: ") && warned(&shown.stderr), "{shown}");
    let server = site.start();
    assert!(warned(&server.process.stderr()), "{}", server.process.stderr());
}

#[test]
fn check_and_serve_show_a_registry_that_the_routes_hide_at_its_internal_port() {
    let site = Site::new();
    site.configure(&[
        "upstreams: { theirs: { peers: [\"http://127.0.0.1:1\"] } }",
        "routes: [{ path: /v2/, to: { upstream: theirs } }]",
    ]);
    let internal = format!("127.0.0.1:{}", site.internal_port());
    let way = format!("{internal}/v2/ -> the registry of this server (");
    let both = format!("{}/v2/ -> the registry of this server", site.authority());
    let warning = format!("it is reached by the internal port alone ({internal})");
    let shown = site.run(&["check"]).ok();
    assert!(shown.stdout.contains(&way) && shown.stderr.contains(&warning), "{shown}");
    let server = site.start_unready();
    let said = server.process.stderr();
    assert!(said.contains(&way) && said.contains(&warning) && !said.contains(&both), "{said}");
}
