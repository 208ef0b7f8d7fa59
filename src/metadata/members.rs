//! The rows of members, and what they add up to along a path.

use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite};

use super::names::prefixes;
use super::{AccountName, Database, Error, PAGE, Project, ProjectPath, Role, Run};
use crate::oci::RepositoryName;

/// A membership as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The project or group.
    pub path: ProjectPath,
    /// Who.
    pub account: AccountName,
    /// As what.
    pub role: Role,
    /// Since when.
    pub created_at: Timestamp,
}

type Row = (String, String, i64, i64);

impl Member {
    fn from_row((path, account, role, created_at): Row) -> Result<Self, Error> {
        Ok(Self {
            path: path.parse().map_err(|_| Error::stored(format_args!("path {path:?}")))?,
            account: account.parse().map_err(|_| Error::stored(format_args!("account {account:?}")))?,
            role: Role::from_level(role).ok_or_else(|| Error::stored(format_args!("role {role}")))?,
            created_at: Timestamp::from_second(created_at).map_err(Error::stored)?,
        })
    }
}

/// How one account stands to one repository.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// The project that the repository belongs to.
    pub project: Option<Project>,
    /// The account's memberships on any path that leads to the repository, shortest path first.
    pub memberships: Vec<(ProjectPath, Role)>,
}

impl Standing {
    /// The role that counts at `path`: the highest of those held on it and on the groups above it.
    pub fn role_at(&self, path: &ProjectPath) -> Option<Role> {
        self.memberships.iter().filter(|(held, _)| held.covers(path.as_str())).map(|(_, role)| *role).max()
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        let held = |path: &ProjectPath| size_of::<(ProjectPath, Role)>() + path.as_str().len();
        let project = self.project.as_ref().map_or(0, |project| project.path.as_str().len());
        size_of::<Self>() + project + self.memberships.iter().map(|(path, _)| held(path)).sum::<usize>()
    }
}

impl Database {
    /// How an account (or nobody) stands to a repository.
    ///
    /// It asks the same questions whether or not there is a project, so that the time it takes does not tell.
    pub async fn standing(
        &self,
        account: Option<&AccountName>,
        repository: &RepositoryName,
    ) -> Result<Standing, Error> {
        let project = self.project_of(repository).await?;
        let memberships = match account {
            Some(account) => self.memberships(account, repository).await?,
            None => Vec::new(),
        };
        Ok(Standing { project, memberships })
    }

    async fn memberships(
        &self,
        account: &AccountName,
        repository: &RepositoryName,
    ) -> Result<Vec<(ProjectPath, Role)>, Error> {
        let mut query: QueryBuilder<Sqlite> =
            QueryBuilder::new("SELECT path, account, role, created_at FROM members WHERE account = ");
        query.push_bind(account.as_str()).push(" AND path IN (");
        let mut list = query.separated(", ");
        for prefix in prefixes(repository.as_str()) {
            list.push_bind(prefix);
        }
        query.push(") ORDER BY path"); // each is a prefix of the next, so this is shortest first
        let rows: Vec<Row> = query.build_query_as().fetch_all(&self.readers).await?;
        let members = rows.into_iter().map(Member::from_row);
        members.map(|member| member.map(|Member { path, role, .. }| (path, role))).collect()
    }

    /// Makes somebody a member, or changes the role; `false` when there is no such account.
    pub async fn set_member(&self, member: &Member) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO members (path, account, role, created_at) SELECT $1, name, $2, $3 FROM accounts WHERE name = $4 \
             ON CONFLICT (path, account) DO UPDATE SET role = excluded.role",
        )
        .bind(member.path.as_str())
        .bind(member.role.level())
        .bind(member.created_at.as_second())
        .bind(member.account.as_str())
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends a membership of exactly this path; `false` when there was none.
    pub async fn remove_member(&self, path: &ProjectPath, account: &AccountName, run: Run) -> Result<bool, Error> {
        let mut transaction = self.begin().await?;
        let done = sqlx::query("DELETE FROM members WHERE path = $1 AND account = $2")
            .bind(path.as_str())
            .bind(account.as_str())
            .execute(&mut *transaction)
            .await?;
        run.end(transaction).await?;
        Ok(done.rows_affected() == 1)
    }

    /// The members of a path and of the groups above it, in the order of path and name, at most [`PAGE`] after `after`.
    pub async fn members(
        &self,
        path: &ProjectPath,
        after: Option<&(ProjectPath, AccountName)>,
    ) -> Result<Vec<Member>, Error> {
        let (after_path, after_account) =
            after.map_or(("", ""), |(after_path, after_account)| (after_path.as_str(), after_account.as_str()));
        let mut query: QueryBuilder<Sqlite> =
            QueryBuilder::new("SELECT path, account, role, created_at FROM members WHERE path IN (");
        let mut list = query.separated(", ");
        for prefix in prefixes(path.as_str()) {
            list.push_bind(prefix);
        }
        query.push(") AND (path, account) > (").push_bind(after_path).push(", ").push_bind(after_account);
        query.push(") ORDER BY path, account LIMIT ").push_bind(i64::from(PAGE));
        let rows: Vec<Row> = query.build_query_as().fetch_all(&self.readers).await?;
        rows.into_iter().map(Member::from_row).collect()
    }
}
