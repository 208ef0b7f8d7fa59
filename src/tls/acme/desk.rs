//! What is known of the orders of one certificate, and wanted of them.

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Place;
use super::history::Failed;
use super::status::{LastError, Status};

/// One certificate's.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) place: Place,
    seen: Mutex<Seen>,
    /// Somebody wants an order now.
    pub(super) bell: Notify,
}

/// How it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// When the next order begins, in seconds since 1970.
    pub(super) next: i64,
    /// When the attempt began that is under way.
    pub(super) since: Option<i64>,
    pub(super) last: Option<Failed>,
    pub(super) failures: u32,
    /// From when on an order may be asked for.
    pub(super) free: i64,
    /// When what is there was ordered.
    pub(super) ordered: Option<i64>,
    /// When somebody wanted an order now.
    pub(super) asked: Option<i64>,
}

impl Desk {
    pub(super) fn new(place: Place) -> Self {
        Self { place, seen: Mutex::default(), bell: Notify::new() }
    }

    /// Notes how it is.
    pub(super) fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock());
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// Has it ordered now.
    pub(super) fn ask(&self, now: i64) {
        self.seen.lock().asked = Some(now);
        self.bell.notify_one();
    }

    /// Until when no more names may be proven, if they may not now.
    pub(super) fn spent_until(&self, now: i64) -> Option<Timestamp> {
        let free = self.seen.lock().free;
        (free > now).then(|| timestamp(free))
    }

    /// What it is called, when the next order begins, and how many failed.
    pub(super) fn measured(&self) -> (String, i64, u32) {
        let Seen { next, failures, .. } = self.seen();
        (self.place.id.clone(), next, failures)
    }

    pub(super) fn status(&self, now: i64) -> Status {
        let Seen { next, since, last, failures, ordered, .. } = self.seen();
        Status {
            names: self.place.names.clone(),
            directory: self.place.directory.clone(),
            next: Some(timestamp(next.max(now))),
            since: since.map(timestamp),
            error: last.map(|last| LastError { at: timestamp(last.at), reason: last.reason }),
            failures,
            ordered: ordered.map(timestamp),
        }
    }
}

fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or_default()
}
