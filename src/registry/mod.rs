//! How is a registry's request answered?
//!
//! An [`Endpoint`] says what is asked for, a [`Grant`] who asks; whether the grant suffices was decided before. Each
//! endpoint is a function here: blobs, uploads, manifests, tags, catalog, referrers. All of them read and write through
//! `store.rs` under the keys of `layout.rs`, and fail with an [`Error`], whose table gives the answer.
//!
//! **Invariant:** a request always ends in an [`Answer`], and a client's mistake never in a 500.
//!
//! **Invariant:** whatever changes the tree runs to its end (`to_the_end`) in a task of its own, so that a client that
//! disconnects cannot stop it between two steps while holding the door open for others.
//!
//! Absent on purpose: authentication, and content negotiation but for the one case of `negotiation.rs`: what was pushed is
//! what is served, schema 1 of another program's included.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle};
use tracing::Instrument as _;

use crate::auth::Grant;
use crate::exchange::{Answer, Exchange};
use crate::oci::endpoint::Rejection;
use crate::oci::{Digest, Endpoint};
use crate::storage::Driver;

mod begun;
mod blobs;
mod catalog;
mod config;
mod error;
mod gates;
mod hash_state;
pub mod health;
mod index;
mod intake;
mod layout;
mod location;
mod maintenance;
mod manifests;
mod mounts;
mod negotiation;
mod purge;
mod references;
mod referrers;
mod remembered;
mod store;
mod sweep;
mod tags;
mod turns;
mod uploads;
mod writers;

#[cfg(test)]
mod tests;

pub use begun::Begun;
pub use config::{Config, Limits, Pattern, Platforms, Purge, Secret, Validation};
pub use error::Error;
pub use index::{Counts, Index};
pub use location::Progress;
pub use maintenance::{Maintenance, Mode, Pause, Writing};
pub use purge::Purged;

use gates::Gates;
use manifests::Documents;
use store::{Store, present};
use tags::Pages;
use turns::Turns;
use writers::Writers;

/// How many calls to the driver one request makes at once.
const AT_ONCE: usize = 8;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

const GITLAB_VERSION: HeaderName = HeaderName::from_static("gitlab-container-registry-version");
const GITLAB_FEATURES: HeaderName = HeaderName::from_static("gitlab-container-registry-features");
const GITLAB_DATABASE: HeaderName = HeaderName::from_static("gitlab-container-registry-database-enabled");
/// The version of GitLab's registry that ours was compared to: GitLab tells from it how to talk to us.
const GITLAB_COMPARED_TO: &str = "4.32.0-gitlab";

/// What there is where nothing may change, whatever the path: Distribution does not even look for other methods then.
const READ_METHODS: &str = "GET, HEAD";

/// Why a tree cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ForeignTree {
    /// It belongs to GitLab's registry with a metadata database.
    #[error(
        "the tree {} is in use by GitLab's registry with a metadata database (docker/registry/lockfiles/database-in-use): its tags are \
         there and not in the tree; name another registry.storage.filesystem.rootdirectory, or copy the images over",
        root.display()
    )]
    Database {
        /// The storage root.
        root: std::path::PathBuf,
    },
    /// It cannot be looked at.
    #[error("the registry's storage does not answer: {0}")]
    Storage(#[from] crate::storage::Error),
}

/// The embedded registry.
#[derive(Debug)]
pub struct Registry {
    config: Config,
    store: Store,
    turns: Arc<Turns>,
    gates: Arc<Gates>,
    writers: Arc<Writers>,
    room: Arc<manifests::Room>,
    index: Arc<Index>,
    pages: Arc<Pages>,
    documents: Arc<Documents>,
    scans: Arc<Semaphore>,
    checks: Arc<health::Checks>,
    maintenance: Arc<Maintenance>,
    /// Whether the storage did not answer when it was last asked.
    out: AtomicBool,
}

impl Registry {
    /// A registry on a storage, and what it remembers of it.
    pub fn new(config: Config, driver: Arc<dyn Driver>, index: Index) -> Self {
        Self {
            checks: Arc::new(health::Checks::new(config.health.clone(), driver.clone())),
            maintenance: {
                let maintenance = Maintenance::default();
                maintenance.configure(config.read_only, Timestamp::now(), Duration::ZERO);
                Arc::new(maintenance)
            },
            config,
            writers: Arc::default(),
            room: Arc::default(),
            store: Store::new(driver),
            turns: Arc::default(),
            gates: Arc::new(Gates::new()),
            index: Arc::new(index),
            pages: Arc::new(Pages::new()),
            documents: Arc::new(Documents::new()),
            scans: Arc::new(Semaphore::new(referrers::SCANS)),
            out: AtomicBool::new(false),
        }
    }

