//! What do the steps cost that every request takes? `cargo bench --bench micro`.
//!
//! Parsing and routing of a request, verifying its token, reading a manifest, hashing, and the registry's part of a read.
//! No sockets: how fast the whole is, `benches/side-by-side` tells.

#![allow(clippy::unwrap_used, reason = "what fails here is the benchmark's own setup")]

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use http::{Method, Request, StatusCode, request};
use jsonwebtoken::{EncodingKey, Header};
use pierhead::auth::{self, Authority, Demand, Grant, Guard, Guardian, Password, Realm, Trust};
use pierhead::exchange::memory::Recorded;
use pierhead::exchange::{Caller, Exchange as _, Origin, RequestId, send};
use pierhead::metadata::{Account, Database};
use pierhead::oci::{self, Digest, Endpoint, Hasher, Manifest, MediaType, scope};
use pierhead::registry::{self, Index, Registry};
use pierhead::storage::{Filesystem, Measured};
use pierhead::telemetry::Metrics;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc; // as the binary has it

const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn main() {
    divan::main();
}

/// From method and path to the endpoint, and to what a caller must be allowed for it.
#[divan::bench(args = [
    ("GET", "/v2/"),
    ("GET", "/v2/team/app/manifests/latest"),
    ("HEAD", "/v2/team/app/manifests/sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
    ("GET", "/v2/team/app/blobs/sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
    ("GET", "/v2/team/app/tags/list"),
    ("PATCH", "/v2/team/app/blobs/uploads/6a2f41a3-c54c-fce8-32d2-0324e1c32e22"),
])]
fn routing(bencher: Bencher<'_, '_>, (method, path): (&str, &str)) {
    let method: Method = method.parse().unwrap();
    bencher.bench(|| {
        let endpoint = Endpoint::parse(&method, black_box(path), None).unwrap();
        Demand::of(&endpoint)
    });
}

#[divan::bench]
fn parsing_a_digest() -> Digest {
    black_box(DIGEST).parse().unwrap()
}

#[divan::bench]
fn parsing_a_scope() -> Vec<oci::Access> {
    scope::parse_all([black_box("repository:team/app:pull,push")])
}

/// A manifest of so many layers, as it comes in.
#[divan::bench(args = [1, 8, 100])]
fn parsing_a_manifest(bencher: Bencher<'_, '_>, layers: usize) {
    let document = manifest(layers);
    bencher
        .counter(BytesCount::of_slice(&document))
        .bench(|| Manifest::parse(black_box(&document).clone(), Some(OCI_MANIFEST)).unwrap());
}

/// The type that a stored manifest goes out under.
#[divan::bench(args = [1, 8, 100])]
fn telling_the_type_of_a_manifest(bencher: Bencher<'_, '_>, layers: usize) {
    let document = manifest(layers);
    bencher.bench(|| -> Option<MediaType> { Manifest::served_as(black_box(&document)) });
}

#[divan::bench(args = [2 << 10, 32 << 10, 1 << 20])]
fn hashing(bencher: Bencher<'_, '_>, length: usize) {
    let bytes = vec![7; length];
    bencher.counter(BytesCount::new(length)).bench(|| {
        let mut hasher = Hasher::new(oci::Algorithm::Sha256);
        hasher.update(black_box(&bytes));
        hasher.finish()
    });
}

/// A token of our own, on its second use and every later one: it is remembered.
#[divan::bench]
fn a_remembered_token_of_ours(bencher: Bencher<'_, '_>) {
    Desk::open(|_| Guard::Own).bench_remembered(bencher);
}

/// The same of a service that we trust by its certificate.
#[divan::bench]
fn a_remembered_trusted_token(bencher: Bencher<'_, '_>) {
    Desk::open(trust).bench_remembered(bencher);
}

/// A token of our own, on its first use.
#[divan::bench]
fn verifying_our_token(bencher: Bencher<'_, '_>) {
    Desk::open(|_| Guard::Own).bench_new(bencher);
}

