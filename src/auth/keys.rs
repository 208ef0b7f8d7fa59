//! With what are our tokens signed, and how do other registries come to trust it?
//!
//! A private key and a self-signed certificate of it, both PEM. They are made on first start, for good: other registries
//! hold the certificate as `rootcertbundle`, so it lasts twenty years and is never replaced behind anybody's back. A
//! missing certificate is made again from the key; a missing key beside a certificate is an error.
//!
//! The key is parsed once: parsing costs more than signing.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyUsagePurpose, RsaKeySize};
use x509_parser::pem::Pem;

use super::trust::libtrust_id;
use super::{Algorithm, Config, Error};
use crate::metadata::lock;
use crate::storage::durable;

/// How long our certificate is valid: 20 years.
const LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
/// How much earlier it begins, for registries whose clock is behind ours.
const HEAD_START: Duration = Duration::from_secs(24 * 60 * 60);

/// The key pair of our tokens.
pub(super) struct TokenKey {
    pair: Pair,
    /// The public key as the certificate holds it: a curve point, or PKCS #1.
    pub(super) public: Vec<u8>,
    /// libtrust's fingerprint of the public key, by which Distribution 2 and GitLab look keys up.
    pub(super) id: String,
    /// The certificate for the `x5c` header (RFC 7515 4.1.6): standard base64 of the DER.
    pub(super) x5c: String,
    /// The certificate in PEM.
    pub(super) certificate: String,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl TokenKey {
    /// Reads the key and its certificate, making what is missing.
    pub(super) fn open(config: &Config, now: Timestamp) -> Result<Self, Error> {
        let (key, certificate) = match (read(&config.key)?, read(&config.certificate)?) {
            (Some(key), Some(certificate)) => (key, certificate),
            _ => Self::make_what_is_missing(config, now)?,
        };
        warn_if_open_to_all(&config.key);
        Self::parse(config, &key, certificate)
    }

    /// Two processes that start at once must not each make a key of its own, so one waits and finds what the other made.
    fn make_what_is_missing(config: &Config, now: Timestamp) -> Result<(String, String), Error> {
        let folder = config.key.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let _alone = lock(folder).map_err(|source| Error::File { path: folder.to_owned(), source })?;
        match (read(&config.key)?, read(&config.certificate)?) {
            (Some(key), Some(certificate)) => Ok((key, certificate)),
            (Some(key), None) => {
                let certificate = make_certificate(config, &key, now)?;
                Ok((key, certificate))
            }
            (None, None) => {
                let key = make_key(config)?;
                let certificate = make_certificate(config, &key, now)?;
                Ok((key, certificate))
            }
            (None, Some(_)) => {
                let problem = format!(
                    "is missing, but its certificate {} is there: put the key back, or remove the certificate to have both made anew",
                    config.certificate.display()
                );
                Err(Error::Key { path: config.key.clone(), problem })
            }
        }
    }

    fn parse(config: &Config, key: &str, certificate: String) -> Result<Self, Error> {
        let pair = parse_key(key, config).map_err(|problem| Error::Key { path: config.key.clone(), problem })?;
        let refused = |problem: &str| Error::Key { path: config.certificate.clone(), problem: problem.to_owned() };
        let pem = first_pem(&certificate, "CERTIFICATE").ok_or_else(|| refused("is not a certificate in PEM"))?;
        let parsed = pem.parse_x509().map_err(|_| refused("is not an X.509 certificate"))?;
        let public = parsed.public_key().subject_public_key.data.to_vec();
        if public != pair.public() {
            return Err(refused(&format!("is not the certificate of the key {}", config.key.display())));
        }
        Ok(Self {
            pair,
            public,
            id: libtrust_id(parsed.public_key().raw),
            x5c: STANDARD.encode(&pem.contents),
            certificate,
        })
    }

    /// The signature of a JWS: r and s one after the other (RFC 7518 3.4), or RSASSA-PKCS1-v1_5.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let chance = SystemRandom::new();
        let failed = |_| Error::Internal("signing a token");
        match &self.pair {
            Pair::Ecdsa(pair) => Ok(pair.sign(&chance, message).map_err(failed)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &chance, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

impl Pair {
    fn public(&self) -> &[u8] {
        match self {
            Self::Ecdsa(pair) => pair.public_key().as_ref(),
            Self::Rsa(pair) => pair.public_key().as_ref(),
        }
    }
}

/// The key in the PEM text; otherwise what is wrong with it.
fn parse_key(text: &str, config: &Config) -> Result<Pair, String> {
    let Some(pem) = first_pem(text, "PRIVATE KEY") else {
        let wanted = "must hold one unencrypted PKCS #8 key (BEGIN PRIVATE KEY); `openssl pkcs8 -topk8 -nocrypt` makes one of other forms";
        return Err(wanted.to_owned());
    };
    let (pair, wanted) = match config.algorithm {
        Algorithm::Es256 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pem.contents);
            (pair.map(Pair::Ecdsa), "a P-256 key, which ES256 needs")
        }
        Algorithm::Rs256 => {
            (RsaKeyPair::from_pkcs8(&pem.contents).map(Pair::Rsa), "an RSA key of 2048 bits or more, which RS256 needs")
        }
    };
    pair.map_err(|_| {
        format!(
            "is not {wanted}: write the token.algorithm that it is for, or move it and its certificate {} away to have new \
             ones made (registries that trust the old certificate need the new one then)",
            config.certificate.display()
        )
    })
}

fn first_pem(text: &str, label: &str) -> Option<Pem> {
    Pem::iter_from_buffer(text.as_bytes()).flatten().find(|pem| pem.label == label)
}

fn make_key(config: &Config) -> Result<String, Error> {
    let made = match config.algorithm {
        Algorithm::Es256 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        Algorithm::Rs256 => rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
    };
    let text = made.map_err(|_| Error::Internal("making the token key"))?.serialize_pem();
    write(&config.key, &text, durable::SECRET)?;
    Ok(text)
}

fn make_certificate(config: &Config, key: &str, now: Timestamp) -> Result<String, Error> {
    let refused =
        |_| Error::Key { path: config.key.clone(), problem: "is not a private key that we can use".to_owned() };
    let key = rcgen::KeyPair::from_pem(key).map_err(refused)?;
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{} token signing", config.issuer));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.not_before = now - HEAD_START;
    params.not_after = now + LIFETIME;
    let text = params.self_signed(&key).map_err(|_| Error::Internal("making the token certificate"))?.pem();
    write(&config.certificate, &text, durable::PUBLIC)?;
    Ok(text)
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.to_owned(), source }),
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    durable::write(path, text.as_bytes(), mode).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// A key that the operator brought keeps its mode (a group may be meant), but the whole world is hardly meant.
fn warn_if_open_to_all(path: &Path) {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0) {
        tracing::warn!(key = %path.display(), "every user of this machine may read the token key: chmod o-rwx");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tests::config;

    const NOW: Timestamp = Timestamp::constant(1_760_000_000, 0);

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_a_key_for_us_alone_and_a_certificate_for_everybody() {
        for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
            let folder = tempfile::tempdir().unwrap();
            let config = Config { algorithm, ..config(folder.path()) };
            let made = TokenKey::open(&config, NOW).unwrap();
            assert_eq!((mode(&config.key), mode(&config.certificate)), (0o600, 0o644));
            let again = TokenKey::open(&config, NOW).unwrap();
            assert_eq!((made.id, made.certificate), (again.id, again.certificate));
        }
    }

