//! How does a tree become values, with every problem reported at once?
//!
//! The schema is the code that reads: whoever asks a [`Section`] for a key has thereby declared it. So one walk
//! yields the values, the problems of each, the keys and variables that nobody asked for, and the words that a
//! misspelled one may have meant.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::{Collection, Environment};
use super::problem::{Place, Problem, Source, listed, nearest, quoted};
use super::scalar;
pub(super) use super::setting::{Said, Setting, Switch};
use super::yaml::{self, Node, Value, join};
use crate::exchange::Origin;
use crate::front::Address;
use crate::telemetry::Destination;

/// What was found while reading.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
    /// What was written and has no effect.
    pub(super) warnings: Vec<Problem>,
    /// The variables of Distribution.
    pub(super) registry_variables: Vec<(String, String)>,
    /// Where each key was written that was.
    pub(super) written: BTreeMap<String, Place>,
    /// Relative paths of the file start here.
    pub(super) folder: PathBuf,
    pub(super) environment: Environment,
    /// Keys that could have been written, as paths.
    pub(super) known_keys: BTreeSet<String>,
    /// Paths that are refused, so that their variables are too.
    pub(super) later: Vec<String>,
    /// Keys that nobody asked for: place, path of the section, key, and what the section takes.
    pub(super) unknown: Vec<(Place, String, String, Vec<&'static str>)>,
}

/// What a file with a `version` is: nobody writes one in ours.
const ORIGINALS: &str = "unknown key; a config.yml of Distribution's registry is served by `pierhead registry serve FILE`, or \
                         named by a file of ours: `registry: FILE`";

