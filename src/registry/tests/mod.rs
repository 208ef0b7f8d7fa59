//! The registry from its requests, without sockets: a tree in a temporary folder and exchanges from memory.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::exchange::memory::Recorded;
use crate::exchange::{BodyError, Notes, send};
use crate::oci::media_type::{OCI_INDEX, OCI_MANIFEST};
use crate::oci::{Access, Action, Algorithm, RepositoryName};
use crate::storage::{Driver, Filesystem};

mod blobs;
mod errors;
mod faults;
mod health;
mod limits;
mod lists;
mod maintenance;
mod manifests;
mod mounts;
mod options;
mod purge;
mod referrers;
mod remembered;
mod repeated;
mod uploads;
mod validation;

const LIMIT: usize = 4 << 20;

/// A registry on a folder of its own. A second one on the same folder is what a restart makes.
pub(super) struct Fixture {
    pub(super) dir: Arc<tempfile::TempDir>,
    pub(super) registry: Arc<Registry>,
    pub(super) grant: Grant,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) notes: Notes,
}

impl Response {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{} {:?}", String::from_utf8_lossy(&self.body), self.headers);
        self
    }

    #[track_caller]
    pub(super) fn expect_error(self, status: u16, code: &str) -> Self {
        let response = self.expect(status);
        assert_eq!(response.code(), code);
        assert!(!response.json()["errors"][0]["message"].as_str().unwrap().is_empty());
        response
    }
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::on(Arc::new(tempfile::tempdir().unwrap()), |disk| disk, true)
    }

    /// As [`Fixture::new`], for tests of thousands of files: in memory where there is such a place.
    pub(super) fn large() -> Self {
        Self::on(folder_in_memory(), |disk| disk, true)
    }

    pub(super) fn on(
        dir: Arc<tempfile::TempDir>,
        wrap: impl FnOnce(Arc<dyn Driver>) -> Arc<dyn Driver>,
        delete: bool,
    ) -> Self {
        let driver = wrap(Arc::new(Filesystem::new(dir.path())));
        Self::with_index(dir, driver, delete, Index::none())
    }

    pub(super) fn with_index(dir: Arc<tempfile::TempDir>, driver: Arc<dyn Driver>, delete: bool, index: Index) -> Self {
        let config = Config { delete, ..Config::new(dir.path().to_owned()) };
        Self { dir, registry: Arc::new(Registry::new(config, driver, index)), grant: Grant::default() }
    }

    /// As [`Fixture::new`], with what an operator may say.
    pub(super) fn configured(change: impl FnOnce(&mut Config)) -> Self {
        Self::new().reconfigured(change)
    }

    /// After a restart with another configuration.
    pub(super) fn reconfigured(&self, change: impl FnOnce(&mut Config)) -> Self {
        let root = self.dir.path().to_owned();
        let driver = Arc::new(Filesystem::new(&root));
        let mut config = Config { delete: true, ..Config::new(root) };
        change(&mut config);
        Self {
            dir: self.dir.clone(),
            registry: Arc::new(Registry::new(config, driver, Index::none())),
            grant: self.grant.clone(),
        }
    }

    pub(super) fn restarted(&self) -> Self {
        Self::on(self.dir.clone(), |disk| disk, true)
    }

    /// The same registry for somebody who may pull these repositories.
    pub(super) fn as_reader_of(&self, names: &[&str]) -> Self {
        let access = names.iter().map(|name| Access::repository(&name.parse().unwrap(), &[Action::Pull])).collect();
        let grant = Grant { subject: Some("somebody".into()), access, ..Grant::default() };
        Self { dir: self.dir.clone(), registry: self.registry.clone(), grant }
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("docker/registry/v2").join(below)
    }

    pub(super) async fn ask(&self, request: &str) -> Response {
        self.send(request, &[], Bytes::new()).await
    }

    pub(super) async fn send(&self, request: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response {
        let body = body.into();
        let pieces = if body.is_empty() { Vec::new() } else { vec![Ok(body)] };
        self.send_pieces(request, headers, pieces).await
    }

    /// `METHOD /path?query`, headers, and a body as it comes.
    pub(super) async fn send_pieces(
        &self,
        request: &str,
        headers: &[(&str, &str)],
        pieces: Vec<Result<Bytes, BodyError>>,
    ) -> Response {
        let (method, target) = request.split_once(' ').unwrap();
        let target = target.strip_prefix("https://localhost:5050").unwrap_or(target);
        let mut builder = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        self.exchange(Recorded::with_pieces(builder.body(()).unwrap(), pieces)).await
    }

    async fn exchange(&self, mut exchange: Recorded) -> Response {
        let head = exchange.head();
        let parsed = Endpoint::parse(&head.method, head.uri.path(), head.uri.query());
        let (registry, grant) = (self.registry.clone(), self.grant.clone());
        // In a task, as in the server: the future must be able to move between threads.
        let task = tokio::spawn(async move {
            let answer = match parsed {
                Ok(endpoint) => registry.answer(endpoint, &grant, &mut exchange).await,
                Err(rejection) => registry.reject(rejection),
            };
            send(&mut exchange, answer).await.unwrap();
            exchange
        });
        let mut exchange = task.await.unwrap();
        assert!(exchange.ended());
        let head = exchange.response().unwrap().clone();
        let response = Response {
            status: head.status,
            headers: head.headers,
            body: Bytes::copy_from_slice(exchange.written()),
            notes: exchange.notes().clone(),
        };
        known_headers_only(&response);
        response
    }

    /// Pushes a blob as most clients do: POST, PATCH, PUT.
    pub(super) async fn push_blob(&self, name: &str, content: impl Into<Bytes>) -> Digest {
        let content = content.into();
        let digest = sha256(&content);
        let location = self.start(name).await;
        let patched = self.send(&format!("PATCH {location}"), &[], content).await.expect(202);
        let committed = format!("PUT {}?digest={digest}", patched.header("location"));
        self.ask(&committed).await.expect(201);
        digest
    }

    /// Begins an upload and says where.
    pub(super) async fn start(&self, name: &str) -> String {
        let started = self.ask(&format!("POST /v2/{name}/blobs/uploads/")).await.expect(202);
        started.header("location").to_owned()
    }

    /// Pushes a manifest under a reference.
    pub(super) async fn push_manifest(&self, name: &str, reference: &str, document: &Value) -> Response {
        let media_type = document["mediaType"].as_str().unwrap_or(OCI_MANIFEST);
        let request = format!("PUT /v2/{name}/manifests/{reference}");
        self.send(&request, &[("content-type", media_type)], document.to_string()).await
    }

    /// Pushes an image of a configuration and a layer, made from a word, under a tag.
    pub(super) async fn push_image(&self, name: &str, tag: &str, word: &str) -> Digest {
        let config = self.push_blob(name, format!("config of {word}")).await;
        let layer = self.push_blob(name, format!("layer of {word}")).await;
        let document = image(&config, &[&layer]);
        self.push_manifest(name, tag, &document).await.expect(201);
        sha256(document.to_string().as_bytes())
    }

    pub(super) async fn count_uploads(&self, name: &str) -> usize {
        self.path(&format!("repositories/{name}/_uploads")).read_dir().map_or(0, Iterator::count)
    }
}