    /// The same registry under another configuration: what one of them does, the other minds. The storage, its root and
    /// the health checks are those of the first.
    #[must_use]
    pub fn reconfigured(&self, config: Config) -> Self {
        Self {
            config,
            store: self.store.clone(),
            turns: self.turns.clone(),
            gates: self.gates.clone(),
            writers: self.writers.clone(),
            room: self.room.clone(),
            index: self.index.clone(),
            pages: self.pages.clone(),
            documents: self.documents.clone(),
            scans: self.scans.clone(),
            checks: self.checks.clone(),
            maintenance: self.maintenance.clone(),
            out: AtomicBool::new(false),
        }
    }

    /// Whether the tree says all there is to say of it. GitLab's registry with its metadata database leaves tags and
    /// links out of it: what we would serve is old, and what we would write is never seen there.
    ///
    /// # Errors
    /// Such a tree, or a storage that does not answer.
    pub async fn check_tree(&self) -> Result<(), ForeignTree> {
        match present(self.store.driver().stat(&layout::kept_in_a_database()).await)? {
            None => Ok(()),
            Some(_) => Err(ForeignTree::Database { root: self.config.root.clone() }),
        }
    }

    /// Answers a request that `grant` allows, and writes into the exchange's notes what it was about.
    pub async fn answer<E: Exchange>(&self, endpoint: Endpoint, grant: &Grant, exchange: &mut E) -> Answer {
        let notes = exchange.notes();
        notes.repository = endpoint.repository().map(ToString::to_string);
        notes.reference = endpoint.reference();
        let answered = if endpoint.changes() {
            self.change(endpoint, grant, exchange).await
        } else {
            self.dispatch(endpoint, grant, exchange).await
        };
        let answer = match answered {
            Ok(answer) => answer,
            Err(error) => {
                exchange.notes().failure = Some(error.inside());
                error.answer()
            }
        };
        let digest = answer.headers.get(DOCKER_CONTENT_DIGEST).and_then(|digest| digest.to_str().ok());
        exchange.notes().digest = digest.map(str::to_owned);
        stamped(answer)
    }

    /// The answer to a request that is for no endpoint.
    pub fn reject(&self, rejection: Rejection) -> Answer {
        stamped(match rejection {
            Rejection::MethodNotAllowed { .. } if self.maintenance.configured().is_some() => {
                error::reject(Rejection::MethodNotAllowed { allow: READ_METHODS })
            }
            rejection => error::reject(rejection),
        })
    }

    /// Whether anything may change.
    pub fn maintenance(&self) -> Arc<Maintenance> {
        self.maintenance.clone()
    }

    /// How much may be pushed.
    pub fn limits(&self) -> Limits {
        self.config.limits
    }

    /// The health checks. Somebody must [keep them going](health::Checks::keep_checking).
    pub fn checks(&self) -> Arc<health::Checks> {
        self.checks.clone()
    }

    /// What every request is told while a health check fails, before anybody asks who it is from.
    pub fn unavailable(&self) -> Option<Answer> {
        self.checks.unavailable().map(stamped)
    }

    /// Whether the storage answers and no health check fails; otherwise what anybody may know. The reason is in the log,
    /// once for each outage.
    pub async fn ready(&self) -> Result<(), String> {
        if !self.checks.failing().is_empty() {
            return Err("a health check fails".to_owned());
        }
        // An empty tree has no such folder.
        let probed = present(self.store.driver().list(&layout::repositories(""), None, 1).await);
        let was_out = self.out.swap(probed.is_err(), Ordering::Relaxed);
        match probed {
            Ok(_) => Ok(()),
            Err(error) => {
                if !was_out {
                    tracing::error!(%error, "the registry's storage does not answer");
                }
                Err("the registry's storage does not answer".to_owned())
            }
        }
    }

    /// Answers a request that changes something, if it may, as long as it may.
    async fn change<E: Exchange>(&self, endpoint: Endpoint, grant: &Grant, exchange: &mut E) -> Result<Answer, Error> {
        let writing = Arc::new(self.maintenance.enter(&endpoint, Timestamp::now())?);
        tokio::select! {
            answered = WRITING.scope(writing, self.dispatch(endpoint, grant, exchange)) => answered,
            refusal = self.maintenance.over() => Err(refusal),
        }
    }

