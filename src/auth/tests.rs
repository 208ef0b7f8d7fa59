//! The room as a whole: requests in, answers out, tokens there and back.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::accounts::Refusal;
use super::credential::Identity;
use super::*;
use crate::exchange::memory::Recorded;
use crate::exchange::{Body, BodyError};
use crate::metadata::{self, Account, AccountName, Member, Project, Role, Visibility};
use crate::oci::Action;

const PASSWORD: &str = "correct horse";
const THEN: Timestamp = Timestamp::constant(1_760_000_000, 0);
const HOME: &str = "192.0.2.1";
const ELSEWHERE: &str = "198.51.100.9";

pub(super) fn config(folder: &Path) -> Config {
    Config {
        path: "/jwt/auth".to_owned(),
        service: "container_registry".to_owned(),
        issuer: "pierhead".to_owned(),
        duration: Duration::from_secs(300),
        algorithm: Algorithm::Es256,
        key: folder.join("token.key"),
        certificate: folder.join("token.crt"),
        failed_logins: NonZeroU32::new(10).unwrap(),
        members_may_create_projects: false,
    }
}

/// An authority with the accounts `root` (admin), `alice` (developer of `team`) and `bob`, all with [`PASSWORD`], and a
/// project of each visibility.
struct Office {
    authority: Authority,
    database: Database,
    folder: TempDir,
}

impl Office {
    async fn open() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::path_in(folder.path())).await.unwrap();
        let hash = PASSWORD.parse::<Password>().unwrap().hash().unwrap();
        for (name, is_admin) in [("root", true), ("alice", false), ("bob", false)] {
            let account = Account { name: name.parse().unwrap(), password: hash.clone(), is_admin, created_at: THEN };
            assert!(database.add_account(&account).await.unwrap());
        }
        for (path, visibility) in [
            ("team/open", Visibility::Public),
            ("team/inside", Visibility::Internal),
            ("team/secret", Visibility::Private),
        ] {
            let project = Project { path: path.parse().unwrap(), visibility, created_at: THEN };
            assert!(database.add_project(&project).await.unwrap());
        }
        let member = Member {
            path: "team".parse().unwrap(),
            account: "alice".parse().unwrap(),
            role: Role::Developer,
            created_at: THEN,
        };
        assert!(database.set_member(&member).await.unwrap());
        let mut config = config(folder.path());
        change(&mut config);
        let authority = Authority::open(config, database.clone()).unwrap();
        Self { authority, database, folder }
    }

    async fn ask(&self, request: Request<Bytes>) -> Heard {
        Heard::from(self.authority.token(&mut Recorded::new(request)).await)
    }

    /// GET with credentials `name:password`, or without if they are empty.
    async fn get(&self, credentials: &str, query: &str) -> Heard {
        self.ask(get(credentials, query)).await
    }

    /// What a token for these scopes allows.
    async fn granted(&self, name: &str, scopes: &str) -> Vec<String> {
        let credentials = if name.is_empty() { String::new() } else { format!("{name}:{PASSWORD}") };
        let scope: String = scopes.split(' ').map(|scope| format!("&scope={scope}")).collect();
        let heard = self.get(&credentials, &format!("service=container_registry{scope}")).await;
        if heard.status != StatusCode::OK {
            return vec![heard.status.to_string()];
        }
        let grant = self.authority.verifier.verify(heard.token(), Timestamp::now()).unwrap();
        grant.access.iter().map(ToString::to_string).collect()
    }

    async fn login(&self, name: &str, password: &str, address: &str, now: Instant) -> Result<Account, Refusal> {
        let address: IpAddr = address.parse().unwrap();
        self.authority.accounts.login(name, password.as_bytes(), address, now).await
    }

    fn hashes(&self) -> usize {
        self.authority.accounts.hashes()
    }

    async fn set_password(&self, name: &str, password: &str) {
        let hash = password.parse::<Password>().unwrap().hash().unwrap();
        assert!(self.database.set_password(&name.parse().unwrap(), &hash).await.unwrap());
    }
}

fn get(credentials: &str, query: &str) -> Request<Bytes> {
    let mut request = Request::get(format!("/jwt/auth?{query}"));
    if !credentials.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(credentials)));
    }
    request.body(Bytes::new()).unwrap()
}

