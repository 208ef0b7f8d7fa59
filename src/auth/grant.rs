//! What the bearer of a verified token may do.

use crate::oci::{Access, Action, RepositoryName, Resource};

/// The content of a verified token. It can only be made by the verifier, from a signature that holds.
#[derive(Debug, Clone, Default)]
pub struct Grant {
    /// The account's name; `None` for the anonymous.
    pub subject: Option<String>,
    /// Who vouches for that name: the token's `iss`.
    pub issuer: Option<String>,
    /// What the token allows.
    pub access: Vec<Access>,
}

impl Grant {
    /// Whether every action that `needed` names is allowed on its resource.
    pub fn allows(&self, needed: &Access) -> bool {
        needed.actions.iter().all(|action| {
            self.access
                .iter()
                .any(|held| held.resource == needed.resource && held.actions.iter().any(|has| has.covers(*action)))
        })
    }

    /// Whether the repository may be read.
    pub fn may_pull(&self, name: &RepositoryName) -> bool {
        self.allows(&Access::repository(name, &[Action::Pull]))
    }

    /// Every repository that the token names as readable, in its order.
    pub fn readable(&self) -> impl Iterator<Item = &RepositoryName> {
        self.access.iter().filter_map(|held| match &held.resource {
            Resource::Repository(name) if held.actions.iter().any(|has| has.covers(Action::Pull)) => Some(name),
            Resource::Repository(_) | Resource::Catalog => None,
        })
    }
}
