//! Content of every shape goes through its whole life: pushed, listed, looked at, pulled, deleted, gone.

use super::data::{self, Algorithm, Document, Made, SHAPES};
use super::steps::{self, WAYS, ask, holds, put_manifest, same};
use super::{Check, Group};
use crate::support::registry::Repository;

type Step = fn(&Repository, &Made) -> Check;

/// In this order: each needs what the ones before have left.
const STEPS: [(&str, Step); 16] = [
    ("blob-push", push_blobs),
    ("blob-head", head_blobs),
    ("blob-get", get_blobs),
    ("put-by-digest", put_by_digest),
    ("put-by-tag", put_by_tag),
    ("tag-list", list_tags),
    ("tag-list-last", list_later_tags),
    ("head-by-tag", |repository, made| by_tag(repository, made, "HEAD")),
    ("head-by-digest", |repository, made| by_digest(repository, made, "HEAD")),
    ("get-by-tag", |repository, made| by_tag(repository, made, "GET")),
    ("get-by-digest", |repository, made| by_digest(repository, made, "GET")),
    ("referrers", list_referrers),
    ("tag-delete", delete_tags),
    ("manifest-delete", delete_manifests),
    ("referrers-gone", no_referrers),
    ("blob-delete", delete_blobs),
];

pub(super) fn content_of_every_shape_named_by_sha256(group: &Group) {
    shapes(group, Algorithm::Sha256);
}

pub(super) fn content_of_every_shape_named_by_sha512(group: &Group) {
    shapes(group, Algorithm::Sha512);
}

fn shapes(group: &Group, algorithm: Algorithm) {
    for shape in SHAPES {
        let made = data::make(shape, algorithm);
        let repository = group.repository(shape, algorithm);
        for (name, step) in STEPS {
            let without_blobs = name.starts_with("blob-") && made.blobs.is_empty();
            let without_subject = name.starts_with("referrers") && !made.has_subject();
            if !without_blobs && !without_subject {
                group.case(format!("{shape}/{algorithm}/{name}"), || step(&repository, &made));
            }
        }
    }
}

fn push_blobs(repository: &Repository, made: &Made) -> Check {
    let ways = WAYS.iter().cycle();
    // An empty chunk is not a chunk: what is too small for three comes in the plain ways.
    let way = |bytes: &[u8], way| if bytes.len() < 3 { steps::Way::PostPut } else { way };
    made.blobs
        .iter()
        .zip(ways)
        .try_for_each(|(blob, (_, next))| steps::push(repository, way(blob, *next), blob, made.algorithm))
}

fn head_blobs(repository: &Repository, made: &Made) -> Check {
    made.blobs.iter().try_for_each(|blob| steps::head_blob(repository, blob, made.algorithm))
}

fn get_blobs(repository: &Repository, made: &Made) -> Check {
    made.blobs.iter().try_for_each(|blob| steps::get_blob(repository, blob, made.algorithm))
}

fn put_by_digest(repository: &Repository, made: &Made) -> Check {
    made.documents.iter().try_for_each(|document| put_manifest(repository, &document.digest, document).map(drop))
}

/// A push by tag says nothing about the algorithm and means sha256; for another, the tags come with the digest.
fn put_by_tag(repository: &Repository, made: &Made) -> Check {
    tagged(made).try_for_each(|(document, tag)| match made.algorithm {
        Algorithm::Sha256 => put_manifest(repository, tag, document).map(drop),
        Algorithm::Sha512 => {
            let put = put_manifest(repository, &format!("{}?tag={tag}", document.digest), document)?;
            put.has("OCI-Tag", tag)?.ok()
        }
    })
}

fn tagged(made: &Made) -> impl Iterator<Item = (&Document, &String)> {
    made.documents.iter().flat_map(|document| document.tags.iter().map(move |tag| (document, tag)))
}

fn sorted_tags(made: &Made) -> Vec<String> {
    let mut tags: Vec<String> = tagged(made).map(|(_, tag)| tag.clone()).collect();
    tags.sort();
    tags
}

fn list_tags(repository: &Repository, made: &Made) -> Check {
    same("tags", &steps::tags(repository, "")?, &(sorted_tags(made), None))
}

fn list_later_tags(repository: &Repository, made: &Made) -> Check {
    let mut earlier = sorted_tags(made);
    let later = earlier.split_off(earlier.len().div_ceil(2));
    let last = earlier.last().expect("every shape has a tag");
    same("tags after the first half", &steps::tags(repository, &format!("?last={last}"))?, &(later, None))
}

fn by_tag(repository: &Repository, made: &Made, method: &str) -> Check {
    tagged(made).try_for_each(|(document, tag)| steps::read_manifest(repository, method, tag, document))
}

fn by_digest(repository: &Repository, made: &Made, method: &str) -> Check {
    made.documents.iter().try_for_each(|document| steps::read_manifest(repository, method, &document.digest, document))
}

/// Whole, and for each kind that is there only those of the kind.
fn list_referrers(repository: &Repository, made: &Made) -> Check {
    let of = |document: &&Document| document.subject.is_some();
    let subject = made.documents.iter().find_map(|document| document.subject.clone()).ok_or("no subject")?;
    let kinds = made.documents.iter().filter(of).map(|document| document.listed["artifactType"].as_str());
    for kind in kinds.chain([None]) {
        let query = kind.map(|kind| format!("?artifactType={}", kind.replace('+', "%2B"))).unwrap_or_default();
        let (listed, _) = steps::referrers(repository, &format!("{subject}{query}"))?;
        let wanted = |document: &&Document| {
            document.subject.is_some() && kind.is_none_or(|kind| document.listed["artifactType"] == kind)
        };
        same("number of referrers", &listed.len(), &made.documents.iter().filter(wanted).count())?;
        for document in made.documents.iter().filter(wanted) {
            let found = listed.iter().find(|listed| listed["digest"] == document.digest.as_str());
            let found = found.ok_or_else(|| format!("{} is not listed", document.digest))?;
            let fields = ["mediaType", "digest", "size", "artifactType", "annotations"];
            fields.iter().try_for_each(|field| same(field, &found[field], &document.listed[field]))?;
        }
    }
    Ok(())
}

/// Deleting a tag leaves the manifest.
fn delete_tags(repository: &Repository, made: &Made) -> Check {
    tagged(made).try_for_each(|(document, tag)| {
        steps::delete_manifest(repository, tag)?;
        steps::read_manifest(repository, "GET", &document.digest, document)
    })?;
    same("tags", &steps::tags(repository, "")?, &(Vec::new(), None))
}

/// The last first, as nothing may lack its parts.
fn delete_manifests(repository: &Repository, made: &Made) -> Check {
    made.documents.iter().rev().try_for_each(|document| {
        steps::delete_manifest(repository, &document.digest)?;
        ask(repository, "DELETE", &format!("manifests/{}", document.digest))?.fails(404, "MANIFEST_UNKNOWN")
    })
}

fn no_referrers(repository: &Repository, made: &Made) -> Check {
    let subject = made.documents.iter().find_map(|document| document.subject.clone()).ok_or("no subject")?;
    holds("nothing refers to it any more", steps::referrers(repository, &subject)?.0.is_empty())
}

fn delete_blobs(repository: &Repository, made: &Made) -> Check {
    made.blobs.iter().try_for_each(|blob| steps::delete_blob(repository, blob, made.algorithm))
}
