//! Uploads that are finished with a token that expired on the way, and everything that is not.

use std::sync::Arc;

use crate::oci::Endpoint;

use super::*;

const UPLOAD: &str = "/v2/team/secret/x/blobs/uploads/5f0b5d8e-6f4c-4f0e-9d8a-0d4b8f8d3c11";
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const PUSH: &str = "repository:team/secret/x:pull,push";
/// When the upload began: a little after the accounts were made, just when the token was given out.
const BEGAN: i64 = 1_760_000_100;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A request that comes an hour after the beginning, to be changed by each test.
struct Case {
    name: &'static str,
    scope: &'static str,
    method: &'static str,
    path: String,
    issuer: &'static str,
    subject: &'static str,
    began: i64,
    now: i64,
    window: Duration,
}

impl Case {
    fn good() -> Self {
        Self {
            name: "alice",
            scope: PUSH,
            method: "PATCH",
            path: UPLOAD.to_owned(),
            issuer: "pierhead",
            subject: "alice",
            began: BEGAN,
            now: BEGAN + 3600,
            window: Duration::from_secs(86_400),
        }
    }

    /// As the origin asks.
    async fn granted(&self, office: &Office) -> Option<Grant> {
        let config = Config { finish_uploads: self.window, ..config(office.folder.path()) };
        let authority = Arc::new(Authority::open(config.clone(), office.database.clone()).unwrap());
        let identity = match self.name {
            "" => Identity::Anonymous,
            name => {
                let (name, password) = (name.parse().unwrap(), String::new());
                Identity::Account(Account { name, password, is_admin: false, created_at: THEN })
            }
        };
        let token = authority.issuer.issue(&authority.key, &identity, &access(self.scope), at(BEGAN)).unwrap();
        let guardian = Guardian::open(&config, Some(authority)).unwrap();
        self.ask(&guardian, &token).await
    }

    async fn ask(&self, guardian: &Guardian, token: &str) -> Option<Grant> {
        let request = Request::builder().method(self.method).uri(&self.path);
        let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        let exchange = Recorded::new(request.body(Bytes::new()).unwrap());
        let (head, caller) = (exchange.head(), exchange.caller());
        let endpoint = Endpoint::parse(&head.method, head.uri.path(), head.uri.query()).unwrap();
        let now = Moment { wall: at(self.now), steady: Instant::now() };
        let refusal = guardian.authorize_at(head, caller, &Demand::of(&endpoint), now).await.err().unwrap();
        let challenge = Heard::from(refusal.answer);
        assert_eq!(challenge.status, StatusCode::UNAUTHORIZED);
        assert!(challenge.header(header::WWW_AUTHENTICATE).ends_with("error=\"invalid_token\""));
        let expired = refusal.expired?;
        let (name, _) = expired.upload(&endpoint)?;
        let began = Beginning { issuer: self.issuer, subject: self.subject, at: at(self.began) };
        guardian.may_finish(&expired, name, began, at(self.now)).await
    }
}

#[tokio::test]
async fn who_began_an_upload_may_ask_for_it_go_on_and_close_it() {
    let office = Office::open().await;
    for (method, path) in [
        ("GET", UPLOAD.to_owned()),
        ("HEAD", UPLOAD.to_owned()),
        ("PATCH", UPLOAD.to_owned()),
        ("PUT", format!("{UPLOAD}?digest={DIGEST}")),
    ] {
        let scope = "repository:team/secret/x:pull,push repository:team/open:pull registry:catalog:*";
        let grant = Case { method, path, scope, ..Case::good() }.granted(&office).await.unwrap();
        assert_eq!((grant.subject.as_deref(), grant.issuer.as_deref()), (Some("alice"), Some("pierhead")));
        assert_eq!((grant.access, grant.everything), (access(PUSH), false), "that repository and nothing else");
    }
}

#[tokio::test]
async fn nothing_else_is_allowed() {
    let office = Office::open().await;
    let good = Case::good;
    let elsewhere = UPLOAD.replace("secret", "open");
    for (what, case) in [
        ("another repository", Case { path: elsewhere, ..good() }),
        ("an upload that another began", Case { subject: "bob", ..good() }),
        ("another issuer", Case { issuer: "gitlab-issuer", ..good() }),
        ("a nameless token", Case { name: "", ..good() }),
        ("a nameless token and a nameless owner", Case { name: "", subject: "", ..good() }),
        ("a token without push", Case { scope: "repository:team/secret/x:pull", ..good() }),
        ("the end of the window", Case { now: BEGAN + 86_400, ..good() }),
        ("no window", Case { window: Duration::ZERO, ..good() }),
        ("a token that expired before", Case { began: BEGAN + 360, ..good() }),
        ("an upload from the future", Case { began: BEGAN + 3600 + 61, ..good() }),
        ("giving it up", Case { method: "DELETE", ..good() }),
        ("beginning one", Case { method: "POST", path: "/v2/team/secret/x/blobs/uploads/".to_owned(), ..good() }),
        ("a manifest", Case { method: "PUT", path: "/v2/team/secret/x/manifests/latest".to_owned(), ..good() }),
        ("reading a blob", Case { method: "GET", path: format!("/v2/team/secret/x/blobs/{DIGEST}"), ..good() }),
        ("the base", Case { method: "GET", path: "/v2/".to_owned(), ..good() }),
    ] {
        assert!(case.granted(&office).await.is_none(), "{what}");
    }
    assert!(Case { now: BEGAN + 86_399, ..good() }.granted(&office).await.is_some());
    assert!(Case { began: BEGAN + 359, ..good() }.granted(&office).await.is_some());
}

#[tokio::test]
async fn a_token_signed_by_somebody_else_is_not_heard_at_all() {
    let (office, other) = (Office::open().await, Office::open().await);
    let foreign = other.authority.issuer.issue(&other.authority.key, &Identity::Anonymous, &access(PUSH), at(BEGAN));
    let config = config(office.folder.path());
    let own = Arc::new(Authority::open(config.clone(), office.database.clone()).unwrap());
    let guardian = Guardian::open(&config, Some(own)).unwrap();
    assert!(Case::good().ask(&guardian, &foreign.unwrap()).await.is_none());
}

#[tokio::test]
async fn a_right_taken_away_or_an_account_removed_ends_it_at_once() {
    let office = Office::open().await;
    let alice: AccountName = "alice".parse().unwrap();
    assert!(Case::good().granted(&office).await.is_some());
    assert!(office.database.remove_member(&"team".parse().unwrap(), &alice, metadata::Run::Real).await.unwrap());
    assert!(Case::good().granted(&office).await.is_none(), "the right");

    let admin = Case { name: "root", subject: "root", ..Case::good() };
    assert!(admin.granted(&office).await.is_some());
    let root: AccountName = "root".parse().unwrap();
    let again = office.database.account(&root).await.unwrap().unwrap();
    let second = Account { name: "second".parse().unwrap(), ..again.clone() };
    assert!(office.database.add_account(&second).await.unwrap(), "an admin stays");
    office.database.remove_account(&root, metadata::Run::Real).await.unwrap();
    assert!(admin.granted(&office).await.is_none(), "the account");
    assert!(office.database.add_account(&Account { created_at: at(BEGAN + 1), ..again }).await.unwrap());
    assert!(admin.granted(&office).await.is_none(), "another account of that name");
}
