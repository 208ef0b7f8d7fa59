//! The rows of accounts.

use std::fmt;

use jiff::Timestamp;

use super::{AccountName, Database, Error, PAGE, Run};

/// An account as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Who.
    pub name: AccountName,
    /// The password's hash, as a PHC string.
    pub password: String,
    /// Whether everything is allowed.
    pub is_admin: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("name", &self.name).field("is_admin", &self.is_admin).finish_non_exhaustive()
    }
}

/// What became of a wish to remove an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It and its memberships are gone.
    Removed,
    /// There was no such account.
    Unknown,
    /// It is the only admin there is, and stays.
    LastAdmin,
}

type Row = (String, String, bool, i64);

impl Account {
    fn from_row((name, password, is_admin, created_at): Row) -> Result<Self, Error> {
        Ok(Self {
            name: name.parse().map_err(|_| Error::stored(format_args!("account {name:?}")))?,
            password,
            is_admin,
            created_at: Timestamp::from_second(created_at).map_err(Error::stored)?,
        })
    }
}

impl Database {
    /// The account of that name.
    pub async fn account(&self, name: &AccountName) -> Result<Option<Account>, Error> {
        let row: Option<Row> =
            sqlx::query_as("SELECT name, password, is_admin, created_at FROM accounts WHERE name = $1")
                .bind(name.as_str())
                .fetch_optional(&self.readers)
                .await?;
        row.map(Account::from_row).transpose()
    }

    /// Accounts after `after` in the order of their names, at most [`PAGE`].
    pub async fn accounts(&self, after: Option<&AccountName>) -> Result<Vec<Account>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT name, password, is_admin, created_at FROM accounts WHERE name > $1 ORDER BY name LIMIT $2",
        )
        .bind(after.map_or("", AccountName::as_str))
        .bind(i64::from(PAGE))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(Account::from_row).collect()
    }

    /// Adds an account; `false` when the name is taken.
    pub async fn add_account(&self, account: &Account) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO accounts (name, password, is_admin, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(account.name.as_str())
        .bind(&account.password)
        .bind(account.is_admin)
        .bind(account.created_at.as_second())
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Whether there is an admin at all.
    pub async fn has_admin(&self) -> Result<bool, Error> {
        Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM accounts WHERE is_admin)").fetch_one(&self.readers).await?)
    }

    /// Adds an account unless there is an admin by now; `false` when there is, or when the name is taken.
    pub async fn add_first_admin(&self, account: &Account) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO accounts (name, password, is_admin, created_at) SELECT $1, $2, TRUE, $3 \
             WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE is_admin) ON CONFLICT DO NOTHING",
        )
        .bind(account.name.as_str())
        .bind(&account.password)
        .bind(account.created_at.as_second())
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Replaces a password's hash; `false` when there is no such account.
    pub async fn set_password(&self, name: &AccountName, password: &str) -> Result<bool, Error> {
        let done = sqlx::query("UPDATE accounts SET password = $1 WHERE name = $2")
            .bind(password)
            .bind(name.as_str())
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Removes an account and its memberships, unless nobody could administer the registry afterwards.
    pub async fn remove_account(&self, name: &AccountName, run: Run) -> Result<Removal, Error> {
        let mut transaction = self.begin().await?;
        let is_admin: Option<bool> = sqlx::query_scalar("SELECT is_admin FROM accounts WHERE name = $1")
            .bind(name.as_str())
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(is_admin) = is_admin else { return Ok(Removal::Unknown) };
        let admins: i64 =
            sqlx::query_scalar("SELECT count(*) FROM accounts WHERE is_admin").fetch_one(&mut *transaction).await?;
        if is_admin && admins == 1 {
            return Ok(Removal::LastAdmin);
        }
        sqlx::query("DELETE FROM accounts WHERE name = $1").bind(name.as_str()).execute(&mut *transaction).await?;
        run.end(transaction).await?;
        Ok(Removal::Removed)
    }
}
