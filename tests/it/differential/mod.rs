//! Promise: whoever replaces Debian's docker-registry 2.8.2 by us meets no difference on the wire that we do not know and
//! have no reason for.
//!
//! The same requests ([`requests`]) go to both, on equal content and under one token authority. What an answer says is
//! reduced to what both could agree on ([`exchange`]). Every difference must match a line of
//! `tests/data/differences.tsv`, and every line there must match a difference.

mod bodies;
mod exchange;
mod requests;

use std::collections::BTreeMap;
use std::fs;

use reqwest::Method;
use reqwest::blocking::Client;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use serde_json::Value;

use self::exchange::Outcome;
use self::requests::{BEGINNING, CONFIG, Given, LAYER, LISTED, Request, SCRATCH, Who};
use crate::support::content::digest;
use crate::support::distribution::Distribution;
use crate::support::image::OCI_MANIFEST;
use crate::support::pierhead::{ADMIN_PASSWORD, Site};

const DIFFERENCES: &str = include_str!("../../data/differences.tsv");

#[test]
fn every_difference_to_distribution_is_known_and_has_a_reason() {
    let site = Site::new();
    let _server = site.start();
    for path in [LISTED, SCRATCH, "team/app-x", "team/app/nested", "team/secret"] {
        site.add_project(path, "private");
    }
    let root = site.directory().join("their-tree");
    fs::create_dir(&root).expect("the site can be written");
    let peer = Distribution::guarded_by(&site, site.directory(), &root, "container_registry");
    let callers = Callers::of(&site);
    let theirs = Party { callers: &callers, http: client(None), origin: peer.origin() };
    let authority = site.certificate_authority();
    let ours = Party { callers: &callers, http: client(Some(&authority)), origin: site.origin() };
    theirs.fill();
    ours.fill();

    let mut known = Known::read(DIFFERENCES);
    let mut covered = Coverage::default();
    for request in requests::all() {
        let (theirs, ours) = (theirs.ask(&request), ours.ask(&request));
        covered.note(&request, &theirs, &ours);
        for (field, theirs, ours) in theirs.differences(&ours) {
            known.check(&request.class, &field, &theirs, &ours);
        }
    }
    known.finish();
    covered.check();
}

fn client(authority: Option<&str>) -> Client {
    let builder = Client::builder().http1_only().no_proxy().redirect(reqwest::redirect::Policy::none());
    let builder = match authority {
        Some(pem) => builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem.as_bytes()).expect("PEM")),
        None => builder,
    };
    builder.build().expect("a client can be made")
}

/// What each kind of caller sends as `Authorization`: the same to both.
struct Callers {
    owner: String,
    reader: String,
    writer: String,
    elsewhere: String,
}

impl Callers {
    fn of(site: &Site) -> Self {
        let registry = site.admin();
        let token = |scopes: &[String]| {
            // The first scope is quoted by the client; the others follow as they are.
            let answer: Value = registry.ask_token(&scopes.join("&scope=")).json().expect("tokens come in JSON");
            format!("Bearer {}", answer["token"].as_str().expect("with a token"))
        };
        let all = [LISTED, SCRATCH, "team/app-x", "team/app/nested", "team/none"];
        let every = |actions: &str| -> Vec<String> {
            let scopes = all.iter().map(|name| format!("repository:{name}:{actions}"));
            scopes.collect()
        };
        let mut owner = every("pull,push,delete");
        owner.push("registry:catalog:*".to_owned());
        Self {
            owner: token(&owner),
            reader: token(&every("pull")),
            writer: token(&every("pull,push")),
            elsewhere: token(&["repository:team/secret:pull,push,delete".to_owned()]),
        }
    }

    fn authorization(&self, who: Who) -> Option<String> {
        match who {
            Who::Owner => Some(self.owner.clone()),
            Who::Reader => Some(self.reader.clone()),
            Who::Writer => Some(self.writer.clone()),
            Who::Elsewhere => Some(self.elsewhere.clone()),
            Who::Nobody => None,
            Who::Forger => {
                let (signed, signature) = self.owner.rsplit_once('.').expect("tokens have three parts");
                Some(format!("{signed}.{}", signature.chars().rev().collect::<String>()))
            }
            Who::Basic => {
                use base64::Engine as _;
                let pair = format!("admin:{ADMIN_PASSWORD}");
                Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
            }
            Who::Nonsense => Some("Bearer nonsense".to_owned()),
        }
    }
}

