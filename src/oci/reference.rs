//! References: a tag or a digest (OCI distribution-spec, "Pulling manifests": `<reference>`).

use std::fmt;
use std::str::FromStr;

use super::Digest;

/// A valid tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

impl Tag {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let first = text.bytes().next().is_some_and(word);
        if first && text.len() <= 128 && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-') {
            Ok(Self(text.into()))
        } else {
            Err(TagError)
        }
    }
}

/// The text is not a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tag has 1 to 128 letters, digits, _ . and -, and does not start with . or -")]
pub struct TagError;

/// Names a manifest within a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// By a name that can move.
    Tag(Tag),
    /// By its content.
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_tag_is_what_the_specification_says(text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
            prop_assert_eq!(text.parse::<Tag>().map(|tag| tag.to_string()), Ok(text));
        }

        #[test]
        fn nothing_else_is_a_tag(text in "[a-c_./:%~\\- \\n\u{e9}-]{0,130}") {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let valid = text.starts_with(word)
                && text.len() <= 128
                && text.chars().all(|c| word(c) || c == '.' || c == '-');
            prop_assert_eq!(text.parse::<Tag>().is_ok(), valid);
        }
    }
}