/// The same of a service that we trust by its certificate.
#[divan::bench]
fn verifying_a_trusted_token(bencher: Bencher<'_, '_>) {
    Desk::open(trust).bench_new(bencher);
}

/// A token for somebody who logged in before.
#[divan::bench]
fn giving_out_a_token(bencher: Bencher<'_, '_>) {
    let desk = Desk::open(|_| Guard::Own);
    let account = Account {
        name: "alice".parse().unwrap(),
        password: "correct horse".parse::<Password>().unwrap().hash().unwrap(),
        is_admin: true,
        created_at: jiff::Timestamp::UNIX_EPOCH,
    };
    desk.runtime.block_on(desk.database.add_account(&account)).unwrap();
    let login = format!("Basic {}", STANDARD.encode("alice:correct horse"));
    let ask = || {
        let path = "/jwt/auth?service=container_registry&scope=repository:team/app:pull,push";
        let request = Request::get(path).header("authorization", &login).body(Bytes::new()).unwrap();
        desk.runtime.block_on(desk.authority.token(&mut Recorded::new(request)))
    };
    assert_eq!([ask().status, ask().status], [StatusCode::OK; 2]);
    bencher.bench_local(ask);
}

/// The guard that believes the tokens of this certificate.
fn trust(certificate: &Path) -> Guard {
    Guard::Token(Trust {
        realm: Realm::Url("https://tokens.example.com/auth".to_owned()),
        service: "container_registry".to_owned(),
        issuer: "pierhead".to_owned(),
        bundle: Some(certificate.to_owned()),
        key_set: None,
        algorithms: Vec::new(),
    })
}

fn manifest(layers: usize) -> Bytes {
    let part = |kind: &str| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": DIGEST, "size": 4096 });
    let document = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": part("config.v1+json"),
        "layers": vec![part("layer.v1.tar+gzip"); layers],
    });
    document.to_string().into()
}

const PATH: &str = "/v2/team/app/manifests/latest";

/// A guardian, and how to make requests that it lets in.
struct Desk {
    runtime: tokio::runtime::Runtime,
    database: Database,
    authority: Arc<Authority>,
    guardian: Guardian,
    caller: Caller,
    demand: Demand,
    tokens: Tokens,
    _folder: tempfile::TempDir,
}

impl Desk {
    /// `guard` gets the path of the certificate that tokens are signed with.
    fn open(guard: impl FnOnce(&Path) -> Guard) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (key, certificate) = (folder.path().join("token.key"), folder.path().join("token.crt"));
        let config = auth::Config {
            path: "/jwt/auth".to_owned(),
            service: "container_registry".to_owned(),
            issuer: "pierhead".to_owned(),
            duration: Duration::from_secs(300),
            algorithm: auth::Algorithm::Es256,
            key: key.clone(),
            certificate: certificate.clone(),
            limits: auth::Limits { failed_logins: NonZeroU32::MIN, anonymous: None },
            members_may_create_projects: false,
            guard: guard(&certificate),
            finish_uploads: Duration::ZERO,
        };
        let database = runtime.block_on(Database::open(&folder.path().join("pierhead.db"))).unwrap();
        let authority = Arc::new(Authority::open(config.clone(), database.clone()).unwrap());
        let guardian = Guardian::open(&config, Some(authority.clone())).unwrap();
        let tokens = Tokens::signed_with(&std::fs::read(key).unwrap(), &certificate);
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let origin = Origin::new(true, "registry.example.com").unwrap();
        let caller = Caller { address, network: Some(address), origin, request_id: RequestId::random() };
        let demand = Demand::of(&Endpoint::parse(&Method::GET, PATH, None).unwrap());
        Self { runtime, database, authority, guardian, caller, demand, tokens, _folder: folder }
    }

    fn bench_remembered(&self, bencher: Bencher<'_, '_>) {
        let head = self.tokens.request();
        self.authorize(&head);
        bencher.bench_local(|| self.authorize(black_box(&head)));
    }

    fn bench_new(&self, bencher: Bencher<'_, '_>) {
        bencher.with_inputs(|| self.tokens.request()).bench_local_refs(|head| self.authorize(head));
    }

    fn authorize(&self, head: &request::Parts) -> Arc<auth::Grant> {
        let granted = self.guardian.authorize(head, &self.caller, &self.demand);
        self.runtime.block_on(granted).ok().unwrap()
    }
}

