//! How does the operator learn that tokens are not the ones that were expected, without a log full of it?
//!
//! The commonest mistakes in setting up a registry are a bundle that is not the token service's, and an issuer or a service
//! that is spelled otherwise there than here. One line names what came and what was expected: once a minute for each, and
//! for at most [`MOST`] of a kind in a minute, since anybody can name any key.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How many keys are complained about in a minute, and how many issuers and services.
const MOST: usize = 32;
const PERIOD: Duration = Duration::from_secs(60);
/// The longest name that is logged and remembered, in characters.
const NAME: usize = 128;
/// How many of the trusted keys are listed.
const LISTED: usize = 16;

/// What was complained about in this minute.
#[derive(Default)]
pub(super) struct Complaints {
    /// Keys, which anybody can name.
    keys: Mutex<Said>,
    /// What only holders of trusted keys can say, and so is never crowded out by the others.
    claims: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    since: Option<Instant>,
    names: HashSet<String>,
}

impl Complaints {
    /// A token names a key that is not trusted, or none.
    pub(super) fn untrusted<'a>(&self, id: Option<&str>, trusted: impl Iterator<Item = &'a str>, now: Instant) {
        let id = shortened(id.unwrap_or_default());
        if self.keys.lock().is_news(&id, now) {
            let trusted: Vec<&str> = trusted.take(LISTED).collect();
            tracing::warn!(key_id = ?id, ?trusted, "token signed by untrusted key");
        }
    }

    /// A token of a trusted key says that somebody else issued it.
    pub(super) fn issuer(&self, issuer: &str, expected: &str, now: Instant) {
        let issuer = shortened(issuer);
        if self.claims.lock().is_news(&format!("iss {issuer}"), now) {
            tracing::warn!(
                ?issuer,
                expected,
                "token signed by a trusted key, but of another issuer: see auth.token.issuer"
            );
        }
    }

    /// A token of a trusted key is meant for somebody else.
    pub(super) fn audience<'a>(&self, audience: impl Iterator<Item = &'a str>, expected: &str, now: Instant) {
        let audience: Vec<String> = audience.take(LISTED).map(shortened).collect();
        if self.claims.lock().is_news(&format!("aud {audience:?}"), now) {
            tracing::warn!(
                ?audience,
                expected,
                "token signed by a trusted key, but for another service: see auth.token.service"
            );
        }
    }
}

fn shortened(name: &str) -> String {
    name.chars().take(NAME).collect()
}

impl Said {
    fn is_news(&mut self, name: &str, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= PERIOD) {
            *self = Self { since: Some(now), names: HashSet::new() };
        }
        self.names.len() < MOST && self.names.insert(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_once_a_minute_and_not_more_keys_than_the_limit() {
        let (mut said, now) = (Said::default(), Instant::now());
        assert!(said.is_news("a", now) && !said.is_news("a", now));
        let news = (0..1000).filter(|id| said.is_news(&id.to_string(), now)).count();
        assert_eq!(news, MOST - 1);
        assert!(said.is_news("a", now + PERIOD));
    }
}
