//! Manifests: what a document refers to. Its bytes are kept as they came; nothing is ever written back from here.
//!
//! Docker's manifests and lists, OCI manifests and indexes, and, leniently, documents of any other type that use the
//! same members. What is known must have the right shape, so that what is stored can be collected, copied and served.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::media_type::{DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED, OCI_INDEX, OCI_MANIFEST};
use super::{Digest, MediaType};

/// How many descriptors a document may list. Each is looked for before the document is taken, and a few bytes of JSON are
/// a hundred in memory. Images have tens of layers; indexes of the largest build caches, some hundreds of entries.
const MAX_DESCRIPTORS: usize = 10_000;

/// How many annotations a document may have, for the same reason.
const MAX_ANNOTATIONS: usize = 10_000;

/// How much of what a JSON reader says is repeated: it quotes the document.
const MAX_REASON: usize = 200;

/// A reference to content (OCI image-spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What the content is; `None` when the document does not say.
    pub media_type: Option<MediaType>,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where else it can be had.
    pub urls: Vec<String>,
    /// Which machines a child of an index is for; `None` when the index does not say.
    pub platform: Option<Platform>,
}

/// What an image runs on (OCI image-spec, image-index.md). Empty where the index does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// The operating system, as Go names it.
    pub os: String,
    /// The processor, as Go names it.
    pub architecture: String,
}

impl Descriptor {
    /// Whether a registry may lack the content because clients get it elsewhere. URLs alone do not say so: clients take what
    /// the registry has before they look there.
    pub fn is_elsewhere(&self) -> bool {
        self.media_type.as_ref().is_some_and(MediaType::is_non_distributable)
    }
}

/// A manifest: the bytes that clients name by digest, and what they say.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The document, byte for byte.
    pub bytes: Bytes,
    /// What it is served as.
    pub media_type: MediaType,
    /// The configuration blob, if there is one.
    pub config: Option<Descriptor>,
    /// Layers, or whatever blobs an artifact consists of.
    pub layers: Vec<Descriptor>,
    /// The entries of an index.
    pub children: Vec<Descriptor>,
    /// The manifest that this one says something about. It need not exist.
    pub subject: Option<Descriptor>,
    /// What kind of artifact this is: its own word, else its configuration's media type if it is no index.
    pub artifact_type: Option<String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a document that came with this `Content-Type` (parameters are ignored).
    pub fn parse(bytes: Bytes, content_type: Option<&str>) -> Result<Self, ManifestError> {
        let announced = match content_type {
            Some(value) => Some(MediaType::from_content_type(value).map_err(|_| ManifestError::ContentType)?),
            None => None,
        };
        let outline: Outline = read(&bytes)?;
        let media_type = outline.media_type()?;
        if let Some(announced) = announced.filter(|announced| *announced != media_type) {
            return Err(ManifestError::TypesDiffer { announced, found: media_type });
        }
        if media_type.is_obsolete() {
            return Err(ManifestError::Schema1);
        }
        outline.check_shape(&media_type)?;
        read::<Document>(&bytes)?.resolve(bytes, media_type)
    }

    /// What a stored document is served as, if that can be told. Nothing is checked: what another program accepted is
    /// served as it is.
    pub fn served_as(bytes: &[u8]) -> Option<MediaType> {
        serde_json::from_slice::<Outline>(bytes).ok()?.media_type().ok()
    }
}

fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes)
        .map_err(|cause| ManifestError::Json(cause.to_string().chars().take(MAX_REASON).collect()))
}

/// Why a document is not taken as a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a known member has the wrong type.
    #[error("the manifest is not valid: {0}")]
    Json(String),
    /// The `Content-Type` header is not a media type.
    #[error("the Content-Type is not a media type")]
    ContentType,
    /// Nothing says what the document is.
    #[error("the manifest has no mediaType, and its members do not tell whether it is an image or an index")]
    Untyped,
    /// `mediaType` holds no media type.
    #[error("the manifest's mediaType is not a media type")]
    MediaType,
    /// Header and document say different things.
    #[error("the Content-Type is {announced} but the manifest is {found}")]
    TypesDiffer {
        /// The header.
        announced: MediaType,
        /// The document.
        found: MediaType,
    },
    /// Docker's first image format.
    #[error(
        "Docker image manifest version 2, schema 1 is not supported: build or pull and push the image with a current client"
    )]
    Schema1,
    /// An image that lists manifests or an index that lists layers: two clients could read it in two ways
    /// (CVE-2021-41190).
    #[error("a manifest cannot be an image and an index at once")]
    Ambiguous,
    /// A member that the type requires is missing.
    #[error("the manifest has no {0}")]
    Missing(&'static str),
    /// More than anybody needs.
    #[error("the manifest lists more than {MAX_DESCRIPTORS} descriptors")]
    TooManyDescriptors,
    /// `schemaVersion` is not 2.
    #[error("the manifest's schemaVersion must be 2")]
    SchemaVersion,
    /// A descriptor's digest or size makes no sense.
    #[error("{place}: {problem}")]
    Descriptor {
        /// Which one.
        place: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// Which members there are. Reading it takes no memory, whatever the document holds.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
    /// Only in Docker's schema 1.
    fs_layers: Option<IgnoredAny>,
    /// Only in Docker's schema 1, signed.
    signatures: Option<IgnoredAny>,
}

/// The members that we use, as written. Go programs write `null` for empty lists and maps.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    artifact_type: Option<String>,
    config: Option<Written>,
    layers: Option<Listed<Written>>,
    /// The `layers` of `application/vnd.oci.artifact.manifest.v1+json`, which a release candidate of OCI 1.1 had.
    blobs: Option<Listed<Written>>,
    manifests: Option<Listed<Written>>,
    subject: Option<Written>,
    annotations: Option<Annotations>,
}

