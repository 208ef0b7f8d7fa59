//! Promise: `pierhead registry serve CONFIG` takes the place of Distribution's registry with the file, the variables and
//! the command line that are there, and says what it cannot honour.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::command::{Output, command};
use crate::support::content::Content;
use crate::support::free_port;
use crate::support::machine::scratch;
use crate::support::pierhead::PIERHEAD;
use crate::support::process::Process;
use crate::support::registry::Registry;

const LAYERS: [Content; 2] = [Content { seed: 31, size: 1 << 20 }, Content { seed: 32, size: 12_345 }];

/// A folder with a `config.yml` of another registry, and this program under the name `registry`.
pub(crate) struct Original {
    directory: TempDir,
    pub(crate) port: u16,
}

impl Original {
    /// The file of `tests/data/registry-configs`, with the paths of this folder.
    fn new(file: &str) -> Self {
        let original = Self::empty();
        original.configure(file, &[]);
        original
    }

    /// Without a `config.yml` yet.
    pub(crate) fn empty() -> Self {
        let directory = tempfile::Builder::new().prefix("original-").tempdir_in(scratch()).expect("a directory");
        let original = Self { directory, port: free_port() };
        symlink(PIERHEAD, original.path("registry")).expect("the directory can be written");
        original
    }

    /// Writes the file of `tests/data/registry-configs`, with the paths of this folder and these `{words}` filled in.
    pub(crate) fn configure(&self, file: &str, words: &[(&str, &str)]) {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/registry-configs");
        let text = fs::read_to_string(data.join(file)).expect("the file is there");
        let text = text.replace("{root}", &self.path("tree").display().to_string());
        let text = text.replace("{address}", &format!("127.0.0.1:{}", self.port));
        self.write(&words.iter().fold(text, |text, (word, value)| text.replace(word, value)));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, text: &str) {
        fs::write(self.path("config.yml"), text).expect("the directory can be written");
    }

    /// `registry serve config.yml`, until it answers.
    pub(crate) fn start(&self, variables: &[(&str, &str)]) -> Process {
        let mut process = self.launch(variables);
        process.wait_until("be ready", 30, |_| {
            let answer = reqwest::blocking::get(format!("{}/-/ready", self.origin()));
            answer.is_ok_and(|answer| answer.status() == 200)
        });
        process
    }

    /// `registry serve config.yml`, until it says that it serves.
    pub(crate) fn launch(&self, variables: &[(&str, &str)]) -> Process {
        let mut command = Command::new(self.path("registry"));
        command.arg("serve").arg(self.path("config.yml")).current_dir(self.directory.path());
        let mut process = Process::start("registry", self.directory.path(), clean(&mut command, variables));
        process.wait_until("say that it serves", 30, |process| process.stderr().contains("serves the registry of"));
        process
    }

    /// `registry serve config.yml`, which ends by itself.
    fn fails(&self, variables: &[(&str, &str)]) -> Output {
        let mut command = command(self.path("registry"));
        command.args(["serve", "config.yml"]).current_dir(self.directory.path());
        Output::of(clean(&mut command, variables))
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Takes away what the environment of the tests may say.
fn clean<'c>(command: &'c mut Command, variables: &[(&str, &str)]) -> &'c mut Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PIERHEAD_") || text.starts_with("REGISTRY_") {
            command.env_remove(&name);
        }
    }
    command.envs(variables.iter().copied())
}

/// Pushes, pulls, lists and deletes; `removed` is the status of a deletion.
pub(crate) fn use_it(registry: &Registry, removed: u16) {
    let repository = registry.repository("team/app", "pull,push,delete");
    let digest = repository.push("latest", &LAYERS).expect("pushed");
    assert_eq!(repository.pull("latest").expect("pulled"), digest);
    assert_eq!(repository.get("tags/list").json::<Value>().expect("JSON")["tags"][0], "latest");
    let deleted = repository.request(Method::DELETE, &format!("manifests/{digest}")).send().expect("an answer");
    assert_eq!(deleted.status(), removed);
    assert_eq!(repository.get("manifests/latest").status(), if removed == 202 { 404 } else { 200 });
}

