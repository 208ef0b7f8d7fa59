//! Tokens of a service made by hand, believed and not.

use std::path::PathBuf;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData};
use serde_json::json;
use tempfile::TempDir;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::super::Realm;
use super::*;
use crate::storage::durable;

const THEN: Timestamp = Timestamp::constant(1_760_000_000, 0);
const ALL_KINDS: [&str; 6] = ["ES256", "ES384", "ES512", "EdDSA", "RS256", "PS384"];

/// A token service: a key and the algorithm it signs with.
struct Service {
    algorithm: &'static str,
    pair: KeyPair,
}

impl Service {
    fn new(algorithm: &'static str) -> Self {
        let kind = match algorithm {
            "ES256" => &rcgen::PKCS_ECDSA_P256_SHA256,
            "ES384" => &rcgen::PKCS_ECDSA_P384_SHA384,
            "ES512" => &rcgen::PKCS_ECDSA_P521_SHA512,
            "EdDSA" => &rcgen::PKCS_ED25519,
            _ => &rcgen::PKCS_RSA_SHA256,
        };
        Self { algorithm, pair: KeyPair::generate_for(kind).unwrap() }
    }

    fn certificate(&self) -> rcgen::Certificate {
        dated(CertificateParams::default(), -10, 10).self_signed(&self.pair).unwrap()
    }

    fn key(&self) -> Key {
        let info = self.pair.subject_public_key_info();
        Key::of_certificate(&SubjectPublicKeyInfo::from_der(&info).unwrap().1).unwrap()
    }

    fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self.key() {
            Key::Rsa { n, e } => json!({ "kty": "RSA", "n": text(&n), "e": text(&e) }),
            Key::Ed25519(x) => json!({ "kty": "OKP", "crv": "Ed25519", "x": text(&x) }),
            Key::Ec { point, .. } => {
                let (x, y) = point[1..].split_at(point.len() / 2);
                let curve =
                    ["P-256", "P-384", "P-521"][[32, 48, 66].iter().position(|width| *width == x.len()).unwrap()];
                json!({ "kty": "EC", "crv": curve, "x": text(x), "y": text(y) })
            }
        }
    }

    fn libtrust(&self) -> String {
        libtrust_id(&self.pair.subject_public_key_info())
    }

    /// A token with these header members beside `alg`.
    fn token(&self, names: Value, claims: &Value) -> String {
        let mut header = names;
        if header.get("alg").is_none() {
            header["alg"] = json!(self.algorithm);
        }
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.sign(signed.as_bytes())))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let (der, chance) = (self.pair.serialize_der(), SystemRandom::new());
        let ecdsa = |kind| EcdsaKeyPair::from_pkcs8(kind, &der).unwrap().sign(&chance, message).unwrap();
        match self.algorithm {
            "ES256" => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).as_ref().to_vec(),
            "ES384" => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).as_ref().to_vec(),
            "ES512" => ecdsa(&signature::ECDSA_P521_SHA512_FIXED_SIGNING).as_ref().to_vec(),
            "EdDSA" => Ed25519KeyPair::from_pkcs8(&der).unwrap().sign(message).as_ref().to_vec(),
            algorithm => {
                let pair = RsaKeyPair::from_pkcs8(&der).unwrap();
                let mut signature = vec![0; pair.public_modulus_len()];
                let kind: &dyn signature::RsaEncoding =
                    if algorithm == "PS384" { &signature::RSA_PSS_SHA384 } else { &signature::RSA_PKCS1_SHA256 };
                pair.sign(kind, &chance, message, &mut signature).unwrap();
                signature
            }
        }
    }
}

/// Valid from so many to so many days after [`THEN`].
fn dated(mut params: CertificateParams, from: i64, to: i64) -> CertificateParams {
    let day = |days: i64| {
        let seconds = u64::try_from(THEN.as_second() + days * 86_400).unwrap();
        rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds)
    };
    (params.not_before, params.not_after) = (day(from), day(to));
    params
}

fn claims() -> Value {
    let then = THEN.as_second();
    json!({
        "iss": "issuer", "aud": "registry", "sub": "alice", "exp": then + 300, "nbf": then,
        "access": [{ "type": "repository", "name": "a/b", "actions": ["pull", "push", "dance"] }],
    })
}

