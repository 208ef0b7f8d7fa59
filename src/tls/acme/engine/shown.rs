//! How long does a proof lie where the authority looks?
//!
//! Each has a task of its own, which presents it, waits until it is over with the order, and takes it away again. That the
//! order's side is dropped says so too: an order that is given up in the middle leaves nothing behind, and a proof that is
//! being presented at that moment is taken away after that.
//!
//! **Not here, because nobody could promise it:** a process that ends takes its tasks with it, and what they presented
//! stays: in folders until the daily sweep that finds it a day old ([`Proofs::clean`], which does not reach every webroot),
//! in the DNS for ever.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::super::order::{Failure, Kind, Proof, Proofs};

/// How many proofs of an order are put somewhere at a time: each may be a program of the operator's.
const AT_A_TIME: usize = 16;
/// How long an order waits until its proofs are taken away. It is done even if that takes longer.
const WITHDRAWAL: Duration = Duration::from_secs(30);

/// The proofs of an order.
pub(super) struct Shown {
    proofs: Arc<dyn Proofs>,
    turns: Arc<Semaphore>,
    tasks: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Shown {
    pub(super) fn new(proofs: &Arc<dyn Proofs>) -> Self {
        Self { proofs: Arc::clone(proofs), turns: Arc::new(Semaphore::new(AT_A_TIME)), tasks: Vec::new() }
    }

    /// Puts them all where they can be seen, side by side.
    pub(super) async fn present(&mut self, wanted: Vec<Proof>) -> Result<(), Failure> {
        let mut answers = Vec::new();
        for proof in wanted {
            let ((say, answer), (over, until)) = (oneshot::channel(), oneshot::channel());
            let task = hold(Arc::clone(&self.proofs), Arc::clone(&self.turns), proof, say, until);
            self.tasks.push((over, tokio::spawn(task)));
            answers.push(async move { answer.await.unwrap_or_else(|_| Err(broken())) });
        }
        try_join_all(answers).await.map(drop)
    }

    /// Takes them all away.
    pub(super) async fn withdraw(self) {
        let tasks = self.tasks.into_iter().map(|(over, task)| {
            drop(over);
            task
        });
        // Whoever is not done by then goes on alone.
        let _ = tokio::time::timeout(WITHDRAWAL, join_all(tasks)).await;
    }
}

/// Presents a proof and takes it away when nobody waits for `until` any more. What was presented by half is taken away too.
async fn hold(
    proofs: Arc<dyn Proofs>,
    turns: Arc<Semaphore>,
    proof: Proof,
    say: oneshot::Sender<Result<(), Failure>>,
    until: oneshot::Receiver<()>,
) {
    let Ok(turn) = turns.acquire().await else { return }; // never closed
    if say.is_closed() {
        return; // given up before it began
    }
    let _ = say.send(proofs.present(&proof).await); // who is not there to hear it has given up
    drop(turn);
    let _ = until.await; // nothing is ever said: that it is dropped is what counts
    let Ok(_turn) = turns.acquire().await else { return };
    proofs.withdraw(&proof).await;
}

fn broken() -> Failure {
    Failure::new(Kind::Ours, "a proof could not be presented, by a fault of this program".to_owned())
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::super::super::Challenge;
    use super::*;

    /// A folder that does nothing before it is let.
    struct Hanging {
        lets: Semaphore,
        there: Mutex<Vec<String>>,
        log: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Proofs for Hanging {
        async fn present(&self, proof: &Proof) -> Result<(), Failure> {
            self.lets.acquire().await.unwrap().forget();
            self.there.lock().push(proof.token.clone());
            self.log.lock().push(proof.token.clone());
            Ok(())
        }

        async fn withdraw(&self, proof: &Proof) {
            self.lets.acquire().await.unwrap().forget();
            self.there.lock().retain(|token| *token != proof.token);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_put_after_its_order_was_given_up_is_taken_away_again_and_no_more_is_put() {
        let folder = Arc::new(Hanging { lets: Semaphore::new(0), there: Mutex::default(), log: Mutex::default() });
        let proofs: Arc<dyn Proofs> = folder.clone();
        let proof = |number: usize| Proof {
            by: Challenge::Http01,
            name: "a.test".to_owned(),
            token: format!("token{number}"),
            key_authorization: "answer".to_owned(),
        };
        for is_dropped in [true, false] {
            folder.log.lock().clear();
            let mut shown = Shown::new(&proofs);
            let wanted = (0..2 * AT_A_TIME).map(proof).collect();
            let given_up = tokio::time::timeout(Duration::from_secs(900), shown.present(wanted)).await;
            assert!(given_up.is_err() && folder.there.lock().is_empty());
            if is_dropped {
                drop(shown)
            } else {
                shown.withdraw().await
            }
            folder.lets.add_permits(AT_A_TIME);
            while folder.there.lock().len() < AT_A_TIME {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            folder.lets.add_permits(AT_A_TIME);
            while !folder.there.lock().is_empty() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            folder.lets.add_permits(AT_A_TIME);
            tokio::time::sleep(Duration::from_secs(900)).await;
            assert_eq!(folder.lets.available_permits(), AT_A_TIME, "nobody wants anything any more");
            assert_eq!(folder.log.lock().len(), AT_A_TIME);
            folder.lets.forget_permits(AT_A_TIME);
        }
    }
}