/// A folder where syncing costs nothing: what is synced when is not what these tests are about.
pub(super) fn folder_in_memory() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
}

/// Lays down a file as another program would, torn or odd as it may be.
pub(super) fn lay(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::File::create(path).unwrap().write_all(content.as_ref()).unwrap();
}

pub(super) fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

pub(super) fn descriptor(media_type: &str, digest: &Digest) -> Value {
    json!({ "mediaType": media_type, "digest": digest.to_string(), "size": 1 })
}

pub(super) fn image(config: &Digest, layers: &[&Digest]) -> Value {
    let layers: Vec<Value> =
        layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)).collect();
    json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config) })
}

pub(super) fn index(children: &[&Digest]) -> Value {
    let children: Vec<Value> = children.iter().map(|child| descriptor(OCI_MANIFEST, child)).collect();
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children })
}

/// A header that nobody meant to send fails whichever test meets it first.
fn known_headers_only(response: &Response) {
    const KNOWN: &[&str] = &[
        "accept-ranges",
        "allow",
        "cache-control",
        "content-length",
        "content-range",
        "content-type",
        "docker-content-digest",
        "docker-distribution-api-version",
        "docker-upload-uuid",
        "etag",
        "gitlab-container-registry-database-enabled",
        "gitlab-container-registry-features",
        "gitlab-container-registry-version",
        "link",
        "location",
        "oci-filters-applied",
        "oci-subject",
        "oci-tag",
        "range",
        "retry-after",
        "vary",
    ];
    for name in response.headers.keys() {
        assert!(KNOWN.contains(&name.as_str()), "unexpected header {name}");
    }
    assert_eq!(response.header("docker-distribution-api-version"), "registry/2.0");
}

