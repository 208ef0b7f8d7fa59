//! What must hold for any bytes that somebody sends as a request?
//!
//! The input is written as HTTP/1.1 writes it, method and target, header lines, an empty line, a body; whatever else it
//! is, it must not panic, and what is accepted must be what the rest of the program takes it for. `tests/fuzz.rs` does
//! the same in short, without the fuzzer.

use bytes::Bytes;
use http::Method;
use pierhead::exchange::Origin;
use pierhead::oci::manifest::Referrer;
use pierhead::oci::range::{Requested, Span};
use pierhead::oci::{
    self, Access, Algorithm, Digest, Endpoint, Manifest, MediaType, Reference, RepositoryName, Scope, Tag,
};

/// The size of the object that ranges are resolved in.
const SIZE: u64 = 2048;

/// Takes a request apart with every parser that such bytes meet.
pub(crate) fn check(data: &[u8]) {
    let (head, body) = split(data, b"\n\n");
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split('\n');
    check_target(lines.next().unwrap_or_default());
    let mut content_type = None;
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        check_header(name, value);
        if name == "Content-Type" {
            content_type = Some(value);
        }
    }
    check_manifest(body, content_type);
}

fn check_target(line: &str) {
    let (method, target) = line.split_once(' ').unwrap_or_default();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let parsed = Endpoint::parse(&method, path, query);
    assert_eq!(parsed, Endpoint::parse(&method, path, query), "the same request is the same endpoint");
    let Ok(endpoint) = parsed else { return };
    if let Some(name) = endpoint.repository() {
        check_name(name);
        let guarded =
            |access: &Access| *access == Access::repository(name, &access.actions) && !access.actions.is_empty();
        assert!(endpoint.access().iter().all(guarded) && !endpoint.access().is_empty(), "it is guarded: {endpoint:?}");
    }
    match &endpoint {
        Endpoint::ManifestRead { reference: Reference::Tag(tag), .. } => check_tag(tag),
        Endpoint::ManifestWrite { tags, .. } => tags.iter().for_each(check_tag),
        Endpoint::BlobRead { digest, .. } | Endpoint::UploadCommit { digest, .. } => check_digest(digest),
        Endpoint::UploadStart { mount: Some(mount), .. } => {
            check_digest(&mount.digest);
            mount.from.iter().for_each(check_name);
        }
        _ => {}
    }
}

fn check_header(name: &str, value: &str) {
    match name {
        "Range" => {
            if let Requested::Part(range) = Requested::parse(value)
                && let Some(span) = range.within(SIZE)
            {
                assert!(span.first <= span.last && span.last < SIZE, "a part lies within the whole");
            }
        }
        "Content-Range" => {
            if let Ok(span) = value.parse::<Span>() {
                assert!(span.first <= span.last && span.length() > 0, "a chunk has a byte");
            }
        }
        "Content-Type" => {
            if let Ok(kind) = MediaType::from_content_type(value) {
                assert_eq!(
                    MediaType::from_content_type(kind.as_str()).as_ref(),
                    Ok(&kind),
                    "a type is its own spelling"
                );
            }
        }
        "Scope" => {
            for access in oci::scope::parse_all([value]) {
                let again = access.to_string().parse::<Scope>();
                assert_eq!(again.map(|scope| scope.0).ok(), Some(access), "a scope is what it says");
            }
        }
        "Origin" => {
            if let Ok(origin) = value.parse::<Origin>() {
                assert_eq!(origin.to_string().parse::<Origin>().ok(), Some(origin), "an origin is what it says");
            }
        }
        _ => {}
    }
}

fn check_manifest(body: &[u8], content_type: Option<&str>) {
    let bytes = Bytes::copy_from_slice(body);
    let _ = Manifest::served_as(&bytes);
    let Ok(manifest) = Manifest::parse(bytes.clone(), content_type) else { return };
    assert_eq!(manifest.bytes, bytes, "what is stored is what was sent");
    let named = manifest.config.iter().chain(&manifest.layers).chain(&manifest.children).chain(&manifest.subject);
    named.for_each(|descriptor| check_digest(&descriptor.digest));
    if manifest.subject.is_some() {
        let digest = Digest::of(Algorithm::Sha256, body);
        assert!(Referrer::new(manifest, &digest).weight() > 0, "a referrer takes room");
    }
}

/// What keys are made of cannot leave its folder, nor be taken for what lies beside a repository.
fn check_name(name: &RepositoryName) {
    assert!(name.as_str().len() <= 255 && name.as_str().parse().as_ref() == Ok(name), "a name is its own spelling");
    let plain =
        |part: &str| !part.is_empty() && !part.starts_with(['.', '_', '-']) && !part.contains(['%', '\\', '\0']);
    assert!(name.components().all(plain), "{name}");
}

fn check_tag(tag: &Tag) {
    assert!(!tag.as_str().starts_with(['.', '-']) && !tag.as_str().contains('/') && tag.as_str().len() <= 128, "{tag}");
}

fn check_digest(digest: &Digest) {
    assert_eq!(digest.to_string().parse().as_ref(), Ok(digest), "a digest is its own spelling");
    assert_eq!(digest.hex().len(), digest.algorithm().hex_length(), "and as long as its algorithm says");
}

fn split<'a>(data: &'a [u8], at: &[u8]) -> (&'a [u8], &'a [u8]) {
    match data.windows(at.len()).position(|window| window == at) {
        Some(found) => (&data[..found], &data[found + at.len()..]),
        None => (data, b""),
    }
}
