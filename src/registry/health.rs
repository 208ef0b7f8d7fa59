//! May requests be answered at all?
//!
//! What the operator named (`health`) is looked at again and again, each check at its own pace. While one is failing the
//! registry answers 503 to everything, as Distribution does, so that a balancer sends clients elsewhere; what fails is
//! told on the debug address and in the log, never to clients.
//!
//! **Invariant:** a check that hangs is a check that fails. It is not begun again until it has come back, so that dead
//! storage does not collect tasks.
//!
//! Absent on purpose: following redirects and proxies. A check asks the server that it names.

mod config;
mod head;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use http::header::RETRY_AFTER;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

pub use config::{Config, File, Http, INTERVAL, Pace, TIMEOUT, Tcp};

use super::layout;
use super::store::present;
use crate::exchange::{Answer, WireError};
use crate::storage::Driver;

/// How long the storage or a file may keep a check waiting.
const PATIENCE: Duration = Duration::from_secs(30);
/// When clients are told to come back, in seconds: about when the next check has run.
const COME_BACK: &str = "10";

/// The checks and what they found.
#[derive(Debug)]
pub struct Checks {
    config: Config,
    driver: Arc<dyn Driver>,
    /// What fails by its name, and why.
    failing: Mutex<BTreeMap<String, String>>,
}

type Outcome = Result<(), String>;
type Check<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl Checks {
    pub(super) fn new(config: Config, driver: Arc<dyn Driver>) -> Self {
        Self { config, driver, failing: Mutex::default() }
    }

    /// What fails now, by its name, and why.
    pub fn failing(&self) -> BTreeMap<String, String> {
        self.failing.lock().clone()
    }

    /// What every request is told while a check fails.
    pub(super) fn unavailable(&self) -> Option<Answer> {
        if self.failing.lock().is_empty() {
            return None;
        }
        let error = WireError::new("UNAVAILABLE", "service unavailable: a health check of this registry fails");
        let error = error.detail("health check failed: please see /debug/health".into());
        Some(Answer::error(StatusCode::SERVICE_UNAVAILABLE, error).header(RETRY_AFTER, COME_BACK))
    }

    /// Checks until it is dropped.
    pub async fn keep_checking(&self) {
        let Config { storage, files, http, tcp } = &self.config;
        let mut checks: Vec<Check<'_>> = Vec::new();
        if let Some(pace) = storage {
            let check = self.watch("storagedriver_filesystem".to_owned(), *pace, PATIENCE, || self.storage());
            checks.push(Box::pin(check));
        }
        for File { path, pace } in files {
            checks.push(Box::pin(self.watch(path.display().to_string(), *pace, PATIENCE, || absent(path))));
        }
        for server in http {
            let name = format!("{}{}", server.origin, server.path);
            let patience = PATIENCE + server.timeout; // it ends by itself before
            checks.push(Box::pin(self.watch(name, server.pace, patience, || head::check(server))));
        }
        for port in tcp {
            let patience = PATIENCE + port.timeout;
            checks.push(Box::pin(self.watch(port.address.clone(), port.pace, patience, || connects(port))));
        }
        join_all(checks).await;
    }

    /// One check, for ever.
    async fn watch<F>(&self, name: String, pace: Pace, patience: Duration, check: impl Fn() -> F)
    where
        F: Future<Output = Outcome>,
    {
        let mut failures: u32 = 0;
        loop {
            let mut running = pin!(check());
            let outcome = match timeout(patience, &mut running).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    self.fail(&name, format!("no answer within {} s", patience.as_secs_f32()));
                    running.await
                }
            };
            match outcome {
                Ok(()) => {
                    failures = 0;
                    self.succeed(&name);
                }
                Err(reason) => {
                    failures = failures.saturating_add(1);
                    if failures >= pace.threshold {
                        self.fail(&name, reason);
                    }
                }
            }
            sleep(pace.interval).await;
        }
    }

    fn fail(&self, name: &str, reason: String) {
        let mut failing = self.failing.lock();
        if !failing.contains_key(name) {
            tracing::error!(check = name, reason, "a health check fails: requests are refused");
        }
        failing.insert(name.to_owned(), reason);
    }

    fn succeed(&self, name: &str) {
        if self.failing.lock().remove(name).is_some() {
            tracing::info!(check = name, "a health check succeeds again");
        }
    }

    async fn storage(&self) -> Outcome {
        // An empty tree has no such folder.
        let probed = present(self.driver.list(&layout::repositories(""), None, 1).await);
        probed.map(|_| ()).map_err(|error| error.to_string())
    }
}

async fn absent(path: &Path) -> Outcome {
    match tokio::fs::metadata(path).await {
        Ok(_) => Err("file exists".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

async fn connects(port: &Tcp) -> Outcome {
    match timeout(port.timeout, TcpStream::connect(&port.address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("connection failed: {error}")),
        Err(_) => Err("connection failed: it took too long".to_owned()),
    }
}
