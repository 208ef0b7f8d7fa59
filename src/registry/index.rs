//! Which of a repository's manifests may name this subject?
//!
//! The tree does not say: without an index every manifest is a candidate. With one, what was read of a manifest is kept
//! in the metadata database and read only once, because a digest names its content: **a row never goes stale**. Whether
//! a candidate is still there, and how it is listed, its reader takes from the tree; a row too many does no harm.
//!
//! **Invariant:** a candidate is never missing. Before the database is asked, every revision that lies in the tree has a
//! row, whoever wrote it, we or another program: those without one are read. So no push waits for the database, and none
//! fails with it; a question fails when the database cannot be read, and is never answered with less than there is. Where
//! it cannot be written (its disk is full), what was read counts as if it had a row, and is read again the next time.
//!
//! To list all revisions for each question would cost what the repository holds. So it is remembered that all of a
//! repository have rows, together with the [`Mark`]s of their folders: a new revision is a new folder, and changes its
//! parent's. Three things could pass that by, and are looked after:
//!
//! - Changes within one step of the clock that stamps folders: a mark counts only when it was settled before.
//! - A folder whose link or content is not there yet (another program is writing it, or took the link away and left the
//!   folder): it is remembered as `unread`, and tried again at each question. So is what could not be noted.
//! - Rows that are taken out ([`Registry::reindex`]): the database counts how often that happened.
//!
//! **Invariant:** what is remembered is bounded by [`REMEMBERED`], and what is held while looking by [`LISTED`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use moka::sync::Cache;

use super::referrers::DOCUMENTS;
use super::store::{Store, present};
use super::{Error, Registry, layout, manifests};
use crate::metadata::{self, Database, KnownManifest, MANIFESTS_AT_ONCE};
use crate::oci::{Algorithm, Digest, Manifest, RepositoryName};
use crate::storage::Mark;

/// How many revisions are listed at once: a listing reads the whole folder, however few are wanted.
const LISTED: usize = 10_000;
/// How many repositories and unread revisions are remembered, all in all.
const REMEMBERED: u64 = 100_000;
/// A repository with more unread revisions than this is looked through at each question.
const UNREAD: usize = 10_000;
/// How many repositories are taken from the tree at once.
const REPOSITORIES: usize = 1000;

/// Both kinds of digests, in the order in which digests are listed.
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// What is remembered of the tree.
#[derive(Debug, Default)]
pub struct Index(Option<Indexed>);

#[derive(Debug)]
struct Indexed {
    database: Database,
    complete: Cache<RepositoryName, Arc<Complete>>,
}

/// That every revision of a repository has a row, but for those unread.
#[derive(Debug)]
struct Complete {
    as_of: AsOf,
    unread: Vec<Digest>,
}

/// What must not have changed since.
#[derive(Debug, PartialEq, Eq)]
struct AsOf {
    forgotten: i64,
    /// Of the folders of revisions; `None` for one that is not there.
    marks: [Option<Mark>; 2],
}

impl AsOf {
    fn is_settled(&self, now: SystemTime) -> bool {
        self.marks.iter().flatten().all(|mark| mark.is_settled(now))
    }
}

/// What a question reads that the database cannot take: the first candidates among it, as many as the database would give.
struct Unnoted<'a> {
    subject: &'a Digest,
    after: Option<&'a Digest>,
    candidates: BTreeSet<Digest>,
    /// Whether a write has failed. Then no other is tried for this question: it may wait long for each.
    failed: bool,
}

impl<'a> Unnoted<'a> {
    fn new(subject: &'a Digest, after: Option<&'a Digest>) -> Self {
        Self { subject, after, candidates: BTreeSet::new(), failed: false }
    }

    fn fail(&mut self, error: &metadata::Error) {
        self.failed = true;
        tracing::warn!(%error, "what was read of manifests could not be kept, and is read again at the next question");
    }

    fn add(&mut self, known: KnownManifest) {
        let follows = self.after.is_none_or(|after| known.digest > *after);
        if follows && known.subject.as_ref() == Some(self.subject) {
            self.candidates.insert(known.digest);
            if self.candidates.len() > MANIFESTS_AT_ONCE {
                self.candidates.pop_last();
            }
        }
    }

    /// The first of what was noted and what was not.
    fn merged(self, noted: Vec<Digest>) -> Vec<Digest> {
        if self.candidates.is_empty() {
            return noted;
        }
        let mut all = self.candidates;
        all.extend(noted);
        all.into_iter().take(MANIFESTS_AT_ONCE).collect()
    }
}

