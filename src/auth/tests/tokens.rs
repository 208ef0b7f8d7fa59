//! Tokens there and back, and the challenge of who has none.

use super::*;

#[tokio::test]
async fn a_token_says_what_the_specifications_want() {
    for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
        let office = Office::with(|config| config.algorithm = algorithm).await;
        let query = "service=container_registry&scope=repository:team/secret:pull,push,delete&account=alice";
        let heard = office.get(&format!("alice:{PASSWORD}"), query).await;
        assert_eq!((heard.status, heard.header(header::CACHE_CONTROL)), (StatusCode::OK, "no-store"));
        let answer = heard.json();
        assert_eq!(answer["token"], answer["access_token"]);
        assert_eq!(answer["expires_in"], 300);
        let issued: Timestamp = answer["issued_at"].as_str().unwrap().parse().unwrap();

        let token = heard.token();
        let name = if algorithm == Algorithm::Es256 { "ES256" } else { "RS256" };
        let header = part(token, 0);
        assert_eq!((&header["typ"], &header["alg"]), (&json!("JWT"), &json!(name)));
        assert_eq!(header["kid"].as_str().unwrap().split(':').count(), 12);
        let pem = office.authority.certificate_pem().lines().filter(|line| !line.starts_with("---"));
        assert_eq!(header["x5c"][0].as_str().unwrap(), pem.collect::<String>());

        let claims = part(token, 1);
        assert_eq!(claims["iss"], "pierhead");
        assert_eq!(claims["aud"], "container_registry", "a string: Distribution 2 refuses a list");
        assert_eq!(claims["sub"], "alice");
        assert_eq!(claims["auth_type"], "gitlab_or_ldap");
        assert_eq!(claims["iat"], issued.as_second());
        assert_eq!(claims["nbf"], issued.as_second() - 5);
        assert_eq!(claims["exp"], issued.as_second() + 300);
        assert_eq!(claims["jti"].as_str().unwrap().len(), 36);
        let expected = json!([{ "type": "repository", "name": "team/secret", "actions": ["pull", "push"] }]);
        assert_eq!(claims["access"], expected);

        let grant = authorize(&office.authority, Some(&format!("Bearer {token}")), "repository:team/secret:pull,push");
        assert_eq!(grant.ok().unwrap().subject.as_deref(), Some("alice"));
    }
}

#[tokio::test]
async fn a_token_of_nobody_has_no_subject_and_allows_what_is_public() {
    let office = Office::open().await;
    let heard = office.get("", "service=container_registry&scope=repository:team/open/x:pull,push").await;
    let claims = part(heard.token(), 1);
    assert_eq!((claims.get("sub"), &claims["auth_type"]), (None, &json!("none")));
    let grant = office.authority.verifier.verify(heard.token(), Timestamp::now()).unwrap();
    assert_eq!((grant.subject.as_deref(), &grant.access), (None, &access("repository:team/open/x:pull")));
}

#[tokio::test]
async fn a_token_counts_from_a_minute_before_its_beginning_to_a_minute_after_its_end() {
    let office = Office::open().await;
    let Authority { issuer, verifier, key, .. } = &office.authority;
    let token = issuer.issue(key, &Identity::Anonymous, &access("repository:a:pull"), THEN).unwrap();
    let counts = |seconds: i64| {
        let now = Timestamp::from_second(THEN.as_second() + seconds).unwrap();
        verifier.verify(&token, now).is_ok()
    };
    assert!(!counts(-66) && counts(-65) && counts(0) && counts(359) && !counts(360));
}

