//! Who may pull, push and delete?
//!
//! GitLab's matrix as one pure function, [`rights`], and around it the questions to the database that a request for a
//! token raises. A project that does not exist and one that the caller may not see are asked for in the same way and end
//! in the same nothing.
//!
//! Pushing needs a project. GitLab makes one when a token with push is given out, before any byte has arrived, and so do
//! we: an admin's push of `a/b/c` makes the private project `a/b`, that of `a` the project `a`. With
//! `accounts.members_may_create_projects` a developer of a group does the same right below that group. (If repositories
//! that no project claimed lie there already, they become the new project's: they are in the group's own part of the tree.)
//! Only `push` does that. `*` allows pushing too, but clients ask for it to delete, and that makes nothing.
//!
//! What the database said about an account and a repository is used again while nobody has written to it
//! ([`Database::state`]), whether there is such a project or not, so a right that is given or taken counts in the next
//! token. What was used longest ago makes room, so that an account which asks for thousands of names costs others the
//! time of a look at the database, and nothing else. Nobody in particular is not remembered: they may ask for any name,
//! and would fill it.

use std::sync::Arc;

use jiff::Timestamp;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::credential::Identity;
use crate::metadata::{self, Database, Project, ProjectPath, Role, Standing, State, Visibility};
use crate::oci::{Access, Action, RepositoryName, Resource};

/// How deep the projects lie that an admin's push makes: `group/project`.
const PROJECT_DEPTH: usize = 2;

/// The most bytes of remembered standings, about.
const BYTES: u32 = 4 << 20;
/// The most of them.
const STANDINGS: u32 = 8192;

/// Who asks, as far as rights go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// Nobody in particular.
    Anonymous,
    /// Somebody with an account, and their role in the project, if any.
    SignedIn(Option<Role>),
    /// Somebody who may do everything.
    Admin,
}

/// What may be done with the repositories of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) pull: bool,
    pub(super) push: bool,
    pub(super) delete: bool,
}

impl Rights {
    /// `*` is everything there is, so it goes with the highest of the three, as in GitLab.
    fn allow(self, action: Action) -> bool {
        match action {
            Action::Pull => self.pull,
            Action::Push => self.push,
            Action::Delete | Action::All => self.delete,
        }
    }
}

/// The matrix. `None` is a repository that no project claims: that is the admins' alone.
pub(super) fn rights(project: Option<Visibility>, asker: Asker) -> Rights {
    let role = match asker {
        Asker::Admin => return Rights { pull: true, push: true, delete: true },
        Asker::SignedIn(role) => role,
        Asker::Anonymous => None,
    };
    let signed_in = matches!(asker, Asker::SignedIn(_));
    let at_least = |least| project.is_some() && role >= Some(least);
    let may_see = match project {
        None => false,
        Some(Visibility::Public) => true,
        Some(Visibility::Internal) => signed_in,
        Some(Visibility::Private) => at_least(Role::Reporter),
    };
    Rights { pull: may_see, push: at_least(Role::Developer), delete: at_least(Role::Maintainer) }
}

/// Decides what of the wanted access a token will have.
#[derive(Debug)]
pub(super) struct Permissions {
    database: Database,
    members_may_create_projects: bool,
    /// By account and repository, with a space between them.
    standings: Cache<String, Arc<Known>>,
}

/// How somebody stood to a repository in one state of the database.
#[derive(Debug)]
struct Known {
    state: State,
    standing: Arc<Standing>,
}

impl Permissions {
    pub(super) fn new(database: Database, members_may_create_projects: bool) -> Self {
        let weigh = |key: &String, known: &Arc<Known>| {
            let bytes = key.len() + size_of::<Known>() + known.standing.bytes();
            u32::try_from(bytes).unwrap_or(u32::MAX).max(BYTES / STANDINGS)
        };
        let standings = Cache::builder().max_capacity(BYTES.into()).weigher(weigh);
        let standings = standings.eviction_policy(EvictionPolicy::lru()).build();
        Self { database, members_may_create_projects, standings }
    }

    /// The part of `wanted` that is allowed. A repository of which nothing is allowed stays in it, with no action, as in
    /// Docker Hub's tokens: so the token says what was asked for (`demand.rs` needs that), and says of a repository that
    /// is not there and of a forbidden one the same, which is nothing but what the asker said.
    ///
    /// `state` is that of the database a moment ago, while this request was looked at, if it is known: as long as nothing
    /// has to be waited for, who asks and what they may do are told of one state, which is asked for once.
    pub(super) async fn grant(
        &self,
        identity: &Identity,
        wanted: &[Access],
        now: Timestamp,
        mut state: Option<State>,
    ) -> Result<Vec<Access>, metadata::Error> {
        let mut granted = Vec::new();
        for access in wanted {
            let actions = match &access.resource {
                Resource::Repository(name) => self.repository(identity, name, &access.actions, now, &mut state).await?,
                Resource::Catalog if may_list(identity, &access.actions) => vec![Action::All],
                Resource::Catalog => continue,
            };
            granted.push(Access { resource: access.resource.clone(), actions });
        }
        Ok(granted)
    }