/// How far a [`Registry::reindex`] is.
#[derive(Debug, Default)]
pub struct Counts {
    /// Repositories that were looked through.
    pub repositories: AtomicU64,
    /// Manifests that were read.
    pub manifests: AtomicU64,
    /// Revisions without a link, or whose content is gone or damaged.
    pub unreadable: AtomicU64,
}

impl Index {
    /// No memory: every question reads every manifest of its repository.
    pub fn none() -> Self {
        Self::default()
    }

    /// Remembers in the metadata database.
    pub fn in_database(database: Database) -> Self {
        let weigh = |_: &RepositoryName, complete: &Arc<Complete>| {
            u32::try_from(complete.unread.len()).unwrap_or(u32::MAX).saturating_add(1)
        };
        Self(Some(Indexed { database, complete: Cache::builder().weigher(weigh).max_capacity(REMEMBERED).build() }))
    }

    /// Revisions after a digest, in the order of their digests, among which are all that name the subject; none when
    /// there are no more. Each has still to be looked at.
    pub(super) async fn candidates(
        &self,
        store: &Store,
        name: &RepositoryName,
        subject: &Digest,
        after: Option<&Digest>,
    ) -> Result<Vec<Digest>, Error> {
        let Some(index) = &self.0 else { return revisions(store, name, after, MANIFESTS_AT_ONCE).await };
        loop {
            let mut unnoted = Unnoted::new(subject, after);
            let forgotten = index.complete(store, name, &mut unnoted).await?;
            let found = index.database.referring_manifests(name, subject, after).await?;
            // Rows that were taken out in between may be among those that were wanted.
            if index.database.manifests_forgotten().await? == forgotten {
                return Ok(unnoted.merged(found));
            }
        }
    }
}

impl Indexed {
    /// Sees to it that every revision has a row or is among the `unnoted`, and says how often rows had been taken out before.
    async fn complete(&self, store: &Store, name: &RepositoryName, unnoted: &mut Unnoted<'_>) -> Result<i64, Error> {
        // All of it before the first look, so that whatever happens meanwhile is seen the next time.
        let as_of = AsOf { forgotten: self.database.manifests_forgotten().await?, marks: marks(store, name).await? };
        let (forgotten, settled) = (as_of.forgotten, as_of.is_settled(SystemTime::now()));
        let unread = match self.complete.get(name).filter(|complete| complete.as_of == as_of) {
            Some(complete) if complete.unread.is_empty() => return Ok(forgotten),
            Some(complete) => {
                self.learn(store, name, complete.unread.clone(), &Counts::default(), Some(unnoted)).await?
            }
            None => self.learn_all(store, name, &Counts::default(), Some(unnoted)).await?,
        };
        if settled && unread.len() <= UNREAD {
            self.complete.insert(name.clone(), Arc::new(Complete { as_of, unread }));
        }
        Ok(forgotten)
    }

    /// Reads every revision that has no row, and returns those that have none yet, or enough of them to see that there are
    /// too many.
    async fn learn_all(
        &self,
        store: &Store,
        name: &RepositoryName,
        counts: &Counts,
        mut unnoted: Option<&mut Unnoted<'_>>,
    ) -> Result<Vec<Digest>, Error> {
        let (mut unread, mut last) = (Vec::new(), None);
        loop {
            let listed = revisions(store, name, last.as_ref(), LISTED).await?;
            let Some(end) = listed.last() else { return Ok(unread) };
            last = Some(end.clone());
            for digests in listed.chunks(MANIFESTS_AT_ONCE) {
                let unknown = self.database.unknown_manifests(name, digests.to_vec()).await?;
                let mut left = self.learn(store, name, unknown, counts, unnoted.as_deref_mut()).await?;
                left.truncate((UNREAD + 1).saturating_sub(unread.len()));
                unread.append(&mut left);
            }
        }
    }

    /// Reads revisions and notes what they say; returns those that cannot be read, or noted where there is somebody to take
    /// what was not. What was noted stays, also when whoever asked goes away.
    async fn learn(
        &self,
        store: &Store,
        name: &RepositoryName,
        digests: Vec<Digest>,
        counts: &Counts,
        mut unnoted: Option<&mut Unnoted<'_>>,
    ) -> Result<Vec<Digest>, Error> {
        let mut unread = Vec::new();
        let read = stream::iter(digests).map(|digest| async move {
            let known = read(store, name, &digest).await?;
            Ok::<_, Error>((digest, known))
        });
        let mut batches = read.buffered(DOCUMENTS).try_chunks(MANIFESTS_AT_ONCE);
        while let Some(batch) = batches.try_next().await.map_err(|stream::TryChunksError(_, error)| error)? {
            let mut known = Vec::with_capacity(batch.len());
            for (digest, found) in batch {
                match found {
                    Some(found) => known.push(found),
                    None => unread.push(digest),
                }
            }
            if let Some(unnoted) = self.note(name, &known, unnoted.as_deref_mut()).await? {
                unread.extend(known.iter().map(|known| known.digest.clone()));
                known.drain(..).for_each(|known| unnoted.add(known));
            }
            counts.manifests.fetch_add(known.len() as u64, Ordering::Relaxed);
        }
        counts.unreadable.fetch_add(unread.len() as u64, Ordering::Relaxed);
        Ok(unread)
    }

