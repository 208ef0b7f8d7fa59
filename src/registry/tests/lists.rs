//! Claims about the lists of tags and repositories.

use std::io::Write as _;

use super::*;

/// Follows `Link` from page to page and collects what `member` lists.
async fn all_pages(fixture: &Fixture, first: &str, member: &str) -> (Vec<String>, usize) {
    let (mut seen, mut next, mut pages) = (Vec::new(), first.to_owned(), 0);
    loop {
        let page = fixture.ask(&format!("GET {next}")).await.expect(200);
        pages += 1;
        seen.extend(page.json()[member].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()));
        match page.header("link").strip_suffix(">; rel=\"next\"") {
            Some(link) => next = link.strip_prefix('<').unwrap().to_owned(),
            None => return (seen, pages),
        }
    }
}

fn fake_tag(fixture: &Fixture, name: &str, tag: &str) {
    let folder = fixture.path(&format!("repositories/{name}/_manifests/tags/{tag}/current"));
    std::fs::create_dir_all(&folder).unwrap();
    let mut link = std::fs::File::create(folder.join("link")).unwrap();
    link.write_all(sha256(b"x").to_string().as_bytes()).unwrap();
}

fn fake_repository(fixture: &Fixture, name: &str) {
    std::fs::create_dir_all(fixture.path(&format!("repositories/{name}/_manifests/revisions"))).unwrap();
    std::fs::create_dir_all(fixture.path(&format!("repositories/{name}/_layers/sha256"))).unwrap();
}

#[tokio::test]
async fn tags_come_in_ascii_order_and_in_pages() {
    let fixture = Fixture::large();
    let tags = ["0.9", "1", "1-a", "1.0", "10", "A", "_x", "a", "ab", "latest"];
    for tag in tags.iter().rev() {
        fake_tag(&fixture, "a", tag);
    }
    let all = fixture.ask("GET /v2/a/tags/list").await.expect(200);
    assert_eq!(all.json(), json!({ "name": "a", "tags": tags }));
    assert_eq!(all.header("link"), "");
    for size in 1..=tags.len() {
        let (seen, pages) = all_pages(&fixture, &format!("/v2/a/tags/list?n={size}"), "tags").await;
        assert_eq!((seen, pages), (tags.map(str::to_owned).to_vec(), tags.len().div_ceil(size)), "{size}");
    }
    let page = fixture.ask("GET /v2/a/tags/list?n=2&last=1").await.expect(200);
    assert_eq!(page.json()["tags"], json!(["1-a", "1.0"]));
    assert_eq!(page.header("link"), "</v2/a/tags/list?last=1.0&n=2>; rel=\"next\"");
    let after_missing = fixture.ask("GET /v2/a/tags/list?last=1.5").await.expect(200);
    assert_eq!(after_missing.json()["tags"], json!(["10", "A", "_x", "a", "ab", "latest"]));
    for end in ["n=0", "last=zzz", "n=5&last=latest"] {
        let page = fixture.ask(&format!("GET /v2/a/tags/list?{end}")).await.expect(200);
        assert_eq!((page.json()["tags"].clone(), page.header("link")), (json!([]), ""), "{end}");
    }
}

#[tokio::test]
async fn folders_without_a_link_are_no_tags_and_do_not_shorten_a_page() {
    let fixture = Fixture::large();
    for (number, tag) in ["a", "b", "c", "d", "e", "f"].iter().enumerate() {
        match number % 2 {
            0 => std::fs::create_dir_all(fixture.path(&format!("repositories/a/_manifests/tags/{tag}/index"))).unwrap(),
            _ => fake_tag(&fixture, "a", tag),
        }
    }
    let (seen, pages) = all_pages(&fixture, "/v2/a/tags/list?n=2", "tags").await;
    assert_eq!((seen, pages), (vec!["b".to_owned(), "d".into(), "f".into()], 2));
}

#[tokio::test]
async fn an_empty_repository_has_no_tags_and_an_unknown_one_is_unknown() {
    let fixture = Fixture::large();
    fake_repository(&fixture, "a/b");
    assert_eq!(fixture.ask("GET /v2/a/b/tags/list").await.expect(200).json()["tags"], json!([]));
    for unknown in ["a", "a/b/c", "other"] {
        let answer = fixture.ask(&format!("GET /v2/{unknown}/tags/list")).await.expect_error(404, "NAME_UNKNOWN");
        assert_eq!(answer.json()["errors"][0]["detail"], json!({ "name": unknown }));
    }
}

