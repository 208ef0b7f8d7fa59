//! Blobs: every way in, ranges, and what is refused.

use reqwest::Method;

use super::data::{ALGORITHMS, Algorithm, noise};
use super::steps::{self, WAYS, Way, answer, ask, finish, holds, same};
use super::{Check, Group, path};
use crate::support::registry::Repository;

const BLOB: usize = 12_283; // not a multiple of three
const RANGED: usize = 2048;
const VISITORS_PASSWORD: &str = "a password for visitors";

pub(super) fn blobs_arrive_in_every_way_and_leave_at_once(group: &Group) {
    for algorithm in ALGORITHMS {
        let repository = group.repository("blobs", algorithm);
        let missing = noise("missing", 0, 512);
        group.case(format!("blob/{algorithm}/get-missing"), || {
            let path = format!("blobs/{}", algorithm.digest(&missing));
            ask(&repository, "HEAD", &path)?.is(404)?;
            ask(&repository, "GET", &path)?.fails(404, "BLOB_UNKNOWN")
        });
        for (way_name, way) in WAYS {
            let blob = noise(way_name, algorithm as u64, BLOB);
            life(group, &repository, way_name, algorithm, &blob, |blob| steps::push(&repository, way, blob, algorithm));
        }
        for (name, blob) in [("empty", &b""[..]), ("empty-json", &b"{}"[..])] {
            for (way_name, way) in &WAYS[..3] {
                let name = format!("{name}-{way_name}");
                life(group, &repository, &name, algorithm, blob, |blob| {
                    steps::push(&repository, *way, blob, algorithm)
                });
            }
        }
        mounts(group, &repository, algorithm);
    }
}

/// Push, look, pull, delete, gone.
fn life(
    group: &Group,
    repository: &Repository,
    name: &str,
    algorithm: Algorithm,
    blob: &[u8],
    push: impl FnOnce(&[u8]) -> Check,
) {
    group.case(format!("blob/{algorithm}/{name}/push"), || push(blob));
    group.case(format!("blob/{algorithm}/{name}/head"), || steps::head_blob(repository, blob, algorithm));
    group.case(format!("blob/{algorithm}/{name}/get"), || steps::get_blob(repository, blob, algorithm));
    group.case(format!("blob/{algorithm}/{name}/delete"), || steps::delete_blob(repository, blob, algorithm));
}

fn mounts(group: &Group, plain: &Repository, algorithm: Algorithm) {
    let source = group.repository("mount-source", algorithm);
    let (here, from) = (path("blobs", algorithm), path("mount-source", algorithm));
    let nowhere = "conformance/nowhere";
    let scopes = format!("pull,push,delete&scope=repository:{from}:pull&scope=repository:{nowhere}:pull");
    let both = group.admin.repository(&here, &scopes);
    let mount = |query: &str, blob: &[u8]| {
        let digest = algorithm.digest(blob);
        let mounted = ask(&both, "POST", &format!("blobs/uploads/?mount={digest}{query}"))?.is(201)?;
        let mounted = mounted.has("Docker-Content-Digest", &digest)?;
        holds("Location names the blob", mounted.location()?.ends_with(&format!("/v2/{here}/blobs/{digest}")))
    };
    for (name, query) in [("mount", format!("&from={from}")), ("mount-anonymous", String::new())] {
        let blob = noise(name, algorithm as u64, 512);
        life(group, plain, name, algorithm, &blob, |blob| {
            steps::push(&source, Way::PostPut, blob, algorithm)?;
            mount(&query, blob)
        });
        group.case(format!("blob/{algorithm}/{name}/source-stays"), || steps::get_blob(&source, &blob, algorithm));
    }
    // A mount that cannot be made is an ordinary upload.
    let blob = noise("mount-missing", algorithm as u64, 512);
    let digest = algorithm.digest(&blob);
    let instead = |repository: &Repository, query: &str| {
        let begun = ask(repository, "POST", &format!("blobs/uploads/?mount={digest}{query}"))?.is(202)?;
        finish(repository, &begun.location()?, &digest, &blob, None)?.is(201)?;
        steps::delete_blob(repository, &blob, algorithm)
    };
    let id = |name: &str| format!("blob/{algorithm}/{name}");
    group.case(id("mount-missing"), || instead(&both, &format!("&from={from}")));
    group.case(id("mount-anonymous-missing"), || instead(&both, ""));
    group.case(id("mount-from-nowhere"), || instead(&both, &format!("&from={nowhere}")));
    // Whose token was not asked for the source is told to come with one for both; whoever has no right goes on with it.
    let user = format!("visitor-{algorithm}");
    group.server.site.add_user(&user, VISITORS_PASSWORD);
    group.server.site.add_member(&here, &user, "maintainer");
    let visitor = group.admin.by(Some((&user, VISITORS_PASSWORD)));
    let refused = visitor.repository(&here, &format!("pull,push,delete&scope=repository:{from}:pull"));
    let narrow = visitor.repository(&here, "pull,push,delete");
    group.case(id("mount-without-right"), || {
        steps::push(&source, Way::PostPut, &blob, algorithm)?;
        instead(&refused, "")?;
        instead(&refused, &format!("&from={from}&origin=registry.example"))
    });
    let mount_path = format!("blobs/uploads/?mount={digest}&from={from}");
    let both_scopes = format!("scope=\"repository:{here}:pull,push repository:{from}:pull\"");
    group.case(id("mount-without-token"), || {
        let bare = answer(group.admin.request(Method::POST, &format!("/v2/{here}/{mount_path}")))?.is(401)?;
        let challenge = bare.header("WWW-Authenticate").unwrap_or_default();
        holds(challenge, challenge.ends_with(&both_scopes))
    });
    group.case(id("mount-not-asked-for"), || {
        for repository in [plain, &narrow] {
            let again = ask(repository, "POST", &mount_path)?.is(401)?;
            let challenge = again.header("WWW-Authenticate").unwrap_or_default();
            holds(challenge, challenge.ends_with(&format!("{both_scopes},error=\"insufficient_scope\"")))?;
        }
        instead(&narrow, "")
    });
}

