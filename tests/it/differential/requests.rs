//! The requests: every endpoint as it is meant, then with one thing changed. No randomness: the same list every time.

use reqwest::Method;
use serde_json::{Value, json};

use super::bodies::bodies;
use crate::support::content::digest;
use crate::support::image::{OCI_INDEX, OCI_MANIFEST};

/// Where requests write. What is listed is elsewhere, so that lists do not depend on the order of requests.
pub(super) const SCRATCH: &str = "team/scratch";
/// What the lists are asked about; `open` in `mod.rs` fills it.
pub(super) const LISTED: &str = "team/app";
/// A blob that `SCRATCH` has, for manifests; 2048 bytes, as many as the conformance program's ranges are made for.
pub(super) const LAYER: [u8; 2048] = [b'l'; 2048];
/// Another, for their configurations.
pub(super) const CONFIG: &[u8] = b"{}";

pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const UNKNOWN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// A token for everything that the requests are about.
    Owner,
    /// A token to pull.
    Reader,
    /// A token to pull and push.
    Writer,
    /// A token for another repository.
    Elsewhere,
    /// No token.
    Nobody,
    /// The owner's token with its signature spoilt.
    Forger,
    /// Name and password where a token is wanted.
    Basic,
    /// No token at all, but something in its place.
    Nonsense,
}

/// What is there before the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Nothing,
    /// The request's own blob.
    Blob,
    /// The request's own blob, in `LISTED` only.
    BlobElsewhere,
    /// The request's own manifest, under its own tag.
    Manifest,
    /// An upload with ten bytes, whose address replaces `{upload}`.
    Upload,
}

/// One request, the same for both.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// What differs from others, for people and for the list of differences: `GET blob | Range: bytes=0-1`.
    pub(super) class: String,
    /// The endpoint, by its name in the OCI specification.
    pub(super) row: &'static str,
    pub(super) given: Given,
    pub(super) method: Method,
    /// Path without query. `{upload}` stands for the address of the upload.
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    pub(super) who: Who,
    /// The manifest that is there before, when one is.
    pub(super) manifest: (&'static str, Vec<u8>),
    /// The blob that is there before, or that the request brings.
    pub(super) blob: Vec<u8>,
    /// A tag that no other request has.
    pub(super) tag: String,
}

/// All of them.
pub(super) fn all() -> Vec<Request> {
    let mut list = List::default();
    for base in BASES {
        list.add(base, "as it is", |_| {});
        callers(&mut list, base);
        harmless(&mut list, base);
        names(&mut list, base);
        references(&mut list, base);
        headers(&mut list, base);
        queries(&mut list, base);
        bodies(&mut list, base);
    }
    particulars(&mut list);
    methods(&mut list);
    list.requests
}

/// An endpoint as it is meant.
#[derive(Clone, Copy)]
pub(super) struct Base {
    row: &'static str,
    pub(super) name: &'static str,
    pub(super) method: &'static str,
    given: Given,
}

const fn base(row: &'static str, method: &'static str, name: &'static str, given: Given) -> Base {
    Base { row, name, method, given }
}

