//! Under which key does what lie?
//!
//! Exactly Distribution's tree, so that a store can be taken over from it and given back (`registry/storage/paths.go`
//! there). This is the only place that knows it.
//!
//! ```text
//! docker/registry/v2/
//! ├── blobs/<algorithm>/<first two characters>/<hex>/data       the content of every layer, configuration and manifest
//! └── repositories/<name>/                                      a name may lie below another: a and a/b
//!     ├── _layers/<algorithm>/<hex>/link                        this blob can be seen in this repository
//!     ├── _manifests/
//!     │   ├── revisions/<algorithm>/<hex>/link                  this blob is a manifest of this repository
//!     │   └── tags/<tag>/
//!     │       ├── current/link                                  what the tag names now
//!     │       └── index/<algorithm>/<hex>/link                  everything it ever named
//!     └── _uploads/<uuid>/
//!         ├── data                                              what has arrived
//!         ├── startedat                                         when it began: RFC 3339, in UTC, to the second
//!         ├── owner                                             ours: who began it; Distribution does not look at it
//!         └── hashstates/<algorithm>/<offset>                   the hash of that many bytes, to go on from
//! ```
//!
//! A link is the text of a digest, without a line end. A component of a name never starts with `_`, so what is beside a
//! repository cannot be taken for one.

use crate::oci::{Algorithm, Digest, RepositoryName, Tag, UploadId};
use crate::storage::Key;

/// What a repository's folder has when it is one.
pub(super) const MANIFESTS: &str = "_manifests";
/// What a repository's folder has when a blob can be seen in it, or could.
pub(super) const LAYERS: &str = "_layers";
/// What a repository's folder has while something is uploaded to it.
pub(super) const UPLOADS: &str = "_uploads";
/// The folder of a repository's tags, beside its manifests.
const TAGS: &str = "tags";
/// The object of every link.
const LINK: &str = "link";
/// Where all repositories are.
const REPOSITORIES: &str = "repositories";

const ROOT: &str = "docker/registry/v2";

/// GitLab's registry leaves this where its tags are in a database of its own and no longer in the tree.
pub(super) fn kept_in_a_database() -> Key {
    Key::new("docker/registry/lockfiles/database-in-use")
}

/// Everything.
pub(super) fn root() -> Key {
    Key::new(ROOT)
}

/// The content of a blob.
pub(super) fn blob(digest: &Digest) -> Key {
    let hex = digest.hex();
    key(&[ROOT, "blobs", digest.algorithm().as_str(), &hex[..2], hex, "data"])
}

/// The folder of all repositories, or of those whose names begin with `below` and a slash.
pub(super) fn repositories(below: &str) -> Key {
    if below.is_empty() { key(&[ROOT, REPOSITORIES]) } else { key(&[ROOT, REPOSITORIES, below]) }
}

/// Makes a blob visible in a repository.
pub(super) fn layer(name: &RepositoryName, digest: &Digest) -> Key {
    key(&[ROOT, REPOSITORIES, name.as_str(), LAYERS, digest.algorithm().as_str(), digest.hex(), LINK])
}

/// The folder that makes a repository one.
pub(super) fn manifests(name: &RepositoryName) -> Key {
    key(&[ROOT, REPOSITORIES, name.as_str(), MANIFESTS])
}

/// Makes a blob a manifest of a repository.
pub(super) fn revision(name: &RepositoryName, digest: &Digest) -> Key {
    let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
    key(&[ROOT, REPOSITORIES, name.as_str(), MANIFESTS, "revisions", algorithm, hex, LINK])
}

/// The folder of a repository's manifests: one folder each, named by the digest's hexadecimal part.
pub(super) fn revisions(name: &RepositoryName, algorithm: Algorithm) -> Key {
    key(&[ROOT, REPOSITORIES, name.as_str(), MANIFESTS, "revisions", algorithm.as_str()])
}

/// The folder of a repository's tags.
pub(super) fn tags(name: &RepositoryName) -> Key {
    key(&[ROOT, REPOSITORIES, name.as_str(), MANIFESTS, TAGS])
}

