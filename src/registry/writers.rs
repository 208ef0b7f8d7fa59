//! Who is uploading how much at once?
//!
//! An upload that is being written holds up to three pieces in memory and a place at the disk. Each account may have so
//! many at once and no more, so that one broken build farm does not take the places of everybody else. Where nobody is
//! told apart by name, the client's network counts; clients behind a proxy that does not say for whom it speaks are not
//! told apart at all, and only the limit of all uploads (`turns.rs`) holds for them.
//!
//! What counts is a request that begins, continues or commits an upload, from its beginning to its end. Uploads that lie
//! there and wait cost some disk and no memory; `purge.rs` finds them by age.
//!
//! **Invariant:** the table has an entry for nobody who is not uploading now.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Error;
use crate::auth::Grant;
use crate::exchange::Caller;

/// The uploads that are running, by whose they are.
#[derive(Debug, Default)]
pub(super) struct Writers(Mutex<HashMap<Who, usize>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Account(String),
    Network(IpAddr),
}

/// One of somebody's uploads, until dropped.
#[derive(Debug)]
pub(super) struct Place(Option<(Arc<Writers>, Who)>);

impl Writers {
    /// Counts one more upload of the caller, if that is within the limit.
    pub(super) fn enter(self: &Arc<Self>, grant: &Grant, caller: &Caller, limit: usize) -> Result<Place, Error> {
        let who = grant.subject.clone().map(Who::Account).or(caller.network.map(Who::Network));
        let Some(who) = who else { return Ok(Place(None)) };
        let mut counts = self.0.lock();
        if counts.get(&who).is_some_and(|count| *count >= limit) {
            return Err(Error::TooManyOfOne { limit });
        }
        *counts.entry(who.clone()).or_default() += 1;
        Ok(Place(Some((self.clone(), who))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((writers, who)) = self.0.take() else { return };
        let mut counts = writers.0.lock();
        if let Some(count) = counts.get_mut(&who) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(subject: Option<&str>) -> Grant {
        Grant::everything(subject.map(str::to_owned))
    }

    fn from(network: Option<&str>) -> Caller {
        let network = network.map(|network| network.parse().unwrap());
        Caller {
            address: [127, 0, 0, 1].into(),
            network,
            origin: "https://localhost".parse().unwrap(),
            request_id: crate::exchange::RequestId::random(),
        }
    }

    #[test]
    fn each_account_has_its_own_uploads_wherever_it_comes_from() {
        let writers = Arc::new(Writers::default());
        let enter = |who: &str, network: &str| writers.enter(&grant(Some(who)), &from(Some(network)), 2);
        let (one, _two) = (enter("alice", "192.0.2.1").unwrap(), enter("alice", "192.0.2.2").unwrap());
        assert!(matches!(enter("alice", "192.0.2.3"), Err(Error::TooManyOfOne { limit: 2 })));
        assert!(enter("bob", "192.0.2.1").is_ok());
        drop(one);
        assert!(enter("alice", "192.0.2.1").is_ok(), "one has ended");
    }

    #[test]
    fn nobody_in_particular_counts_by_the_address_unless_many_share_it() {
        let writers = Arc::new(Writers::default());
        let enter = |network| writers.enter(&grant(None), &from(network), 1);
        let _one = enter(Some("192.0.2.1")).unwrap();
        assert!(enter(Some("192.0.2.1")).is_err() && enter(Some("192.0.2.2")).is_ok());
        let _shared: Vec<_> = (0..10).map(|_| enter(None).unwrap()).collect();
    }

    #[test]
    fn nothing_is_kept_of_those_who_have_ended_or_were_refused() {
        let writers = Arc::new(Writers::default());
        for name in ["a", "b", "c"] {
            let held = writers.enter(&grant(Some(name)), &from(None), 1);
            assert!(writers.enter(&grant(Some(name)), &from(None), 1).is_err());
            drop(held);
        }
        assert!(writers.0.lock().is_empty());
    }
}