    /// Notes what was read, or gives back who takes it: to answer a question needs no write.
    async fn note<'a, 'b>(
        &self,
        name: &RepositoryName,
        known: &[KnownManifest],
        unnoted: Option<&'a mut Unnoted<'b>>,
    ) -> Result<Option<&'a mut Unnoted<'b>>, Error> {
        match unnoted {
            None => Ok(self.database.note_manifests(name, known).await.map(|()| None)?),
            Some(unnoted) if unnoted.failed => Ok(Some(unnoted)),
            Some(unnoted) => Ok(match self.database.note_manifests(name, known).await {
                Ok(()) => None,
                Err(error) => {
                    unnoted.fail(&error);
                    Some(unnoted)
                }
            }),
        }
    }
}

impl Registry {
    /// Forgets what was read of manifests and reads all of the tree anew. Questions are answered meanwhile, by this
    /// process and by others, and wherever it is stopped they are answered right.
    ///
    /// # Errors
    /// The storage or the database, which leave an index that is not complete, and completes itself when it is asked.
    pub async fn reindex(&self, counts: &Counts) -> Result<(), Error> {
        let Some(index) = &self.index.0 else { return Ok(()) };
        while index.database.forget_manifests().await? {}
        let mut after: Option<RepositoryName> = None;
        loop {
            let names = self.repositories(after.as_ref().map(RepositoryName::as_str), REPOSITORIES).await?;
            let Some(last) = names.last() else { return Ok(()) };
            after = Some(last.clone());
            for name in &names {
                index.learn_all(&self.store, name, counts, None).await?;
                counts.repositories.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The marks of the folders of revisions.
async fn marks(store: &Store, name: &RepositoryName) -> Result<[Option<Mark>; 2], Error> {
    let mut marks = [None; 2];
    for (mark, algorithm) in marks.iter_mut().zip(ALGORITHMS) {
        *mark = present(store.driver().mark(&layout::revisions(name, algorithm)).await)?;
    }
    Ok(marks)
}

/// Revisions after a digest, in the order of their digests, about `limit` of them; none when there are no more.
async fn revisions(
    store: &Store,
    name: &RepositoryName,
    after: Option<&Digest>,
    limit: usize,
) -> Result<Vec<Digest>, Error> {
    for algorithm in ALGORITHMS {
        let mut last = match after {
            Some(after) if after.algorithm() > algorithm => continue,
            Some(after) if after.algorithm() == algorithm => Some(after.hex().to_owned()),
            _ => None,
        };
        loop {
            let listed = store.driver().list(&layout::revisions(name, algorithm), last.as_deref(), limit).await;
            let Some(entries) = present(listed)?.filter(|entries| !entries.is_empty()) else { break };
            last = entries.last().map(|entry| entry.name.clone());
            let digests = entries.into_iter().filter_map(|entry| format!("{algorithm}:{}", entry.name).parse().ok());
            let digests: Vec<Digest> = digests.collect();
            if !digests.is_empty() {
                return Ok(digests);
            }
        }
    }
    Ok(Vec::new())
}

/// What is to be known of a manifest, if it is there.
async fn read(store: &Store, name: &RepositoryName, digest: &Digest) -> Result<Option<KnownManifest>, Error> {
    let Some(bytes) = manifests::read(store, name, digest).await? else { return Ok(None) };
    let Some(link) = present(store.driver().stat(&layout::revision(name, digest)).await)? else { return Ok(None) };
    let length = bytes.len() as u64;
    let (subject, listed) = match manifests::parse(bytes, None).await {
        Ok(Manifest { subject, config, layers, .. }) => {
            let listed = config.iter().chain(&layers).fold(0_u64, |sum, blob| sum.saturating_add(blob.size));
            (subject.map(|subject| subject.digest), listed)
        }
        // What cannot be read as a manifest was not pushed here, and names no subject.
        Err(Error::ManifestInvalid(_)) => (None, 0),
        Err(error) => return Err(error),
    };
    let published_at = Timestamp::try_from(link.modified).unwrap_or_default();
    Ok(Some(KnownManifest { digest: digest.clone(), subject, size: length.saturating_add(listed), published_at }))
}