/// The folder of a tag.
pub(super) fn tag(name: &RepositoryName, tag: &Tag) -> Key {
    key(&[ROOT, REPOSITORIES, name.as_str(), MANIFESTS, TAGS, tag.as_str()])
}

/// What a tag names now.
pub(super) fn tag_current(name: &RepositoryName, tag: &Tag) -> Key {
    key(&[ROOT, REPOSITORIES, name.as_str(), MANIFESTS, TAGS, tag.as_str(), "current", LINK])
}

/// That a tag once named this.
pub(super) fn tag_index(name: &RepositoryName, tag: &Tag, digest: &Digest) -> Key {
    let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
    key(&[ROOT, REPOSITORIES, name.as_str(), MANIFESTS, TAGS, tag.as_str(), "index", algorithm, hex, LINK])
}

/// The folder of a repository's uploads.
pub(super) fn uploads(name: &RepositoryName) -> Key {
    key(&[ROOT, REPOSITORIES, name.as_str(), UPLOADS])
}

/// The folder of an upload.
pub(super) fn upload(name: &RepositoryName, upload: UploadId) -> Key {
    uploads(name).join(&upload.to_string())
}

/// What has arrived of an upload.
pub(super) fn upload_data(name: &RepositoryName, id: UploadId) -> Key {
    upload(name, id).join("data")
}

/// When an upload began.
pub(super) fn upload_started(name: &RepositoryName, id: UploadId) -> Key {
    upload(name, id).join("startedat")
}

/// Who began an upload.
pub(super) fn upload_owner(name: &RepositoryName, id: UploadId) -> Key {
    upload(name, id).join("owner")
}

/// The folder of an upload's hash states, named by their offsets.
pub(super) fn hash_states(name: &RepositoryName, id: UploadId) -> Key {
    upload(name, id).join(&format!("hashstates/{}", Algorithm::Sha256))
}

/// The hash state after so many bytes.
pub(super) fn hash_state(name: &RepositoryName, id: UploadId, offset: u64) -> Key {
    hash_states(name, id).join(&offset.to_string())
}

/// The components of a key, joined: one allocation, for every request makes some of them.
fn key(components: &[&str]) -> Key {
    Key::new(components.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_distributions() {
        let name: RepositoryName = "g/p".parse().unwrap();
        let tag_name: Tag = "v1".parse().unwrap();
        let id: UploadId = "0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10".parse().unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"");
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let repository = "docker/registry/v2/repositories/g/p";
        for (key, expected) in [
            (blob(&digest), format!("docker/registry/v2/blobs/sha256/e3/{hex}/data")),
            (layer(&name, &digest), format!("{repository}/_layers/sha256/{hex}/link")),
            (revision(&name, &digest), format!("{repository}/_manifests/revisions/sha256/{hex}/link")),
            (tag_current(&name, &tag_name), format!("{repository}/_manifests/tags/v1/current/link")),
            (tag_index(&name, &tag_name, &digest), format!("{repository}/_manifests/tags/v1/index/sha256/{hex}/link")),
            (tag(&name, &tag_name), format!("{repository}/_manifests/tags/v1")),
            (manifests(&name), format!("{repository}/_manifests")),
            (upload_data(&name, id), format!("{repository}/_uploads/{id}/data")),
            (upload_started(&name, id), format!("{repository}/_uploads/{id}/startedat")),
            (upload_owner(&name, id), format!("{repository}/_uploads/{id}/owner")),
            (hash_states(&name, id), format!("{repository}/_uploads/{id}/hashstates/sha256")),
            (hash_state(&name, id, 5), format!("{repository}/_uploads/{id}/hashstates/sha256/5")),
            (repositories(""), "docker/registry/v2/repositories".to_owned()),
            (repositories("g"), "docker/registry/v2/repositories/g".to_owned()),
        ] {
            assert_eq!(key.as_str(), expected);
        }
    }
}