const BASES: &[Base] = &[
    base("end-1", "GET", "version", Given::Nothing),
    base("end-1", "HEAD", "version", Given::Nothing),
    base("end-2", "GET", "blob", Given::Blob),
    base("end-2", "HEAD", "blob", Given::Blob),
    base("end-3", "GET", "manifest by tag", Given::Manifest),
    base("end-3", "HEAD", "manifest by tag", Given::Manifest),
    base("end-3", "GET", "manifest by digest", Given::Manifest),
    base("end-3", "HEAD", "manifest by digest", Given::Manifest),
    base("end-4a", "POST", "uploads", Given::Nothing),
    base("end-4b", "POST", "uploads with digest", Given::Nothing),
    base("end-4c", "POST", "uploads with digest-algorithm", Given::Nothing),
    base("end-5", "PATCH", "upload", Given::Upload),
    base("end-6", "PUT", "upload", Given::Upload),
    base("end-7a", "PUT", "manifest by tag", Given::Nothing),
    base("end-7a", "PUT", "manifest by digest", Given::Nothing),
    base("end-7b", "PUT", "manifest with tags", Given::Nothing),
    base("end-8", "GET", "tags", Given::Nothing),
    base("end-8", "HEAD", "tags", Given::Nothing),
    base("end-9", "DELETE", "manifest by tag", Given::Manifest),
    base("end-9", "DELETE", "manifest by digest", Given::Manifest),
    base("end-10", "DELETE", "blob", Given::Blob),
    base("end-11", "POST", "uploads with mount", Given::BlobElsewhere),
    base("end-12", "GET", "referrers", Given::Manifest),
    base("end-13", "GET", "upload", Given::Upload),
    base("end-13", "HEAD", "upload", Given::Upload),
    base("end-14", "DELETE", "upload", Given::Upload),
    base("catalog", "GET", "catalog", Given::Nothing),
    base("catalog", "HEAD", "catalog", Given::Nothing),
];

impl Base {
    fn is(&self, method: &str, name: &str) -> bool {
        self.method == method && self.name == name
    }

    fn reads(&self) -> bool {
        matches!(self.method, "GET" | "HEAD")
    }

    /// The repository that the path names, if it does.
    fn repository(&self) -> Option<&'static str> {
        match self.name {
            "version" | "catalog" => None,
            "tags" => Some(LISTED),
            _ => Some(SCRATCH),
        }
    }

    /// The request, the `number`th of all.
    fn request(&self, number: usize) -> Request {
        let blob = format!("blob {number:04}").into_bytes();
        let tag = format!("case-{number}");
        let manifest = image(OCI_MANIFEST, &format!("{number}"));
        let (digest_of_blob, digest_of_manifest) = (digest(&blob), digest(&manifest));
        let (path, query) = match self.name {
            "version" => ("/v2/".to_owned(), String::new()),
            "catalog" => ("/v2/_catalog".to_owned(), String::new()),
            "tags" => (format!("/v2/{LISTED}/tags/list"), String::new()),
            "blob" => (format!("/v2/{SCRATCH}/blobs/{digest_of_blob}"), String::new()),
            "manifest by tag" => (format!("/v2/{SCRATCH}/manifests/{tag}"), String::new()),
            "manifest by digest" => (format!("/v2/{SCRATCH}/manifests/{digest_of_manifest}"), String::new()),
            "manifest with tags" => {
                (format!("/v2/{SCRATCH}/manifests/{digest_of_manifest}"), format!("tag={tag}-a&tag={tag}-b"))
            }
            "referrers" => (format!("/v2/{SCRATCH}/referrers/{digest_of_manifest}"), String::new()),
            "upload" if self.method == "PUT" => ("{upload}".to_owned(), format!("digest={}", whole(&blob))),
            "upload" => ("{upload}".to_owned(), String::new()),
            "uploads" => (format!("/v2/{SCRATCH}/blobs/uploads/"), String::new()),
            "uploads with digest" => (format!("/v2/{SCRATCH}/blobs/uploads/"), format!("digest={digest_of_blob}")),
            "uploads with digest-algorithm" => {
                (format!("/v2/{SCRATCH}/blobs/uploads/"), "digest-algorithm=sha256".to_owned())
            }
            "uploads with mount" => {
                (format!("/v2/{SCRATCH}/blobs/uploads/"), format!("mount={digest_of_blob}&from={LISTED}"))
            }
            other => panic!("{other} is no endpoint"),
        };
        let (headers, body) = match (self.method, self.name) {
            ("GET" | "HEAD", "manifest by tag" | "manifest by digest") => {
                (vec![("accept", OCI_MANIFEST.to_owned())], Vec::new())
            }
            ("PUT", "upload") | ("POST", "uploads with digest") => {
                (vec![("content-type", "application/octet-stream".to_owned())], blob.clone())
            }
            ("PATCH", _) => (vec![("content-type", "application/octet-stream".to_owned())], blob.clone()),
            ("PUT", _) => (vec![("content-type", OCI_MANIFEST.to_owned())], manifest.clone()),
            _ => (Vec::new(), Vec::new()),
        };
        Request {
            class: format!("{} {}", self.method, self.name),
            row: self.row,
            given: self.given,
            method: self.method.parse().expect("a method"),
            path,
            query,
            headers,
            body,
            who: Who::Owner,
            manifest: (OCI_MANIFEST, manifest),
            blob,
            tag,
        }
    }
}