pub(super) fn blobs_are_read_in_parts(group: &Group) {
    // What is asked, and what comes: from, to (exclusive), or nothing that could come.
    let ranges = [
        ("500-1499", Some((500, 1500))),
        ("500-", Some((500, RANGED))),
        ("-500", Some((RANGED - 500, RANGED))),
        ("2000-5000", Some((2000, RANGED))),
        ("0-0", Some((0, 1))),
        ("2047-2047", Some((2047, RANGED))),
        ("0-", Some((0, RANGED))),
        ("-5000", Some((0, RANGED))),
        ("500-0", None),
        ("5000-10000", None),
        ("2048-", None),
    ];
    for algorithm in ALGORITHMS {
        let repository = group.repository("ranges", algorithm);
        let blob = noise("ranges", algorithm as u64, RANGED);
        steps::push(&repository, Way::PostPut, &blob, algorithm).expect("what is read was pushed");
        let get = |header: &str, value: &str| {
            let path = format!("blobs/{}", algorithm.digest(&blob));
            answer(repository.request(reqwest::Method::GET, &path).header(header, value))
        };
        for (range, part) in ranges {
            group.case(format!("range/{algorithm}/{range}"), || {
                let got = get("Range", &format!("bytes={range}"))?;
                let Some((from, to)) = part else {
                    let got = got.is(416)?.has("Content-Range", &format!("bytes */{RANGED}"))?;
                    let length = got.body.len().to_string();
                    return got.has("Content-Length", &length)?.ok();
                };
                let got = got.is(206)?.has("Content-Length", &(to - from).to_string())?;
                let got = got.has("Content-Range", &format!("bytes {from}-{}/{RANGED}", to - 1))?;
                holds("the bytes are the part", got.body == blob[from..to])
            });
        }
        group.case(format!("range/{algorithm}/not-bytes"), || {
            same("bytes", &get("Range", "lines=1-2")?.is(200)?.body.len(), &RANGED)
        });
        group.case(format!("range/{algorithm}/accept-ranges"), || {
            get("X-None", "1")?.is(200)?.has("Accept-Ranges", "bytes")?.ok()
        });
        group.case(format!("range/{algorithm}/not-modified"), || {
            let etag = format!("\"{}\"", algorithm.digest(&blob));
            let got = get("X-None", "1")?.is(200)?.has("Etag", &etag)?.has("Cache-Control", "max-age=31536000")?;
            same("bytes", &got.body.len(), &RANGED)?;
            same("bytes", &get("If-None-Match", &etag)?.is(304)?.body.len(), &0)
        });
    }
}

pub(super) fn blobs_that_are_not_what_they_claim_are_refused(group: &Group) {
    for algorithm in ALGORITHMS {
        let repository = group.repository("bad-digests", algorithm);
        for (name, way) in WAYS {
            let blob = noise(name, 9 + algorithm as u64, BLOB);
            let claimed = algorithm.digest(&blob[1..]);
            group.case(format!("bad-digest/{algorithm}/{name}"), || {
                steps::send(&repository, way, &blob, &claimed)?.fails(400, "DIGEST_INVALID")?;
                ask(&repository, "HEAD", &format!("blobs/{claimed}"))?.is(404)?;
                ask(&repository, "HEAD", &format!("blobs/{}", algorithm.digest(&blob)))?.is(404)?.ok()
            });
        }
        let blob = noise("refused", algorithm as u64, 700);
        let wrong = [
            ("malformed", "sha256:baddigeststring".to_owned()),
            ("upper-case", algorithm.digest(&blob).to_uppercase().replace("SHA", "sha")),
            ("too-short", algorithm.digest(&blob)[..40].to_owned()),
            (
                "length-of-the-other",
                algorithm.digest(&blob).replace(&algorithm.to_string(), &algorithm.other().to_string()),
            ),
            ("unknown-algorithm", "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned()),
            ("nothing", String::new()),
        ];
        for (name, digest) in wrong {
            group.case(format!("bad-digest/{algorithm}/put-{name}"), || {
                steps::send(&repository, Way::PostPut, &blob, &digest)?.fails(400, "DIGEST_INVALID")
            });
            if !digest.is_empty() {
                group.case(format!("bad-digest/{algorithm}/get-{name}"), || {
                    ask(&repository, "GET", &format!("blobs/{digest}"))?.one_of(&[400, 404])?.ok()
                });
            }
        }
    }
}
