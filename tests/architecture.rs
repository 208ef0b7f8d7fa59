//! The walls between rooms, as a test. A room may name only the rooms on its row; adding an edge means editing this
//! table, in review, on purpose. The picture behind it is the map in `src/lib.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Bottom first: a row may only name rows above it, so the table cannot hold a cycle.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("exchange", &[]),
    ("oci", &[]),
    ("gitlab", &["exchange"]),    // what an origin is
    ("telemetry", &["exchange"]), // the words for kinds of requests and for limits
    ("storage", &["telemetry"]),
    ("metadata", &["oci", "storage"]),
    ("tls", &["storage", "telemetry"]),
    ("auth", &["exchange", "metadata", "oci", "storage", "telemetry"]),
    ("registry", &["auth", "exchange", "metadata", "oci", "storage", "telemetry", "tls"]),
    ("origin", &["auth", "exchange", "oci", "registry", "telemetry"]),
    ("front", &["exchange", "origin", "telemetry", "tls"]),
    ("config", &["auth", "exchange", "front", "registry", "telemetry", "tls"]),
    ("server", &["auth", "config", "front", "metadata", "oci", "origin", "registry", "storage", "telemetry", "tls"]),
    ("cli", &["auth", "config", "gitlab", "metadata", "oci", "registry", "server", "storage", "telemetry", "tls"]),
];

/// Names that must not leak past the places named (rooms, or single files).
const ONLY_IN: &[(&str, &[&str])] = &[
    ("pingora", &["front", "server"]),
    ("serde_yaml", &["config"]),
    ("saphyr_parser", &["config"]),
    ("sqlx", &["metadata"]),
    ("rcgen", &["tls", "auth", "front"]), // front: only its tests make certificates
    ("rustls_acme", &["tls"]),
    ("instant_acme", &["tls"]),
    ("reqwest", &["tls", "front", "server"]),
    ("hickory_proto", &["tls"]),
    ("nix", &["server", "cli", "storage", "config"]),
];

/// Storage keys are spelled in one file.
const LAYOUT_WORDS: &[&str] = &["\"_layers", "\"_manifests", "\"_uploads", "docker/registry/v2"];
const LAYOUT_HOME: &str = "src/registry/layout.rs";

#[test]
fn the_table_is_ordered_so_it_has_no_cycles() {
    for (row, (room, allowed)) in MAY_IMPORT.iter().enumerate() {
        for name in *allowed {
            assert!(
                MAY_IMPORT[..row].iter().any(|(above, _)| above == name),
                "{room} names {name}, which is not above it"
            );
        }
    }
}

#[test]
fn every_room_of_the_map_is_on_the_table() {
    let map = fs::read_to_string(source_root().join("lib.rs")).unwrap();
    let rooms: BTreeSet<&str> = MAY_IMPORT.iter().map(|(room, _)| *room).collect();
    let declared: BTreeSet<&str> =
        map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(declared, rooms);
    for room in rooms {
        assert!(map.contains(&format!("//! - [`{room}`]")), "the map in lib.rs does not explain {room}");
    }
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let rooms: BTreeSet<&str> = MAY_IMPORT.iter().map(|(room, _)| *room).collect();
    let mut wrong = Vec::new();
    for (room, allowed) in MAY_IMPORT {
        for file in sources(room) {
            let text = without_comments(&fs::read_to_string(&file).unwrap());
            for name in crate_names(&text) {
                if name != *room && rooms.contains(name.as_str()) && !allowed.contains(&name.as_str()) {
                    wrong.push(format!("{}: {room} must not import {name}", file.display()));
                }
            }
            for (library, homes) in ONLY_IN {
                if !homes.contains(room) && names_library(&text, library) {
                    wrong.push(format!("{}: {library} belongs in {homes:?}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn storage_keys_are_spelled_in_one_file() {
    let mut wrong = Vec::new();
    for (room, _) in MAY_IMPORT {
        for file in sources(room).into_iter().filter(|file| !file.ends_with(LAYOUT_HOME)) {
            let text = fs::read_to_string(&file).unwrap();
            // Tests look at the tree from outside, as another program would.
            let product = without_comments(text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default());
            if file.file_name().is_some_and(|name| name == "tests.rs")
                || file.components().any(|part| part.as_os_str() == "tests")
            {
                continue;
            }
            for word in LAYOUT_WORDS.iter().filter(|word| product.contains(**word)) {
                wrong.push(format!("{}: {word} belongs in {LAYOUT_HOME}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_scanner_sees_what_it_must_see() {
    let text =
        without_comments("use crate::{oci::Digest, auth::{Grant, Config}};\n// use crate::front;\ncrate::tls::x();");
    assert_eq!(crate_names(&text).into_iter().collect::<Vec<_>>(), ["auth", "oci", "tls"]);
    assert!(names_library("use pingora::x;", "pingora") && !names_library("let nix_like = 1;", "nix"));
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources(room: &str) -> Vec<PathBuf> {
    let mut found = vec![source_root().join(format!("{room}.rs"))];
    let mut folders = vec![source_root().join(room)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.retain(|file| file.extension().is_some_and(|extension| extension == "rs") && file.exists());
    assert!(!found.is_empty(), "no sources for {room}");
    found
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

fn names_library(text: &str, library: &str) -> bool {
    text.match_indices(&format!("{library}::"))
        .any(|(at, _)| !text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
}

/// The first segment after each `crate::`, including every branch of `crate::{a::b, c}`.
fn crate_names(text: &str) -> BTreeSet<String> {
    let word = |part: &str| -> String {
        part.trim().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
    };
    let mut names = BTreeSet::new();
    for tail in text.split("crate::").skip(1) {
        let Some(group) = tail.strip_prefix('{') else {
            names.insert(word(tail));
            continue;
        };
        let (mut depth, mut branch) = (1, String::new());
        for letter in group.chars() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && letter == ',') {
                names.insert(word(&std::mem::take(&mut branch)));
            } else {
                branch.push(letter);
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}