#[test]
fn the_file_of_debian_is_served_as_it_is() {
    let original = Original::new("debian.yml");
    let mut process = original.start(&[]);
    let registry = Registry::open(&original.origin());
    use_it(&registry, 202);
    let catalog = registry.request(Method::GET, "/v2/_catalog").send().expect("an answer").json::<Value>();
    assert_eq!(catalog.expect("JSON")["repositories"][0], "team/app");
    assert_eq!(registry.request(Method::GET, "/jwt/auth").send().expect("an answer").status(), 404);
    let log = process.stderr();
    for said in ["storage.cache: has no effect", "auth: not written: everybody", "serves the registry of"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    process.terminate();
    assert_eq!(process.wait(20).code(), Some(0));
    let mut left: Vec<_> = fs::read_dir(original.directory.path()).expect("a directory").flatten().collect();
    left.retain(|entry| {
        !["config.yml", "registry", "registry.stderr", "registry.stdout"].iter().any(|name| entry.file_name() == *name)
    });
    assert_eq!(left.len(), 1, "nothing is kept but the tree: {left:?}");
}

#[test]
fn variables_override_the_file() {
    let Original { directory, port } = Original::new("debian.yml");
    let moved = Original { directory, port: free_port() };
    let (address, root) = (format!("127.0.0.1:{}", moved.port), moved.path("elsewhere").display().to_string());
    let process = moved.start(&[
        ("REGISTRY_HTTP_ADDR", &address),
        ("REGISTRY_STORAGE_DELETE_ENABLED", "false"),
        ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", &root),
        ("REGISTRY_HTTP_RELATIVEURLS", "yes"),
        ("REGISTRY_MOON", "full"),
    ]);
    assert_ne!(moved.port, port);
    let registry = Registry::open(&moved.origin());
    use_it(&registry, 405);
    assert!(registry.repository("team/app", "push").begin().expect("begun").starts_with("/v2/"));
    assert!(process.stderr().contains("REGISTRY_MOON: ignoring unrecognized environment variable"));
    assert!(moved.path("elsewhere/docker").exists() && !moved.path("tree").exists());
}

#[test]
fn the_file_of_omnibus_is_served() {
    let original = Original::new("omnibus.yml");
    // Its tokens come from elsewhere; whoever has none may still look at what the rest of the file comes to.
    let process = original.start(&[("REGISTRY_AUTH", "none")]);
    use_it(&Registry::open(&original.origin()), 202);
    for said in ["log.fields: has no effect", "gc: has no effect"] {
        assert!(process.stderr().contains(said), "{}", process.stderr());
    }
}

#[test]
fn what_cannot_be_honoured_is_said_with_file_line_and_key() {
    let original = Original::new("debian.yml");
    original.write(
        "version: 0.1\nstorage: { s3: { bucket: images, secretkey: hunter2 } }\nhttp: { addr: nowhere }\n\
         notifications: { endpoints: [{ name: a, url: https://a.example, headers: { Authorization: [hunter2] } }] }\n\
         proxy: { remoteurl: https://registry.example, password: hunter2 }\n",
    );
    let output = original.fails(&[("REGISTRY_AUTH_SILLY_REALM", "hunter2")]);
    assert_eq!(output.code(), Some(78), "{output}");
    for line in [
        "config.yml:2: storage.s3: cannot be honoured: ",
        "config.yml:3: http.addr: must be an address",
        "config.yml:4: notifications.endpoints: cannot be honoured: ",
        "config.yml:5: proxy.remoteurl: cannot be honoured: ",
        "environment: REGISTRY_AUTH_SILLY_REALM: auth.silly: cannot be honoured: ",
    ] {
        assert!(output.stderr.contains(line), "{line}: {output}");
    }
    assert!(!output.stderr.contains("hunter2"), "{output}");
}

#[test]
fn the_file_is_found_where_the_variable_says() {
    let original = Original::new("debian.yml");
    original.write("version: 0.1\n");
    let mut command = command(PIERHEAD);
    let output = Output::of(clean(
        command.args(["registry", "serve"]).current_dir(original.directory.path()),
        &[("REGISTRY_CONFIGURATION_PATH", "config.yml")],
    ));
    assert_eq!(output.code(), Some(78), "{output}");
    assert!(output.stderr.contains("config.yml:1: storage: missing"), "{output}");
}

#[test]
fn the_version_is_told_as_the_original_tells_it() {
    for flag in ["-v", "--version"] {
        let output = Output::of(command(PIERHEAD).args(["registry", flag])).ok();
        assert_eq!(output.stdout, format!("registry pierhead {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn check_warns_about_what_has_no_effect() {
    let original = Original::new("debian.yml");
    fs::write(original.path("pierhead.yml"), "registry: config.yml\n").expect("the directory can be written");
    let mut command = command(PIERHEAD);
    let output = Output::of(clean(
        command.arg("check").current_dir(original.directory.path()).args(["-c", "pierhead.yml"]),
        &[],
    ))
    .ok();
    assert!(output.stderr.contains("warning: config.yml:6: storage.cache: has no effect"), "{output}");
    assert!(output.stdout.contains(&original.path("tree").display().to_string()), "{output}");
}
