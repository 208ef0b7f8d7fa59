//! What is said of text that is not understood?
//!
//! Where it is, and whether it may be about the registry or keep somebody out: never a value.

use super::super::value::Value;
use super::{Reader, Statement};

/// What runs text that is not here, or keeps the rest of the file from being run.
const ELSEWHERE: [&str; 12] = [
    "from_file",
    "eval",
    "instance_eval",
    "class_eval",
    "load",
    "require",
    "require_relative",
    "send",
    "public_send",
    "return",
    "exit",
    "raise",
];
/// What keeps somebody out, as keys of Omnibus' and directives of NGINX's.
const GUARDS: [&str; 6] = [
    "listen_addresses",
    "ssl_verify_client",
    "custom_gitlab_server_config",
    "real_ip_trusted_addresses",
    "allow",
    "deny",
];
impl Reader<'_> {
    /// Names a piece of text that was not understood; it may be about anything.
    pub(super) fn left(&mut self, start: usize, end: usize, key: &str, why: &str) {
        let (suspect, guards) = (true, self.guards(start, end));
        let value = Value::Running(why.to_owned());
        let line = self.line(start);
        self.found.push(Statement { path: vec![key.to_owned()], line, value, weak: false, suspect, guards });
    }

    /// Names what was skipped, where it may be about the registry.
    pub(super) fn left_if_suspect(&mut self, start: usize, why: &str) {
        if self.is_suspect(start, self.at) {
            let key = self.excerpt(start);
            self.left(start, self.at, &key, why);
        }
    }

    pub(super) fn is_suspect(&self, start: usize, end: usize) -> bool {
        let text = self.bytes.get(start..end).unwrap_or_default();
        let registry = text.windows(b"registry".len()).any(|word| word.eq_ignore_ascii_case(b"registry"));
        registry || self.speaks_of(start, end, &ELSEWHERE)
    }

    /// Whether it speaks of something that keeps somebody out.
    pub(super) fn guards(&self, start: usize, end: usize) -> bool {
        self.speaks_of(start, end, &GUARDS)
    }

    /// Whether one of these words is in a piece of the text.
    fn speaks_of(&self, start: usize, end: usize, words: &[&str]) -> bool {
        let text = self.bytes.get(start..end).unwrap_or_default();
        let parts = text.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
        let mut before: &[u8] = b"";
        parts.into_iter().any(|part| {
            // `YAML.load` reads what stands there.
            let reads = before == b"YAML" && part == b"load";
            before = part;
            !reads && words.iter().any(|word| word.as_bytes() == part)
        })
    }

    /// The beginning of a statement that is not understood: up to a blank, never a value.
    pub(super) fn excerpt(&self, start: usize) -> String {
        const LONGEST: usize = 40;
        let rest = self.text.get(start..).unwrap_or_default();
        let end = rest.char_indices().nth(LONGEST).map_or(rest.len(), |(at, _)| at);
        let first = &rest[..end];
        let end = first.find(|letter: char| letter.is_whitespace() || letter == '(' || letter == '"' || letter == '\'');
        match &first[..end.unwrap_or(first.len())] {
            "" => "Ruby".to_owned(),
            word => word.to_owned(),
        }
    }
}
