//! What may the caller do, now that somebody vouched for them?
//!
//! The registry acts on a [`Grant`] and on nothing else: how it came about, by a token, a password or because nobody
//! guards, ends here.

use crate::oci::{Access, Action, RepositoryName, Resource};

/// What the caller may do: the content of a verified token, or everything.
#[derive(Debug, Clone, Default)]
pub struct Grant {
    /// The account's name; `None` for the anonymous.
    pub subject: Option<String>,
    /// Who vouches for that name: the token's `iss`.
    pub issuer: Option<String>,
    /// What the token allows.
    pub access: Vec<Access>,
    /// Whether everything is allowed, whatever `access` says: nobody guards, or the guard knows no difference.
    pub everything: bool,
}

impl Grant {
    /// A grant of everything to whoever that is.
    pub fn everything(subject: Option<String>) -> Self {
        Self { subject, everything: true, ..Self::default() }
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let named = self.subject.iter().chain(&self.issuer).map(String::len).sum::<usize>();
        let held = |access: &Access| size_of::<Access>() + access.resource.name().len() + size_of_val(&*access.actions);
        size_of::<Self>() + named + self.access.iter().map(held).sum::<usize>()
    }

    /// Whether every action that `needed` names is allowed on its resource.
    pub fn allows(&self, needed: &Access) -> bool {
        self.everything || self.names(needed)
    }

    fn names(&self, needed: &Access) -> bool {
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

    /// Whether the token says anything about it, even that nothing is allowed.
    pub(super) fn mentions(&self, resource: &Resource) -> bool {
        self.everything || self.access.iter().any(|held| held.resource == *resource)
    }

    /// Every repository that the token names as readable, in its order; a grant of everything names none.
    pub fn readable(&self) -> impl Iterator<Item = &RepositoryName> {
        self.access.iter().filter_map(|held| match &held.resource {
            Resource::Repository(name) if held.actions.iter().any(|has| has.covers(Action::Pull)) => Some(name),
            Resource::Repository(_) | Resource::Catalog => None,
        })
    }
}
