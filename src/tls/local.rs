//! How does a first start get a certificate that clients can be told to trust?
//!
//! A local authority of our own (`ca.crt`, `ca.key`) signs one server certificate (`server.crt`, `server.key`) for every
//! name in the configuration. Clients are told once to trust `ca.crt`; the server certificate may then be made again for
//! new names, or because it grows old, without touching them.
//!
//! The order of writing is the safety: a key is durable before the certificate that needs it, so a certificate on disk
//! always has its key, and a crash leaves only a key that the next start replaces.
//!
//! **Invariant:** keys are 0600. A complete authority is never replaced: clients trust it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::config::{Files, Local};
use super::{Error, files};
use crate::storage::durable;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The authority outlives the machine.
const AUTHORITY_DAYS: u32 = 20 * 365;
/// The longest that every client accepts of a certificate below an authority that its user installed.
const SERVER_DAYS: u32 = 825;
/// A server certificate with less than this left is made again at the next start.
const RENEW_DAYS: u32 = 90;
/// Clocks differ: what we sign is valid from an hour ago.
const SKEW: Duration = Duration::from_secs(60 * 60);

/// The local authority as it lies on disk.
#[derive(Debug, Clone)]
pub struct Authority {
    /// The server certificate and its key.
    pub server: Files,
    /// The certificate that clients must trust.
    pub certificate: PathBuf,
    /// Whether this start made the authority.
    pub made_now: bool,
}

/// Makes what is missing of the authority and its server certificate, and makes the latter again when it lacks a name or
/// grows old.
///
/// # Errors
/// Files that cannot be read or written, names that no certificate may carry, an authority whose key is gone.
pub fn ensure(local: &Local, now: SystemTime) -> Result<Authority, Error> {
    let folder = &local.directory;
    std::fs::create_dir_all(folder).map_err(|source| Error::Unwritable { path: folder.clone(), source })?;
    let path = |name: &str| folder.join(name);
    let (certificate, key) = (path("ca.crt"), path("ca.key"));
    let server = server(local);
    let made_now = !certificate.exists();
    if made_now {
        make_authority(&certificate, &key, now)?;
    }
    if made_now || !still_good(&server, &local.names, now) {
        make_server(&server, &local.names, (&certificate, &key), now)?;
    }
    Ok(Authority { server, certificate, made_now })
}

/// Where the server certificate and its key are, or will be.
pub fn server(local: &Local) -> Files {
    Files::new(local.directory.join("server.crt"), local.directory.join("server.key"))
}

fn still_good(server: &Files, names: &[String], now: SystemTime) -> bool {
    let Ok(leaf) = files::leaf(&server.certificate) else { return false };
    let renew_at = seconds(now + RENEW_DAYS * DAY);
    let carries = |wanted: &String| {
        let text = wanted.trim_matches(['[', ']']);
        leaf.names.iter().chain(&leaf.addresses).any(|name| name.eq_ignore_ascii_case(text))
    };
    leaf.not_after > renew_at && names.iter().all(carries) && files::read(server).is_ok()
}

fn make_authority(certificate: &Path, key: &Path, now: SystemTime) -> Result<(), Error> {
    let failed = |source| Error::Making { names: "the local authority".to_owned(), source };
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = named("Pierhead local authority");
    validity(&mut params, AUTHORITY_DAYS, now);
    let pair = KeyPair::generate().map_err(failed)?;
    let signed = params.self_signed(&pair).map_err(failed)?;
    write(key, &pair.serialize_pem(), 0o600)?;
    write(certificate, &signed.pem(), 0o644)
}

