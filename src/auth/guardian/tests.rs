//! Each kind of guardian before requests from memory.

use bytes::Bytes;
use http::Request;

use super::*;
use crate::auth::tests::config;
use crate::exchange::Exchange;
use crate::exchange::memory::Recorded;
use crate::oci::scope::parse_all;

async fn ask(guardian: &Guardian, authorization: Option<&str>, needed: &str) -> Result<Grant, Box<Answer>> {
    let mut request = Request::get("/v2/");
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let exchange = Recorded::new(request.body(Bytes::new()).unwrap());
    guardian
        .authorize(exchange.head(), exchange.caller(), &parse_all([needed]))
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
