//! How much may a flood of logins cost us?
//!
//! A password hash takes 19 MiB and some 20 ms of one core. Two lanes, each with one seat and a short queue, bound both:
//! at most two hashes run at once, whatever arrives, and a login that finds its queue full is told to come back.
//!
//! The lanes keep apart who is known and who is not: accounts that logged in from this address before do not wait behind
//! strangers, so a flood of wrong logins takes one core at most and real users keep the other.
//!
//! **Invariant:** a seat is given back after the hash has ended, also when the client has left: the work, and not the
//! waiting for it, is what must be bounded.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::password;
use super::{Error, accounts::Refusal};

/// How many logins may wait in each lane: with a hash of 20 ms, the last of them for little more than a second.
const QUEUE: usize = 64;

/// The seats at which passwords are hashed.
pub(super) struct Hashing {
    lanes: Lanes,
    /// The hash of a password that nobody has, and that was never hashed.
    decoy: Arc<str>,
    #[cfg(test)]
    pub(super) hashed: Arc<std::sync::atomic::AtomicUsize>,
}

impl Hashing {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self {
            lanes: Lanes::new(),
            decoy: password::decoy()?.into(),
            #[cfg(test)]
            hashed: Arc::default(),
        })
    }

    /// Waits for a seat; refused at once when too many wait already.
    pub(super) async fn seat(&self, regular: bool) -> Result<Seat, Refusal> {
        self.lanes.seat(regular).await
    }

    /// Whether the password is that of the stored hash. Without one, as for a name that nobody has, it takes as long and
    /// is never true. The seat comes back with the verdict, so that who sits down next finds it written down.
    pub(super) async fn matches(
        &self,
        seat: Seat,
        stored: Option<&str>,
        password: &[u8],
    ) -> Result<(bool, Seat), Refusal> {
        let known = stored.is_some();
        let stored = stored.map_or_else(|| self.decoy.clone(), Arc::from);
        let password = password.to_vec();
        #[cfg(test)]
        self.hashed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let work = tokio::task::spawn_blocking(move || (password::matches(&stored, &password) && known, seat));
        work.await.map_err(|_| Refusal::Failed(Error::Internal("the password hashing thread")))
    }
}

/// The right to run one hash.
pub(super) struct Seat {
    _seat: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

/// One seat and a queue for those who are known, and for those who are not.
pub(super) struct Lanes {
    strangers: Lane,
    regulars: Lane,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self { strangers: Lane::new(), regulars: Lane::new() }
    }

    /// Waits for a seat; refused at once when too many wait already.
    pub(super) async fn seat(&self, regular: bool) -> Result<Seat, Refusal> {
        if regular { self.regulars.seat().await } else { self.strangers.seat().await }
    }
}

struct Lane {
    seats: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Lane {
    fn new() -> Self {
        Self { seats: Arc::new(Semaphore::new(1)), places: Arc::new(Semaphore::new(1 + QUEUE)) }
    }

    async fn seat(&self) -> Result<Seat, Refusal> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let seat = self.seats.clone().acquire_owned().await.map_err(|_| Refusal::Busy)?; // never closed
        Ok(Seat { _seat: seat, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Password;

    #[tokio::test]
    async fn the_queue_has_an_end_and_the_lanes_do_not_wait_for_each_other() {
        let hashing = Hashing::new().unwrap();
        let held = hashing.seat(false).await.unwrap();
        let waiting: Vec<_> = (0..QUEUE).map(|_| Box::pin(hashing.seat(false))).collect();
        let mut waiting = futures_util::future::join_all(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(matches!(hashing.seat(false).await, Err(Refusal::Busy)));
        assert!(hashing.seat(true).await.is_ok(), "a regular does not notice");
        drop((held, waiting));
        assert!(hashing.seat(false).await.is_ok());
    }

    #[tokio::test]
    async fn without_a_stored_hash_nothing_matches_and_the_work_is_the_same() {
        let hashing = Hashing::new().unwrap();
        let seat = hashing.seat(false).await.unwrap();
        assert!(!hashing.matches(seat, None, b"anything").await.unwrap().0);
        let stored = "correct horse".parse::<Password>().unwrap().hash().unwrap();
        let seat = hashing.seat(false).await.unwrap();
        assert!(hashing.matches(seat, Some(&stored), b"correct horse").await.unwrap().0);
        assert_eq!(hashing.hashed.load(std::sync::atomic::Ordering::Relaxed), 2);
    }
}
