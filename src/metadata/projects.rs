//! The rows of projects.

use jiff::Timestamp;
use sqlx::{Executor, QueryBuilder, Sqlite};

use super::names::prefixes;
use super::{Database, Error, PAGE, ProjectPath, Run, Visibility};
use crate::oci::RepositoryName;

/// A project as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its path; the repositories at it and below belong to it, unless a longer project path claims them.
    pub path: ProjectPath,
    /// Who may see it without being a member.
    pub visibility: Visibility,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What became of a wish to remove a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectRemoval {
    /// It is gone. Its repositories belong to this project now, or to none.
    Removed(Option<Project>),
    /// It stays: its repositories would fall to this project, and more people may see that.
    Wider(Project),
    /// There was no such project.
    Unknown,
}

type Row = (String, String, i64);

impl Project {
    fn from_row((path, visibility, created_at): Row) -> Result<Self, Error> {
        Ok(Self {
            path: path.parse().map_err(|_| Error::stored(format_args!("project {path:?}")))?,
            visibility: visibility.parse().map_err(|_| Error::stored(format_args!("visibility {visibility:?}")))?,
            created_at: Timestamp::from_second(created_at).map_err(Error::stored)?,
        })
    }
}

impl Database {
    /// The project that a repository belongs to: the one with the longest path that leads to it.
    pub async fn project_of(&self, repository: &RepositoryName) -> Result<Option<Project>, Error> {
        longest(prefixes(repository.as_str()), &self.readers).await
    }

    /// The project that the repositories at `path` belong to when there is none of exactly that path.
    pub async fn project_above(&self, path: &ProjectPath) -> Result<Option<Project>, Error> {
        longest(above(path), &self.readers).await
    }

    /// Projects after `after` in the order of their paths, at most [`PAGE`].
    pub async fn projects(&self, after: Option<&ProjectPath>) -> Result<Vec<Project>, Error> {
        let rows: Vec<Row> =
            sqlx::query_as("SELECT path, visibility, created_at FROM projects WHERE path > $1 ORDER BY path LIMIT $2")
                .bind(after.map_or("", ProjectPath::as_str))
                .bind(i64::from(PAGE))
                .fetch_all(&self.readers)
                .await?;
        rows.into_iter().map(Project::from_row).collect()
    }

    /// Whether the path is a project's, or a group's: the beginning of a project's path.
    pub async fn is_project_or_group(&self, path: &ProjectPath) -> Result<bool, Error> {
        Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM projects WHERE path = $1 OR (path > $2 AND path < $3))")
            .bind(path.as_str())
            .bind(format!("{path}/"))
            .bind(format!("{path}0")) // '0' is the byte after '/': the range of everything below
            .fetch_one(&self.readers)
            .await?)
    }

    /// Adds a project; `false` when there is one with that path.
    pub async fn add_project(&self, project: &Project) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO projects (path, visibility, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(project.path.as_str())
        .bind(project.visibility.as_str())
        .bind(project.created_at.as_second())
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Changes who may see a project; `false` when there is none with that path.
    pub async fn set_visibility(&self, path: &ProjectPath, visibility: Visibility) -> Result<bool, Error> {
        let done = sqlx::query("UPDATE projects SET visibility = $1 WHERE path = $2")
            .bind(visibility.as_str())
            .bind(path.as_str())
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Removes a project's row. Its repositories stay on disk and fall to the project above, if there is one; when more
    /// people may see that one, nothing is done unless the caller says that they `may_widen`.
    ///
    /// The members of exactly this path go with it, so that a project made later under the same path does not inherit
    /// them; unless it is also a group of other projects, for which they still hold.
    pub async fn remove_project(&self, path: &ProjectPath, may_widen: bool, run: Run) -> Result<ProjectRemoval, Error> {
        let mut transaction = self.begin().await?;
        let removed: Option<Row> =
            sqlx::query_as("DELETE FROM projects WHERE path = $1 RETURNING path, visibility, created_at")
                .bind(path.as_str())
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(removed) = removed.map(Project::from_row).transpose()? else { return Ok(ProjectRemoval::Unknown) };
        let heir = longest(above(path), &mut *transaction).await?;
        match heir {
            Some(heir) if heir.visibility > removed.visibility && !may_widen => return Ok(ProjectRemoval::Wider(heir)),
            _ => {}
        }
        sqlx::query(
            "DELETE FROM members WHERE path = $1 \
             AND NOT EXISTS (SELECT 1 FROM projects WHERE path > $2 AND path < $3)",
        )
        .bind(path.as_str())
        .bind(format!("{path}/"))
        .bind(format!("{path}0"))
        .execute(&mut *transaction)
        .await?;
        run.end(transaction).await?;
        Ok(ProjectRemoval::Removed(heir))
    }
}

/// The paths that lead to `path`, without itself.
fn above(path: &ProjectPath) -> impl Iterator<Item = &str> {
    prefixes(path.as_str()).filter(move |prefix| *prefix != path.as_str())
}

/// The project with the longest of these paths.
async fn longest<'a>(
    paths: impl Iterator<Item = &'a str>,
    connection: impl Executor<'_, Database = Sqlite>,
) -> Result<Option<Project>, Error> {
    let mut query: QueryBuilder<Sqlite> =
        QueryBuilder::new("SELECT path, visibility, created_at FROM projects WHERE path IN (");
    let mut list = query.separated(", ");
    for path in paths {
        list.push_bind(path);
    }
    query.push(") ORDER BY length(path) DESC LIMIT 1");
    let row: Option<Row> = query.build_query_as().fetch_optional(connection).await?;
    row.map(Project::from_row).transpose()
}
