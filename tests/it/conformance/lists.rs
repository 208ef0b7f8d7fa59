//! Lists, page by page.

use serde_json::{Value, json};

use super::data::{self, ALGORITHMS, Algorithm, Made, TYPE_1, TYPE_2};
use super::steps::{self, Way, ask, holds, put_manifest, referrers, same, tags};
use super::{Check, Group, path};
use crate::support::registry::Repository;

/// In ASCII order; some are beginnings of others.
const TAGS: [&str; 12] = ["1.0", "1.0.1", "1.10", "A", "B-1", "_x", "a", "a-1", "a.b", "a_c", "latest", "latest-2"];

/// Pushes an artifact under each of the tags.
fn push_tags(repository: &Repository, algorithm: Algorithm) {
    let made = data::make("artifact", algorithm);
    push(repository, &made).expect("an artifact can be pushed");
    let document = &made.documents[0];
    for tag in TAGS.iter().rev() {
        put_manifest(repository, &format!("{}?tag={tag}", document.digest), document).expect("a tag can be given");
    }
}

fn push(repository: &Repository, made: &Made) -> Check {
    made.blobs.iter().try_for_each(|blob| steps::push(repository, Way::PostPut, blob, made.algorithm))?;
    made.documents.iter().try_for_each(|document| put_manifest(repository, &document.digest, document).map(drop))
}

pub(super) fn tags_are_listed_in_pages(group: &Group) {
    for algorithm in ALGORITHMS {
        let repository = group.repository("tags", algorithm);
        push_tags(&repository, algorithm);
        let id = |name: &str| format!("tags/{algorithm}/{name}");
        let owned = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<String>>();
        let pages: [(&str, &str, &[&str], bool); 12] = [
            ("all", "", &TAGS, false),
            ("n-all", "?n=12", &TAGS, false),
            ("n-more", "?n=100", &TAGS, false),
            ("n-5", "?n=5", &TAGS[..5], true),
            ("n-1", "?n=1", &TAGS[..1], true),
            ("n-0", "?n=0", &[], false),
            ("last", "?last=a", &TAGS[7..], false),
            ("last-unknown", "?last=b", &TAGS[10..], false),
            ("last-beginning-of-others", "?last=1.0", &TAGS[1..], false),
            ("last-of-all", "?last=latest-2", &[], false),
            ("n-and-last", "?n=2&last=_x", &TAGS[6..8], true),
            ("n-and-last-to-the-end", "?n=2&last=a_c", &TAGS[10..], false),
        ];
        for (name, query, expected, more) in pages {
            group.case(id(name), || {
                let (found, next) = tags(&repository, query)?;
                same("tags", &found, &owned(expected))?;
                same("a Link", &next.is_some(), &more)
            });
        }
        for size in [1, 3, 5, 11] {
            group.case(id(&format!("follow-link-by-{size}")), || {
                let mut found = Vec::new();
                let mut next = Some(format!("?n={size}"));
                while let Some(query) = next {
                    let (page, link) = tags(&repository, &query)?;
                    holds("no page is larger than asked", page.len() <= size && !page.is_empty())?;
                    found.extend(page);
                    next = link;
                }
                same("tags", &found, &owned(&TAGS))
            });
        }
        for (name, query) in [("n-negative", "?n=-1"), ("n-word", "?n=many")] {
            group.case(id(name), || {
                ask(&repository, "GET", &format!("tags/list{query}"))?.fails(400, "PAGINATION_NUMBER_INVALID")
            });
        }
        group.case(id("name"), || {
            let list = ask(&repository, "GET", "tags/list")?.is(200)?.json()?;
            same("name", &list["name"], &Value::from(path("tags", algorithm)))
        });
        group.case(id("no-repository"), || {
            ask(&group.repository("no-tags", algorithm), "GET", "tags/list")?.fails(404, "NAME_UNKNOWN")
        });
        group.case(id("deleted-tag"), || {
            steps::delete_manifest(&repository, "a")?;
            let rest: Vec<&str> = TAGS.into_iter().filter(|tag| *tag != "a").collect();
            same("tags", &tags(&repository, "")?.0, &owned(&rest))
        });
    }
}

pub(super) fn referrers_are_listed_in_pages(group: &Group) {
    for algorithm in ALGORITHMS {
        let repository = group.repository("referrers", algorithm);
        let mut made = Made::new("referrers", algorithm);
        let subject = made.plain(json!({}));
        for number in 0..7 {
            let kind = if number < 4 { TYPE_1 } else { TYPE_2 };
            made.artifact(
                kind,
                json!({ "subject": subject, "annotations": { "org.example.number": number.to_string() } }),
            );
        }
        push(&repository, &made).expect("referrers can be pushed");
        lists_of_referrers(group, &repository, &made, algorithm);
    }
}

