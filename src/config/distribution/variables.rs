//! Which `REGISTRY_*` variable says what?
//!
//! Distribution walks them in the order of their names through the fields of its program: `_` between levels, in any case,
//! created in lower case where they are new; the value is YAML. A few fields have another name than their key. A level
//! whose name holds `_` cannot be reached.

use super::keys::{self, Found};
use crate::config::environment::is_of_kubernetes;
use crate::config::problem::{Place, Problem};
use crate::config::reader::without_indexes;
use crate::config::yaml::{self, Node, Value, join};

/// Every variable of Distribution starts so.
pub(in crate::config) const PREFIX: &str = "REGISTRY_";
/// Names the file; it is no key.
pub(in crate::config) const FILE: &str = "REGISTRY_CONFIGURATION_PATH";
/// Feature flags of GitLab's registry, for what we do not have.
const FLAGS: &str = "REGISTRY_FF_";

/// Fields and their keys where these differ, in lower case.
const FIELDS: [(&str, &str); 6] = [
    ("health.filecheckers", "health.file"),
    ("health.httpcheckers", "health.http"),
    ("health.tcpcheckers", "health.tcp"),
    ("notifications.eventconfig", "notifications.events"),
    ("compatibility.schema1.trustkey", "compatibility.schema1.signingkeyfile"),
    ("ratelimiter", "rate_limiter"),
];

/// Writes what the variables say into the tree. A name that leads nowhere is a warning, a value that is not YAML a problem.
pub(super) fn overlay(
    root: &mut Node,
    variables: &[(String, String)],
    warnings: &mut Vec<Problem>,
    problems: &mut Vec<Problem>,
) {
    let mut ours: Vec<&(String, String)> = variables.iter().filter(|(name, value)| is_key(name, value)).collect();
    ours.sort();
    for (name, value) in ours {
        let levels = levels(name);
        let place = Place::variable(name);
        let Some(value) = yaml::read(value, &place.source, &levels.join("."), problems) else { continue };
        let value = Node { place: place.clone(), ..value };
        if !is_known(&levels) || !put(root, &levels, "", value) {
            warnings.push(Problem::new(&place, &**name, "ignoring unrecognized environment variable"));
        }
    }
}

/// Says of variables that count for Distribution's own file, and there is none, how they would be read.
pub(super) fn leave_out(variables: &[(String, String)], warnings: &mut Vec<Problem>) {
    let keys = variables.iter().filter(|(name, value)| is_key(name, value) && is_known(&levels(name)));
    for (name, _) in keys {
        let message = format!("not read here: write PIERHEAD_{name}, or let `registry` name Distribution's own file");
        warnings.push(Problem::new(&Place::variable(name), &**name, message));
    }
}

fn is_key(name: &str, value: &str) -> bool {
    name.starts_with(PREFIX) && name != FILE && !name.starts_with(FLAGS) && !is_of_kubernetes(name, value)
}

/// The levels of a key.
fn levels(name: &str) -> Vec<String> {
    let path = name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase().replace('_', ".");
    let renamed = FIELDS.iter().find_map(|(field, key)| {
        let rest = path.strip_prefix(field)?;
        (rest.is_empty() || rest.starts_with('.')).then(|| format!("{key}{rest}"))
    });
    renamed.unwrap_or(path).split('.').map(str::to_owned).collect()
}

/// Whether Distribution knows these levels. Below `storage` and `auth` every name is taken for one of a driver, and what
/// is not one is refused with the rest of the file.
fn is_known(levels: &[String]) -> bool {
    if levels.iter().any(String::is_empty) {
        return false;
    }
    let index = |level: &String| level.bytes().all(|byte| byte.is_ascii_digit());
    let path = levels.iter().fold(
        String::new(),
        |path, level| {
            if index(level) { format!("{path}[0]") } else { join(&path, level) }
        },
    );
    let driver = levels.len() > 1 && matches!(levels[0].as_str(), "storage" | "auth");
    driver || !matches!(keys::find(&without_indexes(&path)), Found::Nothing)
}

/// Whether a key of the file is the one of the variable: in lower case, as the reader asks for it. Names of headers are
/// the same in any case.
fn is_named(key: &str, level: &str, section: &str) -> bool {
    key == level || (section == "http.headers" && key.eq_ignore_ascii_case(level))
}

/// Puts a value where the levels lead; `false` when they lead into nothing.
fn put(node: &mut Node, levels: &[String], path: &str, value: Node) -> bool {
    let Some((level, rest)) = levels.split_first() else {
        *node = value;
        return true;
    };
    let empty = || Node { place: value.place.clone(), value: Value::Nothing };
    match &node.value {
        Value::Nothing => node.value = Value::Mapping(Vec::new()),
        // `storage: filesystem` is `storage: { filesystem: }`.
        Value::Text(driver) if matches!(path, "storage" | "auth") => {
            let driver = driver.clone();
            node.value = Value::Mapping(vec![(driver, Node { place: node.place.clone(), value: Value::Nothing })]);
        }
        Value::Text(_) | Value::List(_) | Value::Mapping(_) | Value::Refused => {}
    }
    match &mut node.value {
        Value::List(items) => {
            let Ok(index) = level.parse::<usize>() else { return false };
            if index == items.len() {
                items.push(empty());
            }
            items.get_mut(index).is_some_and(|item| put(item, rest, path, value))
        }
        Value::Mapping(entries) => {
            let at = entries.iter().position(|(key, _)| is_named(key, level, path)).unwrap_or_else(|| {
                entries.push((level.clone(), empty()));
                entries.len() - 1
            });
            put(&mut entries[at].1, rest, &join(path, level), value)
        }
        // Wrong in the file, and reported with it.
        Value::Text(_) | Value::Nothing | Value::Refused => true,
    }
}