impl Reader {
    /// Relative paths of the file will start at `folder`.
    pub(super) fn new(environment: Environment, folder: &Path) -> Self {
        Self {
            problems: Vec::new(),
            warnings: Vec::new(),
            registry_variables: Vec::new(),
            written: BTreeMap::new(),
            folder: folder.to_owned(),
            environment,
            known_keys: BTreeSet::new(),
            later: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// Reads the whole document; without one, the environment alone.
    pub(super) fn document<T>(&mut self, root: Option<&Node>, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let entries = root.map_or(Some(&[][..]), |root| self.entries(root, ""));
        let value = Section::read(self, entries, String::new(), true, read);
        self.report_unknown_keys();
        self.problems.extend(self.environment.unknown(&self.later));
        value
    }

    /// The entries of a mapping; `None`, with a problem, when it is something else.
    pub(super) fn entries<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n [(String, Node)]> {
        let message = match &node.value {
            Value::Mapping(entries) => return Some(entries),
            Value::Nothing => return Some(&[]),
            Value::Refused => return None,
            Value::Text(text) if path.is_empty() => {
                format!(
                    "must be keys with values, such as external_url: https://registry.example.com, not {}",
                    quoted(text)
                )
            }
            Value::Text(text) => format!("must be keys with values, not {}", quoted(text)),
            Value::List(_) => "must be keys with values, not a list".to_owned(),
        };
        self.report(&node.place, path, message);
        None
    }

    /// The items of a list, which messages call `what`.
    fn items<T>(
        &mut self,
        node: &Node,
        path: &str,
        what: &str,
        read: &mut impl FnMut(Item<'_>) -> T,
    ) -> Setting<Vec<T>> {
        let message = match &node.value {
            Value::List(items) => {
                self.written.insert(path.to_owned(), node.place.clone());
                let item = |(number, node)| read(Item { reader: &mut *self, node, path: format!("{path}[{number}]") });
                return Setting::Is(items.iter().enumerate().map(item).collect(), node.place.clone());
            }
            Value::Nothing => return Setting::Unset,
            Value::Refused => return Setting::Wrong,
            Value::Text(text) => format!("must be {what}, not {}", quoted(text)),
            Value::Mapping(_) => format!("must be {what}"),
        };
        self.report(&node.place, path, message);
        Setting::Wrong
    }

    /// What `true` or `false` says in place of keys with values.
    pub(super) fn switch(&mut self, node: &Node, path: &str) -> Setting<bool> {
        match &node.value {
            Value::Text(text) if text == "true" || text == "false" => {
                self.written.insert(path.to_owned(), node.place.clone());
                Setting::Is(text == "true", node.place.clone())
            }
            _ => Setting::Unset,
        }
    }

    /// Whether a key below `path` is written.
    pub(super) fn any_below(&self, path: &str) -> bool {
        self.written.keys().any(|key| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
    }

    pub(super) fn report(&mut self, place: &Place, path: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(place, path, message));
    }

    /// The text of a scalar.
    pub(super) fn text<'n>(&mut self, node: &'n Node, path: &str) -> Setting<Cow<'n, str>> {
        match &node.value {
            Value::Text(text) => Setting::Is(Cow::Borrowed(text), node.place.clone()),
            Value::Nothing => Setting::Unset,
            Value::Refused => Setting::Wrong,
            Value::List(_) => {
                self.report(&node.place, path, "must be a single value, not a list");
                Setting::Wrong
            }
            Value::Mapping(_) => {
                self.report(&node.place, path, "must be a single value, not keys with values");
                Setting::Wrong
            }
        }
    }

    /// The meaning of a text.
    fn meaning<T>(
        &mut self,
        text: Setting<Cow<'_, str>>,
        path: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Setting<T> {
        self.understood(text, path, path, parse)
    }

    /// The same for a key that messages call `shown`.
    pub(super) fn understood<T>(
        &mut self,
        text: Setting<Cow<'_, str>>,
        shown: &str,
        path: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Setting<T> {
        let (text, place) = match text {
            Setting::Unset => return Setting::Unset,
            Setting::Wrong => return Setting::Wrong,
            Setting::Is(text, place) => (text, place),
        };
        self.written.insert(path.to_owned(), place.clone());
        match scalar::check_text(&text).and_then(|()| parse(&text)) {
            Ok(value) => Setting::Is(value, place),
            Err(message) => {
                let message = Environment::discreet(&place, path, message);
                self.report(&place, shown, message);
                Setting::Wrong
            }
        }
    }

    /// A path as meant: relative to the file, or to the working directory when a variable says it.
    fn resolve(&self, text: &str, place: &Place) -> PathBuf {
        match place.source {
            Source::File(_) => self.folder.join(text).components().collect(),
            Source::Variable(_) => self.environment.resolve(text),
        }
    }

    fn report_unknown_keys(&mut self) {
        let unknown = std::mem::take(&mut self.unknown);
        if let Some((place, ..)) = unknown.iter().find(|(_, section, key, _)| section.is_empty() && key == "version") {
            // The rest of the file is as foreign, and not what is wrong.
            self.report(place, "version", ORIGINALS);
            return;
        }
        for (place, section, key, siblings) in unknown {
            let path = join(&section, &key);
            let elsewhere = || {
                let ends = |known: &&String| !known.contains('[') && known.rsplit('.').next() == Some(key.as_str());
                let mut homes = self.known_keys.iter().filter(ends);
                homes.next().filter(|_| homes.next().is_none()).cloned()
            };
            let meant = nearest(&key, siblings.iter().copied()).map(str::to_owned).or_else(elsewhere);
            let message = match meant {
                Some(meant) => format!("unknown key; did you mean {meant}?"),
                None if section.is_empty() => format!("unknown key; known are {}", listed(&siblings, "and")),
                None => format!("unknown key; {section} takes {}", listed(&siblings, "and")),
            };
            self.report(&place, &path, message);
        }
    }
}

/// A mapping that is being read.
pub(super) struct Section<'r> {
    reader: &'r mut Reader,
    /// `None` when something else was written: then no key is right, and none is missing.
    entries: Option<&'r [(String, Node)]>,
    path: String,
    /// Whether the path is the same in every configuration: only then its keys have variables of their own.
    fixed: bool,
    asked: Vec<&'static str>,
}

impl<'r> Section<'r> {
    /// Reads the keys of a mapping; those that `read` does not ask for are unknown.
    fn read<T>(
        reader: &'r mut Reader,
        entries: Option<&'r [(String, Node)]>,
        path: String,
        fixed: bool,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let mut section = Section { reader, entries, path, fixed, asked: Vec::new() };
        let value = read(&mut section);
        let Section { reader, entries, path, asked, .. } = section;
        let unasked =
            |(key, node): &&(String, Node)| !asked.contains(&key.as_str()) && !matches!(node.value, Value::Refused);
        for (key, node) in entries.unwrap_or_default().iter().filter(unasked) {
            reader.unknown.push((node.place.clone(), path.clone(), key.clone(), asked.clone()));
        }
        value
    }

    /// Declares a key and finds what the file says about it.
    fn ask(&mut self, key: &'static str) -> (String, Option<&'r Node>) {
        self.asked.push(key);
        let path = join(&self.path, key);
        if self.fixed {
            self.reader.known_keys.insert(path.clone());
        }
        let found = self.entries.unwrap_or_default().iter().find(|(name, _)| name == key);
        (path, found.map(|(_, node)| node))
    }

    /// What a key is that is not there.
    fn absent<T>(&self) -> Setting<T> {
        if self.entries.is_some() { Setting::Unset } else { Setting::Wrong }
    }

    /// A section below this one; nothing is the same as an empty one.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let (path, node) = self.ask(key);
        let entries = match node {
            Some(node) => self.reader.entries(node, &path),
            None => self.entries.map(|_| &[][..]),
        };
        Section::read(self.reader, entries, path, self.fixed, read)
    }

    /// The same, or `true`, or `false`.
    pub(super) fn section_or_flag<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> (Said, T) {
        let (path, node) = self.ask(key);
        let switch = node.map_or(Setting::Unset, |node| self.reader.switch(node, &path));
        let entries = match (&switch, node) {
            (Setting::Unset, Some(node)) => self.reader.entries(node, &path),
            _ => self.entries.map(|_| &[][..]),
        };
        let value = Section::read(self.reader, entries, path.clone(), self.fixed, read);
        (Said { switch, any: self.reader.any_below(&path) }, value)
    }

    /// The same, or one word that says all.
    pub(super) fn section_or_word<T>(
        &mut self,
        key: &'static str,
        word: &str,
        read: impl FnOnce(Setting<()>, &mut Section<'_>) -> T,
    ) -> T {
        let (path, node) = self.ask(key);
        let (said, entries) = match node {
            Some(Node { value: Value::Text(text), place }) if text == word => {
                (Setting::Is((), place.clone()), Some(&[][..]))
            }
            Some(Node { value: Value::Text(text), place }) => {
                let message = format!("must be {word}, or keys with values, not {}", quoted(text));
                self.reader.report(place, &path, message);
                (Setting::Wrong, None)
            }
            Some(node) => (Setting::Unset, self.reader.entries(node, &path)),
            None => (self.absent(), self.entries.map(|_| &[][..])),
        };
        Section::read(self.reader, entries, path, self.fixed, |section| read(said, section))
    }

    /// The same, or `off`.
    pub(super) fn section_or_off<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Switch<T> {
        let (path, node) = self.ask(key);
        let entries = match node {
            Some(Node { value: Value::Text(text), place }) if text == "off" => {
                self.reader.written.insert(path, place.clone());
                return Switch::Off;
            }
            Some(Node { value: Value::Text(text), place }) => {
                self.reader.report(place, &path, format!("must be off, or keys with values, not {}", quoted(text)));
                None
            }
            Some(node) => self.reader.entries(node, &path),
            None => self.entries.map(|_| &[][..]),
        };
        Switch::On(Section::read(self.reader, entries, path, self.fixed, read))
    }

    /// The tree at a key, for who reads it otherwise. `path` is that of a section at the top.
    pub(super) fn tree<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Reader, &Node) -> T) -> T {
        let (_, node) = self.ask(key);
        match node {
            Some(node) => read(self.reader, node),
            None => {
                let value = if self.entries.is_some() { Value::Nothing } else { Value::Refused };
                let place = Place { source: Source::File(Path::new("defaults").into()), line: 0 };
                read(self.reader, &Node { place, value })
            }
        }
    }