/// What an upload holds before the request.
pub(super) const BEGINNING: &[u8] = b"0123456789";

/// The digest of what an upload holds after the request.
fn whole(blob: &[u8]) -> String {
    digest(&[BEGINNING, blob].concat())
}

/// A manifest of the blobs that are there; `note` makes it different from all others.
pub(super) fn image(media_type: &str, note: &str) -> Vec<u8> {
    image_with(media_type, note, |_| {})
}

pub(super) fn image_with(media_type: &str, note: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let docker = media_type == DOCKER_MANIFEST;
    let (config, layer) = if docker {
        ("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip")
    } else {
        ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar")
    };
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": { "mediaType": config, "digest": digest(CONFIG), "size": CONFIG.len() },
        "layers": [{ "mediaType": layer, "digest": digest(&LAYER), "size": LAYER.len() }],
        "annotations": { "number": note },
    });
    change(&mut manifest);
    manifest.to_string().into_bytes()
}

pub(super) fn index(media_type: &str, child: &str, size: usize, note: &str) -> Vec<u8> {
    let platform = json!({ "architecture": "amd64", "os": "linux" });
    let child = json!({ "mediaType": OCI_MANIFEST, "digest": child, "size": size, "platform": platform });
    json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": [child], "annotations": { "number": note } })
        .to_string()
        .into_bytes()
}

#[derive(Default)]
pub(super) struct List {
    requests: Vec<Request>,
}

impl List {
    /// Adds an endpoint with one thing changed.
    pub(super) fn add(&mut self, base: &Base, what: &str, change: impl FnOnce(&mut Request)) {
        let mut request = base.request(self.requests.len());
        request.class = format!("{} | {what}", request.class);
        change(&mut request);
        self.requests.push(request);
    }
}

fn callers(list: &mut List, base: &Base) {
    use Who::{Basic, Elsewhere, Forger, Nobody, Nonsense, Reader, Writer};
    for who in [Reader, Writer, Elsewhere, Nobody, Forger, Basic, Nonsense] {
        list.add(base, &format!("by {who:?}"), |request| request.who = who);
    }
}

/// What proxies and clients add and no registry should mind: headers, or a query.
const HARMLESS: &[(&str, &str)] = &[
    ("accept-encoding", "gzip"),
    ("user-agent", "docker/20.10"),
    ("docker-distribution-api-version", "registry/2.0"),
    ("oci-namespace", "example.com"),
    ("cache-control", "no-cache"),
    ("x-http-method-override", "DELETE"),
    ("?", "ns=example.com"),
    ("?", "origin=example.com"),
    ("?", "unknown"),
    ("?", "&&="),
];

fn harmless(list: &mut List, base: &Base) {
    for (name, value) in HARMLESS {
        list.add(base, &format!("{name} {value}"), |request| with(request, name, value));
    }
}

fn with(request: &mut Request, name: &'static str, value: &str) {
    if name == "?" {
        and(&mut request.query, value);
    } else {
        request.headers.push((name, value.to_owned()));
    }
}

