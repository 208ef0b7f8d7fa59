//! Uploads on their way: how far they are, going on, giving up.

use reqwest::Method;

use super::Group;
use super::data::{ALGORITHMS, noise};
use super::steps::{answer, ask, begin, finish, holds, patch, range, same};

pub(super) fn uploads_are_asked_about_resumed_and_given_up(group: &Group) {
    for algorithm in ALGORITHMS {
        let repository = group.repository("uploads", algorithm);
        let blob = noise("upload", algorithm as u64, 3000);
        let digest = algorithm.digest(&blob);
        let id = |name: &str| format!("upload/{algorithm}/{name}");
        let send = |upload: &str, from: usize, to: usize| patch(&repository, upload, &blob[from..to], Some(from));

        group.case(id("cancel-unused"), || {
            let upload = begin(&repository)?;
            ask(&repository, "DELETE", &upload)?.is(204)?;
            ask(&repository, "GET", &upload)?.fails(404, "BLOB_UPLOAD_UNKNOWN")
        });
        group.case(id("cancel-begun"), || {
            let upload = send(&begin(&repository)?, 0, 1000)?.is(202)?.location()?;
            ask(&repository, "DELETE", &upload)?.is(204)?;
            ask(&repository, "GET", &upload)?.fails(404, "BLOB_UPLOAD_UNKNOWN")?;
            send(&upload, 1000, 2000)?.fails(404, "BLOB_UPLOAD_UNKNOWN")?;
            finish(&repository, &upload, &digest, b"", None)?.fails(404, "BLOB_UPLOAD_UNKNOWN")?;
            ask(&repository, "DELETE", &upload)?.fails(404, "BLOB_UPLOAD_UNKNOWN")
        });
        group.case(id("unknown"), || {
            let unknown = "blobs/uploads/00000000-0000-4000-8000-000000000000";
            ask(&repository, "GET", unknown)?.fails(404, "BLOB_UPLOAD_UNKNOWN")?;
            ask(&repository, "GET", "blobs/uploads/nonsense")?.fails(404, "BLOB_UPLOAD_UNKNOWN")
        });
        group.case(id("of-another-repository"), || {
            let upload = begin(&repository)?;
            let tail = upload.split("/blobs/uploads/").nth(1).ok_or("no id")?;
            let other = group.repository("uploads-other", algorithm);
            ask(&other, "GET", &format!("blobs/uploads/{tail}"))?.fails(404, "BLOB_UPLOAD_UNKNOWN")
        });
        group.case(id("status"), || {
            let upload = begin(&repository)?;
            let status = |length: usize| {
                let status = ask(&repository, "GET", &upload)?.is(204)?.has("Range", &range(length))?;
                holds("it has an id", status.header("Docker-Upload-UUID").is_some())?;
                status.location()
            };
            let upload = send(&status(0)?, 0, 1)?.is(202)?.location()?;
            send(&upload, 1, 1000)?.is(202)?;
            status(1000).map(drop)
        });
        group.case(id("nothing-sent"), || {
            let upload = begin(&repository)?;
            let nothing = patch(&repository, &upload, b"", None)?.is(202)?.has("Range", "0-0")?;
            finish(&repository, &nothing.location()?, &digest, &blob, None)?.is(201)?.ok()
        });
        group.case(id("stream-after-chunk"), || {
            let upload = send(&begin(&repository)?, 0, 1000)?.is(202)?.location()?;
            let upload = patch(&repository, &upload, &blob[1000..2000], None)?.is(202)?.has("Range", &range(2000))?;
            finish(&repository, &upload.location()?, &digest, &blob[2000..], None)?.is(201)?.ok()
        });
        group.case(id("chunk-twice"), || {
            let upload = send(&begin(&repository)?, 0, 1000)?.is(202)?.location()?;
            let refused = send(&upload, 0, 1000)?.is(416)?.has("Range", &range(1000))?;
            let upload = send(&refused.location()?, 1000, 3000)?.is(202)?.location()?;
            finish(&repository, &upload, &digest, b"", None)?.is(201)?.ok()
        });
        group.case(id("chunk-of-another-length"), || {
            let upload = begin(&repository)?;
            let chunk = repository.request(Method::PATCH, &upload).header("Content-Range", "0-1999");
            answer(chunk.body(blob[..1000].to_vec()))?.one_of(&[400, 416])?.ok()
        });
        for (name, value) in [("words", "zero-one"), ("backwards", "5-2"), ("open", "0-"), ("empty", "")] {
            group.case(id(&format!("chunk-range-{name}")), || {
                let upload = begin(&repository)?;
                let chunk = repository.request(Method::PATCH, &upload).header("Content-Range", value);
                answer(chunk.body(blob[..10].to_vec()))?.one_of(&[400, 416])?.ok()
            });
        }
        group.case(id("wrong-then-right-digest"), || {
            let upload = send(&begin(&repository)?, 0, 3000)?.is(202)?.location()?;
            finish(&repository, &upload, &algorithm.digest(b"other"), b"", None)?.fails(400, "DIGEST_INVALID")?;
            finish(&repository, &upload, &digest, b"", None)?.is(201)?.ok()
        });
        group.case(id("without-digest"), || {
            let upload = begin(&repository)?;
            ask(&repository, "PUT", &upload)?.fails(400, "DIGEST_INVALID")
        });
        group.case(id("digest-of-other-algorithm"), || {
            let upload = send(&begin(&repository)?, 0, 3000)?.is(202)?.location()?;
            let other = algorithm.other().digest(&blob);
            let done =
                finish(&repository, &upload, &other, b"", None)?.is(201)?.has("Docker-Content-Digest", &other)?;
            same("bytes", &ask(&repository, "GET", &done.location()?)?.is(200)?.body, &blob)
        });
        group.case(id("digest-algorithm"), || {
            let begun = ask(&repository, "POST", &format!("blobs/uploads/?digest-algorithm={algorithm}"))?.is(202)?;
            let upload = send(&begun.location()?, 0, 3000)?.is(202)?.location()?;
            let done = finish(&repository, &upload, &digest, b"", None)?.is(201)?;
            done.has("Docker-Content-Digest", &digest)?.ok()
        });
        group.case(id("digest-algorithm-unknown"), || {
            ask(&repository, "POST", "blobs/uploads/?digest-algorithm=md5")?.fails(400, "DIGEST_INVALID")
        });
        group.case(id("finished-twice"), || {
            let upload = begin(&repository)?;
            finish(&repository, &upload, &digest, &blob, None)?.is(201)?;
            finish(&repository, &upload, &digest, b"", None)?.is(201)?.has("Docker-Content-Digest", &digest)?.ok()
        });
    }
}