/// One of the two.
struct Party<'a> {
    callers: &'a Callers,
    http: Client,
    origin: String,
}

impl Party<'_> {
    /// The content that all requests find. The order of pushes is not the order of names.
    fn fill(&self) {
        let manifest = requests::image(OCI_MANIFEST, "listed");
        for repository in [SCRATCH, "team/app/nested", "team/app-x", LISTED] {
            self.put_blob(repository, &LAYER);
            self.put_blob(repository, CONFIG);
            let tags: &[&str] = if repository == LISTED { &["c", "a", "v1.0", "b", "B"] } else { &["only"] };
            for tag in tags {
                self.put_manifest(repository, tag, OCI_MANIFEST, &manifest);
            }
        }
    }

    /// Makes what must be there before, then sends the request.
    fn ask(&self, request: &Request) -> Outcome {
        let mut path = request.path.clone();
        let mut query = request.query.clone();
        match request.given {
            Given::Nothing => {}
            Given::Blob => self.put_blob(SCRATCH, &request.blob),
            Given::BlobElsewhere => self.put_blob(LISTED, &request.blob),
            Given::Manifest => {
                self.put_manifest(SCRATCH, &request.tag, request.manifest.0, &request.manifest.1);
            }
            Given::Upload => {
                let location = self.begin_upload(BEGINNING);
                let (of_upload, state) = location.split_once('?').unwrap_or((&location, ""));
                path = path.replace("{upload}", of_upload);
                // A request may bring a state of its own.
                if request.path.contains("{upload}") && !query.contains("_state") && !state.is_empty() {
                    query = if query.is_empty() { state.to_owned() } else { format!("{state}&{query}") };
                }
            }
        }
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        let url = format!("{}{path}{query}", self.origin);
        let mut sent = self.http.request(request.method.clone(), url);
        for (name, value) in &request.headers {
            sent = sent.header(*name, value);
        }
        if let Some(authorization) = self.callers.authorization(request.who) {
            sent = sent.header("authorization", authorization);
        }
        let answer = sent.body(request.body.clone()).send();
        Outcome::of(answer.unwrap_or_else(|error| panic!("{}: {error:?}", request.class)))
    }

    fn request(&self, method: Method, target: &str) -> reqwest::blocking::RequestBuilder {
        let request = self.http.request(method, format!("{}{target}", self.origin));
        request.header("authorization", &self.callers.owner)
    }

    fn put_blob(&self, repository: &str, blob: &[u8]) {
        let answer = self.request(Method::POST, &format!("/v2/{repository}/blobs/uploads/")).send();
        let location = target(&answer.expect("an answer"));
        let separator = if location.contains('?') { '&' } else { '?' };
        let request = self.request(Method::PUT, &format!("{location}{separator}digest={}", digest(blob)));
        let answer = request.header(CONTENT_TYPE, "application/octet-stream").body(blob.to_vec()).send();
        assert_eq!(answer.expect("an answer").status(), 201, "a blob is taken");
    }

    fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, manifest: &[u8]) {
        let request = self.request(Method::PUT, &format!("/v2/{repository}/manifests/{tag}"));
        let answer = request.header(CONTENT_TYPE, media_type).body(manifest.to_vec()).send();
        assert_eq!(answer.expect("an answer").status(), 201, "a manifest is taken");
    }

    /// Begins an upload, sends something and returns path and query of its address.
    fn begin_upload(&self, bytes: &[u8]) -> String {
        let answer = self.request(Method::POST, &format!("/v2/{SCRATCH}/blobs/uploads/")).send();
        let request = self.request(Method::PATCH, &target(&answer.expect("an answer")));
        let answer = request.header(CONTENT_TYPE, "application/octet-stream").body(bytes.to_vec()).send();
        target(&answer.expect("an answer"))
    }
}

/// Path and query of a `Location`.
fn target(answer: &reqwest::blocking::Response) -> String {
    let location = answer.headers().get(LOCATION).unwrap_or_else(|| panic!("no Location: {answer:?}"));
    let location = location.to_str().expect("locations are text");
    let path = location.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    path.unwrap_or(location).to_owned()
}

/// The reviewed list, and what is wrong with it.
struct Known {
    lines: Vec<Line>,
    unknown: BTreeMap<(String, String, String), Vec<String>>,
}

