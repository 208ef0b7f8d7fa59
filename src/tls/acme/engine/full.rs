//! The calls of an order by instant-acme: bound accounts, profiles, DNS-01, proxies, and renewal information (RFC 9773).
//!
//! It tries a nonce that was not liked three times; [`drive`] goes on where it gives up.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use instant_acme::{Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewOrder, OrderStatus};
use instant_acme::{CertificateIdentifier, Problem as Said};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::account::{self, Binding, Signer};
use super::drive::{self, Authorization, Offer, Order, Patience, Standing, State, again};
use super::http::Web;
use super::problem::{Part, Problem, Trouble};
use super::{Challenge, Config, Failure, Issued, Kind, Proofs, Wanted, Window};

/// An authority as instant-acme speaks with it.
pub(super) struct Full {
    directory: String,
    contact: Vec<String>,
    profile: Option<String>,
    binding: Option<Binding>,
    key: Vec<u8>,
    signer: Signer,
    web: Web,
    patience: Patience,
}

impl Full {
    /// With this account's key (PKCS #8, P-256). Reads the key that binds it, if it is to be bound.
    pub(super) fn new(config: &Config, key: Vec<u8>, web: Web, patience: Patience) -> Result<Self, Failure> {
        Ok(Self {
            directory: config.directory.clone(),
            contact: config.contact.iter().map(|address| format!("mailto:{address}")).collect(),
            profile: config.profile.clone(),
            binding: config.account.as_ref().map(Binding::read).transpose()?,
            signer: Signer::new(&key)?,
            key,
            web,
            patience,
        })
    }

    /// Orders a certificate and waits for it.
    pub(super) async fn order(&self, wanted: &Wanted<'_>, proofs: &Arc<dyn Proofs>) -> Result<Issued, Failure> {
        let web = &self.web.apart();
        let account = self.account(web).await?;
        self.has_profile(&account)?;
        let doing = format!("ordering a certificate for {} at {}", wanted.names.join(", "), self.directory);
        let replaces = wanted.replaces.and_then(identifier);
        let account = &account;
        let mut opened =
            again(&doing, self.patience, || Box::pin(self.open(web, account, wanted.names, replaces.clone()))).await;
        // What it replaces is a courtesy. Whoever does not know it, or saw it replaced already, is asked without.
        if replaces.is_some() && matches!(&opened, Err(failure) if failure.kind == Kind::Refused) {
            opened = again(&doing, self.patience, || Box::pin(self.open(web, account, wanted.names, None))).await;
        }
        let mut open = Open { order: opened?, account, web };
        drive::drive(&mut open, wanted, proofs, self.patience).await
    }

    /// When the authority would like this certificate to be renewed.
    pub(super) async fn renewal(&self, certificate: &CertificateDer<'_>) -> Result<Option<Window>, Failure> {
        let Some(certificate) = identifier(certificate) else { return Ok(None) };
        let doing = format!("asking {} when a certificate should be renewed", self.directory);
        let (certificate, web) = (&certificate, &self.web.apart());
        again(&doing, self.patience, || Box::pin(self.window(web, certificate))).await
    }

    async fn window(&self, web: &Web, certificate: &CertificateIdentifier<'_>) -> Result<Option<Window>, Trouble> {
        // No account is needed to ask (RFC 9773 4.1), so none is named.
        let account = self.known(web, String::new()).await.map_err(|error| trouble(web, error))?;
        let asked = account.renewal_info(certificate).await;
        match asked {
            Ok((said, _)) => {
                let (start, end) = (said.suggested_window.start, said.suggested_window.end);
                let window = Window { start: SystemTime::from(start), end: SystemTime::from(end) };
                // RFC 9773 4.2: a window that ends before it begins is none.
                Ok((window.start < window.end).then_some(window))
            }
            Err(Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(trouble(web, error)),
        }
    }

    async fn account(&self, web: &Web) -> Result<Account, Failure> {
        let doing = format!("reading the directory {}", self.directory);
        let directory = again(&doing, self.patience, || Box::pin(web.directory(&self.directory))).await?;
        let (directory, binding) = (&directory, self.binding.as_ref());
        let doing = format!("the account at {}", self.directory);
        let ask = || account::account(web, directory, &self.signer, &self.contact, binding);
        let ours = again(&doing, self.patience, || Box::pin(ask())).await?;
        let known = || async { self.known(web, ours.url.clone()).await.map_err(|error| trouble(web, error)) };
        let account = again(&doing, self.patience, || Box::pin(known())).await?;
        if ours.outdated {
            let contact: Vec<&str> = self.contact.iter().map(String::as_str).collect();
            let (account, contact) = (&account, &contact);
            let tell = || async { account.update_contacts(contact).await.map_err(|error| trouble(web, error)) };
            again(&doing, self.patience, || Box::pin(tell())).await?;
        }
        Ok(account)
    }

    async fn known(&self, web: &Web, url: String) -> Result<Account, Error> {
        let key = PrivatePkcs8KeyDer::from(self.key.as_slice());
        Account::builder_with_http(Box::new(web.clone())).from_parts(url, key, self.directory.clone()).await
    }

    fn has_profile(&self, account: &Account) -> Result<(), Failure> {
        let Some(profile) = &self.profile else { return Ok(()) };
        let mut offered: Vec<&str> = account.profiles().map(|profile| profile.name).collect();
        if offered.contains(&profile.as_str()) {
            return Ok(());
        }
        offered.sort_unstable();
        let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
        let reason =
            format!("{} has no profile {profile} (`tls.acme.profile`); its profiles: {offered}", self.directory);
        Err(Failure::new(Kind::Refused, reason))
    }

    async fn open(
        &self,
        web: &Web,
        account: &Account,
        names: &[String],
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<instant_acme::Order, Trouble> {
        let names: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
        let plain = || match &self.profile {
            Some(profile) => NewOrder::new(&names).profile(profile),
            None => NewOrder::new(&names),
        };
        let placed = match replaces {
            Some(replaces) => match account.new_order(&plain().replaces(replaces)).await {
                // The authority knows nothing of RFC 9773.
                Err(Error::Unsupported(_)) => account.new_order(&plain()).await,
                placed => placed,
            },
            None => account.new_order(&plain()).await,
        };
        placed.map_err(|error| trouble(web, error))
    }
}

/// An order that was accepted.
struct Open<'a> {
    order: instant_acme::Order,
    account: &'a Account,
    web: &'a Web,
}

#[async_trait]
impl Order for Open<'_> {
    async fn state(&mut self) -> Result<State, Trouble> {
        let state = self.order.refresh().await.map_err(|error| trouble(self.web, error))?;
        Ok(match state.status {
            OrderStatus::Pending => State::Pending,
            OrderStatus::Ready => State::Ready,
            OrderStatus::Processing => State::Processing,
            OrderStatus::Valid => State::Valid,
            OrderStatus::Invalid => State::Invalid(state.error.clone().map(Problem::from)),
        })
    }

