//! Who orders certificates?
//!
//! [`Keeper`] has one [task](super::task) for each certificate, so that none holds up another. Whoever shows certificates
//! sees their files change; the keeper does not know of it.
//!
//! **Invariants**
//! - Nothing that a library does ends a task: an attempt that panics or hangs is one that failed.
//! - A storage folder that hangs takes few threads, however many certificates are ordered.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::desk::Desk;
use super::lease::Lease;
use super::order::{Authority, Failure, Proofs};
use super::status::{Refusal, Status};
use super::storage::{Storage, blocking};
use super::task::Task;
use super::{Config, Place, engine, proofs};
use crate::telemetry::Metrics;
use crate::tls;

/// How many orders go on at a time.
const AT_A_TIME: usize = 8;
/// How often what crashes left is removed.
const CLEAN: Duration = Duration::from_secs(24 * 60 * 60);
/// What no order needs any more: an attempt is over long before.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// How many look into the storage folder, or write to it, at a time. When it hangs, so many threads do.
const AT_FOLDER: usize = 8;
/// Before a task that ended, which none should, begins again.
const AGAIN: Duration = Duration::from_secs(60);

/// Whoever orders the certificates of one configuration.
pub struct Keeper(Arc<Shared>);

/// What can be seen of a [`Keeper`], and asked of it. Clones are the same.
#[derive(Clone)]
pub struct Orders(Arc<Shared>);

/// Makes an authority of the key of our account with it.
type Connect = Box<dyn Fn(&Config, Vec<u8>) -> Result<Arc<dyn Authority>, Failure> + Send + Sync>;
type Clock = Box<dyn Fn() -> SystemTime + Send + Sync>;

/// What the tasks share.
pub(super) struct Shared {
    config: Config,
    /// Its digest.
    pub(super) settings: String,
    storage: Storage,
    folder: Arc<Semaphore>,
    pub(super) proofs: Arc<dyn Proofs>,
    pub(super) metrics: Metrics,
    /// For who begins an attempt.
    pub(super) turns: Semaphore,
    connect: Connect,
    /// While it does what it is asked: what was refused may have to do with what was read from files.
    authority: tokio::sync::Mutex<Option<Arc<dyn Authority>>>,
    clock: Clock,
    desks: Vec<Arc<Desk>>,
}

impl Keeper {
    /// For a configuration, and what is in the files that it names by now. Nothing else is read, nothing is written and
    /// nobody is asked before [`keep`](Self::keep).
    pub fn new(config: Config, metrics: Metrics) -> Self {
        let proofs = proofs::proofs(&config);
        Self::with(config, Box::new(engine::authority), proofs, metrics, Box::new(SystemTime::now))
    }

    pub(super) fn with(
        config: Config,
        connect: Connect,
        proofs: Arc<dyn Proofs>,
        metrics: Metrics,
        clock: Clock,
    ) -> Self {
        let desks = config.places().into_iter().map(|place| Arc::new(Desk::new(place))).collect();
        Self(Arc::new(Shared {
            storage: Storage::of(&config.storage),
            folder: Arc::new(Semaphore::new(AT_FOLDER)),
            settings: config.digest(),
            config,
            proofs,
            metrics,
            turns: Semaphore::new(AT_A_TIME),
            connect,
            authority: tokio::sync::Mutex::default(),
            clock,
            desks,
        }))
    }

    /// What can be seen of it, and asked of it.
    pub fn orders(&self) -> Orders {
        Orders(Arc::clone(&self.0))
    }

    /// Orders for ever. It may be dropped at any time: an attempt that is under way is given up, and its lease.
    pub async fn keep(self) {
        let tasks = self.0.desks.iter().map(|desk| supervise(Arc::clone(&self.0), Arc::clone(desk)));
        future::join(future::join_all(tasks), clean(&self.0)).await;
    }
}

async fn supervise(shared: Arc<Shared>, desk: Arc<Desk>) {
    loop {
        let mut one = JoinSet::new(); // dropped with us
        one.spawn(Task::new(Arc::clone(&shared), Arc::clone(&desk)).keep());
        let end = one.join_next().await.and_then(Result::err);
        tracing::error!("orders of {} came to an end and begin again: {end:?}", desk.place.first());
        tokio::time::sleep(AGAIN).await;
    }
}

