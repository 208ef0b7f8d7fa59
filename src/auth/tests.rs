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
use super::claims::Invalid;
use super::credential::Identity;
use super::*;
use crate::exchange::memory::Recorded;
use crate::exchange::{Body, BodyError};
use crate::metadata::{self, Account, AccountName, Member, Project, Role, Visibility};
use crate::oci::{Access, Action};

mod answers;
mod changes;
mod finishing;
mod limits;
mod logins;
mod rights;
mod tokens;

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
        limits: Limits { failed_logins: NonZeroU32::new(10).unwrap(), anonymous: None },
        members_may_create_projects: false,
        guard: Guard::Own,
        finish_uploads: Duration::from_secs(86_400),
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
        let allowed = grant.access.iter().filter(|access| !access.actions.is_empty());
        allowed.map(ToString::to_string).collect()
    }

    async fn login(&self, name: &str, password: &str, address: &str, now: Instant) -> Result<Account, Refusal> {
        let address: IpAddr = address.parse().unwrap();
        let login = self.authority.accounts.login(name, password.as_bytes(), Some(address), now).await;
        login.map(|login| login.account)
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

fn authorize(authority: &Authority, authorization: Option<&str>, needed: &str) -> Result<Arc<Grant>, Box<Heard>> {
    authorize_for(authority, authorization, Demand { needed: access(needed), useful: None })
}

fn authorize_for(authority: &Authority, authorization: Option<&str>, demand: Demand) -> Result<Arc<Grant>, Box<Heard>> {
    let exchange = request_with(authorization);
    let granted = authority.authorize_at(exchange.head(), exchange.caller(), &demand, Timestamp::now());
    granted.map_err(|refusal| Box::new(refusal.answer.into()))
}
