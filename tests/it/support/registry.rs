//! A registry client for the tests: plain steps of the protocol, streams of any length, nothing hidden.

use std::io::{self, Read};
use std::time::Duration;

use reqwest::Method;
use reqwest::blocking::{Body, Client, RequestBuilder, Response};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use serde_json::{Value, json};

use super::content::{Content, Digester, digest};
use super::image::OCI_MANIFEST;

/// Someone at a registry: an origin, and a token service with the name and password to show there.
#[derive(Clone)]
pub(crate) struct Registry {
    http: Client,
    origin: String,
    tokens: Option<Tokens>,
}

#[derive(Clone)]
struct Tokens {
    realm: String,
    login: Option<(String, String)>,
}

impl Registry {
    /// A registry that asks for nothing.
    pub(crate) fn open(origin: &str) -> Self {
        Self { http: client(None), origin: origin.to_owned(), tokens: None }
    }

    /// The same through another client: one with certificates of its own.
    pub(crate) fn through(http: Client, origin: &str) -> Self {
        Self { http, origin: origin.to_owned(), tokens: None }
    }

    /// A registry whose tokens come from `realm`. `authority` is the certificate to trust, in PEM.
    pub(crate) fn guarded(origin: &str, realm: &str, authority: &str, login: Option<(&str, &str)>) -> Self {
        let login = login.map(|(name, password)| (name.to_owned(), password.to_owned()));
        let tokens = Some(Tokens { realm: realm.to_owned(), login });
        Self { http: client(Some(authority)), origin: origin.to_owned(), tokens }
    }

    /// The same person at another registry that takes the same tokens.
    pub(crate) fn at(&self, origin: &str) -> Self {
        Self { origin: origin.to_owned(), ..self.clone() }
    }

    /// Someone else at the same registry.
    pub(crate) fn by(&self, login: Option<(&str, &str)>) -> Self {
        let login = login.map(|(name, password)| (name.to_owned(), password.to_owned()));
        let tokens = self.tokens.clone().map(|tokens| Tokens { login, ..tokens });
        Self { tokens, ..self.clone() }
    }

    /// A bare request to a path of the registry, without any token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.absolute(path))
    }

    /// The answer of the token service.
    pub(crate) fn ask_token(&self, scope: &str) -> Response {
        let tokens = self.tokens.as_ref().expect("this registry has a token service");
        let query = [("service", "container_registry"), ("scope", scope)];
        let query: Vec<String> =
            query.iter().map(|(key, value)| format!("{key}={}", value.replace(':', "%3A"))).collect();
        let request = self.http.get(format!("{}?{}", tokens.realm, query.join("&")));
        let request = match &tokens.login {
            Some((name, password)) => request.basic_auth(name, Some(password)),
            None => request,
        };
        request.send().expect("the token service answers")
    }

    /// May do with `repository` what the registry allows of `actions` (`pull`, `pull,push`).
    pub(crate) fn repository(&self, repository: &str, actions: &str) -> Repository {
        let authorization = self.authorization(&format!("repository:{repository}:{actions}"));
        Repository { registry: self.clone(), name: repository.to_owned(), authorization }
    }

    /// Shows this `Authorization` for whatever it does with `repository`.
    pub(crate) fn repository_with(&self, repository: &str, authorization: String) -> Repository {
        Repository { registry: self.clone(), name: repository.to_owned(), authorization: Some(authorization) }
    }

    /// The names of the repositories on the first page of the catalog.
    pub(crate) fn catalog(&self) -> Vec<String> {
        let mut request = self.request(Method::GET, "/v2/_catalog");
        if let Some(authorization) = self.authorization("registry:catalog:*") {
            request = request.header(AUTHORIZATION, authorization);
        }
        let answer: Value = request.send().expect("the registry answers").json().expect("lists are JSON");
        serde_json::from_value(answer["repositories"].clone()).expect("a list of names")
    }

    fn authorization(&self, scope: &str) -> Option<String> {
        self.tokens.as_ref()?;
        let answer: Value =
            self.ask_token(scope).error_for_status().expect("a token is given").json().expect("in JSON");
        Some(format!("Bearer {}", answer["token"].as_str().expect("with a token")))
    }

    /// A `Location`, or a path, as a URL.
    fn absolute(&self, location: &str) -> String {
        if location.starts_with('/') { format!("{}{location}", self.origin) } else { location.to_owned() }
    }
}

