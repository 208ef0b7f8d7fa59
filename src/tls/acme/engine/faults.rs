//! Orders with an authority that is not well, or does what Pebble cannot.

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::super::testing::Authority as Signer;
use super::super::order::Proof;
use super::super::testing::{Fake, Says, account_key, config, names};
use super::drive::Offer;
use super::problem::Trouble;
use super::*;

const SHORT: Patience =
    Patience { call: Duration::from_millis(700), stage: Duration::from_millis(700), whole: Duration::from_secs(10) };
const ENGINES: [Engine; 2] = [Engine::Plain, Engine::Full];

/// Who has no way to prove anything.
struct Never;

#[async_trait]
impl Proofs for Never {
    async fn present(&self, _: &Proof) -> Result<(), Failure> {
        Err(Failure { kind: Kind::Ours, reason: "nothing can be proven here".to_owned() })
    }

    async fn withdraw(&self, _: &Proof) {}
}

fn of(fake: &Fake) -> Config {
    Config { ca: Some(fake.ca.clone()), ..config(&fake.directory, fake.folder.path(), &[Challenge::Http01]) }
}

async fn order(config: &Config, engine: Engine, patience: Patience) -> Result<Issued, Failure> {
    let names = ["a.pierhead.test".to_owned()];
    let wanted = Wanted { names: &names, by: Challenge::Http01, ways: &[], replaces: None };
    made(config, account_key(), engine, patience)?.order(&wanted, &Never).await
}

#[tokio::test]
async fn an_order_may_be_ready_at_once_and_signed_late() {
    let fake = Fake::start(|_| None).await;
    for engine in ENGINES {
        let issued = order(&of(&fake), engine, PATIENCE).await.unwrap();
        assert_eq!(names(&issued.chain), (vec!["a.pierhead.test".to_owned()], 1));
    }
}

#[tokio::test]
async fn an_authority_that_hangs_fails_or_answers_garbage_is_a_failure_in_time_wherever_it_happens() {
    let paths = ["/dir", "/nonce", "/account", "/orders", "/order/1", "/finalize", "/certificate"];
    let page = || "<html>".to_owned() + &"x".repeat(50);
    for path in paths {
        for (number, engine) in (0..4).flat_map(|number| ENGINES.map(|engine| (number, engine))) {
            // Of these two only headers count.
            if number > 1 && matches!(path, "/nonce" | "/account") {
                continue;
            }
            let fake = Fake::start(move |asked| {
                (asked == path).then(|| match number {
                    0 => Says::Hang,
                    1 => Says::Text(500, page()),
                    2 => Says::Text(200, page()),
                    _ => Says::Text(200, "x".repeat(2 * 1024 * 1024)),
                })
            })
            .await;
            let began = Instant::now();
            let failure = order(&of(&fake), engine, SHORT).await.err();
            let failure = failure.unwrap_or_else(|| panic!("{path} {number} {engine:?}: there is a certificate"));
            assert_eq!(failure.kind, Kind::Unreachable, "{path} {number} {engine:?}: {failure}");
            assert!(
                failure.reason.len() < 1500 && began.elapsed() < SHORT.whole,
                "{path} {number} {engine:?}: {failure}"
            );
        }
    }
}

#[tokio::test]
async fn nobody_is_followed_elsewhere() {
    let fake = Fake::start(|path| (path == "/dir").then(|| Says::Text(301, String::new()))).await;
    for engine in ENGINES {
        let failure = order(&of(&fake), engine, SHORT).await.err().unwrap();
        assert!(failure.kind == Kind::Unreachable && failure.reason.contains("nobody is followed"), "{failure}");
    }
}

