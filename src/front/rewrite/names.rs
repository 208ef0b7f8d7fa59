//! Whose is a URL: ours, the upstream's own, or a stranger's?

use std::net::IpAddr;

use super::Place;
use crate::exchange::Origin;

/// A URL with scheme `http` or `https`, in pieces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url<'a> {
    pub(super) origin: Origin,
    /// Scheme, `://` and authority as they were written.
    pub(super) written: &'a [u8],
    /// What follows the authority: path, query and fragment. May be empty.
    pub(super) rest: &'a [u8],
}

/// What a URI reference is, as far as we must know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reference<'a> {
    /// `https://host/path`.
    Url(Url<'a>),
    /// `//host/path`; `written` begins with the slashes.
    Schemeless(Url<'a>),
    /// `/path`.
    Path,
    /// `path`, `?query`, nothing at all: right wherever the request was.
    Relative,
    /// What some clients read one way, and others another.
    Unreadable,
}

impl<'a> Reference<'a> {
    /// Takes a reference apart (RFC 3986 4.1). One without a scheme is meant for clients that came with `secure`.
    pub(super) fn read(text: &'a [u8], secure: bool) -> Self {
        // Controls and blanks are none of a URI's letters; a backslash is a slash to some clients (WHATWG URL 4.4).
        if text.iter().any(|byte| *byte <= b' ' || *byte == 0x7f || *byte == b'\\') {
            return Self::Unreadable;
        }
        if text.starts_with(b"//") {
            return Url::read(text, 2, secure).map_or(Self::Unreadable, Self::Schemeless);
        }
        if text.starts_with(b"/") {
            return Self::Path;
        }
        for (scheme, secure) in [(b"https://".as_slice(), true), (b"http://".as_slice(), false)] {
            if text.len() >= scheme.len() && text[..scheme.len()].eq_ignore_ascii_case(scheme) {
                return Url::read(text, scheme.len(), secure).map_or(Self::Unreadable, Self::Url);
            }
        }
        // RFC 3986 4.2: the first component of a relative path holds no colon, or it would be a scheme.
        let component = text.split(|byte| b"/?#".contains(byte)).next().unwrap_or_default();
        if component.contains(&b':') { Self::Unreadable } else { Self::Relative }
    }
}

impl<'a> Url<'a> {
    /// Of a text whose authority begins at `start`.
    fn read(text: &'a [u8], start: usize, secure: bool) -> Option<Self> {
        let length = text[start..].iter().position(|byte| b"/?#".contains(byte)).unwrap_or(text.len() - start);
        let (written, rest) = text.split_at(start + length);
        let authority = std::str::from_utf8(&written[start..]).ok()?;
        Some(Self { origin: Origin::new(secure, authority).ok()?, written, rest })
    }

    /// Path, query and fragment.
    fn pieces(&self) -> (&'a [u8], &'a [u8]) {
        let end = self.rest.iter().position(|byte| b"?#".contains(byte)).unwrap_or(self.rest.len());
        self.rest.split_at(end)
    }

    /// The path alone.
    pub(super) fn path(&self) -> &'a [u8] {
        self.pieces().0
    }

    /// Whether it is a registry's.
    pub(super) fn is_api(&self) -> bool {
        is_api(self.path())
    }

    /// Whether its query says that it is signed, as storage does (AWS, Google, CloudFront, Azure): another origin would
    /// break the signature.
    pub(super) fn is_signed(&self) -> bool {
        const SIGNATURES: [&[u8]; 4] = [b"X-Amz-Signature", b"X-Goog-Signature", b"Signature", b"sig"];
        let query = self.pieces().1;
        let names =
            query.split(|byte| b"?&#".contains(byte)).filter_map(|pair| pair.split(|byte| *byte == b'=').next());
        names.into_iter().any(|name| SIGNATURES.iter().any(|signature| name.eq_ignore_ascii_case(signature)))
    }

    /// The same below another origin.
    pub(super) fn at(&self, origin: &Origin) -> Vec<u8> {
        let mut url = origin.to_string().into_bytes();
        url.extend_from_slice(self.rest);
        url
    }
}

/// Whether a path is `/v2` or below it.
pub(super) fn is_api(path: &[u8]) -> bool {
    path.strip_prefix(b"/v2").is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

impl Place<'_> {
    /// Whether the host is one of our names, on whatever port.
    pub(super) fn is_our_host(&self, origin: &Origin) -> bool {
        self.ours.iter().chain([self.origin]).any(|ours| ours.host() == origin.host())
    }

    /// Whether this is the upstream, by a name that is its own and no client's.
    pub(super) fn is_internal(&self, origin: &Origin) -> bool {
        let peers = self.upstream.peers.iter().map(|peer| &peer.origin);
        if peers.chain(&self.upstream.known_as).any(|internal| is_same(internal, origin)) {
            return true;
        }
        let picked = self.address.filter(|address| address.port() == origin.port());
        picked.is_some_and(|address| host_address(origin) == Some(address.ip().to_canonical()))
    }
}

/// Whether two origins are one place, whatever the scheme: a registry that was told `https` writes that before its own
/// name. On this machine the loopback's names are one.
fn is_same(internal: &Origin, origin: &Origin) -> bool {
    let port_fits = internal.port() == origin.port() || (is_bare(internal) && is_bare(origin));
    let host_fits = internal.host() == origin.host() || (is_loopback(internal) && is_loopback(origin));
    port_fits && host_fits
}

/// Whether no port is written.
fn is_bare(origin: &Origin) -> bool {
    origin.host().len() == origin.authority().len()
}

fn is_loopback(origin: &Origin) -> bool {
    origin.host() == "localhost" || host_address(origin).is_some_and(|address| address.is_loopback())
}

fn host_address(origin: &Origin) -> Option<IpAddr> {
    let host = origin.host();
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.parse().ok().map(|address: IpAddr| address.to_canonical())
}