#[tokio::test]
async fn only_our_own_signature_issuer_and_audience_count() {
    let office = Office::open().await;
    let Authority { issuer, verifier, key, config, .. } = &office.authority;
    let wanted = access("repository:a:pull");
    let token = issuer.issue(key, &Identity::Anonymous, &wanted, THEN).unwrap();
    assert!(verifier.verify(&token, THEN).is_ok());

    let other = Office::open().await;
    let Authority { issuer: other_issuer, key: other_key, .. } = &other.authority;
    let foreign = other_issuer.issue(other_key, &Identity::Anonymous, &wanted, THEN).unwrap();
    let renamed = |change: fn(&mut Config)| {
        let mut config = config.clone();
        change(&mut config);
        Issuer::new(&config, key).issue(key, &Identity::Anonymous, &wanted, THEN).unwrap()
    };
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (_, claims) = signed.split_once('.').unwrap();
    let header = |alg: &str| URL_SAFE_NO_PAD.encode(json!({ "typ": "JWT", "alg": alg }).to_string());
    let hmac_key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key.public);
    let confused = format!("{}.{claims}", header("HS256"));
    let mac = aws_lc_rs::hmac::sign(&hmac_key, confused.as_bytes());
    let mut widened = part(&token, 1);
    widened["access"] = json!([{ "type": "registry", "name": "catalog", "actions": ["*"] }]);
    let widened = URL_SAFE_NO_PAD.encode(widened.to_string());
    for (what, token) in [
        ("another key", foreign),
        ("another issuer", renamed(|config| config.issuer = "gitlab-issuer".to_owned())),
        ("another audience", renamed(|config| config.service = "other".to_owned())),
        ("no algorithm", format!("{}.{claims}.", header("none"))),
        ("the public key as a shared secret", format!("{confused}.{}", URL_SAFE_NO_PAD.encode(mac.as_ref()))),
        ("other claims", format!("{}.{widened}.{signature}", signed.split_once('.').unwrap().0)),
        ("no signature", format!("{signed}.")),
        ("nothing", String::new()),
        ("two parts", signed.to_owned()),
    ] {
        assert!(verifier.verify(&token, THEN).is_err(), "{what}");
    }
}

#[tokio::test]
async fn a_remembered_token_ends_when_it_says_and_speaks_for_no_other() {
    let office = Office::open().await;
    let Authority { issuer, verifier, key, .. } = &office.authority;
    let token = issuer.issue(key, &Identity::Anonymous, &access("repository:a:pull"), THEN).unwrap();
    let at = |seconds: i64| verifier.verify(&token, Timestamp::from_second(THEN.as_second() + seconds).unwrap());
    let first = at(0).unwrap();
    assert!(Arc::ptr_eq(&first, &at(359).unwrap()), "it is verified once");
    assert!(matches!(at(360), Err(Invalid::Expired(_))));
    assert!(matches!(at(-66), Err(Invalid::Untrue)));
    assert!(at(0).is_ok(), "a clock that was set back");

    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[0] ^= 1;
    let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&bytes));
    let remembered = verifier.remembered();
    for _ in 0..2 {
        assert!(verifier.verify(&forged, THEN).is_err(), "the same words under another signature");
    }
    assert_eq!((remembered, verifier.remembered()), (1, 1), "what is not believed is not kept");
}

#[tokio::test]
async fn actions_of_a_token_are_parsed_and_strange_ones_left_out() {
    let office = Office::open().await;
    let Authority { verifier, key, issuer, .. } = &office.authority;
    let all = [Access::repository(&"a/b".parse().unwrap(), &[Action::All]), access("registry:catalog:*").remove(0)];
    let token = issuer.issue(key, &Identity::Anonymous, &all, THEN).unwrap();
    let grant = verifier.verify(&token, THEN).unwrap();
    assert_eq!(grant.access, all);
    assert!(grant.allows(&access("repository:a/b:delete,pull")[0]) && !grant.allows(&access("repository:a:pull")[0]));
}

#[tokio::test]
async fn who_brings_no_token_is_told_where_to_get_one() {
    let office = Office::open().await;
    let basic = format!("Basic {}", STANDARD.encode(format!("root:{PASSWORD}")));
    for authorization in [None, Some(basic.as_str())] {
        let heard =
            authorize(&office.authority, authorization, "repository:a/b:pull,push repository:c:pull").err().unwrap();
        assert_eq!(heard.status, StatusCode::UNAUTHORIZED);
        assert_eq!(
            heard.header(header::WWW_AUTHENTICATE),
            "Bearer realm=\"https://localhost:5050/jwt/auth\",service=\"container_registry\",\
             scope=\"repository:a/b:pull,push repository:c:pull\""
        );
        assert_eq!(heard.headers["docker-distribution-api-version"], "registry/2.0");
        let entry =
            |name: &str, action: &str| json!({ "Type": "repository", "Class": "", "Name": name, "Action": action });
        let error = json!({
            "code": "UNAUTHORIZED",
            "message": "authentication required",
            "detail": [entry("a/b", "pull"), entry("a/b", "push"), entry("c", "pull")],
        });
        assert_eq!(heard.json(), json!({ "errors": [error] }));
    }
    let heard = authorize(&office.authority, None, "").err().unwrap();
    assert!(!heard.header(header::WWW_AUTHENTICATE).contains("scope"), "the base asks for no scope");
}

