//! How do the orders of a configuration go where nobody is at them?

use std::path::PathBuf;
use std::time::SystemTime;

use super::desk::{Desk, Seen};
use super::history::Failed;
use super::renewal::Case;
use super::storage::{Certificate, Storage};
use super::{Config, Place, Status};
use crate::tls::local::seconds;

/// What the storage folder says of each certificate, by the certificate's file. Nothing is made, and nobody is asked, so
/// a renewal that the authority wants at another time than the usual one is not known of.
pub fn kept(config: &Config, now: SystemTime) -> Vec<(PathBuf, Status)> {
    let storage = Storage::of(&config.storage);
    let status = |place: Place| (place.pem.clone(), status(&storage, place, seconds(now)));
    config.places().into_iter().map(status).collect()
}

fn status(storage: &Storage, place: Place, now: i64) -> Status {
    let seen = match storage.look(&place) {
        Ok(found) => {
            let case = Case {
                held: found.certificate.as_ref().map(|certificate| certificate.held(&place)),
                window: None,
                history: &found.history,
                ways: u32::try_from(place.ways.len()).unwrap_or(1),
                seed: place.seed(),
            };
            Seen {
                next: case.next().max(now),
                barred: case.barred(),
                last: found.history.last.clone(),
                failures: found.history.failures(),
                ordered: found.certificate.as_ref().and_then(Certificate::ordered),
                ..Seen::default()
            }
        }
        Err(failure) => Seen { last: Some(Failed::of(&failure, now)), failures: 1, ..Seen::default() },
    };
    let desk = Desk::new(place);
    desk.note(|known| *known = seen);
    desk.status(now)
}

#[cfg(test)]
mod tests {
    use super::super::history::History;
    use super::super::order::{Failure, Kind};
    use super::super::{Challenge, renewal};
    use super::*;

    #[test]
    fn what_was_tried_is_to_be_seen_when_nobody_orders() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            directory: "https://authority.test/directory".to_owned(),
            ca: None,
            contact: Vec::new(),
            challenges: vec![Challenge::TlsAlpn01],
            certificates: vec![vec!["a.test".to_owned()]],
            account: None,
            profile: None,
            webroot: None,
            dns: None,
            storage: folder.path().join("acme"),
        };
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
        let [(_, nothing)] = &kept(&config, now)[..] else { panic!("one certificate") };
        assert!(nothing.error.is_none() && nothing.ordered.is_none() && nothing.failures == 0);
        assert!(!config.storage.exists(), "nothing is made");
        let place = config.places().remove(0);
        let storage = Storage::of(&config.storage);
        let mut history = storage.look(&place).unwrap().history;
        let failure = Failure::new(Kind::Refused, "no such customer".to_owned());
        renewal::failed(&mut history, &failure, seconds(now));
        assert_ne!(history, History::default());
        storage.remember(&place, &history).unwrap();
        let [(pem, status)] = &kept(&config, now)[..] else { panic!("one certificate") };
        assert_eq!((pem, status.failures), (&place.pem, 1));
        assert_eq!(status.error.as_ref().unwrap().reason, "no such customer");
        assert!(status.next.unwrap().as_second() >= seconds(now) + 60 * 60);
    }
}