/// What must fail, or be noticed, whatever else is said.
fn particulars(list: &mut List) {
    let wrong_length = |request: &mut Request| request.headers.push(("content-range", "10-17".to_owned()));
    let content_range = |request: &mut Request| request.headers.push(("content-range", "0-8".to_owned()));
    let unknown = |key: &'static str| {
        move |request: &mut Request| {
            request.body = image_with(OCI_MANIFEST, key, |manifest| {
                let part = if key == "config" { &mut manifest["config"] } else { &mut manifest["layers"][0] };
                part["digest"] = UNKNOWN.into();
            });
        }
    };
    let with_subject = |request: &mut Request| {
        let before = digest(&request.body);
        request.body = image_with(OCI_MANIFEST, &request.tag, |manifest| {
            manifest["subject"] = json!({ "mediaType": OCI_MANIFEST, "digest": UNKNOWN, "size": 1 });
        });
        request.path = request.path.replace(&before, &digest(&request.body));
    };
    type Spoil<'a> = &'a dyn Fn(&mut Request);
    let table: &[(&str, &str, &str, Spoil<'_>)] = &[
        ("GET", "blob", "no such blob", &|request| last(request, UNKNOWN)),
        ("DELETE", "blob", "no such blob", &|request| last(request, UNKNOWN)),
        ("PATCH", "upload", "a bad state", &|request| request.query = "_state=nonsense".to_owned()),
        ("GET", "upload", "a bad state", &|request| request.query = "_state=nonsense".to_owned()),
        ("PATCH", "upload", "no such upload", &no_upload),
        ("DELETE", "upload", "no such upload", &no_upload),
        ("PUT", "manifest by tag", "no such layer", &unknown("layer")),
        ("PUT", "manifest by tag", "no such configuration", &unknown("config")),
        ("GET", "tags", "no such repository", &|request| request.path = "/v2/team/none/tags/list".to_owned()),
        ("GET", "tags", "a page of no such repository", &|request| {
            request.path = "/v2/team/none/tags/list".to_owned();
            request.query = "n=2".to_owned();
        }),
        ("GET", "tags", "no number", &|request| request.query = "n=x".to_owned()),
        ("PUT", "manifest by tag", "no tag", &|request| last(request, ".tag")),
        ("PATCH", "upload", "a wrong range", &content_range),
        ("PATCH", "upload", "a wrong length", &wrong_length),
        ("PUT", "upload", "a wrong length", &wrong_length),
        ("PUT", "manifest by tag", "a subject", &with_subject),
        ("PUT", "manifest by digest", "a subject", &with_subject),
        ("GET", "referrers", "a filter", &|request| request.query = "artifactType=a/b".to_owned()),
        ("GET", "referrers", "two filters", &|request| request.query = "artifactType=a&artifactType=b".to_owned()),
        ("PUT", "manifest with tags", "one tag", &|request| request.query = format!("tag={}", request.tag)),
    ];
    for (method, place, what, spoil) in table {
        let base = BASES.iter().find(|base| base.is(method, place)).expect("the table holds it");
        for (name, value) in HARMLESS {
            list.add(base, &format!("{what}, {name} {value}"), |request| {
                spoil(request);
                with(request, name, value);
            });
        }
    }
}

fn no_upload(request: &mut Request) {
    request.path = format!("/v2/{SCRATCH}/blobs/uploads/0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10");
}

/// Puts something else in the place of a digest or a tag.
fn last(request: &mut Request, text: &str) {
    let at = request.path.rfind('/').expect("paths have slashes");
    request.path.replace_range(at + 1.., text);
}

fn and(query: &mut String, more: &str) {
    if !query.is_empty() && !more.is_empty() {
        query.push('&');
    }
    query.push_str(more);
}

fn names(list: &mut List, base: &Base) {
    let Some(repository) = base.repository().filter(|_| base.given != Given::Upload) else { return };
    let long = "n".repeat(256);
    for (what, name) in [
        ("name in capitals", "TEAM/APP"),
        ("name with an empty part", "team//app"),
        ("name that ends in a hyphen", "team/app-"),
        ("name with an underscore first", "_team/app"),
        ("name with an escaped letter", "team/%73cratch"),
        ("name with an escaped slash", "team%2Fscratch"),
        ("name of 256 characters", long.as_str()),
    ] {
        list.add(base, what, |request| request.path = request.path.replacen(repository, name, 1));
    }
    if base.reads() || base.method == "DELETE" {
        list.add(base, "unknown name", |request| request.path = request.path.replacen(repository, "team/none", 1));
    }
}

