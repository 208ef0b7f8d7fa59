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
    /// A file of keys, certificates or passwords cannot be used.
    #[error("{}: {problem}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The file of names and passwords is missing.
    #[error("{}: is missing, so nobody could log in; `htpasswd -Bc {} NAME` makes it and asks for a password", .0.display(), .0.display())]
    NoHtpasswd(PathBuf),
    /// Tokens of another service are to count, and no file says which.
    #[error("neither certificates (rootcertbundle) nor keys (jwks) are given, so no token could be trusted")]
    NoTrust,
    /// An algorithm that tokens cannot be signed with, or must not.
    #[error(
        "{0:?} is no signature algorithm for tokens: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA are (HS256 and its like sign with a shared secret, which certificates and public keys are not)"
    )]
    Algorithm(String),
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