/// A line of the list: classes of requests, a field, their answer, our answer, the reason. `*` stands for anything.
struct Line {
    text: &'static str,
    patterns: Vec<regex::Regex>,
    matched: bool,
}

impl Known {
    fn read(list: &'static str) -> Self {
        let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|text| {
            let columns: Vec<&str> = text.split('\t').collect();
            assert!(columns.len() == 5 && !columns[4].trim().is_empty(), "five columns, with a reason: {text}");
            let pattern = |glob: &&str| {
                let pattern = regex::escape(glob).replace("\\*", ".*");
                regex::Regex::new(&format!("^(?s:{pattern})$")).expect("an escaped pattern is one")
            };
            Line { text, patterns: columns[..4].iter().map(pattern).collect(), matched: false }
        });
        Self { lines: lines.collect(), unknown: BTreeMap::new() }
    }

    fn check(&mut self, class: &str, field: &str, theirs: &str, ours: &str) {
        let is = |line: &&mut Line| {
            line.patterns.iter().zip([class, field, theirs, ours]).all(|(pattern, text)| pattern.is_match(text))
        };
        match self.lines.iter_mut().find(is) {
            Some(line) => line.matched = true,
            None => {
                let difference = (field.to_owned(), theirs.to_owned(), ours.to_owned());
                self.unknown.entry(difference).or_default().push(class.to_owned());
            }
        }
    }

    fn finish(&self) {
        let mut wrong = Vec::new();
        for ((field, theirs, ours), classes) in &self.unknown {
            for class in classes {
                wrong.push(format!("unknown difference:\t{class}\t{field}\t{theirs}\t{ours}"));
            }
        }
        let unused = self.lines.iter().filter(|line| !line.matched);
        wrong.extend(unused.map(|line| format!("nothing differs like this (any more):\t{}", line.text)));
        assert!(wrong.is_empty(), "{} entries:\n{}", wrong.len(), wrong.join("\n"));
    }
}

/// How often each row of the API's description was exercised.
#[derive(Default)]
struct Coverage {
    requests: usize,
    rows: BTreeMap<String, usize>,
}

/// Every row of the description at least so often.
const TIMES: usize = 20;

/// The endpoints of the OCI specification, the catalog, and the headers and codes that can be provoked from outside.
const ROWS: &str = "end-1 end-2 end-3 end-4a end-4b end-4c end-5 end-6 end-7a end-7b end-8 end-9 end-10 end-11 end-12 \
     end-13 end-14 catalog \
     docker-distribution-api-version docker-content-digest content-length content-type location range \
     docker-upload-uuid oci-namespace link www-authenticate etag if-none-match cache-control accept-ranges allow \
     content-range oci-tag oci-subject oci-filters-applied accept \
     BLOB_UNKNOWN BLOB_UPLOAD_INVALID BLOB_UPLOAD_UNKNOWN DIGEST_INVALID MANIFEST_BLOB_UNKNOWN MANIFEST_INVALID \
     MANIFEST_UNKNOWN NAME_INVALID NAME_UNKNOWN UNAUTHORIZED PAGINATION_NUMBER_INVALID TAG_INVALID RANGE_INVALID SIZE_INVALID";

impl Coverage {
    fn note(&mut self, request: &Request, theirs: &Outcome, ours: &Outcome) {
        self.requests += 1;
        let mut rows: Vec<String> = vec![request.row.to_owned()];
        rows.extend(request.headers.iter().map(|(name, _)| (*name).to_owned()));
        for answer in [theirs, ours] {
            rows.extend(answer.headers.keys().map(|name| (*name).to_owned()));
            rows.extend(answer.codes.clone());
        }
        rows.sort_unstable();
        rows.dedup();
        for row in rows {
            *self.rows.entry(row).or_default() += 1;
        }
    }

    fn check(&self) {
        assert!(self.requests > 500, "{} requests", self.requests);
        let seldom: Vec<(&str, usize)> = ROWS
            .split_whitespace()
            .map(|row| (row, self.rows.get(row).copied().unwrap_or_default()))
            .filter(|(_, times)| *times < TIMES)
            .collect();
        assert!(seldom.is_empty(), "asked for less than {TIMES} times: {seldom:?}; all: {:?}", self.rows);
    }
}
