//! From the tree to values.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::http::NamedFiles;
use super::{Dialect, HOME, Platforms, Purge, Registry, Secret, Setting, Validation, is_off, values};
use crate::auth::{Guard, Realm, Trust};
use crate::config::problem::{Place, Source, listed};
use crate::config::reader::within;
use crate::config::scalar;
use crate::config::written::{Internal, MANIFEST};
use crate::config::yaml::{Node, Value, join};
use crate::registry::Pattern;
use crate::telemetry::Destination;

/// Where Distribution keeps images when nobody says where.
const ROOT: &str = "/var/lib/registry";
/// Where its clients get tokens with `autoredirect`.
const TOKEN_PATH: &str = "/auth/token";
const PURGE: &str = "storage.maintenance.uploadpurging";
/// An upload that is younger may be on its way.
const YOUNGEST: Duration = Duration::from_secs(60);
/// As often as not at all would be all the time.
const OFTENEST: Duration = Duration::from_secs(1);

/// What is written at a path.
enum Found {
    Nothing,
    /// Reported already, here or above.
    Wrong,
    Node(Node),
}

impl Dialect<'_> {
    /// Reads all that counts.
    pub(super) fn registry(mut self, any: IpAddr) -> Registry {
        self.version();
        let root = self.root();
        let loglevel = self.scalar("loglevel", values::level);
        let level = self.scalar("log.level", values::level);
        let read_only = self.flag("storage.maintenance.readonly.enabled");
        let mut files = Vec::new();
        Registry {
            root,
            delete: self.flag("storage.delete.enabled"),
            // What is read only is not cleaned up either.
            purge: self.purge().filter(|_| !read_only.written().is_some_and(|(on, _)| *on)),
            read_only,
            secret: self.scalar("http.secret", |text| Ok(Secret(text.as_bytes().to_vec()))),
            relative_urls: self.flag("http.relativeurls"),
            catalog_page: self.scalar("catalog.maxentries", values::count),
            tags_page: self.scalar("tags.maxtags", values::count),
            validation: self.validation(),
            manifest: self.manifest_limit(),
            internal: self.address(any),
            drain: self.scalar("http.draintimeout", values::duration),
            level: if level.is_unset() { loglevel } else { level },
            format: self.scalar("log.formatter", values::formatter),
            access: self
                .flag("log.accesslog.disabled")
                .map(|disabled, _| if disabled { Destination::Off } else { Destination::Stdout }),
            door: self.door(any, &mut files),
            guard: self.guard(&mut files),
            files,
        }
    }

    fn find(&self, path: &str) -> Found {
        let mut node = &self.root;
        for level in path.split('.') {
            match &node.value {
                Value::Nothing => return Found::Nothing,
                Value::Mapping(entries) => match entries.iter().find(|(key, _)| key == level) {
                    Some((_, below)) => node = below,
                    None => return Found::Nothing,
                },
                Value::Text(_) | Value::List(_) | Value::Refused => return Found::Wrong,
            }
        }
        match &node.value {
            Value::Nothing => Found::Nothing,
            Value::Refused => Found::Wrong,
            Value::Text(_) | Value::List(_) | Value::Mapping(_) => Found::Node(node.clone()),
        }
    }

    /// A node that is there.
    pub(super) fn node(&self, path: &str) -> Option<Node> {
        match self.find(path) {
            Found::Node(node) => Some(node),
            Found::Nothing | Found::Wrong => None,
        }
    }

    pub(super) fn scalar<T>(&mut self, path: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Setting<T> {
        match self.find(path) {
            Found::Nothing => Setting::Unset,
            Found::Wrong => Setting::Wrong,
            Found::Node(node) => self.text(&node, path, parse),
        }
    }

    pub(super) fn text<T>(
        &mut self,
        node: &Node,
        path: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Setting<T> {
        let shown = self.shown(path);
        let text: Setting<Cow<'_, str>> = self.reader.text(node, &shown);
        self.reader.understood(text, &shown, &join(HOME, path), parse)
    }

    pub(super) fn flag(&mut self, path: &str) -> Setting<bool> {
        self.scalar(path, values::flag)
    }

    fn path(&mut self, path: &str) -> Setting<PathBuf> {
        let text = self.scalar(path, scalar::file_path);
        let (folder, environment) = (&self.folder, &self.reader.environment);
        text.map(|text, place| match place.source {
            Source::File(_) => folder.join(text).components().collect(),
            Source::Variable(_) => environment.resolve(&text),
        })
    }

    /// The items of a list.
    pub(super) fn items(&mut self, path: &str) -> Setting<Vec<Node>> {
        match self.find(path) {
            Found::Nothing => Setting::Unset,
            Found::Wrong => Setting::Wrong,
            Found::Node(Node { place, value: Value::List(items) }) => {
                self.reader.written.insert(join(HOME, path), place.clone());
                Setting::Is(items, place)
            }
            Found::Node(node) => {
                self.report(&node.place, path, "must be a list: [...], or \"- \" before each item");
                Setting::Wrong
            }
        }
    }

    /// Where a key is written, whatever its value.
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        let mut levels = path.split('.');
        let node = levels.try_fold(&self.root, |node, level| match &node.value {
            Value::Mapping(entries) => entries.iter().find(|(key, _)| key == level).map(|(_, below)| below),
            Value::Nothing | Value::Text(_) | Value::List(_) | Value::Refused => None,
        });
        node.map(|node| node.place.clone())
    }

    /// An empty item is reported: without it the list could mean everything, or nobody.
    pub(super) fn list<T>(&mut self, path: &str, parse: impl Fn(&str) -> Result<T, String>) -> Setting<Vec<T>> {
        let items = match self.items(path) {
            Setting::Is(items, place) => (items, place),
            Setting::Unset => return Setting::Unset,
            Setting::Wrong => return Setting::Wrong,
        };
        let numbered = items.0.iter().enumerate();
        let read = |(number, node): (usize, &Node)| {
            let path = format!("{path}[{number}]");
            if matches!(&node.value, Value::Nothing) || matches!(&node.value, Value::Text(text) if text.is_empty()) {
                self.report(&node.place, &path, "is empty");
                return None;
            }
            self.text(node, &path, &parse).into_value()
        };
        Setting::Is(numbered.filter_map(read).collect(), items.1)
    }

    /// Required in a file of its own.
    fn version(&mut self) {
        let known = |text: &str| match text {
            "0.1" => Ok(()),
            _ => Err("must be 0.1, the only version there is".to_owned()),
        };
        if self.scalar("version", known).is_unset() && !self.is_ours() {
            let place = self.root.place.clone();
            if !matches!(self.root.value, Value::Refused) {
                self.report(&place, "version", "missing; write version: 0.1 at the top of the file");
            }
        }
    }

    fn root(&mut self) -> Setting<PathBuf> {
        let root = self.path("storage.filesystem.rootdirectory");
        if !root.is_unset() || self.is_ours() {
            return root;
        }
        match &self.root.value {
            Value::Mapping(entries) => match entries.iter().find(|(key, _)| key == "storage") {
                Some((_, Node { value: Value::Mapping(drivers), .. }))
                    if drivers.iter().any(|(key, _)| key == "filesystem") =>
                {
                    let place = self.root.place.clone();
                    Setting::Is(PathBuf::from(ROOT), place)
                }
                Some((_, Node { value: Value::Mapping(drivers), .. })) if drivers.iter().any(is_a_driver) => {
                    Setting::Wrong
                }
                Some((_, Node { value: Value::List(_) | Value::Refused, .. })) => Setting::Wrong,
                _ => {
                    let place = self.root.place.clone();
                    self.report(&place, "storage", "missing; write storage: { filesystem: { rootdirectory: ... } }");
                    Setting::Wrong
                }
            },
            _ => Setting::Wrong,
        }
    }

    fn purge(&mut self) -> Option<Purge> {
        let usual = Purge::default();
        let enabled = self.flag(&format!("{PURGE}.enabled")).or(true);
        let age = self.scalar(&format!("{PURGE}.age"), |text| values::with_unit(text, YOUNGEST)).or(usual.age);
        let interval =
            self.scalar(&format!("{PURGE}.interval"), |text| values::with_unit(text, OFTENEST)).or(usual.interval);
        let dry_run = self.flag(&format!("{PURGE}.dryrun")).or(usual.dry_run);
        enabled.then_some(Purge { age, interval, dry_run })
    }

    fn validation(&mut self) -> Validation {
        let disabled = self.flag("validation.disabled").or(false);
        let allow = self.list("validation.manifests.urls.allow", values::pattern);
        let deny = self.list("validation.manifests.urls.deny", values::pattern).or(Vec::new());
        Validation { disabled, allow_urls: self.allowed(allow, &deny), deny_urls: deny, platforms: self.platforms() }
    }

    /// In its own file nothing is allowed unless something is written.
    fn allowed(&self, allow: Setting<Vec<Pattern>>, deny: &[Pattern]) -> Option<Vec<Pattern>> {
        match allow.into_value().filter(|allow| !allow.is_empty()) {
            Some(allow) => Some(allow),
            None if self.is_ours() || !deny.is_empty() => None,
            None => Some(Vec::new()),
        }
    }

    fn platforms(&mut self) -> Platforms {
        #[derive(Clone, Copy)]
        enum Which {
            All,
            None,
            List,
        }
        let words = [("all", Which::All), ("none", Which::None), ("list", Which::List)];
        let which = self.scalar("validation.manifests.indexes.platforms", |text| scalar::choice(text, &words));
        let list = "validation.manifests.indexes.platformlist";
        let pairs = self.items(list).or(Vec::new());
        let pairs = pairs.iter().enumerate().filter_map(|(number, node)| {
            let word = |name: &str| match &node.value {
                Value::Mapping(entries) => {
                    entries.iter().find(|(key, _)| key == name).and_then(|(_, node)| text_of(node))
                }
                _ => None,
            };
            let pair = word("os").zip(word("architecture"));
            if pair.is_none() {
                self.report(&node.place, &format!("{list}[{number}]"), "must be { architecture: ..., os: ... }");
            }
            pair
        });
        let pairs = pairs.collect();
        match which.or(Which::All) {
            Which::All => Platforms::All,
            Which::None => Platforms::None,
            Which::List => Platforms::Only(pairs),
        }
    }

    fn manifest_limit(&mut self) -> Setting<u64> {
        let bounded = |text: &str| match values::bytes(text)? {
            0 => Ok(0),
            value => within(value, &MANIFEST, text, |value| scalar::AsSize(value).to_string()),
        };
        match self.scalar("validation.manifests.payloadsizelimit", bounded) {
            Setting::Is(0, _) => Setting::Unset,
            limit => limit,
        }
    }

    fn address(&mut self, any: IpAddr) -> Setting<Internal> {
        let alone = self.alone;
        let words = [("tcp", false), ("unix", true)];
        let unix = self.scalar("http.net", |text| scalar::choice(text, &words)).or(false);
        if unix {
            return self.path("http.addr").map(|path, _| Internal::Unix(path));
        }
        let address = self.scalar("http.addr", |text| match text {
            "off" if !alone => Ok(Internal::Off),
            _ => scalar::address(text, any)
                .map(Internal::At)
                .map_err(|message| if alone { message } else { format!("{message}; off means none") }),
        });
        if address.is_unset() && alone && !matches!(self.root.value, Value::Refused) {
            let place = self.root.place.clone();
            self.report(&place, "http.addr", "missing; write where to listen, such as :5000");
        }
        address
    }

    fn guard(&mut self, files: &mut NamedFiles) -> Setting<Guard> {
        let (place, entries) = match self.find("auth") {
            Found::Node(Node { place, value: Value::Mapping(entries) }) => (place, entries),
            Found::Nothing => return Setting::Unset,
            Found::Wrong | Found::Node(_) => return Setting::Wrong,
        };
        match entries.as_slice() {
            [] => Setting::Unset,
            [(kind, node)] => match kind.as_str() {
                "none" => {
                    self.reader.written.insert(join(HOME, "auth.none"), node.place.clone());
                    Setting::Is(Guard::Nobody, place)
                }
                "htpasswd" => self.htpasswd(&node.place, files),
                "token" => self.token(&node.place, files),
                _ => Setting::Wrong,
            },
            several => {
                let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
                let message = format!("{} at once; keep one", listed(&names, "and"));
                self.report(&place, "auth", message);
                Setting::Wrong
            }
        }
    }

    fn htpasswd(&mut self, place: &Place, files: &mut NamedFiles) -> Setting<Guard> {
        let realm = self.scalar("auth.htpasswd.realm", phrase);
        let path = self.file("auth.htpasswd.path", files);
        let realm = self.required("auth.htpasswd.realm", realm, place);
        let path = self.required("auth.htpasswd.path", path, place);
        match realm.zip(path) {
            Some((realm, path)) => Setting::Is(Guard::Htpasswd { realm, path }, place.clone()),
            None => Setting::Wrong,
        }
    }

    fn token(&mut self, place: &Place, files: &mut NamedFiles) -> Setting<Guard> {
        let key = |name: &str| format!("auth.token.{name}");
        let redirect = self.flag(&key("autoredirect"));
        let path = self.scalar(&key("autoredirectpath"), redirect_path).or_else(|| TOKEN_PATH.to_owned());
        let realm = self.scalar(&key("realm"), url);
        let realm = match redirect.or(false) {
            true => Some(Realm::Path(path)),
            false => self.required(&key("realm"), realm, place).map(Realm::Url),
        };
        let service = self.scalar(&key("service"), scalar::word);
        let service = self.required(&key("service"), service, place);
        let issuer = self.scalar(&key("issuer"), scalar::word);
        let issuer = self.required(&key("issuer"), issuer, place);
        let bundle = self.file(&key("rootcertbundle"), files);
        let key_set = self.file(&key("jwks"), files);
        if bundle.is_unset() && key_set.is_unset() {
            self.report(place, &key("rootcertbundle"), "missing; without it, or jwks, no token could be verified");
            return Setting::Wrong;
        }
        let algorithms = self.list(&key("signingalgorithms"), algorithm).or(Vec::new());
        let (Some(realm), Some(service), Some(issuer)) = (realm, service, issuer) else { return Setting::Wrong };
        let (bundle, key_set) = (bundle.into_value(), key_set.into_value());
        Setting::Is(Guard::Token(Trust { realm, service, issuer, bundle, key_set, algorithms }), place.clone())
    }

    /// A file that must be there.
    pub(super) fn file(&mut self, path: &str, files: &mut NamedFiles) -> Setting<PathBuf> {
        let found = self.path(path);
        if let Some((file, place)) = found.written() {
            files.push((self.shown(path), file.clone(), place.clone()));
        }
        found
    }

    pub(super) fn required<T>(&mut self, path: &str, setting: Setting<T>, section: &Place) -> Option<T> {
        if setting.is_unset() {
            self.report(section, path, "missing");
        }
        setting.into_value()
    }
}

