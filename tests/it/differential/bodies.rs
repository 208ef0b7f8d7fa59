//! Bodies: manifests with something wrong or unusual, and of all kinds, pushed and read.

use serde_json::{Value, json};

use super::requests::{BEGINNING, Base, DOCKER_LIST, DOCKER_MANIFEST, Given, List, UNKNOWN, image, image_with, index};
use crate::support::content::digest;
use crate::support::image::{OCI_INDEX, OCI_MANIFEST};

type Change = fn(&mut Value);

/// Manifests with something wrong or unusual.
const MANIFESTS: &[(&str, Change)] = &[
    ("schema version 1", |manifest| manifest["schemaVersion"] = 1.into()),
    ("no schema version", |manifest| drop(manifest.as_object_mut().unwrap().remove("schemaVersion"))),
    ("no media type", |manifest| drop(manifest.as_object_mut().unwrap().remove("mediaType"))),
    ("another media type", |manifest| manifest["mediaType"] = OCI_INDEX.into()),
    ("no configuration", |manifest| drop(manifest.as_object_mut().unwrap().remove("config"))),
    ("no layers", |manifest| drop(manifest.as_object_mut().unwrap().remove("layers"))),
    ("an empty list of layers", |manifest| manifest["layers"] = json!([])),
    ("an unknown configuration", |manifest| manifest["config"]["digest"] = UNKNOWN.into()),
    ("an unknown layer", |manifest| manifest["layers"][0]["digest"] = UNKNOWN.into()),
    ("a bad digest", |manifest| manifest["layers"][0]["digest"] = "sha256:abc".into()),
    ("a wrong size", |manifest| manifest["layers"][0]["size"] = 1.into()),
    ("a negative size", |manifest| manifest["layers"][0]["size"] = (-1).into()),
    ("a layer that is elsewhere", |manifest| {
        let url = json!(["https://example.com/layer"]);
        manifest["layers"][0] = json!({
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "digest": UNKNOWN, "size": 1,
            "urls": url,
        });
    }),
    ("a subject", |manifest| {
        manifest["subject"] = json!({ "mediaType": OCI_MANIFEST, "digest": UNKNOWN, "size": 1 });
    }),
    ("an artifact type", |manifest| manifest["artifactType"] = "application/example".into()),
    ("an unknown key", |manifest| manifest["x"] = json!({ "y": [null] })),
];

pub(super) fn bodies(list: &mut List, base: &Base) {
    match (base.method, base.name) {
        ("PUT", "manifest by tag") => {
            for (what, change) in MANIFESTS {
                list.add(base, what, |request| request.body = image_with(OCI_MANIFEST, what, change));
            }
            for (what, body) in [
                ("nothing", &b""[..]),
                ("an empty object", b"{}"),
                ("a list", b"[]"),
                ("no JSON", b"<manifest/>"),
                ("a second document", b"{}{}"),
                ("not UTF-8", b"{\"a\":\"\xff\"}"),
            ] {
                list.add(base, what, |request| request.body = body.to_vec());
            }
            list.add(base, "white space around it", |request| {
                request.body = [b"\n\n ", request.body.as_slice(), b"\n"].concat();
            });
            list.add(base, "a byte more than 4 MiB", |request| {
                request.body.resize((4 << 20) + 1, b' ');
            });
            kinds(list, base);
        }
        ("PUT", "manifest by digest") => {
            list.add(base, "bytes of another digest", |request| request.body.push(b' '));
        }
        ("PATCH" | "PUT", "upload") => {
            list.add(base, "nothing", |request| request.body.clear());
            list.add(base, "the beginning once more", |request| request.body = BEGINNING.to_vec());
            list.add(base, "a mebibyte", |request| request.body = vec![b'm'; 1 << 20]);
        }
        ("GET", "manifest by tag" | "manifest by digest") => stored_kinds(list, base),
        _ => {}
    }
}

/// Manifests of all media types.
fn kinds(list: &mut List, base: &Base) {
    let child = image(OCI_MANIFEST, "child");
    for (what, media_type, body) in [
        ("a Docker manifest", DOCKER_MANIFEST, image(DOCKER_MANIFEST, "docker")),
        ("a Docker list without its child", DOCKER_LIST, index(DOCKER_LIST, UNKNOWN, 1, "list")),
        ("an index without its child", OCI_INDEX, index(OCI_INDEX, UNKNOWN, 1, "index")),
        ("an index of nothing", OCI_INDEX, br#"{"schemaVersion":2,"manifests":[]}"#.to_vec()),
        ("an index", OCI_INDEX, index(OCI_INDEX, &digest(&child), child.len(), "whole index")),
        ("a Docker list", DOCKER_LIST, index(DOCKER_LIST, &digest(&child), child.len(), "whole list")),
        ("an unknown kind", "application/vnd.example+json", br#"{"a":1}"#.to_vec()),
        ("an unknown kind of image", "application/vnd.example+json", image("application/vnd.example+json", "image")),
        (
            "a manifest of schema 1",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            br#"{"schemaVersion":1}"#.to_vec(),
        ),
    ] {
        list.add(base, what, |request| {
            if what == "an index" || what == "a Docker list" {
                (request.given, request.manifest) = (Given::Manifest, (OCI_MANIFEST, child.clone()));
            }
            request.headers = vec![("content-type", media_type.to_owned())];
            request.body = body;
        });
    }
}

/// Reading manifests of other media types, with and without saying so.
fn stored_kinds(list: &mut List, base: &Base) {
    for accept in ["", "*/*", DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST] {
        let what = format!("a Docker manifest, accept: {accept}");
        list.add(base, &what, |request| {
            let manifest = image(DOCKER_MANIFEST, &request.tag);
            request.path = request.path.replace(&digest(&request.manifest.1), &digest(&manifest));
            request.manifest = (DOCKER_MANIFEST, manifest);
            request.headers.clear();
            if !accept.is_empty() {
                request.headers.push(("accept", accept.to_owned()));
            }
        });
    }
}
