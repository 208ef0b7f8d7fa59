//! Why the room of accounts and tokens cannot do its work.

use std::io;
use std::path::PathBuf;

use super::password::PasswordError;
use crate::metadata;

/// Why accounts or tokens cannot be served. Refused logins are not among these: they are answers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key, certificate or password file cannot be read or made.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key or the certificate of our tokens cannot be used.
    #[error("{}: {problem}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The database failed.
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
    /// A password that we were given to set.
    #[error("{origin}: {source}")]
    Password {
        /// Where it came from.
        origin: String,
        /// Why it is refused.
        source: PasswordError,
    },
    /// Both ways of giving the first password were used.
    #[error("PIERHEAD_ADMIN_PASSWORD and PIERHEAD_ADMIN_PASSWORD_FILE are both set; keep one")]
    TwoPasswords,
    /// The cryptographic library failed, or a thread of ours did: not the caller's doing.
    #[error("{0} failed")]
    Internal(&'static str),
}
