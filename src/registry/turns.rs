//! Who may write to an upload?
//!
//! One request at a time. A second one is refused while the first is there ([`Error::UploadBusy`]): the two would mix
//! their bytes.
//!
//! A request can be gone while its work is not: the client disconnected, and what it sent is still being written. The
//! same client comes back a moment later to go on. Its new request waits for the old one's work, for [`PATIENCE`].
//! So a [`Turn`] belongs to the work, which ends in a task of its own, and an [`Attendance`] to the request.
//!
//! Absent on purpose: anything between processes. Two servers on one tree rely on the digest at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::Error;
use crate::oci::UploadId;

/// How many uploads may be written to at once.
const MAX_UPLOADS: usize = 10_000;

/// How long a request waits for the work of one that is gone.
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
    /// Whether the request of whoever has the turn is still there.
    attended: Arc<AtomicBool>,
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
    attended: Arc<AtomicBool>,
}

/// Says that a request is still there, until dropped.
#[derive(Debug)]
pub(super) struct Attendance(Arc<AtomicBool>);

impl Turns {
    /// Takes the turn at an upload.
    pub(super) async fn take(self: &Arc<Self>, upload: UploadId) -> Result<(Turn, Attendance), Error> {
        self.take_within(upload, PATIENCE).await
    }

    async fn take_within(self: &Arc<Self>, upload: UploadId, patience: Duration) -> Result<(Turn, Attendance), Error> {
        let place = self.join(upload)?;
        let held = match place.turn.clone().try_lock_owned() {
            Ok(held) => held,
            Err(_) if place.attended.load(Ordering::Acquire) => return Err(Error::UploadBusy),
            Err(_) => {
                tokio::time::timeout(patience, place.turn.clone().lock_owned()).await.map_err(|_| Error::UploadBusy)?
            }
        };
        let attendance = self.attend(upload);
        Ok((Turn { _held: held, _place: place }, attendance))
    }

    fn join(self: &Arc<Self>, upload: UploadId) -> Result<Place, Error> {
        let mut lines = self.lines.lock();
        if lines.len() >= MAX_UPLOADS && !lines.contains_key(&upload) {
            return Err(Error::TooManyUploads);
        }
        let line = lines.entry(upload).or_insert_with(|| Line {
            turn: Arc::default(),
            attended: Arc::new(AtomicBool::new(true)),
            length: 0,
        });
        line.length += 1;
        Ok(Place { turns: self.clone(), upload, turn: line.turn.clone(), attended: line.attended.clone() })
    }

    /// A new sign of presence for whoever just got the turn: the previous holder's request may still be about to leave.
    fn attend(&self, upload: UploadId) -> Attendance {
        let sign = Arc::new(AtomicBool::new(true));
        if let Some(line) = self.lines.lock().get_mut(&upload) {
            line.attended = sign.clone();
        }
        Attendance(sign)
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

impl Drop for Attendance {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_request_is_refused_while_the_first_is_there() {
        let turns = Arc::new(Turns::default());
        let (one, other) = (UploadId::random(), UploadId::random());
        let (turn, _attendance) = turns.take(one).await.unwrap();
        assert!(matches!(turns.take(one).await, Err(Error::UploadBusy)));
        assert!(turns.take(other).await.is_ok(), "uploads do not wait for each other");
        drop(turn);
        assert!(turns.take(one).await.is_ok());
    }

    #[tokio::test]
    async fn a_request_waits_for_the_work_of_one_that_is_gone() {
        let turns = Arc::new(Turns::default());
        let upload = UploadId::random();
        let (turn, attendance) = turns.take(upload).await.unwrap();
        drop(attendance);
        let mut next = Box::pin(turns.take(upload));
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(turn);
        let (_turn, _attendance) = next.await.unwrap();
        assert!(matches!(turns.take(upload).await, Err(Error::UploadBusy)), "it is attended again");
    }

    #[tokio::test]
    async fn patience_has_an_end() {
        let turns = Arc::new(Turns::default());
        let upload = UploadId::random();
        let (_turn, attendance) = turns.take(upload).await.unwrap();
        drop(attendance);
        assert!(matches!(turns.take_within(upload, Duration::from_millis(1)).await, Err(Error::UploadBusy)));
    }

    #[tokio::test]
    async fn an_old_request_that_leaves_late_does_not_speak_for_the_new_one() {
        let turns = Arc::new(Turns::default());
        let upload = UploadId::random();
        let (turn, old) = turns.take(upload).await.unwrap();
        drop(turn);
        let (_turn, _new) = turns.take(upload).await.unwrap();
        drop(old);
        assert!(matches!(turns.take(upload).await, Err(Error::UploadBusy)));
    }

    #[tokio::test]
    async fn nothing_is_kept_of_uploads_that_nobody_writes_to() {
        let turns = Arc::new(Turns::default());
        for _ in 0..10 {
            let upload = UploadId::random();
            let (turn, attendance) = turns.take(upload).await.unwrap();
            drop((turns.take(upload).await, attendance, turns.take(UploadId::random()).await, turn));
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
