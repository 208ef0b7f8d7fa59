//! Rules W1 to W7.

use super::*;

const LISTED: &str = "https://gitlab.example.com/jwt/auth";
const INSIDE: &str = "https://gitlab.internal/jwt/auth";

/// GitLab's registry, with GitLab inside and outside.
fn gitlab() -> Client<'static> {
    let realms = vec![realm(INSIDE, &["10.0.0.0/8"]), realm(LISTED, &[])];
    Client::of(Upstream { realms, ..upstream() })
}

fn bearer(realm: &str) -> String {
    format!(
        "Bearer realm=\"{realm}\",service=\"container_registry\",scope=\"repository:a/b:pull,push\",error=\"invalid_token\""
    )
}

fn heard(client: &Client<'_>, realm: &str) -> (String, bool) {
    let (line, concern) = client.gets_line(401, "WWW-Authenticate", &bearer(realm));
    let realm = line.strip_prefix("Bearer realm=\"").unwrap().split('"').next().unwrap().to_owned();
    assert_eq!(line, bearer(&realm), "nothing else changes");
    (realm, concern)
}

fn hold(client: &Client<'_>, rows: &[(&str, &str)]) {
    for (said, expected) in rows {
        assert_eq!(heard(client, said), ((*expected).to_owned(), false), "{said}");
    }
}

#[test]
fn w1_a_listed_realm_stays() {
    hold(&gitlab(), &[(LISTED, LISTED)]);
}

#[test]
fn w2_a_listed_host_with_another_scheme_or_port_is_as_listed() {
    for said in [
        "http://gitlab.example.com/jwt/auth",
        "https://gitlab.example.com:5050/jwt/auth",
        "https://GITLAB.example.com/x",
    ] {
        hold(&gitlab(), &[(said, LISTED)]);
    }
}

#[test]
fn w3_a_leaked_internal_name_is_replaced() {
    for said in
        ["http://registry:5000/jwt/auth", "http://127.0.0.1:5000/auth/token", "https://localhost:5000/auth/token"]
    {
        hold(&gitlab(), &[(said, LISTED)]);
    }
}

#[test]
fn w4_each_client_is_sent_where_it_can_go() {
    let inside = Client { address: "10.4.5.6".parse().unwrap(), ..gitlab() };
    hold(&inside, &[(INSIDE, INSIDE), (LISTED, LISTED), ("http://registry:5000/jwt/auth", INSIDE)]);
    hold(&gitlab(), &[(INSIDE, LISTED)]);
    let only = vec![realm(INSIDE, &["10.0.0.0/8"]), realm(LISTED, &["192.0.2.0/24"])];
    let split = |address: &str| Client {
        address: address.parse().unwrap(),
        ..Client::of(Upstream { realms: only.clone(), ..upstream() })
    };
    hold(&split("10.4.5.6"), &[(LISTED, INSIDE)]);
    hold(&split("192.0.2.1"), &[(INSIDE, LISTED)]);
    assert_eq!(heard(&split("203.0.113.1"), LISTED), (LISTED.to_owned(), true));
}

#[test]
fn w5_any_other_realm_is_a_concern_and_with_strict_refused() {
    let strict = Client { upstream: Upstream { strict: true, ..gitlab().upstream }, ..gitlab() };
    for said in [
        "https://evil.example/jwt/auth",
        "https://gitlab.example.com.evil.example/jwt/auth",
        "https://u@gitlab.example.com/jwt/auth",
        "",
        "/jwt/auth",
    ] {
        assert_eq!(heard(&gitlab(), said), (said.to_owned(), true));
        assert!(strict.gets(401, &[("WWW-Authenticate", &bearer(said))]).is_err(), "{said}");
    }
    // The operator's words for the log, without what a stranger wrote into a path.
    let refused = strict.gets(401, &[("WWW-Authenticate", &bearer("https://evil.example/x?password=1"))]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the upstream sends the client to https://evil.example for a token, which is not one of its realms"
    );
}

#[test]
fn without_a_list_the_upstream_is_believed_but_not_in_the_clear() {
    let strict = Client::of(Upstream { strict: true, ..upstream() });
    for client in [Client::of(upstream()), strict] {
        hold(&client, &[("https://auth.example.net/token", "https://auth.example.net/token"), (LISTED, LISTED)]);
    }
    for said in ["http://auth.example.net/token", "http://registry:5000/auth/token"] {
        assert_eq!(heard(&Client::of(upstream()), said), (said.to_owned(), true));
    }
    let clear = Client { origin: origin("http://gitlab.example.com:5050"), ..Client::of(upstream()) };
    hold(&clear, &[("http://auth.example.net/token", "http://auth.example.net/token")]);
}

