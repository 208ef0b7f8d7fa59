//! `pierhead project`: which projects there are, who may see them, and who belongs to them.

use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use super::Failure;
use super::desk::{self, Missing};
use super::terminal::{Care, Output, list, remark, say};
use crate::config::Settings;
use crate::metadata::{self, AccountName, Database, PAGE, ProjectPath, ProjectRemoval, Role, Run, Visibility};
use crate::oci::RepositoryName;
use crate::registry::{Index, Registry};
use crate::storage::filesystem::Filesystem;

/// Projects.
#[derive(Debug, Subcommand)]
pub enum Project {
    /// Add a project; the repositories at its path and below belong to it
    Add {
        /// Like group/app
        path: ProjectPath,
        /// private (its members), internal (everybody with an account) or public (everybody)
        #[arg(long, default_value = "private")]
        visibility: Visibility,
    },
    /// List the projects
    List(Listing),
    /// Remove a project; its repositories stay, and fall to the project above or else to the admins alone
    Remove {
        /// Which
        path: ProjectPath,
        /// Do it even if more people may see the project above: they will see the repositories
        #[arg(long)]
        publish: bool,
        /// Ask, do, or only say
        #[command(flatten)]
        care: Care,
    },
    /// Change who may see a project
    Visibility {
        /// Which
        path: ProjectPath,
        /// private, internal or public
        level: Visibility,
    },
    /// Members of a project, or of a group and everything below it
    #[command(subcommand)]
    Member(Member),
}

