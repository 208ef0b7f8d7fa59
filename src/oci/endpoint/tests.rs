//! Claims about what requests ask for.

use proptest::prelude::*;

use super::*;
use crate::oci::Algorithm;

fn parse(request: &str) -> Result<Endpoint, Rejection> {
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    Endpoint::parse(&method.parse().unwrap(), path, query)
}

fn ok(request: &str) -> Endpoint {
    parse(request).unwrap_or_else(|rejection| panic!("{request}: {rejection:?}"))
}

fn digest() -> Digest {
    Digest::of(Algorithm::Sha256, b"x")
}

const UPLOAD: &str = "0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10";

/// A request, the endpoint that it is for, and what that needs.
type Row = (String, Endpoint, &'static str);

fn table() -> Vec<Row> {
    [fixed(), of_lists_and_blobs(), of_manifests(), of_uploads()].into_iter().flatten().collect()
}

fn fixed() -> Vec<Row> {
    vec![
        ("GET /v2/".into(), Endpoint::Version, ""),
        ("HEAD /v2/".into(), Endpoint::Version, ""),
        ("GET /v2/_catalog".into(), Endpoint::Catalog { page: Page::default() }, "registry:catalog:*"),
        ("OPTIONS /v2/g/p/manifests/tag".into(), Endpoint::Options { allow: "DELETE, GET, HEAD, PUT" }, ""),
    ]
}

fn of_lists_and_blobs() -> Vec<Row> {
    let (name, digest) = (|| "g/p".parse().unwrap(), digest());
    let referrers = Endpoint::Referrers {
        name: name(),
        digest: digest.clone(),
        artifact_types: vec!["a/b".into()],
        limit: None,
        after: None,
    };
    let (blob, gone) = (
        Endpoint::BlobRead { name: name(), digest: digest.clone() },
        Endpoint::BlobDelete { name: name(), digest: digest.clone() },
    );
    vec![
        ("GET /v2/g/p/tags/list".into(), Endpoint::Tags { name: name(), page: Page::default() }, "pull"),
        (format!("GET /v2/g/p/referrers/{digest}?artifactType=a%2Fb"), referrers, "pull"),
        (format!("GET /v2/g/p/blobs/{digest}?ns=example.com"), blob, "pull"),
        (format!("DELETE /v2/g/p/blobs/{digest}"), gone, "delete"),
    ]
}

fn of_manifests() -> Vec<Row> {
    let name = || "g/p".parse().unwrap();
    let (tag, digest) = (|| Reference::Tag("v1".parse().unwrap()), || Reference::Digest(digest()));
    let read = |reference| Endpoint::ManifestRead { name: name(), reference };
    let delete = |reference| Endpoint::ManifestDelete { name: name(), reference };
    let write = |reference, tags: &[&str]| {
        let tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        Endpoint::ManifestWrite { name: name(), reference, tags }
    };
    vec![
        ("GET /v2/g/p/manifests/v1".into(), read(tag()), "pull"),
        (format!("HEAD /v2/g/p/manifests/{}", digest()), read(digest()), "pull"),
        ("PUT /v2/g/p/manifests/v1".into(), write(tag(), &[]), "pull,push"),
        (format!("PUT /v2/g/p/manifests/{}?tag=a&tag=b", digest()), write(digest(), &["a", "b"]), "pull,push"),
        ("DELETE /v2/g/p/manifests/v1".into(), delete(tag()), "delete"),
        ("DELETE /v2/g/p/tags/reference/v1".into(), delete(tag()), "delete"),
    ]
}

fn of_uploads() -> Vec<Row> {
    let (name, upload) = (|| "g/p".parse().unwrap(), UPLOAD.parse().unwrap());
    let uploads = "/v2/g/p/blobs/uploads";
    let start = Endpoint::UploadStart { name: name(), mount: None, digest: None };
    let commit = Endpoint::UploadCommit { name: name(), upload, digest: digest() };
    let rows = [
        (format!("POST {uploads}/"), start),
        (format!("GET {uploads}/{UPLOAD}?_state=x"), Endpoint::UploadStatus { name: name(), upload }),
        (format!("PATCH {uploads}/{UPLOAD}"), Endpoint::UploadAppend { name: name(), upload }),
        (format!("PUT {uploads}/{UPLOAD}?digest={}", digest()), commit),
        (format!("DELETE {uploads}/{UPLOAD}"), Endpoint::UploadCancel { name: name(), upload }),
    ];
    rows.into_iter().map(|(request, endpoint)| (request, endpoint, "pull,push")).collect()
}

#[test]
fn every_endpoint_is_recognised_and_says_what_it_needs() {
    for (request, expected, actions) in table() {
        let endpoint = ok(&request);
        assert_eq!(endpoint, expected, "{request}");
        let needed: Vec<String> = endpoint.access().iter().map(Access::to_string).collect();
        match actions {
            "" => assert!(needed.is_empty(), "{request} {needed:?}"),
            catalog if catalog.starts_with("registry") => assert_eq!(needed, [catalog]),
            actions => assert_eq!(needed, [format!("repository:g/p:{actions}")], "{request}"),
        }
    }
}

#[test]
fn a_mount_names_a_blob_and_perhaps_a_repository() {
    let mount = |query: &str| match ok(&format!("POST /v2/a/blobs/uploads/?{query}")) {
        Endpoint::UploadStart { mount, .. } => mount.map(|mount| (mount.digest, mount.from)),
        other => panic!("{other:?}"),
    };
    let (plain, escaped) = (digest().to_string(), digest().to_string().replace(':', "%3A"));
    let from: RepositoryName = "other/repository".parse().unwrap();
    assert_eq!(mount(&format!("mount={plain}&from=other/repository")), Some((digest(), Some(from.clone()))));
    assert_eq!(mount(&format!("from=other%2Frepository&origin=h&mount={escaped}")), Some((digest(), Some(from))));
    assert_eq!(mount(&format!("mount={plain}")), Some((digest(), None)));
    assert_eq!(mount("mount=&from=b"), None);
    assert_eq!(mount("mount=nonsense&from=b"), None);
    assert_eq!(mount(&format!("mount={plain}&from=../b")), None, "not a search through everything readable");
}

#[test]
fn only_a_mount_from_another_repository_has_use_for_more_than_it_needs() {
    let useful = |request: &str| ok(request).useful_access().map(|access| access.to_string());
    let mount = format!("POST /v2/g/p/blobs/uploads/?mount={}", digest());
    assert_eq!(useful(&format!("{mount}&from=a/b")).as_deref(), Some("repository:a/b:pull"));
    assert_eq!(useful(&format!("{mount}&from=g/p")), None, "what is needed covers it");
    assert_eq!(useful(&mount), None);
    assert!(table().iter().all(|(request, ..)| useful(request).is_none()));
}

#[test]
fn pages() {
    let page = |query: &str| match ok(&format!("GET /v2/a/tags/list?{query}")) {
        Endpoint::Tags { page, .. } => (page.limit, page.after),
        other => panic!("{other:?}"),
    };
    assert_eq!(page("n=0"), (Some(0), None));
    assert_eq!(page("n=5&last=v1%2E0+x"), (Some(5), Some("v1.0 x".into())));
    assert_eq!(page("n=&last="), (None, None));
    for bad in ["n=-1", "n=x", "n=1.5", "n=99999999999999999999"] {
        assert_eq!(parse(&format!("GET /v2/_catalog?{bad}")), Err(Rejection::PageNumber), "{bad}");
    }
    let odd = "a&b+c%d e=f#<\u{e9}>";
    assert_eq!(page(&Page::query(7, odd)), (Some(7), Some(odd.into())), "what we send comes back as it was");

    let referrers = format!("GET /v2/a/referrers/{}?", digest());
    let after = |last: &str| match parse(&format!("{referrers}{}", Page::query(7, last))) {
        Ok(Endpoint::Referrers { limit: Some(7), after, .. }) => Ok(after),
        Ok(other) => panic!("{other:?}"),
        Err(rejection) => Err(rejection),
    };
    assert_eq!(after(&digest().to_string()), Ok(Some(digest())));
    assert_eq!(after(""), Ok(None));
    for no_digest in ["v1.0", "sha256:8", "1", "sha256"] {
        assert!(matches!(after(no_digest), Err(Rejection::Digest(_))), "{no_digest}");
    }
}

#[test]
fn names_may_hold_the_words_of_the_api() {
    for name in ["blobs", "a/manifests", "tags/list", "manifests/manifests", "a/blobs/uploads", "v2"] {
        let endpoint = ok(&format!("GET /v2/{name}/manifests/latest"));
        assert_eq!(endpoint.repository().unwrap().as_str(), name);
    }
}

#[test]
fn an_escaped_colon_is_a_colon_and_an_escaped_name_is_no_name() {
    let escaped = digest().to_string().replace(':', "%3a");
    assert_eq!(ok(&format!("GET /v2/a/blobs/{escaped}")).reference(), Some(digest().to_string()));
    assert_eq!(parse("GET /v2/a%2Fb/manifests/v1"), Err(NameError::Format.into()));
    assert_eq!(parse("GET /v2/a/manifests/v%2F1"), Err(TagError.into()));
}

#[test]
fn what_is_wrong_is_said() {
    for (request, rejection) in [
        ("GET /v2", Rejection::Moved),
        ("GET /v2/a", Rejection::NotFound),
        ("GET /v3/", Rejection::NotFound),
        ("GET /v2x/a/tags/list", Rejection::NotFound),
        ("GET /v2/a/b/c", Rejection::NotFound),
        ("GET /v2/A/tags/list", NameError::Format.into()),
        ("GET /v2//tags/list", NameError::Format.into()),
        ("GET /v2/tags/list", NameError::Format.into()),
        ("GET /v2/../../etc/manifests/passwd", NameError::Format.into()),
        ("GET /v2/a/../b/manifests/v1", NameError::Format.into()),
        ("GET /v2/a/manifests/..", TagError.into()),
        ("GET /v2/a/manifests/", TagError.into()),
        ("PUT /v2/a/manifests/sha256:baddigeststring", DigestError::Format.into()),
        ("GET /v2/a/blobs/sha256:baddigeststring", DigestError::Format.into()),
        ("GET /v2/a/blobs/md5:0123", DigestError::Algorithm.into()),
        ("POST /v2/a/blobs/uploads/?digest=x", DigestError::Format.into()),
        ("GET /v2/a/blobs/uploads/not-a-uuid", Rejection::Upload),
        ("PUT /v2/a/blobs/uploads/0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10", DigestError::Format.into()),
        ("PUT /v2/a/blobs/uploads/0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10?digest=", DigestError::Format.into()),
        ("POST /v2/", Rejection::MethodNotAllowed { allow: "GET, HEAD" }),
        ("POST /v2/a/manifests/v1", Rejection::MethodNotAllowed { allow: "DELETE, GET, HEAD, PUT" }),
        ("GET /v2/a/blobs/uploads/", Rejection::MethodNotAllowed { allow: "POST" }),
        ("POST /v2/a/blobs/uploads/x", Rejection::MethodNotAllowed { allow: "DELETE, GET, HEAD, PATCH, PUT" }),
        ("GET /v2/a/tags/reference/v1", Rejection::MethodNotAllowed { allow: "DELETE" }),
    ] {
        assert_eq!(parse(request), Err(rejection), "{request}");
    }
    let once = parse(&format!("PUT /v2/a/manifests/{}?tag=a&tag=b&tag=a", digest()));
    assert!(matches!(once, Ok(Endpoint::ManifestWrite { tags, .. }) if tags.len() == 2));
    let tags = "tag=a&".repeat(MAX_TAGS + 1);
    assert_eq!(parse(&format!("PUT /v2/a/manifests/{}?{tags}", digest())), Err(Rejection::TooManyTags));
}

proptest! {
    #[test]
    fn parsing_never_panics(method in "(GET|HEAD|PUT|PATCH|POST|DELETE|OPTIONS|X)", path in "\\PC{0,80}", query in proptest::option::of("\\PC{0,80}")) {
        let _ = Endpoint::parse(&method.parse().unwrap(), &path, query.as_deref());
        let _ = Endpoint::parse(&method.parse().unwrap(), &format!("/v2/{path}"), query.as_deref());
    }

    #[test]
    fn a_parsed_name_never_steps_out(
        method in "(GET|PUT|PATCH|POST|DELETE)",
        name in "[a-z./_%-]{0,12}(/[a-z0-9./_%2-]{0,8}){0,3}",
        tail in "(tags/list|manifests/[a-z.%/]{1,4}|blobs/uploads/|blobs/[a-z:]{1,9}|referrers/x)",
    ) {
        if let Ok(endpoint) = Endpoint::parse(&method.parse().unwrap(), &format!("/v2/{name}/{tail}"), None)
            && let Some(parsed) = endpoint.repository() {
            prop_assert!(parsed.components().all(|part| !part.is_empty() && !part.starts_with(['.', '_'])));
            prop_assert!(!parsed.as_str().contains(['%', '\\', '\0']));
            prop_assert!(parsed.as_str().starts_with(name.as_str()), "{} is not {}", parsed, name);
        }
    }
}
