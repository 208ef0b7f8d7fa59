//! docker, podman, buildah and skopeo, as their users run them. Only for a fresh machine: they keep what they know in
//! the places where they always keep it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{Output, command};
use super::image::{self, Image, Layout};
use super::process::Process;

/// What every client can do. Images are named `registry/repository:tag`.
pub(crate) trait Client {
    /// `login`, with the password on standard input.
    fn login(&self, registry: &str, user: &str, password: &str) -> Output;

    /// `logout`.
    fn logout(&self, registry: &str) -> Output;

    /// Pushes an image, which the client is given first, under `name`.
    fn push(&self, image: &Image, layout: &Layout, name: &str) -> Output;

    /// Forgets all images, then pulls one.
    fn pull(&mut self, name: &str) -> Result<Pulled, Output>;
}

/// What a client says it has after a pull.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pulled {
    /// The digest of the configuration, which pins the content of all layers. The client has checked it.
    pub(crate) id: String,
    /// The digest of the manifest.
    pub(crate) manifest: String,
}

/// `client login` reads the password as all clients do.
fn login(client: &mut Command, registry: &str, user: &str, password: &str) -> Output {
    client.args(["login", "--username", user, "--password-stdin", registry]);
    Output::with_input(client, |stdin| stdin.write_all(password.as_bytes()))
}

/// A docker engine of the test's own, and the client.
pub(crate) struct Docker {
    directory: PathBuf,
    daemon: Process,
    stores: u32,
}

impl Docker {
    /// Starts the engine.
    pub(crate) fn start(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), daemon: start_daemon(directory, 0), stores: 1 }
    }

    /// Stops the engine and starts one that has never seen an image.
    fn empty(&mut self) {
        self.daemon.terminate();
        self.daemon.wait(20);
        fs::remove_dir_all(store(&self.directory, self.stores - 1)).expect("the store can be removed");
        self.daemon = start_daemon(&self.directory, self.stores);
        self.stores += 1;
    }

    /// Makes an image known to the engine.
    pub(crate) fn load(&self, image: &Image, name: &str) {
        Output::with_input(docker().arg("load"), |mut stdin| image.write_docker_archive(name, &mut stdin)).ok();
    }

    /// The id of an image in the store.
    fn id(&self, name: &str) -> String {
        let shown = Output::of(docker().args(["image", "inspect", "--format", "{{.Id}}", name])).ok();
        shown.stdout.trim().to_owned()
    }
}

/// Debian's client, of the engine's version; another may come first in the path.
fn docker() -> Command {
    let packaged = Path::new("/usr/bin/docker");
    command(if packaged.exists() { packaged } else { Path::new("docker") })
}

fn store(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("docker-{number}"))
}

fn start_daemon(directory: &Path, number: u32) -> Process {
    let mut dockerd = Command::new("dockerd");
    dockerd.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs", "--data-root"]);
    let mut daemon = Process::start("dockerd", directory, dockerd.arg(store(directory, number)));
    let answers = |_: &Process| Output::of(docker().args(["info", "--format", "{{.ServerVersion}}"])).is_ok();
    daemon.wait_until("answer", 60, answers);
    daemon
}

impl Client for Docker {
    fn login(&self, registry: &str, user: &str, password: &str) -> Output {
        login(&mut docker(), registry, user, password)
    }

    fn logout(&self, registry: &str) -> Output {
        Output::of(docker().args(["logout", registry]))
    }

    fn push(&self, image: &Image, _: &Layout, name: &str) -> Output {
        self.load(image, name);
        Output::of(docker().args(["push", name]))
    }

    fn pull(&mut self, name: &str) -> Result<Pulled, Output> {
        self.empty();
        let output = Output::of(docker().args(["pull", name]));
        if !output.is_ok() {
            return Err(output);
        }
        let manifest = output.stdout.lines().find_map(|line| line.strip_prefix("Digest: "));
        let manifest = manifest.unwrap_or_else(|| panic!("no digest: {output}")).to_owned();
        Ok(Pulled { id: self.id(name), manifest })
    }
}

/// podman and buildah: one store, the same words.
pub(crate) struct Containers {
    program: &'static str,
}

impl Containers {
    pub(crate) fn podman() -> Self {
        Self { program: "podman" }
    }

    pub(crate) fn buildah() -> Self {
        Self { program: "buildah" }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Output::of(command(self.program).args(arguments))
    }
}

impl Client for Containers {
    fn login(&self, registry: &str, user: &str, password: &str) -> Output {
        login(&mut command(self.program), registry, user, password)
    }

    fn logout(&self, registry: &str) -> Output {
        self.run(&["logout", registry])
    }

    fn push(&self, image: &Image, layout: &Layout, name: &str) -> Output {
        // Their own pull would make a name of the path, which may hold capitals.
        let stored = ["copy", &layout.transport(), "containers-storage:localhost/image:latest"];
        Output::of(command("skopeo").args(stored)).ok();
        self.run(&["push", image.id().trim_start_matches("sha256:"), &format!("docker://{name}")])
    }

    fn pull(&mut self, name: &str) -> Result<Pulled, Output> {
        self.run(&["rmi", "--all", "--force"]).ok();
        let output = self.run(&["pull", name]);
        if !output.is_ok() {
            return Err(output);
        }
        let listed = self.run(&["images", "--no-trunc", "--digests", "--format", "{{.ID}} {{.Digest}}"]).ok();
        let words: Vec<&str> = listed.stdout.split_whitespace().collect();
        assert_eq!(words.len(), 2, "one image is all there is: {listed}");
        let id = words[0].trim_start_matches("sha256:");
        Ok(Pulled { id: format!("sha256:{id}"), manifest: words[1].to_owned() })
    }
}

/// skopeo, which has no store: it copies between image layouts and registries.
pub(crate) struct Skopeo {
    directory: PathBuf,
}

impl Skopeo {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Copies everything that an image or an index consists of.
    pub(crate) fn copy(&self, from: &str, to: &str) -> Output {
        Output::of(command("skopeo").args(["copy", "--all", from, to]))
    }
}

impl Client for Skopeo {
    fn login(&self, registry: &str, user: &str, password: &str) -> Output {
        login(&mut command("skopeo"), registry, user, password)
    }

    fn logout(&self, registry: &str) -> Output {
        Output::of(command("skopeo").args(["logout", registry]))
    }

    fn push(&self, _: &Image, layout: &Layout, name: &str) -> Output {
        self.copy(&layout.transport(), &format!("docker://{name}"))
    }

    fn pull(&mut self, name: &str) -> Result<Pulled, Output> {
        let store = self.directory.join("pulled");
        let _ = fs::remove_dir_all(&store);
        let output = self.copy(&format!("docker://{name}"), &format!("oci:{}:latest", store.display()));
        if !output.is_ok() {
            return Err(output);
        }
        let (manifest, id) = image::read_layout(&store);
        Ok(Pulled { id, manifest })
    }
}
