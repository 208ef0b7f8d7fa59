//! The rows of manifests: what was read of them once. They are facts and never change; see the migration.

use std::collections::HashSet;

use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite};

use super::{Database, Error};
use crate::oci::{Digest, RepositoryName};

/// The most rows that are written, read or forgotten in one go. A row has five values, and a statement takes 32 766.
pub const MANIFESTS_AT_ONCE: usize = 1000;

/// What is known of a manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownManifest {
    /// Its digest.
    pub digest: Digest,
    /// The manifest that it says something about.
    pub subject: Option<Digest>,
    /// Its bytes and those of the configuration and the layers that it names.
    pub size: u64,
    /// When it was pushed.
    pub published_at: Timestamp,
}

impl Database {
    /// Adds what was read of at most [`MANIFESTS_AT_ONCE`] manifests; what is there already stays.
    pub async fn note_manifests(&self, repository: &RepositoryName, manifests: &[KnownManifest]) -> Result<(), Error> {
        if manifests.is_empty() {
            return Ok(());
        }
        let mut query: QueryBuilder<Sqlite> =
            QueryBuilder::new("INSERT INTO manifests (repository, digest, subject, size, published_at) ");
        query.push_values(manifests, |mut row, manifest| {
            row.push_bind(repository.as_str())
                .push_bind(manifest.digest.to_string())
                .push_bind(manifest.subject.as_ref().map(Digest::to_string))
                .push_bind(i64::try_from(manifest.size).unwrap_or(i64::MAX))
                .push_bind(manifest.published_at.as_second());
        });
        query.push(" ON CONFLICT DO NOTHING").build().execute(&self.writer).await?;
        Ok(())
    }

    /// Those of at most [`MANIFESTS_AT_ONCE`] digests of a repository that have no row, in the order given.
    pub async fn unknown_manifests(
        &self,
        repository: &RepositoryName,
        digests: Vec<Digest>,
    ) -> Result<Vec<Digest>, Error> {
        if digests.is_empty() {
            return Ok(digests);
        }
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new("SELECT digest FROM manifests WHERE repository = ");
        query.push_bind(repository.as_str()).push(" AND digest IN (");
        let mut list = query.separated(", ");
        for digest in &digests {
            list.push_bind(digest.to_string());
        }
        query.push(")");
        let known: Vec<String> = query.build_query_scalar().fetch_all(&self.readers).await?;
        let known: HashSet<String> = known.into_iter().collect();
        Ok(digests.into_iter().filter(|digest| !known.contains(&digest.to_string())).collect())
    }

    /// The manifests with this subject after a digest, in the order of their digests, at most [`MANIFESTS_AT_ONCE`].
    pub async fn referring_manifests(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        after: Option<&Digest>,
    ) -> Result<Vec<Digest>, Error> {
        let rows: Vec<String> = sqlx::query_scalar(
            "SELECT digest FROM manifests WHERE repository = $1 AND subject = $2 AND digest > $3 ORDER BY digest LIMIT $4",
        )
        .bind(repository.as_str())
        .bind(subject.to_string())
        .bind(after.map(Digest::to_string).unwrap_or_default())
        .bind(MANIFESTS_AT_ONCE as i64)
        .fetch_all(&self.readers)
        .await?;
        let parse = |text: String| text.parse().map_err(|_| Error::stored(format_args!("digest {text:?}")));
        rows.into_iter().map(parse).collect()
    }

    /// Takes out at most [`MANIFESTS_AT_ONCE`] rows, and says whether there were any. Each transaction is short, so that a
    /// server that runs meanwhile does not wait.
    pub async fn forget_manifests(&self) -> Result<bool, Error> {
        let mut transaction = self.begin().await?;
        let done = sqlx::query(
            "DELETE FROM manifests WHERE (repository, digest) IN (SELECT repository, digest FROM manifests LIMIT $1)",
        )
        .bind(MANIFESTS_AT_ONCE as i64)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("UPDATE manifests_forgotten SET times = times + 1").execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// Has every write refused, or none any more, as a disk does that is full or read-only.
    #[cfg(test)]
    pub async fn refuse_writes(&self, refuse: bool) {
        sqlx::query(if refuse { "PRAGMA query_only = 1" } else { "PRAGMA query_only = 0" })
            .execute(&self.writer)
            .await
            .unwrap();
    }

    /// How often rows were taken out so far.
    pub async fn manifests_forgotten(&self) -> Result<i64, Error> {
        Ok(sqlx::query_scalar("SELECT times FROM manifests_forgotten").fetch_one(&self.readers).await?)
    }
}
