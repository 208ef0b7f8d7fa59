//! What did the operator write in Distribution's `config.yml`?
//!
//! The same keys come from three places: the `registry:` part of our file, a file that it names, and the file of
//! `pierhead registry serve`. Variables are written into the tree first; then every key in it is looked up in the table
//! of `keys.rs`; then what counts is read.
//!
//! **Invariant:** no key is passed over in silence unless the table says that nothing depends on it; and no message shows
//! the value of a key that is not honoured, since it may be a secret.
//!
//! A key that nobody knows is refused in our file and warned about in its own, whose parser passes it over.

mod http;
pub(super) mod keys;
mod read;
#[cfg(test)]
mod tests;
mod values;
pub(super) mod variables;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::Level;

pub(super) use self::http::DebugAddress;
use self::keys::{Found, Key, Treatment};
use super::environment::Collection;
use super::problem::{Place, Problem, Source, listed};
use super::reader::{Reader, Said, Setting, without_indexes};
use super::written::Internal;
use super::yaml::{self, Node, Value, join};
use crate::auth::Guard;
use crate::registry::{Platforms, Purge, Secret, Validation};
use crate::telemetry::{Destination, Format};

/// Where our file has it.
const HOME: &str = "registry";

/// The registry as written.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) root: Setting<PathBuf>,
    pub(super) delete: Setting<bool>,
    pub(super) read_only: Setting<bool>,
    pub(super) purge: Option<Purge>,
    pub(super) secret: Setting<Secret>,
    pub(super) relative_urls: Setting<bool>,
    pub(super) catalog_page: Setting<usize>,
    pub(super) tags_page: Setting<usize>,
    pub(super) validation: Validation,
    /// The largest manifest.
    pub(super) manifest: Setting<u64>,
    pub(super) internal: Setting<Internal>,
    pub(super) drain: Setting<Duration>,
    pub(super) level: Setting<Level>,
    pub(super) format: Setting<Format>,
    /// Where access lines go.
    pub(super) access: Setting<Destination>,
    pub(super) guard: Setting<Guard>,
    pub(super) door: http::Door,
    /// Files that must be readable: key, path, place.
    pub(super) files: http::NamedFiles,
}

/// Reads the `registry:` part of our file: whether there is to be a registry, and which.
pub(super) fn embedded(reader: &mut Reader, node: &Node, any: IpAddr) -> (Said, Registry) {
    let switch = reader.switch(node, HOME);
    let value = if switch.is_unset() { node.value.clone() } else { Value::Nothing };
    let is_file = matches!(value, Value::Text(_));
    let registry = read(reader, &Node { place: node.place.clone(), value }, any);
    let any = is_file || reader.any_below(HOME);
    (Said { switch, any }, registry)
}

fn read(reader: &mut Reader, node: &Node, any: IpAddr) -> Registry {
    let homes = keys::KEYS.iter().filter(|key| key.treatment == Treatment::Honoured);
    reader.known_keys.extend(homes.map(|key| join(HOME, key.path)));
    let refused = |key: &&Key| matches!(key.treatment, Treatment::Refused | Treatment::Forbidden);
    reader.later.extend(keys::KEYS.iter().filter(refused).map(|key| join(HOME, key.path)));
    let folder = reader.folder.clone();
    if let Value::Text(file) = &node.value {
        let absolute: PathBuf = folder.join(file).components().collect();
        let root = read_file(reader, Path::new(file), &absolute);
        let folder = absolute.parent().map_or(folder, Path::to_owned);
        return Dialect { reader, root, home: "", folder, alone: false }.read(any);
    }
    let value = if reader.entries(node, HOME).is_some() { node.value.clone() } else { Value::Refused };
    let root = Node { place: node.place.clone(), value };
    Dialect { reader, root, home: HOME, folder, alone: false }.read(any)
}

/// Reads the file of `pierhead registry serve`. Relative paths start at the working directory, as Distribution's do.
pub(super) fn alone(reader: &mut Reader, file: &Path, absolute: &Path, any: IpAddr) -> Registry {
    let root = read_file(reader, file, absolute);
    let folder = reader.folder.clone();
    Dialect { reader, root, home: "", folder, alone: true }.read(any)
}

/// The tree of a file; one that cannot be read is reported, and nothing more is said about it.
fn read_file(reader: &mut Reader, file: &Path, absolute: &Path) -> Node {
    let Reader { problems, warnings, .. } = reader;
    super::read_file(file, absolute, problems, Some(warnings)).unwrap_or_else(|| {
        let place = Place { source: Source::File(file.into()), line: 0 };
        Node { place, value: Value::Refused }
    })
}

