//! Orders with Pebble.

use super::super::super::testing::put;
use super::super::proofs::proofs;
use super::super::testing::{Manners, Pebble, account_key, config, names, never, only};
use super::super::{Answers, ExternalAccount};
use super::*;

fn wanted(names: &[String], by: Challenge) -> Wanted<'_> {
    Wanted { names, ways: only(by), replaces: None }
}

fn two() -> Vec<String> {
    vec!["a.pierhead.test".to_owned(), "b.pierhead.test".to_owned()]
}

const ENGINES: [Engine; 2] = [Engine::Plain, Engine::Full];

#[test]
fn the_library_is_chosen_by_what_is_wanted() {
    let plain = config("https://a.test", std::path::Path::new("/"), &[Challenge::TlsAlpn01, Challenge::Http01]);
    let bound = ExternalAccount { id: "id".to_owned(), key: "/key".into() };
    let table = [
        (plain.clone(), false, Engine::Plain),
        (plain.clone(), true, Engine::Full),
        (Config { account: Some(bound), ..plain.clone() }, false, Engine::Full),
        (Config { profile: Some("shortlived".to_owned()), ..plain.clone() }, false, Engine::Full),
        (Config { challenges: vec![Challenge::Http01, Challenge::Dns01], ..plain.clone() }, false, Engine::Full),
        (Config { webroot: Some("/www".into()), ca: Some("/ca".into()), ..plain }, false, Engine::Plain),
    ];
    for (config, proxied, engine) in table {
        assert_eq!(choose(&config, proxied), engine, "{config:?} {proxied}");
    }
}

#[tokio::test]
async fn an_order_of_two_names_is_proven_by_a_handshake_or_by_a_file_and_leaves_no_proof_behind() {
    let pebble = Pebble::start(Manners::default()).await;
    let key = account_key();
    for (engine, by) in
        ENGINES.into_iter().flat_map(|engine| [(engine, Challenge::TlsAlpn01), (engine, Challenge::Http01)])
    {
        let config = pebble.config(&[by]);
        let authority = made(&config, key.clone(), engine, PATIENCE).unwrap();
        let issued = authority.order(&wanted(&two(), by), &proofs(&config)).await.unwrap();
        assert_eq!(names(&issued.chain), (two(), 2));
        assert!(issued.key.starts_with("-----BEGIN PRIVATE KEY-----"));
        let left = |kind: &str| pebble.folder.path().join("storage/challenges").join(kind).read_dir().unwrap().count();
        assert_eq!(left(by.name()), 0);
    }
    assert!(Answers::of(&pebble.folder.path().join("storage")).tls("a.pierhead.test").await.is_none());
}

#[tokio::test]
async fn an_authority_that_rejects_many_nonces_is_asked_again_at_once() {
    let pebble = Pebble::start(Manners { rejects: 40, ..Manners::default() }).await;
    let config = pebble.config(&[Challenge::TlsAlpn01]);
    for engine in ENGINES {
        let authority = made(&config, account_key(), engine, PATIENCE).unwrap();
        let issued = authority.order(&wanted(&two(), Challenge::TlsAlpn01), &proofs(&config)).await.unwrap();
        assert_eq!(names(&issued.chain).0, two());
    }
}

#[tokio::test]
async fn names_that_an_authority_believes_already_need_no_proof() {
    let pebble = Pebble::start(Manners { reuses: 100, ..Manners::default() }).await;
    let config = pebble.config(&[Challenge::TlsAlpn01]);
    for engine in ENGINES {
        let authority = made(&config, account_key(), engine, PATIENCE).unwrap();
        authority.order(&wanted(&two(), Challenge::TlsAlpn01), &proofs(&config)).await.unwrap();
        authority.order(&wanted(&two(), Challenge::TlsAlpn01), &never()).await.unwrap();
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_seen_fails_with_the_name_the_authoritys_words_and_what_to_do() {
    let pebble = Pebble::start(Manners::default()).await;
    for engine in ENGINES {
        for by in [Challenge::TlsAlpn01, Challenge::Http01] {
            let config = pebble.config(&[by]);
            let elsewhere = Config { storage: pebble.folder.path().join("elsewhere"), ..config.clone() };
            let authority = made(&config, account_key(), engine, PATIENCE).unwrap();
            let failure = authority.order(&wanted(&two(), by), &proofs(&elsewhere)).await.err().unwrap();
            assert_eq!(failure.kind, Kind::Validation, "{failure}");
            for part in [by.name(), ".pierhead.test is ours: ", "GitLab's 5050 cannot be asked", "tls.acme.challenges"]
            {
                assert!(failure.reason.contains(part), "{part}: {failure}");
            }
        }
    }
}

#[tokio::test]
async fn an_account_is_bound_to_the_one_that_the_authority_knows() {
    let customer = ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");
    let pebble = Pebble::start(Manners { customer: Some(customer), ..Manners::default() }).await;
    let unbound = pebble.config(&[Challenge::TlsAlpn01]);
    let key = pebble.folder.path().join("eab.key");
    put(&key, &format!("{}\n", customer.1));
    let account = Some(ExternalAccount { id: customer.0.to_owned(), key: key.clone() });
    let config = Config { account, ..unbound.clone() };
    let ours = account_key();
    for _ in 0..2 {
        let authority = authority(&config, ours.clone()).unwrap();
        authority.order(&wanted(&two(), Challenge::TlsAlpn01), &proofs(&config)).await.unwrap();
    }
    let refused = |config: Config| async move {
        let authority = authority(&config, account_key()).unwrap();
        authority.order(&wanted(&two(), Challenge::TlsAlpn01), &never()).await.err().unwrap()
    };
    let failure = refused(unbound).await;
    assert!(failure.kind == Kind::Refused && failure.reason.contains("tls.acme.eab"), "{failure}");
    put(&key, "d3Jvbmc\n");
    let failure = refused(config.clone()).await;
    assert_eq!(failure.kind, Kind::Refused, "{failure}");
    put(&key, "no key!\n");
    let failure = authority(&config, account_key()).err().unwrap();
    assert!(failure.kind == Kind::Ours && failure.reason.contains("tls.acme.eab.key"), "{failure}");
}

#[tokio::test]
async fn files_that_cannot_be_read_are_named_with_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { ca: Some("/nowhere/ca.crt".into()), ..config("https://localhost:1/", folder.path(), &[]) };
    let failure = authority(&config, account_key()).err().unwrap();
    assert_eq!(failure.kind, Kind::Ours);
    assert!(failure.reason.contains("/nowhere/ca.crt") && failure.reason.contains("tls.acme.ca"), "{failure}");
}
