//! The calls of an order by rustls-acme.
//!
//! Only its `acme` module is used, the calls of RFC 8555: its state machine knows no deadline, takes a bad nonce for a
//! failure, and would spend Let's Encrypt's hourly budget of failed validations within half a minute.
//!
//! **Not here, because the library has it not:** proxies, bound accounts, profiles, DNS-01, ARI, what `Retry-After` says,
//! and a limit of the size of an answer to a signed call (the directory comes through [`http`](super::http), which has
//! one; after that we speak only with the host that it names, by the certificates that we trust, and for a limited time).
//! An account's contact is what it was when the account was made.

use std::sync::Arc;

use async_trait::async_trait;
use rustls::ClientConfig;
use rustls_acme::acme::{Account, AcmeError, Auth, AuthStatus, ChallengeType, Directory, OrderStatus};
use rustls_acme::acme::{Challenge as Offered, Identifier, Order as Placed, Problem as Said};

use super::drive::{self, Authorization, Offer, Order, Patience, Standing, State, again};
use super::http::{Web, secure};
use super::problem::{Problem, Trouble};
use super::{Challenge, Config, Failure, Issued, Proofs, Wanted};

/// How an error of the library begins that is an answer of the authority: a status follows, and the answer's body as
/// Rust's `Debug` writes it. The type is not public.
const ANSWERED: &str = "http request error: non 2xx http status: ";

/// An authority as rustls-acme speaks with it.
pub(super) struct Plain {
    directory: String,
    contact: Vec<String>,
    key: Vec<u8>,
    trust: Arc<ClientConfig>,
    web: Web,
    patience: Patience,
}

impl Plain {
    /// With this account's key (PKCS #8, P-256).
    pub(super) fn new(config: &Config, key: Vec<u8>, trust: Arc<ClientConfig>, web: Web, patience: Patience) -> Self {
        let contact = config.contact.iter().map(|address| format!("mailto:{address}")).collect();
        Self { directory: config.directory.clone(), contact, key, trust, web, patience }
    }

    /// Orders a certificate and waits for it.
    pub(super) async fn order(&self, wanted: &Wanted<'_>, proofs: &Arc<dyn Proofs>) -> Result<Issued, Failure> {
        let doing = format!("reading the directory {}", self.directory);
        let directory = again(&doing, self.patience, || Box::pin(self.read())).await?;
        let doing = format!("the account at {}", self.directory);
        let account = again(&doing, self.patience, || Box::pin(self.account(directory.clone()))).await?;
        let doing = format!("ordering a certificate for {} at {}", wanted.names.join(", "), self.directory);
        let account = &account;
        let (url, order) = again(&doing, self.patience, || Box::pin(self.open(account, wanted.names))).await?;
        let mut open = Open { trust: &self.trust, account, url, order, shown: Vec::new() };
        drive::drive(&mut open, wanted, proofs, self.patience).await
    }

    async fn read(&self) -> Result<Directory, Trouble> {
        let found = self.web.directory(&self.directory).await?;
        Ok(Directory { new_nonce: found.new_nonce, new_account: found.new_account, new_order: found.new_order })
    }

    /// The account of this key; it is made if there is none. The operator agreed to the terms by naming the authority.
    async fn account(&self, directory: Directory) -> Result<Account, Trouble> {
        Ok(Account::create_with_keypair(&self.trust, directory, &self.contact, &self.key).await?)
    }

    async fn open(&self, account: &Account, names: &[String]) -> Result<(String, Placed), Trouble> {
        let (url, order) = account.new_order(&self.trust, names.to_vec()).await?;
        secure(&url)?;
        Ok((url, order))
    }
}

/// An order that was accepted.
struct Open<'a> {
    trust: &'a Arc<ClientConfig>,
    account: &'a Account,
    url: String,
    order: Placed,
    /// The challenges of each authorization that was asked for.
    shown: Vec<(usize, Vec<Offered>)>,
}