fn client(authority: Option<&str>) -> Client {
    let builder = Client::builder().timeout(Duration::from_secs(240)).http1_only().no_proxy();
    let builder = match authority {
        Some(pem) => {
            let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).expect("the authority is PEM");
            builder.tls_certs_only(certificates)
        }
        None => builder,
    };
    builder.build().expect("a client can be made")
}

/// A repository, seen by someone with a token for it.
#[derive(Clone)]
pub(crate) struct Repository {
    registry: Registry,
    name: String,
    authorization: Option<String>,
}

impl Repository {
    /// A request below the repository: `manifests/latest`, `blobs/uploads/`, or a `Location` that was handed out.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = if path.starts_with('/') || path.contains("://") {
            self.registry.request(method, path)
        } else {
            self.registry.request(method, &format!("/v2/{}/{path}", self.name))
        };
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        }
    }

    /// The value of `Authorization` that is shown here.
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// GET below the repository.
    pub(crate) fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).header("Accept", OCI_MANIFEST).send().expect("the registry answers")
    }

    /// Begins an upload and returns its `Location`.
    pub(crate) fn begin(&self) -> Result<String, Failed> {
        location(self.request(Method::POST, "blobs/uploads/"), 202)
    }

    /// Sends bytes to an upload, as docker does (chunked, to the end), and returns the new `Location`.
    pub(crate) fn send(&self, upload: &str, bytes: impl Read + Send + 'static) -> Result<String, Failed> {
        let request = self.request(Method::PATCH, upload).header(CONTENT_TYPE, "application/octet-stream");
        location(request.body(Body::new(bytes)), 202)
    }

    /// Ends an upload.
    pub(crate) fn finish(&self, upload: &str, digest: &str) -> Result<(), Failed> {
        let separator = if upload.contains('?') { '&' } else { '?' };
        let digest = digest.replace(':', "%3A");
        location(self.request(Method::PUT, &format!("{upload}{separator}digest={digest}")), 201).map(|_| ())
    }

    /// Pushes a blob in the three steps of docker.
    pub(crate) fn push_blob(&self, blob: Content) -> Result<String, Failed> {
        let digest = blob.digest();
        let upload = self.begin()?;
        let upload = self.send(&upload, blob.reader())?;
        self.finish(&upload, &digest)?;
        Ok(digest)
    }

    /// Pushes a manifest and returns its digest.
    pub(crate) fn push_manifest(&self, reference: &str, manifest: &[u8]) -> Result<String, Failed> {
        let request = self.request(Method::PUT, &format!("manifests/{reference}")).header(CONTENT_TYPE, OCI_MANIFEST);
        location(request.body(manifest.to_vec()), 201)?;
        Ok(digest(manifest))
    }

    /// Pushes an image of these layers: the layers, a configuration, then the manifest. Returns the manifest's digest.
    pub(crate) fn push(&self, tag: &str, layers: &[Content]) -> Result<String, Failed> {
        let config = layers.first().map_or(Content::new(0, 700), |first| Content::new(first.seed ^ 1 << 63, 700));
        for blob in layers.iter().chain([&config]) {
            self.push_blob(*blob)?;
        }
        self.push_manifest(tag, &manifest(config, layers))
    }

    /// Pushes an artifact of one small blob about another manifest. Returns the digest of the artifact's manifest.
    pub(crate) fn push_referrer(&self, subject: &str, seed: u64) -> Result<String, Failed> {
        let (config, blob) = (Content::new(seed ^ 1 << 63, 2), Content::new(seed, 300));
        for part in [config, blob] {
            self.push_blob(part)?;
        }
        let mut manifest: Value = serde_json::from_slice(&manifest(config, &[blob])).expect("manifests are JSON");
        // The size is nobody's business but the reader's: a registry takes a subject that it does not hold.
        manifest["subject"] = json!({ "mediaType": OCI_MANIFEST, "digest": subject, "size": 1 });
        manifest["artifactType"] = json!("application/vnd.example.note");
        let manifest = manifest.to_string().into_bytes();
        let digest = digest(&manifest);
        self.push_manifest(&digest, &manifest)
    }

    /// The digests of the manifests about another one, in the order of the answer.
    pub(crate) fn referrers(&self, subject: &str) -> Vec<String> {
        let answer = expect(self.get(&format!("referrers/{subject}")), 200).expect("there is always a list");
        let index: Value = answer.json().expect("lists are JSON");
        let listed = index["manifests"].as_array().expect("a list").iter();
        listed.map(|one| one["digest"].as_str().expect("a digest").to_owned()).collect()
    }

    /// Pulls an image with all its layers, and returns the manifest's digest. Every digest is checked.
    pub(crate) fn pull(&self, tag: &str) -> Result<String, Failed> {
        let answer = expect(self.get(&format!("manifests/{tag}")), 200)?;
        let promised = answer.headers()["docker-content-digest"].to_str().expect("digests are text").to_owned();
        let manifest = answer.bytes().map_err(Failed::broken)?;
        if digest(&manifest) != promised {
            return Err(Failed::broken(format!("the manifest is not {promised}")));
        }
        let manifest: Value = serde_json::from_slice(&manifest).expect("manifests are JSON");
        let layers = manifest["layers"].as_array().expect("a list").iter();
        for part in layers.chain([&manifest["config"]]) {
            let expected = part["digest"].as_str().expect("a digest");
            let got = self.pull_blob(expected)?;
            if got != expected {
                return Err(Failed::broken(format!("{expected} came as {got}")));
            }
        }
        Ok(promised)
    }

    /// Reads a blob to its end and returns the digest of what came.
    pub(crate) fn pull_blob(&self, digest: &str) -> Result<String, Failed> {
        let mut answer = expect(self.get(&format!("blobs/{digest}")), 200)?;
        let mut digester = Digester::new(io::sink());
        io::copy(&mut answer, &mut digester).map_err(Failed::broken)?;
        Ok(digester.digest())
    }
}

