//! What the token endpoint answers.

use super::*;

#[tokio::test]
async fn gitlabs_answers() {
    let office = Office::open().await;
    let (right, wrong) = (format!("alice:{PASSWORD}"), "alice:wrong horse");
    let ours = "service=container_registry";
    let secret = "service=container_registry&scope=repository:team/secret:pull";
    let table = [
        (get(&right, ours), 200, ""),
        (get("", &format!("{ours}&scope=repository:team/open:pull")), 200, ""),
        (get(&right, "service=dependency_proxy"), 404, "nothing"),
        (get(&right, ""), 404, "nothing"),
        (get(wrong, ours), 401, "UNAUTHORIZED"),
        (get("nobody:whoever", secret), 401, "UNAUTHORIZED"),
        (get("", ours), 403, "DENIED"),
        (get("", secret), 403, "DENIED"),
        (get("", &format!("{ours}&scope=repository:no/such:pull")), 403, "DENIED"),
        (get("", &format!("{ours}&scope=registry:catalog:*")), 403, "DENIED"),
        (get("", &format!("{ours}&scope=nonsense")), 403, "DENIED"),
        (get(&right, &format!("{ours}&scope={}", "repository:a:pull%20".repeat(101))), 400, "UNSUPPORTED"),
        (Request::head("/jwt/auth").body(Bytes::new()).unwrap(), 405, "nothing"),
        (Request::put("/jwt/auth").body(Bytes::new()).unwrap(), 405, "nothing"),
    ];
    for (request, status, code) in table {
        let what = format!("{} {}", request.method(), request.uri());
        let heard = office.ask(request).await;
        assert_eq!(heard.status.as_u16(), status, "{what}");
        assert_eq!(heard.header(header::CACHE_CONTROL), "no-store", "{what}");
        match code {
            "" => assert!(heard.json()["token"].is_string(), "{what}"),
            "nothing" => assert!(heard.body.is_empty(), "{what}"),
            code => assert_eq!(heard.json()["errors"][0]["code"], code, "{what}"),
        }
    }
    let heard = office.get(wrong, ours).await;
    assert!(heard.json()["errors"][0]["message"].as_str().unwrap().starts_with("HTTP Basic: Access denied."));
    assert_eq!(heard.header(header::WWW_AUTHENTICATE), "Basic realm=\"container_registry\"");
    let denied = json!({ "errors": [{ "code": "DENIED", "message": "access forbidden" }], "http_status": 403 });
    assert_eq!(office.get("", ours).await.json(), denied);
}

#[tokio::test]
async fn credentials_that_cannot_be_read_are_wrong_and_not_nobodys() {
    let office = Office::open().await;
    for value in ["Basic !", "Bearer x", "Basic", "x"] {
        let request = Request::get("/jwt/auth?service=container_registry&scope=repository:team/open:pull");
        let heard = office.ask(request.header(header::AUTHORIZATION, value).body(Bytes::new()).unwrap()).await;
        assert_eq!(heard.status, StatusCode::UNAUTHORIZED, "{value}");
    }
}

#[tokio::test]
async fn the_oauth2_form_gives_the_same_tokens_and_no_refresh_token() {
    let office = Office::open().await;
    let form = "grant_type=password&username=alice&password=correct+horse&client_id=docker&access_type=offline\
                &service=container_registry&scope=repository%3Ateam%2Fsecret%3Apull+repository%3Ateam%2Fopen%3Apull";
    let heard = office.ask(post(form)).await;
    assert_eq!(heard.status, StatusCode::OK);
    assert!(heard.json().get("refresh_token").is_none());
    assert_eq!(part(heard.token(), 1)["access"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn forms_that_cannot_be_used_are_refused_in_the_words_of_oauth2() {
    let office = Office::open().await;
    let json_body =
        Request::post("/jwt/auth").header(header::CONTENT_TYPE, "application/json").body("{}".into()).unwrap();
    let too_large = "x".repeat(64 * 1024 + 1);
    let table = [
        (post("grant_type=refresh_token&refresh_token=x&service=container_registry"), 400, "unsupported_grant_type"),
        (post("service=container_registry"), 400, "invalid_request"),
        (post("grant_type=password&service=container_registry&username=alice"), 400, "invalid_request"),
        (json_body, 400, "invalid_request"),
        (post(&too_large), 413, "invalid_request"),
    ];
    for (request, status, error) in table {
        let heard = office.ask(request).await;
        assert_eq!((heard.status.as_u16(), &heard.json()["error"]), (status, &json!(error)));
    }
    let form = "grant_type=password&username=alice&password=wrong&service=container_registry";
    assert_eq!(office.ask(post(form)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        office.ask(post("grant_type=password&username=a&password=b&service=x")).await.status,
        StatusCode::NOT_FOUND
    );

    let (head, _) = post("").into_parts();
    let broken = Recorded::with_pieces(Request::from_parts(head, ()), vec![Err(BodyError::Gone)]);
    let mut broken = broken;
    assert_eq!(office.authority.token(&mut broken).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_unknown_project_and_a_forbidden_one_cannot_be_told_apart() {
    let office = Office::open().await;
    for credentials in [String::new(), format!("bob:{PASSWORD}")] {
        let mut seen = Vec::new();
        for name in ["team/secret", "team/nosuch", "nobody/atall"] {
            let query = format!("service=container_registry&scope=repository:{name}:pull,push");
            let heard = office.get(&credentials, &query).await;
            let mut visible = heard.visible();
            if heard.status == StatusCode::OK {
                assert_eq!(part(heard.token(), 1)["access"], json!([]));
                visible.2 = Bytes::new(); // the tokens differ in their id, and in nothing that the name decides
            }
            seen.push(visible);
        }
        assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
    }
    assert!(office.database.projects(None).await.unwrap().len() == 3, "and none was made");
}

#[tokio::test]
async fn a_database_that_fails_is_503_and_the_reason_stays_inside() {
    let office = Office::open().await;
    office.database.close().await;
    let mut exchange = Recorded::new(get(&format!("alice:{PASSWORD}"), "service=container_registry"));
    let heard = Heard::from(office.authority.token(&mut exchange).await);
    assert_eq!((heard.status, heard.header(header::RETRY_AFTER)), (StatusCode::SERVICE_UNAVAILABLE, "5"));
    assert_eq!(heard.json()["errors"][0]["code"], "UNAVAILABLE");
    assert!(exchange.notes().failure.as_ref().unwrap().contains("database"));
    drop(office.folder);
}

#[tokio::test]
async fn the_log_says_why_a_login_was_refused_and_not_what_was_typed() {
    let office = Office::with(|config| config.limits.failed_logins = NonZeroU32::MIN).await;
    for reason in ["wrong user name or password", "too many failed logins"] {
        let mut exchange = Recorded::new(get("typed-here:and-here", "service=container_registry"));
        office.authority.token(&mut exchange).await;
        assert_eq!(exchange.notes().failure.as_deref(), Some(reason));
        assert_eq!(exchange.notes().subject, None);
    }
}
