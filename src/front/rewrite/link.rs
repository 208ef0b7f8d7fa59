//! Where does a list go on?
//!
//! `Link: </v2/_catalog?last=b&n=2>; rel="next"` (RFC 8288): the rules of [`location`] for the URI of a
//! link to what is next. A path stays one: registries write no other, and clients know nothing else.

use super::names::Reference;
use super::{Concern, Edit, Place, location};

/// What becomes of one line of `Link`, which may hold several links.
pub(super) fn edit(line: &[u8], place: &Place<'_>) -> Edit {
    let (mut edited, mut concern, mut kept) = (Vec::new(), None, 0);
    for link in links(line) {
        if !link.is_next {
            continue;
        }
        let uri = &line[link.start..link.end];
        let (new, found) = of_uri(uri, place);
        if let Some(new) = new {
            edited.extend_from_slice(&line[kept..link.start]);
            edited.extend_from_slice(&new);
            kept = link.end;
        }
        concern = concern.or(found);
    }
    if kept == 0 {
        return (None, concern);
    }
    edited.extend_from_slice(&line[kept..]);
    (Some(edited), concern)
}

fn of_uri(uri: &[u8], place: &Place<'_>) -> Edit {
    match Reference::read(uri, place.origin.is_secure()) {
        Reference::Url(url) | Reference::Schemeless(url) => {
            if place.is_internal(&url.origin) || (place.is_our_host(&url.origin) && url.is_api()) {
                (location::put_right(&url, place), None)
            } else {
                (None, (!place.is_our_host(&url.origin)).then(|| Concern::Link(url.origin.to_string())))
            }
        }
        Reference::Path | Reference::Relative => (None, None),
        Reference::Unreadable => (None, Some(Concern::Unreadable("Link"))),
    }
}

/// Where a link's URI is in its line.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    start: usize,
    end: usize,
    is_next: bool,
}

/// The links of a line. What follows the first thing that is no link is nobody's.
fn links(line: &[u8]) -> Vec<Link> {
    let (mut links, mut at) = (Vec::new(), 0);
    loop {
        at += line[at..].iter().take_while(|byte| b" \t,".contains(byte)).count();
        if line.get(at) != Some(&b'<') {
            return links;
        }
        let start = at + 1;
        let Some(length) = line[start..].iter().position(|byte| *byte == b'>') else { return links };
        let end = start + length;
        let parameters = &line[end + 1..];
        let length = unquoted(parameters, b',');
        links.push(Link { start, end, is_next: leads_on(&parameters[..length]) });
        at = end + 1 + length;
    }
}

/// Whether one of the parameters is `rel` with the word `next`.
fn leads_on(mut parameters: &[u8]) -> bool {
    while !parameters.is_empty() {
        let length = unquoted(parameters, b';');
        let parameter = parameters[..length].trim_ascii();
        if let Some(equals) = parameter.iter().position(|byte| *byte == b'=')
            && parameter[..equals].trim_ascii().eq_ignore_ascii_case(b"rel")
        {
            let mut words = parameter[equals + 1..].split(|byte| b" \t\"".contains(byte));
            return words.any(|word| word.eq_ignore_ascii_case(b"next")); // RFC 8288 3.3: the first `rel` counts
        }
        parameters = parameters.get(length + 1..).unwrap_or_default();
    }
    false
}

/// How many bytes there are before a separator that is not quoted.
fn unquoted(text: &[u8], separator: u8) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if *byte == separator && !quoted => return at,
            _ => {}
        }
    }
    text.len()
}