fn make_server(server: &Files, names: &[String], authority: (&Path, &Path), now: SystemTime) -> Result<(), Error> {
    let (certificate, key) = authority;
    let failed = |source| Error::Making { names: names.join(", "), source };
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })
    };
    if !key.exists() {
        return Err(Error::AuthorityKey { key: key.to_owned(), certificate: certificate.to_owned() });
    }
    let signer = KeyPair::from_pem(&read(key)?).map_err(failed)?;
    let issuer = Issuer::from_ca_cert_pem(&read(certificate)?, signer).map_err(failed)?;
    let bare: Vec<String> = names.iter().map(|name| name.trim_matches(['[', ']']).to_owned()).collect();
    let mut params = CertificateParams::new(bare).map_err(failed)?;
    params.distinguished_name = named(names.first().map_or("localhost", String::as_str));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, SERVER_DAYS, now);
    let pair = KeyPair::generate().map_err(failed)?;
    let signed = params.signed_by(&pair, &issuer).map_err(failed)?;
    write(&server.key, &pair.serialize_pem(), 0o600)?;
    write(&server.certificate, &signed.pem(), 0o644)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    // RFC 5280 A.1: a common name has at most 64 characters.
    name.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    name
}

fn validity(params: &mut CertificateParams, days: u32, now: SystemTime) {
    params.not_before = (now - SKEW).into();
    params.not_after = (now + days * DAY - SKEW).into(); // the limits of clients count from the beginning
}

pub(super) fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    durable::write(path, text.as_bytes(), mode).map_err(|source| Error::Unwritable { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn local(folder: &Path, names: &[&str]) -> Local {
        Local { directory: folder.join("tls"), names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn keys_are_private_and_a_second_start_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let names = local(folder.path(), &["localhost", "127.0.0.1", "[::1]"]);
        let first = ensure(&names, now()).unwrap();
        let bytes = |path: &Path| std::fs::read(path).unwrap();
        let before = (bytes(&first.certificate), bytes(&first.server.certificate));
        let second = ensure(&names, now() + 600 * DAY).unwrap();
        assert!(first.made_now && !second.made_now);
        assert_eq!(before, (bytes(&second.certificate), bytes(&second.server.certificate)));
        for key in [&first.server.key, &first.certificate.with_file_name("ca.key")] {
            assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_new_name_or_old_age_brings_a_new_certificate_below_the_same_authority() {
        let folder = tempfile::tempdir().unwrap();
        let first = ensure(&local(folder.path(), &["localhost"]), now()).unwrap();
        let authority = std::fs::read(&first.certificate).unwrap();
        let named = ensure(&local(folder.path(), &["localhost", "registry.test"]), now()).unwrap();
        assert_eq!(files::leaf(&named.server.certificate).unwrap().names, ["localhost", "registry.test"]);
        let before = files::leaf(&named.server.certificate).unwrap().not_after;
        ensure(&local(folder.path(), &["localhost"]), now() + (SERVER_DAYS - RENEW_DAYS + 1) * DAY).unwrap();
        assert!(files::leaf(&named.server.certificate).unwrap().not_after > before);
        assert_eq!(std::fs::read(&first.certificate).unwrap(), authority);
    }

    #[test]
    fn an_authority_without_its_key_is_not_replaced_but_explained() {
        let folder = tempfile::tempdir().unwrap();
        let first = ensure(&local(folder.path(), &["localhost"]), now()).unwrap();
        std::fs::remove_file(first.certificate.with_file_name("ca.key")).unwrap();
        assert!(ensure(&local(folder.path(), &["localhost"]), now()).is_ok(), "nothing to sign, nothing to miss");
        let error = ensure(&local(folder.path(), &["other.test"]), now()).unwrap_err().to_string();
        assert!(error.contains("ca.key is missing"), "{error}");
    }

    #[test]
    fn a_crash_between_key_and_certificate_is_mended_by_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let names = local(folder.path(), &["localhost"]);
        let first = ensure(&names, now()).unwrap();
        std::fs::remove_file(&first.server.certificate).unwrap();
        assert!(files::read(&ensure(&names, now()).unwrap().server).is_ok());
        std::fs::remove_file(&first.certificate).unwrap();
        let again = ensure(&names, now()).unwrap();
        assert!(again.made_now && files::read(&again.server).is_ok());
    }
}
