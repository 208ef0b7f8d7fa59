//! Manifests that are refused, further tags, headers, and rights.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use super::data::{ALGORITHMS, Algorithm, Made, OCI_INDEX, OCI_MANIFEST, noise};
use super::steps::{self, Way, answer, ask, holds, put_bytes, put_manifest, same};
use super::{Check, Group, path};
use crate::support::registry::Repository;

const LIMIT: usize = 4 << 20;

/// A repository with the blobs of an image.
fn prepared(group: &Group, name: &str, algorithm: Algorithm) -> (Repository, Made) {
    let repository = group.repository(name, algorithm);
    let mut made = Made::new(name, algorithm);
    made.plain(json!({}));
    push_blobs(&repository, &made).expect("blobs can be pushed");
    (repository, made)
}

/// Pushes all the blobs, so that the documents over them can follow.
pub(super) fn push_blobs(repository: &Repository, made: &Made) -> Check {
    made.blobs.iter().try_for_each(|blob| steps::push(repository, Way::PostPut, blob, made.algorithm))
}

pub(super) fn manifests_that_cannot_be_are_refused(group: &Group) {
    for algorithm in ALGORITHMS {
        let (repository, made) = prepared(group, "refusals", algorithm);
        let image = &made.documents[0];
        let id = |name: &str| format!("manifest/{algorithm}/{name}");
        let refused = |bytes: &[u8], kind: &str, code: &str| {
            let digest = algorithm.digest(bytes);
            put_bytes(&repository, &digest, bytes, kind)?.fails(400, code)?;
            ask(&repository, "GET", &format!("manifests/{digest}"))?.fails(404, "MANIFEST_UNKNOWN")
        };
        group.case(id("bad-digest-image"), || {
            let spaced = [&image.bytes[..], b"  "].concat();
            put_bytes(&repository, &image.digest, &spaced, OCI_MANIFEST)?.fails(400, "DIGEST_INVALID")?;
            ask(&repository, "HEAD", &format!("manifests/{}", image.digest))?.is(404)?.ok()
        });
        for bad in
            ["sha256:baddigeststring", "sha512:baddigeststring", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e"]
        {
            let name = bad.replace(':', "-");
            group.case(id(&format!("put-{name}")), || {
                put_bytes(&repository, bad, &image.bytes, OCI_MANIFEST)?.fails(400, "DIGEST_INVALID")
            });
            group.case(id(&format!("get-{name}")), || {
                ask(&repository, "GET", &format!("manifests/{bad}"))?.one_of(&[400, 404])?.ok()
            });
        }
        group.case(id("get-missing-by-digest"), || {
            ask(&repository, "GET", &format!("manifests/{}", algorithm.digest(b"-")))?.fails(404, "MANIFEST_UNKNOWN")
        });
        group.case(id("get-missing-by-tag"), || {
            ask(&repository, "GET", "manifests/no-such-tag")?.fails(404, "MANIFEST_UNKNOWN")
        });
        group.case(id("get-of-no-repository"), || {
            let nowhere = group.repository("nowhere", algorithm);
            ask(&nowhere, "GET", "manifests/latest")?.is(404)?.ok()
        });
        group.case(id("delete-missing"), || {
            let digest = algorithm.digest(b"-");
            ask(&repository, "DELETE", &format!("manifests/{digest}"))?.fails(404, "MANIFEST_UNKNOWN")?;
            ask(&repository, "DELETE", "manifests/no-such-tag")?.fails(404, "MANIFEST_UNKNOWN")
        });
        let lacking = |part: &str| {
            let mut body: serde_json::Value = serde_json::from_slice(&image.bytes).expect("we wrote it");
            body.pointer_mut(part).expect("it is there")["digest"] = algorithm.digest(part.as_bytes()).into();
            body.to_string().into_bytes()
        };
        group.case(id("without-layer"), || refused(&lacking("/layers/1"), OCI_MANIFEST, "MANIFEST_BLOB_UNKNOWN"));
        group.case(id("without-config"), || refused(&lacking("/config"), OCI_MANIFEST, "MANIFEST_BLOB_UNKNOWN"));
        group.case(id("without-child"), || {
            let mut sparse = Made::new("sparse", algorithm);
            let child = sparse.plain(json!({}));
            sparse.index(&[child], json!({}));
            refused(&sparse.documents[1].bytes, OCI_INDEX, "MANIFEST_BLOB_UNKNOWN")
        });
        group.case(id("not-json"), || refused(b"this is no manifest", OCI_MANIFEST, "MANIFEST_INVALID"));
        group.case(id("nothing"), || refused(b"", OCI_MANIFEST, "MANIFEST_INVALID"));
        group.case(id("no-object"), || refused(b"[]", OCI_MANIFEST, "MANIFEST_INVALID"));
        group.case(id("other-content-type"), || refused(&image.bytes, OCI_INDEX, "MANIFEST_INVALID"));
        group.case(id("no-manifest-type"), || refused(&image.bytes, "text/html", "MANIFEST_INVALID"));
        for (name, size, statuses) in [("limit", LIMIT, [201]), ("over-limit", LIMIT + 1, [413])] {
            group.case(id(name), || {
                let mut bytes = image.bytes.clone();
                bytes.resize(size, b' ');
                let digest = algorithm.digest(&bytes);
                put_bytes(&repository, &digest, &bytes, OCI_MANIFEST)?.one_of(&statuses)?.ok()
            });
        }
        group.case(id("byte-for-byte"), || {
            let mut other = image.clone();
            other.bytes = [b"\n\t ", &image.bytes[..], b"\n"].concat();
            other.digest = algorithm.digest(&other.bytes);
            put_manifest(&repository, &other.digest, &other)?;
            steps::read_manifest(&repository, "GET", &other.digest, &other)
        });
        group.case(id("delete-by-digest-takes-the-tags"), || {
            put_manifest(&repository, &format!("{}?tag=one&tag=two", image.digest), image)?;
            steps::delete_manifest(&repository, &image.digest)?;
            ask(&repository, "GET", "manifests/one")?.fails(404, "MANIFEST_UNKNOWN")?;
            same("tags", &steps::tags(&repository, "")?.0, &Vec::new())
        });
    }
}

pub(super) fn one_push_gives_many_tags(group: &Group) {
    for algorithm in ALGORITHMS {
        let (repository, made) = prepared(group, "many-tags", algorithm);
        let image = &made.documents[0];
        let tags: Vec<String> = (0..10).map(|number| format!("tag-{number}")).collect();
        let put = |tags: &[String]| {
            let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
            put_bytes(&repository, &format!("{}?{}", image.digest, query.join("&")), &image.bytes, OCI_MANIFEST)
        };
        let id = |name: &str| format!("tag-param/{algorithm}/{name}");
        for count in [1, 2, 10] {
            group.case(id(&format!("{count}-tags")), || {
                let answer = put(&tags[..count])?.is(201)?.has("Docker-Content-Digest", &image.digest)?;
                let named = answer.headers.get_all("OCI-Tag").iter().filter_map(|value| value.to_str().ok());
                let named: BTreeSet<&str> = named.flat_map(|value| value.split(',')).map(str::trim).collect();
                same("OCI-Tag", &named, &tags[..count].iter().map(String::as_str).collect())
            });
        }
        for (number, tag) in tags.iter().enumerate() {
            group.case(id(&format!("get-{number}")), || steps::read_manifest(&repository, "GET", tag, image));
        }
        group.case(id("all-listed"), || same("tags", &steps::tags(&repository, "")?, &(tags.clone(), None)));
        group.case(id("same-tag-twice"), || {
            let answer = put(&[tags[0].clone(), tags[0].clone()])?.is(201)?;
            let named: Vec<&str> =
                answer.headers.get_all("OCI-Tag").iter().filter_map(|tag| tag.to_str().ok()).collect();
            same("OCI-Tag", &named, &vec![tags[0].as_str()])
        });
        group.case(id("no-tag"), || put(&["-no/tag".to_owned()])?.fails(400, "TAG_INVALID"));
        group.case(id("too-many"), || {
            let many: Vec<String> = (0..2000).map(|number| format!("t{number}")).collect();
            put(&many)?.one_of(&[400, 414, 431])?;
            same("tags", &steps::tags(&repository, "")?.0.len(), &tags.len())
        });
    }
}

pub(super) fn headers_say_what_clients_rely_on(group: &Group) {
    for algorithm in ALGORITHMS {
        let (repository, made) = prepared(group, "headers", algorithm);
        let image = &made.documents[0];
        put_manifest(&repository, &format!("{}?tag=latest", image.digest), image).expect("it can be pushed");
        let id = |name: &str| format!("header/{algorithm}/{name}");
        let manifest = format!("manifests/{}", image.digest);
        let get = |path: &str, headers: &[(&str, &str)]| {
            let request = repository.request(Method::GET, path);
            answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
        };
        let blob = format!("blobs/{}", algorithm.digest(&made.blobs[0]));
        for (name, path) in [("manifest", &manifest), ("blob", &blob), ("tags", &"tags/list".to_owned())] {
            group.case(id(&format!("api-version-{name}")), || {
                get(path, &[])?.is(200)?.has("Docker-Distribution-Api-Version", "registry/2.0")?.ok()
            });
        }
        group.case(id("manifest-etag"), || {
            let etag = format!("\"{}\"", image.digest);
            get(&manifest, &[])?.is(200)?.has("Etag", &etag)?;
            same("bytes", &get("manifests/latest", &[("If-None-Match", &etag)])?.is(304)?.body.len(), &0)?;
            get("manifests/latest", &[("If-None-Match", &image.digest)])?.is(304)?.ok()
        });
        let accepts: [(&str, &[(&str, &str)]); 5] = [
            ("none", &[]),
            ("anything", &[("Accept", "*/*")]),
            ("exactly", &[("Accept", OCI_MANIFEST)]),
            ("several-lines", &[("Accept", OCI_INDEX), ("Accept", OCI_MANIFEST)]),
            ("other", &[("Accept", OCI_INDEX)]),
        ];
        for (name, headers) in accepts {
            group.case(id(&format!("accept-{name}")), || {
                let got = get("manifests/latest", headers)?.is(200)?.has("Content-Type", OCI_MANIFEST)?;
                holds("the bytes are those that were pushed", got.body == image.bytes)
            });
        }
        group.case(id("options"), || {
            let allow = ask(&repository, "OPTIONS", "manifests/latest")?.is(200)?;
            allow.has("Allow", "DELETE, GET, HEAD, PUT")?.ok()
        });
        group.case(id("wrong-method"), || {
            let refused = ask(&repository, "POST", &manifest)?.is(405)?;
            holds("it says what is allowed", refused.header("Allow").is_some_and(|allow| allow.contains("GET")))
        });
    }
}

pub(super) fn whoever_has_no_right_is_told_how_to_get_it(group: &Group) {
    for algorithm in ALGORITHMS {
        let (repository, made) = prepared(group, "rights", algorithm);
        let image = &made.documents[0];
        put_manifest(&repository, &format!("{}?tag=latest", image.digest), image).expect("it can be pushed");
        let name = path("rights", algorithm);
        let id = |name: &str| format!("right/{algorithm}/{name}");
        let blob = noise("rights", algorithm as u64, 100);
        let bare = |method: &str, path: &str| {
            answer(group.admin.request(method.parse().expect("a method"), &format!("/v2/{name}/{path}")))
        };
        let blob_path = format!("blobs/{}", algorithm.digest(&made.blobs[0]));
        let manifest_path = format!("manifests/{}", image.digest);
        let challenged = [
            ("pull-manifest", "GET", manifest_path.as_str(), "pull"),
            ("pull-tag", "GET", "manifests/latest", "pull"),
            ("pull-blob", "GET", blob_path.as_str(), "pull"),
            ("head-blob", "HEAD", blob_path.as_str(), "pull"),
            ("list-tags", "GET", "tags/list", "pull"),
            ("push-blob", "POST", "blobs/uploads/", "pull,push"),
            ("push-manifest", "PUT", manifest_path.as_str(), "pull,push"),
            ("delete-manifest", "DELETE", manifest_path.as_str(), "delete"),
            ("delete-blob", "DELETE", blob_path.as_str(), "delete"),
        ];
        for (case, method, path, actions) in challenged {
            group.case(id(&format!("without-token-{case}")), || {
                let refused = bare(method, path)?.is(401)?;
                let challenge = refused.header("WWW-Authenticate").unwrap_or_default();
                let scope = format!("scope=\"repository:{name}:{actions}\"");
                holds(challenge, challenge.starts_with("Bearer realm=\"https://") && challenge.contains(&scope))
            });
        }
        let reader = group.admin.repository(&name, "pull");
        group.case(id("pull-with-pull"), || steps::read_manifest(&reader, "GET", "latest", image));
        group.case(id("push-with-pull"), || {
            ask(&reader, "POST", "blobs/uploads/")?.one_of(&[401, 403])?;
            put_bytes(&reader, "latest", &image.bytes, OCI_MANIFEST)?.one_of(&[401, 403])?.ok()
        });
        group.case(id("delete-with-push"), || {
            let writer = group.admin.repository(&name, "pull,push");
            ask(&writer, "DELETE", "manifests/latest")?.one_of(&[401, 403])?.ok()
        });
        group.case(id("two-scopes-in-one-token"), || {
            let other = path("rights-other", algorithm);
            let both = group.admin.repository(&name, &format!("pull&scope=repository:{other}:pull,push"));
            steps::read_manifest(&both, "GET", "latest", image)?;
            let digest = algorithm.digest(&blob);
            let post = both.request(Method::POST, &format!("/v2/{other}/blobs/uploads/?digest={digest}"));
            answer(post.body(blob.clone()))?.is(201)?.ok()
        });
        group.case(id("ping"), || {
            answer(group.admin.request(Method::GET, "/v2/"))?.is(401)?;
            let pong = answer(repository.request(Method::GET, "/v2/"))?.is(200)?;
            same("body", &pong.json()?, &json!({}))
        });
        group.case(id("wrong-password"), || {
            let stranger = group.admin.by(Some(("nobody-here", "a wrong password of some length")));
            let answer = stranger.ask_token(&format!("repository:{name}:pull"));
            same("status", &answer.status().as_u16(), &401)
        });
    }
}
