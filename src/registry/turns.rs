//! Who may write to an upload?
//!
//! One request at a time: two would mix their bytes. The newest wins. A client whose connection was lost comes back at
//! once to go on, while the server may not know for minutes that the old one is dead; so a request that finds the turn
//! taken tells the holder to stop reading ([`Attendance::displaced`]) and waits, for [`PATIENCE`], until the holder has
//! made durable what it has.
//!
//! A request can be gone while its work is not. So a [`Turn`] belongs to the work, which ends in a task of its own, and
//! an [`Attendance`] to the request. A request that does not read any more, because it commits, is waited for.
//!
//! Absent on purpose: anything between processes. Of two servers on one tree the storage lets one append at a time
//! ([`Driver::append`](crate::storage::Driver::append)), and the other's client is told so (409).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};

use super::Error;
use crate::oci::UploadId;

/// How many uploads may be written to at once.
const MAX_UPLOADS: usize = 10_000;

/// How long a request waits for the work of the one before it.
const PATIENCE: Duration = Duration::from_secs(20);

/// The uploads that are being written to.
#[derive(Debug, Default)]
pub(super) struct Turns {
    lines: Mutex<HashMap<UploadId, Line>>,
}

/// Those who have or want a turn at one upload.
#[derive(Debug)]
struct Line {
    turn: Arc<AsyncMutex<()>>,
    /// Tells the request that has the turn to leave.
    leave: Arc<Notify>,
    length: usize,
}

/// The right to write to an upload, until dropped.
#[derive(Debug)]
pub(super) struct Turn {
    // Dropped in this order: free first, then out of the line.
    _held: OwnedMutexGuard<()>,
    _place: Place,
}

/// A place in a line; the line goes with the last.
#[derive(Debug)]
struct Place {
    turns: Arc<Turns>,
    upload: UploadId,
    turn: Arc<AsyncMutex<()>>,
    /// As it was when the place was taken.
    leave: Arc<Notify>,
}

/// How a request that has the turn learns that it should leave.
#[derive(Debug)]
pub(super) struct Attendance(Arc<Notify>);

impl Attendance {
    /// Returns when another request wants to go on with the upload.
    pub(super) async fn displaced(&self) {
        self.0.notified().await;
    }
}

impl Turns {
    /// Takes the turn at an upload.
    pub(super) async fn take(self: &Arc<Self>, upload: UploadId) -> Result<(Turn, Attendance), Error> {
        self.take_within(upload, PATIENCE).await
    }

    async fn take_within(self: &Arc<Self>, upload: UploadId, patience: Duration) -> Result<(Turn, Attendance), Error> {
        let place = self.join(upload)?;
        let held = match place.turn.clone().try_lock_owned() {
            Ok(held) => held,
            Err(_) => {
                place.leave.notify_one();
                tokio::time::timeout(patience, place.turn.clone().lock_owned()).await.map_err(|_| Error::UploadBusy)?
            }
        };
        let attendance = self.attend(upload);
        Ok((Turn { _held: held, _place: place }, attendance))
    }

    /// Takes the turn at an upload if nobody has or wants it, and disturbs nobody.
    pub(super) fn take_if_free(self: &Arc<Self>, upload: UploadId) -> Option<Turn> {
        let place = self.join(upload).ok()?;
        let held = place.turn.clone().try_lock_owned().ok()?;
        Some(Turn { _held: held, _place: place })
    }

    #[cfg(test)]
    pub(super) fn is_taken(&self, upload: UploadId) -> bool {
        self.lines.lock().get(&upload).is_some_and(|line| line.turn.try_lock().is_err())
    }

    fn join(self: &Arc<Self>, upload: UploadId) -> Result<Place, Error> {
        let mut lines = self.lines.lock();
        if lines.len() >= MAX_UPLOADS && !lines.contains_key(&upload) {
            return Err(Error::TooManyUploads);
        }
        let line =
            lines.entry(upload).or_insert_with(|| Line { turn: Arc::default(), leave: Arc::default(), length: 0 });
        line.length += 1;
        Ok(Place { turns: self.clone(), upload, turn: line.turn.clone(), leave: line.leave.clone() })
    }

    /// A new way to tell whoever just got the turn: what the previous holder was told is not for this one.
    fn attend(&self, upload: UploadId) -> Attendance {
        let leave = Arc::<Notify>::default();
        if let Some(line) = self.lines.lock().get_mut(&upload) {
            line.leave = leave.clone();
        }
        Attendance(leave)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.turns.lines.lock();
        if let Some(line) = lines.get_mut(&self.upload) {
            line.length -= 1;
            if line.length == 0 {
                lines.remove(&self.upload);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_second_request_tells_the_first_to_leave_and_waits_for_its_work() {
        let turns = Arc::new(Turns::default());
        let (one, other) = (UploadId::random(), UploadId::random());
        let (turn, attendance) = turns.take(one).await.unwrap();
        assert!(attendance.displaced().now_or_never().is_none());
        let mut next = Box::pin(turns.take(one));
        assert!(futures_util::poll!(&mut next).is_pending());
        attendance.displaced().await;
        assert!(turns.take(other).await.is_ok(), "uploads do not wait for each other");
        drop(attendance);
        assert!(futures_util::poll!(&mut next).is_pending(), "the work is still there");
        drop(turn);
        let (_turn, attendance) = next.await.unwrap();
        assert!(attendance.displaced().now_or_never().is_none(), "that was for the one before");
    }

    #[tokio::test]
    async fn patience_has_an_end() {
        let turns = Arc::new(Turns::default());
        let upload = UploadId::random();
        let (_turn, _attendance) = turns.take(upload).await.unwrap();
        assert!(matches!(turns.take_within(upload, Duration::from_millis(1)).await, Err(Error::UploadBusy)));
    }

    #[tokio::test]
    async fn nothing_is_kept_of_uploads_that_nobody_writes_to() {
        let turns = Arc::new(Turns::default());
        for _ in 0..10 {
            let upload = UploadId::random();
            let (turn, attendance) = turns.take(upload).await.unwrap();
            let refused = turns.take_within(upload, Duration::ZERO).await;
            drop((refused, attendance, turns.take(UploadId::random()).await, turn));
        }
        assert!(turns.lines.lock().is_empty());
    }

    #[tokio::test]
    async fn there_is_a_limit() {
        let turns = Arc::new(Turns::default());
        let mut held = Vec::new();
        for _ in 0..MAX_UPLOADS {
            held.push(turns.take(UploadId::random()).await.unwrap());
        }
        assert!(matches!(turns.take(UploadId::random()).await, Err(Error::TooManyUploads)));
    }
}
