//! Registries with other settings: one that may not delete, one that may not change, one that nobody guards, and those that do not look whether
//! what a manifest names is there.

use serde_json::json;

use super::data::{self, ALGORITHMS, Algorithm, Document, Made, noise};
use super::manifests::push_blobs;
use super::steps::{self, Way, ask, put_manifest, same};
use super::{Check, Group, path};
use crate::support::pierhead::Site;
use crate::support::registry::Repository;

pub(super) fn a_registry_without_deletion_says_so_and_keeps_everything(group: &Group) {
    let site = Site::new();
    site.configure(&["registry: { storage: { filesystem: { rootdirectory: tree }, delete: { enabled: false } }, http: { addr: off } }"]);
    let _server = site.start();
    for algorithm in ALGORITHMS {
        let repository = site.admin().repository(&path("kept", algorithm), "pull,push,delete");
        let made = data::make("artifact", algorithm);
        let (blob, document) = (&made.blobs[0], &made.documents[0]);
        let id = |name: &str| format!("kept/{algorithm}/{name}");
        group.case(id("push"), || {
            made.blobs.iter().try_for_each(|blob| steps::push(&repository, Way::PostPut, blob, algorithm))?;
            put_manifest(&repository, &format!("{}?tag=latest", document.digest), document).map(drop)
        });
        group.case(id("delete-tag"), || ask(&repository, "DELETE", "manifests/latest")?.fails(405, "UNSUPPORTED"));
        group.case(id("delete-manifest"), || {
            ask(&repository, "DELETE", &format!("manifests/{}", document.digest))?.fails(405, "UNSUPPORTED")
        });
        group.case(id("delete-blob"), || {
            ask(&repository, "DELETE", &format!("blobs/{}", algorithm.digest(blob)))?.fails(405, "UNSUPPORTED")
        });
        group.case(id("pull-manifest"), || steps::read_manifest(&repository, "GET", "latest", document));
        group.case(id("pull-blob"), || steps::get_blob(&repository, blob, algorithm));
    }
}

const WRITABLE: &str = "registry: { storage: { filesystem: { rootdirectory: tree } }, http: { addr: off } }";
const READ_ONLY: &str = "registry: { storage: { filesystem: { rootdirectory: tree }, maintenance: { readonly: { enabled: true } } }, http: { addr: off } }";

pub(super) fn a_registry_that_is_read_only_serves_everything_and_changes_nothing(group: &Group) {
    let site = Site::new();
    site.configure(&[WRITABLE]);
    let server = site.start();
    let pushed = ALGORITHMS.map(|algorithm| {
        let repository = site.admin().repository(&path("frozen", algorithm), "pull,push,delete");
        let made = data::make("artifact", algorithm);
        group.case(format!("frozen/{algorithm}/push"), || {
            push_blobs(&repository, &made)?;
            let document = &made.documents[0];
            put_manifest(&repository, &format!("{}?tag=latest", document.digest), document).map(drop)
        });
        (algorithm, made, steps::begin(&repository).expect("begun"))
    });
    assert!(server.stop().success());
    site.configure(&[READ_ONLY]);
    let _server = site.start();
    for (algorithm, made, upload) in pushed {
        let repository = site.admin().repository(&path("frozen", algorithm), "pull,push,delete");
        pulls_from_frozen(group, &repository, &made);
        let (document, blob) = (&made.documents[0].digest, algorithm.digest(&made.blobs[0]));
        let upload = upload.split('?').next().expect("a path");
        for (name, method, path) in [
            ("put-tag", "PUT", "manifests/latest".to_owned()),
            ("put-digest", "PUT", format!("manifests/{document}?tag=other")),
            ("delete-tag", "DELETE", "manifests/latest".to_owned()),
            ("delete-tag-by-reference", "DELETE", "tags/reference/latest".to_owned()),
            ("delete-manifest", "DELETE", format!("manifests/{document}")),
            ("delete-blob", "DELETE", format!("blobs/{blob}")),
            ("begin", "POST", "blobs/uploads/".to_owned()),
            ("post-only", "POST", format!("blobs/uploads/?digest={blob}")),
            ("mount", "POST", format!("blobs/uploads/?mount={blob}")),
            ("patch", "PATCH", upload.to_owned()),
            ("finish", "PUT", format!("{upload}?digest={blob}")),
            ("cancel", "DELETE", upload.to_owned()),
            ("no-such-method", "POST", "manifests/latest".to_owned()),
        ] {
            group.case(format!("frozen/{algorithm}/{name}"), || {
                let refused = ask(&repository, method, &path)?.is(405)?.has("Allow", "GET, HEAD")?;
                same("body", &refused.body.as_slice(), &b"Method not allowed\n".as_slice())?;
                refused.has("Content-Type", "text/plain; charset=utf-8")?.ok()
            });
        }
        group.case(format!("frozen/{algorithm}/nothing-changed"), || {
            same("tags", &steps::tags(&repository, "")?.0, &vec!["latest".to_owned()])?;
            steps::read_manifest(&repository, "GET", document, &made.documents[0])?;
            steps::get_blob(&repository, &made.blobs[0], algorithm)?;
            ask(&repository, "GET", upload)?.is(204)?.has("Range", "0-0")?.ok()
        });
    }
}

