//! Who is let in, at what cost, and how often; and the first admin.

use super::*;

#[tokio::test]
async fn an_unknown_name_costs_a_hash_like_a_known_one() {
    let office = Office::open().await;
    let now = Instant::now();
    for (count, name) in ["alice", "nobody", "no name at all!"].into_iter().enumerate() {
        assert!(matches!(office.login(name, "wrong horse", HOME, now).await, Err(Refusal::Wrong)));
        assert_eq!(office.hashes(), count + 1, "{name}");
    }
}

#[tokio::test]
async fn a_verified_login_is_remembered_until_the_row_changes() {
    let office = Office::open().await;
    let now = Instant::now();
    for _ in 0..3 {
        assert!(office.login("Alice", PASSWORD, HOME, now).await.is_ok());
    }
    assert_eq!(office.hashes(), 1);
    assert!(matches!(office.login("alice", "wrong horse", HOME, now).await, Err(Refusal::Wrong)));
    assert!(matches!(office.login("bob", "wrong horse", HOME, now).await, Err(Refusal::Wrong)));

    office.set_password("alice", "another horse").await;
    assert!(matches!(office.login("alice", PASSWORD, HOME, now).await, Err(Refusal::Wrong)));
    assert!(office.login("alice", "another horse", HOME, now).await.is_ok());

    office.database.remove_account(&"alice".parse().unwrap(), metadata::Run::Real).await.unwrap();
    assert!(matches!(office.login("alice", "another horse", HOME, now).await, Err(Refusal::Wrong)));
}

#[tokio::test]
async fn a_password_set_again_to_the_same_text_is_hashed_again() {
    let office = Office::open().await;
    let now = Instant::now();
    office.login("alice", PASSWORD, HOME, now).await.unwrap();
    office.set_password("alice", PASSWORD).await;
    office.login("alice", PASSWORD, HOME, now).await.unwrap();
    assert_eq!(office.hashes(), 2);
}

#[tokio::test]
async fn over_the_limit_nothing_is_hashed_until_the_time_has_come() {
    let office = Office::with(|config| config.limits.failed_logins = NonZeroU32::new(2).unwrap()).await;
    let now = Instant::now();
    for _ in 0..2 {
        assert!(matches!(office.login("alice", "wrong horse", HOME, now).await, Err(Refusal::Wrong)));
    }
    for name in ["alice", "bob", "nobody"] {
        let refused = office.login(name, PASSWORD, HOME, now).await;
        assert!(matches!(refused, Err(Refusal::Limited(wait)) if wait == Duration::from_secs(30)), "{name}");
    }
    assert_eq!(office.hashes(), 2);
    assert!(office.login("bob", PASSWORD, HOME, now + Duration::from_secs(30)).await.is_ok());
}

#[tokio::test]
async fn right_passwords_never_count() {
    let office = Office::with(|config| config.limits.failed_logins = NonZeroU32::MIN).await;
    let now = Instant::now();
    for round in 0..5 {
        office.set_password("alice", PASSWORD).await; // so that each is hashed
        assert!(office.login("alice", PASSWORD, HOME, now).await.is_ok(), "{round}");
    }
}

#[tokio::test]
async fn an_account_under_attack_stays_open_to_its_owner() {
    let office = Office::with(|config| config.limits.failed_logins = NonZeroU32::MIN).await;
    let now = Instant::now();
    office.login("alice", PASSWORD, HOME, now).await.unwrap();
    assert!(matches!(office.login("alice", "guess one", ELSEWHERE, now).await, Err(Refusal::Wrong)));
    let new_place = "203.0.113.5";
    assert!(office.login("alice", PASSWORD, new_place, now).await.is_ok(), "remembered, so also from a new address");
    office.set_password("alice", PASSWORD).await;
    assert!(office.login("alice", PASSWORD, HOME, now).await.is_ok(), "known there, so also when it must be hashed");
    assert!(matches!(office.login("bob", PASSWORD, ELSEWHERE, now).await, Err(Refusal::Limited(_))));
}

#[tokio::test]
async fn a_running_build_with_a_password_that_nobody_guesses_meets_no_limit() {
    let office = Office::with(|config| config.limits.failed_logins = NonZeroU32::MIN).await;
    let now = Instant::now();
    let generated = Password::generate().unwrap();
    office.set_password("alice", generated.reveal()).await;
    office.login("alice", generated.reveal(), HOME, now).await.unwrap();
    office.login("bob", PASSWORD, HOME, now).await.unwrap();
    for name in ["alice", "bob", "nobody"] {
        let _ = office.login(name, "guess one", HOME, now).await; // whatever it says, the limits are used up now
    }
    assert!(office.login("alice", generated.reveal(), HOME, now).await.is_ok(), "remembered, and long");
    assert!(matches!(office.login("bob", PASSWORD, HOME, now).await, Err(Refusal::Limited(_))), "not long");
    let long_guess = "a guess of more than twenty-four letters";
    assert!(matches!(office.login("alice", long_guess, HOME, now).await, Err(Refusal::Limited(_))), "not remembered");
    office.set_password("alice", generated.reveal()).await;
    assert!(matches!(office.login("alice", generated.reveal(), HOME, now).await, Err(Refusal::Limited(_))), "changed");
}

