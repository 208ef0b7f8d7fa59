//! Where does an answer send the client?
//!
//! To the origin that the client used, wherever the registry believes it is. Rules L1 to L11, the first that fits.

use http::{Method, StatusCode};

use super::super::LocationForm;
use super::names::{Reference, Url, is_api};
use super::{Concern, Edit, Place};

/// What becomes of one line of `Location`.
pub(super) fn edit(line: &[u8], status: StatusCode, place: &Place<'_>) -> Edit {
    if line.is_empty() {
        return (None, None); // L1
    }
    match Reference::read(line, place.origin.is_secure()) {
        Reference::Url(url) | Reference::Schemeless(url) => of_url(&url, status, place), // L7
        Reference::Path => (of_path(line, place), None),
        Reference::Relative => (None, None),
        Reference::Unreadable => (None, Some(Concern::Unreadable("Location"))), // L11
    }
}

fn of_url(url: &Url<'_>, status: StatusCode, place: &Place<'_>) -> Edit {
    let redirect = status.is_redirection();
    let (ours, internal) = (place.is_our_host(&url.origin), place.is_internal(&url.origin));
    if !ours && !internal {
        let concern = takes_content(status, place.method).then(|| Concern::Upload(url.origin.to_string()));
        return (None, concern); // L2, L10
    }
    if redirect && ours && (!url.is_api() || url.is_signed()) {
        return (None, None); // L3
    }
    let correct = url.origin == *place.origin;
    if !(internal || url.is_api() || correct) {
        return (None, None); // ours, but none of the registry's
    }
    (put_right(url, place), None)
}

/// Whether content goes where an answer leads: that of the next request, or with 307 and 308 this very one's. Redirects
/// of reads are how registries hand out storage.
fn takes_content(status: StatusCode, method: &Method) -> bool {
    match status.as_u16() {
        201 | 202 | 204 => true,
        307 | 308 => ![Method::GET, Method::HEAD].contains(method),
        _ => false,
    }
}

/// L4 to L6, and L9.
pub(super) fn put_right(url: &Url<'_>, place: &Place<'_>) -> Option<Vec<u8>> {
    if place.upstream.location == LocationForm::Relative
        && let Some(path) = path_alone(url.rest)
    {
        return Some(path);
    }
    let right = url.at(place.origin);
    (right.strip_suffix(url.rest) != Some(url.written)).then_some(right)
}

/// What follows the authority, where that leads to the same place without it: two slashes would be another authority.
fn path_alone(rest: &[u8]) -> Option<Vec<u8>> {
    match rest {
        [b'/', b'/', ..] => None,
        [b'/', ..] => Some(rest.to_vec()),
        _ => Some([b"/", rest].concat()),
    }
}

/// L8.
fn of_path(path: &[u8], place: &Place<'_>) -> Option<Vec<u8>> {
    let end = path.iter().position(|byte| b"?#".contains(byte)).unwrap_or(path.len());
    if place.upstream.location != LocationForm::Absolute || !is_api(&path[..end]) {
        return None;
    }
    let mut url = place.origin.to_string().into_bytes();
    url.extend_from_slice(path);
    Some(url)
}
