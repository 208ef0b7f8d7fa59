//! Orders with Pebble.

use super::super::Answers;
use super::super::proofs::proofs;
use super::super::testing::{Manners, Pebble, account_key, names};
use super::*;

fn wanted(names: &[String], by: Challenge) -> Wanted<'_> {
    Wanted { names, by, replaces: None }
}

fn two() -> Vec<String> {
    vec!["a.pierhead.test".to_owned(), "b.pierhead.test".to_owned()]
}

#[tokio::test]
async fn an_order_of_two_names_is_proven_by_a_handshake_or_by_a_file_and_leaves_no_proof_behind() {
    let pebble = Pebble::start(Manners::default()).await;
    let key = account_key();
    for by in [Challenge::TlsAlpn01, Challenge::Http01] {
        let config = pebble.config(&[by]);
        let authority = authority(&config, key.clone()).unwrap();
        let names_wanted = two();
        let issued = authority.order(&wanted(&names_wanted, by), &*proofs(&config)).await.unwrap();
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
    let authority = authority(&config, account_key()).unwrap();
    let issued = authority.order(&wanted(&two(), Challenge::TlsAlpn01), &*proofs(&config)).await.unwrap();
    assert_eq!(names(&issued.chain).0, two());
}
