//! What did the operator write, and what does it mean?
//!
//! ```text
//! yaml         text -> tree with lines
//! environment  variables -> values by the path of a key
//! scalar       words -> durations, sizes, rates, addresses, origins
//! setting      a key's value, or why there is none
//! reader       tree + environment -> values, every problem collected
//! written      the schema: what was written
//! distribution the registry's part of it, in the words of Distribution's config.yml
//! checks       does it fit together, and this machine?
//! meant        the defaults, and each room's Config
//! tls          certificates, whether they are ordered, and which clients show theirs: all of the above for this key
//! upstreams    registries of others and the routes to them: all of the above for these two keys
//! show         Settings -> YAML, for `pierhead check`
//! machine      what defaults depend on
//! problem      file, line, key and sentence
//! ```
//!
//! **Invariant:** [`load`] returns [`Settings`] that can be honoured to the letter, or every problem at once. It reads, and
//! creates nothing.
//!
//! Two types, as everywhere: as written (`written::Written`, where a key may be absent) and as meant ([`Settings`]). A value
//! comes from the file, and a variable beats the file. Most keys only have a type; what compares keys is in `checks.rs`.
//!
//! One key holds a secret, `http.secret` of the registry; its type prints as `<redacted>`. Keys and certificates are named
//! by path, and the first admin's password is not read here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::environment::Environment;
use self::reader::{Reader, Setting};
use self::written::Written;
use self::yaml::{Node, Value};
use crate::auth::{Guard, Realm, Trust};
use crate::{auth, front, registry, telemetry};

mod checks;
mod distribution;
mod environment;
mod machine;
mod meant;
mod problem;
mod reader;
mod scalar;
mod setting;
mod show;
mod tls;
mod upstreams;
mod written;
mod yaml;

#[cfg(test)]
mod tests;

pub use machine::Machine;
pub use problem::{Place, Problem, Problems, Source};
pub use scalar::duration;
pub use show::show;
pub use upstreams::ways;

/// Everything the server needs to know, checked: if it exists, every part of it can be honoured.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The file that was read; `None` for built-in defaults.
    pub source: Option<PathBuf>,
    /// Where each key was written, by its path; the others have their defaults.
    pub written: BTreeMap<String, Place>,
    /// What was written and has no effect, which is no reason not to start.
    pub warnings: Vec<Problem>,
    /// Whether nothing but the registry is served (`pierhead registry serve`): no tokens, no accounts, no state.
    pub registry_only: bool,
    /// What is served by ourselves.
    pub services: Services,
    /// Keys, certificates and the metadata database live here.
    pub state: PathBuf,
    /// Whom to become when started as root; `None`: the owner of the storage root.
    pub user: Option<String>,
    /// The front door.
    pub front: front::Config,
    /// Certificates.
    pub tls: crate::tls::Config,
    /// Tokens and accounts.
    pub auth: auth::Config,
    /// The embedded registry.
    pub registry: registry::Config,
    /// Logs.
    pub telemetry: telemetry::Config,
}

/// Which of the services are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// The embedded registry, its internal port, and what it keeps.
    pub registry: bool,
    /// The token endpoint, and with it accounts and projects.
    pub tokens: Tokens,
}

/// Who answers the token endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tokens {
    /// We do.
    Ours,
    /// Another, to whom we hand the requests on: an upstream's name.
    Upstream(Arc<str>),
    /// Nobody here.
    Off,
}

impl Services {
    /// Whether one of them asks who it is that comes.
    pub fn ask_who_it_is(&self) -> bool {
        self.registry || self.tokens == Tokens::Ours
    }
}

impl Settings {
    /// What we keep for others: the registry's tree, or the state where there is no registry.
    pub fn data(&self) -> &Path {
        if self.services.registry { &self.registry.root } else { &self.state }
    }

    /// Whether there is a metadata database: for accounts, and for the index of the registry.
    pub fn keeps_metadata(&self) -> bool {
        !self.registry_only && (self.services.registry || self.services.tokens == Tokens::Ours)
    }

    /// Whether the certificate was not named but found, where GitLab has it.
    pub fn certificate_was_found(&self) -> bool {
        let named = self.written.keys().any(|path| path.starts_with("tls.certificates"));
        !named && !self.tls.certificates.is_empty()
    }

