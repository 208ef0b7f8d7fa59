//! What is a password, and what do we keep of it?
//!
//! Argon2id with 19 MiB, two passes and one lane: the first choice of OWASP's password storage cheat sheet, and the one of
//! its equally strong settings that fits here. Fewer passes would need more memory (46 MiB for one), and memory is what a
//! flood of logins costs us; more passes would cost every honest login the time instead.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use data_encoding::BASE32_NOPAD;

use super::Error;

/// The fewest characters of a password that we set (NIST SP 800-63B 3.1.1.2, and GitLab's rule).
const MIN_LENGTH: usize = 8;
/// The most bytes. Longer ones are a mistake with a file, not a password.
const MAX_LENGTH: usize = 1024;
/// Bytes of chance in a generated password: 160 bits, 32 characters.
const GENERATED: usize = 20;

/// What a hash costs: KiB of memory, passes and lanes.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// Bytes of a stored salt and of a stored hash, as the library makes them.
const SALT: usize = 16;
const HASH: usize = 32;

/// A password in the clear, fit to be set. It never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// A password made by chance: 32 letters and digits that cannot be mistaken for one another.
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = [0; GENERATED];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Internal("the random number generator"))?;
        Ok(Self(BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()))
    }

    /// The text, for showing it once to whoever will use it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored: a PHC string with a salt of its own. Takes about 20 ms and 19 MiB.
    pub fn hash(&self) -> Result<String, Error> {
        let failed = |_| Error::Internal("password hashing");
        let (memory, passes, lanes) = COST;
        let params = Params::new(memory, passes, lanes, None).map_err(|_| Error::Internal("password hashing"))?;
        let hasher = Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, params);
        let hash: PasswordHash = hasher.hash_password(self.0.as_bytes()).map_err(failed)?;
        Ok(hash.to_string())
    }
}

impl FromStr for Password {
    type Err = PasswordError;

