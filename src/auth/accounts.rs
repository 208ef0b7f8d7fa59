//! Is it really them?
//!
//! A login is decided in this order, and the order is the design:
//!
//! 1. *Is this source heard at all?* ([`super::attempts`]) Over its limit it is refused, with one exception in step 3.
//! 2. *The account's row is read*, unless it is known: it was read for exactly this login, which turned out to be right,
//!    and nobody has written to the database since ([`Database::state`]). So what the command line changes holds at once.
//!    Of the row everything is kept but the stored hash; in its place is the keyed hash of step 3.
//!    Whoever brings a wrong password, for a name that there is or not, always has the row read.
//! 3. *Was exactly this login verified a while ago?* Builds log in many times a minute; hashing each time would cost a
//!    core. What is remembered is a keyed hash of the stored PHC string together with the password: a changed row has
//!    another PHC string (a new salt), so it cannot be found, and a removed row is not looked up. Nothing has to be
//!    emptied, and remembering makes nothing valid for longer.
//!    A remembered login with a password of [`UNGUESSABLE`] bytes, as we generate them, passes whatever the limits say:
//!    they are there against guessing, and such a password is not guessed. So a flood of wrong logins, even for the same
//!    name from the same address (everybody behind a proxy has the same), does not stop builds that are running.
//!    Shorter passwords are not compared beyond the limit, or whoever shares an address could try them without end.
//! 4. *May the account be tried from here?* A login that step 3 recognised has passed already: an account under attack
//!    stays open to whoever knows the password and used it lately, also from a new address. The price is that a guess
//!    from a new address is compared with it although the account is closed; so it counts against that address, which has
//!    its few tries a minute and no more (step 1 comes first).
//! 5. *The password is hashed*, in turn ([`super::hashing`]); for a name that nobody has, against a hash that nobody's
//!    password matches, so that the time does not tell which names exist. Then steps 1, 3 and 4 once more: while we
//!    waited, others may have used up the limit, or verified this very login.
//!
//! Absent on purpose: sessions and anything that survives a restart.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use jiff::Timestamp;
use moka::sync::Cache;

use super::attempts::{Attempt, Attempts};
use super::hashing::Hashing;
use super::{Config, Error, Password};
use crate::metadata::{Account, AccountName, Database, State};

/// How many verified logins are remembered.
const VERIFIED: u64 = 10_000;
/// For how long since they were last used: longer than clients keep a token by default (5 minutes), so that a long push
/// which renews its token is recognised.
const VERIFIED_FOR: Duration = Duration::from_secs(10 * 60);
/// Passwords of so many bytes are not found by guessing (generated ones have 32).
pub(super) const UNGUESSABLE: usize = 24;
/// The name of the account that the first start makes.
const FIRST_ADMIN: &str = "admin";

/// Decides about logins.
pub(super) struct Accounts {
    database: Database,
    pub(super) attempts: Attempts<AccountName>,
    hashing: Hashing,
    verified: Cache<Fingerprint, ()>,
    /// By name and password, the rows of verified logins.
    rows: Cache<Fingerprint, Arc<Row>>,
    fingerprints: hmac::Key,
}

/// A keyed hash of a password and what goes with it: a stored PHC string, or a name. The key is made by chance in each process.
pub(super) type Fingerprint = [u8; 32];

/// An account as it was in one state of the database.
struct Row {
    state: State,
    /// Without its stored hash.
    account: Account,
    /// That hash and the password, as they were verified.
    verified: Fingerprint,
}

/// A login that was right.
pub(super) struct Login {
    /// Whose; without the stored hash, which is nobody's business from here on.
    pub(super) account: Account,
    /// The state of the database in which that is so, if it was asked just now.
    pub(super) state: Option<State>,
}

/// One login on its way through the steps.
struct Claim<'a> {
    attempt: &'a Attempt<'a, AccountName>,
    stored: Option<&'a str>,
    fingerprint: Option<Fingerprint>,
    password: &'a [u8],
}

/// Why a login was not accepted.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No such account, or not its password.
    Wrong,
    /// Too many failures; not before this long.
    Limited(Duration),
    /// Too many logins wait to be looked at.
    Busy,
    /// Not the caller's doing.
    Failed(Error),
}

impl Accounts {
    pub(super) fn new(config: &Config, database: Database) -> Result<Self, Error> {
        let mut key = Fingerprint::default();
        aws_lc_rs::rand::fill(&mut key).map_err(|_| Error::Internal("the random number generator"))?;
        Ok(Self {
            database,
            attempts: Attempts::new(config.limits.failed_logins),
            hashing: Hashing::new()?,
            rows: Cache::builder().max_capacity(VERIFIED).time_to_idle(VERIFIED_FOR).build(),
            verified: Cache::builder().max_capacity(VERIFIED).time_to_idle(VERIFIED_FOR).build(),
            fingerprints: hmac::Key::new(hmac::HMAC_SHA256, &key),
        })
    }

