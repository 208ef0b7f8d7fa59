//! Which of several nodes that share a folder orders a certificate?
//!
//! Whoever holds its lease: the file `leases/NAME.N` with the greatest N. To take it is to create the file with the next
//! N, which only one can (`O_EXCL`'s promise, kept by a hard link also over NFS). The holder writes another number into
//! it every [`REFRESH`]. At the end it writes that the lease is free, and the next may take it at once.
//!
//! **A holder that died** is noticed by whoever sees the same content for [`LEASE`] of its own clock that only goes
//! forward. Clocks of nodes are never compared, and those of files never read.
//!
//! **Why one holds it at a time**, as long as holders refresh: a number is created once, for the lower ones are removed
//! only after a higher one was made, and whoever creates one looks once more whether there is a higher one, and if so has
//! nothing. So of all that were created the greatest is the lease.
//!
//! **A slow holder** (a suspended machine, a folder that did not answer) may still believe in its lease when another has
//! taken the next. That does no harm: certificates are replaced as a whole, by whoever comes last, and each is good. It
//! costs an order more than was needed, no more than one, for its file is gone when it refreshes.
//!
//! The content is overwritten in place: NFS asks the server when a file is opened, but may remember for a minute which
//! file has a name. That a reader could see half of it does not matter: it has changed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::storage::blocking;
use crate::storage::durable;

/// So long after its last sign a holder is dead.
pub(super) const LEASE: Duration = Duration::from_secs(60);
/// How often a holder gives a sign.
const REFRESH: Duration = Duration::from_secs(10);

/// One node's view of one certificate's lease.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    folder: PathBuf,
    id: String,
    /// The last content that was seen, of which number, and since when.
    seen: Option<(u64, String, Instant)>,
}

/// A lease that is held, until this is dropped.
#[derive(Debug)]
pub(super) struct Held(Arc<Mutex<Sign>>);

/// What the holder writes.
#[derive(Debug)]
struct Sign {
    file: PathBuf,
    holder: Uuid,
    count: u64,
}

impl Lease {
    /// That of the certificate with this id.
    pub(super) fn of(storage: &Path, id: &str) -> Self {
        Self { folder: storage.join("leases"), id: id.to_owned(), seen: None }
    }

    /// Takes it, unless another holds it. Blocks.
    pub(super) fn take(&mut self, now: Instant) -> io::Result<Option<Held>> {
        let begun = Instant::now();
        durable::make_private_dirs(&self.folder)?;
        let Some(last) = self.numbers()?.into_iter().max() else { return self.create(1) };
        let content = match std::fs::read_to_string(self.file(last)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None), // others are at it
            content => content?,
        };
        if content.starts_with(&Uuid::nil().to_string()) {
            return self.create(last + 1);
        }
        match &self.seen {
            Some((number, before, since)) if *number == last && *before == content => {
                if now.saturating_duration_since(*since) < LEASE {
                    return Ok(None);
                }
                self.create(last + 1)
            }
            _ => {
                // When it was read, that is: the folder may have hung.
                self.seen = Some((last, content, now + begun.elapsed()));
                Ok(None)
            }
        }
    }

    fn create(&mut self, number: u64) -> io::Result<Option<Held>> {
        let sign = Sign { file: self.file(number), holder: Uuid::new_v4(), count: 0 };
        match durable::create(&sign.file, sign.text().as_bytes(), durable::SECRET) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            created => created?,
        }
        let held = Held(Arc::new(Mutex::new(sign)));
        let others = self.numbers()?;
        if others.iter().any(|other| *other > number) {
            return Ok(None); // dropped, and free
        }
        for lower in others.into_iter().filter(|other| *other < number) {
            // What stays is removed by the next; it means nothing.
            let _ = std::fs::remove_file(self.file(lower));
        }
        self.seen = None;
        Ok(Some(held))
    }

    fn file(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{}.{number}", self.id))
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_prefix(&self.id)?.strip_prefix('.')?.parse::<u64>().ok());
            numbers.extend(number);
        }
        Ok(numbers)
    }
}

