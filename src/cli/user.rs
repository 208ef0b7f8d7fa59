//! `pierhead user`: who has an account.

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;

use super::Failure;
use super::desk::{self, Missing};
use super::terminal::{Care, NewPassword, Output, list, remark, say, show_once};
use crate::config::Settings;
use crate::metadata::{Account, AccountName, Database, PAGE, Removal, Run};

/// Accounts.
#[derive(Debug, Subcommand)]
pub enum User {
    /// Add an account
    Add {
        /// Letters, digits, _ . and -; capitals do not matter
        name: AccountName,
        /// May do everything, with every project
        #[arg(long)]
        admin: bool,
        /// Where it comes from
        #[command(flatten)]
        password: NewPassword,
    },
    /// List the accounts
    List {
        /// How to show them
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Remove an account and its memberships
    Remove {
        /// Whose
        name: AccountName,
        /// Ask, do, or only say
        #[command(flatten)]
        care: Care,
    },
    /// Set a new password
    Password {
        /// Whose
        name: AccountName,
        /// Where it comes from
        #[command(flatten)]
        password: NewPassword,
    },
}

/// Does what was typed.
pub(super) fn run(command: User, settings: &Settings) -> Result<(), Failure> {
    let missing = if matches!(command, User::Add { .. }) { Missing::Make } else { Missing::Refuse };
    desk::with_database(settings, missing, async |database| match command {
        User::Add { name, admin, password } => add(database, name, admin, password).await,
        User::List { output } => show(database, output).await,
        User::Remove { name, care } => remove(database, &name, care, settings).await,
        User::Password { name, password } => change_password(database, &name, password, settings).await,
    })
}

async fn add(database: &Database, name: AccountName, is_admin: bool, password: NewPassword) -> Result<(), Failure> {
    let taken = || {
        Failure::failed(format!("there is a user {name} already; `pierhead user password {name}` changes the password"))
    };
    if database.account(&name).await?.is_some() {
        return Err(taken());
    }
    let (password, made_by_chance) = password.read()?;
    let account = Account { name: name.clone(), password: password.hash()?, is_admin, created_at: Timestamp::now() };
    if !database.add_account(&account).await? {
        return Err(taken());
    }
    remark(&format!("Added {} {name}.", if is_admin { "admin" } else { "user" }));
    if made_by_chance {
        show_once(&password, &name, &format!("{name} was added"))?;
    }
    if !database.has_admin().await? {
        remark("There is no admin yet; `pierhead user add NAME --admin` adds one.");
    }
    Ok(())
}

async fn show(database: &Database, output: Output) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let page = database.accounts(after.as_ref()).await?;
        let full = page.len() == PAGE as usize;
        after = page.last().map(|account| account.name.clone());
        rows.extend(page.into_iter().map(|account| {
            vec![json!(account.name.as_str()), json!(account.is_admin), json!(account.created_at.to_string())]
        }));
        if !full {
            return list(output, &["Name", "Admin", "Created at"], &rows);
        }
    }
}

async fn remove(database: &Database, name: &AccountName, care: Care, settings: &Settings) -> Result<(), Failure> {
    let refused = |removal| match removal {
        Removal::Removed => Ok(()),
        Removal::Unknown => Err(unknown(name)),
        Removal::LastAdmin => Err(Failure::failed(format!(
            "{name} is the only admin, and without one nobody could administer the registry; add another first"
        ))),
    };
    refused(database.remove_account(name, Run::Dry).await?)?;
    match care.run(&format!("remove user {name} and all memberships"))? {
        Run::Dry => say(&format!("Would remove user {name} and all memberships.\n")),
        Run::Real => {
            refused(database.remove_account(name, Run::Real).await?)?;
            remark(&format!("Removed user {name}. {}", end_of_tokens(settings)));
            Ok(())
        }
    }
}

async fn change_password(
    database: &Database,
    name: &AccountName,
    password: NewPassword,
    settings: &Settings,
) -> Result<(), Failure> {
    if database.account(name).await?.is_none() {
        return Err(unknown(name));
    }
    let (password, made_by_chance) = password.read()?;
    if !database.set_password(name, &password.hash()?).await? {
        return Err(unknown(name));
    }
    remark(&format!("Changed the password of {name}. The old one is worth nothing from now on."));
    remark(&end_of_tokens(settings));
    if made_by_chance { show_once(&password, name, &format!("the password of {name} was changed")) } else { Ok(()) }
}

fn end_of_tokens(settings: &Settings) -> String {
    // The verifier allows clocks to differ by a minute.
    format!("Tokens given out before end within {} seconds.", settings.auth.duration.as_secs() + 60)
}

fn unknown(name: &AccountName) -> Failure {
    Failure::failed(format!("there is no user {name}; `pierhead user list` shows those there are"))
}