async fn clean(shared: &Shared) {
    loop {
        let before = SystemTime::now() - STALE; // by the clock that files are written by
        let cleaned = shared.at_folder(move |storage| {
            storage.clean(before);
            Ok(())
        });
        if let Err(error) = cleaned.await {
            tracing::debug!(%error, "what crashes left is not removed");
        }
        shared.proofs.clean(before).await;
        tokio::time::sleep(CLEAN).await;
    }
}

impl Shared {
    /// Seconds since 1970.
    pub(super) fn now(&self) -> i64 {
        tls::local::seconds((self.clock)())
    }

    /// The lease of a certificate.
    pub(super) fn lease(&self, place: &Place) -> Lease {
        self.storage.lease(place)
    }

    /// Does something with the storage folder, when it is its turn. A thread that hangs there keeps its turn.
    pub(super) async fn at_folder<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Storage) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = Arc::clone(&self.folder).acquire_owned().await;
        let (turn, storage) = (turn.map_err(io::Error::other)?, self.storage.clone());
        blocking(move || {
            let _turn = turn;
            work(&storage)
        })
        .await
    }

    /// The authority, if it is known already.
    pub(super) async fn known_authority(&self) -> Option<Arc<dyn Authority>> {
        self.authority.lock().await.clone()
    }

    /// The authority, as whoever we are there: with this key, unless it is known already.
    pub(super) async fn authority(&self, key: Vec<u8>) -> Result<Arc<dyn Authority>, Failure> {
        let mut known = self.authority.lock().await;
        if let Some(authority) = &*known {
            return Ok(Arc::clone(authority));
        }
        let authority = (self.connect)(&self.config, key)?;
        *known = Some(Arc::clone(&authority));
        Ok(authority)
    }

    /// Makes it anew for the next order, of what is in the files then: the key of our account, whom to trust.
    pub(super) async fn forget_authority(&self) {
        *self.authority.lock().await = None;
    }

    /// Counts how the orders go.
    pub(super) fn measure(&self) {
        self.metrics.acme(self.desks.iter().filter_map(|desk| desk.measured()).collect());
    }
}

impl Orders {
    /// Begins no more attempts. Those that are under way go on.
    pub fn begin_no_more(&self) {
        self.0.turns.close();
    }

    /// Whether they would go as they do with this configuration.
    pub fn are_of(&self, config: &Config) -> bool {
        self.0.config == *config && self.0.settings == config.digest()
    }

    /// How the orders go, by the certificate's file.
    pub fn status(&self, now: SystemTime) -> Vec<(PathBuf, Status)> {
        let now = tls::local::seconds(now);
        self.0.desks.iter().map(|desk| (desk.place.pem.clone(), desk.status(now))).collect()
    }

    /// Adds to what is shown how its orders go.
    pub fn add_to(&self, shown: &mut [tls::Status], now: SystemTime) {
        for (pem, status) in self.status(now) {
            let pem = pem.display().to_string();
            shown.iter_mut().filter(|shown| shown.file == pem).for_each(|shown| shown.acme = Some(status.clone()));
        }
    }

    /// Orders the certificates that have one of these names, or all, as soon as possible, whatever the plan is. Gives the
    /// files by which they are to be found in the [status](tls::Status).
    ///
    /// # Errors
    /// None has the name, or an order more would lead to the authority's limits.
    pub fn order_now(&self, names: &[String], now: SystemTime) -> Result<Vec<String>, Refusal> {
        let (desks, now) = (&self.0.desks, tls::local::seconds(now));
        if let Some(name) = names.iter().find(|name| !desks.iter().any(|desk| desk.place.has(name))) {
            let known = desks.iter().map(|desk| desk.place.first().to_owned()).collect();
            return Err(Refusal::Unknown { name: name.clone(), known });
        }
        let is_wanted = |desk: &&Arc<Desk>| names.is_empty() || names.iter().any(|name| desk.place.has(name));
        let wanted: Vec<&Arc<Desk>> = desks.iter().filter(is_wanted).collect();
        for desk in &wanted {
            desk.refusal(now).map_or(Ok(()), Err)?;
        }
        wanted.iter().for_each(|desk| desk.ask(now));
        Ok(wanted.iter().map(|desk| desk.place.pem.display().to_string()).collect())
    }
}

#[cfg(test)]
mod tests;