impl Held {
    /// Does something while giving signs that the lease is held.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            never = self.refresh() => match never {},
        }
    }

    async fn refresh(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(REFRESH).await;
            let sign = Arc::clone(&self.0);
            if let Err(error) = blocking(move || sign.lock().give()).await {
                // Lost, or the folder does not answer: what is under way is brought to its end all the same.
                tracing::debug!(%error, "the lease of a certificate is not refreshed");
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let sign = Arc::clone(&self.0);
        // When it cannot be written, it is over after `LEASE`.
        let release = move || drop(sign.lock().free());
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(release)),
            Err(_) => release(),
        }
    }
}

impl Sign {
    /// Always as long.
    fn text(&self) -> String {
        format!("{} {:020}\n", self.holder, self.count)
    }

    fn give(&mut self) -> io::Result<()> {
        self.count += 1;
        durable::overwrite(&self.file, self.text().as_bytes())
    }

    /// Nobody gives a sign after this: whoever held it is gone.
    fn free(&mut self) -> io::Result<()> {
        self.holder = Uuid::nil();
        self.give()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (tempfile::TempDir, Lease, Lease) {
        let folder = tempfile::tempdir().unwrap();
        let lease = || Lease::of(folder.path(), "a.test");
        let (one, other) = (lease(), lease());
        (folder, one, other)
    }

    fn files(folder: &tempfile::TempDir) -> usize {
        folder.path().join("leases").read_dir().unwrap().count()
    }

    #[test]
    fn one_holds_it_until_it_lets_go() {
        let (folder, mut one, mut other) = two();
        let now = Instant::now();
        let held = one.take(now).unwrap().unwrap();
        assert!(other.take(now).unwrap().is_none() && one.take(now).unwrap().is_none());
        drop(held);
        let held = other.take(now).unwrap().unwrap();
        assert!(one.take(now).unwrap().is_none());
        assert_eq!(files(&folder), 1, "the older ones are removed");
        drop(held);
        assert!(Lease::of(folder.path(), "a").take(now).unwrap().is_some(), "another certificate's");
    }

    #[test]
    fn a_holder_that_died_is_replaced_when_it_gave_no_sign_for_long() {
        let (_folder, mut one, mut other) = two();
        let now = Instant::now();
        let held = one.take(now).unwrap().unwrap();
        assert!(other.take(now).unwrap().is_none());
        assert!(other.take(now + LEASE - Duration::from_secs(1)).unwrap().is_none());
        held.0.lock().give().unwrap();
        assert!(other.take(now + LEASE).unwrap().is_none(), "it lives");
        assert!(other.take(now + 2 * LEASE - Duration::from_secs(1)).unwrap().is_none());
        let next = other.take(now + 2 * LEASE + Duration::from_secs(1)).unwrap().unwrap();
        assert!(held.0.lock().give().is_err(), "the slow one notices");
        drop(held);
        assert!(one.take(now).unwrap().is_none(), "and frees nothing of another's");
        drop(next);
        assert!(one.take(now).unwrap().is_some());
    }

    #[test]
    fn whoever_comes_late_with_a_number_that_is_over_has_nothing() {
        let (_folder, mut one, mut other) = two();
        let now = Instant::now();
        drop(one.take(now).unwrap().unwrap());
        let held = other.take(now).unwrap().unwrap();
        assert!(one.create(1).unwrap().is_none());
        assert!(one.take(now).unwrap().is_none());
        drop(held);
    }

    #[test]
    fn of_many_who_want_it_one_has_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, taken) = (Mutex::new(()), std::sync::atomic::AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut lease = Lease::of(folder.path(), "a.test");
                    let mut mine = 0;
                    while mine < 20 {
                        if let Some(held) = lease.take(Instant::now()).unwrap() {
                            drop(inside.try_lock().unwrap());
                            mine += 1;
                            taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            drop(held);
                        }
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 80);
    }

    #[tokio::test(start_paused = true)]
    async fn signs_are_given_during_long_work_and_none_after() {
        let (_folder, mut one, mut other) = two();
        let held = one.take(Instant::now()).unwrap().unwrap();
        let watch = async {
            for _ in 0..30 {
                assert!(other.take(Instant::now()).unwrap().is_none());
                tokio::time::sleep(REFRESH).await;
            }
        };
        held.during(watch).await;
        drop(held);
        tokio::time::sleep(REFRESH).await;
        assert!(other.take(Instant::now()).unwrap().is_some());
    }
}
