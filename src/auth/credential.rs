//! What did the caller show, and who is that?

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::metadata::{Account, AccountName};

/// What a caller shows to the token endpoint.
///
/// Access, deploy and job tokens will be further kinds. All arrive as a Basic password, so [`Credential::basic`] is where
/// they are told apart: by a login that no account may have, or by the prefix of the token.
#[derive(PartialEq, Eq)]
pub(super) enum Credential {
    /// Nothing.
    None,
    /// The name and password of an account.
    Password {
        /// As it was sent.
        name: String,
        /// As it was sent; not necessarily text.
        password: Vec<u8>,
    },
}

/// Credentials were sent, in a form that is no credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

impl Credential {
    /// Reads the `Authorization` header (RFC 7617).
    pub(super) fn basic(headers: &HeaderMap) -> Result<Self, Malformed> {
        let Some(value) = headers.get(AUTHORIZATION) else { return Ok(Self::None) };
        let encoded = after_scheme(value.as_bytes(), "basic").ok_or(Malformed)?;
        let decoded = STANDARD.decode(encoded).map_err(|_| Malformed)?;
        let colon = decoded.iter().position(|byte| *byte == b':').ok_or(Malformed)?;
        let name = std::str::from_utf8(&decoded[..colon]).map_err(|_| Malformed)?.to_owned();
        Ok(Self::Password { name, password: decoded[colon + 1..].to_vec() })
    }
}

/// The token of an `Authorization: Bearer` header (RFC 6750 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?;
    std::str::from_utf8(after_scheme(value.as_bytes(), "bearer")?).ok()
}

/// What follows the scheme, whose capitals do not matter (RFC 9110 11.1).
fn after_scheme<'a>(value: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let (written, rest) = value.split_at_checked(scheme.len())?;
    let rest = rest.strip_prefix(b" ")?.trim_ascii();
    written.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
}

/// Who the caller turned out to be.
#[derive(Debug)]
pub(super) enum Identity {
    /// Nobody in particular.
    Anonymous,
    /// The holder of an account.
    Account(Account),
}

impl Identity {
    /// The account's name.
    pub(super) fn name(&self) -> Option<&AccountName> {
        match self {
            Self::Anonymous => None,
            Self::Account(account) => Some(&account.name),
        }
    }

    /// The `auth_type` claim, in GitLab's words: its registry counts by it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous => "none",
            Self::Account(_) => "gitlab_or_ldap",
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(value: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        headers
    }

    #[test]
    fn a_password_may_hold_colons_and_any_bytes() {
        let value = format!("bAsIc {}", STANDARD.encode(b"alice:a:b\xff"));
        let expected = Credential::Password { name: "alice".to_owned(), password: b"a:b\xff".to_vec() };
        assert!(Credential::basic(&headers(value.as_bytes())) == Ok(expected));
        assert!(Credential::basic(&HeaderMap::new()) == Ok(Credential::None));
    }

    #[test]
    fn what_is_no_credential_is_malformed_and_never_nobody() {
        let no_colon = format!("Basic {}", STANDARD.encode("alice"));
        let not_text = format!("Basic {}", STANDARD.encode(b"\xff\xfe:x"));
        for value in ["", "Basic", "Basic ", "Basic !!", "Bearer abc", "Digest x", &no_colon, &not_text] {
            assert!(Credential::basic(&headers(value.as_bytes())) == Err(Malformed), "{value}");
        }
    }

    #[test]
    fn a_bearer_token_is_found_whatever_the_capitals() {
        assert_eq!(bearer(&headers(b"bearer abc ")), Some("abc"));
        assert_eq!(bearer(&headers(b"Basic abc")), None);
        assert_eq!(bearer(&headers(b"Bearerabc")), None);
    }

    proptest! {
        #[test]
        fn any_name_and_password_come_back(name in "[^:\\x00-\\x1f]{0,20}", password: Vec<u8>) {
            let pair = [name.as_bytes(), b":", &password].concat();
            let value = format!("Basic {}", STANDARD.encode(pair));
            let sent = Credential::Password { name, password };
            prop_assert!(Credential::basic(&headers(value.as_bytes())) == Ok(sent));
        }

        #[test]
        fn no_header_makes_it_panic(value in "[\\x20-\\x7e]{0,60}") {
            let headers = headers(value.as_bytes());
            let _ = (Credential::basic(&headers), bearer(&headers)); // only that they return is claimed
        }
    }
}