fn with(member: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[member] = value;
    claims
}

/// Files of keys, and who believes them.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        durable::write(&path, text.as_bytes(), 0o600).unwrap();
        path
    }

    fn trust(&self, bundle: Option<&str>, key_set: Option<&str>) -> Trust {
        Trust {
            realm: Realm::Url("https://tokens.example.com/auth".to_owned()),
            service: "registry".to_owned(),
            issuer: "issuer".to_owned(),
            bundle: bundle.map(|text| self.file("bundle.pem", text)),
            key_set: key_set.map(|text| self.file("keys.json", text)),
            algorithms: Vec::new(),
        }
    }

    fn trusted(&self, bundle: &str) -> Trusted {
        Trusted::open(&self.trust(Some(bundle), None)).unwrap()
    }
}

async fn verify(trusted: &Trusted, token: &str, now: Timestamp) -> Result<Arc<Grant>, Invalid> {
    trusted.verify(token, now, Instant::now()).await
}

async fn is_believed(trusted: &Trusted, token: &str) -> bool {
    verify(trusted, token, THEN).await.is_ok()
}

fn later(seconds: i64) -> Timestamp {
    Timestamp::from_second(THEN.as_second() + seconds).unwrap()
}

#[tokio::test]
async fn a_key_of_the_bundle_is_found_by_every_name_that_services_use() {
    for algorithm in ALL_KINDS {
        let (files, service) = (Files::new(), Service::new(algorithm));
        let certificate = service.certificate();
        let trusted = files.trusted(&certificate.pem());
        for names in [
            json!({ "kid": service.libtrust() }),
            json!({ "kid": service.key().thumbprint() }),
            json!({ "x5c": [STANDARD.encode(certificate.der())] }),
            json!({ "jwk": service.jwk() }),
            json!({}),
            json!({ "x5c": ["nonsense"], "kid": service.libtrust() }),
        ] {
            let grant = verify(&trusted, &service.token(names.clone(), &claims()), THEN).await;
            let grant = grant.unwrap_or_else(|_| panic!("{algorithm} {names}"));
            assert_eq!((grant.subject.as_deref(), grant.issuer.as_deref()), (Some("alice"), Some("issuer")));
            assert_eq!(grant.access, crate::oci::scope::parse_all(["repository:a/b:pull,push"]));
        }
    }
}

#[tokio::test]
async fn a_key_of_a_key_set_is_found_by_its_kid_and_others_are_passed_over() {
    for algorithm in ALL_KINDS {
        let (files, service) = (Files::new(), Service::new(algorithm));
        let mut jwk = service.jwk();
        jwk["kid"] = json!("mine");
        let set = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0", "kid": "shared" }, 7, jwk] }).to_string();
        let trusted = Trusted::open(&files.trust(None, Some(&set))).unwrap();
        for (name, believed) in [("mine", true), (&service.key().thumbprint(), true), ("shared", false), ("", false)] {
            let token = service.token(json!({ "kid": name }), &claims());
            assert_eq!(is_believed(&trusted, &token).await, believed, "{algorithm} {name}");
        }
    }
}

