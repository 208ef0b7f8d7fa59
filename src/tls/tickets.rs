//! How does one node resume a session that began at another?
//!
//! Tickets (RFC 5077, RFC 8446 4.6.1) hold the session, encrypted for whoever is to resume it. With secrets that all
//! nodes share, the keys are derived from these and the time, so that every node has the same at the same time and none
//! tells another anything; a reload, an upgrade or a restart changes nothing.
//!
//! ```text
//! ticket    name of the key (16 bytes) · nonce (12) · session, encrypted by AES-256-GCM · tag (16)
//! key       HKDF-SHA256 (RFC 5869) of the secret, for every six hours another
//! ```
//!
//! **Invariants**
//! - A ticket is good in the six hours that it was made in and in the six after them, and never longer; also in the six
//!   before, at nodes whose clocks are behind.
//! - Every secret opens tickets, only the first makes them: a new secret is first put behind the old one on all nodes, then
//!   before it, and the old one is taken away twelve hours later.
//! - What does not open is no ticket: the client gets a full handshake, and learns nothing else.
//! - Keys are derived once in six hours, not for tickets: one hello may bring hundreds, invented ones too.
//!
//! Whoever has a secret can read what was sent over sessions resumed with its tickets where TLS 1.2 is spoken: that is
//! the price of sharing (TLS 1.3 agrees on new keys all the same), and why secrets are to be replaced.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use rustls::server::ProducesTickets;

use super::{Error, files};

/// How long a key makes tickets.
const EPOCH: Duration = Duration::from_secs(6 * 60 * 60);
/// The least that a secret must have: what cannot be guessed.
const LEAST: usize = 32;
/// What tells these keys from others that somebody may derive from the same secret.
const SALT: &[u8] = b"pierhead TLS tickets 1";
const NAME: usize = 16;
const NONCE: usize = 12;
const TAG: usize = 16;
/// The largest session that is put into a ticket, or taken for one: without clients' certificates they have some hundred
/// bytes.
const LARGEST: usize = 4 << 10;

/// Tickets of shared secrets.
pub struct Tickets {
    secrets: Vec<Prk>,
    /// Those of the last ticket's time.
    keys: ArcSwapOption<Keys>,
}

/// The keys that make and open tickets for six hours.
struct Keys {
    epoch: u64,
    /// First the one that makes them.
    named: Vec<([u8; NAME], RandomizedNonceKey)>,
}

impl Keys {
    fn derive(secrets: &[Prk], epoch: u64) -> Option<Self> {
        let epochs = [epoch, epoch.saturating_sub(1), epoch.saturating_add(1)];
        let all = secrets.iter().flat_map(|secret| epochs.map(|epoch| derived(secret, epoch)));
        Some(Self { epoch, named: all.collect::<Option<_>>()? })
    }
}

impl Tickets {
    /// Reads secrets, each the content of a file. `None`: there are no files.
    ///
    /// # Errors
    /// A file that cannot be read, or is too short to be a secret.
    pub fn load(paths: &[PathBuf]) -> Result<Option<Self>, Error> {
        let salt = Salt::new(HKDF_SHA256, SALT);
        let secret = |path: &PathBuf| {
            let bytes = files::read_file(path)?;
            if bytes.len() < LEAST {
                return Err(Error::ShortSecret { path: path.clone(), least: LEAST });
            }
            Ok(salt.extract(&bytes))
        };
        let secrets = paths.iter().map(secret).collect::<Result<Vec<_>, _>>()?;
        Ok(if secrets.is_empty() { None } else { Some(Self { secrets, keys: ArcSwapOption::empty() }) })
    }

    fn seal(&self, session: &[u8], now: SystemTime) -> Option<Vec<u8>> {
        let keys = self.keys(now)?;
        let (name, key) = keys.named.first()?;
        if session.len() > LARGEST {
            return None;
        }
        let mut sealed = session.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(*name), &mut sealed).ok()?;
        Some([name, nonce.as_ref().as_slice(), &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: SystemTime) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        if sealed.len() > LARGEST + TAG {
            return None;
        }
        // The name is no secret: it says which key, and the tag says whether it was that key's.
        let keys = self.keys(now)?;
        let (_, key) = keys.named.iter().find(|(known, _)| known == name)?;
        let mut session = sealed.to_vec();
        let length = key.open_in_place(Nonce::from(nonce), Aad::from(name), &mut session).ok()?.len();
        session.truncate(length);
        Some(session)
    }

    /// The keys of this time. Whoever comes first in it derives them; when several do, each has the same.
    fn keys(&self, now: SystemTime) -> Option<Arc<Keys>> {
        let epoch = epoch(now);
        if let Some(keys) = self.keys.load_full().filter(|keys| keys.epoch == epoch) {
            return Some(keys);
        }
        let keys = Arc::new(Keys::derive(&self.secrets, epoch)?);
        self.keys.store(Some(Arc::clone(&keys)));
        Some(keys)
    }
}

/// Which six hours since 1970 it is.
fn epoch(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / EPOCH.as_secs()
}

struct NameAndKey;

impl KeyType for NameAndKey {
    fn len(&self) -> usize {
        NAME + AES_256_GCM.key_len()
    }
}

