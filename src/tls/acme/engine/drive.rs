//! How does an order go, from names to a certificate (RFC 8555 7.4)?
//!
//! ```text
//! pending ── present each proof, then tell the authority to look ──> ready ── send the request ──> processing ──> valid
//!    └──────────────────────── a proof was not seen: invalid, and the authorizations say which ────────┘
//! ```
//!
//! An order may begin at any of them: an authority that still believes older proofs says `ready` at once.
//!
//! **Invariants**
//! - Each call has a deadline, each wait for the authority, and the order as a whole ([`PATIENCE`]).
//! - A nonce that the authority does not like is no failure (RFC 8555 6.5): the call is made again at once, [`TRIES`] times.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::super::super::policy::provider;
use super::super::order::{Issued, Proof, Proofs, Wanted};
use super::http::CALL;
use super::problem::{Problem, Trouble, unproven};
use super::{Challenge, Failure, Kind};

/// How often a call is made whose nonce was not liked. Of an authority that refuses 40 of 100, one call in 10^12 fails.
const TRIES: u32 = 30;
/// How long we wait.
pub(super) const PATIENCE: Patience =
    Patience { call: CALL, stage: Duration::from_secs(120), whole: Duration::from_secs(600) };
/// The pauses between looks at an order: from, to.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long we wait for an authority.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the answer to a call.
    pub(super) call: Duration,
    /// Until it has looked at proofs, and until it has signed.
    pub(super) stage: Duration,
    /// For the whole order: proofs in the DNS are seen late.
    pub(super) whole: Duration,
}

/// Where an order is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Names are to be proven.
    Pending,
    /// The request can be sent.
    Ready,
    /// It is being signed.
    Processing,
    /// There is a certificate.
    Valid,
    /// There will be none.
    Invalid(Option<Problem>),
}

/// What the authority thinks of a name.
#[derive(Debug, Clone)]
pub(super) struct Authorization {
    /// The name, without `*.`.
    pub(super) name: String,
    /// Where it is.
    pub(super) standing: Standing,
    /// The ways to prove it.
    pub(super) offers: Vec<Offer>,
}

impl Authorization {
    /// Whether the authority looked and did not see it. It may still be pending then: step-ca would look again if it were
    /// asked to (RFC 8555 8.2).
    fn is_unproven(&self) -> bool {
        let tried = || self.offers.iter().any(|offer| offer.error.is_some());
        self.standing == Standing::Lost || self.standing == Standing::Pending && tried()
    }
}

/// Where an authorization is (RFC 8555 7.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The name is to be proven.
    Pending,
    /// It was proven, perhaps for an older order.
    Valid,
    /// Invalid, expired, revoked or deactivated.
    Lost,
}

/// A way to prove a name.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    /// How.
    pub(super) by: Challenge,
    /// What the authority calls it.
    pub(super) token: String,
    /// What it expects.
    pub(super) key_authorization: String,
    /// Why it did not see it.
    pub(super) error: Option<Problem>,
}

/// The calls of one order, by one of the libraries. Each is made again when its nonce was not liked.
#[async_trait]
pub(super) trait Order: Send {
    /// Asks where it is.
    async fn state(&mut self) -> Result<State, Trouble>;
    /// How many authorizations it has.
    fn authorizations(&mut self) -> usize;
    /// Asks for one of them.
    async fn authorization(&mut self, number: usize) -> Result<Authorization, Trouble>;
    /// Tells the authority to look for the proof of one of them.
    async fn look(&mut self, number: usize, by: Challenge) -> Result<(), Trouble>;
    /// Sends the request for the certificate (PKCS #10, DER).
    async fn finalize(&mut self, request: Vec<u8>) -> Result<(), Trouble>;
    /// Asks for the certificate and its chain (PEM).
    async fn certificate(&mut self) -> Result<String, Trouble>;
}

/// From an order that was accepted to a certificate.
pub(super) async fn drive(
    order: &mut dyn Order,
    wanted: &Wanted<'_>,
    proofs: &dyn Proofs,
    patience: Patience,
) -> Result<Issued, Failure> {
    let mut presented = Vec::new();
    let mut steps = Steps { order, wanted, proofs, presented: &mut presented, patience };
    let outcome = tokio::time::timeout(patience.whole, steps.all(wanted.names)).await;
    for proof in &presented {
        proofs.withdraw(proof).await;
    }
    outcome.unwrap_or_else(|_| Err(late("the order", patience.whole)))
}