    /// The hosts that the operator wrote for clients to come by with TLS: some certificate must carry each.
    pub fn public_names(&self) -> Vec<String> {
        let written = |key: &str| self.written.keys().any(|path| path.starts_with(key));
        let external = written("external_url").then_some(&self.front.external_url);
        let aliases = if written("aliases") { self.front.aliases.as_slice() } else { &[] };
        let secure = external.into_iter().chain(aliases).filter(|origin| origin.is_secure());
        let mut names: Vec<String> = secure.map(|origin| origin.host().trim_matches(['[', ']']).to_owned()).collect();
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    /// The upstreams whose files or names TLS cannot be spoken with.
    pub fn unusable_upstreams(&self) -> Vec<Problem> {
        let unusable = |upstream: &front::Upstream| {
            let error = front::Credentials::load(std::slice::from_ref(upstream)).err()?;
            // It names its key itself.
            Some(Problem { key: String::new(), ..self.problem(&format!("upstreams.{}.peers", upstream.name), error) })
        };
        self.front.upstreams.iter().filter_map(unusable).collect()
    }

    /// The files with authorities and withdrawn certificates, of clients and of `tls.acme`, that cannot be used.
    pub fn unusable_authorities(&self) -> Vec<Problem> {
        tls::checks::unusable(self)
    }

    /// Something that only a closer look than [`load`]'s shows to be wrong with a key, said in the same words.
    pub fn problem(&self, key: &str, message: impl ToString) -> Problem {
        let whole = || {
            let file = self.source.as_deref().unwrap_or(Path::new("defaults"));
            Place { source: Source::File(file.into()), line: 0 }
        };
        let place = self.written.get(key).cloned().unwrap_or_else(whole);
        Problem { place, key: key.to_owned(), message: message.to_string() }
    }
}

/// Reads the configuration: `file`, else the machine's file if it exists, else built-in defaults; then the environment.
///
/// # Errors
/// Everything that is wrong with the file and the environment, at once.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    machine: &Machine,
) -> Result<Settings, Problems> {
    let file = file.or_else(|| system_file(machine));
    let absolute = file.map(|file| machine.absolute(file));
    let folder = absolute.as_deref().and_then(Path::parent).unwrap_or(&machine.folder);
    let (registry_variables, environment) = of_distribution(environment);
    let mut reader = Reader::new(Environment::new(environment, &machine.folder), folder);
    reader.registry_variables = registry_variables;

    let root = file
        .zip(absolute.as_deref())
        .and_then(|(file, absolute)| read_file(file, absolute, &mut reader.problems, None));
    let written = reader.document(root.as_ref(), |root| Written::read(root, machine.any()));
    // What could not be read at all is not compared with the defaults that stand in for it.
    if file.is_none() || root.is_some() {
        checks::check(&written, machine, &mut reader.problems, &mut reader.warnings);
    }
    if !reader.problems.is_empty() {
        return Err(Problems::new(reader.problems));
    }
    let Reader { written: places, warnings, .. } = reader;
    let enabled = tls::checks::enabled(&written);
    let mut settings = Settings { written: places, warnings, ..meant::settings(written, machine, absolute.as_deref()) };
    settings.warnings.extend(tls::checks::warnings(&settings, enabled));
    Ok(settings)
}

/// The machine's file. One that we may not even look for is read, and its problem reported: defaults would be a surprise.
fn system_file(machine: &Machine) -> Option<&Path> {
    Some(machine.system_file.as_path()).filter(|file| !matches!(file.try_exists(), Ok(false)))
}

/// Where the server of a configuration keeps its state, whatever else is wrong with that: the server runs on with what it
/// had, and whoever must tell it something now is not to be stopped by a key that does not matter to them.
pub fn state(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    machine: &Machine,
) -> PathBuf {
    let file = file.or_else(|| system_file(machine));
    let absolute = file.map(|file| machine.absolute(file));
    let folder = absolute.as_deref().and_then(Path::parent).unwrap_or(&machine.folder);
    let (_, environment) = of_distribution(environment);
    let mut reader = Reader::new(Environment::new(environment, &machine.folder), folder);
    let root = file.zip(absolute.as_deref()).and_then(|(file, absolute)| {
        let whole = read_file(file, absolute, &mut reader.problems, None);
        whole.or_else(|| line_of_state(file, absolute))
    });
    let state = reader.document(root.as_ref(), |root| root.path("state"));
    state.or_else(|| meant::default_state(machine, absolute.as_deref()))
}

/// The line of a file that is not YAML as a whole which says where the state is.
fn line_of_state(file: &Path, absolute: &Path) -> Option<Node> {
    let mut bytes = Vec::new();
    File::open(absolute).ok()?.take(yaml::LARGEST as u64).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().find(|line| line.starts_with("state:"))?;
    yaml::read(line, &Source::File(file.into()), "", &mut Vec::new())
}

