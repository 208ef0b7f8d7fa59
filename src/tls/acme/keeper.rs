//! Who orders certificates, and when?
//!
//! [`Keeper`] has one task for each certificate, so that none holds up another. A task looks at what is there, asks
//! [`renewal`](super::renewal) when the next order begins, and sleeps until then. An attempt is then a
//! [lease](super::lease), a second look (another node may have ordered in the meantime), an order with a deadline, a check
//! of what came of it, and a file.
//!
//! **Invariants**
//! - An attempt is written down before it begins, so a folder that cannot be written costs no certificate, and a crash
//!   does not make us forget.
//! - What was issued is checked before it takes the place of another.
//! - Nothing that a library does ends a task: an attempt that panics or hangs is one that failed.
//!
//! Whoever shows certificates sees the file change; the keeper does not know of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::Config;
use super::desk::Desk;
use super::status::{Refusal, Status};
use crate::telemetry::Metrics;
use crate::tls;

/// Whoever orders the certificates of one configuration.
pub struct Keeper(Arc<Shared>);

/// What can be seen of a [`Keeper`], and asked of it. Clones are the same.
#[derive(Clone)]
pub struct Orders(Arc<Shared>);

struct Shared {
    desks: Vec<Arc<Desk>>,
}

impl Keeper {
    /// For a configuration. Nothing is read or written, and nobody is asked, before [`keep`](Self::keep).
    pub fn new(config: Config, metrics: Metrics) -> Self {
        drop(metrics); // counted from the next step on
        let desks = config.places().into_iter().map(|place| Arc::new(Desk::new(place))).collect();
        Self(Arc::new(Shared { desks }))
    }

    /// What can be seen of it, and asked of it.
    pub fn orders(&self) -> Orders {
        Orders(Arc::clone(&self.0))
    }

    /// Orders for ever. It may be dropped at any time: an attempt that is under way is given up, and its lease.
    pub async fn keep(self) {
        std::future::pending().await
    }
}

impl Orders {
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
    /// None has the name, or the names of one could not be proven too often.
    pub fn order_now(&self, names: &[String], now: SystemTime) -> Result<Vec<String>, Refusal> {
        let now = tls::local::seconds(now);
        let first = |desk: &Arc<Desk>| desk.place.names.first().cloned().unwrap_or_default();
        let known = || self.0.desks.iter().map(first).collect();
        for name in names {
            if !self.0.desks.iter().any(|desk| desk.place.has(name)) {
                return Err(Refusal::Unknown { name: name.clone(), known: known() });
            }
        }
        let wanted = |desk: &&Arc<Desk>| names.is_empty() || names.iter().any(|name| desk.place.has(name));
        let wanted: Vec<&Arc<Desk>> = self.0.desks.iter().filter(wanted).collect();
        for desk in &wanted {
            if let Some(until) = desk.spent_until(now) {
                return Err(Refusal::Spent { name: first(desk), until });
            }
        }
        wanted.iter().for_each(|desk| desk.ask(now));
        Ok(wanted.iter().map(|desk| desk.place.pem.display().to_string()).collect())
    }
}