#[tokio::test]
async fn nothing_else_is_believed() {
    let (files, service, stranger) = (Files::new(), Service::new("ES256"), Service::new("ES256"));
    let trusted = files.trusted(&service.certificate().pem());
    let kid = json!({ "kid": service.libtrust() });
    let good = service.token(kid.clone(), &claims());
    assert!(is_believed(&trusted, &good).await);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let rsa = Service::new("RS256");
    let audiences = |count: usize| with("aud", json!((0..count).map(|_| "registry").collect::<Vec<_>>()));
    assert!(is_believed(&trusted, &service.token(kid.clone(), &audiences(10))).await);
    let mut without_audience = claims();
    without_audience.as_object_mut().unwrap().remove("aud");
    let mac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, service.certificate().pem().as_bytes());
    let confused = service.token(json!({ "alg": "HS256", "kid": service.libtrust() }), &claims());
    let (confused, _) = confused.rsplit_once('.').unwrap();
    let confused_mac = URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&mac, confused.as_bytes()));
    for (what, token) in [
        ("a stranger", stranger.token(json!({}), &claims())),
        ("under our name", stranger.token(kid.clone(), &claims())),
        ("an unknown name", service.token(json!({ "kid": "nobody" }), &claims())),
        ("a stranger's key", stranger.token(json!({ "jwk": stranger.jwk() }), &claims())),
        (
            "a stranger's chain",
            stranger.token(json!({ "x5c": [STANDARD.encode(stranger.certificate().der())] }), &claims()),
        ),
        ("an algorithm of another kind", rsa.token(kid.clone(), &claims())),
        ("another algorithm of its kind", service.token(json!({ "alg": "ES384" }), &claims())),
        ("none", service.token(json!({ "alg": "none" }), &claims())),
        ("a certificate as shared secret", format!("{confused}.{confused_mac}")),
        ("what must be understood", service.token(json!({ "crit": ["b64"], "b64": false }), &claims())),
        ("another issuer", service.token(kid.clone(), &with("iss", json!("issuer2")))),
        ("another audience", service.token(kid.clone(), &with("aud", json!("registry2")))),
        ("too many audiences", service.token(kid.clone(), &audiences(11))),
        ("no audience", service.token(kid.clone(), &without_audience)),
        ("too long", service.token(kid.clone(), &with("more", json!("x".repeat(MAX_TOKEN))))),
        ("no signature", format!("{signed}.")),
        ("a part too many", format!("{good}.{signature}")),
        ("nothing", String::new()),
    ] {
        assert!(!is_believed(&trusted, &token).await, "{what}");
    }
}

#[tokio::test]
async fn only_the_algorithms_that_are_listed_count_when_some_are() {
    let (files, service) = (Files::new(), Service::new("RS256"));
    let trust = |algorithms: &[&str]| Trust {
        algorithms: algorithms.iter().map(ToString::to_string).collect(),
        ..files.trust(Some(&service.certificate().pem()), None)
    };
    let token = service.token(json!({}), &claims());
    assert!(is_believed(&Trusted::open(&trust(&["ES256", "RS256"])).unwrap(), &token).await);
    assert!(!is_believed(&Trusted::open(&trust(&["PS256"])).unwrap(), &token).await);
    for unsafe_one in ["HS256", "none", "rs256"] {
        assert!(matches!(Trusted::open(&trust(&[unsafe_one])), Err(Error::Algorithm(_))), "{unsafe_one}");
    }
}

#[tokio::test]
async fn clocks_may_differ_by_a_minute_both_ways() {
    let (files, service) = (Files::new(), Service::new("EdDSA"));
    let trusted = files.trusted(&service.certificate().pem());
    let token = service.token(json!({}), &claims());
    for (seconds, believed) in [(-61, false), (-60, true), (340, true), (359, true), (360, false), (370, false)] {
        assert_eq!(verify(&trusted, &token, later(seconds)).await.is_ok(), believed, "{seconds}");
    }
    assert!(matches!(verify(&trusted, &token, later(370)).await, Err(Invalid::Expired(_))));
    for forever in [json!(null), json!("soon"), json!(1e300)] {
        assert!(!is_believed(&trusted, &service.token(json!({}), &with("exp", forever))).await);
    }
}

#[tokio::test]
async fn without_access_a_token_allows_nothing_but_is_one() {
    let (files, service) = (Files::new(), Service::new("EdDSA"));
    let trusted = files.trusted(&service.certificate().pem());
    for access in [json!(null), json!([]), json!([{ "type": "repository", "name": "A/B", "actions": ["pull"] }])] {
        let grant = verify(&trusted, &service.token(json!({}), &with("access", access)), THEN).await.unwrap();
        assert_eq!(grant.access, []);
    }
}

/// A root, an authority below it, and a leaf with this service's key; the leaf's dates in days around [`THEN`].
fn chain_to(service: &Service, root: (IsCa, i64), from: i64, to: i64) -> (String, Vec<String>) {
    chain_through(service, root, 100, from, to)
}