/// Reads the file of `pierhead registry serve`: Distribution's `config.yml`, with its variables and its defaults.
///
/// # Errors
/// Everything that is wrong with the file and the environment, at once.
pub fn load_registry(
    file: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    machine: &Machine,
) -> Result<Settings, Problems> {
    let absolute = machine.absolute(file);
    let (registry_variables, _) = of_distribution(environment);
    let mut reader = Reader::new(Environment::new([], &machine.folder), &machine.folder);
    let mut written = reader.document(None, |root| Written::read(root, machine.any()));
    reader.registry_variables = registry_variables;
    written.registry = distribution::alone(&mut reader, file, &absolute, machine.any());
    checks::check_registry(&written, machine, &mut reader.problems);
    if !reader.problems.is_empty() {
        return Err(Problems::new(reader.problems));
    }
    let Reader { written: places, mut warnings, .. } = reader;
    if written.registry.guard.is_unset() {
        let place = Place { source: Source::File(file.into()), line: 0 };
        warnings.push(Problem::new(&place, "auth", "not written: everybody who can connect may push and delete"));
    }
    let door = &written.registry.door.internal;
    if let Setting::Is(Guard::Token(Trust { realm: Realm::Path(_), .. }), place) = &written.registry.guard
        && door.host.is_none()
        && door.tls.is_none()
    {
        let message = "clients are sent for their tokens to http:// of the name that they came to: write http.host where a \
                       proxy speaks TLS with them";
        warnings.push(Problem::new(place, "auth.token.autoredirect", message));
    }
    Ok(Settings { written: places, warnings, ..meant::registry_alone(written, machine, &absolute) })
}

/// The variables of Distribution, and the others.
#[expect(clippy::type_complexity, reason = "two lists of variables")]
fn of_distribution(
    environment: impl IntoIterator<Item = (String, String)>,
) -> (Vec<(String, String)>, Vec<(String, String)>) {
    environment.into_iter().partition(|(name, _)| name.starts_with(distribution::variables::PREFIX))
}

/// The file of `pierhead registry serve` when none is named: that of the variable, or where Distribution's packages and
/// images have it.
pub fn registry_file() -> PathBuf {
    const USUAL: [&str; 2] = ["/etc/docker/registry/config.yml", "/etc/distribution/config.yml"];
    if let Some(named) = std::env::var_os(distribution::variables::FILE).filter(|file| !file.is_empty()) {
        return named.into();
    }
    let found = USUAL.iter().find(|file| Path::new(file).exists());
    found.copied().unwrap_or(USUAL[0]).into()
}

/// The tree of a file; `None`, with a problem, when it cannot be read or is not YAML.
fn read_file(
    file: &Path,
    absolute: &Path,
    problems: &mut Vec<Problem>,
    warnings: Option<&mut Vec<Problem>>,
) -> Option<Node> {
    let source = Source::File(file.into());
    let read = || {
        let mut text = String::new();
        // One byte more than is accepted, so that too much is seen as too much.
        File::open(absolute)?.take(yaml::LARGEST as u64 + 1).read_to_string(&mut text)?;
        io::Result::Ok(text)
    };
    match read() {
        Ok(text) => match warnings {
            Some(warnings) => yaml::read_last_wins(&text, &source, problems, warnings),
            None => yaml::read(&text, &source, "", problems),
        },
        Err(error) => {
            let message = format!("cannot be read: {error}");
            problems.push(Problem::new(&Place { source, line: 0 }, "", message));
            None
        }
    }
}

/// A scalar of a YAML file that is not ours, where only its place and its text count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// From 1.
    pub line: usize,
    /// The path of its key: `production.registry.host`, `a.list[0]`.
    pub path: String,
    /// `None` for nothing, an empty list or mapping, and what our reader does not take (aliases, tags).
    pub value: Option<String>,
}

/// Every scalar of the YAML in `text`, in its order. `file` is what a problem calls it.
///
/// # Errors
/// It is not YAML, or larger or deeper than any configuration.
pub fn leaves(text: &str, file: &Path) -> Result<Vec<Leaf>, Problems> {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let source = Source::File(file.into());
    let root = yaml::read_last_wins(text, &source, &mut problems, &mut warnings);
    let root = root.ok_or_else(|| Problems::new(problems))?;
    let mut leaves = Vec::new();
    gather(&root, String::new(), &mut leaves);
    Ok(leaves)
}

fn gather(node: &Node, path: String, leaves: &mut Vec<Leaf>) {
    match &node.value {
        Value::Mapping(entries) if !entries.is_empty() => {
            for (key, node) in entries {
                gather(node, yaml::join(&path, key), leaves);
            }
        }
        Value::List(items) if !items.is_empty() => {
            for (number, node) in items.iter().enumerate() {
                gather(node, format!("{path}[{number}]"), leaves);
            }
        }
        Value::Text(text) => leaves.push(Leaf { line: node.place.line, path, value: Some(text.clone()) }),
        Value::Nothing | Value::Refused | Value::List(_) | Value::Mapping(_) => {
            leaves.push(Leaf { line: node.place.line, path, value: None });
        }
    }
}

/// The environment as [`load`] takes it: what starts with `PIERHEAD_` or `REGISTRY_`, made text.
pub fn environment() -> Vec<(String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let all = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    let prefixes = [environment::PREFIX, distribution::variables::PREFIX];
    all.filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix))).collect()
}