    /// A scalar with a meaning.
    pub(super) fn scalar<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Setting<T> {
        let (path, node) = self.ask(key);
        let variable = if self.fixed { self.reader.environment.scalar(&path) } else { Ok(None) };
        let text = match (variable, node) {
            (Ok(Some((text, place))), _) => match text.as_str() {
                "null" | "~" => Setting::Unset,
                _ => Setting::Is(Cow::Owned(text), place),
            },
            (Ok(None), Some(node)) => self.reader.text(node, &path),
            (Ok(None), None) => self.absent(),
            (Err(problem), _) => {
                self.reader.problems.push(problem);
                Setting::Wrong
            }
        };
        self.reader.meaning(text, &path, parse)
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Setting<bool> {
        self.scalar(key, scalar::flag)
    }

    pub(super) fn word(&mut self, key: &'static str) -> Setting<String> {
        self.scalar(key, scalar::word)
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Setting<T> {
        self.scalar(key, |text| scalar::choice(text, choices))
    }

    pub(super) fn origin(&mut self, key: &'static str) -> Setting<Origin> {
        self.scalar(key, scalar::origin)
    }

    /// A path, made absolute.
    pub(super) fn path(&mut self, key: &'static str) -> Setting<PathBuf> {
        let text = self.scalar(key, scalar::file_path);
        text.map(|text, place| self.reader.resolve(&text, place))
    }

    /// Where lines go: `stdout`, `off`, or a file.
    pub(super) fn destination(&mut self, key: &'static str) -> Setting<Destination> {
        let text = self.scalar(key, scalar::destination);
        text.map(|text, place| match text.as_str() {
            "off" => Destination::Off,
            "stdout" => Destination::Stdout,
            path => Destination::File(self.reader.resolve(path, place)),
        })
    }

    pub(super) fn duration(&mut self, key: &'static str, range: RangeInclusive<Duration>) -> Setting<Duration> {
        self.scalar(key, |text| {
            within(scalar::duration(text)?, &range, text, |value| scalar::AsDuration(value).to_string())
        })
    }

    pub(super) fn size(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Setting<u64> {
        self.scalar(key, |text| within(scalar::size(text)?, &range, text, |value| scalar::AsSize(value).to_string()))
    }

    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Setting<u64> {
        self.scalar(key, |text| within(scalar::number(text)?, &range, text, |value| value.to_string()))
    }

    /// What is written at a key whose variable holds all of it as YAML.
    fn whole(&mut self, key: &'static str, collection: Collection) -> (String, Result<Option<Cow<'r, Node>>, ()>) {
        let (path, node) = self.ask(key);
        let variable = if self.fixed { self.reader.environment.whole(&path, collection) } else { None };
        let found = match variable {
            None => Ok(node.map(Cow::Borrowed)),
            Some((text, place)) => {
                let read = yaml::read(&text, &place.source, &path, &mut self.reader.problems);
                read.map(|node| Some(Cow::Owned(node))).ok_or(())
            }
        };
        (path, found)
    }

    /// A list. A variable holds it as YAML: `[a, b]`.
    pub(super) fn list<T>(&mut self, key: &'static str, mut read: impl FnMut(Item<'_>) -> T) -> Setting<Vec<T>> {
        let (path, found) = self.whole(key, Collection::List);
        let Ok(found) = found else { return Setting::Wrong };
        let Some(node) = found else { return self.absent() };
        self.reader.items(&node, &path, "a list: [...], or \"- \" before each item", &mut read)
    }

    /// The same, or its only item without the dash.
    pub(super) fn list_or_one<T>(&mut self, key: &'static str, mut read: impl FnMut(Item<'_>) -> T) -> Setting<Vec<T>> {
        let (path, found) = self.whole(key, Collection::List);
        let Ok(found) = found else { return Setting::Wrong };
        let Some(node) = found else { return self.absent() };
        if !matches!(node.value, Value::Mapping(_)) {
            return self.reader.items(&node, &path, "keys with values, or a list of such", &mut read);
        }
        self.reader.written.insert(path.clone(), node.place.clone());
        Setting::Is(vec![read(Item { reader: &mut *self.reader, node: &node, path })], node.place.clone())
    }

    /// Keys that the operator chooses. A variable holds all of them as YAML: `{a: 1, b: 2}`.
    pub(super) fn map<T>(&mut self, key: &'static str, mut read: impl FnMut(&str, Item<'_>) -> T) -> Setting<Vec<T>> {
        let (path, found) = self.whole(key, Collection::Map);
        let Ok(found) = found else { return Setting::Wrong };
        let Some(node) = found else { return self.absent() };
        let Some(entries) = self.reader.entries(&node, &path) else { return Setting::Wrong };
        self.reader.written.insert(path.clone(), node.place.clone());
        let entry = |(name, node): &(String, Node)| {
            read(name, Item { reader: &mut *self.reader, node, path: join(&path, name) })
        };
        Setting::Is(entries.iter().map(entry).collect(), node.place.clone())
    }

