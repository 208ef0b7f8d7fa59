//! The metadata database, as commands use it: opened as the user who keeps it, closed at the end.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, absolute};

use nix::unistd::{Gid, Uid};

use super::Failure;
use crate::auth;
use crate::config::{Settings, Tokens};
use crate::metadata::{self, Database};
use crate::server::privileges;

/// What a command does where there is no registry yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It makes what it needs, if the operator said where: a person in the wrong folder did not.
    Make,
    /// It has nothing to say about a registry that is not there.
    Refuse,
}

/// The settings, where the token endpoint, and with it accounts and projects, are ours.
pub(super) fn with_accounts(settings: Settings) -> Result<Settings, Failure> {
    match &settings.services.tokens {
        Tokens::Ours => Ok(settings),
        Tokens::Upstream(name) => Err(Failure::configuration(
            settings.problem("token.upstream", format_args!("accounts and tokens are {name}'s here, not Pierhead's")),
        )),
        Tokens::Off => Err(Failure::configuration(settings.problem(
            "token",
            "off, so there are no accounts, projects or tokens of Pierhead's here; write `token: true` to have them",
        ))),
    }
}

/// The settings, where the registry is ours.
pub(super) fn with_registry(settings: Settings) -> Result<Settings, Failure> {
    if settings.services.registry {
        return Ok(settings);
    }
    Err(Failure::configuration(
        settings
            .problem("registry", "off, so there is no tree of Pierhead's here; the registry's own tools know theirs"),
    ))
}

/// Does some work with the database, as the user who keeps the state directory.
pub(super) fn with_database<T>(
    settings: &Settings,
    missing: Missing,
    work: impl AsyncFnOnce(&Database) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let path = Database::path_in(&settings.state);
    find(settings, &path, missing)?;
    become_keeper(settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(async {
        let database = Database::open(&path).await?;
        let outcome = work(&database).await;
        database.close().await;
        outcome
    })
}

/// Looks whether the state directory and the file in question are there; if not, whether this command may begin here.
/// What we may not even look for is for whoever opens it to complain about.
pub(super) fn find(settings: &Settings, file: &Path, missing: Missing) -> Result<(), Failure> {
    let Some(absent) = [&settings.state, file].into_iter().find(|path| matches!(path.try_exists(), Ok(false))) else {
        return Ok(());
    };
    let named = settings.source.is_some() || settings.written.contains_key("state");
    let absent = absolute(absent).unwrap_or_else(|_| absent.to_owned());
    let absent = absent.display();
    match (named, missing) {
        (true, Missing::Make) => Ok(()),
        (true, Missing::Refuse) => Err(Failure::failed(format!(
            "there is no registry here: {absent} does not exist; start the server once, or name another configuration with -c FILE"
        ))),
        (false, _) => Err(Failure::failed(format!(
            "there is no registry here: {absent} does not exist; name its configuration with -c FILE, or start the server once"
        ))),
    }
}

/// Becomes whoever keeps the state directory, so that the server can write every file that a command leaves there.
pub(super) fn become_keeper(settings: &Settings) -> Result<(), Failure> {
    privileges::become_keeper_of(&settings.state, settings.user.as_deref(), settings.data()).map_err(|error| {
        match &error {
            privileges::Error::File { path, source } => of_file(error.to_string(), path, source),
            _ => Failure { code: 77, message: error.to_string() },
        }
    })
}

impl From<metadata::Error> for Failure {
    fn from(error: metadata::Error) -> Self {
        let message = error.to_string();
        let (path, error) = match &error {
            metadata::Error::Open { path, source } => (Some(path.as_path()), &**source),
            other => (None, other),
        };
        match error {
            metadata::Error::File { path, source } => of_file(message, path, source),
            metadata::Error::Busy => Self { code: 75, message },
            metadata::Error::Denied => denied(&message, path),
            metadata::Error::Open { .. }
            | metadata::Error::Full
            | metadata::Error::Newer(_)
            | metadata::Error::Damaged(_)
            | metadata::Error::Other(_) => Self::failed(message),
        }
    }
}

impl From<auth::Error> for Failure {
    fn from(error: auth::Error) -> Self {
        match error {
            auth::Error::Metadata(error) => error.into(),
            auth::Error::File { ref path, ref source } => of_file(error.to_string(), path, source),
            error => Self::failed(error),
        }
    }
}

fn of_file(message: String, path: &Path, source: &std::io::Error) -> Failure {
    match source.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => denied(&message, Some(path)),
        ErrorKind::TimedOut => Failure { code: 75, message },
        _ => Failure::failed(message),
    }
}