/// A tree that is being read.
struct Dialect<'r> {
    reader: &'r mut Reader,
    root: Node,
    /// What messages put before a key: `registry` in our file, nothing in its own.
    home: &'static str,
    /// Relative paths start here.
    folder: PathBuf,
    /// Whether nothing else is served.
    alone: bool,
}

impl Dialect<'_> {
    fn read(mut self, any: IpAddr) -> Registry {
        if !self.is_ours() {
            empty_is_nothing(&mut self.root);
        }
        if !self.is_ours() && !matches!(self.root.value, Value::Refused) {
            let variables = std::mem::take(&mut self.reader.registry_variables);
            let Reader { warnings, problems, .. } = &mut *self.reader;
            variables::overlay(&mut self.root, &variables, warnings, problems);
            self.reader.registry_variables = variables;
        }
        if self.is_ours() {
            let Reader { warnings, registry_variables, .. } = &mut *self.reader;
            variables::leave_out(registry_variables, warnings);
        }
        self.our_variables();
        short_forms(&mut self.root);
        let root = std::mem::replace(&mut self.root.value, Value::Refused);
        match &root {
            Value::Mapping(entries) => self.section(entries, ""),
            Value::Nothing | Value::Refused => {}
            Value::Text(_) | Value::List(_) => {
                let place = self.root.place.clone();
                self.reader.report(&place, self.home, "must be keys with values");
            }
        }
        self.root.value = root;
        self.registry(any)
    }

    fn is_ours(&self) -> bool {
        !self.home.is_empty()
    }

    fn shown(&self, path: &str) -> String {
        join(self.home, path).trim_end_matches('.').to_owned()
    }

    fn report(&mut self, place: &Place, path: &str, message: impl Into<String>) {
        let shown = self.shown(path);
        self.reader.report(place, &shown, message);
    }

    fn warn(&mut self, place: &Place, path: &str, message: impl Into<String>) {
        let problem = Problem::new(place, self.shown(path), message);
        self.reader.warnings.push(problem);
    }

    /// `PIERHEAD_REGISTRY_...`, which beats the tree as it beats all of our file.
    fn our_variables(&mut self) {
        for key in keys::KEYS.iter().filter(|key| key.treatment == Treatment::Honoured && key.sample != "{}") {
            let path = join(HOME, key.path);
            let environment = &mut self.reader.environment;
            let found = if key.sample.starts_with('[') {
                let Some((text, place)) = environment.whole(&path, Collection::List) else { continue };
                let list = yaml::read(&text, &place.source, &path, &mut self.reader.problems);
                Node { place, value: list.map_or(Value::Refused, |node| node.value) }
            } else {
                match environment.scalar(&path) {
                    Ok(None) => continue,
                    Ok(Some((text, place))) if matches!(text.as_str(), "null" | "~") => {
                        Node { place, value: Value::Nothing }
                    }
                    Ok(Some((text, place))) => Node { place, value: Value::Text(text) },
                    Err(problem) => {
                        self.reader.problems.push(problem);
                        continue;
                    }
                }
            };
            put(&mut self.root, key.path, found);
        }
    }

    /// Looks every key up.
    fn section(&mut self, entries: &[(String, Node)], path: &str) {
        for (name, node) in entries {
            let path = join(path, name);
            match keys::find(&without_indexes(&path)) {
                Found::Key(key) => self.treat(key, &path, node),
                Found::Section => self.below(&path, node),
                Found::Nothing => self.unknown(&path, name, node),
            }
        }
    }

    fn below(&mut self, path: &str, node: &Node) {
        match &node.value {
            Value::Mapping(entries) => self.section(entries, path),
            Value::Nothing | Value::Refused => {}
            Value::Text(_) | Value::List(_) => self.report(&node.place, path, "must be keys with values"),
        }
    }

    fn treat(&mut self, key: &Key, path: &str, node: &Node) {
        if matches!(node.value, Value::Refused) {
            return;
        }
        let on = matches!(&node.value, Value::Text(text) if values::is_true(text));
        match key.treatment {
            Treatment::Warned if !is_off(&node.value) => {
                self.warn(&node.place, path, format!("has no effect: {}", key.says));
            }
            Treatment::Refused if is_off(&node.value) => {}
            Treatment::RefusedWhenOn if !on => {}
            Treatment::Refused | Treatment::RefusedWhenOn | Treatment::Forbidden => {
                self.report(&node.place, path, format!("cannot be honoured: {}", key.says));
            }
            Treatment::Honoured | Treatment::Accepted | Treatment::Warned => {}
        }
    }

    fn unknown(&mut self, path: &str, name: &str, node: &Node) {
        let section = path.rsplit_once('.').map_or("", |(section, _)| section);
        if self.is_ours() {
            let siblings = keys::taken(&without_indexes(section));
            let section = self.shown(section);
            self.reader.unknown.push((node.place.clone(), section, name.to_owned(), siblings));
        } else if matches!(section, "storage" | "auth") {
            let taken = listed(&keys::taken(section), "and");
            self.report(&node.place, path, format!("unknown {section}; there are {taken}"));
        } else if let Some(lower) = meant(section, name) {
            self.report(&node.place, path, format!("unknown key; write {lower}, in lower case"));
        } else {
            self.warn(&node.place, path, "unknown key, has no effect");
        }
    }
}

