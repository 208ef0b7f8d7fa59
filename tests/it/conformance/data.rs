//! Content of every shape that the program makes, named by either algorithm.

use std::io::Read as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use crate::support::content::{Content, digest, hex};

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ELSEWHERE: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
pub(super) const TYPE_1: &str = "application/vnd.example.pierhead.v1";
pub(super) const TYPE_2: &str = "application/vnd.example.pierhead.v2";

/// What names content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Sha256,
    Sha512,
}

pub(super) const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::Sha256 { "sha256" } else { "sha512" })
    }
}

impl Algorithm {
    pub(super) fn digest(self, bytes: &[u8]) -> String {
        match self {
            Self::Sha256 => digest(bytes),
            Self::Sha512 => format!("sha512:{}", hex(&Sha512::digest(bytes))),
        }
    }

    pub(super) fn other(self) -> Self {
        if self == Self::Sha256 { Self::Sha512 } else { Self::Sha256 }
    }
}

/// Bytes that differ for every word and number.
pub(super) fn noise(word: &str, number: u64, size: usize) -> Vec<u8> {
    let seed = word.bytes().fold(number.wrapping_add(77), |seed, byte| seed.wrapping_mul(1_000_003) ^ u64::from(byte));
    let mut bytes = Vec::with_capacity(size);
    Content::new(seed, size as u64).reader().read_to_end(&mut bytes).expect("memory does not fail");
    bytes
}

/// A manifest or an index to push.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: String,
    pub(super) media_type: &'static str,
    pub(super) tags: Vec<String>,
    pub(super) subject: Option<String>,
    /// How a list of referrers must show it.
    pub(super) listed: Value,
}

/// Blobs and the documents over them, in the order in which they can be pushed.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) algorithm: Algorithm,
    word: String,
    pub(super) blobs: Vec<Vec<u8>>,
    pub(super) documents: Vec<Document>,
}

impl Made {
    pub(super) fn new(word: &str, algorithm: Algorithm) -> Self {
        Self { algorithm, word: format!("{word}-{algorithm}"), blobs: Vec::new(), documents: Vec::new() }
    }