    fn from_str(text: &str) -> Result<Self, PasswordError> {
        if text.chars().count() < MIN_LENGTH {
            return Err(PasswordError::TooShort);
        }
        if text.len() > MAX_LENGTH {
            return Err(PasswordError::TooLong);
        }
        // RFC 7617 2: clients cannot send these in a Basic header.
        if text.chars().any(char::is_control) {
            return Err(PasswordError::Control);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Why a text cannot be set as a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Fewer than 8 characters.
    #[error("a password has at least 8 characters")]
    TooShort,
    /// More than 1024 bytes.
    #[error("a password has at most 1024 bytes")]
    TooLong,
    /// A control character, such as the end of a line.
    #[error("a password has no control characters (is there more than one line?)")]
    Control,
}

/// A PHC string like that of [`Password::hash`] that no password is known for: salt and hash are both made by chance. To find
/// out that a password does not match it costs the same as with any other, since what is compared comes last; to make
/// it costs nothing.
pub(super) fn decoy() -> Result<String, Error> {
    let mut chance = [0; SALT + HASH];
    aws_lc_rs::rand::fill(&mut chance).map_err(|_| Error::Internal("the random number generator"))?;
    let (salt, hash) = chance.split_at(SALT);
    let ((memory, passes, lanes), version) = (COST, Version::V0x13 as u32);
    let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
    Ok(format!("$argon2id$v={version}$m={memory},t={passes},p={lanes}${salt}${hash}"))
}

/// Whether the bytes are the password of a stored PHC string. Takes as long as [`Password::hash`].
pub(super) fn matches(stored: &str, password: &[u8]) -> bool {
    PasswordHash::new(stored).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

/// The password that the operator chose for the first admin: `PIERHEAD_ADMIN_PASSWORD`, or the content of the file that
/// `PIERHEAD_ADMIN_PASSWORD_FILE` names, less a newline at its end. Empty variables count as absent.
pub fn first_password(environment: impl Fn(&str) -> Option<String>) -> Result<Option<Password>, Error> {
    let set = |name| environment(name).filter(|value| !value.is_empty());
    let (origin, text) = match (set("PIERHEAD_ADMIN_PASSWORD"), set("PIERHEAD_ADMIN_PASSWORD_FILE")) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(Error::TwoPasswords),
        (Some(text), None) => ("PIERHEAD_ADMIN_PASSWORD".to_owned(), text),
        (None, Some(file)) => {
            let path = PathBuf::from(&file);
            (file, std::fs::read_to_string(&path).map_err(|source| Error::File { path, source })?)
        }
    };
    let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    text.parse().map(Some).map_err(|source| Error::Password { origin, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_argon2id_with_owasps_parameters_and_matches_only_its_password() {
        let stored = "correct horse".parse::<Password>().unwrap().hash().unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(matches(&stored, b"correct horse"));
        assert!(!matches(&stored, b"correct horsf") && !matches("not a hash", b"correct horse"));
        assert_ne!(stored, "correct horse".parse::<Password>().unwrap().hash().unwrap(), "salted");
    }

    #[test]
    fn passwords_that_nobody_could_type_or_guess_too_easily_are_refused() {
        for (text, problem) in [
            ("", PasswordError::TooShort),
            ("1234567", PasswordError::TooShort),
            ("two\nlines of it", PasswordError::Control),
            (&"x".repeat(1025), PasswordError::TooLong),
        ] {
            assert_eq!(text.parse::<Password>(), Err(problem), "{text:?}");
        }
        assert!("12345678".parse::<Password>().is_ok() && "пароль 12".parse::<Password>().is_ok());
    }

    #[test]
    fn a_decoy_costs_what_a_stored_hash_costs_and_matches_nothing() {
        let real = "correct horse".parse::<Password>().unwrap().hash().unwrap();
        let (one, two) = (decoy().unwrap(), decoy().unwrap());
        assert_ne!(one, two);
        let [real, decoy] = [&real, &one].map(|text| PasswordHash::new(text).unwrap());
        assert_eq!((decoy.algorithm, decoy.version), (real.algorithm, real.version));
        assert_eq!(decoy.params.as_str(), real.params.as_str());
        let lengths = |hash: &PasswordHash| (hash.salt.unwrap().len(), hash.hash.unwrap().len());
        assert_eq!(lengths(&decoy), lengths(&real));
        assert!(!matches(&one, b"correct horse") && !matches(&one, b""));
    }

    #[test]
    fn generated_passwords_are_long_differ_and_can_be_set() {
        let (one, two) = (Password::generate().unwrap(), Password::generate().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.reveal().len(), 32);
        assert_eq!(one.reveal().parse::<Password>(), Ok(one.clone()));
        assert_eq!(format!("{one:?}"), "<redacted>");
    }

    #[test]
    fn the_first_password_comes_from_the_environment_or_a_file_and_not_from_both() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        crate::storage::durable::write(&file, b"from the file\r\n", 0o600).unwrap();
        let file = file.to_str().unwrap().to_owned();
        let given = |direct: &str, path: &str| {
            let (direct, path) = (direct.to_owned(), path.to_owned());
            first_password(move |name| match name {
                "PIERHEAD_ADMIN_PASSWORD" => Some(direct.clone()),
                "PIERHEAD_ADMIN_PASSWORD_FILE" => Some(path.clone()),
                _ => None,
            })
        };
        assert_eq!(given("", "").unwrap(), None);
        assert_eq!(given("from a variable", "").unwrap().unwrap().reveal(), "from a variable");
        assert_eq!(given("", &file).unwrap().unwrap().reveal(), "from the file");
        assert!(matches!(given("from a variable", &file), Err(Error::TwoPasswords)));
        assert!(matches!(given("short", ""), Err(Error::Password { .. })));
        assert!(matches!(given("", "/nonexistent/file"), Err(Error::File { .. })));
    }
}