/// The section that a name at the top is up to its case: passed over, `Auth` would leave the registry unguarded.
fn meant(section: &str, name: &str) -> Option<&'static str> {
    if !section.is_empty() {
        return None;
    }
    let mut sections = keys::KEYS.iter().filter_map(|key| key.path.split(['.', '[']).next());
    sections.find(|section| section.eq_ignore_ascii_case(name))
}

/// Whether a value switches something off, or says nothing. What is in a list is off when each of it is `disabled`.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Nothing | Value::Refused => true,
        Value::Text(text) => values::is_off(text),
        Value::List(items) => items.iter().all(|item| is_off(&item.value)),
        Value::Mapping(entries) => {
            let disabled = |(key, node): &(String, Node)| {
                key == "disabled" && matches!(&node.value, Value::Text(text) if values::is_true(text))
            };
            entries.iter().any(disabled) || entries.iter().all(|(_, node)| is_off(&node.value))
        }
    }
}

/// To its parser an empty text is as good as none.
fn empty_is_nothing(node: &mut Node) {
    match &mut node.value {
        Value::Text(text) if text.is_empty() => node.value = Value::Nothing,
        Value::List(items) => items.iter_mut().for_each(empty_is_nothing),
        Value::Mapping(entries) => entries.iter_mut().for_each(|(_, node)| empty_is_nothing(node)),
        Value::Text(_) | Value::Nothing | Value::Refused => {}
    }
}

/// `storage: filesystem`, `auth: none` and `readonly: true`, in full.
fn short_forms(root: &mut Node) {
    for (path, key) in [("storage", None), ("auth", None), ("storage.maintenance.readonly", Some("enabled"))] {
        let Some(node) = find_mut(root, path) else { continue };
        if let Value::Text(text) = &node.value {
            let place = node.place.clone();
            let inner = |value| Node { place: place.clone(), value };
            let entry = match key {
                Some(key) => (key.to_owned(), inner(Value::Text(text.clone()))),
                None => (text.clone(), inner(Value::Mapping(Vec::new()))),
            };
            node.value = Value::Mapping(vec![entry]);
        }
    }
}

fn find_mut<'n>(root: &'n mut Node, path: &str) -> Option<&'n mut Node> {
    path.split('.').try_fold(root, |node, level| match &mut node.value {
        Value::Mapping(entries) => entries.iter_mut().find(|(key, _)| key == level).map(|(_, node)| node),
        Value::Nothing | Value::Text(_) | Value::List(_) | Value::Refused => None,
    })
}

/// Puts a value at a path, with the sections on the way. What is no section on the way is reported as it is.
fn put(root: &mut Node, path: &str, new: Node) {
    let levels = path.split('.');
    let node = levels.into_iter().try_fold(root, |node, level| {
        if matches!(node.value, Value::Nothing) {
            node.value = Value::Mapping(Vec::new());
        }
        let Value::Mapping(entries) = &mut node.value else { return None };
        let at = entries.iter().position(|(key, _)| key == level).unwrap_or_else(|| {
            entries.push((level.to_owned(), Node { place: new.place.clone(), value: Value::Nothing }));
            entries.len() - 1
        });
        entries.get_mut(at).map(|(_, node)| node)
    });
    if let Some(node) = node {
        *node = new;
    }
}