    /// Adds a blob and describes it.
    pub(super) fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let described = self.describe(media_type, &bytes);
        if !self.blobs.contains(&bytes) {
            self.blobs.push(bytes);
        }
        described
    }

    fn describe(&self, media_type: &str, bytes: &[u8]) -> Value {
        json!({ "mediaType": media_type, "digest": self.algorithm.digest(bytes), "size": bytes.len() })
    }

    fn fresh(&self, size: usize) -> Vec<u8> {
        noise(&self.word, (self.blobs.len() + 100 * self.documents.len()) as u64, size)
    }

    fn layers(&mut self, count: usize, media_type: &str) -> Vec<Value> {
        (0..count).map(|_| self.blob(media_type, self.fresh(900))).collect()
    }

    /// Adds an image of these layers; `more` is laid over the manifest.
    pub(super) fn image(&mut self, layers: Vec<Value>, more: Value) -> Value {
        let made_by = format!("{} {}", self.word, self.documents.len());
        let config = json!({ "author": made_by, "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [] } });
        let config = self.blob(OCI_CONFIG, config.to_string().into_bytes());
        self.document(OCI_MANIFEST, json!({ "config": config, "layers": layers }), more)
    }

    /// Adds an image of two layers.
    pub(super) fn plain(&mut self, more: Value) -> Value {
        let layers = self.layers(2, LAYER_GZIP);
        self.image(layers, more)
    }

    /// Adds an artifact with the empty configuration and one layer.
    pub(super) fn artifact(&mut self, kind: &str, more: Value) -> Value {
        let config = self.blob(OCI_EMPTY, b"{}".to_vec());
        let layers = self.layers(1, kind);
        self.document(OCI_MANIFEST, json!({ "artifactType": kind, "config": config, "layers": layers }), more)
    }

    /// Adds an index of these children.
    pub(super) fn index(&mut self, children: &[Value], more: Value) -> Value {
        let platforms = ["amd64", "arm64"].iter().cycle();
        let child = |(child, architecture): (&Value, &&str)| {
            with(child, json!({ "platform": { "os": "linux", "architecture": architecture } }))
        };
        let children: Vec<Value> = children.iter().zip(platforms).map(child).collect();
        self.document(OCI_INDEX, json!({ "manifests": children }), more)
    }

    fn document(&mut self, media_type: &'static str, body: Value, more: Value) -> Value {
        let body = with(&with(&json!({ "schemaVersion": 2, "mediaType": media_type }), body), more);
        let bytes = body.to_string().into_bytes();
        let described = self.describe(media_type, &bytes);
        let mut listed = described.clone();
        let kind = [&body["artifactType"], &body["config"]["mediaType"]].into_iter().find(|kind| kind.is_string());
        listed["artifactType"] = kind.cloned().unwrap_or_default();
        listed["annotations"] = body["annotations"].clone();
        let digest = self.algorithm.digest(&bytes);
        let subject = body["subject"]["digest"].as_str().map(str::to_owned);
        self.documents.push(Document { bytes, digest, media_type, tags: Vec::new(), subject, listed });
        described
    }

    /// Names the last document.
    pub(super) fn tag(&mut self, tag: &str) {
        self.documents.last_mut().expect("there is one").tags.push(tag.to_owned());
    }

    pub(super) fn has_subject(&self) -> bool {
        self.documents.iter().any(|document| document.subject.is_some())
    }
}

/// The first object with the members of the second.
fn with(object: &Value, more: Value) -> Value {
    let mut both = object.clone();
    if let (Value::Object(both), Value::Object(more)) = (&mut both, more) {
        both.extend(more);
    }
    both
}

pub(super) const SHAPES: [&str; 18] = [
    "image",
    "image-uncompressed",
    "large-manifest",
    "index",
    "nested-index",
    "empty-index",
    "artifact",
    "artifact-index",
    "artifact-without-layers",
    "artifacts-with-subject",
    "index-with-subject",
    "missing-subject",
    "data-field",
    "non-distributable-layers",
    "custom-fields",
    "no-layers",
    "well-known-blobs",
    "tag-param",
];

/// Content of a shape.
pub(super) fn make(shape: &str, algorithm: Algorithm) -> Made {
    let mut made = Made::new(shape, algorithm);
    fill(&mut made, shape);
    made.tag(shape);
    made
}

fn fill(made: &mut Made, shape: &str) {
    let none = || json!({});
    match shape {
        "image" => made.plain(none()),
        "image-uncompressed" => {
            let layers = made.layers(2, LAYER);
            made.image(layers, none())
        }
        "large-manifest" => {
            let annotations: serde_json::Map<String, Value> =
                (0..390).map(|number| (format!("large-{number}"), "A".repeat(10_000).into())).collect();
            made.plain(json!({ "annotations": annotations }))
        }
        "index" => two_platforms(made, none()),
        "nested-index" => {
            let inner = [two_platforms(made, none()), two_platforms(made, none())];
            made.index(&inner, none())
        }
        "empty-index" => made.index(&[], none()),
        "artifact" => made.artifact(TYPE_1, none()),
        "artifact-index" => {
            let children = [made.artifact(TYPE_1, none()), made.artifact(TYPE_1, none())];
            made.index(&children, json!({ "artifactType": TYPE_1 }))
        }
        "artifact-without-layers" => {
            let empty = made.blob(OCI_EMPTY, b"{}".to_vec());
            let body = json!({ "artifactType": TYPE_1, "config": empty, "layers": [empty] });
            made.document(OCI_MANIFEST, body, none())
        }
        "artifacts-with-subject" => {
            let subject = made.plain(none());
            made.tag("subject");
            made.plain(json!({ "subject": subject }));
            made.artifact(TYPE_1, json!({ "subject": subject, "annotations": { "org.example.word": "one" } }));
            made.tag("artifact-1");
            made.artifact(TYPE_2, json!({ "subject": subject, "annotations": { "org.example.word": "two" } }))
        }
        "index-with-subject" => {
            let subject = two_platforms(made, none());
            let children = [made.artifact(TYPE_1, none()), made.artifact(TYPE_1, none())];
            let more =
                json!({ "artifactType": TYPE_1, "subject": subject, "annotations": { "org.example.word": "index" } });
            made.index(&children, more)
        }
        "missing-subject" => {
            let subject = made.describe(OCI_MANIFEST, b"what nobody ever pushed");
            made.artifact(TYPE_1, json!({ "subject": subject, "annotations": { "org.example.word": "early" } }))
        }
        "data-field" => {
            // RFC 4648 of the two bytes of the empty configuration.
            let empty = with(&made.blob(OCI_EMPTY, b"{}".to_vec()), json!({ "data": "e30=" }));
            made.document(OCI_MANIFEST, json!({ "artifactType": TYPE_1, "config": empty, "layers": [empty] }), none())
        }
        "non-distributable-layers" => {
            let elsewhere =
                with(&made.describe(ELSEWHERE, b"not ours"), json!({ "urls": ["https://store.example/layer"] }));
            let ours = made.layers(1, LAYER_GZIP);
            made.image([vec![elsewhere], ours].concat(), none())
        }
        "custom-fields" => two_platforms(made, json!({ "org.example.custom": { "nested": [1, null, "ö"] } })),
        "no-layers" => made.image(Vec::new(), none()),
        "well-known-blobs" => {
            let layers = vec![made.blob(TYPE_1, Vec::new()), made.blob(TYPE_1, b"{}".to_vec())];
            made.image(layers, none())
        }
        "tag-param" => {
            let index = two_platforms(made, none());
            for (number, document) in made.documents.iter_mut().enumerate() {
                document.tags.push(format!("tag-param-{number}"));
            }
            index
        }
        other => panic!("no such shape: {other}"),
    };
}

/// An index of two images. `more` is laid over all three documents.
fn two_platforms(made: &mut Made, more: Value) -> Value {
    let children = [made.plain(more.clone()), made.plain(more.clone())];
    made.index(&children, more)
}