/// An order on its way.
struct Steps<'a> {
    order: &'a mut dyn Order,
    wanted: &'a Wanted<'a>,
    proofs: &'a dyn Proofs,
    presented: &'a mut Vec<Proof>,
    patience: Patience,
}

impl Steps<'_> {
    async fn all(&mut self, names: &[String]) -> Result<Issued, Failure> {
        let (key, request) = request(names)?;
        let (mut proven, mut sent) = (false, false);
        let mut stage = Stage::begin(self.patience.stage);
        loop {
            match self.call("looking at the order", |order| order.state()).await? {
                State::Pending if !proven => {
                    self.prove().await?;
                    (proven, stage) = (true, Stage::begin(self.patience.stage));
                }
                State::Ready if !sent => {
                    let doing = "sending the request for the certificate";
                    self.call(doing, |order| order.finalize(request.clone())).await?;
                    (sent, stage) = (true, Stage::begin(self.patience.stage));
                }
                State::Valid => {
                    let chain = self.call("fetching the certificate", |order| order.certificate()).await?;
                    return whole(chain, key);
                }
                State::Invalid(problem) => return Err(self.why(problem).await),
                State::Pending | State::Ready | State::Processing if stage.pause().await => {}
                State::Pending => return Err(self.why(None).await),
                State::Ready | State::Processing => return Err(late("signing the certificate", self.patience.stage)),
            }
        }
    }

    /// Presents what proves each name that is not proven yet, and then has the authority look at all of it.
    async fn prove(&mut self) -> Result<(), Failure> {
        let mut open = Vec::new();
        for number in 0..self.order.authorizations() {
            let doing = "asking how to prove a name";
            let authorization = self.call(doing, move |order| order.authorization(number)).await?;
            match authorization.standing {
                Standing::Valid => continue,
                Standing::Lost => return Err(lost(&authorization, self.wanted.by)),
                Standing::Pending => {}
            }
            let proof = proof(authorization, self.wanted)?;
            // Before it is there: what is presented by half is to be withdrawn too.
            self.presented.push(proof.clone());
            self.proofs.present(&proof).await?;
            open.push((number, proof.by));
        }
        for (number, by) in open {
            self.call("asking the authority to look at a proof", move |order| order.look(number, by)).await?;
        }
        Ok(())
    }

    /// Why an order came to nothing: the first name that was not seen to be ours, else what the order says.
    async fn why(&mut self, problem: Option<Problem>) -> Failure {
        for number in 0..self.order.authorizations() {
            let doing = "asking why a name is not proven";
            match self.call(doing, move |order| order.authorization(number)).await {
                Ok(authorization) if authorization.is_unproven() => return lost(&authorization, self.wanted.by),
                // Another name is lost, or nothing came in time.
                Ok(_) => {}
                Err(failure) => return failure,
            }
        }
        match problem {
            Some(problem) => Trouble::Problem(problem).failure("the order came to nothing"),
            None => late("looking at the proofs", self.patience.stage),
        }
    }

    /// Makes a call: with a deadline, and again when the authority did not like its nonce.
    async fn call<T>(
        &mut self,
        doing: &str,
        mut attempt: impl for<'a> FnMut(&'a mut dyn Order) -> BoxFuture<'a, Result<T, Trouble>>,
    ) -> Result<T, Failure> {
        let mut tries = 0;
        loop {
            if let Some(done) = settled(doing, self.patience.call, &mut tries, attempt(self.order)).await {
                return done;
            }
        }
    }
}

