//! The metadata database, as commands use it: opened as the user who keeps it, closed at the end.

use std::io::ErrorKind;

use super::Failure;
use crate::auth;
use crate::config::Settings;
use crate::metadata::{self, Database};
use crate::server::privileges;

/// Does some work with the database, as the user who keeps the state directory.
pub(super) fn with_database<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&Database) -> Result<T, Failure>,
) -> Result<T, Failure> {
    become_keeper(settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(async {
        let database = Database::open(&Database::path_in(&settings.state)).await?;
        let outcome = work(&database).await;
        database.close().await;
        outcome
    })
}

/// Becomes whoever keeps the state directory, so that the server can write every file that a command leaves there.
pub(super) fn become_keeper(settings: &Settings) -> Result<(), Failure> {
    privileges::become_keeper_of(&settings.state, settings.user.as_deref(), &settings.registry.root)
        .map_err(|error| Failure { code: 77, message: error.to_string() })
}

impl From<metadata::Error> for Failure {
    fn from(error: metadata::Error) -> Self {
        let code = match &error {
            metadata::Error::Busy => 75,
            metadata::Error::Denied => 77,
            metadata::Error::File { source, .. } if source.kind() == ErrorKind::PermissionDenied => 77,
            metadata::Error::File { .. }
            | metadata::Error::Full
            | metadata::Error::Newer(_)
            | metadata::Error::Damaged(_)
            | metadata::Error::Other(_) => 1,
        };
        Self { code, message: with_advice(code, &error) }
    }
}

impl From<auth::Error> for Failure {
    fn from(error: auth::Error) -> Self {
        match error {
            auth::Error::Metadata(error) => error.into(),
            auth::Error::File { ref source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                Self { code: 77, message: with_advice(77, &error) }
            }
            error => Self::failed(error),
        }
    }
}

fn with_advice(code: u8, error: &dyn std::error::Error) -> String {
    match code {
        77 => format!("{error}\nRun this as root or as the user who keeps the state directory."),
        _ => error.to_string(),
    }
}
