//! How is a `pierhead.yml` written?
//!
//! Values are put under the path of their key, in any order, and printed in the order of `conf/pierhead.yml`.

use std::fmt::Write as _;

/// The order of the keys at the top.
const ORDER: [&str; 14] = [
    "external_url",
    "aliases",
    "listeners",
    "trusted_proxies",
    "tls",
    "registry",
    "token",
    "upstreams",
    "routes",
    "limits",
    "timeouts",
    "log",
    "metrics",
    "state",
];

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Node {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Node {
    fn from(flag: bool) -> Self {
        Self::Text(flag.to_string())
    }
}

impl<T: Into<Node>> From<Vec<T>> for Node {
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

impl Node {
    /// A mapping of these keys.
    pub(super) fn map<const N: usize>(entries: [(&str, Node); N]) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }
}

/// The file, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Page {
    root: Vec<(String, Node)>,
    /// What stands at its top, each a line.
    pub(super) remarks: Vec<String>,
}

impl Page {
    /// Puts a value where `path` says, in place of what was there.
    pub(super) fn put(&mut self, path: &[&str], value: impl Into<Node>) {
        place(&mut self.root, path, value.into());
    }

    /// What was put there.
    pub(super) fn get(&self, path: &[&str]) -> Option<&Node> {
        let (last, above) = path.split_last()?;
        let mut level = &self.root;
        for key in above {
            match level.iter().find(|(name, _)| name == key) {
                Some((_, Node::Map(inside))) => level = inside,
                _ => return None,
            }
        }
        level.iter().find(|(name, _)| name == last).map(|(_, value)| value)
    }

    /// Adds to a list.
    pub(super) fn push(&mut self, path: &[&str], value: impl Into<Node>) {
        let mut items = match self.get(path) {
            Some(Node::List(items)) => items.clone(),
            _ => Vec::new(),
        };
        let value = value.into();
        if !items.contains(&value) {
            items.push(value);
        }
        self.put(path, Node::List(items));
    }

    /// The text of the file.
    pub(super) fn print(mut self) -> String {
        let rank = |key: &str| ORDER.iter().position(|other| *other == key).unwrap_or(ORDER.len());
        self.root.sort_by_key(|(key, _)| rank(key));
        let mut text = String::new();
        for remark in &self.remarks {
            // A control character would end the comment.
            let remark: String = remark.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
            text.push_str(format!("# {remark}").trim_end());
            text.push('\n');
        }
        for (key, value) in &self.root {
            text.push('\n');
            entry(&mut text, key, value, 0);
        }
        text
    }
}

fn place(level: &mut Vec<(String, Node)>, path: &[&str], value: Node) {
    let Some((key, below)) = path.split_first() else { return };
    let at = level.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
        level.push(((*key).to_owned(), Node::Map(Vec::new())));
        level.len() - 1
    });
    let slot = &mut level[at].1;
    if below.is_empty() {
        *slot = value;
        return;
    }
    if !matches!(slot, Node::Map(_)) {
        *slot = Node::Map(Vec::new());
    }
    if let Node::Map(inside) = slot {
        place(inside, below, value);
    }
}

fn entry(text: &mut String, key: &str, value: &Node, indent: usize) {
    let _ = write!(text, "{:indent$}{}:", "", scalar(key)); // a String takes everything
    behind(text, value, indent);
}

/// What follows the colon of a key that is indented by `indent`.
fn behind(text: &mut String, value: &Node, indent: usize) {
    match value {
        Node::Text(word) => {
            text.push(' ');
            text.push_str(&scalar(word));
            text.push('\n');
        }
        Node::List(items) if items.is_empty() => text.push_str(" []\n"),
        Node::Map(entries) if entries.is_empty() => text.push_str(" {}\n"),
        Node::List(items) => {
            text.push('\n');
            for item in items {
                list_item(text, item, indent + 2);
            }
        }
        Node::Map(entries) => {
            text.push('\n');
            for (key, value) in entries {
                entry(text, key, value, indent + 2);
            }
        }
    }
}

fn list_item(text: &mut String, item: &Node, indent: usize) {
    match item {
        Node::Map(entries) if !entries.is_empty() => {
            for (number, (key, value)) in entries.iter().enumerate() {
                let mark = if number == 0 { "- " } else { "  " };
                let _ = write!(text, "{:indent$}{mark}{}:", "", scalar(key)); // a String takes everything
                behind(text, value, indent + 2);
            }
        }
        Node::Text(word) => {
            let _ = writeln!(text, "{:indent$}- {}", "", scalar(word)); // a String takes everything
        }
        Node::List(_) | Node::Map(_) => {
            let _ = write!(text, "{:indent$}-", ""); // a String takes everything
            behind(text, item, indent);
        }
    }
}

/// Plain where YAML has no other meaning for any letter of it, else between quotes.
fn scalar(word: &str) -> String {
    let letter = |letter: char| letter.is_ascii_alphanumeric() || "_./:-".contains(letter);
    let begins = word.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '/');
    let null = word.eq_ignore_ascii_case("null");
    if begins && !null && !word.ends_with(':') && word.chars().all(letter) {
        return word.to_owned();
    }
    serde_json::Value::String(word.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_yaml_that_means_what_was_put() {
        let mut page = Page::default();
        page.put(
            &["tls", "certificates"],
            Node::List(vec![Node::map([("certificate", "/a b".into()), ("key", "k".into())])]),
        );
        page.put(&["external_url"], "https://[::1]:5050");
        page.push(&["trusted_proxies"], "10.0.0.0/8");
        page.push(&["trusted_proxies"], "::/0");
        page.push(&["trusted_proxies"], "::/0");
        page.put(&["registry", "http", "secret"], "a\"b\nc: #\u{e9}");
        page.put(&["registry", "http", "headers"], Node::Map(vec![("X-A".to_owned(), vec!["null", ""].into())]));
        page.remarks = vec!["one\ntwo".to_owned(), String::new()];
        let text = page.print();
        assert!(text.starts_with("# one two\n#\n\nexternal_url: \"https://[::1]:5050\"\n"), "{text}");
        let read: serde_json::Value = {
            // Every quoted scalar is JSON, and the shape is simple enough to be compared as text.
            assert!(text.contains("  - certificate: \"/a b\"\n      key: k\n"), "{text}");
            assert!(text.contains("trusted_proxies:\n  - 10.0.0.0/8\n  - \"::/0\"\n"), "{text}");
            let secret = text.lines().find_map(|line| line.trim().strip_prefix("secret: ")).unwrap();
            serde_json::from_str(secret).unwrap()
        };
        assert_eq!(read, "a\"b\nc: #\u{e9}");
        assert!(text.contains("      X-A:\n        - \"null\"\n        - \"\"\n"), "{text}");
    }
}
