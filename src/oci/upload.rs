//! The name of an upload session.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// A UUID in its usual form: 36 characters, hyphens, lower case. Hard to guess, and safe in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(Uuid);

impl UploadId {
    /// A name that nothing had before.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl FromStr for UploadId {
    type Err = UploadIdError;

    fn from_str(text: &str) -> Result<Self, UploadIdError> {
        let upload = Self(Uuid::try_parse(text).map_err(|_| UploadIdError)?);
        if upload.to_string() == text { Ok(upload) } else { Err(UploadIdError) }
    }
}

/// The text names no upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an upload is named by a UUID in lower case")]
pub struct UploadIdError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_spelling_only() {
        let upload = UploadId::random().to_string();
        assert_eq!(upload.parse::<UploadId>().unwrap().to_string(), upload);
        let simple = upload.replace('-', "");
        let upper = "6D7C1F9E-1E0C-4F93-8A0E-0A5A6E1B2C3D".to_owned();
        for bad in [simple, upper, format!("{{{upload}}}"), format!("urn:uuid:{upload}"), "..".into(), String::new()] {
            assert!(bad.parse::<UploadId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_spelled_as_it_came(text in "[0-9a-fA-F]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\\PC{0,40}") {
            if let Ok(upload) = text.parse::<UploadId>() {
                prop_assert_eq!(upload.to_string(), text);
            }
        }
    }
}