fn pulls_from_frozen(group: &Group, repository: &Repository, made: &Made) {
    let id = |name: &str| format!("frozen/{}/{name}", made.algorithm);
    let document = &made.documents[0];
    for method in ["GET", "HEAD"] {
        let name = |what: &str| id(&format!("{}-{what}", method.to_lowercase()));
        group.case(name("tag"), || steps::read_manifest(repository, method, "latest", document));
        group.case(name("digest"), || steps::read_manifest(repository, method, &document.digest, document));
    }
    group.case(id("get-blob"), || {
        made.blobs.iter().try_for_each(|blob| steps::get_blob(repository, blob, made.algorithm))
    });
    group.case(id("head-blob"), || {
        made.blobs.iter().try_for_each(|blob| steps::head_blob(repository, blob, made.algorithm))
    });
    group.case(id("referrers"), || same("referrers", &steps::referrers(repository, &document.digest)?.0.len(), &0));
}

pub(super) fn where_nobody_guards_a_blob_is_mounted_from_anywhere(group: &Group) {
    let site = Site::new();
    site.configure(&[
        "registry: { storage: { filesystem: { rootdirectory: tree } }, http: { addr: off }, auth: { none: {} } }",
    ]);
    let _server = site.start();
    let registry = site.registry(None).unguarded();
    for algorithm in ALGORITHMS {
        let of = |name: &str| registry.repository(&path(name, algorithm), "all");
        let (source, target) = (of("unguarded-source"), of("unguarded"));
        let from = path("unguarded-source", algorithm);
        for (name, query) in [("mount", format!("&from={from}")), ("mount-anonymous", String::new())] {
            let blob = noise(name, 7 + algorithm as u64, 512);
            let digest = algorithm.digest(&blob);
            let mount = format!("blobs/uploads/?mount={digest}{query}");
            let id = |what: &str| format!("unguarded/{algorithm}/{name}{what}");
            group.case(id("-missing"), || ask(&target, "POST", &mount)?.is(202)?.ok());
            group.case(id(""), || {
                steps::push(&source, Way::PostPut, &blob, algorithm)?;
                ask(&target, "POST", &mount)?.is(201)?.has("Docker-Content-Digest", &digest)?;
                steps::get_blob(&target, &blob, algorithm)
            });
        }
    }
}

pub(super) fn where_nobody_looks_sparse_content_is_taken(group: &Group) {
    for (name, validation, blobs_too) in [
        ("unvalidated", "disabled: true", true),
        ("no-platforms", "manifests: { indexes: { platforms: none } }", false),
    ] {
        let site = Site::new();
        site.configure(&[&format!(
            "registry: {{ storage: {{ filesystem: {{ rootdirectory: tree }} }}, http: {{ addr: off }}, validation: {{ {validation} }} }}"
        )]);
        let _server = site.start();
        for algorithm in ALGORITHMS {
            let repository = site.admin().repository(&path(name, algorithm), "pull,push");
            let (image, index) = sparse(algorithm);
            let id = |what: &str| format!("{name}/{algorithm}/{what}");
            group.case(id("without-child"), || taken(&repository, &index));
            group.case(id("without-blobs"), || match blobs_too {
                true => taken(&repository, &image),
                false => {
                    let put = steps::put_bytes(&repository, &image.digest, &image.bytes, image.media_type)?;
                    put.fails(400, "MANIFEST_BLOB_UNKNOWN")
                }
            });
        }
    }
}

/// An image whose blobs nobody pushes, and an index of it.
fn sparse(algorithm: Algorithm) -> (Document, Document) {
    let mut made = Made::new("sparse", algorithm);
    let child = made.plain(json!({}));
    made.index(&[child], json!({}));
    (made.documents[0].clone(), made.documents[1].clone())
}

fn taken(repository: &Repository, document: &Document) -> Check {
    put_manifest(repository, &document.digest, document)?;
    steps::read_manifest(repository, "GET", &document.digest, document)
}
