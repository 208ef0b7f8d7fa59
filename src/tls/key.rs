//! Private keys, also behind a password.
//!
//! What OpenSSL writes today is PKCS#8 with PBES2 (RFC 8018): `-----BEGIN ENCRYPTED PRIVATE KEY-----`. The older way, with
//! `Proc-Type: 4,ENCRYPTED` in the PEM, makes the key of one round of MD5; whoever has such a file is told how to convert
//! it.

use std::path::Path;

use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::Error;
use super::files::read_file;

const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// The private key of a file; `password` is the file of its password, if it has one.
pub(super) fn read(path: &Path, password: Option<&Path>) -> Result<PrivateKeyDer<'static>, Error> {
    let pem = read_file(path)?;
    let text = String::from_utf8_lossy(&pem);
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(Error::Outdated { key: path.to_owned(), how: "Proc-Type: 4,ENCRYPTED" });
    }
    match encrypted_part(&text) {
        Some(part) => {
            let password = password.ok_or_else(|| Error::Encrypted { key: path.to_owned() })?;
            decrypt(part, path, password)
        }
        None => PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| Error::Empty { path: path.to_owned(), wanted: "private key" }),
    }
}

/// The encrypted key in a file that may hold more.
fn encrypted_part(text: &str) -> Option<&str> {
    let from = text.find(&format!("-----BEGIN {ENCRYPTED}-----"))?;
    let end = format!("-----END {ENCRYPTED}-----");
    let to = from + text[from..].find(&end)? + end.len();
    Some(&text[from..to])
}

fn decrypt(pem: &str, path: &Path, password: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let damaged = || Error::Empty { path: path.to_owned(), wanted: "private key" };
    let (_, document) = SecretDocument::from_pem(pem).map_err(|_| damaged())?;
    let outdated = || Error::Outdated { key: path.to_owned(), how: "neither AES with PBKDF2 nor with scrypt" };
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| outdated())?;
    if encrypted.encryption_algorithm.pbes2().is_none() {
        return Err(outdated());
    }
    let text = read_file(password)?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let wrong = |_| Error::Password { key: path.to_owned(), password: password.to_owned() };
    let key = encrypted.decrypt(line).map_err(wrong)?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    /// A key as OpenSSL writes it with these words, and the file of its password.
    fn openssl(folder: &Path, words: &[&str]) -> (PathBuf, PathBuf) {
        let (key, password) = (folder.join("a.key"), folder.join("password"));
        crate::storage::durable::write(&password, b"correct horse\r\nsecond line", 0o600).unwrap();
        let made = Command::new("openssl").args(words).arg("-out").arg(&key).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        (key, password)
    }

    #[test]
    fn keys_behind_a_password_are_read_with_it_and_without_it_the_way_out_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let of = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pass", "pass:correct horse"];
        let (key, password) = openssl(folder.path(), &[&of[..], &["-aes-256-cbc"]].concat());
        assert!(matches!(read(&key, Some(&password)).unwrap(), PrivateKeyDer::Pkcs8(_)));
        let said = |password: Option<&Path>| read(&key, password).unwrap_err().to_string();
        assert!(said(None).contains("name the file that holds its password"), "{}", said(None));
        crate::storage::durable::write(&password, b"wrong horse\n", 0o600).unwrap();
        assert!(said(Some(&password)).contains("is not the password of the key"), "{}", said(Some(&password)));
        assert!(said(Some(Path::new("/nowhere"))).contains("cannot read /nowhere"));
    }

    #[test]
    fn the_old_way_of_encrypting_is_refused_with_the_command_that_converts() {
        let folder = tempfile::tempdir().unwrap();
        let of = ["genrsa", "-traditional", "-aes128", "-passout", "pass:correct horse"];
        let (key, password) = openssl(folder.path(), &of);
        let said = read(&key, Some(&password)).unwrap_err().to_string();
        assert!(said.contains("openssl pkcs8 -topk8"), "{said}");
    }
}