    fn authorizations(&mut self) -> usize {
        self.order.state().authorizations.len()
    }

    async fn authorization(&mut self, number: usize) -> Result<Authorization, Trouble> {
        // Those before it were asked for already, since the order was looked at: only this one is fetched.
        let thumbprint = self.account.key_thumbprint();
        let mut all = self.order.authorizations();
        for _ in 0..number {
            all.next().await.ok_or_else(Trouble::gone)?.map_err(|error| trouble(self.web, error))?;
        }
        let shown = all.next().await.ok_or_else(Trouble::gone)?.map_err(|error| trouble(self.web, error))?;
        let standing = match shown.status {
            AuthorizationStatus::Pending => Standing::Pending,
            AuthorizationStatus::Valid => Standing::Valid,
            _ => Standing::Lost,
        };
        let Identifier::Dns(name) = shown.identifier().identifier.clone() else { return Err(Trouble::gone()) };
        let offers = shown.challenges.iter().filter_map(|offered| offer(thumbprint, offered)).collect();
        Ok(Authorization { name, standing, offers })
    }

    async fn look(&mut self, number: usize, by: Challenge) -> Result<(), Trouble> {
        let mut all = self.order.authorizations();
        for _ in 0..number {
            all.next().await.ok_or_else(Trouble::gone)?.map_err(|error| trouble(self.web, error))?;
        }
        let mut shown = all.next().await.ok_or_else(Trouble::gone)?.map_err(|error| trouble(self.web, error))?;
        let mut offered = shown.challenge(named(by)).ok_or_else(Trouble::gone)?;
        offered.set_ready().await.map_err(|error| trouble(self.web, error))
    }

    async fn finalize(&mut self, request: Vec<u8>) -> Result<(), Trouble> {
        self.order.finalize_csr(&request).await.map_err(|error| trouble(self.web, error))
    }

    async fn certificate(&mut self) -> Result<String, Trouble> {
        let chain = self.order.certificate().await.map_err(|error| trouble(self.web, error))?;
        chain.ok_or_else(Trouble::gone)
    }
}

fn offer(thumbprint: &str, offered: &instant_acme::Challenge) -> Option<Offer> {
    let by = known(&offered.r#type)?;
    let token = offered.token.clone();
    let key_authorization = format!("{token}.{thumbprint}"); // RFC 8555 8.1
    Some(Offer { by, token, key_authorization, error: offered.error.clone().map(Problem::from) })
}

fn known(kind: &ChallengeType) -> Option<Challenge> {
    [Challenge::TlsAlpn01, Challenge::Http01, Challenge::Dns01].into_iter().find(|challenge| named(*challenge) == *kind)
}

fn named(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::Dns01 => ChallengeType::Dns01,
    }
}

/// What RFC 9773 4.1 calls a certificate by; one without its authority's key identifier cannot be called.
fn identifier(certificate: &CertificateDer<'_>) -> Option<CertificateIdentifier<'static>> {
    CertificateIdentifier::try_from(certificate).ok().map(CertificateIdentifier::into_owned)
}

fn trouble(web: &Web, error: Error) -> Trouble {
    match error {
        Error::Api(said) => Trouble::Problem(Problem { after: web.after(), ..Problem::from(said) }),
        other => Trouble::Broken(other.to_string()),
    }
}

impl From<Said> for Problem {
    fn from(said: Said) -> Self {
        let part = |part: instant_acme::Subproblem| Part { kind: part.r#type, detail: part.detail };
        let subproblems = said.subproblems.into_iter().map(part).collect();
        Self { kind: said.r#type, detail: said.detail, subproblems, after: None }
    }
}