    /// Where to listen; `any` is what an address without a host means.
    pub(super) fn listening(&mut self, key: &'static str, any: IpAddr) -> Setting<Address> {
        let address = self.scalar(key, |text| scalar::listening(text, any));
        address.map(|address, place| match address {
            Address::Unix(path) => Address::Unix(self.reader.resolve(&path.to_string_lossy(), place)),
            other => other,
        })
    }
}

/// One of a list.
pub(super) struct Item<'r> {
    reader: &'r mut Reader,
    node: &'r Node,
    path: String,
}

impl Item<'_> {
    /// Where it was written.
    pub(super) fn place(&self) -> Place {
        self.node.place.clone()
    }

    /// The path of its key, with its number.
    pub(super) fn path(&self) -> String {
        self.path.clone()
    }

    /// Whether keys with values are written.
    pub(super) fn is_section(&self) -> bool {
        matches!(self.node.value, Value::Mapping(_))
    }

    /// Says that this is wrong.
    pub(super) fn refuse(&mut self, message: impl Into<String>) {
        self.reader.report(&self.node.place, &self.path, message);
    }

    /// A scalar with a meaning. `null` in a list is a mistake.
    pub(super) fn scalar<T>(self, parse: impl FnOnce(&str) -> Result<T, String>) -> Setting<T> {
        let text = match self.reader.text(self.node, &self.path) {
            Setting::Unset => {
                self.reader.report(&self.node.place, &self.path, "must not be empty; write a value or remove the line");
                Setting::Wrong
            }
            text => text,
        };
        self.reader.meaning(text, &self.path, parse)
    }

    /// A path, made absolute.
    pub(super) fn file(self) -> Setting<PathBuf> {
        let Item { reader, node, path } = self;
        let text = Item { reader: &mut *reader, node, path }.scalar(scalar::file_path);
        text.map(|text, place| reader.resolve(&text, place))
    }

    /// A list in a list: `what` it holds.
    pub(super) fn list<T>(self, what: &str, mut read: impl FnMut(Item<'_>) -> T) -> Setting<Vec<T>> {
        let list = self.reader.items(self.node, &self.path, &format!("a list of {what}: [...]"), &mut read);
        if list.is_unset() {
            self.reader.report(&self.node.place, &self.path, "must not be empty; write a value or remove the line");
            return Setting::Wrong;
        }
        list
    }

    /// A mapping.
    pub(super) fn section<T>(self, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let entries = self.reader.entries(self.node, &self.path);
        Section::read(self.reader, entries, self.path, false, read)
    }
}

pub(super) fn within<T: PartialOrd + Copy>(
    value: T,
    range: &RangeInclusive<T>,
    text: &str,
    show: impl Fn(T) -> String,
) -> Result<T, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("must be between {} and {}, not {}", show(*range.start()), show(*range.end()), quoted(text)))
}

/// `listeners[3].tls` is the key `listeners[].tls`.
pub(super) fn without_indexes(path: &str) -> String {
    path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect::<Vec<_>>().join("[]")
}
