//! When do abandoned uploads go?
//!
//! A client that vanishes leaves its upload behind, and nobody but time can tell that it will not come back. From time to
//! time all repositories are walked, and uploads that began too long ago are removed.
//!
//! An upload's age is counted from its `startedat`. Where that is missing, cannot be read or lies in the future, it is
//! counted from when the youngest thing that should be there was written. A folder in which none of them is left is what
//! remains of an upload that was removed.
//!
//! **Invariant:** what a request is writing to is left alone, however old it is ([`Turns`](super::turns::Turns)).
//!
//! **Invariant:** memory is bounded: of any folder at most one batch of entries is held.

use std::time::Duration;

use jiff::Timestamp;

use super::catalog::Walk;
use super::store::present;
use super::{Error, Purge, Registry, begun, layout, to_the_end};
use crate::oci::{RepositoryName, UploadId};
use crate::storage::{self, Durability};

/// How many uploads of a repository are held at once.
const BATCH: usize = 1000;

/// The first look is taken within this time after the start, so that nodes that start together do not look together.
const FIRST_WITHIN: Duration = Duration::from_secs(3600);

/// However short the operator says the time between two looks is.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(60);

/// What a look at all uploads came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Uploads that were removed, or, when trying it out, would have been.
    pub removed: u64,
    /// Those that stay: young enough, or being written to.
    pub kept: u64,
    /// Those that should have gone and could not.
    pub failed: u64,
}

impl Registry {
    /// Removes abandoned uploads as the operator wants it, for ever.
    pub async fn keep_purging(&self) {
        self.keep_purging_after(some_of(FIRST_WITHIN)).await;
    }

    pub(super) async fn keep_purging_after(&self, first: Duration) {
        let Some(Purge { interval, .. }) = self.config.purge else { return std::future::pending().await };
        tokio::time::sleep(first).await;
        loop {
            if let Err(error) = self.purge(Timestamp::now()).await {
                tracing::error!(error = error.inside(), "abandoned uploads could not be looked for");
            }
            tokio::time::sleep(interval.max(SHORTEST_INTERVAL)).await;
        }
    }

    /// Removes the uploads that are abandoned at `now`: none when purging is off or nothing may change.
    ///
    /// # Errors
    /// A storage that does not answer. One upload that cannot be removed is counted and does not stop the others.
    pub async fn purge(&self, now: Timestamp) -> Result<Purged, Error> {
        let mut purged = Purged::default();
        let Some(purge) = self.purging() else { return Ok(purged) };
        let mut walk = Walk::starting_after(&self.store, "", layout::UPLOADS);
        while let Some(name) = walk.next().await? {
            self.purge_repository(&name, &purge, now, &mut purged).await?;
        }
        let Purged { removed, kept, failed } = purged;
        tracing::info!(removed, kept, failed, dry_run = purge.dry_run, "abandoned uploads were looked for");
        Ok(purged)
    }

    fn purging(&self) -> Option<Purge> {
        self.config.purge.filter(|_| !self.maintenance.is_on())
    }

    async fn purge_repository(
        &self,
        name: &RepositoryName,
        purge: &Purge,
        now: Timestamp,
        purged: &mut Purged,
    ) -> Result<(), Error> {
        let mut after: Option<String> = None;
        loop {
            let listed = present(self.store.driver().list(&layout::uploads(name), after.as_deref(), BATCH).await)?;
            let Some(entries) = listed.filter(|entries| !entries.is_empty()) else { return Ok(()) };
            after = entries.last().map(|entry| entry.name.clone());
            // What is not named as an upload is no upload of anybody's.
            for id in entries.iter().filter_map(|entry| entry.name.parse().ok()) {
                match self.purge_upload(name, id, purge, now).await {
                    Ok(true) => purged.removed += 1,
                    Ok(false) => purged.kept += 1,
                    Err(error) => {
                        purged.failed += 1;
                        tracing::warn!(repository = %name, upload = %id, error = error.inside(), "an abandoned upload stays");
                    }
                }
            }
        }
    }

    /// Whether it was abandoned, and so removed.
    async fn purge_upload(
        &self,
        name: &RepositoryName,
        id: UploadId,
        purge: &Purge,
        now: Timestamp,
    ) -> Result<bool, Error> {
        if self.maintenance.is_on() {
            return Ok(false);
        }
        let Some(turn) = self.turns.take_if_free(id) else { return Ok(false) };
        let began = self.began(name, id, now).await?;
        // A time in the future has no age.
        let is_old = |began: Timestamp| Duration::try_from(now.duration_since(began)).is_ok_and(|age| age > purge.age);
        if !began.is_none_or(is_old) {
            return Ok(false);
        }
        let began = began.map(|began| began.to_string()).unwrap_or_default();
        tracing::info!(repository = %name, upload = %id, began, dry_run = purge.dry_run, "an abandoned upload goes");
        if purge.dry_run {
            return Ok(true);
        }
        let (store, upload) = (self.store.clone(), layout::upload(name, id));
        to_the_end(async move {
            let _turn = turn;
            // Another node may have been faster.
            present(store.driver().delete(&upload, Durability::Light).await)?;
            Ok(true)
        })
        .await
    }

    /// When an upload began, or the latest time that it can have; `None` when nothing of it is left.
    async fn began(
        &self,
        name: &RepositoryName,
        id: UploadId,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, storage::Error> {
        if let Some(at) = begun::started_at(&self.store, name, id).await?.filter(|at| *at <= now) {
            return Ok(Some(at));
        }
        let states = present(self.store.driver().list(&layout::hash_states(name, id), None, 1).await)?;
        let state = states.and_then(|states| states.first()?.name.parse().ok());
        let state = state.map(|offset| layout::hash_state(name, id, offset));
        let mut latest = None;
        for key in [layout::upload_started(name, id), layout::upload_owner(name, id), layout::upload_data(name, id)]
            .into_iter()
            .chain(state)
        {
            if let Some(stat) = present(self.store.driver().stat(&key).await)? {
                // Only a time that no calendar has cannot be told, and is as good as the first of all.
                latest = latest.max(Some(Timestamp::try_from(stat.modified).unwrap_or(Timestamp::MIN)));
            }
        }
        Ok(latest)
    }
}

/// A part of a time that nobody can foretell.
fn some_of(most: Duration) -> Duration {
    let mut random = [0; 4];
    // Without randomness nodes look at once, which is only less polite.
    let _ = aws_lc_rs::rand::fill(&mut random);
    most.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}