#[tokio::test]
async fn a_bad_token_and_a_narrow_one_are_told_apart() {
    let office = Office::open().await;
    let heard = authorize(&office.authority, Some("Bearer nonsense"), "repository:a:pull").err().unwrap();
    assert!(heard.header(header::WWW_AUTHENTICATE).ends_with("scope=\"repository:a:pull\",error=\"invalid_token\""));
    let token = office.get(&format!("bob:{PASSWORD}"), "service=container_registry").await;
    let bearer = format!("Bearer {}", token.token());
    assert!(authorize(&office.authority, Some(&bearer), "").is_ok(), "enough for the base");
    let heard = authorize(&office.authority, Some(&bearer), "repository:a:pull").err().unwrap();
    assert_eq!(heard.status, StatusCode::UNAUTHORIZED);
    let expected = "scope=\"repository:a:pull\",error=\"insufficient_scope\"";
    assert!(heard.header(header::WWW_AUTHENTICATE).ends_with(expected));
}

/// What a mount of `source` into `target` asks.
fn mount(source: &str) -> Demand {
    let useful = access(&format!("repository:{source}:pull")).pop();
    Demand { needed: access("repository:team/open:pull,push"), useful }
}

const BOTH: &str = "scope=\"repository:team/open:pull,push repository:team/secret:pull\"";

#[tokio::test]
async fn who_mounts_is_asked_for_both_repositories_the_target_first() {
    let office = Office::open().await;
    let heard = authorize_for(&office.authority, None, mount("team/secret")).err().unwrap();
    assert!(heard.header(header::WWW_AUTHENTICATE).ends_with(BOTH));
    assert_eq!(heard.json()["errors"][0]["detail"].as_array().unwrap().len(), 3);
    let heard = authorize_for(&office.authority, Some("Bearer nonsense"), mount("team/secret")).err().unwrap();
    assert!(heard.header(header::WWW_AUTHENTICATE).ends_with(&format!("{BOTH},error=\"invalid_token\"")));
}

#[tokio::test]
async fn a_token_that_was_not_asked_for_the_source_of_a_mount_is_challenged_once() {
    let office = Office::open().await;
    office.database.set_member(&developer_of_open("bob")).await.unwrap();
    for (name, may_read) in [("alice", true), ("bob", false)] {
        let token = async |scopes: &str| {
            let query = format!("service=container_registry&scope={}", scopes.replace(' ', "&scope="));
            format!("Bearer {}", office.get(&format!("{name}:{PASSWORD}"), &query).await.token())
        };
        let narrow = token("repository:team/open:pull,push").await;
        let heard = authorize_for(&office.authority, Some(&narrow), mount("team/secret")).err().unwrap();
        assert!(heard.header(header::WWW_AUTHENTICATE).ends_with(&format!("{BOTH},error=\"insufficient_scope\"")));
        let wide = token("repository:team/open:pull,push repository:team/secret:pull").await;
        let grant = authorize_for(&office.authority, Some(&wide), mount("team/secret")).ok().unwrap();
        assert_eq!(grant.may_pull(&"team/secret".parse().unwrap()), may_read, "{name} goes on in either case");
        let wrong = authorize_for(&office.authority, Some(&wide), mount("team/other")).err().unwrap();
        assert!(wrong.header(header::WWW_AUTHENTICATE).contains("repository:team/other:pull"));
    }
}

fn developer_of_open(name: &str) -> Member {
    let (path, account) = ("team/open".parse().unwrap(), name.parse().unwrap());
    Member { path, account, role: Role::Developer, created_at: THEN }
}