/// The same, with the last day of the authority.
fn chain_through(service: &Service, root: (IsCa, i64), link: i64, from: i64, to: i64) -> (String, Vec<String>) {
    let authority = |(kind, until), name: &str| {
        let mut params = dated(CertificateParams::default(), -100, until);
        params.is_ca = kind;
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params
    };
    let root = CertifiedIssuer::self_signed(authority(root, "root"), Service::new("ES256").pair).unwrap();
    let middle = authority((IsCa::Ca(BasicConstraints::Unconstrained), link), "middle");
    let middle = CertifiedIssuer::signed_by(middle, Service::new("ES256").pair, &root).unwrap();
    let leaf = dated(CertificateParams::default(), from, to).signed_by(&service.pair, &middle).unwrap();
    let text = |certificate: &[u8]| STANDARD.encode(certificate);
    (root.pem(), vec![text(leaf.der()), text(middle.der())])
}

#[tokio::test]
async fn a_chain_is_believed_when_every_link_holds_today() {
    let (files, service) = (Files::new(), Service::new("ES256"));
    let any = IsCa::Ca(BasicConstraints::Unconstrained);
    for (what, root, from, to, whole, believed) in [
        ("valid", (any, 100), -1, 1, true, true),
        ("expired", (any, 100), -2, -1, true, false),
        ("not yet", (any, 100), 1, 2, true, false),
        ("the root expired", (any, -1), -1, 1, true, false),
        ("too deep", (IsCa::Ca(BasicConstraints::Constrained(0)), 100), -1, 1, true, false),
        ("deep enough", (IsCa::Ca(BasicConstraints::Constrained(1)), 100), -1, 1, true, true),
        ("no authority", (IsCa::ExplicitNoCa, 100), -1, 1, true, false),
        ("a link missing", (any, 100), -1, 1, false, false),
    ] {
        let (root, mut chain) = chain_to(&service, root, from, to);
        if !whole {
            chain.truncate(1);
        }
        let trusted = files.trusted(&root);
        assert_eq!(is_believed(&trusted, &service.token(json!({ "x5c": chain }), &claims())).await, believed, "{what}");
        let stranger = Service::new("ES256");
        assert!(!is_believed(&trusted, &stranger.token(json!({ "x5c": chain }), &claims())).await, "{what}, other key");
    }
}

#[tokio::test]
async fn a_certificate_of_the_bundle_shown_after_its_end_is_not_believed() {
    let (files, service) = (Files::new(), Service::new("ES256"));
    let certificate = dated(CertificateParams::default(), -2, -1).self_signed(&service.pair).unwrap();
    let trusted = files.trusted(&certificate.pem());
    let names = json!({ "x5c": [STANDARD.encode(certificate.der())] });
    assert!(!is_believed(&trusted, &service.token(names, &claims())).await);
}

#[tokio::test]
async fn a_bundle_may_hold_many_certificates_and_other_things_between_them() {
    let (files, one, two) = (Files::new(), Service::new("ES256"), Service::new("EdDSA"));
    let bundle = format!("words\n{}{}{}", one.certificate().pem(), one.pair.serialize_pem(), two.certificate().pem());
    let trusted = files.trusted(&bundle);
    for service in [&one, &two] {
        assert!(is_believed(&trusted, &service.token(json!({ "kid": service.libtrust() }), &claims())).await);
    }
}

#[test]
fn files_that_make_no_key_are_refused_by_name() {
    let files = Files::new();
    let problem = |trust: &Trust| Trusted::open(trust).err().unwrap().to_string();
    for bundle in ["", "words", &Service::new("ES256").pair.serialize_pem()] {
        let said = problem(&files.trust(Some(bundle), None));
        assert!(said.contains("bundle.pem") && said.contains("no key"), "{said}");
    }
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(problem(&files.trust(Some(broken), None)).contains("certificate 1: is not X.509"));
    for set in ["", "{}", r#"{"keys":[]}"#] {
        assert!(problem(&files.trust(None, Some(set))).contains("keys.json"), "{set}");
    }
    assert!(matches!(Trusted::open(&files.trust(None, None)), Err(Error::NoTrust)));
    let missing = Trust { bundle: Some("/nonexistent/bundle".into()), ..files.trust(None, None) };
    assert!(problem(&missing).contains("/nonexistent/bundle"));
}

