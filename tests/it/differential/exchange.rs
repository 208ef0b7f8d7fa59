//! What an answer says, without what must differ: addresses, random names, dates, words.

use std::collections::BTreeMap;

use reqwest::blocking::Response;
use serde_json::Value;

use crate::support::content::digest;

/// The headers that clients look at.
const HEADERS: [&str; 20] = [
    "accept-ranges",
    "allow",
    "cache-control",
    "content-length",
    "content-range",
    "content-type",
    "docker-content-digest",
    "docker-distribution-api-version",
    "docker-upload-uuid",
    "etag",
    "link",
    "location",
    "oci-chunk-min-length",
    "oci-filters-applied",
    "oci-subject",
    "oci-tag",
    "range",
    "retry-after",
    "warning",
    "www-authenticate",
];

/// An answer, comparable.
pub(super) struct Outcome {
    status: u16,
    pub(super) headers: BTreeMap<&'static str, String>,
    /// The error codes, in the order of the body.
    pub(super) codes: Vec<String>,
    body: String,
}

impl Outcome {
    pub(super) fn of(answer: Response) -> Self {
        let status = answer.status().as_u16();
        let value = |name: &&'static str| {
            let values: Vec<_> = answer.headers().get_all(*name).iter().map(|value| value.to_str().unwrap()).collect();
            (!values.is_empty()).then(|| (*name, normal(&values.join(", "))))
        };
        let mut headers: BTreeMap<_, _> = HEADERS.iter().filter_map(value).collect();
        // Theirs promises more than it sends with a 416.
        let Ok(bytes) = answer.bytes() else {
            return Self { status, headers, codes: Vec::new(), body: "shorter than promised".to_owned() };
        };
        let json: Option<Value> = serde_json::from_slice(&bytes).ok();
        let errors = json.as_ref().and_then(|json| json["errors"].as_array()).cloned();
        let codes: Vec<String> = errors
            .iter()
            .flatten()
            .map(|error| error["code"].as_str().unwrap_or("without a code").to_owned())
            .collect();
        let body = match json {
            _ if errors.is_some() => "errors".to_owned(),
            Some(json) => json.to_string(),
            None if bytes.len() < 200 => String::from_utf8_lossy(&bytes).trim_end().to_owned(),
            None => digest(&bytes),
        };
        // The words of an error are each one's own.
        if status >= 400 {
            headers.remove("content-length");
        }
        Self { status, headers, codes, body }
    }

    /// Status and codes: what a client decides by.
    fn verdict(&self) -> String {
        format!("{} {}", self.status, self.codes.join(" ")).trim_end().to_owned()
    }

    /// `(field, theirs, ours)`. When the verdicts differ, so does everything else, and nothing else is said.
    pub(super) fn differences(&self, ours: &Self) -> Vec<(String, String, String)> {
        if self.verdict() != ours.verdict() {
            return vec![("verdict".to_owned(), self.verdict(), ours.verdict())];
        }
        let mut fields: Vec<&str> = HEADERS.to_vec();
        fields.retain(|name| self.headers.get(name) != ours.headers.get(name));
        let said = |value: Option<&String>| value.map_or("-".to_owned(), String::clone);
        let header = |name: &&str| ((*name).to_owned(), said(self.headers.get(name)), said(ours.headers.get(name)));
        let mut differences: Vec<_> = fields.iter().map(header).collect();
        if self.body != ours.body {
            differences.push(("body".to_owned(), self.body.clone(), ours.body.clone()));
        }
        differences
    }
}

/// Without addresses, random names and states.
fn normal(value: &str) -> String {
    let replace = |text: &str, pattern: &str, by: &str| {
        regex::Regex::new(pattern).expect("a pattern").replace_all(text, by).into_owned()
    };
    let value = replace(value, "https?://[^/\"]+/", "ORIGIN/");
    let value = replace(&value, "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID");
    let value = replace(&value, "_state=[A-Za-z0-9_=%-]+", "_state=STATE");
    regex::Regex::new("scope=\"([^\"]*)\"").expect("a pattern").replace(&value, in_order).into_owned()
}

/// Theirs come in the order of a hash table.
fn in_order(scope: &regex::Captures<'_>) -> String {
    let sorted = |text: &str, separator: &str| {
        let mut parts: Vec<&str> = text.split(separator).collect();
        parts.sort_unstable();
        parts.join(separator)
    };
    let scopes: Vec<String> = scope[1]
        .split(' ')
        .map(|scope| match scope.rsplit_once(':') {
            Some((resource, actions)) => format!("{resource}:{}", sorted(actions, ",")),
            None => scope.to_owned(),
        })
        .collect();
    format!("scope=\"{}\"", sorted(&scopes.join(" "), " "))
}