    async fn dispatch<E: Exchange>(
        &self,
        endpoint: Endpoint,
        grant: &Grant,
        exchange: &mut E,
    ) -> Result<Answer, Error> {
        match endpoint {
            Endpoint::Version => Ok(self.version()),
            Endpoint::Options { allow } => {
                let allow = if self.maintenance.is_on() { READ_METHODS } else { allow };
                Ok(Answer::new(StatusCode::OK).header(http::header::ALLOW, allow))
            }
            Endpoint::Catalog { page } => self.list_catalog(page).await,
            Endpoint::Tags { name, page } => self.list_tags(name, page).await,
            Endpoint::ManifestRead { name, reference } => self.read_manifest(name, reference, exchange).await,
            Endpoint::ManifestWrite { name, reference, tags } => {
                let _room = self.room.enter(grant, exchange)?;
                self.write_manifest(name, reference, tags, exchange).await
            }
            Endpoint::ManifestDelete { name, reference } => self.delete_manifest(name, reference).await,
            Endpoint::Referrers { name, digest, artifact_types, limit, after } => {
                self.list_referrers(name, digest, artifact_types, limit, after).await
            }
            Endpoint::BlobRead { name, digest } => self.read_blob(name, digest, exchange).await,
            Endpoint::BlobDelete { name, digest } => self.delete_blob(name, digest).await,
            Endpoint::UploadStart { name, mount, digest } => {
                let _place = self.writers.enter(grant, exchange.caller(), self.config.limits.uploads)?;
                self.start_upload(name, mount, digest, grant, exchange).await
            }
            Endpoint::UploadStatus { name, upload } => self.upload_status(name, upload, exchange).await,
            Endpoint::UploadAppend { name, upload } => {
                let _place = self.writers.enter(grant, exchange.caller(), self.config.limits.uploads)?;
                self.append_to_upload(name, upload, exchange).await
            }
            Endpoint::UploadCommit { name, upload, digest } => {
                let _place = self.writers.enter(grant, exchange.caller(), self.config.limits.uploads)?;
                self.commit_upload(name, upload, digest, exchange).await
            }
            Endpoint::UploadCancel { name, upload } => self.cancel_upload(name, upload).await,
        }
    }

    /// end-1: yes, this is a registry; and what GitLab wants to know of one. It has no database as GitLab's may have, so
    /// that GitLab asks for nothing under `/gitlab/v1/`.
    fn version(&self) -> Answer {
        let answer = Answer::new(StatusCode::OK)
            .constant(CONTENT_TYPE, "application/json")
            .constant(GITLAB_VERSION, GITLAB_COMPARED_TO)
            .constant(GITLAB_DATABASE, "false")
            .body("{}");
        let can_delete = self.config.delete && !self.maintenance.is_on();
        if can_delete { answer.constant(GITLAB_FEATURES, "tag_delete") } else { answer }
    }
}

/// What old Docker clients look for before they believe that this is a registry, on every answer.
fn stamped(answer: Answer) -> Answer {
    answer.constant(API_VERSION, "registry/2.0")
}

/// What content is called in an answer, as headers.
#[derive(Debug, Clone)]
struct Named {
    digest: HeaderValue,
    etag: HeaderValue,
}

impl Named {
    /// Both are the same bytes, once with quotation marks.
    #[expect(
        clippy::expect_used,
        reason = "a digest is a word, a colon and hexadecimal digits, which a header may hold"
    )]
    fn new(digest: &Digest) -> Self {
        let quoted = Bytes::from(["\"", digest.as_str(), "\""].concat());
        let bare = quoted.slice(1..quoted.len() - 1);
        let value = |text| HeaderValue::from_maybe_shared(text).expect("a digest can be a header");
        Self { digest: value(bare), etag: value(quoted) }
    }

    /// An answer about the content.
    fn answer(self, status: StatusCode) -> Answer {
        let mut answer = Answer::new(status);
        answer.headers.insert(DOCKER_CONTENT_DIGEST, self.digest);
        answer.headers.insert(ETAG, self.etag);
        answer
    }
}

/// Whether the client has this content already (`If-None-Match`; quoted, weak or bare, as clients write it).
fn is_known_to_client(head: &Parts, digest: &Digest) -> bool {
    let lines = head.headers.get_all(IF_NONE_MATCH).iter().map(HeaderValue::to_str);
    lines.filter_map(Result::ok).flat_map(|line| line.split(',')).map(str::trim).any(|tag| {
        let bare = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
        bare == "*" || bare.parse::<Digest>().as_ref() == Ok(digest)
    })
}

tokio::task_local! {
    /// The request that changes something, for the tasks that go on when it is over.
    static WRITING: Arc<Writing>;
}

/// Runs a change to its end, also when the client that asked for it disconnects and nobody waits for the outcome.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    ended(go_on(change).await)
}

/// A task that changes something. Until it ends it is being written, whatever became of the request: who is told that
/// nobody writes may believe it.
fn go_on<T: Send + 'static>(change: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let writing = WRITING.try_with(Arc::clone).ok();
    let change = async move {
        let _writing = writing;
        change.await
    };
    tokio::spawn(change.in_current_span())
}

/// The outcome of a task. A panic there goes on here.
fn ended<T>(outcome: Result<Result<T, Error>, JoinError>) -> Result<T, Error> {
    match outcome {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::ShuttingDown),
        },
    }
}
