//! Requests and what is expected of their answers.

use reqwest::Method;
use reqwest::blocking::RequestBuilder;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::Check;
use super::data::{Algorithm, Document};
use crate::support::registry::Repository;

/// An answer that has come whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Sends a request and reads the answer to its end.
pub(super) fn answer(request: RequestBuilder) -> Result<Answer, String> {
    let answer = request.send().map_err(|error| format!("{error:?}"))?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = answer.bytes().map_err(|error| format!("{status}, then {error:?}"))?.to_vec();
    Ok(Answer { status, headers, body })
}

/// Asks without a body.
pub(super) fn ask(repository: &Repository, method: &str, path: &str) -> Result<Answer, String> {
    answer(repository.request(method.parse::<Method>().expect("a method"), path))
}

impl Answer {
    pub(super) fn is(self, status: u16) -> Result<Self, String> {
        self.one_of(&[status])
    }

    pub(super) fn one_of(self, statuses: &[u16]) -> Result<Self, String> {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]);
        if statuses.contains(&self.status) {
            Ok(self)
        } else {
            Err(format!("{} {body}, not {statuses:?}", self.status))
        }
    }

    /// An error of this status and code.
    pub(super) fn fails(self, status: u16, code: &str) -> Check {
        let this = self.is(status)?;
        let found = this.json()?["errors"][0]["code"].clone();
        same("error code", &found, &Value::from(code))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn has(self, name: &str, value: &str) -> Result<Self, String> {
        same(name, &self.header(name), &Some(value))?;
        Ok(self)
    }

    pub(super) fn location(&self) -> Result<String, String> {
        self.header("Location").map(str::to_owned).ok_or_else(|| "no Location".to_owned())
    }

    pub(super) fn json(&self) -> Result<Value, String> {
        serde_json::from_slice(&self.body).map_err(|error| error.to_string())
    }

    /// The answer ends here: nothing more is expected.
    pub(super) fn ok(self) -> Check {
        Ok(())
    }
}

/// Equal, or a message.
pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Check {
    if found == expected { Ok(()) } else { Err(format!("{what} is {found:?}, not {expected:?}")) }
}

/// True, or a message.
pub(super) fn holds(what: &str, condition: bool) -> Check {
    if condition { Ok(()) } else { Err(format!("not so: {what}")) }
}

/// How a blob comes in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    PostOnly,
    PostPut,
    Stream,
    Chunks { count: usize, last_in_put: bool, gap: bool },
}

pub(super) const WAYS: [(&str, Way); 8] = [
    ("post-only", Way::PostOnly),
    ("post-put", Way::PostPut),
    ("stream", Way::Stream),
    ("chunked-single", Way::Chunks { count: 1, last_in_put: false, gap: false }),
    ("chunked-multi", Way::Chunks { count: 3, last_in_put: false, gap: false }),
    ("chunked-multi-last-in-put", Way::Chunks { count: 3, last_in_put: true, gap: false }),
    ("chunked-out-of-order", Way::Chunks { count: 3, last_in_put: false, gap: true }),
    ("chunked-out-of-order-last-in-put", Way::Chunks { count: 3, last_in_put: true, gap: true }),
];

/// Pushes bytes under a digest and looks at every answer; returns the last, whatever it is.
pub(super) fn send(repository: &Repository, way: Way, bytes: &[u8], digest: &str) -> Result<Answer, String> {
    if let Way::PostOnly = way {
        let post = repository.request(Method::POST, &format!("blobs/uploads/?digest={digest}"));
        return answer(post.header("Content-Type", "application/octet-stream").body(bytes.to_vec()));
    }
    let begun = begin(repository)?;
    match way {
        Way::PostOnly | Way::PostPut => finish(repository, &begun, digest, bytes, None),
        Way::Stream => {
            let sent = patch(repository, &begun, bytes, None)?.is(202)?;
            finish(repository, &sent.has("Range", &range(bytes.len()))?.location()?, digest, b"", None)
        }
        Way::Chunks { count, last_in_put, gap } => {
            send_chunks(repository, begun, bytes, digest, count, last_in_put, gap)
        }
    }
}