/// A descriptor as written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    media_type: Option<String>,
    digest: Option<String>,
    size: Option<i64>,
    urls: Option<Vec<String>>,
    platform: Option<Platform>,
}

/// A list of at most [`MAX_DESCRIPTORS`]: the rest of a longer one is not read.
#[derive(Debug)]
struct Listed<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = Listed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut listed = Vec::new();
                while let Some(item) = items.next_element()? {
                    if listed.len() == MAX_DESCRIPTORS {
                        return Err(A::Error::custom(ManifestError::TooManyDescriptors));
                    }
                    listed.push(item);
                }
                Ok(Listed(listed))
            }
        }

        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// At most [`MAX_ANNOTATIONS`].
#[derive(Debug, Default)]
struct Annotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Annotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let mut annotations = BTreeMap::new();
                while let Some((name, value)) = members.next_entry()? {
                    annotations.insert(name, value);
                    if annotations.len() > MAX_ANNOTATIONS {
                        return Err(A::Error::custom(format_args!("it has more than {MAX_ANNOTATIONS} annotations")));
                    }
                }
                Ok(Annotations(annotations))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

impl Outline {
    /// The document's own word; without one, what its members make it (OCI image-spec 1.0 did not ask for a word).
    fn media_type(&self) -> Result<MediaType, ManifestError> {
        let guess = match self {
            Self { media_type: Some(written), .. } if !written.is_empty() => written,
            Self { fs_layers: Some(_), signatures: Some(_), .. } => DOCKER_SCHEMA1_SIGNED,
            Self { fs_layers: Some(_), .. } => DOCKER_SCHEMA1,
            Self { manifests: Some(_), .. } => OCI_INDEX,
            Self { config: Some(_), .. } | Self { layers: Some(_), .. } => OCI_MANIFEST,
            _ => return Err(ManifestError::Untyped),
        };
        guess.parse().map_err(|_| ManifestError::MediaType)
    }

    fn check_shape(&self, media_type: &MediaType) -> Result<(), ManifestError> {
        let (image, index) = (media_type.is_image(), media_type.is_index());
        if !image && !index {
            return Ok(());
        }
        if self.schema_version != Some(2) {
            return Err(ManifestError::SchemaVersion);
        }
        let lists_layers = self.config.is_some() || self.layers.is_some();
        if (image && self.manifests.is_some()) || (index && lists_layers) {
            return Err(ManifestError::Ambiguous);
        }
        if image && self.config.is_none() {
            return Err(ManifestError::Missing("config"));
        }
        Ok(())
    }
}

impl Document {
    fn resolve(self, bytes: Bytes, media_type: MediaType) -> Result<Manifest, ManifestError> {
        let one = |place, written: Option<Written>| written.map(|written| written.resolve(place)).transpose();
        let length = |list: &Option<Listed<Written>>| list.as_ref().map_or(0, |list| list.0.len());
        if length(&self.layers) + length(&self.blobs) + length(&self.manifests) > MAX_DESCRIPTORS {
            return Err(ManifestError::TooManyDescriptors);
        }
        let all = |place, written: Option<Listed<Written>>| {
            written
                .into_iter()
                .flat_map(|list| list.0)
                .map(|written| written.resolve(place))
                .collect::<Result<Vec<_>, _>>()
        };
        let config = one("config", self.config)?;
        let mut layers = all("layers", self.layers)?;
        layers.append(&mut all("blobs", self.blobs)?);
        let configured = || config.as_ref()?.media_type.as_ref().map(|found| found.as_str().to_owned());
        let artifact_type = self.artifact_type.filter(|found| !found.is_empty()).or_else(configured);
        Ok(Manifest {
            bytes,
            media_type,
            layers,
            children: all("manifests", self.manifests)?,
            subject: one("subject", self.subject)?,
            artifact_type,
            annotations: self.annotations.unwrap_or_default().0,
            config,
        })
    }
}