fn lists_of_referrers(group: &Group, repository: &Repository, made: &Made, algorithm: Algorithm) {
    let id = |name: &str| format!("referrers/{algorithm}/{name}");
    let subject = &made.documents[0].digest;
    let of_kinds = |kinds: &[&str]| {
        let of = |listed: &Value| kinds.iter().any(|kind| listed["artifactType"] == *kind);
        let documents = made.documents[1..].iter().filter(|document| of(&document.listed));
        sorted(documents.map(|document| document.digest.clone()))
    };
    let all = of_kinds(&[TYPE_1, TYPE_2]);
    let (one, other) = (format!("artifactType={TYPE_1}"), format!("artifactType={TYPE_2}"));
    let filters: [(&str, String, Vec<String>); 5] = [
        ("all", String::new(), all.clone()),
        ("of-one-type", format!("?{one}"), of_kinds(&[TYPE_1])),
        ("of-the-other-type", format!("?{other}"), of_kinds(&[TYPE_2])),
        ("of-both-types", format!("?{one}&{other}"), all.clone()),
        ("of-no-type-there", "?artifactType=application/vnd.example.nothing".to_owned(), Vec::new()),
    ];
    for (name, query, expected) in filters {
        group.case(id(name), || {
            let (listed, next) = referrers(repository, &format!("{subject}{query}"))?;
            same("a Link", &next, &None)?;
            same("referrers", &sorted(listed.iter().map(digest_of)), &expected)
        });
    }
    for (name, query, expected) in
        [("pages", String::new(), all.clone()), ("pages-of-one-type", format!("&{one}"), of_kinds(&[TYPE_1]))]
    {
        for size in [1, 3] {
            group.case(id(&format!("{name}-by-{size}")), || {
                let mut found = Vec::new();
                let mut next = Some(format!("{subject}?n={size}{query}"));
                while let Some(path) = next {
                    let (page, link) = referrers(repository, &path)?;
                    holds("no page is larger than asked", page.len() <= size)?;
                    found.extend(page.iter().map(digest_of));
                    next = link;
                }
                same("referrers", &sorted(found.into_iter()), &expected)
            });
        }
    }
    group.case(id("of-nothing"), || {
        same("referrers", &referrers(repository, &algorithm.digest(b"nothing"))?, &(Vec::new(), None))
    });
    group.case(id("of-no-repository"), || {
        let nowhere = group.repository("no-referrers", algorithm);
        same("referrers", &referrers(&nowhere, subject)?, &(Vec::new(), None))
    });
    for (name, digest) in [("malformed", "sha256:baddigeststring"), ("a-tag", "latest")] {
        group.case(id(&format!("of-{name}")), || {
            ask(repository, "GET", &format!("referrers/{digest}"))?.fails(400, "DIGEST_INVALID")
        });
    }
    group.case(id("fallback-tag"), || {
        // As clients wrote it before there was this list: an index under a tag made of the subject's digest.
        let mut old = Made::new("fallback", algorithm);
        let children: Vec<Value> = made.documents[1..].iter().map(|document| document.listed.clone()).collect();
        old.index(&children, json!({}));
        let index = &old.documents[0];
        let tag: String = subject.replace(':', "-").chars().take("sha512-".len() + 64).collect();
        put_manifest(repository, &format!("{}?tag={tag}", index.digest), index)?;
        same("referrers", &sorted(referrers(repository, subject)?.0.iter().map(digest_of)), &all)
    });
    group.case(id("after-delete"), || {
        steps::delete_manifest(repository, &made.documents[1].digest)?;
        let rest = sorted(made.documents[2..].iter().map(|document| document.digest.clone()));
        same("referrers", &sorted(referrers(repository, subject)?.0.iter().map(digest_of)), &rest)
    });
    group.case(id("subject-deleted"), || {
        steps::delete_manifest(repository, subject)?;
        same("number of referrers", &referrers(repository, subject)?.0.len(), &6)
    });
    group.case(id("subject-pushed-again"), || {
        put_manifest(repository, subject, &made.documents[0])?;
        same("number of referrers", &referrers(repository, subject)?.0.len(), &6)
    });
}

fn digest_of(listed: &Value) -> String {
    listed["digest"].as_str().unwrap_or_default().to_owned()
}

fn sorted(digests: impl Iterator<Item = String>) -> Vec<String> {
    let mut digests: Vec<String> = digests.collect();
    digests.sort();
    digests
}