fn send_chunks(
    repository: &Repository,
    mut upload: String,
    bytes: &[u8],
    digest: &str,
    count: usize,
    last_in_put: bool,
    gap: bool,
) -> Result<Answer, String> {
    let size = bytes.len().div_ceil(count).max(1);
    let chunks: Vec<(usize, &[u8])> = bytes.chunks(size).enumerate().map(|(i, chunk)| (i * size, chunk)).collect();
    let patches = chunks.len() - usize::from(last_in_put);
    for (number, (start, chunk)) in chunks[..patches].iter().enumerate() {
        if gap {
            // One too far, or back to the beginning when there is none. Nothing of it may be kept.
            let (wrong, bytes) = chunks.get(number + 1).copied().filter(|_| count > 1).unwrap_or(chunks[0]);
            let refused = match last_in_put && wrong == chunks[chunks.len() - 1].0 {
                true => finish(repository, &upload, digest, bytes, Some(wrong))?,
                false => patch(repository, &upload, bytes, Some(wrong))?,
            };
            let refused = refused.is(416)?.has("Range", &range(*start))?;
            holds("416 says where to go on", refused.header("Location").is_some())?;
            upload = ask(repository, "GET", &upload)?.is(204)?.has("Range", &range(*start))?.location()?;
        }
        let sent = patch(repository, &upload, chunk, Some(*start))?.is(202)?;
        upload = sent.has("Range", &range(start + chunk.len()))?.location()?;
    }
    match chunks.last() {
        Some((start, chunk)) if last_in_put => finish(repository, &upload, digest, chunk, Some(*start)),
        _ => finish(repository, &upload, digest, b"", None),
    }
}

/// What `Range` says after so many bytes.
pub(super) fn range(length: usize) -> String {
    format!("0-{}", length.saturating_sub(1))
}

/// Begins an upload.
pub(super) fn begin(repository: &Repository) -> Result<String, String> {
    let begun = ask(repository, "POST", "blobs/uploads/")?.is(202)?.has("Range", "0-0")?;
    holds("the upload has an id", begun.header("Docker-Upload-UUID").is_some())?;
    begun.location()
}

/// Sends bytes to an upload; as a chunk when `start` is given.
pub(super) fn patch(
    repository: &Repository,
    upload: &str,
    bytes: &[u8],
    start: Option<usize>,
) -> Result<Answer, String> {
    answer(chunk(repository.request(Method::PATCH, upload), bytes, start))
}

/// Ends an upload, perhaps with bytes.
pub(super) fn finish(
    repository: &Repository,
    upload: &str,
    digest: &str,
    bytes: &[u8],
    start: Option<usize>,
) -> Result<Answer, String> {
    let separator = if upload.contains('?') { '&' } else { '?' };
    let put = repository.request(Method::PUT, &format!("{upload}{separator}digest={digest}"));
    answer(chunk(put, bytes, start))
}

fn chunk(request: RequestBuilder, bytes: &[u8], start: Option<usize>) -> RequestBuilder {
    let request = match start {
        Some(start) => request.header("Content-Range", format!("{start}-{}", start + bytes.len().max(1) - 1)),
        None => request,
    };
    request.header("Content-Type", "application/octet-stream").body(bytes.to_vec())
}

/// Pushes a blob and requires that it is there, under its name, and that the answer says so.
pub(super) fn push(repository: &Repository, way: Way, bytes: &[u8], algorithm: Algorithm) -> Check {
    let digest = algorithm.digest(bytes);
    let done = send(repository, way, bytes, &digest)?.is(201)?.has("Docker-Content-Digest", &digest)?;
    let location = done.location()?;
    holds("Location names the blob", location.ends_with(&format!("/blobs/{digest}")))?;
    ask(repository, "HEAD", &location)?.is(200)?.ok()
}

/// HEAD of a blob.
pub(super) fn head_blob(repository: &Repository, bytes: &[u8], algorithm: Algorithm) -> Check {
    let digest = algorithm.digest(bytes);
    let head = ask(repository, "HEAD", &format!("blobs/{digest}"))?.is(200)?;
    let head = head.has("Docker-Content-Digest", &digest)?.has("Content-Length", &bytes.len().to_string())?;
    same("body of HEAD", &head.body.len(), &0)
}