/// The key of a secret for six hours, and what it is called.
fn derived(secret: &Prk, epoch: u64) -> Option<([u8; NAME], RandomizedNonceKey)> {
    let mut bytes = [0; NAME + 32];
    secret.expand(&[&epoch.to_be_bytes()], NameAndKey).ok()?.fill(&mut bytes).ok()?;
    let (name, key) = bytes.split_first_chunk()?;
    Some((*name, RandomizedNonceKey::new(&AES_256_GCM, key).ok()?))
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// As long as one is good at least, whenever it was made.
    fn lifetime(&self) -> u32 {
        EPOCH.as_secs() as u32 // six hours
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.seal(session, SystemTime::now())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, SystemTime::now())
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("secrets", &self.secrets.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{now, put};
    use super::*;

    /// Of secrets that are one byte, repeated.
    fn of(secrets: &[u8]) -> Tickets {
        let folder = tempfile::tempdir().unwrap();
        let path = |byte: &u8| {
            let path = folder.path().join(byte.to_string());
            put(&path, &char::from(*byte).to_string().repeat(LEAST));
            path
        };
        Tickets::load(&secrets.iter().map(path).collect::<Vec<_>>()).unwrap().unwrap()
    }

    const SESSION: &[u8] = b"what is to be resumed";

    #[test]
    fn nodes_with_the_same_secret_open_each_others_tickets_and_nobody_else_does() {
        let ticket = of(b"a").seal(SESSION, now()).unwrap();
        assert_eq!(of(b"a").open(&ticket, now()).as_deref(), Some(SESSION));
        assert_eq!(of(b"ba").open(&ticket, now()).as_deref(), Some(SESSION), "a secret that is no longer the first");
        assert!(of(b"b").open(&ticket, now()).is_none());
        assert!(
            of(b"a").open(&of(b"ba").seal(SESSION, now()).unwrap(), now()).is_none(),
            "the first one makes tickets"
        );
        assert_ne!(ticket, of(b"a").seal(SESSION, now()).unwrap(), "never the same twice");
    }

    #[test]
    fn a_ticket_is_good_until_the_end_of_the_next_six_hours_and_for_clocks_that_are_behind() {
        let begun = UNIX_EPOCH + EPOCH * 80_000;
        let second = Duration::from_secs(1);
        let tickets = of(b"a");
        for made in [begun, begun + EPOCH - second] {
            let ticket = tickets.seal(SESSION, made).unwrap();
            for (at, good) in [
                (begun - EPOCH - second, false),
                (begun - EPOCH, true),
                (begun, true),
                (begun + EPOCH * 2 - second, true),
                (begun + EPOCH * 2, false),
                (begun + EPOCH * 100, false),
            ] {
                assert_eq!(tickets.open(&ticket, at).is_some(), good, "{at:?}");
            }
        }
        assert!(tickets.lifetime() <= 12 * 60 * 60);
        tickets.seal(SESSION, UNIX_EPOCH - second).unwrap();
    }

    #[test]
    fn keys_are_derived_once_in_six_hours_however_many_tickets_are_invented() {
        let begun = UNIX_EPOCH + EPOCH * 80_000;
        let tickets = of(&[b'a'; 16]);
        let last = || tickets.keys.load_full().unwrap();
        tickets.seal(SESSION, begun).unwrap();
        let first = last();
        assert_eq!(first.named.len(), 48);
        for number in 0..1000_u64 {
            let invented = [number.to_be_bytes(); 8].concat();
            assert!(tickets.open(&invented, begun + EPOCH - Duration::from_secs(1)).is_none());
        }
        assert!(Arc::ptr_eq(&first, &last()));
        tickets.open(&[0; 100], begun + EPOCH);
        assert!(!Arc::ptr_eq(&first, &last()));
    }

    #[test]
    fn a_file_without_a_secret_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticket.key");
        let said = || Tickets::load(std::slice::from_ref(&path)).unwrap_err().to_string();
        assert!(said().contains("ticket.key"));
        put(&path, &"a".repeat(LEAST - 1));
        assert!(said().contains("ticket.key") && said().contains("32"), "{}", said());
        assert!(Tickets::load(&[]).unwrap().is_none());
        let all = format!("{:?}", of(b"ab"));
        assert_eq!(all, "Tickets { secrets: 2 }");
    }

    #[test]
    fn what_is_too_large_is_put_into_no_ticket() {
        let tickets = of(b"a");
        assert!(tickets.seal(&[0; LARGEST + 1], now()).is_none());
        let ticket = tickets.seal(&[0; LARGEST], now()).unwrap();
        assert_eq!(tickets.open(&ticket, now()).unwrap().len(), LARGEST);
        assert!(tickets.open(&[ticket, vec![0]].concat(), now()).is_none());
    }

    proptest! {
        #[test]
        fn nothing_that_was_changed_opens(
            session in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8, cut in any::<bool>(),
        ) {
            let tickets = of(b"a");
            let ticket = tickets.seal(&session, now()).unwrap();
            prop_assert_eq!(tickets.open(&ticket, now()), Some(session));
            let at = at.index(ticket.len());
            let mut changed = ticket;
            if cut { changed.truncate(at) } else { changed[at] ^= 1_u8 << bit }
            prop_assert_eq!(tickets.open(&changed, now()), None);
        }

        #[test]
        fn nothing_that_a_client_invents_opens_or_does_harm(ticket in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(of(b"a").open(&ticket, now()), None);
        }
    }
}