#[tokio::test]
async fn guesses_at_a_closed_account_end_with_the_addresss_few_tries() {
    let office = Office::with(|config| config.limits.failed_logins = NonZeroU32::new(2).unwrap()).await;
    let now = Instant::now();
    office.login("alice", PASSWORD, HOME, now).await.unwrap();
    for _ in 0..2 {
        assert!(office.login("alice", "guess one", ELSEWHERE, now).await.is_err());
    }
    let guesser = "203.0.113.5";
    for _ in 0..2 {
        assert!(matches!(office.login("alice", "guess two", guesser, now).await, Err(Refusal::Limited(_))));
    }
    assert!(
        matches!(office.login("alice", PASSWORD, guesser, now).await, Err(Refusal::Limited(_))),
        "even the right one"
    );
}

#[tokio::test]
async fn too_many_failures_are_429_with_the_time_to_wait() {
    let office = Office::with(|config| config.limits.failed_logins = NonZeroU32::MIN).await;
    let now = Moment { wall: THEN, steady: Instant::now() };
    let ask = async |later: Duration| {
        let now = Moment { steady: now.steady + later, ..now };
        let mut exchange = Recorded::new(get("nobody:wrong horse", "service=container_registry"));
        let heard = Heard::from(endpoint::answer(&office.authority, &mut exchange, now).await);
        (heard, exchange.notes().limit)
    };
    assert_eq!(ask(Duration::ZERO).await.0.status, StatusCode::UNAUTHORIZED);
    let (heard, limit) = ask(Duration::from_millis(500)).await;
    assert_eq!(limit, Some(crate::exchange::Limit::FailedLogins), "it is counted as what it was");
    assert_eq!((heard.status, heard.header(header::RETRY_AFTER)), (StatusCode::TOO_MANY_REQUESTS, "60"));
    assert_eq!(heard.json()["errors"][0]["code"], "TOOMANYREQUESTS");
    assert_eq!(ask(Duration::from_secs(60)).await.0.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_of_strangers_does_not_keep_regulars_out() {
    let office = std::sync::Arc::new(Office::open().await);
    let now = Instant::now();
    office.login("alice", PASSWORD, HOME, now).await.unwrap();
    let mut flood = tokio::task::JoinSet::new();
    for number in 0..200 {
        let office = office.clone();
        flood.spawn(async move {
            let address = format!("10.0.{}.{}", number / 100, number % 100);
            office.login(&format!("user{number}"), "wrong horse", &address, now).await
        });
    }
    for password in ["second horse", "third horse"] {
        office.set_password("alice", password).await; // so that it must be hashed, in the middle of the flood
        assert!(office.login("alice", password, HOME, now).await.is_ok());
    }
    let outcomes = flood.join_all().await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Refusal::Wrong | Refusal::Busy))));
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Err(Refusal::Wrong))).count() + 3, office.hashes());
}

#[tokio::test]
async fn a_crowd_with_the_same_new_login_costs_one_hash() {
    let office = Office::open().await;
    let now = Instant::now();
    let logins = (0..20).map(|_| office.login("alice", PASSWORD, HOME, now));
    let outcomes = futures_util::future::join_all(logins).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(office.hashes(), 1);
}

#[tokio::test]
async fn the_first_start_makes_an_admin_once() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&Database::path_in(folder.path())).await.unwrap();
    assert!(needs_first_admin(&database).await.unwrap());
    let made = first_admin(&database, None, THEN).await.unwrap().unwrap();
    assert!(!needs_first_admin(&database).await.unwrap());
    assert_eq!(made.name, "admin".parse::<AccountName>().unwrap());
    let authority = Authority::open(config(folder.path()), database.clone()).unwrap();
    let password = made.generated.unwrap();
    assert!(password.reveal().len() >= 24);
    let login = authority.accounts.login("admin", password.reveal().as_bytes(), HOME.parse().ok(), Instant::now());
    assert!(login.await.unwrap().account.is_admin);
    let given = Some("given password".parse().unwrap());
    assert!(first_admin(&database, given, THEN).await.unwrap().is_none(), "a given password sets and never changes");
}

#[tokio::test]
async fn a_user_who_has_the_first_admins_name_is_not_promoted() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&Database::path_in(folder.path())).await.unwrap();
    let name: AccountName = "admin".parse().unwrap();
    let account = Account { name: name.clone(), password: String::new(), is_admin: false, created_at: THEN };
    assert!(database.add_account(&account).await.unwrap());
    assert!(first_admin(&database, None, THEN).await.unwrap().is_none());
    assert_eq!(database.account(&name).await.unwrap(), Some(account));
    assert!(needs_first_admin(&database).await.unwrap());
}

#[tokio::test]
async fn the_operators_password_is_taken_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&Database::path_in(folder.path())).await.unwrap();
    let made = first_admin(&database, Some(PASSWORD.parse().unwrap()), THEN).await.unwrap().unwrap();
    assert!(made.generated.is_none());
    let stored = database.account(&made.name).await.unwrap().unwrap().password;
    assert!(password::matches(&stored, PASSWORD.as_bytes()));
}