/// Makes tokens as our token endpoint does, each another one.
struct Tokens {
    key: EncodingKey,
    header: Header,
    made: Cell<u64>,
}

impl Tokens {
    fn signed_with(key: &[u8], certificate: &Path) -> Self {
        let certificate = CertificateDer::from_pem_file(certificate).unwrap();
        let header =
            Header { x5c: Some(vec![STANDARD.encode(certificate)]), ..Header::new(jsonwebtoken::Algorithm::ES256) };
        Self { key: EncodingKey::from_ec_pem(key).unwrap(), header, made: Cell::new(0) }
    }

    /// A request with a token that was not shown before.
    fn request(&self) -> request::Parts {
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({
            "iss": "pierhead",
            "aud": "container_registry",
            "sub": "alice",
            "access": [{ "type": "repository", "name": "team/app", "actions": ["pull", "push"] }],
            "iat": now,
            "nbf": now - 5,
            "exp": now + 3600,
            "jti": self.made.replace(self.made.get() + 1),
        });
        let token = jsonwebtoken::encode(&self.header, &claims, &self.key).unwrap();
        let request = Request::get(PATH).header("authorization", format!("Bearer {token}")).body(()).unwrap();
        request.into_parts().0
    }
}

/// The registry alone, from an endpoint to the last byte of its answer: what is asked for again and again, in a tree that
/// the kernel has in its caches.
#[divan::bench(args = ["tags/list", "manifests/v007", "manifests/DIGEST", "blobs/DIGEST"])]
fn reading(bencher: Bencher<'_, '_>, what: &str) {
    let shelf = Shelf::new();
    let digest = if what.starts_with("blobs") { &shelf.blob } else { &shelf.manifest };
    let path = format!("/v2/team/app/{}", what.replace("DIGEST", &digest.to_string()));
    shelf.ask("GET", &path, Bytes::new());
    bencher.bench_local(|| shelf.ask("GET", &path, Bytes::new()));
}

/// A repository with a blob of 10 KiB and a hundred tags that name one manifest.
struct Shelf {
    runtime: tokio::runtime::Runtime,
    registry: Registry,
    blob: Digest,
    manifest: Digest,
    _folder: tempfile::TempDir,
}

impl Shelf {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = registry::Config::new(folder.path().to_owned());
        config.validation.disabled = true;
        let driver = Arc::new(Measured::new(Arc::new(Filesystem::new(folder.path())), Metrics::default()));
        let (blob, manifest) = (Bytes::from(vec![7; 10 << 10]), manifest(8));
        let digest_of = |bytes: &Bytes| Digest::of(oci::Algorithm::Sha256, bytes);
        let shelf = Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            registry: Registry::new(config, driver, Index::none()),
            blob: digest_of(&blob),
            manifest: digest_of(&manifest),
            _folder: folder,
        };
        shelf.ask("POST", &format!("/v2/team/app/blobs/uploads/?digest={}", shelf.blob), blob);
        for number in 0..100 {
            shelf.ask("PUT", &format!("/v2/team/app/manifests/v{number:03}"), manifest.clone());
        }
        // A page of tags is remembered once their folder was left alone for a while.
        std::thread::sleep(Duration::from_secs(4));
        shelf
    }

    fn ask(&self, method: &str, target: &str, body: Bytes) {
        let request = Request::builder().method(method).uri(target).header("content-type", OCI_MANIFEST).body(body);
        let mut exchange = Recorded::new(request.unwrap());
        let head = exchange.head();
        let endpoint = Endpoint::parse(&head.method, head.uri.path(), head.uri.query()).unwrap();
        self.runtime.block_on(async {
            let answer = self.registry.answer(endpoint, &Grant::default(), &mut exchange).await;
            assert!(answer.status.is_success(), "{target} {}", answer.status);
            send(&mut exchange, answer).await.unwrap();
        });
    }
}