#[tokio::test]
async fn an_authority_that_nobody_vouches_for_is_not_spoken_to() {
    let fake = Fake::start(|_| None).await;
    let other = Fake::start(|_| None).await;
    for engine in ENGINES {
        let failure = order(&Config { ca: Some(other.ca.clone()), ..of(&fake) }, engine, SHORT).await.err().unwrap();
        assert!(failure.kind == Kind::Unreachable && failure.reason.contains("tls.acme.ca"), "{failure}");
    }
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn nonces_are_not_tried_for_ever() {
    for (engine, tries) in [(Engine::Plain, 30), (Engine::Full, 90)] {
        let problem = json!({ "type": "urn:ietf:params:acme:error:badNonce", "detail": "bad" });
        let fake = Fake::start(move |path| (path == "/orders").then(|| Says::Json(400, problem.clone()))).await;
        let failure = order(&of(&fake), engine, PATIENCE).await.err().unwrap();
        assert_eq!(failure.kind, Kind::Unreachable, "{failure}");
        assert_eq!(fake.asked().iter().filter(|(path, _)| path == "/orders").count(), tries);
    }
}

#[tokio::test]
async fn who_wants_to_be_left_alone_says_for_how_long() {
    let detail = "too many certificates already issued, retry after 2999-01-01 00:00:00 UTC: see elsewhere";
    let problem = json!({ "type": "urn:ietf:params:acme:error:rateLimited", "detail": detail });
    let fake = Fake::start(move |path| (path == "/orders").then(|| Says::Json(429, problem.clone()))).await;
    let plain = order(&of(&fake), Engine::Plain, PATIENCE).await.err().unwrap();
    assert!(matches!(plain.kind, Kind::RateLimited(Some(wait)) if wait.as_secs() > 1_000_000_000), "{plain:?}");
    assert!(plain.reason.contains(detail), "{plain}");
    let full = order(&of(&fake), Engine::Full, PATIENCE).await.err().unwrap();
    assert_eq!(full.kind, Kind::RateLimited(Some(Duration::from_secs(3600))), "the header counts: {full}");
}

#[tokio::test]
async fn an_order_says_its_profile_and_what_it_replaces_where_the_authority_knows_these() {
    let fake = Fake::start(|_| None).await;
    let (old, _) = Signer::new().issue(&["a.pierhead.test"], 90);
    let old = super::super::testing::certificate(&old);
    let names = ["a.pierhead.test".to_owned()];
    let wanted = Wanted { names: &names, by: Challenge::Http01, ways: &[], replaces: Some(&old) };
    let config = Config { profile: Some("shortlived".to_owned()), ..of(&fake) };
    authority(&config, account_key()).unwrap().order(&wanted, &Never).await.unwrap();
    let asked = fake.asked();
    let (_, placed) = asked.iter().find(|(path, _)| path == "/orders").unwrap();
    assert_eq!(placed["profile"], "shortlived");
    assert!(placed["replaces"].as_str().is_some_and(|id| id.contains('.')), "{placed}");

    let config = Config { profile: Some("eternal".to_owned()), ..config };
    let failure = order(&config, Engine::Full, PATIENCE).await.err().unwrap();
    assert_eq!(failure.kind, Kind::Refused);
    assert!(failure.reason.contains("has no profile eternal") && failure.reason.contains("shortlived"), "{failure}");
}

#[tokio::test]
async fn what_an_order_replaces_is_left_out_for_who_does_not_know_it() {
    let gone = json!({ "type": "urn:ietf:params:acme:error:alreadyReplaced", "detail": "again" });
    let fake = Fake::start(move |path| (path == "/orders?replaces").then(|| Says::Json(409, gone.clone()))).await;
    let (old, _) = Signer::new().issue(&["a.pierhead.test"], 90);
    let old = super::super::testing::certificate(&old);
    let names = ["a.pierhead.test".to_owned()];
    let wanted = Wanted { names: &names, by: Challenge::Http01, ways: &[], replaces: Some(&old) };
    made(&of(&fake), account_key(), Engine::Full, PATIENCE).unwrap().order(&wanted, &Never).await.unwrap();
    assert_eq!(fake.asked().iter().filter(|(path, _)| path.starts_with("/orders")).count(), 2);
}

#[tokio::test]
async fn an_authority_is_asked_when_a_certificate_should_be_renewed() {
    let (certificate, _) = Signer::new().issue(&["a.pierhead.test"], 90);
    let certificate = super::super::testing::certificate(&certificate);
    let window = |start: &str, end: &str| json!({ "suggestedWindow": { "start": start, "end": end } });
    let (early, late) = ("2030-01-01T00:00:00Z", "2030-01-02T00:00:00Z");
    let seconds = |from: u64| std::time::UNIX_EPOCH + Duration::from_secs(from);
    let expected = Window { start: seconds(1_893_456_000), end: seconds(1_893_542_400) };
    for (said, expected) in [(window(early, late), Some(expected)), (window(late, early), None)] {
        let fake = Fake::start(move |path| path.starts_with("/renewal/").then(|| Says::Json(200, said.clone()))).await;
        let authority = authority(&of(&fake), account_key()).unwrap();
        assert_eq!(authority.renewal(&certificate).await.unwrap(), expected);
        assert!(fake.asked().iter().all(|(path, _)| path != "/account"), "no account is needed to ask");
    }
    let fake = Fake::start(|path| (path == "/dir").then_some(Says::Unaware)).await;
    assert_eq!(authority(&of(&fake), account_key()).unwrap().renewal(&certificate).await.unwrap(), None);
    let fake = Fake::start(|path| path.starts_with("/renewal/").then_some(Says::Hang)).await;
    let failure =
        made(&of(&fake), account_key(), Engine::Full, SHORT).unwrap().renewal(&certificate).await.err().unwrap();
    assert_eq!(failure.kind, Kind::Unreachable);
}

#[tokio::test]
async fn a_contact_that_changed_is_told() {
    let known = json!({ "status": "valid", "contact": ["mailto:old@pierhead.test"] });
    let fake = Fake::start(move |path| (path == "/account").then(|| Says::Json(200, known.clone()))).await;
    order(&of(&fake), Engine::Full, PATIENCE).await.unwrap();
    let asked = fake.asked();
    let told: Vec<_> = asked.iter().filter(|(path, _)| path == "/order/1").map(|(_, said)| &said["contact"]).collect();
    assert!(told.contains(&&json!(["mailto:ops@pierhead.test"])), "{told:?}");
}

/// An order that stays as it is.
struct Still {
    name: &'static str,
    offers: Vec<Offer>,
    looked: Vec<Challenge>,
}

impl Still {
    fn of(name: &'static str, offers: &[(Challenge, Option<&str>)]) -> Self {
        let offer = |(by, error): &(Challenge, Option<&str>)| Offer {
            by: *by,
            token: "token".to_owned(),
            key_authorization: "token.thumb".to_owned(),
            error: error
                .map(|detail| serde_json::from_value(json!({ "type": "connection", "detail": detail })).unwrap()),
        };
        Self { name, offers: offers.iter().map(offer).collect(), looked: Vec::new() }
    }

    async fn drive(&mut self, by: Challenge, ways: &[Challenge]) -> Failure {
        let names = ["a.test".to_owned()];
        let wanted = Wanted { names: &names, by, ways, replaces: None };
        drive::drive(self, &wanted, &Always, SHORT).await.err().unwrap()
    }
}

#[async_trait]
impl drive::Order for Still {
    async fn state(&mut self) -> Result<drive::State, Trouble> {
        Ok(drive::State::Pending)
    }

    fn authorizations(&mut self) -> usize {
        1
    }

    async fn authorization(&mut self, _number: usize) -> Result<drive::Authorization, Trouble> {
        let (name, offers) = (self.name.to_owned(), self.offers.clone());
        Ok(drive::Authorization { name, standing: drive::Standing::Pending, offers })
    }

    async fn look(&mut self, _number: usize, by: Challenge) -> Result<(), Trouble> {
        self.looked.push(by);
        Ok(())
    }

    async fn finalize(&mut self, _request: Vec<u8>) -> Result<(), Trouble> {
        Ok(())
    }

    async fn certificate(&mut self) -> Result<String, Trouble> {
        Err(Trouble::gone())
    }
}

/// Who can prove anything.
struct Always;

#[async_trait]
impl Proofs for Always {
    async fn present(&self, _: &Proof) -> Result<(), Failure> {
        Ok(())
    }

    async fn withdraw(&self, _: &Proof) {}
}

#[tokio::test]
async fn a_proof_that_was_not_seen_is_one_although_the_authority_would_look_again() {
    let mut order = Still::of("a.test", &[(Challenge::Http01, Some("connection refused"))]);
    let failure = order.drive(Challenge::Http01, &[]).await;
    assert!(failure.kind == Kind::Validation && failure.reason.contains("connection refused"), "{failure}");
    let failure = Still::of("a.test", &[(Challenge::Http01, None)]).drive(Challenge::Http01, &[]).await;
    assert_eq!(failure.kind, Kind::Unreachable, "{failure}");
}

#[tokio::test]
async fn where_a_way_is_not_offered_the_next_one_is_taken_and_no_other_names_are_proven() {
    use Challenge::{Dns01, Http01, TlsAlpn01};
    let mut order = Still::of("a.test", &[(Dns01, None), (Http01, None)]);
    order.drive(TlsAlpn01, &[TlsAlpn01, Http01]).await;
    assert_eq!(order.looked, [Http01]);
    let failure = order.drive(TlsAlpn01, &[TlsAlpn01]).await;
    assert!(failure.kind == Kind::Refused && failure.reason.contains("dns-01, http-01"), "{failure}");
    let mut order = Still::of("b.test", &[(Http01, None)]);
    let failure = order.drive(Http01, &[]).await;
    assert!(failure.kind == Kind::Refused && order.looked.is_empty(), "{failure}");
}