fn references(list: &mut List, base: &Base) {
    let upper = UNKNOWN.replace("000", "ABC");
    let sha512 = format!("sha512:{}", "0".repeat(128));
    let digests = [
        ("unknown digest", UNKNOWN),
        ("unknown sha512", sha512.as_str()),
        ("digest in capitals", upper.as_str()),
        ("short digest", "sha256:abc"),
        ("digest without algorithm", ":abc"),
        ("digest of an unknown algorithm", "md5:d41d8cd98f00b204e9800998ecf8427e"),
        ("digest that is none", "sha256:baddigeststring"),
    ];
    let long = "t".repeat(129);
    let tags = [
        ("unknown tag", "none"),
        ("tag with a dot first", ".tag"),
        ("tag with a plus", "1.0+build"),
        ("tag of 129 characters", long.as_str()),
        ("tag with an escaped dot", "1%2E0"),
    ];
    match base.name {
        "manifest by tag" if base.method != "HEAD" => {
            // A push to an unknown tag is an ordinary push.
            for (what, text) in tags.into_iter().skip(usize::from(base.method == "PUT")) {
                list.add(base, what, |request| last(request, text));
            }
        }
        "manifest by digest" | "blob" | "referrers" => {
            for (what, text) in digests {
                list.add(base, what, |request| last(request, text));
            }
            list.add(base, "escaped colon", |request| request.path = request.path.replacen("sha256:", "sha256%3A", 1));
        }
        "upload" => {
            list.add(base, "upload that never was", no_upload);
            list.add(base, "upload that is no UUID", |request| {
                request.path = format!("/v2/{SCRATCH}/blobs/uploads/nonsense");
            });
        }
        _ => {}
    }
}

fn headers(list: &mut List, base: &Base) {
    let mut each = |name: &'static str, values: &[&str]| {
        for value in values {
            list.add(base, &format!("{name}: {value}"), |request| {
                request.headers.retain(|(other, _)| *other != name);
                if !value.is_empty() {
                    let value = value.replace("{blob}", &digest(&request.blob));
                    let value = value.replace("{manifest}", &digest(&request.manifest.1));
                    request.headers.push((name, value));
                }
            });
        }
    };
    match base.name {
        "blob" if base.reads() => {
            each("range", &["bytes=0-3", "bytes=4-", "bytes=-4", "bytes=0-0", "bytes=5-5000", "bytes=3-0"]);
            each("range", &["bytes=5000-10000", "bytes=0-1,3-4", "bytes=x", "items=0-1", "bytes=-0", "bytes=0-"]);
            each("if-none-match", &["{blob}", "\"{blob}\"", "W/\"{blob}\"", "*", "\"other\"", "\"a\", \"{blob}\""]);
        }
        "manifest by tag" | "manifest by digest" if base.reads() => {
            each("accept", &["", "*/*", DOCKER_MANIFEST, OCI_INDEX, "application/json", "text/html, */*;q=0.1"]);
            each("accept", &["application/vnd.oci.image.manifest.v1+json;q=0.5, application/json"]);
            each("if-none-match", &["{manifest}", "\"{manifest}\"", "W/\"{manifest}\"", "*", "\"other\""]);
        }
        "manifest by tag" | "manifest by digest" if base.method == "PUT" => {
            each("content-type", &["", "application/json", "text/plain", DOCKER_MANIFEST, OCI_INDEX]);
            each("content-type", &["application/vnd.oci.image.manifest.v1+json; charset=utf-8"]);
        }
        "upload" if base.method == "PATCH" || base.method == "PUT" => {
            each("content-type", &["", "application/json", "text/plain"]);
            each("content-range", &["10-18", "0-8", "11-19", "10-17", "10-100", "18-10", "nonsense"]);
            each("content-range", &["bytes 10-18/19", "bytes 10-18/*", "10-", "-18"]);
        }
        "uploads" => each("content-type", &["application/json", "application/octet-stream"]),
        _ => {}
    }
}