#[test]
fn the_token_endpoint_that_clients_reach_by_us_is_below_the_name_they_used() {
    let client = Client { token: Some("/jwt/auth"), ..Client::of(upstream()) };
    let own = format!("{EXTERNAL}/jwt/auth");
    for said in [own.as_str(), LISTED, "http://registry:5000/jwt/auth", "http://registry.example.com/jwt/auth"] {
        hold(&client, &[(said, &own)]);
    }
    let alias = Client { token: Some("/jwt/auth"), origin: origin(ALIAS), ..Client::of(upstream()) };
    hold(
        &alias,
        &[
            (&own, &format!("{ALIAS}/jwt/auth")),
            ("https://gitlab.example.com/other", "https://gitlab.example.com/other"),
        ],
    );
    // What the operator lists is what is meant.
    hold(&Client { token: Some("/jwt/auth"), ..gitlab() }, &[(LISTED, LISTED)]);
}

#[test]
fn w6_only_realms_of_bearer_change_and_everything_around_them_stays() {
    const LEAKED: &str = "http://registry:5000/auth/token";
    for (said, expected) in [
        (format!("Basic realm=\"{LEAKED}\""), format!("Basic realm=\"{LEAKED}\"")),
        (
            format!(
                "Basic realm=\"a, Bearer realm=\\\"{LEAKED}\\\"\", bearer  service=\"x\" , REALM = \"{LEAKED}\",scope=\"a,b\""
            ),
            format!(
                "Basic realm=\"a, Bearer realm=\\\"{LEAKED}\\\"\", bearer  service=\"x\" , REALM = \"{LISTED}\",scope=\"a,b\""
            ),
        ),
        (
            format!(
                "Negotiate abc/+==, Bearer realm=\"{LEAKED}\", Basic realm=\"{LEAKED}\", Bearer realm=\"{LEAKED}\""
            ),
            format!(
                "Negotiate abc/+==, Bearer realm=\"{LISTED}\", Basic realm=\"{LEAKED}\", Bearer realm=\"{LISTED}\""
            ),
        ),
        (format!("Bearer realm={LEAKED}, service=x"), format!("Bearer realm={LISTED}, service=x")),
        (format!("Bearer realm=\"{LISTED}\\\\\", x=\"\\\"\""), format!("Bearer realm=\"{LISTED}\\\\\", x=\"\\\"\"")),
        ("Bearer".to_owned(), "Bearer".to_owned()),
        (String::new(), String::new()),
    ] {
        let (line, _) = gitlab().gets_line(401, "WWW-Authenticate", &said);
        assert_eq!(line, expected);
    }
    let lines = ["Basic realm=\"x\"".to_owned(), bearer("http://registry:5000/"), "Negotiate".to_owned()];
    let headers: Vec<_> = lines.iter().map(|line| ("WWW-Authenticate", line.as_str())).collect();
    let (answer, _) = gitlab().gets(401, &headers).unwrap();
    let heard: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(heard, [&lines[0], &bearer(LISTED), &lines[2]]);
}

#[test]
fn a_challenge_that_cannot_be_understood_is_a_concern_and_with_strict_refused() {
    let strict = Client { upstream: Upstream { strict: true, ..gitlab().upstream }, ..gitlab() };
    for said in ["Bearer realm=\"https://gitlab.example.com/jwt/auth", "=x", "\"", "Bearer realm=\"a\\\""] {
        assert_eq!(gitlab().gets_line(401, "WWW-Authenticate", said), (said.to_owned(), true));
        assert!(strict.gets(401, &[("WWW-Authenticate", said)]).is_err(), "{said}");
    }
}

#[test]
fn w7_a_challenge_is_never_dropped() {
    let edits = HeaderEdits::default();
    let client = Client { upstream: Upstream { response_headers: edits, ..gitlab().upstream }, ..gitlab() };
    for said in [bearer(LISTED), bearer("https://evil.example/"), "x".to_owned()] {
        let (answer, _) = client.gets(401, &[("WWW-Authenticate", &said)]).unwrap();
        assert_eq!(answer.headers.get_all("www-authenticate").iter().count(), 1);
    }
}