/// Says as whom it was tried and as whom it should be: whoever has the file, or the nearest folder above that we can see.
fn denied(message: &str, path: Option<&Path>) -> Failure {
    let we = privileges::current_user();
    let found = path.and_then(|path| path.ancestors().find_map(|path| std::fs::metadata(path).ok()));
    let keeper = found.map(|found| privileges::owner(Uid::from_raw(found.uid()), Gid::from_raw(found.gid())).name);
    let advice = match keeper {
        Some(keeper) if keeper != we && we != "root" => {
            let or_keeper = if keeper == "root" { String::new() } else { format!(" or as {keeper}") };
            format!("run this as root{or_keeper}, to whom it belongs")
        }
        Some(_) => "look at the modes of the file and its folders, and whether the file system is read-only".to_owned(),
        None => "run this as root or as the user who keeps the state directory".to_owned(),
    };
    Failure { code: 77, message: format!("{message}\nThis was tried as user {we}: {advice}.") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Machine};

    fn settings(folder: &Path, file: Option<&str>, environment: &[(&str, &str)]) -> Settings {
        let machine = Machine {
            folder: folder.to_owned(),
            system_file: folder.join("not/there.yml"),
            gitlab_certificates: folder.join("not/there"),
            gitlab_webroot: folder.join("not/there"),
            ..Machine::here(true).unwrap()
        };
        let file = file.map(|text| {
            let path = folder.join("pierhead.yml");
            crate::storage::durable::write(&path, text.as_bytes(), 0o644).unwrap();
            path
        });
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        config::load(file.as_deref(), environment, &machine).unwrap()
    }

    #[test]
    fn a_registry_is_begun_only_where_the_operator_said() {
        let refused = |settings: &Settings, missing| with_database(settings, missing, async |_| Ok(())).unwrap_err();
        for (file, environment) in [(None, &[][..]), (Some("{}"), &[]), (None, &[("PIERHEAD_STATE", "data")])] {
            let folder = tempfile::tempdir().unwrap();
            let settings = settings(folder.path(), file, environment);
            let state = folder.path().join("data");
            let failure = refused(&settings, Missing::Refuse);
            assert!(failure.message.contains(&format!("{} does not exist", state.display())), "{}", failure.message);
            assert!(failure.message.contains("-c FILE") && !state.exists());
            if file.is_none() && environment.is_empty() {
                refused(&settings, Missing::Make);
                assert!(!state.exists());
                std::fs::create_dir(&state).unwrap();
                assert!(refused(&settings, Missing::Make).message.contains("pierhead.db does not exist"));
            } else {
                with_database(&settings, Missing::Make, async |_| Ok(())).unwrap();
                with_database(&settings, Missing::Refuse, async |_| Ok(())).unwrap();
            }
        }
    }

    #[test]
    fn a_registry_that_is_there_is_found_without_a_configuration() {
        let folder = tempfile::tempdir().unwrap();
        with_database(&settings(folder.path(), Some("{}"), &[]), Missing::Make, async |_| Ok(())).unwrap();
        with_database(&settings(folder.path(), None, &[]), Missing::Refuse, async |_| Ok(())).unwrap();
    }
}
