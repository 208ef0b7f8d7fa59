//! Ranges: which part of a blob is asked for, and which part of an upload is sent.

use std::str::FromStr;

/// One range of bytes as asked for in `Range` (RFC 9110, 14.1.2), not yet held against a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `bytes=first-` or `bytes=first-last`.
    From {
        /// The first byte wanted.
        first: u64,
        /// The last byte wanted, or as far as it goes.
        last: Option<u64>,
    },
    /// `bytes=-length`: the end.
    Suffix(u64),
}

/// What a `Range` header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requested {
    /// Everything: another unit than bytes, or several ranges, both of which may be ignored (RFC 9110, 14.2).
    Whole,
    /// A part.
    Part(ByteRange),
    /// Bytes, but not a range: `bytes=5-3`, `bytes=x`. Answered as a range that cannot be satisfied.
    Nonsense,
}

impl Requested {
    /// Reads the header's value.
    pub fn parse(value: &str) -> Self {
        let Some((unit, set)) = value.split_once('=') else { return Self::Whole };
        if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
            return Self::Whole;
        }
        match set.trim().split_once('-') {
            Some(("", length)) => number(length).map_or(Self::Nonsense, |length| Self::Part(ByteRange::Suffix(length))),
            Some((first, "")) => {
                number(first).map_or(Self::Nonsense, |first| Self::Part(ByteRange::From { first, last: None }))
            }
            Some((first, last)) => match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => Self::Part(ByteRange::From { first, last: Some(last) }),
                _ => Self::Nonsense,
            },
            None => Self::Nonsense,
        }
    }
}

impl ByteRange {
    /// Which bytes these are of an object of `size` bytes: the first and the last, or none of them.
    pub fn within(self, size: u64) -> Option<Span> {
        let last_there = size.checked_sub(1)?;
        let (first, last) = match self {
            Self::From { first, last } => (first, last.unwrap_or(last_there).min(last_there)),
            Self::Suffix(0) => return None,
            Self::Suffix(length) => (size.saturating_sub(length), last_there),
        };
        (first <= last).then_some(Span { first, last })
    }
}

/// Bytes `first` to `last`, both included: never empty. Also what `Content-Range` says of a chunk of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub first: u64,
    /// The last byte, not before the first.
    pub last: u64,
}

impl Span {
    /// How many bytes.
    pub fn length(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// The `Content-Range` of an upload's chunk: `first-last` (OCI distribution-spec, "Pushing a blob in chunks"), or as RFC
/// 9110 writes it, `bytes first-last/total` with whatever total.
impl FromStr for Span {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let text = text.trim();
        let text = text.strip_prefix("bytes ").unwrap_or(text);
        let range = text.split_once('/').map_or(text, |(range, _total)| range);
        let (first, last) = range.split_once('-').ok_or(RangeError)?;
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(RangeError),
        }
    }
}

/// Digits only: `parse` alone would take a plus sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The text is not a range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a content range is FIRST-LAST, in bytes, both included")]
pub struct RangeError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(value: &str, size: u64) -> Option<(u64, u64)> {
        match Requested::parse(value) {
            Requested::Part(range) => range.within(size).map(|span| (span.first, span.last)),
            other => panic!("{value}: {other:?}"),
        }
    }

    #[test]
    fn the_conformance_programs_probes_of_a_2048_byte_blob() {
        assert_eq!(part("bytes=500-1499", 2048), Some((500, 1499)));
        assert_eq!(part("bytes=500-", 2048), Some((500, 2047)));
        assert_eq!(part("bytes=-500", 2048), Some((1548, 2047)));
        assert_eq!(part("bytes=2000-5000", 2048), Some((2000, 2047)));
        assert_eq!(part("bytes=5000-10000", 2048), None);
        assert_eq!(Requested::parse("bytes=500-0"), Requested::Nonsense);
    }

    #[test]
    fn edges() {
        assert_eq!(part("bytes=0-0", 1), Some((0, 0)));
        assert_eq!(part("bytes=1-", 1), None);
        assert_eq!(part("bytes=-5", 3), Some((0, 2)));
        assert_eq!(part("bytes=-0", 3), None);
        assert_eq!(part("bytes=0-", 0), None);
        assert_eq!(part("BYTES=0-18446744073709551615", 3), Some((0, 2)));
        for whole in ["", "bytes", "items=0-1", "bytes=0-1,3-4"] {
            assert_eq!(Requested::parse(whole), Requested::Whole, "{whole}");
        }
        for nonsense in ["bytes=", "bytes=-", "bytes=x-1", "bytes=+1-2", "bytes=1-18446744073709551616", "bytes=5"] {
            assert_eq!(Requested::parse(nonsense), Requested::Nonsense, "{nonsense}");
        }
    }

    #[test]
    fn content_ranges_in_both_spellings() {
        for text in ["0-99", "bytes 0-99/*", "bytes 0-99/100", " 0-99 "] {
            assert_eq!(text.parse(), Ok(Span { first: 0, last: 99 }), "{text}");
        }
        for bad in ["", "5", "5-", "-5", "5-4", "a-b", "bytes */100", "0-+1"] {
            assert_eq!(bad.parse::<Span>(), Err(RangeError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_resolved_range_lies_within_the_object(value in "bytes=[0-9]{0,4}-[0-9]{0,4}", size in 0u64..5000) {
            if let Requested::Part(range) = Requested::parse(&value)
                && let Some(span) = range.within(size) {
                prop_assert!(span.first <= span.last && span.last < size && span.length() <= size);
            }
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}") {
            let _ = (Requested::parse(&text), text.parse::<Span>());
        }
    }
}
