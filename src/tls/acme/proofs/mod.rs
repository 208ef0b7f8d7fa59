//! Where does the authority look for proofs, and who puts them there?
//!
//! ```text
//! tls-alpn-01   the answers that every node gives
//! http-01       the same
//! ```

use std::sync::Arc;

use async_trait::async_trait;

use super::order::{Failure, Kind, Proof, Proofs};
use super::{Answers, Challenge, Config};

/// Puts proofs where the configuration says.
pub(super) fn proofs(config: &Config) -> Arc<dyn Proofs> {
    Arc::new(Places { answers: Answers::of(&config.storage) })
}

struct Places {
    answers: Answers,
}

#[async_trait]
impl Proofs for Places {
    async fn present(&self, proof: &Proof) -> Result<(), Failure> {
        match proof.by {
            Challenge::TlsAlpn01 | Challenge::Http01 => self.answer(proof).await,
            Challenge::Dns01 => Err(ours("nobody puts records into the DNS (`tls.acme.dns`)".to_owned())),
        }
    }

    async fn withdraw(&self, proof: &Proof) {
        if matches!(proof.by, Challenge::TlsAlpn01 | Challenge::Http01) {
            let (answers, by, subject) = (self.answers.clone(), proof.by, subject(proof));
            let taken = tokio::task::spawn_blocking(move || answers.take(by, &subject)).await;
            if let Ok(Err(error)) = taken {
                tracing::warn!(name = proof.name, %error, "an answer to an authority that is not needed any more stays");
            }
        }
    }
}

impl Places {
    async fn answer(&self, proof: &Proof) -> Result<(), Failure> {
        let (answers, by, subject) = (self.answers.clone(), proof.by, subject(proof));
        let text = proof.key_authorization.clone();
        let put = tokio::task::spawn_blocking(move || answers.put(by, &subject, &text)).await;
        let error = match put {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the writer ended".to_owned(),
        };
        Err(ours(format!("the answer for {} cannot be written into `tls.acme.storage`: {error}", proof.name)))
    }
}

/// What an answer is found by.
fn subject(proof: &Proof) -> String {
    match proof.by {
        Challenge::TlsAlpn01 => proof.name.to_ascii_lowercase(),
        Challenge::Http01 | Challenge::Dns01 => proof.token.clone(),
    }
}

fn ours(reason: String) -> Failure {
    Failure { kind: Kind::Ours, reason }
}