/// GET of a blob.
pub(super) fn get_blob(repository: &Repository, bytes: &[u8], algorithm: Algorithm) -> Check {
    let digest = algorithm.digest(bytes);
    let got = ask(repository, "GET", &format!("blobs/{digest}"))?.is(200)?;
    let got = got.has("Docker-Content-Digest", &digest)?.has("Content-Length", &bytes.len().to_string())?;
    holds("the bytes are those that were pushed", got.body == bytes)
}

/// DELETE of a blob: it is gone at once.
pub(super) fn delete_blob(repository: &Repository, bytes: &[u8], algorithm: Algorithm) -> Check {
    let path = format!("blobs/{}", algorithm.digest(bytes));
    ask(repository, "DELETE", &path)?.is(202)?;
    ask(repository, "HEAD", &path)?.is(404)?;
    ask(repository, "DELETE", &path)?.fails(404, "BLOB_UNKNOWN")
}

/// PUT of a manifest, with the headers that every answer must have.
pub(super) fn put_manifest(repository: &Repository, reference: &str, document: &Document) -> Result<Answer, String> {
    let put = put_bytes(repository, reference, &document.bytes, document.media_type)?.is(201)?;
    let put = put.has("Docker-Content-Digest", &document.digest)?;
    let location = put.location()?;
    holds("Location names the manifest", location.ends_with(&format!("/manifests/{}", document.digest)))?;
    same("OCI-Subject", &put.header("OCI-Subject"), &document.subject.as_deref())?;
    Ok(put)
}

/// PUT of whatever as a manifest.
pub(super) fn put_bytes(repository: &Repository, reference: &str, bytes: &[u8], kind: &str) -> Result<Answer, String> {
    let put = repository.request(Method::PUT, &format!("manifests/{reference}"));
    answer(put.header("Content-Type", kind).body(bytes.to_vec()))
}

/// HEAD or GET of a manifest.
pub(super) fn read_manifest(repository: &Repository, method: &str, reference: &str, document: &Document) -> Check {
    let read = ask(repository, method, &format!("manifests/{reference}"))?.is(200)?;
    let read = read.has("Docker-Content-Digest", &document.digest)?.has("Content-Type", document.media_type)?;
    let read = read.has("Content-Length", &document.bytes.len().to_string())?;
    let expected: &[u8] = if method == "HEAD" { b"" } else { &document.bytes };
    holds("the bytes are those that were pushed", read.body == expected)
}

/// DELETE of a tag or a manifest: it is gone at once.
pub(super) fn delete_manifest(repository: &Repository, reference: &str) -> Check {
    let path = format!("manifests/{reference}");
    ask(repository, "DELETE", &path)?.is(202)?;
    ask(repository, "HEAD", &path)?.is(404)?;
    ask(repository, "GET", &path)?.fails(404, "MANIFEST_UNKNOWN")
}

/// The tags of a page, and where the next one is.
pub(super) fn tags(repository: &Repository, query: &str) -> Result<(Vec<String>, Option<String>), String> {
    let path = if query.starts_with('/') { query.to_owned() } else { format!("tags/list{query}") };
    let page = ask(repository, "GET", &path)?.is(200)?;
    let tags = serde_json::from_value(page.json()?["tags"].clone()).map_err(|error| error.to_string())?;
    Ok((tags, next(&page)?))
}

/// The referrers of a page, and where the next one is.
pub(super) fn referrers(repository: &Repository, path: &str) -> Result<(Vec<Value>, Option<String>), String> {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("referrers/{path}") };
    let index = "application/vnd.oci.image.index.v1+json";
    let page = ask(repository, "GET", &path)?.is(200)?.has("Content-Type", index)?;
    let filtered = path.contains("artifactType=").then_some("artifactType");
    same("OCI-Filters-Applied", &page.header("OCI-Filters-Applied"), &filtered)?;
    let body = page.json()?;
    same("schemaVersion", &body["schemaVersion"], &Value::from(2))?;
    same("mediaType", &body["mediaType"], &Value::from(index))?;
    let manifests = body["manifests"].as_array().cloned().ok_or("manifests is no list")?;
    Ok((manifests, next(&page)?))
}

/// The target of `Link: <TARGET>; rel="next"`.
fn next(page: &Answer) -> Result<Option<String>, String> {
    let Some(link) = page.header("Link") else { return Ok(None) };
    let target = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
    target.map(|target| Some(target.to_owned())).ok_or_else(|| format!("what link is {link}?"))
}
