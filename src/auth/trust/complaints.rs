//! How does the operator learn that tokens come from somebody unknown, without a log full of it?
//!
//! The commonest mistake in setting up a registry is a bundle that is not the token service's. One line names the key that
//! was meant and those that are trusted: once a minute for each key, and for at most [`KEYS`] keys a minute, since anybody
//! can name any.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How many keys are complained about in a minute.
const KEYS: usize = 32;
const PERIOD: Duration = Duration::from_secs(60);
/// The longest name that is logged and remembered, in characters.
const NAME: usize = 128;
/// How many of the trusted keys are listed.
const LISTED: usize = 16;

/// What was complained about in this minute.
#[derive(Default)]
pub(super) struct Complaints(Mutex<Said>);

#[derive(Default)]
struct Said {
    since: Option<Instant>,
    keys: HashSet<String>,
}

impl Complaints {
    /// A token names a key that is not trusted, or none.
    pub(super) fn untrusted<'a>(&self, id: Option<&str>, trusted: impl Iterator<Item = &'a str>, now: Instant) {
        let id: String = id.unwrap_or_default().chars().take(NAME).collect();
        if self.is_news(&id, now) {
            let trusted: Vec<&str> = trusted.take(LISTED).collect();
            tracing::warn!(key_id = ?id, ?trusted, "token signed by untrusted key");
        }
    }

    fn is_news(&self, id: &str, now: Instant) -> bool {
        let mut said = self.0.lock();
        if said.since.is_none_or(|since| now.saturating_duration_since(since) >= PERIOD) {
            *said = Said { since: Some(now), keys: HashSet::new() };
        }
        said.keys.len() < KEYS && said.keys.insert(id.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_once_a_minute_and_not_more_keys_than_the_limit() {
        let (complaints, now) = (Complaints::default(), Instant::now());
        assert!(complaints.is_news("a", now) && !complaints.is_news("a", now));
        let news = (0..1000).filter(|id| complaints.is_news(&id.to_string(), now)).count();
        assert_eq!(news, KEYS - 1);
        assert!(complaints.is_news("a", now + PERIOD));
    }
}