/// By the way that is wanted, else by one that will do.
fn proof(authorization: Authorization, wanted: &Wanted<'_>) -> Result<Proof, Failure> {
    let Authorization { name, offers, .. } = authorization;
    let bare = |wanted: &String| wanted.trim_start_matches("*.").eq_ignore_ascii_case(&name);
    if !wanted.names.iter().any(bare) {
        let reason = format!("the authority wants {name:?} to be proven, which was not ordered");
        return Err(Failure { kind: Kind::Refused, reason });
    }
    let names: Vec<&str> = offers.iter().map(|offer| offer.by.name()).collect();
    let offered = if names.is_empty() { "none that we know".to_owned() } else { names.join(", ") };
    let ways = || std::iter::once(wanted.by).chain(wanted.ways.iter().copied());
    let Some(offer) = ways().find_map(|way| offers.iter().find(|offer| offer.by == way).cloned()) else {
        let ours: Vec<&str> = ways().skip(usize::from(!wanted.ways.is_empty())).map(Challenge::name).collect();
        let reason = format!(
            "the authority does not let {name} be proven by {}; the ways it offers: {offered} (`tls.acme.challenges`)",
            ours.join(" or ")
        );
        return Err(Failure { kind: Kind::Refused, reason });
    };
    Ok(Proof { by: offer.by, name, token: offer.token, key_authorization: offer.key_authorization })
}

fn lost(authorization: &Authorization, by: Challenge) -> Failure {
    let said = authorization.offers.iter().find_map(|offer| offer.error.as_ref().map(|error| (offer.by, error)));
    match said {
        Some((by, error)) => unproven(&authorization.name, by, Some(error)),
        None => unproven(&authorization.name, by, None),
    }
}

fn late(what: &str, limit: Duration) -> Failure {
    let reason = format!("{what} was not done by the authority within {} s", limit.as_secs());
    Failure { kind: Kind::Unreachable, reason }
}

/// Makes a call before there is an order, as [`Steps::call`] does.
pub(super) async fn again<'a, T>(
    doing: &str,
    patience: Patience,
    mut attempt: impl FnMut() -> BoxFuture<'a, Result<T, Trouble>>,
) -> Result<T, Failure> {
    let mut tries = 0;
    loop {
        if let Some(done) = settled(doing, patience.call, &mut tries, attempt()).await {
            return done;
        }
    }
}

/// What came of a call; `None` when it is to be made again.
async fn settled<T>(
    doing: &str,
    limit: Duration,
    tries: &mut u32,
    attempt: BoxFuture<'_, Result<T, Trouble>>,
) -> Option<Result<T, Failure>> {
    let trouble = match tokio::time::timeout(limit, attempt).await {
        Ok(Ok(value)) => return Some(Ok(value)),
        Ok(Err(trouble)) => trouble,
        Err(_) => Trouble::Broken(format!("no answer within {} s", limit.as_secs())),
    };
    *tries += 1;
    (!trouble.is_nonce() || *tries == TRIES).then(|| Err(trouble.failure(doing)))
}

/// What was fetched, if it is a certificate for our key.
fn whole(chain: String, key: String) -> Result<Issued, Failure> {
    let read = || {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| error.to_string())?;
        let certificates = certificates.map_err(|error| error.to_string())?;
        CertifiedKey::from_der(certificates, key, &provider()).map_err(|error| error.to_string())
    };
    match read() {
        Ok(_) => Ok(Issued { chain, key }),
        Err(error) => {
            let reason = format!("what the authority sent is no certificate for our key: {error}");
            Err(Failure { kind: Kind::Unreachable, reason })
        }
    }
}

/// A time in which the authority is looked at now and then.
struct Stage {
    since: Instant,
    limit: Duration,
    pause: Duration,
}

impl Stage {
    fn begin(limit: Duration) -> Self {
        Self { since: Instant::now(), limit, pause: PAUSES.0 }
    }

    /// Waits; `false` when the time is over.
    async fn pause(&mut self) -> bool {
        if self.since.elapsed() >= self.limit {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
        true
    }
}

/// A key (PEM), and the request for a certificate with it (PKCS #10, DER).
fn request(names: &[String]) -> Result<(String, Vec<u8>), Failure> {
    let make = || {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = DistinguishedName::new(); // names are in the SAN; authorities add what they like
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let request = params.serialize_request(&key)?.der().to_vec();
        Ok((key.serialize_pem(), request))
    };
    make().map_err(|error: rcgen::Error| {
        let reason = format!("no request can be made for {}: {error}", names.join(", "));
        Failure { kind: Kind::Ours, reason }
    })
}
