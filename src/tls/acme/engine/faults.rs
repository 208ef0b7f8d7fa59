//! Orders with an authority that is not well, or does what Pebble cannot.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

use super::super::super::testing::Authority as Signer;
use super::super::order::Proof;
use super::super::testing::{Fake, Says, account_key, config, names, never, only};
use super::*;

const SHORT: Patience = Patience {
    call: Duration::from_millis(700),
    stage: Duration::from_millis(700),
    again: Duration::from_millis(100),
    signed: Duration::from_secs(1),
    whole: Duration::from_secs(10),
};
const ENGINES: [Engine; 2] = [Engine::Plain, Engine::Full];

fn of(fake: &Fake) -> Config {
    Config { ca: Some(fake.ca.clone()), ..config(&fake.directory, fake.folder.path(), &[Challenge::Http01]) }
}

async fn order(config: &Config, engine: Engine, patience: Patience) -> Result<Issued, Failure> {
    let names = ["a.pierhead.test".to_owned()];
    let wanted = Wanted { names: &names, ways: only(Challenge::Http01), replaces: None };
    made(config, account_key(), engine, patience)?.order(&wanted, &never()).await
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
async fn a_certificate_that_was_asked_for_is_waited_for_and_not_ordered_again() {
    for (engine, path) in
        ENGINES.into_iter().flat_map(|engine| ["/finalize", "/certificate"].map(|path| (engine, path)))
    {
        let failures = AtomicUsize::new(3);
        let fake = Fake::start(move |asked| {
            let fails = asked == path
                && failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            fails.then(|| Says::Text(503, "later".to_owned()))
        })
        .await;
        let issued = order(&of(&fake), engine, PATIENCE).await.unwrap();
        assert_eq!(names(&issued.chain).1, 1, "{engine:?} {path}");
        assert_eq!(fake.asked().iter().filter(|(path, _)| path == "/orders").count(), 1, "{engine:?} {path}");
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
    let wanted = Wanted { names: &names, ways: only(Challenge::Http01), replaces: Some(&old) };
    let config = Config { profile: Some("shortlived".to_owned()), ..of(&fake) };
    authority(&config, account_key()).unwrap().order(&wanted, &never()).await.unwrap();
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
    let wanted = Wanted { names: &names, ways: only(Challenge::Http01), replaces: Some(&old) };
    made(&of(&fake), account_key(), Engine::Full, PATIENCE).unwrap().order(&wanted, &never()).await.unwrap();
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

/// Who notes what is presented and withdrawn.
#[derive(Default)]
struct Book {
    slow: Duration,
    presented: Mutex<Vec<(String, Challenge)>>,
    withdrawn: AtomicUsize,
}

#[async_trait]
impl Proofs for Book {
    async fn present(&self, proof: &Proof) -> Result<(), Failure> {
        self.presented.lock().push((proof.name.clone(), proof.by));
        tokio::time::sleep(self.slow).await;
        Ok(())
    }

    async fn withdraw(&self, _: &Proof) {
        self.withdrawn.fetch_add(1, Ordering::Relaxed);
    }
}

/// An authority that stays at looking at proofs by HTTP-01 of these names, and says that it saw something else.
async fn undecided(names: &'static [&'static str], error: Option<&'static str>) -> Fake {
    let base = Arc::new(OnceLock::<String>::new());
    let known = Arc::clone(&base);
    let fake = Fake::start(move |path| {
        let base = known.get()?;
        let expires = "2099-01-01T00:00:00Z";
        let identifier = |name: &str| json!({ "type": "dns", "value": name });
        let mut challenge =
            json!({ "type": "http-01", "status": "pending", "token": "token", "url": format!("{base}/challenge") });
        if let Some(error) = error {
            let kind = format!("urn:ietf:params:acme:error:{error}");
            challenge["error"] = json!({ "type": kind, "detail": "connection refused" });
        }
        let body = match path {
            "/orders" | "/order/1" => json!({
                "status": "pending", "expires": expires, "finalize": format!("{base}/finalize"),
                "identifiers": names.iter().map(|name| identifier(name)).collect::<Vec<_>>(),
                "authorizations": names.iter().map(|name| format!("{base}/authz/{name}")).collect::<Vec<_>>(),
            }),
            "/challenge" => challenge,
            path => {
                let identifier = identifier(path.strip_prefix("/authz/")?);
                let challenges = [challenge];
                json!({ "status": "pending", "expires": expires, "identifier": identifier, "challenges": challenges })
            }
        };
        Some(Says::Json(200, body))
    })
    .await;
    base.set(fake.directory.trim_end_matches("/dir").to_owned()).unwrap();
    fake
}

/// Orders for these names by whatever is offered; why it failed, and what was presented.
async fn fails(
    fake: &Fake,
    engine: Engine,
    names: &[&str],
    patience: Patience,
    slow: Duration,
) -> (Failure, Arc<Book>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let wanted = Wanted { names: &names, ways: &[Challenge::TlsAlpn01, Challenge::Http01], replaces: None };
    let book = Arc::new(Book { slow, ..Book::default() });
    let proofs: Arc<dyn Proofs> = book.clone();
    let made = made(&of(fake), account_key(), engine, patience).unwrap();
    let failure = made.order(&wanted, &proofs).await.err().unwrap();
    assert_eq!(book.presented.lock().len(), book.withdrawn.load(Ordering::Relaxed));
    (failure, book)
}

const NAME: &str = "a.pierhead.test";

#[tokio::test]
async fn an_authority_that_saw_no_proof_and_has_not_given_up_looks_again_and_then_its_words_count() {
    for (engine, error) in
        ENGINES.into_iter().flat_map(|engine| ["connection", "unauthorized"].map(|kind| (engine, kind)))
    {
        let fake = undecided(&[NAME], Some(error)).await;
        let patience = Patience { stage: Duration::from_secs(2), ..SHORT };
        let (failure, _) = fails(&fake, engine, &[NAME], patience, Duration::ZERO).await;
        assert!(failure.kind == Kind::Validation && failure.proven, "{engine:?} {failure:?}");
        assert!(failure.reason.contains("connection refused") && failure.reason.contains("port 80"), "{failure}");
        assert_eq!(fake.asked().iter().filter(|(path, _)| path == "/challenge").count(), 4);
    }
}

#[tokio::test]
async fn a_name_is_proven_by_the_first_way_that_is_offered() {
    for engine in ENGINES {
        let fake = undecided(&[NAME], None).await;
        let (failure, book) = fails(&fake, engine, &[NAME], SHORT, Duration::ZERO).await;
        assert_eq!(*book.presented.lock(), [(NAME.to_owned(), Challenge::Http01)]);
        assert!(failure.kind == Kind::Unreachable && failure.proven, "{failure:?}");
    }
}

#[tokio::test]
async fn a_name_that_was_not_ordered_is_not_proven() {
    for engine in ENGINES {
        let fake = undecided(&["b.pierhead.test"], None).await;
        let (failure, book) = fails(&fake, engine, &[NAME], SHORT, Duration::ZERO).await;
        assert!(failure.kind == Kind::Refused && failure.reason.contains("b.pierhead.test"), "{failure:?}");
        assert!(book.presented.lock().is_empty() && !failure.proven);
    }
}

#[tokio::test]
async fn proofs_are_presented_side_by_side_and_in_no_time_of_the_authoritys() {
    for engine in ENGINES {
        let names = &[NAME, "b.pierhead.test", "c.pierhead.test"];
        let fake = undecided(names, None).await;
        let (patience, began) = (Patience { whole: Duration::from_secs(3), ..SHORT }, Instant::now());
        let (failure, _) = fails(&fake, engine, names, patience, Duration::from_secs(4)).await;
        assert!(failure.reason.starts_with("looking at the proofs") && failure.proven, "{failure:?}");
        assert!(began.elapsed() < Duration::from_secs(8));
    }
}

#[tokio::test]
async fn a_proof_is_withdrawn_when_its_order_is_given_up() {
    for engine in ENGINES {
        let fake = undecided(&[NAME], None).await;
        let book = Arc::new(Book { slow: Duration::from_millis(200), ..Book::default() });
        let proofs: Arc<dyn Proofs> = book.clone();
        let made = made(&of(&fake), account_key(), engine, PATIENCE).unwrap();
        let names = [NAME.to_owned()];
        let wanted = Wanted { names: &names, ways: only(Challenge::Http01), replaces: None };
        let presented = async {
            while book.presented.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            ended = made.order(&wanted, &proofs) => panic!("{:?}", ended.err()),
            () = presented => {} // and the order is dropped
        }
        while book.withdrawn.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