/// What to list, and how.
#[derive(Debug, Args)]
pub struct Listing {
    /// The repositories in storage that belong to no project
    #[arg(long)]
    unclaimed: bool,
    /// How to show them
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Members.
#[derive(Debug, Subcommand)]
pub enum Member {
    /// Make a user a member, or change the role
    Add {
        /// The path of a project or of a group
        path: ProjectPath,
        /// Who
        user: AccountName,
        /// guest, planner, reporter (may pull), developer (may push), maintainer (may delete) or owner
        role: Role,
    },
    /// End a membership
    Remove {
        /// The path of a project or of a group
        path: ProjectPath,
        /// Who
        user: AccountName,
        /// Ask, do, or only say
        #[command(flatten)]
        care: Care,
    },
    /// List the members, with those that a group above brings
    List {
        /// The path of a project or of a group
        path: ProjectPath,
        /// How to show them
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

/// Does what was typed.
pub(super) fn run(command: Project, settings: &Settings) -> Result<(), Failure> {
    let missing = if matches!(command, Project::Add { .. }) { Missing::Make } else { Missing::Refuse };
    desk::with_database(settings, missing, async |database| match command {
        Project::Add { path, visibility } => add(database, path, visibility).await,
        Project::List(listing) => show(database, listing, settings).await,
        Project::Remove { path, publish, care } => remove(database, &path, publish, care).await,
        Project::Visibility { path, level } => set_visibility(database, &path, level).await,
        Project::Member(Member::Add { path, user, role }) => add_member(database, path, user, role).await,
        Project::Member(Member::Remove { path, user, care }) => remove_member(database, &path, &user, care).await,
        Project::Member(Member::List { path, output }) => show_members(database, &path, output).await,
    })
}

async fn add(database: &Database, path: ProjectPath, visibility: Visibility) -> Result<(), Failure> {
    let project = metadata::Project { path, visibility, created_at: Timestamp::now() };
    let path = &project.path;
    if !database.add_project(&project).await? {
        return Err(Failure::failed(format!("there is a project {path} already")));
    }
    remark(&format!("Added {visibility} project {path}."));
    if let Some(above) = database.project_above(path).await? {
        remark(&format!("What lies there belonged to {} until now.", described(&above)));
    }
    if visibility != Visibility::Private {
        let who = if visibility == Visibility::Public { "Everybody" } else { "Everybody with an account" };
        remark(&format!("{who} may pull what lies there and below, except where a longer project path claims it."));
    }
    Ok(())
}

async fn show(database: &Database, listing: Listing, settings: &Settings) -> Result<(), Failure> {
    if listing.unclaimed {
        return show_unclaimed(database, listing.output, settings).await;
    }
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let page = database.projects(after.as_ref()).await?;
        let full = page.len() == PAGE as usize;
        after = page.last().map(|project| project.path.clone());
        rows.extend(page.into_iter().map(|project| {
            let created_at = project.created_at.to_string();
            vec![json!(project.path.as_str()), json!(project.visibility.as_str()), json!(created_at)]
        }));
        if !full {
            return list(listing.output, &["Path", "Visibility", "Created at"], &rows);
        }
    }
}

async fn remove(database: &Database, path: &ProjectPath, publish: bool, care: Care) -> Result<(), Failure> {
    let removed = async |run| match database.remove_project(path, publish, run).await? {
        ProjectRemoval::Removed(heir) => Ok(heir),
        ProjectRemoval::Unknown => Err(unknown(path)),
        ProjectRemoval::Wider(heir) => Err(would_publish(path, &heir)),
    };
    let fall_to = |heir: Option<metadata::Project>| match heir {
        Some(heir) => format!("its repositories stay and fall to {}", described(&heir)),
        None => "its repositories stay, for admins only".to_owned(),
    };
    let heir = fall_to(removed(Run::Dry).await?);
    match care.run(&format!("remove project {path}; {heir}"))? {
        Run::Dry => say(&format!("Would remove project {path}; {heir}.\n")),
        Run::Real => {
            let heir = removed(Run::Real).await?;
            let unclaimed = heir.is_none();
            remark(&format!("Removed project {path}; {}.", fall_to(heir)));
            if unclaimed {
                remark("`pierhead project list --unclaimed` shows them.");
            }
            Ok(())
        }
    }
}

fn would_publish(path: &ProjectPath, heir: &metadata::Project) -> Failure {
    let above = &heir.path;
    Failure::failed(format!(
        "{path} was not removed: its repositories would fall to {}, so more people could pull them.\n\
         Add --publish if that is meant; otherwise keep {path}, or narrow {above} first (`pierhead project visibility {above} private`).",
        described(heir),
    ))
}

/// A project, for people: what it is and who may see it.
fn described(project: &metadata::Project) -> String {
    format!("the {} project {}", project.visibility, project.path)
}

async fn set_visibility(database: &Database, path: &ProjectPath, level: Visibility) -> Result<(), Failure> {
    if !database.set_visibility(path, level).await? {
        return Err(unknown(path));
    }
    remark(&format!("Project {path} is {level} now."));
    Ok(())
}

async fn add_member(database: &Database, path: ProjectPath, account: AccountName, role: Role) -> Result<(), Failure> {
    let member = metadata::Member { path, account, role, created_at: Timestamp::now() };
    let metadata::Member { path, account, .. } = &member;
    if !database.set_member(&member).await? {
        return Err(Failure::failed(format!("there is no user {account}; `pierhead user add {account}` makes one")));
    }
    remark(&format!("{account} is {role} of {path} now."));
    if !database.is_project_or_group(path).await? {
        remark(&format!("There is no project at or below {path} yet; it will hold for those to come."));
    }
    Ok(())
}

async fn remove_member(
    database: &Database,
    path: &ProjectPath,
    account: &AccountName,
    care: Care,
) -> Result<(), Failure> {
    let unknown = || {
        Failure::failed(format!(
            "{account} is no member of exactly {path}; `pierhead project member list {path}` shows who is, and where"
        ))
    };
    if !database.remove_member(path, account, Run::Dry).await? {
        return Err(unknown());
    }
    match care.run(&format!("end the membership of {account} in {path}"))? {
        Run::Dry => say(&format!("Would end the membership of {account} in {path}.\n")),
        Run::Real => {
            if !database.remove_member(path, account, Run::Real).await? {
                return Err(unknown());
            }
            remark(&format!("{account} is no member of {path} any more."));
            Ok(())
        }
    }
}

async fn show_members(database: &Database, path: &ProjectPath, output: Output) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let page = database.members(path, after.as_ref()).await?;
        let full = page.len() == PAGE as usize;
        after = page.last().map(|member| (member.path.clone(), member.account.clone()));
        rows.extend(page.into_iter().map(|member| {
            let created_at = member.created_at.to_string();
            vec![
                json!(member.account.as_str()),
                json!(member.role.as_str()),
                json!(member.path.as_str()),
                json!(created_at),
            ]
        }));
        if !full {
            return list(output, &["User", "Role", "Path", "Created at"], &rows);
        }
    }
}

