//! `pierhead reindex`: reads what the tree says of its manifests into the metadata database anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::Failure;
use super::desk::{Missing, with_database};
use super::terminal::{Progress, say};
use crate::config::Settings;
use crate::metadata::Database;
use crate::registry::{self, Counts, Index, Registry};
use crate::storage::filesystem::Filesystem;

/// How often a person sees how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// Runs the command.
///
/// # Errors
/// The tree or the database; what was read stays, and the index completes itself when it is asked.
pub(super) fn run(settings: &Settings) -> Result<(), Failure> {
    let counts = Counts::default();
    with_database(settings, Missing::Refuse, async |database| reindex(settings, database, &counts).await)?;
    say(&format!("{}\n", told(&counts)))
}

async fn reindex(settings: &Settings, database: &Database, counts: &Counts) -> Result<(), Failure> {
    let driver = Arc::new(Filesystem::new(settings.registry.root.clone()));
    let registry = Registry::new(settings.registry.clone(), driver, Index::in_database(database.clone()));
    registry.check_tree().await.map_err(Failure::failed)?;
    let mut progress = Progress::begin();
    let mut ticks = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = std::pin::pin!(registry.reindex(counts));
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            _ = ticks.tick() => progress.show(&told(counts)),
        }
    };
    progress.end();
    outcome.map_err(|error| match error {
        registry::Error::Index(error) => error.into(),
        error => Failure::failed(error.inside()),
    })
}

fn told(counts: &Counts) -> String {
    let count = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    let unreadable = match count(&counts.unreadable) {
        0 => String::new(),
        some => format!(", revisions without a readable manifest: {some}"),
    };
    format!("repositories: {}, manifests: {}{unreadable}", count(&counts.repositories), count(&counts.manifests))
}
