//! When do the files go that a kill left half-written?
//!
//! Once a day, where something may change at all: also when abandoned uploads are not purged, because these files are
//! nobody's. Nothing names them, no client can ask for them and no other program wants them, so there is nothing to
//! decide for an operator. Who tries the purging out (`dryrun`) has been promised that nothing is removed, and that holds
//! here as well.
//!
//! They go at the age at which abandoned uploads do, and at a week where those do not go; in any case long after whoever
//! wrote them has died (see the argument in `storage/sweep.rs`).

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::purge::{FIRST_WITHIN, some_of};
use super::{Error, Registry, layout};
use crate::storage::Swept;

/// The whole tree is walked for it, which nobody needs more often.
const INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// However young the operator lets uploads go: a disk may hang for long, and the clock of a file server may be another.
const YOUNGEST: Duration = Duration::from_secs(3600);

impl Registry {
    /// Removes what was never finished, for ever.
    pub async fn keep_sweeping(&self) {
        tokio::time::sleep(some_of(FIRST_WITHIN)).await;
        loop {
            if let Err(error) = self.sweep(Timestamp::now()).await {
                tracing::error!(error = error.inside(), "what was never finished could not be looked for");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Removes what was never finished and is old at `now`: nothing when nothing may change or purging is tried out.
    ///
    /// # Errors
    /// A storage that does not answer. What cannot be removed is counted.
    pub async fn sweep(&self, now: Timestamp) -> Result<Swept, Error> {
        let tries_out = self.config.purge.is_some_and(|purge| purge.dry_run);
        if self.maintenance.is_on() || tries_out {
            return Ok(Swept::default());
        }
        let age = self.config.purge.unwrap_or_default().age.max(YOUNGEST);
        let before = SystemTime::from(now).checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let swept = self.store.driver().sweep(&layout::root(), before).await?;
        let Swept { removed, failed } = swept;
        tracing::info!(removed, failed, "files that were never finished were looked for");
        Ok(swept)
    }
}