#[tokio::test]
async fn a_new_bundle_counts_after_a_second() {
    let (files, old, new) = (Files::new(), Service::new("ES256"), Service::new("ES256"));
    let trusted = files.trusted(&old.certificate().pem());
    let [by_old, by_new] = [&old, &new].map(|service| service.token(json!({}), &claims()));
    assert!(is_believed(&trusted, &by_old).await, "and remembered");
    files.file("bundle.pem", &new.certificate().pem());
    let soon = Instant::now() + std::time::Duration::from_secs(2);
    assert!(trusted.verify(&by_new, THEN, soon).await.is_ok());
    assert!(trusted.verify(&by_old, THEN, soon).await.is_err());
}

#[tokio::test]
async fn a_remembered_token_ends_when_it_says_and_speaks_for_no_other() {
    let (files, service) = (Files::new(), Service::new("ES256"));
    let trusted = files.trusted(&service.certificate().pem());
    let token = service.token(json!({}), &claims());
    let first = verify(&trusted, &token, THEN).await.unwrap();
    assert!(Arc::ptr_eq(&first, &verify(&trusted, &token, later(359)).await.unwrap()), "it is verified once");
    assert!(matches!(verify(&trusted, &token, later(360)).await, Err(Invalid::Expired(_))));
    assert!(matches!(verify(&trusted, &token, later(-61)).await, Err(Invalid::Untrue)));
    let (signed, _) = token.rsplit_once('.').unwrap();
    let other = service.token(json!({}), &with("sub", json!("bob")));
    for _ in 0..2 {
        let forged = format!("{signed}.{}", other.rsplit_once('.').unwrap().1);
        assert!(!is_believed(&trusted, &forged).await, "the same words under another signature");
    }
    assert_eq!(trusted.keys.content(Instant::now()).await.remembered.len(), 1, "what is not believed is not kept");
}

#[tokio::test]
async fn a_remembered_token_ends_with_the_chain_that_it_came_with() {
    let (files, service) = (Files::new(), Service::new("ES256"));
    let (any, day) = (IsCa::Ca(BasicConstraints::Unconstrained), 86_400);
    let token = |chain| service.token(json!({ "x5c": chain }), &with("exp", json!(THEN.as_second() + 365 * day)));
    let shown = dated(CertificateParams::default(), -1, 2).self_signed(&service.pair).unwrap();
    let shown = (shown.pem(), vec![STANDARD.encode(shown.der())]);
    for (what, (bundle, chain)) in [
        ("the leaf", chain_to(&service, (any, 100), -1, 2)),
        ("a link", chain_through(&service, (any, 100), 2, -1, 100)),
        ("the root", chain_to(&service, (any, 2), -1, 100)),
        ("a certificate of the bundle", shown),
    ] {
        let (trusted, token) = (files.trusted(&bundle), token(chain));
        let first = verify(&trusted, &token, THEN).await.unwrap();
        let last = verify(&trusted, &token, later(2 * day)).await.unwrap();
        assert!(Arc::ptr_eq(&first, &last), "{what}: it is verified once");
        assert!(verify(&trusted, &token, later(2 * day + 1)).await.is_err(), "{what}");
        assert!(verify(&trusted, &token, later(-day - 1)).await.is_err(), "{what}: before its beginning");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))] // each makes keys and files
    #[test]
    fn no_text_makes_it_panic(
        text in "\\PC{0,80}",
        header in "\\PC{0,60}",
        alg in "[A-Za-z0-9]{0,6}",
        x5c in proptest::collection::vec("[A-Za-z0-9+/=]{0,40}", 0..4),
        bytes: Vec<u8>,
    ) {
        let service = Service::new("ES256");
        let files = Files::new();
        let trusted = files.trusted(&service.certificate().pem());
        let anchors = Anchors::read(&trusted.trust).unwrap();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let named = json!({ "alg": alg, "x5c": x5c, "kid": text }).to_string();
        for token in [
            text.clone(),
            format!("{}.{}.{}", encode(header.as_bytes()), encode(&bytes), encode(&bytes)),
            format!("{}.{}.{}", encode(named.as_bytes()), encode(&bytes), encode(&bytes)),
            service.token(json!({}), &Value::String(text.clone())),
        ] {
            prop_assert!(trusted.verify_with(&anchors, &token, THEN, Instant::now()).is_err());
        }
    }
}