    #[test]
    fn the_certificate_lasts_twenty_years_from_the_day_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let made = TokenKey::open(&config(folder.path()), NOW).unwrap();
        let pem = first_pem(&made.certificate, "CERTIFICATE").unwrap();
        let validity = pem.parse_x509().unwrap().validity().clone();
        assert_eq!(validity.not_before.timestamp(), NOW.as_second() - 86_400);
        assert_eq!(validity.not_after.timestamp(), NOW.as_second() + 20 * 365 * 86_400);
        assert_eq!(pem.parse_x509().unwrap().subject().to_string(), "CN=pierhead token signing");
    }

    #[test]
    fn a_lost_certificate_is_made_again_from_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let made = TokenKey::open(&config, NOW).unwrap();
        std::fs::remove_file(&config.certificate).unwrap();
        let again = TokenKey::open(&config, NOW).unwrap();
        assert_eq!(made.id, again.id);
    }

    #[test]
    fn keys_that_do_not_fit_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let problem = |config: &Config| TokenKey::open(config, NOW).err().unwrap().to_string();
        TokenKey::open(&config, NOW).unwrap();
        let as_rsa = Config { algorithm: Algorithm::Rs256, ..config.clone() };
        let refused = problem(&as_rsa);
        for said in
            [&*config.key.to_string_lossy(), "is not an RSA key", "RS256", "token.algorithm", "move it", "token.crt"]
        {
            assert!(refused.contains(said), "{refused}");
        }

        let other_folder = tempfile::tempdir().unwrap();
        let other = crate::auth::tests::config(other_folder.path());
        TokenKey::open(&other, NOW).unwrap();
        let crossed = Config { key: other.key, ..config.clone() };
        assert!(problem(&crossed).contains("is not the certificate of the key"), "{}", problem(&crossed));

        durable::write(&config.key, b"nothing like a key", 0o600).unwrap();
        assert!(problem(&config).contains("BEGIN PRIVATE KEY"));
        std::fs::remove_file(&config.key).unwrap();
        assert!(problem(&config).contains("put the key back"));
    }

    #[test]
    fn two_processes_that_start_at_once_end_with_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let ids: Vec<String> = std::thread::scope(|scope| {
            let open = || TokenKey::open(&config, NOW).unwrap().id;
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[test]
    fn a_libtrust_id_is_twelve_groups_of_four() {
        // Made with `openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | head -c 30 | base32`.
        let public = data_encoding::HEXLOWER.decode(LIBTRUST_SPKI.as_bytes()).unwrap();
        assert_eq!(libtrust_id(&public), LIBTRUST_ID);
    }

    const LIBTRUST_SPKI: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200048c954f1331fbc844d6057911f2e0d061d17a539ab212490ea671a7d02bf73067b44acd23f8b42607770bec80aeda39a7145353f66d45659b26a34f5537c66ae2";
    const LIBTRUST_ID: &str = "6B63:GDFJ:IQ7W:FL4W:MQJM:74TC:VBXL:MBUH:ODLU:MU3S:43QA:YHOD";
}