    async fn repository(
        &self,
        identity: &Identity,
        name: &RepositoryName,
        wanted: &[Action],
        now: Timestamp,
        state: &mut Option<State>,
    ) -> Result<Vec<Action>, metadata::Error> {
        let mut standing = self.standing(identity, name, state).await?;
        if standing.project.is_none()
            && wanted.contains(&Action::Push)
            && let Some(path) = self.project_to_make(identity, name, &standing)
        {
            *state = None; // we are about to change it
            let project = Project { path, visibility: Visibility::Private, created_at: now };
            if self.database.add_project(&project).await? {
                tracing::info!(project = %project.path, by = identity.name().map(tracing::field::display), "made a project for a push");
            }
            Arc::make_mut(&mut standing).project = Some(project); // whoever made it: it is there now
        }
        let rights = rights(standing.project.as_ref().map(|project| project.visibility), asker(identity, &standing));
        Ok(wanted.iter().copied().filter(|action| rights.allow(*action)).collect())
    }

    /// Whether pulling and pushing are allowed as things are; nothing is made for it.
    pub(super) async fn may_push(&self, identity: &Identity, name: &RepositoryName) -> Result<bool, metadata::Error> {
        let standing = self.standing(identity, name, &mut None).await?;
        let rights = rights(standing.project.as_ref().map(|project| project.visibility), asker(identity, &standing));
        Ok(rights.pull && rights.push)
    }

    /// `pinned` is the state that this request is told of. It is let go where the database is waited for: what is written
    /// meanwhile counts for whatever is looked at next.
    async fn standing(
        &self,
        identity: &Identity,
        name: &RepositoryName,
        pinned: &mut Option<State>,
    ) -> Result<Arc<Standing>, metadata::Error> {
        let state = || pinned.or_else(|| self.database.state()); // before anything is read
        let Some((account, state)) = identity.name().and_then(|account| Some((account, state()?))) else {
            return Ok(Arc::new(self.database.standing(identity.name(), name).await?));
        };
        let key = [account.as_str(), " ", name.as_str()].concat();
        if let Some(known) = self.standings.get(&key).filter(|known| known.state == state) {
            return Ok(known.standing.clone());
        }
        *pinned = None;
        let standing = Arc::new(self.database.standing(Some(account), name).await?);
        self.standings.insert(key, Arc::new(Known { state, standing: standing.clone() }));
        Ok(standing)
    }

    /// How many standings are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> u64 {
        self.standings.run_pending_tasks();
        self.standings.entry_count()
    }

    /// Which project a push makes, if the asker may make one: for an admin the first two components (or the only one), for
    /// a developer of a group the component below the highest such group.
    fn project_to_make(&self, identity: &Identity, name: &RepositoryName, standing: &Standing) -> Option<ProjectPath> {
        match identity {
            Identity::Anonymous => None,
            Identity::Account(account) if account.is_admin => ProjectPath::leading(name, PROJECT_DEPTH),
            Identity::Account(_) if self.members_may_create_projects => {
                let (group, _) = standing
                    .memberships
                    .iter()
                    .find(|(path, role)| *role >= Role::Developer && path.as_str() != name.as_str())?;
                ProjectPath::leading(name, group.depth() + 1)
            }
            Identity::Account(_) => None,
        }
    }
}

fn asker(identity: &Identity, standing: &Standing) -> Asker {
    match identity {
        Identity::Anonymous => Asker::Anonymous,
        Identity::Account(account) if account.is_admin => Asker::Admin,
        Identity::Account(_) => {
            Asker::SignedIn(standing.project.as_ref().and_then(|project| standing.role_at(&project.path)))
        }
    }
}

/// The catalog names every repository, so it is the admins' alone, and only as a whole.
fn may_list(identity: &Identity, wanted: &[Action]) -> bool {
    matches!(identity, Identity::Account(account) if account.is_admin) && wanted.contains(&Action::All)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix() {
        use Asker::{Admin, Anonymous, SignedIn};
        use Role::{Developer, Guest, Maintainer, Owner, Planner, Reporter};
        use Visibility::{Internal, Private, Public};
        // Who                           public   internal private  unclaimed
        let table = [
            (Anonymous, ["pull", "", "", ""]),
            (SignedIn(None), ["pull", "pull", "", ""]),
            (SignedIn(Some(Guest)), ["pull", "pull", "", ""]),
            (SignedIn(Some(Planner)), ["pull", "pull", "", ""]),
            (SignedIn(Some(Reporter)), ["pull", "pull", "pull", ""]),
            (SignedIn(Some(Developer)), ["pull push", "pull push", "pull push", ""]),
            (SignedIn(Some(Maintainer)), ["pull push delete", "pull push delete", "pull push delete", ""]),
            (SignedIn(Some(Owner)), ["pull push delete", "pull push delete", "pull push delete", ""]),
            (Admin, ["pull push delete"; 4]),
        ];
        for (asker, row) in table {
            for (project, expected) in [Some(Public), Some(Internal), Some(Private), None].into_iter().zip(row) {
                let rights = rights(project, asker);
                let named = [("pull", rights.pull), ("push", rights.push), ("delete", rights.delete)];
                let held: Vec<&str> = named.into_iter().filter(|(_, held)| *held).map(|(name, _)| name).collect();
                assert_eq!(held.join(" "), expected, "{asker:?} of {project:?}");
                assert_eq!(rights.allow(Action::All), rights.delete);
            }
        }
    }
}
