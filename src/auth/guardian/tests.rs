//! Each kind of guardian before requests from memory.

use bytes::Bytes;
use http::Request;

use super::*;
use crate::auth::tests::config;
use crate::auth::{Realm, Trust};
use crate::exchange::memory::Recorded;
use crate::exchange::{Exchange, Origin};
use crate::oci::scope::parse_all;

async fn ask(guardian: &Guardian, authorization: Option<&str>, needed: &str) -> Result<Arc<Grant>, Box<Answer>> {
    let mut request = Request::get("/v2/");
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let exchange = Recorded::new(request.body(Bytes::new()).unwrap());
    guardian
        .authorize(exchange.head(), exchange.caller(), &Demand { needed: parse_all([needed]), useful: None })
        .await
        .map_err(|refusal| Box::new(refusal.answer))
}

fn guarded_by(guard: Guard) -> Result<Guardian, Error> {
    let folder = tempfile::tempdir().unwrap();
    Guardian::open(&Config { guard, ..config(folder.path()) }, None)
}

#[tokio::test]
async fn nobody_lets_everybody_do_everything() {
    let guardian = guarded_by(Guard::Nobody).unwrap();
    for authorization in [None, Some("Basic !!"), Some("Bearer nonsense")] {
        let grant =
            ask(&guardian, authorization, "repository:a/b:pull,push,delete registry:catalog:*").await.ok().unwrap();
        assert_eq!((&grant.subject, &grant.issuer), (&None, &None));
        assert!(grant.may_pull(&"another/one".parse().unwrap()));
    }
}

#[test]
fn our_own_tokens_need_our_own_token_service() {
    assert!(guarded_by(Guard::Own).is_err());
}

#[tokio::test]
async fn tokens_of_another_service_are_fetched_where_the_operator_says() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    crate::auth::keys::TokenKey::open(&config, Timestamp::now()).unwrap();
    for (realm, url) in [
        (Realm::Url("https://tokens.example.com/auth".to_owned()), "https://tokens.example.com/auth"),
        (Realm::Path("/auth/token".to_owned()), "https://localhost:5050/auth/token"),
    ] {
        let guard = Guard::Token(Trust {
            realm,
            service: "registry".to_owned(),
            issuer: "issuer".to_owned(),
            bundle: Some(config.certificate.clone()),
            key_set: None,
            algorithms: Vec::new(),
        });
        let guardian = Guardian::open(&Config { guard, ..config.clone() }, None).unwrap();
        for (authorization, error) in [(None, ""), (Some("Bearer nonsense"), ",error=\"invalid_token\"")] {
            let answer = ask(&guardian, authorization, "repository:a:pull").await.err().unwrap();
            let challenge = format!("Bearer realm=\"{url}\",service=\"registry\",scope=\"repository:a:pull\"{error}");
            assert_eq!(answer.headers[http::header::WWW_AUTHENTICATE], challenge);
        }
    }
}

#[test]
fn a_token_that_is_silent_about_something_useful_is_challenged_only_where_silence_means_nobody_asked() {
    let [needed, useful] = ["repository:a:pull,push", "repository:b:pull"].map(|text| parse_all([text]));
    let demand = Demand { needed: needed.clone(), useful: useful.first().cloned() };
    for names_what_it_refuses in [true, false] {
        let (realm, origin) = (&Realm::Path("/auth".to_owned()), &Origin::new(true, "localhost").unwrap());
        let desk = Desk { realm, origin, service: "registry", names_what_it_refuses };
        let go_on = |access| decide(Some(Ok(Arc::new(Grant { access, ..Grant::default() }))), desk, &demand).is_ok();
        assert_eq!(go_on(needed.clone()), !names_what_it_refuses);
        assert!(go_on([needed.clone(), useful.clone()].concat()));
        assert!(go_on([needed.clone(), parse_all(["repository:b:"])].concat()), "refused, and nothing is said twice");
        assert!(!go_on(useful.clone()), "what is needed stays needed");
    }
}
