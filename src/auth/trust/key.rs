//! What is a public key, under which names is it known, and did it sign this?
//!
//! **Invariant:** the key decides which algorithms may be, not the token: `none`, shared secrets (`HS*`) and algorithms of
//! other kinds of key verify nothing, because the table in [`Key::verifies`] has no line for them.

use aws_lc_rs::signature::{self as sign, EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::BASE32_NOPAD;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The algorithms that tokens may be signed with (RFC 7518 3.1, RFC 8037 3.1).
pub(super) const ALGORITHMS: [&str; 10] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];

/// The key usages of the X.509 world: named curves (RFC 5480 2.1.1.1) and Ed25519 (RFC 8410 3).
const ED25519: &str = "1.3.101.112";
const CURVES: [(&str, Curve); 3] =
    [("1.2.840.10045.3.1.7", Curve::P256), ("1.3.132.0.34", Curve::P384), ("1.3.132.0.35", Curve::P521)];

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// Modulus and exponent without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point: 4, x, y.
    Ec {
        curve: Curve,
        point: Vec<u8>,
    },
    Ed25519(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    fn named(name: &str) -> Option<Self> {
        [Self::P256, Self::P384, Self::P521].into_iter().find(|curve| curve.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// Bytes of a coordinate.
    fn width(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

/// The members of a JSON Web Key that make a public key (RFC 7518 6, RFC 8037 2).
#[derive(Deserialize)]
pub(super) struct Jwk {
    kty: String,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    pub(super) kid: Option<String>,
    #[serde(rename = "use")]
    pub(super) usage: Option<String>,
}

impl Key {
    /// The key of a certificate, if it is of a kind that signs tokens.
    pub(super) fn of_certificate(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        match info.parsed().ok()? {
            PublicKey::RSA(key) => Self::rsa(key.modulus, key.exponent),
            PublicKey::EC(point) => {
                let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
                let (_, curve) = CURVES.into_iter().find(|(oid, _)| *oid == curve)?;
                Self::ec(curve, point.data().to_vec())
            }
            _ if info.algorithm.algorithm.to_id_string() == ED25519 => {
                Self::ed25519(info.subject_public_key.data.to_vec())
            }
            _ => None,
        }
    }

    /// The key of a JWK, if it is of a kind that signs tokens.
    pub(super) fn of_jwk(jwk: &Jwk) -> Option<Self> {
        let bytes = |member: &Option<String>| URL_SAFE_NO_PAD.decode(member.as_deref()?).ok();
        match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Self::rsa(&bytes(&jwk.n)?, &bytes(&jwk.e)?),
            ("EC", Some(curve)) => {
                Self::ec(Curve::named(curve)?, [&[4], &bytes(&jwk.x)?[..], &bytes(&jwk.y)?[..]].concat())
            }
            ("OKP", Some("Ed25519")) => Self::ed25519(bytes(&jwk.x)?),
            _ => None,
        }
    }

    /// 2048 bits at least: shorter ones are broken, and the library refuses them too.
    fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        let plain = |bytes: &[u8]| bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())..].to_vec();
        let (n, e) = (plain(n), plain(e));
        ((256..=1024).contains(&n.len()) && !e.is_empty()).then_some(Self::Rsa { n, e })
    }

    fn ec(curve: Curve, point: Vec<u8>) -> Option<Self> {
        (point.len() == 1 + 2 * curve.width() && point.first() == Some(&4)).then_some(Self::Ec { curve, point })
    }

    fn ed25519(point: Vec<u8>) -> Option<Self> {
        (point.len() == 32).then_some(Self::Ed25519(point))
    }

    /// The SHA-256 thumbprint (RFC 7638 3), by which Distribution 3 looks keys up.
    pub(super) fn thumbprint(&self) -> String {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let canonical = match self {
            Self::Rsa { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, text(e), text(n)),
            Self::Ec { curve, point } => {
                let (x, y) = point[1..].split_at(curve.width());
                format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, curve.name(), text(x), text(y))
            }
            Self::Ed25519(point) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, text(point)),
        };
        text(&Sha256::digest(canonical.as_bytes()))
    }

    /// Whether this key made the signature with this algorithm.
    pub(super) fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let rsa = |n: &[u8], e: &[u8], kind: &RsaParameters| {
            RsaPublicKeyComponents { n, e }.verify(kind, message, signature).is_ok()
        };
        let ec = |point: &[u8], kind: &'static EcdsaVerificationAlgorithm| {
            sign::UnparsedPublicKey::new(kind, point).verify(message, signature).is_ok()
        };
        match (self, algorithm) {
            (Self::Rsa { n, e }, "RS256") => rsa(n, e, &sign::RSA_PKCS1_2048_8192_SHA256),
            (Self::Rsa { n, e }, "RS384") => rsa(n, e, &sign::RSA_PKCS1_2048_8192_SHA384),
            (Self::Rsa { n, e }, "RS512") => rsa(n, e, &sign::RSA_PKCS1_2048_8192_SHA512),
            (Self::Rsa { n, e }, "PS256") => rsa(n, e, &sign::RSA_PSS_2048_8192_SHA256),
            (Self::Rsa { n, e }, "PS384") => rsa(n, e, &sign::RSA_PSS_2048_8192_SHA384),
            (Self::Rsa { n, e }, "PS512") => rsa(n, e, &sign::RSA_PSS_2048_8192_SHA512),
            (Self::Ec { curve: Curve::P256, point }, "ES256") => ec(point, &sign::ECDSA_P256_SHA256_FIXED),
            (Self::Ec { curve: Curve::P384, point }, "ES384") => ec(point, &sign::ECDSA_P384_SHA384_FIXED),
            (Self::Ec { curve: Curve::P521, point }, "ES512") => ec(point, &sign::ECDSA_P521_SHA512_FIXED),
            (Self::Ed25519(point), "EdDSA") => {
                sign::UnparsedPublicKey::new(&sign::ED25519, point).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// `ABCD:EFGH:…`: the first 240 bits of the SHA-256 of the SubjectPublicKeyInfo in base32, in twelve groups of four.
pub(in crate::auth) fn libtrust_id(public_key_info: &[u8]) -> String {
    let text = BASE32_NOPAD.encode(&Sha256::digest(public_key_info)[..30]);
    let groups: Vec<&str> = (0..text.len()).step_by(4).map(|at| &text[at..at + 4]).collect();
    groups.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_the_standard() {
        // RFC 7638 3.1, RFC 8037 A.3.
        let rsa = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#;
        let ed = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let thumbprint = |text: &str| Key::of_jwk(&serde_json::from_str(text).unwrap()).unwrap().thumbprint();
        assert_eq!(thumbprint(rsa), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(thumbprint(ed), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn shared_secrets_and_short_keys_are_no_keys() {
        let key = |text: &str| Key::of_jwk(&serde_json::from_str(text).unwrap());
        assert_eq!(key(r#"{"kty":"oct","k":"AAAA"}"#), None);
        assert_eq!(key(r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#), None);
        assert_eq!(key(r#"{"kty":"EC","crv":"secp256k1","x":"AAAA","y":"AAAA"}"#), None);
        assert_eq!(key(r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}"#), None);
    }
}
