//! What is a request called?

use std::cell::RefCell;
use std::fmt;

use http::HeaderValue;

/// The longest name that we take over from a client.
const LIMIT: usize = 64;
/// How many bytes of randomness a thread fetches at once: the generator is asked for 64 names, not for each.
const STORE: usize = 1 << 10;
const USED: usize = 16;

/// Names a request in logs and in the `X-Request-Id` response header: 1 to 64 letters, digits, `-`, `_` and `.`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    letters: [u8; LIMIT],
    length: u8,
}

impl RequestId {
    /// None yet.
    pub const NONE: Self = Self { letters: [0; LIMIT], length: 0 };

    /// What a client offers, if that is short and harmless.
    pub fn offered(text: &str) -> Option<Self> {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let mut letters = [0; LIMIT];
        letters.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        let length = u8::try_from(text.len()).ok().filter(|length| *length > 0)?;
        text.bytes().all(harmless).then_some(Self { letters, length })
    }

    /// A new one, that no other request has: a random UUID (RFC 9562 5.4) without hyphens.
    pub fn random() -> Self {
        let uuid = uuid::Builder::from_random_bytes(unique()).into_uuid();
        let (mut letters, length) = ([0; LIMIT], uuid::fmt::Simple::LENGTH);
        uuid.simple().encode_lower(&mut letters[..length]);
        Self { letters, length: length as u8 }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.letters[..usize::from(self.length)]).unwrap_or_default()
    }

    /// As it is sent: marked as what HTTP/2 need not remember (RFC 7541 6.2.3), because it comes only once, would push out
    /// what comes with each answer, and is compared with each that came before it.
    pub fn to_header(&self) -> HeaderValue {
        let mut header = HeaderValue::from_str(self.as_str()).unwrap_or(HeaderValue::from_static("-"));
        header.set_sensitive(true);
        header
    }
}

/// Bytes made by chance that are given out once. They need not be secret, only different from all others: they name things.
pub(crate) fn unique() -> [u8; USED] {
    thread_local! {
        static LEFT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    LEFT.with_borrow_mut(|left| {
        if left.len() < USED {
            left.resize(STORE, 0);
            if aws_lc_rs::rand::fill(left).is_err() {
                left.clear();
                return uuid::Uuid::new_v4().into_bytes();
            }
        }
        let mut taken = [0; USED];
        taken.copy_from_slice(&left[left.len() - USED..]);
        left.truncate(left.len() - USED);
        taken
    })
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_is_offered_is_taken_if_it_is_short_and_harmless() {
        let taken = |text: &str| RequestId::offered(text).map(|id| id.as_str().to_owned());
        for good in ["a", "ci-1234_x.y", &"x".repeat(LIMIT)] {
            assert_eq!(taken(good).as_deref(), Some(good));
        }
        for bad in ["", "a b", "a\"b", "x=1", "ünïcode", &"x".repeat(LIMIT + 1), &"x".repeat(300)] {
            assert_eq!(taken(bad), None, "{bad}");
        }
    }

    #[test]
    fn new_ones_are_uuids_and_differ_in_and_between_threads() {
        let some = || (0..200).map(|_| RequestId::random().as_str().to_owned()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(some)).collect();
        let all: Vec<String> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        for id in &all {
            let uuid = uuid::Uuid::try_parse(id).unwrap();
            assert_eq!((id.len(), uuid.get_version_num(), id.to_lowercase()), (32, 4, id.clone()));
            let header = RequestId::random().to_header();
            assert!(header.len() == 32 && header.is_sensitive());
        }
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 800);
    }
}
