//! Scopes: what a client asks a token for, and what an endpoint needs (Distribution's token scope specification).
//!
//! `type[(class)]:name:action[,action]*`. A name may itself hold a colon (`host:port/path`), so the first and the last
//! colon cut. The class is obsolete and ignored.

use std::fmt;
use std::str::FromStr;

use super::RepositoryName;

/// Something that may be done to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Read.
    Pull,
    /// Write.
    Push,
    /// Delete.
    Delete,
    /// Everything.
    All,
}

impl Action {
    /// As written in scopes and tokens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::All => "*",
        }
    }

    /// Whether a right to `self` is a right to `other`.
    pub fn covers(self, other: Self) -> bool {
        self == other || self == Self::All
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        match text {
            "pull" => Ok(Self::Pull),
            "push" => Ok(Self::Push),
            "delete" => Ok(Self::Delete),
            "*" => Ok(Self::All),
            _ => Err(ScopeError),
        }
    }
}

/// What actions apply to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Resource {
    /// `repository:<name>`
    Repository(RepositoryName),
    /// `registry:catalog`
    Catalog,
}

impl Resource {
    /// The type, the part before the first colon.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Repository(_) => "repository",
            Self::Catalog => "registry",
        }
    }

    /// The name, the part after it.
    pub fn name(&self) -> &str {
        match self {
            Self::Repository(name) => name.as_str(),
            Self::Catalog => "catalog",
        }
    }
}

/// A resource and the actions on it: needed by an endpoint, or granted by a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// What it is about.
    pub resource: Resource,
    /// What may, or must be allowed to, be done with it.
    pub actions: Vec<Action>,
}

impl Access {
    /// Actions on a repository.
    pub fn repository(name: &RepositoryName, actions: &[Action]) -> Self {
        Self { resource: Resource::Repository(name.clone()), actions: actions.to_vec() }
    }

    /// Whether everything that `needed` asks is in `self`.
    pub fn covers(&self, needed: &Self) -> bool {
        self.resource == needed.resource
            && needed.actions.iter().all(|action| self.actions.iter().any(|held| held.covers(*action)))
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.resource.kind(), self.resource.name())?;
        for (index, action) in self.actions.iter().enumerate() {
            write!(f, "{}{action}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// What a client asked for: an [`Access`] whose unknown actions were dropped.
///
/// Types other than repositories and the catalog are [`ScopeError`]: a token service leaves them out of the token and
/// does not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope(pub Access);

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let (kind, rest) = text.split_once(':').ok_or(ScopeError)?;
        let (name, actions) = rest.rsplit_once(':').ok_or(ScopeError)?;
        let kind = kind.split_once('(').map_or(kind, |(kind, _class)| kind);
        let mut known: Vec<Action> = actions.split(',').filter_map(|action| action.parse().ok()).collect();
        known.sort_unstable();
        known.dedup();
        let resource = match (kind, name) {
            ("repository", name) => Resource::Repository(name.to_ascii_lowercase().parse().map_err(|_| ScopeError)?),
            ("registry", "catalog") => Resource::Catalog,
            _ => return Err(ScopeError),
        };
        Ok(Self(Access { resource, actions: known }))
    }
}

/// Splits a `scope` value (several are separated by white space) and keeps what makes sense, merged by resource.
pub fn parse_all<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Access> {
    let mut wanted: Vec<Access> = Vec::new();
    let scopes = values.into_iter().flat_map(str::split_ascii_whitespace).filter_map(|text| text.parse::<Scope>().ok());
    for Scope(access) in scopes {
        match wanted.iter_mut().find(|known| known.resource == access.resource) {
            Some(known) => {
                known.actions.extend(access.actions);
                known.actions.sort_unstable();
                known.actions.dedup();
            }
            None => wanted.push(access),
        }
    }
    wanted
}

/// Not a scope that means anything here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a scope is TYPE:NAME:ACTION[,ACTION], with repository or registry as its type")]
pub struct ScopeError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(text: &str) -> String {
        text.parse::<Scope>().unwrap().0.to_string()
    }

    #[test]
    fn classes_and_unknown_actions_are_dropped_and_names_lower_cased() {
        assert_eq!(scope("repository(plugin):A/b:pull,fly,push,pull"), "repository:a/b:pull,push");
        assert_eq!(scope("registry:catalog:*"), "registry:catalog:*");
        assert_eq!(scope("repository:a:"), "repository:a:");
        for bad in ["", "repository", "repository:a", "registry:other:*", "alien:a:pull", "repository:../x:pull"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
    }

    #[test]
    fn several_scopes_for_one_repository_become_one() {
        let all = parse_all(["repository:a:pull repository:b:pull", "repository:a:push"]);
        let text: Vec<String> = all.iter().map(Access::to_string).collect();
        assert_eq!(text, ["repository:a:pull,push", "repository:b:pull"]);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<Scope>(); // only that it returns is claimed
        }
    }
}