fn queries(list: &mut List, base: &Base) {
    let mut each = |queries: &[&str]| {
        for query in queries {
            list.add(base, &format!("?{query}"), |request| {
                let fill = |text: &str, key: &str, value: String| text.replace(key, &value);
                let query = fill(query, "{blob}", digest(&request.blob));
                let query = fill(&query, "{whole}", whole(&request.blob));
                let query = fill(&query, "{manifest}", digest(&request.manifest.1));
                let query = fill(&query, "{layer}", digest(&LAYER));
                request.query = fill(&query, "{tag}", request.tag.clone());
            });
        }
    };
    match base.name {
        "tags" | "catalog" => {
            each(&["n=1", "n=2", "n=3", "n=100", "n=1000", "n=1001", "n=10000", "n=0", "n=-1", "n=x", "n=", "n=1.5"]);
            each(&["last=b", "last=zzz", "last=", "n=1&last=a", "n=2&last=b", "n=1&last=none", "n=2&last=team/app"]);
            each(&["n=1&last=team/app-x", "n=99999999999999999999", "n=1&n=2"]);
        }
        "upload" if base.method == "PUT" => {
            each(&["", "digest=", "digest=nonsense", "digest=sha256:abc", "digest={blob}", "digest={layer}"]);
            each(&["digest=md5:d41d8cd98f00b204e9800998ecf8427e", "digest={whole}&digest={blob}"]);
            each(&["digest={whole}&_state=nonsense", "Digest={whole}"]);
        }
        "uploads with digest" => {
            each(&["digest=", "digest=nonsense", "digest=sha256:abc", "digest={layer}"]);
            each(&["digest=md5:d41d8cd98f00b204e9800998ecf8427e"]);
        }
        "uploads with digest-algorithm" => {
            each(&["digest-algorithm=sha512", "digest-algorithm=md5", "digest-algorithm=", "digest-algorithm=SHA256"]);
        }
        "uploads with mount" => {
            each(&["mount={blob}", "mount={blob}&from=", "mount={blob}&from=team/none", "mount={blob}&from=BAD"]);
            each(&["mount=nonsense&from=team/app", "mount=&from=team/app", "mount={manifest}&from=team/app"]);
            each(&["mount={blob}&from=team/app&origin=example.com", "mount={blob}&from=team/secret", "from=team/app"]);
            each(&["mount={layer}&from=team/none", "mount={blob}&from=team%2Fapp", "mount={blob}&mount={layer}"]);
        }
        "manifest with tags" => {
            each(&["tag=", "tag={tag}", "tag=.bad", "tag={tag}&tag={tag}", "tag={tag}&tag=.bad"]);
        }
        "referrers" => {
            each(&["artifactType=a/b", "artifactType=", "artifactType=a%2Fb&artifactType=c", "n=1", "n=x", "last=x"]);
        }
        _ => {}
    }
}

/// Every path with every method that it does not have, and with OPTIONS.
fn methods(list: &mut List) {
    let places = ["version", "blob", "manifest by tag", "manifest by digest", "uploads", "upload", "tags", "catalog"];
    for place in places.into_iter().chain(["referrers"]) {
        let of = |method: &str| BASES.iter().find(|base| base.is(method, place));
        let first = BASES.iter().find(|base| base.name == place).expect("every place is somewhere in the table");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "LINK"] {
            if of(method).is_some() {
                continue;
            }
            for who in [Who::Owner, Who::Nobody] {
                list.add(first, "", |request| {
                    request.class = format!("{method} {place} | method, by {who:?}");
                    request.method = method.parse().expect("a method");
                    request.headers.clear();
                    request.body.clear();
                    request.who = who;
                });
            }
        }
    }
    for path in ["/", "/v2", "/v1/", "/v1/_ping", "/v2/team", "/v2/team/app", "/v2/team/app/", "/v2/team/app/blobs/"] {
        for who in [Who::Owner, Who::Nobody] {
            list.add(&BASES[0], "", |request| {
                request.class = format!("GET {path} | by {who:?}");
                request.path = path.to_owned();
                request.who = who;
            });
        }
    }
}
