//! The examples in `README.md`: each is taken as it is printed, and comes to what the words beside it say.

use std::fs;
use std::path::Path;

use super::super::*;
use super::{Desk, ROOT, machine};

/// What stands between ```` ```yaml ```` and the next fence.
fn examples(text: &str) -> Vec<&str> {
    let bodies = text.split("```yaml\n").skip(1);
    bodies.map(|rest| rest.split("```").next().expect("split has a first part")).collect()
}

/// The one example that has this line.
fn example<'t>(examples: &[&'t str], line: &str) -> &'t str {
    let found: Vec<_> = examples.iter().filter(|text| text.lines().any(|own| own == line)).collect();
    let [found] = found[..] else { panic!("{} examples have the line {line}", found.len()) };
    found
}

/// A folder with the files that an example names.
fn desk(text: &str) -> Desk {
    let desk = Desk::new();
    let words = text.split(|letter: char| letter.is_whitespace() || ",{}[]\"".contains(letter));
    for word in words.filter(|word| [".pem", ".crt", ".key"].iter().any(|of| word.ends_with(of))) {
        desk.put(word, [b'a'; 48]); // as long as a ticket key
    }
    desk
}

/// What another Distribution is told: its file, not ours.
fn is_distributions(text: &str) -> bool {
    text.starts_with("auth:\n")
}

fn readme() -> String {
    fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap()
}

#[test]
fn every_example_in_the_readme_is_taken_as_printed_and_without_a_warning() {
    let text = readme();
    let examples = examples(&text);
    assert!(examples.len() >= 4, "{examples:?}");
    for example in examples {
        let desk = desk(example);
        let settings = if is_distributions(example) {
            let rest = "version: 0.1\nhttp: { addr: ':5000' }\nstorage: { filesystem: { rootdirectory: a } }\n";
            desk.put("config.yml", format!("{rest}{example}"));
            load_registry(Path::new("config.yml"), [], &machine(desk.path()))
        } else {
            desk.put("a.yml", example).load("a.yml", "")
        };
        let settings = settings.unwrap_or_else(|problems| panic!("{problems}\n{example}"));
        assert_eq!(settings.warnings, [], "{example}");
    }
}

#[test]
fn a_public_name_alone_orders_a_certificate_as_the_readme_says() {
    let text = readme();
    let minute = &text[text.find("### Let's Encrypt in a minute").unwrap()..];
    let [example, dns, other, nodes, clients, ..] = examples(minute)[..] else { panic!("five examples") };
    assert_eq!(desk(example).good(example, "").tls.acme, None, "example.com is nobody's");
    let desk_of_one = desk(example);
    let settings = desk_of_one.good(&example.replace("example.com", "pierhead.dev"), "");
    assert_eq!(settings.tls.acme.unwrap().certificates, [["registry.pierhead.dev"]]);
    assert_eq!(settings.warnings, []);
    let names = |text: &str| desk(text).good(text, "").tls.acme.unwrap().certificates;
    assert_eq!(names(dns), [["registry.example.com", "*.registry.example.com"]]);
    assert_eq!(
        (names(other), names(nodes)),
        (vec![vec!["registry.internal".to_owned()]], vec![vec!["registry.example.com".to_owned()]])
    );
    assert_eq!(desk(clients).good(clients, "").tls.clients.len(), 1);
}

#[test]
fn three_lines_before_a_registry_lead_where_the_readme_says() {
    let text = readme();
    let example = example(&examples(&text), "external_url: https://gitlab.example.com:5050");
    let ways = ways(&desk(example).good(example, ""));
    let [way] = &ways[..] else { panic!("{ways:?}") };
    assert!(text.contains(&format!("`{way}`")), "{way}");
}

#[test]
fn the_readmes_routes_part_two_registries_by_name() {
    let text = readme();
    let example = example(&examples(&text), "routes:");
    let settings = desk(example).good(example, "");
    let ways = ways(&settings);
    assert_eq!(
        ways,
        [
            "harbor.example.com/v2/ -> harbor (https://10.0.0.5, https://10.0.0.6)",
            "registry.example.com/v2/ -> gitlab (http://127.0.0.1:5000)",
            "registry.example.com/ -> 308 https://gitlab.example.com/",
        ]
    );
    assert_eq!(settings.services, Services { registry: false, tokens: Tokens::Off });
}
