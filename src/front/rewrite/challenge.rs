//! Where do clients get a token?
//!
//! `WWW-Authenticate: Bearer realm="https://gitlab.example.com/jwt/auth",service="..."` (RFC 9110 11.6.1): wherever the
//! realm says, and there they show their password. Rules W1 to W6, the first that fits.
//!
//! **Invariant:** of a line only realms of `Bearer` change, between the quotes. Order, spelling, further parameters and
//! further challenges keep their bytes.

use super::names::{Reference, Url};
use super::{Concern, Edit, Place};

/// What becomes of one line of `WWW-Authenticate`, which may hold several challenges.
pub(super) fn edit(line: &[u8], place: &Place<'_>) -> Edit {
    let mut scanner = Scanner { line, at: 0, bearer: false };
    let (mut edited, mut concern, mut kept) = (Vec::new(), None, 0);
    loop {
        match scanner.realm() {
            Ok(None) => break,
            Ok(Some(realm)) => {
                let (new, found) = of_realm(&realm.text(line), place);
                if let Some(new) = new {
                    edited.extend_from_slice(&line[kept..realm.start]);
                    edited.extend_from_slice(&realm.spell(&new));
                    kept = realm.end;
                }
                concern = concern.or(found);
            }
            Err(Unreadable) => {
                concern = concern.or(Some(Concern::Challenge));
                break;
            }
        }
    }
    if kept == 0 {
        return (None, concern);
    }
    edited.extend_from_slice(&line[kept..]);
    (Some(edited), concern)
}

fn of_realm(realm: &[u8], place: &Place<'_>) -> Edit {
    let realms = &place.upstream.realms;
    let fitting = || realms.iter().filter(|listed| listed.clients.is_empty() || listed.clients.contains(place.client));
    if fitting().any(|listed| listed.url.as_bytes() == realm) {
        return (None, None); // W1
    }
    let Reference::Url(url) = Reference::read(realm, true) else {
        return (None, Some(Concern::Unreadable("realm")));
    };
    if let Some(own) = own_endpoint(&url, place) {
        return ((own != realm).then_some(own), None);
    }
    let is_listed = || realms.iter().any(|listed| listed.url.as_bytes() == realm);
    let same_host = fitting().find(|listed| host_of(&listed.url).as_deref() == Some(url.origin.host()));
    let instead = if let Some(listed) = same_host {
        Some(listed) // W2
    } else if place.is_internal(&url.origin) || is_listed() {
        fitting().next() // W3, W4
    } else {
        None
    };
    match instead {
        Some(listed) => (Some(listed.url.clone().into_bytes()), None),
        None => (None, of_stranger(&url, place)),
    }
}

/// The realm below the name that the client called us by, if it is the token endpoint that clients reach by us.
fn own_endpoint(url: &Url<'_>, place: &Place<'_>) -> Option<Vec<u8>> {
    let is_ours = place.is_our_host(&url.origin) || place.is_internal(&url.origin);
    (is_ours && place.token.is_some_and(|token| token.as_bytes() == url.path())).then(|| url.at(place.origin))
}

/// W5. Without a list the upstream is believed, but not that clients are to show passwords in the clear or find a host
/// that is not there for them.
fn of_stranger(url: &Url<'_>, place: &Place<'_>) -> Option<Concern> {
    if !place.upstream.realms.is_empty() || place.is_internal(&url.origin) {
        return Some(Concern::Realm(url.origin.to_string()));
    }
    let in_the_clear = place.origin.is_secure() && !url.origin.is_secure();
    in_the_clear.then(|| Concern::ClearRealm(url.origin.authority().to_owned()))
}

fn host_of(url: &str) -> Option<String> {
    match Reference::read(url.as_bytes(), true) {
        Reference::Url(url) => Some(url.origin.host().to_owned()),
        _ => None,
    }
}

/// Where the value of a `realm` is in its line, without its quotes.
#[derive(Debug, PartialEq, Eq)]
struct Realm {
    start: usize,
    end: usize,
    quoted: bool,
}

impl Realm {
    /// What it says, without escapes.
    fn text(&self, line: &[u8]) -> Vec<u8> {
        let (mut text, mut escaped) = (Vec::with_capacity(self.end - self.start), false);
        for byte in &line[self.start..self.end] {
            if *byte == b'\\' && self.quoted && !escaped {
                escaped = true;
            } else {
                escaped = false;
                text.push(*byte);
            }
        }
        text
    }

    /// A URL in its place.
    fn spell(&self, url: &[u8]) -> Vec<u8> {
        let mut spelled = Vec::with_capacity(url.len() + 2);
        for byte in url {
            if b"\"\\".contains(byte) {
                spelled.push(b'\\');
            }
            spelled.push(*byte);
        }
        if self.quoted || !url.iter().any(|byte| b" \t,\"".contains(byte)) {
            return spelled;
        }
        [b"\"", spelled.as_slice(), b"\""].concat()
    }
}

/// Different clients may read this in different ways.
struct Unreadable;

/// Goes through the challenges of a line.
struct Scanner<'a> {
    line: &'a [u8],
    at: usize,
    /// Whether the parameters are those of a `Bearer`.
    bearer: bool,
}

impl Scanner<'_> {
    /// The next realm of a `Bearer`.
    fn realm(&mut self) -> Result<Option<Realm>, Unreadable> {
        loop {
            self.skip(b" \t,");
            if self.at == self.line.len() {
                return Ok(None);
            }
            let word = self.take(|byte| !b" \t,=\"".contains(byte));
            if word.is_empty() {
                return Err(Unreadable);
            }
            let (start, end) = (word.start, word.end);
            self.skip(b" \t");
            if self.peek() != Some(b'=') {
                self.bearer = self.line[start..end].eq_ignore_ascii_case(b"bearer");
                continue;
            }
            self.at += 1;
            let value = self.value()?;
            if self.bearer && self.line[start..end].eq_ignore_ascii_case(b"realm") {
                return Ok(Some(value));
            }
        }
    }

    /// A parameter's value, or what is left of a token68 (RFC 9110 11.2).
    fn value(&mut self) -> Result<Realm, Unreadable> {
        self.skip(b" \t");
        if self.peek() != Some(b'"') {
            let value = self.take(|byte| !b" \t,\"".contains(byte));
            return Ok(Realm { start: value.start, end: value.end, quoted: false });
        }
        let start = self.at + 1;
        let mut escaped = false;
        for (at, byte) in self.line.iter().enumerate().skip(start) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.at = at + 1;
                    return Ok(Realm { start, end: at, quoted: true });
                }
                _ => {}
            }
        }
        Err(Unreadable)
    }

    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    fn skip(&mut self, letters: &[u8]) {
        self.take(|byte| letters.contains(byte));
    }

    fn take(&mut self, wanted: impl Fn(&u8) -> bool) -> std::ops::Range<usize> {
        let start = self.at;
        self.at += self.line[start..].iter().take_while(|byte| wanted(byte)).count();
        start..self.at
    }
}
