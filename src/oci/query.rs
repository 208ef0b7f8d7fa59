//! Queries: the part of a request's target after the question mark, and the pages of a list that it asks for.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// At most so many entries (`n`).
    pub limit: Option<usize>,
    /// Only what comes after this entry (`last`), which need not exist.
    pub after: Option<String>,
}

impl Page {
    /// The query that asks for the next part: so many after this entry.
    pub fn query(limit: usize, last: &str) -> String {
        format!("{}&n={limit}", Self::parameter("last", last))
    }

    /// One parameter of a query, its value escaped.
    pub fn parameter(name: &str, value: &str) -> String {
        const RESERVED: &AsciiSet = &CONTROLS
            .add(b' ')
            .add(b'"')
            .add(b'#')
            .add(b'<')
            .add(b'>')
            .add(b'%')
            .add(b'&')
            .add(b'+')
            .add(b',')
            .add(b';');
        format!("{name}={}", utf8_percent_encode(value, RESERVED))
    }
}

/// Parameters, decoded one by one. Nobody minds those that are not asked for (`ns`, `origin`, `_state`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a>(pub(super) &'a str);

impl<'a> Query<'a> {
    /// Every value of a parameter, in order.
    pub(super) fn all(self, wanted: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        self.0
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .filter(move |(name, _)| decode(name) == wanted)
            .map(|(_, value)| decode(value))
    }

    /// The first value of a parameter, unless it is empty.
    pub(super) fn one(self, wanted: &'a str) -> Option<Cow<'a, str>> {
        self.all(wanted).next().filter(|value| !value.is_empty())
    }
}

/// A plus sign is a space in a query, as HTML forms and Go's `net/url` write it.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_found_whatever_is_beside_them() {
        let query = Query("ns=x&&tag=a&novalue&t%61g=b%2Fc&tag=&empty=&=x");
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["a", "b/c", ""]);
        assert_eq!((query.one("tag").as_deref(), query.one("empty"), query.one("novalue")), (Some("a"), None, None));
    }

    proptest! {
        #[test]
        fn what_a_link_says_is_what_is_asked_for_next(last in "\\PC{0,40}", limit: usize) {
            let text = Page::query(limit, &last);
            let query = Query(&text);
            prop_assert_eq!(query.all("last").collect::<Vec<_>>(), [last.as_str()]);
            prop_assert_eq!(query.one("n").map(Cow::into_owned), Some(limit.to_string()));
            prop_assert!(!text.contains(['>', ' ', '"', ',', ';']), "it can stand in a Link header: {text}");
        }

        #[test]
        fn looking_into_a_query_never_panics(text in "\\PC{0,80}", name in "[a-z&=%]{0,4}") {
            let _ = (Query(&text).all(&name).count(), Query(&text).one(&name));
        }
    }
}
