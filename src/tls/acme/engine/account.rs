//! Who are we at an authority (RFC 8555 7.3)?
//!
//! An account is a key, made and on the disk before the authority hears of it. instant-acme binds only accounts whose key
//! it made itself a moment ago, and some authorities take a binding once: a key that a power cut took would cost the
//! operator a new one. So the one request that makes an account is signed here.
//!
//! Asking again with the same key is harmless: an authority answers with the account that it has (RFC 8555 7.3.1).
//! By naming an authority the operator agrees to its terms of service.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::config::ExternalAccount;
use super::http::{Directory, Web};
use super::problem::Trouble;
use super::{Failure, Kind};

/// The most of a file that is read for a key.
const LIMIT: u64 = 64 * 1024;

/// What binds an account to one that the authority knows (RFC 8555 7.3.4).
pub(super) struct Binding {
    id: String,
    key: hmac::Key,
}

impl Binding {
    /// Reads its key.
    pub(super) fn read(account: &ExternalAccount) -> Result<Self, Failure> {
        let ours = |reason: String| Failure::new(Kind::Ours, reason);
        let path = account.key.display();
        let text =
            read(&account.key).map_err(|error| ours(format!("cannot read {path} (`tls.acme.eab.key`): {error}")))?;
        let line = text.lines().next().unwrap_or_default().trim().trim_end_matches('=');
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(line).or_else(|_| BASE64_STANDARD_NO_PAD.decode(line));
        match bytes {
            Ok(bytes) if !bytes.is_empty() => {
                Ok(Self { id: account.id.clone(), key: hmac::Key::new(hmac::HMAC_SHA256, &bytes) })
            }
            _ => Err(ours(format!("the first line of {path} (`tls.acme.eab.key`) is no key in base64url"))),
        }
    }
}

fn read(path: &std::path::Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

/// An account.
#[derive(Debug)]
pub(super) struct Account {
    /// What the authority calls it.
    pub(super) url: String,
    /// Whether it was there, with another contact.
    pub(super) outdated: bool,
}

/// The key of an account, which signs.
pub(super) struct Signer(EcdsaKeyPair);

impl Signer {
    /// From PKCS #8, P-256.
    pub(super) fn new(pkcs8: &[u8]) -> Result<Self, Failure> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map(Self).map_err(|_| {
            Failure::new(Kind::Ours, "the key of the account in `tls.acme.storage` is no P-256 key".to_owned())
        })
    }

    /// RFC 7517, RFC 7518 6.2.
    fn public(&self) -> Value {
        // An uncompressed point: a byte that says so, then both coordinates (SEC 1 2.3.3).
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, Trouble> {
        let signature = self.0.sign(&SystemRandom::new(), text);
        signature
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| Trouble::Broken("nothing can be signed".to_owned()))
    }
}

/// The account of this key; it is made if there is none.
pub(super) async fn account(
    web: &Web,
    directory: &Directory,
    signer: &Signer,
    contact: &[String],
    binding: Option<&Binding>,
) -> Result<Account, Trouble> {
    let nonce = nonce(web, directory).await?;
    let url = &directory.new_account;
    let mut wanted = json!({ "termsOfServiceAgreed": true, "contact": contact });
    if let Some(binding) = binding {
        wanted["externalAccountBinding"] = bound(binding, url, signer)?;
    }
    let protected = json!({ "alg": "ES256", "jwk": signer.public(), "nonce": nonce, "url": url });
    let signed = jws(&protected, &wanted, |text| signer.sign(text))?;
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/jose+json"))]);
    let answer = web.send(Method::POST, url, headers, signed.to_string().into()).await?.checked()?;
    let Some(url) = answer.headers.get(LOCATION).and_then(|url| url.to_str().ok()) else {
        return Err(Trouble::Broken("the authority does not say what it calls the account".to_owned()));
    };
    #[derive(Deserialize)]
    struct Known {
        contact: Option<Vec<String>>,
    }
    let known = serde_json::from_slice::<Known>(&answer.body).ok().and_then(|known| known.contact);
    let outdated = answer.status == StatusCode::OK && known.is_some_and(|known| known != contact);
    Ok(Account { url: url.to_owned(), outdated })
}

async fn nonce(web: &Web, directory: &Directory) -> Result<String, Trouble> {
    let answer =
        web.send(Method::HEAD, &directory.new_nonce, HeaderMap::new(), reqwest::Body::default()).await?.checked()?;
    let nonce = answer.headers.get(HeaderName::from_static("replay-nonce")).and_then(|nonce| nonce.to_str().ok());
    nonce.map(str::to_owned).ok_or_else(|| Trouble::Broken("the authority gives no nonce".to_owned()))
}

/// RFC 8555 7.3.4: our public key, signed with the key that the authority gave to its customer.
fn bound(binding: &Binding, url: &str, signer: &Signer) -> Result<Value, Trouble> {
    let protected = json!({ "alg": "HS256", "kid": binding.id, "url": url });
    jws(&protected, &signer.public(), |text| Ok(hmac::sign(&binding.key, text).as_ref().to_vec()))
}

/// RFC 7515 7.2.2.
fn jws(protected: &Value, payload: &Value, sign: impl Fn(&[u8]) -> Result<Vec<u8>, Trouble>) -> Result<Value, Trouble> {
    let (protected, payload) = (encode(protected.to_string().as_bytes()), encode(payload.to_string().as_bytes()));
    let signature = encode(&sign(format!("{protected}.{payload}").as_bytes())?);
    Ok(json!({ "protected": protected, "payload": payload, "signature": signature }))
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
