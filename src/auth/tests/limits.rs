//! How often nobody in particular may ask, what never counts, and who is forgiven.

use super::*;

const QUERY: &str = "service=container_registry&scope=repository:team/open:pull";
const HERE: &str = "127.0.0.1"; // where requests from memory come from

fn limits(anonymous: u32) -> Limits {
    Limits { failed_logins: NonZeroU32::MIN, anonymous: NonZeroU32::new(anonymous) }
}

/// An authority that guards a registry.
struct Gate {
    office: Office,
    own: Arc<Authority>,
    guardian: Guardian,
}

impl Gate {
    async fn with(limits: Limits) -> Self {
        let office = Office::with(|config| config.limits = limits).await;
        let own = Authority::open(office.authority.config.clone(), office.database.clone()).unwrap();
        let own = Arc::new(own);
        let guardian = Guardian::open(&own.config, Some(own.clone())).unwrap();
        Self { office, own, guardian }
    }

    /// Asks for a token.
    async fn token(&self, credentials: &str) -> Heard {
        self.own.token(&mut Recorded::new(get(credentials, QUERY))).await.into()
    }

    /// Asks the registry, and says what it is told and when to come again.
    async fn pull(&self, authorization: Option<&str>) -> (u16, String) {
        let exchange = request_with(authorization);
        let demand = Demand { needed: access("repository:team/open:pull"), useful: None };
        match self.guardian.authorize(exchange.head(), exchange.caller(), &demand).await {
            Ok(_) => (200, String::new()),
            Err(refusal) => {
                let heard = Heard::from(refusal.answer);
                (heard.status.as_u16(), heard.header(header::RETRY_AFTER).to_owned())
            }
        }
    }
}

#[tokio::test]
async fn tokens_for_nobody_in_particular_are_429_above_the_limit_and_logins_are_not() {
    let office = Office::with(|config| config.limits = limits(2)).await;
    for _ in 0..2 {
        assert_eq!(office.get("", QUERY).await.status, StatusCode::OK);
    }
    let heard = office.get("", QUERY).await;
    assert_eq!((heard.status, heard.header(header::RETRY_AFTER)), (StatusCode::TOO_MANY_REQUESTS, "30"));
    assert_eq!(heard.json()["errors"][0]["code"], "TOOMANYREQUESTS");
    assert_eq!(office.get(&format!("alice:{PASSWORD}"), QUERY).await.status, StatusCode::OK);
    let proxied = office.authority.token(&mut Recorded::new(get("", QUERY)).through_a_proxy()).await;
    assert_eq!(proxied.status, StatusCode::OK, "nobody knows who that is");
}

#[tokio::test]
async fn what_nobody_in_particular_is_granted_counts_with_their_tokens() {
    let gate = Gate::with(limits(3)).await;
    let nobody = format!("Bearer {}", gate.token("").await.token());
    let alice = format!("Bearer {}", gate.token(&format!("alice:{PASSWORD}")).await.token());
    for _ in 0..2 {
        assert_eq!(gate.pull(Some(&nobody)).await.0, 200);
    }
    assert_eq!(gate.pull(Some(&nobody)).await, (429, "20".to_owned()));
    assert_eq!(gate.token("").await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(gate.pull(Some(&alice)).await.0, 200, "who says who it is meets no limit");
}

#[tokio::test]
async fn a_401_never_counts() {
    let gate = Gate::with(limits(1)).await;
    for authorization in [None, Some("Bearer nonsense"), Some("Basic !!"), Some("Basic YWxpY2U6d3Jvbmc=")] {
        for _ in 0..20 {
            assert_eq!(gate.pull(authorization).await.0, 401);
        }
    }
    assert_eq!(gate.token(&format!("alice:{PASSWORD}")).await.status, StatusCode::OK, "no login has failed");
    assert_eq!(gate.token("").await.status, StatusCode::OK, "nobody has asked for anything");
}

#[tokio::test]
async fn where_nobody_guards_everything_is_asked_for_by_nobody_in_particular() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { guard: Guard::Nobody, limits: limits(2), ..config(folder.path()) };
    let guardian = Guardian::open(&config, None).unwrap();
    let exchange = request_with(None);
    let nothing = Demand { needed: Vec::new(), useful: None };
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(guardian.authorize(exchange.head(), exchange.caller(), &nothing).await.is_ok());
    }
    assert_eq!(heard, [true, true, false]);
}

#[tokio::test]
async fn an_address_and_an_account_are_forgiven_what_counts_against_them() {
    let gate = Gate::with(limits(1)).await;
    let right = format!("alice:{PASSWORD}");
    assert_eq!(gate.token("alice:wrong horse").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gate.token("").await.status, StatusCode::OK);
    for credentials in ["", &right] {
        assert_eq!(gate.token(credentials).await.status, StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(gate.guardian.forgive(&Whom::Address(ELSEWHERE.parse().unwrap())), 0);
    assert_eq!(gate.guardian.forgive(&Whom::Address(HERE.parse().unwrap())), 2, "failed logins, and no login");
    assert_eq!(gate.token("").await.status, StatusCode::OK);
    assert_eq!(gate.token(&right).await.status, StatusCode::TOO_MANY_REQUESTS, "tried from anywhere");
    assert_eq!(gate.guardian.forgive(&Whom::Account("no name at all!".to_owned())), 0);
    assert_eq!(gate.guardian.forgive(&Whom::Account("alice".to_owned())), 1);
    gate.guardian.forgive(&Whom::Address(HERE.parse().unwrap())); // the try at a closed account counted
    assert_eq!(gate.token(&right).await.status, StatusCode::OK);
}

#[tokio::test]
async fn new_limits_hold_at_once() {
    let gate = Gate::with(limits(1)).await;
    assert_eq!(gate.token("").await.status, StatusCode::OK);
    assert_eq!(gate.token("").await.status, StatusCode::TOO_MANY_REQUESTS);
    gate.guardian.limit(Limits { failed_logins: NonZeroU32::new(2).unwrap(), anonymous: None });
    assert_eq!(gate.token("").await.status, StatusCode::OK);
    for guess in ["one wrong horse", "two wrong horses"] {
        assert_eq!(gate.token(&format!("alice:{guess}")).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(gate.token("alice:three wrong horses").await.status, StatusCode::TOO_MANY_REQUESTS);
    drop(gate.office);
}

#[tokio::test]
async fn a_token_of_another_service_that_names_nobody_is_somebody_all_the_same() {
    let gate = Gate::with(limits(1)).await;
    let config = &gate.own.config;
    let trust = Trust {
        realm: Realm::Path("/jwt/auth".to_owned()),
        service: config.service.clone(),
        issuer: config.issuer.clone(),
        bundle: Some(config.certificate.clone()),
        key_set: None,
        algorithms: Vec::new(),
    };
    let guardian = Guardian::open(&Config { guard: Guard::Token(trust), ..config.clone() }, None).unwrap();
    let nobody = format!("Bearer {}", gate.token("").await.token());
    let exchange = request_with(Some(&nobody));
    let demand = Demand { needed: access("repository:team/open:pull"), useful: None };
    for _ in 0..20 {
        let grant = guardian.authorize(exchange.head(), exchange.caller(), &demand).await.ok().unwrap();
        assert_eq!(grant.subject, None, "as the tokens of deploy tokens are");
    }
}