#[test]
fn an_answer_can_be_made_on_any_thread_for_any_exchange() {
    fn is_send<T: Send>(_: T) {}
    #[allow(dead_code, reason = "that it compiles is what is claimed")]
    fn of_any<E: Exchange>(registry: &Registry, endpoint: Endpoint, grant: &Grant, exchange: &mut E) {
        is_send(registry.answer(endpoint, grant, exchange));
    }
}

#[tokio::test]
async fn the_version_says_that_this_is_a_registry() {
    let fixture = Fixture::new();
    let answer = fixture.ask("GET /v2/").await.expect(200);
    assert_eq!((&answer.body[..], answer.header("content-type")), (&b"{}"[..], "application/json"));
    assert_eq!(fixture.ask("HEAD /v2/").await.expect(200).header("content-length"), "2");
    assert_eq!(fixture.ask("GET /v2").await.expect(301).header("location"), "/v2/");
}

#[tokio::test]
async fn options_and_unknown_methods_say_what_is_allowed() {
    let fixture = Fixture::new();
    let options = fixture.ask("OPTIONS /v2/a/manifests/tag").await.expect(200);
    assert_eq!(options.header("allow"), "DELETE, GET, HEAD, PUT");
    let refused = fixture.ask("POST /v2/a/manifests/tag").await.expect(405);
    assert_eq!((&refused.body[..], refused.header("allow")), (&b"Method not allowed\n"[..], "DELETE, GET, HEAD, PUT"));
    let unknown = fixture.ask("GET /v2/a/elsewhere").await.expect(404);
    assert_eq!(&unknown.body[..], b"404 page not found\n");
    assert_eq!(unknown.header("content-type"), "text/plain; charset=utf-8");
}

#[tokio::test]
async fn the_notes_say_what_a_request_was_about() {
    let fixture = Fixture::new();
    let digest = fixture.push_image("g/p", "v1", "x").await;
    let notes = fixture.ask("GET /v2/g/p/manifests/v1").await.expect(200).notes;
    assert_eq!(notes.repository.as_deref(), Some("g/p"));
    assert_eq!(notes.reference.as_deref(), Some("v1"));
    assert_eq!(notes.digest, Some(digest.to_string()));
    assert_eq!(notes.failure, None);
    let notes = fixture.ask("GET /v2/g/p/manifests/none").await.expect(404).notes;
    assert_eq!((notes.digest, notes.failure.as_deref()), (None, Some("manifest unknown")));
}

#[tokio::test]
async fn repositories_are_listed_for_other_rooms() {
    let fixture = Fixture::new();
    fixture.push_image("g/p", "v1", "x").await;
    let listed: Vec<RepositoryName> = fixture.registry.repositories(None, 10).await.unwrap();
    assert_eq!(listed, ["g/p".parse().unwrap()]);
    assert!(fixture.registry.repositories(Some("g/p"), 10).await.unwrap().is_empty());
}
