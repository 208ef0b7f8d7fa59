//! A registry that may not delete: what is there stays, and the answer says why.

use super::data::{self, ALGORITHMS};
use super::steps::{self, Way, ask, put_manifest};
use super::{Group, path};
use crate::support::pierhead::Site;

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
