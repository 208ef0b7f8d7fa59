//! Where does the authority look for proofs, and who puts them there?
//!
//! ```text
//! tls-alpn-01   the answers that every node gives
//! http-01       the same; webroot: also the folder of another server that has port 80
//! dns-01        update: a DNS server that takes updates; key: what they are signed with
//!               hook: a program of the operator's
//! ```
//!
//! **Invariants**
//! - What a proof needs is read when there is something to prove, so that a new key or another program counts at once.
//! - A folder that hangs takes few threads, however many names are to be proven. What is put there and hangs is waited for,
//!   or it could come after it was taken away; whoever orders says so and gives the order up ([`Progress`]).
//! - What stayed in folders is taken away a day or two later: the answer in the storage folder is there before, and until
//!   after, the file in the webroot, and says what is still to be taken away.
//!
//! **Not here:** a sweep of the webroot itself, which is another server's. So a file stays in one where the node that
//! sweeps has another webroot than the node that put it there, or has none mounted at that moment.

mod hook;
mod key;
mod noted;
mod update;
mod webroot;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::order::{Failure, Kind, Proof, Proofs};
use super::{Answers, Challenge, Config, Dns};

pub(super) use noted::{Noted, Pending, Progress};

/// How many proofs are put into a folder, or taken away, at a time. When it hangs, so many threads do.
const AT_FOLDER: usize = 8;

/// Puts proofs where the configuration says.
pub(super) fn proofs(config: &Config) -> Arc<dyn Proofs> {
    let answers = Answers::of(&config.storage);
    let [turns, webroot_turns] = [(); 2].map(|()| Arc::new(Semaphore::new(AT_FOLDER)));
    Arc::new(Places { answers, webroot: config.webroot.clone(), dns: config.dns.clone(), turns, webroot_turns })
}

#[derive(Clone)]
struct Places {
    answers: Answers,
    webroot: Option<PathBuf>,
    dns: Option<Dns>,
    /// For who goes to the storage folder alone.
    turns: Arc<Semaphore>,
    /// For who goes to the webroot as well: where that hangs, a name can still be proven by TLS-ALPN-01.
    webroot_turns: Arc<Semaphore>,
}

#[async_trait]
impl Proofs for Places {
    async fn present(&self, proof: &Proof) -> Result<(), Failure> {
        let put = match proof.by {
            Challenge::TlsAlpn01 | Challenge::Http01 => self.apart(proof, Self::put).await,
            Challenge::Dns01 => self.record(proof, true).await,
        };
        put.map_err(|error| {
            Failure::new(
                Kind::Ours,
                format!("the proof that {} is ours cannot be shown by {}: {error}", proof.name, proof.by.name()),
            )
        })
    }

    async fn withdraw(&self, proof: &Proof) {
        let taken = match proof.by {
            Challenge::TlsAlpn01 | Challenge::Http01 => self.apart(proof, Self::take).await,
            Challenge::Dns01 => self.record(proof, false).await,
        };
        if let Err(error) = taken {
            tracing::warn!(name = proof.name, by = proof.by.name(), %error, "a proof that is not needed any more stays");
        }
    }

    async fn clean(&self, before: SystemTime) {
        let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else { return }; // never closed
        let answers = self.answers.clone();
        let look = move || {
            let _turn = turn;
            Ok(answers.older(before))
        };
        for (by, subject, key_authorization) in blocking(look).await.unwrap_or_default() {
            self.withdraw(&Proof { by, name: subject.clone(), token: subject, key_authorization }).await;
        }
    }
}

impl Places {
    /// Does what blocks on a thread where that is no harm, when it is its turn. A thread that hangs keeps its turn.
    async fn apart(&self, proof: &Proof, act: fn(&Self, &Proof) -> Result<(), String>) -> Result<(), String> {
        let to_webroot = self.webroot.is_some() && proof.by == Challenge::Http01;
        let turns = if to_webroot { &self.webroot_turns } else { &self.turns };
        let turn = Arc::clone(turns).acquire_owned().await;
        let (turn, places, proof) = (turn.map_err(|error| error.to_string())?, self.clone(), proof.clone());
        blocking(move || {
            let _turn = turn;
            act(&places, &proof)
        })
        .await
    }

    fn put(&self, proof: &Proof) -> Result<(), String> {
        let put = self.answers.put(proof.by, &subject(proof), &proof.key_authorization);
        put.map_err(|error| format!("`tls.acme.storage` cannot be written: {error}"))?;
        match &self.webroot {
            // The token has been looked at: the answers take no other.
            Some(webroot) if proof.by == Challenge::Http01 => {
                webroot::put(webroot, &proof.token, &proof.key_authorization)
            }
            _ => Ok(()),
        }
    }

    fn take(&self, proof: &Proof) -> Result<(), String> {
        match &self.webroot {
            Some(webroot) if proof.by == Challenge::Http01 && super::challenge::is_token(&proof.token) => {
                webroot::take(webroot, &proof.token, &proof.key_authorization)?;
            }
            _ => {}
        }
        let taken = self.answers.take(proof.by, &subject(proof), &proof.key_authorization);
        taken.map_err(|error| error.to_string())
    }

    /// RFC 8555 8.4.
    async fn record(&self, proof: &Proof, wanted: bool) -> Result<(), String> {
        let record = format!("_acme-challenge.{}.", proof.name.trim_end_matches('.'));
        let value = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&proof.key_authorization));
        match self.dns.clone() {
            Some(Dns::Update { server: address, zone, key }) => {
                let server = update::Server { address, zone, key };
                if wanted { server.add(&record, &value).await } else { server.remove(&record, &value).await }
            }
            Some(Dns::Hook { program }) => {
                let action = if wanted { "present" } else { "cleanup" };
                blocking(move || hook::run(&program, action, &record, &value)).await
            }
            None => Err("nobody puts records into the DNS: see `tls.acme.dns`".to_owned()),
        }
    }
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    // It ends early only when the whole process does.
    tokio::task::spawn_blocking(act).await.unwrap_or_else(|_| Err("the server ends".to_owned()))
}

/// What an answer is found by.
fn subject(proof: &Proof) -> String {
    match proof.by {
        Challenge::TlsAlpn01 => proof.name.to_ascii_lowercase(),
        Challenge::Http01 | Challenge::Dns01 => proof.token.clone(),
    }
}

#[cfg(test)]
mod tests;