#[async_trait]
impl Order for Open<'_> {
    async fn state(&mut self) -> Result<State, Trouble> {
        self.order = self.account.order(self.trust, &self.url).await?;
        Ok(match &self.order.status {
            OrderStatus::Pending => State::Pending,
            OrderStatus::Ready => State::Ready,
            OrderStatus::Processing => State::Processing,
            OrderStatus::Valid { .. } => State::Valid,
            OrderStatus::Invalid => State::Invalid(self.order.error.clone().map(Problem::from)),
        })
    }

    fn authorizations(&mut self) -> usize {
        self.order.authorizations.len()
    }

    async fn authorization(&mut self, number: usize) -> Result<Authorization, Trouble> {
        let url = self.order.authorizations.get(number).ok_or_else(Trouble::gone)?;
        let Auth { status, identifier: Identifier::Dns(name), challenges } =
            self.account.auth(self.trust, secure(url)?).await?;
        let standing = match status {
            AuthStatus::Pending => Standing::Pending,
            AuthStatus::Valid => Standing::Valid,
            AuthStatus::Invalid | AuthStatus::Revoked | AuthStatus::Expired | AuthStatus::Deactivated => Standing::Lost,
        };
        let offers = challenges.iter().filter_map(|offered| self.offer(offered)).collect::<Result<_, _>>()?;
        self.shown.retain(|(of, _)| *of != number);
        self.shown.push((number, challenges));
        Ok(Authorization { name, standing, offers })
    }

    async fn look(&mut self, number: usize, by: Challenge) -> Result<(), Trouble> {
        let shown = self.shown.iter().find(|(of, _)| *of == number).ok_or_else(Trouble::gone)?;
        let offered = shown.1.iter().find(|offered| known(&offered.typ) == Some(by)).ok_or_else(Trouble::gone)?;
        Ok(self.account.challenge(self.trust, secure(&offered.url)?).await?)
    }

    async fn finalize(&mut self, request: Vec<u8>) -> Result<(), Trouble> {
        self.order = self.account.finalize(self.trust, secure(&self.order.finalize)?, &request).await?;
        Ok(())
    }

    async fn certificate(&mut self) -> Result<String, Trouble> {
        let OrderStatus::Valid { certificate } = &self.order.status else { return Err(Trouble::gone()) };
        Ok(self.account.certificate(self.trust, secure(certificate)?).await?)
    }
}

impl Open<'_> {
    fn offer(&self, offered: &Offered) -> Option<Result<Offer, Trouble>> {
        let by = known(&offered.typ)?;
        Some(self.key_authorization(&offered.token).map(|key_authorization| Offer {
            by,
            token: offered.token.clone(),
            key_authorization,
            error: offered.error.clone().map(Problem::from),
        }))
    }

    /// RFC 8555 8.1. It is the same for every kind of challenge; the library says it for HTTP-01 only.
    fn key_authorization(&self, token: &str) -> Result<String, Trouble> {
        let (url, token) = (String::new(), token.to_owned());
        let as_http = [Offered { typ: ChallengeType::Http01, url, token, error: None }];
        Ok(self.account.http_01(&as_http)?.1)
    }
}

fn known(kind: &ChallengeType) -> Option<Challenge> {
    match kind {
        ChallengeType::Http01 => Some(Challenge::Http01),
        ChallengeType::Dns01 => Some(Challenge::Dns01),
        ChallengeType::TlsAlpn01 => Some(Challenge::TlsAlpn01),
        ChallengeType::Unknown => None,
    }
}

impl From<Said> for Problem {
    fn from(said: Said) -> Self {
        Self { kind: said.typ, detail: said.detail, ..Self::default() }
    }
}

impl From<AcmeError> for Trouble {
    fn from(error: AcmeError) -> Self {
        let text = error.to_string();
        let Some((status, body)) = text.strip_prefix(ANSWERED).and_then(|rest| rest.split_once(' ')) else {
            return Self::Broken(text);
        };
        let body = unescape(body);
        match serde_json::from_str::<Problem>(&body) {
            Ok(problem) => Self::Problem(problem),
            Err(_) => Self::Broken(format!("status {status}: {body}")),
        }
    }
}

/// What Rust's `Debug` made of a text, as it was.
fn unescape(debug: &str) -> String {
    let inner = debug.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(debug);
    let mut letters = inner.chars();
    let mut text = String::with_capacity(inner.len());
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('t') => text.push('\t'),
            Some('0') => text.push('\0'),
            Some('u') => text.extend(unicode(&mut letters)),
            Some(other) => text.push(other),
            None => {}
        }
    }
    text
}

/// `{1f600}`
fn unicode(letters: &mut std::str::Chars<'_>) -> Option<char> {
    let digits: String = letters.skip(1).take_while(|letter| *letter != '}').collect();
    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
}