impl Written {
    fn resolve(self, place: &'static str) -> Result<Descriptor, ManifestError> {
        let problem =
            |problem: &dyn std::fmt::Display| ManifestError::Descriptor { place, problem: problem.to_string() };
        let digest = self.digest.as_deref().unwrap_or_default().parse::<Digest>().map_err(|cause| problem(&cause))?;
        let size = self.size.unwrap_or_default().try_into().map_err(|_| problem(&"a size cannot be negative"))?;
        let media_type = match self.media_type.filter(|written| !written.is_empty()) {
            Some(written) => Some(written.parse().map_err(|cause| problem(&cause))?),
            None => None,
        };
        let urls = self.urls.unwrap_or_default();
        Ok(Descriptor { media_type, digest, size, urls, platform: self.platform })
    }
}

/// A descriptor in a list of referrers (OCI distribution-spec, "Listing Referrers").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    media_type: String,
    digest: String,
    size: usize,
    /// What kind of artifact it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Referrer {
    /// About how many bytes of an answer this is. What JSON escapes was escaped in the manifest too, and the limit on
    /// that is the limit on the difference.
    pub fn weight(&self) -> usize {
        let fixed = 200 + self.media_type.len() + self.artifact_type.as_ref().map_or(0, String::len);
        fixed + self.annotations.iter().map(|(name, value)| name.len() + value.len() + 6).sum::<usize>()
    }

    /// How a manifest with this digest is listed.
    pub fn new(manifest: Manifest, digest: &Digest) -> Self {
        Self {
            media_type: manifest.media_type.as_str().to_owned(),
            digest: digest.to_string(),
            size: manifest.bytes.len(),
            artifact_type: manifest.artifact_type,
            annotations: manifest.annotations,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::Algorithm;
    use super::super::media_type::{DOCKER_LIST, DOCKER_MANIFEST};
    use super::*;

    fn descriptor(media_type: &str) -> Value {
        let digest = Digest::of(Algorithm::Sha256, media_type.as_bytes()).to_string();
        json!({ "mediaType": media_type, "digest": digest, "size": 3 })
    }

    fn parse(document: &Value, content_type: Option<&str>) -> Result<Manifest, ManifestError> {
        Manifest::parse(document.to_string().into(), content_type)
    }

    #[test]
    fn an_image_of_either_family() {
        for media_type in [OCI_MANIFEST, DOCKER_MANIFEST] {
            let document = json!({ "schemaVersion": 2, "mediaType": media_type, "config": descriptor("a/config"),
                "layers": [descriptor("a/one"), descriptor("a/two")], "annotations": { "k": "v" } });
            let manifest = parse(&document, Some(media_type)).unwrap();
            assert_eq!((manifest.layers.len(), manifest.children.len()), (2, 0));
            assert_eq!(manifest.artifact_type.as_deref(), Some("a/config"));
            assert_eq!(manifest.annotations["k"], "v");
            assert_eq!(manifest.bytes, document.to_string());
            assert_eq!(Manifest::served_as(&manifest.bytes).unwrap().as_str(), media_type);
        }
    }

    #[test]
    fn an_index_of_either_family_may_be_empty_or_null() {
        for media_type in [OCI_INDEX, DOCKER_LIST] {
            for manifests in [json!([descriptor(OCI_MANIFEST)]), json!([]), Value::Null] {
                let document = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
                let manifest = parse(&document, None).unwrap();
                assert_eq!(manifest.children.len(), manifests.as_array().map_or(0, Vec::len));
                assert_eq!(manifest.artifact_type, None);
            }
        }
    }

    #[test]
    fn without_a_word_of_its_own_the_members_tell_the_type() {
        let image = json!({ "schemaVersion": 2, "config": descriptor("a/config"), "layers": null });
        assert_eq!(parse(&image, Some(OCI_MANIFEST)).unwrap().media_type.as_str(), OCI_MANIFEST);
        let index = json!({ "schemaVersion": 2, "manifests": [] });
        assert_eq!(parse(&index, None).unwrap().media_type.as_str(), OCI_INDEX);
        assert_eq!(parse(&json!({ "schemaVersion": 2 }), None).unwrap_err(), ManifestError::Untyped);
        let refused = parse(&image, Some(DOCKER_MANIFEST)).unwrap_err();
        assert!(matches!(refused, ManifestError::TypesDiffer { .. }), "it could not be served as Docker's");
    }

    #[test]
    fn unknown_types_are_taken_with_whatever_they_refer_to() {
        let document = json!({ "mediaType": "application/vnd.example+json", "blobs": [descriptor("a/blob")],
            "subject": descriptor(OCI_MANIFEST), "artifactType": "a/own", "other": { "digest": 5 } });
        let manifest = parse(&document, Some("application/vnd.example+json; charset=utf-8")).unwrap();
        assert_eq!((manifest.layers.len(), manifest.subject.is_some()), (1, true));
        assert_eq!(manifest.artifact_type.as_deref(), Some("a/own"));
    }

    #[test]
    fn what_cannot_be_trusted_is_refused_with_the_reason() {
        let image = |extra: Value| {
            let mut document =
                json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor("a/c"), "layers": [] });
            document.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            parse(&document, Some(OCI_MANIFEST)).unwrap_err()
        };
        assert_eq!(image(json!({ "manifests": [] })), ManifestError::Ambiguous);
        assert_eq!(image(json!({ "config": null })), ManifestError::Missing("config"));
        assert_eq!(image(json!({ "schemaVersion": 1 })), ManifestError::SchemaVersion);
        assert!(matches!(image(json!({ "layers": [{}] })), ManifestError::Descriptor { place: "layers", .. }));
        assert!(matches!(image(json!({ "mediaType": "nonsense" })), ManifestError::MediaType));
        assert!(matches!(image(json!({ "layers": {} })), ManifestError::Json(_)));
        let size = json!({ "digest": Digest::of(Algorithm::Sha256, b"").to_string(), "size": -1 });
        assert!(matches!(image(json!({ "subject": size })), ManifestError::Descriptor { place: "subject", .. }));
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "layers": [], "manifests": [] });
        assert_eq!(parse(&index, None).unwrap_err(), ManifestError::Ambiguous);
        let schema1 = json!({ "schemaVersion": 1, "fsLayers": [], "signatures": [] });
        assert_eq!(parse(&schema1, Some(DOCKER_SCHEMA1_SIGNED)).unwrap_err(), ManifestError::Schema1);
        assert_eq!(parse(&json!({}), Some("nonsense")).unwrap_err(), ManifestError::ContentType);
        assert!(Manifest::parse(Bytes::from_static(b"not json"), None).is_err());
        let twice = format!("{{\"mediaType\":\"{OCI_INDEX}\",\"mediaType\":\"{OCI_MANIFEST}\"}}");
        assert!(Manifest::parse(twice.into(), None).is_err(), "two readers could pick different ones");
    }

    #[test]
    fn a_document_cannot_list_more_than_the_limit() {
        let layers = |number: usize| {
            let all = vec![descriptor("a/layer"); number];
            json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor("a/c"), "layers": all })
        };
        assert_eq!(parse(&layers(MAX_DESCRIPTORS), None).unwrap().layers.len(), MAX_DESCRIPTORS);
        let empty = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{}},"layers":[{}{{}}]}}"#,
            "{},".repeat(1_000_000)
        );
        let split = json!({ "mediaType": "a/b", "blobs": layers(6000)["layers"], "manifests": layers(6000)["layers"] });
        for document in [layers(MAX_DESCRIPTORS + 1).to_string(), empty, split.to_string()] {
            let refused = Manifest::parse(document.into(), None).unwrap_err().to_string();
            assert!(refused.contains("more than 10000 descriptors"), "{refused}");
        }
        let annotations: BTreeMap<String, String> =
            (0..=MAX_ANNOTATIONS).map(|number| (number.to_string(), String::new())).collect();
        let refused = parse(&json!({ "mediaType": "a/b", "annotations": annotations }), None).unwrap_err();
        assert!(refused.to_string().contains("more than 10000 annotations"), "{refused}");
    }

    #[test]
    fn a_reason_is_short_whatever_it_quotes() {
        let refused = parse(&json!({ "schemaVersion": "x".repeat(100_000) }), None).unwrap_err();
        assert!(refused.to_string().len() < 300);
    }

    #[test]
    fn only_layers_of_a_telling_type_may_be_elsewhere() {
        let mut with_url = descriptor("a/layer");
        with_url["urls"] = json!(["https://example.com/layer"]);
        let foreign = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        let document = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor("a/c"),
            "layers": [with_url, foreign, descriptor("a/layer")] });
        let elsewhere: Vec<bool> =
            parse(&document, None).unwrap().layers.iter().map(Descriptor::is_elsewhere).collect();
        assert_eq!(elsewhere, [false, true, false]);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::served_as(&bytes);
            let _ = Manifest::parse(bytes.into(), None);
        }

        #[test]
        fn parsing_known_members_with_odd_values_never_panics(
            member in "(schemaVersion|mediaType|config|layers|manifests|subject|annotations|blobs)",
            value in "(null|[0-9]{1,25}|-1|\"[a-z/]{0,9}\"|\\[\\]|\\{\\}|\\[\\[\\]\\]|\\{\"digest\":\"sha256:00\"\\})",
        ) {
            let _ = Manifest::parse(format!("{{\"{member}\":{value}}}").into(), Some(OCI_MANIFEST));
        }
    }
}