/// The manifest of an image of these blobs.
pub(crate) fn manifest(config: Content, layers: &[Content]) -> Vec<u8> {
    let describe = |media_type: &str, blob: &Content| json!({ "mediaType": media_type, "digest": blob.digest(), "size": blob.size });
    let layer = "application/vnd.oci.image.layer.v1.tar";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": describe("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers.iter().map(|blob| describe(layer, blob)).collect::<Vec<Value>>(),
    });
    manifest.to_string().into_bytes()
}

/// Why a step did not work: the status and the body of the answer, or no answer at all.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) status: Option<u16>,
    pub(crate) body: String,
}

impl Failed {
    fn broken(error: impl ToString) -> Self {
        Self { status: None, body: error.to_string() }
    }
}

fn location(request: RequestBuilder, status: u16) -> Result<String, Failed> {
    let answer = expect(request.send().map_err(Failed::broken)?, status)?;
    let location = answer.headers().get(LOCATION).expect("the answer has a Location");
    Ok(location.to_str().expect("locations are text").to_owned())
}

fn expect(answer: Response, status: u16) -> Result<Response, Failed> {
    if answer.status().as_u16() == status {
        return Ok(answer);
    }
    Err(Failed { status: Some(answer.status().as_u16()), body: answer.text().unwrap_or_default() })
}