/// Whether a name below `storage` is one of a driver, known or not.
fn is_a_driver((name, _): &(String, Node)) -> bool {
    !["delete", "redirect", "cache", "tag", "maintenance"].contains(&name.as_str())
}

fn text_of(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) if !is_off(&node.value) => Some(text.clone()),
        _ => None,
    }
}

/// A text for the value of a header.
fn phrase(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| (byte.is_ascii_graphic() || byte == b' ') && byte != b'"' && byte != b'\\');
    if plain { Ok(text.to_owned()) } else { Err("must be letters, digits, spaces and signs without quotes".to_owned()) }
}

fn url(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    let schemed = ["https://", "http://"].iter().any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
    if plain && schemed {
        Ok(text.to_owned())
    } else {
        Err("must be a URL such as https://registry.example.com/jwt/auth".to_owned())
    }
}

fn redirect_path(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    if plain && text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("must be a path such as /auth/token".to_owned())
    }
}

fn algorithm(text: &str) -> Result<String, String> {
    const KNOWN: [&str; 10] =
        ["EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"];
    match KNOWN.contains(&text) {
        true => Ok(text.to_owned()),
        false if text.starts_with("HS") => {
            Err("takes no shared keys (HS...): who can verify could sign as well".to_owned())
        }
        false => Err(format!("must be one of {}", listed(&KNOWN, "and"))),
    }
}
