//! Repository names (OCI distribution-spec, "Pulling manifests": `<name>`).

use std::fmt;
use std::str::FromStr;

/// The longest name we take. Clients limit host and name together to 255 characters.
pub const MAX_LENGTH: usize = 255;

/// A valid repository name: components of lower-case letters and digits with inner separators, joined by `/`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Box<str>);

impl RepositoryName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Between slashes, from the left.
    pub fn components(&self) -> std::str::Split<'_, char> {
        self.0.split('/')
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_LENGTH {
            return Err(NameError::TooLong);
        }
        if !text.split('/').all(is_component) {
            return Err(NameError::Format);
        }
        Ok(Self(text.into()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let edges =
        bytes.first().zip(bytes.last()).is_some_and(|(first, last)| alphanumeric(*first) && alphanumeric(*last));
    edges
        && bytes.split(|byte| alphanumeric(*byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
        })
}

/// Why a text is not a repository name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The grammar.
    #[error(
        "a repository name has lower-case letters, digits and single inner . _ __ or - separators, in parts joined by /"
    )]
    Format,
    /// More than [`MAX_LENGTH`] characters.
    #[error("a repository name has at most 255 characters")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_grammar_of_the_specification() {
        for good in ["a", "a/b", "g/p--x", "g/p---x", "g/p__x", "g/p.x", "library/ubuntu", "0/1", "a-b_c.d"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        for bad in [
            "", "/", "a/", "/a", "a//b", "_g/p", "g/_p", "g/p-", "g/p_", "g/-p", "g/p___x", "g/p..x", "g/p._x", "A",
            "a b", "a/../b", "é",
        ] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
        assert_eq!("a".repeat(256).parse::<RepositoryName>(), Err(NameError::TooLong));
    }

    proptest! {
        #[test]
        fn a_name_never_steps_out_of_its_folder(text in "[a-z0-9._/-]{0,40}") {
            if let Ok(name) = text.parse::<RepositoryName>() {
                prop_assert!(name.components().all(|part| !part.is_empty() && part != "." && part != ".." && !part.starts_with('_')));
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }
}