fn post(form: &str) -> Request<Bytes> {
    Request::post("/jwt/auth")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Bytes::from(form.to_owned()))
        .unwrap()
}

/// An answer, taken apart.
struct Heard {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl From<Answer> for Heard {
    fn from(answer: Answer) -> Self {
        let body = match answer.body {
            Body::Empty => Bytes::new(),
            Body::Bytes(bytes) => bytes,
            Body::Stream { .. } => panic!("no answer of ours is a stream"),
        };
        Self { status: answer.status, headers: answer.headers, body }
    }
}

impl Heard {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn token(&self) -> &str {
        let json: &Value = Box::leak(Box::new(self.json()));
        json["token"].as_str().unwrap()
    }

    /// Everything that a caller could compare.
    fn visible(&self) -> (StatusCode, Vec<(String, String)>, Bytes) {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        (self.status, headers, self.body.clone())
    }
}

fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap()).unwrap()
}

fn access(text: &str) -> Vec<Access> {
    crate::oci::scope::parse_all([text])
}

fn request_with(authorization: Option<&str>) -> Recorded {
    let mut request = Request::get("/v2/");
    if let Some(value) = authorization {
        request = request.header(header::AUTHORIZATION, value);
    }
    Recorded::new(request.body(Bytes::new()).unwrap())
}

fn authorize(authority: &Authority, authorization: Option<&str>, needed: &str) -> Result<Grant, Box<Heard>> {
    let exchange = request_with(authorization);
    authority.authorize(exchange.head(), exchange.caller(), &access(needed)).map_err(|answer| Box::new(answer.into()))
}

// --- tokens there and back

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
    assert_eq!((grant.subject, grant.access), (None, access("repository:team/open/x:pull")));
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

// --- the challenge

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

// --- GitLab's answers

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

// --- what a token allows

#[tokio::test]
async fn a_token_has_what_was_asked_for_and_is_allowed() {
    let office = Office::open().await;
    let everything = "repository:team/open:* repository:team/open:pull,push,delete repository:team/inside/x:pull,push \
                      repository:team/secret:pull,push registry:catalog:* repository:unclaimed:pull";
    let table: [(&str, &[&str]); 3] = [
        ("", &["repository:team/open:pull"]),
        ("bob", &["repository:team/open:pull", "repository:team/inside/x:pull"]),
        (
            "alice",
            &[
                "repository:team/open:pull,push",
                "repository:team/inside/x:pull,push",
                "repository:team/secret:pull,push",
            ],
        ),
    ];
    for (name, expected) in table {
        assert_eq!(office.granted(name, everything).await, expected, "{name}");
    }
    let all = office.granted("root", everything).await;
    assert_eq!(all[0], "repository:team/open:pull,push,delete,*");
    assert_eq!(all[3..], ["registry:catalog:*", "repository:unclaimed:pull"]);
    assert_eq!(office.granted("root", "registry:catalog:pull").await, [""; 0], "the catalog only as a whole");
}

#[tokio::test]
async fn maintainers_may_delete_and_have_everything() {
    let office = Office::open().await;
    let member = Member {
        path: "team/secret".parse().unwrap(),
        account: "bob".parse().unwrap(),
        role: Role::Maintainer,
        created_at: THEN,
    };
    office.database.set_member(&member).await.unwrap();
    let asked = "repository:team/secret:delete,* repository:team/inside:delete,*";
    assert_eq!(office.granted("bob", asked).await, ["repository:team/secret:delete,*"]);
    assert_eq!(office.granted("alice", asked).await, [""; 0]);
}

#[tokio::test]
async fn an_admins_push_makes_the_project_and_a_pull_does_not() {
    let office = Office::open().await;
    let claimed = async |name: &str| {
        let project = office.database.project_of(&name.parse().unwrap()).await.unwrap();
        project.map(|project| (project.path.to_string(), project.visibility))
    };
    assert_eq!(office.granted("root", "repository:a/b/c:pull").await, ["repository:a/b/c:pull"]);
    assert_eq!(claimed("a/b/c").await, None);
    assert_eq!(office.granted("root", "repository:a/b/c:pull,push").await, ["repository:a/b/c:pull,push"]);
    assert_eq!(claimed("a/b/c").await, Some(("a/b".to_owned(), Visibility::Private)));
    office.granted("root", "repository:single:push").await;
    assert_eq!(claimed("single").await, Some(("single".to_owned(), Visibility::Private)));
    office.granted("root", "repository:single/below/it:push").await;
    assert_eq!(claimed("single/below/it").await.unwrap().0, "single", "a project that is there is enough");
}