async fn show_unclaimed(database: &Database, output: Output, settings: &Settings) -> Result<(), Failure> {
    let settings = desk::with_registry(settings.clone())?;
    let driver = Arc::new(Filesystem::new(settings.registry.root.clone()));
    let registry = Registry::new(settings.registry, driver, Index::none());
    let page = async |after: Option<&RepositoryName>| {
        let names = registry.repositories(after.map(RepositoryName::as_str), PAGE as usize).await;
        names.map_err(Failure::failed)
    };
    let names = unclaimed(database, page).await?;
    let rows: Vec<_> = names.iter().map(|name| vec![json!(name.as_str())]).collect();
    list(output, &["Repository"], &rows)
}

/// The repositories that no project claims, out of a listing that comes page by page: `page(after)` gives the next names
/// in order, none at the end.
async fn unclaimed(
    database: &Database,
    page: impl AsyncFn(Option<&RepositoryName>) -> Result<Vec<RepositoryName>, Failure>,
) -> Result<Vec<RepositoryName>, Failure> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let names = page(after.as_ref()).await?;
        let Some(last) = names.last() else { return Ok(found) };
        after = Some(last.clone());
        for name in names {
            if database.project_of(&name).await?.is_none() {
                found.push(name);
            }
        }
    }
}

fn unknown(path: &ProjectPath) -> Failure {
    Failure::failed(format!("there is no project {path}; `pierhead project list` shows those there are"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        project: Project,
    }

    /// `project remove` as typed.
    async fn typed(database: &Database, words: &str) -> Result<(), Failure> {
        match Line::parse_from(["project", "remove"].into_iter().chain(words.split(' '))).project {
            Project::Remove { path, publish, care } => remove(database, &path, publish, care).await,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn removing_a_private_project_under_a_public_one_needs_more_than_yes() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::path_in(folder.path())).await.unwrap();
        for (path, visibility) in [("pub/app", Visibility::Public), ("pub/app/secret", Visibility::Private)] {
            let path = path.parse().unwrap();
            let project = metadata::Project { path, visibility, created_at: Timestamp::UNIX_EPOCH };
            assert!(database.add_project(&project).await.unwrap());
        }
        for words in ["pub/app/secret --yes", "pub/app/secret --dry-run"] {
            let refused = typed(&database, words).await.unwrap_err();
            assert_eq!(refused.code, 1);
            for said in ["was not removed", "the public project pub/app,", "--publish"] {
                assert!(refused.message.contains(said), "{}", refused.message);
            }
        }
        typed(&database, "pub/app/secret --publish --dry-run").await.unwrap();
        let secret = "pub/app/secret/x".parse().unwrap();
        assert_eq!(database.project_of(&secret).await.unwrap().unwrap().visibility, Visibility::Private);
        typed(&database, "pub/app/secret --publish --yes").await.unwrap();
        assert_eq!(database.project_of(&secret).await.unwrap().unwrap().visibility, Visibility::Public);
    }

    #[tokio::test]
    async fn unclaimed_are_those_that_no_project_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::path_in(folder.path())).await.unwrap();
        let path = "a/b".parse().unwrap();
        let project = metadata::Project { path, visibility: Visibility::Private, created_at: Timestamp::UNIX_EPOCH };
        assert!(database.add_project(&project).await.unwrap());
        let tree: Vec<RepositoryName> =
            ["a", "a/b", "a/b/c", "a/bc", "z"].iter().map(|name| name.parse().unwrap()).collect();
        let page = async |after: Option<&RepositoryName>| {
            Ok(tree.iter().filter(|name| after.is_none_or(|after| *name > after)).take(2).cloned().collect())
        };
        let found = unclaimed(&database, page).await.unwrap();
        assert_eq!(found.iter().map(RepositoryName::as_str).collect::<Vec<_>>(), ["a", "a/bc", "z"]);
    }
}