#[tokio::test]
async fn many_tags_at_once() {
    let fixture = Fixture::large();
    let tags: Vec<String> = (0..2500).map(|number| format!("v{number:05}")).collect();
    for tag in &tags {
        fake_tag(&fixture, "a", tag);
    }
    let wide = fixture.reconfigured(|config| config.tags_page = 10_000);
    assert_eq!(wide.ask("GET /v2/a/tags/list?n=10000").await.json()["tags"], json!(tags));
    assert_eq!(all_pages(&fixture, "/v2/a/tags/list?n=1000", "tags").await, (tags, 3));
}

#[tokio::test]
async fn the_catalog_comes_in_path_order_and_in_pages_also_where_names_are_prefixes() {
    let fixture = Fixture::large();
    assert_eq!(fixture.ask("GET /v2/_catalog").await.expect(200).json(), json!({ "repositories": [] }));
    let names =
        ["0", "a", "a/a", "a/b", "a/b/c", "a/b/c/d", "a/b-c", "a/bb", "a-b", "a-b/c", "a.b", "aa", "b/c/d", "z"];
    for name in names {
        fake_repository(&fixture, name);
    }
    // What is beside repositories is none of them.
    for other in ["b/_uploads/x", "lost+found", "UPPER/_manifests", "b/c/_layers/sha256", "empty"] {
        std::fs::create_dir_all(fixture.path(&format!("repositories/{other}"))).unwrap();
    }
    std::fs::File::create(fixture.path("repositories/file")).unwrap();
    assert_eq!(fixture.ask("GET /v2/_catalog").await.expect(200).json()["repositories"], json!(names));
    for size in 1..=names.len() {
        let (seen, pages) = all_pages(&fixture, &format!("/v2/_catalog?n={size}"), "repositories").await;
        assert_eq!((seen, pages), (names.map(str::to_owned).to_vec(), names.len().div_ceil(size)), "{size}");
    }
    // The marker need not be a repository, nor a name at all.
    for (last, expected) in [
        ("a/b/b", "a/b/c"),
        ("a/b/c/d/e", "a/b-c"),
        ("a/zzz", "a-b"),
        ("b", "b/c/d"),
        ("b/c", "b/c/d"),
        ("a/../z", "a/a"),
        ("/", "0"),
        ("A", "a"),
        ("a//", "a/a"),
    ] {
        let page = fixture.ask(&format!("GET /v2/_catalog?n=1&last={last}")).await.expect(200);
        assert_eq!(page.json()["repositories"], json!([expected]), "{last}");
    }
    let page = fixture.ask("GET /v2/_catalog?n=2&last=a").await.expect(200);
    assert_eq!(page.header("link"), "</v2/_catalog?last=a/b&n=2>; rel=\"next\"");
    assert_eq!(fixture.ask("GET /v2/_catalog?n=0").await.expect(200).json()["repositories"], json!([]));
}

#[tokio::test]
async fn a_folder_of_more_repositories_than_are_held_at_once() {
    let fixture = Fixture::large();
    // Digits come before `_manifests`, letters after it.
    let numbers: Vec<String> = (0..1100).map(|number| format!("a/{number:04}")).collect();
    let mut names = vec!["a".to_owned()];
    names.extend(numbers);
    names.push("a/x".to_owned());
    for name in &names {
        fake_repository(&fixture, name);
    }
    let listed = fixture.registry.repositories(None, 2000).await.unwrap();
    let listed: Vec<String> = listed.iter().map(ToString::to_string).collect();
    assert_eq!(listed, names);
}

#[tokio::test]
async fn a_tree_whose_tags_are_in_gitlabs_database_is_refused_and_any_other_is_not() {
    let fixture = Fixture::new();
    fixture.registry.check_tree().await.unwrap();
    let locks = fixture.dir.path().join("docker/registry/lockfiles");
    crate::storage::durable::make_dirs(&locks).unwrap();
    let write = |name: &str| crate::storage::durable::write(&locks.join(name), b"{\"version\":1}", 0o644).unwrap();
    write("filesystem-in-use");
    fixture.registry.check_tree().await.unwrap();
    write("database-in-use");
    let refusal = fixture.registry.check_tree().await.unwrap_err().to_string();
    assert!(refusal.contains("metadata database") && refusal.contains("rootdirectory"), "{refusal}");
}
