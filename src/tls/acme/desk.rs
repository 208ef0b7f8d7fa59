//! What is known of the orders of one certificate, and wanted of them.

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Place;
use super::history::Failed;
use super::renewal::Bar;
use super::status::{LastError, Refusal, Status};

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
    /// Until when no order begins although somebody asks for one, and why.
    pub(super) barred: (i64, Bar),
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

    /// Why no order begins although somebody asks for one.
    pub(super) fn refusal(&self, now: i64) -> Option<Refusal> {
        let (until, why) = self.seen.lock().barred;
        let name = || self.place.first().to_owned();
        (until > now).then(|| Refusal::Spent { name: name(), why: why.words(), until: timestamp(until) })
    }

    /// What it is called, when the next order begins, and how many failed; none before the first look.
    pub(super) fn measured(&self) -> Option<(String, i64, u32)> {
        let Seen { next, failures, .. } = self.seen();
        (next != 0).then(|| (self.place.id.clone(), next, failures))
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
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}