    /// The account that this name and password are of.
    pub(super) async fn login(
        &self,
        name: &str,
        password: &[u8],
        network: Option<IpAddr>,
        now: Instant,
    ) -> Result<Login, Refusal> {
        let name = name.parse::<AccountName>().ok();
        let attempt = self.attempts.attempt(name.as_ref(), network);
        if password.len() < UNGUESSABLE {
            attempt.check_source(now).map_err(Refusal::Limited)?; // before the database is asked
        }
        let state = self.database.state(); // before the row is read
        let asked = name.as_ref().map(|name| fingerprint(&self.fingerprints, name.as_str(), password));
        let row = asked.and_then(|asked| self.rows.get(&asked)).filter(|row| Some(row.state) == state);
        // Steps 1 and 3: its source is heard, or its password is not guessed.
        if let Some(row) = row.filter(|row| self.verified.get(&row.verified).is_some()) {
            attempt.succeeded(now);
            return Ok(Login { account: row.account.clone(), state });
        }
        let account = match &name {
            Some(name) => self.database.account(name).await.map_err(|error| Refusal::Failed(error.into()))?,
            None => None,
        };
        let (account, verified) = self.decide(&attempt, account, password, now).await?;
        let account = Account { password: String::new(), ..account };
        if let (Some(asked), Some(state)) = (asked, state) {
            self.rows.insert(asked, Arc::new(Row { state, account: account.clone(), verified }));
        }
        Ok(Login { account, state: None }) // hashing may have taken its time
    }

    /// Steps 3 to 5.
    async fn decide(
        &self,
        attempt: &Attempt<'_, AccountName>,
        account: Option<Account>,
        password: &[u8],
        now: Instant,
    ) -> Result<(Account, Fingerprint), Refusal> {
        let stored = account.as_ref().map(|account| account.password.as_str());
        let fingerprint = stored.map(|stored| fingerprint(&self.fingerprints, stored, password));
        let claim = Claim { attempt, stored, fingerprint, password };
        if !self.is_verified(&claim, now)? {
            self.verify(&claim, now).await?;
        }
        attempt.succeeded(now);
        account.zip(fingerprint).ok_or(Refusal::Wrong)
    }

    /// Step 5.
    async fn verify(&self, login: &Claim<'_>, now: Instant) -> Result<(), Refusal> {
        let seat = self.hashing.seat(login.attempt.is_regular()).await?;
        if self.is_verified(login, now)? {
            return Ok(());
        }
        let (matches, _seat) = self.hashing.matches(seat, login.stored, login.password).await?;
        if !matches {
            login.attempt.failed(now);
            return Err(Refusal::Wrong);
        }
        if let Some(fingerprint) = login.fingerprint {
            self.verified.insert(fingerprint, ());
        }
        Ok(())
    }

    /// Steps 1, 3 and 4: `false` when the password must be hashed to know.
    fn is_verified(&self, login: &Claim<'_>, now: Instant) -> Result<bool, Refusal> {
        let remembered = || login.fingerprint.is_some_and(|fingerprint| self.verified.get(&fingerprint).is_some());
        if login.password.len() >= UNGUESSABLE && remembered() {
            return Ok(true);
        }
        login.attempt.check_source(now).map_err(Refusal::Limited)?;
        if remembered() {
            return Ok(true);
        }
        login.attempt.check_account(now).map_err(Refusal::Limited)?;
        Ok(false)
    }

    /// How many rows of accounts are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> u64 {
        self.rows.run_pending_tasks();
        self.rows.entry_count()
    }

    /// How many hashes were made so far.
    #[cfg(test)]
    pub(super) fn hashes(&self) -> usize {
        self.hashing.hashed.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// What is remembered of a verified login: the key is HMAC-SHA256's. No stored hash is a name.
pub(super) fn fingerprint(key: &hmac::Key, beside: &str, password: &[u8]) -> Fingerprint {
    let mut hash = hmac::Context::with_key(key);
    hash.update(beside.as_bytes());
    hash.update(&[0]); // neither a stored hash nor a name holds it, so the two cannot be cut elsewhere
    hash.update(password);
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(hash.sign().as_ref()); // 32 bytes
    fingerprint
}

/// The admin account that the first start made.
#[derive(Debug)]
pub struct FirstAdmin {
    /// Its name.
    pub name: AccountName,
    /// Its password, when it was made by chance: to be shown once. `None` when the operator gave it.
    pub generated: Option<Password>,
}

/// Whether [`first_admin`] would make an account: there is no admin at all.
pub async fn needs_first_admin(database: &Database) -> Result<bool, Error> {
    Ok(!database.has_admin().await?)
}

/// Makes the account `admin` when there is no admin at all, with the password that the operator gave
/// ([`super::first_password`]) or one made by chance. Only then is a given password looked at: it sets, and never changes.
///
/// A user of that name who is no admin stays what they are, and the log says what to do.
pub async fn first_admin(
    database: &Database,
    given: Option<Password>,
    now: Timestamp,
) -> Result<Option<FirstAdmin>, Error> {
    if !needs_first_admin(database).await? {
        return Ok(None);
    }
    let name: AccountName = FIRST_ADMIN.parse().map_err(|_| Error::Internal("the first admin's name"))?;
    if database.account(&name).await?.is_some() {
        tracing::warn!(
            "there is no admin, and none is made: the user {name} is there and is not one; `pierhead user add NAME --admin` adds one"
        );
        return Ok(None);
    }
    let (password, generated) = match given {
        Some(password) => (password, None),
        None => {
            let password = Password::generate()?;
            (password.clone(), Some(password))
        }
    };
    let account = Account { name: name.clone(), password: password.hash()?, is_admin: true, created_at: now };
    Ok(database.add_first_admin(&account).await?.then_some(FirstAdmin { name, generated }))
}
