//! Which variable says what?
//!
//! A variable overrides its key: `PIERHEAD_` and the path in upper case, levels joined by `_`. Since the reader asks with
//! the path of a key, keys with an underscore of their own need no rule. A scalar may also be in a file that
//! `..._FILE` names, as secrets are mounted; a list, and what has keys that the operator chooses (`upstreams`), is YAML
//! in one line and has one variable for all of it.
//!
//! What the file says about an overridden key does not count, and is not checked either.
//!
//! **Invariant:** no message shows what a `..._FILE` holds when it is refused: it may be a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::problem::{Place, Problem, Source, nearest, quoted};

/// Every variable of ours starts so.
pub(super) const PREFIX: &str = "PIERHEAD_";
/// And ends so when its value is in a file.
const FILE: &str = "_FILE";
/// Variables that other rooms read.
const ELSEWHERE: [&str; 4] =
    ["PIERHEAD_CONFIG", "PIERHEAD_ADMIN_PASSWORD", "PIERHEAD_ADMIN_PASSWORD_FILE", "PIERHEAD_TAKES_OVER"];
/// The largest file that a `..._FILE` variable may name, in bytes.
const LARGEST_VALUE: u64 = 64 << 10;

/// What a variable holds that is not one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Collection {
    /// `[a, b]`.
    List,
    /// `{a: 1, b: 2}`, with keys that the operator chooses.
    Map,
}

/// The variable that overrides a key.
pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "_"))
}

/// The variables that concern us.
#[derive(Debug)]
pub(super) struct Environment {
    /// Those that nobody asked for so far.
    unread: BTreeMap<String, String>,
    /// The variables of all keys that were asked for.
    known: BTreeSet<String>,
    /// Those of them that hold a whole list or map.
    wholes: Vec<(String, Collection)>,
    /// Relative paths start here.
    working: PathBuf,
}

impl Environment {
    /// Picks ours. An empty variable is as good as none: that is what `PIERHEAD_USER=$USER` comes to in many tools when
    /// nothing is set. An unknown one is reported even so.
    pub(super) fn new(all: impl IntoIterator<Item = (String, String)>, working: &Path) -> Self {
        let ours = |(name, _): &(String, String)| name.starts_with(PREFIX) && !ELSEWHERE.contains(&name.as_str());
        let unread = all.into_iter().filter(ours).collect();
        Self { unread, known: BTreeSet::new(), wholes: Vec::new(), working: working.to_owned() }
    }

    /// A path in a variable, made absolute.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.working.join(path).components().collect()
    }

    /// The list or map at `path`, as YAML.
    pub(super) fn whole(&mut self, path: &str, collection: Collection) -> Option<(String, Place)> {
        let name = variable(path);
        self.wholes.push((name.clone(), collection));
        self.take(&name)
    }

    /// The scalar at `path`, by value or by `..._FILE`.
    pub(super) fn scalar(&mut self, path: &str) -> Result<Option<(String, Place)>, Problem> {
        let name = variable(path);
        let name_of_file = format!("{name}{FILE}");
        self.known.insert(name.clone());
        match (self.take(&name), self.take(&name_of_file)) {
            (Some((_, place)), Some(_)) => {
                Err(Problem::new(&place, path, format!("set by {name_of_file} too; keep one")))
            }
            (Some(value), None) => Ok(Some(value)),
            (None, Some((file, place))) => match first_line_of(&self.resolve(&file)) {
                Ok(value) => Ok(Some((value, place))),
                Err(message) => Err(Problem::new(&place, name_of_file, format!("{} {message}", quoted(&file)))),
            },
            (None, None) => Ok(None),
        }
    }

    fn take(&mut self, name: &str) -> Option<(String, Place)> {
        let value = self.unread.remove(name).filter(|value| !value.is_empty())?;
        Some((value, Place::variable(name)))
    }

    /// What a message about the value at `path` may say. `PIERHEAD_TOKEN_KEY_FILE=token.key` is an easy mistake, and must not
    /// bring the key into a log.
    pub(super) fn discreet(place: &Place, path: &str, message: String) -> String {
        match &place.source {
            Source::Variable(name) if **name != *variable(path) && name.ends_with(FILE) => format!(
                "what this file holds is not accepted, and not shown since it may be a secret; to write the value itself \
                 set {}",
                variable(path)
            ),
            _ => message,
        }
    }

    /// The variables that no key has asked for; `later` are the keys of a later version.
    pub(super) fn unknown(&self, later: &[String]) -> Vec<Problem> {
        let foreign = |(name, value): &(&String, &String)| !is_of_kubernetes(name, value);
        let names = self.unread.iter().filter(foreign).map(|(name, _)| name);
        names.map(|name| Problem::new(&Place::variable(name), name, self.about_unknown(name, later))).collect()
    }

    fn about_unknown(&self, name: &str, later: &[String]) -> String {
        let is_below =
            |above: &str| name.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
        if let Some(later) = later.iter().find(|later| is_below(&variable(later))) {
            return format!("{later} is not served yet by this version; remove it");
        }
        if let Some((whole, collection)) = self.wholes.iter().find(|(whole, _)| is_below(whole)) {
            let what = match collection {
                Collection::List => "list, as YAML in one line: [...]",
                Collection::Map => "of it, as YAML in one line: {...}",
            };
            return format!("unknown variable; {whole} holds the whole {what}");
        }
        let (name, end) = name.strip_suffix(FILE).map_or((name, ""), |name| (name, FILE));
        let wholes = if end.is_empty() { &self.wholes[..] } else { &[] };
        let known = self.known.iter().chain(wholes.iter().map(|(name, _)| name));
        match nearest(name, known.map(String::as_str)) {
            Some(meant) => format!("unknown variable; did you mean {meant}{end}?"),
            None => {
                "unknown variable; its name must be PIERHEAD_ and a key in upper case, levels joined by _, such as \
                     PIERHEAD_EXTERNAL_URL or PIERHEAD_LOG_LEVEL"
                    .to_owned()
            }
        }
    }
}

/// Variables that Kubernetes sets in every pod of a namespace with a service named `pierhead` or `pierhead-...`:
/// `PIERHEAD_SERVICE_HOST`, `PIERHEAD_SERVICE_PORT_HTTPS`, `PIERHEAD_PORT=tcp://...`, `PIERHEAD_PORT_5050_TCP_ADDR`.
pub(super) fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let number_and_protocol = |rest: &str| {
        let (number, protocol) = rest.split_once('_').unwrap_or((rest, ""));
        let known = ["TCP", "UDP", "SCTP"].iter().any(|known| protocol.starts_with(known));
        known && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && url)
        || name.match_indices("_PORT_").any(|(at, port)| number_and_protocol(&name[at + port.len()..]))
}

/// The value in a file of one line; a line end after it is not part of it.
fn first_line_of(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LARGEST_VALUE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > LARGEST_VALUE {
        return Err(format!("is larger than {LARGEST_VALUE} bytes"));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}