#[tokio::test]
async fn developers_of_a_group_make_projects_in_it_only_where_the_operator_allows_that() {
    let push = "repository:team/new/image:pull,push";
    let office = Office::open().await;
    assert_eq!(office.granted("alice", push).await, [""; 0]);

    let office = Office::with(|config| config.members_may_create_projects = true).await;
    for (path, name, role) in
        [("deep/er", "alice", Role::Owner), ("team", "bob", Role::Reporter), ("alone", "bob", Role::Owner)]
    {
        let member = Member { path: path.parse().unwrap(), account: name.parse().unwrap(), role, created_at: THEN };
        office.database.set_member(&member).await.unwrap();
    }
    assert_eq!(office.granted("bob", push).await, [""; 0], "a reporter");
    assert_eq!(office.granted("", push).await, ["403 Forbidden"]);
    assert_eq!(office.granted("alice", push).await, [push]);
    assert_eq!(office.granted("alice", "repository:deep/er/x/y:push").await, ["repository:deep/er/x/y:push"]);
    assert_eq!(office.granted("bob", "repository:alone:push").await, [""; 0], "a group's own name is not in it");
    assert_eq!(office.granted("alice", "repository:other/x:push").await, [""; 0]);
    let projects = office.database.projects(None).await.unwrap();
    let paths: Vec<&str> = projects.iter().map(|project| project.path.as_str()).collect();
    assert_eq!(paths, ["deep/er/x", "team/inside", "team/new", "team/open", "team/secret"]);
}

// --- logins

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
    let office = Office::with(|config| config.failed_logins = NonZeroU32::new(2).unwrap()).await;
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
    let office = Office::with(|config| config.failed_logins = NonZeroU32::MIN).await;
    let now = Instant::now();
    for round in 0..5 {
        office.set_password("alice", PASSWORD).await; // so that each is hashed
        assert!(office.login("alice", PASSWORD, HOME, now).await.is_ok(), "{round}");
    }
}

#[tokio::test]
async fn an_account_under_attack_stays_open_to_its_owner() {
    let office = Office::with(|config| config.failed_logins = NonZeroU32::MIN).await;
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
async fn guesses_at_a_closed_account_end_with_the_addresss_few_tries() {
    let office = Office::with(|config| config.failed_logins = NonZeroU32::new(2).unwrap()).await;
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
    let office = Office::with(|config| config.failed_logins = NonZeroU32::MIN).await;
    let now = Moment { wall: THEN, steady: Instant::now() };
    let ask = async |later: Duration| {
        let now = Moment { steady: now.steady + later, ..now };
        let mut exchange = Recorded::new(get("nobody:wrong horse", "service=container_registry"));
        Heard::from(endpoint::answer(&office.authority, &mut exchange, now).await)
    };
    assert_eq!(ask(Duration::ZERO).await.status, StatusCode::UNAUTHORIZED);
    let heard = ask(Duration::from_millis(500)).await;
    assert_eq!((heard.status, heard.header(header::RETRY_AFTER)), (StatusCode::TOO_MANY_REQUESTS, "60"));
    assert_eq!(heard.json()["errors"][0]["code"], "TOOMANYREQUESTS");
    assert_eq!(ask(Duration::from_secs(60)).await.status, StatusCode::UNAUTHORIZED);
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

// --- the first start

#[tokio::test]
async fn the_first_start_makes_an_admin_once() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&Database::path_in(folder.path())).await.unwrap();
    let made = first_admin(&database, None, THEN).await.unwrap().unwrap();
    assert_eq!(made.name, "admin".parse::<AccountName>().unwrap());
    let authority = Authority::open(config(folder.path()), database.clone()).unwrap();
    let password = made.generated.unwrap();
    assert!(password.reveal().len() >= 24);
    let login = authority.accounts.login("admin", password.reveal().as_bytes(), HOME.parse().unwrap(), Instant::now());
    assert!(login.await.unwrap().is_admin);
    let given = Some("given password".parse().unwrap());
    assert!(first_admin(&database, given, THEN).await.unwrap().is_none(), "a given password sets and never changes");
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
